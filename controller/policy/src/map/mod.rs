//! The segmentation map: one document that says who talks to whom, what policies make of it, what is isolated and what lies open.
//!
//! ```text
//!  Cluster ─┐
//!  graph  ──┼─ parties ─┐
//!  policies ┼─ edges ───┼─► Map ─ layout ─► Map with places
//!  segments ┘  exposure ┘
//! ```
//! Laws:
//! * nothing is decided here: every answer is the evaluator's, over the same pairs of ends as [`crate::audit`] asks about;
//! * equal input gives an equal document, in whatever order it was learned;
//! * every edge of the graph and of each Segment is in the map exactly once, and so are both of its ends;
//! * boxes of parties lie in the box of their group, and no two boxes of parties or of groups overlap;
//! * drawn beside an earlier map, what was on it stays where it was, as far as there is room.

mod change;
mod controls;
mod document;
mod edges;
mod exposure;
mod formats;
mod id;
mod layout;
mod parties;
mod reach;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use jiff::Timestamp;
use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::connection::{ConnectionGraph, EdgeKey};
use nanoseg_graph::endpoint::Workload as WorkloadName;

use crate::ends::Ends;
use crate::evaluate::{Evaluator, PolicySet};
pub use change::{Changes, ChangesSchema, EdgeChange, WorkloadChange};
pub use document::*;
use edges::Judges;
pub use formats::{csv, dot, graphml, html, markdown, mermaid, svg, visible, visible_json};
pub use layout::Places;
pub use reach::{Passage, Reach, reach};

/// What a map is drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// What was seen.
    pub graph: &'a ConnectionGraph,
    /// The policies in force.
    pub live: &'a PolicySet,
    /// The policies as they would be with everything that is proposed, those in force among them.
    pub proposed: Option<&'a PolicySet>,
    /// What is known of workloads' learning.
    pub segments: &'a [Segment],
    /// An edge of a baseline that was last seen before this time is stale, and so is one that neither the graph has nor its Segment
    /// has a time of. Without it none is: the graph may not be all that was seen.
    pub stale_before: Option<Timestamp>,
    /// Where an earlier map has drawn everything, for somebody who looks on.
    pub places: Option<&'a Places>,
}

/// What a workload's Segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The workload.
    pub workload: WorkloadName,
    /// What the document says of it.
    pub facts: SegmentFacts,
    /// Edges of its baseline.
    pub baseline: BTreeSet<EdgeKey>,
    /// The baseline is complete: every other edge of the workload is outside of it, whether or not the Segment tells of it yet.
    pub is_frozen: bool,
    /// When edges of the baseline were last seen, as the Segment has it; empty where only the graph counts.
    pub last_seen: BTreeMap<EdgeKey, Timestamp>,
    /// Edges outside of its baseline.
    pub novel: BTreeSet<EdgeKey>,
    /// Edges that wait for a person, and why.
    pub quarantined: BTreeMap<EdgeKey, String>,
}

impl Map {
    /// Draws the map.
    pub fn draw(input: &Input<'_>) -> Self {
        let live = Evaluator::new(input.live, input.cluster);
        let proposed = input.proposed.map(|policies| Evaluator::new(policies, input.cluster));
        let live_ends = Ends::new(input.cluster, &live);
        let proposed_ends = proposed.as_ref().map(|evaluator| Ends::new(input.cluster, evaluator));
        let mut judges = Judges::new((&live, &live_ends), proposed.as_ref().zip(proposed_ends.as_ref()));
        let (edges, ends) = edges::all(input, &mut judges);
        let policies = judges.policies();
        let mut parties = parties::all(input, &ends, &live, proposed.as_ref());
        let mut groups = parties::groups(&parties);
        let links = edges::links(&edges, &parties);
        let size = layout::arrange(&mut groups, &mut parties, &links, &edges, input.places);
        let exposures = exposure::all(input.cluster, &live);
        let mut map = Self {
            schema: Schema::V1,
            observed: edges::period(&edges),
            totals: Totals::default(),
            size,
            groups,
            links,
            parties,
            edges,
            policies,
            exposures,
            controls: Vec::new(),
        };
        map.totals = map.count();
        map.controls = controls::all(&map);
        map
    }

    /// The JSON schema of the document, as text.
    pub fn schema() -> String {
        let schema = schemars::schema_for!(Self);
        // A schema is a JSON value already.
        serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
    }

    fn count(&self) -> Totals {
        let mut totals = Totals {
            edges: self.edges.len(),
            rules: self
                .policies
                .iter()
                .map(|policy| policy.ingress.len() + policy.egress.len())
                .sum(),
            unused_rules: self.policies.iter().map(Policy::unused).sum(),
            ..Totals::default()
        };
        for edge in &self.edges {
            for state in &edge.states {
                *totals.states.entry(*state).or_default() += 1;
            }
        }
        for party in &self.parties {
            match &party.who {
                Who::Workload(workload) => {
                    totals.workloads += 1;
                    totals.pods += workload.pods.len();
                    totals.open_ingress += usize::from(workload.protection.ingress.status.is_open());
                    totals.open_egress += usize::from(workload.protection.egress.status.is_open());
                }
                Who::Service { .. } => totals.services += 1,
                Who::Node { .. } => totals.nodes += 1,
                Who::External { .. } => totals.external += 1,
                Who::Unknown { .. } => totals.unknown += 1,
            }
        }
        totals
    }
}

/// A number with its noun.
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(number: N, one: &str, many: &str) -> String {
    let noun = if number == N::from(1) { one } else { many };
    format!("{number} {noun}")
}
