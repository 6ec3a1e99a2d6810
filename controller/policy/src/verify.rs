//! The evaluator's check of proposals, together with everybody else's policies.
//!
//! Laws:
//! * of an [`Accepted`] policy every baseline edge is allowed at its workload, for every pair of live ends that the edge stands
//!   for, with all other accepted and foreign policies taken in; where it is a question for a name, in every transport in which
//!   names are asked for;
//! * an [`Accepted`] policy has its workload's name and says so, and selects no pod of another workload;
//! * nothing else makes an [`Accepted`] policy, and nothing else is ever applied.
//!
//! No code is shared with synthesis.

#[cfg(test)]
mod mutants;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::{AddressOwner, Cluster};
use nanoseg_graph::connection::{ConnectionGraph, Edge, EdgeKey};
use nanoseg_graph::endpoint::{Endpoint, Workload};

use crate::cluster_policy::ClusterNetworkPolicy;
use crate::direction::Direction;
use crate::ends::Ends;
use crate::evaluate::{Cause, Connection, Evaluator, PolicyRef, PolicySet, Rejected, Ruling, Undecidable, Verdict};
use crate::ownership::{PolicyName, owned_workload};
use crate::synthesize::{Proposal, Settings};
use names::NameServers;

/// Something that is wrong with proposals.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A proposed policy is not one that the API server would take.
    #[error("the proposed policy is malformed")]
    Malformed(#[source] Rejected),
    /// It would take another policy's place, or be taken for another workload's.
    #[error("the proposed {found} is not the policy of {workload}, by its name, its label or its annotations")]
    NotItsOwn {
        /// What it is called.
        found: PolicyName,
        /// Whose policy it is to be.
        workload: Workload,
    },
    /// It would isolate pods that it knows nothing of.
    #[error("the proposed policy also selects pods of {}", list(.with))]
    Strangers {
        /// Whose.
        with: BTreeSet<Workload>,
    },
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

fn list(workloads: &BTreeSet<Workload>) -> String {
    let workloads: Vec<String> = workloads.iter().map(ToString::to_string).collect();
    workloads.join(", ")
}

impl Violation {
    /// Whether this policy alone keeps it from being: what people forbid as well is not asked for.
    fn is_by(&self, own: &PolicyRef) -> bool {
        let Self::Cut {
            verdict: Verdict::Denied(why),
            ..
        } = self
        else {
            return false;
        };
        why.iter().all(
            |denial| matches!(&denial.cause, Cause::NoRule(policies) if policies.iter().all(|policy| policy == own)),
        )
    }

    /// What violations are ordered by.
    const fn place(&self) -> Option<(&EdgeKey, Direction)> {
        match self {
            Self::Malformed(_) | Self::NotItsOwn { .. } | Self::Strangers { .. } => None,
            Self::Cut { edge, direction, .. } => Some((edge, *direction)),
        }
    }
}

/// A policy that the evaluator has accepted. Only [`accept`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted(Arc<NetworkPolicy>);

impl Accepted {
    /// The policy, as it is to be applied.
    pub fn policy(&self) -> &NetworkPolicy {
        &self.0
    }

    /// Whatever a test says.
    #[cfg(test)]
    pub(crate) fn unchecked(policy: NetworkPolicy) -> Self {
        Self(Arc::new(policy))
    }
}

/// Policies that are there beside the proposals: people's own, not older ones of ours. What the API server would not take of
/// them cannot be there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Others<'a> {
    /// Of namespaces.
    pub network: &'a [NetworkPolicy],
    /// Of the cluster.
    pub cluster: &'a [ClusterNetworkPolicy],
}

/// A proposal, and the edges that it is answerable for.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The proposal.
    pub proposal: &'a Proposal,
    /// The baseline of its workload.
    pub baseline: &'a ConnectionGraph,
}

/// Checks each proposal against its own baseline, as if all of them were applied. An edge may be in the baseline of one end and
/// not of the other: each end answers for what its own policy and other people's do there.
pub fn accept<'a>(
    candidates: impl IntoIterator<Item = Candidate<'a>>,
    others: Others<'_>,
    cluster: &Cluster,
    settings: &Settings,
) -> BTreeMap<Workload, Result<Accepted, Vec<Violation>>> {
    accept_each(candidates, others, cluster, settings, || ())
}

/// The same, for whoever wants to know when each proposal has been checked.
pub fn accept_each<'a>(
    candidates: impl IntoIterator<Item = Candidate<'a>>,
    others: Others<'_>,
    cluster: &Cluster,
    settings: &Settings,
    mut checked: impl FnMut(),
) -> BTreeMap<Workload, Result<Accepted, Vec<Violation>>> {
    let candidates: Vec<Candidate<'a>> = candidates.into_iter().collect();
    let check = Check::new(candidates.iter().map(|candidate| candidate.proposal), others);
    let evaluator = match namespaces_of(&candidates, cluster) {
        Some(namespaces) => Evaluator::within(&check.policies, cluster, &namespaces),
        None => Evaluator::new(&check.policies, cluster),
    };
    let ends = Ends::new(cluster, &evaluator);
    let strangers = strangers(&candidates, &evaluator, &ends);
    let servers = NameServers::of(cluster, settings);
    let verdict = |Candidate { proposal, baseline }: Candidate<'a>| {
        let mut violations: Vec<Violation> = check.malformed(proposal).collect();
        violations.extend(not_its_own(proposal));
        let with = strangers.get(&PolicyName::of(&proposal.policy)).cloned();
        violations.extend(with.map(|with| Violation::Strangers { with }));
        let own = PolicyRef::Namespaced(PolicyName::of(&proposal.policy).into());
        let mut judge = |direction, edge: Edge<'_>, evidence| {
            if !settings.in_baseline(edge, evidence) {
                return;
            }
            let ours = proposal.directions.contains(&direction);
            violations.extend(cuts(edge, [(direction, ours)], &evaluator, &ends));
            if ours {
                for (port, transport) in servers.beside(edge) {
                    let edge = Edge {
                        port,
                        transport,
                        ..edge
                    };
                    let cut = cuts(edge, [(direction, true)], &evaluator, &ends);
                    violations.extend(cut.into_iter().filter(|cut| cut.is_by(&own)));
                }
            }
        };
        // Its own edges alone: one graph may be the baseline of all.
        if let Some(own) = baseline.index_of(&Endpoint::Workload(proposal.workload.clone())) {
            for (_, edge, evidence) in baseline.outgoing(own) {
                judge(Direction::Egress, edge, evidence);
            }
            for (_, edge, evidence) in baseline.incoming(own) {
                judge(Direction::Ingress, edge, evidence);
            }
        }
        violations.sort_by(|one, other| one.place().cmp(&other.place()));
        if violations.is_empty() {
            Ok(Accepted(Arc::clone(&proposal.policy)))
        } else {
            Err(violations)
        }
    };
    candidates
        .iter()
        .map(|candidate| {
            let verdict = verdict(*candidate);
            checked();
            (candidate.proposal.workload.clone(), verdict)
        })
        .collect()
}

/// The namespaces of all pods that candidates' edges begin or end at, and that their policies select; `None`: any may be among them. Where
/// few candidates are checked, most of a large cluster has nothing to do with them.
fn namespaces_of<'a>(candidates: &[Candidate<'a>], cluster: &'a Cluster) -> Option<BTreeSet<&'a str>> {
    let mut namespaces = BTreeSet::new();
    for Candidate { proposal, baseline } in candidates {
        namespaces.insert(proposal.workload.namespace.as_str());
        namespaces.extend(proposal.policy.metadata.namespace.as_deref());
        for end in baseline.as_petgraph().node_weights() {
            let addresses: BTreeSet<IpAddr> = match end {
                Endpoint::Workload(workload) => {
                    namespaces.insert(&workload.namespace);
                    continue;
                }
                Endpoint::External(address) => [*address].into(),
                Endpoint::Node(name) => cluster.node(name)?.addresses.clone(),
                Endpoint::Service(_) => return None,
                Endpoint::Unknown { .. } => continue,
            };
            for address in addresses {
                for owner in cluster.owners_of(address, Timestamp::MAX, Timestamp::MAX) {
                    if let AddressOwner::Pod(uid) = owner {
                        namespaces.insert(&cluster.pod_by_uid(&uid)?.namespace);
                    }
                }
            }
        }
    }
    Some(namespaces)
}

/// Whether a proposal's policy is its workload's, by all that it says of itself.
fn not_its_own(proposal: &Proposal) -> Option<Violation> {
    let Proposal { workload, policy, .. } = proposal;
    let found = PolicyName::of(policy);
    let own = PolicyName::of_workload(workload);
    (found != own || owned_workload(policy).as_ref() != Some(workload)).then(|| Violation::NotItsOwn {
        found,
        workload: workload.clone(),
    })
}

/// Whose pods each proposal selects beside its own workload's.
fn strangers(
    candidates: &[Candidate<'_>],
    evaluator: &Evaluator<'_>,
    ends: &Ends<'_, '_>,
) -> BTreeMap<PolicyName, BTreeSet<Workload>> {
    let mut owners: BTreeMap<PolicyRef, &Proposal> = BTreeMap::new();
    for Candidate { proposal, .. } in candidates {
        owners.insert(PolicyRef::Namespaced(PolicyName::of(&proposal.policy).into()), proposal);
    }
    let mut strangers: BTreeMap<PolicyName, BTreeSet<Workload>> = BTreeMap::new();
    for (workload, pods) in ends.all() {
        for place in pods.kinds() {
            for direction in [Direction::Ingress, Direction::Egress] {
                for policy in evaluator.applies(&place, direction).isolating {
                    let owner = owners.get(&policy).filter(|owner| owner.workload != *workload);
                    if let Some(owner) = owner {
                        let name = PolicyName::of(&owner.policy);
                        strangers.entry(name).or_default().insert(workload.clone());
                    }
                }
            }
        }
    }
    strangers
}

/// Checks proposals against one graph, at both ends of each edge that touches one of their workloads.
pub fn verify(
    proposals: &[Proposal],
    others: Others<'_>,
    cluster: &Cluster,
    graph: &ConnectionGraph,
    settings: &Settings,
) -> Vec<Violation> {
    let check = Check::new(proposals, others);
    let isolated: BTreeMap<&Workload, &BTreeSet<Direction>> = proposals
        .iter()
        .map(|proposal| (&proposal.workload, &proposal.directions))
        .collect();
    let evaluator = Evaluator::new(&check.policies, cluster);
    let ends = Ends::new(cluster, &evaluator);
    let mut violations: Vec<_> = proposals
        .iter()
        .flat_map(|proposal| check.malformed(proposal))
        .collect();
    for (edge, _) in graph
        .edges()
        .filter(|(edge, evidence)| settings.in_baseline(*edge, *evidence))
    {
        let sides = [
            (Direction::Egress, edge.source.workload()),
            (Direction::Ingress, edge.destination.workload()),
        ];
        let proposed = sides.map(|(direction, workload)| (direction, workload.and_then(|it| isolated.get(it))));
        if proposed.iter().any(|(_, directions)| directions.is_some()) {
            let sides = proposed.into_iter().map(|(direction, directions)| {
                let ours = directions.is_some_and(|directions| directions.contains(&direction));
                (direction, ours)
            });
            violations.extend(cuts(edge, sides, &evaluator, &ends));
        }
    }
    violations
}

/// Proposals and others' policies together.
struct Check {
    policies: PolicySet,
    broken: Vec<Rejected>,
}

impl Check {
    fn new<'a>(proposals: impl IntoIterator<Item = &'a Proposal>, others: Others<'_>) -> Self {
        let proposed: Vec<&NetworkPolicy> = proposals.into_iter().map(|proposal| &*proposal.policy).collect();
        let (_, broken) = PolicySet::parse(proposed.iter().copied());
        let (policies, _) = PolicySet::parse_all(others.network.iter().chain(proposed), others.cluster);
        Self { policies, broken }
    }

    fn malformed(&self, proposal: &Proposal) -> impl Iterator<Item = Violation> {
        let name = PolicyRef::Namespaced(PolicyName::of(&proposal.policy).into());
        let own = move |rejected: &&Rejected| rejected.policy == name;
        self.broken.iter().filter(own).cloned().map(Violation::Malformed)
    }
}

/// Where an edge is cut, in the directions asked about; `true` beside one that a proposal isolates.
fn cuts(
    edge: Edge<'_>,
    sides: impl IntoIterator<Item = (Direction, bool)>,
    evaluator: &Evaluator<'_>,
    ends: &Ends<'_, '_>,
) -> Vec<Violation> {
    let mut found: Vec<Side> = sides
        .into_iter()
        .map(|(direction, ours)| Side {
            direction,
            ours,
            cut: None,
        })
        .collect();
    if found.is_empty() {
        return Vec::new();
    }
    let asked = ends.pairs(edge, |pair| {
        let decision = evaluator.decide_once(&pair.source, &pair.destination, edge.port, edge.transport);
        for Side { direction, ours, cut } in &mut found {
            if cut.is_some() || decision.direction(*direction) == Ruling::Allowed {
                continue;
            }
            let answer = evaluator.explain(&pair.source, &pair.destination, decision);
            let verdict = answer.direction(*direction);
            if is_cut(verdict, *ours) {
                *cut = Some((pair.connection(edge, evaluator), verdict.clone()));
            }
        }
    });
    // Ends that are not there any more, or were never known, cannot be cut.
    if asked.is_err() {
        return Vec::new();
    }
    let violation = |side: Side| {
        side.cut.map(|(connection, verdict)| Violation::Cut {
            edge: edge.key(),
            connection: Box::new(connection),
            direction: side.direction,
            verdict,
        })
    };
    found.into_iter().filter_map(violation).collect()
}

/// One end of an edge.
struct Side {
    direction: Direction,
    /// Whether a proposal isolates it.
    ours: bool,
    /// The first pair that is cut there, and how.
    cut: Option<(Connection, Verdict)>,
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
            | Undecidable::NoAddress(_)
            // Nothing that a policy could be made to allow.
            | Undecidable::Icmp => false,
            Undecidable::FamiliesDiffer
            | Undecidable::HostNetworkPeer(_)
            | Undecidable::AddressDecides { .. }
            | Undecidable::ServiceAddress(_) => ours,
            // Policies of the cluster speak wherever no proposal isolates as well.
            Undecidable::DomainNames(_) | Undecidable::SamePriority(_) => true,
        },
    }
}
