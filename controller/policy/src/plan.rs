//! Desired against live policies, as an immutable list of steps.
//!
//! Laws:
//! * only policies that the evaluator has accepted are desired: a plan with any other cannot be written down;
//! * applying a plan and planning again gives the empty plan;
//! * objects that are not ours are never in it; one that has a name that we need is a conflict, and is left alone;
//! * what allows comes before what stops allowing: creations and updates, then deletions.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::ownership::{self, EVIDENCE, MANAGED_BY, PolicyName, WORKLOAD_KIND, WORKLOAD_NAME};
use crate::verify::Accepted;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<'a> {
    /// Apply a policy that does not exist.
    Create(&'a NetworkPolicy),
    /// Apply a policy over a live one that differs.
    Update(&'a NetworkPolicy),
    /// Delete a policy of ours that is not wanted any more.
    Delete(&'a PolicyName),
}

/// What has to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    create: Vec<NetworkPolicy>,
    update: Vec<NetworkPolicy>,
    delete: Vec<PolicyName>,
    unchanged: Vec<PolicyName>,
    foreign: Vec<PolicyName>,
    conflicts: Vec<PolicyName>,
}

impl Plan {
    /// Compares what is wanted with what there is. `live` is every policy of the namespaces concerned, ours or not: a policy of
    /// ours in it that is not desired is deleted.
    pub fn new(desired: &[Accepted], live: &[NetworkPolicy]) -> Self {
        let live: BTreeMap<PolicyName, &NetworkPolicy> =
            live.iter().map(|policy| (PolicyName::of(policy), policy)).collect();
        let desired: BTreeMap<PolicyName, &NetworkPolicy> = desired
            .iter()
            .map(|accepted| (PolicyName::of(accepted.policy()), accepted.policy()))
            .collect();
        let mut plan = Self::default();
        for (name, policy) in &desired {
            match live.get(name) {
                None => plan.create.push((*policy).clone()),
                Some(found) if ownership::owned_workload(found).is_none() => plan.conflicts.push(name.clone()),
                Some(found) if Essence::of(found) == Essence::of(policy) => plan.unchanged.push(name.clone()),
                Some(_) => plan.update.push((*policy).clone()),
            }
        }
        for (name, policy) in live {
            if ownership::owned_workload(policy).is_none() {
                plan.foreign.push(name);
            } else if !desired.contains_key(&name) {
                plan.delete.push(name);
            }
        }
        plan
    }

    /// Everything to do, in the order in which it must be done.
    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let create = self.create.iter().map(Step::Create);
        let update = self.update.iter().map(Step::Update);
        create.chain(update).chain(self.delete.iter().map(Step::Delete))
    }

    /// Whether there is nothing to do. Conflicts are nothing that a plan could do.
    pub const fn is_empty(&self) -> bool {
        self.create.is_empty() && self.update.is_empty() && self.delete.is_empty()
    }

    /// Policies that do not exist yet.
    pub fn create(&self) -> &[NetworkPolicy] {
        &self.create
    }

    /// Policies that differ from the live ones of the same names, as they are to be.
    pub fn update(&self) -> &[NetworkPolicy] {
        &self.update
    }

    /// Policies of ours that are not wanted any more.
    pub fn delete(&self) -> &[PolicyName] {
        &self.delete
    }

    /// Policies of ours that are as they should be.
    pub fn unchanged(&self) -> &[PolicyName] {
        &self.unchanged
    }

    /// Policies that are not ours.
    pub fn foreign(&self) -> &[PolicyName] {
        &self.foreign
    }

    /// Names that we need and somebody else's policies have: those are left alone, and ours are not applied.
    pub fn conflicts(&self) -> &[PolicyName] {
        &self.conflicts
    }
}

/// Whether two policies mean the same and say the same of themselves: specs after the API server's defaulting, in any order of
/// rules, peers and ports; of the metadata, our own label and annotations.
pub fn same(left: &NetworkPolicy, right: &NetworkPolicy) -> bool {
    Essence::of(left) == Essence::of(right)
}

/// What matters of a policy.
#[derive(Debug, PartialEq)]
struct Essence<'a> {
    about: [Option<&'a String>; 4],
    subject: SelectorEssence,
    ingress: Option<BTreeSet<RuleEssence>>,
    egress: Option<BTreeSet<RuleEssence>>,
}

type SelectorEssence = (BTreeSet<(String, String)>, BTreeSet<(String, String, BTreeSet<String>)>);
type BlockEssence = (String, BTreeSet<String>);
type PeerEssence = (Option<SelectorEssence>, Option<SelectorEssence>, Option<BlockEssence>);
type PortEssence = (String, Option<String>, Option<i32>);
type RuleEssence = (BTreeSet<PeerEssence>, BTreeSet<PortEssence>);

impl<'a> Essence<'a> {
    fn of(policy: &'a NetworkPolicy) -> Self {
        let labels = policy.metadata.labels.as_ref();
        let annotation = |key| {
            policy
                .metadata
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(key))
        };
        let about = [
            labels.and_then(|labels| labels.get(MANAGED_BY)),
            annotation(WORKLOAD_KIND),
            annotation(WORKLOAD_NAME),
            annotation(EVIDENCE),
        ];
        let absent = NetworkPolicySpec::default();
        let NetworkPolicySpec {
            egress,
            ingress,
            pod_selector,
            policy_types,
        } = policy.spec.as_ref().unwrap_or(&absent);
        let given = policy_types.as_deref().filter(|types| !types.is_empty());
        // What the API server fills in when no types are given.
        let isolates = |direction: &str, by_default: bool| match given {
            Some(types) => types.iter().any(|given| given == direction),
            None => by_default,
        };
        let egress_given = egress.as_ref().is_some_and(|rules| !rules.is_empty());
        Self {
            about,
            subject: selector(pod_selector.as_ref().unwrap_or(&LabelSelector::default())),
            ingress: isolates("Ingress", true).then(|| {
                ingress
                    .iter()
                    .flatten()
                    .map(|rule| rule_essence(rule.from.as_ref(), rule.ports.as_ref()))
                    .collect()
            }),
            egress: isolates("Egress", egress_given).then(|| {
                egress
                    .iter()
                    .flatten()
                    .map(|rule| rule_essence(rule.to.as_ref(), rule.ports.as_ref()))
                    .collect()
            }),
        }
    }
}

fn rule_essence(peers: Option<&Vec<NetworkPolicyPeer>>, ports: Option<&Vec<NetworkPolicyPort>>) -> RuleEssence {
    let peer = |NetworkPolicyPeer {
                    ip_block,
                    namespace_selector,
                    pod_selector,
                }: &NetworkPolicyPeer| {
        let block = ip_block
            .as_ref()
            .map(|block| (block.cidr.clone(), block.except.iter().flatten().cloned().collect()));
        (
            namespace_selector.as_ref().map(selector),
            pod_selector.as_ref().map(selector),
            block,
        )
    };
    let port = |NetworkPolicyPort {
                    end_port,
                    port,
                    protocol,
                }: &NetworkPolicyPort| {
        let number = port.as_ref().map(|port| match port {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(name) => name.clone(),
        });
        (protocol.clone().unwrap_or_else(|| "TCP".to_owned()), number, *end_port)
    };
    (
        peers.into_iter().flatten().map(peer).collect(),
        ports.into_iter().flatten().map(port).collect(),
    )
}

fn selector(
    LabelSelector {
        match_expressions,
        match_labels,
    }: &LabelSelector,
) -> SelectorEssence {
    let labels = match_labels
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let expressions = match_expressions.iter().flatten().map(|expression| {
        let values = expression.values.iter().flatten().cloned().collect();
        (expression.key.clone(), expression.operator.clone(), values)
    });
    (labels, expressions.collect())
}
