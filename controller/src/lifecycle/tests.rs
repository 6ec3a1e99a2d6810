use std::collections::BTreeSet;

use nanoseg_graph::endpoint::UnknownReason;
use nanoseg_graph::flow::{Outcome, Transport};
use proptest::prelude::*;

use super::*;
use crate::segment::{SegmentStatus, Sightings, hash_of, seconds, to_edges, to_learned};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn workload() -> Workload {
    Workload {
        namespace: "shop".to_owned(),
        kind: "Deployment".to_owned(),
        name: "web".to_owned(),
    }
}

fn edge(port: u16) -> EdgeKey {
    EdgeKey {
        source: Endpoint::External("203.0.113.9".parse().unwrap()),
        destination: Endpoint::Workload(workload()),
        port,
        transport: Transport::Tcp,
    }
}

fn keys(baseline: &Baseline) -> Vec<&EdgeKey> {
    baseline.keys().map(|key| &**key).collect()
}

fn seen(key: &EdgeKey, answered: bool) -> Seen<'_> {
    Seen {
        key,
        known: Known {
            sightings: Sightings {
                first_seen: Some(at(0)),
                last_seen: Some(at(0)),
                count: 1,
                outcome: Some(Outcome::Established),
            },
            ..Known::default()
        },
        suspicion: (!answered).then_some(Suspicion::Unanswered),
    }
}

/// A window that ends then, with no quiet period.
fn until(second: i64) -> Timing {
    Timing {
        window: SignedDuration::from_secs(second),
        quiet: SignedDuration::ZERO,
        started: at(0),
    }
}

fn rules() -> Rules {
    Rules {
        enforce: vec![
            (Scope::EveryOther, Some(SignedDuration::from_secs(7))),
            (Scope::Namespace("shop".to_owned()), Some(SignedDuration::from_secs(5))),
            (Scope::Namespace("kube-public".to_owned()), None),
        ],
        mode: None,
        learn_for: SignedDuration::from_secs(60),
        quiet_for: None,
        own_namespace: Some("nanoseg-system".to_owned()),
    }
}

#[test]
fn stances_and_windows() {
    let exempt = Stance::Propose(Restraint::Exempt);
    let rules = rules();
    for (namespace, mode, stance, window) in [
        ("shop", None, Stance::Enforce, 5),
        ("shop", Some(Mode::Off), Stance::Off, 5),
        ("shop", Some(Mode::Learn), Stance::Learn, 5),
        ("other", None, Stance::Enforce, 7),
        // P40: what the cluster and the controller itself depend on.
        ("kube-system", None, exempt, 60),
        ("kube-system", Some(Mode::Enforce), exempt, 60),
        ("nanoseg-system", None, exempt, 60),
        ("kube-public", None, Stance::Enforce, 60),
    ] {
        assert_eq!(rules.stance(namespace, mode), stance, "{namespace} {mode:?}");
        assert_eq!(
            rules.window(namespace),
            SignedDuration::from_secs(window),
            "{namespace}"
        );
    }
    let (own, started) = (SignedDuration::from_mins(10), at(0));
    for (namespace, own, window) in [
        ("shop", None, 5),
        ("shop", Some(own), 600),
        ("kube-system", Some(own), 600),
    ] {
        let timing = rules.timing(namespace, own, started);
        let lengths = (timing.window.as_secs(), timing.quiet.as_millis());
        assert_eq!(lengths, (window, i128::from(window) * 100), "{namespace} {own:?}");
    }
    let nothing = Rules {
        enforce: Vec::new(),
        ..rules
    };
    assert_eq!(nothing.stance("shop", None), Stance::Propose(Restraint::NotAsked));
    assert_eq!(nothing.stance("shop", Some(Mode::Enforce)), Stance::Enforce);

    // What the settings say of everybody is the last that counts.
    let of_all = |mode| Rules {
        mode: Some(mode),
        enforce: vec![(Scope::Namespace("shop".to_owned()), None)],
        ..nothing.clone()
    };
    for (default, namespace, mode, stance) in [
        (Mode::Off, "other", None, Stance::Off),
        (Mode::Off, "kube-system", None, Stance::Off),
        (Mode::Off, "other", Some(Mode::Audit), Stance::Audit),
        (Mode::Off, "shop", None, Stance::Enforce),
        (Mode::Off, "shop", Some(Mode::Learn), Stance::Learn),
        (Mode::Learn, "other", None, Stance::Learn),
        (Mode::Audit, "other", None, Stance::Audit),
        (Mode::Enforce, "other", None, Stance::Enforce),
        (Mode::Enforce, "nanoseg-system", None, exempt),
    ] {
        let found = of_all(default).stance(namespace, mode);
        assert_eq!(found, stance, "{default:?} {namespace} {mode:?}");
    }
}

#[test]
fn a_window_gives_every_learner_time_to_come_back() {
    let life = Life::begin(at(0));
    for (window, started, end) in [(3600, 0, 3600), (3600, 9000, 9030), (3, 9000, 9003)] {
        let timing = Timing {
            window: SignedDuration::from_secs(window),
            quiet: SignedDuration::ZERO,
            started: at(started),
        };
        assert_eq!(life.ends_at(timing), at(end), "{window} {started}");
    }
}

#[test]
fn a_new_edge_restarts_the_quiet_period_and_a_loss_the_window() {
    let (first, second) = (edge(80), edge(81));
    let timing = Timing {
        window: SignedDuration::from_secs(10),
        quiet: SignedDuration::from_secs(5),
        started: at(0),
    };
    let mut life = Life::begin(at(0));
    let mut baseline = Arc::<Baseline>::default();
    for (now, edges, loss, ends) in [
        (0, 1, 0, 10),
        (8, 2, 0, 13),
        (11, 2, 0, 13),
        (12, 2, 3, 22),
        // The same total again is no new loss: a restarted controller is told it again.
        (20, 2, 3, 22),
        (21, 2, 2, 22),
    ] {
        life.lose(loss, at(now));
        let edges = [&first, &second].into_iter().take(edges).map(|key| seen(key, true));
        let judgement = life.judge(edges, &baseline, Some(timing), |_| false, at(now));
        assert!(!judgement.froze, "{now}");
        assert_eq!(life.ends_at(timing), at(ends), "{now}");
        baseline = judgement.baseline;
    }
    let edges = [&first, &second].map(|key| seen(key, true));
    assert!(life.judge(edges, &baseline, Some(timing), |_| false, at(22)).froze);
    life.lose(9, at(23));
    assert_eq!(life.loss, 3, "what is lost after the window does not count");
}

#[test]
fn p35_a_suspicious_edge_waits_for_a_person() {
    let [good, scanned, once] = [edge(80), edge(81), edge(82)];
    let suspect = |key, why| Seen {
        suspicion: Some(why),
        ..seen(key, true)
    };
    let mut life = Life::begin(at(0));
    // It had been learned before it turned out to be part of a scan.
    let judgement = life.judge(
        [seen(&good, true), seen(&scanned, true)],
        &Baseline::new(),
        Some(until(10)),
        |_| false,
        at(1),
    );
    assert_eq!(judgement.baseline.len(), 2);
    let all = || {
        [
            seen(&good, true),
            suspect(&scanned, Suspicion::Ports),
            suspect(&once, Suspicion::Once),
        ]
    };
    let judgement = life.judge(all(), &judgement.baseline, Some(until(10)), |_| false, at(2));
    assert_eq!(keys(&judgement.baseline), [&good]);
    assert_eq!(life.quarantined().len(), 2);

    let known = |key: &EdgeKey| to_edges([(key, &Known::default())]);
    let mut segment = Segment::of(&workload());
    segment.spec.accepted_edges = known(&once);
    segment.spec.rejected_edges = known(&good);
    assert_eq!(life.hear(&segment), Ok(true));
    assert_eq!(life.hear(&segment), Ok(false));
    let judgement = life.judge(all(), &judgement.baseline, Some(until(10)), |_| false, at(20));
    assert!(judgement.froze);
    assert_eq!(keys(&judgement.baseline), [&once]);
    assert_eq!(life.quarantined().keys().collect::<Vec<_>>(), [&scanned]);

    // A person's word holds for a frozen baseline, too.
    segment.spec.accepted_edges = known(&scanned);
    segment.spec.rejected_edges = known(&once);
    life.hear(&segment).unwrap();
    let judgement = life.judge(all(), &judgement.baseline, Some(until(10)), |_| false, at(21));
    assert_eq!(keys(&judgement.baseline), [&scanned]);
    assert_eq!(judgement.violations.len(), 2);

    // Another workload's edge is not this one's to accept.
    let mut foreign = edge(99);
    foreign.destination = Endpoint::Node("node1".to_owned());
    segment.spec.accepted_edges = known(&foreign);
    segment.spec.rejected_edges.clear();
    life.hear(&segment).unwrap();
    assert!(life.accepted.is_empty());
}

#[test]
fn after_the_window_an_edge_is_novel_once_and_never_learned() {
    let (known, novel) = (edge(80), edge(22));
    let mut life = Life::begin(at(0));
    let nowhere = |_| false;
    assert!(
        !life
            .judge([seen(&known, true)], &Baseline::new(), Some(until(10)), nowhere, at(9))
            .froze
    );
    assert!(
        life.judge([seen(&known, true)], &Baseline::new(), Some(until(10)), nowhere, at(10))
            .froze
    );
    let judgement = life.judge(
        [seen(&known, true), seen(&novel, false)],
        &Baseline::new(),
        Some(until(10)),
        nowhere,
        at(11),
    );
    assert_eq!(
        judgement.violations,
        std::slice::from_ref(&novel),
        "what a policy refused is a violation as well"
    );
    assert_eq!(keys(&judgement.baseline), [&known]);
    let judgement = life.judge([seen(&novel, true)], &Baseline::new(), Some(until(10)), nowhere, at(12));
    assert_eq!((judgement.violations, judgement.baseline.len()), (Vec::new(), 1));

    // A person lets it learn again.
    life.set_mode(Some(Mode::Learn), at(13));
    let judgement = life.judge([seen(&novel, true)], &Baseline::new(), None, nowhere, at(13));
    assert_eq!(judgement.baseline.len(), 2);
    // And forget.
    life.set_mode(Some(Mode::Off), at(14));
    assert_eq!(life.kept().len(), 0);
}

#[test]
fn nothing_is_frozen_before_something_was_learned() {
    let mut life = Life::begin(at(0));
    let refused = edge(80);
    let judgement = life.judge(
        [seen(&refused, false)],
        &Baseline::new(),
        Some(until(10)),
        |_| false,
        at(99),
    );
    assert_eq!((judgement.froze, judgement.unanswered), (false, 1));
}

#[test]
fn p14_an_address_that_turns_out_to_be_a_pods_leaves_the_baseline_while_it_is_learned() {
    let mut life = Life::begin(at(0));
    Arc::make_mut(&mut life.kept).insert(Arc::new(edge(80)), Known::default());
    assert_eq!(
        life.judge([], &Baseline::new(), Some(until(10)), |_| true, at(1))
            .baseline
            .len(),
        0
    );
}

#[test]
fn an_unknown_end_joins_the_baseline_while_learning_and_is_no_violation_later() {
    let unknown = EdgeKey {
        source: Endpoint::Unknown {
            reason: UnknownReason::PodNotSeen,
            address: None,
        },
        ..edge(80)
    };
    let mut life = Life::begin(at(0));
    assert_eq!(
        life.judge(
            [seen(&unknown, true)],
            &Baseline::new(),
            Some(until(10)),
            |_| false,
            at(1)
        )
        .baseline
        .len(),
        1
    );
    let mut life = Life::begin(at(0));
    life.judge(
        [seen(&edge(80), true)],
        &Baseline::new(),
        Some(until(10)),
        |_| false,
        at(10),
    );
    let judgement = life.judge(
        [seen(&unknown, true)],
        &Baseline::new(),
        Some(until(10)),
        |_| false,
        at(11),
    );
    assert_eq!((judgement.baseline.len(), judgement.violations), (1, Vec::new()));
}

/// What the controller would write of a life.
fn status(life: &Life, baseline: &Baseline) -> Segment {
    let none = Known::default();
    let novel = to_edges(life.novel().keys().map(|key| (key, &none)));
    let mut segment = Segment::of(&workload());
    segment.status = Some(SegmentStatus {
        phase: crate::segment::Phase::Learning,
        mode: None,
        conditions: Vec::new(),
        last_novel: Some(seconds(life.last_novel)),
        loss: life.loss,
        last_loss: life.last_loss.map(seconds),
        last_run: None,
        last_rollout: None,
        watched_since: None,
        coverage: None,
        quarantined: Vec::new(),
        proposal_hash: None,
        rolled_back: None,
        history: Vec::new(),
        reason: String::new(),
        workload: String::new(),
        selector: std::collections::BTreeMap::new(),
        learning_since: seconds(life.learning_since),
        frozen_at: life.frozen_at.map(seconds),
        gone_since: None,
        edges: 0,
        baseline: to_learned(baseline),
        packed: None,
        baseline_hash: hash_of(baseline),
        novel: 0,
        novel_edges: novel
            .into_iter()
            .map(|edge| NovelEdge {
                edge,
                first_seen: None,
                count: 1,
                decision: None,
            })
            .collect(),
        policy: None,
        proposal: None,
        notes: Vec::new(),
        applied_hash: None,
    });
    segment
}

proptest! {
    #[test]
    fn a_baseline_never_shrinks_and_never_changes_once_it_is_frozen(
        rounds in proptest::collection::vec((proptest::collection::btree_set(1_u16..12, 0..6), any::<bool>()), 1..20),
        end in 0_i64..20,
    ) {
        let mut life = Life::begin(at(0));
        let mut baseline = Arc::<Baseline>::default();
        let mut frozen: Option<Arc<Baseline>> = None;
        let mut reported = BTreeSet::new();
        let mut current = BTreeSet::new();
        for (now, (ports, restart)) in (0..).zip(rounds) {
            // Reports are cumulative within a run of the controller; a restarted one begins with none.
            if restart {
                life = Life::read(&status(&life, &baseline), at(now)).unwrap();
                current.clear();
            }
            current.extend(ports);
            let keys: Vec<EdgeKey> = current.iter().map(|port| edge(*port)).collect();
            let judgement = life.judge(keys.iter().map(|key| seen(key, true)), &baseline, Some(until(end)), |_| false, at(now));
            for key in baseline.keys() {
                prop_assert!(judgement.baseline.contains_key(key));
            }
            if let Some(frozen) = &frozen {
                prop_assert_eq!(&judgement.baseline, frozen);
                for key in &keys {
                    prop_assert!(frozen.contains_key(key) || life.novel().contains_key(key));
                }
            }
            for violation in judgement.violations {
                prop_assert!(frozen.is_some() && reported.insert(violation));
            }
            if judgement.froze {
                prop_assert!(now >= end && frozen.is_none());
                frozen = Some(judgement.baseline.clone());
            }
            baseline = judgement.baseline;
        }
    }
}
