//! The programs that are scraped, and the one that scrapes.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use jiff::Timestamp;
use nanoseg_tests::{program, until};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PATIENCE, promtool};

const CLUSTER: &str = "
apiVersion: v1
kind: Node
metadata: {name: node1}
spec: {podCIDRs: [198.18.1.0/24]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, uid: uid-web, labels: {app: web}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: w, controller: true}]}
spec: {nodeName: node1, containers: [{name: c, image: none}]}
status: {phase: Running, podIP: 198.18.1.10, startTime: '2026-01-01T00:00:00Z'}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: shop, uid: uid-db, labels: {app: db}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, uid: d, controller: true}]}
spec: {nodeName: node1, containers: [{name: c, image: none}]}
status: {phase: Running, podIP: 198.18.1.11, startTime: '2026-01-01T00:00:00Z'}
---
apiVersion: v1
kind: Pod
metadata: {name: intruder, namespace: shop, uid: uid-intruder, labels: {app: intruder}}
spec: {nodeName: node1, containers: [{name: c, image: none}]}
status: {phase: Running, podIP: 198.18.1.66, startTime: '2026-01-01T00:00:00Z'}
";

const POLICY: &str = "out/applied/shop/nanoseg-statefulset-db.yaml";

struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// Where it answers probes, by its log.
    fn address(&self) -> String {
        until("the program to answer probes", PATIENCE, || {
            let log = fs::read_to_string(&self.log).unwrap();
            let line = log
                .lines()
                .find(|line| line.contains("answering /healthz"))
                .ok_or_else(|| log.clone())?;
            let address = line.split("address=").nth(1).ok_or(log.clone())?;
            Ok::<_, String>(address.split(' ').next().unwrap_or_default().to_owned())
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        if std::thread::panicking() {
            println!(
                "--- {}\n{}",
                self.log.display(),
                fs::read_to_string(&self.log).unwrap_or_default()
            );
        }
    }
}

/// What is answered there, header and all.
pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A controller on folders, that enforces.
pub(crate) struct Controller {
    pub(crate) address: String,
    _running: Running,
    folder: TempDir,
}

impl Controller {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["cluster", "flows", "out"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("cluster/shop.yaml"), CLUSTER).unwrap();
        let mut command = Command::new(program("nanoseg"));
        command.current_dir(folder.path()).args([
            "controller",
            "--cluster=cluster",
            "--flows=flows",
            "--out=out",
            "--enforce=shop=2s",
            "--health-listen=127.0.0.1:0",
        ]);
        let running = Running::start(&mut command, folder.path().join("log"));
        let controller = Self {
            address: running.address(),
            folder,
            _running: running,
        };
        controller.report(&["198.18.1.10"]);
        until("the policy to be applied", PATIENCE, || controller.applied());
        controller
    }

    fn applied(&self) -> Result<(), &'static str> {
        let there = self.folder.path().join(POLICY).exists();
        there.then_some(()).ok_or("it is not there")
    }

    fn report(&self, peers: &[&str]) {
        let now = Timestamp::now();
        let flows = peers.iter().map(|peer| {
            json!({
                "subject": { "container": { "pod_uid": "uid-db", "container_id": "c" } }, "peer": peer, "port": 5432,
                "transport": "TCP", "reporter": "destination", "first_seen": now, "last_seen": now,
                "attempted": 2, "established": 2, "refused": 0,
            })
        });
        let flows: Vec<Value> = flows.collect();
        let losses = json!([{ "subject": null, "reason": "map_full", "count": 3 }]);
        let report = json!({ "origin": { "node": "node1", "epoch": 1 }, "flows": flows, "losses": losses });
        let at = |name: &str| self.folder.path().join("flows").join(name);
        fs::write(at(".new"), report.to_string()).unwrap();
        fs::rename(at(".new"), at("node1.json")).unwrap();
    }

    /// Somebody connects who never did.
    pub(crate) fn intrude(&self) {
        self.report(&["198.18.1.10", "198.18.1.66"]);
    }

    /// Somebody deletes a live policy.
    pub(crate) fn spoil(&self) {
        fs::remove_file(self.folder.path().join(POLICY)).unwrap();
        until("the policy to be back", PATIENCE, || self.applied());
    }
}

/// A learner that watches a cgroup of its own.
pub(crate) struct Learner {
    pub(crate) address: String,
    running: Running,
    cgroup: PathBuf,
    _folder: TempDir,
}

impl Learner {
    pub(crate) fn start() -> Self {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let tree = mounts
            .lines()
            .find(|line| line.split(' ').nth(2) == Some("cgroup2"))
            .unwrap();
        let cgroup =
            Path::new(tree.split(' ').nth(1).unwrap()).join(format!("nanoseg-monitoring-{}", std::process::id()));
        fs::create_dir_all(&cgroup).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(program("nanoseg-learner"));
        command
            .args([
                "--print",
                "--node=node1",
                "--health-listen=127.0.0.1:0",
                "--cgroup-root",
            ])
            .arg(&cgroup);
        let running = Running::start(&mut command, folder.path().join("log"));
        let address = running.address();
        until("the learner to be ready", PATIENCE, || {
            let said = get(&address, "/readyz");
            if said.contains(" 200 ") { Ok(()) } else { Err(said) }
        });
        Self {
            address,
            running,
            cgroup,
            _folder: folder,
        }
    }

    /// What it holds in memory, in KiB.
    pub(crate) fn resident(&self) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.running.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").to_owned()
    }
}

impl Drop for Learner {
    fn drop(&mut self) {
        let _gone = self.running.child.kill();
        let _gone = self.running.child.wait();
        let _gone = fs::remove_dir(&self.cgroup);
    }
}

/// A Prometheus that scrapes each second.
pub(crate) struct Prometheus {
    url: String,
    address: String,
    _running: Running,
    _folder: TempDir,
}

impl Prometheus {
    pub(crate) fn start(targets: &[&String], alerts: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [alerts],
            "scrape_configs": [{ "job_name": "nanoseg", "static_configs": [{ "targets": targets }] }],
        });
        let at = |name: &str| folder.path().join(name).display().to_string();
        // JSON is YAML.
        fs::write(at("prometheus.yaml"), config.to_string()).unwrap();
        promtool(&["check", "config", &at("prometheus.yaml")]);
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", at("prometheus.yaml")))
            .arg(format!("--storage.tsdb.path={}", at("data")))
            .arg(format!("--web.listen-address={address}"));
        let running = Running::start(&mut command, folder.path().join("log"));
        let url = format!("http://{address}");
        until("Prometheus to be ready", PATIENCE, || {
            TcpStream::connect(&address).map(drop)?;
            let said = get(&address, "/-/ready");
            if said.contains(" 200 ") {
                Ok(())
            } else {
                Err(std::io::Error::other(said))
            }
        });
        Self {
            url,
            address,
            _running: running,
            _folder: folder,
        }
    }

    /// What an expression finds now.
    pub(crate) fn query(&self, expression: &str) -> Vec<Value> {
        serde_json::from_str(&promtool(&["query", "instant", "--format=json", &self.url, expression])).unwrap()
    }

    /// What it thinks of its rules.
    pub(crate) fn rules(&self) -> Vec<Value> {
        let answer = get(&self.address, "/api/v1/rules");
        let body = &answer[answer.find('{').unwrap()..=answer.rfind('}').unwrap()];
        let answer: Value = serde_json::from_str(body).unwrap();
        answer["data"]["groups"][0]["rules"].as_array().unwrap().clone()
    }
}
