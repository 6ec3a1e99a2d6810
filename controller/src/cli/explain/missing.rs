//! The rule that would allow what is denied.

use nanoseg_graph::cluster::{Cluster, Labels, NAMESPACE_NAME, Pod};
use nanoseg_policy::direction::Direction;
use nanoseg_policy::evaluate::{Cause, Connection, Denial, End, Verdict};
use nanoseg_policy::identity::{is_generated, is_passing};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::CommandError;
use super::super::output::yaml;

/// One direction's missing rule.
#[derive(Serialize)]
pub(crate) struct Missing {
    direction: &'static str,
    /// The policies that isolate; a rule in any of them, or in another policy that selects the pod, is enough.
    policies: Vec<String>,
    pod: String,
    /// The rule, as a list of the policy's `spec` holds it.
    rule: Value,
}

/// What would have to be said for the connection to be allowed; empty when it is.
pub(crate) fn missing(verdict: &Verdict, connection: &Connection, cluster: &Cluster) -> Vec<Missing> {
    let Verdict::Denied(why) = verdict else {
        return Vec::new();
    };
    let missing = |denial: &Denial| {
        let Cause::NoRule(policies) = &denial.cause else {
            // No rule of a NetworkPolicy helps against a rule of the cluster.
            return None;
        };
        let (key, peer) = match denial.direction {
            Direction::Ingress => ("from", &connection.source),
            Direction::Egress => ("to", &connection.destination),
        };
        Some(Missing {
            direction: denial.direction.as_str(),
            policies: policies.iter().map(ToString::to_string).collect(),
            pod: format!("{}/{}", denial.namespace, denial.pod),
            rule: json!({
                key: [peer_of(peer, &denial.namespace, cluster)],
                "ports": [{ "port": connection.port, "protocol": connection.transport.as_str() }],
            }),
        })
    };
    why.iter().filter_map(missing).collect()
}

/// The pod that an end is, if it is one.
pub(super) fn pod_of<'a>(end: &End, cluster: &'a Cluster) -> Option<&'a Pod> {
    match end {
        End::Pod { namespace, name } => cluster.pod(namespace, name),
        End::Uid(uid) => cluster.pod_by_uid(uid),
        End::Address(address) => cluster
            .pods()
            .find(|pod| !pod.host_network && pod.addresses.contains(address)),
    }
}

fn peer_of(peer: &End, namespace: &str, cluster: &Cluster) -> Value {
    match (pod_of(peer, cluster), peer) {
        (Some(pod), _) => {
            let labels: Labels = pod
                .labels
                .iter()
                .filter(|(key, _)| !is_generated(key) && !is_passing(key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            let pods = if labels.is_empty() {
                json!({})
            } else {
                json!({ "matchLabels": labels })
            };
            if *pod.namespace == *namespace {
                json!({ "podSelector": pods })
            } else {
                let name = json!({ "matchLabels": { NAMESPACE_NAME: &*pod.namespace } });
                json!({ "namespaceSelector": name, "podSelector": pods })
            }
        }
        (None, End::Address(address)) => {
            let length = if address.is_ipv4() { 32 } else { 128 };
            json!({ "ipBlock": { "cidr": format!("{address}/{length}") } })
        }
        // Without the pod there is no verdict that denies.
        (None, End::Pod { .. } | End::Uid(_)) => json!({ "podSelector": {} }),
    }
}

impl Missing {
    /// For a person.
    pub(crate) fn text(&self) -> Result<String, CommandError> {
        let Self {
            direction,
            policies,
            pod,
            rule,
        } = self;
        let list = direction.to_lowercase();
        let mut text = format!(
            "missing: a rule in {}, or in any policy of type {direction} that selects Pod {pod}:\n",
            policies.join(" or ")
        );
        for line in yaml("the missing rule", &json!({ list: [rule] }))?.lines() {
            text.extend(["  ", line, "\n"]);
        }
        Ok(text)
    }
}
