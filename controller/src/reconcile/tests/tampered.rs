//! A proposal that was tampered with goes the way of every other, and ends before anything is written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::*;

/// What is written, and what is said, when the policy of db is to be made anew from a proposal that was changed.
fn made_anew(change: impl Fn(&mut NetworkPolicySpec)) -> (bool, String) {
    let (mut world, mut core) = enforced();
    let live = world.policy("db").cloned().unwrap();
    world.policies.remove(&PolicyName::of(&live));
    core.take(Event::PolicyGone(PolicyName::of(&live)), at(11));
    let subject = core.subjects.values_mut().find(|subject| {
        let proposal = subject.proposal.as_ref().and_then(|proposal| proposal.as_ref().ok());
        proposal.is_some_and(|proposal| proposal.workload.name == "db")
    });
    let Some(Ok(proposal)) = subject.and_then(|subject| subject.proposal.as_mut()) else {
        unreachable!()
    };
    change(Arc::make_mut(&mut proposal.policy).spec.as_mut().unwrap());
    core.verify(&crate::reconcile::stale::About::All);
    let writes = core.round(at(11)).writes;
    let is_db = |step: &PolicyStep| PolicyName::of(&step.desired) == PolicyName::of(&live);
    let put = writes.put.iter().any(is_db);
    world.apply(writes, usize::MAX);
    (put, world.status("db").reason.clone())
}

type Change = fn(&mut NetworkPolicySpec);

fn no_rules(spec: &mut NetworkPolicySpec) {
    spec.ingress = None;
}

fn another_port(spec: &mut NetworkPolicySpec) {
    for rule in spec.ingress.iter_mut().flatten() {
        for port in rule.ports.iter_mut().flatten() {
            port.port = Some(IntOrString::Int(5433));
        }
    }
}

fn everybody(spec: &mut NetworkPolicySpec) {
    spec.pod_selector = Some(LabelSelector::default());
}

#[test]
fn p40_a_proposal_that_was_tampered_with_is_not_written_and_it_is_said_why() {
    let (put, reason) = made_anew(|_| {});
    assert!(put, "as it is, it is made: {reason}");
    let changes: [(Change, &str); 3] = [
        (no_rules, "denied"),
        (another_port, "denied"),
        (everybody, "also selects pods of"),
    ];
    for (change, word) in changes {
        let (put, reason) = made_anew(change);
        assert!(!put && reason.contains(word), "{reason}");
    }
}
