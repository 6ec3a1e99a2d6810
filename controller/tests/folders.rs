//! `nanoseg controller` without a cluster: manifests and reports in, policies out, all of them kept in sync.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

const SHOP: &str = "
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
kind: [not YAML
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: theirs, namespace: shop}
spec: {podSelector: {matchLabels: {app: other}}, policyTypes: [Ingress]}
";

const DB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: shop, uid: uid-db, labels: {app: db}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, uid: d, controller: true}]}
spec: {nodeName: node1, containers: [{name: c, image: none}]}
status: {phase: Running, podIP: 198.18.1.11, startTime: '2026-01-01T00:00:00Z'}
";

const LATER: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-canary, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: none}]}}}
";

fn until(what: &str, check: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !check() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

struct Folders {
    root: TempDir,
    controller: Child,
}

impl Drop for Folders {
    fn drop(&mut self) {
        let _gone = self.controller.kill();
        let _gone = self.controller.wait();
        if std::thread::panicking() {
            println!("{}", self.logged());
        }
    }
}

fn start(root: &Path) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(root.join("log"))
        .unwrap();
    Command::new(env!("CARGO_BIN_EXE_nanoseg"))
        .current_dir(root)
        .args([
            "controller",
            "--cluster",
            "cluster",
            "--flows",
            "flows",
            "--out",
            "out",
            "--enforce",
            "shop=2s",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Folders {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["cluster", "flows", "out/applied/shop"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("cluster/shop.yaml"), SHOP).unwrap();
        fs::write(root.path().join("cluster/db.yaml"), DB).unwrap();
        let controller = start(root.path());
        Self { root, controller }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    fn logged(&self) -> String {
        self.read("log")
    }

    fn report(&self, node: &str, peers: &[&str]) {
        let now = Timestamp::now();
        let flow = |peer: &&str| {
            json!({
                "subject": { "container": { "pod_uid": "uid-db", "container_id": "c" } }, "peer": peer, "port": 5432,
                "transport": "TCP", "reporter": "destination", "first_seen": now, "last_seen": now,
                "attempted": 2, "established": 2, "refused": 0,
            })
        };
        let flows: Vec<_> = peers.iter().map(flow).collect();
        let report = json!({ "origin": { "node": node, "epoch": 1 }, "flows": flows });
        fs::write(self.at("flows/.new"), report.to_string()).unwrap();
        fs::rename(self.at("flows/.new"), self.at(&format!("flows/{node}.json"))).unwrap();
    }
}

const POLICY: &str = "out/applied/shop/nanoseg-statefulset-db.yaml";
const SEGMENT: &str = "out/segments/shop/statefulset-db.yaml";

#[test]
fn policies_in_a_folder_are_kept_in_sync() {
    let mut folders = Folders::new();
    folders.report("node1", &["198.18.1.10"]);
    let proposed = || folders.at("out/proposed/shop/nanoseg-statefulset-db.yaml").exists();
    until("a proposal", proposed);
    assert!(
        !folders.at(POLICY).exists(),
        "nothing is enforced before the window is over"
    );
    until("the policy", || folders.at(POLICY).exists());
    until("the Segment says so", || {
        folders.read(SEGMENT).contains("phase: Enforcing")
    });
    let policy = folders.read(POLICY);
    assert!(
        policy.starts_with("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n"),
        "{policy}"
    );
    assert!(
        folders.logged().contains("shop.yaml: document 3 (line 13): left out"),
        "{}",
        folders.logged()
    );

    // Drift is repaired, however the file was changed; others' files are left alone.
    fs::write(folders.at("out/applied/shop/theirs.yaml"), "not even YAML: [").unwrap();
    let mut quickest = Duration::MAX;
    for broken in [
        "",
        "nonsense",
        &policy.replace("app: web", "app: other"),
        &policy.replace("managed-by: nanoseg", "x: y"),
    ] {
        fs::write(folders.at(POLICY), broken).unwrap();
        quickest = quickest.min(until("the edited policy is as it was", || {
            folders.read(POLICY) == policy
        }));
    }
    fs::remove_file(folders.at(POLICY)).unwrap();
    quickest = quickest.min(until("the deleted policy is back", || folders.read(POLICY) == policy));
    // A busy machine pauses now and then, but not each time.
    assert!(quickest < Duration::from_secs(1), "repaired after {quickest:?}");

    // Five times is a fight, and is told.
    until("the fight is told", || {
        folders.read(SEGMENT).contains("type: Contested")
    });
    let segment = folders.read(SEGMENT);
    fs::write(folders.at(SEGMENT), "status: [").unwrap();
    until("the broken Segment is as it was", || folders.read(SEGMENT) == segment);

    // A manifest that is half written, empty or broken takes nothing away.
    for broken in ["", "kind: Pod\napiVersion: v1\nmetadata: {na"] {
        fs::write(folders.at("cluster/db.yaml"), broken).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(folders.read(POLICY), policy);
    }
    fs::write(folders.at("cluster/db.yaml"), DB).unwrap();

    // Novel edges are violations, told once, and not learned.
    folders.report("node1", &["198.18.1.10", "203.0.113.9"]);
    until("the violation", || {
        folders.read("out/violations.jsonl").lines().count() == 1
    });
    let violations = folders.read("out/violations.jsonl");
    let violation: serde_json::Value = serde_json::from_str(violations.trim()).unwrap();
    assert_eq!(violation["source"], "external 203.0.113.9");
    assert!(
        violation["verdict"]
            .as_str()
            .unwrap()
            .contains("nanoseg-statefulset-db"),
        "{violation}"
    );
    until("the Segment counts it", || folders.read(SEGMENT).contains("novel: 1"));
    assert_eq!(folders.read(POLICY), policy);

    // Killed: nothing changes. Started again with no report left: the Segment alone keeps the policy.
    folders.controller.kill().unwrap();
    folders.controller.wait().unwrap();
    fs::remove_file(folders.at("flows/node1.json")).unwrap();
    fs::remove_file(folders.at(POLICY)).unwrap();
    fs::write(folders.at("log"), "").unwrap();
    folders.controller = start(folders.root.path());
    until("the policy is back from its Segment", || folders.read(POLICY) == policy);

    // A workload that is gone takes its policy with it.
    fs::remove_file(folders.at("cluster/db.yaml")).unwrap();
    until("the policy is gone", || !folders.at(POLICY).exists());
    until("the Segment says so", || folders.read(SEGMENT).contains("phase: Gone"));
    assert_eq!(folders.read("out/applied/shop/theirs.yaml"), "not even YAML: [");

    let pid = rustix::process::Pid::from_child(&folders.controller);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(folders.controller.wait().unwrap().code(), Some(0));
}

#[test]
fn p22_p23_the_controller_and_the_commands_write_the_same_bytes_for_everybody() {
    let folders = Folders::new();
    folders.report("node1", &["198.18.1.10", "203.0.113.9"]);
    let proposed = || {
        let of = |name| folders.read(&format!("out/proposed/shop/nanoseg-statefulset-{name}.yaml"));
        ["db", "web"].map(of)
    };
    until("both proposals", || proposed().iter().all(|policy| !policy.is_empty()));
    let synthesize = |surroundings: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_nanoseg"))
            .current_dir(folders.root.path())
            .args(["synthesize", "--cluster", "cluster", "--flows", "flows"])
            .env_clear()
            .envs(surroundings.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        synthesize(&[]),
        proposed().map(|policy| format!("---\n{policy}")).concat()
    );
    let somebody = [
        ("USER", "nobody"),
        ("HOME", "/nowhere"),
        ("KUBECONFIG", "/nowhere/config"),
        ("TZ", "Asia/Tokyo"),
        ("LANG", "tr_TR.UTF-8"),
    ];
    assert_eq!(synthesize(&somebody), synthesize(&[]));
    // Nobody has applied it yet; once somebody does, its pods are selected as well.
    fs::write(folders.at("cluster/later.yaml"), LATER).unwrap();
    until("the proposal that no longer is one", || proposed()[1].is_empty());
    let alone = synthesize(&[]);
    assert!(!alone.contains("nanoseg-statefulset-web"), "{alone}");
    assert_eq!(alone, format!("---\n{}", proposed()[0]));
}

#[test]
fn a_folder_that_is_not_there_is_one_sentence_and_exit_code_2() {
    let output = Command::new(env!("CARGO_BIN_EXE_nanoseg"))
        .args(["audit", "--cluster", "/nowhere", "--flows", "/nowhere"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said,
        "nanoseg: cannot read /nowhere: No such file or directory (os error 2)\n"
    );
}
