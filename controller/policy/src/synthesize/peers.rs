//! An observed endpoint to the peers that a rule names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use nanoseg_graph::cluster::{AddressOwner, Cluster, ContainerPort, Pod, Service, TargetPort};
use nanoseg_graph::endpoint::{Endpoint, ServiceName, UnknownReason, Workload};
use nanoseg_graph::flow::Transport;

use super::note::Blocker;
use super::selection::{Named, Selection, selections};
use super::settings::{ExternalGroup, GroupConflict, Settings};
use crate::direction::Port;
use crate::identity::{Identities, Label, Overlap, Proof};

/// Where DNS is served, by convention of every Service that does.
pub(super) const DNS_PORT: u16 = 53;

/// One peer of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer<'a> {
    /// Pods with these labels.
    Pods(Named<'a>),
    /// A single address, or a range of a group.
    Block(IpNet),
}

impl<'a> Peer<'a> {
    /// Pods.
    pub(super) const fn pods(selection: &'a Selection) -> Self {
        Self::Pods(Named {
            rank: selection.rank,
            selection,
        })
    }

    /// Half of what orders peers: where two differ in it, they are ordered by it.
    pub(super) fn coarse(self) -> u32 {
        const BLOCK: u32 = 1 << 31;
        match self {
            Self::Pods(named) => named.rank.min(BLOCK - 1),
            Self::Block(IpNet::V4(range)) => BLOCK | range.addr().to_bits() >> 2,
            Self::Block(IpNet::V6(range)) => {
                let high = u32::try_from(range.addr().to_bits() >> 98).unwrap_or(u32::MAX);
                BLOCK | 1 << 30 | high
            }
        }
    }

    /// A single address.
    pub(super) fn address(address: IpAddr) -> Self {
        Self::Block(IpNet::from(address))
    }

    /// How many lines of YAML it takes.
    pub(super) fn lines(&self) -> usize {
        match self {
            Self::Pods(named) => 5 + named.selection.count,
            Self::Block(_) => 2,
        }
    }
}

/// What an endpoint means for a rule.
#[derive(Clone, Debug)]
pub(super) enum Meaning<'a> {
    /// This peer, which means nothing else: nearly all do.
    Exactly(Peer<'a>),
    /// These peers, and why they mean more than the endpoint.
    Peers {
        peers: Vec<Peer<'a>>,
        widenings: Vec<Widening>,
    },
    /// The ranges of the group with this place among the settings' groups.
    Group(usize),
    /// It is not there any more.
    Gone,
    /// No rule can be made of it.
    Blocked(Obstacle),
}

impl<'a> Meaning<'a> {
    fn of(peers: Vec<Peer<'a>>, widenings: Vec<Widening>) -> Self {
        match (peers.as_slice(), widenings.is_empty()) {
            ([peer], true) => Self::Exactly(*peer),
            _ => Self::Peers { peers, widenings },
        }
    }
}

/// Why no rule can be made of an endpoint, at whatever port.
#[derive(Clone, Debug)]
pub(super) enum Obstacle {
    Unknown(UnknownReason, Option<IpAddr>),
    ClusterAddress(IpAddr),
    NoNodeAddress(Endpoint),
    NoEndpoints(ServiceName),
}

impl Obstacle {
    pub(super) fn at(&self, port: Port) -> Blocker {
        match self {
            Self::Unknown(reason, address) => Blocker::Unknown {
                reason: *reason,
                address: *address,
                port,
            },
            Self::ClusterAddress(address) => Blocker::ClusterAddress {
                address: *address,
                port,
            },
            Self::NoNodeAddress(peer) => Blocker::NoNodeAddress {
                peer: peer.clone(),
                port,
            },
            Self::NoEndpoints(service) => Blocker::NoEndpoints {
                service: service.clone(),
                port,
            },
        }
    }
}

/// Why peers mean more than the endpoint that was observed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Widening {
    Overlaps {
        peer: Workload,
        also: Overlap,
        hint: Label,
    },
    HostNetwork(BTreeSet<IpAddr>),
    /// A Service's slice names one pod, and a selector means all pods of its workload.
    AllPods(Workload),
}

/// What synthesis has to know of a cluster, found once for all workloads. It is a picture: as long as neither cluster nor
/// settings change, it need not be made again.
#[derive(Clone, Debug)]
pub struct Surroundings {
    pub(super) identities: Identities,
    pub(super) selections: BTreeMap<Workload, Arc<Selection>>,
    /// Workloads that serve cluster DNS, and where.
    pub(super) dns: BTreeMap<Workload, BTreeSet<Port>>,
    /// All ports at which any of them does: nearly every port that is asked about is none, and then nobody's name is looked at.
    dns_ports: BTreeSet<Port>,
    /// Addresses of the DNS cache on each node, if there is one: always external ones.
    pub(super) dns_cache: Vec<(IpAddr, Endpoint)>,
    /// Addresses of the pods that share a node's network.
    hosted: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Groups that hold addresses of the cluster, by their place among the settings' groups.
    pub(super) conflicts: BTreeMap<usize, GroupConflict>,
}

impl Surroundings {
    /// Looks at the cluster.
    pub fn new(cluster: &Cluster, settings: &Settings) -> Self {
        let identities = Identities::new(cluster);
        let mut dns: BTreeMap<Workload, BTreeSet<Port>> = BTreeMap::new();
        for service in settings.dns_services.iter().filter_map(|name| cluster.service(name)) {
            let Some(selector) = &service.selector else { continue };
            let namespace = &service.name.namespace;
            let mut pods: BTreeMap<Workload, Vec<&Pod>> = BTreeMap::new();
            for workload in identities.selected(namespace, selector) {
                pods.insert(workload, Vec::new());
            }
            for pod in cluster.pods_in(namespace) {
                if let Some(pods) = pods.get_mut(&cluster.workload_of(pod)) {
                    pods.push(pod);
                }
            }
            for (workload, pods) in pods {
                let ports = dns_ports(service, pods.into_iter());
                dns.entry(workload).or_default().extend(ports);
            }
        }
        let mut caching = false;
        let mut hosted: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for pod in cluster.pods().filter(|pod| pod.host_network) {
            caching |= pod.labels.get("k8s-app").is_some_and(|app| app == "node-local-dns");
            if let Some(node) = &pod.node {
                hosted.entry(node.to_string()).or_default().extend(&pod.addresses);
            }
        }
        let mut dns_cache = BTreeSet::new();
        if caching {
            dns_cache.extend(&settings.node_local_dns);
            for service in settings.dns_services.iter().filter_map(|name| cluster.service(name)) {
                dns_cache.extend(&service.cluster_ips);
            }
        }
        let conflicts = settings.conflicts(cluster);
        let place = |conflict: GroupConflict| {
            let mut groups = settings.external_groups.iter();
            let place =
                groups.position(|group| group.name() == conflict.group && group.cidrs().contains(&conflict.cidr));
            place.map(|place| (place, conflict))
        };
        Self {
            selections: selections(&identities),
            identities,
            dns_ports: dns.values().flatten().copied().collect(),
            dns,
            dns_cache: dns_cache
                .into_iter()
                .map(|address| (address, Endpoint::External(address)))
                .collect(),
            hosted,
            conflicts: conflicts.into_iter().filter_map(place).collect(),
        }
    }
}

/// Surroundings, the cluster that they are of, and the settings that they were found by.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) settings: &'a Settings,
    pub(super) around: &'a Surroundings,
}

impl<'a> View<'a> {
    /// All ports at which a peer serves DNS, if `port` of it is one of them.
    pub(super) fn dns_ports(&self, listener: &Endpoint, port: Port) -> Option<BTreeSet<Port>> {
        match listener {
            Endpoint::Workload(workload) => self.dns_ports_of(workload, port),
            // Outside cluster DNS the number and the transport are all there is to go by: nobody else asks there in UDP.
            Endpoint::External(_) | Endpoint::Node(_) | Endpoint::Service(_) => (port
                == Port {
                    number: DNS_PORT,
                    transport: Transport::Udp,
                })
            .then(|| both(DNS_PORT).into()),
            Endpoint::Unknown { .. } => None,
        }
    }

    /// The same of a workload.
    pub(super) fn dns_ports_of(&self, workload: &Workload, port: Port) -> Option<BTreeSet<Port>> {
        if !self.around.dns_ports.contains(&port) {
            return None;
        }
        let ports = self.around.dns.get(workload);
        ports.filter(|ports| ports.contains(&port)).cloned()
    }

    /// What an endpoint means; `port` matters for Services only.
    pub(super) fn meaning(&self, endpoint: &Endpoint, port: Port) -> Meaning<'a> {
        match endpoint {
            Endpoint::Workload(workload) => self.workload(workload),
            Endpoint::Node(name) => {
                let addresses = self.node_addresses(name);
                match (addresses.is_empty(), self.cluster.node(name)) {
                    (false, _) => host_network(addresses),
                    (true, None) => Meaning::Gone,
                    (true, Some(_)) => Meaning::Blocked(Obstacle::NoNodeAddress(endpoint.clone())),
                }
            }
            Endpoint::Service(name) => self.service(name, port),
            Endpoint::External(address) => match self.owner(*address) {
                Owner::Node => host_network([*address].into()),
                Owner::Nobody if !self.cluster.is_cluster_address(*address) => self.external(*address),
                Owner::Nobody | Owner::Pod(_) => Meaning::Blocked(Obstacle::ClusterAddress(*address)),
            },
            Endpoint::Unknown { reason, address } => Meaning::Blocked(Obstacle::Unknown(*reason, *address)),
        }
    }

    /// The group in which an address lies; of several the one with the narrowest range around it. Also one that cannot be used.
    pub(super) fn group_of(&self, address: IpAddr) -> Option<(usize, &'a ExternalGroup)> {
        if self.settings.node_local_dns.contains(&address) {
            return None;
        }
        let groups = self.settings.external_groups.iter().enumerate();
        let around =
            groups.filter_map(|(place, group)| group.prefix_around(address).map(|prefix| (prefix, place, group)));
        around
            .max_by_key(|(prefix, place, _)| (*prefix, std::cmp::Reverse(*place)))
            .map(|(_, place, group)| (place, group))
    }

    fn external(&self, address: IpAddr) -> Meaning<'a> {
        match self.group_of(address) {
            Some((place, _)) if !self.around.conflicts.contains_key(&place) => Meaning::Group(place),
            Some(_) | None => Meaning::Exactly(Peer::address(address)),
        }
    }

    fn workload(&self, workload: &Workload) -> Meaning<'a> {
        let identities = &self.around.identities;
        let (Some(identity), Some(placement), Some(selection)) = (
            identities.get(workload),
            identities.placement(workload),
            self.around.selections.get(workload),
        ) else {
            return Meaning::Gone;
        };
        let mut peers = Vec::new();
        let mut widenings = Vec::new();
        // Pods that are not born yet will have a network of their own, as far as is known.
        if placement.own_network || !placement.host_network {
            peers.push(Peer::pods(selection));
            match &identity.proof {
                Proof::Exact => {}
                Proof::Overlaps { with, hint } | Proof::NoLabels { with, hint } => {
                    widenings.push(Widening::Overlaps {
                        peer: workload.clone(),
                        also: with.clone(),
                        hint: hint.clone(),
                    });
                }
            }
        }
        if placement.host_network {
            let nodes = placement.hosts.iter();
            let addresses: BTreeSet<IpAddr> = nodes.flat_map(|node| self.node_addresses(node)).collect();
            if addresses.is_empty() {
                return Meaning::Blocked(Obstacle::NoNodeAddress(Endpoint::Workload(workload.clone())));
            }
            peers.extend(addresses.iter().copied().map(Peer::address));
            widenings.push(Widening::HostNetwork(addresses));
        }
        Meaning::of(peers, widenings)
    }

    fn service(&self, name: &ServiceName, port: Port) -> Meaning<'a> {
        let Some(service) = self.cluster.service(name) else {
            return Meaning::Gone;
        };
        let targets = self.slice_addresses(service, port);
        if targets.is_empty() {
            return Meaning::Blocked(Obstacle::NoEndpoints(name.clone()));
        }
        let mut peers = BTreeSet::new();
        let mut nodes = BTreeSet::new();
        let mut widenings = BTreeSet::new();
        for address in targets {
            match self.owner(address) {
                Owner::Pod(pod) => {
                    let workload = self.cluster.workload_of(pod);
                    match self.workload(&workload) {
                        Meaning::Exactly(peer) => {
                            peers.insert(peer);
                            widenings.insert(Widening::AllPods(workload));
                        }
                        Meaning::Peers {
                            peers: named,
                            widenings: noted,
                        } => {
                            peers.extend(named);
                            widenings.extend(noted);
                            widenings.insert(Widening::AllPods(workload));
                        }
                        other => return other,
                    }
                }
                Owner::Node => {
                    nodes.insert(address);
                    peers.insert(Peer::address(address));
                }
                Owner::Nobody if self.cluster.is_cluster_address(address) => {
                    return Meaning::Blocked(Obstacle::ClusterAddress(address));
                }
                // Its slices say which addresses they are: a group would say less.
                Owner::Nobody => {
                    peers.insert(Peer::address(address));
                }
            }
        }
        if !nodes.is_empty() {
            widenings.insert(Widening::HostNetwork(nodes));
        }
        Meaning::of(peers.into_iter().collect(), widenings.into_iter().collect())
    }

    /// Addresses of the slices that have this port.
    fn slice_addresses(&self, service: &Service, port: Port) -> BTreeSet<IpAddr> {
        self.cluster
            .slices_of(&service.name)
            .filter(|slice| {
                slice
                    .ports
                    .iter()
                    .any(|(_, number, transport)| *number == port.number && *transport == port.transport)
            })
            .flat_map(|slice| slice.addresses.iter().copied())
            .collect()
    }

    /// Addresses of a node: those of its object, else those of the pods that share its network.
    fn node_addresses(&self, name: &str) -> BTreeSet<IpAddr> {
        match self.cluster.node(name) {
            Some(node) if !node.addresses.is_empty() => node.addresses.clone(),
            _ => self.around.hosted.get(name).cloned().unwrap_or_default(),
        }
    }

    /// Who has an address now.
    fn owner(&self, address: IpAddr) -> Owner<'a> {
        let mut owner = Owner::Nobody;
        for known in self.cluster.owners_of(address, Timestamp::MAX, Timestamp::MAX) {
            match known {
                AddressOwner::Pod(uid) => {
                    if let Some(pod) = self.cluster.pod_by_uid(&uid) {
                        return Owner::Pod(pod);
                    }
                }
                AddressOwner::Node(_) => owner = Owner::Node,
                AddressOwner::Service(_) => {}
            }
        }
        owner
    }
}

enum Owner<'a> {
    Pod(&'a Pod),
    Node,
    Nobody,
}

fn host_network<'a>(addresses: BTreeSet<IpAddr>) -> Meaning<'a> {
    Meaning::Peers {
        peers: addresses.iter().copied().map(Peer::address).collect(),
        widenings: vec![Widening::HostNetwork(addresses)],
    }
}

fn both(number: u16) -> [Port; 2] {
    [Transport::Tcp, Transport::Udp].map(|transport| Port { number, transport })
}

/// The pods' own ports behind port 53 of a Service. A Service that has one transport only gets the other at the same number:
/// servers of DNS listen in both.
fn dns_ports<'a>(service: &Service, pods: impl Iterator<Item = &'a Pod>) -> BTreeSet<Port> {
    let declared: BTreeSet<&ContainerPort> = pods.flat_map(|pod| &*pod.ports).collect();
    let mut ports = BTreeSet::new();
    let mut served = BTreeSet::new();
    for port in service.ports.iter().filter(|port| port.port == DNS_PORT) {
        served.insert(port.transport);
        match &port.target {
            TargetPort::Number(number) => {
                ports.insert(Port {
                    number: *number,
                    transport: port.transport,
                });
            }
            TargetPort::Name(name) => {
                for declared in &declared {
                    if declared.name.as_ref() == Some(name) && declared.transport == port.transport {
                        ports.insert(Port {
                            number: declared.number,
                            transport: port.transport,
                        });
                    }
                }
            }
        }
    }
    if served.len() == 1 {
        let numbers: BTreeSet<u16> = ports.iter().map(|port| port.number).collect();
        ports.extend(numbers.into_iter().flat_map(both));
    }
    ports
}
