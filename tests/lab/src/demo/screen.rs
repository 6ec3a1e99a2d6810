//! What the demo prints: with colour and a line of progress on a terminal, as plain lines elsewhere.

use std::io::{IsTerminal, Write};

const BOLD: &str = "1";
const GREEN: &str = "32";
const RED: &str = "31";
const DIM: &str = "2";
const BAR: usize = 30;
/// Lines of progress where there is no terminal: one for every so much of the whole.
const TENTHS: f32 = 4.0;

pub(crate) struct Screen {
    terminal: bool,
    colour: bool,
    steps: usize,
    /// How much of the progress was printed, where there is no terminal.
    printed: f32,
    /// Whether the cursor is behind a line of progress.
    in_progress: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        // The convention of no-color.org.
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            terminal,
            colour,
            steps: 0,
            printed: 0.0,
            in_progress: false,
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Nobody may be listening any more, which is no reason to leave a lab behind.
    fn print(&mut self, text: &str) {
        let mut out = std::io::stdout().lock();
        if self.in_progress {
            drop(write!(out, "\r\x1b[K"));
            self.in_progress = false;
        }
        drop(writeln!(out, "{text}"));
        drop(out.flush());
    }

    pub(crate) fn title(&mut self, text: &str) {
        let text = self.paint(BOLD, text);
        self.print(&format!("\n{text}"));
    }

    pub(crate) fn step(&mut self, name: &str, text: &str) {
        self.steps += 1;
        let name = self.paint(BOLD, &format!("{}  {name:<16}", self.steps));
        self.print(&format!("\n{name} {text}"));
    }

    pub(crate) fn detail(&mut self, text: &str) {
        self.print(format!("   {text}").trim_end());
    }

    pub(crate) fn news(&mut self, text: &str) {
        let sign = self.paint(GREEN, "+");
        self.print(&format!("   {sign} {text}"));
    }

    pub(crate) fn alarm(&mut self, text: &str) {
        let sign = self.paint(RED, "would be denied");
        self.print(&format!("   {sign}  {text}"));
    }

    pub(crate) fn text(&mut self, text: &str) {
        for line in text.lines() {
            let line = self.paint(DIM, line);
            self.print(&format!("     {line}"));
        }
    }

    pub(crate) fn command(&mut self, command: &str, about: &str) {
        let about = self.paint(DIM, &format!("# {about}"));
        self.print(&format!("  {about}\n  {command}"));
    }

    /// `done` is from 0 to 1, and may be more.
    pub(crate) fn progress(&mut self, done: f32, text: &str) {
        let done = done.clamp(0.0, 1.0);
        if self.terminal {
            let mut out = std::io::stdout().lock();
            let full = (0..BAR).map(|part| {
                if f64::from(u32::try_from(part).unwrap_or(0)) < f64::from(done) * 30.0 {
                    '#'
                } else {
                    '.'
                }
            });
            let bar: String = full.collect();
            drop(write!(out, "\r\x1b[K   [{bar}] {text}"));
            drop(out.flush());
            self.in_progress = true;
        } else if done >= self.printed + 1.0 / TENTHS {
            self.printed = done;
            self.print(&format!("   {:.0} % of the time, {text}", done * 100.0));
        }
    }

    pub(crate) fn end_progress(&mut self) {
        if self.in_progress {
            let mut out = std::io::stdout().lock();
            drop(write!(out, "\r\x1b[K"));
            drop(out.flush());
            self.in_progress = false;
        }
    }
}
