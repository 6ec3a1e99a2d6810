//! A table of flows and a cluster to the connection graph.
//!
//! Law: no edge without two attributed ends, and no attribution without a time. Each end is attributed at the time of the
//! flow; an address that two owners had in that time is settled by the other end's report, and stays `Unknown` without one.

mod hosts;
mod kept;
mod recorded;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use jiff::Timestamp;

use crate::cluster::{AddressOwner, Cluster, Pod, PodPhase, Service, ServicePort, TargetPort};
use crate::connection::{ConnectionGraph, Edge};
use crate::endpoint::{Endpoint, ServiceName, UnknownReason};
use crate::flow::{FlowRef, FlowTable, Origin, Reporter, Subject, Tally, Transport};
use crate::name::DnsName;
use crate::process::Process;

use hosts::Hosts;
pub use kept::{Changes, Resolution};
pub use recorded::resolve_recorded;

/// Attributes both ends of every flow at the time of the flow and folds the flows into edges.
///
/// * A Service address becomes one edge to each workload behind the Service, at its own target port, with the Service in
///   [`Evidence::via`]; an edge to the Service itself only where no workload is behind it.
/// * An address that two owners had during the flow is settled by the other end's reports; what stays ambiguous is `Unknown`.
/// * A pod's connection to its own address is not traffic.
/// * Without any object of a cluster, containers and systemd units of the hosts are the workloads.
pub fn resolve(flows: &FlowTable, cluster: &Cluster) -> ConnectionGraph {
    resolve_with(&Resolver::new(flows, cluster))
}

fn resolve_with(resolver: &Resolver<'_>) -> ConnectionGraph {
    let mut graph = ConnectionGraph::default();
    for (origin, key, tally) in resolver.flows.flows() {
        let peers = resolver.peer_ends(origin, key, tally);
        resolver.count(&mut graph, (origin, key), (tally, tally), peers, |_, _| {});
    }
    graph
}

/// The other end of a flow.
#[derive(PartialEq, Eq)]
struct Peer {
    endpoint: Endpoint,
    /// The listener's own port: differs from the flow's where a Service translates it.
    port: u16,
    via: Option<ServiceName>,
}

/// Who asked and the address, and each name with the time in which it held.
type Names<'a> = BTreeMap<(Endpoint, IpAddr), Vec<(&'a DnsName, (Timestamp, Timestamp))>>;

/// The ends behind a port of a Service, and the port's own number on each.
type Behind = BTreeSet<(Endpoint, u16)>;

/// The pods of a namespace that have a label.
type Labelled<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a Pod>>;

struct Resolver<'a> {
    flows: &'a FlowTable,
    cluster: &'a Cluster,
    /// Only where an address had several owners.
    reports: OnceCell<Reports>,
    names: OnceCell<Names<'a>>,
    /// Whether that was so.
    contested: Cell<bool>,
    /// Only where there is no cluster.
    hosts: Option<Hosts<'a>>,
    /// What live pods are behind a Service's port does not depend on the flow: found once, not for each flow.
    live: RefCell<BTreeMap<(&'a ServiceName, &'a ServicePort), Rc<Behind>>>,
    /// Pods by label, of each namespace in which a Service was asked for.
    labelled: RefCell<BTreeMap<&'a str, Labelled<'a>>>,
}

impl<'a> Resolver<'a> {
    fn new(flows: &'a FlowTable, cluster: &'a Cluster) -> Self {
        Self {
            flows,
            cluster,
            reports: OnceCell::new(),
            names: OnceCell::new(),
            contested: Cell::new(false),
            hosts: Hosts::of(flows, cluster),
            live: RefCell::default(),
            labelled: RefCell::default(),
        }
    }

    /// Counts a flow with these peers, so much of its tally, and hands over the ends of each edge.
    fn count(
        &self,
        graph: &mut ConnectionGraph,
        (origin, key): (&Origin, FlowRef<'_>),
        (tally, counted): (&Tally, &Tally),
        peers: Vec<Peer>,
        mut touch: impl FnMut(&Endpoint, &Endpoint),
    ) {
        let own = self.own_end(&origin.node, key.subject);
        let process = self.process(&own, key.subject);
        for Peer { endpoint, port, via } in peers {
            let (source, destination) = match key.reporter {
                Reporter::Source => (&own, &endpoint),
                Reporter::Destination => (&endpoint, &own),
            };
            let edge = Edge {
                source,
                destination,
                port,
                transport: key.transport,
            };
            graph.count(edge, (key.reporter, origin, *counted), via.as_ref());
            if let Some(process) = &process {
                graph.run_by(edge, key.reporter, process);
            }
            touch(source, destination);
            // Only what is outside has no better name.
            if let (Endpoint::External(address), Reporter::Source) = (&endpoint, key.reporter)
                && let Some(names) = self.names.get_or_init(|| self.names()).get(&(own.clone(), *address))
            {
                let held = |(_, (first, until)): &&(_, (Timestamp, Timestamp))| {
                    *first <= tally.last_seen && tally.first_seen <= *until
                };
                for (name, _) in names.iter().filter(held) {
                    graph.name(&own, &endpoint, name);
                }
            }
        }
    }

    /// Every name that was asked for, by who asked and the address, and from when until when it held.
    fn names(&self) -> Names<'a> {
        let mut names = Names::new();
        for (node, subject, address, name, held) in self.flows.names() {
            let own = self.own_end(node, subject);
            names.entry((own, address)).or_default().push((name, held));
        }
        names
    }

    fn own_end(&self, node: &str, subject: &Subject) -> Endpoint {
        match subject {
            Subject::Container(container) => match self.cluster.pod_by_uid(&container.pod_uid) {
                Some(pod) => self.pod_endpoint(pod, node),
                None => Endpoint::Unknown {
                    reason: UnknownReason::PodNotSeen,
                    address: None,
                },
            },
            Subject::Host(_) => {
                let hosts = self.hosts.as_ref();
                hosts
                    .and_then(|hosts| hosts.own_end(node, subject))
                    .unwrap_or_else(|| Endpoint::Node(node.to_owned()))
            }
            Subject::Unknown(reason) => Endpoint::Unknown {
                reason: *reason,
                address: None,
            },
        }
    }

    /// Who of a node a flow's own end is.
    fn process(&self, own: &Endpoint, subject: &Subject) -> Option<Process> {
        let Endpoint::Node(_) = own else { return None };
        match subject {
            Subject::Host(path) => Process::of_path(path),
            Subject::Container(container) => {
                let pod = self.cluster.pod_by_uid(&container.pod_uid)?;
                Some(Process::Workload(self.cluster.workload_of(pod)))
            }
            Subject::Unknown(_) => None,
        }
    }

    fn pod_endpoint(&self, pod: &Pod, node: &str) -> Endpoint {
        if pod.host_network {
            Endpoint::Node(pod.node.as_deref().unwrap_or(node).to_owned())
        } else {
            Endpoint::Workload(self.cluster.workload_of(pod))
        }
    }

    fn peer_ends(&self, origin: &Origin, key: FlowRef<'_>, tally: &Tally) -> Vec<Peer> {
        let hosts = self.hosts.as_ref();
        if let Some(endpoint) = hosts.and_then(|hosts| hosts.peer(origin, key, tally)) {
            return vec![plain(endpoint, key.port)];
        }
        let owners = self.cluster.owners_of(key.peer, tally.first_seen, tally.last_seen);
        let owners = if owners.len() > 1 {
            self.contested.set(true);
            self.settle(owners, key, tally)
        } else {
            Ok(owners)
        };
        let owners = match owners {
            Ok(owners) => owners,
            Err(reason) => return vec![unknown(reason, key)],
        };
        if owners.is_empty() {
            return vec![self.unowned(origin, key)];
        }
        let mut peers = Vec::new();
        for owner in owners {
            match owner {
                AddressOwner::Pod(uid) => match self.cluster.pod_by_uid(&uid) {
                    Some(_) if is_subject(key.subject, &uid) => {}
                    Some(pod) => peers.push(plain(self.pod_endpoint(pod, &origin.node), key.port)),
                    None => peers.push(unknown(UnknownReason::PodNotSeen, key)),
                },
                AddressOwner::Service(name) => peers.extend(self.through_service(&name, key, tally, |port| port.port)),
                AddressOwner::Node(name) => peers.extend(self.node_peer(name, key, tally)),
            }
        }
        peers
    }

    /// An address that no object of the cluster has.
    fn unowned(&self, origin: &Origin, key: FlowRef<'_>) -> Peer {
        let nodes: BTreeSet<&str> = self.flows.nodes_with(key.peer).collect();
        // Every node may have a bridge of the same address; to a pod, its own node's is the nearest.
        let node = nodes
            .get(origin.node.as_str())
            .or_else(|| nodes.first().filter(|_| nodes.len() == 1));
        if let Some(node) = node {
            plain(Endpoint::Node((*node).to_owned()), key.port)
        } else if self.cluster.is_cluster_address(key.peer) {
            unknown(UnknownReason::AddressNotSeen, key)
        } else {
            plain(Endpoint::External(key.peer), key.port)
        }
    }

    /// A node's address: a `NodePort` where one matches, else the node itself.
    fn node_peer(&self, node: String, key: FlowRef<'_>, tally: &Tally) -> Vec<Peer> {
        // Only who connects knows that it was a Service's port.
        let services = (key.reporter == Reporter::Source).then(|| self.cluster.services());
        let service = services.into_iter().flatten().find(|service| {
            service
                .ports
                .iter()
                .any(|port| port.node_port == Some(key.port) && port.transport == key.transport)
        });
        match service {
            // 0 is no port that a flow can have, so a port without a node port never matches.
            Some(service) => self.through_service(&service.name, key, tally, |port| port.node_port.unwrap_or(0)),
            None => vec![plain(Endpoint::Node(node), key.port)],
        }
    }

    /// The ends behind a Service for a connection to the port that `number` reads from its ports.
    fn through_service(
        &self,
        name: &ServiceName,
        key: FlowRef<'_>,
        tally: &Tally,
        number: impl Fn(&ServicePort) -> u16,
    ) -> Vec<Peer> {
        let itself = |port: u16| Peer {
            endpoint: Endpoint::Service(name.clone()),
            port,
            via: None,
        };
        let Some(service) = self.cluster.service(name) else {
            return vec![itself(key.port)];
        };
        let Some(port) = service
            .ports
            .iter()
            .find(|port| number(port) == key.port && port.transport == key.transport)
        else {
            return vec![itself(key.port)];
        };
        let mut behind: Rc<Behind> = Rc::default();
        match &service.selector {
            Some(selector) if !selector.is_empty() => behind = self.selected(service, port, tally),
            Some(_) | None => {
                for slice in self.cluster.slices_of(name) {
                    let numbers = slice
                        .ports
                        .iter()
                        .filter(|(port_name, _, transport)| *port_name == port.name && *transport == key.transport);
                    for (_, number, _) in numbers {
                        Rc::make_mut(&mut behind).extend(
                            slice
                                .addresses
                                .iter()
                                .map(|address| (self.backend(name, *address, tally), *number)),
                        );
                    }
                }
            }
        }
        if behind.is_empty() {
            return vec![itself(match port.target {
                TargetPort::Number(number) => number,
                TargetPort::Name(_) => port.port,
            })];
        }
        let peer = |(endpoint, port): &(Endpoint, u16)| {
            let via = (*endpoint != Endpoint::Service(name.clone())).then(|| name.clone());
            let endpoint = endpoint.clone();
            Peer {
                endpoint,
                port: *port,
                via,
            }
        };
        behind.iter().map(peer).collect()
    }

    /// An address of a Service without a selector: the workload that has it, else the Service, whose slices name the address.
    fn backend(&self, name: &ServiceName, address: IpAddr, tally: &Tally) -> Endpoint {
        let owners = self.cluster.owners_of(address, tally.first_seen, tally.last_seen);
        match owners.first() {
            Some(AddressOwner::Pod(uid)) if owners.len() == 1 => match self.cluster.pod_by_uid(uid) {
                Some(pod) if !pod.host_network => Endpoint::Workload(self.cluster.workload_of(pod)),
                Some(_) | None => Endpoint::Service(name.clone()),
            },
            Some(_) | None => Endpoint::Service(name.clone()),
        }
    }

    /// Pods that have not finished and have one of the labels that a Service selects by, of all its labels the one that fewest have. A large
    /// namespace has as many Services as it has workloads.
    fn candidates(&self, service: &'a Service) -> Vec<&'a Pod> {
        let namespace = service.name.namespace.as_str();
        let mut namespaces = self.labelled.borrow_mut();
        let labelled = namespaces.entry(namespace).or_insert_with(|| {
            let mut labelled: Labelled<'a> = BTreeMap::new();
            let pods = self.cluster.pods_in(namespace);
            for pod in pods.filter(|pod| pod.phase != PodPhase::Finished) {
                for (key, value) in &*pod.labels {
                    labelled.entry((key.as_str(), value.as_str())).or_default().push(pod);
                }
            }
            labelled
        });
        let selector = service.selector.iter().flatten();
        let of_each = selector.map(|(key, value)| labelled.get(&(key.as_str(), value.as_str())));
        // A label that nobody has: nobody is selected.
        let fewest = of_each.min_by_key(|pods| pods.map_or(0, Vec::len));
        fewest.flatten().cloned().unwrap_or_default()
    }

    /// The pods that a Service selects; where none lives any more, those that did at the time of the flow.
    fn selected(&self, service: &'a Service, port: &'a ServicePort, tally: &Tally) -> Rc<Behind> {
        if let Some(known) = self.live.borrow().get(&(&service.name, port)) {
            return Rc::clone(known);
        }
        let listening = |pods: Vec<&Pod>| {
            let mut behind = Behind::new();
            for pod in pods {
                let endpoint = self.pod_endpoint(pod, "");
                behind.extend(target_numbers(port, pod).map(|number| (endpoint.clone(), number)));
            }
            Rc::new(behind)
        };
        let matches = |pod: &&Pod| service.selects(pod);
        let live: Vec<&Pod> = self.candidates(service).into_iter().filter(matches).collect();
        if !live.is_empty() {
            let behind = listening(live);
            self.live.borrow_mut().insert((&service.name, port), Rc::clone(&behind));
            return behind;
        }
        let lived = |pod: &&Pod| {
            pod.addresses.iter().any(|address| {
                let owner = AddressOwner::Pod(pod.uid.clone());
                self.cluster
                    .owners_of(*address, tally.first_seen, tally.last_seen)
                    .contains(&owner)
            })
        };
        listening(self.cluster.gone_pods().filter(matches).filter(lived).collect())
    }

    /// Which of several owners of an address it was: those whose own end reported this connection; without such a report, all
    /// of them if they are the same endpoint anyway.
    fn settle(
        &self,
        owners: BTreeSet<AddressOwner>,
        key: FlowRef<'_>,
        tally: &Tally,
    ) -> Result<BTreeSet<AddressOwner>, UnknownReason> {
        let reports = self.reports.get_or_init(|| Reports::index(self.flows, self.cluster));
        let confirmed: BTreeSet<AddressOwner> = owners
            .iter()
            .filter(|owner| reports.confirm(owner, key, tally, self.cluster))
            .cloned()
            .collect();
        if !confirmed.is_empty() {
            return Ok(confirmed);
        }
        let endpoints: BTreeSet<Option<Endpoint>> = owners
            .iter()
            .map(|owner| match owner {
                AddressOwner::Pod(uid) => self.cluster.pod_by_uid(uid).map(|pod| self.pod_endpoint(pod, "")),
                AddressOwner::Service(name) => Some(Endpoint::Service(name.clone())),
                AddressOwner::Node(name) => Some(Endpoint::Node(name.clone())),
            })
            .collect();
        if endpoints.len() == 1 && !endpoints.contains(&None) {
            return Ok(owners.into_iter().take(1).collect());
        }
        Err(UnknownReason::AddressReused)
    }
}

fn is_subject(subject: &Subject, uid: &str) -> bool {
    match subject {
        Subject::Container(container) => container.pod_uid == uid,
        Subject::Host(_) | Subject::Unknown(_) => false,
    }
}

const fn plain(endpoint: Endpoint, port: u16) -> Peer {
    Peer {
        endpoint,
        port,
        via: None,
    }
}

const fn unknown(reason: UnknownReason, key: FlowRef<'_>) -> Peer {
    plain(
        Endpoint::Unknown {
            reason,
            address: Some(key.peer),
        },
        key.port,
    )
}

/// The numbers of a Service port on one pod: a name may stand for another number on each.
fn target_numbers<'a>(port: &'a ServicePort, pod: &'a Pod) -> impl Iterator<Item = u16> + 'a {
    let (number, name) = match &port.target {
        TargetPort::Number(number) => (Some(*number), None),
        TargetPort::Name(name) => (None, Some(name)),
    };
    let named = pod
        .ports
        .iter()
        .filter(move |declared| {
            name.is_some() && declared.name.as_ref() == name && declared.transport == port.transport
        })
        .map(|declared| declared.number);
    number.into_iter().chain(named)
}

/// A pod's UID, its role, the peer's address, port and transport.
type ReportKey = (Arc<str>, Reporter, IpAddr, u16, Transport);

/// Whose own end reported a connection with which peer, and when.
#[derive(Default)]
struct Reports {
    seen: BTreeMap<ReportKey, Vec<(Timestamp, Timestamp)>>,
}

impl Reports {
    fn index(flows: &FlowTable, cluster: &Cluster) -> Self {
        let mut reports = Self::default();
        for (_, key, tally) in flows.flows() {
            if let Subject::Container(container) = key.subject
                && let Some(pod) = cluster.pod_by_uid(&container.pod_uid)
            {
                let index = (pod.uid.clone(), key.reporter, key.peer, key.port, key.transport);
                reports
                    .seen
                    .entry(index)
                    .or_default()
                    .push((tally.first_seen, tally.last_seen));
            }
        }
        reports
    }

    /// Whether `owner` itself reported the other end of this flow in the same interval.
    fn confirm(&self, owner: &AddressOwner, key: FlowRef<'_>, tally: &Tally, cluster: &Cluster) -> bool {
        let (AddressOwner::Pod(uid), Subject::Container(container)) = (owner, key.subject) else {
            return false;
        };
        let Some(subject) = cluster.pod_by_uid(&container.pod_uid) else {
            return false;
        };
        let opposite = match key.reporter {
            Reporter::Source => Reporter::Destination,
            Reporter::Destination => Reporter::Source,
        };
        subject.addresses.iter().any(|address| {
            self.seen
                .get(&(uid.clone(), opposite, *address, key.port, key.transport))
                .into_iter()
                .flatten()
                .any(|(first, last)| *first <= tally.last_seen && tally.first_seen <= *last)
        })
    }
}

#[cfg(test)]
mod tests;
