//! Recorded connections and a cluster to the connection graph, by the same rules as learners' flows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Peer, Resolver, plain};
use crate::cluster::{AddressOwner, Cluster};
use crate::connection::{ConnectionGraph, EdgeKey};
use crate::container::ContainerRef;
use crate::endpoint::{Endpoint, UnknownReason, Workload};
use crate::flow::{FlowRef, FlowTable, Origin, Reporter, Subject, Tally};
use crate::recorded::{RecordedEnd, RecordedKey, Recording};

/// Attributes both ends of every recorded connection and folds them into edges. `flows` are the learners', whose reports
/// settle addresses that several owners had, and say which addresses are nodes'.
///
/// A pod that is named is that pod, whatever its address; an address is whoever had it at that time, a Service's leads to the
/// workloads behind it.
pub fn resolve_recorded(recording: &Recording, flows: &FlowTable, cluster: &Cluster) -> ConnectionGraph {
    let resolver = Resolver {
        // What others recorded names no container of a host.
        hosts: None,
        ..Resolver::new(flows, cluster)
    };
    // No learner's: what others recorded is one run of nobody's.
    let origin = Origin {
        node: String::new(),
        epoch: 0,
    };
    let gone = resolver.gone(recording);
    let mut graph = ConnectionGraph::default();
    for (key, tally) in recording.connections() {
        for (edge, via) in resolver.edges(&origin, key, &tally, &gone) {
            graph.count(edge.as_edge(), (key.reporter, &origin, tally), via.as_ref());
        }
    }
    graph
}

/// Pods that the cluster does not have, and their workloads, which it has.
type Gone<'a> = BTreeMap<&'a RecordedEnd, &'a Workload>;

impl Resolver<'_> {
    /// Records that name a workload may have guessed it from the names of others. A guess that names nothing is none: taken
    /// for a workload that is gone, it would cost the pod's real one its rules.
    fn gone<'a>(&self, recording: &'a Recording) -> Gone<'a> {
        let mut exists: BTreeMap<&Workload, bool> = BTreeMap::new();
        let is_gone = |end: &RecordedEnd| match end {
            RecordedEnd::Pod { namespace, name } => self.cluster.pod(namespace, name).is_none(),
            RecordedEnd::Address(_) => false,
        };
        let gone = recording.workloads().filter(|(end, _)| is_gone(end));
        gone.filter(|(_, workload)| {
            let exists = exists.entry(workload);
            *exists.or_insert_with(|| self.cluster.has_workload(workload))
        })
        .collect()
    }

    fn edges(
        &self,
        origin: &Origin,
        key: &RecordedKey,
        tally: &Tally,
        gone: &Gone<'_>,
    ) -> Vec<(EdgeKey, Option<crate::endpoint::ServiceName>)> {
        let RecordedKey {
            source,
            destination,
            port,
            transport,
            reporter: _,
        } = key;
        let subjects = [source, destination].map(|end| self.subject(end, tally));
        if let [Subject::Container(from), Subject::Container(to)] = &subjects
            && from.pod_uid == to.pod_uid
        {
            // A pod's connection to itself is not traffic.
            return Vec::new();
        }
        let [from, to] = &subjects;
        let seen_as = |peer: std::net::IpAddr, subject, reporter| FlowRef {
            subject,
            peer,
            port: *port,
            transport: *transport,
            reporter,
        };
        // Each end as the other one sees it: as the peer of the other's flow.
        let sources = match source {
            RecordedEnd::Address(address) => {
                self.peer_ends(origin, seen_as(*address, to, Reporter::Destination), tally)
            }
            RecordedEnd::Pod { namespace, name } => vec![self.named(namespace, name, *port, gone.get(source).copied())],
        };
        let destinations = match destination {
            RecordedEnd::Address(address) => self.peer_ends(origin, seen_as(*address, from, Reporter::Source), tally),
            RecordedEnd::Pod { namespace, name } => {
                vec![self.named(namespace, name, *port, gone.get(destination).copied())]
            }
        };
        let mut edges = Vec::new();
        for source in &sources {
            for destination in &destinations {
                let edge = EdgeKey {
                    source: source.endpoint.clone(),
                    destination: destination.endpoint.clone(),
                    port: destination.port,
                    transport: *transport,
                };
                edges.push((edge, destination.via.clone()));
            }
        }
        edges
    }

    /// Whose flow it would be if a learner had seen it at this end.
    fn subject(&self, end: &RecordedEnd, tally: &Tally) -> Subject {
        let uid = match end {
            RecordedEnd::Pod { namespace, name } => self.cluster.pod(namespace, name).map(|pod| Arc::clone(&pod.uid)),
            RecordedEnd::Address(address) => {
                let owners = self.cluster.owners_of(*address, tally.first_seen, tally.last_seen);
                let pods: BTreeSet<Arc<str>> = owners
                    .into_iter()
                    .filter_map(|owner| match owner {
                        AddressOwner::Pod(uid) => Some(uid),
                        AddressOwner::Service(_) | AddressOwner::Node(_) => None,
                    })
                    .collect();
                // Of several nobody knows which.
                pods.first().filter(|_| pods.len() == 1).cloned()
            }
        };
        match uid {
            Some(pod_uid) => Subject::Container(ContainerRef {
                pod_uid: pod_uid.to_string(),
                container_id: String::new(),
            }),
            None => Subject::Unknown(UnknownReason::PodNotSeen),
        }
    }

    fn named(&self, namespace: &str, name: &str, port: u16, gone: Option<&Workload>) -> Peer {
        let endpoint = match (self.cluster.pod(namespace, name), gone) {
            (Some(pod), _) => self.pod_endpoint(pod, ""),
            (None, Some(workload)) => Endpoint::Workload(workload.clone()),
            (None, None) => Endpoint::Unknown {
                reason: UnknownReason::PodNotSeen,
                address: None,
            },
        };
        plain(endpoint, port)
    }
}

#[cfg(test)]
mod tests;
