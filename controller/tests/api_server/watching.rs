//! What is known of a cluster is what its watches tell, however long they were cut off.

use std::collections::BTreeMap;

use super::proxy::Proxy;
use super::*;

/// Seconds for which there is no API server. `NANOSEG_OUTAGE` names another number: six minutes have ended watches for good
/// elsewhere.
const OUTAGE: u64 = 45;

/// Arguments of a controller that writes what it hears at once.
const PROMPT: [&str; 4] = ["--report-interval", "1s", "--enforce", "shop=1h"];

/// The collection of a request's path, and whether it asks for one object of it: `/api/v1/namespaces/shop/pods/web` is one of
/// `/api/v1/namespaces/shop/pods`.
fn collection(path: &str) -> (String, bool) {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    // Group and version, which the core group has one part less of.
    let version = if parts.first() == Some(&"api") { 2 } else { 3 };
    let namespaced = parts.get(version) == Some(&"namespaces") && parts.len() > version + 2;
    let plural = if namespaced { version + 2 } else { version };
    let end = parts.len().min(plural + 1);
    (parts[..end].join("/"), parts.len() > plural + 1)
}

#[test]
fn requests_for_one_object_are_told_from_those_for_all() {
    for (path, expected, one) in [
        ("/api/v1/pods", "api/v1/pods", false),
        ("/api/v1/namespaces", "api/v1/namespaces", false),
        ("/api/v1/namespaces/shop", "api/v1/namespaces", true),
        ("/api/v1/namespaces/shop/pods", "api/v1/namespaces/shop/pods", false),
        ("/api/v1/namespaces/shop/pods/web", "api/v1/namespaces/shop/pods", true),
        ("/apis/apps/v1/replicasets", "apis/apps/v1/replicasets", false),
        (
            "/apis/apps/v1/namespaces/shop/deployments/web/status",
            "apis/apps/v1/namespaces/shop/deployments",
            true,
        ),
    ] {
        assert_eq!(collection(path), (expected.to_owned(), one), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p30_pods_and_their_owners_are_never_asked_for_one_by_one() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let cluster = Cluster::ready(&server).await;
    let proxy = Proxy::start(server.client().await, server.folder.path()).await;
    let port = free_port();
    cluster.workload("web", "198.18.1.10").await;
    let nanoseg = proxy.controller(&server, port, &PROMPT);

    // Each is called by the one before it: many of one would be a scan.
    let mut flows = Vec::new();
    let mut caller = "198.18.1.10".to_owned();
    for number in 20..32 {
        let address = format!("198.18.1.{number}");
        let pod = cluster.workload(&format!("db{number}"), &address).await;
        flows.push(flow(&pod, &caller, 5432, "destination", 3));
        send(port, report(&flows)).await.unwrap();
        caller = address;
    }
    let pods: Api<Pod> = cluster.api();
    for number in 20..26 {
        let pod = format!("db{number}-5d4f-x");
        pods.delete(&pod, &DeleteParams::default().grace_period(0))
            .await
            .unwrap();
    }
    for number in 20..32 {
        let status = cluster.status(&format!("deployment-db{number}")).await.unwrap();
        assert!(!status.baseline.is_empty(), "acknowledged, so it is there: {status:?}");
    }

    let asked = proxy.asked();
    let reads = asked.iter().filter(|(method, _)| method == "GET");
    let mut lists: BTreeMap<String, usize> = BTreeMap::new();
    let mut singles = Vec::new();
    for (_, uri) in reads {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let (collection, one) = collection(path);
        // Its own place among controllers, which nobody needs to watch.
        if collection.ends_with("/leases") || !collection.contains("v1") {
            continue;
        }
        if one {
            singles.push(path);
        } else if !query.contains("watch=") && !query.contains("continue=") {
            *lists.entry(collection).or_default() += 1;
        }
    }
    assert_eq!(singles, [""; 0], "{}", nanoseg.logged());
    for needed in ["api/v1/pods", "apis/apps/v1/replicasets", "apis/apps/v1/deployments"] {
        assert_eq!(lists.get(needed), Some(&1), "{needed} is listed once: {lists:?}");
    }
    let repeated: Vec<_> = lists.iter().filter(|(_, count)| **count > 1).collect();
    assert!(repeated.is_empty(), "listed again and again: {repeated:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p31_watches_go_on_after_a_long_outage() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let outage = std::env::var("NANOSEG_OUTAGE").map_or(OUTAGE, |seconds| seconds.parse().unwrap());
    let mut server = Server::start(&kubernetes).await;
    let mut cluster = Cluster::ready(&server).await;
    let port = free_port();
    cluster.workload("web", "198.18.1.10").await;
    let db = cluster.workload("db", "198.18.1.11").await;
    let mut nanoseg = server.open_controller("controller", port, &PROMPT);
    send(port, report(&[flow(&db, "198.18.1.10", 5432, "destination", 3)]))
        .await
        .unwrap();

    server.pause();
    tokio::time::sleep(Duration::from_secs(outage)).await;
    server.resume().await;
    cluster.client = server.client().await;
    // Whoever came while nobody watched, and what its learner says of it.
    let cache = cluster.workload("cache", "198.18.1.12").await;
    let sent = tokio::spawn(send(
        port,
        report(&[flow(&cache, "198.18.1.10", 6379, "destination", 3)]),
    ));
    // A watch waits four seconds at most before it asks again.
    let acknowledged = tokio::time::timeout(PATIENCE, sent).await;
    assert!(!nanoseg.has_ended(), "{}", nanoseg.logged());
    assert_eq!(acknowledged.unwrap().unwrap().unwrap(), 7, "{}", nanoseg.logged());
    let status = cluster.status("deployment-cache").await.unwrap();
    let ports: Vec<u16> = status.baseline.iter().map(|learned| learned.edge.port).collect();
    assert_eq!(ports, [6379]);
}
