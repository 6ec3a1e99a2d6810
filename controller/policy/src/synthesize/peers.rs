//! An observed endpoint to the peers that a rule names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use nanoseg_graph::cluster::{AddressOwner, Cluster, Labels, Pod, PodPhase, Service, TargetPort};
use nanoseg_graph::endpoint::{Endpoint, ServiceName, Workload};
use nanoseg_graph::flow::Transport;

use super::note::Blocker;
use super::settings::Settings;
use crate::direction::Port;
use crate::identity::{Identities, Label, Proof};

/// Where DNS is served, by convention of every Service that does.
pub(super) const DNS_PORT: u16 = 53;

/// One peer of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// Pods with these labels.
    Pods { namespace: String, labels: Labels },
    /// An address; always a single one.
    Block(IpAddr),
}

/// What an endpoint means for a rule.
#[derive(Debug)]
pub(super) enum Meaning {
    /// These peers, and why they mean more than the endpoint.
    Peers {
        peers: BTreeSet<Peer>,
        widenings: BTreeSet<Widening>,
    },
    /// It is not there any more.
    Gone,
    /// No rule can be made of it.
    Blocked(Blocker),
}

/// Why peers mean more than the endpoint that was observed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Widening {
    Overlaps {
        peer: Workload,
        also: BTreeSet<Workload>,
        hint: Label,
    },
    HostNetwork(BTreeSet<IpAddr>),
    /// A Service's slice names one pod, and a selector means all pods of its workload.
    AllPods(Workload),
}

/// The cluster, looked at once for all workloads.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) identities: Identities<'a>,
    /// Workloads that serve cluster DNS, and where.
    dns: BTreeMap<Workload, BTreeSet<Port>>,
    /// Addresses of the DNS cache on each node, if there is one.
    pub(super) dns_cache: BTreeSet<IpAddr>,
}

impl<'a> Surroundings<'a> {
    pub(super) fn new(cluster: &'a Cluster, settings: &Settings) -> Self {
        let identities = Identities::new(cluster);
        let mut dns: BTreeMap<Workload, BTreeSet<Port>> = BTreeMap::new();
        for service in settings.dns_services.iter().filter_map(|name| cluster.service(name)) {
            let Some(selector) = &service.selector else { continue };
            for workload in identities.selected(&service.name.namespace, selector) {
                let ports = dns_ports(service, identities.pods(&workload));
                dns.entry(workload).or_default().extend(ports);
            }
        }
        let caching = cluster
            .pods()
            .any(|pod| pod.host_network && pod.labels.get("k8s-app").is_some_and(|app| app == "node-local-dns"));
        let mut dns_cache = BTreeSet::new();
        if caching {
            dns_cache.extend(&settings.node_local_dns);
            for service in settings.dns_services.iter().filter_map(|name| cluster.service(name)) {
                dns_cache.extend(&service.cluster_ips);
            }
        }
        Self {
            cluster,
            identities,
            dns,
            dns_cache,
        }
    }

    /// All ports at which a peer serves DNS, if `port` of it is one of them.
    pub(super) fn dns_ports(&self, listener: &Endpoint, port: Port) -> Option<BTreeSet<Port>> {
        match listener {
            Endpoint::Workload(workload) => self.dns.get(workload).filter(|ports| ports.contains(&port)).cloned(),
            // Outside cluster DNS the number and the transport are all there is to go by: nobody else asks there in UDP.
            Endpoint::External(_) | Endpoint::Node(_) | Endpoint::Service(_) => (port
                == Port {
                    number: DNS_PORT,
                    transport: Transport::Udp,
                })
            .then(|| both(DNS_PORT)),
            Endpoint::Unknown { .. } => None,
        }
    }

    pub(super) fn meaning(&self, endpoint: &Endpoint, port: Port) -> Meaning {
        match endpoint {
            Endpoint::Workload(workload) => self.workload(workload, port),
            Endpoint::Node(name) => {
                let addresses = self.node_addresses(name);
                match (addresses.is_empty(), self.cluster.node(name)) {
                    (false, _) => host_network(addresses),
                    (true, None) => Meaning::Gone,
                    (true, Some(_)) => Meaning::Blocked(Blocker::NoNodeAddress {
                        peer: endpoint.clone(),
                        port,
                    }),
                }
            }
            Endpoint::Service(name) => self.service(name, port),
            Endpoint::External(address) => match self.owner(*address) {
                Owner::Node => host_network([*address].into()),
                Owner::Nobody if !self.cluster.is_cluster_address(*address) => exact([Peer::Block(*address)].into()),
                Owner::Nobody | Owner::Pod(_) => Meaning::Blocked(Blocker::ClusterAddress {
                    address: *address,
                    port,
                }),
            },
            Endpoint::Unknown { reason, address } => Meaning::Blocked(Blocker::Unknown {
                reason: *reason,
                address: *address,
                port,
            }),
        }
    }

    fn workload(&self, workload: &Workload, port: Port) -> Meaning {
        let Some(identity) = self.identities.get(workload) else {
            return Meaning::Gone;
        };
        let mut pods = living(self.identities.pods(workload)).peekable();
        let unborn = pods.peek().is_none();
        let (hosted, own): (Vec<&Pod>, Vec<&Pod>) = pods.partition(|pod| pod.host_network);
        let mut peers = BTreeSet::new();
        let mut widenings = BTreeSet::new();
        if !own.is_empty() || unborn {
            peers.insert(Peer::Pods {
                namespace: workload.namespace.clone(),
                labels: identity.labels.clone(),
            });
            match &identity.proof {
                Proof::Exact => {}
                Proof::Overlaps { hint, .. } | Proof::NoLabels { hint } => {
                    let mut also = self.identities.selected(&workload.namespace, &identity.labels);
                    also.remove(workload);
                    widenings.insert(Widening::Overlaps {
                        peer: workload.clone(),
                        also,
                        hint: hint.clone(),
                    });
                }
            }
        }
        if !hosted.is_empty() {
            let nodes: BTreeSet<&str> = hosted.iter().filter_map(|pod| pod.node.as_deref()).collect();
            let addresses: BTreeSet<IpAddr> = nodes.into_iter().flat_map(|node| self.node_addresses(node)).collect();
            if addresses.is_empty() {
                return Meaning::Blocked(Blocker::NoNodeAddress {
                    peer: Endpoint::Workload(workload.clone()),
                    port,
                });
            }
            peers.extend(addresses.iter().copied().map(Peer::Block));
            widenings.insert(Widening::HostNetwork(addresses));
        }
        Meaning::Peers { peers, widenings }
    }

    fn service(&self, name: &ServiceName, port: Port) -> Meaning {
        let Some(service) = self.cluster.service(name) else {
            return Meaning::Gone;
        };
        let targets = self.slice_addresses(service, port);
        if targets.is_empty() {
            return Meaning::Blocked(Blocker::NoEndpoints {
                service: name.clone(),
                port,
            });
        }
        let mut peers = BTreeSet::new();
        let mut nodes = BTreeSet::new();
        let mut widenings = BTreeSet::new();
        for address in targets {
            match self.owner(address) {
                Owner::Pod(pod) => {
                    let workload = self.cluster.workload_of(pod);
                    match self.workload(&workload, port) {
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
                    peers.insert(Peer::Block(address));
                }
                Owner::Nobody if self.cluster.is_cluster_address(address) => {
                    return Meaning::Blocked(Blocker::ClusterAddress { address, port });
                }
                Owner::Nobody => {
                    peers.insert(Peer::Block(address));
                }
            }
        }
        if !nodes.is_empty() {
            widenings.insert(Widening::HostNetwork(nodes));
        }
        Meaning::Peers { peers, widenings }
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

    /// Addresses of a node: those of its object, and those of the pods that share its network.
    fn node_addresses(&self, name: &str) -> BTreeSet<IpAddr> {
        match self.cluster.node(name) {
            Some(node) if !node.addresses.is_empty() => node.addresses.clone(),
            _ => self
                .cluster
                .pods()
                .filter(|pod| pod.host_network && pod.node.as_deref() == Some(name))
                .flat_map(|pod| pod.addresses.iter().copied())
                .collect(),
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

fn exact(peers: BTreeSet<Peer>) -> Meaning {
    Meaning::Peers {
        peers,
        widenings: BTreeSet::new(),
    }
}

fn host_network(addresses: BTreeSet<IpAddr>) -> Meaning {
    let peers = addresses.iter().copied().map(Peer::Block).collect();
    Meaning::Peers {
        peers,
        widenings: [Widening::HostNetwork(addresses)].into(),
    }
}

/// Pods that have not finished.
pub(super) fn living<'a>(pods: &[&'a Pod]) -> impl Iterator<Item = &'a Pod> {
    pods.iter().copied().filter(|pod| pod.phase != PodPhase::Finished)
}

fn both(number: u16) -> BTreeSet<Port> {
    [Transport::Tcp, Transport::Udp]
        .map(|transport| Port { number, transport })
        .into()
}

/// The pods' own ports behind port 53 of a Service. A Service that has one transport only gets the other at the same number:
/// servers of DNS listen in both.
fn dns_ports(service: &Service, pods: &[&Pod]) -> BTreeSet<Port> {
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
                for declared in pods.iter().flat_map(|pod| &pod.ports) {
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

impl Peer {
    /// The range that stands for a single address.
    pub(super) fn cidr(address: IpAddr) -> String {
        IpNet::from(address).to_string()
    }
}
