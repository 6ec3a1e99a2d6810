//! Addressable things: what the two ends of a connection can be.
//!
//! Law: nothing is invented. What cannot be known is [`Endpoint::Unknown`], and it carries its reason.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The controller object that owns pods, at the top of the owner chain; a pod without an owner is its own workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// Namespace of the workload and of its pods.
    pub namespace: String,
    /// Kind of the top owner: `Deployment`, `StatefulSet`, `DaemonSet`, `CronJob`, `Job`, `Pod`, or any other controller's kind.
    pub kind: String,
    /// Name of the top owner.
    pub name: String,
}

impl Workload {
    /// Where a person puts a label that the workload's pods are to have, in a sentence about the workload.
    pub fn labels_stand_on(&self) -> &'static str {
        if self.kind == "Pod" { "it" } else { "its pod template" }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, kind, name } = self;
        write!(f, "{kind} {namespace}/{name}")
    }
}

/// A Service, by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceName {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service {}/{}", self.namespace, self.name)
    }
}

/// Why an end of a connection is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum UnknownReason {
    /// The cgroup was gone before its path could be read.
    CgroupGone,
    /// The container's pod is not among the pods that were watched.
    PodNotSeen,
    /// The address belongs to the cluster's pod or Service range, and nobody was seen to have it at that time.
    AddressNotSeen,
    /// More than one owner had the address during the flow, and no other report settles which.
    AddressReused,
}

impl UnknownReason {
    /// Every reason, for counters.
    pub const ALL: [Self; 4] = [
        Self::CgroupGone,
        Self::PodNotSeen,
        Self::AddressNotSeen,
        Self::AddressReused,
    ];

    /// One sentence for a person.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::CgroupGone => "the container was gone before its cgroup path could be read",
            Self::PodNotSeen => "the container's pod was never seen in the cluster",
            Self::AddressNotSeen => "nobody was seen to have this cluster address at that time",
            Self::AddressReused => "several owners had this address during the flow",
        }
    }
}

/// An addressable thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Endpoint {
    /// The pods of a workload.
    Workload(Workload),
    /// A Service that has no workload behind it here: no selector, no pods, or an external name.
    Service(ServiceName),
    /// A node of the cluster: its own processes, and the host-network pods on it.
    Node(String),
    /// An address outside the cluster.
    External(IpAddr),
    /// Not known, and why. The address stays, so that a later report can settle it.
    Unknown {
        /// Why it is not known.
        reason: UnknownReason,
        /// The address that was seen, if this end was seen as one.
        address: Option<IpAddr>,
    },
}

impl Endpoint {
    /// The workload, when the endpoint is one.
    pub const fn workload(&self) -> Option<&Workload> {
        match self {
            Self::Workload(workload) => Some(workload),
            Self::Service(_) | Self::Node(_) | Self::External(_) | Self::Unknown { .. } => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(workload) => workload.fmt(f),
            Self::Service(service) => service.fmt(f),
            Self::Node(name) => write!(f, "Node {name}"),
            Self::External(address) => write!(f, "external {address}"),
            Self::Unknown {
                reason,
                address: Some(address),
            } => write!(f, "unknown {address} ({})", reason.explain()),
            Self::Unknown { reason, address: None } => write!(f, "unknown ({})", reason.explain()),
        }
    }
}
