//! Taking back a policy that cuts what it was to allow, and letting it be applied again.
//!
//! Law: what was taken back is applied again only after a person took the mode away from Enforce or approved the proposal anew,
//! whoever restarts in between.

use std::sync::Arc;

use jiff::Timestamp;
use nanoseg_graph::connection::{ConnectionGraph, EvidenceRef};
use nanoseg_graph::flow::Reporter;

use super::memory::Subject;
use super::status::Standing;
use crate::lifecycle::Stance;
use crate::lifecycle::trial::{Counts, Finding, Trial};
use crate::segment::{Known, Rollback, seconds, to_edges};

impl Subject {
    /// Ends a rollback if a person wants that.
    pub(super) fn lift(&mut self, stance: Stance) {
        let Some(rollback) = &self.rollback else { return };
        let approval = self.approval();
        let anew =
            approval.is_some() && approval != rollback.approval.as_deref() && approval == self.proposal_hash.as_deref();
        if stance != Stance::Enforce || anew {
            self.rollback = None;
        }
    }

    /// Puts a policy on trial that has gone live, or ends the trial of one that is not. Returns when to look at it.
    pub(super) fn try_out(
        &mut self,
        standing: &Standing,
        graph: &ConnectionGraph,
        now: Timestamp,
    ) -> Option<Timestamp> {
        match standing {
            Standing::Live => {
                let hash = self.proposal_hash.clone()?;
                if self.trial.as_ref().is_some_and(|trial| trial.hash() == hash) {
                    return None;
                }
                // The Segment tells since when; of one that went live just now it does not yet.
                let told = self.history.last().filter(|_| self.applied_hash() == Some(&hash));
                let since = told.map_or(now, |revision| revision.at.0);
                self.trial = Some(Trial::begin(hash, since));
                // What was counted until now is what it is compared with.
                self.watch(graph, now, now).again
            }
            Standing::Mending | Standing::Hindered(_) | Standing::Unapproved { .. } | Standing::Contested { .. } => {
                None
            }
            Standing::NotWanted
            | Standing::Underway
            | Standing::RolledBack
            | Standing::CutsNames(_)
            | Standing::Drifted(_)
            | Standing::Suspended { .. } => {
                self.trial = None;
                None
            }
        }
    }

    /// Looks whether what the live policy allows is still answered, and decides to take it back if not.
    pub(super) fn watch(&mut self, graph: &ConnectionGraph, ready: Timestamp, now: Timestamp) -> Finding {
        let (Some(trial), None) = (&mut self.trial, &self.rollback) else {
            return Finding::default();
        };
        let counted = self.baseline.keys().filter_map(|key| {
            let evidence = graph.evidence(key)?;
            Some((Arc::clone(key), counts(evidence)))
        });
        let finding = trial.watch(counted, ready, now);
        if let Some(key) = &finding.failed {
            let hash = trial.hash().to_owned();
            let approval = self.approval().map(str::to_owned);
            self.rollback = to_edges([(key, &Known::default())]).pop().map(|edge| Rollback {
                at: seconds(now),
                hash,
                edge,
                approval,
            });
        }
        finding
    }
}

/// How often an edge was tried and answered, counted at either end: only whether the sums grow matters.
fn counts(evidence: EvidenceRef<'_>) -> Counts {
    let both = [Reporter::Source, Reporter::Destination].map(|reporter| evidence.tally(reporter));
    let mut counts = Counts::default();
    for tally in both.into_iter().flatten() {
        counts.attempted = counts.attempted.saturating_add(tally.attempted);
        counts.answered = counts.answered.saturating_add(tally.established);
    }
    counts
}
