//! The edges of one direction of one workload to what it is allowed, and to the Notes on that.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nanoseg_graph::cluster::{ContainerPort, ServicePort, TargetPort};
use nanoseg_graph::connection::{ConnectionGraph, Edge, EvidenceRef, NodeIndex};
use nanoseg_graph::endpoint::{Endpoint, ServiceName, Workload};
use nanoseg_graph::flow::Transport;

use super::cover;
use super::note::{Blocker, NamedService, Note};
use super::peers::{DNS_PORT, Meaning, Peer, View, Widening};
use super::rules::{Entry, Reason, Rule, Whom, in_order, merge};
use super::settings::{LISTED, Plugin, PortRange, Ranges, ServiceView, Span};
use super::words::Words;
use crate::direction::{Direction, Port};

/// What each endpoint of a graph means and what evidence calls it, found when it is first asked for: many workloads have the
/// same peers.
#[derive(Debug)]
pub(super) struct Meanings<'a> {
    of: Vec<OnceCell<Meaning<'a>>>,
    pub(super) words: Words,
}

impl Meanings<'_> {
    pub(super) fn of(graph: &ConnectionGraph) -> Self {
        Self {
            of: vec![OnceCell::new(); graph.node_count()],
            words: Words::new(graph.node_count(), graph.via_count()),
        }
    }
}

/// One direction of one workload.
pub(super) struct Side<'a, 'b> {
    pub(super) direction: Direction,
    pub(super) subject: &'a Workload,
    pub(super) graph: &'a ConnectionGraph,
    pub(super) view: View<'a>,
    pub(super) meanings: &'b Meanings<'a>,
}

pub(super) enum Gathered<'a> {
    NotObserved,
    NotReady,
    Ready(Vec<Rule<'a>>),
}

/// An edge as this side sees it.
#[derive(Clone, Copy)]
struct Observed<'a> {
    place: Place<'a>,
    port: Port,
    reason: Reason<'a>,
}

impl Observed<'_> {
    /// What orders edges: by peer, and by port.
    fn key(&self) -> u64 {
        let Port { number, transport } = self.port;
        u64::from(self.place.number()) << 32 | u64::from(number) << 16 | transport as u64
    }
}

impl<'a> Side<'a, '_> {
    pub(super) fn gather(&self, notes: &mut BTreeSet<Note>) -> Gathered<'a> {
        let direction = self.direction;
        let (mut unanswered, mut echoes) = (BTreeSet::new(), BTreeSet::new());
        let mut observed = Vec::with_capacity(64);
        self.each_edge(|peer, edge, evidence| {
            if self.view.settings.in_baseline(edge, evidence) {
                let port = Port {
                    number: edge.port,
                    transport: edge.transport,
                };
                observed.push(Observed {
                    place: Place {
                        peer: match direction {
                            Direction::Ingress => edge.source,
                            Direction::Egress => edge.destination,
                        },
                        index: peer,
                    },
                    port,
                    reason: Reason::observed(evidence),
                });
            } else if edge.transport == Transport::Icmp {
                echoes.insert(edge.key());
            } else {
                unanswered.insert(edge.key());
            }
        });
        if !echoes.is_empty() {
            notes.insert(Note::Echo {
                direction,
                edges: echoes,
            });
        }
        if !unanswered.is_empty() {
            notes.insert(Note::Unanswered {
                direction,
                edges: unanswered,
            });
        }
        if observed.is_empty() {
            notes.insert(Note::NotObserved { direction });
            return Gathered::NotObserved;
        }
        let mut collected = Collected::default();
        collected.entries.reserve(observed.len());
        let observed = in_order(&observed, Observed::key);
        for run in observed.chunk_by(|one, next| one.place.index == next.place.index) {
            self.collect_peer(run, &mut collected);
        }
        let (count, most) = (collected.externals.len(), self.view.settings.external_addresses);
        if count > most {
            collected.blockers.insert(Blocker::ManyAddresses { count, most });
        }
        if !collected.blockers.is_empty() {
            notes.insert(Note::NotReady {
                direction,
                blockers: collected.blockers,
            });
            return Gathered::NotReady;
        }
        if collected.asks_dns && direction == Direction::Egress {
            self.add_cache(&mut collected);
        }
        let covered = cover::drop_covered(&mut collected.entries, &self.view.around.identities);
        collected.narrow(&covered, self.view);
        collected.notes(direction, self.view, notes);
        Gathered::Ready(merge(&collected.entries))
    }

    fn each_edge(&self, mut take: impl FnMut(NodeIndex, Edge<'a>, EvidenceRef<'a>)) {
        let Some(own) = self.graph.index_of(&Endpoint::Workload(self.subject.clone())) else {
            return;
        };
        match self.direction {
            Direction::Ingress => {
                for (peer, edge, evidence) in self.graph.incoming(own) {
                    take(peer, edge, evidence);
                }
            }
            Direction::Egress => {
                for (peer, edge, evidence) in self.graph.outgoing(own) {
                    take(peer, edge, evidence);
                }
            }
        }
    }

    /// All edges with one peer.
    fn collect_peer(&self, run: &[Observed<'a>], collected: &mut Collected<'a>) {
        let Some(Observed { place, .. }) = run.first() else {
            return;
        };
        for observed in run {
            self.collect(place, observed.port, observed.reason, collected);
        }
        self.add_dns(place, run, collected);
    }

    fn collect(&self, place: &Place<'a>, port: Port, reason: Reason<'a>, collected: &mut Collected<'a>) {
        let peer = place.peer;
        let made;
        let meaning = if let Endpoint::Service(_) = peer {
            made = self.view.meaning(peer, port);
            &made
        } else {
            self.meanings.of[place.index.index()].get_or_init(|| self.view.meaning(peer, port))
        };
        let span = self.view.settings.span(port);
        let Plugin { ranges, services } = self.view.settings.plugin;
        if ranges == Ranges::Listed && span.len() > LISTED {
            let count = span.len();
            collected.blockers.insert(Blocker::LongRange { count, port });
            return;
        }
        if self.direction == Direction::Egress && services != ServiceView::Translated {
            self.collect_services(place, port, reason, collected);
        }
        match (meaning, reason) {
            (Meaning::Blocked(obstacle), Reason::Observed { .. }) => {
                collected.blockers.insert(obstacle.at(port));
                return;
            }
            // What was not seen is not what makes a direction not ready.
            (Meaning::Blocked(_), Reason::Dns | Reason::DnsCache) => return,
            (Meaning::Gone, _) => {
                collected.gone.entry(peer).or_default().insert(port);
                return;
            }
            (Meaning::Group(place), _) => {
                let Some(group) = self.view.settings.external_groups.iter().nth(*place) else {
                    return;
                };
                let number = u32::try_from(*place).unwrap_or(u32::MAX);
                for cidr in group.cidrs() {
                    collected.entries.push(Entry {
                        peer: Peer::Block(*cidr),
                        span,
                        whom: Whom::Group(group),
                        reason,
                        who: u32::MAX - number,
                    });
                }
                let (addresses, ports) = collected.groups.entry(*place).or_default();
                if let Endpoint::External(address) = peer {
                    addresses.insert(*address);
                }
                ports.insert(port);
            }
            (Meaning::Exactly(_) | Meaning::Peers { .. }, _) => {
                let (peers, widenings) = match meaning {
                    Meaning::Exactly(peer) => (std::slice::from_ref(peer), [].as_slice()),
                    Meaning::Peers { peers, widenings } => (peers.as_slice(), widenings.as_slice()),
                    Meaning::Group(_) | Meaning::Gone | Meaning::Blocked(_) => return,
                };
                for named in peers {
                    collected.entries.push(Entry {
                        peer: *named,
                        span,
                        whom: Whom::Endpoint(peer),
                        reason,
                        who: place.number(),
                    });
                }
                for widening in widenings {
                    let ports = collected.widenings.entry((peer, widening.clone())).or_default();
                    ports.insert(port);
                }
                if let Endpoint::External(address) = peer {
                    collected.externals.insert(*address);
                    collected
                        .unused
                        .extend(self.view.group_of(*address).map(|(group, _)| group));
                }
            }
        }
        if span.is_range() {
            let (peers, ports) = collected.ranges.entry(span).or_default();
            peers.insert(peer);
            ports.insert(port);
        }
    }

    /// What stands for the Services that an edge goes through, where policies see those and not the pods behind them.
    fn collect_services(&self, place: &Place<'a>, port: Port, reason: Reason<'a>, collected: &mut Collected<'a>) {
        let through = match reason {
            Reason::Observed { via, .. } => via,
            Reason::Dns => &self.view.settings.dns_services,
            Reason::DnsCache => return,
        };
        let itself = match place.peer {
            Endpoint::Service(name) => Some(name),
            Endpoint::Workload(_) | Endpoint::Node(_) | Endpoint::External(_) | Endpoint::Unknown { .. } => None,
        };
        for name in through.iter().chain(itself) {
            let Some(service) = self.view.cluster.service(name) else {
                continue;
            };
            let leads = service.ports.iter().filter(|own| self.leads(own, place.peer, port));
            for own in leads {
                if self.view.settings.plugin.services == ServiceView::Nothing {
                    let service = name.clone();
                    collected.blockers.insert(Blocker::ServiceUnseen { service, port });
                    continue;
                }
                let own = Port {
                    number: own.port,
                    transport: own.transport,
                };
                for address in &service.cluster_ips {
                    collected.entries.push(Entry {
                        peer: Peer::address(*address),
                        span: Span::of(own),
                        whom: Whom::Endpoint(place.peer),
                        reason,
                        who: place.number(),
                    });
                    let (addresses, ports) = collected.services.entry(name).or_default();
                    addresses.insert(*address);
                    ports.insert(own);
                }
            }
        }
    }

    /// Whether a Service's port leads to this port of a peer.
    fn leads(&self, own: &ServicePort, peer: &Endpoint, port: Port) -> bool {
        own.transport == port.transport
            && match (&own.target, peer) {
                (TargetPort::Number(number), _) => *number == port.number,
                (TargetPort::Name(name), Endpoint::Workload(workload)) => {
                    let declared = |declared: &ContainerPort| {
                        (declared.number, declared.transport) == (port.number, port.transport)
                            && declared.name.as_ref() == Some(name)
                    };
                    self.view
                        .cluster
                        .pods_of(workload)
                        .any(|pod| pod.ports.iter().any(declared))
                }
                // Nobody declares a name there: its slices have the number.
                (TargetPort::Name(_), _) => true,
            }
    }

    /// Adds the transport in which DNS was not seen.
    fn add_dns(&self, place: &Place<'a>, run: &[Observed<'a>], collected: &mut Collected<'a>) {
        let dns_of = |observed: &Observed<'a>| match self.direction {
            Direction::Ingress => self.view.dns_ports_of(self.subject, observed.port),
            Direction::Egress => self.view.dns_ports(place.peer, observed.port),
        };
        let mut needed = BTreeSet::new();
        for ports in run.iter().filter_map(dns_of) {
            needed.extend(ports);
        }
        if needed.is_empty() || collected.gone.contains_key(place.peer) {
            return;
        }
        collected.asks_dns = true;
        for port in needed {
            if !run.iter().any(|observed| observed.port == port) {
                let before = collected.entries.len();
                self.collect(place, port, Reason::Dns, collected);
                if collected.entries.len() > before {
                    collected.dns.entry(place.peer).or_default().insert(port);
                }
            }
        }
    }

    /// Adds the DNS cache of the node.
    fn add_cache(&self, collected: &mut Collected<'a>) {
        for (number, (address, endpoint)) in (0..).zip(&self.view.around.dns_cache) {
            for transport in [Transport::Tcp, Transport::Udp] {
                let port = Port {
                    number: DNS_PORT,
                    transport,
                };
                collected.entries.push(Entry {
                    peer: Peer::address(*address),
                    span: Span::of(port),
                    whom: Whom::Endpoint(endpoint),
                    reason: Reason::DnsCache,
                    who: u32::MAX / 2 + number,
                });
                collected.cache.insert(port);
            }
        }
    }
}

/// A peer and where the graph has it.
#[derive(Clone, Copy)]
struct Place<'a> {
    peer: &'a Endpoint,
    index: NodeIndex,
}

impl Place<'_> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the graph numbers its endpoints with 32 bits"
    )]
    fn number(self) -> u32 {
        self.index.index() as u32
    }
}

/// What the edges of one direction come to.
#[derive(Default)]
struct Collected<'a> {
    entries: Vec<Entry<'a>>,
    blockers: BTreeSet<Blocker>,
    gone: BTreeMap<&'a Endpoint, BTreeSet<Port>>,
    widenings: BTreeMap<(&'a Endpoint, Widening), BTreeSet<Port>>,
    groups: BTreeMap<usize, (BTreeSet<IpAddr>, BTreeSet<Port>)>,
    /// Those that are named one by one.
    externals: BTreeSet<IpAddr>,
    /// Groups that would have been named if they could be used.
    unused: BTreeSet<usize>,
    ranges: BTreeMap<Span, (BTreeSet<&'a Endpoint>, BTreeSet<Port>)>,
    dns: BTreeMap<&'a Endpoint, BTreeSet<Port>>,
    asks_dns: bool,
    cache: BTreeSet<Port>,
    /// Services whose own addresses are named.
    services: BTreeMap<&'a ServiceName, (BTreeSet<IpAddr>, BTreeSet<Port>)>,
}

impl<'a> Collected<'a> {
    /// A peer that is not named itself widens nothing.
    fn narrow(&mut self, covered: &BTreeSet<(Peer<'a>, Span)>, view: View<'a>) {
        if covered.is_empty() {
            return;
        }
        for ((_, widening), ports) in &mut self.widenings {
            if let Widening::Overlaps { peer, .. } = widening
                && let Some(selection) = view.around.selections.get(peer)
            {
                let named = Peer::pods(selection);
                ports.retain(|port| !covered.contains(&(named, view.settings.span(*port))));
            }
        }
        self.widenings.retain(|_, ports| !ports.is_empty());
    }

    fn notes(&mut self, direction: Direction, view: View<'_>, notes: &mut BTreeSet<Note>) {
        for (peer, ports) in std::mem::take(&mut self.gone) {
            let peer = peer.clone();
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
                    peer: observed.clone(),
                    addresses,
                    ports,
                },
                Widening::AllPods(workload) => Note::AllPods {
                    direction,
                    peer: observed.clone(),
                    workload,
                    ports,
                },
            });
        }
        for (place, group) in view.settings.external_groups.iter().enumerate() {
            if let Some((addresses, ports)) = self.groups.remove(&place) {
                notes.insert(Note::ExternalGroup {
                    direction,
                    group: group.clone(),
                    addresses,
                    ports,
                });
            }
            if self.unused.contains(&place)
                && let Some(conflict) = view.around.conflicts.get(&place)
            {
                notes.insert(Note::GroupNotUsed(conflict.clone()));
            }
        }
        for (span, (peers, ports)) in std::mem::take(&mut self.ranges) {
            let range: Option<&PortRange> = view.settings.port_ranges.iter().find(|range| range.is(span));
            notes.extend(range.map(|range| Note::PortRange {
                direction,
                range: range.clone(),
                peers: peers.into_iter().cloned().collect(),
                ports,
            }));
        }
        for (peer, ports) in std::mem::take(&mut self.dns) {
            let peer = peer.clone();
            notes.insert(Note::Dns { direction, peer, ports });
        }
        for (service, (addresses, ports)) in std::mem::take(&mut self.services) {
            let service = service.clone();
            notes.insert(Note::ServiceAddress(NamedService {
                service,
                addresses,
                ports,
            }));
        }
        if !self.cache.is_empty() {
            notes.insert(Note::NodeLocalDns {
                addresses: view.around.dns_cache.iter().map(|(address, _)| *address).collect(),
                ports: std::mem::take(&mut self.cache),
            });
        }
    }
}
