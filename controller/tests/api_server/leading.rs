//! Two controllers, one Lease, one writer: killed, frozen and thawed, ended.

use tonic::Code;

use super::*;

/// What a controller logs when it has changed a policy.
const CHANGES: [&str; 3] = ["policy applied", "drift repaired", "policy removed"];

pub(super) fn one_of_two(server: &Server, port: u16, name: &str) -> Running {
    let lease = ["--own-namespace", "nanoseg", "--lease", "2s"];
    let rules = ["--enforce", "shop=2s", "--report-interval", "1s"];
    server.open_controller(name, port, &[lease, rules].concat())
}

fn changes(controller: &Running) -> usize {
    let log = controller.logged();
    CHANGES.iter().map(|change| log.matches(change).count()).sum()
}

async fn leads(port: u16, report: &[u8]) -> Duration {
    let (_, took) = until("a controller takes reports", || async {
        send(port, report.to_vec()).await.ok()
    })
    .await;
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_controllers_writes_and_the_other_takes_over() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let cluster = Cluster::ready(&server).await;
    let web = cluster.workload("web", "198.18.1.10").await;
    let db = cluster.workload("db", "198.18.1.11").await;
    let cache = cluster.workload("cache", "198.18.1.12").await;
    let mut flows = vec![
        flow(&web, "198.18.1.11", 5432, "source", 3),
        flow(&db, "198.18.1.10", 5432, "destination", 3),
    ];

    let (port, other) = (free_port(), free_port());
    let mut first = one_of_two(&server, port, "first");
    leads(port, &report(&flows)).await;
    let second = one_of_two(&server, other, "second");
    until("the second one knows who leads", || async {
        second.logged().contains("another controller leads").then_some(())
    })
    .await;
    let refused = send(other, report(&flows)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("leads"), "{refused}");
    cluster.wait_for_phase("deployment-web", Phase::Enforcing).await;
    cluster.wait_for_phase("deployment-db", Phase::Enforcing).await;
    assert_eq!(changes(&second), 0, "{}", second.logged());

    // Killed: the other one leads when the Lease is over, from what is durable.
    first.kill();
    let took = leads(other, &report(&flows)).await;
    println!("taken over {took:?} after the leader was killed");
    assert!(took < Duration::from_secs(5), "taken over after {took:?}");
    let policies: Api<NetworkPolicy> = cluster.api();
    policies
        .delete("nanoseg-deployment-db", &DeleteParams::default())
        .await
        .unwrap();
    until("the new leader repairs", || cluster.policy("nanoseg-deployment-db")).await;
    let learned = cluster.status("deployment-db").await.unwrap();
    assert_eq!((learned.phase, learned.edges), (Phase::Enforcing, 1));

    // Frozen with something left to write, and thawed long after another has taken over: it writes nothing.
    let mut first = one_of_two(&server, port, "first");
    until("the first one follows", || async {
        first.logged().contains("another controller leads").then_some(())
    })
    .await;
    flows.push(flow(&cache, "198.18.1.10", 6379, "destination", 2));
    let unfinished = tokio::spawn(send(other, report(&flows)));
    until("the report is with the leader", || async {
        let connected = second.logged().matches("learner connected").count();
        (connected >= 2).then_some(())
    })
    .await;
    second.freeze();
    let took = leads(port, &report(&flows[..2])).await;
    println!("taken over {took:?} after the leader was frozen");
    assert!(took < Duration::from_secs(5), "taken over after {took:?}");
    let off = json!({ "spec": { "mode": "Off" } });
    cluster
        .api::<Segment>()
        .patch("deployment-web", &PatchParams::default(), &Patch::Merge(&off))
        .await
        .unwrap();
    cluster.wait_for_phase("deployment-web", Phase::Off).await;
    until("the new leader removes the policy", || async {
        cluster.policy("nanoseg-deployment-web").await.is_none().then_some(())
    })
    .await;
    // Three times as long as the Lease lasts, as a minute is of one of twenty seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (versions, written) = (cluster.versions().await, changes(&second));
    second.thaw();
    until("the thawed one follows", || async {
        let log = second.logged();
        log.rfind("another controller leads")
            .filter(|at| Some(*at) > log.rfind("this controller leads"))
            .map(drop)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.versions().await, versions, "{}", second.logged());
    assert_eq!(changes(&second), written, "{}", second.logged());
    drop(unfinished);

    // Asked to end, it gives the Lease back, and nobody waits for its end.
    assert_eq!(first.terminate(), Some(0), "{}", first.logged());
    let took = leads(other, &report(&flows)).await;
    println!("taken over {took:?} after the leader ended");
    assert!(took < Duration::from_millis(1500), "taken over after {took:?}");
}
