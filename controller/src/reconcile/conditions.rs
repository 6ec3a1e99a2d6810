//! The conditions of a Segment, and what they say in a word.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use nanoseg_policy::direction::Direction;
use nanoseg_policy::synthesize::Note;

use super::memory::Subject;
use super::open;
use super::status::{Standing, Standpoint};
use crate::segment::{Phase, SegmentStatus, seconds};

/// The condition that says what keeps a proposal from being applied.
const PROMOTABLE: &str = "Promotable";

/// The condition of a policy that somebody else changes each time that it is repaired.
const CONTESTED: &str = "Contested";

/// The condition of a policy that was taken back.
const ROLLED_BACK: &str = "RolledBack";

/// What holds of a Segment. A condition's time changes with its status alone.
pub(super) fn conditions(subject: &Subject, (phase, reason): (Phase, &str), at: &Standpoint) -> Vec<Condition> {
    let Standpoint { standing, now, .. } = at;
    let condition = |kind: &str, holds: bool, word: &str, message: String| {
        let status = if holds { "True" } else { "False" };
        let before = subject
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind && condition.status == status);
        Condition {
            last_transition_time: before.map_or_else(|| seconds(*now), |before| before.last_transition_time.clone()),
            message,
            observed_generation: None,
            reason: word.to_owned(),
            status: status.to_owned(),
            type_: kind.to_owned(),
        }
    };
    let word = match (phase, &subject.proposal, &subject.checked, standing) {
        (Phase::Degraded, Some(Err(_)), ..) => "NoExactPolicy",
        (_, _, _, Standing::Drifted(drift)) => drift.word(),
        (Phase::Degraded, _, _, Standing::CutsNames(_)) => "CutsDns",
        (Phase::Degraded, _, _, Standing::Contested { .. }) => CONTESTED,
        (Phase::Degraded, _, _, Standing::RolledBack) => ROLLED_BACK,
        (Phase::Degraded, _, Some(Err(_)), _) => "WouldCut",
        (Phase::Degraded, _, _, Standing::Live | Standing::Mending) => "NotEnforced",
        (Phase::Proposed, _, _, Standing::Unapproved { outdated: true, .. }) => "ApprovalOutdated",
        (Phase::Proposed, _, _, Standing::Unapproved { outdated: false, .. }) => "NotApproved",
        (Phase::Proposed, _, _, Standing::NotWanted) => "NotAsked",
        (Phase::Stable, ..) => "SeenOnce",
        (Phase::Stabilizing, ..) => open::word(subject, at),
        _ => phase.as_str(),
    };
    let promotable = matches!(phase, Phase::Enforcing | Phase::Auditing)
        || (phase == Phase::Proposed && matches!(standing, Standing::Underway));
    let message = if promotable {
        reason.to_owned()
    } else {
        format!("not promoted because {reason}")
    };
    let mut conditions = vec![condition(PROMOTABLE, promotable, word, message)];
    if let Standing::CutsNames(edge) = standing {
        let message = format!("{edge} would be cut, and it is how the workload asks for names");
        conditions.push(condition("DnsReachable", false, "WouldCut", message));
    }
    if subject.contest.is_on(*now) {
        let (who, repairs) = (subject.contest.who(), subject.contest.repairs());
        let message = format!("{who} changed the NetworkPolicy each time that it was repaired, {repairs} times");
        conditions.push(condition(CONTESTED, true, "Fighting", message));
    }
    if at.reports_only && subject.life.frozen_at.is_some() {
        let (holds, word, message) = match standing {
            Standing::Drifted(drift) => (false, drift.word(), drift.to_string()),
            Standing::Live => (
                true,
                "Same",
                "the NetworkPolicy on the cluster is the proposed one".to_owned(),
            ),
            _ => (
                true,
                "NotWanted",
                "no NetworkPolicy is wanted on the cluster, and none is there".to_owned(),
            ),
        };
        conditions.push(condition("InSync", holds, word, message));
    }
    if let Some(rollback) = &subject.rollback {
        let message = format!("{} was not answered any more", rollback.edge);
        conditions.push(condition(ROLLED_BACK, true, "Unanswered", message));
    }
    if let Some(Ok(proposal)) = &subject.proposal {
        for (direction, kind) in [(Direction::Ingress, "IngressReady"), (Direction::Egress, "EgressReady")] {
            let open = proposal.notes.iter().find_map(|note| match note {
                Note::NotObserved { direction: open } if *open == direction => Some("NotObserved"),
                Note::NotReady { direction: open, .. } if *open == direction => Some("NotReady"),
                _ => None,
            });
            let ready = proposal.directions.contains(&direction);
            let word = if ready { "Isolated" } else { open.unwrap_or("Open") };
            let message = match (ready, word) {
                (true, _) => "the proposal isolates this direction",
                (false, "NotObserved") => "no connection was observed in this direction, and it stays open",
                (false, _) => "an edge stands in the way, see notes, and it stays open",
            };
            conditions.push(condition(kind, ready, word, message.to_owned()));
        }
    }
    conditions
}

/// What is told of whether it can be promoted: the reason, where there is one why not.
pub(super) fn promotion_of(status: &SegmentStatus) -> String {
    let mut conditions = status.conditions.iter();
    match conditions.find(|condition| condition.type_ == PROMOTABLE) {
        Some(promotable) => promotable.message.clone(),
        None => status.reason.clone(),
    }
}

/// In a word, whether it can be promoted or why not.
pub(super) fn word_of(status: &SegmentStatus) -> Option<&str> {
    let mut conditions = status.conditions.iter();
    let promotable = conditions.find(|condition| condition.type_ == PROMOTABLE)?;
    Some(&promotable.reason)
}
