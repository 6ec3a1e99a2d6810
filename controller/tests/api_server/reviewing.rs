//! People decide: by commands, by fields of a Segment, and by the label of a namespace.

use std::process::Command;

use kube::api::{Api, Patch, PatchParams};
use nanoseg::segment::{Mode, Phase, Segment};
use serde_json::json;

use crate::server::{self, Server, free_port};
use crate::{Cluster, WEB_TO_DB, controller, flow, report, send, until};

fn run(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nanoseg"));
    command.args(arguments).arg("--kubeconfig").arg(server.kubeconfig());
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), text.concat())
}

/// Before anything is applied, and nothing of it is so yet.
fn what_it_would_do_is_told(server: &Server) {
    let (code, text) = run(server, &["diff", "shop/deployment-db"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("closed: ") && text.contains("0 opened"), "{text}");
    let (code, text) = run(server, &WEB_TO_DB);
    assert!(code == Some(0) && !text.contains("nanoseg-deployment-db"), "{text}");
    let (code, text) = run(server, &[&WEB_TO_DB[..], &["--proposed"]].concat());
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("evidence: Deployment shop/web -> TCP 5432, seen at both ends"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_enforced_before_a_person_said_so_and_one_word_takes_it_back() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let cluster = Cluster::audited(&server).await;
    let web = cluster.workload("web", "198.18.1.10").await;
    let db = cluster.workload("db", "198.18.1.11").await;
    let port = free_port();
    let mut nanoseg = controller(&server, port, 1);
    let flows = [
        flow(&web, "198.18.1.11", 5432, "source", 3),
        flow(&db, "198.18.1.10", 5432, "destination", 3),
    ];
    send(port, report(&flows)).await.unwrap();

    // The label wins over --enforce.
    let status = cluster.wait_for_phase("deployment-db", Phase::Auditing).await;
    assert!(cluster.policy("nanoseg-deployment-db").await.is_none());
    let hash = status.proposal_hash.unwrap();
    for scope in [&["shop"][..], &["-n", "shop"], &["-A"]] {
        let (code, table) = run(&server, &[&["status"], scope].concat());
        assert_eq!(code, Some(0), "{table}");
        assert!(
            table.contains("shop/deployment-db") && table.contains("Auditing"),
            "{table}"
        );
    }
    let (code, text) = run(&server, &["rollback", "-n", "shop", "deployment-db"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("nothing of it is enforced: its mode is Audit"), "{text}");

    what_it_would_do_is_told(&server);

    // The API server refuses what is no hash, no mode and no edge.
    let segments: Api<Segment> = cluster.api();
    for spec in [
        json!({ "approval": "yes" }),
        json!({ "mode": "Sometimes" }),
        json!({ "acceptedEdges": [{ "source": "web", "destination": "shop/Deployment/db", "port": 1, "protocol": "TCP" }] }),
    ] {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let refused = segments.patch("deployment-db", &PatchParams::default(), &patch).await;
        assert!(
            refused.is_err_and(|error| error.to_string().contains("spec.")),
            "{spec}"
        );
    }

    // Promoted, and waiting for the approval of this very proposal.
    assert_eq!(run(&server, &["reject", "shop/deployment-db"]).0, Some(0));
    let (code, text) = run(&server, &["promote", "shop/deployment-db", "-o", "name"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        text,
        "segment.nanoseg.io/deployment-db\nSegment shop/deployment-db: its mode was Audit and is Enforce\n"
    );
    until("the controller asks for approval", || async {
        let status = cluster.status("deployment-db").await?;
        let waits = |message: &str| message.starts_with("not promoted because the proposal waits for approval");
        status
            .conditions
            .iter()
            .any(|condition| waits(&condition.message))
            .then_some(())
    })
    .await;
    assert!(cluster.policy("nanoseg-deployment-db").await.is_none());
    let (code, text) = run(&server, &["approve", "shop/deployment-db"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&hash), "{text}");
    let status = cluster.wait_for_phase("deployment-db", Phase::Enforcing).await;
    assert_eq!(status.history.len(), 1);
    assert!(cluster.policy("nanoseg-deployment-db").await.is_some());
    let (_, text) = run(&server, &["status", "shop/deployment-db"]);
    assert!(
        text.contains("Enforcing, mode Enforce") && text.contains(&format!("applied  {hash}")),
        "{text}"
    );

    // An edge that nobody saw, accepted by a person, makes another proposal, which needs another approval.
    let edge = "shop/Deployment/web -> shop/Deployment/db TCP 5433";
    assert_eq!(
        run(&server, &["approve", "shop/deployment-db", "--edge", edge]).0,
        Some(0)
    );
    let changed = cluster.wait_for_phase("deployment-db", Phase::Proposed).await;
    assert_eq!(changed.edges, 2);
    assert_ne!(changed.proposal_hash, Some(hash));
    assert_eq!(run(&server, &["approve", "shop/deployment-db"]).0, Some(0));
    until("the second revision is live", || async {
        let status = cluster.status("deployment-db").await?;
        (status.phase == Phase::Enforcing && status.history.len() == 2).then_some(())
    })
    .await;

    // The Segment as it is after the decision, as kubectl prints what it patched.
    let (_, text) = run(&server, &["rollback", "shop/deployment-db", "-o", "json"]);
    let printed: Segment = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(printed.spec.mode, Some(Mode::Audit));
    cluster.wait_for_phase("deployment-db", Phase::Auditing).await;
    until("the policy is removed", || async {
        cluster.policy("nanoseg-deployment-db").await.is_none().then_some(())
    })
    .await;
    assert_eq!(
        cluster.status("deployment-db").await.unwrap().edges,
        2,
        "the baseline is kept"
    );
    let (code, text) = run(&server, &["promote", "shop/nothing"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("Segment shop/nothing"), "{text}");
    assert_eq!(nanoseg.terminate(), Some(0), "{}", nanoseg.logged());
}
