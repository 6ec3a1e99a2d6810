//! Who is on the map, and what protects whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nanoseg_graph::cluster::{self, Cluster};
use nanoseg_graph::endpoint::{Endpoint, ServiceName, Workload as WorkloadName};

use super::document::{
    Group, GroupKind, Image, Isolation, IsolationStatus, Party, Place, Pod, Protection, SegmentFacts, Who, Workload,
};
use super::{Input, id};
use crate::direction::Direction;
use crate::evaluate::{self, Applies, Evaluator};

/// A live pod, and where each evaluator has it.
type Living<'a> = Vec<(&'a cluster::Pod, [Applies; 2], Option<[Applies; 2]>)>;

/// Every workload with a live pod and every end of an edge, by id.
pub(super) fn all<'a>(
    input: &Input<'a>,
    ends: &BTreeSet<Endpoint>,
    live: &Evaluator<'a>,
    proposed: Option<&Evaluator<'a>>,
) -> Vec<Party> {
    let mut living: BTreeMap<WorkloadName, Living<'a>> = BTreeMap::new();
    let mut others = proposed.map(Evaluator::pods);
    for (pod, place) in live.pods() {
        let other = others.as_mut().and_then(Iterator::next);
        let would = proposed
            .zip(other)
            .map(|(evaluator, (_, place))| applies(evaluator, &place));
        living
            .entry(input.cluster.workload_of(pod))
            .or_default()
            .push((pod, applies(live, &place), would));
    }
    for endpoint in ends {
        if let Endpoint::Workload(workload) = endpoint {
            living.entry(workload.clone()).or_default();
        }
    }
    for segment in input.segments {
        living.entry(segment.workload.clone()).or_default();
    }
    let segments: BTreeMap<&WorkloadName, &SegmentFacts> = input
        .segments
        .iter()
        .map(|segment| (&segment.workload, &segment.facts))
        .collect();
    let names = names(input);
    let workloads = living.into_iter().map(|(workload, pods)| {
        let segment = segments.get(&workload).map(|facts| (*facts).clone());
        let endpoint = Endpoint::Workload(workload.clone());
        party(
            &endpoint,
            Who::Workload(Box::new(of_workload(workload, &pods, segment))),
        )
    });
    let others = ends.iter().filter(|end| end.workload().is_none());
    let others = others.filter_map(|end| Some(party(end, who(input.cluster, &names, end)?)));
    let mut parties: Vec<Party> = workloads.chain(others).collect();
    parties.sort_by(|one, other| one.id.cmp(&other.id));
    parties
}

fn applies(evaluator: &Evaluator<'_>, place: &evaluate::Place) -> [Applies; 2] {
    Direction::ALL.map(|direction| evaluator.applies(place, direction))
}

/// What each address outside is called.
fn names(input: &Input<'_>) -> BTreeMap<IpAddr, BTreeSet<String>> {
    let mut names: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for (edge, _) in input.graph.edges() {
        if let Endpoint::External(address) = edge.destination {
            let called = input.graph.names(edge.source, edge.destination);
            if !called.is_empty() {
                let known = names.entry(*address).or_default();
                known.extend(called.iter().map(ToString::to_string));
            }
        }
    }
    names
}

fn who(cluster: &Cluster, names: &BTreeMap<IpAddr, BTreeSet<String>>, endpoint: &Endpoint) -> Option<Who> {
    Some(match endpoint {
        Endpoint::Workload(_) => return None,
        Endpoint::Service(service) => Who::Service {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            external_name: cluster
                .service(service)
                .and_then(|service| service.external_name.clone()),
        },
        Endpoint::Node(name) => Who::Node {
            name: name.clone(),
            addresses: cluster
                .node(name)
                .map(|node| node.addresses.iter().copied().collect())
                .unwrap_or_default(),
        },
        Endpoint::External(address) => Who::External {
            address: *address,
            names: names.get(address).into_iter().flatten().cloned().collect(),
        },
        Endpoint::Unknown { reason, address } => Who::Unknown {
            reason: *reason,
            address: *address,
        },
    })
}

fn party(endpoint: &Endpoint, who: Who) -> Party {
    let title = match &who {
        Who::Workload(workload) => workload.name.clone(),
        Who::Service { name, .. } | Who::Node { name, .. } => name.clone(),
        Who::External { address, names } => names.first().cloned().unwrap_or_else(|| address.to_string()),
        Who::Unknown { reason, address } => {
            address.map_or_else(|| format!("{reason:?}"), |address| address.to_string())
        }
    };
    let group = match endpoint {
        Endpoint::Workload(WorkloadName { namespace, .. }) | Endpoint::Service(ServiceName { namespace, .. }) => {
            id::of_namespace(namespace)
        }
        Endpoint::Node(_) => "nodes".to_owned(),
        Endpoint::External(_) => "external".to_owned(),
        Endpoint::Unknown { .. } => "unknown".to_owned(),
    };
    Party {
        id: id::of_endpoint(endpoint),
        group,
        title,
        place: Place::default(),
        who,
    }
}

fn of_workload(
    WorkloadName { namespace, kind, name }: WorkloadName,
    living: &Living<'_>,
    segment: Option<SegmentFacts>,
) -> Workload {
    let images: BTreeSet<Image> = living
        .iter()
        .flat_map(|(pod, _, _)| &*pod.images)
        .map(|cluster::Image { name, digest }| Image {
            name: name.clone(),
            digest: digest.clone(),
        })
        .collect();
    let pods = living.iter().map(|(pod, _, _)| Pod {
        name: pod.name.to_string(),
        node: pod.node.as_deref().map(str::to_owned),
        addresses: pod.addresses.to_vec(),
        host_network: pod.host_network,
    });
    let now = |direction: usize| {
        let pods = living.iter();
        isolation(pods.map(|(pod, now, _)| (*pod, &now[direction])))
    };
    let would = |direction: usize| {
        let pods = living
            .iter()
            .filter_map(|(pod, _, would)| Some((*pod, would.as_ref()?)));
        isolation(pods.map(|(pod, would)| (pod, &would[direction])))
    };
    let is_judged_twice = living.iter().any(|(_, _, would)| would.is_some());
    Workload {
        namespace,
        kind,
        name,
        pods: pods.collect(),
        images: images.into_iter().collect(),
        protection: Protection {
            ingress: now(0),
            egress: now(1),
        },
        proposed_protection: is_judged_twice.then(|| Protection {
            ingress: would(0),
            egress: would(1),
        }),
        segment,
    }
}

fn isolation<'a>(pods: impl Iterator<Item = (&'a cluster::Pod, &'a Applies)>) -> Isolation {
    let mut policies = BTreeSet::new();
    let mut cluster_policies = BTreeSet::new();
    let (mut isolated, mut open, mut on_host) = (0_usize, 0_usize, 0_usize);
    for (pod, Applies { isolating, of_cluster }) in pods {
        policies.extend(isolating.iter().map(id::of_policy));
        cluster_policies.extend(of_cluster.iter().map(id::of_policy));
        match (pod.host_network, isolating.is_empty()) {
            (true, _) => on_host += 1,
            (false, true) => open += 1,
            (false, false) => isolated += 1,
        }
    }
    let status = match (isolated, open, on_host) {
        (0, 0, 0) => IsolationStatus::NoPods,
        (0, 0, _) => IsolationStatus::NodeNetwork,
        (0, _, _) => IsolationStatus::Open,
        (_, 0, 0) => IsolationStatus::Isolated,
        (_, _, _) => IsolationStatus::Partly,
    };
    Isolation {
        status,
        policies,
        cluster_policies,
    }
}

/// The groups of parties, by id.
pub(super) fn groups(parties: &[Party]) -> Vec<Group> {
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for party in parties {
        let (kind, title) = match &party.who {
            Who::Workload(workload) => (GroupKind::Namespace, workload.namespace.as_str()),
            Who::Service { namespace, .. } => (GroupKind::Namespace, namespace.as_str()),
            Who::Node { .. } => (GroupKind::Nodes, "nodes"),
            Who::External { .. } => (GroupKind::External, "outside of the cluster"),
            Who::Unknown { .. } => (GroupKind::Unknown, "not known"),
        };
        let group = groups.entry(&party.group).or_insert_with(|| Group {
            id: party.group.clone(),
            kind,
            title: title.to_owned(),
            place: Place::default(),
            parties: 0,
            open_ingress: 0,
            open_egress: 0,
        });
        group.parties += 1;
        if let Who::Workload(workload) = &party.who {
            group.open_ingress += usize::from(workload.protection.ingress.status.is_open());
            group.open_egress += usize::from(workload.protection.egress.status.is_open());
        }
    }
    groups.into_values().collect()
}
