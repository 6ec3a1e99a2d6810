//! What a proposal says about itself: every widening, and everything that was left out.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use nanoseg_graph::connection::EdgeKey;
use nanoseg_graph::endpoint::{Endpoint, ServiceName, UnknownReason, Workload};

use super::settings::{ExternalGroup, GroupConflict, LISTED, PortRange};
use crate::direction::{Direction, Port};
use crate::identity::{Label, Overlap};

/// Why a direction is not ready.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blocker {
    /// An end is not known.
    Unknown {
        /// Why.
        reason: UnknownReason,
        /// Its address, if that is known.
        address: Option<IpAddr>,
        /// The listener's port.
        port: Port,
    },
    /// The address lies in the cluster's own ranges, and no pod has it now: an `ipBlock` would mean whoever gets it next.
    ClusterAddress {
        /// The address.
        address: IpAddr,
        /// The listener's port.
        port: Port,
    },
    /// The peer shares a node's network, and no address of the node is known.
    NoNodeAddress {
        /// The peer.
        peer: Endpoint,
        /// The listener's port.
        port: Port,
    },
    /// The Service has neither pods nor slices with this port.
    NoEndpoints {
        /// The Service.
        service: ServiceName,
        /// The listener's port.
        port: Port,
    },
    /// There are more external addresses outside every group than
    /// [`external_addresses`](super::Settings::external_addresses).
    ManyAddresses {
        /// How many.
        count: usize,
        /// How many a policy names at most.
        most: usize,
    },
    /// The cluster does not understand ranges of ports, and this one has more than a policy lists one by one.
    LongRange {
        /// How many ports it has.
        count: usize,
        /// One of it that was observed.
        port: Port,
    },
    /// The cluster lets no connection through a Service that an egress rule could be written for.
    ServiceUnseen {
        /// The Service.
        service: ServiceName,
        /// The listener's port.
        port: Port,
    },
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown {
                reason,
                address: Some(address),
                port,
            } => {
                write!(f, "{address} at {port}: {}", reason.explain())
            }
            Self::Unknown {
                reason,
                address: None,
                port,
            } => write!(f, "a peer at {port}: {}", reason.explain()),
            Self::ClusterAddress { address, port } => {
                write!(f, "{address} at {port}: an address of the cluster that nobody has now")
            }
            Self::NoNodeAddress { peer, port } => write!(f, "{peer} at {port}: no address of its node is known"),
            Self::NoEndpoints { service, port } => {
                write!(
                    f,
                    "{service} at {port}: it has neither pods nor EndpointSlices with this port"
                )
            }
            Self::LongRange { count, port } => write!(
                f,
                "the range around {port} has {count} ports, ranges were shown not to be understood here (endPort), and a policy lists \
                 {LISTED} ports at most: declare a shorter range (--port-range)"
            ),
            Self::ServiceUnseen { service, port } => write!(
                f,
                "{service} at {port}: no egress rule was shown to let connections to Services through here"
            ),
            Self::ManyAddresses { count, most } => write!(
                f,
                "{count} external addresses are in no group, and a policy names {most} at most: name those that belong together \
                 as an external group"
            ),
        }
    }
}

/// A Service whose own addresses a rule names, because egress rules were shown to be compared with them. Through the Service it lets
/// every pod be reached that the Service leads to, now or later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedService {
    /// The Service.
    pub service: ServiceName,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Its ports.
    pub ports: BTreeSet<Port>,
}

impl fmt::Display for NamedService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service,
            addresses,
            ports,
        } = self;
        write!(
            f,
            "egress at {}: the rule names the address of {service} ({}), which this cluster compares with before it is translated",
            list(ports, ", "),
            list(addresses, ", ")
        )
    }
}

/// Something that a reader of a proposal must know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// Nothing was observed in this direction: it stays open.
    NotObserved {
        /// The direction.
        direction: Direction,
    },
    /// The direction is left out of the policy and stays open.
    NotReady {
        /// The direction.
        direction: Direction,
        /// Why.
        blockers: BTreeSet<Blocker>,
    },
    /// Connections that nobody ever accepted: no rule comes from them.
    Unanswered {
        /// The direction.
        direction: Direction,
        /// The edges.
        edges: BTreeSet<EdgeKey>,
    },
    /// ICMP echo: a policy cannot name it, and whether one that isolates denies it is left to each implementation.
    Echo {
        /// The direction.
        direction: Direction,
        /// The edges.
        edges: BTreeSet<EdgeKey>,
    },
    /// A peer that is gone: no rule comes from it until it is back.
    PeerGone {
        /// The direction.
        direction: Direction,
        /// The peer.
        peer: Endpoint,
        /// The ports it had used.
        ports: BTreeSet<Port>,
    },
    /// Widening: no stable labels separate a peer from others, so that the rule means them, too.
    PeerOverlaps {
        /// The direction.
        direction: Direction,
        /// The peer that was observed.
        peer: Workload,
        /// The others that the rule means as well.
        also: Overlap,
        /// A label which, on the peer's pod template, would separate it.
        hint: Label,
        /// The ports.
        ports: BTreeSet<Port>,
    },
    /// Widening: the peer shares its node's network, so that the rule names the node's addresses and means every process and
    /// host-network pod there. Traffic between a pod and its own node is allowed in any case.
    HostNetwork {
        /// The direction.
        direction: Direction,
        /// The peer that was observed.
        peer: Endpoint,
        /// The addresses that the rule names.
        addresses: BTreeSet<IpAddr>,
        /// The ports.
        ports: BTreeSet<Port>,
    },
    /// Widening: the peer was observed as a Service of which a slice names a pod, and the rule means all pods of its workload.
    AllPods {
        /// The direction.
        direction: Direction,
        /// The Service.
        peer: Endpoint,
        /// The workload.
        workload: Workload,
        /// The ports.
        ports: BTreeSet<Port>,
    },
    /// Widening: some addresses of a group were observed, and the rule means all of it.
    ExternalGroup {
        /// The direction.
        direction: Direction,
        /// The group.
        group: ExternalGroup,
        /// The addresses that were observed.
        addresses: BTreeSet<IpAddr>,
        /// The ports.
        ports: BTreeSet<Port>,
    },
    /// A group could not be used: its addresses are named one by one.
    GroupNotUsed(GroupConflict),
    /// The rule names a Service's own addresses beside its pods.
    ServiceAddress(NamedService),
    /// Widening: some ports of a range were observed, and the rule means all of it, for everybody whom it allows there because
    /// of these peers.
    PortRange {
        /// The direction.
        direction: Direction,
        /// The range.
        range: PortRange,
        /// The peers.
        peers: BTreeSet<Endpoint>,
        /// The ports that were observed.
        ports: BTreeSet<Port>,
    },
    /// Widening: DNS needs both transports, and these ports were not observed.
    Dns {
        /// The direction.
        direction: Direction,
        /// The other end.
        peer: Endpoint,
        /// The ports that were not observed.
        ports: BTreeSet<Port>,
    },
    /// Widening: each node has a DNS cache that answers in place of cluster DNS.
    NodeLocalDns {
        /// The addresses at which it may answer.
        addresses: BTreeSet<IpAddr>,
        /// The ports.
        ports: BTreeSet<Port>,
    },
}

impl Note {
    /// Whether it declares that a rule allows more than was observed.
    pub const fn is_widening(&self) -> bool {
        match self {
            Self::PeerOverlaps { .. }
            | Self::AllPods { .. }
            | Self::HostNetwork { .. }
            | Self::ExternalGroup { .. }
            | Self::PortRange { .. }
            | Self::Dns { .. }
            | Self::NodeLocalDns { .. } => true,
            Self::NotObserved { .. }
            | Self::NotReady { .. }
            | Self::Unanswered { .. }
            | Self::Echo { .. }
            | Self::PeerGone { .. }
            | Self::ServiceAddress(_)
            | Self::GroupNotUsed(_) => false,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotObserved { direction } => write!(f, "{direction} stays open: nothing was observed"),
            Self::NotReady { direction, blockers } => {
                write!(f, "{direction} stays open, it is not ready: {}", list(blockers, "; "))
            }
            Self::Unanswered { direction, edges } => {
                let edges = edges.iter().map(told);
                write!(
                    f,
                    "{direction}: no rule for connections that were never answered: {}",
                    list(edges, ", ")
                )
            }
            Self::Echo { direction, edges } => write!(f, "{direction}: {}", echo(edges)),
            Self::PeerGone { direction, peer, ports } => {
                write!(f, "{direction}: no rule for {peer} ({}): it is gone", list(ports, ", "))
            }
            Self::PeerOverlaps {
                direction,
                peer,
                also,
                hint,
                ports,
            } => {
                write!(
                    f,
                    "{direction} at {}: the rule for {peer} means every pod with its labels",
                    list(ports, ", ")
                )?;
                if !also.is_empty() {
                    write!(f, ", also those of {also}")?;
                }
                write!(f, "; the label {hint} on {} would separate it", peer.labels_stand_on())
            }
            Self::HostNetwork {
                direction,
                peer,
                addresses,
                ports,
            } => write!(
                f,
                "{direction} at {}: the rule for {peer} names node addresses ({}) and means every process and host-network \
                 pod there",
                list(ports, ", "),
                list(addresses, ", ")
            ),
            Self::AllPods {
                direction,
                peer,
                workload,
                ports,
            } => {
                write!(
                    f,
                    "{direction} at {}: the rule for {peer} means all pods of {workload}",
                    list(ports, ", ")
                )
            }
            Self::ExternalGroup {
                direction,
                group,
                addresses,
                ports,
            } => {
                let (ports, seen) = (list(ports, ", "), observed(addresses, "address", "addresses"));
                let (name, cidrs) = (group.name(), list(group.cidrs(), ", "));
                write!(
                    f,
                    "{direction} at {ports}: the rule means the whole external group {name} ({cidrs}), of which {seen}"
                )
            }
            Self::GroupNotUsed(conflict) => conflict.fmt(f),
            Self::ServiceAddress(named) => named.fmt(f),
            Self::PortRange {
                direction,
                range,
                peers,
                ports,
            } => {
                let (peers, seen) = (some(peers), observed(ports, "port", "ports"));
                write!(
                    f,
                    "{direction}: the rule for {peers} means the whole range {range}, of which {seen}"
                )
            }
            Self::Dns { direction, peer, ports } => {
                write!(
                    f,
                    "{direction}: {} with {peer} was not observed and is allowed, DNS needs it",
                    list(ports, ", ")
                )
            }
            Self::NodeLocalDns { addresses, ports } => write!(
                f,
                "egress: the DNS cache of the node ({}) is allowed at {}",
                list(addresses, ", "),
                list(ports, ", ")
            ),
        }
    }
}

pub(super) fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>, separator: &str) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(separator)
}

fn echo(edges: &BTreeSet<EdgeKey>) -> String {
    let ends = edges
        .iter()
        .map(|edge| format!("{} -> {}", edge.source, edge.destination));
    format!(
        "no rule can name ICMP echo, and whether isolation stops it depends on the network plugin: {}",
        some(&ends.collect())
    )
}

/// How many things a sentence names at most.
const NAMED: usize = 5;

/// The first few of them, and how many more there are.
fn some<T: fmt::Display>(items: &BTreeSet<T>) -> String {
    let named = list(items.iter().take(NAMED), ", ");
    match items.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn observed<T: fmt::Display>(items: &BTreeSet<T>, one: &str, several: &str) -> String {
    match items.len() {
        1 => format!("1 {one} was observed: {}", some(items)),
        number => format!("{number} {several} were observed: {}", some(items)),
    }
}

fn told(edge: &EdgeKey) -> String {
    let EdgeKey {
        source,
        destination,
        port,
        transport,
    } = edge;
    format!("{source} to {destination} at {transport} {port}")
}
