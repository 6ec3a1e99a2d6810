//! A described application on a running full lab.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::cgroup::processes;
use super::error::{Error, on};
use super::topology::NAME_SERVER;
use super::{Cluster, Image, items};
use crate::app::{App, Kind, ObjectName};
use crate::manifest::{self, IMAGE};
use crate::peer::{CONFIG_VARIABLE, PeerConfig, ResolverConfig};
use crate::wiring::Wiring;

/// The file from which the name server of `outside` reads.
const ZONE: &str = "outside/zone.json";

const DNS_PORT: u16 = 53;

/// Pods of cluster DNS.
const DNS_PODS: usize = 2;

impl Cluster {
    /// The application's wiring on this lab's nodes.
    fn wiring<'a>(&self, app: &'a App) -> Wiring<'a> {
        Wiring::new(app, self.nodes().iter().flat_map(|node| node.addresses).collect())
    }

    /// The objects of an application as they are applied, one JSON document each, namespaces first.
    pub fn objects(&self, app: &App) -> Result<Vec<Value>, Error> {
        manifest::objects(&self.wiring(app)).map_err(Error::Manifest)
    }

    /// Applies an application: hosts outside the cluster, the image, the objects; waits until every pod is Ready.
    pub fn apply(&mut self, app: &App) -> Result<(), Error> {
        (self.say)("loading the application's image, starting the hosts outside");
        self.load_image(&Image {
            name: IMAGE,
            files: &[(&self.peer, "/lab-peer")],
            entrypoint: &["/lab-peer"],
        })?;
        self.start_hosts(app)?;
        (self.say)("applying the application");
        let (namespaces, rest): (Vec<Value>, Vec<Value>) = self
            .objects(app)?
            .into_iter()
            .partition(|object| object["kind"] == "Namespace");
        self.apply_objects(&list(&namespaces))?;
        // A bare pod is refused until its namespace's ServiceAccount is there, which a controller makes.
        self.watch().until(
            "the namespaces' ServiceAccounts",
            super::STEP,
            "control/kube-controller-manager",
            || {
                let accounts = self.get(&["get", "serviceaccounts", "--all-namespaces"])?;
                let missing: Vec<&str> = app
                    .namespaces
                    .iter()
                    .map(|namespace| namespace.name.as_str())
                    .filter(|name| {
                        !items(&accounts).any(|account| {
                            account["metadata"]["namespace"] == *name && account["metadata"]["name"] == "default"
                        })
                    })
                    .collect();
                Ok(if missing.is_empty() {
                    Ok(())
                } else {
                    Err(format!("none in {}", missing.join(", ")))
                })
            },
        )?;
        self.apply_objects(&list(&rest))?;
        let nodes = u16::try_from(self.nodes().len()).unwrap_or(u16::MAX);
        let pods: u16 = app
            .workloads
            .iter()
            .filter(|workload| workload.kind != Kind::CronJob)
            .map(|workload| workload.pods_on(nodes))
            .sum();
        (self.say)(&format!("waiting for {pods} pods"));
        self.wait_for_pods(DNS_PODS + usize::from(pods))
    }

    /// Tells every pod of a workload to make the calls that it makes only when told. Returns how many were told.
    pub fn say_to(&self, workload: &ObjectName) -> Result<usize, Error> {
        let selected = self.get(&["get", "pods", "--namespace", workload.namespace.as_str()])?;
        let mut told = 0;
        for pod in items(&selected).filter(|pod| is_of(pod, workload)) {
            for pid in self.processes_of(pod) {
                kill_process(pid, Signal::USR1)
                    .map_err(|errno| on("signal", format!("/proc/{}", pid.as_raw_nonzero()))(errno.into()))?;
                told += 1;
            }
        }
        Ok(told)
    }

    /// The processes of a pod's containers, on whichever node it is.
    pub fn processes_of(&self, pod: &Value) -> Vec<Pid> {
        let node = self.nodes().iter().find(|node| pod["spec"]["nodeName"] == *node.name);
        let (Some(node), Some(uid)) = (node, pod["metadata"]["uid"].as_str()) else {
            return Vec::new();
        };
        let class = match pod["status"]["qosClass"].as_str() {
            Some("Guaranteed") | None => PathBuf::new(),
            Some(class) => PathBuf::from(class.to_lowercase()),
        };
        let folder = node.cgroup.join("kubepods").join(class).join(format!("pod{uid}"));
        let containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        containers
            .filter_map(|container| container["containerID"].as_str()?.rsplit('/').next())
            .flat_map(|id| processes(&folder.join(id)))
            .filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            .collect()
    }

    /// Starts the name server of `outside`, which knows no name yet.
    pub(super) fn start_names(&mut self) -> Result<(), Error> {
        self.write_zone(&BTreeMap::new())?;
        let mut config = idle("outside/names");
        config.zone = Some(self.record.site.file(ZONE));
        self.start_peer("names", &config)
    }

    fn write_zone(&self, addresses: &BTreeMap<String, Vec<IpAddr>>) -> Result<(), Error> {
        let zone = json!({ "addresses": addresses, "aliases": {} }).to_string();
        // Whole or not at all: the server may read it at any time.
        let new = self.record.site.write(format!("{ZONE}.new"), zone)?;
        let path = self.record.site.file(ZONE);
        fs::rename(new, &path).map_err(on("write", path))
    }

    /// Gives `outside` the addresses and names of the application's hosts, and starts them.
    fn start_hosts(&mut self, app: &App) -> Result<(), Error> {
        let outside = self.outside();
        let mut names: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for host in &app.external {
            if let Some(name) = &host.hostname {
                names
                    .entry(name.to_string().to_lowercase())
                    .or_default()
                    .extend(&host.addresses);
            }
            let lines: Vec<String> = host
                .addresses
                .iter()
                .map(|address| match address {
                    IpAddr::V4(address) => format!("addr replace {address}/32 dev lo"),
                    IpAddr::V6(address) => format!("addr replace {address}/128 dev lo"),
                })
                .collect();
            outside.ip(&lines)?;
        }
        self.write_zone(&names)?;
        for (host, config) in app
            .external
            .iter()
            .map(|host| (host, self.wiring(app).host(host)))
            .collect::<Vec<_>>()
        {
            self.start_peer(host.name.as_str(), &config)?;
        }
        Ok(())
    }

    /// Starts a peer in `outside`.
    fn start_peer(&mut self, name: &str, config: &PeerConfig) -> Result<(), Error> {
        let server = SocketAddr::new(NAME_SERVER.into(), DNS_PORT);
        let mut config = config.clone();
        config.resolver = Some(ResolverConfig {
            servers: vec![server],
            search: Vec::new(),
            ndots: 1,
        });
        let text = serde_json::to_string(&config).map_err(|source| Error::Answer {
            expected: "a peer's configuration",
            source,
        })?;
        let path = self.record.site.write(format!("outside/{name}.json"), text)?;
        let mut command = self.outside().command(&self.peer);
        command.env(CONFIG_VARIABLE, format!("@{}", path.display()));
        self.start("outside", name, &command).map(drop)
    }
}

/// A peer that does nothing.
fn idle(name: &str) -> PeerConfig {
    PeerConfig {
        name: name.to_owned(),
        listens: Vec::new(),
        calls: Vec::new(),
        ends_after: None,
        resolver: None,
        zone: None,
        ledger: None,
        supervised: false,
    }
}

fn list(items: &[Value]) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}

/// Whether a pod is the workload's: the container of an application's pod is named as its workload.
fn is_of(pod: &Value, workload: &ObjectName) -> bool {
    pod["spec"]["containers"][0]["name"] == *workload.name.as_str()
}

/// What a person needs to know of a pod that is not Ready.
pub(super) fn state_of(pod: &Value) -> String {
    let name = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
    let waiting = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|container| {
            container["state"]["waiting"]["message"]
                .as_str()
                .or(container["state"]["waiting"]["reason"].as_str())
        })
        .or_else(|| {
            let conditions = pod["status"]["conditions"].as_array()?;
            conditions.iter().find_map(|condition| condition["message"].as_str())
        })
        .or(pod["status"]["phase"].as_str())
        .unwrap_or("not seen by a node yet");
    format!("{}/{}: {waiting}", name("namespace"), name("name"))
}
