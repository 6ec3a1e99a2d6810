use super::*;

/// What a person writes into the Segment of the database.
fn told(world: &World, change: impl FnOnce(&mut crate::segment::SegmentSpec)) -> Event {
    let mut segment = world.segment("db").clone();
    change(&mut segment.spec);
    Event::Segment(Box::new(segment))
}

#[test]
fn a_segment_says_how_long_its_workload_is_learned() {
    let (mut world, mut core) = learning();
    let window = |text: &str| {
        let window = Some(text.parse().unwrap());
        |spec: &mut crate::segment::SegmentSpec| spec.learning_window = window
    };
    core.take(told(&world, window("1h")), at(1));
    world.settle(&mut core, at(3599));
    assert_eq!(world.status("web").phase, Phase::Enforcing, "the settings' window");
    assert_eq!(world.status("db").phase, Phase::Learning);

    // Shortened: the window that remains has passed already.
    core.take(told(&world, window("30m")), at(3599));
    world.settle(&mut core, at(3599));
    world.assert_enforcing("db");

    // What is frozen stays frozen.
    core.take(told(&world, window("7d")), at(3600));
    world.settle(&mut core, at(3600));
    assert_eq!(world.status("db").phase, Phase::Enforcing);
}

#[test]
fn only_the_proposal_that_a_person_approved_is_applied() {
    let (mut world, mut core) = learning();
    core.take(told(&world, |spec| spec.promotion = Some(Promotion::Manual)), at(1));
    world.settle(&mut core, at(10));
    world.assert_enforcing("web");
    assert_eq!((world.status("db").phase, world.policy("db")), (Phase::Proposed, None));
    let (reason, message) = promotable(world.status("db"));
    assert_eq!(reason, "NotApproved");
    assert!(
        message.starts_with("not promoted because the proposal waits for approval"),
        "{message}"
    );

    let hash = world.status("db").proposal_hash.clone();
    let approve = |spec: &mut crate::segment::SegmentSpec| {
        spec.promotion = Some(Promotion::Manual);
        spec.approval = hash;
    };
    core.take(told(&world, approve), at(11));
    world.settle(&mut core, at(11));
    assert_eq!(world.status("db").phase, Phase::Enforcing);
    assert_eq!(world.status("db").history.len(), 1);
    let applied = world.policy("db").cloned();
    assert!(applied.is_some());

    // A proposal that has changed since is another one. What is live stays.
    let more = |spec: &mut crate::segment::SegmentSpec| {
        let mut edge = world.status("db").baseline[0].edge.clone();
        edge.port = 5433;
        spec.accepted_edges = vec![edge];
    };
    core.take(told(&world, more), at(12));
    world.settle(&mut core, at(12));
    assert_eq!(
        (world.status("db").phase, world.status("db").edges),
        (Phase::Proposed, 2)
    );
    assert_eq!(promotable(world.status("db")).0, "ApprovalOutdated");
    assert_eq!(world.policy("db").cloned(), applied);
}

#[test]
fn an_audit_takes_the_policy_back_and_tells_what_it_would_deny() {
    let (mut world, mut core) = enforced();
    core.take(told(&world, |spec| spec.mode = Some(Mode::Audit)), at(20));
    world.settle(&mut core, at(20));
    assert!(world.policy("db").is_none());
    assert_eq!(world.status("db").phase, Phase::Auditing);
    assert_eq!(
        (world.status("db").edges, world.status("db").applied_hash.as_ref()),
        (1, None)
    );
    core.take(report(&[("db", INTRUDER, 5432)]), at(21));
    world.settle(&mut core, at(21));
    let [violation] = &world.violations[..] else {
        unreachable!("{:?}", world.violations)
    };
    assert!(
        violation.verdict.starts_with("denied: ") && !violation.enforced,
        "{violation:?}"
    );
    world.settle(&mut core, at(26));
    assert_eq!(world.status("db").novel, 1);
    core.take(told(&world, |spec| spec.mode = None), at(27));
    world.settle(&mut core, at(27));
    assert!(world.policy("db").is_some(), "the baseline was kept");
}

#[test]
fn p36_the_label_of_a_namespace_sets_the_mode_where_its_segments_do_not() {
    let labelled = |mode: &str| {
        Event::Object(Object::Namespace(nanoseg_graph::cluster::Namespace {
            name: "shop".to_owned(),
            labels: [(MODE_LABEL.to_owned(), mode.to_owned())].into(),
        }))
    };
    let (mut world, mut core) = enforced();
    core.take(told(&world, |spec| spec.mode = Some(Mode::Enforce)), at(20));
    for (second, label, web) in [
        (20, "audit", Phase::Auditing),
        (30, "Learn", Phase::Learning),
        (40, "Enforce", Phase::Enforcing),
        (50, "sometimes", Phase::Enforcing),
        (60, "off", Phase::Off),
    ] {
        core.take(labelled(label), at(second));
        world.settle(&mut core, at(second));
        assert_eq!(world.status("web").phase, web, "{label}");
        assert_eq!(world.status("db").phase, Phase::Enforcing, "{label}");
        let faulty = world
            .status("web")
            .notes
            .iter()
            .any(|note| note.contains("`sometimes` is not a mode"));
        assert_eq!(faulty, label == "sometimes");
    }
    assert!(world.policy("web").is_none());
}

#[test]
fn a_loss_in_the_window_holds_the_promotion_back() {
    let (mut world, mut core) = learning();
    let lossy = |reason, count| {
        let Event::Report(report) = report(&[]) else {
            unreachable!("a report is a report")
        };
        let subject = FlowSubject::Container(ContainerRef {
            pod_uid: "uid-db".to_owned(),
            container_id: "c".to_owned(),
        });
        Event::Report(Report {
            losses: vec![nanoseg_graph::flow::Loss {
                subject: Some(subject),
                reason,
                count,
            }],
            ..report
        })
    };
    core.take(lossy(nanoseg_graph::flow::LossReason::OtherTransport, 7), at(8));
    core.take(lossy(nanoseg_graph::flow::LossReason::MapFull, 3), at(8));
    world.settle(&mut core, at(8));
    world.settle(&mut core, at(12));
    assert_eq!(world.status("web").phase, Phase::Enforcing);
    let status = world.status("db");
    assert_eq!(
        (status.phase, status.loss),
        (Phase::Stabilizing, 3),
        "{}",
        status.reason
    );
    let (reason, message) = promotable(status);
    assert_eq!(reason, "Loss");
    assert!(
        message.starts_with("not promoted because something was lost"),
        "{message}"
    );
    // A controller that has restarted is told the same losses again.
    let mut core = world.core(&shop(), at(13));
    core.take(report(&[("db", WEB, 5432)]), at(13));
    core.take(lossy(nanoseg_graph::flow::LossReason::MapFull, 3), at(13));
    world.settle(&mut core, at(13));
    world.settle(&mut core, at(23));
    world.assert_enforcing("db");
}

#[test]
fn p35_what_was_seen_once_is_not_cut_before_a_person_has_looked() {
    let mut world = World::default();
    let mut core = world.core(&shop(), at(0));
    let mut objects = shop();
    // The intruder has been there for long: this is no connection of its start.
    if let Some(Object::Pod(pod)) = objects.last_mut() {
        pod.started = Some(at(-9000));
    }
    for object in objects {
        core.take(Event::Object(object), at(0));
    }
    core.take(report(&[("db", WEB, 5432), ("db", INTRUDER, 5432)]), at(0));
    world.settle(&mut core, at(0));
    world.settle(&mut core, at(10));
    let status = world.status("db");
    assert_eq!((status.phase, status.edges), (Phase::Stable, 1), "{}", status.reason);
    assert_eq!(promotable(status).0, "SeenOnce");
    let [quarantined] = &status.quarantined[..] else {
        unreachable!("{:?}", status.quarantined)
    };
    assert_eq!(quarantined.suspicion, Suspicion::Once);
    let edge = quarantined.edge.clone();
    core.take(told(&world, |spec| spec.rejected_edges = vec![edge]), at(11));
    world.settle(&mut core, at(11));
    world.assert_enforcing("db");
}

#[test]
fn what_is_switched_off_while_no_controller_runs_is_learned_anew_when_it_is_switched_on_while_none_runs() {
    let objects = [deployment("web"), pod("web", WEB), deployment("db"), pod("db", DB)];
    let seen = || counted(&[("db", WEB, 5432)], 3, 3);
    let mut world = World::default();
    let mut core = world.core(&objects, at(0));
    core.take(seen(), at(0));
    world.settle(&mut core, at(0));
    world.settle(&mut core, at(10));
    assert_eq!(world.policies.len(), 2);
    let set = |world: &mut World, mode| {
        for segment in world.segments.values_mut() {
            segment.spec.mode = mode;
        }
    };
    set(&mut world, Some(Mode::Off));
    let mut core = world.core(&objects, at(20));
    core.take(seen(), at(20));
    world.settle(&mut core, at(20));
    assert_eq!(world.policies.len(), 0);
    set(&mut world, None);
    let mut core = world.core(&objects, at(1000));
    core.take(seen(), at(1000));
    world.settle(&mut core, at(1000));
    world.settle(&mut core, at(1005));
    assert_eq!(world.policies.len(), 0, "its window begins anew");
    world.settle(&mut core, at(1010));
    assert_eq!(world.policies.len(), 2);
    assert!(world.violations.is_empty(), "{:?}", world.violations);
}

#[test]
fn p19_a_proposal_that_cuts_dns_is_not_promoted_whoever_approves_it() {
    let dns = "198.18.1.53";
    let mut objects = [
        deployment("web"),
        pod("web", WEB),
        deployment("db"),
        pod("db", DB),
        deployment("dns"),
        pod("dns", dns),
    ];
    for object in &mut objects {
        // Long ago: what is opened once is not what a start opens.
        if let Object::Pod(pod) = object {
            pod.started = Some(at(-10_000));
        }
    }
    let asked = |attempted| counted(&[("dns", WEB, 53)], attempted, attempted);
    for (rejected, lookups, promoted) in [(false, 3, true), (false, 1, false), (true, 3, false)] {
        let mut world = World::default();
        let mut core = world.core(&objects, at(100));
        core.take(counted(&[("db", WEB, 5432)], 3, 3), at(100));
        world.settle(&mut core, at(100));
        if rejected {
            core.take(asked(lookups), at(101));
            world.settle(&mut core, at(106));
        }
        let web = |world: &World| {
            let found = world
                .segments
                .values()
                .find(|segment| segment.segment_name().name == "deployment-web");
            found.unwrap().clone()
        };
        let mut segment = web(&world);
        if rejected {
            let baseline = segment.status.clone().unwrap().baseline;
            let lookups = baseline.into_iter().map(|learned| learned.edge);
            segment.spec.rejected_edges = lookups.filter(|edge| edge.port == 53).collect();
            assert_eq!(segment.spec.rejected_edges.len(), 1);
        } else {
            core.take(asked(lookups), at(101));
        }
        world.segments.insert(segment.segment_name(), segment.clone());
        core.take(Event::Segment(Box::new(segment)), at(106));
        world.settle(&mut core, at(112));
        // A person approves whatever is proposed.
        let mut segment = web(&world);
        segment.spec.approval = segment.status.clone().unwrap().proposal_hash;
        world.segments.insert(segment.segment_name(), segment.clone());
        core.take(Event::Segment(Box::new(segment)), at(113));
        world.settle(&mut core, at(120));
        let live = world
            .policies
            .keys()
            .any(|policy| policy.name == "nanoseg-deployment-web");
        assert_eq!(live, promoted, "rejected: {rejected}, lookups: {lookups}");
        let status = web(&world).status.unwrap();
        let reachable = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "DnsReachable");
        assert_eq!(
            reachable.map(|condition| condition.status.as_str()),
            (!promoted).then_some("False")
        );
        assert_eq!(promotable(&status).0 == "CutsDns", !promoted, "{status:?}");
    }
}

#[test]
fn policies_go_live_no_faster_than_asked_and_repairs_do_not_wait() {
    let mut world = World {
        policies_per_second: NonZeroU32::new(1),
        ..World::default()
    };
    let mut core = world.core(&shop(), at(0));
    core.take(report(&[("db", WEB, 5432)]), at(0));
    world.settle(&mut core, at(0));
    world.settle(&mut core, at(10));
    assert_eq!(world.policies.len(), 1);
    assert_eq!(core.round(at(10)).next, Some(at(11)), "the next one has its turn");
    world.settle(&mut core, at(11));
    assert_eq!(world.policies.len(), 2);

    for name in std::mem::take(&mut world.policies).into_keys() {
        core.take(Event::PolicyGone(name), at(12));
    }
    world.settle(&mut core, at(12));
    assert_eq!(world.policies.len(), 2);
}
