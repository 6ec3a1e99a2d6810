//! What the small lab's cluster consists of at a moment: pods and their owners, Services and their addresses. Pure.
//!
//! Guarantee: node rules, DNS names and manifests are made from this one state, so they never disagree.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::Error;
use crate::addresses;
use crate::app::{
    App, Backing, Kind, Labels, ObjectName, Protocol, Service, ServicePort, TargetPort, Workload, selects,
};
use crate::wiring::{Wiring, governing_service};

/// The one node.
pub(super) const NODE: &str = "node-1";
/// The node's addresses.
pub(super) const NODE_ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 18, 32, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 1)),
];
/// Where the node's uplink leads to; nobody is there.
pub(super) const GATEWAYS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 18, 32, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 0xfffe)),
];
/// The node's pod ranges: room for 4,094 pods.
pub(super) const POD_CIDRS: [&str; 2] = ["198.18.0.0/20", "fd00:18:0:1::/64"];
const MOST_ADDRESSES: u16 = 4094;
/// Finished Jobs of a `CronJob` that stay, as the controller manager has it.
const JOB_HISTORY: usize = 3;
/// Earlier `ReplicaSets` that stay: fewer than the controller keeps, because nobody goes back here.
const REVISION_HISTORY: usize = 2;
/// Characters of generated names: no vowels, so that no words come out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// How far a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not in any Service yet.
    Starting,
    Running,
    Succeeded,
    Failed,
}

/// The object that owns a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) uid: String,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) workload: ObjectName,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) container: String,
    pub(super) labels: Labels,
    pub(super) owner: Option<Owner>,
    pub(super) host_network: bool,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) started: Timestamp,
    pub(super) phase: Phase,
}

/// A `ReplicaSet` of a `Deployment`, or a `Job` of a `CronJob`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) workload: ObjectName,
    pub(super) name: String,
    pub(super) uid: String,
    /// What generated labels carry: the template hash.
    pub(super) hash: String,
    pub(super) created: Timestamp,
}

/// Which addresses new pods get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// Ones that were not used for longest.
    #[default]
    Fresh,
    /// The lowest that are free: those of pods that were just deleted come back.
    Reused,
}

/// The cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) app: App,
    pub(super) services: Vec<Service>,
    pub(super) service_addresses: BTreeMap<ObjectName, Vec<IpAddr>>,
    /// UID of everything else, by `kind/namespace/name`.
    pub(super) uids: BTreeMap<String, String>,
    pub(super) created: Timestamp,
    pub(super) pods: Vec<Pod>,
    pub(super) generations: Vec<Generation>,
    removed: BTreeSet<ObjectName>,
    used: BTreeSet<u16>,
    last: u16,
}

/// An id that cannot be guessed from names, in the form that the API server gives it.
pub(super) fn uid(seed: &str) -> String {
    let hash = hex(seed);
    format!(
        "{}-{}-4{}-a{}-{}",
        &hash[..8],
        &hash[8..12],
        &hash[13..16],
        &hash[17..20],
        &hash[20..32]
    )
}

fn hex(seed: &str) -> String {
    let bytes = Sha256::digest(seed.as_bytes());
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

fn suffix(seed: &str, length: usize) -> String {
    let digest = Sha256::digest(seed.as_bytes());
    digest
        .iter()
        .take(length)
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

impl Cluster {
    /// Everything but pods, of an application to which the lab's own parts were added already.
    pub(super) fn new(app: App, seed: &str, now: Timestamp) -> Self {
        let services = Wiring::new(&app, NODE_ADDRESSES.to_vec()).services().to_vec();
        let mut service_addresses = BTreeMap::new();
        // Below are those of the DNS and the API server.
        let mut next = 20_u16;
        for service in &services {
            let id = service.id();
            let (v4, v6) = match id.to_string().as_str() {
                "kube-system/kube-dns" => (addresses::DNS_SERVICE_V4, addresses::DNS_SERVICE_V6),
                "default/kubernetes" => (addresses::API_SERVICE_V4, addresses::API_SERVICE_V6),
                _ => {
                    next += 1;
                    service_address(next)
                }
            };
            let headless = service.headless || matches!(service.backing, Backing::ExternalName(_));
            let both = [(service.families.v4(), v4.into()), (service.families.v6(), v6.into())];
            let own = both
                .into_iter()
                .filter(|(wanted, _)| *wanted && !headless)
                .map(|(_, address)| address)
                .collect();
            service_addresses.insert(id, own);
        }
        let mut cluster = Self {
            services,
            service_addresses,
            uids: BTreeMap::new(),
            created: now,
            pods: Vec::new(),
            generations: Vec::new(),
            removed: BTreeSet::new(),
            used: BTreeSet::new(),
            last: 0,
            app,
        };
        cluster.name_objects(seed);
        cluster
    }

    fn name_objects(&mut self, seed: &str) {
        let workloads = self
            .app
            .workloads
            .iter()
            .map(|workload| format!("{}/{}", workload.kind.as_str(), workload.id()));
        let services = self.services.iter().map(|service| format!("Service/{}", service.id()));
        let nodes = std::iter::once(format!("Node/{NODE}"));
        self.uids = workloads
            .chain(services)
            .chain(nodes)
            .map(|key| (key.clone(), uid(&format!("{seed}{key}"))))
            .collect();
    }

    pub(super) fn wiring(&self) -> Wiring<'_> {
        Wiring::new(&self.app, NODE_ADDRESSES.to_vec())
    }

    pub(super) fn uid_of(&self, kind: &str, id: &impl std::fmt::Display) -> String {
        self.uids.get(&format!("{kind}/{id}")).cloned().unwrap_or_default()
    }

    /// A new `ReplicaSet` or `Job` for a workload's next pods.
    pub(super) fn new_generation(&mut self, workload: &Workload, seed: &str, now: Timestamp) -> Generation {
        let hash = suffix(&format!("{seed}hash"), 10);
        let name = match workload.kind {
            // The controller names them by the minute; here they come faster than that.
            Kind::CronJob => format!("{}-{}", workload.name, now.as_second()),
            Kind::Job => workload.name.to_string(),
            Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Pod => format!("{}-{hash}", workload.name),
        };
        let uid = match workload.kind {
            Kind::Job => self.uid_of("Job", &workload.id()),
            _ => uid(&format!("{seed}generation")),
        };
        let generation = Generation {
            workload: workload.id(),
            name,
            uid,
            hash,
            created: now,
        };
        self.generations.push(generation.clone());
        generation
    }

    /// A pod that is about to start. `ordinal` names the pods of a `StatefulSet`.
    pub(super) fn new_pod(
        &mut self,
        workload: &Workload,
        generation: &Generation,
        ordinal: u16,
        addressing: Addressing,
        seed: &str,
        now: Timestamp,
    ) -> Result<Pod, Error> {
        let id = workload.id();
        let addresses = if workload.host_network {
            NODE_ADDRESSES.to_vec()
        } else {
            self.take_address(addressing)?
        };
        let random = suffix(&format!("{seed}pod"), 5);
        let own_uid = self.uid_of(workload.kind.as_str(), &id);
        let mut labels = workload.labels.clone();
        let mut label = |key: &str, value: &str| drop(labels.insert(key.to_owned(), value.to_owned()));
        let owner = |kind| {
            Some(Owner {
                kind,
                name: id.name.to_string(),
                uid: own_uid.clone(),
            })
        };
        let (name, owner) = match workload.kind {
            Kind::Deployment => {
                label("pod-template-hash", &generation.hash);
                let owner = Owner {
                    kind: "ReplicaSet",
                    name: generation.name.clone(),
                    uid: generation.uid.clone(),
                };
                (format!("{}-{random}", generation.name), Some(owner))
            }
            Kind::StatefulSet => {
                let name = format!("{}-{ordinal}", id.name);
                label("apps.kubernetes.io/pod-index", &ordinal.to_string());
                label("controller-revision-hash", &generation.name);
                label("statefulset.kubernetes.io/pod-name", &name);
                (name, owner("StatefulSet"))
            }
            Kind::DaemonSet => {
                label("controller-revision-hash", &generation.hash);
                label("pod-template-generation", "1");
                (format!("{}-{random}", id.name), owner("DaemonSet"))
            }
            Kind::Job | Kind::CronJob => {
                for prefix in ["", "batch.kubernetes.io/"] {
                    label(&format!("{prefix}job-name"), &generation.name);
                    label(&format!("{prefix}controller-uid"), &generation.uid);
                }
                let owner = Owner {
                    kind: "Job",
                    name: generation.name.clone(),
                    uid: generation.uid.clone(),
                };
                (format!("{}-{random}", generation.name), Some(owner))
            }
            Kind::Pod => (id.name.to_string(), None),
        };
        Ok(Pod {
            workload: id,
            name,
            uid: uid(&format!("{seed}pod")),
            container: hex(&format!("{seed}container")),
            labels,
            owner,
            host_network: workload.host_network,
            addresses,
            started: now,
            phase: Phase::Starting,
        })
    }

    fn take_address(&mut self, addressing: Addressing) -> Result<Vec<IpAddr>, Error> {
        let after = match addressing {
            Addressing::Fresh => self.last,
            Addressing::Reused => 0,
        };
        let index = (after + 1..=MOST_ADDRESSES)
            .chain(1..=after)
            .find(|index| !self.used.contains(index))
            .ok_or(Error::NoAddress)?;
        self.used.insert(index);
        self.last = self.last.max(index) % MOST_ADDRESSES;
        Ok(pod_addresses(index).to_vec())
    }

    /// Gives a pod's addresses back.
    pub(super) fn release(&mut self, pod: &Pod) {
        self.used.retain(|index| {
            !pod.addresses
                .iter()
                .any(|address| pod_addresses(*index).contains(address))
        });
    }

    /// Takes a pod out and gives its addresses back; those of a finished pod were given back already.
    pub(super) fn remove_pod(&mut self, uid: &str) -> Option<Pod> {
        let index = self.pods.iter().position(|pod| pod.uid == uid)?;
        let pod = self.pods.remove(index);
        if matches!(pod.phase, Phase::Starting | Phase::Running) {
            self.release(&pod);
        }
        Some(pod)
    }

    pub(super) fn pods_of<'a>(&'a self, workload: &'a ObjectName) -> impl Iterator<Item = &'a Pod> {
        self.pods.iter().filter(move |pod| pod.workload == *workload)
    }

    /// Drops the finished Jobs of a `CronJob` that are too old to stay, with their pods.
    pub(super) fn trim_history(&mut self, workload: &ObjectName) {
        let over = |phase: Phase| matches!(phase, Phase::Succeeded | Phase::Failed);
        let finished: Vec<String> = self
            .pods_of(workload)
            .filter(|pod| over(pod.phase))
            .filter_map(|pod| pod.owner.as_ref().map(|owner| owner.uid.clone()))
            .collect();
        for uid in finished.iter().take(finished.len().saturating_sub(JOB_HISTORY)) {
            self.generations.retain(|generation| generation.uid != *uid);
            self.pods
                .retain(|pod| pod.owner.as_ref().is_none_or(|owner| owner.uid != *uid));
        }
    }

    /// Drops what a rolled workload's earlier pods came from. Earlier `ReplicaSets` stay without pods, as the controller has it.
    pub(super) fn forget_generations(&mut self, workload: &Workload) {
        let keep = if workload.kind == Kind::Deployment {
            REVISION_HISTORY + 1
        } else {
            1
        };
        let id = workload.id();
        let mut over = self
            .generations
            .iter()
            .filter(|generation| generation.workload == id)
            .count()
            .saturating_sub(keep);
        self.generations.retain(|generation| {
            let drop = over > 0 && generation.workload == id;
            over -= usize::from(drop);
            !drop
        });
    }

    /// Drops a workload and what its pods came from; the pods are dropped by themselves. It stays in the description, because
    /// Services still select what it was, and others still call it.
    pub(super) fn remove_workload(&mut self, id: &ObjectName) {
        self.removed.insert(id.clone());
        self.generations.retain(|generation| generation.workload != *id);
    }

    /// The workloads that were not removed.
    pub(super) fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.app
            .workloads
            .iter()
            .filter(|workload| !self.removed.contains(&workload.id()))
    }

    /// The pods that are behind a Service now.
    pub(super) fn pods_behind<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Pod> {
        let selector = self.app.selector_of(service);
        self.pods.iter().filter(move |pod| {
            pod.phase == Phase::Running
                && pod.workload.namespace == service.namespace
                && selector.is_some_and(|selector| selects(selector, &pod.labels))
        })
    }

    /// A pod's port behind a Service's port.
    pub(super) fn target_on(&self, pod: &Pod, port: &ServicePort) -> Option<u16> {
        match port.target() {
            TargetPort::Number(number) => Some(number.get()),
            TargetPort::Name(name) => self
                .app
                .workload(&pod.workload)?
                .listens
                .iter()
                .find(|listen| listen.name.as_ref() == Some(&name) && listen.protocol == port.protocol)
                .map(|listen| listen.port.get()),
        }
    }

    /// Where a Service's port leads to, in one family.
    pub(super) fn backends(&self, service: &Service, port: &ServicePort, v4: bool) -> Vec<SocketAddr> {
        if let Backing::External(name) = &service.backing
            && let Some(host) = self.app.external_host(name)
        {
            let number = match port.target() {
                TargetPort::Number(number) => Some(number),
                TargetPort::Name(name) => host
                    .listens
                    .iter()
                    .find(|listen| listen.name.as_ref() == Some(&name))
                    .map(|listen| listen.port),
            };
            let addresses = host.addresses.iter().filter(|address| address.is_ipv4() == v4);
            return number
                .map(|number| {
                    addresses
                        .map(|address| SocketAddr::new(*address, number.get()))
                        .collect()
                })
                .unwrap_or_default();
        }
        self.pods_behind(service)
            .filter_map(|pod| {
                let address = pod.addresses.iter().find(|address| address.is_ipv4() == v4)?;
                Some(SocketAddr::new(*address, self.target_on(pod, port)?))
            })
            .collect()
    }

    /// The names that the cluster's DNS knows: addresses by name, and other names by name.
    pub(super) fn names(&self) -> (BTreeMap<String, Vec<IpAddr>>, BTreeMap<String, String>) {
        let mut known = BTreeMap::new();
        let mut aliases = BTreeMap::new();
        for service in &self.services {
            let full = format!("{}.{}.svc.cluster.local", service.name, service.namespace);
            if let Backing::ExternalName(other) = &service.backing {
                aliases.insert(full, other.to_string());
                continue;
            }
            let own = self.service_addresses.get(&service.id()).cloned().unwrap_or_default();
            if !service.headless {
                known.insert(full, own);
                continue;
            }
            let mut behind: Vec<IpAddr> = Vec::new();
            for pod in self.pods_behind(service) {
                behind.extend(&pod.addresses);
                let governed = self
                    .app
                    .workload(&pod.workload)
                    .and_then(|workload| governing_service(&self.services, workload))
                    .is_some_and(|governing| governing.id() == service.id());
                if governed {
                    known.insert(format!("{}.{full}", pod.name), pod.addresses.clone());
                }
            }
            if let Backing::External(name) = &service.backing {
                behind.extend(
                    self.app
                        .external_host(name)
                        .into_iter()
                        .flat_map(|host| &host.addresses),
                );
            }
            known.insert(full, behind);
        }
        for host in &self.app.external {
            if let Some(name) = &host.hostname {
                known.insert(name.to_string(), host.addresses.clone());
            }
        }
        (known, aliases)
    }
}

fn pod_addresses(index: u16) -> [IpAddr; 2] {
    let [high, low] = index.to_be_bytes();
    [
        Ipv4Addr::new(198, 18, high, low).into(),
        Ipv6Addr::new(0xfd00, 0x18, 0, 1, 0, 0, 0, index).into(),
    ]
}

fn service_address(index: u16) -> (Ipv4Addr, Ipv6Addr) {
    let [high, low] = index.to_be_bytes();
    (
        Ipv4Addr::new(198, 19, high & 0x0f, low),
        Ipv6Addr::new(0xfd00, 0x19, 0, 0, 0, 0, 0, index),
    )
}

/// Adds what every cluster has: a DNS server behind `kube-system/kube-dns`, and `default/kubernetes` in front of an API server
/// that runs outside.
pub(super) fn with_system_parts(mut app: App, system: App) -> App {
    app.workloads.extend(system.workloads);
    app.services.extend(system.services);
    app.external.extend(system.external);
    app
}

/// Whether a Service is the way into the cluster's DNS.
pub(super) fn is_dns_server(workload: &Workload) -> bool {
    workload.namespace.as_str() == "kube-system" && workload.name.as_str() == "coredns"
}

/// The transport of a rule.
pub(super) const fn transport(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}
