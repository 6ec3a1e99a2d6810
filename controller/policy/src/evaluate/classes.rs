//! Which classes of pods a selector means: found without asking each, and kept as sorted numbers.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use super::compiled::Class;
use super::labels::{LabelArena, MeansNothing, Span, Tests};

/// Whether a rule means a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    No,
    /// It depends on what is not known here.
    Perhaps,
    Yes,
}

/// Classes that are meant, in an arena: each is one number, sorted by class, and what is certain before what is not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members(Span);

impl Members {
    pub(super) fn new(arena: &mut Vec<u32>, classes: impl IntoIterator<Item = (u32, Match)>) -> Self {
        let members = classes.into_iter().filter_map(|(class, matched)| match matched {
            Match::No => None,
            Match::Yes => Some(class << 1),
            Match::Perhaps => Some(class << 1 | 1),
        });
        let members = members.collect();
        Self::union(arena, members)
    }

    /// The members of several.
    pub(super) fn union(arena: &mut Vec<u32>, mut members: Vec<u32>) -> Self {
        members.sort_unstable();
        members.dedup();
        Self(Span::push(arena, members))
    }

    pub(super) fn of(self, arena: &[u32]) -> &[u32] {
        self.0.of(arena)
    }

    pub(super) fn matched(self, arena: &[u32], class: u32) -> Match {
        let members = self.of(arena);
        let first = members.partition_point(|member| member >> 1 < class);
        match members.get(first) {
            Some(member) if *member == class << 1 => Match::Yes,
            Some(member) if *member == class << 1 | 1 => Match::Perhaps,
            Some(_) | None => Match::No,
        }
    }
}

/// Finds the classes that a selector could mean.
pub(super) struct ClassIndex {
    having: HashMap<(u32, u32), Vec<u32>, FxBuildHasher>,
    having_anywhere: HashMap<u32, Vec<u32>, FxBuildHasher>,
    in_namespace: HashMap<u32, Vec<u32>, FxBuildHasher>,
    all: Vec<u32>,
}

impl ClassIndex {
    pub(super) fn new(classes: &[Class], labels: &LabelArena<'_>) -> Self {
        let mut index = Self {
            having: HashMap::default(),
            having_anywhere: HashMap::default(),
            in_namespace: HashMap::default(),
            all: Vec::with_capacity(classes.len()),
        };
        for (number, class) in (0..).zip(classes) {
            index.all.push(number);
            index.in_namespace.entry(class.namespace).or_default().push(number);
            for pair in labels.pairs(class.labels) {
                index.having.entry((class.namespace, *pair)).or_default().push(number);
                index.having_anywhere.entry(*pair).or_default().push(number);
            }
        }
        index
    }

    /// Classes, of one namespace or of all, among which are all that the selector means.
    pub(super) fn among(&self, labels: &LabelArena<'_>, pods: Tests, namespace: Option<u32>) -> &[u32] {
        let found = match (labels.required_pair(pods), namespace) {
            (Err(MeansNothing), _) => None,
            (Ok(Some(pair)), Some(namespace)) => self.having.get(&(namespace, pair)),
            (Ok(Some(pair)), None) => self.having_anywhere.get(&pair),
            (Ok(None), Some(namespace)) => self.in_namespace.get(&namespace),
            (Ok(None), None) => Some(&self.all),
        };
        found.map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches() -> impl Strategy<Value = Vec<(u32, Match)>> {
        let matched = prop_oneof![Just(Match::No), Just(Match::Perhaps), Just(Match::Yes)];
        prop::collection::vec((0..8_u32, matched), 0..12)
    }

    proptest! {
        #[test]
        fn of_all_that_is_said_of_a_class_the_strongest_holds(peers in prop::collection::vec(matches(), 0..4)) {
            let mut arena = vec![3, 1];
            let each: Vec<_> = peers.iter().map(|peer| Members::new(&mut arena, peer.iter().copied())).collect();
            let together = each.iter().flat_map(|members| members.of(&arena).to_vec()).collect();
            let together = Members::union(&mut arena, together);
            for class in 0..9 {
                let said = peers.iter().flatten().filter(|(of, _)| *of == class).map(|(_, matched)| *matched);
                prop_assert_eq!(together.matched(&arena, class), said.max().unwrap_or(Match::No));
            }
        }
    }
}
