//! Policies and pods as numbers: what applies to which pods, and which rules mean which peers.
//!
//! Pods that no policy can tell apart (namespace, labels, declared ports, host network) are one [`Class`]; addresses that no
//! range can tell apart are one [`Spot`]. So a rule's peers need to be looked at once for each pair of a class and a class or
//! spot, however many pods and ports are asked about.

mod build;

use std::collections::HashMap;

use nanoseg_graph::flow::Transport;
use rustc_hash::FxBuildHasher;

use super::classes::{Match, Members};
use super::labels::{LabelArena, LabelSet, Span, Tests};
use super::policy::{Action, OnHost, Source};
use super::space::{Part, SOMEWHERE, Space, Spot, Stretch};
use crate::direction::Direction;

/// No class, no namespace, no node: an address outside, or a name that nothing has.
pub(super) const NONE: u32 = u32::MAX;

type Numbers<K> = HashMap<K, u32, FxBuildHasher>;

/// Pods that no policy can tell apart.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) namespace: u32,
    pub(super) labels: LabelSet,
    pub(super) host_network: bool,
    declared: Span,
}

/// A port that a pod declares under a name.
#[derive(Clone, Copy, Debug)]
struct Declared {
    name: u32,
    number: u16,
    transport: Transport,
}

/// A rule of either kind of policy.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) policy: u32,
    /// Position in its policy's list.
    pub(super) index: u32,
    pub(super) action: Action,
    /// Of a policy of the cluster.
    pub(super) priority: u16,
    /// `None`: everyone.
    peers: Option<Peers>,
    /// `None`: every port of every transport.
    ports: Option<Span>,
}

/// The peers of a rule.
#[derive(Clone, Copy, Debug)]
struct Peers {
    /// The classes of pods that those mean which mean few.
    classes: Members,
    /// Those of the others that ask for a certain label, sorted by it: of many peers only those are looked at of which a pod has the label.
    keyed: Span,
    /// All others.
    rest: Span,
}

#[derive(Clone, Copy, Debug)]
enum Peer {
    Pods(Pods),
    Block { within: Stretch, except: Span },
    Domains,
    Everyone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pods {
    namespaces: Namespaces,
    selector: Tests,
    on_host: OnHost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Namespaces {
    One(u32),
    Selected(Tests),
}

#[derive(Clone, Copy, Debug)]
struct Port {
    transport: Option<Transport>,
    numbers: Numbered,
}

#[derive(Clone, Copy, Debug)]
enum Numbered {
    Any,
    Range(u16, u16),
    Named(u32),
}

/// What applies to a class in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Governing {
    /// Rules of the tier Admin, in the order in which they are asked.
    pub(super) admin: Vec<u32>,
    /// `NetworkPolicies` that isolate.
    pub(super) isolating: Vec<u32>,
    /// The rules of those.
    pub(super) network: Vec<u32>,
    /// Rules of the tier Baseline.
    pub(super) baseline: Vec<u32>,
}

impl Governing {
    pub(super) const fn is_empty(&self) -> bool {
        self.admin.is_empty() && self.isolating.is_empty() && self.baseline.is_empty()
    }
}

/// Everything, compiled.
#[derive(Debug)]
pub(super) struct Compiled<'a> {
    pub(super) space: Space,
    pub(super) classes: Vec<Class>,
    /// Class of each pod, in the order of [`Cluster::pods`].
    pub(super) class_of: Vec<u32>,
    pub(super) sources: Vec<Source<'a>>,
    pub(super) rules: Vec<Rule>,
    /// By class: ingress, egress.
    pub(super) governing: Vec<[u32; 2]>,
    pub(super) governings: Vec<Governing>,
    labels: LabelArena<'a>,
    namespaces: Numbers<&'a str>,
    namespace_labels: Vec<LabelSet>,
    /// The arena of [`Members`].
    members: Vec<u32>,
    /// Labels without which a peer means no pod, and those peers at the same places: the labels of one rule are searched, and lie
    /// together.
    keys: Vec<u32>,
    keyed: Vec<Peer>,
    peers: Vec<Peer>,
    ports: Vec<Port>,
    stretches: Vec<Stretch>,
    declared: Vec<Declared>,
    port_names: Numbers<&'a str>,
}

impl Compiled<'_> {
    fn selects(&self, namespaces: Namespaces, pods: Tests, namespace: u32, labels: LabelSet) -> bool {
        let in_namespace = match namespaces {
            Namespaces::One(own) => own == namespace,
            Namespaces::Selected(tests) => self
                .namespace_labels
                .get(namespace as usize)
                .is_some_and(|labels| self.labels.matches(tests, *labels)),
        };
        in_namespace && self.labels.matches(pods, labels)
    }

    /// Whether a rule means a peer of a class (`NONE` for an address that is no pod's) at a spot.
    pub(super) fn means(&self, rule: &Rule, class: u32, spot: Spot) -> Match {
        let Some(peers) = rule.peers else { return Match::Yes };
        let mut best = Match::No;
        if class != NONE {
            best = peers.classes.matched(&self.members, class);
            if best == Match::Yes {
                return best;
            }
        }
        let class = self.classes.get(class as usize);
        if let Some(class) = class {
            let keys = peers.keyed.of(&self.keys);
            let keyed = peers.keyed.of(&self.keyed);
            for pair in self.labels.pairs(class.labels) {
                let from = keys.partition_point(|key| key < pair);
                let meant = keys[from..].iter().zip(&keyed[from..]);
                for (_, peer) in meant.take_while(|(key, _)| *key == pair) {
                    best = best.max(self.is_meant(peer, Some(class), spot));
                }
                if best == Match::Yes {
                    return best;
                }
            }
        }
        for peer in peers.rest.of(&self.peers) {
            best = best.max(self.is_meant(peer, class, spot));
            if best == Match::Yes {
                break;
            }
        }
        best
    }

    fn is_meant(&self, peer: &Peer, class: Option<&Class>, spot: Spot) -> Match {
        match (peer, class) {
            (Peer::Everyone, _) => Match::Yes,
            (Peer::Pods(_), None) | (Peer::Domains, Some(_)) => Match::No,
            (Peer::Domains, None) => Match::Perhaps,
            (Peer::Block { within, except }, _) if SOMEWHERE.contains(&spot) => {
                let part = |stretch| self.space.part_of(stretch, spot);
                let mut excepted = except.of(&self.stretches).iter();
                match part(*within) {
                    Part::None => Match::No,
                    Part::All if excepted.all(|stretch| part(*stretch) == Part::None) => Match::Yes,
                    Part::Some | Part::All => Match::Perhaps,
                }
            }
            (Peer::Block { within, except }, _) => {
                let held = within.holds(spot) && !except.of(&self.stretches).iter().any(|range| range.holds(spot));
                if held { Match::Yes } else { Match::No }
            }
            (Peer::Pods(pods), Some(class)) => self.is_pod_meant(*pods, class),
        }
    }

    fn is_pod_meant(&self, peer: Pods, class: &Class) -> Match {
        match (class.host_network, peer.on_host) {
            (true, OnHost::Never) => Match::No,
            _ if !self.selects(peer.namespaces, peer.selector, class.namespace, class.labels) => Match::No,
            (true, OnHost::Perhaps) => Match::Perhaps,
            (false, _) => Match::Yes,
        }
    }

    /// Whether a rule means a port of a listener (`NONE` for one that is no pod).
    pub(super) fn at_port(&self, rule: &Rule, listener: u32, port: u16, transport: Transport) -> bool {
        let Some(ports) = rule.ports else { return true };
        ports.of(&self.ports).iter().any(|means| {
            means.transport.is_none_or(|only| only == transport)
                && match means.numbers {
                    Numbered::Any => true,
                    Numbered::Range(first, last) => first <= port && port <= last,
                    Numbered::Named(name) => self.classes.get(listener as usize).is_some_and(|class| {
                        class.declared.of(&self.declared).iter().any(|declared| {
                            declared.name == name && declared.number == port && declared.transport == transport
                        })
                    }),
                }
        })
    }

    /// The ports of a transport at which a rule may begin or cease to mean a listener.
    pub(super) fn port_starts(&self, rule: &Rule, listener: u32, transport: Transport) -> impl Iterator<Item = u16> {
        let ports = rule.ports.map_or(&[][..], |ports| ports.of(&self.ports));
        let of = move |port: &Port| port.transport.is_none_or(|only| only == transport);
        ports.iter().filter(move |port| of(port)).flat_map(move |port| {
            let (range, name) = match port.numbers {
                Numbered::Any => (None, None),
                Numbered::Range(first, last) => (Some((first, last)), None),
                Numbered::Named(name) => (None, Some(name)),
            };
            let class = self.classes.get(listener as usize);
            let declared = class.map_or(&[][..], |class| class.declared.of(&self.declared));
            let named = declared
                .iter()
                .filter(move |declared| Some(declared.name) == name)
                .map(|declared| (declared.number, declared.number));
            let ranges = range.into_iter().chain(named);
            ranges.flat_map(|(first, last)| [Some(first), last.checked_add(1)].into_iter().flatten())
        })
    }

    pub(super) fn governing(&self, class: u32, direction: Direction) -> &Governing {
        let [ingress, egress] = self.governing[class as usize];
        &self.governings[match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        } as usize]
    }
}
