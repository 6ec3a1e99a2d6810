//! Policies, a cluster and a connection to a verdict for each direction.
//!
//! Law: equal to the specification of `networking.k8s.io/v1`, with the API server's defaulting done here. Policies that select
//! a pod add up: it is isolated in a direction as soon as one of them says so, and then exactly what some rule of some of them
//! allows is allowed. What the specification leaves to implementations is `Unknown`, with the reason.
//!
//! Nothing here is shared with synthesis but words: each can check the other.

mod party;
mod policy;
#[cfg(test)]
mod tests;
mod verdict;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use nanoseg_graph::cluster::{Cluster, Labels, Pod};
use nanoseg_graph::flow::Transport;

use crate::direction::Direction;
use party::Party;
use policy::{Peer, Policy, PortMatch, PortNumbers, Rule};
pub use policy::{PolicySet, Problem, Rejected};
pub use verdict::{AllowedBy, Answer, Connection, Denial, End, RuleName, Undecidable, Verdict};

/// Answers one question. For many about the same policies and cluster, make one [`Evaluator`].
pub fn evaluate(policies: &PolicySet, cluster: &Cluster, connection: &Connection) -> Answer {
    Question {
        cluster,
        namespaces: None,
        isolating: &|pod, direction| isolating(policies, pod, direction).collect(),
    }
    .answer(connection)
}

/// Policies and a cluster, prepared to be asked often: which policies isolate a pod is looked up and not searched.
#[derive(Debug)]
pub struct Evaluator<'a> {
    cluster: &'a Cluster,
    namespaces: BTreeMap<String, Labels>,
    /// By UID: the policies that isolate ingress, and those that isolate egress.
    isolating: BTreeMap<&'a str, [Arc<[&'a Policy]>; 2]>,
}

impl<'a> Evaluator<'a> {
    /// Looks at every live pod once. Pods with equal labels share the work.
    pub fn new(policies: &'a PolicySet, cluster: &'a Cluster) -> Self {
        let mut classes: BTreeMap<(&str, &Labels), [Arc<[&'a Policy]>; 2]> = BTreeMap::new();
        let mut namespaces = BTreeMap::new();
        let mut by_pod = BTreeMap::new();
        for pod in cluster.pods() {
            if !namespaces.contains_key(&pod.namespace) {
                namespaces.insert(pod.namespace.clone(), cluster.namespace_labels(&pod.namespace));
            }
            let class = classes
                .entry((&pod.namespace, &pod.labels))
                .or_insert_with(|| Direction::ALL.map(|direction| isolating(policies, pod, direction).collect()));
            by_pod.insert(pod.uid.as_str(), class.clone());
        }
        Self {
            cluster,
            namespaces,
            isolating: by_pod,
        }
    }

    /// Answers one question.
    pub fn evaluate(&self, connection: &Connection) -> Answer {
        let empty: Arc<[&Policy]> = Arc::new([]);
        let lookup = |pod: &Pod, direction| match (self.isolating.get(pod.uid.as_str()), direction) {
            (Some([ingress, _]), Direction::Ingress) => Arc::clone(ingress),
            (Some([_, egress]), Direction::Egress) => Arc::clone(egress),
            (None, _) => Arc::clone(&empty),
        };
        Question {
            cluster: self.cluster,
            namespaces: Some(&self.namespaces),
            isolating: &lookup,
        }
        .answer(connection)
    }
}

/// The policies that isolate a pod in a direction, in a fixed order.
fn isolating<'a>(policies: &'a PolicySet, pod: &Pod, direction: Direction) -> impl Iterator<Item = &'a Policy> {
    policies
        .of(&pod.namespace)
        .filter(move |policy| rules(policy, direction).is_some() && policy.subject.matches(&pod.labels))
}

fn rules(policy: &Policy, direction: Direction) -> Option<&[Rule]> {
    match direction {
        Direction::Ingress => policy.ingress.as_deref(),
        Direction::Egress => policy.egress.as_deref(),
    }
}

/// Where answers come from.
struct Question<'a, 'b> {
    cluster: &'a Cluster,
    namespaces: Option<&'b BTreeMap<String, Labels>>,
    isolating: &'b dyn Fn(&Pod, Direction) -> Arc<[&'b Policy]>,
}

/// Whether a peer of a rule means the other end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    No,
    /// It depends on the implementation.
    Perhaps,
    Yes,
}

/// The side of a connection that policies select, and the other side.
struct Sides<'a, 'b> {
    direction: Direction,
    subject: &'b Party<'a>,
    peer: &'b Party<'a>,
    port: u16,
    transport: Transport,
}

impl Question<'_, '_> {
    fn answer(&self, connection: &Connection) -> Answer {
        let found = Party::find(&connection.source, self.cluster)
            .and_then(|source| Ok((source, Party::find(&connection.destination, self.cluster)?)));
        let (source, destination) = match found {
            Ok(found) => found,
            Err(why) => {
                return Answer {
                    egress: Verdict::Unknown(why.clone()),
                    ingress: Verdict::Unknown(why),
                };
            }
        };
        let Connection {
            source: _,
            destination: _,
            port,
            transport,
        } = *connection;
        let direction = |direction| {
            let (subject, peer) = match direction {
                Direction::Ingress => (&destination, &source),
                Direction::Egress => (&source, &destination),
            };
            self.verdict(&Sides {
                direction,
                subject,
                peer,
                port,
                transport,
            })
        };
        Answer {
            egress: direction(Direction::Egress),
            ingress: direction(Direction::Ingress),
        }
    }

    fn verdict(&self, sides: &Sides<'_, '_>) -> Verdict {
        let own = sides.subject.addresses();
        let others = sides.peer.addresses();
        let mut families = own
            .into_iter()
            .zip(others)
            .filter(|(own, other)| own.is_some() && other.is_some());
        let Some((_, Some(address))) = families.next() else {
            return Verdict::Unknown(Undecidable::NoCommonFamily);
        };
        let second = families.next().and_then(|(_, other)| other);

        let Some(subject) = sides.subject.pod() else {
            return Verdict::NotIsolated;
        };
        let policies = (self.isolating)(subject, sides.direction);
        if policies.is_empty() {
            return Verdict::NotIsolated;
        }
        if sides.peer.pod().is_some_and(|peer| peer.uid == subject.uid) {
            return Verdict::Allowed(vec![AllowedBy::SamePod]);
        }
        if subject.host_network {
            return Verdict::Unknown(Undecidable::HostNetworkSubject(sides.subject.end()));
        }
        if subject.node.is_some() && sides.peer.on_network_of() == subject.node.as_deref() {
            return Verdict::Allowed(vec![AllowedBy::OwnNode]);
        }

        let first = self.by_rules(&policies, sides, subject, address);
        let Some(second) = second else { return first };
        let other = self.by_rules(&policies, sides, subject, second);
        if std::mem::discriminant(&first) == std::mem::discriminant(&other) {
            first
        } else {
            Verdict::Unknown(Undecidable::FamiliesDiffer)
        }
    }

    /// What the rules say of a peer with this address.
    fn by_rules(&self, policies: &[&Policy], sides: &Sides<'_, '_>, subject: &Pod, address: IpAddr) -> Verdict {
        // The pod whose declared ports a name means; an address outside the cluster declares none.
        let listener = match sides.direction {
            Direction::Ingress => Some(subject),
            Direction::Egress => sides.peer.pod(),
        };
        let mut perhaps = false;
        for policy in policies {
            for (index, rule) in rules(policy, sides.direction).into_iter().flatten().enumerate() {
                let at_port = rule.ports.as_ref().is_none_or(|ports| {
                    ports
                        .iter()
                        .any(|port| port.means(listener, sides.port, sides.transport))
                });
                if !at_port {
                    continue;
                }
                match self.means(rule, &policy.name.namespace, sides.peer, address) {
                    Match::Yes => {
                        let policy = Arc::clone(&policy.name);
                        let rule = RuleName {
                            policy,
                            direction: sides.direction,
                            index,
                        };
                        return Verdict::Allowed(vec![AllowedBy::Rule(rule)]);
                    }
                    Match::Perhaps => perhaps = true,
                    Match::No => {}
                }
            }
        }
        if perhaps {
            return Verdict::Unknown(Undecidable::HostNetworkPeer(sides.peer.end()));
        }
        Verdict::Denied(vec![Denial {
            direction: sides.direction,
            namespace: subject.namespace.as_str().into(),
            pod: subject.name.as_str().into(),
            isolated_by: policies.iter().map(|policy| Arc::clone(&policy.name)).collect(),
        }])
    }

    fn means(&self, rule: &Rule, own_namespace: &str, peer: &Party<'_>, address: IpAddr) -> Match {
        let Some(peers) = &rule.peers else { return Match::Yes };
        let mut best = Match::No;
        for named in peers {
            let matched = match (named, peer.pod()) {
                (Peer::Block { cidr, except }, _) => Peer::holds(cidr, except, address),
                (Peer::Pods { .. }, None) => false,
                (Peer::Pods { namespaces, pods }, Some(pod)) => {
                    let in_namespace = match namespaces {
                        None => pod.namespace == own_namespace,
                        Some(namespaces) => namespaces.matches(&self.namespace_labels(&pod.namespace)),
                    };
                    let selected = in_namespace && pods.matches(&pod.labels);
                    if selected && pod.host_network {
                        best = Match::Perhaps;
                        continue;
                    }
                    selected
                }
            };
            if matched {
                return Match::Yes;
            }
        }
        best
    }

    fn namespace_labels(&self, name: &str) -> Cow<'_, Labels> {
        match self.namespaces.and_then(|known| known.get(name)) {
            Some(labels) => Cow::Borrowed(labels),
            None => Cow::Owned(self.cluster.namespace_labels(name)),
        }
    }
}

impl PortMatch {
    fn means(&self, listener: Option<&Pod>, port: u16, transport: Transport) -> bool {
        self.transport == transport
            && match &self.port {
                PortNumbers::Any => true,
                PortNumbers::Range(range) => range.contains(&port),
                PortNumbers::Named(name) => listener.is_some_and(|pod| {
                    pod.ports.iter().any(|declared| {
                        declared.name.as_ref() == Some(name)
                            && declared.transport == transport
                            && declared.number == port
                    })
                }),
            }
    }
}
