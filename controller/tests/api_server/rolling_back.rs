//! A policy that cuts what it was to allow goes by itself, and says why.

use super::*;

/// A flow whose connections were tried so often and answered so often.
fn tried(uid: &str, peer: &str, port: u16, attempted: u64, established: u64) -> Value {
    let mut flow = flow(uid, peer, port, "destination", attempted);
    flow["established"] = established.into();
    flow
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_cuts_a_baseline_edge_is_taken_back_within_ten_seconds() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let cluster = Cluster::ready(&server).await;
    cluster.workload("web", "198.18.1.10").await;
    let db = cluster.workload("db", "198.18.1.11").await;
    let port = free_port();
    let mut nanoseg = controller(&server, port, 1);
    let learned = [tried(&db, "198.18.1.10", 5432, 9, 9)];
    send(port, report(&learned)).await.unwrap();
    cluster.wait_for_phase("deployment-db", Phase::Enforcing).await;
    // As long as engines are given.
    tokio::time::sleep(Duration::from_secs(3)).await;

    let cut = [tried(&db, "198.18.1.10", 5432, 12, 9)];
    let began = Instant::now();
    send(port, report(&cut)).await.unwrap();
    until("the policy is taken back", || async {
        cluster.policy("nanoseg-deployment-db").await.is_none().then_some(())
    })
    .await;
    let took = began.elapsed();
    println!("taken back {took:?} after it was told that nobody answers");
    assert!(took < Duration::from_secs(10), "taken back after {took:?}");
    let status = cluster.wait_for_phase("deployment-db", Phase::Degraded).await;
    assert_eq!(status.rolled_back.unwrap().edge.port, 5432);
    assert!(nanoseg.logged().contains("rolled back"), "{}", nanoseg.logged());

    until("an Event says so", || async {
        cluster.events("deployment-db").await.get("RolledBack").copied()
    })
    .await;

    // Answered again and restarted: it stays away, until a person tries it again.
    nanoseg.kill();
    let _nanoseg = controller(&server, port, 2);
    send(port, report(&[tried(&db, "198.18.1.10", 5432, 20, 17)]))
        .await
        .unwrap();
    assert!(cluster.policy("nanoseg-deployment-db").await.is_none());
    let segments = cluster.api::<Segment>();
    for (mode, phase) in [("Audit", Phase::Auditing), ("Enforce", Phase::Enforcing)] {
        let set = json!({ "spec": { "mode": mode } });
        segments
            .patch("deployment-db", &PatchParams::default(), &Patch::Merge(&set))
            .await
            .unwrap();
        cluster.wait_for_phase("deployment-db", phase).await;
    }
    assert!(cluster.policy("nanoseg-deployment-db").await.is_some());
}

/// What a run of the controller has written of a policy that has been live for ten minutes.
async fn live_for_ten_minutes(cluster: &Cluster, answered: &str) {
    let segments = cluster.api::<Segment>();
    let mut status = json!(cluster.status("deployment-db").await.unwrap());
    // As the controller writes times: to the second.
    let since = Timestamp::now() - jiff::SignedDuration::from_mins(10);
    status["history"][0]["at"] = json!(since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    status["baseline"][0]["answered"] = json!(answered);
    segments
        .patch_status(
            "deployment-db",
            &PatchParams::default(),
            &Patch::Merge(&json!({ "status": status })),
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_neither_forgets_a_trial_nor_takes_an_outage_of_the_server_for_the_policys_doing() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let cluster = Cluster::ready(&server).await;
    cluster.workload("web", "198.18.1.10").await;
    let db = cluster.workload("db", "198.18.1.11").await;
    let port = free_port();
    let mut nanoseg = controller(&server, port, 1);
    send(port, report(&[tried(&db, "198.18.1.10", 5432, 9, 9)]))
        .await
        .unwrap();
    cluster.wait_for_phase("deployment-db", Phase::Enforcing).await;
    nanoseg.kill();

    // The learner was restarted as well and counts anew; nobody answers any more.
    let mut attempted = 1;
    for (run, answered, stays) in [(2, "Enforced", true), (3, "Learning", false)] {
        live_for_ten_minutes(&cluster, answered).await;
        let mut nanoseg = controller(&server, port, run);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) && cluster.policy("nanoseg-deployment-db").await.is_some() {
            attempted += 1;
            send(port, report(&[tried(&db, "198.18.1.10", 5432, attempted, 0)]))
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        println!("{answered}: looked for {:?}", began.elapsed());
        assert_eq!(
            cluster.policy("nanoseg-deployment-db").await.is_some(),
            stays,
            "{answered}"
        );
        let taken_back = cluster.status("deployment-db").await.unwrap().rolled_back.is_some();
        assert_eq!(taken_back, !stays, "{answered}");
        nanoseg.kill();
    }
}
