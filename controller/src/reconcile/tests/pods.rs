//! What pods must have gone through before their workload is promoted.

use super::*;

/// A pod of the web Deployment, of a revision, on a node.
fn replica(name: &str, revision: &str, node: &str, started: i64, ready: bool) -> Object {
    let Object::Pod(pod) = pod("web", WEB) else {
        unreachable!("a pod is a pod")
    };
    Object::Pod(Pod {
        uid: format!("uid-{name}").into(),
        name: name.into(),
        owner: Some(Arc::new(OwnerRef {
            kind: "ReplicaSet".to_owned(),
            name: revision.to_owned(),
        })),
        addresses: [format!("198.18.1.{}", 100 + name.len()).parse().unwrap()].into(),
        node: Some(node.into()),
        ready,
        started: Some(at(started)),
        ..pod
    })
}

fn owned(kind: &str, name: &str, owner: (&str, &str)) -> Object {
    Object::Controller(Controller {
        namespace: "shop".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        owner: Some(OwnerRef {
            kind: owner.0.to_owned(),
            name: owner.1.to_owned(),
        }),
        selector: std::collections::BTreeMap::new().into(),
        template_labels: labels(owner.1).into(),
    })
}

/// A run of the CronJob that makes reports.
fn run(number: u32, started: i64, phase: PodPhase) -> [Object; 2] {
    let job = format!("bill-{number}");
    let Object::Pod(pod) = pod("bill", WEB) else {
        unreachable!("a pod is a pod")
    };
    let pod = Pod {
        uid: format!("uid-{job}").into(),
        name: format!("{job}-x").into(),
        owner: Some(Arc::new(OwnerRef {
            kind: "Job".to_owned(),
            name: job.clone(),
        })),
        addresses: [format!("198.18.1.{}", 30 + number).parse().unwrap()].into(),
        phase,
        ready: phase == PodPhase::Running,
        started: Some(at(started)),
        ..pod
    };
    [owned("Job", &job, ("CronJob", "bill")), Object::Pod(pod)]
}

fn cron_job() -> Object {
    let Object::Controller(controller) = deployment("bill") else {
        unreachable!("a controller is a controller")
    };
    Object::Controller(Controller {
        kind: "CronJob".to_owned(),
        ..controller
    })
}

#[test]
fn p5_a_cron_job_is_promoted_when_a_whole_run_was_seen_whoever_restarts_in_between() {
    let begin = |world: &World, now: i64| {
        let objects = [deployment("db"), pod("db", DB), cron_job()];
        world.core(&objects, at(now))
    };
    let mut world = World::default();
    let mut core = begin(&world, 0);
    let take = |core: &mut Core, objects: [Object; 2], now: i64| {
        for object in objects {
            core.take(Event::Object(object), at(now));
        }
    };
    take(&mut core, run(1, -2, PodPhase::Running), 0);
    core.take(counted(&[("db", "198.18.1.31", 5432)], 3, 3), at(0));
    world.settle(&mut core, at(0));
    assert_eq!(world.status_of("cronjob-bill").phase, Phase::Learning);
    take(&mut core, run(1, -2, PodPhase::Finished), 3);
    world.settle(&mut core, at(10));
    // The window is over for the one who serves it, and not for it.
    world.assert_enforcing("db");
    let (reason, message) = promotable(world.status_of("cronjob-bill"));
    assert_eq!(
        (world.status_of("cronjob-bill").phase, &*reason),
        (Phase::Stabilizing, "NoRun"),
        "{message}"
    );
    assert!(
        message.starts_with("not promoted because no run has ended yet"),
        "{message}"
    );
    let notices: Vec<String> = {
        let mut later = begin(&world, 10);
        later
            .round(at(10))
            .writes
            .notices
            .into_iter()
            .map(|notice| notice.note)
            .collect()
    };
    assert!(notices.is_empty(), "told once: {notices:?}");

    take(&mut core, run(2, 60, PodPhase::Running), 60);
    world.settle(&mut core, at(60));
    assert_eq!(world.status_of("cronjob-bill").phase, Phase::Stabilizing);
    let next = core.round(at(61)).next;
    assert!(next.is_none_or(|next| next > at(61)), "it does not spin: {next:?}");
    take(&mut core, run(2, 60, PodPhase::Finished), 70);
    // Gone before anybody looks.
    core.take(
        Event::ObjectGone(ObjectKey::Pod("shop".to_owned(), "bill-2-x".to_owned())),
        at(70),
    );
    world.settle(&mut core, at(70));
    let bill = world.status_of("cronjob-bill");
    assert_eq!(bill.phase, Phase::Enforcing, "{}", bill.reason);
    assert!(bill.last_run.is_some());

    // What a run has shown outlives the controller that saw it.
    let mut before = world.clone();
    for segment in before.segments.values_mut() {
        let status = segment.status.as_mut().unwrap();
        status.frozen_at = None;
        status.phase = Phase::Stabilizing;
    }
    let mut core = begin(&before, 100);
    core.take(counted(&[("db", "198.18.1.31", 5432)], 3, 3), at(100));
    before.settle(&mut core, at(100));
    before.settle(&mut core, at(120));
    assert_eq!(before.status_of("cronjob-bill").phase, Phase::Enforcing);
}

/// The shop with two pods of web on two nodes.
fn two_nodes() -> [Object; 5] {
    [
        deployment("web"),
        owned("ReplicaSet", "web-1", ("Deployment", "web")),
        replica("a", "web-1", "node1", -100, true),
        deployment("db"),
        pod("db", DB),
    ]
}

fn word_of_web(world: &World) -> (Phase, String) {
    let web = world.status_of("deployment-web");
    (web.phase, promotable(web).0)
}

#[test]
fn p7_a_rollout_is_over_and_quiet_before_its_workload_is_promoted() {
    let mut world = World::default();
    let mut core = world.core(&two_nodes(), at(0));
    let seen = || counted(&[("db", "198.18.1.101", 5432)], 3, 3);
    core.take(seen(), at(0));
    world.settle(&mut core, at(0));
    // A new revision comes late in the window of ten seconds; a quiet period is one.
    core.take(
        Event::Object(owned("ReplicaSet", "web-2", ("Deployment", "web"))),
        at(9),
    );
    core.take(Event::Object(replica("bb", "web-2", "node1", 9, false)), at(9));
    world.settle(&mut core, at(9));
    world.settle(&mut core, at(11));
    assert_eq!(world.status("db").phase, Phase::Enforcing);
    assert_eq!(word_of_web(&world), (Phase::Stabilizing, "NotReady".to_owned()));
    core.take(Event::Object(replica("bb", "web-2", "node1", 9, true)), at(12));
    core.take(
        Event::ObjectGone(ObjectKey::Pod("shop".to_owned(), "a".to_owned())),
        at(12),
    );
    world.settle(&mut core, at(12));
    assert_eq!(word_of_web(&world), (Phase::Stabilizing, "RollingOut".to_owned()));
    let next = core.round(at(12)).next;
    assert_eq!(next, Some(at(13)), "it looks again by itself");
    world.settle(&mut core, at(13));
    assert_eq!(word_of_web(&world), (Phase::Enforcing, "Enforcing".to_owned()));
    assert!(world.status_of("deployment-web").last_rollout.is_some());

    // Nothing that pods do later is written.
    core.take(Event::Object(replica("ccc", "web-2", "node1", 20, false)), at(20));
    assert!(core.round(at(40)).writes.is_empty());
}

#[test]
fn a_pod_on_a_node_without_a_learner_holds_its_workload_and_the_condition_names_the_node() {
    let mut world = World::default();
    let mut core = world.core(&two_nodes(), at(0));
    core.take(Event::Object(replica("bb", "web-1", "node2", -100, true)), at(0));
    let seen = || counted(&[("db", "198.18.1.101", 5432)], 3, 3);
    core.take(seen(), at(0));
    world.settle(&mut core, at(0));
    world.settle(&mut core, at(10));
    assert_eq!(world.status("db").phase, Phase::Enforcing);
    assert_eq!(
        world.status("db").coverage.as_ref().unwrap().share.as_deref(),
        Some("100%")
    );
    let web = world.status_of("deployment-web");
    let (reason, message) = promotable(web);
    assert_eq!((web.phase, &*reason), (Phase::Stabilizing, "NotWatched"));
    assert!(
        message.starts_with("not promoted because no learner reports from node node2, where pod bb is"),
        "{message}"
    );
    let coverage = web.coverage.clone().unwrap();
    assert_eq!(
        (coverage.share.as_deref(), &coverage.unwatched_nodes[..]),
        (Some("50%"), &["node2".to_owned()][..])
    );

    // A controller that has just been started does not know who comes back, and takes nothing back until it does.
    let mut core = world.core(&two_nodes(), at(20));
    core.take(Event::Object(replica("bb", "web-1", "node2", -100, true)), at(20));
    world.settle(&mut core, at(20));
    assert_eq!(world.status_of("deployment-web").coverage, Some(coverage));
    core.take(seen(), at(21));
    world.settle(&mut core, at(31));
    assert_eq!(word_of_web(&world), (Phase::Stabilizing, "NotWatched".to_owned()));

    // The first word of its learner, be it that there is nothing.
    let Event::Report(nothing) = report(&[]) else {
        unreachable!("a report is a report")
    };
    core.take(
        Event::Report(Report {
            origin: Origin {
                node: "node2".to_owned(),
                epoch: 1,
            },
            ..nothing
        }),
        at(40),
    );
    assert_ne!(core.due(), Due::No);
    world.settle(&mut core, at(40));
    assert_eq!(word_of_web(&world), (Phase::Stabilizing, "LearnerCame".to_owned()));
    world.settle(&mut core, at(46));
    assert_eq!(word_of_web(&world), (Phase::Enforcing, "Enforcing".to_owned()));
    assert_eq!(world.status_of("deployment-web").coverage.as_ref().unwrap().watched, 2);
}

#[test]
fn a_learner_that_stays_away_leaves_its_node_unwatched_and_one_that_comes_back_does_not() {
    let stream = |open| Event::Stream {
        node: "node1".to_owned(),
        stream: 1,
        open,
    };
    for (back, reason) in [(true, "NotReady"), (false, "NotWatched")] {
        let mut world = World::default();
        let mut core = world.core(&two_nodes(), at(0));
        core.take(stream(true), at(0));
        core.take(counted(&[("db", "198.18.1.101", 5432)], 3, 3), at(0));
        // This one keeps the window open for as long as it takes to see.
        core.take(Event::Object(replica("bb", "web-1", "node1", -1, false)), at(0));
        world.settle(&mut core, at(0));
        core.take(stream(false), at(15));
        let round = core.round(at(15));
        assert_eq!(round.next, Some(at(45)), "it looks by itself whether it has come back");
        for event in world.apply(round.writes, usize::MAX) {
            core.take(event, at(15));
        }
        if back {
            core.take(stream(true), at(40));
        }
        world.settle(&mut core, at(44));
        assert_eq!(word_of_web(&world).1, "NotReady", "back: {back}");
        world.settle(&mut core, at(50));
        assert_eq!(word_of_web(&world).1, reason, "back: {back}");
    }
}
