//! The lab as it runs: the cluster's state and the processes that belong to it, and what changes both.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

use super::cgroup::{self, Driver};
use super::cluster::{self, Addressing, Cluster, GATEWAYS, NODE_ADDRESSES, Phase, Pod};
use super::network::{self, Attachment};
use super::place::Place;
use super::process::{Process, Start};
use super::{Error, Watched, ledgers, objects, proxy, tool};
use crate::addresses;
use crate::app::{App, ExternalHost, Kind, ObjectName, Workload};
use crate::peer::{PeerConfig, ResolverConfig, Zone};

/// What every cluster has.
const SYSTEM: &str = include_str!("system.yaml");
/// As kubelet writes it into every pod's `resolv.conf`.
const NDOTS: usize = 5;

/// A container that runs, or a host outside.
#[derive(Debug)]
struct Running {
    process: Process,
    cgroup: PathBuf,
    /// `None` in the node's network.
    attachment: Option<Attachment>,
}

/// The lab as it runs.
#[derive(Debug)]
pub(super) struct State {
    place: Place,
    peer: PathBuf,
    driver: Driver,
    cluster: Cluster,
    /// By pod UID.
    pods: BTreeMap<String, Running>,
    /// By name.
    outside: BTreeMap<String, Running>,
    written: BTreeMap<String, String>,
    secret: String,
    count: AtomicU64,
    devices: u32,
}

/// What is about to be started.
struct Container {
    /// `NAMESPACE/POD` or `external/NAME`.
    name: String,
    /// Pod UID, or name of the host.
    key: String,
    pod: String,
    config: PeerConfig,
    addresses: Vec<IpAddr>,
    /// The folder that is removed in the end, and the one of the process in it.
    cgroup: (PathBuf, PathBuf),
    attachment: Option<Attachment>,
}

impl State {
    pub(super) fn new(app: App, place: Place, peer: PathBuf, driver: Driver) -> Result<Self, Error> {
        let system = App::parse_own(SYSTEM, Path::new("system.yaml")).map_err(Error::System)?;
        let secret = fs::read_to_string("/proc/sys/kernel/random/uuid")
            .map_err(Error::file("read", "/proc/sys/kernel/random/uuid"))?;
        let app = cluster::with_system_parts(app, system);
        Ok(Self {
            cluster: Cluster::new(app, &secret, Timestamp::now()),
            place,
            peer,
            driver,
            pods: BTreeMap::new(),
            outside: BTreeMap::new(),
            written: BTreeMap::new(),
            secret,
            count: AtomicU64::new(0),
            devices: 0,
        })
    }

    fn seed(&self) -> String {
        format!("{}{}", self.secret, self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// Starts everything, and says what ends by itself.
    pub(super) fn start_all(&mut self) -> Result<Vec<Watched>, Error> {
        for folder in [self.place.cluster.clone(), self.place.ledgers(), self.files()] {
            fs::create_dir_all(&folder).map_err(Error::file("created", folder))?;
        }
        cgroup::create(&self.place.cgroup_root)?;
        cgroup::create(&self.place.cgroup_outside)?;
        let (node, beyond) = (self.place.node_namespace(), self.place.beyond_namespace());
        network::make_node(&node, &beyond, &NODE_ADDRESSES, &GATEWAYS)?;
        // The DNS server reads it as it starts.
        self.write_zone()?;
        let mut containers = Vec::new();
        for host in self.cluster.app.external.clone() {
            containers.push(self.outside_host(&host));
        }
        for workload in self.cluster.app.workloads.clone() {
            for pod in self.new_pods(&workload, Addressing::Fresh)? {
                containers.push(self.container(&workload, &pod));
            }
        }
        let keys = self.start(containers)?;
        self.admit(&keys);
        self.publish()?;
        self.begin(&keys)?;
        Ok(self.watched(&keys))
    }

    fn files(&self) -> PathBuf {
        self.place.state.join("peers")
    }

    fn zone(&self) -> PathBuf {
        self.place.state.join("names.json")
    }

    fn new_pods(&mut self, workload: &Workload, addressing: Addressing) -> Result<Vec<Pod>, Error> {
        let now = Timestamp::now();
        let generation = self.cluster.new_generation(workload, &self.seed(), now);
        (0..workload.pods_on(1))
            .map(|ordinal| {
                let seed = self.seed();
                let pod = self
                    .cluster
                    .new_pod(workload, &generation, ordinal, addressing, &seed, now)?;
                self.cluster.pods.push(pod.clone());
                Ok(pod)
            })
            .collect()
    }

    fn next_device(&mut self) -> u32 {
        self.devices += 1;
        self.devices
    }

    fn ledger_file(&self, who: &str, pod: &str, uid: &str) -> PathBuf {
        // A StatefulSet's next pod has the same name and must not begin the ledger anew.
        let own = uid.get(..8).unwrap_or_default();
        ledgers::folder(&self.place, who).join(format!("{pod}.{own}.jsonl"))
    }

    fn container(&mut self, workload: &Workload, pod: &Pod) -> Container {
        let namespace = workload.namespace.as_str();
        let mut config = self.cluster.wiring().peer(workload);
        config.supervised = true;
        config.ledger = Some(self.ledger_file(&config.name, &pod.name, &pod.uid));
        config.resolver = Some(ResolverConfig {
            servers: vec![(addresses::DNS_SERVICE_V4, 53).into()],
            search: vec![
                format!("{namespace}.svc.cluster.local"),
                "svc.cluster.local".to_owned(),
                "cluster.local".to_owned(),
            ],
            ndots: NDOTS,
        });
        if cluster::is_dns_server(workload) {
            // It serves the names and every name's traffic on these ports itself.
            config.listens.clear();
            config.zone = Some(self.zone());
        }
        let (folder, inner) = self.driver.pod_folders(&pod.uid, &pod.container);
        let folder = self.place.cgroup_root.join(folder);
        let attachment = (!pod.host_network).then(|| Attachment {
            netns: self.place.pod_namespace(namespace, &pod.name),
            device: self.next_device(),
            addresses: pod.addresses.clone(),
        });
        Container {
            name: format!("{namespace}/{}", pod.name),
            key: pod.uid.clone(),
            pod: pod.name.clone(),
            config,
            addresses: pod.addresses.clone(),
            cgroup: (folder.clone(), folder.join(inner)),
            attachment,
        }
    }

    fn outside_host(&mut self, host: &ExternalHost) -> Container {
        let mut config = self.cluster.wiring().host(host);
        config.supervised = true;
        let name = host.name.as_str();
        config.ledger = Some(self.ledger_file(&config.name, name, name));
        let folder = self.place.cgroup_outside.join(name);
        let attachment = Attachment {
            netns: self.place.outside_namespace(name),
            device: self.next_device(),
            addresses: host.addresses.clone(),
        };
        Container {
            name: config.name.clone(),
            key: name.to_owned(),
            pod: name.to_owned(),
            config,
            addresses: host.addresses.clone(),
            cgroup: (folder.clone(), folder),
            attachment: Some(attachment),
        }
    }

    /// Starts containers; when this returns, all of them listen and none has called.
    fn start(&mut self, containers: Vec<Container>) -> Result<Vec<String>, Error> {
        let attachments: Vec<Attachment> = containers
            .iter()
            .filter_map(|container| container.attachment.clone())
            .collect();
        network::attach(&self.place.node_namespace(), &NODE_ADDRESSES, &attachments)?;
        let (files, mut started) = (self.files(), Vec::new());
        for container in containers {
            let Container {
                name,
                key,
                pod,
                config,
                addresses,
                cgroup: (folder, inner),
                attachment,
            } = container;
            cgroup::create(&inner)?;
            if let Some(folder) = config.ledger.as_ref().and_then(|ledger| ledger.parent()) {
                fs::create_dir_all(folder).map_err(Error::file("created", folder))?;
            }
            let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
            let netns = attachment.as_ref().map_or_else(
                || self.place.node_netns.clone(),
                |attachment| network::path(&attachment.netns),
            );
            let process = Process::start(&Start {
                peer: &self.peer,
                name: &name,
                pod: &pod,
                config: &config,
                addresses: addresses.join(","),
                cgroup: &inner,
                netns: &netns,
                files: &files,
            })?;
            let running = Running {
                process,
                cgroup: folder,
                attachment,
            };
            let all = if name.starts_with("external/") && self.cluster.pods.iter().all(|pod| pod.uid != key) {
                &mut self.outside
            } else {
                &mut self.pods
            };
            all.insert(key.clone(), running);
            started.push(key);
        }
        for key in &started {
            if let Some(running) = self.running(key) {
                running.process.wait_ready()?;
            }
        }
        Ok(started)
    }

    fn running(&mut self, key: &str) -> Option<&mut Running> {
        match self.pods.get_mut(key) {
            Some(running) => Some(running),
            None => self.outside.get_mut(key),
        }
    }

    /// From now on they are behind their Services.
    fn admit(&mut self, keys: &[String]) {
        for pod in &mut self.cluster.pods {
            if pod.phase == Phase::Starting && keys.contains(&pod.uid) {
                pod.phase = Phase::Running;
            }
        }
    }

    fn begin(&mut self, keys: &[String]) -> Result<(), Error> {
        keys.iter()
            .try_for_each(|key| self.running(key).map_or(Ok(()), |running| running.process.begin()))
    }

    fn watched(&mut self, keys: &[String]) -> Vec<Watched> {
        let ends: Vec<String> = self
            .cluster
            .pods
            .iter()
            .filter(|pod| keys.contains(&pod.uid))
            .filter(|pod| {
                self.cluster
                    .app
                    .workload(&pod.workload)
                    .is_some_and(|workload| workload.kind.ends())
            })
            .map(|pod| pod.uid.clone())
            .collect();
        ends.into_iter()
            .filter_map(|uid| {
                let child = self.pods.get_mut(&uid)?.process.take_child()?;
                Some(Watched { uid, child })
            })
            .collect()
    }

    /// Makes rules, names and manifests follow the cluster's state.
    fn publish(&mut self) -> Result<(), Error> {
        let rules = proxy::rules(&self.cluster);
        network::within(&self.place.node_namespace(), || {
            tool::run("nft", "nftables", &["-f", "-"], &rules)
        })?;
        self.write_zone()?;
        let mut texts = BTreeMap::new();
        for (file, objects) in objects::files(&self.cluster)? {
            let mut text = String::new();
            for object in objects {
                text.push_str("---\n");
                text.push_str(&quote_times(&serde_yaml::to_string(&object)?));
            }
            texts.insert(file, text);
        }
        for (file, text) in &texts {
            if self.written.get(file) != Some(text) {
                replace(&self.place.cluster.join(file), text)?;
            }
        }
        for file in self.written.keys().filter(|file| !texts.contains_key(*file)) {
            let path = self.place.cluster.join(file);
            fs::remove_file(&path).map_err(Error::file("removed", path))?;
        }
        self.written = texts;
        Ok(())
    }

    fn write_zone(&self) -> Result<(), Error> {
        let (addresses, aliases) = self.cluster.names();
        replace(&self.zone(), &serde_json::to_string(&Zone { addresses, aliases })?)
    }

    /// Ends a pod's process and removes its network and its cgroup.
    fn stop(&mut self, uid: &str) -> Result<(), Error> {
        let Some(Running {
            process,
            cgroup,
            attachment,
        }) = self.pods.remove(uid)
        else {
            return Ok(());
        };
        cgroup::remove(&cgroup)?;
        process.reap();
        match attachment {
            Some(attachment) => network::detach(&self.place.node_namespace(), &attachment),
            None => Ok(()),
        }
    }

    /// The workload of that name.
    fn workload(&self, who: &str) -> Result<Workload, Error> {
        who.parse::<ObjectName>()
            .ok()
            .and_then(|id| self.cluster.workloads().find(|workload| workload.id() == id).cloned())
            .ok_or_else(|| self.unknown(who))
    }

    fn unknown(&self, who: &str) -> Error {
        let workloads = self.cluster.workloads().map(|workload| workload.id().to_string());
        let hosts = self.outside.keys().map(|name| format!("external/{name}"));
        Error::Unknown {
            who: who.to_owned(),
            known: workloads.chain(hosts).collect(),
        }
    }

    pub(super) fn check_known(&self, who: &str) -> Result<(), Error> {
        let outside = who
            .strip_prefix("external/")
            .is_some_and(|name| self.outside.contains_key(name));
        // A workload that was deleted still has a ledger.
        if outside || ledgers::folder(&self.place, who).is_dir() || self.workload(who).is_ok() {
            return Ok(());
        }
        Err(self.unknown(who))
    }

    pub(super) fn say(&mut self, who: &str) -> Result<(), Error> {
        if let Some(host) = who.strip_prefix("external/").and_then(|name| self.outside.get(name)) {
            return host.process.tell();
        }
        let id = self.workload(who)?.id();
        let told: Vec<String> = self
            .cluster
            .pods_of(&id)
            .filter(|pod| pod.phase == Phase::Running)
            .map(|pod| pod.uid.clone())
            .collect();
        told.iter()
            .try_for_each(|uid| self.pods.get(uid).map_or(Ok(()), |running| running.process.tell()))
    }

    pub(super) fn roll(&mut self, who: &str, addressing: Addressing) -> Result<Vec<Watched>, Error> {
        let workload = self.workload(who)?;
        let id = workload.id();
        match workload.kind {
            Kind::CronJob => return self.run_job(&workload),
            Kind::Job => return Err(Error::NotRollable(id)),
            Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Pod => {}
        }
        let old: Vec<String> = self.cluster.pods_of(&id).map(|pod| pod.uid.clone()).collect();
        let surges = workload.kind == Kind::Deployment && addressing == Addressing::Fresh && !workload.host_network;
        if surges {
            self.replace_pods(&workload, addressing, &[])?;
            self.retire(&old)?;
        } else {
            self.replace_pods(&workload, addressing, &old)?;
        }
        self.cluster.forget_generations(&workload);
        self.publish()?;
        Ok(Vec::new())
    }

    /// Starts a workload's new pods, after the old ones have gone: those would be in the way.
    fn replace_pods(&mut self, workload: &Workload, addressing: Addressing, old: &[String]) -> Result<(), Error> {
        self.retire(old)?;
        let pods = self.new_pods(workload, addressing)?;
        let containers = pods.iter().map(|pod| self.container(workload, pod)).collect();
        let keys = self.start(containers)?;
        self.admit(&keys);
        self.publish()?;
        self.begin(&keys)
    }

    /// Takes pods out of their Services first, then ends them.
    fn retire(&mut self, uids: &[String]) -> Result<(), Error> {
        if uids.is_empty() {
            return Ok(());
        }
        for uid in uids {
            self.cluster.remove_pod(uid);
        }
        self.publish()?;
        uids.iter().try_for_each(|uid| self.stop(uid))
    }

    pub(super) fn delete(&mut self, who: &str) -> Result<(), Error> {
        let id = self.workload(who)?.id();
        let pods: Vec<String> = self.cluster.pods_of(&id).map(|pod| pod.uid.clone()).collect();
        self.cluster.remove_workload(&id);
        for uid in &pods {
            self.cluster.remove_pod(uid);
        }
        self.publish()?;
        pods.iter().try_for_each(|uid| self.stop(uid))
    }

    /// Runs each `CronJob` whose last run has ended.
    pub(super) fn run_cron_jobs(&mut self) -> Result<Vec<Watched>, Error> {
        let due: Vec<Workload> = self
            .cluster
            .workloads()
            .filter(|workload| workload.kind == Kind::CronJob)
            .filter(|workload| {
                self.cluster
                    .pods_of(&workload.id())
                    .all(|pod| pod.phase != Phase::Running)
            })
            .cloned()
            .collect();
        let mut watched = Vec::new();
        for workload in due {
            watched.extend(self.run_job(&workload)?);
        }
        Ok(watched)
    }

    fn run_job(&mut self, workload: &Workload) -> Result<Vec<Watched>, Error> {
        let pods = self.new_pods(workload, Addressing::Fresh)?;
        let containers = pods.iter().map(|pod| self.container(workload, pod)).collect();
        let keys = self.start(containers)?;
        self.admit(&keys);
        self.publish()?;
        self.begin(&keys)?;
        Ok(self.watched(&keys))
    }

    /// A pod has ended by itself.
    pub(super) fn finish(&mut self, uid: &str, succeeded: bool) -> Result<(), Error> {
        self.stop(uid)?;
        let Some(pod) = self.cluster.pods.iter_mut().find(|pod| pod.uid == uid) else {
            return Ok(());
        };
        pod.phase = if succeeded { Phase::Succeeded } else { Phase::Failed };
        let pod = pod.clone();
        self.cluster.release(&pod);
        self.cluster.trim_history(&pod.workload);
        ledgers::trim(&ledgers::folder(&self.place, &pod.workload.to_string()))?;
        self.publish()
    }

    pub(super) fn containers(&self) -> usize {
        self.pods.len()
    }

    /// Waits for every process; they were killed before.
    pub(super) fn reap(self) {
        for (_, running) in self.pods.into_iter().chain(self.outside) {
            running.process.reap();
        }
    }
}

/// Puts times into quotes, as kubectl prints them: YAML readers that know a type for times would not read texts otherwise.
fn quote_times(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for line in text.lines() {
        match line.split_once(": ") {
            Some((key, value)) if value.parse::<Timestamp>().is_ok() => {
                quoted.extend([key, ": \"", value, "\"\n"]);
            }
            _ => quoted.extend([line, "\n"]),
        }
    }
    quoted
}

/// Replaces a file at once, so that a reader sees the old text or the new one.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    fs::write(&new, text).map_err(Error::file("written", &new))?;
    fs::rename(&new, path).map_err(Error::file("replaced", path))
}
