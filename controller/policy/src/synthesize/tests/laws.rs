//! The laws, over random clusters and graphs.

mod world;

use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nanoseg_graph::cluster::PodPhase;
use proptest::prelude::*;
use std::net::IpAddr;

use super::*;
use crate::evaluate::{AllowedBy, Connection, End, Evaluator, PolicySet, Verdict};
use crate::objects::NAMESPACE_NAME;
use world::{NODES, OUTSIDE, PORTS, UNSEEN, World, accepted, settings, world};

/// Something that can be at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Other {
    Pod(String, String),
    Address(IpAddr),
}

impl Other {
    fn end(&self) -> End {
        match self {
            Self::Pod(namespace, name) => End::Pod {
                namespace: namespace.clone(),
                name: name.clone(),
            },
            Self::Address(address) => End::Address(*address),
        }
    }
}

/// Pods with networks of their own, and addresses: everything that a rule could mean.
fn others(cluster: &Cluster) -> Vec<Other> {
    let pods = cluster
        .pods()
        .filter(|pod| pod.phase != PodPhase::Finished && !pod.host_network)
        .map(|pod| Other::Pod(pod.namespace.to_string(), pod.name.to_string()))
        .collect::<Vec<_>>();
    let addresses = OUTSIDE
        .iter()
        .chain(&UNSEEN)
        .chain(NODES.iter().flat_map(|(_, addresses)| addresses))
        .chain(&["203.0.113.9"]);
    pods.into_iter()
        .chain(addresses.map(|address| Other::Address(ip(address))))
        .collect()
}

fn all_ports() -> impl Iterator<Item = Port> {
    PORTS.into_iter().chain([55, 79, 81, 9999]).flat_map(|number| {
        [Transport::Tcp, Transport::Udp, Transport::Sctp].map(|transport| Port { number, transport })
    })
}

/// What an endpoint stands for, as a reader of the graph would say.
fn behind(endpoint: &Endpoint, cluster: &Cluster) -> BTreeSet<Other> {
    match endpoint {
        Endpoint::Workload(workload) => cluster
            .pods_of(workload)
            .filter(|pod| pod.phase != PodPhase::Finished)
            .flat_map(|pod| match &pod.node {
                Some(node) if pod.host_network => behind(&Endpoint::Node(node.to_string()), cluster),
                _ => [Other::Pod(pod.namespace.to_string(), pod.name.to_string())].into(),
            })
            .collect(),
        Endpoint::Node(name) => cluster
            .node(name)
            .unwrap()
            .addresses
            .iter()
            .copied()
            .map(Other::Address)
            .collect(),
        Endpoint::Service(name) => cluster
            .slices_of(name)
            .flat_map(|slice| &slice.addresses)
            .copied()
            .map(Other::Address)
            .collect(),
        Endpoint::External(address) => [Other::Address(*address)].into(),
        Endpoint::Unknown { .. } => BTreeSet::new(),
    }
}

/// All others that labels select: in a world this small each is named.
fn in_full(overlap: &Overlap) -> impl Iterator<Item = &Workload> {
    assert_eq!(overlap.unnamed(), 0);
    overlap.named()
}

/// What the edges and the Notes of a proposal say that it allows.
fn declared(proposal: &Proposal, world: &World, cluster: &Cluster) -> BTreeSet<(Direction, Other, Port)> {
    let own = Endpoint::Workload(proposal.workload.clone());
    let mut declared = BTreeSet::new();
    // A range stands for each port of it that one of the note's peers has.
    let spread = |direction: Direction, port: Port| -> BTreeSet<Port> {
        let ranges = proposal.notes.iter().filter_map(|note| match note {
            Note::PortRange {
                direction: at, range, ..
            } if *at == direction && range.contains(port) => Some(range.ports()),
            _ => None,
        });
        let asked = |port: &Port| all_ports().any(|asked| asked == *port);
        ranges.flatten().filter(asked).chain([port]).collect()
    };
    let mut declare = |direction: Direction, others: BTreeSet<Other>, ports: &BTreeSet<Port>| {
        for other in others {
            let ports = ports.iter().flat_map(|port| spread(direction, *port));
            declared.extend(ports.map(|port| (direction, other.clone(), port)));
        }
    };
    for (key, evidence) in world.graph().edges() {
        if Settings::default().in_baseline(key, evidence) {
            let port = [Port {
                number: key.port,
                transport: key.transport,
            }]
            .into();
            if *key.source == own {
                declare(Direction::Egress, behind(key.destination, cluster), &port);
            }
            if *key.destination == own {
                declare(Direction::Ingress, behind(key.source, cluster), &port);
            }
        }
    }
    for note in &proposal.notes {
        match note {
            Note::PeerOverlaps {
                direction, also, ports, ..
            } => {
                for workload in in_full(also) {
                    let pods = behind(&Endpoint::Workload(workload.clone()), cluster);
                    let pods = pods
                        .into_iter()
                        .filter(|other| matches!(other, Other::Pod(..)))
                        .collect();
                    declare(*direction, pods, ports);
                }
            }
            Note::HostNetwork {
                direction,
                addresses,
                ports,
                ..
            } => {
                declare(
                    *direction,
                    addresses.iter().copied().map(Other::Address).collect(),
                    ports,
                );
            }
            Note::AllPods {
                direction,
                workload,
                ports,
                ..
            } => {
                declare(
                    *direction,
                    behind(&Endpoint::Workload(workload.clone()), cluster),
                    ports,
                );
            }
            Note::ExternalGroup {
                direction,
                group,
                ports,
                ..
            } => {
                let inside = OUTSIDE.iter().chain(&UNSEEN).map(|address| ip(address));
                let inside = inside.filter(|address| group.cidrs().iter().any(|cidr| cidr.contains(address)));
                declare(*direction, inside.map(Other::Address).collect(), ports);
            }
            Note::Dns { direction, peer, ports } => declare(*direction, behind(peer, cluster), ports),
            Note::NodeLocalDns { addresses, ports } => {
                declare(
                    Direction::Egress,
                    addresses.iter().copied().map(Other::Address).collect(),
                    ports,
                );
            }
            Note::NotObserved { .. }
            | Note::NotReady { .. }
            | Note::Unanswered { .. }
            | Note::Echo { .. }
            | Note::PeerGone { .. }
            | Note::GroupNotUsed(_)
            | Note::ServiceAddress(_)
            | Note::PortRange { .. } => {}
        }
    }
    declared
}

fn question(direction: Direction, subject: &Other, other: &Other, port: Port) -> Connection {
    let (source, destination) = match direction {
        Direction::Ingress => (other.end(), subject.end()),
        Direction::Egress => (subject.end(), other.end()),
    };
    Connection {
        source,
        destination,
        port: port.number,
        transport: port.transport,
    }
}

/// Every (direction, subject, other, port) that the rules of the policies allow.
fn allowed(
    policies: &[&NetworkPolicy],
    proposal: &Proposal,
    cluster: &Cluster,
) -> BTreeSet<(Direction, Other, Other, Port)> {
    let (set, rejected) = PolicySet::parse(policies.iter().copied());
    assert_eq!(rejected, [], "the API server would take it");
    let evaluator = Evaluator::new(&set, cluster);
    let mut allowed = BTreeSet::new();
    let subjects = behind(&Endpoint::Workload(proposal.workload.clone()), cluster);
    for subject in subjects.iter().filter(|subject| matches!(subject, Other::Pod(..))) {
        for other in others(cluster) {
            for port in all_ports() {
                for direction in &proposal.directions {
                    let answer = evaluator.evaluate(&question(*direction, subject, &other, port));
                    if let Verdict::Allowed(by) = answer.direction(*direction)
                        && matches!(by[0], AllowedBy::Rule(_))
                    {
                        allowed.insert((*direction, subject.clone(), other.clone(), port));
                    }
                }
            }
        }
    }
    allowed
}

/// Whether the rules, and not a law of the network, decide between two ends.
fn decided_by_rules(subject: &Other, other: &Other, cluster: &Cluster) -> bool {
    let (set, _) = PolicySet::parse([]);
    let port = Port {
        number: 1,
        transport: Transport::Tcp,
    };
    let connected = Evaluator::new(&set, cluster).evaluate(&question(Direction::Egress, subject, other, port));
    let own_node = |pod: &Other, address: &Other| match (pod, address) {
        (Other::Pod(namespace, name), Other::Address(address)) => {
            let node = cluster.pod(namespace, name).unwrap().node.as_ref().unwrap();
            cluster.node(node).unwrap().addresses.contains(address)
        }
        _ => false,
    };
    subject != other && connected.egress == Verdict::NotIsolated && !own_node(subject, other)
}

/// Every rule's peers and ports.
fn rules_of(policy: &mut NetworkPolicy) -> Vec<(&mut Vec<NetworkPolicyPeer>, &mut Vec<NetworkPolicyPort>)> {
    let spec = policy.spec.as_mut().unwrap();
    let ingress = spec
        .ingress
        .iter_mut()
        .flatten()
        .map(|rule| (&mut rule.from, &mut rule.ports));
    let egress = spec
        .egress
        .iter_mut()
        .flatten()
        .map(|rule| (&mut rule.to, &mut rule.ports));
    ingress
        .chain(egress)
        .map(|(peers, ports)| (peers.as_mut().unwrap(), ports.as_mut().unwrap()))
        .collect()
}

/// The policies with one peer or one port less. Peers that are nodes stay: each may be the own node of every subject, where no
/// rule is needed as long as the pods stay where they are.
fn smaller(policy: &NetworkPolicy) -> Vec<NetworkPolicy> {
    let is_node = |peer: &NetworkPolicyPeer| {
        let cidr = peer.ip_block.as_ref().map(|block| block.cidr.as_str());
        NODES
            .iter()
            .flat_map(|(_, addresses)| addresses)
            .any(|node| cidr.is_some_and(|cidr| cidr.starts_with(node)))
    };
    let mut whole = policy.clone();
    let mut all = Vec::new();
    for (index, (peers, ports)) in rules_of(&mut whole).into_iter().enumerate() {
        let mut without = |peers: Vec<NetworkPolicyPeer>, ports: Vec<NetworkPolicyPort>| {
            let mut less = policy.clone();
            // An empty list would mean everyone, and every port: then the whole rule goes, to a port that nobody asks about.
            let (kept_peers, kept_ports) = &mut rules_of(&mut less)[index];
            if peers.is_empty() || ports.is_empty() {
                kept_ports.truncate(1);
                kept_ports[0].port = Some(IntOrString::Int(1));
                kept_ports[0].end_port = None;
            } else {
                (**kept_peers, **kept_ports) = (peers, ports);
            }
            all.push(less);
        };
        let all_but = |at: usize, count: usize| (0..count).filter(move |index| *index != at);
        for at in (0..peers.len()).filter(|at| !is_node(&peers[*at])) {
            without(
                all_but(at, peers.len()).map(|index| peers[index].clone()).collect(),
                ports.clone(),
            );
        }
        if peers.iter().any(|peer| !is_node(peer)) {
            for at in 0..ports.len() {
                without(
                    peers.clone(),
                    all_but(at, ports.len()).map(|index| ports[index].clone()).collect(),
                );
            }
        }
    }
    all
}

proptest! {
    // Each case asks thousands of questions. PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]

    #[test]
    fn complete(world in world(false)) {
        let proposals = accepted(&world);
        let violations = verify(&proposals, Others::default(), &world.cluster(), &world.graph(), &settings(world.settings));
        prop_assert!(violations.is_empty(), "{violations:?}");
    }

    #[test]
    fn p21_namespaces_are_selected_by_the_label_that_each_has(world in world(false)) {
        for mut proposal in accepted(&world) {
            for peer in rules_of(Arc::make_mut(&mut proposal.policy)).into_iter().flat_map(|(peers, _)| &*peers) {
                prop_assert_eq!(peer.namespace_selector.is_some(), peer.pod_selector.is_some());
                let Some(selector) = &peer.namespace_selector else { continue };
                prop_assert_eq!(&selector.match_expressions, &None);
                let labels: Vec<&str> = selector.match_labels.iter().flatten().map(|(key, _)| key.as_str()).collect();
                prop_assert_eq!(labels, [NAMESPACE_NAME]);
            }
        }
    }

    #[test]
    fn tight(world in world(false)) {
        let cluster = world.cluster();
        for proposal in accepted(&world) {
            let declared = declared(&proposal, &world, &cluster);
            let allowed = allowed(&[&*proposal.policy], &proposal, &cluster);
            for (direction, _, other, port) in &allowed {
                let known = declared.contains(&(*direction, other.clone(), *port));
                prop_assert!(known, "{direction} {other:?} {port} is allowed and nothing says why: {proposal:?}");
            }
            for subject in behind(&Endpoint::Workload(proposal.workload.clone()), &cluster) {
                for (direction, other, port) in &declared {
                    let about = proposal.directions.contains(direction) && matches!(subject, Other::Pod(..));
                    if about && decided_by_rules(&subject, other, &cluster) {
                        let known = allowed.contains(&(*direction, subject.clone(), other.clone(), *port));
                        prop_assert!(known, "{direction} {other:?} {port} is declared and not allowed: {proposal:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn minimal(world in world(true)) {
        let cluster = world.cluster();
        for proposal in accepted(&world) {
            let whole = allowed(&[&*proposal.policy], &proposal, &cluster);
            for less in smaller(&proposal.policy) {
                let remaining = allowed(&[&less], &proposal, &cluster);
                prop_assert!(remaining.len() < whole.len(), "{proposal:?} is no more than {less:?}");
            }
        }
    }

    #[test]
    fn p20_the_order_of_learning_does_not_matter(world in world(false), seed in any::<u64>()) {
        let mut shuffled = world.clone();
        let mut objects = world.objects();
        let mut state = seed | 1;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        for last in (1..objects.len()).rev() {
            objects.swap(last, draw(last + 1));
        }
        for last in (1..shuffled.edges.len()).rev() {
            shuffled.edges.swap(last, draw(last + 1));
        }
        let settings = settings(world.settings);
        let one = synthesize_all(&world.graph(), &world.cluster(), &settings);
        let two = synthesize_all(&shuffled.graph(), &cluster(objects), &settings);
        prop_assert_eq!(&one, &two);
        let bytes = |all: BTreeMap<Workload, Result<Proposal, Refusal>>| -> Vec<String> {
            all.into_values().flatten().map(|proposal| serde_json::to_string(&*proposal.policy).unwrap()).collect()
        };
        prop_assert_eq!(bytes(one), bytes(two));
    }

    /// No pod needs a label for its policy's sake: selectors ask for labels that pods carry already.
    #[test]
    fn p26_selectors_ask_for_no_label_that_pods_do_not_carry(world in world(false)) {
        let cluster = world.cluster();
        for mut proposal in accepted(&world) {
            let peers = rules_of(Arc::make_mut(&mut proposal.policy)).into_iter().flat_map(|(peers, _)| peers.clone());
            let peers: Vec<_> = peers.filter_map(|peer| peer.pod_selector).collect();
            let subject = proposal.policy.spec.clone().unwrap().pod_selector.unwrap();
            for selector in peers.iter().chain([&subject]) {
                prop_assert_eq!(&selector.match_expressions, &None);
                let asked = selector.match_labels.clone().unwrap_or_default();
                let templates = cluster.controllers().map(|controller| &controller.template_labels);
                let carried = cluster
                    .pods()
                    .map(|pod| &pod.labels)
                    .chain(templates)
                    .any(|labels| asked.iter().all(|(key, value)| labels.get(key) == Some(value)));
                prop_assert!(carried, "no pod has {asked:?}, nor will");
            }
        }
    }

    /// What is isolated and allowed by all proposals together is what each of them says alone: they never need one another.
    #[test]
    fn proposals_do_not_meddle(world in world(true)) {
        let cluster = world.cluster();
        let proposals = accepted(&world);
        let all: Vec<&NetworkPolicy> = proposals.iter().map(|proposal| &*proposal.policy).collect();
        for proposal in &proposals {
            prop_assert_eq!(allowed(&all, proposal, &cluster), allowed(&[&*proposal.policy], proposal, &cluster));
        }
    }
}
