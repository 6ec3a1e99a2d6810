use super::*;

/// A second of the workload's life: it is first seen talking at 100.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const SINCE: i64 = 100;

/// What is said of a pod: name, revision, when it started, and what is special about it.
type Pod = (&'static str, &'static str, i64, &'static str);

fn member((name, revision, started, said): Pod) -> Member {
    Member {
        uid: name.into(),
        name: name.into(),
        revision: (!revision.is_empty()).then(|| revision.into()),
        node: Some(if said == "unwatched" { "node2" } else { "node1" }.into()),
        is_ready: said != "unready",
        is_finished: said == "finished",
        started: Some(at(started)),
        is_watched: said != "unwatched",
        capture: None,
    }
}

fn look(pods: &mut Pods, kind: &str, now: i64, seen: &[Pod]) {
    let members: Vec<Member> = seen.iter().copied().map(member).collect();
    pods.look(kind, &members, at(SINCE), true, at(now));
}

/// What is said of pods from one second on.
type Look = (i64, &'static [Pod]);

/// Looks, and when a pod last came or went in a way that counts.
type Turning<'a> = (&'a str, &'a [Look], Option<i64>);

/// When pods are looked at, what is seen, who is waited for, and until when at most.
type Starting<'a> = (&'a str, i64, &'a [Pod], Option<&'a str>, Option<i64>);

#[test]
fn a_cron_job_waits_for_a_run_that_began_after_the_first_and_has_ended() {
    let cases: [(&str, &[Pod], bool); 6] = [
        ("no pod", &[], false),
        ("the run that made it known", &[("a", "", 98, "finished")], false),
        (
            "the next one, under way",
            &[("a", "", 98, "finished"), ("b", "", 160, "")],
            false,
        ),
        ("the next one, ended", &[("b", "", 160, "finished")], true),
        (
            "the next one, ended where no learner is",
            &[("b", "", 160, "unwatched")],
            false,
        ),
        (
            "one of the same second as the first word",
            &[("b", "", 100, "finished")],
            false,
        ),
    ];
    for (what, seen, cycled) in cases {
        let mut pods = Pods::default();
        look(&mut pods, "CronJob", 170, seen);
        assert_eq!(pods.cycled().is_some(), cycled, "{what}");
        assert_eq!(pods.awaits().is_none(), cycled, "{what}");
    }
    // It is known for good: finished pods go.
    let mut pods = Pods::default();
    look(&mut pods, "CronJob", 170, &[("b", "", 160, "finished")]);
    look(&mut pods, "CronJob", 900, &[]);
    assert_eq!((pods.cycled(), pods.awaits()), (Some(at(170)), None));
    // Nobody else waits for a run, and its pods that come, go and start are no rollout.
    for kind in ["Job", "Deployment"] {
        let mut pods = Pods::default();
        look(&mut pods, kind, 170, &[]);
        assert_eq!(pods.awaits(), None, "{kind}");
    }
    let mut pods = Pods::default();
    look(&mut pods, "Job", 170, &[("a", "", 160, "unready")]);
    look(&mut pods, "Job", 180, &[("b", "", 180, "")]);
    assert_eq!((pods.awaits(), pods.turned()), (None, None));
}

#[test]
fn a_rollout_begins_the_quiet_period_anew_each_time_and_a_scaling_the_first_time() {
    const OLD: Pod = ("old", "1", 60, "");
    const A: Pod = ("a", "1", 50, "");
    const B: Pod = ("b", "1", 120, "");
    const C: Pod = ("c", "1", 130, "");
    const NEW: Pod = ("new", "2", 140, "");
    const NEWER: Pod = ("newer", "2", 150, "");
    let cases: [Turning<'_>; 9] = [
        ("never rolled out, never scaled", &[(100, &[A]), (200, &[A])], None),
        (
            "scaled up once",
            &[(100, &[A]), (120, &[A, B]), (300, &[A, B])],
            Some(120),
        ),
        ("scaled down once", &[(100, &[A, OLD]), (120, &[A])], Some(120)),
        (
            "scaled all the time",
            &[
                (100, &[A]),
                (120, &[A, B]),
                (130, &[A, B, C]),
                (140, &[A, B]),
                (150, &[A]),
            ],
            Some(120),
        ),
        (
            "rolled out, which is over when the last old pod is gone",
            &[
                (100, &[A, B]),
                (140, &[A, B, NEW]),
                (145, &[B, NEW]),
                (150, &[B, NEW, NEWER]),
                (155, &[NEW, NEWER]),
            ],
            Some(155),
        ),
        ("rolled out at once", &[(100, &[A]), (140, &[NEW])], Some(140)),
        (
            "scaled, and rolled out later",
            &[(100, &[A]), (120, &[A, B]), (140, &[A, B, NEW]), (145, &[NEW])],
            Some(145),
        ),
        (
            "rolled out, and scaled later",
            &[(100, &[A]), (140, &[A, NEW]), (145, &[NEW]), (190, &[NEW, NEWER])],
            Some(145),
        ),
        (
            "stuck between two revisions",
            &[(100, &[A]), (140, &[A, NEW]), (900, &[A, NEW])],
            Some(140),
        ),
    ];
    for (what, looks, turned) in cases {
        let mut pods = Pods::default();
        for (now, seen) in looks {
            look(&mut pods, "Deployment", *now, seen);
        }
        assert_eq!(pods.turned(), turned.map(at), "{what}");
    }
}

#[test]
fn what_came_while_no_controller_ran_is_known_by_its_start() {
    let started = |turned: Option<i64>, youngest: i64| {
        let mut pods = Pods {
            turned: turned.map(at),
            ..Pods::default()
        };
        look(
            &mut pods,
            "Deployment",
            500,
            &[("a", "1", 50, ""), ("b", "1", youngest, "")],
        );
        pods.turned()
    };
    assert_eq!(started(None, 60), None, "there before it was seen talking");
    assert_eq!(started(None, 300), Some(at(300)));
    assert_eq!(started(Some(200), 150), Some(at(200)), "known already");
    assert_eq!(started(Some(200), 300), Some(at(300)), "it may have been a rollout");
}

#[test]
fn a_pod_that_starts_is_waited_for_and_one_that_is_broken_is_not_unless_there_is_no_other() {
    let starts = STARTS.as_secs();
    let cases: [Starting<'_>; 5] = [
        ("ready", 700, &[("a", "1", 50, ""), ("b", "1", 690, "")], None, None),
        (
            "starting",
            700,
            &[("a", "1", 50, ""), ("b", "1", 690, "unready")],
            Some("b"),
            Some(690 + starts),
        ),
        (
            "broken",
            690 + starts,
            &[("a", "1", 50, ""), ("b", "1", 690, "unready")],
            None,
            None,
        ),
        (
            "one broken and one starting",
            700,
            &[
                ("a", "1", 50, ""),
                ("b", "1", 60, "unready"),
                ("c", "1", 695, "unready"),
            ],
            Some("c"),
            Some(695 + starts),
        ),
        ("none is ready", 9000, &[("a", "1", 50, "unready")], Some("a"), None),
    ];
    for (what, now, seen, awaited, again) in cases {
        let mut pods = Pods::default();
        look(&mut pods, "StatefulSet", now, seen);
        let expected = awaited.map(|name| Awaits::Ready(name.into()));
        assert_eq!(pods.awaits(), expected.as_ref(), "{what}");
        assert_eq!(pods.again(), again.map(at), "{what}");
    }
}

#[test]
fn a_pod_without_a_learner_holds_and_its_learner_begins_the_quiet_period_anew() {
    let (here, there) = (("a", "1", 50, ""), ("b", "1", 50, "unwatched"));
    let mut pods = Pods::default();
    look(&mut pods, "Deployment", 110, &[here, there]);
    let awaits = Awaits::Learner {
        node: "node2".into(),
        pod: "b".into(),
    };
    assert_eq!(pods.awaits(), Some(&awaits));
    assert_eq!(pods.coverage(), Some(&Coverage::of(1, 2, vec!["node2".to_owned()])));
    assert_eq!(pods.restless_until(), None);
    // Its learner comes.
    look(&mut pods, "Deployment", 120, &[here, ("b", "1", 50, "")]);
    assert_eq!((pods.awaits(), pods.watched_since()), (None, Some(at(120))));
    assert_eq!(pods.coverage(), Some(&Coverage::of(2, 2, Vec::new())));
    assert_eq!(pods.restless_until(), Some(at(120)));

    // A controller that has just been started does not know yet who comes back: what was known stays.
    let mut restarted = Pods {
        coverage: pods.coverage().cloned(),
        watched_since: pods.watched_since(),
        ..Pods::default()
    };
    restarted.look("Deployment", &[member(here), member(there)], at(SINCE), false, at(130));
    assert_eq!((restarted.awaits(), restarted.coverage()), (None, pods.coverage()));
    restarted.look("Deployment", &[member(here), member(there)], at(SINCE), true, at(160));
    assert_eq!(restarted.awaits(), Some(&awaits));

    // A run that ended before anything was learned is no part of it.
    let mut pods = Pods::default();
    look(&mut pods, "CronJob", 110, &[("old", "", 20, "finished")]);
    assert_eq!(pods.coverage(), Some(&Coverage::of(0, 0, Vec::new())));
}

#[test]
fn a_workload_on_no_node_is_covered_by_nobody_and_waits_for_nobody() {
    let mut pods = Pods::default();
    let nowhere = Member {
        node: None,
        is_watched: false,
        capture: None,
        ..member(("a", "1", 50, ""))
    };
    pods.look("Deployment", &[nowhere], at(SINCE), true, at(110));
    assert_eq!(pods.awaits(), None);
    assert_eq!(pods.coverage().and_then(|coverage| coverage.share.as_deref()), None);
}
