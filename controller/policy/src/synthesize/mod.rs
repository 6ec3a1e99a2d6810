//! The baseline graph to one NetworkPolicy for each workload.
//!
//! Laws:
//! * **complete**: every baseline edge of a ready direction is allowed by the evaluator;
//! * **tight**: what is allowed beyond the baseline, over all pods and ports, is exactly what the Notes declare;
//! * **minimal**: no rule, peer or port can be taken away without cutting an edge or a declared widening;
//! * deterministic, and the order in which graph and cluster were learned does not matter.
//!
//! A direction that was not observed, or not wholly understood, is not in the policy: what is not known is not cut.

mod cover;
mod gather;
mod note;
mod peers;
mod rules;
mod selection;
mod settings;
#[cfg(test)]
mod tests;
mod words;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::connection::ConnectionGraph;
use nanoseg_graph::endpoint::{Endpoint, Workload};

use crate::direction::Direction;
use crate::identity::{Identity, Label, Overlap, Proof};
use crate::ownership;
use gather::{Gathered, Meanings, Side};
pub use note::{Blocker, NamedService, Note};
pub use peers::Surroundings;
use peers::View;
use rules::{Evidence, Rule};
pub use settings::{
    ExternalGroup, GroupConflict, LISTED, Plugin, PortRange, Ranges, ServiceView, SettingError, Settings, Unanswered,
};
use words::Words;

/// A policy that a workload could get.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Whose policy it is.
    pub workload: Workload,
    /// The policy, as it is to be applied. Who accepts it holds the same one.
    pub policy: Arc<NetworkPolicy>,
    /// Widenings, and what was left out, in a fixed order.
    pub notes: Vec<Note>,
    /// The directions that the policy isolates.
    pub directions: BTreeSet<Direction>,
}

/// Why a workload gets no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not exist.
    #[error("{workload} gets no policy: it is gone")]
    Gone {
        /// The workload.
        workload: Workload,
    },
    /// Its pods share their nodes' networks.
    #[error("{workload} gets no policy: its pods use their nodes' network, where NetworkPolicies do not apply")]
    HostNetwork {
        /// The workload.
        workload: Workload,
    },
    /// Its pods have no stable labels.
    #[error(
        "{workload} gets no policy: no stable label selects its pods; add the label {hint} to {}",
        workload.labels_stand_on()
    )]
    NoLabels {
        /// The workload.
        workload: Workload,
        /// A label which, on its pods, would identify it.
        hint: Box<Label>,
    },
    /// A selector for it would select others.
    #[error(
        "{workload} gets no policy: its stable labels also select pods of {with}; add the label {hint} to {}",
        workload.labels_stand_on()
    )]
    Overlaps {
        /// The workload.
        workload: Workload,
        /// The others.
        with: Overlap,
        /// A label which, on its pods, would separate it.
        hint: Box<Label>,
    },
    /// It has no edge in the baseline.
    #[error("{workload} gets no policy: no answered connection of it was observed")]
    NotObserved {
        /// The workload.
        workload: Workload,
        /// What was observed instead.
        notes: Vec<Note>,
    },
    /// It was observed, and neither direction is ready.
    #[error("{workload} gets no policy: {}", note::list(notes, "; "))]
    NotReady {
        /// The workload.
        workload: Workload,
        /// Why.
        notes: Vec<Note>,
    },
}

/// The policy of one workload. For several, make one [`Synthesizer`].
pub fn synthesize(
    workload: &Workload,
    graph: &ConnectionGraph,
    cluster: &Cluster,
    settings: &Settings,
) -> Result<Proposal, Refusal> {
    Synthesizer::new(cluster, settings).propose(workload, graph)
}

/// The policy of every workload of the graph, or why it gets none. All are held at once: where that is too much,
/// [`Synthesizer::proposals`] yields one after another.
pub fn synthesize_all(
    graph: &ConnectionGraph,
    cluster: &Cluster,
    settings: &Settings,
) -> BTreeMap<Workload, Result<Proposal, Refusal>> {
    Synthesizer::new(cluster, settings)
        .proposals(graph)
        .map(|(workload, proposal)| (workload.clone(), proposal))
        .collect()
}

/// A cluster looked at once, to make policies of many workloads.
#[derive(Debug)]
pub struct Synthesizer<'a> {
    surroundings: Cow<'a, Surroundings>,
    cluster: &'a Cluster,
    settings: &'a Settings,
}

impl<'a> Synthesizer<'a> {
    /// Looks at the cluster.
    pub fn new(cluster: &'a Cluster, settings: &'a Settings) -> Self {
        Self {
            surroundings: Cow::Owned(Surroundings::new(cluster, settings)),
            cluster,
            settings,
        }
    }

    /// Takes surroundings that were found before. They must be of this cluster as it is now and of these settings: what has
    /// changed since (the cluster was told of a change) would be proposed as it was.
    pub const fn within(surroundings: &'a Surroundings, cluster: &'a Cluster, settings: &'a Settings) -> Self {
        Self {
            surroundings: Cow::Borrowed(surroundings),
            cluster,
            settings,
        }
    }

    /// The labels by which policies know a workload, and what they were shown to select; `None` for one that is gone.
    pub fn identity(&self, workload: &Workload) -> Option<&Identity> {
        self.surroundings.identities.get(workload)
    }

    /// The policy of one workload.
    pub fn propose(&self, workload: &Workload, graph: &ConnectionGraph) -> Result<Proposal, Refusal> {
        self.propose_with(workload, graph, &Meanings::of(graph))
    }

    /// The policies of all workloads of the graph, one after another in a fixed order: none is made before it is asked for, and
    /// none is kept.
    pub fn proposals<'b>(
        &'b self,
        graph: &'b ConnectionGraph,
    ) -> impl Iterator<Item = (&'b Workload, Result<Proposal, Refusal>)> {
        let meanings = Meanings::of(graph);
        graph
            .endpoints()
            .filter_map(Endpoint::workload)
            .map(move |workload| (workload, self.propose_with(workload, graph, &meanings)))
    }

    fn propose_with<'b>(
        &'b self,
        workload: &'b Workload,
        graph: &'b ConnectionGraph,
        meanings: &Meanings<'b>,
    ) -> Result<Proposal, Refusal> {
        let subject = workload.clone();
        let identities = &self.surroundings.identities;
        let (Some(identity), Some(placement)) = (identities.get(workload), identities.placement(workload)) else {
            return Err(Refusal::Gone { workload: subject });
        };
        if placement.host_network && !placement.own_network {
            return Err(Refusal::HostNetwork { workload: subject });
        }
        match &identity.proof {
            Proof::Exact => {}
            Proof::NoLabels { with: _, hint } => {
                return Err(Refusal::NoLabels {
                    workload: subject,
                    hint: Box::new(hint.clone()),
                });
            }
            Proof::Overlaps { with, hint } => {
                return Err(Refusal::Overlaps {
                    workload: subject,
                    with: with.clone(),
                    hint: Box::new(hint.clone()),
                });
            }
        }

        let mut notes = BTreeSet::new();
        let mut observed = false;
        let mut ready: BTreeMap<Direction, Vec<Rule<'_>>> = BTreeMap::new();
        for direction in Direction::ALL {
            let side = Side {
                direction,
                subject: workload,
                graph,
                view: View {
                    cluster: self.cluster,
                    settings: self.settings,
                    around: &self.surroundings,
                },
                meanings,
            };
            match side.gather(&mut notes) {
                Gathered::NotObserved => {}
                Gathered::NotReady => observed = true,
                Gathered::Ready(rules) => {
                    observed = true;
                    ready.insert(direction, rules);
                }
            }
        }
        let notes: Vec<Note> = notes.into_iter().collect();
        match (observed, ready.is_empty()) {
            (false, _) => Err(Refusal::NotObserved {
                workload: subject,
                notes,
            }),
            (true, true) => Err(Refusal::NotReady {
                workload: subject,
                notes,
            }),
            (true, false) => {
                let directions = ready.keys().copied().collect();
                let policy = policy(
                    workload,
                    (*identity.labels).clone(),
                    &ready,
                    (&meanings.words, graph),
                    self.settings,
                );
                Ok(Proposal {
                    workload: subject,
                    policy: Arc::new(policy),
                    notes,
                    directions,
                })
            }
        }
    }
}

fn policy(
    workload: &Workload,
    labels: nanoseg_graph::cluster::Labels,
    ready: &BTreeMap<Direction, Vec<Rule<'_>>>,
    (words, graph): (&Words, &ConnectionGraph),
    settings: &Settings,
) -> NetworkPolicy {
    let ranges = settings.plugin.ranges;
    let mut metadata = ownership::metadata(workload);
    if let Some(evidence) = evidence(workload, ready, words, graph) {
        metadata
            .annotations
            .get_or_insert_default()
            .insert(ownership::EVIDENCE.to_owned(), evidence);
    }
    let rules = |direction| ready.get(&direction).filter(|rules| !rules.is_empty());
    let spec = NetworkPolicySpec {
        pod_selector: Some(rules::selector(labels)),
        policy_types: Some(ready.keys().map(|direction| direction.as_str().to_owned()).collect()),
        ingress: rules(Direction::Ingress).map(|rules| rules.iter().map(|rule| rule.ingress(ranges)).collect()),
        egress: rules(Direction::Egress).map(|rules| rules.iter().map(|rule| rule.egress(ranges)).collect()),
    };
    NetworkPolicy {
        metadata,
        spec: Some(spec),
    }
}

/// What each rule comes from, one line for each endpoint; `None` when there is no rule.
fn evidence(
    workload: &Workload,
    ready: &BTreeMap<Direction, Vec<Rule<'_>>>,
    words: &Words,
    graph: &ConnectionGraph,
) -> Option<String> {
    let subject = Endpoint::Workload(workload.clone());
    let mut evidence = Evidence::within(words.room.take());
    for (direction, rules) in ready {
        for (index, rule) in rules.iter().enumerate() {
            let names = |peer: &Endpoint| graph.names(&subject, peer);
            rule.evidence(*direction, index, words, names, &mut evidence);
        }
    }
    let text = evidence.text().map(str::to_owned);
    words.room.replace(evidence.into_room());
    text
}
