//! Policies, a cluster and a connection to a verdict for each direction.
//!
//! Law: equal to the specification of `networking.k8s.io/v1`, with the API server's defaulting done here, and of
//! `policy.networking.k8s.io/v1alpha2`. `NetworkPolicies` that select a pod add up: it is isolated in a direction as soon as
//! one of them says so, and then exactly what some rule of some of them allows is allowed. Before them stands the tier Admin of
//! the `ClusterNetworkPolicies`, and where none of them isolates the tier Baseline; in a tier the first rule that fits decides.
//! What the specifications leave to implementations is `Unknown`, with the reason.
//!
//! Nothing here is shared with synthesis but words: each can check the other.
//!
//! ```text
//!  Connection ─ find ─► Place, Place ─ decide ─► Decision ─ explain ─► Answer
//! ```
//! An [`Evaluator`] is made once for many questions. [`Evaluator::decide`] touches no text and remembers which rules mean which
//! peers; words are made only when somebody reads them.

mod classes;
mod cluster;
mod compare;
mod compiled;
mod decide;
mod inspect;
mod labels;
mod place;
mod policy;
mod space;
#[cfg(test)]
mod tests;
mod verdict;

use std::cell::RefCell;
use std::collections::BTreeSet;

use nanoseg_graph::cluster::{Cluster, Pod};
use nanoseg_graph::flow::Transport;

use crate::direction::Direction;
use compiled::Compiled;
pub(crate) use decide::Outcome;
use decide::{Asks, Memory, decide, decide_side};
pub use decide::{Decision, Ruling};
pub(crate) use inspect::{Applies, RuleNumber};
pub(crate) use place::Kind;
pub use place::Place;
use place::{Places, Who};
pub use policy::{PolicyRef, PolicySet, Problem, Rejected};
pub use verdict::{AllowedBy, Answer, Cause, Connection, Denial, End, RuleName, Undecidable, Verdict};

/// Answers one question. For many about the same policies and cluster, make one [`Evaluator`].
pub fn evaluate(policies: &PolicySet, cluster: &Cluster, connection: &Connection) -> Answer {
    Evaluator::new(policies, cluster).evaluate(connection)
}

/// Policies and a cluster, prepared to be asked often.
#[derive(Debug)]
pub struct Evaluator<'a> {
    compiled: Compiled<'a>,
    places: Places<'a>,
    memory: RefCell<Memory>,
}

impl<'a> Evaluator<'a> {
    /// Looks at every live pod and every policy once.
    pub fn new(policies: &'a PolicySet, cluster: &'a Cluster) -> Self {
        Self::of(policies, Places::new(cluster, None), cluster)
    }

    /// The same, for questions about pods of these namespaces alone; there are no others then.
    pub(crate) fn within(policies: &'a PolicySet, cluster: &'a Cluster, namespaces: &BTreeSet<&str>) -> Self {
        Self::of(policies, Places::new(cluster, Some(namespaces)), cluster)
    }

    fn of(policies: &'a PolicySet, places: Places<'a>, cluster: &'a Cluster) -> Self {
        Self {
            compiled: Compiled::new(policies, cluster, &places.pods),
            places,
            memory: RefCell::default(),
        }
    }

    /// Answers one question, in words.
    pub fn evaluate(&self, connection: &Connection) -> Answer {
        let Connection {
            source,
            destination,
            port,
            transport,
        } = connection;
        let found = self
            .find(source)
            .and_then(|source| Ok((source, self.find(destination)?)));
        match found {
            Ok((source, destination)) => {
                let decision = self.decide(&source, &destination, *port, *transport);
                self.explain(&source, &destination, decision)
            }
            Err(why) => Answer {
                egress: Verdict::Unknown(why.clone()),
                ingress: Verdict::Unknown(why),
            },
        }
    }

    /// Finds an end, to ask about it often.
    pub fn find(&self, end: &End) -> Result<Place, Undecidable> {
        self.places.find(end, &self.compiled)
    }

    /// Answers one question about places that this evaluator has found.
    pub fn decide(&self, source: &Place, destination: &Place, port: u16, transport: Transport) -> Decision {
        let memory = &mut self.memory.borrow_mut();
        decide(
            &self.compiled,
            memory,
            Asks::Often,
            source,
            destination,
            port,
            transport,
        )
    }

    /// The same, where hardly any pair is asked about twice: nothing is remembered.
    pub(crate) fn decide_once(&self, source: &Place, destination: &Place, port: u16, transport: Transport) -> Decision {
        let memory = &mut self.memory.borrow_mut();
        decide(&self.compiled, memory, Asks::Once, source, destination, port, transport)
    }

    /// One direction of it.
    pub(crate) fn decide_side_once(
        &self,
        direction: Direction,
        ends: [&Place; 2],
        port: u16,
        transport: Transport,
    ) -> Outcome {
        let memory = &mut self.memory.borrow_mut();
        decide_side(&self.compiled, memory, Asks::Once, direction, ends, port, transport)
    }

    /// The words of a decision about these two places.
    pub fn explain(&self, source: &Place, destination: &Place, decision: Decision) -> Answer {
        let Decision { egress, ingress } = decision;
        Answer {
            egress: self.words(egress, Direction::Egress, source, destination),
            ingress: self.words(ingress, Direction::Ingress, destination, source),
        }
    }

    /// The pods that a connection can begin or end at, by namespace and name.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&'a Pod, Place)> {
        self.places.living(&self.compiled)
    }

    /// The end that names a place in an answer.
    pub fn end(&self, place: &Place) -> End {
        self.places.end(place)
    }

    fn words(&self, outcome: Outcome, direction: Direction, subject: &Place, peer: &Place) -> Verdict {
        let denied = |cause| {
            let (namespace, pod) = match subject.who {
                Who::Pod(number) => {
                    let pod = self.places.pods[number as usize];
                    (&*pod.namespace, &*pod.name)
                }
                // Policies are about pods alone.
                Who::Address(_) => ("", ""),
            };
            Verdict::Denied(vec![Denial {
                direction,
                namespace: namespace.into(),
                pod: pod.into(),
                cause,
            }])
        };
        let rule = |number| self.rule(number, direction);
        match outcome {
            Outcome::NotIsolated => Verdict::NotIsolated,
            Outcome::SamePod => Verdict::Allowed(vec![AllowedBy::SamePod]),
            Outcome::OwnNode => Verdict::Allowed(vec![AllowedBy::OwnNode]),
            Outcome::Allowed(number) => Verdict::Allowed(vec![AllowedBy::Rule(rule(number))]),
            Outcome::Denied(number) => denied(Cause::Rule(rule(number))),
            Outcome::NoRule => {
                let isolating = &self.compiled.governing(subject.class, direction).isolating;
                let policies = isolating
                    .iter()
                    .map(|policy| self.compiled.sources[*policy as usize].name().clone());
                denied(Cause::NoRule(policies.collect()))
            }
            Outcome::NoCommonFamily => Verdict::Unknown(Undecidable::NoCommonFamily),
            Outcome::FamiliesDiffer => Verdict::Unknown(Undecidable::FamiliesDiffer),
            Outcome::Icmp => Verdict::Unknown(Undecidable::Icmp),
            Outcome::HostNetworkSubject => Verdict::Unknown(Undecidable::HostNetworkSubject(self.places.end(subject))),
            Outcome::HostNetworkPeer => Verdict::Unknown(Undecidable::HostNetworkPeer(self.places.end(peer))),
            Outcome::AddressDecides(number) => Verdict::Unknown(Undecidable::AddressDecides {
                end: self.places.end(peer),
                rule: rule(number),
            }),
            Outcome::Domains(number) => Verdict::Unknown(Undecidable::DomainNames(rule(number))),
            Outcome::SamePriority(one, other) => {
                Verdict::Unknown(Undecidable::SamePriority(Box::new([rule(one), rule(other)])))
            }
        }
    }

    fn rule(&self, number: u32, direction: Direction) -> RuleName {
        let rule = &self.compiled.rules[number as usize];
        RuleName {
            policy: self.compiled.sources[rule.policy as usize].name().clone(),
            direction,
            index: rule.index as usize,
        }
    }
}
