//! The full lab: a Kubernetes cluster of two nodes on this machine, from the real programs.
//!
//! ```text
//!  control: etcd, API server, controller manager, scheduler
//!  node1, node2: containerd + runc, kubelet, kube-proxy, kube-router (NetworkPolicy engine), pods
//!  outside: hosts that are not in the cluster, and their name server
//! ```
//!
//! Each part is a network namespace and a cgroup folder of its own; see [`topology`] for the networks. Nothing of the lab is
//! reachable from the machine's own network, the API server included: whatever talks to it runs in the control plane's
//! namespace ([`Cluster::command`], [`Cluster::kubectl`]; by hand `nsenter --net=/run/netns/lab-ID-control`).
//!
//! Guarantees: two labs do not meet; everything that a lab makes is found by the lab's id, so [`Cluster::down`], a failed or
//! interrupted [`Cluster::up`], and the sweep at the start of the next one leave no process, namespace, mount, cgroup or file.

mod application;
mod binaries;
mod cgroup;
mod control_plane;
mod dns;
mod error;
mod image;
mod installation;
mod namespace;
mod node;
mod process;
mod requirements;
mod site;
mod topology;
mod wait;

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use binaries::Binaries;
pub use error::Error;
pub use image::Image;
pub use installation::with_image;
pub use namespace::Namespace;
pub use node::Node;
pub use process::Process;

use cgroup::Trees;
use site::{Record, Site};
use wait::Watch;

/// How long a step of the way up may take. Each takes seconds on an idle machine of two cores; compilers beside it have made
/// that ten times as much.
const STEP: Duration = Duration::from_mins(3);

/// How a lab is brought up.
pub struct Options {
    /// The program that every container of an application is: `lab-peer`.
    pub peer: PathBuf,
    /// Leaves the lab running when this process ends; `lab down` ends it.
    pub keep: bool,
    /// Further flags of the API server, such as those of an audit log.
    pub api_server_flags: Vec<String>,
    /// Told what is being done.
    pub say: Box<dyn Fn(&str) + Send + Sync>,
    /// Set by whoever wants the way up to end early (Ctrl-C).
    pub stop: Arc<AtomicBool>,
}

impl Options {
    /// A silent lab that ends with this process.
    pub fn new(peer: PathBuf) -> Self {
        Self {
            peer,
            keep: false,
            api_server_flags: Vec::new(),
            say: Box::new(|_| {}),
            stop: Arc::default(),
        }
    }
}

/// A running full lab.
///
/// Dropping it ends it, unless it was asked to stay or was found by [`Cluster::find`].
pub struct Cluster {
    record: Record,
    /// Children of this process, which only it can wait for.
    children: Vec<Child>,
    /// Whether dropping this ends the lab.
    ends: bool,
    peer: PathBuf,
    say: Box<dyn Fn(&str) + Send + Sync>,
    stop: Arc<AtomicBool>,
}

impl Cluster {
    /// Brings a lab up. On failure everything that was made is gone again.
    ///
    /// Labs whose starter died without ending them are removed first.
    pub fn up(options: Options) -> Result<Self, Error> {
        let Options {
            peer,
            keep,
            api_server_flags,
            say,
            stop,
        } = options;
        requirements::check()?;
        sweep()?;
        let binaries = Binaries::ensure(&*say)?;
        let site = Site::take()?;
        let record = Record {
            owner: Some(Process::own()),
            nodes: Vec::new(),
            processes: Vec::new(),
            kubectl: binaries.kubernetes("kubectl"),
            complete: false,
            site,
        };
        let mut cluster = Self {
            record,
            children: Vec::new(),
            ends: true,
            peer,
            say,
            stop,
        };
        cluster.record.save()?;
        cluster.bring_up(&binaries, &api_server_flags)?;
        cluster.record.complete = true;
        if keep {
            cluster.record.owner = None;
            cluster.ends = false;
        }
        cluster.record.save()?;
        Ok(cluster)
    }

    /// A lab that another command left running; the youngest if there are several.
    pub fn find(peer: PathBuf) -> Result<Self, Error> {
        let mut found = None;
        for site in Site::all()? {
            if let Some(record) = site.record()?
                && record.complete
                && record.processes.iter().any(Process::is_alive)
            {
                let age = record.processes.first().map(|process| process.started);
                if found.as_ref().is_none_or(|(known, _)| *known < age) {
                    found = Some((age, record));
                }
            }
        }
        let (_, record) = found.ok_or(Error::NotRunning)?;
        Ok(Self {
            record,
            children: Vec::new(),
            ends: false,
            peer,
            say: Box::new(|_| {}),
            stop: Arc::default(),
        })
    }

    /// Ends the lab and removes everything that it made.
    pub fn down(mut self) -> Result<(), Error> {
        self.ends = false;
        self.end()
    }

    /// Ends every full lab of this machine that is nobody's or was left to stay. None is fine.
    pub fn down_all() -> Result<(), Error> {
        for site in Site::all()? {
            // A record that cannot be read belongs to a lab that nobody can use.
            let owner = site.record().ok().flatten().and_then(|record| record.owner);
            if !owner.is_some_and(|owner| owner.is_alive()) {
                site.remove()?;
            }
        }
        Ok(())
    }

    /// Whether the command that started it left it running.
    pub fn was_left_running(&self) -> bool {
        self.record.owner.is_none()
    }

    /// The lab's id, which is in the name of everything that it made.
    pub fn id(&self) -> &str {
        self.record.site.id()
    }

    /// The lab's folder: configuration, `logs`, what the nodes keep.
    pub fn folder(&self) -> PathBuf {
        self.record.site.folder()
    }

    /// The administrator's kubeconfig. It works in the control plane's namespace, on the nodes and outside.
    pub fn kubeconfig(&self) -> PathBuf {
        control_plane::kubeconfig(&self.record.site, "admin")
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self) -> Command {
        let mut command = self.command(&self.record.kubectl);
        command.arg(format!("--kubeconfig={}", self.kubeconfig().display()));
        command
    }

    /// A command where the API server is reachable.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.record.site.namespace("control").command(program)
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.record.nodes
    }

    /// The namespace of hosts that are not in the cluster.
    pub fn outside(&self) -> Namespace {
        self.record.site.namespace("outside")
    }

    /// The programs of the lab, in the order in which they were started.
    pub fn processes(&self) -> &[Process] {
        &self.record.processes
    }

    /// Loads an image on both nodes. Pods use it with `imagePullPolicy: Never`.
    pub fn load_image(&self, image: &Image<'_>) -> Result<(), Error> {
        node::load(&self.record.site, &self.record.nodes, image)
    }

    /// Applies objects, as JSON or YAML documents.
    pub fn apply_objects(&self, objects: &str) -> Result<(), Error> {
        process::feed(self.kubectl().args(["apply", "--server-side", "--filename=-"]), objects)
    }

    /// What kubectl answers, which is JSON.
    pub fn get(&self, arguments: &[&str]) -> Result<serde_json::Value, Error> {
        let answer = process::output(self.kubectl().args(arguments).arg("--output=json"))?;
        serde_json::from_slice(&answer).map_err(|source| Error::Answer {
            expected: "JSON",
            source,
        })
    }

    fn bring_up(&mut self, binaries: &Binaries, api_server_flags: &[String]) -> Result<(), Error> {
        let site = self.record.site.clone();
        let trees = Trees::find()?;
        (self.say)(&format!("lab {}: networks, keys", site.id()));
        topology::create(&site)?;
        for (name, number) in topology::NODES.into_iter().zip(1..) {
            let cgroup = trees.create(&site.name(name))?;
            self.record.nodes.push(Node::new(&site, number, name, cgroup));
        }
        control_plane::prepare(&site)?;
        let nodes = self.record.nodes.clone();

        (self.say)("starting etcd, the API server and containerd");
        self.start("control", "etcd", &control_plane::etcd(&site)?)?;
        self.start(
            "control",
            "kube-apiserver",
            &control_plane::api_server(&site, binaries, api_server_flags),
        )?;
        let mut runtimes = Vec::new();
        for node in &nodes {
            runtimes.push(self.start(&node.name, "containerd", &node.containerd(&site)?)?);
        }
        self.start_names()?;
        for node in &nodes {
            self.watch().until(
                &format!("containerd on {}", node.name),
                STEP,
                &format!("{}/containerd", node.name),
                || Ok(process::succeed(node.ctr().arg("version")).map_err(|error| error.to_string())),
            )?;
        }
        // The API server takes its seconds anyway.
        (self.say)("loading images");
        for (name, program) in [(node::PAUSE_IMAGE, &binaries.pause), (dns::IMAGE, &binaries.coredns)] {
            self.load_image(&Image {
                name,
                files: &[(program, "/program")],
                entrypoint: &["/program"],
            })?;
        }
        self.watch()
            .until("the API server", STEP, "control/kube-apiserver", || {
                Ok(process::succeed(self.kubectl().args(["get", "--raw=/readyz"])).map_err(|error| error.to_string()))
            })?;

        (self.say)("starting the controller manager, the scheduler, the kubelets and the node proxies");
        self.apply_objects(&control_plane::objects().join("\n---\n"))?;
        self.start(
            "control",
            "kube-controller-manager",
            &control_plane::controller_manager(&site, binaries),
        )?;
        self.start("control", "kube-scheduler", &control_plane::scheduler(&site, binaries))?;
        for (node, containerd) in nodes.iter().zip(&runtimes) {
            self.start(&node.name, "kubelet", &node.kubelet(&site, binaries, containerd)?)?;
            self.start(&node.name, "kube-proxy", &node.kube_proxy(&site, binaries, containerd)?)?;
        }
        self.apply_objects(&dns::objects())?;
        self.watch()
            .until("both nodes to be Ready", STEP, "node1/kubelet", || self.nodes_ready())?;

        (self.say)("starting the NetworkPolicy engine, waiting for cluster DNS");
        for (node, containerd) in nodes.iter().zip(&runtimes) {
            self.start(
                &node.name,
                "kube-router",
                &node.kube_router(&site, binaries, containerd)?,
            )?;
        }
        for node in &nodes {
            let teller = format!("{}/kube-router", node.name);
            self.watch()
                .until(&format!("policies on {}", node.name), STEP, &teller, || node.enforces())?;
        }
        self.wait_for_pods(2)
    }

    /// Starts a program of the lab, and notes it.
    fn start(&mut self, part: &str, program: &str, command: &Command) -> Result<Process, Error> {
        let name = format!("{part}/{program}");
        let site = &self.record.site;
        // `system` is where a node's own programs are, as on a machine with systemd; the pods are in `kubepods` beside it.
        let cgroup = Trees::find()?
            .unified
            .join(site.name(part))
            .join("system")
            .join(program);
        let log = site.write(format!("logs/{part}-{program}.log"), "")?;
        let (process, child) = Process::start(&name, &cgroup, log, command)?;
        self.children.push(child);
        self.record.processes.push(process.clone());
        self.record.save()?;
        Ok(process)
    }

    fn watch(&self) -> Watch<'_> {
        Watch {
            processes: &self.record.processes,
            stop: &self.stop,
        }
    }

    fn nodes_ready(&self) -> Result<Result<(), String>, Error> {
        let nodes = self.get(&["get", "nodes"])?;
        let waiting: Vec<&str> = items(&nodes)
            .filter(|node| !has_condition(node, "Ready"))
            .filter_map(|node| node["metadata"]["name"].as_str())
            .collect();
        Ok(if waiting.is_empty() {
            Ok(())
        } else {
            Err(format!("not Ready: {}", waiting.join(", ")))
        })
    }

    /// Waits until there are at least `least` pods and every one of them is Ready or has ended well.
    pub fn wait_for_pods(&self, least: usize) -> Result<(), Error> {
        self.watch().until("all pods to be Ready", STEP, "node1/kubelet", || {
            let pods = self.get(&["get", "pods", "--all-namespaces"])?;
            let waiting: Vec<String> = items(&pods)
                .filter(|pod| pod["status"]["phase"] != "Succeeded" && !has_condition(pod, "Ready"))
                .map(application::state_of)
                .collect();
            let count = items(&pods).count();
            Ok(match (waiting.is_empty(), count >= least) {
                (true, true) => Ok(()),
                (true, false) => Err(format!("{count} of {least} pods are there")),
                (false, _) => Err(waiting.join("; ")),
            })
        })
    }

    fn end(&mut self) -> Result<(), Error> {
        let removed = self.record.site.remove();
        for child in &mut self.children {
            // It is dead; this takes its entry out of the process table.
            drop(child.wait());
        }
        removed
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.ends
            && let Err(error) = self.end()
        {
            (self.say)(&format!(
                "the lab {} could not be removed: {error}; lab down tries again",
                self.id()
            ));
        }
    }
}

/// Removes labs whose starter died without ending them.
fn sweep() -> Result<(), Error> {
    for site in Site::all()? {
        // A lab without a readable record is being made this very moment, or its starter died then: its id is the starter's
        // process id, and only `lab down` may take it for dead.
        if let Ok(Some(Record { owner: Some(owner), .. })) = site.record()
            && !owner.is_alive()
        {
            site.remove()?;
        }
    }
    Ok(())
}

fn items(list: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    list["items"].as_array().into_iter().flatten()
}

fn has_condition(object: &serde_json::Value, kind: &str) -> bool {
    object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == kind && condition["status"] == "True")
}
