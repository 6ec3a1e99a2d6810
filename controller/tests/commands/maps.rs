//! `nanoseg export` and `nanoseg reach`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Folder, lines, pod, question};

/// A connection that nothing allows, one that a policy does, and a name that is a program in every language but plain text.
fn folder() -> Folder {
    let folder = Folder::asked();
    folder.write(
        "nasty.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: \"\\\\\\\"]; <b>&lt;\\\\N\\n-> b\", namespace: a}, spec: {containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.9}]}}",
    );
    folder
}

const ALL: [&str; 6] = ["export", "--cluster", "c.yaml", "--flows", "f.jsonl", "--format"];

#[test]
fn every_format_is_written_and_is_the_same_twice() {
    let folder = folder();
    for format in ["html", "svg", "dot", "graphml", "mermaid", "csv", "json", "markdown"] {
        let ran = folder.run(&[&ALL[..], &[format]].concat());
        assert_eq!(ran.code, Some(0), "{format}: {}", ran.err);
        assert!(ran.out.contains("5432"), "{format}");
        // Of flows without a time or a node none is told.
        let dense: String = ran.out.split_whitespace().collect();
        for invented in ["9999-", "sourceon`", "\"nodes\":[\"\"]"] {
            assert!(!dense.contains(invented), "{format}: {invented}");
        }
        assert_eq!(ran.out, folder.run(&[&ALL[..], &[format]].concat()).out, "{format}");
        let out = folder.run(&[&ALL[..], &[format, "--out", "map"]].concat());
        assert_eq!((out.code, out.out.as_str()), (Some(0), ""));
        assert_eq!(std::fs::read_to_string(folder.at("map")).unwrap(), ran.out);
        // The name of a file says it, too.
        let name = match format {
            "mermaid" => "map.mmd".to_owned(),
            "markdown" => "map.md".to_owned(),
            other => format!("map.{other}"),
        };
        let named = folder.run(&[&ALL[..5], &["--out", &name]].concat());
        assert_eq!(named.code, Some(0), "{name}: {}", named.err);
        assert_eq!(std::fs::read_to_string(folder.at(&name)).unwrap(), ran.out, "{name}");
    }
    let neither = folder.run(&[&ALL[..5], &["--out", "map.pdf"]].concat());
    assert_eq!(neither.code, Some(2));
    assert!(
        neither.err.contains("which format?") && neither.err.contains(".graphml"),
        "{}",
        neither.err
    );
}

#[test]
fn the_map_says_what_is_enforced_and_what_a_proposal_would_deny() {
    let folder = folder();
    let map: Value = serde_json::from_str(&folder.run(&[&ALL[..], &["json"]].concat()).out).unwrap();
    let states: Vec<&str> = map["edges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| edge["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["Denied", "Enforced"]);
    folder.write(
        "p.yaml",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: shop}, spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}}",
    );
    let proposed = [&ALL[..], &["json", "--policies", "p.yaml"]].concat();
    let map: Value = serde_json::from_str(&folder.run(&proposed).out).unwrap();
    assert_eq!(map["edges"][1]["state"], "WouldBeDenied");
    assert_eq!(map["policies"][1]["proposed"], true);
}

#[test]
fn segments_of_files_are_on_the_map() {
    let folder = folder();
    folder.write(
        "s.yaml",
        "kind: List\napiVersion: v1\nitems:\n- {apiVersion: nanoseg.io/v1alpha1, kind: Segment, metadata: {name: statefulset-web, namespace: shop}, spec: {workload: {kind: StatefulSet, name: web}}, status: {phase: Stable, learningSince: 2026-01-01T00:00:00Z, baseline: [{source: shop/StatefulSet/web, destination: shop/StatefulSet/db, port: 1, protocol: TCP}], novelEdges: [{source: shop/StatefulSet/web, destination: shop/StatefulSet/db, port: 22, protocol: TCP}]}}\n",
    );
    let ran = folder.run(&[&ALL[..], &["json", "--segments", "s.yaml"]].concat());
    let map: Value = serde_json::from_str(&ran.out).unwrap();
    let states: Vec<&str> = map["edges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| edge["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["Denied", "Novel", "Enforced"], "{}", ran.err);
    assert!(map["edges"][0]["states"].as_array().unwrap().contains(&"Stale".into()));
}

#[test]
fn what_changed_since_an_earlier_map_is_told_by_the_exit_code_too() {
    let folder = folder();
    folder.run(&[&ALL[..], &["json", "--out", "old.json"]].concat());
    let same = folder.run(&[&ALL[..], &["markdown", "--since", "old.json"]].concat());
    assert_eq!(same.code, Some(0), "{}", same.err);
    folder.write("f.jsonl", question(&pod("db-0"), &pod("web-0"), 80, "TCP"));
    let later = folder.run(&[&ALL[..], &["json", "--since", "old.json"]].concat());
    assert_eq!(later.code, Some(1));
    let changes: Value = serde_json::from_str(&later.out).unwrap();
    assert_eq!(changes["edgesGone"].as_array().unwrap().len(), 2);
    assert_eq!(changes["edgesAppeared"].as_array().unwrap().len(), 1);
    let map = std::fs::read(folder.at("old.json")).unwrap();
    let piped = folder.run_with(&[&ALL[..], &["json", "--since", "-"]].concat(), map);
    assert_eq!((piped.code, piped.out), (later.code, later.out));
    for (arguments, word) in [
        (["svg", "--since", "old.json"], "svg"),
        (["json", "--since", "f.jsonl"], "not a map"),
        (["json", "--since", "none.json"], "cannot read"),
    ] {
        let ran = folder.run(&[&ALL[..], &arguments[..]].concat());
        assert_eq!(ran.code, Some(2));
        assert!(ran.err.contains(word), "{}", ran.err);
    }
}

/// What changed, in each of its forms, of what was recorded on a real node: half of the flows are gone, and policies came.
#[test]
fn every_form_of_what_changed_tells_the_same() {
    const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded/shop");
    let folder = Folder::new();
    let [cluster, flows] = ["cluster", "flows"].map(|name| format!("{RECORDED}/{name}"));
    let before = ["--cluster", &cluster, "--flows", &flows];
    let made = folder.run(&[&["synthesize", "--out", "policies"], &before[..]].concat());
    assert!(made.code == Some(0) || made.code == Some(1), "{}", made.err);
    let written = folder.run(&[&["export", "-o", "json", "--out", "old.json"], &before[..]].concat());
    assert_eq!(written.code, Some(0), "{}", written.err);
    let report = std::fs::read_to_string(format!("{flows}/node-1.json")).unwrap();
    let mut report: Value = serde_json::from_str(&report).unwrap();
    let observed = report["flows"].as_array_mut().unwrap();
    observed.truncate(observed.len() / 2);
    folder.write("new.json", report.to_string());

    let after = [
        "export",
        "--cluster",
        &cluster,
        "--cluster",
        "policies",
        "--flows",
        "new.json",
        "--since",
        "old.json",
        "-o",
    ];
    let told = |form: &str| {
        let ran = folder.run(&[&after[..], &[form]].concat());
        assert_eq!(ran.code, Some(1), "{form}: {}", ran.err);
        ran.out
    };
    let changes: Value = serde_json::from_str(&told("json")).unwrap();
    let of = |field: &str| changes[field].as_array().unwrap().len();
    assert!(
        of("edgesGone") > 0 && of("policiesAppeared") > 0 && of("edges") > 0,
        "{changes}"
    );
    let csv = told("csv");
    let rows = |text: &str, word: &str| text.lines().filter(|line| line.contains(word)).count();
    let (markdown, html) = (told("markdown"), told("html"));
    for (words, field) in [
        ("connection is gone", "edgesGone"),
        ("connection judged otherwise", "edges"),
    ] {
        assert_eq!(rows(&csv, &format!("{words},")), of(field), "{csv}");
        assert_eq!(rows(&markdown, &format!("| {words} |")), of(field), "{markdown}");
        assert_eq!(html.matches(&format!("<td>{words}</td>")).count(), of(field), "{words}");
    }
    for form in ["svg", "dot", "graphml", "mermaid"] {
        let ran = folder.run(&[&after[..], &[form]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{form}");
        assert!(
            ran.err.contains("use html, markdown, csv or json with --since"),
            "{}",
            ran.err
        );
    }
}

/// Graphviz is asked itself: by the name that it reads, each label is the text that was meant.
#[test]
fn dot_reads_the_map_and_no_name_is_taken_for_code() {
    let folder = folder();
    let arguments = [
        "export",
        "--cluster",
        "c.yaml",
        "--cluster",
        "nasty.yaml",
        "--flows",
        "f.jsonl",
        "--format",
        "dot",
    ];
    let ran = folder.run(&arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let Ok(mut dot) = Command::new("dot")
        .args(["-Tplain"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        assert!(
            std::env::var_os("NANOSEG_REQUIRE_ROOT").is_none(),
            "graphviz is missing: .ci/setup test installs it"
        );
        return;
    };
    dot.stdin.take().unwrap().write_all(ran.out.as_bytes()).unwrap();
    let output = dot.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.is_empty(), "{told}");
    let plain = String::from_utf8(output.stdout).unwrap();
    let nodes = plain.lines().filter(|line| line.starts_with("node ")).count();
    let edges = plain.lines().filter(|line| line.starts_with("edge ")).count();
    assert_eq!((nodes, edges), (3, 2), "{plain}");
}

#[test]
fn the_published_schema_is_what_the_command_prints() {
    let ran = Folder::new().run(&["export", "--schema"]);
    let published = concat!(env!("CARGO_MANIFEST_DIR"), "/policy/map.schema.json");
    assert_eq!(ran.out, std::fs::read_to_string(published).unwrap());
}

#[test]
fn reach_is_asked_by_name_or_by_image() {
    let folder = Folder::new();
    let by_name = folder.run(&["reach", "--cluster", "c.yaml", "--workload", "shop/web", "-o", "json"]);
    assert_eq!(by_name.code, Some(0), "{}", by_name.err);
    let found = &lines(&by_name.out)[0];
    assert_eq!(found["reaches"][0]["workload"], "workload/shop/StatefulSet/db");
    assert_eq!(found["reaches"][0]["hops"], 1);
    assert_eq!(found["reaches"][0]["ports"][0]["first"], 5432);
    let table = folder.run(&["reach", "--cluster", "c.yaml", "--workload", "shop/StatefulSet/db"]);
    assert!(table.out.contains("is reached by:"), "{}", table.out);
    assert!(table.out.contains("shop/StatefulSet/web"), "{}", table.out);
    for arguments in [["--workload", "shop/none"], ["--image", "sha256:0123456789ab"]] {
        let ran = folder.run(&[&["reach", "--cluster", "c.yaml"][..], &arguments[..]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{}", ran.err);
    }
    folder.write(
        "i.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: i, namespace: shop}, spec: {containers: [{name: c, image: 'r.example/i:1'}]}, status: {phase: Running, podIPs: [{ip: 198.18.1.7}], containerStatuses: [{name: c, image: i, imageID: 'r.example/i@sha256:0123456789abcdef', ready: true, restartCount: 0}]}}",
    );
    for image in ["r.example/i:1", "sha256:0123456789ab", "0123456789abcdef"] {
        let ran = folder.run(&[
            "reach",
            "--cluster",
            "c.yaml",
            "--cluster",
            "i.yaml",
            "--image",
            image,
            "-o",
            "json",
        ]);
        assert_eq!(lines(&ran.out)[0]["of"][0], "workload/shop/Pod/i", "{}", ran.err);
    }
}
