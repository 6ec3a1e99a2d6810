//! The largest cluster and graph that is measured.
//!
//! 10,000 workloads with 100,000 pods in 100 namespaces, and a graph of 1,000,000 edges, nearly all of them between different
//! pairs. One edge in ten leaves the cluster, and every workload asks cluster DNS.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use jiff::Timestamp;
use nanoseg_graph::cluster::{
    Cluster, ContainerPort, Controller, Labels, Node, Object, OwnerRef, Pod, PodPhase, Service, ServicePort, TargetPort,
};
use nanoseg_graph::connection::{ConnectionGraph, EdgeKey, Evidence};
use nanoseg_graph::endpoint::{Endpoint, ServiceName, Workload};
use nanoseg_graph::flow::{Origin, Reporter, Tally, Transport};
use nanoseg_policy::synthesize::{Settings, Synthesizer};

const NAMESPACES: usize = 100;
const NODES: usize = 500;
const PODS_EACH: usize = 10;
pub(crate) const EDGES_EACH: usize = 100;
/// Workloads at each size.
pub(crate) const SIZES: [usize; 3] = [1_000, 3_333, 10_000];

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn namespace(index: usize) -> String {
    format!("team-{:03}", index % NAMESPACES)
}

fn name(index: usize) -> String {
    format!("service-{index:05}")
}

pub(crate) fn workload(index: usize) -> Workload {
    Workload {
        namespace: namespace(index),
        kind: "Deployment".to_owned(),
        name: name(index),
    }
}

fn node(index: usize) -> String {
    format!("node-{:04}", index % NODES)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap_or_default()
}

fn address(first: u8, index: usize) -> IpAddr {
    let [_, b, c, d] = u32::try_from(index).unwrap_or_default().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(first, b, c, d))
}

/// A Deployment, its `ReplicaSet`, and its pods.
fn objects(namespace: &str, name: &str, app: &Labels, first_pod: usize, pods: usize) -> Vec<Object> {
    let set = format!("{name}-5d8f6c7b9");
    let mut revision = app.clone();
    revision.insert("pod-template-hash".to_owned(), "5d8f6c7b9".to_owned());
    let owner = |kind: &str, name: &str| {
        Some(OwnerRef {
            kind: kind.to_owned(),
            name: name.to_owned(),
        })
    };
    let controller = |kind: &str, name: &str, owner: Option<OwnerRef>, labels: &Labels| {
        Object::Controller(Controller {
            namespace: namespace.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            owner,
            selector: labels.clone().into(),
            template_labels: labels.clone().into(),
        })
    };
    let mut made = vec![
        controller("Deployment", name, None, app),
        controller("ReplicaSet", &set, owner("Deployment", name), &revision),
    ];
    for replica in 0..pods {
        let pod = format!("{set}-{replica:05}");
        made.push(Object::Pod(Pod {
            uid: format!("uid-{namespace}-{pod}").into(),
            mirror_uid: None,
            images: Arc::default(),
            namespace: namespace.into(),
            name: pod.into(),
            labels: revision.clone().into(),
            owner: owner("ReplicaSet", &set).map(Arc::new),
            addresses: [address(10, first_pod + replica)].into(),
            host_network: false,
            node: Some(node(first_pod + replica).into()),
            ports: Arc::new(
                [ContainerPort {
                    name: Some("dns".to_owned()),
                    number: 5353,
                    transport: Transport::Udp,
                }]
                .into(),
            ),
            phase: PodPhase::Running,
            ready: true,
            started: Some(at(0)),
        }));
    }
    made
}

pub(crate) fn cluster(workloads: usize) -> Cluster {
    let mut cluster = Cluster::new("10.0.0.0/8".parse::<ipnet::IpNet>());
    let dns = labels([("k8s-app", "kube-dns")]);
    let mut all = objects("kube-system", "coredns", &dns, workloads * PODS_EACH, 2);
    all.push(Object::Service(Service {
        name: dns_service(),
        cluster_ips: [address(10, 0x00ff_0000)].into(),
        external_ips: [].into(),
        selector: Some(dns),
        ports: [ServicePort {
            name: Some("dns".to_owned()),
            port: 53,
            target: TargetPort::Name("dns".to_owned()),
            node_port: None,
            transport: Transport::Udp,
        }]
        .into(),
        external_name: None,
        created: Some(at(0)),
    }));
    for index in 0..NODES {
        all.push(Object::Node(Node {
            name: node(index),
            addresses: [address(192, index)].into(),
            pod_cidrs: [].into(),
            labels: Labels::new(),
        }));
    }
    for object in all {
        cluster.observe(object, at(1));
    }
    for index in 0..workloads {
        let app = labels([
            ("app.kubernetes.io/name", &name(index)),
            ("app.kubernetes.io/part-of", &namespace(index)),
        ]);
        for object in objects(&namespace(index), &name(index), &app, index * PODS_EACH, PODS_EACH) {
            cluster.observe(object, at(1));
        }
    }
    cluster
}

fn dns_service() -> ServiceName {
    ServiceName {
        namespace: "kube-system".to_owned(),
        name: "kube-dns".to_owned(),
    }
}

/// The `number`th edge out of a workload.
pub(crate) fn edge(workloads: usize, from: usize, number: usize) -> (EdgeKey, Evidence) {
    // Odd steps that do not divide the count: no pair is drawn twice, and every workload is drawn equally often.
    let to = (from + 1 + number * 37) % workloads;
    let (destination, port, transport, via) = if number == 0 {
        let dns = Workload {
            namespace: "kube-system".to_owned(),
            kind: "Deployment".to_owned(),
            name: "coredns".to_owned(),
        };
        (Endpoint::Workload(dns), 5353, Transport::Udp, Some(dns_service()))
    } else if number % 10 == 9 {
        (Endpoint::External(address(203, to)), 443, Transport::Tcp, None)
    } else {
        let service = ServiceName {
            namespace: namespace(to),
            name: name(to),
        };
        let port = [8080, 8443, 9090, 5432][number % 4];
        (Endpoint::Workload(workload(to)), port, Transport::Tcp, Some(service))
    };
    let tally = Tally {
        first_seen: at(2),
        last_seen: at(3600),
        attempted: 100,
        established: 100,
        refused: 0,
        unanswered: 0,
    };
    let told = |reporter, index| {
        let origin = Origin {
            node: node(index),
            epoch: 1,
        };
        ((reporter, origin), tally)
    };
    let mut tallies = vec![told(Reporter::Source, from)];
    if matches!(destination, Endpoint::Workload(_)) {
        tallies.push(told(Reporter::Destination, to));
    }
    let key = EdgeKey {
        source: Endpoint::Workload(workload(from)),
        destination,
        port,
        transport,
    };
    let evidence = Evidence {
        tallies: tallies.into_iter().collect(),
        via: via.into_iter().collect(),
    };
    (key, evidence)
}

pub(crate) fn graph(workloads: usize) -> ConnectionGraph {
    let mut graph = ConnectionGraph::default();
    for from in 0..workloads {
        for number in 0..EDGES_EACH {
            let (key, evidence) = edge(workloads, from, number);
            graph.insert(key, &evidence);
        }
    }
    graph
}

/// A policy after another, each dropped before the next is made.
pub(crate) fn stream(graph: &ConnectionGraph, cluster: &Cluster, settings: &Settings) -> usize {
    Synthesizer::new(cluster, settings)
        .proposals(graph)
        .filter(|(_, proposal)| black_box(proposal).is_ok())
        .count()
}
