//! One connection is one edge, whoever makes it, whichever way it takes and whichever ends tell of it: real containers and the
//! programs of the node, the learner, and `nanoseg graph`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nanoseg_lab::app::App;
use nanoseg_lab::small::{Lab, Options};
use nanoseg_tests::{is_root, program, until};
use serde_json::Value;

const APPLICATION: &str = include_str!("edges/application.yaml");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// What there is, and nothing else. Where the node writes its own address over a pod's, as it does on the way to a port of its own,
/// who asked is not to be known at the other end.
const EDGES: [&str; 16] = [
    "apps/Deployment/asker -> apps/Deployment/store TCP 8080 apps/store",
    "apps/Deployment/asker -> apps/StatefulSet/alone TCP 5432",
    "apps/Deployment/asker -> kube-system/Deployment/coredns UDP 53 kube-system/kube-dns",
    "apps/Deployment/asker -> node node-1 TCP 9100 node/exporter",
    "apps/Deployment/asker -> node node-1 UDP 8125 node/exporter",
    "apps/Deployment/store -> apps/Deployment/store TCP 8080 apps/store",
    "apps/Deployment/store -> apps/Deployment/store UDP 9999",
    "apps/Deployment/store -> kube-system/Deployment/coredns UDP 53 kube-system/kube-dns",
    "external 198.18.200.5 -> node node-1 TCP 9100",
    "kube-system/Deployment/coredns -> service default/kubernetes TCP 6443",
    "node node-1 -> apps/Deployment/store TCP 8080 apps/store",
    "node node-1 -> apps/Deployment/store UDP 9999 apps/store",
    "node node-1 -> apps/StatefulSet/alone TCP 5432",
    "node node-1 -> external 198.18.200.5 TCP 443",
    "node node-1 -> kube-system/Deployment/coredns UDP 53 kube-system/kube-dns",
    "node node-1 -> service default/kubernetes TCP 6443",
];

/// Ends when it is dropped.
struct Learner(Child);

impl Learner {
    fn start(lab: &Lab, flows: &Path) -> Self {
        let place = lab.place();
        // A program of the node that is no container, as the learner of a host is.
        let cgroup = place.cgroup_outside.join("nanoseg-learner");
        fs::create_dir_all(&cgroup).unwrap();
        let mut command = Command::new(program("lab-peer"));
        command.arg("enter").arg("--cgroup").arg(&cgroup);
        command.arg("--netns").arg(&place.node_netns);
        command
            .args(["--dies-with-parent", "--"])
            .arg(program("nanoseg-learner"));
        command.arg("--cgroup-root").arg(&place.cgroup_root);
        command.args(["--node", &place.node, "--out"]).arg(flows);
        let log = File::create(flows.with_extension("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Learner {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// Each edge in a line of its own, with how often it was made.
fn edges(cluster: &Path, flows: &Path) -> Result<Vec<(String, u64)>, String> {
    let output = Command::new(program("nanoseg"))
        .args(["graph", "--output", "json", "--cluster"])
        .arg(cluster)
        .arg("--flows")
        .arg(flows)
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let edge = |line: &str| {
        let edge: Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| edge[field].as_str().unwrap().to_owned();
        let via: Vec<&str> = edge["via"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let (source, destination, protocol) = (text("source"), text("destination"), text("protocol"));
        let named = format!(
            "{source} -> {destination} {protocol} {} {}",
            edge["port"],
            via.join(",")
        );
        (named.trim_end().to_owned(), edge["count"].as_u64().unwrap())
    };
    Ok(String::from_utf8(output.stdout).unwrap().lines().map(edge).collect())
}

#[test]
fn one_connection_is_one_edge() {
    if !is_root("this test") {
        return;
    }
    let app = App::parse(APPLICATION, Path::new("application.yaml")).unwrap();
    let mut options = Options::new(format!("edges-{}", std::process::id()));
    options.peer = Some(program("lab-peer"));
    let lab = Lab::up(&app, &options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let flows = folder.path().join("flows");
    fs::create_dir(&flows).unwrap();
    let _learner = Learner::start(&lab, &flows);
    let wanted: BTreeSet<&str> = EDGES.into_iter().collect();
    let look = |least: u64| {
        let found = edges(lab.cluster_dir(), &flows)?;
        let names: BTreeSet<&str> = found.iter().map(|(edge, _)| edge.as_str()).collect();
        let missing: Vec<_> = wanted.difference(&names).collect();
        let other: Vec<_> = names.difference(&wanted).collect();
        if !missing.is_empty() || !other.is_empty() {
            return Err(format!("missing {missing:#?}, beside them {other:#?}"));
        }
        match found.iter().find(|(_, count)| *count < least) {
            Some((edge, count)) => Err(format!("{edge} was made {count} times")),
            None => Ok(()),
        }
    };
    until("every edge", PATIENCE, || look(1));
    // What is taken for a new one each time shows when all are made some more times, and the same edges stay.
    until("every edge again", PATIENCE, || look(5));
    lab.down().unwrap();
}
