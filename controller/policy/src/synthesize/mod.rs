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
mod note;
mod peers;
mod rules;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::connection::{ConnectionGraph, EdgeKey, Evidence};
use nanoseg_graph::endpoint::{Endpoint, Workload};
use nanoseg_graph::flow::Transport;

use crate::direction::{Direction, Port};
use crate::identity::{Identities, Label, Proof};
use crate::ownership;
pub use note::{Blocker, Note};
use peers::{DNS_PORT, Meaning, Peer, Surroundings, Widening, living};
use rules::{Allowed, Reason, Rule};
pub use settings::{Settings, Unanswered};

/// Bytes of evidence that an object carries at most. All annotations of an object together may have 256 KiB.
const EVIDENCE: usize = 128 * 1024;

/// A policy that a workload could get.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Whose policy it is.
    pub workload: Workload,
    /// The policy, as it is to be applied.
    pub policy: NetworkPolicy,
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
    #[error("{workload} gets no policy: no stable label selects its pods; add the label {hint} to its pod template")]
    NoLabels {
        /// The workload.
        workload: Workload,
        /// A label which, on its pod template, would identify it.
        hint: Box<Label>,
    },
    /// A selector for it would select others.
    #[error(
        "{workload} gets no policy: its stable labels also select pods of {with}; add the label {hint} to its pod \
         template",
        with = note::list(with, ", ")
    )]
    Overlaps {
        /// The workload.
        workload: Workload,
        /// The others.
        with: BTreeSet<Workload>,
        /// A label which, on its pod template, would separate it.
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

/// The policy of every workload of the graph, or why it gets none.
pub fn synthesize_all(
    graph: &ConnectionGraph,
    cluster: &Cluster,
    settings: &Settings,
) -> BTreeMap<Workload, Result<Proposal, Refusal>> {
    let synthesizer = Synthesizer::new(cluster, settings);
    graph
        .endpoints()
        .filter_map(Endpoint::workload)
        .map(|workload| (workload.clone(), synthesizer.propose(workload, graph)))
        .collect()
}

/// A cluster looked at once, to make policies of many workloads.
#[derive(Debug)]
pub struct Synthesizer<'a> {
    surroundings: Surroundings<'a>,
    settings: &'a Settings,
}

impl<'a> Synthesizer<'a> {
    /// Looks at the cluster.
    pub fn new(cluster: &'a Cluster, settings: &'a Settings) -> Self {
        Self {
            surroundings: Surroundings::new(cluster, settings),
            settings,
        }
    }

    /// The policy of one workload.
    pub fn propose(&self, workload: &Workload, graph: &ConnectionGraph) -> Result<Proposal, Refusal> {
        let subject = workload.clone();
        let Some(identity) = self.surroundings.identities.get(workload) else {
            return Err(Refusal::Gone { workload: subject });
        };
        let mut pods = living(self.surroundings.identities.pods(workload)).peekable();
        if pods.peek().is_some() && pods.all(|pod| pod.host_network) {
            return Err(Refusal::HostNetwork { workload: subject });
        }
        match &identity.proof {
            Proof::Exact => {}
            Proof::NoLabels { hint } => {
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

        let edges = graph.touching(&Endpoint::Workload(subject.clone()));
        let mut notes = BTreeSet::new();
        let mut observed = false;
        let mut ready: BTreeMap<Direction, Vec<Rule>> = BTreeMap::new();
        for direction in Direction::ALL {
            let side = Side {
                direction,
                subject: workload,
                surroundings: &self.surroundings,
            };
            match side.gather(&edges, self.settings, &mut notes) {
                Gathered::NotObserved => {}
                Gathered::NotReady => observed = true,
                Gathered::Ready(allowed) => {
                    observed = true;
                    ready.insert(direction, allowed.into_rules());
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
                let policy = policy(workload, identity.labels.clone(), &ready);
                Ok(Proposal {
                    workload: subject,
                    policy,
                    notes,
                    directions,
                })
            }
        }
    }
}

/// One direction of one workload.
struct Side<'a, 'b> {
    direction: Direction,
    subject: &'b Workload,
    surroundings: &'b Surroundings<'a>,
}

enum Gathered {
    NotObserved,
    NotReady,
    Ready(Allowed),
}

impl Side<'_, '_> {
    fn gather(&self, edges: &[(&EdgeKey, &Evidence)], settings: &Settings, notes: &mut BTreeSet<Note>) -> Gathered {
        let direction = self.direction;
        let mut collected = Collected::default();
        let mut unanswered = BTreeSet::new();
        for (key, evidence) in edges {
            let (own, peer) = match direction {
                Direction::Ingress => (&key.destination, &key.source),
                Direction::Egress => (&key.source, &key.destination),
            };
            if own.workload() != Some(self.subject) {
                continue;
            }
            if !settings.in_baseline(key, evidence) {
                unanswered.insert((*key).clone());
                continue;
            }
            collected.observed = true;
            let port = Port {
                number: key.port,
                transport: key.transport,
            };
            self.collect(peer, port, &Reason::observed(evidence), &mut collected);
        }
        if !unanswered.is_empty() {
            notes.insert(Note::Unanswered {
                direction,
                edges: unanswered,
            });
        }
        if !collected.observed {
            notes.insert(Note::NotObserved { direction });
            return Gathered::NotObserved;
        }
        if !collected.blockers.is_empty() {
            notes.insert(Note::NotReady {
                direction,
                blockers: collected.blockers,
            });
            return Gathered::NotReady;
        }
        self.add_dns(&mut collected);
        let covered = cover::drop_covered(&mut collected.allowed, &self.surroundings.identities);
        collected.narrow(&covered, &self.surroundings.identities);
        notes.extend(collected.notes(direction));
        Gathered::Ready(collected.allowed)
    }

    fn collect(&self, peer: &Endpoint, port: Port, reason: &Reason, collected: &mut Collected) {
        match self.surroundings.meaning(peer, port) {
            Meaning::Blocked(blocker) => {
                collected.blockers.insert(blocker);
            }
            Meaning::Gone => {
                collected.gone.entry(peer.clone()).or_default().insert(port);
            }
            Meaning::Peers { peers, widenings } => {
                for named in peers {
                    collected.allowed.insert(named, port, peer, reason);
                }
                collected.ports.entry(peer.clone()).or_default().insert(port);
                for widening in widenings {
                    collected
                        .widenings
                        .entry((peer.clone(), widening))
                        .or_default()
                        .insert(port);
                }
            }
        }
    }

    /// Adds what DNS needs and was not seen: the other transport, and the cache of the node.
    fn add_dns(&self, collected: &mut Collected) {
        let listener = Endpoint::Workload(self.subject.clone());
        let mut asked = false;
        for (peer, seen) in collected.ports.clone() {
            let server = match self.direction {
                Direction::Ingress => &listener,
                Direction::Egress => &peer,
            };
            let needed: BTreeSet<Port> = seen
                .iter()
                .filter_map(|port| self.surroundings.dns_ports(server, *port))
                .flatten()
                .collect();
            asked |= !needed.is_empty();
            for port in needed.difference(&seen) {
                self.collect(&peer, *port, &Reason::Dns, collected);
                collected.dns.entry(peer.clone()).or_default().insert(*port);
            }
        }
        if asked && self.direction == Direction::Egress && !self.surroundings.dns_cache.is_empty() {
            for transport in [Transport::Tcp, Transport::Udp] {
                let port = Port {
                    number: DNS_PORT,
                    transport,
                };
                for address in &self.surroundings.dns_cache {
                    let cache = Endpoint::External(*address);
                    collected
                        .allowed
                        .insert(Peer::Block(*address), port, &cache, &Reason::DnsCache);
                }
                collected.cache.insert(port);
            }
            collected.cache_addresses.clone_from(&self.surroundings.dns_cache);
        }
    }
}

/// What the edges of one direction come to.
#[derive(Default)]
struct Collected {
    observed: bool,
    allowed: Allowed,
    blockers: BTreeSet<Blocker>,
    ports: BTreeMap<Endpoint, BTreeSet<Port>>,
    gone: BTreeMap<Endpoint, BTreeSet<Port>>,
    widenings: BTreeMap<(Endpoint, Widening), BTreeSet<Port>>,
    dns: BTreeMap<Endpoint, BTreeSet<Port>>,
    cache: BTreeSet<Port>,
    cache_addresses: BTreeSet<std::net::IpAddr>,
}

impl Collected {
    /// A peer that is not named itself widens nothing.
    fn narrow(&mut self, covered: &BTreeSet<(Peer, Port)>, identities: &Identities<'_>) {
        for ((_, widening), ports) in &mut self.widenings {
            if let Widening::Overlaps { peer, .. } = widening
                && let Some(identity) = identities.get(peer)
            {
                let named = Peer::Pods {
                    namespace: peer.namespace.clone(),
                    labels: identity.labels.clone(),
                };
                ports.retain(|port| !covered.contains(&(named.clone(), *port)));
            }
        }
        self.widenings.retain(|_, ports| !ports.is_empty());
    }

    fn notes(&mut self, direction: Direction) -> BTreeSet<Note> {
        let mut notes = BTreeSet::new();
        for (peer, ports) in std::mem::take(&mut self.gone) {
            notes.insert(Note::PeerGone { direction, peer, ports });
        }
        for ((observed, widening), ports) in std::mem::take(&mut self.widenings) {
            notes.insert(match widening {
                Widening::Overlaps { peer, also, hint } => Note::PeerOverlaps {
                    direction,
                    peer,
                    also,
                    hint,
                    ports,
                },
                Widening::HostNetwork(addresses) => Note::HostNetwork {
                    direction,
                    peer: observed,
                    addresses,
                    ports,
                },
                Widening::AllPods(workload) => Note::AllPods {
                    direction,
                    peer: observed,
                    workload,
                    ports,
                },
            });
        }
        for (peer, ports) in std::mem::take(&mut self.dns) {
            notes.insert(Note::Dns { direction, peer, ports });
        }
        if !self.cache.is_empty() {
            let addresses = std::mem::take(&mut self.cache_addresses);
            notes.insert(Note::NodeLocalDns {
                addresses,
                ports: std::mem::take(&mut self.cache),
            });
        }
        notes
    }
}

fn policy(
    workload: &Workload,
    labels: nanoseg_graph::cluster::Labels,
    ready: &BTreeMap<Direction, Vec<Rule>>,
) -> NetworkPolicy {
    let mut metadata = ownership::metadata(workload);
    if let Some(evidence) = evidence(ready) {
        metadata
            .annotations
            .get_or_insert_default()
            .insert(ownership::EVIDENCE.to_owned(), evidence);
    }
    let rules = |direction| ready.get(&direction).filter(|rules| !rules.is_empty());
    let spec = NetworkPolicySpec {
        pod_selector: Some(rules::selector(labels)),
        policy_types: Some(ready.keys().map(|direction| direction.as_str().to_owned()).collect()),
        ingress: rules(Direction::Ingress).map(|rules| rules.iter().map(Rule::ingress).collect()),
        egress: rules(Direction::Egress).map(|rules| rules.iter().map(Rule::egress).collect()),
    };
    NetworkPolicy {
        metadata,
        spec: Some(spec),
    }
}

/// What each rule comes from, one line for each endpoint; `None` when there is no rule.
fn evidence(ready: &BTreeMap<Direction, Vec<Rule>>) -> Option<String> {
    let mut text = String::new();
    let mut omitted: usize = 0;
    for (direction, rules) in ready {
        for (index, rule) in rules.iter().enumerate() {
            for line in rule.evidence(*direction, index) {
                if omitted > 0 || text.len() + line.len() >= EVIDENCE {
                    omitted += 1;
                } else {
                    text.push_str(&line);
                    text.push('\n');
                }
            }
        }
    }
    if omitted > 0 {
        let rest = format!("and {omitted} more\n");
        text.push_str(&rest);
    }
    (!text.is_empty()).then_some(text)
}
