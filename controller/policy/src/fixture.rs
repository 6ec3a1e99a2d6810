//! Small clusters and graphs for tests.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::{
    Cluster, ContainerPort, Controller, EndpointSlice, Labels, Node, Object, OwnerRef, Pod, PodPhase, Service,
    ServicePort, TargetPort,
};
use nanoseg_graph::connection::{ConnectionGraph, EdgeKey, Evidence};
use nanoseg_graph::endpoint::{Endpoint, ServiceName, Workload};
use nanoseg_graph::flow::{Origin, Outcome, Reporter, Tally, Transport};
use serde_json::Value;

use crate::objects::{Manifest, parse};

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

pub(crate) fn workload(kind: &str, namespace: &str, name: &str) -> Workload {
    Workload {
        namespace: namespace.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    }
}

pub(crate) fn service_name(namespace: &str, name: &str) -> ServiceName {
    ServiceName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// A running pod without an owner.
pub(crate) fn pod(namespace: &str, name: &str, labels: Labels, addresses: &[&str]) -> Pod {
    Pod {
        uid: format!("uid-{namespace}-{name}").into(),
        mirror_uid: None,
        images: Arc::default(),
        namespace: namespace.into(),
        name: name.into(),
        labels: labels.into(),
        owner: None,
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        host_network: false,
        node: Some("n1".into()),
        ports: Arc::default(),
        phase: PodPhase::Running,
        ready: true,
        started: Some(at(0)),
    }
}

pub(crate) fn owned(kind: &str, name: &str, pod: Pod) -> Pod {
    Pod {
        owner: Some(Arc::new(OwnerRef {
            kind: kind.to_owned(),
            name: name.to_owned(),
        })),
        ..pod
    }
}

pub(crate) fn controller(kind: &str, namespace: &str, name: &str, selector: Labels, template: Labels) -> Object {
    Object::Controller(Controller {
        namespace: namespace.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        owner: None,
        selector: selector.into(),
        template_labels: template.into(),
    })
}

pub(crate) fn replica_set(namespace: &str, name: &str, deployment: &str, template: Labels) -> Object {
    Object::Controller(Controller {
        namespace: namespace.to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: name.to_owned(),
        owner: Some(OwnerRef {
            kind: "Deployment".to_owned(),
            name: deployment.to_owned(),
        }),
        selector: template.clone().into(),
        template_labels: template.into(),
    })
}

pub(crate) fn node(name: &str, addresses: &[&str]) -> Object {
    Object::Node(Node {
        name: name.to_owned(),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        labels: Labels::new(),
        pod_cidrs: BTreeSet::new(),
    })
}

pub(crate) fn container_port(name: Option<&str>, number: u16, transport: Transport) -> ContainerPort {
    ContainerPort {
        name: name.map(str::to_owned),
        number,
        transport,
    }
}

pub(crate) fn service(
    namespace: &str,
    name: &str,
    selector: Option<Labels>,
    ports: &[(u16, TargetPort, Transport)],
) -> Object {
    let port = |(port, target, transport): &(u16, TargetPort, Transport)| ServicePort {
        name: Some(format!("p{port}-{}", transport.as_str().to_lowercase())),
        port: *port,
        target: target.clone(),
        node_port: None,
        transport: *transport,
    };
    Object::Service(Service {
        name: service_name(namespace, name),
        cluster_ips: BTreeSet::new(),
        external_ips: BTreeSet::new(),
        selector,
        ports: ports.iter().map(port).collect(),
        external_name: None,
        created: Some(at(0)),
    })
}

pub(crate) fn slice(namespace: &str, service: &str, addresses: &[&str], number: u16) -> Object {
    Object::EndpointSlice(EndpointSlice {
        name: format!("{service}-x"),
        service: service_name(namespace, service),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        ports: [(None, number, Transport::Tcp)].into(),
    })
}

pub(crate) fn cluster(objects: impl IntoIterator<Item = Object>) -> Cluster {
    let mut cluster = Cluster::new(["198.18.0.0/16".parse().unwrap(), "fd00:18::/32".parse().unwrap()]);
    for object in objects {
        cluster.observe(object, at(1));
    }
    cluster
}

pub(crate) fn edge(source: Endpoint, destination: Endpoint, port: u16, transport: Transport) -> EdgeKey {
    EdgeKey {
        source,
        destination,
        port,
        transport,
    }
}

pub(crate) fn evidence(outcome: Outcome, seen: &[Reporter], via: &[ServiceName]) -> Evidence {
    let tally = Tally {
        first_seen: at(1),
        last_seen: at(2),
        attempted: 1,
        established: u64::from(outcome == Outcome::Established),
        refused: u64::from(outcome == Outcome::Refused),
        unanswered: u64::from(outcome == Outcome::Unanswered),
    };
    let origin = Origin {
        node: "n1".to_owned(),
        epoch: 1,
    };
    Evidence {
        tallies: seen
            .iter()
            .map(|reporter| ((*reporter, origin.clone()), tally))
            .collect(),
        via: via.iter().cloned().collect(),
    }
}

/// A graph of answered connections that both ends saw.
pub(crate) fn graph(edges: impl IntoIterator<Item = EdgeKey>) -> ConnectionGraph {
    let mut graph = ConnectionGraph::default();
    for edge in edges {
        graph.insert(
            edge,
            &evidence(Outcome::Established, &[Reporter::Source, Reporter::Destination], &[]),
        );
    }
    graph
}

/// Reads one or several YAML documents, all of which must be readable.
pub(crate) fn manifests(yaml: &str) -> Vec<Manifest> {
    let documents = serde_yaml::Deserializer::from_str(yaml);
    manifests_in(documents.map(|document| serde::Deserialize::deserialize(document).unwrap()))
}

fn manifests_in(documents: impl IntoIterator<Item = Value>) -> Vec<Manifest> {
    let mut manifests = Vec::new();
    for document in documents {
        let parsed = parse(document);
        assert!(parsed.unreadable.is_empty(), "{:?}", parsed.unreadable);
        manifests.extend(parsed.manifests);
    }
    manifests
}

/// The policies of YAML documents.
pub(crate) fn policies(yaml: &str) -> Vec<NetworkPolicy> {
    let policy = |manifest| match manifest {
        Manifest::NetworkPolicy(policy) => Some(*policy),
        Manifest::Object(_)
        | Manifest::ClusterNetworkPolicy(_)
        | Manifest::OtherPolicy(_)
        | Manifest::OtherVersion { .. }
        | Manifest::Other { .. } => None,
    };
    manifests(yaml).into_iter().filter_map(policy).collect()
}

/// The cluster that YAML documents describe.
pub(crate) fn cluster_of(yaml: &str) -> Cluster {
    cluster_among(manifests(yaml))
}

/// The cluster that documents describe.
pub(crate) fn cluster_of_documents(documents: impl IntoIterator<Item = Value>) -> Cluster {
    cluster_among(manifests_in(documents))
}

fn cluster_among(manifests: Vec<Manifest>) -> Cluster {
    let object = |manifest| match manifest {
        Manifest::Object(object) => Some(object),
        Manifest::NetworkPolicy(_)
        | Manifest::ClusterNetworkPolicy(_)
        | Manifest::OtherPolicy(_)
        | Manifest::OtherVersion { .. }
        | Manifest::Other { .. } => None,
    };
    cluster(manifests.into_iter().filter_map(object))
}
