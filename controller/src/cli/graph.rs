//! `nanoseg graph`.

use jiff::Timestamp;
use nanoseg_graph::endpoint::Endpoint;
use nanoseg_graph::flow::{Outcome, Reporter, Tally};
use nanoseg_graph::recorded::UNTIMED;
use serde_json::json;

use super::input::Input;
use super::output::{Screen, edge_json, padded};
use super::{CommandError, Found};
use crate::settings::commands::GraphArguments;
use crate::settings::output::Output;

const HEAD: [&str; 7] = ["SOURCE", "DESTINATION", "PORT", "OUTCOME", "VIA", "SEEN BY", "COUNT"];

/// Who connects to whom.
pub fn graph(arguments: &GraphArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    let GraphArguments { input, flows, output } = arguments;
    let mut input = Input::read(input, &[], &flows.flows, screen)?;
    let graph = input.graph(&flows.flows, screen)?;
    input.faults.settle(screen)?;
    let mut rows = vec![HEAD.map(str::to_owned)];
    let wide_head = HEAD.into_iter().chain(["FIRST SEEN", "LAST SEEN"]);
    let mut wide_rows: Vec<[String; 9]> = vec![padded(wide_head.map(str::to_owned))];
    for (edge, evidence) in graph.edges() {
        let outcome = match evidence.outcome() {
            Outcome::Attempted => "attempted",
            Outcome::Unanswered => "unanswered",
            Outcome::Refused => "refused",
            Outcome::Established => "established",
        };
        let reporters: Vec<&str> = evidence
            .reporters()
            .into_iter()
            .map(|reporter| match reporter {
                Reporter::Source => "source",
                Reporter::Destination => "destination",
            })
            .collect();
        let via: Vec<String> = evidence
            .via
            .iter()
            .map(|service| format!("{}/{}", service.namespace, service.name))
            .collect();
        // Both ends count the same connections: the larger count is the better one.
        let tallies = [Reporter::Source, Reporter::Destination].map(|reporter| evidence.tally(reporter));
        let count = tallies
            .iter()
            .flatten()
            .map(|tally| tally.attempted.max(tally.established))
            .max()
            .unwrap_or(0);
        let is_older = tallies.iter().flatten().all(Tally::is_older);
        let names: Vec<String> = graph
            .names(edge.source, edge.destination)
            .iter()
            .map(ToString::to_string)
            .collect();
        let [by_source, by_destination] = [Reporter::Source, Reporter::Destination].map(|end| {
            let processes = graph.processes(edge, end).iter();
            processes.map(ToString::to_string).collect::<Vec<_>>()
        });
        let times = |of: fn(&Tally) -> Timestamp| {
            let times = tallies.iter().flatten().map(of);
            times.filter(|time| *time != UNTIMED).collect::<Vec<_>>()
        };
        let first_seen = times(|tally| tally.first_seen).into_iter().min();
        let last_seen = times(|tally| tally.last_seen).into_iter().max();
        if let Output::Document(language) = output {
            let mut line = edge_json(&edge.key());
            line["outcome"] = outcome.into();
            line["via"] = via.into();
            if !names.is_empty() {
                line["names"] = names.into();
            }
            for (field, processes) in [("sourceProcesses", by_source), ("destinationProcesses", by_destination)] {
                if !processes.is_empty() {
                    line[field] = processes.into();
                }
            }
            line["seenBy"] = reporters.into();
            line["count"] = count.into();
            // Only where it is so: nobody has to know of it otherwise.
            if is_older {
                line["begunBefore"] = true.into();
            }
            line["firstSeen"] = json!(first_seen);
            line["lastSeen"] = json!(last_seen);
            screen.document(*language, &line)?;
            continue;
        }
        let row = [
            called(edge.source, &by_source),
            // Only what is outside has names, and only a node processes.
            called(
                edge.destination,
                if names.is_empty() { &by_destination } else { &names },
            ),
            format!("{} {}", edge.transport, edge.port),
            if is_older {
                format!("{outcome} before")
            } else {
                outcome.to_owned()
            },
            via.join(","),
            reporters.join(","),
            count.to_string(),
        ];
        let seen = [first_seen, last_seen].map(|time| time.map(|time| time.to_string()).unwrap_or_default());
        wide_rows.push(padded(row.iter().cloned().chain(seen)));
        rows.push(row);
    }
    match output {
        Output::Document(_) => Ok(()),
        Output::Wide => screen.table(*output, &wide_rows),
        Output::Table | Output::Name => screen.table(*output, &rows),
    }?;
    Ok(Found::Nothing)
}

/// An end of an edge, with what is told beside it.
fn called(end: &Endpoint, words: &[String]) -> String {
    if words.is_empty() {
        end.to_string()
    } else {
        format!("{end} ({})", words.join(", "))
    }
}
