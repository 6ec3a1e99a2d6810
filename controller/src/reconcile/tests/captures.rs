//! Learners that are replaced by others, which see more.

use super::*;

const BEFORE: &str = "0.1.0 (maps 2)";
const AFTER: &str = "0.2.0 (maps 3)";

/// A report of a run of the learner.
fn seen_by(capture: &str, epoch: u64, flows: &[(&str, &str, u16)]) -> Event {
    let Event::Report(mut report) = report(flows) else {
        unreachable!("it makes reports");
    };
    report.origin.epoch = epoch;
    report.capture = Some(capture.to_owned().try_into().unwrap());
    Event::Report(report)
}

/// What is told of an edge that the next run of the learner sees, after the baseline is frozen.
fn told_when_seen_by(capture: &str) -> String {
    let mut world = World::default();
    let mut core = world.core(&shop(), at(0));
    core.take(seen_by(BEFORE, 1, &[("db", WEB, 5432)]), at(0));
    world.settle(&mut core, at(0));
    world.settle(&mut core, at(10));
    assert_eq!(world.status("db").phase, Phase::Enforcing);

    core.take(seen_by(capture, 2, &[("db", INTRUDER, 5432)]), at(20));
    world.settle(&mut core, at(20));
    let coverage = world.status("db").coverage.clone().unwrap();
    assert_eq!(coverage.captures, [BEFORE], "by which the baseline was learned");
    let [violation] = &world.violations[..] else {
        unreachable!("{:?}", world.violations)
    };
    violation.to_string()
}

#[test]
fn p28_what_another_capture_sees_first_is_told_as_that() {
    let told = told_when_seen_by(AFTER);
    assert!(
        told.ends_with("; the baseline was not learned by 0.2.0 (maps 3), which may see more"),
        "{told}"
    );
    let told = told_when_seen_by(BEFORE);
    assert!(told.ends_with("no rule allows it"), "{told}");
}

#[test]
fn what_sees_is_what_the_latest_run_of_the_learner_is() {
    let mut world = World::default();
    let mut core = world.core(&shop(), at(0));
    core.take(seen_by(BEFORE, 1, &[("db", WEB, 5432)]), at(0));
    world.settle(&mut core, at(0));
    core.take(seen_by(AFTER, 2, &[]), at(1));
    // A late report of the run before it.
    core.take(seen_by(BEFORE, 1, &[("db", WEB, 5433)]), at(2));
    world.settle(&mut core, at(8));
    let coverage = world.status("db").coverage.clone().unwrap();
    assert_eq!(coverage.captures, [AFTER]);
}
