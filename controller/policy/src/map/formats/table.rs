//! Comma-separated values (RFC 4180), for spreadsheets.

use super::super::change::Changes;
use super::super::document::Map;
use super::text::visible;
use super::{Known, tables};

/// A cell that a spreadsheet takes for a text. What begins as a formula does gets an apostrophe before it, as people write it
/// themselves; what they see is the name.
fn cell(text: &str) -> String {
    let text = visible(text);
    let starts = text.trim_start().chars().next();
    let formula = matches!(
        starts,
        Some('=' | '+' | '-' | '@' | '|' | '%' | '＝' | '＋' | '－' | '＠')
    );
    if formula { format!("'{text}") } else { text }
}

/// Writes rows.
fn rows(rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut writer = csv::WriterBuilder::new().flexible(false).from_writer(Vec::new());
    for row in rows {
        let written = writer.write_record(row.iter().map(|text| cell(text)));
        debug_assert!(
            written.is_ok(),
            "every row has as many cells, and memory takes all of them"
        );
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

const HEAD: [&str; 18] = [
    "id",
    "source",
    "destination",
    "port",
    "protocol",
    "state",
    "live",
    "proposed",
    "outcome",
    "connections",
    "first seen",
    "last seen",
    "evidence",
    "via",
    "names",
    "decided by",
    "proposal decided by",
    "suspicion",
];

/// One row for each connection; with changes, one row for each of those instead.
pub fn csv(map: &Map, changes: Option<&Changes>) -> String {
    let known = Known::of(map);
    if let Some(changes) = changes {
        let table = tables::changed(changes, &known);
        let head = table.head.iter().map(|title| (*title).to_owned()).collect();
        let cells = table
            .rows
            .iter()
            .map(|row| row.iter().map(|cell| cell.text().to_owned()).collect());
        return rows(std::iter::once(head).chain(cells));
    }
    let head = HEAD.map(str::to_owned).to_vec();
    let edges = map.edges.iter().map(|edge| {
        let observed = edge.observed.as_ref();
        let [source, destination] = known.ends(edge);
        let told = |tell: &dyn Fn(&super::super::document::Observed) -> String| observed.map(tell).unwrap_or_default();
        vec![
            edge.id.clone(),
            source,
            destination,
            edge.port.to_string(),
            edge.protocol.to_string(),
            edge.state.as_str().to_owned(),
            tables::answer(edge.live.answer).to_owned(),
            edge.proposed
                .as_ref()
                .map(|judgement| tables::answer(judgement.answer))
                .unwrap_or_default()
                .to_owned(),
            told(&|observed| format!("{:?}", observed.outcome)),
            told(&|observed| observed.connections().to_string()),
            told(&|observed| tables::time(observed.first_seen)),
            told(&|observed| tables::time(observed.last_seen)),
            tables::evidence(edge),
            told(&|observed| observed.via.join(", ")),
            told(&|observed| observed.names.join(", ")),
            tables::decides(&edge.live),
            edge.proposed.as_ref().map(tables::decides).unwrap_or_default(),
            edge.suspicion.clone().unwrap_or_default(),
        ]
    });
    rows(std::iter::once(head).chain(edges))
}
