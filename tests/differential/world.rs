//! A cluster, its policies, and questions about them: what is generated, asked, rewritten, shrunk and printed.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::flow::Transport;
use nanoseg_policy::cluster_policy::ClusterNetworkPolicy;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Everything that an engine is told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct World {
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) nodes: Vec<Node>,
    /// Every name only once in the cluster.
    pub(crate) pods: Vec<Pod>,
    /// As they are written: nothing is defaulted.
    pub(crate) policies: Vec<NetworkPolicy>,
    pub(crate) cluster_policies: Vec<ClusterNetworkPolicy>,
    #[serde(skip)]
    pub(crate) questions: Vec<Question>,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) source: Who,
    pub(crate) destination: Who,
    pub(crate) port: u16,
    pub(crate) transport: Transport,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    /// Name of the pod, if it is one.
    pub(crate) pod: Option<String>,
    /// The address that is used. It chooses the family.
    pub(crate) address: IpAddr,
    /// Whether our evaluator is told the pod's name, and finds the addresses itself.
    pub(crate) by_name: bool,
}

impl World {
    pub(crate) fn pod(&self, name: &str) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name))
    }

    /// Whether it is a node, or a pod on a node's network.
    pub(crate) fn is_on_node_network(&self, who: &Who) -> bool {
        let of_nodes = self.nodes.iter().filter_map(|node| node.status.as_ref());
        let mut addresses = of_nodes.flat_map(|status| status.addresses.iter().flatten());
        let pod = who.pod.as_ref().and_then(|name| self.pod(name));
        pod.and_then(|pod| pod.spec.as_ref()?.host_network) == Some(true)
            || addresses.any(|address| address.address.parse() == Ok(who.address))
    }

    /// Whether everything that is spoken of is there: the pods of the question, and every object's namespace.
    pub(crate) fn is_whole(&self, question: &Question) -> bool {
        let has_pod = |who: &Who| {
            let address = who.address.to_string();
            who.pod.as_ref().is_none_or(|name| {
                let status = self.pod(name).and_then(|pod| pod.status.as_ref());
                let mut ips = status.into_iter().flat_map(|status| status.pod_ips.iter().flatten());
                ips.any(|ip| ip.ip == address)
            })
        };
        let pods = self.pods.iter().map(|pod| &pod.metadata.namespace);
        let policies = self.policies.iter().map(|policy| &policy.metadata.namespace);
        has_pod(&question.source)
            && has_pod(&question.destination)
            && pods
                .chain(policies)
                .all(|of| self.namespaces.iter().any(|namespace| namespace.metadata.name == *of))
    }

    /// What the oracles read.
    pub(crate) fn to_json(&self) -> Value {
        let end = |who: &Who| {
            let is_it = |pod: &Pod| pod.metadata.name == who.pod;
            let position = who.pod.as_ref().and_then(|_| self.pods.iter().position(is_it));
            json!({"pod": position, "ip": who.address})
        };
        let questions: Vec<Value> = self
            .questions
            .iter()
            .map(|question| {
                json!({
                    "source": end(&question.source),
                    "destination": end(&question.destination),
                    "port": question.port,
                    "protocol": question.transport.as_str(),
                })
            })
            .collect();
        let mut objects = serde_json::to_value(self).unwrap();
        objects["questions"] = questions.into();
        objects
    }

    /// What a person reads, and `nanoseg explain` too.
    pub(crate) fn to_yaml(&self) -> String {
        let Self {
            namespaces,
            nodes,
            pods,
            policies,
            cluster_policies,
            questions: _,
        } = self;
        let documents = [
            namespaces.iter().map(serde_yaml::to_string).collect::<Vec<_>>(),
            nodes.iter().map(serde_yaml::to_string).collect(),
            pods.iter().map(serde_yaml::to_string).collect(),
            policies.iter().map(serde_yaml::to_string).collect(),
            cluster_policies.iter().map(serde_yaml::to_string).collect(),
        ];
        let documents: Vec<String> = documents.into_iter().flatten().map(Result::unwrap).collect();
        documents.join("---\n")
    }
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            source,
            destination,
            port,
            transport,
        } = self;
        write!(f, "{source} -> {destination} {port}/{}", transport.as_str())
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pod, address, by_name } = self;
        match pod {
            Some(pod) if *by_name => write!(f, "pod {pod} by name ({address})"),
            Some(pod) => write!(f, "{address} (pod {pod})"),
            None => address.fmt(f),
        }
    }
}
