//! Where the engines are known to answer otherwise than the specification says.
//!
//! Each row is a rewriting: of the rewritten world and question, the specification gives the answer that the engine gives of the
//! world as it is. So a row explains a difference exactly, and hides no other one in the same world.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use nanoseg_policy::selector::Selector;
use nanoseg_tests::oracle::Engine;

use crate::world::{Question, Who, World};

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KnownFault {
    SamePod,
    OwnNode,
    HostNetworkIsAnAddress,
    HostNetworkIsAPod,
    EmptyListAllowsAll,
    NoSidecarPorts,
    NotInNeedsTheKey,
    EmptyValueMatchesAbsentKey,
    OneNameForAPort,
    NoBaselineForSelectedPods,
}

impl KnownFault {
    pub(crate) const ALL: [Self; 10] = [
        Self::SamePod,
        Self::OwnNode,
        Self::HostNetworkIsAnAddress,
        Self::HostNetworkIsAPod,
        Self::EmptyListAllowsAll,
        Self::NoSidecarPorts,
        // This one makes NotIn of matchLabels, of which the next one must not add its part: the later are applied first.
        Self::EmptyValueMatchesAbsentKey,
        Self::NotInNeedsTheKey,
        Self::OneNameForAPort,
        Self::NoBaselineForSelectedPods,
    ];

    /// Who has it.
    pub(crate) const fn engines(self) -> &'static [Engine] {
        match self {
            Self::SamePod | Self::OwnNode => &[Engine::KubeNetworkPolicies, Engine::Cyclonus],
            Self::HostNetworkIsAnAddress
            | Self::EmptyListAllowsAll
            | Self::NoSidecarPorts
            | Self::NoBaselineForSelectedPods => &[Engine::KubeNetworkPolicies],
            Self::HostNetworkIsAPod
            | Self::NotInNeedsTheKey
            | Self::EmptyValueMatchesAbsentKey
            | Self::OneNameForAPort => &[Engine::Cyclonus],
        }
    }

    /// What the engine does, and what settles that it is not what the specification says.
    pub(crate) const fn settled_by(self) -> (&'static str, &'static str) {
        match self {
            Self::SamePod => (
                "applies policies between a pod and itself",
                "concepts, Network Policies: a pod cannot block access to itself",
            ),
            Self::OwnNode => (
                "applies policies between a pod and its node",
                "concepts, Network Policies: traffic to and from the node where a Pod is running is always allowed; \
                 NetworkPolicySpec.ingress: traffic is allowed if its source is the pod's local node",
            ),
            Self::HostNetworkIsAnAddress => (
                "takes a pod on its node's network for an address like any other",
                "concepts, Network Policies, hostNetwork pods: behaviour is undefined, but limited to two possibilities; \
                 one is that such pods are ignored by podSelector and namespaceSelector and treated like node traffic",
            ),
            Self::HostNetworkIsAPod => (
                "takes a pod on its node's network for a pod like any other",
                "concepts, Network Policies, hostNetwork pods: the other possibility, that the plugin can tell them apart \
                 and applies policies as to any pod",
            ),
            Self::EmptyListAllowsAll => (
                "takes an empty list of rules (not an absent one) for a rule that allows everything",
                "NetworkPolicySpec.ingress, .egress: if this field is empty then this policy allows no traffic; the API \
                 server never serves an empty list, so the engine does not meet one in a cluster",
            ),
            Self::NoSidecarPorts => (
                "knows no port names of init containers that keep running",
                "NetworkPolicyPort.port: a named port on a pod; a restartable init container runs as long as the pod \
                 and its ports are the pod's (KEP-753, sidecar containers)",
            ),
            Self::NotInNeedsTheKey => (
                "takes NotIn for false when the key is absent",
                "concepts, Labels and Selectors: notin also selects resources without labels with that key; \
                 labels.Requirement.Matches of the API machinery",
            ),
            Self::EmptyValueMatchesAbsentKey => (
                "takes a required empty value for met when the key is absent",
                "LabelSelector.matchLabels: each pair is equivalent to matchExpressions with operator In and that one \
                 value; In needs the key to be there",
            ),
            Self::OneNameForAPort => (
                "is told one name for a port",
                "NetworkPolicyPort.port: a named port on a pod; containers may give one number several names, and each \
                 is a name of the port",
            ),
            Self::NoBaselineForSelectedPods => (
                "does not ask the Baseline tier about a pod that some NetworkPolicy selects, even if for the other direction",
                "NetworkPolicySpec.policyTypes: a policy relates to the listed types only; so it selects no pod for the other \
                 direction, and ClusterNetworkPolicySpec.tier goes on to Baseline for pods that no NetworkPolicy selects",
            ),
        }
    }

    /// Whether only policies of the cluster show it.
    pub(crate) const fn is_of_cluster_policies(self) -> bool {
        matches!(self, Self::NoBaselineForSelectedPods)
    }

    /// Whether the rewriting of the world depends on the question.
    pub(crate) const fn is_about_the_question(self) -> bool {
        matches!(
            self,
            Self::SamePod | Self::HostNetworkIsAPod | Self::NoBaselineForSelectedPods
        )
    }

    /// Whether it can matter to a question at all.
    pub(crate) fn applies(self, world: &World, question: &Question) -> bool {
        let ends = [&question.source, &question.destination];
        match self {
            Self::SamePod => ends[0].pod.is_some() && ends[0].pod == ends[1].pod,
            Self::OwnNode => ends.iter().any(|who| world.is_on_node_network(who)),
            Self::HostNetworkIsAnAddress | Self::HostNetworkIsAPod => ends
                .iter()
                .any(|who| who.pod.is_some() && world.is_on_node_network(who)),
            Self::NoBaselineForSelectedPods => ends.iter().any(|who| is_selected(world, who)),
            Self::EmptyListAllowsAll
            | Self::NoSidecarPorts
            | Self::NotInNeedsTheKey
            | Self::EmptyValueMatchesAbsentKey
            | Self::OneNameForAPort => true,
        }
    }

    /// The world in which the engine's answer is right.
    pub(crate) fn rewrite(self, world: &mut World, question: &mut Question) {
        match self {
            Self::SamePod => twin(world, question),
            Self::OwnNode => {
                for pod in &mut world.pods {
                    pod.spec.as_mut().unwrap().node_name = None;
                }
            }
            Self::HostNetworkIsAnAddress => world
                .pods
                .retain(|pod| pod.spec.as_ref().unwrap().host_network != Some(true)),
            Self::HostNetworkIsAPod => {
                let mut asked = [&mut question.source, &mut question.destination];
                // Several may have the same address, so only those that are asked about are made pods.
                world.pods.retain(|pod| {
                    let is_host = pod.spec.as_ref().unwrap().host_network == Some(true);
                    !is_host || asked.iter().any(|who| who.pod == pod.metadata.name)
                });
                for pod in &mut world.pods {
                    if pod.spec.as_mut().unwrap().host_network.take() == Some(true) {
                        for who in &mut asked {
                            who.by_name |= who.pod == pod.metadata.name;
                        }
                    }
                }
            }
            Self::EmptyListAllowsAll => {
                for spec in world.policies.iter_mut().filter_map(|policy| policy.spec.as_mut()) {
                    let types = spec.policy_types.as_deref().unwrap_or_default();
                    let has = |wanted: &str| types.iter().any(|given| given == wanted);
                    let (ingress, egress) = (types.is_empty() || has("Ingress"), has("Egress"));
                    if ingress && spec.ingress.as_ref().is_some_and(Vec::is_empty) {
                        spec.ingress = Some(vec![NetworkPolicyIngressRule::default()]);
                    }
                    if egress && spec.egress.as_ref().is_some_and(Vec::is_empty) {
                        spec.egress = Some(vec![NetworkPolicyEgressRule::default()]);
                    }
                }
            }
            Self::NoSidecarPorts => {
                for pod in &mut world.pods {
                    pod.spec.as_mut().unwrap().init_containers = None;
                }
            }
            Self::NotInNeedsTheKey => each_selector(world, |selector| {
                let expressions = selector.match_expressions.iter_mut().flatten();
                let keys: Vec<String> = expressions
                    .filter(|expression| expression.operator == "NotIn")
                    .map(|expression| expression.key.clone())
                    .collect();
                let exists = keys.into_iter().map(|key| LabelSelectorRequirement {
                    key,
                    operator: "Exists".to_owned(),
                    values: None,
                });
                selector.match_expressions.get_or_insert_default().extend(exists);
            }),
            Self::EmptyValueMatchesAbsentKey => {
                let others = values(world);
                each_selector(world, |selector| {
                    let empty: Vec<String> = selector
                        .match_labels
                        .iter()
                        .flatten()
                        .filter(|(_, value)| value.is_empty())
                        .map(|(key, _)| key.clone())
                        .collect();
                    for key in empty {
                        selector.match_labels.get_or_insert_default().remove(&key);
                        // Absent or empty: none of all the others.
                        selector
                            .match_expressions
                            .get_or_insert_default()
                            .push(LabelSelectorRequirement {
                                key,
                                operator: "NotIn".to_owned(),
                                values: Some(others.iter().cloned().collect()),
                            });
                    }
                });
            }
            Self::NoBaselineForSelectedPods => {
                let selected = [&question.source, &question.destination].map(|who| is_selected(world, who));
                for policy in &mut world.cluster_policies {
                    if policy.spec.tier == "Baseline" && selected[0] {
                        policy.spec.egress.clear();
                    }
                    if policy.spec.tier == "Baseline" && selected[1] {
                        policy.spec.ingress.clear();
                    }
                }
            }
            Self::OneNameForAPort => world.pods.iter_mut().for_each(one_name_for_a_port),
        }
    }
}

/// Takes every name but the first from each number.
fn one_name_for_a_port(pod: &mut Pod) {
    let spec = pod.spec.as_mut().unwrap();
    let sidecars = spec
        .init_containers
        .iter_mut()
        .flatten()
        .filter(|container| keeps_running(container));
    let mut seen = BTreeSet::new();
    for container in spec.containers.iter_mut().chain(sidecars) {
        for port in container.ports.iter_mut().flatten().filter(|port| port.name.is_some()) {
            if !seen.insert((port.container_port, port.protocol.clone())) {
                port.name = None;
            }
        }
    }
}

/// Whether any policy of its namespace selects it, for whatever direction.
fn is_selected(world: &World, who: &Who) -> bool {
    let Some(pod) = who.pod.as_ref().and_then(|name| world.pod(name)) else {
        return false;
    };
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let same_namespace = |policy: &&NetworkPolicy| policy.metadata.namespace == pod.metadata.namespace;
    world.policies.iter().filter(same_namespace).any(|policy| {
        let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
        selector.is_none_or(|selector| Selector::parse(Some(selector)).unwrap().matches(&labels))
    })
}

fn keeps_running(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Lets another pod that is like it in everything call the pod, which then has this question's family alone.
fn twin(world: &mut World, question: &mut Question) {
    let name = question.source.pod.clone();
    if name.is_none() || name != question.destination.pod {
        return;
    }
    let position = world.pods.iter().position(|pod| pod.metadata.name == name);
    let Some(position) = position else { return };
    let status = world.pods[position].status.as_mut().unwrap();
    let address = question.source.address.to_string();
    status.pod_ip = Some(address.clone());
    status
        .pod_ips
        .iter_mut()
        .flatten()
        .for_each(|ip| ip.ip.clone_from(&address));
    let mut twin = world.pods[position].clone();
    twin.metadata.name = Some("twin".to_owned());
    question.source.pod.clone_from(&twin.metadata.name);
    world.pods.push(twin);
    for who in [&mut question.source, &mut question.destination] {
        who.by_name = true;
    }
}

fn each_selector(world: &mut World, mut visit: impl FnMut(&mut LabelSelector)) {
    for spec in world.policies.iter_mut().filter_map(|policy| policy.spec.as_mut()) {
        spec.pod_selector.iter_mut().for_each(&mut visit);
        let from = spec.ingress.iter_mut().flatten().filter_map(|rule| rule.from.as_mut());
        let to = spec.egress.iter_mut().flatten().filter_map(|rule| rule.to.as_mut());
        for peer in from.chain(to).flatten() {
            peer.pod_selector.iter_mut().for_each(&mut visit);
            peer.namespace_selector.iter_mut().for_each(&mut visit);
        }
    }
}

/// Every label value of the world but the empty one.
fn values(world: &World) -> BTreeSet<String> {
    let pods = world.pods.iter().map(|pod| &pod.metadata);
    let namespaces = world.namespaces.iter().map(|namespace| &namespace.metadata);
    let values = pods
        .chain(namespaces)
        .flat_map(|metadata| metadata.labels.iter().flatten());
    // A selector needs at least one value; one that nothing has changes nothing.
    let mut values: BTreeSet<String> = values.map(|(_, value)| value.clone()).collect();
    values.insert("of-nothing".to_owned());
    values.remove("");
    values
}
