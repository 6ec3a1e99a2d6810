//! Random clusters and flows, of the shapes with which the laws of synthesis are tested: labels that overlap, all families,
//! workloads without pods and on their nodes' network, peers of every kind, connections of every outcome.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::Case;

/// What a workload is.
#[derive(Clone, Debug)]
struct Workload {
    namespace: &'static str,
    kind: &'static str,
    labels: BTreeMap<String, String>,
    replicas: usize,
    /// 0: IPv4, 1: IPv6, 2: both.
    families: usize,
    host_network: bool,
}

/// A pod, or an address.
type End = Value;

const OUTSIDE: [&str; 6] = [
    "203.0.113.7",
    "203.0.113.8",
    "198.51.100.1",
    "2001:db8:5::1",
    "169.254.20.10",
    "198.18.250.1",
];
const NODES: [[&str; 2]; 2] = [["192.0.2.1", "2001:db8::1"], ["192.0.2.2", "2001:db8::2"]];

/// The same ones in every run.
pub(super) fn worlds(count: usize) -> Vec<Case> {
    let mut runner = TestRunner::deterministic();
    let world = prop::collection::vec(workload(), 2..7).prop_flat_map(|workloads| {
        let ends = ends(&workloads);
        let flows = prop::collection::vec(flow(ends), 1..20);
        (Just(workloads), flows)
    });
    let case = |number: usize| {
        let (workloads, flows) = world.new_tree(&mut runner).unwrap().current();
        let lines: Vec<String> = flows.iter().map(Value::to_string).collect();
        Case {
            title: format!("random cluster {number}"),
            cluster: objects(&workloads),
            flows: lines.join("\n"),
        }
    };
    (0..count).map(case).collect()
}

fn workload() -> impl Strategy<Value = Workload> {
    (
        prop::sample::select(vec!["a", "b", "kube-system"]),
        prop::sample::select(vec!["StatefulSet", "Job", "Pod"]),
        prop::collection::btree_map("(app|tier)", "(dns|x|y|z)", 0..3),
        0..4_usize,
        0..3_usize,
        prop::bool::weighted(0.15),
    )
        .prop_map(|(namespace, kind, labels, replicas, families, host_network)| Workload {
            namespace,
            kind,
            labels,
            replicas: if kind == "Pod" { 1 } else { replicas },
            families,
            host_network,
        })
}

fn flow(ends: Vec<End>) -> impl Strategy<Value = Value> {
    (
        prop::sample::select(ends.clone()),
        prop::sample::select(ends),
        prop::sample::select(vec![53_u16, 80, 5353, 8080, 16400]),
        prop::sample::select(vec!["TCP", "UDP", "SCTP"]),
        prop::sample::select(vec!["established", "established", "attempted", "unanswered", "refused"]),
    )
        .prop_map(|(source, destination, port, protocol, outcome)| {
            json!({ "source": source, "destination": destination, "port": port, "protocol": protocol, "outcome": outcome })
        })
}

fn ends(workloads: &[Workload]) -> Vec<End> {
    let pods = workloads.iter().enumerate().flat_map(|(index, workload)| {
        (0..workload.replicas)
            .map(move |replica| json!({ "namespace": workload.namespace, "pod": format!("w{index}-{replica}") }))
    });
    let addresses = OUTSIDE.into_iter().chain(NODES.into_iter().flatten());
    pods.chain(addresses.map(|address| json!({ "ip": address }))).collect()
}

fn objects(workloads: &[Workload]) -> Vec<Value> {
    let node = |(index, addresses): (usize, &[&str; 2])| {
        let addresses = addresses.map(|address| json!({ "type": "InternalIP", "address": address }));
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": format!("n{index}") },
            "spec": { "podCIDRs": ["198.18.0.0/16", "fd00:18::/32"] }, "status": { "addresses": addresses },
        })
    };
    let mut objects: Vec<Value> = NODES.iter().enumerate().map(node).collect();
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "kube-system", "name": "kube-dns" },
        "spec": { "clusterIP": "198.19.0.10", "selector": { "app": "dns" }, "ports": [{ "port": 53, "protocol": "UDP", "targetPort": 5353 }] },
    }));
    for (index, workload) in workloads.iter().enumerate() {
        let Workload {
            namespace,
            kind,
            labels,
            replicas,
            families,
            host_network,
        } = workload;
        for replica in 0..*replicas {
            let node = (index + replica) % 2;
            let own = [
                format!("198.18.{index}.{replica}"),
                format!("fd00:18::{index}:{replica}"),
            ];
            let all = if *host_network {
                NODES[node].map(str::to_owned)
            } else {
                own
            };
            let chosen = match (families, host_network) {
                (0, false) => &all[..1],
                (1, false) => &all[1..],
                _ => &all[..],
            };
            let addresses: Vec<Value> = chosen.iter().map(|address| json!({ "ip": address })).collect();
            let mut metadata =
                json!({ "namespace": namespace, "name": format!("w{index}-{replica}"), "labels": labels });
            if *kind != "Pod" {
                metadata["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": kind, "name": format!("w{index}"), "uid": "o", "controller": true }]);
            }
            objects.push(json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                "spec": { "nodeName": format!("n{node}"), "hostNetwork": host_network, "containers": [{ "name": "c" }] },
                "status": { "phase": "Running", "podIPs": addresses },
            }));
        }
    }
    objects
}
