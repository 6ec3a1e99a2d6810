//! The full lab keeps its promises: it runs an application over both address families, its engine enforces, it leaves nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nanoseg_lab::app::App;
use nanoseg_lab::full::{Cluster, Options};

/// Two namespaces; the intruder calls what the web calls, so one policy can part them.
const APP: &str = "
namespaces:
- {name: front}
- {name: back}
workloads:
- namespace: front
  name: web
  replicas: 2
  listens: [{port: 8080, name: http}]
  calls:
  - {to: service/api.back, port: 80, family: both}
  - {to: name/db.example.test, port: 5432, family: both}
  - {to: apiserver}
- namespace: front
  name: intruder
  calls:
  - {to: service/api.back, port: 80, family: both}
- namespace: back
  name: api
  kind: StatefulSet
  replicas: 2
  listens: [{port: 9090, name: http}]
services:
- {namespace: back, name: api, selects: {workload: api}, family: both, ports: [{port: 80, target: http}]}
external:
- {name: db, hostname: db.example.test, listens: [{port: 5432}]}
";

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: back}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: front}}
      podSelector: {matchLabels: {app: web}}
    ports: [{port: 9090}]
";

/// Calls that the pods of `workload` made lately: the target, whether by IPv6, and whether it was answered.
fn calls(cluster: &Cluster, workload: &str) -> Vec<(String, bool, bool)> {
    let output = cluster
        .kubectl()
        .args([
            "logs",
            "--namespace=front",
            "--since=3s",
            "--tail=-1",
            &format!("--selector=app={workload}"),
        ])
        .output()
        .unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let call: serde_json::Value = serde_json::from_str(line).unwrap();
            let address = call["address"].as_str().unwrap_or_default();
            (
                call["to"].as_str().unwrap().to_owned(),
                address.contains(':'),
                call["ok"].as_bool().unwrap(),
            )
        })
        .collect()
}

/// Waits until the last calls to `target` over both families are all answered, or all not.
fn expect(cluster: &Cluster, workload: &str, target: &str, answered: bool) {
    let begun = Instant::now();
    loop {
        let calls: Vec<_> = calls(cluster, workload)
            .into_iter()
            .filter(|(to, _, _)| to == target)
            .collect();
        let settled = [false, true]
            .into_iter()
            .all(|v6| calls.iter().any(|(_, family, _)| *family == v6))
            && calls.iter().all(|(_, _, ok)| *ok == answered);
        if settled {
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_mins(1),
            "{workload} to {target} is not all {}: {calls:?}",
            if answered { "answered" } else { "refused" }
        );
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Everything on the machine that has the lab's id in its name.
fn left(id: &str) -> Vec<PathBuf> {
    let name = format!("lab-{id}-");
    let mut folders = vec![PathBuf::from("/run/netns"), PathBuf::from("/run/nanoseg-full-lab")];
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next().unwrap(), fields.next().unwrap());
        if kind.starts_with("cgroup") {
            folders.push(path.into());
        }
    }
    folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.map(|entry| entry.unwrap().path()))
        .filter(|path| {
            let last = path.file_name().unwrap().to_string_lossy();
            last.starts_with(&name) || last == id
        })
        .collect()
}

#[test]
fn runs_an_application_enforces_and_leaves_nothing() {
    if !rustix::process::geteuid().is_root() {
        assert!(
            std::env::var_os("NANOSEG_REQUIRE_ROOT").is_none(),
            "the full lab needs root"
        );
        eprintln!("skipped: the full lab needs root");
        return;
    }
    let app = App::parse(APP, Path::new("app.yaml")).unwrap();
    let mut options = Options::new(env!("CARGO_BIN_EXE_lab-peer").into());
    options.say = Box::new(|done| eprintln!("{done}"));
    let mut cluster = Cluster::up(options).unwrap();
    cluster.apply(&app).unwrap();

    expect(&cluster, "web", "service/api.back", true);
    expect(&cluster, "web", "name/db.example.test", true);
    expect(&cluster, "intruder", "service/api.back", true);

    cluster.apply_objects(POLICY).unwrap();
    expect(&cluster, "intruder", "service/api.back", false);
    expect(&cluster, "web", "service/api.back", true);

    for node in cluster.nodes() {
        assert!(
            node.cgroup.join("kubepods").is_dir(),
            "{} has no pods in {}",
            node.name,
            node.cgroup.display()
        );
    }
    let id = cluster.id().to_owned();
    assert!(!left(&id).is_empty());
    cluster.down().unwrap();
    assert_eq!(left(&id), Vec::<PathBuf>::new());
}
