//! The shipped manifests on a real API server: every object is taken, every field of it known, and what they forbid is forbidden.

use std::os::unix::fs::symlink;
use std::path::Path;

use kube::api::ValidationDirective;
use kube::config::{KubeConfigOptions, Kubeconfig};
use nanoseg::segment::{Known, to_edges};
use nanoseg_graph::connection::EdgeKey;
use nanoseg_graph::endpoint::{Endpoint, Workload};
use nanoseg_graph::flow::Transport;
use serde::Deserialize as _;

use super::*;

pub(crate) const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");
pub(crate) const CONTROLLER: &str = "system:serviceaccount:nanoseg:nanoseg-controller";

/// What `kubectl apply -k` would send.
fn kustomized(kubernetes: &Path, server: &Server, folder: &str) -> Vec<DynamicObject> {
    let kubectl = server.folder.path().join("kubectl");
    if !kubectl.exists() {
        symlink(kubernetes, &kubectl).unwrap();
    }
    let made = Command::new(kubectl).arg("kustomize").arg(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let documents = serde_yaml::Deserializer::from_slice(&made.stdout);
    let objects: Vec<DynamicObject> = documents
        .map(|document| DynamicObject::deserialize(document).unwrap())
        .collect();
    objects
}

/// The client of somebody else, with the rights of theirs alone.
pub(crate) async fn acting_as(server: &Server, user: &str) -> Client {
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    config.auth_info.impersonate = Some(user.to_owned());
    Client::try_from(config).unwrap()
}

pub(crate) fn api_of(client: &Client, object: &DynamicObject) -> Api<DynamicObject> {
    let kind = object.types.as_ref().unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(kind).unwrap());
    match object.metadata.namespace.as_deref() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

pub(crate) async fn put(
    client: &Client,
    object: &DynamicObject,
    params: &PatchParams,
) -> Result<DynamicObject, kube::Error> {
    api_of(client, object)
        .patch(&object.name_any(), params, &Patch::Apply(object))
        .await
}

/// A role for a user in a namespace.
fn role(name: &str, user: &str, group: &str, resources: &[&str], verbs: &[&str]) -> [Value; 2] {
    let metadata = json!({ "name": name, "namespace": "shop" });
    let rbac = "rbac.authorization.k8s.io";
    [
        json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": metadata,
            "rules": [{ "apiGroups": [group], "resources": resources, "verbs": verbs }],
        }),
        json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": metadata,
            "roleRef": { "apiGroup": rbac, "kind": "Role", "name": name },
            "subjects": [{ "apiGroup": rbac, "kind": "User", "name": user }],
        }),
    ]
}

pub(crate) fn policy(name: &str, ours: bool) -> NetworkPolicy {
    let labels = if ours {
        json!({ "app.kubernetes.io/managed-by": "nanoseg" })
    } else {
        json!({})
    };
    serde_json::from_value(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": name, "namespace": "shop", "labels": labels },
        "spec": { "podSelector": { "matchLabels": { "app": name } }, "policyTypes": ["Ingress"] },
    }))
    .unwrap()
}

/// Says that it was refused by a policy of ours, in words that help.
fn forbidden<T: std::fmt::Debug>(outcome: Result<T, kube::Error>, word: &str) {
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("nanoseg-") && error.contains(word), "{error}");
}

/// Waits until a dry run is refused by a policy of admission whose name begins so.
async fn until_kept_from<T, F: Future<Output = Result<T, kube::Error>>>(
    what: &str,
    policy: &str,
    attempt: impl Fn() -> F,
) {
    until(&format!("others to be kept from {what}"), || async {
        let refused = attempt().await.err()?;
        refused.to_string().contains(policy).then_some(())
    })
    .await;
}

/// Applies the manifests, each object after a strict dry run. Returns how the dry runs were made.
pub(crate) async fn install(kubernetes: &Path, server: &Server, client: &Client) -> PatchParams {
    let objects = kustomized(kubernetes, server, MANIFESTS);

    // Namespaced objects need their namespace, even in a dry run.
    let (first, rest): (Vec<_>, Vec<_>) = objects
        .into_iter()
        .partition(|object| object.types.as_ref().is_some_and(|types| types.kind == "Namespace"));
    let params = PatchParams {
        field_manager: Some("test".to_owned()),
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::default()
    };
    for object in &first {
        put(client, object, &params).await.unwrap();
    }
    let dry = PatchParams {
        dry_run: true,
        ..params.clone()
    };
    for object in &rest {
        let name = object.name_any();
        put(client, object, &dry)
            .await
            .unwrap_or_else(|error| unreachable!("{name}: {error}"));
    }
    assert!(rest.len() > 15, "{} objects", rest.len());
    for object in &rest {
        put(client, object, &params).await.unwrap();
    }
    dry
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one story on one API server, which takes seconds to start"
)]
async fn the_manifests_are_taken_whole_and_keep_others_from_what_is_nanosegs() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let client = server.client().await;
    let cluster = Cluster { client: client.clone() };
    let dry = install(&kubernetes, &server, &client).await;

    // The Prometheus Operator's kinds are not known here; the rest is taken.
    let monitoring = kustomized(&kubernetes, &server, &format!("{MANIFESTS}/monitoring"));
    let kind = |object: &DynamicObject| {
        object
            .types
            .as_ref()
            .map(|types| types.kind.clone())
            .unwrap_or_default()
    };
    let kinds: Vec<String> = monitoring.iter().map(kind).collect();
    assert_eq!(kinds, ["ConfigMap", "PodMonitor", "PrometheusRule"]);
    put(&client, &monitoring[0], &dry).await.unwrap();

    cluster
        .create(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } }))
        .await;
    let verbs = ["get", "create", "update", "patch", "delete"];
    for object in role(
        "editor-of-policies",
        "editor",
        "networking.k8s.io",
        &["networkpolicies"],
        &verbs,
    )
    .into_iter()
    .chain(role(
        "editor-of-segments",
        "editor",
        "nanoseg.io",
        &["segments", "segments/status"],
        &verbs,
    ))
    .chain(role(
        "trusted-policies",
        "trusted",
        "networking.k8s.io",
        &["networkpolicies"],
        &verbs,
    ))
    .chain(role(
        "trusted-override",
        "trusted",
        "nanoseg.io",
        &["segments"],
        &["override"],
    )) {
        cluster.create(object).await;
    }
    let editor = acting_as(&server, "editor").await;
    let policies = |client: &Client| Api::<NetworkPolicy>::namespaced(client.clone(), "shop");
    let theirs = policies(&editor);
    let ours = policies(&acting_as(&server, CONTROLLER).await);
    let apply = PatchParams::apply("nanoseg").force();
    let post = kube::api::PostParams::default();

    // An API server takes a policy of admission into account a moment after it was made.
    let dry = kube::api::PostParams {
        dry_run: true,
        ..post.clone()
    };
    let early = policy("early", true);
    until_kept_from("making a policy of nanoseg's", "nanoseg-own-objects", || {
        theirs.create(&dry, &early)
    })
    .await;
    ours.patch("db", &apply, &Patch::Apply(&policy("db", true)))
        .await
        .unwrap();
    theirs.create(&post, &policy("by-hand", false)).await.unwrap();

    let word = "verb override on segments.nanoseg.io";
    forbidden(theirs.create(&post, &policy("false-one", true)).await, word);
    let open = Patch::Merge(json!({ "spec": { "ingress": [{}] } }));
    forbidden(theirs.patch("db", &PatchParams::default(), &open).await, word);
    let unlabelled = Patch::Merge(json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": null } } }));
    forbidden(theirs.patch("db", &PatchParams::default(), &unlabelled).await, word);
    let labelled = Patch::Merge(json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": "nanoseg" } } }));
    forbidden(theirs.patch("by-hand", &PatchParams::default(), &labelled).await, word);
    forbidden(theirs.delete("db", &DeleteParams::default()).await, word);
    theirs.patch("by-hand", &PatchParams::default(), &open).await.unwrap();
    theirs.delete("by-hand", &DeleteParams::default()).await.unwrap();

    // A Segment: people's words are taken, what was learned is not theirs to write.
    let workload = Workload {
        namespace: "shop".to_owned(),
        kind: "Deployment".to_owned(),
        name: "db".to_owned(),
    };
    let of_controller = Api::<Segment>::namespaced(acting_as(&server, CONTROLLER).await, "shop");
    let segment = Segment::of(&workload);
    let name = segment.name_any();
    of_controller
        .patch(&name, &apply, &Patch::Apply(&segment))
        .await
        .unwrap();
    let segments = Api::<Segment>::namespaced(editor.clone(), "shop");
    let change = async |spec: Value| {
        segments
            .patch(&name, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec })))
            .await
    };
    let key = EdgeKey {
        source: Endpoint::External("203.0.113.9".parse().unwrap()),
        destination: Endpoint::Workload(workload),
        port: 5432,
        transport: Transport::Tcp,
    };
    let edge = json!(to_edges([(&key, &Known::default())])[0]);
    let other = {
        let mut other = edge.clone();
        other["port"] = json!(1);
        other
    };
    change(json!({ "mode": "Audit", "acceptedEdges": [edge], "rejectedEdges": [other] }))
        .await
        .unwrap();
    // Each policy of admission is taken into account at a moment of its own.
    let dry = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let both = json!({ "rejectedEdges": [other, edge] });
    let patch = Patch::Merge(json!({ "spec": both }));
    until_kept_from("what a Segment may not say", "nanoseg-", || {
        segments.patch(&name, &dry, &patch)
    })
    .await;
    forbidden(change(both).await, "in spec.acceptedEdges and in spec.rejectedEdges");
    forbidden(
        change(json!({ "workload": { "kind": "Deployment", "name": "web" } })).await,
        "cannot be changed",
    );
    let status = json!({ "status": { "phase": "Enforcing", "learningSince": "2026-01-01T00:00:00Z" } });
    let status = Patch::Merge(status);
    until_kept_from("what was learned", "nanoseg-", || {
        segments.patch_status(&name, &dry, &status)
    })
    .await;
    forbidden(
        segments.patch_status(&name, &PatchParams::default(), &status).await,
        word,
    );

    // Who is let through, and a namespace that goes.
    let trusted = policies(&acting_as(&server, "trusted").await);
    trusted.delete("db", &DeleteParams::default()).await.unwrap();
    ours.patch("db", &apply, &Patch::Apply(&policy("db", true)))
        .await
        .unwrap();
    let of_the_cluster = acting_as(&server, "system:serviceaccount:kube-system:namespace-controller").await;
    // An API server gives the cluster's own controllers their rights a moment after it is ready.
    until("a namespace's policies to go with it", || async {
        policies(&of_the_cluster)
            .delete("db", &DeleteParams::default())
            .await
            .ok()
    })
    .await;
}
