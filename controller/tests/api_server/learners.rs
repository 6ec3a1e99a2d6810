//! Who may report: learners with a token that the API server itself made, each about its own node, by TLS alone.

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::*;

pub(super) const AUDIENCE: &str = "nanoseg-controller";

/// A token as kubelet asks for it, bound to this pod.
pub(super) async fn token(client: &Client, account: &str, audience: &str, pod: Option<(&str, &str)>) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "nanoseg");
    let bound = pod.map(|(name, uid)| json!({ "kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid }));
    let request = json!({ "spec": { "audiences": [audience], "expirationSeconds": 3600, "boundObjectRef": bound } });
    let request = serde_json::from_value(request).unwrap();
    let made = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .unwrap();
    made.status.unwrap().token.unwrap()
}

/// Sends one report with this token.
pub(super) async fn send_with(ca: &str, port: u16, token: Option<&str>, report: Value) -> Result<u64, tonic::Status> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .domain_name("nanoseg-controller.nanoseg.svc");
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}"))
        .unwrap()
        .tls_config(tls)
        .unwrap();
    let (channel, _) = until("the controller answers by TLS", || async {
        endpoint.connect().await.ok()
    })
    .await;
    let increment = Increment {
        sequence: 3,
        report: report.to_string().into_bytes(),
    };
    let mut request = tonic::Request::new(tokio_stream::iter([increment]));
    if let Some(token) = token {
        let header = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", header);
    }
    let mut answers = ReportsClient::new(channel).send(request).await?.into_inner();
    Ok(answers.message().await?.map_or(0, |answer| answer.sequence))
}

pub(super) async fn pod(cluster: &Cluster, name: &str, node: &str) -> String {
    let made = cluster
        .create(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "nanoseg" },
            "spec": {
                "serviceAccountName": "nanoseg-learner", "nodeName": node,
                "containers": [{ "name": "c", "image": "none" }],
            },
        }))
        .await;
    made.uid().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_is_recognised_by_its_token_and_speaks_for_its_own_node_alone() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let client = server.client().await;
    let cluster = Cluster { client: client.clone() };
    cluster
        .create(serde_yaml::from_str(&nanoseg::cli::crd_yaml().unwrap()).unwrap())
        .await;
    cluster
        .create(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "nanoseg" } }))
        .await;
    for account in ["nanoseg-learner", "other"] {
        let metadata = json!({ "name": account, "namespace": "nanoseg" });
        cluster
            .create(json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata }))
            .await;
    }
    for node in ["node1", "node2"] {
        cluster
            .create(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node } }))
            .await;
    }
    let here = pod(&cluster, "learner-1", "node1").await;
    let there = pod(&cluster, "learner-2", "node2").await;

    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let arguments = [
        "--own-namespace",
        "nanoseg",
        "--listen",
        &listen,
        "--lease",
        "1s",
        "--health-listen",
        "127.0.0.1:0",
    ];
    let mut nanoseg = server.controller("controller", &arguments);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "nanoseg");
    let (ca, _) = until("the authority is published", || async {
        maps.get_opt("nanoseg-authority").await.unwrap()?.data?.remove("ca.crt")
    })
    .await;

    let about = |node: &str, uid: &str| {
        json!({
            "origin": { "node": node, "epoch": 1 },
            "flows": [flow(uid, "198.18.1.10", 5432, "destination", 1)],
        })
    };
    let good = token(&client, "nanoseg-learner", AUDIENCE, Some(("learner-1", &here))).await;
    let taken = || async { send_with(&ca, port, Some(&good), about("node1", &here)).await.ok() };
    assert_eq!(until("a report is taken", taken).await.0, 3);

    // Not encrypted: nothing is answered, and nothing is read.
    let plain = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    let increments = tokio_stream::iter([Increment {
        sequence: 1,
        report: about("node1", &here).to_string().into_bytes(),
    }]);
    if let Ok(channel) = plain.connect().await {
        assert!(ReportsClient::new(channel).send(increments).await.is_err());
    }

    let unbound = token(&client, "nanoseg-learner", AUDIENCE, None).await;
    let other_audience = token(&client, "nanoseg-learner", "vault", Some(("learner-1", &here))).await;
    let other_account = token(&client, "other", AUDIENCE, None).await;
    for (what, token, code) in [
        ("no token", None, Code::Unauthenticated),
        ("no real token", Some("x.y.z"), Code::Unauthenticated),
        ("another audience", Some(other_audience.as_str()), Code::Unauthenticated),
        ("another account", Some(other_account.as_str()), Code::PermissionDenied),
        ("bound to no pod", Some(unbound.as_str()), Code::PermissionDenied),
    ] {
        let refused = send_with(&ca, port, token, about("node1", &here)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{what}: {refused}");
    }

    // A token of one node, used on another: its report is refused whole, and so is a part about the other's pod.
    let refused = send_with(&ca, port, Some(&good), about("node2", &there))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    until("a flow of the other node's pod is refused", || async {
        send_with(&ca, port, Some(&good), about("node1", &there)).await.unwrap();
        nanoseg.logged().contains("the pod is on another node").then_some(())
    })
    .await;

    // Each is counted.
    let metrics = probe(&nanoseg, "/metrics");
    for reason in [
        "no_token",
        "token_not_valid",
        "other_account",
        "token_without_node",
        "other_node",
    ] {
        let start = format!("nanoseg_learner_refusals_total{{reason=\"{reason}\"}} ");
        let counted = metrics.lines().find_map(|line| line.strip_prefix(&start));
        assert!(counted.is_some_and(|count| count != "0"), "{start}\n{metrics}");
    }

    // A new controller serves the same authority: learners go on with the one that they know.
    nanoseg.kill();
    let _nanoseg = server.controller("controller", &arguments);
    assert_eq!(until("a report is taken", taken).await.0, 3);
}
