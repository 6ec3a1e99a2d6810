//! A workload with very many peers: its Segment fits into an object of an API server, and nothing of it is lost.

use super::*;

const PEERS: usize = 5000;

fn controller(server: &Server, port: u16, run: u32) -> Running {
    let arguments = ["--enforce", "shop=2s", "--external-addresses", "10000"];
    server.open_controller(&format!("controller-{run}"), port, &arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_with_thousands_of_peers_is_kept_whole() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let cluster = Cluster::ready(&server).await;
    let db = cluster.workload("db", "198.18.1.11").await;
    let port = free_port();
    let mut nanoseg = controller(&server, port, 1);
    let flows: Vec<Value> = (1..=PEERS)
        .map(|peer| flow(&db, &format!("fd00:5::{peer:x}"), 5432, "destination", 3))
        .collect();
    send(port, report(&flows)).await.unwrap();
    let status = cluster.wait_for_phase("deployment-db", Phase::Enforcing).await;
    assert_eq!((status.edges, status.baseline.len()), (5000, PEERS));

    // As kubectl sees it.
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), "shop", &ApiResource::erase::<Segment>(&()));
    let object = api.get("deployment-db").await.unwrap();
    let size = serde_json::to_vec(&object).unwrap().len();
    println!("Segment with {PEERS} peers: {size} bytes");
    assert!(size < 1024 * 1024, "{size} bytes");
    let raw = &object.data["status"];
    assert_eq!(raw["baseline"].as_array().unwrap().len(), 100);
    assert!(raw["packed"].is_string() && raw["proposal"].is_null());

    let policy = cluster.policy("nanoseg-deployment-db").await.unwrap();
    let rules = policy.spec.unwrap().ingress.unwrap();
    assert_eq!(rules[0].from.as_ref().unwrap().len(), PEERS);

    // The next controller knows all of it from the Segment alone, and writes neither of both again.
    let before = cluster.versions().await;
    nanoseg.kill();
    let nanoseg = controller(&server, port, 2);
    until("it is in sync", || async {
        nanoseg.logged().contains("in sync").then_some(())
    })
    .await;
    send(port, report(&flows[..10])).await.unwrap();
    assert_eq!(cluster.versions().await, before);
}
