//! Lines of the log, whatever names they hold.
//!
//! Law: what is written as one line is one line, of characters that are seen. What a name would do to a terminal, or to whoever reads
//! lines, is written out; JSON reads back as what it was.

use std::io::{self, Write};

use nanoseg::settings::LogFormat;
use nanoseg_policy::map::{visible, visible_json};
use tracing_subscriber::fmt::MakeWriter;

/// What begins a colour on a terminal.
const COLOUR: &str = "\u{1b}[";

/// The colours of the formatter. A name that holds one as well does no more than have it.
const COLOURS: [&str; 9] = ["0m", "1m", "2m", "3m", "31m", "32m", "33m", "34m", "35m"];

/// Writes lines to stderr.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    pub(crate) format: LogFormat,
    pub(crate) coloured: bool,
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

impl Write for Lines {
    /// An event is written at once.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let mut line = line(*self, text.trim_end_matches('\n'));
        line.push('\n');
        io::stderr().write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn line(Lines { format, coloured }: Lines, text: &str) -> String {
    match format {
        LogFormat::Json => visible_json(text).into_owned(),
        LogFormat::Text if !coloured => visible(text),
        LogFormat::Text => {
            let mut pieces = text.split(COLOUR);
            let first = visible(pieces.next().unwrap_or_default());
            pieces.fold(first, |line, piece| {
                let is_colour = COLOURS.iter().any(|colour| piece.starts_with(colour));
                let begins = if is_colour { COLOUR.to_owned() } else { visible(COLOUR) };
                line + &begins + &visible(piece)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_of_characters_that_are_seen() {
        let text = |coloured, event| {
            let format = LogFormat::Text;
            line(Lines { format, coloured }, event)
        };
        let event = "\u{1b}[33m WARN\u{1b}[0m a\nb \u{202e}c\u{1b}[2J\u{1b}]0;d\u{7}";
        let seen = "a\\u{a}b \\u{202e}c\\u{1b}[2J\\u{1b}]0;d\\u{7}";
        assert_eq!(text(true, event), format!("\u{1b}[33m WARN\u{1b}[0m {seen}"));
        assert_eq!(text(false, event), format!("\\u{{1b}}[33m WARN\\u{{1b}}[0m {seen}"));
        let event = serde_json::json!({ "name": "a\nb \u{202e}\u{9b}\u{e0041}" }).to_string();
        let json = Lines {
            format: LogFormat::Json,
            coloured: true,
        };
        let line = line(json, &event);
        assert_eq!(line, r#"{"name":"a\nb \u202e\u009b\udb40\udc41"}"#);
    }
}
