//! What would be, if what Segments propose were applied.

use serde_json::json;

use super::{Folder, OBJECTS, lines, pod, question};

const WEB_TO_DB: [&str; 3] = ["shop/web-0", "shop/db-0", "5432"];
const WEB_TO_SSH: [&str; 3] = ["shop/web-0", "shop/db-0", "22"];

/// Two workloads that nothing isolates, and the Segment of one, which proposes what follows from one connection.
fn proposing() -> Folder {
    let folder = Folder::new();
    folder.write("c.yaml", format!("kind: List\napiVersion: v1\nitems:{OBJECTS}"));
    folder.write("f.jsonl", question(&pod("web-0"), &pod("db-0"), 5432, "TCP"));
    let made = folder.run(&["synthesize", "--cluster", "c.yaml", "--flows", "f.jsonl", "-o", "json"]);
    let made = lines(&made.out);
    let policies = made[0]["policies"].as_array().cloned().unwrap_or(made.clone());
    let of_db = |policy: &&serde_json::Value| policy["metadata"]["name"] == "nanoseg-statefulset-db";
    let proposal = policies.iter().find(of_db).unwrap();
    let segment = |kind: &str, name: &str, proposal: &str| {
        json!({
            "apiVersion": "nanoseg.io/v1alpha1", "kind": "Segment",
            "metadata": { "namespace": "shop", "name": format!("{}-{name}", kind.to_lowercase()) },
            "spec": { "workload": { "kind": kind, "name": name } },
            "status": { "phase": "Proposed", "learningSince": "2026-01-01T00:00:00Z", "proposal": proposal },
        })
        .to_string()
    };
    folder.write(
        "s.yaml",
        segment("StatefulSet", "db", &serde_yaml::to_string(proposal).unwrap()),
    );
    folder.write("broken.yaml", segment("StatefulSet", "web", "spec: ["));
    folder
}

#[test]
fn a_connection_is_judged_by_what_is_proposed_and_told_with_its_evidence() {
    let folder = proposing();
    let now = folder.explain("c.yaml", WEB_TO_SSH, &[]);
    assert_eq!(now.code, Some(0), "{}{}", now.out, now.err);

    let then = folder.explain("c.yaml", WEB_TO_SSH, &["--segments", "s.yaml"]);
    assert_eq!(then.code, Some(1), "{}", then.err);
    assert!(
        then.out
            .contains("missing: a rule in NetworkPolicy shop/nanoseg-statefulset-db"),
        "{}",
        then.out
    );

    let seen = folder.explain("c.yaml", WEB_TO_DB, &["--segments", "s.yaml"]);
    assert_eq!(seen.code, Some(0), "{}", seen.err);
    let evidence = "StatefulSet shop/web -> TCP 5432, seen at the source";
    assert!(
        seen.out.contains(&format!(
            "  ingress: allowed: NetworkPolicy shop/nanoseg-statefulset-db spec.ingress[0]\n    evidence: {evidence}\n"
        )),
        "{}",
        seen.out
    );
    let told = folder.explain("c.yaml", WEB_TO_DB, &["--segments", "s.yaml", "-o", "json"]);
    assert_eq!(lines(&told.out)[0]["evidence"], json!([evidence]), "{}", told.out);
}

#[test]
fn flows_and_reach_are_judged_by_what_is_proposed() {
    let folder = proposing();
    folder.write("ssh.jsonl", question(&pod("web-0"), &pod("db-0"), 22, "TCP"));
    let audit = ["audit", "--cluster", "c.yaml", "--flows", "ssh.jsonl"];
    assert_eq!(folder.run(&audit).code, Some(0));
    let then = folder.run(&[&audit[..], &["--segments", "s.yaml"]].concat());
    assert_eq!(then.code, Some(1), "{}", then.err);
    assert!(
        then.out
            .contains("denied: StatefulSet shop/web -> StatefulSet shop/db TCP 22"),
        "{}",
        then.out
    );

    let reach = ["reach", "--cluster", "c.yaml", "--workload", "shop/web"];
    let now = folder.run(&reach).out;
    let then = folder.run(&[&reach[..], &["--segments", "s.yaml"]].concat()).out;
    assert!(!now.contains("5432") && then.contains("TCP 5432"), "{now}{then}");
}

#[test]
fn what_a_proposal_closes_is_told_for_those_that_are_meant() {
    let folder = proposing();
    let diff = ["diff", "--cluster", "c.yaml", "--segments", "s.yaml"];
    for (meant, closes) in [
        (&[][..], true),
        (&["shop"], true),
        (&["-n", "shop"], true),
        (&["shop/statefulset-db"], true),
        (&["shop/statefulset-web"], false),
        (&["data"], false),
    ] {
        let ran = folder.run(&[&diff[..], meant].concat());
        assert_eq!(ran.code, Some(i32::from(closes)), "{meant:?}: {}", ran.err);
        let closed = ran.out.contains("closed: ") && ran.out.contains("0 opened");
        assert_eq!(closed, closes, "{meant:?}: {}", ran.out);
        assert_eq!(ran.err.contains("note: nothing is proposed"), !closes, "{}", ran.err);
    }
}

#[test]
fn what_cannot_be_read_of_proposals_is_told_once_and_the_rest_is_used() {
    let folder = proposing();
    folder.write(
        "bad.yaml",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: bad, namespace: shop}, spec: {podSelector: {}, \
         policyTypes: [Sideways]}}",
    );
    let diff = [
        "diff",
        "--cluster",
        "c.yaml",
        "--cluster",
        "bad.yaml",
        "--segments",
        "s.yaml",
        "--segments",
        "broken.yaml",
    ];
    let ran = folder.run(&diff);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert_eq!(ran.err.matches("Sideways").count(), 1, "{}", ran.err);
    assert!(
        ran.err.contains("Segment shop/statefulset-web: left out"),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("status.proposal: this is no NetworkPolicy"),
        "{}",
        ran.err
    );
    let strict = folder.run(&[&diff[..], &["--strict"]].concat());
    assert_eq!(strict.code, Some(2), "{}", strict.err);

    for (arguments, words) in [
        (
            &["diff", "--cluster", "c.yaml"][..],
            "name policies by --old and --new, or Segments by --segments",
        ),
        (&["diff", "--cluster", "c.yaml", "--old", "c.yaml"], "--new"),
        (
            &["diff", "shop", "--old", "c.yaml", "--new", "c.yaml"],
            "cannot be used with",
        ),
        (&["explain", "--cluster", "c.yaml", "--proposed"], "cannot be used with"),
    ] {
        let ran = folder.run(arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}");
        assert!(ran.err.contains(words), "{arguments:?}: {}", ran.err);
    }
}
