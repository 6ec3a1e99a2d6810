//! The concrete ends behind an endpoint of the graph: pods, addresses of nodes, Services and others.

use std::collections::HashMap;

use nanoseg_graph::cluster::{Cluster, OwnerRef};
use nanoseg_graph::connection::{ConnectionGraph, Edge};
use nanoseg_graph::endpoint::{Endpoint, ServiceName, UnknownReason, Workload};
use rustc_hash::FxBuildHasher;

use crate::evaluate::{Connection, End, Evaluator, Kind, Place, Undecidable};

/// Why an endpoint has no ends that could be asked about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum NoEnds {
    /// Nobody knows who it was.
    #[error("{}", .0.explain())]
    Unknown(UnknownReason),
    /// The workload has no live pod with an address.
    #[error("{0} has no live pod with an address")]
    NoPods(Workload),
    /// The node has no address that is known.
    #[error("Node {0} has no known address")]
    NoNodeAddress(String),
    /// The Service has no slice with this port.
    #[error("{0} has no EndpointSlice with this port")]
    NoEndpoints(ServiceName),
    /// Its address has no answer.
    #[error("{0}")]
    Undecidable(Undecidable),
}

/// Places of which the evaluator says the same; at least one.
#[derive(Clone, Debug)]
struct Group(Vec<Place>);

/// The pods of a workload, in groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pods<'a>(&'a [Group]);

impl Pods<'_> {
    /// Hands over every pair of them with the other pods, many at once where the evaluator cannot tell them apart.
    pub(crate) fn pairs(self, others: Self, take: &mut impl FnMut(Pair)) {
        for source in self.0 {
            for destination in others.0 {
                joined(source, destination, take);
            }
        }
    }

    /// One place of each kind.
    pub(crate) fn kinds(self) -> impl Iterator<Item = Place> {
        self.0.iter().map(|group| group.0[0])
    }
}

/// A place that stands for all behind an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single {
    pub(crate) place: Place,
    pub(crate) count: usize,
}

impl Single {
    /// The only pair that an edge between two of them stands for; `None` where both are the same, which connects with itself as
    /// well.
    pub(crate) fn pair(self, destination: Self) -> Option<Pair> {
        (self.place != destination.place).then_some(Pair {
            source: self.place,
            destination: destination.place,
            count: self.count * destination.count,
        })
    }
}

/// Two places that an edge joins, and for how many pairs they stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) source: Place,
    pub(crate) destination: Place,
    pub(crate) count: usize,
}

impl Pair {
    /// In words.
    pub(crate) fn connection(&self, edge: Edge<'_>, evaluator: &Evaluator<'_>) -> Connection {
        Connection {
            source: evaluator.end(&self.source),
            destination: evaluator.end(&self.destination),
            port: edge.port,
            transport: edge.transport,
        }
    }
}

/// A cluster's pods by workload, in groups.
pub(crate) struct Ends<'e, 'a> {
    cluster: &'a Cluster,
    evaluator: &'e Evaluator<'a>,
    /// The number of each workload.
    workloads: HashMap<Workload, usize, FxBuildHasher>,
    groups: Vec<Vec<Group>>,
}

impl<'e, 'a> Ends<'e, 'a> {
    pub(crate) fn new(cluster: &'a Cluster, evaluator: &'e Evaluator<'a>) -> Self {
        let mut groups: Vec<Vec<Group>> = Vec::new();
        let mut workloads: HashMap<Workload, usize, FxBuildHasher> = HashMap::default();
        // Pods of one owner are of one workload, so that it is looked for once for all of them.
        let mut owners: HashMap<(&str, &OwnerRef), usize, FxBuildHasher> = HashMap::default();
        for (pod, place) in evaluator.pods() {
            let mut of_workload = || {
                let number = *workloads.entry(cluster.workload_of(pod)).or_insert(groups.len());
                groups.resize_with(groups.len().max(number + 1), Vec::new);
                number
            };
            let number = match &pod.owner {
                // A node owns its static pods in name only: each is a workload.
                Some(owner) if owner.kind != "Node" => {
                    *owners.entry((&pod.namespace, owner)).or_insert_with(of_workload)
                }
                Some(_) | None => of_workload(),
            };
            add(&mut groups[number], place);
        }
        Self {
            cluster,
            evaluator,
            workloads,
            groups,
        }
    }

    /// Hands over every pair of ends that an edge stands for now, many at once where the evaluator cannot tell them apart.
    pub(crate) fn pairs(&self, edge: Edge<'_>, take: impl FnMut(Pair)) -> Result<(), NoEnds> {
        self.pairs_of([edge.source, edge.destination].map(|end| self.pods(end)), edge, take)
    }

    /// The same where the pods behind both ends were looked up already.
    pub(crate) fn pairs_of(
        &self,
        [sources, destinations]: [Option<Pods<'_>>; 2],
        edge: Edge<'_>,
        mut take: impl FnMut(Pair),
    ) -> Result<(), NoEnds> {
        let (own, other);
        let sources = if let Some(Pods(groups)) = sources {
            groups
        } else {
            own = self.addresses(edge.source, edge)?;
            &own
        };
        let destinations = if let Some(Pods(groups)) = destinations {
            groups
        } else {
            other = self.addresses(edge.destination, edge)?;
            &other
        };
        Pods(sources).pairs(Pods(destinations), &mut take);
        Ok(())
    }

    /// The pods behind an endpoint; `None` where there are none.
    fn pods(&self, endpoint: &Endpoint) -> Option<Pods<'_>> {
        let number = self.workloads.get(endpoint.workload()?)?;
        Some(Pods(&self.groups[*number]))
    }

    /// The pods behind each endpoint of a graph, by its index: nobody's name is looked up for each edge.
    pub(crate) fn pods_by_index(&self, graph: &ConnectionGraph) -> Vec<Option<Pods<'_>>> {
        let endpoints = graph.as_petgraph().node_weights();
        endpoints.map(|endpoint| self.pods(endpoint)).collect()
    }

    /// The one place that stands for everybody behind each endpoint of a graph, by its index, and how many those are; `None` where
    /// there are several kinds, nobody, or somebody on a node's own network.
    pub(crate) fn singles_by_index(&self, graph: &ConnectionGraph) -> Vec<Option<Single>> {
        let endpoints = graph.as_petgraph().node_weights();
        let single = |endpoint: &Endpoint| {
            let single = match endpoint {
                Endpoint::External(address) => Single {
                    place: self.evaluator.find(&End::Address(*address)).ok()?,
                    count: 1,
                },
                Endpoint::Workload(_) | Endpoint::Node(_) | Endpoint::Service(_) | Endpoint::Unknown { .. } => {
                    let [Group(places)] = self.pods(endpoint)?.0 else {
                        return None;
                    };
                    Single {
                        place: places[0],
                        count: places.len(),
                    }
                }
            };
            (!single.place.is_on_a_node()).then_some(single)
        };
        endpoints.map(single).collect()
    }

    /// Every workload with a live pod, in a fixed order, with its pods.
    pub(crate) fn all(&self) -> Vec<(&Workload, Pods<'_>)> {
        let mut all: Vec<_> = self
            .workloads
            .keys()
            .map(|workload| (workload, Pods(&self.groups[self.workloads[workload]])))
            .collect();
        all.sort_unstable_by_key(|(workload, _)| *workload);
        all
    }

    /// The ends of an endpoint that is no workload.
    fn addresses(&self, endpoint: &Endpoint, edge: Edge<'_>) -> Result<Vec<Group>, NoEnds> {
        let (addresses, otherwise): (Vec<_>, _) = match endpoint {
            Endpoint::Workload(workload) => return Err(NoEnds::NoPods(workload.clone())),
            Endpoint::Node(name) => {
                let addresses = self.cluster.node(name).map(|node| &node.addresses);
                let addresses = match addresses {
                    Some(addresses) if !addresses.is_empty() => addresses.iter().copied().collect(),
                    _ => {
                        let pods = self.cluster.pods();
                        pods.filter(|pod| pod.host_network && pod.node.as_deref() == Some(name.as_str()))
                            .flat_map(|pod| pod.addresses.iter().copied())
                            .collect()
                    }
                };
                (addresses, NoEnds::NoNodeAddress(name.clone()))
            }
            Endpoint::Service(name) => {
                let slices = self.cluster.slices_of(name).filter(|slice| {
                    slice
                        .ports
                        .iter()
                        .any(|(_, number, transport)| (*number, *transport) == (edge.port, edge.transport))
                });
                let addresses = slices.flat_map(|slice| slice.addresses.iter().copied());
                (addresses.collect(), NoEnds::NoEndpoints(name.clone()))
            }
            Endpoint::External(address) => {
                let place = self
                    .evaluator
                    .find(&End::Address(*address))
                    .map_err(NoEnds::Undecidable)?;
                return Ok(vec![Group(vec![place])]);
            }
            Endpoint::Unknown { reason, address: _ } => return Err(NoEnds::Unknown(*reason)),
        };
        let mut groups = Vec::new();
        for address in addresses {
            // An address that is a Service's has no end of its own.
            if let Ok(place) = self.evaluator.find(&End::Address(address)) {
                add(&mut groups, place);
            }
        }
        if groups.is_empty() { Err(otherwise) } else { Ok(groups) }
    }
}

fn add(groups: &mut Vec<Group>, place: Place) {
    let kind: Kind = place.kind();
    match groups.iter_mut().find(|group| group.0[0].kind() == kind) {
        Some(group) => group.0.push(place),
        None => groups.push(Group(vec![place])),
    }
}

fn joined(source: &Group, destination: &Group, take: &mut impl FnMut(Pair)) {
    let pair = |source: Place, destination: Place, count| Pair {
        source,
        destination,
        count,
    };
    let (first, other) = (source.0[0], destination.0[0]);
    if first.is_on_a_node() || other.is_on_a_node() {
        for source in &source.0 {
            for destination in &destination.0 {
                take(pair(*source, *destination, 1));
            }
        }
        return;
    }
    let count = source.0.len() * destination.0.len();
    // Only the pods of one workload are in one group at both ends, and then both groups are the same.
    if first != other {
        take(pair(first, other, count));
        return;
    }
    take(pair(first, first, source.0.len()));
    if let Some(second) = source.0.get(1) {
        take(pair(first, *second, count - source.0.len()));
    }
}
