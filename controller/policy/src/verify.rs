//! The evaluator's check of proposals, together with everybody else's policies.
//!
//! Law: when nothing is returned, every baseline edge that touches a proposal's workload is allowed for every pair of live ends
//! that it stands for. No code is shared with synthesis.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::connection::{ConnectionGraph, EdgeKey};
use nanoseg_graph::endpoint::Workload;

use crate::direction::Direction;
use crate::ends::Ends;
use crate::evaluate::{Connection, Evaluator, PolicySet, Rejected, Ruling, Undecidable, Verdict};
use crate::synthesize::{Proposal, Settings};

/// Something that is wrong with proposals.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A proposed policy is not one that the API server would take.
    #[error("the proposed policy is malformed")]
    Malformed(#[source] Rejected),
    /// A baseline edge would be cut, or cannot be shown to be allowed.
    #[error("{} to {} at {} {}: {verdict}", edge.source, edge.destination, edge.transport, edge.port)]
    Cut {
        /// The edge.
        edge: EdgeKey,
        /// The first pair of ends that would be cut.
        connection: Box<Connection>,
        /// The direction in which.
        direction: Direction,
        /// Denied, or unknown where a proposal isolates.
        verdict: Verdict,
    },
}

impl Violation {
    /// The workloads that it concerns.
    pub fn workloads(&self) -> BTreeSet<Workload> {
        match self {
            Self::Malformed(_) => BTreeSet::new(),
            Self::Cut { edge, .. } => [&edge.source, &edge.destination]
                .into_iter()
                .filter_map(|end| end.workload())
                .cloned()
                .collect(),
        }
    }
}

/// Checks proposals. `others` are the policies that will be there beside them: people's own, not older ones of ours.
pub fn verify(
    proposals: &[Proposal],
    others: &[NetworkPolicy],
    cluster: &Cluster,
    graph: &ConnectionGraph,
    settings: &Settings,
) -> Vec<Violation> {
    // What the API server would not take of the others cannot be there.
    let (_, broken) = PolicySet::parse(proposals.iter().map(|proposal| &proposal.policy));
    let (policies, _) = PolicySet::parse(others.iter().chain(proposals.iter().map(|proposal| &proposal.policy)));
    let isolated: BTreeMap<&Workload, &BTreeSet<Direction>> = proposals
        .iter()
        .map(|proposal| (&proposal.workload, &proposal.directions))
        .collect();
    let evaluator = Evaluator::new(&policies, cluster);
    let ends = Ends::new(cluster, &evaluator);

    let mut violations: Vec<_> = broken.into_iter().map(Violation::Malformed).collect();
    for (edge, evidence) in graph.edges() {
        let sides = [
            (Direction::Egress, edge.source.workload()),
            (Direction::Ingress, edge.destination.workload()),
        ];
        let proposed = |workload: Option<&Workload>| workload.and_then(|workload| isolated.get(workload));
        if !settings.in_baseline(edge, evidence) || sides.iter().all(|(_, workload)| proposed(*workload).is_none()) {
            continue;
        }
        let mut cut: [Option<(Connection, Verdict)>; 2] = [None, None];
        let asked = ends.pairs(edge, |pair| {
            let decision = evaluator.decide(&pair.source, &pair.destination, edge.port, edge.transport);
            for ((direction, workload), cut) in sides.iter().zip(&mut cut) {
                if cut.is_some() || decision.direction(*direction) == Ruling::Allowed {
                    continue;
                }
                let ours = proposed(*workload).is_some_and(|directions| directions.contains(direction));
                let answer = evaluator.explain(&pair.source, &pair.destination, decision);
                let verdict = answer.direction(*direction);
                if is_cut(verdict, ours) {
                    *cut = Some((pair.connection(edge, &evaluator), verdict.clone()));
                }
            }
        });
        // Ends that are not there any more, or were never known, cannot be cut.
        if asked.is_err() {
            continue;
        }
        for ((direction, _), cut) in sides.into_iter().zip(cut) {
            if let Some((connection, verdict)) = cut {
                violations.push(Violation::Cut {
                    edge: edge.clone(),
                    connection: Box::new(connection),
                    direction,
                    verdict,
                });
            }
        }
    }
    violations
}

fn is_cut(verdict: &Verdict, ours: bool) -> bool {
    match verdict {
        Verdict::Denied(_) => true,
        Verdict::Allowed(_) | Verdict::NotIsolated => false,
        Verdict::Unknown(why) => match why {
            // A pair that has no connection, or a subject that no policy of ours means.
            Undecidable::NoCommonFamily
            | Undecidable::HostNetworkSubject(_)
            | Undecidable::NoSuchPod(_)
            | Undecidable::Finished(_)
            | Undecidable::NoAddress(_) => false,
            Undecidable::FamiliesDiffer | Undecidable::HostNetworkPeer(_) | Undecidable::ServiceAddress(_) => ours,
            // Policies of the cluster speak wherever no proposal isolates as well.
            Undecidable::DomainNames(_) | Undecidable::SamePriority(_) => true,
        },
    }
}
