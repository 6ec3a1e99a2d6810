//! The table of Segments.

use serde_json::{Value, json};

use crate::page::board::Copy;
use crate::segment::{Segment, SegmentStatus};

/// Every Segment, by namespace and name.
pub fn segments(copy: &Copy) -> Value {
    let mut segments: Vec<&Segment> = copy.snapshot.segments.iter().collect();
    segments.sort_by_cached_key(|segment| segment.segment_name());
    let rows: Vec<Value> = segments.into_iter().map(row).collect();
    json!({ "version": copy.version, "at": copy.snapshot.at, "awaited": copy.snapshot.awaited, "segments": rows })
}

/// What a table tells of one.
pub(super) fn row(segment: &Segment) -> Value {
    let name = segment.segment_name();
    let workload = &segment.spec.workload;
    let mut row = json!({
        "namespace": name.namespace,
        "name": name.name,
        "kind": workload.kind,
        "workload": workload.name,
        "promotion": segment.spec.promotion.unwrap_or_default(),
        "approval": segment.spec.approval,
    });
    let Some(status) = &segment.status else {
        row["phase"] = "New".into();
        row["reason"] = "the controller has not judged it yet".into();
        return row;
    };
    let SegmentStatus {
        phase,
        reason,
        workload: _,
        selector: _,
        mode,
        conditions,
        learning_since,
        last_novel,
        loss,
        last_loss,
        last_run: _,
        last_rollout: _,
        watched_since: _,
        coverage,
        frozen_at,
        gone_since: _,
        edges,
        baseline: _,
        packed: _,
        baseline_hash: _,
        novel,
        novel_edges: _,
        quarantined,
        policy,
        proposal: _,
        proposal_hash,
        notes: _,
        applied_hash,
        history: _,
        rolled_back,
    } = status;
    let condition = |kind: &str| {
        let condition = conditions.iter().find(|condition| condition.type_ == kind)?;
        Some(json!({
            "holds": condition.status == "True",
            "word": condition.reason,
            "message": condition.message,
        }))
    };
    let told = json!({
        "phase": phase,
        "reason": reason,
        "mode": mode,
        "promotable": condition("Promotable"),
        "ingress": condition("IngressReady"),
        "egress": condition("EgressReady"),
        "learningSince": learning_since,
        "lastNovel": last_novel,
        "loss": loss,
        "lastLoss": last_loss,
        "coverage": coverage,
        "frozenAt": frozen_at,
        "edges": edges,
        "novel": novel,
        "quarantined": quarantined.len(),
        "policy": policy,
        "proposalHash": proposal_hash,
        "appliedHash": applied_hash,
        "rolledBack": rolled_back,
    });
    if let (Some(row), Value::Object(told)) = (row.as_object_mut(), told) {
        row.extend(told);
    }
    row
}
