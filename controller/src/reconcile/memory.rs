//! What the core keeps of one workload between rounds.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use nanoseg_graph::cluster::Labels;
use nanoseg_graph::endpoint::{Endpoint, Workload};
use nanoseg_policy::direction::Direction;
use nanoseg_policy::synthesize::{Proposal, Refusal};
use nanoseg_policy::verify::Accepted;

use super::conditions::{promotion_of, word_of};
use super::notice::{Happening, Notice};
use super::status::{Standing, Standpoint, differ_by_trial};
use super::writes::News;
use crate::lifecycle::Life;
use crate::lifecycle::contest::Contest;
use crate::lifecycle::trial::Trial;
use crate::segment::{Baseline, Known, Phase, Revision, Rollback, Segment, SegmentStatus, hash_of, to_edges};

/// A workload that was seen talking.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// Its Segment as it was last read back; `None` until it is there.
    pub(super) segment: Option<Segment>,
    /// Its life.
    pub(super) life: Life,
    /// Its baseline, as the last round judged.
    pub(super) baseline: Arc<Baseline>,
    /// Edges that nobody answered while it is learned.
    pub(super) unanswered: usize,
    /// Since when it is gone.
    pub(super) gone_since: Option<Timestamp>,
    /// The labels that select its pods and were shown to select no others, if there are any.
    pub(super) selector: Option<Arc<Labels>>,
    /// Its policy, or why it gets none; `None` when it is switched off, gone or has no edges.
    pub(super) proposal: Option<Result<Proposal, Refusal>>,
    /// Hash of the proposal's text. Writing it as YAML takes longer than everything else that is planned.
    pub(super) proposal_hash: Option<String>,
    /// What the evaluator says of the proposal: accepted, or why it is refused.
    pub(super) checked: Option<Result<Accepted, String>>,
    /// Reports that had been judged before its Segment came to lack something; `None` while it lacks nothing.
    pub(super) unwritten: Option<u64>,
    /// When its window or the trial of its policy ends.
    pub(super) think_at: Option<Timestamp>,
    /// What its proposal follows from has changed since that was made.
    pub(super) is_outdated: bool,
    /// Nothing was heard or thought of it since it was last planned.
    pub(super) is_planned: bool,
    /// When to plan again although nothing is.
    pub(super) plan_at: Option<Timestamp>,
    /// Its Segment is to be written, and a round had no room for that.
    pub(super) is_put_off: bool,
    /// When its policy may go live, while it waits for that.
    pub(super) turn: Option<Timestamp>,
    /// When its Segment was last written.
    pub(super) written_at: Option<Timestamp>,
    /// The trial of the policy that is live.
    pub(super) trial: Option<Trial>,
    /// Why the policy was taken back, until a person lets it be applied again.
    pub(super) rollback: Option<Rollback>,
    /// Who changes its policy each time that it is repaired.
    pub(super) contest: Contest,
    /// The phase that was told last, and in a word whether it can be promoted.
    pub(super) told: Option<(Phase, String)>,
    /// The proposals that were live. Kept beside the Segment, which somebody may delete.
    pub(super) history: Vec<Revision>,
    /// What held of it by the last round, and since when.
    pub(super) conditions: Vec<Condition>,
}

impl Subject {
    pub(super) fn new(life: Life, segment: Option<Segment>) -> Self {
        let baseline = Arc::clone(life.kept());
        let status = segment.as_ref().and_then(|segment| segment.status.as_ref());
        let told = status.map(|status| (status.phase, word_of(status).unwrap_or_default().to_owned()));
        let gone_since = status.and_then(|status| status.gone_since.as_ref()).map(|at| at.0);
        Self {
            life,
            baseline,
            unanswered: 0,
            gone_since,
            selector: status
                .map(|status| &status.selector)
                .filter(|selector| !selector.is_empty())
                .map(|selector| Arc::new(selector.clone())),
            proposal: None,
            proposal_hash: None,
            checked: None,
            unwritten: None,
            think_at: None,
            is_outdated: true,
            is_planned: false,
            plan_at: None,
            is_put_off: false,
            turn: None,
            written_at: None,
            trial: status.and_then(trial_of),
            contest: Contest::default(),
            rollback: status.and_then(|status| status.rolled_back.clone()),
            told,
            history: status.map(|status| status.history.clone()).unwrap_or_default(),
            conditions: status.map(|status| status.conditions.clone()).unwrap_or_default(),
            segment,
        }
    }

    /// Whether an edge of its baseline has such an end.
    pub(super) fn has_end(&self, is_one: impl Fn(&Endpoint) -> bool) -> bool {
        self.baseline
            .keys()
            .any(|key| is_one(&key.source) || is_one(&key.destination))
    }

    /// Whether the frozen baseline was read back from the Segment: it survives a crash.
    pub(super) fn is_durable(&self) -> bool {
        let status = self.segment.as_ref().and_then(|segment| segment.status.as_ref());
        self.life.frozen_at.is_some()
            && status
                .is_some_and(|status| status.frozen_at.is_some() && status.baseline_hash == hash_of(&self.baseline))
    }

    /// Notes that its Segment does not say this yet, so many reports having been judged. Returns when to write it if all that it lacks is what
    /// a trial has shown: that keeps no learner waiting, and is told now and then.
    pub(super) fn lack(&mut self, status: &SegmentStatus, judged: u64) -> Option<Timestamp> {
        let written = self.segment.as_ref().and_then(|segment| segment.status.as_ref());
        let told_at = self.trial.as_ref().map(|trial| trial.tells_at(self.written_at));
        let told_at = told_at.filter(|_| written.is_some_and(|written| differ_by_trial(written, status)));
        self.unwritten = match told_at {
            Some(_) => None,
            None => self.unwritten.or(Some(judged)),
        };
        told_at
    }

    /// Tells of a phase, or of another reason for it, once.
    pub(super) fn announce(
        &mut self,
        workload: &Workload,
        status: &SegmentStatus,
        at: &Standpoint,
        news: &mut Vec<News>,
        notices: &mut Vec<Notice>,
    ) {
        let told = (status.phase, word_of(status).unwrap_or_default().to_owned());
        if self.told.as_ref() == Some(&told) {
            return;
        }
        if self.told.as_ref().map(|(phase, _)| *phase) != Some(status.phase) {
            news.push(News::Phase(workload.clone(), status.phase, status.reason.clone()));
        }
        self.told = Some(told);
        let what = match at.standing {
            Standing::Drifted(_) => Happening::Drift,
            Standing::Contested { .. } => Happening::Contested,
            _ => Happening::Phase(status.phase),
        };
        notices.push(self.notice(workload, what, promotion_of(status)));
    }

    /// What happened to it, to be told.
    pub(super) fn notice(&self, workload: &Workload, what: Happening, note: String) -> Notice {
        Notice::new(workload, self.uid(), what, note)
    }

    /// UID of its Segment.
    pub(super) fn uid(&self) -> Option<String> {
        self.segment.as_ref()?.metadata.uid.clone()
    }

    /// The question for names that the proposal would cut.
    pub(super) fn cut_name_lookup(&self, workload: &Workload) -> Option<String> {
        let proposal = self.proposal.as_ref()?.as_ref().ok()?;
        if !proposal.directions.contains(&Direction::Egress) {
            return None;
        }
        let key = self.life.cut_name_lookup(workload, &self.baseline)?;
        to_edges([(key, &Known::default())]).pop().map(|edge| edge.to_string())
    }

    /// How long its Segment says that it is learned.
    pub(super) fn window(&self) -> Option<SignedDuration> {
        let window = self.segment.as_ref()?.spec.learning_window.as_ref()?;
        Some(window.length())
    }

    /// The proposal that a person approves.
    pub(super) fn approval(&self) -> Option<&str> {
        self.segment.as_ref()?.spec.approval.as_deref()
    }

    /// Hash of the proposal that the Segment says was applied last.
    pub(super) fn applied_hash(&self) -> Option<&str> {
        self.segment.as_ref()?.status.as_ref()?.applied_hash.as_deref()
    }
}

/// The trial that a Segment tells of: its policy was live when it was written.
fn trial_of(status: &SegmentStatus) -> Option<Trial> {
    let live = status.history.last()?;
    if status.applied_hash.as_ref() != Some(&live.hash) || live.rolled_back_at.is_some() {
        return None;
    }
    let told = status
        .baseline
        .iter()
        .filter_map(|edge| Some((Arc::new(edge.edge.key()), edge.answered?)));
    Some(Trial::resume(live.hash.clone(), live.at.0, told))
}

/// A write that failed and is left alone for a while.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    /// Failures in a row.
    failures: u32,
    /// When to try again.
    pub(super) until: Timestamp,
    /// What was said.
    pub(super) reason: String,
    /// It was an answer about this very object, and not that nobody answered.
    pub(super) refused: bool,
}

impl Hold {
    /// One second after the first failure, twice as long after each further one, a minute at most: an API server that is away
    /// is asked rarely, and one refusal that people mend is noticed soon.
    pub(super) fn after(earlier: Option<&Self>, reason: String, refused: bool, now: Timestamp) -> Self {
        let failures = earlier.map_or(0, |hold| hold.failures).saturating_add(1);
        let seconds = 1_i64.checked_shl(failures - 1).unwrap_or(60).clamp(1, 60);
        let until = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
        Self {
            failures,
            until,
            reason,
            refused,
        }
    }
}
