//! `nanoseg audit`.

use nanoseg_policy::audit::{self, Audit, Finding, audit_each};
use serde_json::json;

use super::input::Input;
use super::output::{Extent, Screen, connection_words, counted, edge_json, edge_words, isolating};
use super::segments::propose;
use super::{CommandError, Found};
use crate::settings::commands::AuditArguments;
use crate::settings::output::Output;

/// Which recorded flows would be denied, and why.
pub fn audit_flows(arguments: &AuditArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    let AuditArguments {
        input: from,
        flows,
        policies,
        proposals,
        output,
    } = arguments;
    let others = [&flows.flows[..], &proposals.segments.files].concat();
    let mut input = Input::read(from, &policies.policies, &others, screen)?;
    propose(proposals, from, &mut input, screen)?;
    let policies = input.policies(screen);
    let graph = input.graph(&flows.flows, screen)?;
    input.faults.settle(screen)?;
    screen.busy_with("asking about every edge", Extent::Things(graph.len()));
    let Audit {
        denied,
        undecided,
        permitted,
    } = audit_each(&graph, &policies, &input.cluster, || screen.step());
    for Finding {
        edge,
        connection,
        why,
        denied,
        pairs,
    } in &denied
    {
        match output {
            Output::Table | Output::Wide | Output::Name => {
                screen.line(format_args!("denied: {}", edge_words(edge)))?;
                let example = connection_words(connection);
                let pairs = counted(*pairs, "pair", "pairs");
                screen.line(format_args!("  {denied} of {pairs}, for example {example}"))?;
                for why in why {
                    screen.line(format_args!("  {why}"))?;
                }
            }
            Output::Document(language) => {
                let mut line = edge_json(edge);
                line["verdict"] = "Denied".into();
                line["from"] = connection.source.to_string().into();
                line["to"] = connection.destination.to_string().into();
                line["pairs"] = json!(pairs);
                line["deniedPairs"] = json!(denied);
                line["reasons"] = why.iter().map(ToString::to_string).collect();
                line["isolatedBy"] = json!(isolating(why));
                screen.document(*language, &line)?;
            }
        }
    }
    for (edge, why) in &undecided {
        let reason = match why {
            audit::Why::NoEnds(why) => why.to_string(),
            audit::Why::Unknown(why) => why.to_string(),
        };
        match output {
            Output::Table | Output::Wide | Output::Name => {
                screen.remark(format_args!("note: cannot be decided: {}: {reason}", edge_words(edge)));
            }
            Output::Document(language) => {
                let mut line = edge_json(edge);
                line["verdict"] = "Unknown".into();
                line["reasons"] = json!([reason]);
                screen.document(*language, &line)?;
            }
        }
    }
    if *output == Output::Table {
        screen.line(format_args!(
            "{}: {} denied, {} cannot be decided, {permitted} permitted",
            counted(graph.len(), "edge", "edges"),
            denied.len(),
            undecided.len()
        ))?;
    }
    Ok(Found::when(!denied.is_empty()))
}
