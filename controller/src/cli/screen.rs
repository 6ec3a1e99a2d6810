//! Where commands print: answers, remarks, and that a long one is still at work.
//!
//! Laws:
//! * where nobody looks on, what is printed is the same bytes whatever the terminal is;
//! * no name reaches a terminal as an instruction to it;
//! * a table is no wider than the terminal that it is shown on, if that has room for eight letters of each column, and unless it is
//!   asked for as wide.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nanoseg_policy::map::{visible, visible_json};
use serde::Serialize;

use super::CommandError;
use super::output::yaml;
use crate::settings::output::{Language, Output};
use crate::settings::terminal::Terminal;

/// Between two columns.
const GAP: usize = 2;

/// Columns are not made narrower than this: less of a name says nothing.
const NARROW: usize = 8;

/// What the last column of a table is given before others are cut: it holds sentences, which go on in the next line.
const SENTENCE: usize = 30;

/// How long something may take before people wonder.
const SHORT: Duration = Duration::from_secs(1);

/// How often what moves is drawn.
const BEAT: Duration = Duration::from_millis(120);

/// Answers on the one hand, remarks on the other.
pub struct Screen<'a> {
    answers: &'a mut dyn Write,
    remarks: &'a mut dyn Write,
    terminal: Terminal,
    busy: Option<Busy>,
}

/// How much there is to do.
#[derive(Clone, Copy)]
pub(super) enum Extent {
    /// Nobody knows.
    Unknown,
    /// So many bytes, or what a pipe gives.
    Bytes(Option<u64>),
    /// So many things.
    Things(usize),
}

/// Something that takes long.
struct Busy {
    bar: ProgressBar,
    /// Whoever waits to show it learns that it is over.
    over: Sender<()>,
}

impl<'a> Screen<'a> {
    /// Usually stdout and stderr.
    pub fn new(answers: &'a mut dyn Write, remarks: &'a mut dyn Write, terminal: Terminal) -> Self {
        Self {
            answers,
            remarks,
            terminal,
            busy: None,
        }
    }

    /// A line of the answer.
    pub(super) fn line(&mut self, line: impl Display) -> Result<(), CommandError> {
        self.idle();
        let line = line.to_string();
        for line in line.split('\n') {
            let line = visible(line);
            let line = match line.split_once(':') {
                Some((word, rest)) => format!("{}:{rest}", self.toned(word)),
                None => line,
            };
            writeln!(self.answers, "{line}")?;
        }
        Ok(())
    }

    /// One thing of the answer, for programs.
    pub(super) fn document(&mut self, language: Language, thing: &impl Serialize) -> Result<(), CommandError> {
        self.idle();
        match language {
            Language::Json => {
                let text = serde_json::to_string(thing).map_err(io::Error::from)?;
                self.answers.write_all(visible_json(&text).as_bytes())?;
                Ok(self.answers.write_all(b"\n")?)
            }
            Language::Yaml => {
                let text = yaml("the answer", thing)?;
                Ok(write!(self.answers, "---\n{text}")?)
            }
        }
    }

    /// The name of one thing of the answer, as kubectl takes it.
    pub(super) fn name(&mut self, resource: &str, name: &str) -> Result<(), CommandError> {
        self.line(format_args!("{resource}/{name}"))
    }

    /// All of the answer.
    pub(super) fn print(&mut self, text: &str) -> Result<(), CommandError> {
        self.idle();
        Ok(self.answers.write_all(text.as_bytes())?)
    }

    /// Columns, the first row being their titles. What is asked for as wide is whole on every terminal.
    pub(super) fn table<const N: usize>(&mut self, output: Output, rows: &[[String; N]]) -> Result<(), CommandError> {
        self.idle();
        let rows: Vec<[String; N]> = rows
            .iter()
            .map(|row| std::array::from_fn(|at| visible(&row[at])))
            .collect();
        let room = self.terminal.columns.filter(|_| output != Output::Wide);
        let widths = widths(&rows, room);
        for (number, row) in rows.iter().enumerate() {
            for line in broken(row, &widths) {
                let mut text = String::new();
                for (cell, width) in line.iter().zip(&widths) {
                    let room = " ".repeat(width.saturating_sub(cell.chars().count()) + GAP);
                    text += &match number {
                        0 => self.title(cell),
                        _ => self.toned(cell),
                    };
                    text += &room;
                }
                writeln!(self.answers, "{}", text.trim_end())?;
            }
        }
        Ok(())
    }

    /// A line of the answer that is not the last thing that is done.
    pub(super) fn at_once(&mut self, line: impl Display) -> Result<(), CommandError> {
        self.line(line)?;
        Ok(self.answers.flush()?)
    }

    /// A remark for whoever watches. Whether anybody reads it changes nothing.
    pub(super) fn remark(&mut self, line: impl Display) {
        let line = line.to_string();
        let lines: Vec<String> = line.split('\n').map(visible).collect();
        let mut write = || drop(writeln!(self.remarks, "{}", lines.join("\n")));
        match &self.busy {
            Some(Busy { bar, .. }) => bar.suspend(write),
            None => write(),
        }
    }

    /// Begins something that may take long, and of which nobody knows how far it is. Whoever looks on sees it once it does.
    pub(super) fn busy(&mut self, what: &'static str) {
        self.busy_with(what, Extent::Unknown);
    }

    /// The same, where [`Self::step`] or what [`Self::watch`] makes tells how far it is.
    pub(super) fn busy_with(&mut self, what: &'static str, extent: Extent) {
        self.idle();
        if !self.terminal.moves {
            return;
        }
        let (total, template) = match extent {
            Extent::Unknown => (None, "{spinner} {msg}, {elapsed}"),
            Extent::Bytes(None) => (
                None,
                "{spinner} {msg}: {binary_bytes} ({binary_bytes_per_sec}), {elapsed}",
            ),
            Extent::Bytes(total @ Some(_)) => (
                total,
                "{spinner} {msg} [{bar:20}] {percent}% of {binary_total_bytes}, {eta} left",
            ),
            Extent::Things(total) => (
                Some(total as u64),
                "{spinner} {msg} [{bar:20}] {human_pos} of {human_len}, {eta} left",
            ),
        };
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden()).with_message(what);
        let style = ProgressStyle::with_template(template).map(|style| style.progress_chars("=> "));
        bar.set_style(style.unwrap_or_else(|_wrong| ProgressStyle::default_spinner()));
        let (over, ended) = channel();
        let shown = bar.clone();
        std::thread::spawn(move || {
            if ended.recv_timeout(SHORT) == Err(RecvTimeoutError::Timeout) {
                shown.set_draw_target(ProgressDrawTarget::stderr());
                shown.enable_steady_tick(BEAT);
            }
        });
        self.busy = Some(Busy { bar, over });
    }

    /// One more of what it is done to.
    pub(super) fn step(&self) {
        if let Some(Busy { bar, .. }) = &self.busy {
            bar.inc(1);
        }
    }

    /// What is read of these bytes is how far it is.
    pub(super) fn watch(&self, bytes: Box<dyn Read>) -> Box<dyn Read> {
        match &self.busy {
            Some(Busy { bar, .. }) => Box::new(bar.wrap_read(bytes)),
            None => bytes,
        }
    }

    /// Nothing takes long any more.
    fn idle(&mut self) {
        if let Some(Busy { bar, over }) = self.busy.take() {
            // Nobody waits any more when it was shown already.
            let _told = over.send(());
            bar.finish_and_clear();
        }
    }

    fn title(&self, word: &str) -> String {
        if self.terminal.colour && !word.is_empty() {
            format!("\u{1b}[1m{word}\u{1b}[0m")
        } else {
            word.to_owned()
        }
    }

    /// A word of ours in its colour. A name that is one of these words gets it too, and means nothing else by it.
    fn toned(&self, word: &str) -> String {
        let colour = match word.trim_end() {
            "Allowed" | "Enforcing" | "allowed" | "good" => 32,
            "Denied" | "Degraded" | "denied" | "would be denied" | "fault" => 31,
            "Unknown" | "Stable" | "unclear" | "opened" | "cannot be decided" | "unknown" => 33,
            "Proposed" | "Auditing" => 36,
            _ => return word.to_owned(),
        };
        if self.terminal.colour {
            format!("\u{1b}[{colour}m{word}\u{1b}[0m")
        } else {
            word.to_owned()
        }
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        self.idle();
    }
}

/// How wide each column is where there is so much room.
fn widths<const N: usize>(rows: &[[String; N]], room: Option<usize>) -> [usize; N] {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let Some((room, last)) = room.zip(N.checked_sub(1)) else {
        return widths;
    };
    let gaps = GAP * last;
    let over = |widths: &[usize; N]| (widths.iter().sum::<usize>() + gaps).saturating_sub(room);
    widths[last] -= over(&widths).min(widths[last].saturating_sub(SENTENCE));
    while over(&widths) > 0 {
        // The widest one says most in what is left of it.
        let widest = widths.iter_mut().max();
        match widest {
            Some(width) if *width > NARROW => *width -= 1,
            _ => break,
        }
    }
    widths
}

/// The lines that a row takes: what is too long for its column is cut, in the last one it goes on in the next line.
fn broken<const N: usize>(row: &[String; N], widths: &[usize; N]) -> Vec<[String; N]> {
    let mut lines: Vec<[String; N]> = vec![std::array::from_fn(|_| String::new())];
    for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
        if at + 1 < N {
            lines[0][at] = cut(cell, *width);
            continue;
        }
        for (number, part) in wrapped(cell, *width).into_iter().enumerate() {
            if number == lines.len() {
                lines.push(std::array::from_fn(|_| String::new()));
            }
            lines[number][at] = part;
        }
    }
    lines
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// A text in lines of so many letters, broken between words where it can be.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    if text.chars().count() <= width {
        return vec![text.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut rest: Vec<char> = word.chars().collect();
        loop {
            let line = lines.len() - 1;
            let used = lines[line].chars().count();
            let space = usize::from(used > 0);
            if used + space + rest.len() <= width {
                if space == 1 {
                    lines[line].push(' ');
                }
                lines[line].extend(rest);
                break;
            }
            if used > 0 {
                lines.push(String::new());
                continue;
            }
            // A word that no line has room for.
            lines[line].extend(rest.drain(..width));
            lines.push(String::new());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(rows: &[[String; 3]], terminal: Terminal) -> String {
        shown_as(Output::Table, rows, terminal)
    }

    fn shown_as(output: Output, rows: &[[String; 3]], terminal: Terminal) -> String {
        let (mut answers, mut remarks) = (Vec::new(), Vec::new());
        Screen::new(&mut answers, &mut remarks, terminal)
            .table(output, rows)
            .unwrap();
        String::from_utf8(answers).unwrap()
    }

    const WIDE: Terminal = Terminal {
        columns: None,
        colour: false,
        moves: false,
    };

    #[test]
    fn a_table_for_nobody_is_whole_and_plain() {
        let rows = [["NAME", "PHASE", "WHY"], ["shop/web", "Denied", "a long sentence"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        assert_eq!(
            shown(&rows, WIDE),
            "NAME      PHASE   WHY\nshop/web  Denied  a long sentence\n"
        );
        let narrow = Terminal {
            columns: Some(26),
            colour: true,
            moves: false,
        };
        let bold = |word: &str| format!("\u{1b}[1m{word}\u{1b}[0m");
        let expected = format!(
            "{}      {}   {}\nshop/web  \u{1b}[31mDenied\u{1b}[0m  a long\n                  sentence\n",
            bold("NAME"),
            bold("PHASE"),
            bold("WHY")
        );
        assert_eq!(shown(&rows, narrow), expected);
        let wide = Terminal {
            columns: narrow.columns,
            ..WIDE
        };
        assert_eq!(shown_as(Output::Wide, &rows, wide), shown(&rows, WIDE));
    }

    #[test]
    fn a_name_is_no_instruction_to_a_terminal() {
        let rows = [["A", "B", "C"], ["\u{1b}]0;owned\u{7}", "\u{202e}x", "a\nb"]].map(|row| row.map(str::to_owned));
        let text = shown(&rows, WIDE);
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
        assert_eq!(text.lines().count(), 2, "{text:?}");
        let (mut answers, mut remarks) = (Vec::new(), Vec::new());
        let mut screen = Screen::new(&mut answers, &mut remarks, WIDE);
        screen.line("a \u{1b}[31mname\nand a line").unwrap();
        screen.remark("note: \u{9b}31m");
        drop(screen);
        assert_eq!(String::from_utf8(answers).unwrap(), "a \\u{1b}[31mname\nand a line\n");
        assert_eq!(String::from_utf8(remarks).unwrap(), "note: \\u{9b}31m\n");
    }

    proptest! {
        #[test]
        fn a_table_fits_its_terminal_and_loses_nothing_of_its_last_column(
            cells in proptest::collection::vec(["[a-z/-]{0,40}", "[a-z]{0,30}", "[a-z ]{0,90}"], 1..5),
            columns in 3 * NARROW + 2 * GAP..120,
        ) {
            let terminal = Terminal { columns: Some(columns), ..WIDE };
            let text = shown(&cells, terminal);
            for line in text.lines() {
                prop_assert!(line.chars().count() <= columns, "{line:?}");
            }
            for row in &cells {
                let widths = widths(&cells, Some(columns));
                let parts: String = broken(row, &widths).iter().map(|line| line[2].clone()).collect();
                prop_assert_eq!(parts.replace(' ', ""), row[2].replace(' ', ""));
            }
        }
    }
}
