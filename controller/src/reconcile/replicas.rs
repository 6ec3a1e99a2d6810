//! Pods, slices and owners that come, change and go without anything else becoming another: that is what most of a cluster's events are.
//!
//! A pod that lives beside another one like it (of the same workload, with the same labels and ports) changes neither whom labels select
//! nor what policies say of anybody. What is left to follow are its own addresses, and what is known of its workload's pods. Any other
//! pod, and an owner that nobody owns, may change whom labels select in its namespace, and nowhere else.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use nanoseg_graph::cluster::{Cluster, Controller, Labels, Namespace, Object, ObjectKey, Pod, PodPhase, Service};
use nanoseg_graph::endpoint::{Endpoint, ServiceName, Workload};
use nanoseg_policy::cluster_policy::ClusterNetworkPolicy;

use super::stale::{Parts, Stale};
use super::{Core, Due};
use crate::segment::MODE_LABEL;

impl Core {
    /// Takes note of an object that is not as it is known, and about to be taken in as of `now`.
    pub(super) fn note_object(&mut self, object: &Object, now: Timestamp) {
        // Nothing is to be found out then, and a start tells of every object there is.
        if matches!(self.stale, Stale::All) {
            return self.rethink();
        }
        match object {
            Object::Pod(pod) => {
                let known = self.cluster.pod(&pod.namespace, &pod.name).cloned();
                self.note_pod(known.as_ref(), Some(pod), now);
            }
            Object::Controller(owner) if self.is_mere_revision(owner) => {}
            Object::Controller(owner) => {
                let known = self
                    .cluster
                    .controller(&owner.namespace, &owner.kind, &owner.name)
                    .cloned();
                self.note_owner([known.as_ref(), Some(owner)]);
            }
            Object::EndpointSlice(slice) => self.note_slice(&slice.service),
            Object::Service(service) => self.note_service(service),
            Object::Namespace(namespace) => self.note_namespace(&namespace.name, Some(namespace)),
            Object::Node(node) => {
                let known = self.cluster.node(&node.name).cloned();
                self.note_node(known.as_ref(), Some(node), now);
            }
        }
    }

    /// Takes note of an object that is about to be taken out.
    pub(super) fn note_gone(&mut self, key: &ObjectKey, now: Timestamp) {
        if matches!(self.stale, Stale::All) {
            return self.rethink();
        }
        match key {
            ObjectKey::Pod(namespace, name) => {
                if let Some(known) = self.cluster.pod(namespace, name).cloned() {
                    self.note_pod(Some(&known), None, now);
                }
            }
            ObjectKey::Controller(namespace, kind, name) => {
                if let Some(known) = self.cluster.controller(namespace, kind, name).cloned() {
                    if self.cluster.forgets_owner() {
                        self.rethink();
                    } else if !self.is_mere_revision(&known) {
                        self.note_owner([Some(&known), None]);
                    }
                }
            }
            ObjectKey::EndpointSlice(namespace, name) => {
                if let Some(service) = self.cluster.slice(namespace, name).map(|slice| slice.service.clone()) {
                    self.note_slice(&service);
                }
            }
            ObjectKey::Node(name) => {
                if let Some(known) = self.cluster.node(name).cloned() {
                    self.note_node(Some(&known), None, now);
                }
            }
            ObjectKey::Namespace(name) => self.note_namespace(name, None),
            ObjectKey::Service(_) => self.rethink(),
        }
    }

    fn note_pod(&mut self, before: Option<&Pod>, after: Option<&Pod>, now: Timestamp) {
        self.due = Due::Soon;
        if let (Some(before), Some(after)) = (before, after)
            && let Some(workload) = self.only_turned(before, after)
        {
            return self.stale.judge(&workload);
        }
        let comes_back = after.is_some_and(|pod| self.cluster.is_gone(&pod.uid));
        let Some((workload, is_replica)) = self.only_pod(before, after).filter(|_| !comes_back) else {
            return self.rethink();
        };
        let led = if is_replica {
            Some(BTreeSet::new())
        } else {
            self.led_otherwise(before, after)
        };
        let (Some(led), Stale::Parts(parts)) = (led, &mut self.stale) else {
            return self.rethink();
        };
        if !is_replica {
            parts.peopled.insert(workload.namespace.clone());
        }
        for address in led {
            parts.heard.begins(address, None);
        }
        let addresses = |pod: Option<&Pod>| -> BTreeSet<IpAddr> {
            pod.into_iter().flat_map(|pod| &pod.addresses).copied().collect()
        };
        let lives = |pod: &&Pod| pod.phase != PodPhase::Finished;
        let (had, has) = (addresses(before.filter(lives)), addresses(after.filter(lives)));
        // One that is first known with its address when it has finished had it until now, as far as is known.
        let gets = addresses(after.filter(|after| before.is_none_or(|before| lives(&before)) || lives(after)));
        for address in gets.difference(&had) {
            let since = after.and_then(|pod| pod.started);
            let is_known = self.cluster.is_cluster_address(*address);
            parts.heard.begins(*address, since.filter(|_| is_known));
        }
        for address in had.difference(&has) {
            parts.heard.ends(*address, now);
        }
        if before.is_none()
            && let Some(pod) = after
        {
            parts.heard.comes(&pod.uid);
        }
        // What was lost of a pod counts for its workload.
        parts.losses = true;
        parts.replicas.insert(workload);
    }

    /// The workload of a pod that is known and has come to be ready, or not to be, and nothing else. That is what pods do most, and only
    /// what is said of their own workload depends on it.
    fn only_turned(&self, before: &Pod, after: &Pod) -> Option<Workload> {
        let turned = Pod {
            ready: after.ready,
            ..before.clone()
        };
        (turned == *after).then(|| self.cluster.workload_of(before))
    }

    /// The workload of a pod that comes, changes or goes, if that changes nothing outside of its namespace; and whether another one is
    /// like it, before and after, so that it changes nothing there either.
    fn only_pod(&self, before: Option<&Pod>, after: Option<&Pod>) -> Option<(Workload, bool)> {
        if let (Some(before), Some(after)) = (before, after)
            && before.uid != after.uid
        {
            return None;
        }
        if after.is_none() && self.cluster.forgets_pod() {
            return None;
        }
        let workload = self.cluster.workload_of(after.or(before)?);
        let blocks = self.blocks.get_or_init(|| self.blocks());
        let mut states = before.into_iter().chain(after);
        let is_plain = |pod: &Pod| {
            !pod.host_network
                && pod.mirror_uid.is_none()
                && pod.phase != PodPhase::Declared
                && self.cluster.workload_of(pod) == workload
                && pod.addresses.iter().all(|address| self.is_inside(*address))
        };
        if !states.clone().all(is_plain) {
            return None;
        }
        let has_one_beside = |pod: &Pod| {
            let mut others = self.cluster.pods_in(&pod.namespace);
            others.any(|other| are_alike(pod, other, blocks) && self.cluster.workload_of(other) == workload)
        };
        let is_replica = states.all(has_one_beside);
        // Everybody asks for names.
        (is_replica || !self.serves_names(&workload.namespace)).then_some((workload, is_replica))
    }

    fn serves_names(&self, namespace: &str) -> bool {
        let mut services = self.guide.synthesis.dns_services.iter();
        services.any(|service| service.namespace == namespace)
    }

    /// Addresses of the Services that lead elsewhere with a pod or without it; `None` where one can be reached in another way.
    fn led_otherwise(&self, before: Option<&Pod>, after: Option<&Pod>) -> Option<BTreeSet<IpAddr>> {
        let mut led = BTreeSet::new();
        for pod in before.into_iter().chain(after) {
            let workload = self.cluster.workload_of(pod);
            let stands_in = |other: &&Pod| {
                other.uid != pod.uid
                    && !other.host_network
                    && other.phase != PodPhase::Finished
                    && other.ports == pod.ports
                    && self.cluster.workload_of(other) == workload
            };
            let others: Vec<&Pod> = self.cluster.pods_in(&pod.namespace).filter(stands_in).collect();
            for service in self.cluster.services().filter(|service| service.selects(pod)) {
                if !others.iter().any(|other| service.selects(other)) {
                    if service.ports.iter().any(|port| port.node_port.is_some()) {
                        return None;
                    }
                    led.extend(service.cluster_ips.iter().chain(&service.external_ips));
                }
            }
        }
        Some(led)
    }

    /// Takes note of an owner of pods before and after it comes, changes or goes. One that nobody owns stands for itself, there or not.
    fn note_owner(&mut self, states: [Option<&Controller>; 2]) {
        let is_top = |owner: &&Controller| owner.owner.is_none() && !self.serves_names(&owner.namespace);
        let mut states = states.into_iter().flatten();
        let Some(owner) = states.clone().next().filter(|_| states.all(|owner| is_top(&owner))) else {
            return self.rethink();
        };
        let Stale::Parts(parts) = &mut self.stale else { return };
        parts.peopled.insert(owner.namespace.clone());
        parts.replicas.insert(Workload {
            namespace: owner.namespace.clone(),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
        });
        self.due = Due::Soon;
    }

    /// Takes note of a Service that comes or changes. Of one that nobody has heard of only the addresses matter.
    fn note_service(&mut self, service: &Service) {
        let Service {
            name,
            cluster_ips,
            external_ips,
            ports,
            created,
            ..
        } = service;
        let end = Endpoint::Service(name.clone());
        let is_new = self.cluster.service(name).is_none()
            && self.resolution.graph().index_of(&end).is_none()
            && !self.is_in_a_baseline(&end)
            && !self.leads_in_a_baseline(name)
            && !self.guide.synthesis.dns_services.contains(name);
        let addresses: BTreeSet<IpAddr> = cluster_ips.iter().chain(external_ips).copied().collect();
        let has_own_ports = ports.iter().any(|port| port.node_port.is_some());
        if !is_new || has_own_ports || !addresses.iter().all(|address| self.is_inside(*address)) {
            return self.rethink();
        }
        let Stale::Parts(parts) = &mut self.stale else { return };
        for address in addresses {
            let is_known = self.cluster.is_cluster_address(address);
            parts.heard.begins(address, created.filter(|_| is_known));
        }
        self.due = Due::Soon;
    }

    /// A namespace of which people change the mode alone, or where no pod lives, has its own workloads judged again. Its labels are what
    /// policies select its pods by, and any but the mode may be anybody's.
    fn note_namespace(&mut self, name: &str, after: Option<&Namespace>) {
        let beside_mode = |namespace: &Namespace| -> Labels {
            let others = namespace.labels.iter().filter(|(label, _)| *label != MODE_LABEL);
            others.map(|(label, value)| (label.clone(), value.clone())).collect()
        };
        let known = self.cluster.namespaces().find(|known| known.name == name);
        let is_mode_alone = known.is_some() && known.map(beside_mode) == after.map(beside_mode);
        let is_selected = || !self.cluster_policies.is_empty() || self.foreign().any(selects_by_mode);
        if self.cluster.pods_in(name).next().is_some() && (!is_mode_alone || is_selected()) {
            return self.rethink();
        }
        let own = self.subjects.keys().filter(|own| own.namespace == name);
        for workload in own {
            self.due = Due::Soon;
            self.stale.judge(workload);
        }
    }

    /// Whether an edge of a workload that is known was made through this Service.
    fn leads_in_a_baseline(&self, name: &ServiceName) -> bool {
        self.subjects.values().any(|subject| {
            let kept = subject.baseline.values().chain(subject.life.kept().values());
            kept.into_iter().any(|known| known.via.contains(name))
        })
    }

    /// Whether an address is the cluster's own, or at least no policy has anything to do with it.
    fn is_inside(&self, address: IpAddr) -> bool {
        let groups = &self.guide.synthesis.external_groups;
        if groups
            .iter()
            .any(|group| group.cidrs().iter().any(|cidr| cidr.contains(&address)))
        {
            return false;
        }
        let outside = Endpoint::External(address);
        self.cluster.is_cluster_address(address) || !self.is_in_a_baseline(&outside)
    }

    /// Whether an edge of a workload that is known has this end, as far as its baseline and what waits for a person go.
    fn is_in_a_baseline(&self, end: &Endpoint) -> bool {
        self.is_end_in_a_baseline(|known| known == end)
    }

    pub(super) fn is_end_in_a_baseline(&self, is_one: impl Fn(&Endpoint) -> bool) -> bool {
        self.subjects.values().any(|subject| {
            let kept = subject.baseline.keys().chain(subject.life.kept().keys());
            let mut edges = kept.map(|key| &**key).chain(subject.life.quarantined().keys());
            edges.any(|key| is_one(&key.source) || is_one(&key.destination))
        })
    }

    /// The ranges of addresses that people's policies tell apart.
    fn blocks(&self) -> BTreeSet<IpNet> {
        let network = self.foreign().flat_map(blocks_of);
        let cluster = self.cluster_policies.values().flat_map(networks_of);
        network.chain(cluster).collect()
    }

    /// An owner between pods and the owner that stands for them, as a `ReplicaSet` is of a Deployment: who it is follows from the other
    /// alone. Pods that came before it were taken for its own.
    fn is_mere_revision(&self, owner: &Controller) -> bool {
        let Controller {
            namespace,
            kind,
            name,
            owner: above,
            ..
        } = owner;
        let Some(above) = above else { return false };
        let stands = self.cluster.controller(namespace, &above.kind, &above.name);
        if stands.is_none_or(|stands| stands.owner.is_some()) {
            return false;
        }
        let own = Workload {
            namespace: namespace.clone(),
            kind: kind.clone(),
            name: name.clone(),
        };
        // A pod that is gone may have been seen talking before its owner was known.
        let seen = Endpoint::Workload(own.clone());
        if self.subjects.contains_key(&own) || self.resolution.graph().index_of(&seen).is_some() {
            return false;
        }
        match self.cluster.controller(namespace, kind, name) {
            Some(known) => known.owner.as_ref() == Some(above),
            None => !has_pods(&self.cluster, &own),
        }
    }

    /// Slices matter where no selector says who is behind a Service, or where nobody was.
    fn note_slice(&mut self, name: &ServiceName) {
        let service = self.cluster.service(name);
        let selects = service.is_none_or(Service::has_selector);
        match &mut self.stale {
            Stale::Parts(parts) if selects => {
                parts.services.insert(name.clone());
                self.due = Due::Soon;
            }
            Stale::Parts(_) | Stale::All => self.rethink(),
        }
    }

    /// Whether these parts turned out to be all that has to be thought again.
    pub(super) fn is_enough(&self, parts: &Parts) -> bool {
        parts.services.iter().all(|name| {
            let end = Endpoint::Service(name.clone());
            self.resolution.graph().index_of(&end).is_none() && !self.is_in_a_baseline(&end)
        })
    }
}

/// Whether policies say the same of both, and of the one no less than of the other.
fn are_alike(pod: &Pod, other: &Pod, blocks: &BTreeSet<IpNet>) -> bool {
    let families = |pod: &Pod| -> BTreeSet<bool> { pod.addresses.iter().map(IpAddr::is_ipv4).collect() };
    let in_blocks = |pod: &Pod| -> BTreeSet<(bool, &IpNet)> {
        let within = |address: &IpAddr| {
            let is_ipv4 = address.is_ipv4();
            let within = blocks
                .iter()
                .filter(|block| block.contains(address))
                .collect::<Vec<_>>();
            within
                .into_iter()
                .map(move |block| (is_ipv4, block))
                .collect::<Vec<_>>()
        };
        pod.addresses.iter().flat_map(within).collect()
    };
    pod.uid != other.uid
        && !other.host_network
        && matches!(other.phase, PodPhase::Pending | PodPhase::Running)
        && pod.labels == other.labels
        && pod.ports == other.ports
        && (pod.addresses.is_empty() || (families(pod) == families(other) && in_blocks(pod) == in_blocks(other)))
}

fn has_pods(cluster: &Cluster, owner: &Workload) -> bool {
    let Workload { namespace, kind, name } = owner;
    let is_own = |pod: &Pod| {
        let of_pod = pod.owner.as_ref();
        of_pod.is_some_and(|of_pod| of_pod.kind == *kind && of_pod.name == *name)
    };
    cluster.pods_in(namespace).any(is_own)
}

/// Everybody that a policy names.
fn peers_of(policy: &NetworkPolicy) -> impl Iterator<Item = &NetworkPolicyPeer> {
    let ingress = policy.spec.iter().flat_map(|spec| spec.ingress.iter().flatten());
    let egress = policy.spec.iter().flat_map(|spec| spec.egress.iter().flatten());
    let from = ingress.flat_map(|rule| rule.from.iter().flatten());
    from.chain(egress.flat_map(|rule| rule.to.iter().flatten()))
}

/// Whether it depends on namespaces' modes whom a policy names.
fn selects_by_mode(policy: &NetworkPolicy) -> bool {
    peers_of(policy)
        .filter_map(|peer| peer.namespace_selector.as_ref())
        .any(|selector| {
            let LabelSelector {
                match_labels,
                match_expressions,
            } = selector;
            let is_matched = match_labels.iter().any(|labels| labels.contains_key(MODE_LABEL));
            is_matched || match_expressions.iter().flatten().any(|asked| asked.key == MODE_LABEL)
        })
}

fn blocks_of(policy: &NetworkPolicy) -> Vec<IpNet> {
    let blocks = peers_of(policy).filter_map(|peer| peer.ip_block.as_ref());
    let ranges = blocks.flat_map(|IPBlock { cidr, except }| [cidr].into_iter().chain(except.iter().flatten()));
    ranges.filter_map(|range| range.parse().ok()).collect()
}

fn networks_of(policy: &ClusterNetworkPolicy) -> Vec<IpNet> {
    let rules = policy.spec.egress.iter();
    let networks = rules
        .flat_map(|rule| &rule.to)
        .filter_map(|peer| peer.networks.as_ref());
    networks.flatten().filter_map(|range| range.parse().ok()).collect()
}
