//! Edges outside of frozen baselines: those that were found since the controller began, and those that Segments still know of.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::page::board::{Board, Copy, KEPT};
use crate::reconcile::Violation;
use crate::segment::{BaselineEdge, Decision, Known, NovelEdge, Phase, Segment, SegmentName, name_of, to_edges};

/// An edge outside of a frozen baseline, as tables tell it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its number among those since the controller began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// When it was found; of an earlier controller's nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// The edge.
    #[serde(flatten)]
    pub edge: BaselineEdge,
    /// Namespace and name of the Segment.
    pub segment: [String; 2],
    /// Its workload, for people.
    pub workload: String,
    /// When it was first tried.
    pub first_seen: Option<Timestamp>,
    /// How often it was tried, at least.
    pub count: u64,
    /// What policies said of it when it was found, the proposal taken in.
    pub decision: Option<Decision>,
    /// The same in words.
    pub decided: Option<&'static str>,
    /// The reason, as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Whether the workload's policy is live.
    pub enforced: bool,
}

/// Nothing is denied by a policy that is not live.
const fn decided(decision: Decision, enforced: bool) -> &'static str {
    match (decision, enforced) {
        (Decision::Denied, true) => "denied",
        (Decision::Denied, false) => "would be denied",
        (Decision::Allowed, _) => "allowed",
        (Decision::Unknown, _) => "cannot be decided",
    }
}

/// A violation with its number.
pub fn violation(number: u64, violation: &Violation) -> Value {
    json!(counted(number, violation, &BTreeMap::new()))
}

/// Which edge of which Segment.
type Key = (SegmentName, String);

/// A violation, as often as it has been tried by now.
fn counted(number: u64, violation: &Violation, now: &BTreeMap<Key, u64>) -> Option<Row> {
    let Violation {
        at,
        workload,
        edge,
        first_seen,
        count,
        verdict: _,
        decision,
        enforced,
        other_captures: _,
    } = violation;
    let segment = name_of(workload);
    let edge = to_edges([(edge, &Known::default())]).pop()?;
    let now = now
        .get(&(segment.clone(), edge.to_string()))
        .copied()
        .unwrap_or_default();
    Some(Row {
        number: Some(number),
        at: Some(*at),
        edge,
        segment: [segment.namespace, segment.name],
        workload: workload.to_string(),
        first_seen: Some(*first_seen),
        count: now.max(*count),
        decision: Some(*decision),
        decided: Some(decided(*decision, *enforced)),
        verdict: Some(violation.finding().into_owned()),
        enforced: *enforced,
    })
}

/// The violations that are kept, newest first, and then what Segments know beside them, as many as are kept.
pub fn violations(board: &Board, copy: Option<&Copy>) -> Value {
    let segments: &[Segment] = copy.map_or(&[], |copy| &copy.snapshot.segments);
    let mut known: BTreeMap<Key, (&Segment, &NovelEdge)> = BTreeMap::new();
    for segment in segments {
        let status = segment.status.iter().flat_map(|status| &status.novel_edges);
        for novel in status {
            known.insert((segment.segment_name(), novel.edge.to_string()), (segment, novel));
        }
    }
    let counts: BTreeMap<Key, u64> = known
        .iter()
        .map(|(key, (_, novel))| (key.clone(), novel.count))
        .collect();
    let found = board.violations();
    let total = found.first().map_or(0, |(number, _)| *number);
    let rows: Vec<Row> = found
        .iter()
        .filter_map(|(number, found)| counted(*number, found, &counts))
        .collect();
    for (_, violation) in &found {
        for edge in to_edges([(&violation.edge, &Known::default())]) {
            known.remove(&(name_of(&violation.workload), edge.to_string()));
        }
    }
    let mut older: Vec<Row> = known.values().map(|(segment, novel)| before(segment, novel)).collect();
    older.sort_by_key(|row| std::cmp::Reverse(row.first_seen));
    let more = older.len().saturating_sub(KEPT);
    older.truncate(KEPT);
    json!({ "since": board.started(), "total": total, "violations": rows, "older": older, "more": more })
}

/// What a Segment knows of its edges outside of the baseline.
pub fn novel(segment: &Segment) -> Vec<Row> {
    let edges = segment.status.iter().flat_map(|status| &status.novel_edges);
    edges.map(|novel| before(segment, novel)).collect()
}

fn before(segment: &Segment, novel: &NovelEdge) -> Row {
    let NovelEdge {
        edge,
        first_seen,
        count,
        decision,
    } = novel;
    let SegmentName { namespace, name } = segment.segment_name();
    let workload = &segment.spec.workload;
    let enforced = segment
        .status
        .as_ref()
        .is_some_and(|status| status.phase == Phase::Enforcing);
    Row {
        number: None,
        at: None,
        edge: edge.clone(),
        workload: format!("{} {namespace}/{}", workload.kind, workload.name),
        segment: [namespace, name],
        first_seen: first_seen.as_ref().map(|at| at.0),
        count: *count,
        decision: *decision,
        decided: decision.map(|decision| decided(decision, enforced)),
        verdict: None,
        enforced,
    }
}

#[cfg(test)]
mod tests {
    use nanoseg_graph::cluster::Cluster;
    use nanoseg_graph::connection::ConnectionGraph;

    use super::*;
    use crate::page::views::tests::violation_of;
    use crate::reconcile::Snapshot;

    #[test]
    fn violations_are_listed_newest_first_with_their_ends() {
        let board = Board::new(Timestamp::UNIX_EPOCH);
        board.tell(&[violation_of(1), violation_of(2)]);
        let listed = violations(&board, None);
        assert_eq!(listed["total"], 2);
        let first = &listed["violations"][0];
        for (field, value) in [
            ("number", json!(2)),
            ("source", json!("shop/Deployment/web")),
            ("destination", json!("node n")),
            ("port", json!(2)),
            ("protocol", json!("TCP")),
            ("verdict", json!("denied")),
            ("decided", json!("would be denied")),
            ("segment", json!(["shop", "deployment-web"])),
            ("count", json!(1)),
        ] {
            assert_eq!(first[field], value, "{field}");
        }
    }

    #[test]
    fn what_segments_know_is_told_too_and_once() {
        let board = Board::new(Timestamp::UNIX_EPOCH);
        board.tell(&[violation_of(1)]);
        let mut segment = Segment::of(&violation_of(1).workload);
        let edges = "[{source: shop/Deployment/web, destination: node n, port: 1, protocol: TCP, count: 7, decision: Denied}, \
             {source: shop/Deployment/web, destination: node n, port: 9, protocol: TCP, count: 3, firstSeen: 2026-01-02T03:04:05Z, decision: Denied}]";
        let status = format!("{{phase: Enforcing, learningSince: 2026-01-01T00:00:00Z, novelEdges: {edges}}}");
        segment.status = Some(serde_yaml::from_str(&status).unwrap());
        let copy = Copy {
            version: 1,
            snapshot: Snapshot {
                at: Timestamp::UNIX_EPOCH,
                awaited: Vec::new(),
                cluster: Cluster::new([]),
                graph: ConnectionGraph::default(),
                live: Vec::new(),
                proposed: Vec::new(),
                cluster_policies: Vec::new(),
                segments: vec![segment],
            },
            map: std::sync::OnceLock::new(),
            places: None,
        };
        let listed = violations(&board, Some(&copy));
        assert_eq!(listed["violations"][0]["count"], 7, "as often as by now");
        let older = listed["older"].as_array().unwrap();
        assert_eq!(older.len(), 1);
        assert_eq!(older[0]["port"], 9);
        assert_eq!(older[0]["decided"], "denied", "its policy is live");
        assert_eq!(older[0]["firstSeen"], "2026-01-02T03:04:05Z");
        assert_eq!(older[0]["workload"], violation_of(1).workload.to_string());
    }
}
