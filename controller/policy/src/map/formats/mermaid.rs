//! Mermaid, as code hosts and wikis draw it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::document::{Map, State};
use super::text::visible;
use super::{beside, colours, put};

/// A text of which Mermaid takes no character for its own: all but plain letters and digits as codes, which it draws as what
/// they mean.
fn coded(text: &str) -> String {
    let mut coded = String::new();
    for character in visible(text).chars() {
        if character.is_ascii_alphanumeric() || "./: -".contains(character) {
            coded.push(character);
        } else {
            // Writing to a string cannot fail.
            let _written = write!(coded, "#{};", u32::from(character));
        }
    }
    coded
}

/// The map as a flowchart.
pub fn mermaid(map: &Map) -> String {
    let mut text = String::from("flowchart LR\n");
    let mut add = |line: std::fmt::Arguments<'_>| put(&mut text, line);
    let numbers: BTreeMap<&str, usize> = map
        .parties
        .iter()
        .enumerate()
        .map(|(number, party)| (party.id.as_str(), number))
        .collect();
    for (number, group) in map.groups.iter().enumerate() {
        add(format_args!("  subgraph g{number}[\"{}\"]\n", coded(&group.title)));
        for party in map.parties.iter().filter(|party| party.group == group.id) {
            let party_number = numbers.get(party.id.as_str()).copied().unwrap_or_default();
            add(format_args!("    p{party_number}[\"{}\"]\n", coded(&party.title)));
        }
        add(format_args!("  end\n"));
    }
    let mut of_state: BTreeMap<State, Vec<String>> = BTreeMap::new();
    for (number, edge) in map.edges.iter().enumerate() {
        let ends = (
            numbers.get(edge.source.as_str()),
            numbers.get(edge.destination.as_str()),
        );
        let (Some(source), Some(destination)) = ends else {
            continue;
        };
        let arrow = if colours::is_dashed(edge.state) { "-.->" } else { "-->" };
        add(format_args!(
            "  p{source} {arrow}|\"{}\"| p{destination}\n",
            coded(&beside(edge))
        ));
        of_state.entry(edge.state).or_default().push(number.to_string());
    }
    for (state, edges) in of_state {
        add(format_args!(
            "  linkStyle {} stroke:{}\n",
            edges.join(","),
            colours::of(state)
        ));
    }
    text
}
