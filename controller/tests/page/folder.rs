//! A controller on folders, with its page.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::PATIENCE;

pub(crate) fn until<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, check)
}

/// The same for what takes longer.
pub(crate) fn within<T>(patience: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(began.elapsed() < patience, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A pod of a workload of one, and its address. Whatever the workload is called, its label is one that an API server takes.
pub(crate) fn pod(namespace: &str, kind: &str, name: &str, address: &str) -> Value {
    let label: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{name}-0"), "namespace": namespace, "uid": format!("uid-{namespace}-{name}"), "labels": { "app": label },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": name, "controller": true }],
        },
        "spec": { "nodeName": "node1", "containers": [{ "name": "c", "image": "registry.example/app@sha256:1" }] },
        "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "startTime": "2026-01-01T00:00:00Z" },
    })
}

pub(crate) fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node1" }, "spec": { "podCIDRs": ["198.18.0.0/16"] },
        "status": { "addresses": [{ "type": "InternalIP", "address": "198.19.0.1" }] },
    })
}

/// What a listener's node saw: who connected to it.
pub(crate) fn accepted(namespace: &str, name: &str, peer: &str, port: u16, times: u64) -> Value {
    flow(namespace, name, peer, port, times, "destination")
}

/// What the node of who connects saw.
pub(crate) fn opened(namespace: &str, name: &str, peer: &str, port: u16, times: u64) -> Value {
    flow(namespace, name, peer, port, times, "source")
}

fn flow(namespace: &str, name: &str, peer: &str, port: u16, times: u64, reporter: &str) -> Value {
    let now = Timestamp::now();
    json!({
        "subject": { "container": { "pod_uid": format!("uid-{namespace}-{name}"), "container_id": "c" } },
        "peer": peer, "port": port, "transport": "TCP", "reporter": reporter, "first_seen": now, "last_seen": now,
        "attempted": times, "established": times, "refused": 0,
    })
}

pub(crate) struct Folder {
    pub(crate) root: TempDir,
    controller: Child,
    pub(crate) page: SocketAddr,
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = self.controller.kill();
        let _gone = self.controller.wait();
        if std::thread::panicking() {
            println!("{}", fs::read_to_string(self.root.path().join("log")).unwrap());
        }
    }
}

/// Starts a controller on the folders of `root`.
pub(crate) fn start(root: &Path, arguments: &[&str]) -> Child {
    let log = fs::File::create(root.join("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_nanoseg"))
        .current_dir(root)
        .args(["controller", "--cluster", "cluster", "--flows", "flows", "--out", "out"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The cluster's objects, in one step.
fn write(root: &Path, objects: &[Value]) {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    let cluster = root.join("cluster");
    fs::write(cluster.join(".new"), list.to_string()).unwrap();
    fs::rename(cluster.join(".new"), cluster.join("all.json")).unwrap();
}

impl Folder {
    /// A controller that has these objects to look at and no report yet, with its page for this machine alone.
    pub(crate) fn new(objects: &[Value], arguments: &[&str]) -> Self {
        let mut all = vec!["--page-listen", "127.0.0.1:0"];
        all.extend(arguments);
        Self::at(objects, &all)
    }

    /// The same, with its page where the arguments say.
    pub(crate) fn at(objects: &[Value], arguments: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["cluster", "flows", "out"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        write(root.path(), objects);
        let mut controller = start(root.path(), arguments);
        let page = until("the page", || {
            if let Some(status) = controller.try_wait().unwrap() {
                panic!("{status}: {}", fs::read_to_string(root.path().join("log")).unwrap());
            }
            let log = fs::read_to_string(root.path().join("log")).unwrap();
            let at = log.split_once("the page is at http://")?.1;
            at.split_once('/')?.0.parse::<SocketAddr>().ok()
        });
        let page = SocketAddr::from(([127, 0, 0, 1], page.port()));
        Self { root, controller, page }
    }

    /// Replaces the objects of the cluster.
    pub(crate) fn observe(&self, objects: &[Value]) {
        write(self.root.path(), objects);
    }

    /// The controller's process.
    pub(crate) fn process(&self) -> u32 {
        self.controller.id()
    }

    /// Replaces what the learner has reported so far.
    pub(crate) fn report(&self, flows: &[Value]) {
        self.report_of("node1", flows);
    }

    /// The same of the learner on a node.
    pub(crate) fn report_of(&self, node: &str, flows: &[Value]) {
        let report = json!({ "origin": { "node": node, "epoch": 1 }, "flows": flows });
        let flows = self.root.path().join("flows");
        fs::write(flows.join(".new"), report.to_string()).unwrap();
        fs::rename(flows.join(".new"), flows.join("node1.json")).unwrap();
    }
}
