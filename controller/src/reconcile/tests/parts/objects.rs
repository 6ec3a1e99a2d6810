//! Policies, of people and of ours, and nodes, in each of the forms that make a difference.

use nanoseg_graph::cluster::Node;
use nanoseg_policy::ownership::{MANAGED_BY, MANAGER, WORKLOAD_KIND, WORKLOAD_NAME};

use super::*;

/// A policy of people's: it isolates, allows everything, or tells addresses apart.
pub(super) fn theirs(name: usize, what: usize) -> NetworkPolicy {
    let spec = [
        serde_json::json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }),
        serde_json::json!({ "podSelector": {}, "ingress": [{}] }),
        serde_json::json!({ "podSelector": { "matchLabels": labels("db") }, "policyTypes": ["Ingress"], "ingress": [
            { "from": [{ "ipBlock": { "cidr": "198.18.1.0/24", "except": ["198.18.1.20/32"] } }] }
        ] }),
        serde_json::json!({ "podSelector": { "matchLabels": { "track": "canary" } }, "policyTypes": ["Ingress"] }),
        serde_json::json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [
            { "to": [{ "ipBlock": { "cidr": "198.18.1.20/31" } }] }
        ] }),
        serde_json::json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [
            { "to": [{ "namespaceSelector": { "matchLabels": { MODE_LABEL: "Enforce" } } }] }
        ] }),
        serde_json::json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [
            { "from": [{ "namespaceSelector": { "matchLabels": { "team": "ops" } } }] }
        ] }),
    ];
    NetworkPolicy {
        metadata: ObjectMeta {
            namespace: Some("shop".to_owned()),
            name: Some(format!("theirs-{name}")),
            ..ObjectMeta::default()
        },
        spec: Some(serde_json::from_value(spec[what].clone()).unwrap()),
    }
}

/// A node with addresses of nobody, of the cluster and from outside, and with ranges from there or around it.
pub(super) fn node(name: String, addresses: usize, ranges: usize, is_labelled: bool) -> Node {
    let addresses: &[&str] = [
        &["192.0.2.1"][..],
        &["203.0.113.9"],
        &["198.18.1.20", "fd00::1"],
        &["198.18.9.2", "203.0.113.20"],
        &[],
    ][addresses];
    let ranges: &[&str] = [
        &[][..],
        &["203.0.113.0/28"],
        &["203.0.113.16/28", "198.18.1.0/24"],
        &["198.18.0.0/15"],
    ][ranges];
    Node {
        name,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        labels: if is_labelled { labels("node") } else { Labels::default() },
        pod_cidrs: ranges.iter().map(|range| range.parse().unwrap()).collect(),
    }
}

/// A policy of ours for one of the workloads, or for one that nobody knows.
pub(super) fn ours(of: usize) -> NetworkPolicy {
    let name = NAMES.get(of).unwrap_or(&"old");
    serde_json::from_value(serde_json::json!({
        "metadata": {
            "namespace": "shop",
            "name": format!("nanoseg-deployment-{name}"),
            "labels": { MANAGED_BY: MANAGER },
            "annotations": { WORKLOAD_KIND: "Deployment", WORKLOAD_NAME: name },
        },
        "spec": { "podSelector": {}, "policyTypes": ["Egress"] },
    }))
    .unwrap()
}
