//! What a Segment's status says, from what the core knows of its workload.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::endpoint::Workload;
use nanoseg_policy::map::counted;
use nanoseg_policy::synthesize::Proposal;

use super::conditions::{conditions, word_of};
use super::memory::Subject;
use super::open::learning;
use crate::lifecycle::contest::Contest;
use crate::lifecycle::trial::Trial;
use crate::lifecycle::{Life, Restraint, Stance, Timing};
use crate::segment::{
    Baseline, Decision, Known, LISTED, LearnedEdge, NovelEdge, Phase, QuarantinedEdge, REVISIONS, Revision, Rollback,
    SegmentStatus, hash_of, hash_of_text, seconds, to_edges, to_learned_since,
};

/// How a workload's policy stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is not to be live.
    NotWanted,
    /// It is to be live, and is not yet.
    Underway,
    /// It is live as it is to be.
    Live,
    /// It is live in another form, or was until somebody deleted it, and the right one is on its way.
    Mending,
    /// It is to be live, and something stands in the way.
    Hindered(String),
    /// People promote it, and nobody has approved this proposal; what is live stays as it is.
    Unapproved {
        /// The proposal's hash.
        hash: String,
        /// Another one was approved.
        outdated: bool,
    },
    /// It would isolate its workload from the cluster's DNS, which the workload asks.
    CutsNames(String),
    /// Others own it, and it is not as it is to be.
    Drifted(Drift),
    /// Somebody changes it each time that it is repaired, and it is left alone for a while.
    Contested {
        /// Until when.
        until: Timestamp,
    },
    /// It was live, and was taken back because an edge of the baseline was not answered any more.
    RolledBack,
    /// It would cut what was seen once, and a person has not said yet whether that belongs to the workload.
    Suspended {
        /// How many edges wait.
        once: usize,
    },
}

/// How the live policy differs from what it is to be, where others own it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drift {
    /// There is none.
    Missing,
    /// It says something else.
    Differs,
    /// It is live, and is not to be, for this reason.
    Unwanted(&'static str),
}

impl Drift {
    /// In a word.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Missing => "DriftMissing",
            Self::Differs => "DriftDiffers",
            Self::Unwanted(_) => "DriftUnwanted",
        }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("drift: the proposed NetworkPolicy is not on the cluster"),
            Self::Differs => f.write_str("drift: the NetworkPolicy on the cluster is not the proposed one"),
            Self::Unwanted(reason) => write!(f, "drift: the NetworkPolicy is on the cluster, although {reason}"),
        }
    }
}

/// What a status depends on beside its workload.
#[derive(Clone, Debug)]
pub(super) struct Standpoint {
    /// What may be done with it.
    pub(super) stance: Stance,
    /// When its window ends.
    pub(super) timing: Timing,
    /// How its policy stands.
    pub(super) standing: Standing,
    /// What is wrong with its namespace's label.
    pub(super) label_fault: Option<String>,
    /// Others own the policies, and nothing of them is written.
    pub(super) reports_only: bool,
    /// What the cluster was shown not to do with policies.
    pub(super) refuted: Option<String>,
    /// The time.
    pub(super) now: Timestamp,
}

/// A person learns of a novel edge well within five seconds, and who makes many is written down no more often than this.
const NOVEL_WAITS: SignedDuration = SignedDuration::from_secs(2);

/// A policy as YAML.
pub(super) fn yaml(policy: &NetworkPolicy) -> String {
    // Maps with string keys and plain values: nothing in a policy is beyond YAML.
    serde_yaml::to_string(policy).unwrap_or_default()
}

pub(super) fn status_of(workload: &Workload, subject: &Subject, at: &Standpoint) -> SegmentStatus {
    let Subject {
        segment,
        life,
        baseline,
        unanswered: _,
        gone_since,
        selector,
        proposal,
        proposal_hash,
        checked: _,
        unwritten: _,
        think_at: _,
        is_outdated: _,
        is_planned: _,
        plan_at: _,
        is_put_off: _,
        turn: _,
        written_at: _,
        trial,
        rollback,
        contest: _,
        told: _,
        history: _,
        conditions: _,
    } = subject;
    let Standpoint {
        stance,
        timing: _,
        standing,
        label_fault: _,
        reports_only: _,
        refuted: _,
        now: _,
    } = at;
    let written = segment.as_ref().and_then(|segment| segment.status.as_ref());
    let (phase, reason) = phase_of(workload, subject, at);
    let proposed = proposal.as_ref().and_then(|proposal| proposal.as_ref().ok());
    let policy = proposed.map(|proposal| &*proposal.policy);
    let known = written.and_then(|status| status.proposal.as_ref());
    let known = known.filter(|known| proposal_hash.as_ref() == Some(&hash_of_text(known)));
    let text = policy.map(|policy| known.cloned().unwrap_or_else(|| yaml(policy)));
    let applied_hash = match (phase, stance, standing) {
        (Phase::Off | Phase::Gone, ..) | (_, Stance::Audit, _) | (_, _, Standing::RolledBack) => None,
        (_, _, Standing::Live) => proposal_hash.clone(),
        (
            _,
            _,
            Standing::NotWanted
            | Standing::Underway
            | Standing::Mending
            | Standing::Hindered(_)
            | Standing::Unapproved { .. }
            | Standing::CutsNames(_)
            | Standing::Drifted(_)
            | Standing::Contested { .. }
            | Standing::Suspended { .. },
        ) => written.and_then(|status| status.applied_hash.clone()),
    };
    let history = history_of(subject, at, proposal_hash.as_ref());
    SegmentStatus {
        conditions: conditions(subject, (phase, &reason), at),
        phase,
        reason,
        workload: format!("{}/{}", workload.kind, workload.name),
        selector: selector.as_deref().cloned().unwrap_or_default(),
        mode: Some(stance.mode()),
        learning_since: seconds(life.learning_since),
        last_novel: Some(seconds(life.last_novel)),
        loss: life.loss,
        last_loss: life.last_loss.map(seconds),
        last_run: life.pods().cycled().map(seconds),
        last_rollout: life.pods().turned().map(seconds),
        watched_since: life.pods().watched_since().map(seconds),
        coverage: life.pods().coverage().cloned(),
        frozen_at: life.frozen_at.map(seconds),
        gone_since: gone_since.map(seconds),
        edges: count(baseline.len()),
        baseline: told(
            to_learned_since(baseline, written.map_or(&[], |status| &status.baseline)),
            baseline,
            trial.as_ref(),
        ),
        packed: None,
        baseline_hash: hash_of(baseline),
        novel: count(life.novel().len()),
        novel_edges: novel_of(life),
        quarantined: quarantined_of(life),
        policy: policy.and_then(|policy| policy.metadata.name.clone()),
        proposal: text,
        proposal_hash: proposal_hash.clone(),
        notes: notes_of(subject, at),
        applied_hash,
        rolled_back: rollback.clone(),
        history,
    }
}

/// A baseline as it is listed, with what the trial of the live policy has shown.
pub(super) fn told(mut edges: Vec<LearnedEdge>, baseline: &Baseline, trial: Option<&Trial>) -> Vec<LearnedEdge> {
    for (edge, key) in edges.iter_mut().zip(baseline.keys()) {
        edge.answered = trial.and_then(|trial| trial.answered(key));
    }
    edges
}

/// Whether one status differs from the other in what a trial has shown, and in nothing else.
pub(super) fn differ_by_trial(one: &SegmentStatus, other: &SegmentStatus) -> bool {
    let rest = |status: &SegmentStatus| {
        let mut status = status.clone();
        for edge in &mut status.baseline {
            edge.answered = None;
        }
        status
    };
    one != other && rest(one) == rest(other)
}

/// The proposals that were live, up to the one that is now.
fn history_of(subject: &Subject, at: &Standpoint, proposal_hash: Option<&String>) -> Vec<Revision> {
    let mut history = subject.history.clone();
    if let (Standing::Live, Some(hash)) = (&at.standing, proposal_hash)
        && history
            .last()
            .is_none_or(|last| last.hash != *hash || last.rolled_back_at.is_some())
    {
        history.push(Revision {
            hash: hash.clone(),
            at: seconds(at.now),
            rolled_back_at: None,
        });
        history.drain(..history.len().saturating_sub(REVISIONS));
    }
    if let (Some(rollback), Some(last)) = (&subject.rollback, history.last_mut())
        && last.hash == rollback.hash
    {
        last.rolled_back_at = Some(rollback.at.clone());
    }
    history
}

fn quarantined_of(life: &Life) -> Vec<QuarantinedEdge> {
    let unlisted = Known::default();
    life.quarantined()
        .iter()
        .take(LISTED)
        .flat_map(|(key, suspicion)| {
            let edges = to_edges([(key, &unlisted)]);
            edges.into_iter().map(|edge| QuarantinedEdge {
                edge,
                suspicion: *suspicion,
            })
        })
        .collect()
}

fn novel_of(life: &Life) -> Vec<NovelEdge> {
    let unlisted = Known::default();
    life.novel()
        .iter()
        .take(LISTED)
        .flat_map(|(key, novel)| {
            let edges = to_edges([(key, &unlisted)]);
            edges.into_iter().map(|edge| NovelEdge {
                edge,
                first_seen: Some(seconds(novel.first_seen)),
                count: novel.told(),
                decision: novel.decision,
            })
        })
        .collect()
}

/// Where the proposal is not what a person would expect, and why.
fn notes_of(subject: &Subject, at: &Standpoint) -> Vec<String> {
    let mut notes: Vec<String> = match &subject.proposal {
        Some(Ok(Proposal { notes, .. })) => notes.iter().map(ToString::to_string).collect(),
        Some(Err(refusal)) => vec![refusal.to_string()],
        None => Vec::new(),
    };
    notes.extend(
        subject
            .checked
            .iter()
            .filter_map(|checked| checked.as_ref().err())
            .cloned(),
    );
    if subject.unanswered > 0 {
        let seen = counted(subject.unanswered, "connection was seen", "connections were seen");
        notes.push(format!("{seen} that nobody answered: no rule comes of that"));
    }
    notes.extend(at.label_fault.clone());
    notes
}

fn phase_of(workload: &Workload, subject: &Subject, at: &Standpoint) -> (Phase, String) {
    let Subject { life, gone_since, .. } = subject;
    let Standpoint {
        stance,
        timing,
        standing,
        label_fault: _,
        reports_only: _,
        refuted: _,
        now,
    } = at;
    if let (Standing::Drifted(drift @ Drift::Unwanted(_)), None) = (standing, gone_since) {
        return (Phase::Degraded, drift.to_string());
    }
    if *stance == Stance::Off {
        return (Phase::Off, "its mode is Off".to_owned());
    }
    if gone_since.is_some() {
        return (
            Phase::Gone,
            "the workload is gone; what was learned is kept for a day".to_owned(),
        );
    }
    if life.frozen_at.is_none() {
        return match stance {
            Stance::Learn => (
                Phase::Learning,
                "its mode is Learn: new edges join the baseline until that changes".to_owned(),
            ),
            Stance::Off | Stance::Propose(_) | Stance::Audit | Stance::Enforce => learning(subject, *timing, *now),
        };
    }
    match hindrance(workload, subject, at) {
        Some(hindrance) => (Phase::Degraded, hindrance),
        None => frozen(workload, subject, at),
    }
}

/// How far a workload has come whose baseline is frozen, with nothing in the way.
fn frozen(workload: &Workload, subject: &Subject, at: &Standpoint) -> (Phase, String) {
    let Subject { life, proposal, .. } = subject;
    let denied = life
        .novel()
        .values()
        .filter(|novel| novel.decision == Some(Decision::Denied));
    let Standpoint { stance, standing, .. } = at;
    let Workload {
        namespace,
        name,
        kind: _,
    } = workload;
    match (stance, standing) {
        (_, Standing::Drifted(drift)) => (Phase::Proposed, drift.to_string()),
        (_, Standing::Live | Standing::Mending) => {
            let directions: Vec<String> = match proposal {
                Some(Ok(proposal)) => proposal.directions.iter().map(ToString::to_string).collect(),
                Some(Err(_)) | None => Vec::new(),
            };
            (
                Phase::Enforcing,
                format!("the NetworkPolicy is live and isolates {}", directions.join(" and ")),
            )
        }
        (Stance::Enforce, Standing::Unapproved { hash, outdated }) => {
            let before = if *outdated {
                "the proposal has changed since it was approved"
            } else {
                "the proposal waits for approval"
            };
            let segment = crate::segment::name_of(workload).name;
            (
                Phase::Proposed,
                format!("{before}: `nanoseg approve {namespace}/{segment}`, or {hash} in spec.approval"),
            )
        }
        (Stance::Enforce, Standing::Suspended { once }) => (
            Phase::Stable,
            format!(
                "{} only once and would be cut: put what status.quarantined lists into spec.acceptedEdges or \
                 spec.rejectedEdges, or approve the proposal as it is",
                counted(*once, "edge was seen", "edges were seen")
            ),
        ),
        (Stance::Enforce, _) => (
            Phase::Proposed,
            "the baseline is frozen, its NetworkPolicy is on its way".to_owned(),
        ),
        (Stance::Audit, _) => (
            Phase::Auditing,
            format!(
                "the proposal denies {} of the edges that were seen since; nothing is enforced",
                denied.count()
            ),
        ),
        (Stance::Propose(Restraint::Exempt), _) => (
            Phase::Proposed,
            format!("{namespace} is enforced only if --enforce {namespace} names it"),
        ),
        (Stance::Propose(Restraint::NotAsked) | Stance::Learn | Stance::Off, _) => (
            Phase::Proposed,
            format!(
                "nobody asked to enforce {name}: --enforce {namespace}, the namespace's label nanoseg.io/mode or spec.mode: Enforce \
                 applies the proposal"
            ),
        ),
    }
}

fn contested(contest: &Contest, until: Timestamp) -> String {
    format!(
        "the NetworkPolicy is not as it is to be: {} changed it each time that it was repaired, {} times by now, and it is left alone until \
         {}. Let one of both own it: set the mode to Audit, or take the object from the other one",
        contest.who(),
        contest.repairs(),
        seconds(until).0
    )
}

fn rolled_back(workload: &Workload, Rollback { at, edge, .. }: &Rollback, reports_only: bool) -> String {
    if reports_only {
        return format!(
            "take the NetworkPolicy back: since {}, with it, {edge} is not answered any more",
            at.0
        );
    }
    let Workload { namespace, .. } = workload;
    let segment = crate::segment::name_of(workload).name;
    format!(
        "the NetworkPolicy was taken back at {}: with it, {} was not answered any more. Find out why; then `nanoseg rollback \
         {namespace}/{segment}` and `nanoseg promote {namespace}/{segment}` try it again",
        at.0, edge
    )
}

/// What stands in the way of a frozen workload's policy, or of what it is for.
fn hindrance(workload: &Workload, subject: &Subject, at: &Standpoint) -> Option<String> {
    match (&subject.proposal, &subject.checked, &at.standing) {
        (Some(Err(refusal)), _, _) => Some(refusal.to_string()),
        (_, Some(Err(fault)), _) => Some(format!("the proposal is not applied: {fault}")),
        (_, _, Standing::Hindered(reason)) => Some(reason.clone()),
        (_, _, Standing::CutsNames(edge)) => Some(format!(
            "the proposal is not applied: it would cut {edge}, by which the workload asks for names. Name it, or another way to DNS, in \
             spec.acceptedEdges"
        )),
        (_, _, Standing::Contested { until }) => Some(contested(&subject.contest, *until)),
        (_, _, Standing::RolledBack) => subject
            .rollback
            .as_ref()
            .map(|rollback| rolled_back(workload, rollback, at.reports_only)),
        (_, _, Standing::Live | Standing::Mending) => at.refuted.clone(),
        (_, _, _) => None,
    }
}

/// How long after the last write of a status the next one may follow: at once where something is decided, soon where an edge is
/// outside a frozen baseline, and as the settings say for the growth of a baseline and of lists.
pub(super) fn may_wait(live: Option<&SegmentStatus>, desired: &SegmentStatus, asked: SignedDuration) -> SignedDuration {
    let urgent = live.is_none_or(|live| {
        live.phase != desired.phase
            || live.frozen_at != desired.frozen_at
            || live.applied_hash != desired.applied_hash
            || live.rolled_back != desired.rolled_back
            || word_of(live) != word_of(desired)
            || (desired.frozen_at.is_some() && live.baseline_hash != desired.baseline_hash)
    });
    let novel = live.is_some_and(|live| live.novel != desired.novel) && desired.frozen_at.is_some();
    match (urgent, novel) {
        (true, _) => SignedDuration::ZERO,
        (false, true) => asked.min(NOVEL_WAITS),
        (false, false) => asked,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
