mod captures;
mod drift;
mod durable;
mod identity;
mod parts;
mod pods;
mod promotion;
mod rollback;
mod tampered;
mod world;

use std::sync::Arc;

use k8s_openapi::api::networking::v1::NetworkPolicySpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nanoseg_graph::cluster::{Controller, Namespace, Object, ObjectKey, OwnerRef, Pod, PodPhase};
use nanoseg_graph::container::ContainerRef;
use nanoseg_graph::flow::{Flow, FlowKey, Origin, Report, Reporter, Subject as FlowSubject, Tally, Transport};
use proptest::prelude::*;

use self::world::*;
use super::*;
use crate::enforcement::{Enforcement, OfFamily, Proof, Translation};
use crate::lifecycle::Scope;
use crate::segment::{Mode, Phase, Promotion, SegmentStatus, Suspicion};

#[test]
fn a_cluster_that_was_shown_not_to_enforce_is_never_called_enforcing() {
    let (mut world, mut core) = enforced();
    let before = world.policy("db").cloned();
    let found = |ingress: Proof| {
        let of_family = |ingress| OfFamily {
            ingress,
            egress: Proof::Shown,
            end_port: Proof::Shown,
            services: Translation::After,
        };
        let found = Enforcement {
            at: at(20),
            ipv4: of_family(Proof::Shown),
            ipv6: of_family(ingress),
        };
        Event::Enforcement(Some(Box::new(found)))
    };
    core.take(found(Proof::Refuted), at(20));
    world.settle(&mut core, at(20));
    let status = world.status("db");
    assert_eq!(status.phase, Phase::Degraded);
    assert!(status.reason.contains("ingress by IPv6"), "{}", status.reason);
    assert_eq!(status.conditions[0].reason, "NotEnforced");
    assert_eq!(
        world.policy("db").cloned(),
        before,
        "the policy stays, for the day when it is enforced"
    );
    for better in [
        Event::Enforcement(None),
        found(Proof::Unknown("nobody called".to_owned())),
    ] {
        core.take(found(Proof::Refuted), at(21));
        core.take(better, at(21));
        world.settle(&mut core, at(21));
        assert_eq!(world.status("db").phase, Phase::Enforcing);
    }
}

#[test]
fn nothing_is_written_before_everything_was_read() {
    let world = World::default();
    let mut core = world.core(&shop(), at(0));
    core.awaited.insert(Source::Out);
    core.take(report(&[("db", WEB, 5432)]), at(0));
    assert!(core.round(at(100)).writes.is_empty());
    core.take(Event::Synced(Source::Out), at(100));
    assert!(!core.round(at(100)).writes.is_empty());
}

#[test]
fn the_steady_state_writes_nothing() {
    let (_, mut core) = enforced();
    core.take(report(&[("db", WEB, 5432)]), at(20));
    assert!(core.round(at(20)).writes.is_empty());
    core.take(Event::Object(pod("web", WEB)), at(21));
    assert!(core.round(at(21)).writes.is_empty());
}

#[test]
fn when_an_edge_was_last_seen_is_written_once_a_day() {
    const DAY: i64 = 24 * 60 * 60;
    let (mut world, mut core) = enforced();
    let told = |world: &World| {
        let edge = world.status("db").baseline[0].clone();
        (edge.first_seen.unwrap().0, edge.last_seen.unwrap().0, edge.count)
    };
    assert_eq!(told(&world), (at(-10), at(-1), 1));
    let mut writes = 0;
    for hour in 1..=72 {
        let now = at(hour * DAY / 24);
        let count = hour.unsigned_abs() * 100;
        let Event::Report(mut report) = counted(&[("db", WEB, 5432)], count, count) else {
            unreachable!()
        };
        report.flows[0].tally.last_seen = now;
        core.take(Event::Report(report), now);
        let round = core.round(now);
        writes += round.writes.segments.len();
        for event in world.apply(round.writes, usize::MAX) {
            core.take(event, now);
        }
    }
    // Both ends' Segments: with what the trial has shown after an hour, and a day later each.
    assert_eq!(writes, 2 * 3);
    assert_eq!(told(&world), (at(-10), at(2 * DAY + DAY / 24), 4900));
    // The next controller goes on from there.
    let mut next = world.core(&shop(), at(3 * DAY + 1));
    core.take(report(&[("db", WEB, 5432)]), at(3 * DAY + 1));
    assert!(next.round(at(3 * DAY + 1)).writes.segments.is_empty());
}

#[test]
fn what_is_enforced_was_written_to_its_segment_first() {
    let (_, mut core) = learning();
    let round = core.round(at(10));
    assert!(round.writes.put.is_empty());
    let frozen = |write: &SegmentWrite| {
        write
            .segment
            .status
            .as_ref()
            .is_some_and(|status| status.frozen_at.is_some())
    };
    assert!(round.writes.segments.iter().all(frozen));
    assert!(
        core.round(at(11)).writes.put.is_empty(),
        "the Segments were not read back"
    );
}

#[test]
fn a_novel_edge_is_told_once_with_the_policy_that_decides() {
    let (mut world, mut core) = enforced();
    let before = world.policy("db").cloned();
    core.take(report(&[("db", INTRUDER, 5432)]), at(20));
    world.settle(&mut core, at(20));
    let [violation] = &world.violations[..] else {
        unreachable!("{:?}", world.violations)
    };
    assert!(violation.verdict.starts_with("denied: "), "{}", violation.verdict);
    assert!(
        violation.verdict.contains("shop/nanoseg-deployment-db"),
        "{}",
        violation.verdict
    );
    assert!(violation.enforced);
    let line = serde_json::to_value(violation).unwrap();
    assert_eq!(
        (&line["workload"], &line["port"]),
        (&"Deployment shop/db".into(), &5432.into())
    );
    assert_eq!(world.policy("db").cloned(), before);
    core.take(report(&[("db", INTRUDER, 5432)]), at(30));
    world.settle(&mut core, at(30));
    assert_eq!(world.violations.len(), 1);
    assert_eq!(world.status("db").novel, 1);
    // It belongs to the intruder, too, whose own window is open.
    assert_eq!(world.status("intruder").edges, 1);
}

#[test]
fn drift_is_repaired_and_foreign_policies_are_left_alone() {
    let (mut world, mut core) = enforced();
    let ours = world.policy("db").cloned().unwrap();
    let mut edited = ours.clone();
    edited.spec.as_mut().unwrap().ingress = None;
    let mut unlabelled = ours.clone();
    unlabelled.metadata.labels = None;
    for drifted in [edited, unlabelled] {
        core.take(Event::Policy(Box::new(drifted)), at(20));
        let writes = core.round(at(20)).writes;
        assert_eq!(
            (writes.put.len(), writes.segments.len()),
            (1, 0),
            "no Segment changes for a repair"
        );
        assert_eq!(writes.put[0].why, Why::Edited);
        assert_eq!(writes.put[0].desired, ours);
        for event in world.apply(writes, usize::MAX) {
            core.take(event, at(20));
        }
    }
    core.take(Event::PolicyGone(PolicyName::of(&ours)), at(21));
    assert_eq!(core.round(at(21)).writes.put[0].why, Why::Deleted);
}

#[test]
fn p39_a_foreign_policy_of_our_name_is_a_conflict() {
    let mut world = World::default();
    let mut core = world.core(&shop(), at(0));
    let mut foreign = NetworkPolicy::default();
    foreign.metadata.namespace = Some("shop".to_owned());
    foreign.metadata.name = Some("nanoseg-deployment-db".to_owned());
    foreign.spec = Some(NetworkPolicySpec {
        policy_types: Some(vec!["Egress".to_owned()]),
        ..NetworkPolicySpec::default()
    });
    core.take(Event::Policy(Box::new(foreign)), at(0));
    core.take(report(&[("db", WEB, 5432)]), at(0));
    world.settle(&mut core, at(0));
    world.settle(&mut core, at(10));
    assert_eq!(world.status("db").phase, Phase::Degraded);
    assert!(
        world.status("db").reason.contains("somebody else's"),
        "{}",
        world.status("db").reason
    );
    assert!(world.policy("db").is_none());
}

#[test]
fn a_policy_goes_with_its_workload_and_comes_back_with_it() {
    let (mut world, mut core) = enforced();
    let before = world.policy("db").cloned();
    core.take(Event::ObjectGone(deployment("db").key()), at(20));
    world.settle(&mut core, at(20));
    assert!(world.policy("db").is_some(), "a pod is still there");
    core.take(
        Event::ObjectGone(ObjectKey::Pod("shop".to_owned(), "db-0".to_owned())),
        at(21),
    );
    world.settle(&mut core, at(21));
    assert!(world.policy("db").is_none());
    assert_eq!(world.status("db").phase, Phase::Gone);
    core.take(Event::Object(deployment("db")), at(22));
    core.take(Event::Object(pod("db", DB)), at(22));
    world.settle(&mut core, at(22));
    assert_eq!(world.policy("db").cloned(), before);

    core.take(Event::ObjectGone(deployment("db").key()), at(30));
    core.take(
        Event::ObjectGone(ObjectKey::Pod("shop".to_owned(), "db-0".to_owned())),
        at(30),
    );
    world.settle(&mut core, at(30));
    world.settle(&mut core, at(31 + 24 * 3600));
    assert!(
        !world.segments.keys().any(|name| name.name == "deployment-db"),
        "forgotten after a day"
    );
}

#[test]
fn mode_off_removes_and_mode_learn_leaves() {
    let (mut world, mut core) = enforced();
    let mut segment = world.segment("db").clone();
    segment.spec.mode = Some(Mode::Learn);
    core.take(Event::Segment(Box::new(segment.clone())), at(20));
    core.take(report(&[("db", INTRUDER, 5432)]), at(20));
    let before = world.policy("db").cloned();
    world.settle(&mut core, at(20));
    world.settle(&mut core, at(30));
    assert_eq!(world.status("db").phase, Phase::Learning);
    assert_eq!(world.status("db").edges, 2);
    assert_eq!(world.policy("db").cloned(), before);
    segment.spec.mode = Some(Mode::Off);
    core.take(Event::Segment(Box::new(segment)), at(40));
    world.settle(&mut core, at(40));
    assert_eq!((world.status("db").phase, world.status("db").edges), (Phase::Off, 0));
    assert!(world.policy("db").is_none());
}

#[test]
fn a_segment_that_cannot_be_read_stops_its_workload_and_no_other() {
    let (world, _) = enforced();
    let mut without = world.clone();
    let name = world.segment("db").segment_name();
    without.segments.remove(&name);
    let mut core = without.core(&shop(), at(100));
    let reason = "not a Segment".to_owned();
    core.take(Event::SegmentUnreadable { name, reason }, at(100));
    core.take(report(&[("db", WEB, 5432)]), at(100));
    without.settle(&mut core, at(200));
    assert_eq!(without.policy("db"), world.policy("db"));
    assert!(!without.segments.keys().any(|name| name.name == "deployment-db"));
}

#[test]
fn a_write_that_fails_is_tried_again_later_and_told() {
    let (mut world, mut core) = learning();
    let round = core.round(at(10));
    for event in world.apply(round.writes, usize::MAX) {
        core.take(event, at(10));
    }
    let id = ObjectId::Policy(PolicyName {
        namespace: "shop".to_owned(),
        name: "nanoseg-deployment-db".to_owned(),
    });
    assert!(
        core.round(at(10))
            .writes
            .put
            .iter()
            .any(|step| ObjectId::Policy(PolicyName::of(&step.desired)) == id)
    );
    let reason = "a webhook said no".to_owned();
    core.take(
        Event::Failed {
            id,
            reason,
            refused: false,
        },
        at(10),
    );
    let round = core.round(at(10));
    assert!(
        round
            .writes
            .put
            .iter()
            .all(|step| step.desired.metadata.name.as_deref() != Some("nanoseg-deployment-db"))
    );
    assert_eq!(round.next, Some(at(11)));
    for event in world.apply(round.writes, usize::MAX) {
        core.take(event, at(10));
    }
    assert_eq!(world.status("db").reason, "a webhook said no");
    world.settle(&mut core, at(11));
    assert_eq!(world.status("db").phase, Phase::Enforcing);
}

#[test]
fn p39_a_policy_of_the_cluster_that_cuts_a_baseline_edge_holds_its_proposal_back() {
    let deny = ClusterNetworkPolicy {
        metadata: ObjectMeta {
            name: Some("quarantine".to_owned()),
            ..ObjectMeta::default()
        },
        spec: serde_json::from_value(serde_json::json!({
            "tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
        }))
        .unwrap(),
        ..ClusterNetworkPolicy::default()
    };
    let mut world = World::default();
    let mut core = world.core(&shop(), at(0));
    let name = deny.name();
    core.take(Event::ClusterPolicy(Box::new(deny)), at(0));
    core.take(report(&[("db", WEB, 5432)]), at(0));
    world.settle(&mut core, at(0));
    world.settle(&mut core, at(20));
    assert!(world.policy("db").is_none());
    let status = world.status("db");
    assert_eq!(status.phase, Phase::Degraded);
    assert!(
        status
            .reason
            .contains("denied by ClusterNetworkPolicy quarantine spec.ingress[0]"),
        "{}",
        status.reason
    );

    core.take(Event::ClusterPolicyGone(name), at(21));
    world.settle(&mut core, at(21));
    assert!(world.policy("db").is_some());
}

proptest! {
    /// However often the controller dies, and after whichever write: no policy is ever live that the evaluator would not have
    /// accepted, none is lost while its workload exists, and the end is the same.
    #[test]
    fn a_crash_after_any_write_loses_nothing(crashes in proptest::collection::vec((0_usize..4, any::<bool>()), 0..8)) {
        let (undisturbed, _) = enforced();
        let mut world = World::default();
        let mut core = world.core(&shop(), at(0));
        core.take(report(&[("db", WEB, 5432)]), at(0));
        let mut now = 0;
        let mut live = false;
        for (steps, reported_again) in crashes {
            now += 6;
            let writes = core.round(at(now)).writes;
            world.apply(writes, steps);
            for policy in world.policies.values() {
                prop_assert!(undisturbed.policies.values().any(|whole| whole == policy));
            }
            prop_assert!(world.policy("db").is_some() || !live);
            live = world.policy("db").is_some();
            core = world.core(&shop(), at(now));
            if reported_again {
                core.take(report(&[("db", WEB, 5432)]), at(now));
            }
        }
        core.take(report(&[("db", WEB, 5432)]), at(now));
        world.settle(&mut core, at(now));
        world.settle(&mut core, at(now + 60));
        prop_assert_eq!(&world.policies, &undisturbed.policies);
    }
}
