//! What flows come to, kept up while more of them come and the cluster stays as it is.
//!
//! Law: after whatever was followed, the graph is the one that resolving the whole table anew gives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::{Resolver, resolve_with};
use crate::cluster::Cluster;
use crate::connection::ConnectionGraph;
use crate::endpoint::{Endpoint, ServiceName};
use crate::flow::{Flow, FlowKey, FlowRef, FlowTable, Lacks, Named, Origin, Report, Reporter, Subject, Tally};

/// What a table has taken in since it was last resolved, flows each with what it was before.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    flows: BTreeMap<Origin, BTreeMap<FlowKey, Option<Tally>>>,
    number: usize,
    /// Addresses that names were told of.
    named: BTreeSet<IpAddr>,
    /// Addresses that nodes turned out to have, and which nodes.
    of_nodes: BTreeMap<IpAddr, BTreeSet<String>>,
    /// Addresses that pods got, and since when: `None`, since ever.
    begun: BTreeMap<IpAddr, Option<Timestamp>>,
    /// Addresses that pods do not have any more, and until when they did.
    ended: BTreeMap<IpAddr, Timestamp>,
    /// Ranges that have become the cluster's, or are not any more.
    ranges: BTreeSet<IpNet>,
    /// Pods that were not known.
    come: BTreeSet<Arc<str>>,
    /// What any flow may be resolved otherwise by: containers of hosts without a cluster, and names that others take the place of.
    any: bool,
}

impl Changes {
    /// Takes note of what `table` is about to take in, and what it lacks of that. What it knows already is none of it.
    pub fn note(&mut self, report: &Report, lacks: Lacks<'_>, table: &FlowTable) {
        let Lacks {
            losses: _,
            addresses,
            names,
            names_go,
            held,
            capture: _,
        } = lacks;
        for address in addresses {
            let nodes = self.of_nodes.entry(address).or_default();
            nodes.insert(report.origin.node.clone());
        }
        self.named
            .extend(names.into_iter().map(|Named { address, .. }| *address));
        self.any |= names_go || !held.is_empty();
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

    /// A pod beside another one of its workload with the same labels and ports, or a node, has got an address, and had it since then;
    /// `None`, flows of whatever time may be resolved otherwise.
    pub fn begins(&mut self, address: IpAddr, since: Option<Timestamp>) {
        let begun = self.begun.entry(address).or_insert(since);
        *begun = (*begun).min(since);
    }

    /// Such a pod, or a node, does not have an address any more since then.
    pub fn ends(&mut self, address: IpAddr, at: Timestamp) {
        let ended = self.ended.entry(address).or_insert(at);
        *ended = at.min(*ended);
    }

    /// A node declares a range for its pods, or does not any more.
    pub fn redeclares(&mut self, range: IpNet) {
        self.ranges.insert(range);
    }

    /// Such a pod was not known.
    pub fn comes(&mut self, uid: &Arc<str>) {
        self.come.insert(Arc::clone(uid));
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.number == 0 && !self.is_beyond_flows()
    }

    /// Whether there is something by which flows may be another's that are no news.
    fn is_beyond_flows(&self) -> bool {
        let Self {
            flows: _,
            number: _,
            named,
            of_nodes,
            begun: _,
            ended: _,
            ranges: _,
            come,
            any,
        } = self;
        self.has_moved() || !come.is_empty() || !named.is_empty() || !of_nodes.is_empty() || *any
    }

    fn is_of_one_that_came(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Container(container) => self.come.contains(container.pod_uid.as_str()),
            Subject::Host(_) | Subject::Unknown(_) => false,
        }
    }

    /// Whether what was known of a flow may have come to mean another.
    fn moves(&self, (origin, key, tally): (&Origin, FlowRef<'_>, &Tally), flows: &FlowTable) -> bool {
        // To a pod an address that every node has is its own node's, whoever else turns out to have it.
        let node = &origin.node;
        let is_same = |of_nodes: &BTreeSet<String>| !of_nodes.contains(node) && flows.node_has(node, key.peer);
        let of_nodes = self.of_nodes.get(&key.peer);
        let begun = self.begun.get(&key.peer);
        self.is_of_one_that_came(key.subject)
            || of_nodes.is_some_and(|of_nodes| !is_same(of_nodes))
            || begun.is_some_and(|since| since.is_none_or(|since| since <= tally.last_seen))
            || self.ended.get(&key.peer).is_some_and(|until| *until < tally.first_seen)
            || self.is_in_a_range(key.peer)
    }

    fn is_in_a_range(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }

    /// Whether any address has changed hands.
    pub fn has_moved(&self) -> bool {
        !self.begun.is_empty() || !self.ended.is_empty() || !self.ranges.is_empty()
    }

    /// Whether a slice of a Service names an address that has changed hands.
    pub fn has_moved_behind(&self, service: &ServiceName, cluster: &Cluster) -> bool {
        let moves = |address: &IpAddr| {
            self.begun.contains_key(address) || self.ended.contains_key(address) || self.is_in_a_range(*address)
        };
        let mut slices = cluster.slices_of(service);
        slices.any(|slice| slice.addresses.iter().any(moves))
    }

    /// Whether that is so of a Service that is known by its slices alone.
    fn moves_behind(&self, cluster: &Cluster) -> bool {
        let mut without = cluster.services().filter(|service| !service.has_selector());
        self.has_moved() && without.any(|service| self.has_moved_behind(&service.name, cluster))
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

    /// Takes in what the table has taken in; nothing of the cluster may have changed since this was resolved but what was noted. Returns the ends of every edge that is new or has other counts; `None`, and nothing is taken in, where what was
    /// resolved may have to be resolved otherwise: then all is to be resolved anew.
    pub fn follow(
        &mut self,
        changes: &Changes,
        flows: &FlowTable,
        cluster: &Cluster,
    ) -> Option<BTreeSet<(Endpoint, Endpoint)>> {
        let resolver = Resolver::new(flows, cluster);
        if self.contested || resolver.hosts.is_some() || changes.any {
            return None;
        }
        let is_new = |origin, key: FlowRef<'_>| {
            let flows = changes.flows.get(origin);
            flows.is_some_and(|flows| flows.get(&key.key()) == Some(&None))
        };
        let mut steps = Vec::new();
        for (origin, changed) in &changes.flows {
            for (key, before) in changed {
                let Some(tally) = flows.tally(origin, key) else {
                    continue;
                };
                let lent = key.lend();
                let peers = resolver.peer_ends(origin, lent, tally);
                if let Some(before) = before
                    && resolver.peer_ends(origin, lent, before) != peers
                {
                    return None;
                }
                let grown = before.map_or(*tally, |before| tally.since(&before));
                steps.push((origin, lent, *tally, grown, peers));
            }
        }
        let mut names = flows.names();
        let names_come = !changes.come.is_empty() && names.any(|(_, subject, ..)| changes.is_of_one_that_came(subject));
        if names_come || changes.moves_behind(cluster) {
            return None;
        }
        if changes.is_beyond_flows() {
            for (origin, key, tally) in flows.flows() {
                if changes.moves((origin, key, tally), flows) && !is_new(origin, key) {
                    return None;
                }
                if key.reporter == Reporter::Source && changes.named.contains(&key.peer) {
                    let peers = resolver.peer_ends(origin, key, tally);
                    steps.push((origin, key, *tally, tally.since(tally), peers));
                }
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

    use super::super::tests::{at, cluster_of_the_shop, flow, ip, pod};
    use super::*;
    use crate::cluster::{Object, ObjectKey, Pod};
    use crate::flow::Named;

    const PODS: [&str; 6] = ["web-0", "web-1", "db-0", "new-0", "gone-0", "web-2"];
    const PEERS: [&str; 8] = [
        "198.18.1.10",
        "198.18.1.11",
        "198.18.1.12",
        "198.19.0.10",
        "203.0.113.9",
        "198.18.1.99",
        "198.18.1.20",
        "198.18.1.30",
    ];

    /// Pod, role, peer, port, and from when until when.
    type Seen = (usize, bool, usize, usize, i64, i64);

    /// What may be told between two rounds.
    #[derive(Clone, Debug)]
    enum Step {
        Flows(usize, Vec<Seen>),
        /// Who of a node's pods asked for which address by which name, and from when until when.
        Name(usize, usize, usize, usize, i64, i64),
        Address(usize, usize),
        /// A pod beside two others like it, its address and since when it has it.
        Comes(usize, i64),
        /// One of those others goes.
        Goes(i64),
    }

    fn steps() -> impl Strategy<Value = Step> {
        let seen = (
            0..PODS.len(),
            any::<bool>(),
            0..PEERS.len(),
            0_usize..2,
            0_i64..90,
            0_i64..60,
        );
        prop_oneof![
            4 => (0_usize..2, prop::collection::vec(seen, 1..6)).prop_map(|(node, seen)| Step::Flows(node, seen)),
            2 => (0_usize..2, 0..PODS.len(), 0..PEERS.len(), 0_usize..6, 0_i64..60, 0_i64..60)
                .prop_map(|(node, pod, peer, name, from, length)| Step::Name(node, pod, peer, name, from, length)),
            1 => (0_usize..2, 4..PEERS.len()).prop_map(|(node, peer)| Step::Address(node, peer)),
            1 => (5..PEERS.len(), 0_i64..90).prop_map(|(peer, since)| Step::Comes(peer, since)),
            1 => (60_i64..90).prop_map(Step::Goes),
        ]
    }

    fn report(step: &Step) -> Option<Report> {
        let (node, flows, names, addresses) = match step {
            Step::Flows(node, seen) => {
                let flows = seen.iter().map(|(pod, source, peer, port, first, length)| {
                    let reporter = if *source {
                        Reporter::Source
                    } else {
                        Reporter::Destination
                    };
                    let port = [80, 5432][*port];
                    let mut flow = flow(PODS[*pod], reporter, PEERS[*peer], port, *first, first + length);
                    flow.tally.attempted = u64::try_from(first + length).unwrap();
                    flow
                });
                (node, flows.collect(), Vec::new(), BTreeSet::new())
            }
            Step::Name(node, pod, peer, name, from, length) => {
                let named = Named {
                    subject: flow(PODS[*pod], Reporter::Source, PEERS[*peer], 80, 0, 0).key.subject,
                    address: ip(PEERS[*peer]),
                    name: format!("{name}.example").try_into().unwrap(),
                    first_seen: at(*from),
                    until: at(from + length),
                };
                (node, Vec::new(), vec![named], BTreeSet::new())
            }
            Step::Address(node, peer) => (node, Vec::new(), Vec::new(), [ip(PEERS[*peer])].into()),
            Step::Comes(..) | Step::Goes(_) => return None,
        };
        Some(Report {
            origin: Origin {
                node: format!("n{node}"),
                epoch: 1,
            },
            flows,
            losses: Vec::new(),
            node_addresses: addresses,
            names,
            held: Vec::new(),
            capture: None,
        })
    }

    /// Takes a step, and notes it.
    fn take(step: &Step, cluster: &mut Cluster, table: &mut FlowTable, changes: &mut Changes) {
        if let Some(report) = report(step) {
            changes.note(&report, table.lacks(&report), table);
            table.merge(&report);
        }
        match step {
            Step::Comes(peer, since)
                if cluster.pod("shop", "web-2").is_none() && cluster.pod_by_uid("uid-web-2").is_none() =>
            {
                let address = ip(PEERS[*peer]);
                let is_known = cluster.is_cluster_address(address);
                changes.begins(address, is_known.then_some(at(*since)));
                let new = Pod {
                    started: Some(at(*since)),
                    ..pod("web-2", PEERS[*peer])
                };
                changes.comes(&new.uid);
                cluster.observe(Object::Pod(new), at(90));
            }
            Step::Goes(until) if cluster.pod("shop", "web-1").is_some() => {
                changes.ends(ip("198.18.1.11"), at(*until));
                cluster.remove(&ObjectKey::Pod("shop".to_owned(), "web-1".to_owned()), at(*until));
            }
            Step::Comes(..) | Step::Goes(_) | Step::Flows(..) | Step::Name(..) | Step::Address(..) => {}
        }
    }

    proptest! {
        #[test]
        fn what_is_followed_is_what_is_resolved_anew(
            rounds in prop::collection::vec(prop::collection::vec(steps(), 1..4), 1..8), reused in any::<bool>()
        ) {
            let mut cluster = cluster_of_the_shop(reused);
            let mut table = FlowTable::default();
            let mut kept = Resolution::of(&table, &cluster);
            for steps in &rounds {
                let before = kept.graph().clone();
                let mut changes = Changes::default();
                for step in steps {
                    take(step, &mut cluster, &mut table, &mut changes);
                }
                let anew = Resolution::of(&table, &cluster);
                let Some(touched) = kept.follow(&changes, &table, &cluster) else {
                    prop_assert_eq!(kept.graph(), &before);
                    let is_reused = |step: &Step| matches!(step, Step::Flows(_, seen) if seen.iter().any(|seen| seen.2 > 4));
                    let is_plain = |step: &Step| matches!(step, Step::Flows(..));
                    let followable = rounds.iter().flatten().all(|step| is_plain(step) && !is_reused(step));
                    prop_assert!(!followable, "where every address has one owner all flows can be followed");
                    kept = anew;
                    continue;
                };
                prop_assert_eq!(kept.graph(), anew.graph());
                for (edge, evidence) in anew.graph().edges() {
                    let same = before.evidence(&edge.key()) == Some(evidence)
                        && before.names(edge.source, edge.destination) == anew.graph().names(edge.source, edge.destination);
                    let told = touched.contains(&(edge.source.clone(), edge.destination.clone()));
                    prop_assert!(same || told, "{edge:?} is not told");
                }
            }
        }
    }
}
