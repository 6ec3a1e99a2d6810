//! Two texts, line by line.
//!
//! Laws: the lines that are kept or removed are the old text; those that are kept or added are the new one.

use serde::Serialize;

/// Products of lines that are compared: beyond it, a text is shown as replaced. Half a second's work and 32 MiB at most.
const MOST: usize = 8_000_000;

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Fate {
    Kept,
    Removed,
    Added,
}

/// A line of either text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line<'a> {
    pub(super) fate: Fate,
    pub(super) text: &'a str,
}

/// What is different, with everything that is not.
pub(super) fn lines<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let start = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let rest = (&old[start..], &new[start..]);
    let end = rest.0.iter().rev().zip(rest.1.iter().rev());
    let end = end.take_while(|(old, new)| old == new).count();
    let of = |fate: Fate| move |text: &&'a str| Line { fate, text };
    let mut told: Vec<Line<'a>> = old[..start].iter().map(of(Fate::Kept)).collect();
    let (old_middle, new_middle) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    if old_middle.len().saturating_mul(new_middle.len()) > MOST {
        told.extend(old_middle.iter().map(of(Fate::Removed)));
        told.extend(new_middle.iter().map(of(Fate::Added)));
    } else {
        middle(old_middle, new_middle, &mut told);
    }
    told.extend(old[old.len() - end..].iter().map(of(Fate::Kept)));
    told
}

/// By the longest common subsequence.
fn middle<'a>(old: &[&'a str], new: &[&'a str], told: &mut Vec<Line<'a>>) {
    let width = new.len() + 1;
    // common[i * width + j]: how long the longest one of old[i..] and new[j..] is.
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        let (fate, text) = if i < old.len() && j < new.len() && old[i] == new[j] {
            (Fate::Kept, old[i])
        } else if j == new.len() || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            (Fate::Removed, old[i])
        } else {
            (Fate::Added, new[j])
        };
        i += usize::from(fate != Fate::Added);
        j += usize::from(fate != Fate::Removed);
        told.push(Line { fate, text });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(lines: &[Line<'_>], without: Fate) -> Vec<String> {
        let kept = lines.iter().filter(|line| line.fate != without);
        kept.map(|line| line.text.to_owned()).collect()
    }

    proptest! {
        #[test]
        fn both_texts_are_whole(old in "([abc]\n){0,12}", new in "([abc]\n){0,12}") {
            let told = lines(&old, &new);
            prop_assert_eq!(text(&told, Fate::Added), old.lines().map(str::to_owned).collect::<Vec<_>>());
            prop_assert_eq!(text(&told, Fate::Removed), new.lines().map(str::to_owned).collect::<Vec<_>>());
            if old == new {
                prop_assert!(told.iter().all(|line| line.fate == Fate::Kept));
            }
        }
    }

    #[test]
    fn what_is_common_is_kept() {
        let told = lines("a\nb\nc\nd\n", "a\nc\nx\nd\n");
        let words: Vec<_> = told.iter().map(|line| (line.fate, line.text)).collect();
        assert_eq!(
            words,
            [
                (Fate::Kept, "a"),
                (Fate::Removed, "b"),
                (Fate::Kept, "c"),
                (Fate::Added, "x"),
                (Fate::Kept, "d")
            ]
        );
    }

    #[test]
    fn texts_that_are_too_long_are_told_as_replaced() {
        let old = "a\n".repeat(3000) + "end\n";
        let new = "b\n".repeat(3000) + "end\n";
        let told = lines(&old, &new);
        assert_eq!(told.len(), 6001);
        assert_eq!(told[6000].fate, Fate::Kept);
    }
}
