//! The commands without `--cluster`: the same answers as with the same objects as files.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use serde_json::{Value, json};

use super::server::{self, Server};
use super::{Cluster, WEB_TO_DB, until};

/// More than a page holds.
const POLICIES: usize = 520;

fn ask(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nanoseg"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Everything of a kind, in the List that the API server answers with.
async fn dump(cluster: &Cluster, version: &str, kind: &str) -> String {
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
    let listed = api.list(&ListParams::default()).await.unwrap();
    json!({ "apiVersion": resource.api_version, "kind": format!("{kind}List"), "items": listed.items }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one story on one API server, which takes seconds to start"
)]
async fn p23_a_cluster_and_its_dump_are_answered_alike_to_everybody() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let cluster = Cluster {
        client: server.client().await,
    };
    cluster
        .create(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } }))
        .await;
    cluster.workload("web", "198.18.1.10").await;
    cluster.workload("db", "198.18.1.11").await;
    let policies = cluster.api::<NetworkPolicy>();
    let of = |name: String, app: &str, from: &str| {
        let policy = json!({
            "metadata": { "name": name, "namespace": "shop" },
            "spec": {
                "podSelector": { "matchLabels": { "app": app } },
                "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": from } } }], "ports": [{ "port": 5432 }] }],
            },
        });
        serde_json::from_value::<NetworkPolicy>(policy).unwrap()
    };
    // The one that decides is on the second page.
    let all = (0..POLICIES)
        .map(|number| of(format!("p{number}"), "nobody", "nobody"))
        .chain([of("zz".to_owned(), "db", "web")]);
    let create = async |policy: NetworkPolicy| policies.create(&PostParams::default(), &policy).await;
    let created: Vec<_> = stream::iter(all)
        .map(create)
        .buffer_unordered(16)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(created.len(), POLICIES + 1);

    let folder = tempfile::tempdir().unwrap();
    let dumped = folder.path().join("dump");
    fs::create_dir(&dumped).unwrap();
    for (version, kind) in [
        ("v1", "Pod"),
        ("v1", "Namespace"),
        ("v1", "Service"),
        ("apps/v1", "ReplicaSet"),
        ("apps/v1", "Deployment"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
    ] {
        fs::write(dumped.join(format!("{kind}.json")), dump(&cluster, version, kind).await).unwrap();
    }
    let question = |port: u16| {
        let pod = |name: &str| json!({ "namespace": "shop", "pod": name });
        json!({ "source": pod("web-5d4f-x"), "destination": pod("db-5d4f-x"), "port": port }).to_string()
    };
    fs::write(
        folder.path().join("flows.jsonl"),
        [question(5432), question(5433)].join("\n"),
    )
    .unwrap();

    let kubeconfig = server.kubeconfig();
    let live = ["--kubeconfig", kubeconfig.to_str().unwrap()];
    let files = ["--cluster", "dump"];
    let explain = [&WEB_TO_DB[..], &["-o", "json"]].concat();
    for (command, code) in [
        (&explain[..], 0),
        (&["explain", "--flows", "flows.jsonl"], 1),
        (&["audit", "--flows", "flows.jsonl", "-o", "json"], 1),
        (&["graph", "--flows", "flows.jsonl"], 0),
        (&["synthesize", "--flows", "flows.jsonl"], 0),
        (&["export", "--flows", "flows.jsonl", "--format", "json"], 0),
        (&["export", "--flows", "flows.jsonl", "--format", "csv"], 0),
        (&["reach", "--workload", "shop/web", "-o", "json"], 0),
        (&["reach", "--image", "none"], 0),
    ] {
        let [live, files] = [live, files].map(|place| ask(folder.path(), &[command, &place].concat()));
        let said = String::from_utf8_lossy(&live.stderr);
        assert_eq!(live.status.code(), Some(code), "{command:?}: {said}");
        assert_eq!(live, files, "{command:?}");
    }
    let explained = ask(folder.path(), &[&explain[..], &live].concat());
    let answer: Value = serde_json::from_slice(&explained.stdout).unwrap();
    assert_eq!(answer["by"], json!(["NetworkPolicy shop/zz spec.ingress[0]"]));

    // Somebody who may list some of it is told so, and gets no policies: there are others to be made of the whole.
    let role = |resources: &[&str]| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "viewer" },
            "rules": [{ "apiGroups": ["*"], "resources": resources, "verbs": ["list"] }],
        })
    };
    let some = [
        "pods",
        "namespaces",
        "networkpolicies",
        "clusternetworkpolicies",
        "adminnetworkpolicies",
        "baselineadminnetworkpolicies",
    ];
    cluster.create(role(&some)).await;
    cluster
        .create(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "viewer" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "viewer" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "viewer" }],
        }))
        .await;
    let viewers = fs::read_to_string(&kubeconfig)
        .unwrap()
        .replace("token: secret", "token: seen");
    fs::write(folder.path().join("viewer"), viewers).unwrap();
    let synthesize = |kubeconfig: &str| {
        let question = ["synthesize", "--flows", "flows.jsonl", "--kubeconfig", kubeconfig];
        ask(folder.path(), &question)
    };
    let part = until("the role counts", || async {
        let output = synthesize("viewer");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.contains("nanoseg: cronjobs, ").then_some((output, said))
    });
    let ((output, said), _) = part.await;
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
    assert!(said.ends_with("cannot be listed, and policies made without them would be others than those made with them; may you list them in all namespaces?\n"), "{said}");
    cluster.create(role(&["*"])).await;
    let admins = synthesize(live[1]);
    until("the other role counts", || async {
        let output = synthesize("viewer");
        output.status.success().then(|| assert_eq!(output, admins))
    })
    .await;

    // Somebody who may not list anything, and nobody at all.
    let text = fs::read_to_string(&kubeconfig).unwrap();
    for (name, edited, expected) in [
        (
            "refused",
            text.replace("token: secret", "token: wrong"),
            "nanoseg: cannot list pods at https://127.0.0.1",
        ),
        (
            "away",
            text.replace("127.0.0.1", "127.0.0.2"),
            "nanoseg: cannot list pods at https://127.0.0.2",
        ),
    ] {
        fs::write(folder.path().join(name), edited).unwrap();
        let output = ask(folder.path(), &[&explain[..], &["--kubeconfig", name]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.starts_with(expected) && said.lines().count() == 1,
            "{name}: {said}"
        );
    }
}
