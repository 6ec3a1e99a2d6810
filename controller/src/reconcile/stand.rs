//! How a workload's policy stands: what is live against what is to be, and what there is to write.

use std::slice;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::endpoint::Workload;
use nanoseg_policy::ownership::{PolicyName, owned_workload};
use nanoseg_policy::plan::Plan;

use super::memory::{Hold, Subject};
use super::status::{self, Standing};
use super::writes::{PolicyStep, Why, Writes};
use crate::lifecycle::Stance;
use crate::segment::{Promotion, Suspicion, hash_of_text};

/// Compares the live policy of a workload with what it is to be, and notes what there is to write.
pub(super) fn stand(
    workload: &Workload,
    subject: &Subject,
    stance: Stance,
    live: Option<&NetworkPolicy>,
    hold: Option<&Hold>,
    writes: &mut Writes,
) -> Standing {
    let is_ours = live.is_some_and(|live| owned_workload(live).as_ref() == Some(workload));
    let unwanted = match stance {
        Stance::Off => Some("its mode is Off"),
        Stance::Audit => Some("its mode is Audit"),
        Stance::Learn | Stance::Propose(_) | Stance::Enforce => {
            subject.gone_since.is_some().then_some("its workload is gone")
        }
    };
    if let Some(reason) = unwanted {
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
    let Some(Ok(accepted)) = &subject.checked else {
        return Standing::NotWanted;
    };
    if stance != Stance::Enforce || subject.life.frozen_at.is_none() {
        return Standing::NotWanted;
    }
    let desired = accepted.policy();
    let hash = hash_of_text(&status::yaml(desired));
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
            let name = PolicyName::of(desired);
            return Standing::Hindered(format!(
                "{name} is somebody else's, and is left alone: rename or delete it"
            ));
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
