//! What flows come to: the graph, and what policies would deny of it.

use std::collections::BTreeSet;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use nanoseg_graph::flow::{Flow, FlowKey, Origin, Report, Reporter, Subject, Tally, Transport};
use serde_json::{Value, json};

use super::{Folder, ip, lines, pod, question};

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
    assert_eq!(ran.err, "note: lines passed over: 1 (1 in reply)\n");
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
fn who_of_a_node_it_was_is_told_and_cannot_pretend_to_be_more() {
    let folder = Folder::new();
    let time = |second| Timestamp::from_second(second).unwrap();
    let flow = |path: &str| Flow {
        key: FlowKey {
            subject: Subject::Host(path.to_owned()),
            peer: "198.18.1.2".parse().unwrap(),
            port: 8080,
            transport: Transport::Tcp,
            reporter: Reporter::Source,
        },
        tally: Tally {
            first_seen: time(1_700_000_000),
            last_seen: time(1_700_000_001),
            attempted: 1,
            established: 1,
            refused: 0,
            unanswered: 0,
        },
    };
    let report = Report {
        origin: Origin {
            node: "worker-1".to_owned(),
            epoch: 1,
        },
        flows: vec![
            flow("/system.slice/kubelet.service"),
            flow("/system.slice/\u{1b}[2Jfake\n.service"),
        ],
        losses: Vec::new(),
        node_addresses: BTreeSet::new(),
        names: Vec::new(),
        held: Vec::new(),
        capture: None,
    };
    let report = serde_json::to_string(&report).unwrap();
    folder.write("report.json", report);
    let with = ["graph", "--cluster", "c.yaml", "--flows", "report.json"];
    let table = folder.run(&with);
    assert_eq!(table.code, Some(0), "{}", table.err);
    assert!(table.out.contains("kubelet.service)"), "{}", table.out);
    assert_eq!(table.out.lines().count(), 2, "one edge: {}", table.out);
    let json = folder.run(&[&with[..], &["-o", "json"]].concat());
    let edges = lines(&json.out);
    assert_eq!(edges[0]["source"], "node worker-1");
    let processes = edges[0]["sourceProcesses"].as_array().unwrap();
    assert_eq!(processes.len(), 2);
    assert!(processes.contains(&json!("kubelet.service")), "{processes:?}");
    assert_eq!(edges[0]["destinationProcesses"], Value::Null);
    for out in [table.out, json.out] {
        assert!(!out.contains('\u{1b}'), "{out:?}");
    }
}

#[test]
fn audit_tells_what_would_be_denied() {
    let folder = Folder::new();
    folder.write("f.jsonl", question(&pod("web-0"), &pod("db-0"), 5432, "TCP"));
    let fine = folder.run(&["audit", "--cluster", "c.yaml", "--flows", "f.jsonl"]);
    assert_eq!(
        (fine.code, &*fine.out),
        (Some(0), "1 edge: 0 denied, 0 cannot be decided, 1 permitted\n")
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
            .starts_with("denied: StatefulSet shop/web -> StatefulSet shop/db TCP 5432\n  1 of 1 pair"),
        "{}",
        denied.out
    );
}
