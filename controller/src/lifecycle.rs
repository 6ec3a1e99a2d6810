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
            Some(asked) => asked,
            None if self.is_exempt(namespace) => None,
            None => self.everywhere().flatten(),
        };
        asked.unwrap_or(self.learn_for)
    }

    fn is_exempt(&self, namespace: &str) -> bool {
        SYSTEM_NAMESPACES.contains(&namespace) || self.own_namespace.as_deref() == Some(namespace)
    }

    fn named(&self, namespace: &str) -> Option<Option<SignedDuration>> {
        self.asked(|scope| matches!(scope, Scope::Namespace(name) if name == namespace))
    }

    fn everywhere(&self) -> Option<Option<SignedDuration>> {
        self.asked(|scope| *scope == Scope::EveryOther)
    }

    fn asked(&self, fits: impl Fn(&Scope) -> bool) -> Option<Option<SignedDuration>> {
        // The last one wins, as with any other option that is given twice.
        self.enforce
            .iter()
            .rev()
            .find(|(scope, _)| fits(scope))
            .map(|(_, window)| *window)
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
