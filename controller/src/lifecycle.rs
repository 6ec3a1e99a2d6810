//! The life of a segment: its learning window, its baseline, and what is novel afterwards. Pure; the time is passed in.
//!
//! Laws:
//! * a baseline never shrinks while it is learned across restarts, and never changes once it is frozen, but by a person's word or
//!   because an edge of it turns out to be part of a scan;
//! * after the window an edge is never learned by itself: it is novel, once;
//! * an empty baseline is never frozen: a workload's window begins when it is first seen talking;
//! * a baseline is not frozen sooner than a quiet period after the last new edge, nor sooner than a whole window after the last
//!   loss, nor before its pods have gone through what [`pods`] says;
//! * an edge belongs to both of its workloads, and each judges it by its own window.

pub mod contest;
pub mod guard;
pub mod novel;
pub mod pods;
#[cfg(test)]
mod tests;
pub mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use nanoseg_graph::connection::EdgeKey;
use nanoseg_graph::endpoint::{Endpoint, Workload};

use self::novel::Novel;
use self::pods::{Awaits, Member, Pods};
use crate::segment::{
    self, Baseline, BaselineEdge, Decision, Known, Mode, NovelEdge, Phase, QuarantinedEdge, Segment, SegmentError,
    Suspicion,
};

/// How long a learner may take to come back to a controller that has restarted. No window ends sooner after a start, so that
/// what was seen while the controller was away is learned and not taken for novel.
pub const LEARNERS_RETURN: SignedDuration = SignedDuration::from_secs(30);

/// Where names are asked for.
const DNS: u16 = 53;

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
    /// What holds where neither a Segment, nor its namespace's label, nor `enforce` says anything; `None`: learn and propose.
    pub mode: Option<Mode>,
    /// How long to learn.
    pub learn_for: SignedDuration,
    /// For how long no edge may be new before a baseline is frozen; `None`: a tenth of the time that the workload is learned.
    pub quiet_for: Option<SignedDuration>,
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
    /// Learn for a while, then propose, and take back what was done.
    Audit,
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

impl Stance {
    /// The mode that comes to it.
    pub const fn mode(self) -> Mode {
        match self {
            Self::Off => Mode::Off,
            Self::Learn | Self::Propose(_) => Mode::Learn,
            Self::Audit => Mode::Audit,
            Self::Enforce => Mode::Enforce,
        }
    }
}

impl Rules {
    /// What may be done with a workload whose Segment, or else its namespace's label, says `mode`.
    pub fn stance(&self, namespace: &str, mode: Option<Mode>) -> Stance {
        let is_named = self.named(namespace).is_some();
        let is_exempt = !is_named && self.is_exempt(namespace);
        let is_asked_for = is_named || (!is_exempt && self.everywhere().is_some());
        let settled = if is_asked_for { Some(Mode::Enforce) } else { self.mode };
        match mode.or(settled) {
            Some(Mode::Off) => Stance::Off,
            Some(Mode::Learn) => Stance::Learn,
            Some(Mode::Audit) => Stance::Audit,
            Some(Mode::Enforce) | None if is_exempt => Stance::Propose(Restraint::Exempt),
            Some(Mode::Enforce) => Stance::Enforce,
            None => Stance::Propose(Restraint::NotAsked),
        }
    }

    /// How long a workload of a namespace is learned whose Segment says nothing of it.
    pub fn window(&self, namespace: &str) -> SignedDuration {
        let asked = match self.named(namespace) {
            Some(asked) => Some(asked),
            None if self.is_exempt(namespace) => None,
            None => self.everywhere(),
        };
        asked.and_then(|(_, window)| *window).unwrap_or(self.learn_for)
    }

    /// When a workload's window may end that a controller learns which was started then. `own`: what its Segment says of it.
    pub fn timing(&self, namespace: &str, own: Option<SignedDuration>, started: Timestamp) -> Timing {
        let window = own.unwrap_or_else(|| self.window(namespace));
        Timing {
            window,
            quiet: self.quiet_for.unwrap_or(window / 10),
            started,
        }
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

/// What a learning window's end depends on.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long to learn, without loss.
    pub window: SignedDuration,
    /// For how long no edge may be new.
    pub quiet: SignedDuration,
    /// When the controller was started.
    pub started: Timestamp,
}

/// What is known of one workload, whether or not the controller restarted in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// What its Segment says, or else its namespace's label.
    pub mode: Option<Mode>,
    /// When it was first seen talking.
    pub learning_since: Timestamp,
    /// When an edge last joined the baseline while it was learned.
    pub last_novel: Timestamp,
    /// How much was lost of it while it was learned.
    pub loss: u64,
    /// When that last grew.
    pub last_loss: Option<Timestamp>,
    /// The window's end, once it has passed.
    pub frozen_at: Option<Timestamp>,
    /// While learning: the edges of earlier runs of the controller. Frozen: the baseline, held once with who was told it.
    kept: Arc<Baseline>,
    /// Edges outside the frozen baseline that earlier rounds saw.
    novel: BTreeMap<EdgeKey, Novel>,
    /// Edges that were seen while learning and wait for a person.
    quarantined: BTreeMap<EdgeKey, Suspicion>,
    /// Edges that a person wants in the baseline.
    accepted: Baseline,
    /// Edges that a person wants out of it.
    rejected: BTreeSet<EdgeKey>,
    /// What its pods go through while it is learned.
    pods: Pods,
}

/// What a round found out about a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The edges that its policy must allow.
    pub baseline: Arc<Baseline>,
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
    /// What a person should look at first.
    pub suspicion: Option<Suspicion>,
}

impl Life {
    /// The life of a workload that was just seen talking for the first time.
    pub fn begin(now: Timestamp) -> Self {
        Self {
            mode: None,
            learning_since: now,
            last_novel: now,
            loss: 0,
            last_loss: None,
            frozen_at: None,
            kept: Arc::default(),
            novel: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            accepted: Baseline::new(),
            rejected: BTreeSet::new(),
            pods: Pods::default(),
        }
    }

    /// The life that a Segment tells of.
    pub fn read(segment: &Segment, now: Timestamp) -> Result<Self, SegmentError> {
        let mut life = Self::begin(now);
        life.mode = segment.spec.mode;
        life.hear(segment)?;
        // What was switched off has forgotten everything, and begins anew when it is switched on.
        let Some(status) = segment.status.as_ref().filter(|status| status.phase != Phase::Off) else {
            return Ok(life);
        };
        life.learning_since = status.learning_since.0;
        life.last_novel = status.last_novel.as_ref().unwrap_or(&status.learning_since).0;
        life.loss = status.loss;
        life.last_loss = status.last_loss.as_ref().map(|at| at.0);
        life.frozen_at = status.frozen_at.as_ref().map(|at| at.0);
        let mut kept = segment::from_learned(&status.baseline)?;
        life.pods = Pods::read(status);
        if kept.is_empty() {
            life.frozen_at = None;
        }
        if life.frozen_at.is_none() {
            // Whoever is still unknown is so in the learners' reports as well.
            kept.retain(|key, _| !has_unknown_end(key));
        }
        life.kept = Arc::new(kept);
        for NovelEdge {
            edge,
            first_seen,
            count,
            decision,
        } in &status.novel_edges
        {
            let edges = segment::from_edges(std::slice::from_ref(edge))?;
            let first_seen = first_seen.as_ref().map_or(now, |at| at.0);
            let novel = Novel::found(first_seen, *count, *decision);
            life.novel
                .extend(segment::into_keys(edges).map(|key| (key, novel.clone())));
        }
        for QuarantinedEdge { edge, suspicion } in &status.quarantined {
            let edges = segment::from_edges(std::slice::from_ref(edge))?;
            life.quarantined
                .extend(segment::into_keys(edges).map(|key| (key, *suspicion)));
        }
        Ok(life)
    }

    /// Takes in which edges people accept and reject. Edges of other workloads than the Segment's are passed over. Returns
    /// whether that changes anything.
    pub fn hear(&mut self, segment: &Segment) -> Result<bool, SegmentError> {
        let subject = Endpoint::Workload(segment.subject()?);
        let of_subject = |edges: &[BaselineEdge]| -> Result<Baseline, SegmentError> {
            let mut edges = segment::from_edges(edges)?;
            edges.retain(|key, _| key.source == subject || key.destination == subject);
            Ok(edges)
        };
        let rejected: BTreeSet<EdgeKey> = segment::into_keys(of_subject(&segment.spec.rejected_edges)?).collect();
        let mut accepted = of_subject(&segment.spec.accepted_edges)?;
        accepted.retain(|key, _| !rejected.contains(key));
        let changed = accepted != self.accepted || rejected != self.rejected;
        self.accepted = accepted;
        self.rejected = rejected;
        Ok(changed)
    }

    /// Every edge outside the frozen baseline that was ever seen.
    pub const fn novel(&self) -> &BTreeMap<EdgeKey, Novel> {
        &self.novel
    }

    /// Takes in what policies say of an edge outside the frozen baseline.
    pub fn decide(&mut self, key: &EdgeKey, decision: Decision) {
        if let Some(novel) = self.novel.get_mut(key) {
            novel.decision = Some(decision);
        }
    }

    /// Edges that were seen while learning and wait for a person.
    pub const fn quarantined(&self) -> &BTreeMap<EdgeKey, Suspicion> {
        &self.quarantined
    }

    /// A question for a name that was answered and that a policy from this baseline would cut: its workload asks, and no edge of the
    /// baseline lets it ask anybody.
    pub fn cut_name_lookup(&self, workload: &Workload, baseline: &Baseline) -> Option<&EdgeKey> {
        let asks = |key: &EdgeKey| key.port == DNS && key.source.workload() == Some(workload);
        if baseline.keys().any(|key| asks(key)) {
            return None;
        }
        let waiting = self.quarantined.iter();
        let waiting = waiting
            .filter(|(_, why)| **why != Suspicion::Unanswered)
            .map(|(key, _)| key);
        waiting.chain(&self.rejected).find(|key| asks(key))
    }

    /// What is kept of earlier runs; the baseline itself once that is frozen.
    pub const fn kept(&self) -> &Arc<Baseline> {
        &self.kept
    }

    /// Takes the mode that people have set.
    pub fn set_mode(&mut self, mode: Option<Mode>, now: Timestamp) {
        let was_off = self.mode == Some(Mode::Off);
        if was_off != (mode == Some(Mode::Off)) {
            self.forget(now);
        }
        self.mode = mode;
    }

    /// Forgets what was learned of a workload that is switched off, if a Segment told of it that was read when it was off already.
    pub fn switch_off(&mut self, now: Timestamp) {
        if self.frozen_at.is_some() || !self.kept.is_empty() {
            self.forget(now);
        }
    }

    fn forget(&mut self, now: Timestamp) {
        let (accepted, rejected) = (std::mem::take(&mut self.accepted), std::mem::take(&mut self.rejected));
        *self = Self {
            mode: self.mode,
            accepted,
            rejected,
            ..Self::begin(now)
        };
    }

    /// Takes in how much was lost of the workload in all. A controller that has restarted is told again of losses that it knew:
    /// what is not more than that is no new loss. What is lost after the window does not count.
    pub fn lose(&mut self, total: u64, now: Timestamp) {
        if self.frozen_at.is_none() && total > self.loss {
            self.loss = total;
            self.last_loss = Some(now);
        }
    }

    /// Takes in the pods of the workload, of this kind, as they are. Learners are all back at `ready`. What pods do after the window
    /// does not count.
    pub fn look(&mut self, kind: &str, members: &[Member], ready: Timestamp, now: Timestamp) {
        if self.frozen_at.is_none() {
            let ready = ready <= now;
            self.pods.look(kind, members, self.learning_since, ready, now);
        }
    }

    /// What its pods went through while it was learned.
    pub const fn pods(&self) -> &Pods {
        &self.pods
    }

    /// What it waits for whatever the time, while it is learned.
    pub fn awaits(&self) -> Option<&Awaits> {
        self.pods.awaits().filter(|_| self.frozen_at.is_none())
    }

    /// When every learner has had the time to come back after the controller was started.
    pub fn ready_at(
        Timing {
            window,
            quiet: _,
            started,
        }: Timing,
    ) -> Timestamp {
        started
            .checked_add(window.min(LEARNERS_RETURN))
            .unwrap_or(Timestamp::MAX)
    }

    /// When the window ends, if it can: not before every learner has had the time to come back after the controller was started.
    pub fn ends_at(&self, timing: Timing) -> Timestamp {
        let Timing {
            window,
            quiet,
            started: _,
        } = timing;
        let later = |at: Timestamp, by: SignedDuration| at.checked_add(by).unwrap_or(Timestamp::MAX);
        let unbroken = later(self.last_loss.unwrap_or(self.learning_since), window);
        later(self.learning_since, window)
            .max(unbroken)
            .max(later(self.last_novel, quiet))
            .max(self.pods.restless_until().map_or(Timestamp::MIN, |at| later(at, quiet)))
            .max(Self::ready_at(timing))
    }

    /// When to judge it again although nothing happens until then, while it is learned.
    pub fn wakes_at(&self, timing: Timing) -> Option<Timestamp> {
        match self.awaits() {
            None => Some(self.ends_at(timing)),
            Some(_) => self.pods.again(),
        }
    }

    /// Takes in everything that was seen of a workload by `now`, and judges it. `previous`: the baseline of the last round.
    /// `timing`: when its window ends; `None`: never. `is_internal` tells whether an address is the cluster's own.
    pub fn judge<'a>(
        &mut self,
        seen: impl IntoIterator<Item = Seen<'a>>,
        previous: &Baseline,
        timing: Option<Timing>,
        is_internal: impl Fn(IpAddr) -> bool,
        now: Timestamp,
    ) -> Judgement {
        if timing.is_none() && self.frozen_at.take().is_some() {
            self.novel.clear();
        }
        leave(&mut self.kept, |key| self.rejected.contains(key));
        self.quarantined
            .retain(|key, _| !self.rejected.contains(key) && !self.accepted.contains_key(key));

        if self.frozen_at.is_some() {
            for (key, known) in &self.accepted {
                if !self.kept.contains_key(key) {
                    Arc::make_mut(&mut self.kept).insert(Arc::clone(key), known.clone());
                }
                self.novel.remove(key);
            }
            return self.compare(seen, now);
        }

        // An earlier run may have taken a pod's address for an external one before it had seen the pod.
        let misread = |end: &Endpoint| matches!(end, Endpoint::External(address) if is_internal(*address));
        let misread = |key: &EdgeKey| misread(&key.source) || misread(&key.destination);
        leave(&mut self.kept, misread);
        self.quarantined.retain(|key, _| !misread(key));
        let kept = self.kept.iter();
        let mut baseline: BTreeMap<Arc<EdgeKey>, Known> =
            kept.map(|(key, known)| (Arc::clone(key), known.clone())).collect();
        let mut unanswered = 0;
        for Seen { key, known, suspicion } in seen {
            if self.rejected.contains(key) {
                continue;
            }
            let learned_before = self.kept.contains_key(key);
            match suspicion.filter(|_| !self.accepted.contains_key(key)) {
                // A learner that has restarted counts anew.
                Some(Suspicion::Once | Suspicion::Unanswered) if learned_before => {}
                Some(suspicion) => {
                    unanswered += usize::from(suspicion == Suspicion::Unanswered);
                    baseline.remove(key);
                    if learned_before {
                        Arc::make_mut(&mut self.kept).remove(key);
                    }
                    self.quarantined.insert(key.clone(), suspicion);
                    continue;
                }
                None => {}
            }
            self.quarantined.remove(key);
            match baseline.get_mut(key) {
                Some(told) => told.extend(known),
                None => drop(baseline.insert(Arc::new(key.clone()), known)),
            }
        }
        for (key, known) in &self.accepted {
            baseline.entry(Arc::clone(key)).or_default().extend(known.clone());
        }
        if baseline
            .keys()
            .any(|key| !previous.contains_key(key) && !has_unknown_end(key))
        {
            self.last_novel = now;
        }
        let is_over = |timing| self.awaits().is_none() && self.ends_at(timing) <= now;
        let froze = timing.is_some_and(is_over) && !baseline.is_empty();
        let baseline = Arc::new(Baseline::from(baseline));
        if froze {
            self.frozen_at = Some(now);
            self.kept = Arc::clone(&baseline);
        }
        Judgement {
            baseline,
            violations: Vec::new(),
            unanswered,
            froze,
        }
    }

    /// Compares what was seen with a baseline that is frozen.
    fn compare<'a>(&mut self, seen: impl IntoIterator<Item = Seen<'a>>, now: Timestamp) -> Judgement {
        // What nobody answered may be what a policy refused, so it counts here. An unknown end does not: it may turn out to
        // be one of the baseline's.
        let mut violations = Vec::new();
        for Seen {
            key,
            known,
            suspicion: _,
        } in seen
        {
            if let Some(kept) = self.kept.get(key) {
                let mut sightings = kept.sightings;
                sightings.extend(known.sightings);
                if sightings != kept.sightings
                    && let Some(kept) = Arc::make_mut(&mut self.kept).get_mut(key)
                {
                    kept.sightings = sightings;
                }
                continue;
            }
            if has_unknown_end(key) {
                continue;
            }
            let (first_seen, attempts) = (known.sightings.first_seen.unwrap_or(now), known.sightings.count);
            if let Some(novel) = self.novel.get_mut(key) {
                novel.count(first_seen, attempts);
            } else {
                let novel = Novel::found(first_seen, attempts, None);
                self.novel.insert(key.clone(), novel);
                violations.push(key.clone());
            }
        }
        Judgement {
            baseline: Arc::clone(&self.kept),
            violations,
            ..Judgement::default()
        }
    }
}

/// Takes edges out. A baseline that has none of them stays shared.
fn leave(baseline: &mut Arc<Baseline>, is_out: impl Fn(&EdgeKey) -> bool) {
    if baseline.keys().any(|key| is_out(key)) {
        Arc::make_mut(baseline).retain(|key, _| !is_out(key));
    }
}

/// Whether an end of an edge could not be attributed.
pub const fn has_unknown_end(key: &EdgeKey) -> bool {
    matches!(key.source, Endpoint::Unknown { .. }) || matches!(key.destination, Endpoint::Unknown { .. })
}
