//! Policies that are made, and what two sets of them differ in.

use std::fs;

use serde_json::{Value, json};

use super::{Folder, OBJECTS, POLICY, ip, lines, pod, question};

#[test]
fn p19_policies_of_flows_without_any_dns_say_what_they_cut() {
    let folder = Folder::new();
    let objects = format!("kind: List\napiVersion: v1\nitems:{OBJECTS}");
    let call = question(&pod("web-0"), &ip("198.19.0.10"), 80, "TCP");
    let dns = question(&pod("web-0"), &ip("192.0.2.53"), 53, "UDP");
    folder.write("without.jsonl", call.clone());
    folder.write("with.jsonl", format!("{call}\n{dns}"));
    let without = folder.run_with(&["synthesize", "--cluster", "-", "--flows", "without.jsonl"], &objects);
    let told = "note: no flow leads to a name server (port 53), and 1 policy isolates egress: ";
    assert!(without.err.contains(told), "{}", without.err);
    let with = folder.run_with(&["synthesize", "--cluster", "-", "--flows", "with.jsonl"], &objects);
    assert!(!with.err.contains("name server"), "{}", with.err);
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
        closed.out.starts_with(
            "closed: ingress of StatefulSet shop/db is isolated by NetworkPolicy shop/db, and no rule allows it\n  TCP 5433-5440 from \
             StatefulSet shop/web: allowed until then by NetworkPolicy shop/db spec.ingress[0]\n0 opened, 1 closed, 0 unclear\n"
        ),
        "{}",
        closed.out
    );
    let closed = diff("new.yaml", "old.yaml", &["-o", "wide"]);
    assert!(
        closed
            .out
            .starts_with("closed: StatefulSet shop/web -> StatefulSet shop/db TCP 5433-5440\n  before: allowed: "),
        "{}",
        closed.out
    );
    assert_eq!(diff("old.yaml", "nowhere", &[]).code, Some(2));
}
