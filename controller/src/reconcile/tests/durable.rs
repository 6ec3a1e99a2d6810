//! When a learner may forget what it has said.

use super::*;

/// One more round, whose writes do not arrive.
fn decide(core: &mut Core, now: Timestamp) -> Writes {
    core.round(now).writes
}

fn tell(core: &mut Core, flows: &[(&str, &str, u16)], now: Timestamp) -> u64 {
    core.take(report(flows), now);
    core.heard()
}

#[test]
fn what_was_said_is_durable_when_it_was_read_back() {
    let objects = [deployment("web"), pod("web", WEB), deployment("db"), pod("db", DB)];
    let mut world = World::default();
    let mut core = world.core(&objects, at(0));
    let first = tell(&mut core, &[("db", WEB, 5432)], at(0));
    assert!(core.durable() < first, "not judged yet");
    let writes = decide(&mut core, at(0));
    assert!(core.durable() < first, "nothing is written yet");
    for event in world.apply(writes, usize::MAX) {
        core.take(event, at(0));
    }
    decide(&mut core, at(0));
    assert_eq!(core.durable(), first);

    // Only counts: nothing needs to be written.
    let counted = tell(&mut core, &[("db", WEB, 5432)], at(1));
    assert!(decide(&mut core, at(1)).segments.is_empty());
    assert_eq!(core.durable(), counted);

    // A new edge, too soon after the last write: what comes after it waits as well, and nothing before it does.
    let new = tell(&mut core, &[("db", WEB, 5433)], at(2));
    assert!(
        decide(&mut core, at(2)).segments.is_empty(),
        "the report interval has not passed"
    );
    assert_eq!(core.durable(), counted);
    let later = tell(&mut core, &[("db", WEB, 5432)], at(3));
    decide(&mut core, at(3));
    assert_eq!(core.durable(), counted);
    let writes = decide(&mut core, at(5));
    let written: Vec<bool> = writes.segments.iter().map(|write| write.exists).collect();
    assert_eq!(written, [true, true]);
    for event in world.apply(writes, 1) {
        core.take(event, at(5));
    }
    assert_eq!(core.durable(), counted, "the other workload's Segment lacks the edge");
    world.settle(&mut core, at(11));
    assert!(new < later);
    assert_eq!(core.durable(), later);
}

#[test]
fn a_segment_that_the_api_server_refuses_keeps_nobody_waiting_and_one_that_does_not_answer_does() {
    for (refused, durable) in [(true, 1), (false, 0)] {
        let mut core = World::default().core(&[deployment("db"), pod("db", DB), pod("web", WEB)], at(0));
        tell(&mut core, &[("db", WEB, 5432)], at(0));
        for write in decide(&mut core, at(0)).segments {
            let (id, reason) = (ObjectId::Segment(write.segment.segment_name()), "no".to_owned());
            core.take(Event::Failed { id, reason, refused }, at(0));
        }
        decide(&mut core, at(0));
        assert_eq!(core.durable(), durable, "refused: {refused}");
    }
}

#[test]
fn a_controller_that_takes_over_knows_what_is_durable_and_nothing_else() {
    let objects = [deployment("web"), pod("web", WEB), deployment("db"), pod("db", DB)];
    let mut world = World::default();
    let mut leader = world.core(&objects, at(0));
    let mut follower = world.core(&objects, at(0));
    follower.follow(at(0));
    tell(&mut leader, &[("db", WEB, 5432)], at(0));
    tell(&mut follower, &[("db", WEB, 1)], at(0));
    let writes = decide(&mut leader, at(0));
    for event in world.apply(writes, usize::MAX) {
        leader.take(event.clone(), at(0));
        follower.take(event, at(0));
    }
    assert!(follower.round(at(20)).writes.is_empty(), "it follows");
    assert_eq!(follower.durable(), 0);
    // Learned, and not written.
    tell(&mut leader, &[("db", WEB, 5433)], at(2));
    decide(&mut leader, at(2));

    follower.lead(at(30));
    leader.follow(at(30));
    assert!(leader.round(at(30)).writes.is_empty());
    assert_eq!(leader.subjects.len(), 2);
    let edges = |core: &Core| -> Vec<usize> { core.subjects.values().map(|known| known.baseline.len()).collect() };
    assert_eq!((edges(&leader), edges(&follower)), (vec![1, 1], vec![1, 1]));
    // The learner sends it again to the new leader, and neither edge is missing.
    tell(&mut follower, &[("db", WEB, 5432), ("db", WEB, 5433)], at(31));
    world.settle(&mut follower, at(31));
    world.settle(&mut follower, at(40));
    assert_eq!(edges(&follower), [2, 2]);
    assert_eq!(follower.durable(), follower.heard());
}

/// More workloads than a round writes Segments of, each asked by db, and one more, of which nothing was heard.
fn many() -> (World, Core, Vec<String>) {
    let names: Vec<String> = (0..SEGMENTS + 88).map(|number| format!("w{number}")).collect();
    let mut objects = shop();
    for (name, number) in names.iter().chain([&"zz".to_owned()]).zip(0..) {
        objects.push(deployment(name));
        objects.push(pod(name, &format!("198.18.{}.{}", 10 + number / 250, number % 250 + 1)));
    }
    let mut core = World::default().core(&objects, at(0));
    let flows: Vec<(&str, &str, u16)> = names.iter().map(|name| (name.as_str(), DB, 80)).collect();
    core.take(report(&flows), at(0));
    (World::default(), core, names)
}

#[test]
fn whoever_is_new_is_written_before_those_that_a_round_had_no_room_for() {
    let (mut world, mut core, names) = many();
    let first = core.round(at(0));
    assert_eq!((first.writes.segments.len(), first.next), (SEGMENTS, Some(at(0))));
    for event in world.apply(first.writes, usize::MAX) {
        core.take(event, at(0));
    }
    core.take(report(&[("zz", WEB, 80)]), at(0));
    let second = core.round(at(0));
    // All of them are those that were asked, and the two that asked.
    assert_eq!(second.writes.segments.len(), names.len() + 3 - SEGMENTS);
    let written = second
        .writes
        .segments
        .iter()
        .map(|write| write.segment.segment_name().name);
    let written: Vec<String> = written.collect();
    let place = |name: &str| written.iter().position(|written| written == name);
    assert!(place("deployment-zz") < place("deployment-w99"), "{written:?}");
}

#[test]
fn no_policy_is_removed_before_its_segment_says_so_however_many_are() {
    let (mut world, mut core, names) = many();
    world.settle(&mut core, at(0));
    world.settle(&mut core, at(10));
    let enforced = world.policies.len();
    assert!(enforced >= names.len());
    for segment in world.segments.values() {
        let mut segment = segment.clone();
        segment.spec.mode = Some(Mode::Audit);
        core.take(Event::Segment(Box::new(segment)), at(20));
    }
    let writes = decide(&mut core, at(20));
    assert_eq!(writes.remove.len(), enforced);
    let written: BTreeSet<_> = (writes.segments.iter())
        .map(|write| {
            (
                write.segment.segment_name().name,
                write.segment.status.as_ref().unwrap().phase.as_str(),
            )
        })
        .collect();
    for name in names {
        assert!(
            written.contains(&(format!("deployment-{name}"), Phase::Auditing.as_str())),
            "{name}"
        );
    }
}
