//! Labels by which policies know a workload, and who may put them on: the cluster's own controllers run here.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use nanoseg_graph::endpoint::Workload;

use super::shipping::{CONTROLLER, acting_as, api_of, install, put};
use super::*;

/// What makes the pods of the workloads below, and of nothing else.
const CONTROLLERS: [&str; 6] = [
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "daemonset-controller",
    "job-controller",
    "cronjob-controller",
];

/// The workloads that policies know, each by its own label.
const KNOWN: [(&str, &str); 6] = [
    ("Deployment", "web"),
    ("StatefulSet", "db"),
    ("DaemonSet", "agent"),
    ("Job", "load"),
    ("CronJob", "report"),
    ("Pod", "solo"),
];

/// An object of a kind that has a pod template, or is one.
fn object(namespace: &str, kind: &str, name: &str, labels: &Value) -> DynamicObject {
    let template = |restart: &str| {
        json!({
            "metadata": { "labels": labels },
            "spec": { "restartPolicy": restart, "containers": [{ "name": "c", "image": "first" }] },
        })
    };
    let selector = json!({ "matchLabels": labels });
    let (version, spec) = match kind {
        "Pod" => ("v1", template("Always")["spec"].clone()),
        "ReplicationController" => (
            "v1",
            json!({ "replicas": 1, "selector": labels, "template": template("Always") }),
        ),
        "Job" => ("batch/v1", json!({ "template": template("Never") })),
        "CronJob" => {
            let spec = json!({ "spec": { "template": template("Never") } });
            ("batch/v1", json!({ "schedule": "* * * * *", "jobTemplate": spec }))
        }
        "StatefulSet" => (
            "apps/v1",
            json!({ "serviceName": name, "selector": selector, "template": template("Always") }),
        ),
        _ => (
            "apps/v1",
            json!({ "selector": selector, "template": template("Always") }),
        ),
    };
    let metadata = if kind == "Pod" {
        json!({ "namespace": namespace, "name": name, "labels": labels })
    } else {
        json!({ "namespace": namespace, "name": name })
    };
    serde_json::from_value(json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec })).unwrap()
}

/// What somebody may do in both namespaces.
fn rights(name: &str, rules: &Value) -> [Value; 2] {
    let rbac = "rbac.authorization.k8s.io";
    [
        json!({ "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules }),
        json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": { "name": name },
            "roleRef": { "apiGroup": rbac, "kind": "ClusterRole", "name": name },
            "subjects": [{ "apiGroup": rbac, "kind": "User", "name": name }],
        }),
    ]
}

/// Says what a Segment's labels are, as the controller does.
async fn publish(controller: &Client, kind: &str, name: &str, selector: Option<&Value>) {
    let workload = Workload {
        namespace: "shop".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    let segment = Segment::of(&workload);
    let api = Api::<Segment>::namespaced(controller.clone(), "shop");
    let apply = PatchParams::apply("nanoseg").force();
    api.patch(&segment.name_any(), &apply, &Patch::Apply(&segment))
        .await
        .unwrap();
    let mut status = json!({ "phase": "Learning", "learningSince": "2026-01-01T00:00:00Z" });
    if let Some(selector) = selector {
        status["selector"] = selector.clone();
    }
    let status = json!({ "apiVersion": "nanoseg.io/v1alpha1", "kind": "Segment", "status": status });
    api.patch_status(&segment.name_any(), &apply, &Patch::Apply(&status))
        .await
        .unwrap();
}

struct Author {
    client: Client,
    pods: Api<Pod>,
}

impl Author {
    async fn of(server: &Server, user: &str) -> Self {
        let client = acting_as(server, user).await;
        let pods = Api::namespaced(client.clone(), "shop");
        Self { client, pods }
    }

    async fn make(&self, object: &DynamicObject) -> Result<(), kube::Error> {
        put(&self.client, object, &PatchParams::apply("author").force())
            .await
            .map(drop)
    }

    async fn change(&self, object: &DynamicObject, change: Value) -> Result<(), kube::Error> {
        let api = api_of(&self.client, object);
        let patch = Patch::Merge(change);
        api.patch(&object.name_any(), &PatchParams::default(), &patch)
            .await
            .map(drop)
    }

    async fn change_pod(&self, name: &str, subresource: Option<&str>, change: &Value) -> Result<(), kube::Error> {
        let (params, patch) = (PatchParams::default(), Patch::Strategic(change));
        let changed = match subresource {
            None => self.pods.patch(name, &params, &patch).await,
            Some(subresource) => self.pods.patch_subresource(subresource, name, &params, &patch).await,
        };
        changed.map(drop)
    }

    async fn bind(&self, pod: &str, label: &Value) -> Result<(), kube::Error> {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": pod, "labels": label },
            "target": { "apiVersion": "v1", "kind": "Node", "name": "node1" },
        });
        self.pods
            .create_subresource::<Value, Value>("binding", pod, &PostParams::default(), &binding)
            .await
            .map(drop)
    }
}

/// Says whom it is about and what to do.
fn refused(what: &str, outcome: Result<(), kube::Error>, whose: &str) {
    let Err(error) = outcome else {
        unreachable!("{what} was let through");
    };
    let said = error.to_string();
    for word in ["nanoseg-identity", whose, "verb override on segments.nanoseg.io"] {
        assert!(said.replace('\n', " ").contains(word), "{what}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one story on one API server, which takes seconds to start"
)]
async fn the_labels_of_a_workload_are_put_on_by_nobody_else_where_the_namespace_asks_for_it() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let client = server.client().await;
    let cluster = Cluster { client: client.clone() };
    install(&kubernetes, &server, &client).await;
    let _controllers = server.start_controllers(&CONTROLLERS);
    for (namespace, labels) in [
        ("shop", json!({ "nanoseg.io/identity": "guarded" })),
        ("open", json!({})),
    ] {
        let metadata = json!({ "name": namespace, "labels": labels });
        cluster
            .create(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }))
            .await;
    }
    cluster
        .create(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node1" } }))
        .await;
    // Nobody is here who would say that it is ready, and a DaemonSet waits for it.
    let untainted = Patch::Merge(json!({ "spec": { "taints": null } }));
    Api::<Node>::all(client.clone())
        .patch("node1", &PatchParams::default(), &untainted)
        .await
        .unwrap();
    let everything = json!([{ "apiGroups": ["", "apps", "batch"], "resources": ["*"], "verbs": ["*"] }]);
    let of_web = json!({
        "apiGroups": ["nanoseg.io"], "resources": ["segments"], "resourceNames": ["deployment-web"], "verbs": ["override"],
    });
    let and_override = json!([everything[0], of_web]);
    for object in rights("author", &everything)
        .into_iter()
        .chain(rights("operator", &and_override))
    {
        cluster.create(object).await;
    }
    let author = Author::of(&server, "author").await;
    let operator = Author::of(&server, "operator").await;
    let controller = acting_as(&server, CONTROLLER).await;
    for (kind, name) in KNOWN {
        publish(&controller, kind, name, Some(&json!({ "app": name }))).await;
    }
    let of_web = json!({ "app": "web" });

    // An API server takes a policy of admission into account a moment after it was made, and each Segment as well.
    for (_, name) in KNOWN {
        let api = Api::<Pod>::namespaced(author.client.clone(), "shop");
        let early = object("shop", "Pod", "early", &json!({ "app": name }));
        let early: Pod = early.try_parse().unwrap();
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        until("the labels to be guarded", || async {
            let refused = api.create(&dry, &early).await.err()?;
            refused.to_string().contains("nanoseg-identity").then_some(())
        })
        .await;
    }

    // Each workload puts its own labels on, and the cluster's controllers make its pods.
    for (kind, name) in KNOWN {
        let own = object("shop", kind, name, &json!({ "app": name }));
        author.make(&own).await.unwrap();
    }
    let pod_of = async |name: &str, than: Option<&str>| {
        let only = ListParams::default().labels(&format!("app={name}"));
        let what = format!("a pod of {name}");
        let find = || async {
            let pods = author.pods.list(&only).await.unwrap();
            let names = pods.items.iter().map(kube::ResourceExt::name_any);
            names.into_iter().find(|name| Some(name.as_str()) != than)
        };
        until(&what, find).await.0
    };
    for (kind, name) in KNOWN {
        // A CronJob waits for the next minute.
        if kind != "CronJob" {
            pod_of(name, None).await;
        }
    }
    let run = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "namespace": "shop", "name": "report-1", "ownerReferences": [{
                "apiVersion": "batch/v1", "kind": "CronJob", "name": "report", "controller": true,
                "uid": api_of(&client, &object("shop", "CronJob", "report", &json!({}))).get("report").await.unwrap().uid(),
            }],
        },
        "spec": object("shop", "Job", "report-1", &json!({ "app": "report" })).data["spec"],
    });
    let run: DynamicObject = serde_json::from_value(run).unwrap();
    refused("a run that a person makes", author.make(&run).await, "CronJob report");
    let of_cron = Author::of(&server, "system:serviceaccount:kube-system:cronjob-controller").await;
    let jobs = api_of(&of_cron.client, &run);
    jobs.create(&PostParams::default(), &run).await.unwrap();
    pod_of("report", None).await;

    // It is rolled out, scaled and healed.
    let web = object("shop", "Deployment", "web", &of_web);
    let first = pod_of("web", None).await;
    author
        .change(
            &web,
            json!({ "spec": { "template": { "spec": { "terminationGracePeriodSeconds": 1 } } } }),
        )
        .await
        .unwrap();
    let second = pod_of("web", Some(&first)).await;
    author
        .pods
        .delete(&second, &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let third = pod_of("web", Some(&second)).await;
    author
        .change_pod(&third, None, &json!({ "metadata": { "labels": { "seen": "yes" } } }))
        .await
        .unwrap();
    author
        .change_pod(&third, Some("status"), &json!({ "status": { "phase": "Running" } }))
        .await
        .unwrap();

    // Nobody else puts them on.
    for kind in [
        "Pod",
        "ReplicationController",
        "ReplicaSet",
        "Deployment",
        "StatefulSet",
        "DaemonSet",
        "Job",
        "CronJob",
    ] {
        let evil = object("shop", kind, "evil", &of_web);
        refused(kind, author.make(&evil).await, "Deployment web");
        let more = object("shop", kind, "evil", &json!({ "app": "web", "more": "things" }));
        refused(kind, author.make(&more).await, "Deployment web");
    }
    let sets = Api::<DynamicObject>::namespaced_with(
        client.clone(),
        "shop",
        &ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "ReplicaSet")),
    );
    let set = sets
        .list(&ListParams::default().labels("app=web"))
        .await
        .unwrap()
        .items
        .remove(0);
    let owned = |mut it: DynamicObject, owner: &DynamicObject, kind: &str| {
        let version = "apps/v1";
        it.metadata.owner_references = serde_json::from_value(json!([{
            "apiVersion": version, "kind": kind, "name": owner.name_any(), "uid": owner.uid(), "controller": true,
        }]))
        .unwrap();
        it
    };
    let claimed = owned(object("shop", "Pod", "claimed", &of_web), &set, "ReplicaSet");
    refused(
        "a claimed owner of a pod",
        author.make(&claimed).await,
        "Deployment web",
    );
    let deployed = api_of(&client, &web).get("web").await.unwrap();
    let claimed = owned(
        object("shop", "ReplicaSet", "claimed", &of_web),
        &deployed,
        "Deployment",
    );
    refused(
        "a claimed owner of a ReplicaSet",
        author.make(&claimed).await,
        "Deployment web",
    );

    // Nor later, by no way that leads to a pod's labels.
    let other = object("shop", "Deployment", "other", &json!({ "of": "other" }));
    author.make(&other).await.unwrap();
    let with_label = json!({ "metadata": { "labels": of_web } });
    refused(
        "a template that changes",
        author
            .change(&other, json!({ "spec": { "template": with_label } }))
            .await,
        "Deployment web",
    );
    let only = ListParams::default().labels("of=other");
    let (theirs, _) = until("a pod of another workload", || async {
        Some(author.pods.list(&only).await.unwrap().items.first()?.name_any())
    })
    .await;
    for subresource in [None, Some("status")] {
        let outcome = author.change_pod(&theirs, subresource, &with_label).await;
        refused("a live pod's label", outcome, "Deployment web");
    }
    refused(
        "a label with the node",
        author.bind(&theirs, &of_web).await,
        "Deployment web",
    );
    author.bind(&theirs, &json!({ "zone": "a" })).await.unwrap();

    // What has them runs what it ran, for whom it ran it.
    let image = json!({ "spec": { "containers": [{ "name": "c", "image": "second" }] } });
    refused(
        "an image",
        author.change_pod(&third, None, &image).await,
        "Deployment web",
    );
    let ephemeral = json!({ "spec": { "ephemeralContainers": [{ "name": "d", "image": "second" }] } });
    let outcome = author.change_pod(&third, Some("ephemeralcontainers"), &ephemeral).await;
    refused("an ephemeral container", outcome, "Deployment web");
    let of_third = author.pods.get(&third).await.unwrap().metadata;
    let uid = of_third.owner_references.unwrap().remove(0).uid;
    let orphaned = json!({ "metadata": { "ownerReferences": [{ "$patch": "delete", "uid": uid }] } });
    refused(
        "another owner",
        author.change_pod(&third, None, &orphaned).await,
        "Deployment web",
    );
    // A workload of one pod is its own author's.
    author.change_pod("solo", None, &image).await.unwrap();

    // Who is let through is let through for this one workload.
    operator.make(&object("shop", "Pod", "debug", &of_web)).await.unwrap();
    operator
        .change_pod(&third, Some("ephemeralcontainers"), &ephemeral)
        .await
        .unwrap();
    let other = object("shop", "Pod", "debug-db", &json!({ "app": "db" }));
    refused(
        "a workload that was not named",
        operator.make(&other).await,
        "StatefulSet db",
    );

    // Where nobody asked for it, nobody is in the way; nor where labels are free, because the workload is gone or was never known
    // by them.
    author.make(&object("open", "Pod", "web", &of_web)).await.unwrap();
    publish(&controller, "DaemonSet", "agent", None).await;
    until("the labels to be free", || async {
        author
            .make(&object("shop", "Deployment", "agent-2", &json!({ "app": "agent" })))
            .await
            .ok()
    })
    .await;

    // Without Segments there is nothing to guard, and pods are still made.
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    definitions
        .delete("segments.nanoseg.io", &DeleteParams::default())
        .await
        .unwrap();
    until("a pod without Segments", || async {
        author.make(&object("shop", "Pod", "after", &of_web)).await.ok()
    })
    .await;
}
