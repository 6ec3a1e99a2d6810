//! Graphviz.

use super::super::document::Map;
use super::text::visible;
use super::{Known, colours, put};

/// A string of the DOT language whose text is exactly this when it is drawn. In labels a backslash begins an escape and an
/// ampersand an entity.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in visible(text).chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '&' => quoted.push_str("&amp;"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// The map in the DOT language: groups as clusters, each edge with its port and its state.
pub fn dot(map: &Map) -> String {
    let known = Known::of(map);
    let mut text = String::from(
        "digraph map {\n  graph [rankdir=LR, compound=true, fontname=\"sans-serif\"];\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\", fontsize=9];\n",
    );
    let mut add = |line: std::fmt::Arguments<'_>| put(&mut text, line);
    for (number, group) in map.groups.iter().enumerate() {
        add(format_args!(
            "  subgraph cluster_{number} {{\n    label={};\n",
            quoted(&group.title)
        ));
        for party in map.parties.iter().filter(|party| party.group == group.id) {
            let words = known.words(&party.id);
            add(format_args!(
                "    {} [label={}, tooltip={}];\n",
                quoted(&party.id),
                quoted(&party.title),
                quoted(&words)
            ));
        }
        add(format_args!("  }}\n"));
    }
    for edge in &map.edges {
        let style = if colours::is_dashed(edge.state) {
            "dashed"
        } else {
            "solid"
        };
        // Who of a node it was, beside its end of the line.
        let mut processes = String::new();
        for (end, told) in ["taillabel", "headlabel"].into_iter().zip(edge.processes()) {
            if !told.is_empty() {
                put(&mut processes, format_args!(", {end}={}", quoted(&told.join(", "))));
            }
        }
        add(format_args!(
            "  {} -> {} [label={}, color=\"{}\", style={style}, tooltip={}{processes}];\n",
            quoted(&edge.source),
            quoted(&edge.destination),
            quoted(&format!("{} {}", edge.protocol, edge.port)),
            colours::of(edge.state),
            quoted(edge.state.words()),
        ));
    }
    text.push_str("}\n");
    text
}
