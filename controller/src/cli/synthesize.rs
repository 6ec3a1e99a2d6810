//! `nanoseg synthesize`.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::connection::ConnectionGraph;
use nanoseg_graph::endpoint::{Endpoint, Workload};
use nanoseg_policy::direction::{Direction, Port};
use nanoseg_policy::ownership::is_owned;
use nanoseg_policy::synthesize::{NamedService, Note, Proposal, Refusal, Synthesizer};
use nanoseg_policy::verify::{Accepted, Candidate, Others, accept_each};
use serde::Serialize;

use super::input::Input;
use super::output::{Extent, Screen, counted};
use super::{CommandError, Found};
use crate::apply::write_policy;
use crate::settings::commands::SynthesizeArguments;
use crate::settings::output::{Language, Output};
use crate::trouble::chain;

/// The policies that follow from recorded flows.
pub fn synthesize_policies(arguments: &SynthesizeArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    let SynthesizeArguments {
        input,
        flows,
        out: folder,
        output,
        choices,
    } = arguments;
    let settings = choices.settings();
    let mut input = Input::read(input, &[], &flows.flows, screen)?;
    input.faults.refuse_a_part()?;
    let graph = input.graph(&flows.flows, screen)?;
    input.faults.settle(screen)?;

    let workloads = graph.endpoints().filter_map(Endpoint::workload).count();
    screen.busy_with("making policies", Extent::Things(workloads));
    let mut proposals = Vec::new();
    let mut refusals = Vec::new();
    let synthesizer = Synthesizer::new(&input.cluster, &settings);
    for (workload, outcome) in synthesizer.proposals(&graph) {
        match outcome {
            Ok(proposal) => proposals.push(proposal),
            Err(refusal) => refusals.push((workload, refusal)),
        }
        screen.step();
    }
    // A dump of a cluster holds older policies of ours as well, which these replace.
    let others: Vec<NetworkPolicy> = input
        .policies
        .iter()
        .filter(|policy| !is_owned(policy))
        .cloned()
        .collect();
    let others = Others {
        network: &others,
        cluster: &input.cluster_policies,
    };
    let candidates = proposals.iter().map(|proposal| Candidate {
        proposal,
        baseline: &graph,
    });
    let mut violations = Vec::new();
    let mut accepted = Vec::new();
    // A policy that the evaluator refuses is not written, here as on a cluster.
    screen.busy_with("checking policies", Extent::Things(proposals.len()));
    let verdicts = accept_each(candidates, others, &input.cluster, &settings, || screen.step());
    for (workload, verdict) in verdicts {
        match verdict {
            Ok(policy) => accepted.push(policy),
            Err(cuts) => violations.extend(cuts.into_iter().map(|cut| (workload.clone(), cut))),
        }
    }

    for Proposal { workload, notes, .. } in &proposals {
        for note in notes {
            screen.remark(format_args!("note: {workload}: {note}"));
        }
    }
    tell_without_dns(&graph, &proposals, screen);
    for (_, refusal) in &refusals {
        screen.remark(format_args!("no policy: {refusal}"));
    }
    for (workload, violation) in &violations {
        screen.remark(format_args!("no policy: {workload} would be cut: {}", chain(violation)));
    }

    for policy in accepted.iter().map(Accepted::policy) {
        let path = folder.as_ref().map(|folder| write_policy(folder, policy)).transpose()?;
        match (output, path) {
            (Output::Document(Language::Json), _) => {}
            (Output::Name, _) => {
                let name = policy.metadata.name.as_deref().unwrap_or_default();
                screen.name("networkpolicy.networking.k8s.io", name)?;
            }
            (_, Some(path)) => screen.line(path.display())?,
            (_, None) => screen.document(Language::Yaml, policy)?,
        }
    }
    if *output == Output::Document(Language::Json) {
        let document = Document {
            policies: accepted.iter().map(Accepted::policy).collect(),
            notes: proposals
                .iter()
                .flat_map(|proposal| proposal.notes.iter().map(|note| told(&proposal.workload, note)))
                .collect(),
            refusals: refusals
                .iter()
                .map(|(workload, refusal)| refused(workload, refusal))
                .collect(),
            violations: violations.iter().map(|(_, violation)| chain(violation)).collect(),
        };
        screen.document(Language::Json, &document)?;
    }
    Ok(Found::when(!violations.is_empty()))
}

/// Ports at which name servers listen: the second is that of a cluster's own where they run without privileges.
const DNS: [u16; 2] = [53, 5353];

/// Says if nobody at all asks a name server. One workload may need no names; where none does, whoever recorded the flows left it
/// out, and the policies would cut it.
fn tell_without_dns(graph: &ConnectionGraph, proposals: &[Proposal], screen: &mut Screen<'_>) {
    let isolated = proposals
        .iter()
        .filter(|proposal| proposal.directions.contains(&Direction::Egress))
        .count();
    if isolated > 0 && !graph.edges().any(|(edge, _)| DNS.contains(&edge.port)) {
        let policies = counted(isolated, "policy isolates", "policies isolate");
        screen.remark(format_args!(
            "note: no flow leads to a name server (port 53), and {policies} egress: whoever looks names up is cut off from that. \
             Add those flows, or allow DNS by a policy of your own"
        ));
    }
}

/// Everything as one document.
#[derive(Serialize)]
struct Document<'a> {
    policies: Vec<&'a NetworkPolicy>,
    notes: Vec<Told>,
    refusals: Vec<Refused>,
    /// What would be cut, so that no policy is made.
    violations: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    workload: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
    /// Whether the policy allows more than was seen.
    widening: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<PortTold>,
    /// The others that are meant, or what stands in the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    concerns: Vec<String>,
    /// How many more there are.
    #[serde(skip_serializing_if = "is_none")]
    more: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    text: String,
}

#[derive(Serialize)]
struct PortTold {
    port: u16,
    protocol: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused {
    workload: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    with: Vec<String>,
    /// How many more there are.
    #[serde(skip_serializing_if = "is_none")]
    more: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<Told>,
    text: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
const fn is_none(more: &usize) -> bool {
    *more == 0
}

fn strings<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

#[expect(clippy::too_many_lines, reason = "one arm for each kind of note")]
fn told(workload: &Workload, note: &Note) -> Told {
    let blank = |kind, direction: Option<Direction>| Told {
        workload: workload.to_string(),
        kind,
        direction: direction.map(Direction::as_str),
        widening: note.is_widening(),
        peer: None,
        ports: Vec::new(),
        concerns: Vec::new(),
        more: 0,
        hint: None,
        text: note.to_string(),
    };
    let at = |kind, direction: Option<Direction>, peer: Option<String>, ports: &BTreeSet<Port>| Told {
        peer,
        ports: ports
            .iter()
            .map(|port| PortTold {
                port: port.number,
                protocol: port.transport.as_str(),
            })
            .collect(),
        ..blank(kind, direction)
    };
    match note {
        Note::NotObserved { direction } => blank("NotObserved", Some(*direction)),
        Note::NotReady { direction, blockers } => Told {
            concerns: strings(blockers),
            ..blank("NotReady", Some(*direction))
        },
        Note::Unanswered { direction, edges } => Told {
            concerns: edges.iter().map(super::output::edge_words).collect(),
            ..blank("Unanswered", Some(*direction))
        },
        Note::Echo { direction, edges } => Told {
            concerns: edges.iter().map(super::output::edge_words).collect(),
            ..blank("Echo", Some(*direction))
        },
        Note::PeerGone { direction, peer, ports } => at("PeerGone", Some(*direction), Some(peer.to_string()), ports),
        Note::PeerOverlaps {
            direction,
            peer,
            also,
            hint,
            ports,
        } => Told {
            concerns: strings(also.named()),
            more: also.unnamed(),
            hint: Some(hint.to_string()),
            ..at("PeerOverlaps", Some(*direction), Some(peer.to_string()), ports)
        },
        Note::HostNetwork {
            direction,
            peer,
            addresses,
            ports,
        } => Told {
            concerns: strings(addresses),
            ..at("HostNetwork", Some(*direction), Some(peer.to_string()), ports)
        },
        Note::AllPods {
            direction,
            peer,
            workload: meant,
            ports,
        } => Told {
            concerns: vec![meant.to_string()],
            ..at("AllPods", Some(*direction), Some(peer.to_string()), ports)
        },
        Note::ExternalGroup {
            direction,
            group,
            addresses,
            ports,
        } => Told {
            concerns: strings(addresses),
            ..at("ExternalGroup", Some(*direction), Some(group.name().to_owned()), ports)
        },
        Note::GroupNotUsed(conflict) => Told {
            concerns: vec![conflict.inside.to_string()],
            peer: Some(conflict.group.clone()),
            ..blank("GroupNotUsed", None)
        },
        Note::ServiceAddress(NamedService {
            service,
            addresses,
            ports,
        }) => Told {
            concerns: strings(addresses),
            ..at(
                "ServiceAddress",
                Some(Direction::Egress),
                Some(service.to_string()),
                ports,
            )
        },
        Note::PortRange {
            direction,
            range,
            peers,
            ports,
        } => Told {
            concerns: strings(peers),
            ..at("PortRange", Some(*direction), Some(range.to_string()), ports)
        },
        Note::Dns { direction, peer, ports } => at("Dns", Some(*direction), Some(peer.to_string()), ports),
        Note::NodeLocalDns { addresses, ports } => Told {
            concerns: strings(addresses),
            ..at("NodeLocalDns", Some(Direction::Egress), None, ports)
        },
    }
}

fn refused(workload: &Workload, refusal: &Refusal) -> Refused {
    let (kind, with, hint, notes) = match refusal {
        Refusal::Gone { workload: _ } => ("Gone", Vec::new(), None, &[][..]),
        Refusal::HostNetwork { workload: _ } => ("HostNetwork", Vec::new(), None, &[][..]),
        Refusal::NoLabels { workload: _, hint } => ("NoLabels", Vec::new(), Some(hint.to_string()), &[][..]),
        Refusal::Overlaps {
            workload: _,
            with,
            hint,
        } => ("Overlaps", strings(with.named()), Some(hint.to_string()), &[][..]),
        Refusal::NotObserved { workload: _, notes } => ("NotObserved", Vec::new(), None, &notes[..]),
        Refusal::NotReady { workload: _, notes } => ("NotReady", Vec::new(), None, &notes[..]),
    };
    let more = match refusal {
        Refusal::Overlaps { with, .. } => with.unnamed(),
        _ => 0,
    };
    Refused {
        workload: workload.to_string(),
        kind,
        with,
        more,
        hint,
        notes: notes.iter().map(|note| told(workload, note)).collect(),
        text: refusal.to_string(),
    }
}
