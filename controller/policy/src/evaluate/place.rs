//! Who an end of a connection is.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use jiff::Timestamp;
use nanoseg_graph::cluster::{AddressOwner, Cluster, Pod, PodPhase};
use rustc_hash::FxBuildHasher;

use super::compiled::{Compiled, NONE};
use super::space::{SOMEWHERE, Spot};
use super::verdict::{End, Undecidable};

/// An end of a connection, found in an [`super::Evaluator`]: small, and valid for that one only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub(super) who: Who,
    /// The class of a pod.
    pub(super) class: u32,
    /// The node whose network it uses.
    pub(super) on_network_of: u32,
    /// The node that a pod runs on.
    pub(super) runs_on: u32,
    /// Where its IPv4 and its IPv6 address are.
    pub(super) spots: [Option<Spot>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// By its number.
    Pod(u32),
    /// A node, or an address that nobody in the cluster has.
    Address(IpAddr),
}

impl Place {
    /// What tells pods apart at the other end of a connection, as long as neither end is on a node's own network: pods of one
    /// kind get the same decisions, but with themselves.
    pub(crate) fn kind(&self) -> Kind {
        Kind {
            class: self.class,
            spots: self.spots,
            on_network_of: self.on_network_of,
        }
    }

    /// Whether it is on a node's own network: then it matters which node the other end runs on.
    pub(crate) const fn is_on_a_node(&self) -> bool {
        self.on_network_of != NONE
    }
}

/// See [`Place::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    class: u32,
    spots: [Option<Spot>; 2],
    on_network_of: u32,
}

/// Whether a connection can begin or end at a pod that has not finished. Of one that is only written down selectors tell what
/// they mean; one that runs without an address, in the eyes of the API server, does not connect yet.
fn has_place(pod: &Pod) -> bool {
    pod.phase == PodPhase::Declared || !pod.addresses.is_empty()
}

/// A node that is known by a pod of another namespace alone: nobody that is asked about runs there.
const ELSEWHERE: u32 = NONE - 1;

/// Everything that can be an end.
#[derive(Debug)]
pub(super) struct Places<'a> {
    cluster: &'a Cluster,
    pub(super) pods: Vec<&'a Pod>,
    by_name: HashMap<(&'a str, &'a str), u32, FxBuildHasher>,
    nodes: HashMap<&'a str, u32, FxBuildHasher>,
}

impl<'a> Places<'a> {
    /// With the pods of these namespaces; `None`: of all.
    pub(super) fn new(cluster: &'a Cluster, namespaces: Option<&BTreeSet<&str>>) -> Self {
        let pods: Vec<&Pod> = match namespaces {
            None => cluster.pods().collect(),
            Some(some) => some.iter().flat_map(|namespace| cluster.pods_in(namespace)).collect(),
        };
        let by_name = (0..)
            .zip(&pods)
            .map(|(number, pod)| ((&*pod.namespace, &*pod.name), number));
        let by_name = by_name.collect();
        let mut nodes = HashMap::default();
        let names = cluster.nodes().map(|node| node.name.as_str());
        for name in names.chain(pods.iter().filter_map(|pod| pod.node.as_deref())) {
            let next = u32::try_from(nodes.len()).unwrap_or(NONE);
            nodes.entry(name).or_insert(next);
        }
        Self {
            cluster,
            pods,
            by_name,
            nodes,
        }
    }

    pub(super) fn find(&self, end: &End, compiled: &Compiled<'a>) -> Result<Place, Undecidable> {
        let number = match end {
            End::Address(address) => return self.of_address(address.to_canonical(), compiled),
            End::Pod { namespace, name } => self.number(namespace, name),
            // A pod that is gone is remembered by its UID, but nothing can connect to it.
            End::Uid(uid) => self.cluster.pod_by_uid(uid).and_then(|pod| {
                let number = self.number(&pod.namespace, &pod.name)?;
                (self.pods[number as usize].uid == pod.uid).then_some(number)
            }),
        };
        let number = number.ok_or_else(|| Undecidable::NoSuchPod(end.clone()))?;
        let pod = self.pods[number as usize];
        if pod.phase == PodPhase::Finished {
            return Err(Undecidable::Finished(end.clone()));
        }
        if !has_place(pod) {
            return Err(Undecidable::NoAddress(end.clone()));
        }
        Ok(self.at_all_addresses(number, compiled))
    }

    /// The pods that a connection can begin or end at.
    pub(super) fn living<'b>(&'b self, compiled: &'b Compiled<'a>) -> impl Iterator<Item = (&'a Pod, Place)> + 'b {
        (0..)
            .zip(&self.pods)
            .filter(|(_, pod)| pod.phase != PodPhase::Finished && has_place(pod))
            .map(|(number, pod)| (*pod, self.at_all_addresses(number, compiled)))
    }

    fn at_all_addresses(&self, number: u32, compiled: &Compiled<'a>) -> Place {
        let Pod { addresses, phase, .. } = self.pods[number as usize];
        if *phase == PodPhase::Declared && addresses.is_empty() {
            let unknown = Place {
                spots: SOMEWHERE.map(Some),
                ..self.pod(number, [None, None], compiled)
            };
            return unknown;
        }
        let first = |is: fn(&IpAddr) -> bool| addresses.iter().copied().find(is);
        self.pod(number, [first(IpAddr::is_ipv4), first(IpAddr::is_ipv6)], compiled)
    }

    /// Whoever has an address now. For a dual-stack pod it chooses the family.
    fn of_address(&self, address: IpAddr, compiled: &Compiled<'a>) -> Result<Place, Undecidable> {
        let addresses = [
            Some(address).filter(IpAddr::is_ipv4),
            Some(address).filter(IpAddr::is_ipv6),
        ];
        let mut node = NONE;
        for owner in self.cluster.owners_of(address, Timestamp::MAX, Timestamp::MAX) {
            match owner {
                AddressOwner::Pod(uid) => {
                    let pod = self.cluster.pod_by_uid(&uid);
                    if let Some(number) = pod.and_then(|pod| self.number(&pod.namespace, &pod.name)) {
                        return Ok(self.pod(number, addresses, compiled));
                    }
                }
                AddressOwner::Node(name) => node = self.node(Some(&name)),
                AddressOwner::Service(name) => return Err(Undecidable::ServiceAddress(name)),
            }
        }
        Ok(Place {
            who: Who::Address(address),
            class: NONE,
            on_network_of: node,
            runs_on: NONE,
            spots: addresses.map(|address| address.map(|address| compiled.space.spot(address))),
        })
    }

    fn pod(&self, number: u32, addresses: [Option<IpAddr>; 2], compiled: &Compiled<'a>) -> Place {
        let pod = self.pods[number as usize];
        let node = self.node(pod.node.as_deref());
        Place {
            who: Who::Pod(number),
            class: compiled.class_of[number as usize],
            on_network_of: if pod.host_network { node } else { NONE },
            runs_on: node,
            spots: addresses.map(|address| address.map(|address| compiled.space.spot(address))),
        }
    }

    fn number(&self, namespace: &str, name: &str) -> Option<u32> {
        self.by_name.get(&(namespace, name)).copied()
    }

    fn node(&self, name: Option<&str>) -> u32 {
        name.map_or(NONE, |name| self.nodes.get(name).copied().unwrap_or(ELSEWHERE))
    }

    /// The end that names it in an answer.
    pub(super) fn end(&self, place: &Place) -> End {
        match place.who {
            Who::Pod(number) => {
                let pod = self.pods[number as usize];
                End::Pod {
                    namespace: pod.namespace.to_string(),
                    name: pod.name.to_string(),
                }
            }
            Who::Address(address) => End::Address(address),
        }
    }
}
