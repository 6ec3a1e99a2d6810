//! Markdown with tables (GFM), for pull requests and wikis.

use super::super::change::Changes;
use super::super::document::Map;
use super::put;
use super::tables::{self, Cell, Table};
use super::text::visible;

/// A name as code: the one form in which Markdown looks for nothing in a text. What would end it or the cell is written out.
fn code(text: &str) -> String {
    let text = visible(text).replace('`', "\\u{60}").replace('|', "\\u{7c}");
    // At its ends code loses a space, and of nothing it is none.
    if text.trim().is_empty() {
        String::new()
    } else {
        format!("` {text} `")
    }
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Words(text) => text.clone(),
        Cell::Name(text) => code(text),
    }
}

/// The map as a document.
pub fn markdown(map: &Map, changes: Option<&Changes>) -> String {
    let mut text = String::from("# Segmentation map\n");
    for Table {
        title,
        empty,
        head,
        rows,
    } in tables::all(map, changes)
    {
        put(&mut text, format_args!("\n## {title}\n\n"));
        if rows.is_empty() {
            put(&mut text, format_args!("{empty}\n"));
            continue;
        }
        put(
            &mut text,
            format_args!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len())),
        );
        for row in rows {
            let cells: Vec<String> = row.iter().map(cell).collect();
            put(&mut text, format_args!("| {} |\n", cells.join(" | ")));
        }
    }
    text
}
