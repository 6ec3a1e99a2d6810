//! What the API server said, with times: pods, owners, Services, nodes, namespaces, and who had which address when.
//!
//! Addresses are reused, so an address alone names nobody: every question about one carries the interval in which it was
//! seen. Owners that are gone stay as tombstones, because a report may arrive after its pod was deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::endpoint::{ServiceName, Workload};
use crate::flow::Transport;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// The controlling owner reference of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnerRef {
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner; it lives in the same namespace.
    pub name: String,
}

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerPort {
    /// Name, by which Services and policies can refer to it.
    pub name: Option<String>,
    /// Number, 1 to 65535.
    pub number: u16,
    /// Transport protocol.
    pub transport: Transport,
}

/// How far a pod's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// Not all containers have started; init containers may be talking already.
    Pending,
    /// At least one container runs.
    Running,
    /// Finished (`Succeeded` or `Failed`): its address may belong to another pod by now.
    Finished,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// UID, in the form that the API server gives it.
    pub uid: String,
    /// The UID that cgroup paths of a static pod carry (`kubernetes.io/config.mirror`), if it is one.
    pub mirror_uid: Option<String>,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// Its controller.
    pub owner: Option<OwnerRef>,
    /// Addresses, of both families in a dual-stack cluster.
    pub addresses: BTreeSet<IpAddr>,
    /// Shares the node's network: its addresses are the node's.
    pub host_network: bool,
    /// Node it was bound to.
    pub node: Option<String>,
    /// Declared ports of all containers, init containers that keep running included.
    pub ports: BTreeSet<ContainerPort>,
    /// Phase.
    pub phase: PodPhase,
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
    pub selector: Labels,
    /// `spec.template.metadata.labels` (for a `CronJob`, those of its job template).
    pub template_labels: Labels,
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

impl Object {
    /// Its key.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Pod(pod) => ObjectKey::Pod(pod.namespace.clone(), pod.name.clone()),
            Self::Controller(owner) => {
                ObjectKey::Controller(owner.namespace.clone(), owner.kind.clone(), owner.name.clone())
            }
            Self::Service(service) => ObjectKey::Service(service.name.clone()),
            Self::EndpointSlice(slice) => {
                ObjectKey::EndpointSlice(slice.service.namespace.clone(), slice.name.clone())
            }
            Self::Node(node) => ObjectKey::Node(node.name.clone()),
            Self::Namespace(namespace) => ObjectKey::Namespace(namespace.name.clone()),
        }
    }
}

/// Who an address belonged to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressOwner {
    /// A pod, by UID.
    Pod(String),
    /// A Service.
    Service(ServiceName),
    /// A node, by name.
    Node(String),
}

/// An owner of an address, and from when until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Who.
    pub owner: AddressOwner,
    /// Since when; `None`: since before anything that was observed.
    pub from: Option<Timestamp>,
    /// Until when; `None`: still.
    pub until: Option<Timestamp>,
}

/// The cluster as it is, and as it was where addresses are concerned.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pods: BTreeMap<String, Pod>,
    pods_by_name: BTreeMap<(String, String), String>,
    gone_pods: BTreeMap<String, Pod>,
    controllers: BTreeMap<(String, String, String), Controller>,
    services: BTreeMap<ServiceName, Service>,
    slices: BTreeMap<(String, String), EndpointSlice>,
    nodes: BTreeMap<String, Node>,
    namespaces: BTreeMap<String, Namespace>,
    addresses: BTreeMap<IpAddr, Vec<Ownership>>,
    cluster_cidrs: BTreeSet<IpNet>,
}

impl Cluster {
    /// A cluster in which nothing is known yet. `cidrs` are pod and Service ranges beyond those the nodes declare: an address
    /// in them is never taken for an external one.
    pub fn new(cidrs: impl IntoIterator<Item = IpNet>) -> Self {
        Self { cluster_cidrs: cidrs.into_iter().collect(), ..Self::default() }
    }

    /// Takes an object in, new or changed, as it is at `at`.
    pub fn observe(&mut self, object: Object, at: Timestamp) {
        let _ = (object, at);
    }

    /// Takes an object out. Its addresses stay as tombstones that end at `at`.
    pub fn remove(&mut self, key: &ObjectKey, at: Timestamp) {
        let _ = (key, at);
    }

    /// Live pods, ordered by namespace and name. Finished pods are among them until they are deleted.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods_by_name.values().filter_map(|uid| self.pods.get(uid))
    }

    /// Live pods of one namespace, ordered by name.
    pub fn pods_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Pod> {
        self.pods_by_name
            .range((namespace.to_owned(), String::new())..(format!("{namespace}\0"), String::new()))
            .filter_map(|(_, uid)| self.pods.get(uid))
    }

    /// A live pod by namespace and name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        let uid = self.pods_by_name.get(&(namespace.to_owned(), name.to_owned()))?;
        self.pods.get(uid)
    }

    /// A pod by UID (or by the UID in a static pod's cgroup path), gone ones included.
    pub fn pod_by_uid(&self, uid: &str) -> Option<&Pod> {
        self.pods.get(uid).or_else(|| self.gone_pods.get(uid))
    }

    /// Owners of pods, in a fixed order.
    pub fn controllers(&self) -> impl Iterator<Item = &Controller> {
        self.controllers.values()
    }

    /// An owner of pods.
    pub fn controller(&self, namespace: &str, kind: &str, name: &str) -> Option<&Controller> {
        self.controllers.get(&(namespace.to_owned(), kind.to_owned(), name.to_owned()))
    }

    /// Services, in a fixed order.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// A Service.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }

    /// The slices of a Service, in a fixed order.
    pub fn slices_of<'a>(&'a self, service: &'a ServiceName) -> impl Iterator<Item = &'a EndpointSlice> {
        self.slices.values().filter(move |slice| slice.service == *service)
    }

    /// Nodes, in a fixed order.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Namespaces, in a fixed order.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values()
    }

    /// A namespace's labels with `kubernetes.io/metadata.name` filled in, also for a namespace that only its pods speak of.
    pub fn namespace_labels(&self, name: &str) -> Labels {
        let mut labels = self.namespaces.get(name).map(|namespace| namespace.labels.clone()).unwrap_or_default();
        labels.entry("kubernetes.io/metadata.name".to_owned()).or_insert_with(|| name.to_owned());
        labels
    }

    /// The workload at the top of a pod's owner chain. A chain that leads to an owner which is not known ends at that owner's
    /// reference: custom controllers are workloads too.
    pub fn workload_of(&self, pod: &Pod) -> Workload {
        let _ = pod;
        unreachable!()
    }

    /// Live pods of a workload, finished ones and host-network ones included, ordered by name.
    pub fn pods_of<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = &'a Pod> {
        self.pods_in(&workload.namespace).filter(move |pod| self.workload_of(pod) == *workload)
    }

    /// Whether a workload still exists: its owner object does, or a live pod of it does.
    pub fn has_workload(&self, workload: &Workload) -> bool {
        let Workload { namespace, kind, name } = workload;
        self.controller(namespace, kind, name).is_some() || self.pods_of(workload).next().is_some()
    }

    /// Every owner of `address` whose ownership touches `[first, last]`, in a fixed order, each once.
    pub fn owners_of(&self, address: IpAddr, first: Timestamp, last: Timestamp) -> BTreeSet<AddressOwner> {
        let _ = (address, first, last);
        BTreeSet::new()
    }

    /// Whether an address belongs to the cluster's own ranges (node pod CIDRs and the configured ones).
    pub fn is_cluster_address(&self, address: IpAddr) -> bool {
        self.cluster_cidrs.iter().chain(self.nodes.values().flat_map(|node| &node.pod_cidrs)).any(|cidr| cidr.contains(&address))
    }
}
