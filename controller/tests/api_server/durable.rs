//! What a learner was told that it may forget, no controller's death loses.

use k8s_openapi::api::core::v1::ConfigMap;

use super::learners::{AUDIENCE, pod, send_with, token};
use super::*;

fn controller(server: &Server, port: u16, report_interval: &str) -> Running {
    server.open_controller("controller", port, &["--report-interval", report_interval])
}

async fn ports(cluster: &Cluster) -> Vec<u16> {
    let status = cluster.status("deployment-db").await.unwrap();
    status.baseline.iter().map(|learned| learned.edge.port).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn p27_an_edge_that_was_received_and_not_written_is_sent_again_and_not_lost() {
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

#[tokio::test(flavor = "multi_thread")]
async fn p27_an_api_server_that_stops_costs_no_edge() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let mut server = Server::start(&kubernetes).await;
    let cluster = Cluster::ready(&server).await;
    cluster.workload("web", "198.18.1.10").await;
    let db = cluster.workload("db", "198.18.1.11").await;
    let port = free_port();
    let nanoseg = controller(&server, port, "1s");
    let mut flows = vec![flow(&db, "198.18.1.10", 5432, "destination", 3)];
    send(port, report(&flows)).await.unwrap();

    // Ten seconds of its absence are five edges; an hour's would be as many as there are edges, since the last word of each is kept. Ten
    // ports of one destination would be a scan.
    server.pause();
    let mut unanswered = Vec::new();
    for new in 6000..6005 {
        flows.push(flow(&db, "198.18.1.10", new, "destination", 3));
        unanswered.push(tokio::spawn(send(port, report(&flows[flows.len() - 1..]))));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(
        unanswered.iter().all(|sent| !sent.is_finished()),
        "{}",
        nanoseg.logged()
    );
    server.resume().await;
    let cluster = Cluster {
        client: server.client().await,
    };
    for sent in unanswered {
        assert_eq!(sent.await.unwrap().unwrap(), 7);
    }
    let expected: Vec<u16> = [5432].into_iter().chain(6000..6005).collect();
    assert_eq!(ports(&cluster).await, expected, "acknowledged, so they are there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_pod_is_not_acknowledged_and_no_controllers_death_loses_it() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let cluster = Cluster::ready(&server).await;
    let account = json!({ "name": "nanoseg-learner", "namespace": "nanoseg" });
    cluster
        .create(json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": account }))
        .await;
    let learner = pod(&cluster, "learner-1", "node1").await;
    let token = token(
        &cluster.client,
        "nanoseg-learner",
        AUDIENCE,
        Some(("learner-1", &learner)),
    )
    .await;
    cluster.workload("web", "198.18.1.10").await;
    // A pod that a watch has not told yet where it is: nobody knows whether this learner may speak for it.
    let db = cluster.unbound("db").await;

    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let identity = ["--own-namespace", "nanoseg", "--listen", &listen, "--lease", "1s"];
    let rules = ["--report-interval", "1s", "--health-listen", "127.0.0.1:0"];
    let arguments = [&identity[..], &rules[..]].concat();
    let mut nanoseg = server.controller("first", &arguments);
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "nanoseg");
    let (ca, _) = until("the authority is published", || async {
        maps.get_opt("nanoseg-authority").await.unwrap()?.data?.remove("ca.crt")
    })
    .await;
    let says = |flows: Vec<Value>| {
        let report = json!({ "origin": { "node": "node1", "epoch": 1 }, "flows": flows });
        let (ca, token) = (ca.clone(), token.clone());
        async move { send_with(&ca, port, Some(&token), report).await }
    };
    until("the controller leads", || async { says(Vec::new()).await.ok() }).await;

    let seen = || flow(&db, "198.18.1.10", 5432, "destination", 3);
    let unanswered = tokio::spawn(says(vec![seen()]));
    // What needs no write, and waits for nobody, is acknowledged in less.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(says(Vec::new()).await.unwrap(), 3, "others go on");
    assert!(!unanswered.is_finished(), "acknowledged, and in no Segment");
    nanoseg.kill();
    assert!(
        unanswered.await.unwrap().is_err(),
        "the learner knows that it has to send it again"
    );

    let nanoseg = server.controller("second", &arguments);
    until("another controller leads", || async { says(Vec::new()).await.ok() }).await;
    let answered = tokio::spawn(says(vec![seen()]));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!answered.is_finished());
    cluster.bind("db", "198.18.1.11").await;
    assert_eq!(answered.await.unwrap().unwrap(), 3);
    assert_eq!(ports(&cluster).await, [5432], "acknowledged, so it is there");

    // Of a pod that nobody knows: nobody waits for it for ever, and it is counted.
    let (_, took) = until("it is given up", || async {
        says(vec![flow("nobody", "198.18.1.10", 5432, "destination", 3)])
            .await
            .ok()
    })
    .await;
    println!("a learner waited {took:?} for a pod that nobody knows");
    assert!(took > Duration::from_secs(9), "{took:?}");
    let metrics = probe(&nanoseg, "/metrics");
    let counted = "nanoseg_report_parts_refused_total{reason=\"no_such_pod\"} 1";
    assert!(metrics.lines().any(|line| line == counted), "{counted}\n{metrics}");
}
