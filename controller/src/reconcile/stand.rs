//! How a workload's policy stands: what is live against what is to be, and what there is to write.

use std::slice;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::endpoint::Workload;
use nanoseg_policy::ownership::{EVIDENCE, PolicyName, evidence, owned_workload};
use nanoseg_policy::plan::{Plan, same};

use super::memory::{Hold, Subject};
use super::pacing::Pacing;
use super::status::{Drift, Standing};
use super::writes::{PolicyStep, Why, Writes};
use crate::lifecycle::Stance;
use crate::segment::{Promotion, Suspicion};

/// Field manager of everything that the controller writes.
pub const MANAGER: &str = "nanoseg";

/// Why a live policy of ours is not wanted.
fn unwanted(subject: &Subject, stance: Stance) -> Option<&'static str> {
    match stance {
        Stance::Off => Some("its mode is Off"),
        Stance::Audit => Some("its mode is Audit"),
        Stance::Learn | Stance::Propose(_) | Stance::Enforce => {
            subject.gone_since.is_some().then_some("its workload is gone")
        }
    }
}

/// Compares the live policy of a workload, which others own, with what it is to be. There is nothing to write.
pub(super) fn compare(
    workload: &Workload,
    subject: &Subject,
    stance: Stance,
    live: Option<&NetworkPolicy>,
) -> Standing {
    let is_ours = live.is_some_and(|live| owned_workload(live).as_ref() == Some(workload));
    if let Some(reason) = unwanted(subject, stance) {
        return if is_ours {
            Standing::Drifted(Drift::Unwanted(reason))
        } else {
            Standing::NotWanted
        };
    }
    if subject.rollback.is_some() {
        return Standing::RolledBack;
    }
    let Some(Ok(accepted)) = &subject.checked else {
        return Standing::NotWanted;
    };
    if stance == Stance::Learn || subject.life.frozen_at.is_none() {
        return Standing::NotWanted;
    }
    match live {
        None if stance == Stance::Enforce => Standing::Drifted(Drift::Missing),
        None => Standing::NotWanted,
        Some(live) if !is_ours => Standing::Hindered(taken(live)),
        Some(live) if same(&with_evidence_of(live, accepted.policy()), live) => Standing::Live,
        Some(_) => Standing::Drifted(Drift::Differs),
    }
}

/// The policy with another's evidence: who owns it made it from other observations of the same edges.
fn with_evidence_of(live: &NetworkPolicy, desired: &NetworkPolicy) -> NetworkPolicy {
    let mut desired = desired.clone();
    let annotations = desired.metadata.annotations.get_or_insert_default();
    annotations.remove(EVIDENCE);
    annotations.extend(evidence(live).map(|evidence| (EVIDENCE.to_owned(), evidence.clone())));
    desired
}

fn taken(live: &NetworkPolicy) -> String {
    let name = PolicyName::of(live);
    format!("{name} is somebody else's, and is left alone: rename or delete it")
}

/// Who, beside us, changed an object last.
fn changed_by(live: &NetworkPolicy) -> Option<&str> {
    let others = live.metadata.managed_fields.iter().flatten();
    let others = others.filter(|entry| entry.manager.as_deref() != Some(MANAGER));
    others
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))?
        .manager
        .as_deref()
}

/// Compares the live policy of a workload with what it is to be, and notes what there is to write.
pub(super) fn stand(
    workload: &Workload,
    subject: &mut Subject,
    stance: Stance,
    (live, hold): (Option<&NetworkPolicy>, Option<&Hold>),
    now: Timestamp,
    (writes, pacing): (&mut Writes, &mut Pacing),
) -> Standing {
    // Whoever does not get as far as to need it has none.
    let turn = subject.turn.take();
    let is_ours = live.is_some_and(|live| owned_workload(live).as_ref() == Some(workload));
    if let Some(reason) = unwanted(subject, stance) {
        if let (Some(live), true, None) = (live, is_ours, hold) {
            writes.remove.push((live.clone(), reason));
        }
        return Standing::NotWanted;
    }
    if subject.rollback.is_some() {
        if let (Some(live), true, None) = (live, is_ours, hold) {
            writes
                .remove
                .push((live.clone(), "an edge of its baseline is not answered any more"));
        }
        return Standing::RolledBack;
    }
    let (Some(Ok(accepted)), Some(hash)) = (&subject.checked, subject.proposal_hash.clone()) else {
        return Standing::NotWanted;
    };
    if stance != Stance::Enforce || subject.life.frozen_at.is_none() {
        return Standing::NotWanted;
    }
    // Whoever approves it: a workload that cannot ask for names is down. What is live stays in sync, whatever is found later.
    if subject.applied_hash().is_none()
        && !is_ours
        && let Some(edge) = subject.cut_name_lookup(workload)
    {
        return Standing::CutsNames(edge);
    }
    let desired = accepted.policy();
    let spec = subject.segment.as_ref().map(|segment| &segment.spec);
    let approved = subject.approval();
    match spec.and_then(|spec| spec.promotion).unwrap_or_default() {
        _ if approved == Some(&hash) => {}
        Promotion::Manual => {
            return Standing::Unapproved {
                hash,
                outdated: approved.is_some(),
            };
        }
        // What is live stays in sync, whatever is found later.
        Promotion::Auto if subject.applied_hash().is_none() && !is_ours => {
            let once = subject.life.quarantined().values();
            let once = once.filter(|why| **why == Suspicion::Once).count();
            if once > 0 {
                return Standing::Suspended { once };
            }
        }
        Promotion::Auto => {}
    }
    if !subject.is_durable() {
        return Standing::Underway;
    }
    let plan = Plan::new(slice::from_ref(accepted), live.map_or(&[], slice::from_ref));
    // The Segment tells that this very proposal was live already.
    let was_applied = subject.applied_hash() == Some(hash.as_str());
    let why = if plan.is_empty() && plan.conflicts().is_empty() {
        return Standing::Live;
    } else if !plan.conflicts().is_empty() {
        if subject.applied_hash().is_none() {
            return Standing::Hindered(live.map(taken).unwrap_or_default());
        }
        // We made it, and somebody took our label off.
        Why::Edited
    } else if live.is_none() {
        if was_applied { Why::Deleted } else { Why::Wanted }
    } else if was_applied {
        Why::Edited
    } else {
        Why::Changed
    };
    if let Some(hold) = hold {
        return Standing::Hindered(hold.reason.clone());
    }
    if matches!(why, Why::Edited | Why::Deleted) {
        if let Some(until) = subject.contest.waits_until().filter(|until| *until > now) {
            return Standing::Contested { until };
        }
        subject.contest.repaired(live.and_then(changed_by), now);
    }
    if why == Why::Wanted {
        let turn = turn.unwrap_or_else(|| pacing.turn(now));
        if turn > now {
            subject.turn = Some(turn);
            return Standing::Underway;
        }
    }
    writes.put.push(PolicyStep {
        desired: desired.clone(),
        why,
        segment_uid: subject.uid(),
    });
    match why {
        Why::Wanted => Standing::Underway,
        Why::Changed | Why::Edited | Why::Deleted => Standing::Mending,
    }
}
