//! Which observed edges a set of policies would deny, and why.
//!
//! Law: every edge of the graph is counted exactly once: as denied when any pair of live ends behind it is, else as undecided
//! when any pair has no answer, else as permitted.

use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::connection::{ConnectionGraph, Edge, EdgeKey, NodeIndex};

use crate::direction::Direction;
pub use crate::ends::NoEnds;
use crate::ends::{Ends, Pair};
use crate::evaluate::{Connection, Decision, Denial, Evaluator, Outcome, PolicySet, Ruling, Undecidable, Verdict};

/// An edge that would be denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The edge.
    pub edge: EdgeKey,
    /// The first pair of ends that would be denied.
    pub connection: Connection,
    /// Why that pair would be.
    pub why: Vec<Denial>,
    /// How many pairs would be denied.
    pub denied: usize,
    /// How many pairs there are.
    pub pairs: usize,
}

/// Why an edge could not be decided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// There is nobody to ask about.
    NoEnds(NoEnds),
    /// The evaluator has no answer for at least one pair.
    Unknown(Undecidable),
}

/// What policies would do to a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Edges that would be denied, in the order of the graph.
    pub denied: Vec<Finding>,
    /// Edges of which it cannot be said, in the order of the graph.
    pub undecided: Vec<(EdgeKey, Why)>,
    /// How many edges would pass.
    pub permitted: usize,
}

/// What an evaluator makes of the pairs of ends that an edge stands for.
#[derive(Debug, Default)]
pub(crate) struct Weighed {
    /// Pairs that are denied.
    pub(crate) denied: usize,
    /// All pairs that are possible.
    pub(crate) possible: usize,
    pub(crate) first_denied: Option<(Pair, Decision)>,
    pub(crate) first_unknown: Option<(Pair, Decision)>,
    pub(crate) first_allowed: Option<(Pair, Decision)>,
}

impl Weighed {
    /// Takes one pair in.
    pub(crate) fn take(&mut self, evaluator: &Evaluator<'_>, edge: Edge<'_>, pair: Pair) {
        let decision = evaluator.decide_once(&pair.source, &pair.destination, edge.port, edge.transport);
        self.take_decided(pair, decision);
    }

    fn take_decided(&mut self, pair: Pair, decision: Decision) {
        match decision.combined() {
            Ruling::Denied => {
                self.denied += pair.count;
                self.first_denied.get_or_insert((pair, decision));
            }
            // Ends of different families never were the ends of this edge.
            Ruling::Unknown if decision.is_impossible() => return,
            Ruling::Unknown => {
                self.first_unknown.get_or_insert((pair, decision));
            }
            Ruling::Allowed => {
                self.first_allowed.get_or_insert((pair, decision));
            }
        }
        self.possible += pair.count;
    }
}

/// Asks about every edge, whatever became of it when it was observed.
pub fn audit(graph: &ConnectionGraph, policies: &PolicySet, cluster: &Cluster) -> Audit {
    audit_each(graph, policies, cluster, || ())
}

/// The same, for whoever wants to know when each edge has been asked about.
pub fn audit_each(
    graph: &ConnectionGraph,
    policies: &PolicySet,
    cluster: &Cluster,
    mut asked_about: impl FnMut(),
) -> Audit {
    let evaluator = Evaluator::new(policies, cluster);
    let ends = Ends::new(cluster, &evaluator);
    let mut audit = Audit::default();
    let pods = ends.pods_by_index(graph);
    let singles = ends.singles_by_index(graph);
    let single_pair =
        |[source, destination]: [NodeIndex; 2]| singles[source.index()]?.pair(singles[destination.index()]?);
    let listeners = by_listener(graph, &evaluator, single_pair);
    for (indexes, number, edge) in graph.edges_between() {
        let mut weighed = Weighed::default();
        let known = listeners[number.index()].and_then(|ingress| Some((single_pair(indexes)?, ingress)));
        let asked = if let Some((pair, ingress)) = known {
            let ends = [&pair.source, &pair.destination];
            let egress = evaluator.decide_side_once(Direction::Egress, ends, edge.port, edge.transport);
            weighed.take_decided(pair, Decision::of(egress, ingress));
            Ok(())
        } else {
            ends.pairs_of(indexes.map(|index| pods[index.index()]), edge, |pair| {
                weighed.take(&evaluator, edge, pair);
            })
        };
        let Weighed {
            denied,
            possible,
            first_denied,
            first_unknown,
            first_allowed: _,
        } = weighed;
        let words = |(pair, decision): (Pair, Decision)| {
            evaluator.explain(&pair.source, &pair.destination, decision).combined()
        };
        match (asked, first_denied, first_unknown) {
            (Err(why), _, _) => audit.undecided.push((edge.key(), Why::NoEnds(why))),
            (Ok(()), Some(found), _) => {
                let why = match words(found) {
                    Verdict::Denied(why) => why,
                    Verdict::Allowed(_) | Verdict::NotIsolated | Verdict::Unknown(_) => Vec::new(),
                };
                audit.denied.push(Finding {
                    edge: edge.key(),
                    connection: found.0.connection(edge, &evaluator),
                    why,
                    denied,
                    pairs: possible,
                });
            }
            (Ok(()), None, Some(open)) => {
                let why = match words(open) {
                    Verdict::Unknown(why) => why,
                    Verdict::Allowed(_) | Verdict::NotIsolated | Verdict::Denied(_) => Undecidable::NoCommonFamily,
                };
                audit.undecided.push((edge.key(), Why::Unknown(why)));
            }
            (Ok(()), None, None) if possible == 0 => {
                audit
                    .undecided
                    .push((edge.key(), Why::Unknown(Undecidable::NoCommonFamily)));
            }
            (Ok(()), None, None) => audit.permitted += 1,
        }
        asked_about();
    }
    audit
}

/// What the listener's side decides about each edge that stands for one pair of kinds, by the edge's index. The rules of a listener
/// are met by all of its edges one after another, while they are near: in the order of the sources each edge meets other ones.
fn by_listener(
    graph: &ConnectionGraph,
    evaluator: &Evaluator<'_>,
    pair: impl Fn([NodeIndex; 2]) -> Option<Pair>,
) -> Vec<Option<Outcome>> {
    let mut decided = vec![None; graph.len()];
    for destination in graph.as_petgraph().node_indices() {
        for (number, source, port, transport) in graph.incoming_at(destination) {
            decided[number.index()] = pair([source, destination]).map(|pair| {
                let ends = [&pair.source, &pair.destination];
                evaluator.decide_side_once(Direction::Ingress, ends, port, transport)
            });
        }
    }
    decided
}

#[cfg(test)]
mod tests {
    use nanoseg_graph::endpoint::{Endpoint, UnknownReason};
    use nanoseg_graph::flow::Transport;
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{cluster_of, edge, graph, ip, manifests, policies, workload};
    use crate::objects::Manifest;

    const CLUSTER: &str = "
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web-0, labels: {app: web}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: u, controller: true}]}, spec: {containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.2}, {ip: 'fd00:18::2'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web-1, labels: {app: web, canary: 'yes'}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: u, controller: true}]}, spec: {containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.3}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: db, labels: {app: db}}, spec: {containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.4}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: unborn}, spec: {containers: []}, status: {phase: Pending}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: static-a, ownerReferences: [{apiVersion: v1, kind: Node, name: n1, uid: n, controller: true}]}, spec: {containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.5}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: static-b, labels: {canary: 'yes'}, ownerReferences: [{apiVersion: v1, kind: Node, name: n1, uid: n, controller: true}]}, spec: {containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.6}]}}
";

    #[test]
    fn every_edge_is_counted_once_with_its_reason() {
        let policies = policies(
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: db}, spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: canary, operator: DoesNotExist}]}}], ports: [{port: 5432}]}]}}",
        );
        let (policies, _) = PolicySet::parse(&policies);
        let web = Endpoint::Workload(workload("StatefulSet", "shop", "web"));
        let pod = |name: &str| Endpoint::Workload(workload("Pod", "shop", name));
        let unknown = Endpoint::Unknown {
            reason: UnknownReason::PodNotSeen,
            address: None,
        };
        let ping = graph([edge(web.clone(), pod("db"), 0, Transport::Icmp)]);
        let pinged = audit(&ping, &policies, &cluster_of(CLUSTER));
        let reasons: Vec<_> = pinged.undecided.into_iter().map(|(_, why)| why).collect();
        assert_eq!(
            (reasons, pinged.denied),
            (vec![Why::Unknown(Undecidable::Icmp)], vec![])
        );
        let edges = graph([
            edge(web.clone(), pod("db"), 5432, Transport::Tcp),
            edge(web.clone(), Endpoint::External(ip("198.51.100.1")), 443, Transport::Tcp),
            edge(web.clone(), Endpoint::External(ip("2001:db8::1")), 443, Transport::Tcp),
            edge(pod("db"), Endpoint::External(ip("2001:db8::1")), 443, Transport::Tcp),
            edge(web.clone(), pod("unborn"), 80, Transport::Tcp),
            edge(unknown, web, 80, Transport::Tcp),
            edge(pod("static-a"), pod("db"), 9, Transport::Tcp),
            edge(pod("static-b"), pod("db"), 5432, Transport::Tcp),
        ]);
        let Audit {
            denied,
            undecided,
            permitted,
        } = audit(&edges, &policies, &cluster_of(CLUSTER));
        let found: Vec<_> = denied.iter().map(|found| (found.denied, found.pairs)).collect();
        assert_eq!(
            found,
            [(1, 1), (1, 1), (1, 2)],
            "a node's static pods are workloads of their own; of two replicas one is a canary"
        );
        assert_eq!(
            denied[2].why[0].to_string(),
            "ingress of Pod shop/db is isolated by NetworkPolicy shop/db, and no rule allows it"
        );
        let reasons: Vec<_> = undecided.into_iter().map(|(_, why)| why).collect();
        assert_eq!(
            reasons,
            [
                Why::Unknown(Undecidable::NoCommonFamily),
                Why::NoEnds(NoEnds::NoPods(workload("Pod", "shop", "unborn"))),
                Why::NoEnds(NoEnds::Unknown(UnknownReason::PodNotSeen)),
            ]
        );
        assert_eq!(
            permitted, 2,
            "one of two pods has IPv6: that is the pair that the edge means"
        );
    }

    const POLICIES: [&str; 6] = [
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: db}, spec: {podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 1}]}, {from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]}}",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: web}, spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}]}, {to: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}}",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: canary}, spec: {podSelector: {matchLabels: {canary: 'yes'}}, ingress: [{from: [{ipBlock: {cidr: 198.18.0.0/16}}]}, {from: [{ipBlock: {cidr: 2001:db8::/32}}]}]}}",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: all}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 1}, {port: 443}]}]}}",
        "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: admin}, spec: {tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}}, ingress: [{action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {canary: 'yes'}}}}]}]}}",
        "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: base}, spec: {tier: Baseline, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: ['198.51.100.0/25']}]}]}}",
    ];

    const HOST: &str = "
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 198.18.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: agent, labels: {app: web}}, spec: {nodeName: n1, hostNetwork: true, containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: near, labels: {app: db}}, spec: {nodeName: n1, containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.9}]}}
";

    fn endpoints() -> Vec<Endpoint> {
        let pod = |name: &str| Endpoint::Workload(workload("Pod", "shop", name));
        vec![
            Endpoint::Workload(workload("StatefulSet", "shop", "web")),
            pod("db"),
            pod("near"),
            pod("agent"),
            pod("static-b"),
            pod("unborn"),
            Endpoint::Node("n1".to_owned()),
            Endpoint::External(ip("198.18.0.1")),
            Endpoint::External(ip("198.51.100.1")),
            Endpoint::External(ip("198.51.100.200")),
            Endpoint::External(ip("2001:db8::1")),
            Endpoint::Unknown {
                reason: UnknownReason::PodNotSeen,
                address: None,
            },
        ]
    }

    fn policy_set(documents: &[&str]) -> PolicySet {
        let (mut network, mut cluster) = (Vec::new(), Vec::new());
        for manifest in documents.iter().flat_map(|document| manifests(document)) {
            match manifest {
                Manifest::NetworkPolicy(policy) => network.push(*policy),
                Manifest::ClusterNetworkPolicy(policy) => cluster.push(*policy),
                other => panic!("{other:?}"),
            }
        }
        let (policies, rejected) = PolicySet::parse_all(&network, &cluster);
        assert_eq!(rejected, []);
        policies
    }

    /// Each edge on its own, with what the evaluator remembers of pairs.
    fn one_by_one(
        graph: &ConnectionGraph,
        policies: &PolicySet,
        cluster: &Cluster,
    ) -> (Vec<EdgeKey>, Vec<EdgeKey>, usize) {
        let evaluator = Evaluator::new(policies, cluster);
        let ends = Ends::new(cluster, &evaluator);
        let (mut denied, mut undecided, mut permitted) = (Vec::new(), Vec::new(), 0);
        for (edge, _) in graph.edges() {
            let mut rulings = Vec::new();
            let asked = ends.pairs(edge, |pair| {
                let decision = evaluator.decide(&pair.source, &pair.destination, edge.port, edge.transport);
                rulings.extend((!decision.is_impossible()).then_some(decision.combined()));
            });
            if rulings.contains(&Ruling::Denied) {
                denied.push(edge.key());
            } else if asked.is_err() || rulings.is_empty() || rulings.contains(&Ruling::Unknown) {
                undecided.push(edge.key());
            } else {
                permitted += 1;
            }
        }
        (denied, undecided, permitted)
    }

    proptest! {
        #[test]
        fn all_edges_together_are_each_edge_on_its_own(
            policies in prop::sample::subsequence(&POLICIES[..], 0..=POLICIES.len()),
            edges in prop::collection::vec((0..12_usize, 0..12_usize, prop::sample::select(vec![1, 443, 5432])), 1..40),
        ) {
            let cluster = cluster_of(&format!("{CLUSTER}{HOST}"));
            let endpoints = endpoints();
            let edges = edges.into_iter().map(|(from, to, port)| {
                edge(endpoints[from].clone(), endpoints[to].clone(), port, Transport::Tcp)
            });
            let graph = graph(edges.collect::<Vec<_>>());
            let policies = policy_set(&policies);
            let found = audit(&graph, &policies, &cluster);
            let denied = found.denied.into_iter().map(|finding| finding.edge).collect();
            let undecided = found.undecided.into_iter().map(|(edge, _)| edge).collect();
            prop_assert_eq!((denied, undecided, found.permitted), one_by_one(&graph, &policies, &cluster));
        }
    }
}
