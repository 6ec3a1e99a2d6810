//! The commands as people run them: files and standard input in, answers and exit codes out.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tempfile::TempDir;

const OBJECTS: &str = "
- {apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [198.18.1.0/24]}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: shop, labels: {app: web, pod-template-hash: x}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: w, controller: true}]}, spec: {nodeName: n1, containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.2}, {ip: 'fd00:18::2'}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: db-0, namespace: shop, labels: {app: db}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, uid: d, controller: true}]}, spec: {nodeName: n1, containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.3}, {ip: 'fd00:18::3'}]}}
- {apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {clusterIP: 198.19.0.10, selector: {app: db}, ports: [{port: 80, targetPort: 5432}]}}
";

const POLICY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db, namespace: shop}, spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}, {port: 7, protocol: SCTP}]}]}}";

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

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.at(name), bytes).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
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

#[test]
fn explain_one_connection() {
    let folder = Folder::new();
    let ask = |from, to, port, more: &[&str]| {
        let question = [
            "explain",
            "--cluster",
            "c.yaml",
            "--from",
            from,
            "--to",
            to,
            "--port",
            port,
        ];
        folder.run(&[&question[..], more].concat())
    };
    let allowed = ask("shop/web-0", "shop/db-0", "5432", &[]);
    assert_eq!(allowed.code, Some(0), "{}", allowed.err);
    assert_eq!(
        allowed.out,
        "Pod shop/web-0 -> Pod shop/db-0 TCP 5432\nAllowed\n  egress:  allowed: no policy applies\n  ingress: allowed: \
         NetworkPolicy shop/db spec.ingress[0]\n"
    );
    assert_eq!(allowed.err, "");

    let denied = ask("shop/web-0", "198.18.1.3", "5433", &[]);
    assert_eq!(denied.code, Some(1));
    for expected in [
        "\nDenied\n",
        "missing: a rule in NetworkPolicy shop/db",
        "app: web\n",
        "port: 5433\n",
    ] {
        assert!(denied.out.contains(expected), "{}", denied.out);
    }
    assert!(!denied.out.contains("pod-template-hash"), "{}", denied.out);

    let denied = ask("203.0.113.9", "shop/db-0", "5432", &["-o", "json"]);
    assert_eq!(denied.code, Some(1));
    assert!(denied.out.starts_with(
        r#"{"verdict":"Denied","egress":"NotIsolated","ingress":"Denied","by":["NetworkPolicy shop/db"],"#
    ));
    let answer = &lines(&denied.out)[0];
    assert_eq!(
        answer["missing"][0]["rule"]["from"][0]["ipBlock"]["cidr"],
        "203.0.113.9/32"
    );

    let absent = ask("shop/web", "shop/db-0", "5432", &[]);
    assert_eq!(absent.code, Some(2));
    assert_eq!(
        absent.err,
        "nanoseg: there is no pod shop/web among the manifests of c.yaml; there is shop/web-0\n"
    );
    let unclear = ask("shop/web-0", "198.19.0.10", "80", &[]);
    assert_eq!(
        unclear.code,
        Some(1),
        "what nobody can say is not allowed: {}",
        unclear.out
    );
}

#[test]
fn explain_answers_each_line_in_order() {
    let folder = Folder::new();
    let rows = [
        (
            question(&pod("web-0"), &pod("db-0"), 5432, "TCP"),
            "Allowed",
            "NotIsolated",
            "Allowed",
        ),
        (
            question(&pod("web-0"), &pod("db-0"), 5433, "TCP"),
            "Denied",
            "NotIsolated",
            "Denied",
        ),
        (
            question(&pod("web-0"), &pod("db-0"), 7, "SCTP"),
            "Allowed",
            "NotIsolated",
            "Allowed",
        ),
        (
            question(&ip("fd00:18::2"), &ip("fd00:18::3"), 5432, "TCP"),
            "Allowed",
            "NotIsolated",
            "Allowed",
        ),
        ("not JSON".to_owned(), "Unknown", "Unknown", "Unknown"),
        (
            question(&ip("198.18.1.2"), &pod("db-0"), 5432, "TCP"),
            "Allowed",
            "NotIsolated",
            "Allowed",
        ),
        (
            question(&pod("db-0"), &ip("203.0.113.9"), 1, "UDP"),
            "Allowed",
            "NotIsolated",
            "NotIsolated",
        ),
        (
            question(&ip("203.0.113.9"), &pod("db-0"), 5432, "TCP"),
            "Denied",
            "NotIsolated",
            "Denied",
        ),
        (
            question(&pod("gone"), &pod("db-0"), 5432, "TCP"),
            "Unknown",
            "Unknown",
            "Unknown",
        ),
        (
            question(&pod("web-0"), &pod("db-0"), 0, "TCP"),
            "Unknown",
            "Unknown",
            "Unknown",
        ),
    ];
    let questions: Vec<&str> = rows.iter().map(|(question, ..)| question.as_str()).collect();
    let ran = folder.run_with(
        &["explain", "--cluster", "c.yaml", "--flows", "-", "-o", "jsonl"],
        questions.join("\n"),
    );
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let answers = lines(&ran.out);
    assert_eq!(answers.len(), rows.len());
    for (index, ((question, verdict, egress, ingress), answer)) in rows.iter().zip(&answers).enumerate() {
        let got = (&answer["verdict"], &answer["egress"], &answer["ingress"]);
        assert_eq!(
            got,
            (&json!(verdict), &json!(egress), &json!(ingress)),
            "{question}: {answer}"
        );
        assert_eq!(answer["line"], index + 1);
        assert!(answer["by"].is_array());
    }
    assert!(answers[4]["error"].as_str().unwrap().contains("standard input: line 5"));
    assert!(answers[9]["error"].as_str().unwrap().contains("`port`"));
    for line in ran.out.lines() {
        let keys = ["{\"verdict\":", ",\"egress\":", ",\"ingress\":", ",\"by\":["].map(|key| line.find(key));
        assert!(keys.is_sorted() && keys[0] == Some(0), "{line}");
    }

    let strict = folder.run_with(
        &["explain", "--cluster", "c.yaml", "--flows", "-", "--strict"],
        questions.join("\n"),
    );
    assert_eq!(strict.code, Some(2), "{}", strict.err);
    assert_eq!(lines(&strict.out).len(), rows.len());
    let good = folder.run_with(&["explain", "--cluster", "c.yaml", "--flows", "-"], questions[0]);
    assert_eq!(good.code, Some(0));
    let report = r#"{"origin":{"node":"n1","epoch":1},"flows":[]}"#;
    let report = folder.run_with(&["explain", "--cluster", "c.yaml", "--flows", "-"], report);
    assert_eq!(report.code, Some(2));
    assert!(report.err.contains("nanoseg audit"), "{}", report.err);
}

#[test]
fn every_kind_of_flows_makes_one_graph() {
    let folder = Folder::new();
    let plain = format!("{}\n", question(&pod("web-0"), &ip("198.19.0.10"), 80, "TCP"));
    folder.write("plain.jsonl", &plain);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(plain.as_bytes()).unwrap();
    folder.write("named-like-nothing", gzip.finish().unwrap());
    let hubble = |direction: &str, is_reply: bool| {
        let flow = json!({
            "time": "2026-01-02T03:04:05Z", "verdict": "FORWARDED", "is_reply": is_reply, "traffic_direction": direction,
            "IP": { "source": "198.18.1.2", "destination": "198.18.1.3" },
            "l4": { "TCP": { "source_port": 40000, "destination_port": 5432, "flags": { "SYN": true } } },
            "source": { "namespace": "shop", "pod_name": "web-0" }, "destination": { "namespace": "shop", "pod_name": "db-0" },
        });
        json!({ "flow": flow, "node_name": "n1" }).to_string()
    };
    let lines_of_hubble = [
        hubble("EGRESS", false),
        hubble("INGRESS", false),
        hubble("INGRESS", true),
    ]
    .join("\n");
    folder.write("hubble.json", lines_of_hubble);

    for flows in ["plain.jsonl", "named-like-nothing"] {
        let ran = folder.run(&["graph", "--cluster", "c.yaml", "--flows", flows, "-o", "json"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let edges = lines(&ran.out);
        assert_eq!(edges.len(), 1);
        assert_eq!(
            (&edges[0]["source"], &edges[0]["destination"]),
            (&json!("shop/StatefulSet/web"), &json!("shop/StatefulSet/db"))
        );
        assert_eq!(
            (&edges[0]["port"], &edges[0]["via"]),
            (&json!(5432), &json!(["shop/db"]))
        );
        assert_eq!(edges[0]["firstSeen"], Value::Null, "nobody said when");
    }
    let ran = folder.run(&["graph", "--cluster", "c.yaml", "--flows", "hubble.json", "-o", "json"]);
    let edges = lines(&ran.out);
    assert_eq!(edges.len(), 1, "{}", ran.out);
    assert_eq!(
        (&edges[0]["seenBy"], &edges[0]["count"]),
        (&json!(["source", "destination"]), &json!(1))
    );
    assert_eq!(ran.err, "note: lines passed over: 1 (1 replies)\n");
    let all = folder.run(&[
        "graph",
        "--cluster",
        "c.yaml",
        "--flows",
        "hubble.json",
        "--flows",
        "plain.jsonl",
        "-o",
        "json",
    ]);
    assert_eq!(lines(&all.out).len(), 1);
}

#[test]
fn audit_tells_what_would_be_denied() {
    let folder = Folder::new();
    folder.write("f.jsonl", question(&pod("web-0"), &pod("db-0"), 5432, "TCP"));
    let fine = folder.run(&["audit", "--cluster", "c.yaml", "--flows", "f.jsonl"]);
    assert_eq!(
        (fine.code, &*fine.out),
        (Some(0), "1 edges: 0 denied, 0 cannot be decided, 1 permitted\n")
    );

    folder.write(
        "deny.yaml",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: shop}, spec: {podSelector: \
         {matchLabels: {app: web}}, policyTypes: [Egress]}}",
    );
    let with = [
        "audit",
        "--cluster",
        "c.yaml",
        "--flows",
        "f.jsonl",
        "--policies",
        "deny.yaml",
    ];
    let denied = folder.run(&[&with[..], &["-o", "json"]].concat());
    assert_eq!(denied.code, Some(1), "{}", denied.err);
    assert_eq!(lines(&denied.out)[0]["isolatedBy"], json!(["NetworkPolicy shop/web"]));
    let denied = folder.run(&with);
    assert!(
        denied
            .out
            .starts_with("denied: StatefulSet shop/web -> StatefulSet shop/db TCP 5432\n  1 of 1 pairs"),
        "{}",
        denied.out
    );
}

#[test]
fn a_bad_document_is_told_and_the_rest_is_used_unless_strict() {
    let folder = Folder::new();
    folder.write(
        "bad.yaml",
        format!("kind: [\n---\n{}\n", POLICY.replace("port: 7", "port: 70000")),
    );
    let question = [
        "explain",
        "--cluster",
        "c.yaml",
        "--cluster",
        "bad.yaml",
        "--from",
        "shop/web-0",
        "--to",
        "shop/db-0",
        "--port",
        "5432",
    ];
    let ran = folder.run(&question);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let told: Vec<&str> = ran.err.lines().collect();
    assert_eq!(told.len(), 2, "{}", ran.err);
    assert!(
        told[0].starts_with("warning: bad.yaml: document 1 (line 1): left out, because it is not YAML: "),
        "{}",
        ran.err
    );
    assert!(
        told[1].starts_with("warning: bad.yaml: document 2 (line 3): left out, the API server would not take it: "),
        "{}",
        ran.err
    );
    assert!(told[1].contains("70000"), "{}", ran.err);
    let strict = folder.run(&[&question[..], &["--strict"]].concat());
    assert_eq!((strict.code, &*strict.out), (Some(2), ""));
    assert!(
        strict
            .err
            .ends_with("nanoseg: 2 faults in the input, and --strict was given\n"),
        "{}",
        strict.err
    );
}

#[test]
fn what_cannot_be_used_at_all_is_exit_code_2() {
    let folder = Folder::new();
    folder.write("f.jsonl", question(&pod("web-0"), &pod("db-0"), 5432, "TCP"));
    folder.write("empty.yaml", "");
    folder.write("empty.jsonl", "\n");
    fs::create_dir(folder.at("folder")).unwrap();
    for (arguments, expected) in [
        (
            &["graph", "--cluster", "nowhere", "--flows", "f.jsonl"][..],
            "nanoseg: cannot read nowhere: No such file",
        ),
        (
            &["graph", "--cluster", "c.yaml", "--flows", "nowhere"],
            "nanoseg: cannot read nowhere: No such file",
        ),
        (
            &["graph", "--cluster", "empty.yaml", "--flows", "f.jsonl"],
            "nanoseg: empty.yaml: no Kubernetes object could be read",
        ),
        (
            &["graph", "--cluster", "folder", "--flows", "f.jsonl"],
            "nanoseg: folder: no Kubernetes object could be read",
        ),
        (
            &["graph", "--cluster", "c.yaml", "--flows", "empty.jsonl"],
            "nanoseg: empty.jsonl: no flow could be read there",
        ),
        (
            &["graph", "--cluster", "-", "--flows", "-"],
            "nanoseg: only one of the inputs can be `-`",
        ),
        (
            &["graph", "--kubeconfig", "nowhere", "--flows", "f.jsonl"],
            "nanoseg: cannot use the kubeconfig nowhere: ",
        ),
    ] {
        let ran = folder.run(arguments);
        assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{arguments:?}");
        assert!(ran.err.starts_with(expected), "{arguments:?}: {}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
}

#[test]
fn synthesize_to_a_stream_to_folders_and_to_json() {
    let folder = Folder::new();
    folder.write(
        "f.jsonl",
        format!(
            "{}\n{}",
            question(&pod("web-0"), &ip("198.19.0.10"), 80, "TCP"),
            question(&pod("gone"), &pod("web-0"), 80, "TCP")
        ),
    );
    let objects = format!("kind: List\napiVersion: v1\nitems:{OBJECTS}");
    let stream = folder.run_with(&["synthesize", "--cluster", "-", "--flows", "f.jsonl"], &objects);
    assert_eq!(stream.code, Some(0), "{}", stream.err);
    assert_eq!(stream.out.matches("\nkind: NetworkPolicy\n").count(), 2);
    assert!(
        stream
            .err
            .contains("note: the flows name 1 pod that the cluster does not have: Pod shop/gone\n"),
        "{}",
        stream.err
    );
    assert!(
        stream
            .err
            .contains("note: StatefulSet shop/web: ingress stays open, it is not ready: "),
        "{}",
        stream.err
    );
    assert!(
        !stream.err.contains("INFO") && !stream.err.contains("WARN"),
        "{}",
        stream.err
    );

    let files = folder.run_with(
        &["synthesize", "--cluster", "-", "--flows", "f.jsonl", "--out", "out"],
        &objects,
    );
    assert_eq!(files.out.lines().count(), 2);
    let written: Vec<String> = files
        .out
        .lines()
        .map(|path| fs::read_to_string(folder.at(path)).unwrap())
        .collect();
    let written = format!(
        "---
{}",
        written.join(
            "---
"
        )
    );
    assert_eq!(written, stream.out);
    assert!(folder.at("out/shop/nanoseg-statefulset-db.yaml").is_file());

    let document = folder.run_with(
        &["synthesize", "--cluster", "-", "--flows", "f.jsonl", "-o", "json"],
        &objects,
    );
    let document: Value = serde_json::from_str(&document.out).unwrap();
    assert_eq!(document["policies"].as_array().unwrap().len(), 2);
    let notes = document["notes"].as_array().unwrap();
    assert!(
        notes
            .iter()
            .any(|note| note["kind"] == "NotReady" && note["direction"] == "Ingress"),
        "{document}"
    );
    assert_eq!(document["violations"], json!([]));

    // What was made is what audit accepts.
    folder.write("objects.yaml", &objects);
    folder.write("one.jsonl", question(&pod("web-0"), &pod("db-0"), 5432, "TCP"));
    let accepted = folder.run(&[
        "audit",
        "--cluster",
        "objects.yaml",
        "--policies",
        "out",
        "--flows",
        "one.jsonl",
    ]);
    assert_eq!(accepted.code, Some(0), "{}", accepted.out);
    folder.write("other.jsonl", question(&pod("web-0"), &pod("db-0"), 6000, "TCP"));
    let denied = folder.run(&[
        "audit",
        "--cluster",
        "objects.yaml",
        "--policies",
        "out",
        "--flows",
        "other.jsonl",
        "-o",
        "json",
    ]);
    assert_eq!(denied.code, Some(1));
    let finding = &lines(&denied.out)[0];
    assert_eq!((&finding["verdict"], &finding["pairs"]), (&json!("Denied"), &json!(1)));
}

#[test]
fn whoever_stops_reading_has_seen_enough() {
    let folder = Folder::new();
    let questions = format!("{}\n", question(&pod("web-0"), &pod("db-0"), 5432, "TCP")).repeat(5000);
    folder.write("many.jsonl", questions);
    let mut child = Command::new(env!("CARGO_BIN_EXE_nanoseg"))
        .args(["explain", "--cluster", "c.yaml", "--flows", "many.jsonl"])
        .current_dir(folder.0.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.stderr.is_empty());
}

#[test]
fn policies_of_the_cluster_decide_too() {
    let folder = Folder::new();
    folder.write(
        "admin.yaml",
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: stop}\nspec:\n  tier: \
         Admin\n  priority: 1\n  subject: {namespaces: {}}\n  ingress:\n  - {action: Deny, from: [{namespaces: {}}]}\n",
    );
    let ran = folder.run(&[
        "explain",
        "--cluster",
        "c.yaml",
        "--policies",
        "admin.yaml",
        "--from",
        "shop/web-0",
        "--to",
        "shop/db-0",
        "--port",
        "5432",
        "-o",
        "json",
    ]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert_eq!(ran.err, "");
    let answer = &lines(&ran.out)[0];
    assert!(
        answer["by"][0]
            .as_str()
            .unwrap()
            .starts_with("ClusterNetworkPolicy stop"),
        "{answer}"
    );
    assert_eq!(answer["missing"], Value::Null, "no rule of a NetworkPolicy would help");
}

#[test]
fn diff_tells_reachability_and_not_text() {
    let folder = Folder::new();
    folder.write("old.yaml", POLICY);
    folder.write("same.yaml", POLICY.replace("name: db,", "name: other,"));
    folder.write(
        "new.yaml",
        POLICY.replace("{port: 5432}", "{port: 5432, endPort: 5440}"),
    );
    let diff = |old: &str, new: &str, more: &[&str]| {
        let question = ["diff", "--cluster", "c.yaml", "--old", old, "--new", new];
        folder.run(&[&question[..], more].concat())
    };
    let same = diff("old.yaml", "same.yaml", &[]);
    assert_eq!(
        (same.code, &*same.out),
        (Some(0), "0 opened, 0 closed, 0 unclear\n"),
        "{}",
        same.err
    );
    let opened = diff("old.yaml", "new.yaml", &["-o", "json"]);
    assert_eq!(opened.code, Some(1), "{}", opened.err);
    let changes = lines(&opened.out);
    assert_eq!(changes.len(), 1, "{}", opened.out);
    assert_eq!(
        (
            &changes[0]["change"],
            &changes[0]["source"],
            &changes[0]["port"],
            &changes[0]["endPort"]
        ),
        (
            &json!("opened"),
            &json!("StatefulSet shop/web"),
            &json!(5433),
            &json!(5440)
        )
    );
    assert_eq!(
        (&changes[0]["before"]["verdict"], &changes[0]["after"]["verdict"]),
        (&json!("Denied"), &json!("Allowed"))
    );
    let closed = diff("new.yaml", "old.yaml", &[]);
    assert!(
        closed
            .out
            .starts_with("closed: StatefulSet shop/web -> StatefulSet shop/db TCP 5433-5440\n  before: allowed: "),
        "{}",
        closed.out
    );
    assert_eq!(diff("old.yaml", "nowhere", &[]).code, Some(2));
}
