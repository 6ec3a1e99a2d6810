//! How many there are of what the core keeps, for whoever watches the controller.

use std::collections::BTreeMap;

use nanoseg_graph::flow::LossReason;
use nanoseg_policy::ownership::is_owned;

use super::{Core, RefusedPart};
use crate::segment::Phase;

/// Numbers, as of the last round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Segments, by mode and phase.
    pub segments: BTreeMap<(&'static str, &'static str), usize>,
    /// Edges in baselines.
    pub baseline: usize,
    /// Edges outside frozen baselines.
    pub novel: usize,
    /// Edges that wait for a person.
    pub quarantined: usize,
    /// Flows that are kept.
    pub flows: usize,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Our policies that are live.
    pub policies: usize,
    /// Objects that are left alone after a write of them failed.
    pub held: usize,
    /// What was lost, by node and reason.
    pub losses: BTreeMap<(String, LossReason), u64>,
    /// Parts of reports that were not used, by reason.
    pub refused: BTreeMap<RefusedPart, u64>,
}

impl Core {
    /// Counts. Of two controllers the one that follows counts nothing but nodes, so that sums over both are true.
    pub fn census(&self) -> Census {
        let nodes = self.cluster.nodes().count();
        if self.follows {
            return Census {
                nodes,
                ..Census::default()
            };
        }
        let mut census = Census {
            flows: self.flows.len(),
            nodes,
            held: self.held.len(),
            refused: self.refused().clone(),
            ..Census::default()
        };
        for (workload, subject) in &self.subjects {
            let stance = self.guide.rules.stance(&workload.namespace, subject.life.mode);
            let phase = subject.told.as_ref().map_or(Phase::Learning, |(phase, _)| *phase);
            let place = (stance.mode().as_str(), phase.as_str());
            *census.segments.entry(place).or_default() += 1;
            census.baseline += subject.baseline.len();
            census.novel += subject.life.novel().len();
            census.quarantined += subject.life.quarantined().len();
        }
        let ours = self.policies.values().filter(|policy| is_owned(policy));
        census.policies = ours.count();
        for (origin, _subject, reason, count) in self.flows.losses() {
            let lost = census.losses.entry((origin.node.clone(), reason)).or_default();
            *lost = lost.saturating_add(count);
        }
        census
    }
}
