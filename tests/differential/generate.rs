//! Worlds at random: few labels, few addresses and few ports, so that everything overlaps with everything.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod cluster;

use fastrand::Rng;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, Namespace, Node, NodeAddress, NodeStatus, Pod, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nanoseg_graph::flow::Transport;

use crate::world::{Question, Who, World};

/// The last key is on no object.
const KEYS: [&str; 4] = ["app", "tier", "team", "nowhere"];
/// A label may have the empty value.
const VALUES: [&str; 4] = ["a", "b", "c", ""];
const PORTS: [u16; 7] = [53, 80, 81, 443, 5432, 8080, 65535];
const NAMES: [&str; 4] = ["http", "metrics", "db", "peer"];
const TRANSPORTS: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::Sctp];
/// Addresses of nobody.
const OUTSIDE: [&str; 6] = [
    "198.51.100.1",
    "198.51.100.129",
    "203.0.113.9",
    "2001:db8::1",
    "2001:db8::8001",
    "2001:db8:1::9",
];
/// Questions for each world: as many worlds as possible, but each must be built and told.
const QUESTIONS: usize = 150;

/// A world with its questions.
pub(crate) fn world(rng: &mut Rng, with_cluster_policies: bool) -> World {
    let mut world = World::default();
    let namespaces = rng.usize(1..=4);
    for index in 0..namespaces {
        let name = format!("n{index}");
        let mut labels = labels(rng);
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.clone());
        world.namespaces.push(Namespace {
            metadata: ObjectMeta {
                name: Some(name),
                labels: Some(labels),
                ..Default::default()
            },
            ..Default::default()
        });
    }
    for index in 1..=2_u8 {
        world.nodes.push(node(index, labels(rng)));
    }
    let families = rng.u8(0..4);
    for index in 0..rng.u8(2..=12) {
        let pod = pod(rng, index, namespaces, families);
        world.pods.push(pod);
    }
    let addresses = Addresses::of(&world);
    for index in 0..rng.usize(1..=7) {
        world.policies.push(policy(rng, index, namespaces, &addresses));
    }
    if with_cluster_policies {
        // Not as many as there are priorities and namespaces, so that now and then a tier has nothing to say.
        for index in 0..rng.u8(1..=5) {
            world.cluster_policies.push(cluster::policy(rng, index, &addresses));
        }
    }
    let asked: Vec<u16> = ports(&world);
    for _ in 0..QUESTIONS {
        let question = question(rng, &addresses, &asked);
        world.questions.push(question);
    }
    world
}

/// Every address that may be asked about, and whose it is.
struct Addresses(Vec<Who>);

impl Addresses {
    fn of(world: &World) -> Self {
        let mut found = Vec::new();
        for pod in &world.pods {
            for ip in pod.status.as_ref().unwrap().pod_ips.iter().flatten() {
                found.push(Who {
                    pod: pod.metadata.name.clone(),
                    address: ip.ip.parse().unwrap(),
                    by_name: false,
                });
            }
        }
        let nodes = world.nodes.iter().flat_map(|node| {
            let addresses = node.status.as_ref().unwrap().addresses.as_ref().unwrap();
            addresses.iter().map(|address| address.address.as_str())
        });
        for address in nodes.chain(OUTSIDE) {
            found.push(Who {
                pod: None,
                address: address.parse().unwrap(),
                by_name: false,
            });
        }
        Self(found)
    }

    fn any(&self, rng: &mut Rng) -> Who {
        // Pods come first in the list, and matter more than nodes and strangers.
        let pods = self.0.iter().take_while(|who| who.pod.is_some()).count();
        let among = if rng.bool() { &self.0[..pods] } else { &self.0 };
        pick(rng, among).clone()
    }
}

fn labels(rng: &mut Rng) -> BTreeMap<String, String> {
    KEYS[..3]
        .iter()
        .filter_map(|key| {
            let value = pick(rng, &VALUES);
            (rng.u8(0..3) > 0).then(|| ((*key).to_owned(), (*value).to_owned()))
        })
        .collect()
}

fn node(index: u8, labels: BTreeMap<String, String>) -> Node {
    let address = |address: String| NodeAddress {
        type_: "InternalIP".to_owned(),
        address,
    };
    Node {
        metadata: ObjectMeta {
            name: Some(format!("node{index}")),
            labels: Some(labels),
            ..Default::default()
        },
        status: Some(NodeStatus {
            addresses: Some(vec![
                address(format!("192.0.2.{index}")),
                address(format!("fd00:19::{index}")),
            ]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn pod(rng: &mut Rng, index: u8, namespaces: usize, families: u8) -> Pod {
    let namespace = rng.usize(0..namespaces);
    let node = rng.u8(1..=2);
    let host_network = rng.u8(0..12) == 0;
    let v4 = || IpAddr::from(Ipv4Addr::new(198, 18, u8::try_from(namespace).unwrap(), index + 1));
    let v6 = || {
        let namespace = u16::try_from(namespace).unwrap();
        IpAddr::from(Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, namespace, u16::from(index) + 1))
    };
    let addresses: Vec<IpAddr> = match (host_network, families, rng.u8(0..3)) {
        (true, _, 0) => vec![format!("fd00:19::{node}").parse().unwrap()],
        (true, _, _) => vec![IpAddr::from(Ipv4Addr::new(192, 0, 2, node))],
        (_, 0, _) | (_, 3, 0) => vec![v4()],
        (_, 1, _) | (_, 3, 1) => vec![v6()],
        _ => vec![v4(), v6()],
    };
    let mut names: Vec<&str> = NAMES.to_vec();
    rng.shuffle(&mut names);
    let mut containers = Vec::new();
    let mut init_containers = Vec::new();
    for container in 0..rng.u8(1..=3) {
        let ports = (0..rng.u8(0..=2)).map(|_| container_port(rng, names.pop())).collect();
        let restart_policy = match rng.u8(0..2) {
            0 => Some("Always".to_owned()),
            _ => None,
        };
        let of_init = container > 0 && rng.bool();
        let made = Container {
            name: format!("c{container}"),
            ports: Some(ports),
            restart_policy: restart_policy.filter(|_| of_init),
            ..Default::default()
        };
        if of_init {
            init_containers.push(made);
        } else {
            containers.push(made);
        }
    }
    Pod {
        metadata: ObjectMeta {
            namespace: Some(format!("n{namespace}")),
            name: Some(format!("p{index}")),
            labels: Some(labels(rng)),
            ..Default::default()
        },
        spec: Some(PodSpec {
            node_name: Some(format!("node{node}")),
            host_network: host_network.then_some(true),
            containers,
            init_containers: Some(init_containers),
            ..Default::default()
        }),
        status: Some(PodStatus {
            phase: Some("Running".to_owned()),
            pod_ip: Some(addresses[0].to_string()),
            pod_ips: Some(addresses.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()),
            ..Default::default()
        }),
    }
}

/// A container's port has a protocol: the API server fills it in when a pod is made.
fn container_port(rng: &mut Rng, name: Option<&str>) -> ContainerPort {
    let transport = if rng.bool() {
        Transport::Tcp
    } else {
        *pick(rng, &TRANSPORTS)
    };
    ContainerPort {
        name: name.map(str::to_owned),
        container_port: i32::from(*pick(rng, &PORTS)),
        protocol: Some(transport.as_str().to_owned()),
        ..Default::default()
    }
}

fn policy(rng: &mut Rng, index: usize, namespaces: usize, addresses: &Addresses) -> NetworkPolicy {
    let spec = NetworkPolicySpec {
        pod_selector: (rng.u8(0..8) > 0).then(|| selector(rng)),
        policy_types: match rng.u8(0..8) {
            0 | 1 => None,
            2 => Some(Vec::new()),
            3 => Some(vec!["Ingress".to_owned()]),
            4 => Some(vec!["Egress".to_owned()]),
            5 => Some(vec!["Egress".to_owned(), "Ingress".to_owned()]),
            _ => Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
        },
        ingress: rules(rng, addresses, |from, ports| NetworkPolicyIngressRule { from, ports }),
        egress: rules(rng, addresses, |to, ports| NetworkPolicyEgressRule { ports, to }),
    };
    NetworkPolicy {
        metadata: ObjectMeta {
            namespace: Some(format!("n{}", rng.usize(0..namespaces))),
            name: Some(format!("policy{index}")),
            ..Default::default()
        },
        spec: (rng.u8(0..40) > 0).then_some(spec),
    }
}

/// Absent, empty, or some.
fn list<T>(rng: &mut Rng, most: u8, mut item: impl FnMut(&mut Rng) -> T) -> Option<Vec<T>> {
    match rng.u8(0..8) {
        0 => None,
        1 => Some(Vec::new()),
        _ => Some((0..rng.u8(1..=most)).map(|_| item(rng)).collect()),
    }
}

fn rules<R>(
    rng: &mut Rng,
    addresses: &Addresses,
    rule: impl Fn(Option<Vec<NetworkPolicyPeer>>, Option<Vec<NetworkPolicyPort>>) -> R,
) -> Option<Vec<R>> {
    list(rng, 3, |rng| {
        let peers = list(rng, 3, |rng| peer(rng, addresses));
        rule(peers, list(rng, 3, port))
    })
}

fn peer(rng: &mut Rng, addresses: &Addresses) -> NetworkPolicyPeer {
    let mut peer = NetworkPolicyPeer::default();
    match rng.u8(0..4) {
        0 => peer.ip_block = Some(block(rng, addresses)),
        1 => peer.pod_selector = Some(selector(rng)),
        2 => peer.namespace_selector = Some(namespaces(rng)),
        _ => {
            peer.pod_selector = Some(selector(rng));
            peer.namespace_selector = Some(namespaces(rng));
        }
    }
    peer
}

/// A range around some address; exceptions are around other addresses in it.
fn block(rng: &mut Rng, addresses: &Addresses) -> IPBlock {
    let range = |rng: &mut Rng| {
        let address = addresses.any(rng).address;
        let lengths: &[u8] = match address {
            IpAddr::V4(_) => &[0, 8, 15, 16, 24, 25, 28, 31, 32],
            IpAddr::V6(_) => &[0, 8, 31, 32, 64, 112, 113, 120, 128],
        };
        IpNet::new(address, *pick(rng, lengths)).unwrap()
    };
    let cidr = range(rng);
    let except: Vec<String> = (0..rng.u8(0..=6))
        .map(|_| range(rng))
        .filter(|except| cidr.contains(except) && cidr.prefix_len() < except.prefix_len())
        .map(|except| except.to_string())
        .collect();
    IPBlock {
        // With bits behind the prefix, now and then.
        cidr: if rng.u8(0..4) == 0 { cidr } else { cidr.trunc() }.to_string(),
        except: (!except.is_empty() || rng.bool()).then_some(except),
    }
}

fn selector(rng: &mut Rng) -> LabelSelector {
    let key = |rng: &mut Rng| (*pick(rng, &KEYS)).to_owned();
    let value = |rng: &mut Rng| (*pick(rng, &VALUES)).to_owned();
    let match_labels = (rng.u8(0..3) == 0).then(|| (0..rng.u8(0..=2)).map(|_| (key(rng), value(rng))).collect());
    let match_expressions = (rng.u8(0..3) == 0).then(|| {
        (0..rng.u8(0..=2))
            .map(|_| {
                let (operator, values) = match rng.u8(0..4) {
                    0 => ("In", true),
                    1 => ("NotIn", true),
                    2 => ("Exists", false),
                    _ => ("DoesNotExist", false),
                };
                LabelSelectorRequirement {
                    key: key(rng),
                    operator: operator.to_owned(),
                    values: values.then(|| (0..rng.u8(1..=3)).map(|_| value(rng)).collect()),
                }
            })
            .collect()
    });
    LabelSelector {
        match_expressions,
        match_labels,
    }
}

/// Now and then by the label that every namespace has.
fn namespaces(rng: &mut Rng) -> LabelSelector {
    let mut selector = selector(rng);
    if rng.u8(0..6) == 0 {
        let labels = selector.match_labels.get_or_insert_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), format!("n{}", rng.u8(0..3)));
    }
    selector
}

fn port(rng: &mut Rng) -> NetworkPolicyPort {
    let protocol = (rng.u8(0..3) > 0).then(|| pick(rng, &TRANSPORTS).as_str().to_owned());
    let number = *pick(rng, &PORTS);
    let (port, end_port) = match rng.u8(0..5) {
        0 => (None, None),
        1 => (Some(IntOrString::String((*pick(rng, &NAMES)).to_owned())), None),
        2 => {
            let ends: Vec<u16> = PORTS.into_iter().filter(|end| *end >= number).collect();
            (Some(IntOrString::Int(number.into())), Some((*pick(rng, &ends)).into()))
        }
        _ => (Some(IntOrString::Int(number.into())), None),
    };
    NetworkPolicyPort {
        end_port,
        port,
        protocol,
    }
}

/// The ports that policies and pods name, and their neighbours.
fn ports(world: &World) -> Vec<u16> {
    let mut named: Vec<i32> = vec![80];
    for spec in world.policies.iter().filter_map(|policy| policy.spec.as_ref()) {
        let ingress = spec.ingress.iter().flatten().filter_map(|rule| rule.ports.as_ref());
        let egress = spec.egress.iter().flatten().filter_map(|rule| rule.ports.as_ref());
        for port in ingress.chain(egress).flatten() {
            if let Some(IntOrString::Int(number)) = port.port {
                named.extend([number - 1, number, number, number + 1]);
            }
            named.extend(port.end_port.iter().flat_map(|end| [end - 1, *end, end + 1]));
        }
    }
    for spec in world.pods.iter().filter_map(|pod| pod.spec.as_ref()) {
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            named.extend(container.ports.iter().flatten().map(|port| port.container_port));
        }
    }
    named
        .into_iter()
        .filter_map(|number| u16::try_from(number).ok().filter(|number| *number > 0))
        .collect()
}

fn question(rng: &mut Rng, addresses: &Addresses, ports: &[u16]) -> Question {
    loop {
        let mut source = addresses.any(rng);
        // Itself, more often than by chance.
        let mut destination = if rng.u8(0..30) == 0 {
            source.clone()
        } else {
            addresses.any(rng)
        };
        let strangers = source.pod.is_none() && destination.pod.is_none();
        // A pod on its node's network and the node are one: whom such a question is about cannot be said.
        let one = source.address == destination.address && source.pod != destination.pod;
        if strangers || one || source.address.is_ipv4() != destination.address.is_ipv4() {
            continue;
        }
        source.by_name = source.pod.is_some() && rng.u8(0..4) == 0;
        destination.by_name = destination.pod.is_some() && rng.u8(0..4) == 0;
        return Question {
            source,
            destination,
            port: *pick(rng, ports),
            transport: if rng.bool() {
                Transport::Tcp
            } else {
                *pick(rng, &TRANSPORTS)
            },
        };
    }
}

fn pick<'a, T>(rng: &mut Rng, among: &'a [T]) -> &'a T {
    &among[rng.usize(0..among.len())]
}
