//! Whatever of nanoseg is deleted, policies stay as they are, and nothing of it keeps a namespace from being deleted.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use nanoseg_graph::endpoint::Workload;

use super::leading::one_of_two;
use super::shipping::{CONTROLLER, MANIFESTS, acting_as, install, policy};
use super::*;

/// What a running cluster has, and what empties namespaces that go.
const CONTROLLERS: [&str; 2] = ["namespace-controller", "garbage-collector-controller"];

/// Policies of nanoseg by name, with the version that changes with each write.
async fn policies(client: &Client) -> BTreeMap<String, Option<String>> {
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=nanoseg");
    let found = Api::<NetworkPolicy>::all(client.clone()).list(&ours).await.unwrap();
    found
        .into_iter()
        .map(|policy| (policy.name_any(), policy.resource_version()))
        .collect()
}

async fn delete_namespace(client: &Client, name: &str) {
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.delete(name, &DeleteParams::default()).await.unwrap();
    until(&format!("namespace {name} to be gone"), || async {
        let left = namespaces.get_opt(name).await.ok()?;
        left.is_none().then_some(())
    })
    .await;
}

async fn delete_definition(client: &Client) {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let name = "segments.nanoseg.io";
    definitions.delete(name, &DeleteParams::default()).await.unwrap();
    until("the definition of Segments to be gone", || async {
        definitions.get_opt(name).await.ok()?.is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one story on one API server, which takes seconds to start"
)]
async fn p38_whatever_is_deleted_policies_stay_and_nothing_blocks_a_namespace() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let client = server.client().await;
    let cluster = Cluster { client: client.clone() };
    install(&kubernetes, &server, &client).await;
    let _controllers = server.start_controllers(&CONTROLLERS);
    for name in ["shop", "other"] {
        cluster
            .create(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }))
            .await;
    }
    cluster
        .create(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node1" } }))
        .await;
    let web = cluster.workload("web", "198.18.1.10").await;
    let db = cluster.workload("db", "198.18.1.11").await;
    let flows = [
        flow(&web, "198.18.1.11", 5432, "source", 3),
        flow(&db, "198.18.1.10", 5432, "destination", 3),
    ];
    let port = free_port();
    let mut nanoseg = one_of_two(&server, port, "controller-1");
    until("a report to be taken", || async {
        send(port, report(&flows)).await.ok()
    })
    .await;
    for name in ["deployment-web", "deployment-db"] {
        cluster.wait_for_phase(name, Phase::Enforcing).await;
    }
    let live = policies(&client).await;
    assert_eq!(live.len(), 2);
    for policy in Api::<NetworkPolicy>::all(client.clone())
        .list(&ListParams::default())
        .await
        .unwrap()
    {
        assert!(policy.metadata.finalizers.unwrap_or_default().is_empty());
    }
    for segment in cluster.api::<Segment>().list(&ListParams::default()).await.unwrap() {
        assert!(segment.metadata.finalizers.unwrap_or_default().is_empty());
    }

    // A Segment, while the controller runs: what it told is known, and is told again.
    let segments = cluster.api::<Segment>();
    let uid = segments.get("deployment-db").await.unwrap().uid();
    segments
        .delete("deployment-db", &DeleteParams::default())
        .await
        .unwrap();
    until("the Segment to be told again", || async {
        let again = segments.get_opt("deployment-db").await.ok()??;
        let status = again.status.as_ref()?;
        (again.uid() != uid && status.phase == Phase::Enforcing && status.edges == 1).then_some(())
    })
    .await;
    assert_eq!(policies(&client).await, live);

    // The definition of Segments, while the controller runs.
    delete_definition(&client).await;
    until("the controller to say what is missing", || async {
        nanoseg
            .logged()
            .contains("nanoseg crd | kubectl apply -f -")
            .then_some(())
    })
    .await;
    assert_eq!(policies(&client).await, live);
    cluster
        .create(serde_yaml::from_str(&nanoseg::cli::crd_yaml().unwrap()).unwrap())
        .await;
    for name in ["deployment-web", "deployment-db"] {
        let status = cluster.wait_for_phase(name, Phase::Enforcing).await;
        assert_eq!(status.edges, 1);
    }
    assert_eq!(policies(&client).await, live);

    // The controller's namespace, and with it the Lease by which it writes.
    delete_namespace(&client, "nanoseg").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!nanoseg.has_ended(), "{}", nanoseg.logged());
    assert_eq!(policies(&client).await, live);

    // The controller. A namespace goes although nobody is there who would see it go.
    nanoseg.kill();
    let controller = acting_as(&server, CONTROLLER).await;
    let apply = PatchParams::apply("nanoseg").force();
    let mut segment = Segment::of(&Workload {
        namespace: "other".to_owned(),
        kind: "Deployment".to_owned(),
        name: "db".to_owned(),
    });
    segment.metadata.namespace = Some("other".to_owned());
    install(&kubernetes, &server, &client).await;
    Api::<Segment>::namespaced(controller.clone(), "other")
        .patch("deployment-db", &apply, &Patch::Apply(&segment))
        .await
        .unwrap();
    let mut there = policy("db", true);
    there.metadata.namespace = Some("other".to_owned());
    Api::<NetworkPolicy>::namespaced(controller, "other")
        .patch("db", &apply, &Patch::Apply(&there))
        .await
        .unwrap();
    delete_namespace(&client, "other").await;
    assert_eq!(policies(&client).await, live);

    // What was learned, while no controller runs: the next one learns anew, and leaves alone what it finds.
    delete_definition(&client).await;
    install(&kubernetes, &server, &client).await;
    let mut nanoseg = one_of_two(&server, port, "controller-2");
    until("the controller to have read everything", || async {
        nanoseg.logged().contains("this controller leads").then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(policies(&client).await, live, "{}", nanoseg.logged());
    assert_eq!(nanoseg.terminate(), Some(0));
    assert_eq!(policies(&client).await, live);

    // All of nanoseg as it is documented, and then its policies.
    let kubectl = |arguments: &[&str]| {
        let done = Command::new(server.folder.path().join("kubectl"))
            .arg("--kubeconfig")
            .arg(server.kubeconfig())
            .args(arguments)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    kubectl(&["delete", "-k", MANIFESTS, "--timeout=60s"]);
    assert_eq!(policies(&client).await, live);
    let namespaces = Api::<Namespace>::all(client.clone());
    assert!(namespaces.get_opt("nanoseg").await.unwrap().is_none());
    kubectl(&[
        "delete",
        "networkpolicies",
        "-A",
        "-l",
        "app.kubernetes.io/managed-by=nanoseg",
    ]);
    assert_eq!(policies(&client).await, BTreeMap::new());
    // No kubelet is here that would end the pods.
    let pods: Api<Pod> = cluster.api();
    for pod in pods.list(&ListParams::default()).await.unwrap() {
        let now = DeleteParams::default().grace_period(0);
        pods.delete(&pod.name_any(), &now).await.unwrap();
    }
    delete_namespace(&client, "shop").await;
}
