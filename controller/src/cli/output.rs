//! Where commands print, and how.

use std::fmt::Display;
use std::io::{self, Write};

use nanoseg_graph::connection::EdgeKey;
use nanoseg_policy::evaluate::{Connection, Denial, Verdict};
use serde::Serialize;
use serde_json::{Value, json};

use super::CommandError;
use crate::segment::{Known, to_edges};

/// Answers on the one hand, remarks on the other.
pub struct Screen<'a> {
    answers: &'a mut dyn Write,
    remarks: &'a mut dyn Write,
}

impl<'a> Screen<'a> {
    /// Usually stdout and stderr.
    pub fn new(answers: &'a mut dyn Write, remarks: &'a mut dyn Write) -> Self {
        Self { answers, remarks }
    }

    /// A line of the answer.
    pub(super) fn line(&mut self, line: impl Display) -> Result<(), CommandError> {
        Ok(writeln!(self.answers, "{line}")?)
    }

    /// A line of the answer, as JSON.
    pub(super) fn json(&mut self, line: &impl Serialize) -> Result<(), CommandError> {
        serde_json::to_writer(&mut *self.answers, line).map_err(io::Error::from)?;
        Ok(self.answers.write_all(b"\n")?)
    }

    /// All of the answer.
    pub(super) fn print(&mut self, text: &str) -> Result<(), CommandError> {
        Ok(self.answers.write_all(text.as_bytes())?)
    }

    /// Columns.
    pub(super) fn table<const N: usize>(&mut self, rows: &[[String; N]]) -> Result<(), CommandError> {
        let mut widths = [0; N];
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            self.line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
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
        drop(writeln!(self.remarks, "{line}"));
    }
}

pub(super) fn yaml(what: &'static str, object: &impl Serialize) -> Result<String, CommandError> {
    serde_yaml::to_string(object).map_err(|error| CommandError::Format {
        what,
        reason: error.to_string(),
    })
}

/// The combined verdict in a word: nobody cares which of two reasons allows.
pub(crate) const fn combined_word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed(_) | Verdict::NotIsolated => "Allowed",
        Verdict::Denied(_) => "Denied",
        Verdict::Unknown(_) => "Unknown",
    }
}

/// One direction's verdict in a word.
pub(crate) const fn direction_word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::NotIsolated => "NotIsolated",
        Verdict::Allowed(_) | Verdict::Denied(_) | Verdict::Unknown(_) => combined_word(verdict),
    }
}

/// What decided: the rules that allow, or the policies that isolate.
pub(crate) fn by(verdict: &Verdict) -> Vec<String> {
    match verdict {
        Verdict::Allowed(by) => by.iter().map(ToString::to_string).collect(),
        Verdict::Denied(why) => isolating(why),
        Verdict::NotIsolated | Verdict::Unknown(_) => Vec::new(),
    }
}

pub(super) fn isolating(why: &[Denial]) -> Vec<String> {
    why.iter().flat_map(Denial::policies).map(ToString::to_string).collect()
}

pub(super) fn edge_words(
    EdgeKey {
        source,
        destination,
        port,
        transport,
    }: &EdgeKey,
) -> String {
    format!("{source} -> {destination} {transport} {port}")
}

pub(crate) fn connection_words(
    Connection {
        source,
        destination,
        port,
        transport,
    }: &Connection,
) -> String {
    format!("{source} -> {destination} {transport} {port}")
}

pub(super) fn edge_json(edge: &EdgeKey) -> Value {
    let line = json!(to_edges([(edge, &Known::default())]).pop());
    if line.is_object() { line } else { json!({}) }
}

/// A number with its noun.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
