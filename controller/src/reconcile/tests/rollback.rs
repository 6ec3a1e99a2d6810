//! A policy that cuts what it was to allow is taken back.

use super::*;
use crate::segment::Answered;

const FLOWS: [(&str, &str, u16); 1] = [("db", WEB, 5432)];

fn objects() -> [Object; 4] {
    [deployment("web"), pod("web", WEB), deployment("db"), pod("db", DB)]
}

/// A world in which both policies went live at second 10, with nine connections until then.
fn enforced() -> (World, Core) {
    let mut world = World::default();
    let mut core = world.core(&objects(), at(0));
    core.take(counted(&FLOWS, 9, 9), at(0));
    world.settle(&mut core, at(0));
    world.settle(&mut core, at(10));
    assert_eq!(world.policies.len(), 2);
    world.settle(&mut core, at(13));
    (world, core)
}

/// The same world, with what a person has set in a Segment.
fn edited(world: &mut World, core: &mut Core, set: impl Fn(&mut crate::segment::SegmentSpec), now: Timestamp) {
    for segment in world.segments.values_mut() {
        set(&mut segment.spec);
        core.take(Event::Segment(Box::new(segment.clone())), now);
    }
    world.settle(core, now);
}

#[test]
fn an_edge_that_is_cut_takes_the_policy_back_within_ten_seconds_and_for_good() {
    let (mut world, mut core) = enforced();
    core.take(counted(&FLOWS, 12, 9), at(20));
    world.settle(&mut core, at(20));
    assert_eq!(world.policies.len(), 2, "an answer may be on its way");
    let next = core.round(at(21)).next.unwrap();
    assert!(next <= at(23), "it looks again by itself");
    world.settle(&mut core, next);
    assert_eq!(world.policies.len(), 0, "both may be what cuts it");
    let db = world.status_of("deployment-db");
    assert_eq!((db.phase, db.applied_hash.as_ref()), (Phase::Degraded, None));
    assert!(db.reason.contains("5432"), "{}", db.reason);
    let holds = |kind: &str| {
        let condition = db.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        (condition.status.clone(), condition.reason.clone())
    };
    assert_eq!(holds("RolledBack"), ("True".to_owned(), "Unanswered".to_owned()));
    assert_eq!(holds("Promotable"), ("False".to_owned(), "RolledBack".to_owned()));
    assert!(db.history.last().unwrap().rolled_back_at.is_some());

    // Answered again, restarted, approved as before: nothing applies it but a person.
    core.take(counted(&FLOWS, 15, 12), at(30));
    world.settle(&mut core, at(60));
    assert_eq!(world.policies.len(), 0);
    let mut core = world.core(&objects(), at(100));
    core.take(counted(&FLOWS, 20, 18), at(100));
    world.settle(&mut core, at(200));
    assert_eq!(world.policies.len(), 0);
    edited(&mut world, &mut core, |spec| spec.mode = Some(Mode::Audit), at(201));
    assert_eq!(world.status_of("deployment-db").phase, Phase::Auditing);
    edited(&mut world, &mut core, |spec| spec.mode = Some(Mode::Enforce), at(202));
    assert_eq!(world.policies.len(), 2);
    let history = &world.status_of("deployment-db").history;
    let taken_back: Vec<bool> = history
        .iter()
        .map(|revision| revision.rolled_back_at.is_some())
        .collect();
    assert_eq!(taken_back, [true, false]);
    // On trial again.
    core.take(counted(&FLOWS, 30, 18), at(210));
    world.settle(&mut core, at(210));
    world.settle(&mut core, at(213));
    assert_eq!(world.policies.len(), 0);
}

#[test]
fn approving_the_proposal_again_applies_it_again() {
    let (mut world, mut core) = enforced();
    core.take(counted(&FLOWS, 12, 9), at(20));
    world.settle(&mut core, at(20));
    world.settle(&mut core, at(23));
    assert_eq!(world.policies.len(), 0);
    let hash = world.status_of("deployment-db").proposal_hash.clone();
    edited(&mut world, &mut core, |spec| spec.approval.clone_from(&hash), at(30));
    let applied: Vec<String> = world.policies.keys().map(|policy| policy.name.clone()).collect();
    assert_eq!(applied, ["nanoseg-deployment-db"]);
}

#[test]
fn what_is_answered_or_stops_long_after_is_not_the_policys_doing() {
    let (mut world, mut core) = enforced();
    core.take(counted(&FLOWS, 12, 11), at(20));
    world.settle(&mut core, at(40));
    core.take(counted(&FLOWS, 20, 19), at(80));
    world.settle(&mut core, at(80));
    core.take(counted(&FLOWS, 40, 19), at(90));
    world.settle(&mut core, at(90));
    world.settle(&mut core, at(120));
    assert_eq!(
        world.policies.len(),
        2,
        "its server has stopped, and that is no reason to open anything"
    );
}

/// What each edge of the database's baseline is told to be answered by.
fn answered(world: &World) -> Vec<Option<Answered>> {
    let baseline = &world.status_of("deployment-db").baseline;
    baseline.iter().map(|edge| edge.answered).collect()
}

#[test]
fn a_restart_together_with_an_outage_of_the_server_takes_nothing_back_that_was_answered_since() {
    let (mut world, mut core) = enforced();
    assert_eq!(answered(&world), [Some(Answered::Learning)], "written as it went live");
    core.take(counted(&FLOWS, 15, 15), at(80));
    let before = core.heard();
    let round = core.round(at(80));
    assert!(
        round.writes.is_empty(),
        "what a trial has shown is written now and then"
    );
    assert!(round.next.is_some_and(|next| next <= at(131)));
    assert_eq!(core.durable(), before, "and keeps no learner waiting");
    world.settle(&mut core, at(131));
    assert_eq!(answered(&world), [Some(Answered::Enforced)]);

    // The server stops while no controller runs.
    let mut core = world.core(&objects(), at(200));
    core.take(counted(&FLOWS, 40, 15), at(201));
    world.settle(&mut core, at(201));
    for now in [220_i64, 230, 240, 300] {
        core.take(counted(&FLOWS, 40 + now.unsigned_abs(), 15), at(now));
        world.settle(&mut core, at(now));
    }
    assert_eq!(world.policies.len(), 2);
    assert_eq!(answered(&world), [Some(Answered::Enforced)]);
}

#[test]
fn what_recurs_seldom_and_has_passed_has_passed_a_quarter_of_an_hour_later_for_every_controller() {
    let hourly = [("db", WEB, 5433)];
    let both = |often: u64, hourly: u64| [("db", WEB, 5432, often), ("db", WEB, 5433, hourly)];
    let mut world = World::default();
    let mut core = world.core(&objects(), at(0));
    let take = |core: &mut Core, counts: [(&str, &str, u16, u64); 2], now| {
        for (destination, peer, port, count) in counts {
            core.take(counted(&[(destination, peer, port)], count, count), now);
        }
    };
    take(&mut core, both(9, 9), at(0));
    world.settle(&mut core, at(0));
    world.settle(&mut core, at(10));
    world.settle(&mut core, at(13));
    assert_eq!(world.policies.len(), 2);

    // One passes at once and is written of; the other hours later, when the policy was live for long.
    let mut last = 0;
    for minute in 2..=300_i64 {
        last = 13 + minute * 60;
        let seldom = if minute < 280 { 9 } else { 10 };
        take(&mut core, both(9 + minute.unsigned_abs(), seldom), at(last));
        world.settle(&mut core, at(last));
    }
    let enforced = Some(Answered::Enforced);
    assert_eq!(answered(&world), [enforced, enforced]);

    // Its server stops while no controller runs.
    let mut core = world.core(&objects(), at(last + 10));
    for second in [20_i64, 30, 40, 60, 90] {
        core.take(counted(&hourly, 10 + second.unsigned_abs(), 10), at(last + second));
        world.settle(&mut core, at(last + second));
    }
    assert_eq!(world.policies.len(), 2);
}

#[test]
fn a_restart_of_everything_does_not_end_a_trial() {
    let (mut world, _) = enforced();
    // Cut from the beginning, and whoever counts begins anew: to this run nothing was ever answered.
    let mut core = world.core(&objects(), at(20));
    for now in [21_i64, 31, 35] {
        core.take(counted(&FLOWS, now.unsigned_abs(), 0), at(now));
        world.settle(&mut core, at(now));
    }
    assert_eq!(world.policies.len(), 0);
    assert!(world.status_of("deployment-db").rolled_back.is_some());
}

#[test]
fn a_trial_writes_once_what_it_has_shown_and_nothing_after_it() {
    let (mut world, mut core) = enforced();
    let mut writes = 0;
    for minute in 1..3000_i64 {
        let now = at(13 + minute * 60);
        core.take(
            counted(&FLOWS, 9 + minute.unsigned_abs(), 9 + minute.unsigned_abs()),
            now,
        );
        let round = core.round(now).writes;
        writes += round.segments.len();
        for event in world.apply(round, usize::MAX) {
            core.take(event, now);
        }
    }
    assert_eq!(writes, 2, "one for each of two Segments");
}

/// The order of a rollback's writes may end anywhere: what is left says why the policy goes, or the policy is there.
#[test]
fn a_rollback_may_be_interrupted_after_each_step() {
    for steps in 0..4 {
        let (mut world, mut core) = enforced();
        core.take(counted(&FLOWS, 12, 9), at(20));
        world.settle(&mut core, at(20));
        let writes = core.round(at(23)).writes;
        world.apply(writes, steps);
        for (policy, name) in [
            ("nanoseg-deployment-db", "deployment-db"),
            ("nanoseg-deployment-web", "deployment-web"),
        ] {
            let live = world.policies.keys().any(|known| known.name == policy);
            assert!(live || world.status_of(name).rolled_back.is_some(), "{steps}");
        }
        let mut core = world.core(&objects(), at(30));
        world.settle(&mut core, at(30));
        let taken_back = world.status_of("deployment-db").rolled_back.is_some();
        assert_eq!(
            world.policies.keys().any(|known| known.name == "nanoseg-deployment-db"),
            !taken_back
        );
    }
}
