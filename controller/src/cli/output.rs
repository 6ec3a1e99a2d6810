//! What commands print, in words and as JSON.

use nanoseg_graph::connection::EdgeKey;
use nanoseg_policy::evaluate::{Connection, Denial, Verdict};
pub(super) use nanoseg_policy::map::counted;
use serde::Serialize;
use serde_json::{Value, json};

use super::CommandError;
pub(super) use super::screen::Extent;
pub use super::screen::Screen;
use crate::segment::{Known, to_edges};

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

/// A row of as many cells as it is to have.
pub(super) fn padded<const N: usize>(cells: impl Iterator<Item = String>) -> [String; N] {
    let mut row = [const { String::new() }; N];
    for (place, cell) in row.iter_mut().zip(cells) {
        *place = cell;
    }
    row
}
