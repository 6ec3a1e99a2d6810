//! `nanoseg controller` against a real API server, from a learner's report by gRPC to policies that are kept in sync.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accepting;
mod asking;
mod chaos;
mod doctor;
mod drifting;
mod durable;
mod gates;
mod guarding;
mod large;
mod leading;
mod learners;
mod leaving;
mod mapping;
mod proxy;
mod reviewing;
mod rolling_back;
mod server;
mod shipping;
mod watching;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Client, ResourceExt as _};
use nanoseg::receive::{Increment, ReportsClient};
use nanoseg::segment::{Decision, Phase, Segment, SegmentStatus};
use serde_json::{Value, json};

use server::{Running, Server, free_port, probe};

const PATIENCE: Duration = Duration::from_secs(20);
/// Asks about a connection of the workloads that these tests make.
const WEB_TO_DB: [&str; 7] = [
    "explain",
    "--from",
    "shop/web-5d4f-x",
    "--to",
    "shop/db-5d4f-x",
    "--port",
    "5432",
];

/// How often something that has to be done within a second is tried on a busy machine.
const TRIES: i32 = 3;

/// Waits until `check` returns something, and returns how long that took.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> (T, Duration) {
    let began = Instant::now();
    loop {
        if let Some(found) = check().await {
            return (found, began.elapsed());
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Cluster {
    client: Client,
}

impl Cluster {
    /// With the CRD, the namespaces and a node.
    async fn ready(server: &Server) -> Self {
        let cluster = Self {
            client: server.client().await,
        };
        cluster
            .create(serde_yaml::from_str(&nanoseg::cli::crd_yaml().unwrap()).unwrap())
            .await;
        for namespace in ["shop", "nanoseg"] {
            cluster
                .create(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }))
                .await;
        }
        cluster
            .create(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node1" } }))
            .await;
        cluster
    }

    /// With the CRD, and one namespace that is to be audited.
    async fn audited(server: &Server) -> Self {
        let cluster = Self {
            client: server.client().await,
        };
        cluster
            .create(serde_yaml::from_str(&nanoseg::cli::crd_yaml().unwrap()).unwrap())
            .await;
        let labels = json!({ "nanoseg.io/mode": "audit" });
        cluster
            .create(
                json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop", "labels": labels } }),
            )
            .await;
        cluster
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "shop")
    }

    async fn create(&self, object: Value) -> DynamicObject {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let kind = object.types.as_ref().unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(kind).unwrap());
        let api: Api<DynamicObject> = match object.metadata.namespace.as_deref() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let params = PatchParams::apply("test");
        api.patch(&object.name_any(), &params, &Patch::Apply(&object))
            .await
            .unwrap()
    }

    /// A Deployment with one pod, as a cluster's own controllers would make them. Returns the pod's UID.
    async fn workload(&self, name: &str, address: &str) -> String {
        let uid = self.unbound(name).await;
        self.bind(name, address).await;
        uid
    }

    /// The same before the scheduler has found a node for the pod.
    async fn unbound(&self, name: &str) -> String {
        let template = json!({
            "metadata": { "labels": { "app": name } },
            "spec": { "containers": [{ "name": "c", "image": "none" }] },
        });
        let deployment = self
            .create(json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": "shop" },
                "spec": { "selector": { "matchLabels": { "app": name } }, "template": template },
            }))
            .await;
        let owner = |kind: &str, object: &DynamicObject| json!([{ "apiVersion": "apps/v1", "kind": kind, "name": object.name_any(), "uid": object.uid(), "controller": true }]);
        let labels = json!({ "app": name, "pod-template-hash": "5d4f" });
        let set = self
            .create(json!({
                "apiVersion": "apps/v1", "kind": "ReplicaSet",
                "metadata": {
                    "name": format!("{name}-5d4f"), "namespace": "shop", "labels": labels,
                    "ownerReferences": owner("Deployment", &deployment),
                },
                "spec": {
                    "selector": { "matchLabels": labels },
                    "template": { "metadata": { "labels": labels }, "spec": template["spec"] },
                },
            }))
            .await;
        let pod = self
            .create(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": format!("{name}-5d4f-x"), "namespace": "shop", "labels": labels,
                    "ownerReferences": owner("ReplicaSet", &set),
                },
                "spec": { "containers": [{ "name": "c", "image": "none" }] },
            }))
            .await;
        pod.uid().unwrap()
    }

    /// Binds that pod to the node, where it runs from then on.
    async fn bind(&self, name: &str, address: &str) {
        let pods: Api<Pod> = self.api();
        let pod = format!("{name}-5d4f-x");
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": pod, "namespace": "shop" },
            "target": { "apiVersion": "v1", "kind": "Node", "name": "node1" },
        });
        let _bound: Value = pods
            .create_subresource("binding", &pod, &PostParams::default(), &binding)
            .await
            .unwrap();
        let status = json!({ "status": {
            "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "startTime": "2026-01-01T00:00:00Z",
        }});
        pods.patch_status(&pod, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }

    async fn policy(&self, name: &str) -> Option<NetworkPolicy> {
        self.api::<NetworkPolicy>().get_opt(name).await.ok().flatten()
    }

    async fn status(&self, name: &str) -> Option<SegmentStatus> {
        self.api::<Segment>().get_opt(name).await.ok().flatten()?.status
    }

    async fn wait_for_phase(&self, name: &str, phase: Phase) -> SegmentStatus {
        let what = format!("Segment {name} in phase {}", phase.as_str());
        until(&what, || async {
            self.status(name).await.filter(|status| status.phase == phase)
        })
        .await
        .0
    }

    /// Why there are Events about a Segment, and of how many things each tells.
    async fn events(&self, segment: &str) -> BTreeMap<String, i32> {
        let events: Api<k8s_openapi::api::events::v1::Event> = self.api();
        let events = events.list(&ListParams::default()).await.unwrap().into_iter();
        let uid = self.api::<Segment>().get(segment).await.unwrap().uid();
        events
            .filter(|event| event.regarding.as_ref().and_then(|regarding| regarding.uid.clone()) == uid)
            .map(|event| (event.reason.unwrap(), event.series.map_or(1, |series| series.count)))
            .collect()
    }

    /// Resource versions of everything that the controller writes.
    async fn versions(&self) -> BTreeMap<String, Option<String>> {
        let mut versions = BTreeMap::new();
        for segment in self.api::<Segment>().list(&ListParams::default()).await.unwrap() {
            versions.insert(format!("segment {}", segment.name_any()), segment.resource_version());
        }
        for policy in self.api::<NetworkPolicy>().list(&ListParams::default()).await.unwrap() {
            versions.insert(format!("policy {}", policy.name_any()), policy.resource_version());
        }
        versions
    }
}

fn flow(uid: &str, peer: &str, port: u16, reporter: &str, count: u64) -> Value {
    json!({
        "subject": { "container": { "pod_uid": uid, "container_id": uid } }, "peer": peer, "port": port, "transport": "TCP",
        "reporter": reporter, "first_seen": Timestamp::now(), "last_seen": Timestamp::now(),
        "attempted": count, "established": count, "refused": 0,
    })
}

/// Sends one report on a stream of its own, and returns the sequence number that was acknowledged.
async fn send(port: u16, bytes: Vec<u8>) -> Result<u64, tonic::Status> {
    let (mut client, _) = until("the controller listens", || async {
        ReportsClient::connect(format!("http://127.0.0.1:{port}")).await.ok()
    })
    .await;
    let increments = tokio_stream::iter([Increment {
        sequence: 7,
        report: bytes,
    }]);
    let mut answers = client.send(increments).await?.into_inner();
    Ok(answers
        .message()
        .await?
        .map_or(0, |acknowledgement| acknowledgement.sequence))
}

fn report(flows: &[Value]) -> Vec<u8> {
    json!({ "origin": { "node": "node1", "epoch": 1 }, "flows": flows })
        .to_string()
        .into_bytes()
}

fn controller(server: &Server, port: u16, run: u32) -> Running {
    let arguments = [
        "--enforce",
        "shop=2s",
        "--report-interval",
        "1s",
        "--health-listen",
        "127.0.0.1:0",
    ];
    server.open_controller(&format!("controller-{run}"), port, &arguments)
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one story on one API server, which takes seconds to start"
)]
async fn policies_follow_what_learners_report_and_outlive_the_controller() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let mut server = Server::start(&kubernetes).await;
    let cluster = Cluster {
        client: server.client().await,
    };
    let port = free_port();

    // Without the CRD the controller says what to do, and goes on by itself once it is there.
    let mut nanoseg = controller(&server, port, 1);
    until("the controller asks for the CRD", || async {
        nanoseg
            .logged()
            .contains("nanoseg crd | kubectl apply -f -")
            .then_some(())
    })
    .await;
    until("the controller tells what it still has to read", || async {
        let ready = probe(&nanoseg, "/readyz");
        (ready.contains(" 503 ") && ready.ends_with("still reading segments\n")).then_some(())
    })
    .await;
    assert!(probe(&nanoseg, "/healthz").contains(" 200 "));
    cluster
        .create(serde_yaml::from_str(&nanoseg::cli::crd_yaml().unwrap()).unwrap())
        .await;
    cluster
        .create(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } }))
        .await;
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node1" }, "spec": { "podCIDRs": ["198.18.1.0/24"], "podCIDR": "198.18.1.0/24" },
    });
    cluster.create(node).await;
    let web = cluster.workload("web", "198.18.1.10").await;
    let db = cluster.workload("db", "198.18.1.11").await;
    let intruder = cluster.workload("intruder", "198.18.1.66").await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "db", "namespace": "shop" },
        "spec": { "clusterIP": "198.19.0.10", "selector": { "app": "db" }, "ports": [{ "port": 80, "targetPort": 5432 }] },
    });
    cluster.create(service).await;
    // People's own policy: never touched.
    let foreign = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "theirs", "namespace": "shop" },
        "spec": { "podSelector": { "matchLabels": { "app": "other" } }, "policyTypes": ["Ingress"] },
    });
    cluster.create(foreign).await;
    let theirs = cluster.policy("theirs").await.unwrap().resource_version();

    // Bytes that are no report end their stream, and nothing else.
    let refused = send(port, b"{}".to_vec()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");

    let mut flows = vec![
        flow(&web, "198.19.0.10", 80, "source", 3),
        flow(&db, "198.18.1.10", 5432, "destination", 3),
    ];
    assert_eq!(send(port, report(&flows)).await.unwrap(), 7);
    let learning = cluster.wait_for_phase("deployment-db", Phase::Learning).await;
    assert!(
        learning.proposal.is_some(),
        "the proposal is there before anything is applied"
    );

    let status = cluster.wait_for_phase("deployment-db", Phase::Enforcing).await;
    assert_eq!((status.edges, status.novel), (1, 0));
    assert_eq!(status.baseline[0].edge.port, 5432, "the target port, not the Service's");
    let applied = cluster.policy("nanoseg-deployment-db").await.unwrap();
    let spec = applied.spec.clone().unwrap();
    assert_eq!(spec.policy_types.as_deref(), Some(&["Ingress".to_owned()][..]));
    cluster.wait_for_phase("deployment-web", Phase::Enforcing).await;

    // Drift: an edit and a deletion are repaired within a second, at the latest when tried again: a busy machine pauses now and then.
    let policies: Api<NetworkPolicy> = cluster.api();
    let edit = json!({ "spec": { "ingress": [{}], "egress": [{}], "policyTypes": ["Ingress", "Egress"] } });
    let repaired = || async {
        cluster
            .policy("nanoseg-deployment-db")
            .await
            .filter(|policy| policy.spec.as_ref() == Some(&spec))
    };
    let mut drifts = [0; 2];
    for (drift, what) in ["an edit", "a deletion"].into_iter().enumerate() {
        let mut took = Duration::MAX;
        while took > Duration::from_secs(1) && drifts[drift] < TRIES {
            drifts[drift] += 1;
            match drift {
                0 => policies
                    .patch("nanoseg-deployment-db", &PatchParams::default(), &Patch::Merge(&edit))
                    .await
                    .map(drop),
                _ => policies
                    .delete("nanoseg-deployment-db", &DeleteParams::default())
                    .await
                    .map(drop),
            }
            .unwrap();
            (_, took) = until("the policy is as it was", repaired).await;
        }
        assert!(took < Duration::from_secs(1), "{what} was repaired after {took:?}");
    }
    until("all repairs are one Event", || async {
        let events = cluster.events("deployment-db").await;
        (events.get("DriftRepaired") == Some(&drifts.iter().sum())).then_some(())
    })
    .await;

    // A novel edge is a violation, and is not learned.
    flows.push(flow(&db, "198.18.1.66", 5432, "destination", 2));
    flows.push(flow(&intruder, "198.18.1.11", 5432, "source", 2));
    let began = Instant::now();
    send(port, report(&flows)).await.unwrap();
    let (violated, _) = until("the violation is counted", || async {
        cluster.status("deployment-db").await.filter(|status| status.novel == 1)
    })
    .await;
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(5),
        "a violation was in no status for {took:?}"
    );
    let violation = &violated.novel_edges[0];
    assert_eq!((violation.count, violation.decision), (2, Some(Decision::Denied)));
    assert!(violation.first_seen.is_some());
    until("each phase and the violation are Events", || async {
        let events = cluster.events("deployment-db").await;
        let told = ["Learning", "Proposed", "Enforcing", "Violation"];
        told.iter().all(|reason| events.contains_key(*reason)).then_some(())
    })
    .await;
    assert_eq!(
        cluster.policy("nanoseg-deployment-db").await.unwrap().spec,
        Some(spec.clone())
    );
    assert!(nanoseg.logged().contains("violation, denied"), "{}", nanoseg.logged());
    cluster.wait_for_phase("deployment-intruder", Phase::Enforcing).await;

    // It has counted what it did.
    assert!(probe(&nanoseg, "/readyz").contains(" 200 "));
    let metrics = probe(&nanoseg, "/metrics");
    for line in [
        "nanoseg_in_sync 1",
        "nanoseg_leader 1",
        "nanoseg_nodes 1",
        "nanoseg_policies_live 3",
        "nanoseg_segments{mode=\"Enforce\",phase=\"Enforcing\"} 3",
        &format!("nanoseg_drift_repaired_total{{cause=\"edited\"}} {}", drifts[0]),
        &format!("nanoseg_drift_repaired_total{{cause=\"deleted\"}} {}", drifts[1]),
        "nanoseg_novel_edges_total{verdict=\"denied\",enforced=\"true\"} 1",
        "nanoseg_workload_novel_edges_total{namespace=\"shop\",kind=\"Deployment\",workload=\"db\"} 1",
        "nanoseg_learner_refusals_total{reason=\"no_report\"} 1",
        "nanoseg_writes_total{object=\"policy\",action=\"put\",outcome=\"failed\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}:\n{metrics}");
    }

    // The steady state writes nothing, whatever is counted.
    let before = cluster.versions().await;
    for count in 10..13 {
        flows[0] = flow(&web, "198.19.0.10", 80, "source", count);
        send(port, report(&flows)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
    assert_eq!(cluster.versions().await, before);

    // A controller that is killed leaves policies as they are; one that comes back knows nothing but the Segments, and repairs.
    nanoseg.kill();
    assert_eq!(cluster.versions().await, before);
    policies
        .delete("nanoseg-deployment-db", &DeleteParams::default())
        .await
        .unwrap();
    let mut nanoseg = controller(&server, port, 2);
    until("the policy is back from its Segment alone", repaired).await;
    let after = cluster.versions().await;
    for (object, version) in &before {
        assert!(
            after.get(object) == Some(version) || object == "policy nanoseg-deployment-db",
            "{object} was written"
        );
    }

    // An API server that is away is one sentence, and afterwards everything goes on.
    server.pause();
    until("the outage is told", || async {
        nanoseg.logged().contains("cannot use the API server at").then_some(())
    })
    .await;
    server.resume().await;
    policies
        .delete("nanoseg-deployment-web", &DeleteParams::default())
        .await
        .unwrap();
    until("the policy is back after the outage", || {
        cluster.policy("nanoseg-deployment-web")
    })
    .await;

    // Switched off by a person: removed. Its workload deleted: removed.
    let off = json!({ "spec": { "mode": "Off" } });
    cluster
        .api::<Segment>()
        .patch("deployment-web", &PatchParams::default(), &Patch::Merge(&off))
        .await
        .unwrap();
    cluster.wait_for_phase("deployment-web", Phase::Off).await;
    until("the policy is removed", || async {
        cluster.policy("nanoseg-deployment-web").await.is_none().then_some(())
    })
    .await;
    cluster
        .api::<Deployment>()
        .delete("db", &DeleteParams::default())
        .await
        .unwrap();
    cluster
        .api::<Pod>()
        .delete("db-5d4f-x", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let sets: Api<k8s_openapi::api::apps::v1::ReplicaSet> = cluster.api();
    sets.delete("db-5d4f", &DeleteParams::default()).await.unwrap();
    until("the policy of the deleted workload is removed", || async {
        cluster.policy("nanoseg-deployment-db").await.is_none().then_some(())
    })
    .await;
    cluster.wait_for_phase("deployment-db", Phase::Gone).await;

    assert_eq!(cluster.policy("theirs").await.unwrap().resource_version(), theirs);
    assert_eq!(nanoseg.terminate(), Some(0), "{}", nanoseg.logged());
    assert!(
        cluster.policy("nanoseg-deployment-intruder").await.is_some(),
        "ending leaves policies as they are"
    );
}
