//! Ways into the cluster from outside.
//!
//! That a Service is exposed says nothing about policies: whether they let anybody through is told by [`How::FromAnywhere`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use nanoseg_graph::cluster::{Cluster, PodPhase, Service};
use nanoseg_graph::endpoint::Workload;
use nanoseg_graph::flow::Transport;
use rustc_hash::FxBuildHasher;

use super::document::{Exposure, How, Ports};
use super::id;
use crate::diff::AddressRange;
use crate::direction::Direction;
use crate::evaluate::{Decision, End, Evaluator, Kind, Place, Ruling};

pub(super) fn all(cluster: &Cluster, evaluator: &Evaluator<'_>) -> Vec<Exposure> {
    let mut exposures: Vec<Exposure> = cluster
        .services()
        .flat_map(|service| of_service(cluster, service))
        .chain(from_anywhere(cluster, evaluator))
        .collect();
    exposures.sort();
    exposures
}

fn of_service(cluster: &Cluster, service: &Service) -> Vec<Exposure> {
    let selected = cluster
        .pods_in(&service.name.namespace)
        .filter(|pod| pod.phase != PodPhase::Finished && service.selects(pod));
    let workloads: BTreeSet<String> = selected.map(|pod| id::of_workload(&cluster.workload_of(pod))).collect();
    let exposure = |how, addresses, ports: BTreeSet<Ports>| Exposure {
        how,
        service: Some(format!("{}/{}", service.name.namespace, service.name.name)),
        addresses,
        ports: ports.into_iter().collect(),
        workloads: workloads.iter().cloned().collect(),
    };
    let one = |protocol, number| Ports {
        protocol,
        first: number,
        last: number,
    };
    let mut exposures = Vec::new();
    let on_nodes = service.ports.iter();
    let on_nodes: BTreeSet<Ports> = on_nodes
        .filter_map(|port| Some(one(port.transport, port.node_port?)))
        .collect();
    if !on_nodes.is_empty() {
        exposures.push(exposure(How::NodePort, Vec::new(), on_nodes));
    }
    if !service.external_ips.is_empty() {
        let ports = service
            .ports
            .iter()
            .map(|port| one(port.transport, port.port))
            .collect();
        let addresses = service.external_ips.iter().copied().collect();
        exposures.push(exposure(How::ExternalAddress, addresses, ports));
    }
    exposures
}

/// Workloads that an address which no policy names may connect to.
fn from_anywhere(cluster: &Cluster, evaluator: &Evaluator<'_>) -> Vec<Exposure> {
    let strangers = strangers(cluster, evaluator);
    let mut open: BTreeMap<Workload, BTreeSet<Ports>> = BTreeMap::new();
    let mut answers: HashMap<Kind, BTreeSet<Ports>, FxBuildHasher> = HashMap::default();
    for (pod, place) in evaluator.pods() {
        if pod.host_network {
            continue;
        }
        let ports = answers.entry(place.kind()).or_insert_with(|| {
            let let_in = |from| let_in(evaluator, from, &place);
            strangers.iter().flat_map(let_in).collect()
        });
        if !ports.is_empty() {
            open.entry(cluster.workload_of(pod))
                .or_default()
                .extend(ports.iter().copied());
        }
    }
    let exposure = |(workload, ports): (Workload, BTreeSet<Ports>)| Exposure {
        how: How::FromAnywhere,
        service: None,
        addresses: Vec::new(),
        ports: ports.into_iter().collect(),
        workloads: vec![id::of_workload(&workload)],
    };
    open.into_iter().map(exposure).collect()
}

/// Of each family an address that no policy names.
pub(super) fn strangers(cluster: &Cluster, evaluator: &Evaluator<'_>) -> Vec<Place> {
    [IpAddr::is_ipv4 as fn(&IpAddr) -> bool, IpAddr::is_ipv6]
        .into_iter()
        .filter_map(|family| stranger(cluster, evaluator, family))
        .collect()
}

/// An address that no policy names: of the widest range that none cuts, one that the cluster does not have.
fn stranger(cluster: &Cluster, evaluator: &Evaluator<'_>, family: fn(&IpAddr) -> bool) -> Option<Place> {
    let starts: BTreeSet<IpAddr> = evaluator.address_starts().filter(family).collect();
    let widest = AddressRange::between(&starts).max_by_key(AddressRange::width)?;
    let free = widest.free_address(cluster)?;
    evaluator.find(&End::Address(free)).ok()
}

/// The ports at which a pod accepts connections from there.
fn let_in(evaluator: &Evaluator<'_>, from: &Place, pod: &Place) -> Vec<Ports> {
    ports(evaluator, from, pod, |decision| decision.direction(Direction::Ingress))
}

/// The ports at which the answer about a connection is that it is allowed.
pub(super) fn ports(
    evaluator: &Evaluator<'_>,
    from: &Place,
    to: &Place,
    mut answer: impl FnMut(Decision) -> Ruling,
) -> Vec<Ports> {
    let mut all = Vec::new();
    for protocol in Transport::OF_POLICIES {
        let mut starts = BTreeSet::from([1]);
        evaluator.port_starts(from, to, protocol, &mut starts);
        let ends = starts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
        let mut runs: Vec<Ports> = Vec::new();
        for (first, last) in starts.iter().copied().zip(ends) {
            if answer(evaluator.decide(from, to, first, protocol)) != Ruling::Allowed {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.last + 1 == first => run.last = last,
                _ => runs.push(Ports { protocol, first, last }),
            }
        }
        all.extend(runs);
    }
    all
}
