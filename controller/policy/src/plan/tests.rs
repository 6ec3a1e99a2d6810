use k8s_openapi::api::networking::v1::NetworkPolicyIngressRule;
use proptest::prelude::*;

use super::*;
use crate::fixture::{policies, workload};

fn ours(index: usize, rules: Vec<NetworkPolicyIngressRule>) -> NetworkPolicy {
    let workload = workload("Deployment", "shop", &format!("w{index}"));
    let spec = NetworkPolicySpec {
        pod_selector: Some(LabelSelector::default()),
        policy_types: Some(vec!["Ingress".to_owned()]),
        ingress: (!rules.is_empty()).then_some(rules),
        egress: None,
    };
    NetworkPolicy {
        metadata: ownership::metadata(&workload),
        spec: Some(spec),
    }
}

fn rule(port: i32) -> NetworkPolicyIngressRule {
    let port = NetworkPolicyPort {
        end_port: None,
        port: Some(IntOrString::Int(port)),
        protocol: Some("TCP".to_owned()),
    };
    NetworkPolicyIngressRule {
        from: None,
        ports: Some(vec![port]),
    }
}

fn foreign(policy: &NetworkPolicy) -> NetworkPolicy {
    let mut foreign = policy.clone();
    foreign.metadata.labels = None;
    foreign
}

/// What an API server holds after the steps.
fn apply(plan: &Plan, live: &[NetworkPolicy]) -> Vec<NetworkPolicy> {
    let mut held: BTreeMap<PolicyName, NetworkPolicy> = live
        .iter()
        .map(|policy| (PolicyName::of(policy), policy.clone()))
        .collect();
    for step in plan.steps() {
        match step {
            Step::Create(policy) => {
                assert!(
                    held.insert(PolicyName::of(policy), policy.clone()).is_none(),
                    "created over something"
                );
            }
            Step::Update(policy) => {
                assert!(
                    held.insert(PolicyName::of(policy), policy.clone()).is_some(),
                    "updated nothing"
                );
            }
            Step::Delete(name) => {
                assert!(held.remove(name).is_some(), "deleted nothing");
            }
        }
    }
    held.into_values().collect()
}

fn accepted(policies: &[NetworkPolicy]) -> Vec<Accepted> {
    policies.iter().cloned().map(Accepted::unchecked).collect()
}

#[test]
fn p37_allows_come_before_deletions() {
    let live = [ours(0, vec![rule(1)]), ours(1, vec![rule(1)])];
    let desired = [ours(1, vec![rule(2)]), ours(2, vec![])];
    let plan = Plan::new(&accepted(&desired), &live);
    let order: Vec<_> = plan
        .steps()
        .map(|step| match step {
            Step::Create(_) => 'c',
            Step::Update(_) => 'u',
            Step::Delete(_) => 'd',
        })
        .collect();
    assert_eq!(order, ['c', 'u', 'd']);
}

#[test]
fn p39_foreign_objects_are_never_touched() {
    let theirs = foreign(&ours(0, vec![rule(1)]));
    let plan = Plan::new(&accepted(&[ours(0, vec![rule(2)])]), std::slice::from_ref(&theirs));
    assert!(plan.is_empty());
    assert_eq!(plan.conflicts(), [PolicyName::of(&theirs)]);
    assert_eq!(plan.foreign(), [PolicyName::of(&theirs)]);
}

#[test]
fn what_the_api_server_fills_in_is_not_drift() {
    let [written, filled]: [NetworkPolicy; 2] = policies(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: p}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - {from: [{podSelector: {matchLabels: {app: a}}}, {podSelector: {}}], ports: [{port: 80}, {port: 81}]}
  - {}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  namespace: shop
  name: p
  uid: x
  resourceVersion: '7'
  labels: {added: by-somebody}
spec:
  podSelector: {matchLabels: {app: web}, matchExpressions: []}
  policyTypes: [Ingress]
  egress: []
  ingress:
  - {from: [], ports: []}
  - {ports: [{port: 81, protocol: TCP}, {port: 80, protocol: TCP}], from: [{podSelector: {}}, {podSelector: {matchLabels: {app: a}}}]}
",
    )
    .try_into()
    .unwrap();
    assert!(same(&written, &filled));
    for changed in [
        |policy: &mut NetworkPolicySpec| policy.policy_types = Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
        |policy: &mut NetworkPolicySpec| {
            policy.ingress.as_mut().unwrap()[1].ports.as_mut().unwrap()[0].end_port = Some(90);
        },
        |policy: &mut NetworkPolicySpec| policy.pod_selector = None,
        |policy: &mut NetworkPolicySpec| {
            policy.ingress.as_mut().unwrap().pop();
        },
    ] {
        let mut edited = filled.clone();
        changed(edited.spec.as_mut().unwrap());
        assert!(!same(&written, &edited));
    }
    let mut evidence = filled.clone();
    evidence
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(EVIDENCE.to_owned(), "edited".to_owned());
    assert!(!same(&written, &evidence));
}

/// For each name: not there, ours with one of two rules, or foreign.
fn world() -> impl Strategy<Value = Vec<NetworkPolicy>> {
    prop::collection::vec(0..4_usize, 5).prop_map(|states| {
        let policy = |(index, state): (usize, usize)| match state {
            0 => None,
            3 => Some(foreign(&ours(index, vec![rule(1)]))),
            rules => Some(ours(index, vec![rule(80); rules - 1])),
        };
        states.into_iter().enumerate().filter_map(policy).collect()
    })
}

proptest! {
    #[test]
    fn a_plan_applied_leaves_nothing_to_do(wanted in world(), live in world()) {
        let desired: Vec<_> = wanted.into_iter().filter(|policy| ownership::owned_workload(policy).is_some()).collect();
        let plan = Plan::new(&accepted(&desired), &live);
        let after = apply(&plan, &live);
        prop_assert!(Plan::new(&accepted(&desired), &after).is_empty());
        for policy in live.iter().filter(|policy| ownership::owned_workload(policy).is_none()) {
            prop_assert!(after.contains(policy), "a foreign policy is as it was");
        }
        for policy in after.iter().filter(|policy| ownership::owned_workload(policy).is_some()) {
            prop_assert!(desired.iter().any(|wanted| same(wanted, policy)));
        }
    }
}
