//! What nanoseg is allowed to do in a cluster, by the manifests that people apply.

use std::fs;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize as _;
use serde_yaml::Value;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/rbac.yaml");

/// The only objects that nanoseg ever writes, by the kind of role that lets it: across the cluster its policies, what it learned,
/// what happened to that, and the question whose a token is; in its own namespace the certificate that learners connect by and the Lease.
const OWN: [(&str, &str, &str); 8] = [
    ("ClusterRole", "networking.k8s.io", "networkpolicies"),
    ("ClusterRole", "nanoseg.io", "segments"),
    ("ClusterRole", "nanoseg.io", "segments/status"),
    ("ClusterRole", "events.k8s.io", "events"),
    ("ClusterRole", "authentication.k8s.io", "tokenreviews"),
    ("Role", "", "secrets"),
    ("Role", "", "configmaps"),
    ("Role", "coordination.k8s.io", "leases"),
];

#[test]
fn p26_pods_and_workloads_cannot_be_written() {
    let text = fs::read_to_string(FILE).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap());
    let kind = |document: &Value| document["kind"].as_str().unwrap_or_default().to_owned();
    let documents: Vec<Value> = documents.filter(|document| kind(document).ends_with("Role")).collect();
    let kinds: Vec<String> = documents.iter().map(kind).collect();
    assert_eq!(
        kinds,
        ["ClusterRole", "Role"],
        "the controller's, and none for learners"
    );
    for role in documents {
        let of = kind(&role);
        let rules: Vec<PolicyRule> = serde_yaml::from_value(role["rules"].clone()).unwrap();
        for rule in rules {
            let writes = rule
                .verbs
                .iter()
                .any(|verb| !["get", "list", "watch"].contains(&verb.as_str()));
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    let own = OWN.contains(&(&of, group, resource));
                    assert!(!writes || own, "{:?} of {resource} in {group:?} by a {of}", rule.verbs);
                }
            }
        }
    }
}
