//! Random clusters and graphs.

use nanoseg_graph::connection::EdgeKey;
use proptest::prelude::*;

use super::super::*;

/// What a random workload is.
#[derive(Clone, Debug)]
pub(super) struct Described {
    namespace: &'static str,
    kind: &'static str,
    labels: Labels,
    replicas: usize,
    /// 0: IPv4, 1: IPv6, 2: both.
    families: usize,
    host_network: bool,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    workloads: Vec<Described>,
    pub(super) edges: Vec<(EdgeKey, Outcome, bool)>,
    pub(super) settings: u8,
}

pub(super) const PORTS: [u16; 4] = [53, 80, 5353, 8080];
pub(super) const OUTSIDE: [&str; 4] = ["198.51.100.1", "2001:db8:5::1", "169.254.20.10", "198.51.7.7"];
/// In groups, and never observed.
pub(super) const UNSEEN: [&str; 3] = ["198.51.100.2", "198.51.9.9", "2001:db8:5::2"];
pub(super) const NODES: [(&str, [&str; 2]); 2] = [
    ("n1", ["192.0.2.1", "2001:db8::1"]),
    ("n2", ["192.0.2.2", "2001:db8::2"]),
];

impl World {
    pub(super) fn workload(&self, index: usize) -> Workload {
        let Described { namespace, kind, .. } = &self.workloads[index];
        workload(kind, namespace, &format!("w{index}"))
    }

    pub(super) fn objects(&self) -> Vec<Object> {
        let mut objects: Vec<Object> = NODES.iter().map(|(name, addresses)| node(name, addresses)).collect();
        let dns = [(53, TargetPort::Number(5353), Transport::Udp)];
        objects.push(service("kube-system", "kube-dns", Some(labels([("app", "dns")])), &dns));
        objects.push(service(
            "default",
            "kubernetes",
            None,
            &[(443, TargetPort::Number(8080), Transport::Tcp)],
        ));
        objects.push(slice("default", "kubernetes", &["203.0.113.9", "192.0.2.2"], 8080));
        for (index, described) in self.workloads.iter().enumerate() {
            let Described {
                namespace,
                kind,
                labels,
                replicas,
                families,
                host_network,
            } = described;
            let name = format!("w{index}");
            if *kind != "Pod" {
                objects.push(controller(kind, namespace, &name, Labels::new(), labels.clone()));
            }
            let replicas = if *kind == "Pod" { 1 } else { *replicas };
            for replica in 0..replicas {
                let (node, addresses) = NODES[(index + replica) % 2];
                let own = [
                    format!("198.18.{index}.{replica}"),
                    format!("fd00:18::{index}:{replica}"),
                ];
                let own: Vec<&str> = if *host_network {
                    addresses.to_vec()
                } else {
                    own.iter().map(String::as_str).collect()
                };
                let chosen = match (families, host_network) {
                    (0, false) => &own[..1],
                    (1, false) => &own[1..],
                    _ => &own[..],
                };
                let pod_name = if *kind == "Pod" {
                    name.clone()
                } else {
                    format!("{name}-{replica}")
                };
                let mut made = pod(namespace, &pod_name, labels.clone(), chosen);
                if *kind != "Pod" {
                    made = owned(kind, &name, made);
                }
                made.node = Some(node.into());
                made.host_network = *host_network;
                objects.push(Object::Pod(made));
            }
        }
        objects
    }

    pub(super) fn cluster(&self) -> Cluster {
        cluster(self.objects())
    }

    pub(super) fn graph(&self) -> ConnectionGraph {
        let mut graph = ConnectionGraph::default();
        for (key, outcome, both) in &self.edges {
            graph.insert(
                key.clone(),
                &evidence(*outcome, if *both { BOTH } else { &BOTH[..1] }, &[]),
            );
        }
        graph
    }
}

pub(super) fn described(whole: bool) -> impl Strategy<Value = Described> {
    let namespace = prop::sample::select(vec!["a", "b", "kube-system"]);
    let kind = prop::sample::select(if whole {
        vec!["StatefulSet"]
    } else {
        vec!["StatefulSet", "Job", "Pod"]
    });
    let labels = prop::collection::btree_map("(app|tier)", "(dns|x|y|z)", usize::from(whole)..3);
    let replicas = if whole { 2..4_usize } else { 0..4 };
    let families = if whole { 2..3_usize } else { 0..3 };
    let host_network = prop::bool::weighted(if whole { 0.0 } else { 0.15 });
    (namespace, kind, labels, replicas, families, host_network).prop_map(
        |(namespace, kind, labels, replicas, families, host_network)| Described {
            namespace,
            kind,
            labels,
            replicas,
            families,
            host_network,
        },
    )
}

/// `whole`: every workload has several dual-stack pods, so that whatever is allowed can be seen to be.
pub(super) fn world(whole: bool) -> impl Strategy<Value = World> {
    prop::collection::vec(described(whole), 2..7).prop_flat_map(move |workloads| {
        let count = workloads.len();
        let edge = (
            0..count,
            0..count + 10,
            any::<bool>(),
            prop::sample::select(PORTS.to_vec()),
            prop::sample::select(vec![Transport::Tcp, Transport::Udp]),
            prop::sample::select(vec![
                Outcome::Established,
                Outcome::Established,
                Outcome::Attempted,
                Outcome::Unanswered,
                Outcome::Refused,
            ]),
            any::<bool>(),
        );
        let drawn = prop::collection::vec(edge, 0..14);
        (Just(workloads), drawn, any::<u8>()).prop_map(move |(workloads, drawn, settings)| {
            let mut world = World {
                workloads,
                edges: Vec::new(),
                settings,
            };
            for (own, other, outgoing, port, transport, outcome, both) in drawn {
                let own = Endpoint::Workload(world.workload(own));
                let (other, outgoing) = match other.checked_sub(count) {
                    None => (Endpoint::Workload(world.workload(other)), outgoing),
                    Some(index @ 0..4) => (Endpoint::External(ip(OUTSIDE[index])), outgoing),
                    Some(index @ (4 | 5)) => (Endpoint::Node(NODES[index - 4].0.to_owned()), outgoing),
                    Some(6) => (Endpoint::Service(service_name("default", "kubernetes")), true),
                    Some(7) => (Endpoint::Workload(workload("Job", "a", "gone")), outgoing),
                    Some(8) => (
                        Endpoint::Unknown {
                            reason: UnknownReason::PodNotSeen,
                            address: None,
                        },
                        outgoing,
                    ),
                    Some(_) => (own.clone(), outgoing),
                };
                let (source, destination) = if outgoing { (own, other) } else { (other, own) };
                world
                    .edges
                    .push((edge_of(source, destination, port, transport), outcome, both));
            }
            world
        })
    })
}

pub(super) fn edge_of(source: Endpoint, destination: Endpoint, port: u16, transport: Transport) -> EdgeKey {
    EdgeKey {
        source,
        destination,
        port,
        transport,
    }
}

/// Groups of which one holds another, and one holds addresses of the cluster; ranges of which one lies in another.
pub(super) fn settings(chosen: u8) -> Settings {
    let group = |text: &str| text.parse::<ExternalGroup>().unwrap();
    let range = |text: &str| text.parse::<PortRange>().unwrap();
    let groups = [
        group("partner=198.51.100.0/30"),
        group("wide=198.51.0.0/16,2001:db8:5::/64"),
        group("mixed=192.0.2.0/24,203.0.113.0/24"),
    ];
    let ranges = [range("TCP:80-81"), range("low=UDP:50-60"), range("both=TCP:79-82")];
    let pick = |bit: usize| chosen & (1 << bit) != 0;
    Settings {
        external_groups: groups
            .into_iter()
            .enumerate()
            .filter(|(at, _)| pick(*at))
            .map(|(_, group)| group)
            .collect(),
        port_ranges: ranges
            .into_iter()
            .enumerate()
            .filter(|(at, _)| pick(3 + at))
            .map(|(_, range)| range)
            .collect(),
        ..Settings::default()
    }
}

pub(super) fn accepted(world: &World) -> Vec<Proposal> {
    synthesize_all(&world.graph(), &world.cluster(), &settings(world.settings))
        .into_values()
        .flatten()
        .collect()
}
