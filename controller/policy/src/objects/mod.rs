//! Kubernetes objects in: what identity and policies need of them, checked once.
//!
//! Law: what is not in the object is not filled in, except for what the API server itself fills in (a port's protocol, a
//! Service's target port, a namespace's name label). A field that cannot be read is an error that names the object and the
//! field.

mod custom;
mod image;
mod manifest;
mod template;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::{apps, batch, core, discovery};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nanoseg_graph::cluster::{
    ContainerPort, Controller, EndpointSlice, Labels, Namespace, Node, Object, OwnerRef, Pod, PodPhase, Service,
    ServicePort, TargetPort,
};
use nanoseg_graph::endpoint::ServiceName;
use nanoseg_graph::flow::Transport;

use crate::selector::is_label;
pub use manifest::{Manifest, Parsed, UnknownField, parse};
pub use template::stand_ins;

/// The label by which an `EndpointSlice` names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The annotation in which a static pod's mirror carries the hash that kubelet's cgroup paths carry.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The label by which a namespace can be selected.
pub(crate) const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Which object an error speaks of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// Kind.
    pub kind: String,
    /// Namespace, of kinds that live in one.
    pub namespace: Option<String>,
    /// Name; `None` when it has none.
    pub name: Option<String>,
}

impl ObjectName {
    fn of(kind: &str, metadata: &ObjectMeta) -> Self {
        Self {
            kind: kind.to_owned(),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
        }
    }

    fn missing(&self, field: impl Into<String>) -> Unreadable {
        Unreadable::Missing {
            object: Box::new(self.clone()),
            field: field.into(),
        }
    }

    fn invalid(&self, field: impl Into<String>, value: impl Into<String>, expected: &'static str) -> Unreadable {
        Unreadable::Invalid {
            object: Box::new(self.clone()),
            field: field.into(),
            value: value.into(),
            expected,
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        let name = name.as_deref().unwrap_or("without a name");
        match namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{name}"),
            None => write!(f, "{kind} {name}"),
        }
    }
}

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The document is not an object with `apiVersion` and `kind`.
    #[error("the document has no {field}: every Kubernetes object has apiVersion and kind")]
    NotAnObject {
        /// Path of the field that is not there, or is not a string.
        field: String,
    },
    /// A required field is not there.
    #[error("{object}: {field} is missing")]
    Missing {
        /// The object.
        object: Box<ObjectName>,
        /// Path of the field.
        field: String,
    },
    /// A field holds something that it cannot hold.
    #[error("{object}: {field} is {value:?}, expected {expected}")]
    Invalid {
        /// The object.
        object: Box<ObjectName>,
        /// Path of the field.
        field: String,
        /// What it holds.
        value: String,
        /// What it may hold.
        expected: &'static str,
    },
    /// A field is of another type than the API has.
    #[error("{object}: {field} cannot be read")]
    Shape {
        /// The object.
        object: Box<ObjectName>,
        /// Path of the field.
        field: String,
        /// What the reader says.
        source: serde_json::Error,
    },
}

/// A pod. One without a UID (a manifest that no API server has seen) is told apart by `namespace/name`, which is not the form
/// of a UID.
pub fn pod(pod: &core::v1::Pod) -> Result<Object, Unreadable> {
    let object = ObjectName::of("Pod", &pod.metadata);
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let name = name_of(&object)?;
    let namespace = namespace_of(&object)?;
    let mut addresses = BTreeSet::new();
    if let Some(status) = status {
        for ip in status.pod_ips.iter().flatten() {
            addresses.insert(address(&object, "status.podIPs", &ip.ip)?);
        }
        if let Some(ip) = status.pod_ip.as_deref().filter(|ip| !ip.is_empty()) {
            addresses.insert(address(&object, "status.podIP", ip)?);
        }
    }
    let phase = match status.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded" | "Failed") => PodPhase::Finished,
        // `Unknown` is what the API says of a pod whose node does not report: it may well be running.
        Some("Running" | "Unknown") => PodPhase::Running,
        // An API server gives every pod a phase.
        None | Some("") if addresses.is_empty() => PodPhase::Declared,
        _ => PodPhase::Pending,
    };
    Ok(Object::Pod(Pod {
        uid: pod
            .metadata
            .uid
            .clone()
            .unwrap_or_else(|| format!("{namespace}/{name}"))
            .into(),
        mirror_uid: pod
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(MIRROR))
            .map(|hash| hash.as_str().into()),
        images: image::images(spec, status).into(),
        namespace: namespace.into(),
        name: name.into(),
        labels: labels_of(&object, "metadata.labels", &pod.metadata)?.into(),
        owner: controlling_owner(&pod.metadata).map(Arc::new),
        addresses: addresses.into_iter().collect(),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
        node: spec
            .and_then(|spec| spec.node_name.as_deref())
            .filter(|node| !node.is_empty())
            .map(Arc::from),
        ports: spec
            .map(|spec| container_ports(&object, spec))
            .transpose()?
            .unwrap_or_default()
            .into(),
        phase,
        ready: is_ready(status),
        started: status
            .and_then(|status| status.start_time.as_ref())
            .map(|time| time.0)
            .or_else(|| created(&pod.metadata)),
    }))
}

/// Whether a pod is ready. One that nothing is said of is, unless the API server says that it waits to be started.
fn is_ready(status: Option<&core::v1::PodStatus>) -> bool {
    let mut conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
    match conditions.find(|condition| condition.type_ == "Ready") {
        Some(condition) => condition.status != "False",
        None => status.and_then(|status| status.phase.as_deref()) != Some("Pending"),
    }
}

/// A `ReplicaSet`.
pub fn replica_set(set: &apps::v1::ReplicaSet) -> Result<Object, Unreadable> {
    let spec = set.spec.as_ref();
    controller(
        "ReplicaSet",
        &set.metadata,
        spec.map(|spec| &spec.selector),
        spec.and_then(|spec| spec.template.as_ref())
            .and_then(|template| template.metadata.as_ref()),
    )
}

/// A `Deployment`.
pub fn deployment(deployment: &apps::v1::Deployment) -> Result<Object, Unreadable> {
    let spec = deployment.spec.as_ref();
    controller(
        "Deployment",
        &deployment.metadata,
        spec.map(|spec| &spec.selector),
        spec.and_then(|spec| spec.template.metadata.as_ref()),
    )
}

/// A `StatefulSet`.
pub fn stateful_set(set: &apps::v1::StatefulSet) -> Result<Object, Unreadable> {
    let spec = set.spec.as_ref();
    controller(
        "StatefulSet",
        &set.metadata,
        spec.map(|spec| &spec.selector),
        spec.and_then(|spec| spec.template.metadata.as_ref()),
    )
}

/// A `DaemonSet`.
pub fn daemon_set(set: &apps::v1::DaemonSet) -> Result<Object, Unreadable> {
    let spec = set.spec.as_ref();
    controller(
        "DaemonSet",
        &set.metadata,
        spec.map(|spec| &spec.selector),
        spec.and_then(|spec| spec.template.metadata.as_ref()),
    )
}

/// A `Job`.
pub fn job(job: &batch::v1::Job) -> Result<Object, Unreadable> {
    let spec = job.spec.as_ref();
    controller(
        "Job",
        &job.metadata,
        spec.and_then(|spec| spec.selector.as_ref()),
        spec.and_then(|spec| spec.template.metadata.as_ref()),
    )
}

/// A `CronJob`. Its template labels are those of the pods that its Jobs make.
pub fn cron_job(job: &batch::v1::CronJob) -> Result<Object, Unreadable> {
    let template = job.spec.job_template.spec.as_ref().map(|spec| &spec.template);
    controller(
        "CronJob",
        &job.metadata,
        None,
        template.and_then(|template| template.metadata.as_ref()),
    )
}

/// A `ReplicationController`, whose selector is a plain map of labels.
pub fn replication_controller(set: &core::v1::ReplicationController) -> Result<Object, Unreadable> {
    let spec = set.spec.as_ref();
    let selector = spec.and_then(|spec| spec.selector.clone());
    let selector = LabelSelector {
        match_labels: selector,
        match_expressions: None,
    };
    controller(
        "ReplicationController",
        &set.metadata,
        Some(&selector),
        spec.and_then(|spec| spec.template.as_ref())
            .and_then(|template| template.metadata.as_ref()),
    )
}

/// A Service.
pub fn service(service: &core::v1::Service) -> Result<Object, Unreadable> {
    let object = ObjectName::of("Service", &service.metadata);
    let name = ServiceName {
        namespace: namespace_of(&object)?,
        name: name_of(&object)?,
    };
    let created = created(&service.metadata);
    let Some(spec) = &service.spec else {
        return Err(object.missing("spec"));
    };
    let external = spec.type_.as_deref() == Some("ExternalName");
    let mut cluster_ips = BTreeSet::new();
    if !external {
        for ip in spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip) {
            if !matches!(ip.as_str(), "" | "None") {
                cluster_ips.insert(address(&object, "spec.clusterIPs", ip)?);
            }
        }
    }
    let mut external_ips = BTreeSet::new();
    for ip in spec.external_ips.iter().flatten() {
        external_ips.insert(address(&object, "spec.externalIPs", ip)?);
    }
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    for ingress in balancer
        .and_then(|balancer| balancer.ingress.as_ref())
        .into_iter()
        .flatten()
    {
        if let Some(ip) = ingress.ip.as_deref().filter(|ip| !ip.is_empty()) {
            external_ips.insert(address(&object, "status.loadBalancer.ingress", ip)?);
        }
    }
    let mut ports = BTreeSet::new();
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let number = port_number(&object, &format!("spec.ports[{index}].port"), port.port)?;
        let target = match &port.target_port {
            // The API server fills an absent or empty target in with the Service's own port.
            None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
            Some(IntOrString::String(name)) if name.is_empty() => TargetPort::Number(number),
            Some(IntOrString::Int(target)) => TargetPort::Number(port_number(
                &object,
                &format!("spec.ports[{index}].targetPort"),
                *target,
            )?),
            Some(IntOrString::String(name)) => TargetPort::Name(name.clone()),
        };
        let node_port = match port.node_port {
            None | Some(0) => None,
            Some(node) => Some(port_number(&object, &format!("spec.ports[{index}].nodePort"), node)?),
        };
        let transport = transport(
            &object,
            &format!("spec.ports[{index}].protocol"),
            port.protocol.as_deref(),
        )?;
        ports.insert(ServicePort {
            name: non_empty(port.name.as_deref()),
            port: number,
            target,
            node_port,
            transport,
        });
    }
    Ok(Object::Service(Service {
        name,
        cluster_ips,
        external_ips,
        selector: spec
            .selector
            .clone()
            .filter(|selector| !selector.is_empty() && !external),
        ports,
        external_name: spec.external_name.clone().filter(|_| external),
        created,
    }))
}

/// An `EndpointSlice`. Addresses of all its endpoints count, ready or not: readiness comes and goes without the slice's
/// meaning changing. Ports without a number (all ports) are left out. One that belongs to no Service has the empty name of none.
pub fn endpoint_slice(slice: &discovery::v1::EndpointSlice) -> Result<Object, Unreadable> {
    let object = ObjectName::of("EndpointSlice", &slice.metadata);
    let name = name_of(&object)?;
    let labels = slice.metadata.labels.as_ref();
    let service = labels.and_then(|labels| labels.get(SERVICE_NAME));
    let service = ServiceName {
        namespace: namespace_of(&object)?,
        name: service.cloned().unwrap_or_default(),
    };
    let mut addresses = BTreeSet::new();
    if slice.address_type != "FQDN" {
        for endpoint in slice.endpoints.iter().flatten() {
            for ip in &endpoint.addresses {
                addresses.insert(address(&object, "endpoints[].addresses", ip)?);
            }
        }
    }
    let mut ports = BTreeSet::new();
    for (index, port) in slice.ports.iter().flatten().enumerate() {
        if let Some(number) = port.port {
            let number = port_number(&object, &format!("ports[{index}].port"), number)?;
            let transport = transport(&object, &format!("ports[{index}].protocol"), port.protocol.as_deref())?;
            ports.insert((non_empty(port.name.as_deref()), number, transport));
        }
    }
    Ok(Object::EndpointSlice(EndpointSlice {
        name,
        service,
        addresses,
        ports,
    }))
}

/// A node. Of its addresses those that are addresses: its host name is not.
pub fn node(node: &core::v1::Node) -> Result<Object, Unreadable> {
    let object = ObjectName::of("Node", &node.metadata);
    let mut pod_cidrs = BTreeSet::new();
    if let Some(spec) = &node.spec {
        for cidr in spec
            .pod_cidrs
            .iter()
            .flatten()
            .chain(&spec.pod_cidr)
            .filter(|cidr| !cidr.is_empty())
        {
            let cidr: IpNet = cidr
                .parse()
                .map_err(|_error| object.invalid("spec.podCIDRs", cidr, "an address range"))?;
            pod_cidrs.insert(cidr.trunc());
        }
    }
    let mut addresses = BTreeSet::new();
    let reported = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    for entry in reported.into_iter().flatten() {
        match entry.type_.as_str() {
            "InternalIP" | "ExternalIP" => {
                addresses.insert(address(&object, "status.addresses", &entry.address)?);
            }
            _ => addresses.extend(entry.address.parse::<IpAddr>()),
        }
    }
    Ok(Object::Node(Node {
        name: name_of(&object)?,
        addresses,
        labels: node.metadata.labels.clone().unwrap_or_default(),
        pod_cidrs,
    }))
}

/// A namespace.
pub fn namespace(namespace: &core::v1::Namespace) -> Result<Object, Unreadable> {
    let object = ObjectName::of("Namespace", &namespace.metadata);
    let name = name_of(&object)?;
    let mut labels = labels_of(&object, "metadata.labels", &namespace.metadata)?;
    labels.insert(NAMESPACE_NAME.to_owned(), name.clone());
    Ok(Object::Namespace(Namespace { name, labels }))
}

fn controller(
    kind: &str,
    metadata: &ObjectMeta,
    selector: Option<&LabelSelector>,
    template: Option<&ObjectMeta>,
) -> Result<Object, Unreadable> {
    let object = ObjectName::of(kind, metadata);
    Ok(Object::Controller(Controller {
        namespace: namespace_of(&object)?,
        kind: kind.to_owned(),
        name: name_of(&object)?,
        owner: controlling_owner(metadata),
        selector: selector
            .and_then(|selector| selector.match_labels.clone())
            .unwrap_or_default()
            .into(),
        template_labels: template
            .map(|template| labels_of(&object, TEMPLATE_LABELS, template))
            .transpose()?
            .unwrap_or_default()
            .into(),
    }))
}

fn controlling_owner(metadata: &ObjectMeta) -> Option<OwnerRef> {
    let owner = metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))?;
    Some(OwnerRef {
        kind: owner.kind.clone(),
        name: owner.name.clone(),
    })
}

/// Declared ports, in the order in which Kubernetes looks a name up: the containers', then those of init containers that keep
/// running. A name means the first port that has it; a later port of that name keeps its number only.
fn container_ports(object: &ObjectName, spec: &core::v1::PodSpec) -> Result<BTreeSet<ContainerPort>, Unreadable> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let mut named: BTreeMap<(String, Transport), u16> = BTreeMap::new();
    let mut ports = BTreeSet::new();
    for container in spec.containers.iter().chain(sidecars) {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let field = |name| format!("spec.containers[{}].ports[{index}].{name}", container.name);
            let number = port_number(object, &field("containerPort"), port.container_port)?;
            let transport = transport(object, &field("protocol"), port.protocol.as_deref())?;
            let name = non_empty(port.name.as_deref())
                .filter(|name| *named.entry((name.clone(), transport)).or_insert(number) == number);
            ports.insert(ContainerPort {
                name,
                number,
                transport,
            });
        }
    }
    Ok(ports)
}

fn name_of(object: &ObjectName) -> Result<String, Unreadable> {
    let name = non_empty(object.name.as_deref()).ok_or_else(|| object.missing("metadata.name"))?;
    // In quotes a template is good YAML.
    if name.contains("{{") {
        return Err(object.invalid("metadata.name", name, "a name: a template has to be rendered first"));
    }
    Ok(name)
}

/// The namespace. Policies select it by its name, so that has to be one that a label can have.
fn namespace_of(object: &ObjectName) -> Result<String, Unreadable> {
    let name = non_empty(object.namespace.as_deref()).unwrap_or_else(|| "default".to_owned());
    if is_label(NAMESPACE_NAME, &name) {
        return Ok(name);
    }
    Err(object.invalid("metadata.namespace", name, "the name of a namespace"))
}

fn non_empty(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The labels, each of which an API server would take: a policy that selects by another one would be refused.
fn labels_of(object: &ObjectName, field: &str, metadata: &ObjectMeta) -> Result<Labels, Unreadable> {
    let labels = metadata.labels.clone().unwrap_or_default();
    match labels.iter().find(|(key, value)| !is_label(key, value)) {
        Some((key, value)) => Err(object.invalid(
            field,
            format!("{key}: {value}"),
            "key and value of letters, digits and -_. within, 63 at most, the key perhaps behind a domain and /",
        )),
        None => Ok(labels),
    }
}

/// Where a workload has the labels of its pods.
const TEMPLATE_LABELS: &str = "metadata.labels of the pod template";

fn created(metadata: &ObjectMeta) -> Option<Timestamp> {
    metadata.creation_timestamp.as_ref().map(|time| time.0)
}

fn address(object: &ObjectName, field: &str, text: &str) -> Result<IpAddr, Unreadable> {
    text.parse()
        .map_err(|_error| object.invalid(field, text, "an IPv4 or IPv6 address"))
}

fn port_number(object: &ObjectName, field: &str, number: i32) -> Result<u16, Unreadable> {
    // What is not there is read as 0.
    if number == 0 {
        return Err(object.missing(field));
    }
    u16::try_from(number).map_err(|_error| object.invalid(field, number.to_string(), "a port from 1 to 65535"))
}

fn transport(object: &ObjectName, field: &str, protocol: Option<&str>) -> Result<Transport, Unreadable> {
    match protocol {
        None | Some("" | "TCP") => Ok(Transport::Tcp),
        Some("UDP") => Ok(Transport::Udp),
        Some("SCTP") => Ok(Transport::Sctp),
        Some(other) => Err(object.invalid(field, other, "TCP, UDP or SCTP")),
    }
}
