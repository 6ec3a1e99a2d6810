//! What flows come to, kept up while more of them come and the cluster stays as it is.
//!
//! Law: after whatever was followed, the graph is the one that resolving the whole table anew gives.

use std::collections::{BTreeMap, BTreeSet};

use super::{Resolver, resolve_with};
use crate::cluster::Cluster;
use crate::connection::ConnectionGraph;
use crate::endpoint::Endpoint;
use crate::flow::{Flow, FlowKey, FlowTable, Origin, Report, Tally};

/// Flows that a table has taken in since it was last resolved, each with what it was before.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    flows: BTreeMap<Origin, BTreeMap<FlowKey, Option<Tally>>>,
    number: usize,
}

impl Changes {
    /// Takes note of what `table` is about to take in. What it knows already is none of it.
    pub fn note(&mut self, report: &Report, table: &FlowTable) {
        let noted = self.flows.entry(report.origin.clone()).or_default();
        for Flow { key, tally } in &report.flows {
            let before = table.tally(&report.origin, key).copied();
            let adds_nothing = |before: Tally| {
                let mut both = before;
                both.join(tally);
                both == before
            };
            if !before.is_some_and(adds_nothing) && !noted.contains_key(key) {
                noted.insert(key.clone(), before);
                self.number += 1;
            }
        }
    }

    /// How many flows.
    pub const fn len(&self) -> usize {
        self.number
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.number == 0
    }
}

/// A graph that is kept up.
#[derive(Clone, Debug, Default)]
pub struct Resolution {
    graph: ConnectionGraph,
    /// An address had several owners in the time of a flow: whose it was may be settled by any other flow.
    contested: bool,
}

impl Resolution {
    /// Resolves a whole table.
    pub fn of(flows: &FlowTable, cluster: &Cluster) -> Self {
        let resolver = Resolver::new(flows, cluster);
        let graph = resolve_with(&resolver);
        Self {
            graph,
            contested: resolver.contested.get() || resolver.hosts.is_some(),
        }
    }

    /// The graph.
    pub const fn graph(&self) -> &ConnectionGraph {
        &self.graph
    }

    /// Takes in flows that the table has taken in; nothing else of it and nothing of the cluster may have changed since this was
    /// resolved. Returns the ends of every edge that is new or has other counts; `None`, and nothing is taken in, where what was
    /// resolved may have to be resolved otherwise: then all is to be resolved anew.
    pub fn follow(
        &mut self,
        changes: &Changes,
        flows: &FlowTable,
        cluster: &Cluster,
    ) -> Option<BTreeSet<(Endpoint, Endpoint)>> {
        let resolver = Resolver::new(flows, cluster);
        if self.contested || resolver.hosts.is_some() {
            return None;
        }
        let mut steps = Vec::new();
        for (origin, changed) in &changes.flows {
            for (key, before) in changed {
                let Some(tally) = flows.tally(origin, key) else {
                    continue;
                };
                let peers = resolver.peer_ends(origin, key, tally);
                if let Some(before) = before
                    && resolver.peer_ends(origin, key, before) != peers
                {
                    return None;
                }
                let grown = before.map_or(*tally, |before| tally.since(&before));
                steps.push((origin, key, *tally, grown, peers));
            }
        }
        if resolver.contested.get() {
            return None;
        }
        let mut touched = BTreeSet::new();
        for (origin, key, tally, grown, peers) in steps {
            resolver.count(
                &mut self.graph,
                (origin, key),
                (&tally, &grown),
                peers,
                |source, destination| {
                    touched.insert((source.clone(), destination.clone()));
                },
            );
        }
        Some(touched)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{cluster_of_the_shop, flow};
    use super::*;
    use crate::flow::Reporter;

    /// Pod, role, peer, port, and from when until when.
    type Seen = (usize, bool, usize, usize, i64, i64);

    fn report(node: usize, seen: &[Seen]) -> Report {
        let pods = ["web-0", "web-1", "db-0", "new-0", "gone-0"];
        let peers = [
            "198.18.1.10",
            "198.18.1.11",
            "198.18.1.12",
            "198.19.0.10",
            "203.0.113.9",
            "198.18.1.99",
            "198.18.1.20",
        ];
        let flows = seen.iter().map(|(pod, source, peer, port, first, length)| {
            let reporter = if *source {
                Reporter::Source
            } else {
                Reporter::Destination
            };
            let mut flow = flow(
                pods[*pod],
                reporter,
                peers[*peer],
                [80, 5432][*port],
                *first,
                first + length,
            );
            flow.tally.attempted = u64::try_from(first + length).unwrap();
            flow
        });
        Report {
            origin: Origin {
                node: format!("n{node}"),
                epoch: 1,
            },
            flows: flows.collect(),
            losses: Vec::new(),
            node_addresses: [].into(),
            names: Vec::new(),
            held: Vec::new(),
            capture: None,
        }
    }

    proptest! {
        #[test]
        fn what_is_followed_is_what_is_resolved_anew(
            reports in prop::collection::vec(
                (0_usize..2, prop::collection::vec((0_usize..5, any::<bool>(), 0_usize..7, 0_usize..2, 0_i64..60, 0_i64..60), 1..6)),
                1..8,
            ),
            reused in any::<bool>(),
        ) {
            let cluster = cluster_of_the_shop(reused);
            let mut table = FlowTable::default();
            let mut kept = Resolution::of(&table, &cluster);
            for (node, seen) in &reports {
                let report = report(*node, seen);
                let before = kept.graph().clone();
                let mut changes = Changes::default();
                changes.note(&report, &table);
                table.merge(&report);
                let anew = Resolution::of(&table, &cluster);
                let Some(touched) = kept.follow(&changes, &table, &cluster) else {
                    prop_assert_eq!(kept.graph(), &before);
                    let reusable = reports.iter().flat_map(|(_, seen)| seen).any(|seen| seen.2 == 6);
                    prop_assert!(reusable, "where every address has one owner everything can be followed");
                    kept = anew;
                    continue;
                };
                prop_assert_eq!(kept.graph(), anew.graph());
                for (edge, evidence) in anew.graph().edges() {
                    let same = before.evidence(&edge.key()) == Some(evidence);
                    let told = touched.contains(&(edge.source.clone(), edge.destination.clone()));
                    prop_assert!(same || told, "{edge:?} is not told");
                }
            }
        }
    }
}
