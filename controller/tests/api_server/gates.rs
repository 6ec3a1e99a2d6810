//! What pods must have gone through before their workload is promoted: a whole run of a `CronJob`, a learner on each node, a rollout.

use super::chaos::learner;
use super::*;

/// What keeps a Segment from being promoted: a word and the sentence.
fn promotable(status: &SegmentStatus) -> Option<(&str, &str)> {
    let mut conditions = status.conditions.iter();
    let promotable = conditions.find(|condition| condition.type_ == "Promotable")?;
    Some((&promotable.reason, &promotable.message))
}

/// Waits until a Segment is not promoted for this reason. Returns the sentence.
async fn wait_for_reason(cluster: &Cluster, name: &str, reason: &str) -> String {
    let what = format!("Segment {name} held back: {reason}");
    let found = until(&what, || async {
        let status = cluster.status(name).await?;
        let (word, message) = promotable(&status)?;
        (word == reason).then(|| message.to_owned())
    });
    found.await.0
}

fn owner(kind: &str, api: &str, object: &DynamicObject) -> Value {
    json!([{ "apiVersion": api, "kind": kind, "name": object.name_any(), "uid": object.uid(), "controller": true }])
}

/// What kubelet and the Job's controller tell of a pod.
async fn set_status(cluster: &Cluster, pod: &str, status: Value) {
    cluster
        .api::<Pod>()
        .patch_status(
            pod,
            &PatchParams::default(),
            &Patch::Merge(&json!({ "status": status })),
        )
        .await
        .unwrap();
}

/// A run of a `CronJob` that has just begun. Returns the UID of its pod.
async fn run(cluster: &Cluster, cron_job: &DynamicObject, number: u32, address: &str) -> String {
    let name = format!("{}-{number}", cron_job.name_any());
    let template = json!({
        "metadata": { "labels": { "app": "bill" } },
        "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "none" }] },
    });
    let job = cluster
        .create(json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {
                "name": name, "namespace": "shop", "ownerReferences": owner("CronJob", "batch/v1", cron_job),
            },
            "spec": { "template": template },
        }))
        .await;
    let pod = cluster
        .create(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{name}-x"), "namespace": "shop", "labels": { "app": "bill" },
                "ownerReferences": owner("Job", "batch/v1", &job),
            },
            "spec": { "nodeName": "node1", "restartPolicy": "Never", "containers": [{ "name": "c", "image": "none" }] },
        }))
        .await;
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = json!({ "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "startTime": now });
    set_status(cluster, &pod.name_any(), status).await;
    pod.uid().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_promoted_when_its_pods_have_shown_what_they_do() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let cluster = Cluster::ready(&server).await;
    cluster
        .create(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node2" } }))
        .await;
    let db = cluster.workload("db", "198.18.1.11").await;
    let web = cluster.workload("web", "198.18.1.10").await;
    // Another pod of the same ReplicaSet, where no learner is.
    let sets: Api<k8s_openapi::api::apps::v1::ReplicaSet> = cluster.api();
    let set = sets.get("web-5d4f").await.unwrap();
    let elsewhere = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web-5d4f-y", "namespace": "shop", "labels": { "app": "web", "pod-template-hash": "5d4f" },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": set.uid(), "controller": true,
            }],
        },
        "spec": { "nodeName": "node2", "containers": [{ "name": "c", "image": "none" }] },
    });
    cluster.create(elsewhere).await;
    let condition = |ready: &str| json!([{ "type": "Ready", "status": ready }]);
    let running = |ready: &str| {
        json!({
            "phase": "Running", "podIP": "198.18.2.10", "podIPs": [{ "ip": "198.18.2.10" }],
            "startTime": "2026-01-01T00:00:00Z", "conditions": condition(ready),
        })
    };
    set_status(&cluster, "web-5d4f-y", running("True")).await;
    let cron_job = cluster
        .create(json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "bill", "namespace": "shop" },
            "spec": {
                "schedule": "0 3 * * *",
                "jobTemplate": { "spec": { "template": {
                    "metadata": { "labels": { "app": "bill" } },
                    "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "none" }] },
                } } },
            },
        }))
        .await;
    run(&cluster, &cron_job, 1, "198.18.1.31").await;

    let port = free_port();
    let _nanoseg = controller(&server, port, 1);
    let flows = [
        flow(&db, "198.18.1.10", 5432, "destination", 3),
        flow(&web, "198.18.1.11", 5432, "source", 3),
        flow(&db, "198.18.1.31", 5432, "destination", 3),
    ];
    // One that has no stream for half a minute is away.
    let here = learner(port, report(&flows));

    // Who has neither a schedule nor a pod elsewhere waits for nobody else.
    let status = cluster.wait_for_phase("deployment-db", Phase::Enforcing).await;
    assert_eq!(status.coverage.unwrap().share.as_deref(), Some("100%"));
    let message = wait_for_reason(&cluster, "deployment-web", "NotWatched").await;
    assert!(
        message.starts_with("not promoted because no learner reports from node node2, where pod web-5d4f-y is"),
        "{message}"
    );
    let message = wait_for_reason(&cluster, "cronjob-bill", "NoRun").await;
    assert!(
        message.starts_with("not promoted because no run has ended yet"),
        "{message}"
    );
    until("Events say so", || async {
        let events: Api<k8s_openapi::api::events::v1::Event> = cluster.api();
        let events = events.list(&ListParams::default()).await.ok()?;
        let notes: Vec<String> = events.into_iter().filter_map(|event| event.note).collect();
        let told = |start: &str| notes.iter().any(|note| note.starts_with(start));
        (told("not promoted because no learner reports from node node2")
            && told("not promoted because no run has ended"))
        .then_some(())
    })
    .await;
    let web_status = cluster.status("deployment-web").await.unwrap();
    assert_eq!(web_status.phase, Phase::Stabilizing);
    let coverage = web_status.coverage.unwrap();
    assert_eq!(
        (coverage.share.as_deref(), &coverage.unwatched_nodes[..]),
        (Some("50%"), &["node2".to_owned()][..])
    );
    assert!(cluster.policy("nanoseg-deployment-web").await.is_none());

    // The other node gets its learner, and the pod on it is restarted.
    set_status(&cluster, "web-5d4f-y", running("False")).await;
    let nothing = json!({ "origin": { "node": "node2", "epoch": 1 }, "flows": [] }).to_string();
    let there = learner(port, nothing.into_bytes());
    let status = cluster.wait_for_phase("deployment-web", Phase::Enforcing).await;
    assert_eq!(
        status.coverage.unwrap().share.as_deref(),
        Some("100%"),
        "one that is old and not ready is broken"
    );

    // The next run, from its begin to its end.
    run(&cluster, &cron_job, 2, "198.18.1.32").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.status("cronjob-bill").await.unwrap().phase, Phase::Stabilizing);
    set_status(&cluster, "bill-2-x", json!({ "phase": "Succeeded" })).await;
    let status = cluster.wait_for_phase("cronjob-bill", Phase::Enforcing).await;
    assert!(status.last_run.is_some());
    here.abort();
    there.abort();
}
