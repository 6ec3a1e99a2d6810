//! Policies of the cluster at random.

use fastrand::Rng;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nanoseg_policy::cluster_policy::{
    API_VERSION, ClusterNetworkPolicy, ClusterNetworkPolicySpec, EgressRule, IngressRule, Kind, NamespacedPod, Peer,
    Port, PortRange, Ports, Protocol, Subject,
};

use super::{Addresses, NAMES, PORTS, block, namespaces, pick, selector};

const ACTIONS: [&str; 3] = ["Accept", "Deny", "Pass"];

/// No two of one priority: which of them decides is not specified.
pub(super) fn policy(rng: &mut Rng, index: u8, addresses: &Addresses) -> ClusterNetworkPolicy {
    let subject = if rng.bool() {
        Subject {
            namespaces: Some(namespaces(rng)),
            pods: None,
        }
    } else {
        Subject {
            namespaces: None,
            pods: Some(pods(rng)),
        }
    };
    let ingress = (0..rng.u8(0..=3)).map(|_| {
        let from = (0..rng.u8(1..=3)).map(|_| inside(rng)).collect();
        IngressRule {
            name: None,
            action: (*pick(rng, &ACTIONS)).to_owned(),
            from,
            protocols: protocols(rng, true),
        }
    });
    let ingress = ingress.collect();
    let egress = (0..rng.u8(0..=3)).map(|_| {
        let to: Vec<Peer> = (0..rng.u8(1..=3)).map(|_| anywhere(rng, addresses)).collect();
        // The API refuses names of ports together with peers that have none.
        let names = to.iter().all(|peer| peer.nodes.is_none() && peer.networks.is_none());
        EgressRule {
            name: None,
            action: (*pick(rng, &ACTIONS)).to_owned(),
            to,
            protocols: protocols(rng, names),
        }
    });
    let egress = egress.collect();
    let tier = *pick(rng, &["Admin", "Baseline"]);
    ClusterNetworkPolicy {
        api_version: API_VERSION.to_owned(),
        kind: Kind::ClusterNetworkPolicy,
        metadata: ObjectMeta {
            name: Some(format!("cluster{index}")),
            ..Default::default()
        },
        spec: ClusterNetworkPolicySpec {
            tier: tier.to_owned(),
            // The later are not always behind the earlier.
            priority: i32::from(index) * 7 % 5 * 10 + i32::from(index),
            subject,
            ingress,
            egress,
        },
        status: serde_json::Value::Null,
    }
}

fn pods(rng: &mut Rng) -> NamespacedPod {
    NamespacedPod {
        namespace_selector: (rng.u8(0..4) > 0).then(|| namespaces(rng)),
        pod_selector: selector(rng),
    }
}

fn inside(rng: &mut Rng) -> Peer {
    let mut peer = Peer::default();
    if rng.bool() {
        peer.namespaces = Some(namespaces(rng));
    } else {
        peer.pods = Some(pods(rng));
    }
    peer
}

fn anywhere(rng: &mut Rng, addresses: &Addresses) -> Peer {
    let mut peer = Peer::default();
    match rng.u8(0..6) {
        0 => peer.nodes = Some(selector(rng)),
        1 | 2 => peer.networks = Some((0..rng.u8(1..=3)).map(|_| block(rng, addresses).cidr).collect()),
        _ => return inside(rng),
    }
    peer
}

fn protocols(rng: &mut Rng, names: bool) -> Option<Vec<Protocol>> {
    rng.bool()
        .then(|| (0..rng.u8(1..=3)).map(|_| protocol(rng, names)).collect())
}

fn protocol(rng: &mut Rng, names: bool) -> Protocol {
    let mut protocol = Protocol::default();
    if names && rng.u8(0..4) == 0 {
        protocol.destination_named_port = Some((*pick(rng, &NAMES)).to_owned());
        return protocol;
    }
    let number = i32::from(*pick(rng, &PORTS));
    let destination_port = match rng.u8(0..4) {
        0 => None,
        1 if number < 65535 => Some(Port {
            number: None,
            range: Some(PortRange {
                start: number,
                end: rng.i32(number + 1..=65535),
            }),
        }),
        _ => Some(Port {
            number: Some(number),
            range: None,
        }),
    };
    let ports = Some(Ports { destination_port });
    match rng.u8(0..4) {
        0 => protocol.udp = ports,
        1 => protocol.sctp = ports,
        _ => protocol.tcp = ports,
    }
    protocol
}
