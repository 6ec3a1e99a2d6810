//! A map in the forms that other programs read.
//!
//! Laws:
//! * names are texts in every form, whatever they are made of: they end no string, no cell and no element, start no formula, no
//!   link and no script;
//! * equal maps are equal bytes.

mod colours;
mod dot;
mod graphml;
mod html;
mod markdown;
mod mermaid;
mod svg;
mod table;
mod tables;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

pub use dot::dot;
pub use graphml::graphml;
pub use html::html;
pub use markdown::markdown;
pub use mermaid::mermaid;
pub use svg::svg;
pub use table::csv;
pub use text::{visible, visible_json};

use super::document::{Edge, Map, Party, Who};

/// Appends to a text.
fn put(text: &mut String, what: fmt::Arguments<'_>) {
    let written = text.write_fmt(what);
    debug_assert!(written.is_ok(), "writing to a string cannot fail");
}

/// What to call a party where its group is not drawn.
fn words(party: &Party) -> String {
    match &party.who {
        Who::Workload(workload) => format!("{} {}/{}", workload.kind, workload.namespace, workload.name),
        Who::Service { namespace, name, .. } => format!("Service {namespace}/{name}"),
        Who::Node { name, .. } => format!("Node {name}"),
        Who::External { address, names } => match names.first() {
            Some(name) => format!("external {name} ({address})"),
            None => format!("external {address}"),
        },
        Who::Unknown {
            address: Some(address), ..
        } => format!("unknown {address}"),
        Who::Unknown { reason, address: None } => format!("unknown ({})", reason.explain()),
    }
}

/// What to write at the line of a connection: its port, and who of a node it was.
fn beside(edge: &Edge) -> String {
    let mut text = format!("{} {}", edge.protocol, edge.port);
    for (did, processes) in ["opened by", "listened to by"].into_iter().zip(edge.processes()) {
        if !processes.is_empty() {
            put(&mut text, format_args!(", {did} {}", processes.join(", ")));
        }
    }
    text
}

/// The parties of a map by id.
struct Known<'a>(BTreeMap<&'a str, &'a Party>);

impl<'a> Known<'a> {
    fn of(map: &'a Map) -> Self {
        Self(map.parties.iter().map(|party| (party.id.as_str(), party)).collect())
    }

    fn party(&self, id: &str) -> Option<&'a Party> {
        self.0.get(id).copied()
    }

    /// What to call the source of a connection and its destination, with who of a node it was.
    fn ends(&self, edge: &Edge) -> [String; 2] {
        let [opened, listened] = edge.processes();
        [(&edge.source, opened), (&edge.destination, listened)].map(|(id, processes)| {
            let words = self.words(id);
            match processes {
                [] => words,
                processes => format!("{words} ({})", processes.join(", ")),
            }
        })
    }

    /// What to call one; its id if it is not of this map.
    fn words(&self, id: &str) -> String {
        self.party(id).map_or_else(|| id.to_owned(), words)
    }
}
