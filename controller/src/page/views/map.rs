//! Who talks to whom, in three parts: what is drawn first, its connections as numbers, and everything about one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use nanoseg_policy::evaluate::PolicySet;
use nanoseg_policy::map::{self, Edge, Input, Map, Party, Places, State, Who};
use serde_json::{Value, json};

use crate::page::board::Copy;
use crate::reconcile::Snapshot;
use crate::segment::{Segment, SegmentError};

/// The whole map, drawn once for each copy.
fn drawn(copy: &Copy) -> Arc<Map> {
    Arc::clone(
        copy.map
            .get_or_init(|| Arc::new(draw(&copy.snapshot, copy.places.as_ref()))),
    )
}

fn draw(snapshot: &Snapshot, places: Option<&Places>) -> Map {
    let (live, _rejected) = PolicySet::parse_all(&snapshot.live, &snapshot.cluster_policies);
    let (proposed, _rejected) = PolicySet::parse_all(&snapshot.proposed, &snapshot.cluster_policies);
    // What cannot be read the controller has told in its log.
    let told = snapshot
        .segments
        .iter()
        .filter_map(|segment| told(segment, snapshot.at).ok());
    let segments: Vec<_> = told.collect();
    Map::draw(&Input {
        cluster: &snapshot.cluster,
        graph: &snapshot.graph,
        live: &live,
        proposed: Some(&proposed),
        segments: &segments,
        stale_before: snapshot.at.checked_sub(STALE).ok(),
        places,
    })
}

/// An edge of a baseline that was not seen for so long is stale. What people and jobs do once a week is not.
const STALE: SignedDuration = SignedDuration::from_hours(8 * 24);

/// A Segment with the times that it remembers: the graph is as old as the controller.
fn told(segment: &Segment, at: Timestamp) -> Result<map::Segment, SegmentError> {
    let mut told = segment.on_map()?;
    told.last_seen = segment.last_seen()?;
    // Of what nobody knows a time of, nobody says that it was long ago.
    for key in &told.baseline {
        told.last_seen.entry(key.clone()).or_insert(at);
    }
    Ok(told)
}

/// Groups, what joins them, and parties: all that a first look needs.
pub fn map(copy: &Copy) -> Value {
    let map = drawn(copy);
    let states: Vec<Value> = State::ALL
        .iter()
        .map(|state| {
            let count = map.edges.iter().filter(|edge| edge.state == *state).count();
            json!({ "name": state.as_str(), "words": state.words(), "count": count })
        })
        .collect();
    json!({
        "version": copy.version,
        "at": copy.snapshot.at,
        "awaited": copy.snapshot.awaited,
        "observed": map.observed,
        "totals": map.totals,
        "size": map.size,
        "groups": map.groups,
        "links": map.links,
        "states": states,
        "parties": map.parties.iter().map(party).collect::<Vec<_>>(),
    })
}

/// A party without what is told of it when it is chosen.
fn party(party: &Party) -> Value {
    let Party {
        id,
        group,
        title,
        place,
        who,
    } = party;
    let who = match who {
        Who::Workload(workload) => json!({
            "type": "Workload",
            "namespace": workload.namespace,
            "kind": workload.kind,
            "name": workload.name,
            "phase": workload.segment.as_ref().map(|segment| &segment.phase),
            "mode": workload.segment.as_ref().map(|segment| &segment.mode),
            "segment": workload.segment.as_ref().map(|segment| &segment.name),
        }),
        Who::Service { .. } | Who::Node { .. } | Who::External { .. } | Who::Unknown { .. } => json!(who),
    };
    json!({ "id": id, "group": group, "title": title, "place": place, "who": who })
}

/// Connections by the numbers of their parties: source, destination, port, protocol, number of the state.
pub fn edges(copy: &Copy) -> Value {
    let map = drawn(copy);
    let numbers: BTreeMap<&str, usize> = (0..)
        .zip(&map.parties)
        .map(|(number, party)| (party.id.as_str(), number))
        .collect();
    let edges: Vec<Value> = map
        .edges
        .iter()
        .map(|edge| {
            let state = State::ALL.iter().position(|state| *state == edge.state);
            json!([
                numbers.get(edge.source.as_str()),
                numbers.get(edge.destination.as_str()),
                edge.port,
                edge.protocol,
                state
            ])
        })
        .collect();
    json!({ "version": copy.version, "edges": edges })
}

/// Everything about one connection.
pub fn edge(copy: &Copy, id: &str) -> Option<Value> {
    let map = drawn(copy);
    let edge = map.edges.iter().find(|edge| edge.id == id)?;
    Some(json!(edge))
}

/// Everything about one party.
pub fn one_party(copy: &Copy, id: &str) -> Option<Value> {
    let map = drawn(copy);
    let party = map.parties.iter().find(|party| party.id == id)?;
    let mut told = json!(party);
    if let Who::Node { .. } = party.who {
        told["processes"] = json!(processes(&map, id));
    }
    Some(told)
}

/// Who of a node opened or listened, as its connections tell.
fn processes<'a>(map: &'a Map, node: &str) -> BTreeSet<&'a str> {
    let of_edge = |edge: &'a Edge| {
        let ends = [&edge.source, &edge.destination].into_iter().zip(edge.processes());
        ends.filter(|(end, _)| *end == node)
            .flat_map(|(_, processes)| processes)
    };
    map.edges.iter().flat_map(of_edge).map(String::as_str).collect()
}
