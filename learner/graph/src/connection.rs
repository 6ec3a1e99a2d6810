//! The connection graph: workloads, Services, nodes and external addresses, and who connects to whom on which port.
//!
//! Law: graphs merge in any order and any batching to the same graph, and twice is once. Equal graphs iterate equally.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::graph::{DiGraph, EdgeIndex, NodeIndex};
use petgraph::visit::EdgeRef;

use crate::endpoint::{Endpoint, ServiceName};
use crate::flow::{Origin, Outcome, Reporter, Tally, Transport};

/// What an edge is: one connection is one edge, whichever ends report it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct EdgeKey {
    /// The initiator.
    pub source: Endpoint,
    /// The listener.
    pub destination: Endpoint,
    /// The listener's own port: the target port, never the Service's.
    pub port: u16,
    /// Transport protocol.
    pub transport: Transport,
}

/// What is known of an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Cumulative tallies, by who reported: joined within an origin, added over origins.
    pub tallies: BTreeMap<(Reporter, Origin), Tally>,
    /// Services through which the source reached the destination.
    pub via: BTreeSet<ServiceName>,
}

impl Evidence {
    /// Which ends reported the edge.
    pub fn reporters(&self) -> BTreeSet<Reporter> {
        self.tallies.keys().map(|(reporter, _)| *reporter).collect()
    }

    /// All of what one end counted, over every origin; `None` when that end never reported.
    pub fn tally(&self, reporter: Reporter) -> Option<Tally> {
        let mut sum: Option<Tally> = None;
        for ((by, _), tally) in &self.tallies {
            if *by == reporter {
                match &mut sum {
                    Some(sum) => sum.add(tally),
                    None => sum = Some(*tally),
                }
            }
        }
        sum
    }

    /// The best that any end saw happen.
    pub fn outcome(&self) -> Outcome {
        self.tallies
            .values()
            .map(Tally::outcome)
            .max()
            .unwrap_or(Outcome::Attempted)
    }
}

/// The graph. Multi-edges: one for each port and transport.
#[derive(Clone, Debug, Default)]
pub struct ConnectionGraph {
    graph: DiGraph<Endpoint, (u16, Transport)>,
    nodes: BTreeMap<Endpoint, NodeIndex>,
    edges: BTreeMap<EdgeKey, (EdgeIndex, Evidence)>,
}

impl ConnectionGraph {
    /// Joins evidence for an edge in. Returns whether the edge is new.
    pub fn insert(&mut self, key: EdgeKey, evidence: &Evidence) -> bool {
        if let Some((_, known)) = self.edges.get_mut(&key) {
            known.join(evidence);
            return false;
        }
        let source = self.node(&key.source);
        let destination = self.node(&key.destination);
        let index = self.graph.add_edge(source, destination, (key.port, key.transport));
        self.edges.insert(key, (index, evidence.clone()));
        true
    }

    /// Joins another graph in.
    pub fn merge(&mut self, other: &Self) {
        for (key, evidence) in other.edges() {
            self.insert(key.clone(), evidence);
        }
    }

    /// Every edge, in a fixed order.
    pub fn edges(&self) -> impl Iterator<Item = (&EdgeKey, &Evidence)> {
        self.edges.iter().map(|(key, (_, evidence))| (key, evidence))
    }

    /// Evidence for one edge.
    pub fn evidence(&self, key: &EdgeKey) -> Option<&Evidence> {
        self.edges.get(key).map(|(_, evidence)| evidence)
    }

    /// Every endpoint, in a fixed order.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.nodes.keys()
    }

    /// Edges that begin or end at an endpoint, in a fixed order.
    pub fn touching<'a>(&'a self, endpoint: &Endpoint) -> Vec<(&'a EdgeKey, &'a Evidence)> {
        let Some(index) = self.nodes.get(endpoint) else {
            return Vec::new();
        };
        let keys: BTreeSet<EdgeKey> = [petgraph::Direction::Outgoing, petgraph::Direction::Incoming]
            .into_iter()
            .flat_map(|direction| self.graph.edges_directed(*index, direction))
            .map(|edge| EdgeKey {
                source: self.graph[edge.source()].clone(),
                destination: self.graph[edge.target()].clone(),
                port: edge.weight().0,
                transport: edge.weight().1,
            })
            .collect();
        keys.iter()
            .filter_map(|key| self.edges.get_key_value(key))
            .map(|(key, (_, evidence))| (key, evidence))
            .collect()
    }

    /// The petgraph underneath, for algorithms and drawings.
    pub const fn as_petgraph(&self) -> &DiGraph<Endpoint, (u16, Transport)> {
        &self.graph
    }

    /// How many edges there are.
    pub fn len(&self) -> usize {
        self.edges.len()
    }

    /// Whether there is no edge.
    pub fn is_empty(&self) -> bool {
        self.edges.is_empty()
    }

    fn node(&mut self, endpoint: &Endpoint) -> NodeIndex {
        if let Some(index) = self.nodes.get(endpoint) {
            return *index;
        }
        let index = self.graph.add_node(endpoint.clone());
        self.nodes.insert(endpoint.clone(), index);
        index
    }
}

impl PartialEq for ConnectionGraph {
    fn eq(&self, other: &Self) -> bool {
        self.edges().eq(other.edges())
    }
}

impl Eq for ConnectionGraph {}

impl Evidence {
    /// Joins: associative, commutative, idempotent.
    pub fn join(&mut self, other: &Self) {
        let Self { tallies, via } = other;
        for (by, tally) in tallies {
            self.tallies
                .entry(by.clone())
                .and_modify(|known| known.join(tally))
                .or_insert(*tally);
        }
        self.via.extend(via.iter().cloned());
    }
}
