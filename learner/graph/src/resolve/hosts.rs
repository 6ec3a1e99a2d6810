//! Hosts without Kubernetes: containers that no kubelet started and systemd units are the workloads, the host is their namespace.
//!
//! Law: a container's address is whose it was when the flow began; where another got it during the flow, nobody knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use crate::cluster::Cluster;
use crate::endpoint::{Endpoint, UnknownReason, Workload};
use crate::flow::{FlowRef, FlowTable, Held, Origin, Reporter, Subject, Tally, Transport};
use crate::hosted::{Hosted, hosted};

/// An address is read some seconds after its first packet at most: learners look each second.
const LATE: SignedDuration = SignedDuration::from_secs(5);

/// What the learners of such hosts said.
pub(super) struct Hosts<'a> {
    flows: &'a FlowTable,
    /// By host and container id.
    containers: BTreeMap<(&'a str, &'a str), &'a Held>,
    /// Whose an address was, since when, in that order.
    owners: BTreeMap<(&'a str, IpAddr), BTreeSet<(Timestamp, &'a Subject)>>,
    /// By host, port and transport.
    listeners: BTreeMap<(&'a str, u16, Transport), BTreeSet<Endpoint>>,
    /// By host, whom they call, port and transport.
    callers: BTreeMap<(&'a str, IpAddr, u16, Transport), BTreeSet<Endpoint>>,
}

impl<'a> Hosts<'a> {
    /// Unless there is a cluster, in which nothing but its objects is a workload.
    pub(super) fn of(flows: &'a FlowTable, cluster: &Cluster) -> Option<Self> {
        if cluster.pods().next().is_some() || cluster.nodes().next().is_some() {
            return None;
        }
        let mut hosts = Self {
            flows,
            containers: BTreeMap::new(),
            owners: BTreeMap::new(),
            listeners: BTreeMap::new(),
            callers: BTreeMap::new(),
        };
        for (node, held) in flows.held() {
            let Held {
                subject,
                name: _,
                addresses,
                first_seen,
            } = held;
            if let Subject::Host(path) = subject
                && let Hosted::Container(id) = hosted(path)
            {
                hosts.containers.insert((node, id), held);
            }
            for address in addresses {
                let owners = hosts.owners.entry((node, *address)).or_default();
                owners.insert((*first_seen, subject));
            }
        }
        for (origin, key, _) in flows.flows() {
            let node = origin.node.as_str();
            // A container has a network of its own: of the host's are the others.
            let Some(Endpoint::Workload(workload)) = hosts.own_end(node, key.subject) else {
                continue;
            };
            if workload.kind != Hosted::UNIT {
                continue;
            }
            let place = match key.reporter {
                Reporter::Source => hosts
                    .callers
                    .entry((node, key.peer, key.port, key.transport))
                    .or_default(),
                Reporter::Destination => hosts.listeners.entry((node, key.port, key.transport)).or_default(),
            };
            place.insert(Endpoint::Workload(workload));
        }
        Some(hosts)
    }

    /// The workload that a cgroup of a host is, if it is one.
    pub(super) fn own_end(&self, node: &str, subject: &Subject) -> Option<Endpoint> {
        let Subject::Host(path) = subject else { return None };
        let who = hosted(path);
        let (kind, name) = match who {
            Hosted::Container(id) => {
                let named = self.containers.get(&(node, id)).and_then(|held| held.name.clone());
                (Hosted::CONTAINER, named.unwrap_or_else(|| who.to_string()))
            }
            Hosted::Unit(_) => (Hosted::UNIT, who.to_string()),
            Hosted::Other => return None,
        };
        Some(Endpoint::Workload(Workload {
            namespace: node.to_owned(),
            kind: kind.to_owned(),
            name,
        }))
    }

    /// The other end of a flow, if it is on the same host.
    pub(super) fn peer(&self, origin: &Origin, key: FlowRef<'_>, tally: &Tally) -> Option<Endpoint> {
        let node = origin.node.as_str();
        if let Some(owners) = self.owners.get(&(node, key.peer)) {
            let began = tally.first_seen.saturating_add(LATE).unwrap_or(Timestamp::MAX);
            let (before, after): (Vec<&(Timestamp, &Subject)>, Vec<_>) =
                owners.iter().partition(|(since, _)| *since <= began);
            let owner: &(Timestamp, &Subject) = before.last().or_else(|| after.first())?;
            if after.iter().any(|later| *later != owner && later.0 <= tally.last_seen) {
                return Some(Endpoint::Unknown {
                    reason: UnknownReason::AddressReused,
                    address: Some(key.peer),
                });
            }
            return self.own_end(node, owner.1);
        }
        if !self.flows.nodes_with(key.peer).any(|known| known == node) {
            return None;
        }
        // The host's own address: the unit that told of the other end of such a connection, if only one did.
        let told: BTreeSet<&Endpoint> = match key.reporter {
            Reporter::Source => self
                .listeners
                .get(&(node, key.port, key.transport))
                .into_iter()
                .flatten()
                .collect(),
            Reporter::Destination => self
                .addresses_of(node, key.subject)
                .into_iter()
                .filter_map(|own| self.callers.get(&(node, own, key.port, key.transport)))
                .flatten()
                .collect(),
        };
        told.first().filter(|_| told.len() == 1).map(|only| (*only).clone())
    }

    fn addresses_of(&self, node: &str, subject: &Subject) -> Vec<IpAddr> {
        let id = match subject {
            Subject::Host(path) => match hosted(path) {
                Hosted::Container(id) => Some(id),
                Hosted::Unit(_) | Hosted::Other => None,
            },
            Subject::Container(_) | Subject::Unknown(_) => None,
        };
        let held = id.and_then(|id| self.containers.get(&(node, id)));
        held.map(|held| held.addresses.iter().copied().collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
