//! What is read, what is left out, and what ends a command.

use std::fs;

use super::{Folder, POLICY, WEB_TO_DB, lines, pod, question};

#[test]
fn a_bad_document_is_told_and_the_rest_is_used_unless_strict() {
    let folder = Folder::new();
    folder.write(
        "bad.yaml",
        format!("kind: [\n---\n{}\n", POLICY.replace("port: 7", "port: 70000")),
    );
    let bad = ["--cluster", "bad.yaml"];
    let ran = folder.explain("c.yaml", WEB_TO_DB, &bad);
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
    let strict = folder.explain("c.yaml", WEB_TO_DB, &[&bad[..], &["--strict"]].concat());
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

/// As they are in a repository: no pod, no status.
const DECLARED: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {namespace: shop, name: web}
spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {namespace: shop, name: db}
spec: {selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: db}]}}}
---
";

#[test]
fn workloads_that_were_never_applied_are_asked_about_by_their_names() {
    let folder = Folder::new();
    folder.write("declared.yaml", format!("{DECLARED}{POLICY}"));
    let note = "note: 2 workloads have no pods among the manifests; a pod of its template stands for each: shop/web, shop/db-0\n";
    let allowed = folder.explain("declared.yaml", ["shop/web", "shop/db-0", "5432"], &["-o", "json"]);
    assert_eq!((allowed.code, &*allowed.err), (Some(0), note), "{}", allowed.out);
    assert_eq!(lines(&allowed.out)[0]["by"][0], "NetworkPolicy shop/db spec.ingress[0]");
    let denied = folder.explain("declared.yaml", ["shop/web", "shop/db-0", "5433"], &[]);
    assert_eq!((denied.code, &*denied.err), (Some(1), note), "{}", denied.out);
    let absent = folder.explain("declared.yaml", ["shop/web-0", "shop/db-0", "5432"], &[]);
    assert_eq!(absent.code, Some(2));
    let expected = format!("{note}nanoseg: there is no pod shop/web-0 among the manifests of declared.yaml\n");
    assert_eq!(absent.err, expected, "a Deployment's pods have no names yet");
}

#[test]
fn policies_of_the_former_api_are_the_tiers_that_they_are() {
    let folder = Folder::new();
    folder.write(
        "admin.yaml",
        "
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: stop}
spec:
  priority: 1
  subject: {namespaces: {}}
  ingress:
  - {action: Deny, from: [{namespaces: {}}], ports: [{portNumber: {port: 5432, protocol: TCP}}]}
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec:
  subject: {namespaces: {}}
  egress:
  - {action: Deny, to: [{namespaces: {}}]}
",
    );
    let more = ["--policies", "admin.yaml", "-o", "json"];
    let admin = folder.explain("c.yaml", WEB_TO_DB, &more);
    assert_eq!((admin.code, &*admin.err), (Some(1), ""), "{}", admin.out);
    let answer = &lines(&admin.out)[0];
    assert_eq!(
        (&answer["egress"], &answer["ingress"]),
        (&"Denied".into(), &"Denied".into())
    );
    assert_eq!(
        answer["by"].to_string(),
        r#"["BaselineAdminNetworkPolicy default","AdminNetworkPolicy stop"]"#
    );
}

#[test]
fn policies_that_no_evaluator_takes_in_are_named() {
    let folder = Folder::new();
    folder.write(
        "cilium.yaml",
        "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {namespace: shop, name: l7}, spec: {endpointSelector: {}}}",
    );
    let cilium = ["--cluster", "cilium.yaml"];
    let ran = folder.explain("c.yaml", WEB_TO_DB, &cilium);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.err.starts_with("warning: cilium.yaml: ") && ran.err.contains("CiliumNetworkPolicy shop/l7"),
        "{}",
        ran.err
    );
    let strict = folder.explain("c.yaml", WEB_TO_DB, &[&cilium[..], &["--strict"]].concat());
    assert_eq!((strict.code, &*strict.out), (Some(2), ""), "{}", strict.err);
}

#[test]
fn a_host_without_kubernetes_has_containers_and_units_for_workloads() {
    let folder = Folder::new();
    let id = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let container = format!(r#"{{"host": "/system.slice/docker-{id}.scope"}}"#);
    folder.write(
        "h1.1.json",
        format!(
            r#"{{"origin": {{"node": "h1", "epoch": 1}}, "flows": [{{"subject": {{"host": "/system.slice/sync.service"}},
            "peer": "198.18.0.2", "port": 80, "transport": "TCP", "reporter": "source", "first_seen": "2026-01-01T00:00:10Z",
            "last_seen": "2026-01-01T00:00:20Z", "attempted": 1, "established": 1, "refused": 0}}],
            "held": [{{"subject": {container}, "name": "web", "addresses": ["198.18.0.2"], "first_seen": "2026-01-01T00:00:00Z"}}]}}"#
        ),
    );
    let ran = folder.run(&["graph", "--cluster", "/dev/null", "--flows", "h1.1.json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.out.contains("Unit h1/sync.service") && ran.out.contains("Container h1/web"),
        "{}",
        ran.out
    );
}
