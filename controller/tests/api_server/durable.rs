//! What a learner was told that it may forget, no controller's death loses.

use super::*;

fn controller(server: &Server, port: u16, report_interval: &str) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nanoseg"));
    command
        .arg("controller")
        .arg("--kubeconfig")
        .arg(server.kubeconfig())
        .args(["--listen", &format!("127.0.0.1:{port}"), "--insecure-learners"])
        .args(["--report-interval", report_interval]);
    Running::start(&mut command, server.folder.path().join("controller.log"))
}

async fn ports(cluster: &Cluster) -> Vec<u16> {
    let status = cluster.status("deployment-db").await.unwrap();
    status.baseline.iter().map(|edge| edge.port).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_was_received_and_not_written_is_sent_again_and_not_lost() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let cluster = Cluster::ready(&server).await;
    cluster.workload("web", "198.18.1.10").await;
    let db = cluster.workload("db", "198.18.1.11").await;
    let port = free_port();

    // This one writes a Segment that it has just made, and no more of it for an hour.
    let mut nanoseg = controller(&server, port, "1h");
    let mut flows = vec![flow(&db, "198.18.1.10", 5432, "destination", 3)];
    send(port, report(&flows)).await.unwrap();
    assert_eq!(ports(&cluster).await, [5432], "acknowledged, so it is there");

    flows.push(flow(&db, "198.18.1.10", 6379, "destination", 3));
    let unanswered = tokio::spawn(send(port, report(&flows)));
    until("the edge is received", || async {
        nanoseg.logged().contains("6379").then_some(())
    })
    .await;
    // What needs no write is acknowledged in less.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!unanswered.is_finished(), "acknowledged, and in no Segment");
    assert_eq!(ports(&cluster).await, [5432]);
    nanoseg.kill();
    assert!(
        unanswered.await.unwrap().is_err(),
        "the learner knows that it has to send it again"
    );

    let _nanoseg = controller(&server, port, "1s");
    send(port, report(&flows)).await.unwrap();
    assert_eq!(ports(&cluster).await, [5432, 6379]);
}
