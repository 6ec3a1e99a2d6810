//! The rule that would allow what is denied.

use std::cell::OnceCell;

use nanoseg_graph::cluster::{Cluster, Labels, NAMESPACE_NAME, Pod};
use nanoseg_policy::direction::Direction;
use nanoseg_policy::evaluate::{Cause, Connection, Denial, End, Verdict};
use nanoseg_policy::identity::Identities;
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

/// A cluster, and the labels by which rules know its workloads, found when a rule is first asked for.
pub(crate) struct Rules<'a> {
    cluster: &'a Cluster,
    identities: OnceCell<Identities>,
}

impl<'a> Rules<'a> {
    pub(crate) const fn of(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            identities: OnceCell::new(),
        }
    }

    /// What would have to be said for the connection to be allowed; empty when it is.
    pub(crate) fn missing(&self, verdict: &Verdict, connection: &Connection) -> Vec<Missing> {
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
                    key: [self.peer(peer, &denial.namespace)],
                    "ports": [{ "port": connection.port, "protocol": connection.transport.as_str() }],
                }),
            })
        };
        why.iter().filter_map(missing).collect()
    }

    fn peer(&self, peer: &End, namespace: &str) -> Value {
        match (pod_of(peer, self.cluster), peer) {
            (Some(pod), _) => {
                let labels = self.labels(pod);
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

    /// Those by which synthesis would name the pod, too.
    fn labels(&self, pod: &Pod) -> Labels {
        let identities = self.identities.get_or_init(|| Identities::new(self.cluster));
        let identity = identities.get(&self.cluster.workload_of(pod));
        // Every pod of the cluster is of a workload that is known there.
        identity.map(|identity| (*identity.labels).clone()).unwrap_or_default()
    }
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
