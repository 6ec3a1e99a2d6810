//! What is live is not what it is to be: somebody fights, or others own it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};

use super::*;
use crate::segment::SegmentSpec;

fn objects() -> [Object; 4] {
    [deployment("web"), pod("web", WEB), deployment("db"), pod("db", DB)]
}

fn condition<'a>(status: &'a SegmentStatus, kind: &str) -> Option<(&'a str, &'a str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((&found.status, &found.reason))
}

/// The policy of db, with every rule taken out by another field manager.
fn edit(world: &mut World, core: &mut Core, now: Timestamp) {
    let policy = world
        .policies
        .values_mut()
        .find(|policy| policy.metadata.name.as_deref() == Some("nanoseg-deployment-db"));
    let policy = policy.unwrap();
    policy.spec = Some(NetworkPolicySpec::default());
    policy.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
        manager: Some("argocd".to_owned()),
        time: Some(Time(now)),
        ..ManagedFieldsEntry::default()
    }]);
    core.take(Event::Policy(Box::new(policy.clone())), now);
}

#[test]
fn who_changes_a_policy_each_time_that_it_is_repaired_is_named_and_left_alone_longer_and_longer() {
    let mut world = World::default();
    let mut core = world.core(&objects(), at(0));
    core.take(report(&[("db", WEB, 5432), ("db", WEB, 5432)]), at(0));
    core.take(counted(&[("db", WEB, 5432)], 3, 3), at(0));
    world.settle(&mut core, at(0));
    world.settle(&mut core, at(10));
    let right = world.policies.clone();
    assert_eq!(right.len(), 2);
    let mut repairs = Vec::new();
    for second in 20..100 {
        edit(&mut world, &mut core, at(second));
        let next = core.round(at(second));
        if !next.writes.put.is_empty() {
            repairs.push(second - 20);
        }
        for event in world.apply(next.writes, usize::MAX) {
            core.take(event, at(second));
        }
        world.settle(&mut core, at(second));
    }
    assert_eq!(repairs, [0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67]);
    let told = world.status("db");
    assert_eq!(told.phase, Phase::Degraded);
    assert!(told.reason.contains("field manager argocd"), "{}", told.reason);
    assert_eq!(condition(told, "Contested"), Some(("True", "Fighting")));
    assert_eq!(condition(told, "Promotable"), Some(("False", "Contested")));

    // It looks again by itself; the last edit is repaired, and after a calm time nothing is held against anybody.
    let next = core.round(at(100)).next.unwrap();
    world.settle(&mut core, next);
    let mended = |world: &World| {
        world
            .policies
            .values()
            .map(|policy| &policy.spec)
            .eq(right.values().map(|policy| &policy.spec))
    };
    assert!(mended(&world));
    assert_eq!(world.status("db").phase, Phase::Enforcing);
    assert_eq!(condition(world.status("db"), "Contested"), Some(("True", "Fighting")));
    world.settle(&mut core, at(2000));
    assert_eq!(condition(world.status("db"), "Contested"), None);
    edit(&mut world, &mut core, at(2001));
    world.settle(&mut core, at(2001));
    assert!(mended(&world), "repaired at once again");
}

#[test]
fn where_others_own_the_policies_none_is_written_and_drift_is_told() {
    let mut world = World {
        reports_only: true,
        ..World::default()
    };
    let mut core = world.core(&objects(), at(0));
    core.take(counted(&[("db", WEB, 5432)], 3, 3), at(0));
    world.settle(&mut core, at(0));
    world.settle(&mut core, at(10));
    assert_eq!(world.policies.len(), 0);
    assert_eq!(world.status("db").phase, Phase::Proposed);
    assert_eq!(condition(world.status("db"), "InSync"), Some(("False", "DriftMissing")));

    // Merged and applied by others, from other evidence of the same edges.
    let proposal: NetworkPolicy = serde_yaml::from_str(world.status("db").proposal.as_ref().unwrap()).unwrap();
    let mut merged = proposal.clone();
    let annotations = merged.metadata.annotations.as_mut().unwrap();
    annotations.insert("nanoseg.io/evidence".to_owned(), "another day".to_owned());
    let put = |world: &mut World, core: &mut Core, policy: &NetworkPolicy, now| {
        world.policies.insert(PolicyName::of(policy), policy.clone());
        core.take(Event::Policy(Box::new(policy.clone())), now);
        world.settle(core, now);
    };
    put(&mut world, &mut core, &merged, at(20));
    assert_eq!(world.status("db").phase, Phase::Enforcing);
    assert_eq!(condition(world.status("db"), "InSync"), Some(("True", "Same")));

    edit(&mut world, &mut core, at(30));
    world.settle(&mut core, at(30));
    assert_eq!(condition(world.status("db"), "InSync"), Some(("False", "DriftDiffers")));
    assert_eq!(
        world.policies.values().next().unwrap().spec,
        Some(NetworkPolicySpec::default()),
        "left alone"
    );

    put(&mut world, &mut core, &merged, at(40));
    let off = |spec: &mut SegmentSpec| spec.mode = Some(Mode::Audit);
    for segment in world.segments.values_mut() {
        off(&mut segment.spec);
        core.take(Event::Segment(Box::new(segment.clone())), at(41));
    }
    world.settle(&mut core, at(41));
    assert_eq!(
        condition(world.status("db"), "InSync"),
        Some(("False", "DriftUnwanted"))
    );
    core.take(Event::ObjectGone(deployment("db").key()), at(50));
    core.take(Event::ObjectGone(pod("db", DB).key()), at(50));
    world.settle(&mut core, at(50));
    assert_eq!(world.policies.len(), 1, "not even an orphan is removed");
}
