//! What a Segment's status says, from what the core knows of its workload.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::endpoint::Workload;
use nanoseg_policy::synthesize::Proposal;

use super::memory::Subject;
use crate::lifecycle::{Restraint, Stance};
use crate::segment::{Known, LISTED, Phase, SegmentStatus, hash_of, hash_of_text, seconds, to_edges};

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
}

/// A policy as YAML.
pub(super) fn yaml(policy: &NetworkPolicy) -> String {
    // Maps with string keys and plain values: nothing in a policy is beyond YAML.
    serde_yaml::to_string(policy).unwrap_or_default()
}

pub(super) fn status_of(
    workload: &Workload,
    subject: &Subject,
    stance: Stance,
    window: SignedDuration,
    standing: &Standing,
) -> SegmentStatus {
    let Subject {
        segment,
        life,
        baseline,
        unanswered,
        gone_since,
        proposal,
        checked,
        written_at: _,
        told: _,
    } = subject;
    let (phase, reason) = phase_of(workload, subject, stance, window, standing);
    let proposed = proposal.as_ref().and_then(|proposal| proposal.as_ref().ok());
    let policy = proposed.map(|proposal| &proposal.policy);
    let text = policy.map(yaml);
    let applied_hash = match (phase, standing) {
        (Phase::Off | Phase::Gone, _) => None,
        (_, Standing::Live) => text.as_deref().map(hash_of_text),
        (_, Standing::NotWanted | Standing::Underway | Standing::Mending | Standing::Hindered(_)) => {
            let status = segment.as_ref().and_then(|segment| segment.status.as_ref());
            status.and_then(|status| status.applied_hash.clone())
        }
    };
    let mut notes: Vec<String> = match proposal {
        Some(Ok(Proposal { notes, .. })) => notes.iter().map(ToString::to_string).collect(),
        Some(Err(refusal)) => vec![refusal.to_string()],
        None => Vec::new(),
    };
    notes.extend(checked.iter().filter_map(|checked| checked.as_ref().err()).cloned());
    if *unanswered > 0 {
        notes.push(format!(
            "{unanswered} connections were seen that nobody answered; no rule comes from them"
        ));
    }
    let unlisted = Known::default();
    SegmentStatus {
        phase,
        reason,
        workload: format!("{}/{}", workload.kind, workload.name),
        learning_since: seconds(life.learning_since),
        frozen_at: life.frozen_at.map(seconds),
        gone_since: gone_since.map(seconds),
        edges: count(baseline.len()),
        baseline: to_edges(baseline),
        baseline_hash: hash_of(baseline),
        novel: count(life.novel().len()),
        novel_edges: to_edges(life.novel().iter().take(LISTED).map(|key| (key, &unlisted))),
        policy: policy.and_then(|policy| policy.metadata.name.clone()),
        proposal: text,
        notes,
        applied_hash,
    }
}

fn phase_of(
    workload: &Workload,
    subject: &Subject,
    stance: Stance,
    window: SignedDuration,
    standing: &Standing,
) -> (Phase, String) {
    let Subject {
        life,
        gone_since,
        proposal,
        checked,
        ..
    } = subject;
    let namespace = &workload.namespace;
    if stance == Stance::Off {
        return (Phase::Off, "spec.mode is Off".to_owned());
    }
    if gone_since.is_some() {
        return (
            Phase::Gone,
            "the workload is gone; what was learned is kept for a day".to_owned(),
        );
    }
    if life.frozen_at.is_none() {
        let reason = match stance {
            Stance::Learn => "spec.mode is Learn: new edges join the baseline until that changes".to_owned(),
            Stance::Off | Stance::Propose(_) | Stance::Enforce => {
                let ends = life.learning_since.checked_add(window).unwrap_or(Timestamp::MAX);
                format!("new edges join the baseline until {}", seconds(ends).0)
            }
        };
        return (Phase::Learning, reason);
    }
    let hindrance = match (proposal, checked, standing) {
        (Some(Err(refusal)), _, _) => Some(refusal.to_string()),
        (_, Some(Err(cut)), _) => Some(format!("the proposal is not applied: it would cut {cut}")),
        (_, _, Standing::Hindered(reason)) => Some(reason.clone()),
        (_, _, Standing::NotWanted | Standing::Underway | Standing::Live | Standing::Mending) => None,
    };
    if let Some(hindrance) = hindrance {
        return (Phase::Degraded, hindrance);
    }
    match (stance, standing) {
        (Stance::Enforce, Standing::Live | Standing::Mending) => {
            let directions: Vec<String> = match proposal {
                Some(Ok(proposal)) => proposal.directions.iter().map(ToString::to_string).collect(),
                Some(Err(_)) | None => Vec::new(),
            };
            (
                Phase::Enforcing,
                format!("the NetworkPolicy is live and isolates {}", directions.join(" and ")),
            )
        }
        (Stance::Enforce, _) => (
            Phase::Proposed,
            "the baseline is frozen, its NetworkPolicy is on its way".to_owned(),
        ),
        (Stance::Propose(Restraint::Exempt), _) => (
            Phase::Proposed,
            format!("{namespace} is enforced only if --enforce {namespace} names it"),
        ),
        (Stance::Propose(Restraint::NotAsked) | Stance::Learn | Stance::Off, _) => (
            Phase::Proposed,
            format!("nobody asked to enforce it: --enforce {namespace} or spec.mode: Enforce applies the proposal"),
        ),
    }
}

/// Whether a status is to be written at once: everything but the growth of a baseline and of lists.
pub(super) fn is_urgent(live: Option<&SegmentStatus>, desired: &SegmentStatus) -> bool {
    live.is_none_or(|live| {
        live.phase != desired.phase || live.frozen_at != desired.frozen_at || live.applied_hash != desired.applied_hash
    })
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
