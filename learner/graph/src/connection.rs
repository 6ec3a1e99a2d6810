//! The connection graph: workloads, Services, nodes and external addresses, and who connects to whom on which port.
//!
//! Laws:
//! * graphs merge in any order and any batching to the same graph, and twice is once; equal graphs iterate equally;
//! * an endpoint, a learner's run and a set of Services are held once, however many edges name them: an edge of which both
//!   ends told once takes 160 bytes at most.

mod link;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;

use hashbrown::HashTable;
use petgraph::Direction;
use petgraph::graph::DiGraph;
pub use petgraph::graph::{EdgeIndex, NodeIndex};
use petgraph::visit::EdgeRef as _;
use rustc_hash::FxBuildHasher;

use crate::endpoint::{Endpoint, ServiceName};
use crate::flow::{Origin, Reporter, Tally, Transport};
use crate::name::DnsName;
use crate::process::Process;
use link::Links;
pub use link::{Edge, EvidenceRef};

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

impl EdgeKey {
    /// The same, lent.
    pub const fn as_edge(&self) -> Edge<'_> {
        Edge {
            source: &self.source,
            destination: &self.destination,
            port: self.port,
            transport: self.transport,
        }
    }
}

/// What is known of an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Cumulative tallies, by who reported: joined within an origin, added over origins.
    pub tallies: BTreeMap<(Reporter, Origin), Tally>,
    /// Services through which the source reached the destination.
    pub via: BTreeSet<ServiceName>,
}

/// What an edge is, inside of one graph.
type EdgePlace = (NodeIndex, NodeIndex, u16, Transport);

fn hash(place: &EdgePlace) -> u64 {
    FxBuildHasher.hash_one(place)
}

fn place_of(graph: &DiGraph<Endpoint, (u16, Transport)>, index: EdgeIndex) -> EdgePlace {
    // petgraph knows the ends of every index that it gave out, and no edge is ever removed.
    let (source, destination) = graph.edge_endpoints(index).unwrap_or_default();
    let (port, transport) = graph[index];
    (source, destination, port, transport)
}

/// The graph. Multi-edges: one for each port and transport.
#[derive(Clone, Debug, Default)]
pub struct ConnectionGraph {
    graph: DiGraph<Endpoint, (u16, Transport)>,
    nodes: BTreeMap<Endpoint, NodeIndex>,
    /// The edges by [`EdgePlace`], which the graph knows of each: an index here takes a quarter of what a map of its own would.
    edges: HashTable<EdgeIndex>,
    links: Links,
    /// What the first called the second.
    names: BTreeMap<(NodeIndex, NodeIndex), BTreeSet<DnsName>>,
    /// Who of a node it was, at one end of an edge.
    processes: BTreeMap<(EdgeIndex, Reporter), BTreeSet<Process>>,
}

impl ConnectionGraph {
    /// Joins evidence for an edge in. Returns whether the edge is new.
    pub fn insert(&mut self, key: EdgeKey, evidence: &Evidence) -> bool {
        let EdgeKey {
            source,
            destination,
            port,
            transport,
        } = key;
        let ends = (self.node(source), self.node(destination));
        let (index, new) = self.edge(ends, port, transport);
        let Evidence { tallies, via } = evidence;
        self.links.reach(index, via);
        let told = tallies
            .iter()
            .map(|((reporter, origin), tally)| (*reporter, origin, *tally));
        self.links.tell(index, told, Tally::join);
        new
    }

    /// Counts a flow of an edge: flows of one origin that fold into one edge are different connections, and add up. Not a
    /// merge: the same flow twice counts twice.
    pub(crate) fn count(&mut self, edge: Edge<'_>, told: (Reporter, &Origin, Tally), via: Option<&ServiceName>) {
        let ends = (self.node_of(edge.source), self.node_of(edge.destination));
        let (index, _) = self.edge(ends, edge.port, edge.transport);
        if let Some(service) = via {
            self.links.reach_one(index, service);
        }
        self.links.tell(index, [told], Tally::add);
    }

    /// Joins another graph in.
    pub fn merge(&mut self, other: &Self) {
        // Endpoints are looked up once, and not once for each edge.
        let known: Vec<NodeIndex> = other
            .graph
            .node_weights()
            .map(|endpoint| self.node_of(endpoint))
            .collect();
        let mut ours = Vec::with_capacity(other.len());
        for theirs in other.graph.edge_indices() {
            let (source, destination, port, transport) = place_of(&other.graph, theirs);
            let ends = (known[source.index()], known[destination.index()]);
            let (index, _) = self.edge(ends, port, transport);
            ours.push(index);
            let theirs = other.links.evidence(theirs);
            self.links.reach(index, theirs.via);
            self.links.tell(index, theirs.tallies(), Tally::join);
        }
        for ((source, destination), names) in &other.names {
            let ours = self
                .names
                .entry((known[source.index()], known[destination.index()]))
                .or_default();
            for name in names {
                DnsName::keep(ours, name);
            }
        }
        for ((theirs, end), processes) in &other.processes {
            let kept = self.processes.entry((ours[theirs.index()], *end)).or_default();
            for process in processes {
                Process::keep(kept, process);
            }
        }
    }

    /// Notes that an endpoint asked for another one by this name.
    pub fn name(&mut self, source: &Endpoint, destination: &Endpoint, name: &DnsName) {
        let ends = (self.node_of(source), self.node_of(destination));
        DnsName::keep(self.names.entry(ends).or_default(), name);
    }

    /// The names by which an endpoint asked for another one.
    pub fn names(&self, source: &Endpoint, destination: &Endpoint) -> &BTreeSet<DnsName> {
        const NONE: &BTreeSet<DnsName> = &BTreeSet::new();
        if self.names.is_empty() {
            return NONE;
        }
        let ends = (self.nodes.get(source).copied(), self.nodes.get(destination).copied());
        let (Some(source), Some(destination)) = ends else {
            return NONE;
        };
        self.names.get(&(source, destination)).unwrap_or(NONE)
    }

    /// Notes who of a node it was at one end of an edge, if the edge is there.
    pub fn run_by(&mut self, edge: Edge<'_>, end: Reporter, process: &Process) {
        if let Some(index) = self.find(edge) {
            Process::keep(self.processes.entry((index, end)).or_default(), process);
        }
    }

    /// Who of a node it was at one end of an edge, as far as that was told.
    pub fn processes(&self, edge: Edge<'_>, end: Reporter) -> &BTreeSet<Process> {
        const NONE: &BTreeSet<Process> = &BTreeSet::new();
        // Most ends are pods.
        if self.processes.is_empty() || matches!(edge.end(end), Endpoint::Workload(_)) {
            return NONE;
        }
        let index = self.find(edge);
        index
            .and_then(|index| self.processes.get(&(index, end)))
            .unwrap_or(NONE)
    }

    /// Every edge, in a fixed order.
    pub fn edges(&self) -> impl Iterator<Item = (Edge<'_>, EvidenceRef<'_>)> {
        self.numbered_edges().map(|(_, index)| self.lend(index))
    }

    /// Every edge, in a fixed order, with the indexes of its source and its destination, and its own.
    pub fn edges_between(&self) -> impl Iterator<Item = ([NodeIndex; 2], EdgeIndex, Edge<'_>)> {
        self.numbered_edges()
            .map(|(ends, index)| (ends, index, self.edge_at(index)))
    }

    /// What ends at an endpoint, in no particular order: index of the edge, index of its source, port and transport.
    pub fn incoming_at(&self, to: NodeIndex) -> impl Iterator<Item = (EdgeIndex, NodeIndex, u16, Transport)> {
        let edges = self.graph.edges_directed(to, Direction::Incoming);
        edges.map(|edge| {
            let (port, transport) = *edge.weight();
            (edge.id(), edge.source(), port, transport)
        })
    }

    fn numbered_edges(&self) -> impl Iterator<Item = ([NodeIndex; 2], EdgeIndex)> {
        let mut rank = vec![0_u32; self.nodes.len()];
        for (place, node) in (0..).zip(self.nodes.values()) {
            rank[node.index()] = place;
        }
        self.nodes.values().flat_map(move |source| {
            let edges = self.graph.edges_directed(*source, Direction::Outgoing);
            let mut outgoing: Vec<_> = edges
                .map(|edge| {
                    let (port, transport) = *edge.weight();
                    ((rank[edge.target().index()], port, transport), edge.target(), edge.id())
                })
                .collect();
            outgoing.sort_unstable();
            let numbered = outgoing.into_iter();
            numbered.map(|(_, destination, index)| ([*source, destination], index))
        })
    }

    /// Evidence for one edge.
    pub fn evidence(&self, key: &EdgeKey) -> Option<EvidenceRef<'_>> {
        Some(self.links.evidence(self.find(key.as_edge())?))
    }

    fn find(&self, edge: Edge<'_>) -> Option<EdgeIndex> {
        let source = self.nodes.get(edge.source)?;
        let destination = self.nodes.get(edge.destination)?;
        let place = (*source, *destination, edge.port, edge.transport);
        let is_it = |index: &EdgeIndex| place_of(&self.graph, *index) == place;
        self.edges.find(hash(&place), is_it).copied()
    }

    /// Every endpoint, in a fixed order.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.nodes.keys()
    }

    /// Edges that begin or end at an endpoint, in a fixed order.
    pub fn touching(&self, endpoint: &Endpoint) -> Vec<(Edge<'_>, EvidenceRef<'_>)> {
        let outgoing = self.directed(endpoint, Direction::Outgoing);
        // One that begins and ends there was met already.
        let incoming = self
            .directed(endpoint, Direction::Incoming)
            .filter(|(edge, _)| edge.source != endpoint);
        let mut touching: Vec<_> = outgoing.chain(incoming).collect();
        touching.sort_by_key(|(edge, _)| *edge);
        touching
    }

    /// How many endpoints there are: the index of each is below it.
    pub fn node_count(&self) -> usize {
        self.graph.node_count()
    }

    /// How many sets of Services there are: the number of each is below it.
    pub fn via_count(&self) -> usize {
        self.links.via_count()
    }

    /// The index of an endpoint. It depends on the order of learning, and stays the same for the life of the graph.
    pub fn index_of(&self, endpoint: &Endpoint) -> Option<NodeIndex> {
        self.nodes.get(endpoint).copied()
    }

    /// Edges that begin at an endpoint, each with the index of the other end, in no particular order.
    pub fn outgoing(&self, from: NodeIndex) -> impl Iterator<Item = (NodeIndex, Edge<'_>, EvidenceRef<'_>)> {
        let edges = self.graph.edges_directed(from, Direction::Outgoing);
        edges.map(|edge| (edge.target(), edge.id())).map(|(end, index)| {
            let (edge, evidence) = self.lend(index);
            (end, edge, evidence)
        })
    }

    /// Edges that end at an endpoint, each with the index of the other end, in no particular order.
    pub fn incoming(&self, to: NodeIndex) -> impl Iterator<Item = (NodeIndex, Edge<'_>, EvidenceRef<'_>)> {
        let edges = self.graph.edges_directed(to, Direction::Incoming);
        edges.map(|edge| (edge.source(), edge.id())).map(|(end, index)| {
            let (edge, evidence) = self.lend(index);
            (end, edge, evidence)
        })
    }

    /// The petgraph underneath, for algorithms and drawings.
    pub const fn as_petgraph(&self) -> &DiGraph<Endpoint, (u16, Transport)> {
        &self.graph
    }

    /// How many edges there are.
    pub fn len(&self) -> usize {
        self.graph.edge_count()
    }

    /// Whether there is no edge.
    pub fn is_empty(&self) -> bool {
        self.graph.edge_count() == 0
    }

    fn directed(
        &self,
        endpoint: &Endpoint,
        direction: Direction,
    ) -> impl Iterator<Item = (Edge<'_>, EvidenceRef<'_>)> + use<'_> {
        let node = self.nodes.get(endpoint).copied();
        node.into_iter()
            .flat_map(move |node| self.graph.edges_directed(node, direction))
            .map(|edge| self.lend(edge.id()))
    }

    fn lend(&self, index: EdgeIndex) -> (Edge<'_>, EvidenceRef<'_>) {
        (self.edge_at(index), self.links.evidence(index))
    }

    fn edge_at(&self, index: EdgeIndex) -> Edge<'_> {
        let (source, destination, port, transport) = place_of(&self.graph, index);
        Edge {
            source: &self.graph[source],
            destination: &self.graph[destination],
            port,
            transport,
        }
    }

    fn edge(
        &mut self,
        (source, destination): (NodeIndex, NodeIndex),
        port: u16,
        transport: Transport,
    ) -> (EdgeIndex, bool) {
        let place = (source, destination, port, transport);
        let graph = &mut self.graph;
        let is_it = |index: &EdgeIndex| place_of(graph, *index) == place;
        if let Some(index) = self.edges.find(hash(&place), is_it) {
            return (*index, false);
        }
        self.links.begin();
        let index = graph.add_edge(source, destination, (port, transport));
        let again = |index: &EdgeIndex| hash(&place_of(graph, *index));
        self.edges.insert_unique(hash(&place), index, again);
        (index, true)
    }

    fn node(&mut self, endpoint: Endpoint) -> NodeIndex {
        if let Some(index) = self.nodes.get(&endpoint) {
            return *index;
        }
        let index = self.graph.add_node(endpoint.clone());
        self.nodes.insert(endpoint, index);
        index
    }

    fn node_of(&mut self, endpoint: &Endpoint) -> NodeIndex {
        match self.nodes.get(endpoint) {
            Some(index) => *index,
            None => self.node(endpoint.clone()),
        }
    }
}

impl PartialEq for ConnectionGraph {
    fn eq(&self, other: &Self) -> bool {
        let names = |graph: &Self| {
            let ends = |node: NodeIndex| graph.graph[node].clone();
            let all = graph.names.iter();
            all.map(|((source, destination), names)| ((ends(*source), ends(*destination)), names.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        let processes = |graph: &Self| {
            let all = graph.processes.iter();
            all.map(|((index, end), kept)| ((graph.lend(*index).0.key(), *end), kept.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        self.edges().eq(other.edges()) && names(self) == names(other) && processes(self) == processes(other)
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
