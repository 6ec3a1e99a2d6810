//! Others change what is live: they are named and not fought for ever; or they own it, and are only told.

use super::*;

fn told<'a>(status: &'a SegmentStatus, kind: &str) -> Option<(&'a str, &'a str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((&found.status, &found.reason))
}

async fn enforcing(cluster: &Cluster, port: u16) {
    cluster.workload("web", "198.18.1.10").await;
    let db = cluster.workload("db", "198.18.1.11").await;
    let flows = [flow(&db, "198.18.1.10", 5432, "destination", 9)];
    send(port, report(&flows)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_manager_that_keeps_fighting_is_reported_and_left_alone_for_longer_and_longer() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let cluster = Cluster::ready(&server).await;
    let port = free_port();
    let nanoseg = controller(&server, port, 1);
    enforcing(&cluster, port).await;
    cluster.wait_for_phase("deployment-db", Phase::Enforcing).await;
    let right = cluster.policy("nanoseg-deployment-db").await.unwrap().spec;

    // Another controller that puts back its own version as soon as it is not there.
    let theirs = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "nanoseg-deployment-db", "namespace": "shop" },
        "spec": { "podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress"] },
    });
    let policies: Api<NetworkPolicy> = cluster.api();
    let params = PatchParams::apply("argocd").force();
    let began = Instant::now();
    let mut edits = 0;
    while began.elapsed() < Duration::from_secs(15) {
        if cluster.policy("nanoseg-deployment-db").await.unwrap().spec == right {
            let applied = policies
                .patch("nanoseg-deployment-db", &params, &Patch::Apply(&theirs))
                .await;
            edits += usize::from(applied.is_ok());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let repairs = nanoseg.logged().matches("drift repaired").count();
    println!("{repairs} repairs and {edits} edits within 15 s");
    // Five at once, and after one, two, four and eight seconds.
    assert!((5..=9).contains(&repairs), "{repairs} repairs");
    let (status, _) = until("it is told who fights", || async {
        cluster
            .status("deployment-db")
            .await
            .filter(|status| status.phase == Phase::Degraded)
    })
    .await;
    assert!(status.reason.contains("field manager argocd"), "{}", status.reason);
    assert_eq!(told(&status, "Contested"), Some(("True", "Fighting")));
    until("an Event says so", || async {
        cluster.events("deployment-db").await.get("Contested").copied()
    })
    .await;
    // Nobody fights any more: the last edit is repaired when its time has come.
    until("the last edit is repaired", || async {
        let live = cluster.policy("nanoseg-deployment-db").await?;
        (live.spec == right).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_others_own_are_compared_and_never_written() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let cluster = Cluster::ready(&server).await;
    let port = free_port();
    let arguments = ["--report-only", "--enforce", "shop=2s", "--report-interval", "1s"];
    let nanoseg = server.open_controller("controller", port, &arguments);
    enforcing(&cluster, port).await;
    let differs = |word: &'static str| {
        let cluster = &cluster;
        async move {
            until(&format!("drift is told: {word}"), || async {
                let status = cluster.status("deployment-db").await?;
                (told(&status, "InSync") == Some(("False", word))).then_some(status)
            })
            .await
            .0
        }
    };
    let status = differs("DriftMissing").await;
    assert_eq!(status.phase, Phase::Proposed);
    assert!(cluster.policy("nanoseg-deployment-db").await.is_none());

    // What a person merges and another controller applies.
    let policies: Api<NetworkPolicy> = cluster.api();
    let params = PatchParams::apply("argocd").force();
    let proposal: Value = serde_yaml::from_str(&status.proposal.unwrap()).unwrap();
    policies
        .patch("nanoseg-deployment-db", &params, &Patch::Apply(&proposal))
        .await
        .unwrap();
    let status = cluster.wait_for_phase("deployment-db", Phase::Enforcing).await;
    assert_eq!(told(&status, "InSync"), Some(("True", "Same")));

    let edit = json!({ "spec": { "ingress": [{}] } });
    policies
        .patch("nanoseg-deployment-db", &PatchParams::default(), &Patch::Merge(&edit))
        .await
        .unwrap();
    differs("DriftDiffers").await;
    policies
        .delete("nanoseg-deployment-db", &DeleteParams::default())
        .await
        .unwrap();
    differs("DriftMissing").await;
    assert!(cluster.policy("nanoseg-deployment-db").await.is_none());
    until("an Event says so", || async {
        cluster.events("deployment-db").await.get("Drift").copied()
    })
    .await;
    let log = nanoseg.logged();
    for written in ["policy applied", "drift repaired", "policy removed"] {
        assert!(!log.contains(written), "{log}");
    }
}
