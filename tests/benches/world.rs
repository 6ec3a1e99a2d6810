//! Clusters, policies and questions of any size, the same for every engine.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::flow::Transport;
use nanoseg_policy::evaluate::{End, Evaluator, Place, PolicySet};
use nanoseg_policy::objects::{Manifest, parse};
use serde_json::{Value, json};

/// Different values of the labels `app` and `tier`: pods with one set of labels are replicas.
const APPS: usize = 50;
const TIERS: usize = 4;

/// Questions about each world: enough that no engine answers from a processor's cache alone.
pub(crate) const ASKED: usize = 1000;

const PORTS: [u16; 4] = [80, 81, 443, 8005];

/// A world, as the API writes it.
pub(crate) struct World {
    namespaces: Vec<Value>,
    pods: Vec<Value>,
    policies: Vec<Value>,
}

impl World {
    /// Pods and policies spread over namespaces; every policy selects an app, and has two rules of two peers in each direction.
    pub(crate) fn new(namespaces: usize, pods: usize, policies: usize) -> Self {
        let first = u32::from(Ipv4Addr::new(198, 18, 0, 0));
        let pod = |number: usize| {
            let address = Ipv4Addr::from(first + u32::try_from(number).unwrap_or_default());
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "namespace": format!("n{}", number % namespaces), "name": format!("p{number}"), "uid": format!("u{number}"),
                    "labels": {"app": format!("a{}", number / namespaces % APPS), "tier": format!("t{}", number / namespaces % TIERS)},
                },
                "spec": {"containers": [{"name": "c"}]},
                "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
            })
        };
        let policy = |number: usize| {
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": format!("n{}", number % namespaces), "name": format!("q{number}")},
                "spec": {
                    "podSelector": {"matchLabels": {"app": format!("a{}", number / namespaces % APPS)}},
                    "policyTypes": ["Ingress", "Egress"],
                    "ingress": [rule("from", number), rule("from", number + 7)],
                    "egress": [rule("to", number + 1), rule("to", number + 11)],
                },
            })
        };
        let namespace = |number: usize| {
            let name = format!("n{number}");
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
            })
        };
        Self {
            namespaces: (0..namespaces).map(namespace).collect(),
            pods: (0..pods).map(pod).collect(),
            policies: (0..policies).map(policy).collect(),
        }
    }

    /// Which pods are asked about, and at which port.
    fn questions(&self) -> impl Iterator<Item = (usize, usize, u16)> {
        let pods = self.pods.len();
        (0..ASKED).map(move |number| {
            (
                number * 31 % pods,
                (number * 17 + 5) % pods,
                PORTS[number % PORTS.len()],
            )
        })
    }

    /// As the other engines read it.
    pub(crate) fn to_json(&self) -> Value {
        let end = |pod: usize| json!({"pod": pod, "ip": self.pods[pod]["status"]["podIP"]});
        let questions: Vec<Value> = self
            .questions()
            .map(|(source, destination, port)| {
                json!({"source": end(source), "destination": end(destination), "port": port, "protocol": "TCP"})
            })
            .collect();
        json!({
            "namespaces": self.namespaces, "nodes": [], "pods": self.pods, "policies": self.policies, "questions": questions,
        })
    }

    /// As the evaluator reads it.
    pub(crate) fn read(&self) -> Known {
        let mut cluster = Cluster::new([]);
        let mut policies: Vec<NetworkPolicy> = Vec::new();
        let all = self.namespaces.iter().chain(&self.pods).chain(&self.policies);
        for manifest in all.flat_map(|value| parse(value.clone()).manifests) {
            match manifest {
                Manifest::Object(object) => cluster.observe(object, Timestamp::UNIX_EPOCH),
                Manifest::NetworkPolicy(policy) => policies.push(*policy),
                Manifest::ClusterNetworkPolicy(_)
                | Manifest::OtherPolicy(_)
                | Manifest::OtherVersion { .. }
                | Manifest::Other { .. } => {}
            }
        }
        let (policies, rejected) = PolicySet::parse(&policies);
        assert!(rejected.is_empty(), "{rejected:?}");
        Known { cluster, policies }
    }

    /// The places that are asked about.
    pub(crate) fn places(&self, evaluator: &Evaluator<'_>) -> Vec<(Place, Place, u16)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let find = |pod: usize| {
            let metadata = &self.pods[pod]["metadata"];
            let end = End::Pod {
                namespace: text(&metadata["namespace"]),
                name: text(&metadata["name"]),
            };
            evaluator.find(&end).expect("it lives")
        };
        self.questions()
            .map(|(source, destination, port)| (find(source), find(destination), port))
            .collect()
    }
}

/// A world that was read.
pub(crate) struct Known {
    pub(crate) cluster: Cluster,
    pub(crate) policies: PolicySet,
}

/// Answers every question once. Returns how many are allowed.
pub(crate) fn ask(evaluator: &Evaluator<'_>, questions: &[(Place, Place, u16)]) -> usize {
    questions
        .iter()
        .filter(|(source, destination, port)| {
            let decision = evaluator.decide(source, destination, *port, Transport::Tcp);
            decision.combined() == nanoseg_policy::evaluate::Ruling::Allowed
        })
        .count()
}

fn rule(side: &str, number: usize) -> Value {
    json!({
        side: [
            {"podSelector": {"matchLabels": {"app": format!("a{}", number % APPS)}}},
            {
                "namespaceSelector": {},
                "podSelector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": [format!("t{}", number % TIERS), "t9"]}]},
            },
        ],
        "ports": [{"port": 80 + number % 3, "protocol": "TCP"}, {"port": 8000, "endPort": 8010, "protocol": "TCP"}],
    })
}
