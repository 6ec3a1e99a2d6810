//! What nanoseg is allowed to do in a cluster, by the manifests that people apply.

use std::fs;

use k8s_openapi::api::rbac::v1::ClusterRole;
use serde::Deserialize as _;
use serde_yaml::Value;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/rbac.yaml");

/// The only objects that nanoseg ever writes.
const OWN: [(&str, &str); 3] = [
    ("networking.k8s.io", "networkpolicies"),
    ("nanoseg.io", "segments"),
    ("nanoseg.io", "segments/status"),
];

#[test]
fn p26_pods_and_workloads_cannot_be_written() {
    let text = fs::read_to_string(FILE).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap());
    let roles: Vec<Value> = documents
        .filter(|document| document["kind"].as_str().is_some_and(|kind| kind.ends_with("Role")))
        .collect();
    assert_eq!(roles.len(), 1, "the controller's, and none for learners");
    for role in roles {
        let role: ClusterRole = serde_yaml::from_value(role).unwrap();
        for rule in role.rules.unwrap_or_default() {
            let writes = rule
                .verbs
                .iter()
                .any(|verb| !["get", "list", "watch"].contains(&verb.as_str()));
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    let own = OWN.contains(&(group, resource));
                    assert!(!writes || own, "{:?} of {resource} in {group:?}", rule.verbs);
                }
            }
        }
    }
}
