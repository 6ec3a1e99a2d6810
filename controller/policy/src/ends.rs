//! The concrete ends behind an endpoint of the graph: pods, addresses of nodes, Services and others.

use std::collections::BTreeMap;

use nanoseg_graph::cluster::{Cluster, Pod, PodPhase};
use nanoseg_graph::connection::EdgeKey;
use nanoseg_graph::endpoint::{Endpoint, ServiceName, UnknownReason, Workload};

use crate::evaluate::{Connection, End};

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
}

/// A cluster's pods by workload.
pub(crate) struct Ends<'a> {
    cluster: &'a Cluster,
    pods: BTreeMap<Workload, Vec<&'a Pod>>,
}

impl<'a> Ends<'a> {
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        let mut pods: BTreeMap<Workload, Vec<&'a Pod>> = BTreeMap::new();
        for pod in cluster.pods() {
            if pod.phase != PodPhase::Finished && !pod.addresses.is_empty() {
                pods.entry(cluster.workload_of(pod)).or_default().push(pod);
            }
        }
        Self { cluster, pods }
    }

    /// Every connection that an edge stands for now.
    pub(crate) fn connections(&self, edge: &EdgeKey) -> Result<Vec<Connection>, NoEnds> {
        let sources = self.behind(&edge.source, edge)?;
        let destinations = self.behind(&edge.destination, edge)?;
        let pair = |source: &End, destination: &End| Connection {
            source: source.clone(),
            destination: destination.clone(),
            port: edge.port,
            transport: edge.transport,
        };
        Ok(sources
            .iter()
            .flat_map(|source| destinations.iter().map(|destination| pair(source, destination)))
            .collect())
    }

    fn behind(&self, endpoint: &Endpoint, edge: &EdgeKey) -> Result<Vec<End>, NoEnds> {
        let (ends, otherwise): (Vec<End>, _) = match endpoint {
            Endpoint::Workload(workload) => {
                let pods = self.pods.get(workload).into_iter().flatten();
                let end = |pod: &&Pod| End::Pod {
                    namespace: pod.namespace.clone(),
                    name: pod.name.clone(),
                };
                (pods.map(end).collect(), NoEnds::NoPods(workload.clone()))
            }
            Endpoint::Node(name) => {
                let addresses = self.cluster.node(name).map(|node| &node.addresses);
                let hosted = || {
                    let pods = self.cluster.pods();
                    pods.filter(|pod| pod.host_network && pod.node.as_ref() == Some(name))
                        .flat_map(|pod| &pod.addresses)
                };
                let ends = match addresses {
                    Some(addresses) if !addresses.is_empty() => addresses.iter().copied().map(End::Address).collect(),
                    _ => hosted().copied().map(End::Address).collect(),
                };
                (ends, NoEnds::NoNodeAddress(name.clone()))
            }
            Endpoint::Service(name) => {
                let slices = self.cluster.slices_of(name).filter(|slice| {
                    slice
                        .ports
                        .iter()
                        .any(|(_, number, transport)| (*number, *transport) == (edge.port, edge.transport))
                });
                let addresses = slices.flat_map(|slice| slice.addresses.iter().copied());
                (addresses.map(End::Address).collect(), NoEnds::NoEndpoints(name.clone()))
            }
            Endpoint::External(address) => return Ok(vec![End::Address(*address)]),
            Endpoint::Unknown { reason, address: _ } => return Err(NoEnds::Unknown(*reason)),
        };
        if ends.is_empty() { Err(otherwise) } else { Ok(ends) }
    }
}
