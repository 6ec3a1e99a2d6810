//! What the API server said, with times: pods, owners, Services, nodes, namespaces, and who had which address when.
//!
//! Addresses are reused, so an address alone names nobody: every question about one carries the interval in which it was
//! seen. What is gone stays as a tombstone, because a report may arrive after its pod was deleted.
//!
//! Law: the answer to a question about an interval depends on the objects that lived in it, never on when it is asked
//! (as long as the tombstones reach back that far; what lies further back is `Unknown`, not somebody else).

mod object;
mod ranges;
mod shared;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::endpoint::{ServiceName, Workload};
pub use object::{
    Addresses, ContainerPort, Controller, EndpointSlice, Image, Labels, Namespace, Node, Object, ObjectKey, OwnerRef,
    Pod, PodPhase, Service, ServicePort, TargetPort,
};
use ranges::NodeRanges;
use shared::Shared;

/// Tombstones of pods that are kept: at about 1 KiB each this bounds them to 50 MiB, and holds a day of a cluster that ends one
/// pod every two seconds.
const TOMBSTONES: usize = 50_000;

/// Owner references that are followed at most. The longest chain that Kubernetes itself makes has two; operators add one or
/// two, and a reference that leads back to itself must end.
const CHAIN: usize = 8;

/// The label that names a namespace in selectors; the API server sets it on every namespace.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Who an address belonged to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressOwner {
    /// A pod, by UID.
    Pod(Arc<str>),
    /// A Service.
    Service(ServiceName),
    /// A node, by name.
    Node(String),
}

/// An owner of an address, and from when until when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ownership {
    owner: AddressOwner,
    /// `None`: since before anything that was observed.
    from: Option<Timestamp>,
    /// `None`: still.
    until: Option<Timestamp>,
}

impl Ownership {
    fn touches(&self, first: Timestamp, last: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= last) && self.until.is_none_or(|until| first <= until)
    }
}

/// The cluster as it is, and as it was where addresses are concerned.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pods: BTreeMap<Arc<str>, Box<Pod>>,
    /// UIDs by namespace and name.
    pods_by_name: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<str>>>,
    /// UIDs in static pods' cgroup paths to the UIDs that the API server gave their mirrors.
    mirrors: BTreeMap<Box<str>, Arc<str>>,
    gone_pods: BTreeMap<Arc<str>, (Box<Pod>, Workload)>,
    gone_order: VecDeque<Arc<str>>,
    controllers: BTreeMap<(String, String, String), Controller>,
    gone_controllers: BTreeMap<(String, String, String), Controller>,
    gone_controllers_order: VecDeque<(String, String, String)>,
    services: BTreeMap<ServiceName, Service>,
    slices: BTreeMap<(String, String), EndpointSlice>,
    nodes: BTreeMap<String, Node>,
    namespaces: BTreeMap<String, Namespace>,
    addresses: BTreeMap<IpAddr, Vec<Ownership>>,
    ranges: BTreeSet<IpNet>,
    node_ranges: NodeRanges,
    shared: Shared,
}

impl Cluster {
    /// A cluster in which nothing is known yet. `cidrs` are pod and Service ranges beyond those the nodes declare: an address
    /// in them is never taken for an external one.
    pub fn new(cidrs: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            ranges: cidrs.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Takes an object in, new or changed, as it is at `at`.
    pub fn observe(&mut self, object: Object, at: Timestamp) {
        match object {
            Object::Pod(pod) => self.observe_pod(pod, at),
            Object::Controller(mut controller) => {
                self.shared.labels.share(&mut controller.selector);
                self.shared.labels.share(&mut controller.template_labels);
                let key = (
                    controller.namespace.clone(),
                    controller.kind.clone(),
                    controller.name.clone(),
                );
                self.controllers.insert(key, controller);
            }
            Object::Service(service) => {
                let addresses: Vec<IpAddr> = service
                    .cluster_ips
                    .iter()
                    .chain(&service.external_ips)
                    .copied()
                    .collect();
                self.hold(
                    &AddressOwner::Service(service.name.clone()),
                    &addresses,
                    service.created,
                    at,
                );
                self.services.insert(service.name.clone(), service);
            }
            Object::EndpointSlice(slice) => {
                self.slices
                    .insert((slice.service.namespace.clone(), slice.name.clone()), slice);
            }
            Object::Node(node) => {
                let addresses: Vec<IpAddr> = node.addresses.iter().copied().collect();
                self.hold(&AddressOwner::Node(node.name.clone()), &addresses, None, at);
                self.node_ranges.add(&node.pod_cidrs);
                if let Some(before) = self.nodes.insert(node.name.clone(), node) {
                    self.node_ranges.remove(&before.pod_cidrs);
                }
            }
            Object::Namespace(namespace) => {
                self.namespaces.insert(namespace.name.clone(), namespace);
            }
        }
    }

    /// Takes an object out. Its addresses stay as tombstones that end at `at`.
    pub fn remove(&mut self, key: &ObjectKey, at: Timestamp) {
        match key {
            ObjectKey::Pod(namespace, name) => {
                if let Some(uid) = self.forget_name(namespace, name) {
                    self.bury(&uid, at);
                }
            }
            ObjectKey::Controller(namespace, kind, name) => {
                let key = (namespace.clone(), kind.clone(), name.clone());
                if let Some(controller) = self.controllers.remove(&key) {
                    self.gone_controllers.insert(key.clone(), controller);
                    self.gone_controllers_order.push_back(key);
                    if self.gone_controllers_order.len() > TOMBSTONES
                        && let Some(oldest) = self.gone_controllers_order.pop_front()
                    {
                        self.gone_controllers.remove(&oldest);
                    }
                }
            }
            ObjectKey::Service(name) => {
                self.hold(&AddressOwner::Service(name.clone()), &[], None, at);
                self.services.remove(name);
            }
            ObjectKey::EndpointSlice(namespace, name) => {
                self.slices.remove(&(namespace.clone(), name.clone()));
            }
            ObjectKey::Node(name) => {
                self.hold(&AddressOwner::Node(name.clone()), &[], None, at);
                if let Some(node) = self.nodes.remove(name) {
                    self.node_ranges.remove(&node.pod_cidrs);
                }
            }
            ObjectKey::Namespace(name) => {
                self.namespaces.remove(name);
            }
        }
    }

    /// The key of every live object: what a watch that starts again compares its list with, to take out what went unseen.
    pub fn keys(&self) -> BTreeSet<ObjectKey> {
        let pods = self
            .pods()
            .map(|pod| ObjectKey::Pod((*pod.namespace).to_owned(), (*pod.name).to_owned()));
        let controllers = self
            .controllers
            .keys()
            .map(|(namespace, kind, name)| ObjectKey::Controller(namespace.clone(), kind.clone(), name.clone()));
        let slices = self
            .slices
            .keys()
            .map(|(namespace, name)| ObjectKey::EndpointSlice(namespace.clone(), name.clone()));
        pods.chain(controllers)
            .chain(self.services.keys().cloned().map(ObjectKey::Service))
            .chain(slices)
            .chain(self.nodes.keys().cloned().map(ObjectKey::Node))
            .chain(self.namespaces.keys().cloned().map(ObjectKey::Namespace))
            .collect()
    }

    /// Live pods, ordered by namespace and name. Finished pods are among them until they are deleted.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        let uids = self.pods_by_name.values().flat_map(BTreeMap::values);
        uids.filter_map(|uid| self.pods.get(uid)).map(|pod| &**pod)
    }

    /// Live pods of one namespace, ordered by name.
    pub fn pods_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Pod> + use<'a> {
        let uids = self.pods_by_name.get(namespace).into_iter().flat_map(BTreeMap::values);
        uids.filter_map(|uid| self.pods.get(uid)).map(|pod| &**pod)
    }

    /// A live pod by namespace and name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        let uid = self.pods_by_name.get(namespace)?.get(name)?;
        self.pods.get(uid).map(|pod| &**pod)
    }

    /// A pod by UID (or by the UID in a static pod's cgroup path), gone ones included.
    pub fn pod_by_uid(&self, uid: &str) -> Option<&Pod> {
        let uid = self.mirrors.get(uid).map_or(uid, |uid| &**uid);
        let pod = self.pods.get(uid);
        pod.or_else(|| self.gone_pods.get(uid).map(|(pod, _)| pod))
            .map(|pod| &**pod)
    }

    /// Pods that are gone and still remembered, in a fixed order.
    pub fn gone_pods(&self) -> impl Iterator<Item = &Pod> {
        self.gone_pods.values().map(|(pod, _)| &**pod)
    }

    /// Owners of pods, in a fixed order.
    pub fn controllers(&self) -> impl Iterator<Item = &Controller> {
        self.controllers.values()
    }

    /// An owner of pods.
    pub fn controller(&self, namespace: &str, kind: &str, name: &str) -> Option<&Controller> {
        self.controllers
            .get(&(namespace.to_owned(), kind.to_owned(), name.to_owned()))
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
        // No name holds a NUL, so this is the first key behind the namespace's own.
        let behind = (format!("{}\0", service.namespace), String::new());
        self.slices
            .range((service.namespace.clone(), String::new())..behind)
            .map(|(_, slice)| slice)
            .filter(move |slice| slice.service == *service)
    }

    /// A slice by namespace and name.
    pub fn slice(&self, namespace: &str, name: &str) -> Option<&EndpointSlice> {
        self.slices.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Whether the next pod that goes takes the place of one that is remembered.
    pub fn forgets_pod(&self) -> bool {
        self.gone_order.len() >= TOMBSTONES
    }

    /// Whether a pod was known and is gone.
    pub fn is_gone(&self, uid: &str) -> bool {
        self.gone_pods.contains_key(uid)
    }

    /// Whether the next owner of pods that goes takes the place of one that is remembered.
    pub fn forgets_owner(&self) -> bool {
        self.gone_controllers_order.len() >= TOMBSTONES
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

    /// A namespace's labels with [`NAMESPACE_NAME`] filled in, also for a namespace that only its pods speak of.
    pub fn namespace_labels(&self, name: &str) -> Labels {
        let mut labels = self
            .namespaces
            .get(name)
            .map(|namespace| namespace.labels.clone())
            .unwrap_or_default();
        labels
            .entry(NAMESPACE_NAME.to_owned())
            .or_insert_with(|| name.to_owned());
        labels
    }

    /// The workload at the top of a pod's owner chain. A chain that leads to an owner which is not known ends at that owner's
    /// reference: custom controllers are workloads too. A static pod's reference to its node is not an owner in this sense.
    pub fn workload_of(&self, pod: &Pod) -> Workload {
        if let Some((_, workload)) = self.gone_pods.get(&pod.uid) {
            return workload.clone();
        }
        let mut top = OwnerRef {
            kind: "Pod".to_owned(),
            name: (*pod.name).to_owned(),
        };
        let mut next = pod.owner.as_deref().cloned();
        for _ in 0..CHAIN {
            match next {
                Some(owner) if owner.kind != "Node" => {
                    let key = ((*pod.namespace).to_owned(), owner.kind.clone(), owner.name.clone());
                    // Between a ReplicaSet's deletion and that of its last pod only the tombstone knows the Deployment.
                    let known = self.controllers.get(&key).or_else(|| self.gone_controllers.get(&key));
                    next = known.and_then(|controller| controller.owner.clone());
                    top = owner;
                }
                Some(_) | None => break,
            }
        }
        Workload {
            namespace: (*pod.namespace).to_owned(),
            kind: top.kind,
            name: top.name,
        }
    }

    /// Live pods of a workload, finished ones and host-network ones included, ordered by name.
    pub fn pods_of<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = &'a Pod> {
        self.pods_in(&workload.namespace)
            .filter(move |pod| self.workload_of(pod) == *workload)
    }

    /// Whether a workload still exists: its owner object does, or a live pod of it does.
    pub fn has_workload(&self, workload: &Workload) -> bool {
        let Workload { namespace, kind, name } = workload;
        self.controller(namespace, kind, name).is_some() || self.pods_of(workload).next().is_some()
    }

    /// Every owner of `address` whose ownership touches `[first, last]`, in a fixed order, each once. A host-network pod's
    /// address is its node's.
    pub fn owners_of(&self, address: IpAddr, first: Timestamp, last: Timestamp) -> BTreeSet<AddressOwner> {
        self.addresses
            .get(&address)
            .into_iter()
            .flatten()
            .filter(|ownership| ownership.touches(first, last))
            .map(|ownership| ownership.owner.clone())
            .collect()
    }

    /// Whether an address belongs to the cluster: to its ranges (node pod CIDRs and the configured ones), or to a pod or a
    /// Service at any time that is still remembered. Such an address never becomes an `ipBlock`.
    pub fn is_cluster_address(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&address)
            || self.ranges.iter().any(|cidr| cidr.contains(&address))
            || self.node_ranges.contain(address)
    }

    /// What of the cluster lies in a range: one of the cluster's own ranges that overlaps it, or an address that a pod, a Service
    /// or a node has, or had as long as is remembered.
    pub fn address_within(&self, range: IpNet) -> Option<IpNet> {
        let overlaps = |own: &&IpNet| own.contains(&range) || range.contains(*own);
        let ranges = self
            .ranges
            .iter()
            .chain(self.nodes.values().flat_map(|node| &node.pod_cidrs));
        let mut addresses = self.addresses.range(range.network()..=range.broadcast());
        let address = || addresses.next().map(|(address, _)| IpNet::from(*address));
        ranges.copied().find(|own| overlaps(&own)).or_else(address)
    }

    fn observe_pod(&mut self, mut pod: Pod, at: Timestamp) {
        self.shared.pod(&mut pod);
        // A file that was away while it was written brings back what it had.
        if self.gone_pods.remove(&pod.uid).is_some() {
            self.gone_order.retain(|gone| *gone != pod.uid);
        }
        let names = self.pods_by_name.entry(Arc::clone(&pod.namespace)).or_default();
        if let Some(previous) = names.insert(Arc::clone(&pod.name), Arc::clone(&pod.uid))
            && previous != pod.uid
        {
            self.bury(&previous, at);
        }
        if let Some(mirror) = &pod.mirror_uid {
            self.mirrors.insert(mirror.clone(), Arc::clone(&pod.uid));
        }
        match (&pod.node, pod.host_network) {
            (Some(node), true) => {
                // Adds to what the Node object says, which may be absent from a folder of manifests.
                let owner = AddressOwner::Node((**node).to_owned());
                for address in &pod.addresses {
                    self.begin(*address, &owner, None);
                }
            }
            (None, true) => {}
            (_, false) => {
                let is_over = |pod: &Pod| pod.phase == PodPhase::Finished;
                // What is said of one that has finished does not give its address back to it.
                if !(is_over(&pod) && self.pods.get(&pod.uid).is_some_and(|known| is_over(known))) {
                    let owner = AddressOwner::Pod(Arc::clone(&pod.uid));
                    self.hold(&owner, &pod.addresses, pod.started, at);
                    if is_over(&pod) {
                        for address in &pod.addresses {
                            self.end(*address, &owner, at);
                        }
                    }
                }
            }
        }
        self.pods.insert(Arc::clone(&pod.uid), Box::new(pod));
    }

    /// Turns a pod into a tombstone that knows its workload, since its owners may go before a late report comes.
    fn bury(&mut self, uid: &Arc<str>, at: Timestamp) {
        self.hold(&AddressOwner::Pod(Arc::clone(uid)), &[], None, at);
        let Some(pod) = self.pods.remove(uid) else { return };
        let workload = self.workload_of(&pod);
        self.gone_pods.insert(Arc::clone(uid), (pod, workload));
        self.gone_order.push_back(Arc::clone(uid));
        if self.gone_order.len() > TOMBSTONES
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.forget(&oldest);
        }
    }

    /// Takes a live pod's name away.
    fn forget_name(&mut self, namespace: &str, name: &str) -> Option<Arc<str>> {
        let names = self.pods_by_name.get_mut(namespace)?;
        let uid = names.remove(name);
        if names.is_empty() {
            self.pods_by_name.remove(namespace);
        }
        uid
    }

    fn forget(&mut self, uid: &str) {
        let Some((pod, _)) = self.gone_pods.remove(uid) else {
            return;
        };
        if let Some(mirror) = &pod.mirror_uid {
            self.mirrors.remove(mirror);
        }
        let owner = AddressOwner::Pod(Arc::clone(&pod.uid));
        for address in &pod.addresses {
            // The entry stays, empty: the address was the cluster's and must not turn external.
            if let Some(history) = self.addresses.get_mut(address) {
                history.retain(|ownership| ownership.owner != owner);
            }
        }
    }

    /// From `at` on, `owner` has exactly `addresses`.
    fn hold(&mut self, owner: &AddressOwner, addresses: &[IpAddr], since: Option<Timestamp>, at: Timestamp) {
        let before: Vec<IpAddr> = match owner {
            AddressOwner::Pod(uid) => self.pods.get(uid).map(|pod| pod.addresses.to_vec()),
            AddressOwner::Service(name) => self.services.get(name).map(|service| {
                service
                    .cluster_ips
                    .iter()
                    .chain(&service.external_ips)
                    .copied()
                    .collect()
            }),
            AddressOwner::Node(name) => self
                .nodes
                .get(name)
                .map(|node| node.addresses.iter().copied().collect()),
        }
        .unwrap_or_default();
        for address in before.into_iter().filter(|address| !addresses.contains(address)) {
            self.end(address, owner, at);
        }
        for address in addresses {
            self.begin(*address, owner, since);
        }
    }

    fn begin(&mut self, address: IpAddr, owner: &AddressOwner, since: Option<Timestamp>) {
        let history = self.addresses.entry(address).or_default();
        if !history
            .iter()
            .any(|ownership| ownership.until.is_none() && ownership.owner == *owner)
        {
            // Most addresses have one owner for as long as anybody remembers.
            history.reserve_exact(1);
            history.push(Ownership {
                owner: owner.clone(),
                from: since,
                until: None,
            });
        }
    }

    fn end(&mut self, address: IpAddr, owner: &AddressOwner, at: Timestamp) {
        for ownership in self.addresses.entry(address).or_default() {
            if ownership.owner == *owner && ownership.until.is_none() {
                ownership.until = Some(at);
            }
        }
    }
}

#[cfg(test)]
mod tests;
