//! What a connection meets, asked one by one and line by line.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Folder, WEB_TO_DB, ip, lines, pod, question};

#[test]
fn explain_one_connection() {
    let folder = Folder::new();
    let ask = |from, to, port, more: &[&str]| folder.explain("c.yaml", [from, to, port], more);
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
    // Neither what changes by itself nor what tells nobody apart: the labels by which synthesis would name it.
    for passing in ["pod-template-hash", "topology.kubernetes.io", "owner"] {
        assert!(!denied.out.contains(passing), "{}", denied.out);
    }

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
fn policies_of_the_cluster_decide_too() {
    let folder = Folder::new();
    folder.write(
        "admin.yaml",
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: stop}\nspec:\n  tier: \
         Admin\n  priority: 1\n  subject: {namespaces: {}}\n  ingress:\n  - {action: Deny, from: [{namespaces: {}}]}\n",
    );
    let ran = folder.explain("c.yaml", WEB_TO_DB, &["--policies", "admin.yaml", "-o", "json"]);
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
