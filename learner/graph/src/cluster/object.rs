//! Objects of the cluster, reduced to what identity and policies need.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::endpoint::ServiceName;
use crate::flow::Transport;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// The controlling owner reference of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerRef {
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner; it lives in the same namespace.
    pub name: String,
}

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerPort {
    /// Name, by which Services and policies can refer to it.
    pub name: Option<String>,
    /// Number, 1 to 65535.
    pub number: u16,
    /// Transport protocol.
    pub transport: Transport,
}

/// What a container of a pod runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Image {
    /// As the pod's specification names it.
    pub name: String,
    /// The digest by which it was pulled or, of one that was not pulled, that of the image itself; `None` before it runs.
    pub digest: Option<String>,
}

/// How far a pod's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// Written down, and taken in by no API server yet: it has no address, and will have one.
    Declared,
    /// Not all containers have started; init containers may be talking already.
    Pending,
    /// At least one container runs.
    Running,
    /// Finished (`Succeeded` or `Failed`): its address may belong to another pod by now.
    Finished,
}

/// Addresses, in order, each once. Nearly every pod has one or two, for which a set would take ten times the room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(Box<[IpAddr]>);

impl Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        &self.0
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let sorted: BTreeSet<IpAddr> = addresses.into_iter().collect();
        Self(sorted.into_iter().collect())
    }
}

impl<const N: usize> From<[IpAddr; N]> for Addresses {
    fn from(addresses: [IpAddr; N]) -> Self {
        addresses.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Addresses {
    type Item = &'a IpAddr;
    type IntoIter = std::slice::Iter<'a, IpAddr>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// A pod. What its replicas have, too, a cluster holds once for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// UID, in the form that the API server gives it.
    pub uid: Arc<str>,
    /// The UID that cgroup paths of a static pod carry (`kubernetes.io/config.mirror`), if it is one.
    pub mirror_uid: Option<Box<str>>,
    /// Images of all containers, init containers included.
    pub images: Arc<BTreeSet<Image>>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Labels.
    pub labels: Arc<Labels>,
    /// Its controller.
    pub owner: Option<Arc<OwnerRef>>,
    /// Addresses, of both families in a dual-stack cluster.
    pub addresses: Addresses,
    /// Shares the node's network: its addresses are the node's.
    pub host_network: bool,
    /// Node it was bound to.
    pub node: Option<Arc<str>>,
    /// Declared ports of all containers, init containers that keep running included.
    pub ports: Arc<BTreeSet<ContainerPort>>,
    /// Phase.
    pub phase: PodPhase,
    /// Kubelet does not say that it is not ready.
    pub ready: bool,
    /// `status.startTime`, else creation: from then on it may have its address.
    pub started: Option<Timestamp>,
}

/// An object that owns pods, directly or through others: `ReplicaSet`, `Deployment`, `StatefulSet`, `DaemonSet`, `Job`, `CronJob`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Namespace.
    pub namespace: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Its own controller.
    pub owner: Option<OwnerRef>,
    /// `spec.selector.matchLabels`, where the kind has one.
    pub selector: Arc<Labels>,
    /// `spec.template.metadata.labels` (for a `CronJob`, those of its job template).
    pub template_labels: Arc<Labels>,
}

/// Where a Service port leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// A container port's name: its number may differ from pod to pod.
    Name(String),
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// Name, required by the API when there are several.
    pub name: Option<String>,
    /// Port of the Service.
    pub port: u16,
    /// Port of the pods.
    pub target: TargetPort,
    /// Port on every node, for `NodePort` and `LoadBalancer`.
    pub node_port: Option<u16>,
    /// Transport protocol.
    pub transport: Transport,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name.
    pub name: ServiceName,
    /// `clusterIPs`; empty when headless or `ExternalName`.
    pub cluster_ips: BTreeSet<IpAddr>,
    /// `externalIPs` and load balancer addresses.
    pub external_ips: BTreeSet<IpAddr>,
    /// Selects pods of its namespace; `None` when the Service has no selector.
    pub selector: Option<Labels>,
    /// Ports.
    pub ports: BTreeSet<ServicePort>,
    /// `externalName`, for the type of that name.
    pub external_name: Option<String>,
    /// Creation time.
    pub created: Option<Timestamp>,
}

impl Service {
    /// Whether it selects a pod. An empty selector selects none.
    pub fn selects(&self, pod: &Pod) -> bool {
        *pod.namespace == *self.name.namespace
            && self.has_selector()
            && self
                .selector
                .iter()
                .flatten()
                .all(|(label, value)| pod.labels.get(label) == Some(value))
    }

    /// Whether it selects by any label.
    pub fn has_selector(&self) -> bool {
        self.selector.as_ref().is_some_and(|selector| !selector.is_empty())
    }
}

/// An `EndpointSlice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Name of the slice.
    pub name: String,
    /// The Service it belongs to (`kubernetes.io/service-name`).
    pub service: ServiceName,
    /// Addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Ports: name of the Service port, number, transport.
    pub ports: BTreeSet<(Option<String>, u16, Transport)>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name.
    pub name: String,
    /// `status.addresses` that are addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Labels.
    pub labels: Labels,
    /// `spec.podCIDRs`.
    pub pod_cidrs: BTreeSet<IpNet>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Name.
    pub name: String,
    /// Labels; the API server adds `kubernetes.io/metadata.name`, and so do we where it is missing.
    pub labels: Labels,
}

/// One object of the cluster, of the kinds that identity needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A pod.
    Pod(Pod),
    /// An owner of pods.
    Controller(Controller),
    /// A Service.
    Service(Service),
    /// An `EndpointSlice`.
    EndpointSlice(EndpointSlice),
    /// A node.
    Node(Node),
    /// A namespace.
    Namespace(Namespace),
}

/// Identifies an [`Object`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKey {
    /// Namespace, name.
    Pod(String, String),
    /// Namespace, kind, name.
    Controller(String, String, String),
    /// Namespace, name.
    Service(ServiceName),
    /// Namespace, name of the slice.
    EndpointSlice(String, String),
    /// Name.
    Node(String),
    /// Name.
    Namespace(String),
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(namespace, name) => write!(f, "Pod {namespace}/{name}"),
            Self::Controller(namespace, kind, name) => write!(f, "{kind} {namespace}/{name}"),
            Self::Service(name) => name.fmt(f),
            Self::EndpointSlice(namespace, name) => write!(f, "EndpointSlice {namespace}/{name}"),
            Self::Node(name) => write!(f, "Node {name}"),
            Self::Namespace(name) => write!(f, "Namespace {name}"),
        }
    }
}

impl Object {
    /// Its key.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Pod(pod) => ObjectKey::Pod(pod.namespace.to_string(), pod.name.to_string()),
            Self::Controller(owner) => {
                ObjectKey::Controller(owner.namespace.clone(), owner.kind.clone(), owner.name.clone())
            }
            Self::Service(service) => ObjectKey::Service(service.name.clone()),
            Self::EndpointSlice(slice) => ObjectKey::EndpointSlice(slice.service.namespace.clone(), slice.name.clone()),
            Self::Node(node) => ObjectKey::Node(node.name.clone()),
            Self::Namespace(namespace) => ObjectKey::Namespace(namespace.name.clone()),
        }
    }
}
