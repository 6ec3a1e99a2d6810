//! The commands as people run them: files and standard input in, answers and exit codes out.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod errors;
mod examples;
mod explain;
mod flows;
mod forms;
mod input;
mod maps;
mod policies;
mod proposed;
mod shell;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const OBJECTS: &str = "
- {apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [198.18.1.0/24]}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: shop, labels: {app: web, owner: ann, pod-template-hash: x, topology.kubernetes.io/zone: z}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: w, controller: true}]}, spec: {nodeName: n1, containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.2}, {ip: 'fd00:18::2'}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: db-0, namespace: shop, labels: {app: db}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, uid: d, controller: true}]}, spec: {nodeName: n1, containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.3}, {ip: 'fd00:18::3'}]}}
- {apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {clusterIP: 198.19.0.10, selector: {app: db}, ports: [{port: 80, targetPort: 5432}]}}
";

const POLICY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db, namespace: shop}, spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}, {port: 7, protocol: SCTP}]}]}}";

/// A connection that `POLICY` allows.
const WEB_TO_DB: [&str; 3] = ["shop/web-0", "shop/db-0", "5432"];

struct Folder(TempDir);

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write(
            "c.yaml",
            format!("kind: List\napiVersion: v1\nitems:{OBJECTS}- {POLICY}\n"),
        );
        folder
    }

    /// With flows: one that a policy allows, and one that nothing does.
    fn asked() -> Self {
        let folder = Self::new();
        let flows = [
            question(&pod("web-0"), &pod("db-0"), 5432, "TCP"),
            question(&pod("web-0"), &pod("db-0"), 22, "TCP"),
        ];
        folder.write("f.jsonl", flows.join("\n"));
        folder
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.at(name), bytes).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    /// Asks about one connection, of the objects in a file or folder.
    fn explain(&self, cluster: &str, [from, to, port]: [&str; 3], more: &[&str]) -> Ran {
        let asked = [
            "explain",
            "--cluster",
            cluster,
            "--from",
            from,
            "--to",
            to,
            "--port",
            port,
        ];
        self.run(&[&asked[..], more].concat())
    }

    fn run_with(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Ran {
        let mut child = Command::new(env!("CARGO_BIN_EXE_nanoseg"))
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.as_ref().to_vec();
        // A command that reads none of it may be gone by then.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn question(source: &Value, destination: &Value, port: u16, protocol: &str) -> String {
    json!({ "source": source, "destination": destination, "port": port, "protocol": protocol }).to_string()
}

fn pod(name: &str) -> Value {
    json!({ "namespace": "shop", "pod": name })
}

fn ip(address: &str) -> Value {
    json!({ "ip": address })
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
