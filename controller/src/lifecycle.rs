//! The life of a segment: its learning window, its baseline, and what is novel afterwards. Pure; the time is passed in.
//!
//! Laws:
//! * a baseline never shrinks while it is learned across restarts, and never changes once it is frozen;
//! * after the window an edge is never learned by itself: it is novel, once;
//! * an empty baseline is never frozen: a workload's window begins when it is first seen talking;
//! * an edge belongs to both of its workloads, and each judges it by its own window.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use nanoseg_graph::connection::EdgeKey;
use nanoseg_graph::endpoint::Endpoint;

use crate::segment::{self, Baseline, Known, Mode, Segment, SegmentError};

/// How long a learner may take to come back to a controller that has restarted. No window ends sooner after a start, so that
/// what was seen while the controller was away is learned and not taken for novel.
const LEARNERS_RETURN: SignedDuration = SignedDuration::from_secs(30);

/// Namespaces that make the cluster itself work.
const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// What a namespace may get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The namespace of this name.
    Namespace(String),
    /// Every namespace but the system's and the controller's own.
    EveryOther,
}

/// What the settings say of each workload.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Namespaces that may be enforced, and how long to learn first where that is not `learn_for`.
    pub enforce: Vec<(Scope, Option<SignedDuration>)>,
    /// How long to learn.
    pub learn_for: SignedDuration,
    /// The controller's own namespace: to isolate it could cut the controller off from its learners.
    pub own_namespace: Option<String>,
}

/// What may be done with a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// Nothing, and what was done is taken back.
    Off,
    /// Learn without an end.
    Learn,
    /// Learn for a while, then propose.
    Propose(Restraint),
    /// Learn for a while, then enforce.
    Enforce,
}

/// Why a workload is not enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restraint {
    /// Nobody asked for it.
    NotAsked,
    /// A namespace that the cluster or the controller itself depends on.
    Exempt,
}

impl Rules {
    /// What may be done with a workload whose Segment says `mode`.
    pub fn stance(&self, namespace: &str, mode: Option<Mode>) -> Stance {
        match mode {
            Some(Mode::Off) => Stance::Off,
            Some(Mode::Learn) => Stance::Learn,
            Some(Mode::Enforce) | None if self.named(namespace).is_some() => Stance::Enforce,
            Some(Mode::Enforce) | None if self.is_exempt(namespace) => Stance::Propose(Restraint::Exempt),
            Some(Mode::Enforce) => Stance::Enforce,
            None if self.everywhere().is_some() => Stance::Enforce,
            None => Stance::Propose(Restraint::NotAsked),
        }
    }

    /// How long a workload of a namespace is learned.
    pub fn window(&self, namespace: &str) -> SignedDuration {
        let asked = match self.named(namespace) {
            Some(asked) => Some(asked),
            None if self.is_exempt(namespace) => None,
            None => self.everywhere(),
        };
        asked.and_then(|(_, window)| *window).unwrap_or(self.learn_for)
    }

    fn is_exempt(&self, namespace: &str) -> bool {
        SYSTEM_NAMESPACES.contains(&namespace) || self.own_namespace.as_deref() == Some(namespace)
    }

    fn named(&self, namespace: &str) -> Option<&(Scope, Option<SignedDuration>)> {
        self.asked(|scope| matches!(scope, Scope::Namespace(name) if name == namespace))
    }

    fn everywhere(&self) -> Option<&(Scope, Option<SignedDuration>)> {
        self.asked(|scope| *scope == Scope::EveryOther)
    }

    fn asked(&self, fits: impl Fn(&Scope) -> bool) -> Option<&(Scope, Option<SignedDuration>)> {
        // The last one wins, as with any other option that is given twice.
        self.enforce.iter().rev().find(|(scope, _)| fits(scope))
    }
}

/// What is known of one workload, whether or not the controller restarted in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// What its Segment says.
    pub mode: Option<Mode>,
    /// When it was first seen talking.
    pub learning_since: Timestamp,
    /// The window's end, once it has passed.
    pub frozen_at: Option<Timestamp>,
    /// While learning: the edges of earlier runs of the controller. Frozen: the baseline.
    kept: Baseline,
    /// Edges outside the frozen baseline that earlier rounds saw.
    novel: BTreeSet<EdgeKey>,
}

/// What a round found out about a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The edges that its policy must allow.
    pub baseline: Baseline,
    /// Edges outside the frozen baseline that this round saw for the first time.
    pub violations: Vec<EdgeKey>,
    /// Edges that were seen while learning and are not learned, because nobody ever answered.
    pub unanswered: usize,
    /// This round ended the window.
    pub froze: bool,
}

/// What is seen of a workload's edge now.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// The edge.
    pub key: &'a EdgeKey,
    /// What is known of it.
    pub known: Known,
    /// Whether it was answered, or needs no answer.
    pub answered: bool,
}

impl Life {
    /// The life of a workload that was just seen talking for the first time.
    pub const fn begin(now: Timestamp) -> Self {
        Self {
            mode: None,
            learning_since: now,
            frozen_at: None,
            kept: Baseline::new(),
            novel: BTreeSet::new(),
        }
    }

    /// The life that a Segment tells of.
    pub fn read(segment: &Segment, now: Timestamp) -> Result<Self, SegmentError> {
        let mode = segment.spec.mode;
        let Some(status) = &segment.status else {
            return Ok(Self {
                mode,
                ..Self::begin(now)
            });
        };
        let frozen_at = status.frozen_at.as_ref().map(|at| at.0);
        let mut kept = segment::from_edges(&status.baseline)?;
        if frozen_at.is_none() {
            // Whoever is still unknown is so in the learners' reports as well.
            kept.retain(|key, _| !has_unknown_end(key));
        }
        let novel = segment::from_edges(&status.novel_edges)?.into_keys().collect();
        Ok(Self {
            mode,
            learning_since: status.learning_since.0,
            frozen_at,
            kept,
            novel,
        })
    }

    /// Every edge outside the frozen baseline that was ever seen.
    pub const fn novel(&self) -> &BTreeSet<EdgeKey> {
        &self.novel
    }

    /// What is kept of earlier runs; the baseline itself once that is frozen.
    pub const fn kept(&self) -> &Baseline {
        &self.kept
    }

    /// Takes the mode that people have set.
    pub fn set_mode(&mut self, mode: Option<Mode>, now: Timestamp) {
        let was_off = self.mode == Some(Mode::Off);
        if was_off != (mode == Some(Mode::Off)) {
            *self = Self::begin(now);
        }
        self.mode = mode;
    }

    /// When the window ends, if it can: not before every learner has had the time to come back after `started`.
    pub fn ends_at(&self, window: SignedDuration, started: Timestamp) -> Timestamp {
        let later = |at: Timestamp, by: SignedDuration| at.checked_add(by).unwrap_or(Timestamp::MAX);
        later(self.learning_since, window).max(later(started, window.min(LEARNERS_RETURN)))
    }

    /// Takes in everything that was seen of a workload by `now`, and judges it. `ends_at`: when its window ends; `None`: never.
    /// `is_internal` tells whether an address is the cluster's own.
    pub fn judge<'a>(
        &mut self,
        seen: impl IntoIterator<Item = Seen<'a>>,
        ends_at: Option<Timestamp>,
        is_internal: impl Fn(IpAddr) -> bool,
        now: Timestamp,
    ) -> Judgement {
        if ends_at.is_none() && self.frozen_at.take().is_some() {
            self.novel.clear();
        }

        if self.frozen_at.is_some() {
            // What nobody answered may be what a policy refused, so it counts here. An unknown end does not: it may turn out to
            // be one of the baseline's.
            let outside = seen
                .into_iter()
                .filter(|Seen { key, .. }| !self.kept.contains_key(key) && !has_unknown_end(key))
                .map(|Seen { key, .. }| key.clone());
            let violations: Vec<EdgeKey> = outside.filter(|key| self.novel.insert(key.clone())).collect();
            return Judgement {
                baseline: self.kept.clone(),
                violations,
                ..Judgement::default()
            };
        }

        // An earlier run may have taken a pod's address for an external one before it had seen the pod.
        let misread = |end: &Endpoint| matches!(end, Endpoint::External(address) if is_internal(*address));
        self.kept
            .retain(|key, _| !misread(&key.source) && !misread(&key.destination));
        let mut baseline = self.kept.clone();
        let mut unanswered = 0;
        for Seen { key, known, answered } in seen {
            if answered {
                baseline.entry(key.clone()).or_default().extend(known);
            } else if !baseline.contains_key(key) {
                unanswered += 1;
            }
        }
        let froze = ends_at.is_some_and(|end| end <= now) && !baseline.is_empty();
        if froze {
            self.frozen_at = Some(now);
            self.kept.clone_from(&baseline);
        }
        Judgement {
            baseline,
            violations: Vec::new(),
            unanswered,
            froze,
        }
    }
}

/// Whether an end of an edge could not be attributed.
pub const fn has_unknown_end(key: &EdgeKey) -> bool {
    matches!(key.source, Endpoint::Unknown { .. }) || matches!(key.destination, Endpoint::Unknown { .. })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nanoseg_graph::endpoint::{UnknownReason, Workload};
    use nanoseg_graph::flow::Transport;
    use proptest::prelude::*;

    use super::*;
    use crate::segment::{SegmentStatus, hash_of, seconds, to_edges};

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

    fn seen(key: &EdgeKey, answered: bool) -> Seen<'_> {
        Seen {
            key,
            known: Known::default(),
            answered,
        }
    }

    fn rules() -> Rules {
        Rules {
            enforce: vec![
                (Scope::EveryOther, Some(SignedDuration::from_secs(7))),
                (Scope::Namespace("shop".to_owned()), Some(SignedDuration::from_secs(5))),
                (Scope::Namespace("kube-public".to_owned()), None),
            ],
            learn_for: SignedDuration::from_secs(60),
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
        let nothing = Rules {
            enforce: Vec::new(),
            ..rules
        };
        assert_eq!(nothing.stance("shop", None), Stance::Propose(Restraint::NotAsked));
        assert_eq!(nothing.stance("shop", Some(Mode::Enforce)), Stance::Enforce);
    }

    #[test]
    fn a_window_gives_every_learner_time_to_come_back() {
        let life = Life::begin(at(0));
        let window = SignedDuration::from_hours(1);
        assert_eq!(life.ends_at(window, at(0)), at(3600));
        assert_eq!(
            life.ends_at(window, at(9000)),
            at(9030),
            "the controller was away when the window ended"
        );
        assert_eq!(life.ends_at(SignedDuration::from_secs(3), at(9000)), at(9003));
    }

    #[test]
    fn after_the_window_an_edge_is_novel_once_and_never_learned() {
        let (known, novel) = (edge(80), edge(22));
        let mut life = Life::begin(at(0));
        let nowhere = |_| false;
        assert!(!life.judge([seen(&known, true)], Some(at(10)), nowhere, at(9)).froze);
        assert!(life.judge([seen(&known, true)], Some(at(10)), nowhere, at(10)).froze);
        let judgement = life.judge([seen(&known, true), seen(&novel, false)], Some(at(10)), nowhere, at(11));
        assert_eq!(
            judgement.violations,
            std::slice::from_ref(&novel),
            "what a policy refused is a violation as well"
        );
        assert_eq!(judgement.baseline.keys().collect::<Vec<_>>(), [&known]);
        let judgement = life.judge([seen(&novel, true)], Some(at(10)), nowhere, at(12));
        assert_eq!((judgement.violations, judgement.baseline.len()), (Vec::new(), 1));

        // A person lets it learn again.
        life.set_mode(Some(Mode::Learn), at(13));
        let judgement = life.judge([seen(&novel, true)], None, nowhere, at(13));
        assert_eq!(judgement.baseline.len(), 2);
        // And forget.
        life.set_mode(Some(Mode::Off), at(14));
        assert_eq!(life.kept().len(), 0);
    }

    #[test]
    fn nothing_is_frozen_before_something_was_learned() {
        let mut life = Life::begin(at(0));
        let refused = edge(80);
        let judgement = life.judge([seen(&refused, false)], Some(at(10)), |_| false, at(99));
        assert_eq!((judgement.froze, judgement.unanswered), (false, 1));
    }

    #[test]
    fn p14_an_address_that_turns_out_to_be_a_pods_leaves_the_baseline_while_it_is_learned() {
        let mut life = Life::begin(at(0));
        life.kept.insert(edge(80), Known::default());
        assert_eq!(life.judge([], Some(at(10)), |_| true, at(1)).baseline.len(), 0);
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
            life.judge([seen(&unknown, true)], Some(at(10)), |_| false, at(1))
                .baseline
                .len(),
            1
        );
        let mut life = Life::begin(at(0));
        life.judge([seen(&edge(80), true)], Some(at(10)), |_| false, at(10));
        let judgement = life.judge([seen(&unknown, true)], Some(at(10)), |_| false, at(11));
        assert_eq!((judgement.baseline.len(), judgement.violations), (1, Vec::new()));
    }

    /// What the controller would write of a life.
    fn status(life: &Life, baseline: &Baseline) -> Segment {
        let none = Known::default();
        let mut segment = Segment::of(&workload());
        segment.status = Some(SegmentStatus {
            phase: crate::segment::Phase::Learning,
            reason: String::new(),
            workload: String::new(),
            learning_since: seconds(life.learning_since),
            frozen_at: life.frozen_at.map(seconds),
            gone_since: None,
            edges: 0,
            baseline: to_edges(baseline),
            baseline_hash: hash_of(baseline),
            novel: 0,
            novel_edges: to_edges(life.novel().iter().map(|key| (key, &none))),
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
            let mut baseline = Baseline::new();
            let mut frozen: Option<Baseline> = None;
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
                let judgement = life.judge(keys.iter().map(|key| seen(key, true)), Some(at(end)), |_| false, at(now));
                for key in baseline.keys() {
                    prop_assert!(judgement.baseline.contains_key(key));
                }
                if let Some(frozen) = &frozen {
                    prop_assert_eq!(&judgement.baseline, frozen);
                    for key in &keys {
                        prop_assert!(frozen.contains_key(key) || life.novel().contains(key));
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
}
