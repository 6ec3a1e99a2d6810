//! What is synthesized is what an API server takes, word for word: a dry run of every policy, with unknown fields refused.

mod worlds;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, Patch, PatchParams, ValidationDirective};
use nanoseg_policy::plan::same;
use serde_json::{Value, json};

use super::server::{self, Server};

/// Names as the API takes them, from the usual to the longest: they end up in names and annotations of policies.
fn names() -> Vec<String> {
    ["web", "db.v2-0", "a", "0-1", "x.y.z"]
        .into_iter()
        .map(str::to_owned)
        .chain([63, 200, 253].map(|length| "n".repeat(length)))
        .collect()
}

/// Labels as the API takes them: with and without a prefix, empty, the longest.
fn labels(index: usize) -> Value {
    let app = format!("app-{index}");
    match index % 4 {
        0 => json!({ "app": app }),
        1 => json!({ "app.kubernetes.io/name": app, "empty": "" }),
        2 => {
            json!({ format!("{}.example.com/{}", "p".repeat(60), "k".repeat(63)): format!("{app}{}", "v".repeat(50)) })
        }
        _ => json!({ "UPPER_case.9": app, "pod-template-hash": "5d4f" }),
    }
}

/// Pods of workloads of several kinds, on two families, some on their node's network.
fn cluster() -> Vec<Value> {
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node1" },
        "spec": { "podCIDRs": ["198.18.0.0/16", "fd00:18::/64"] },
        "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }] },
    });
    let mut items = vec![node];
    for (index, name) in names().iter().enumerate() {
        for (place, namespace) in ["red", "blue"].into_iter().enumerate() {
            let number = index * 2 + place;
            let host = index == 3 && place == 1;
            let addresses = if host {
                json!([{ "ip": "192.0.2.1" }])
            } else {
                json!([{ "ip": format!("198.18.1.{}", number + 10) }, { "ip": format!("fd00:18::{:x}", number + 16) }])
            };
            items.push(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "namespace": namespace, "name": format!("p{number}"), "uid": format!("u{number}"), "labels": labels(index),
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": (["StatefulSet", "DaemonSet", "Rollout"][index % 3]), "name": name,
                        "uid": "o", "controller": true,
                    }],
                },
                "spec": { "nodeName": "node1", "hostNetwork": host, "containers": [{ "name": "c" }] },
                "status": { "phase": "Running", "podIPs": addresses },
            }));
        }
    }
    items
}

/// Each pod talks to some others, to its node, to addresses outside and to members of a group, at ports of every protocol.
fn flows() -> String {
    let mut lines = String::new();
    let pods = names().len() * 2;
    let pod = |number: usize| json!({ "namespace": if number.is_multiple_of(2) { "red" } else { "blue" }, "pod": format!("p{number}") });
    for from in 0..pods {
        let to = [
            (pod((from + 1) % pods), 80, "TCP"),
            (pod((from + 3) % pods), 65535, "UDP"),
            (pod((from + 5) % pods), 1, "SCTP"),
            (json!({ "ip": "192.0.2.1" }), 10250, "TCP"),
            (json!({ "ip": format!("203.0.113.{from}") }), 443, "TCP"),
            (json!({ "ip": "2001:db8::7" }), 16400 + from, "UDP"),
            (json!({ "ip": "198.51.100.9" }), 443, "TCP"),
        ];
        for (destination, port, protocol) in to {
            let line = json!({ "source": pod(from), "destination": destination, "port": port, "protocol": protocol });
            writeln!(lines, "{line}").unwrap();
        }
    }
    lines
}

/// Objects and flows of which policies are synthesized.
struct Case {
    title: String,
    cluster: Vec<Value>,
    /// JSON lines.
    flows: String,
}

/// What the cases of other tests are about.
const SEMANTICS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/semantics");
const SHAPES: &str = include_str!("../../policy/src/synthesize/tests/shapes.yaml");
/// A policy that is synthesized of objects in code, and compared with this file.
const READABLE: &str = include_str!("../../policy/src/synthesize/tests/readable.yaml");

/// Random clusters: each is a run of the program.
const WORLDS: usize = 60;

/// Every case of the project that has a cluster as manifests, and random ones of the shapes that are made in code.
fn cases() -> Vec<Case> {
    let mut cases = vec![Case {
        title: "names and labels of every form".to_owned(),
        cluster: cluster(),
        flows: flows(),
    }];
    for entry in fs::read_dir(SEMANTICS).unwrap() {
        let file: Value = serde_yaml::from_str(&fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        for case in items(&file["cases"]) {
            let questions = case["questions"].as_object().unwrap().keys();
            let flows: Vec<String> = questions.map(|question| asked(question).unwrap().to_string()).collect();
            cases.push(Case {
                title: case["title"].to_string(),
                cluster: items(&file["cluster"]),
                flows: flows.join("\n"),
            });
        }
    }
    let shapes: Value = serde_yaml::from_str(SHAPES).unwrap();
    let client = json!({ "namespace": "shop", "pod": "client" });
    for shape in items(&shapes["shapes"]) {
        let flow = |contact: &Value| {
            let destination = json!({ "ip": contact["to"] });
            json!({ "source": client, "destination": destination, "port": contact["port"], "protocol": contact["protocol"] })
        };
        let flows: Vec<String> = items(&shape["contacted"])
            .iter()
            .map(|contact| flow(contact).to_string())
            .collect();
        cases.push(Case {
            title: shape["title"].to_string(),
            cluster: [items(&shapes["cluster"]), items(&shape["manifests"])].concat(),
            flows: flows.join("\n"),
        });
    }
    cases.extend(worlds::worlds(WORLDS));
    cases
}

fn items(list: &Value) -> Vec<Value> {
    list.as_array().cloned().unwrap_or_default()
}

/// A question of the literate cases, `from -> to port/protocol`, as a flow.
fn asked(question: &str) -> Option<Value> {
    let (source, rest) = question.split_once(" -> ")?;
    let (destination, port) = rest.split_once(' ')?;
    let (port, protocol) = port.split_once('/')?;
    let end = |text: &str| match text.split_once('/') {
        Some((namespace, pod)) => json!({ "namespace": namespace, "pod": pod }),
        None => json!({ "ip": text }),
    };
    let port: u16 = port.parse().ok()?;
    Some(json!({ "source": end(source), "destination": end(destination), "port": port, "protocol": protocol }))
}

/// What `nanoseg synthesize` makes of a case.
fn synthesized(Case { title, cluster, flows }: &Case) -> Vec<NetworkPolicy> {
    let folder = tempfile::tempdir().unwrap();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": cluster });
    fs::write(folder.path().join("cluster.json"), list.to_string()).unwrap();
    fs::write(folder.path().join("flows.jsonl"), flows).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_nanoseg"))
        .current_dir(folder.path())
        .args([
            "synthesize",
            "-o",
            "json",
            "--strict",
            "--cluster",
            "cluster.json",
            "--flows",
            "flows.jsonl",
        ])
        .args([
            "--external-group",
            "partner=203.0.113.0/24",
            "--port-range",
            "rtp=UDP:16384-32767",
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{title}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    serde_json::from_value(document["policies"].clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_policy_is_what_an_api_server_takes() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let client = server.client().await;
    let mut policies = vec![("readable.yaml".to_owned(), serde_yaml::from_str(READABLE).unwrap())];
    let cases = cases();
    for (index, case) in cases.iter().enumerate() {
        let made = synthesized(case);
        if index == 0 {
            // All but the one on its node's network.
            assert_eq!(made.len(), names().len() * 2 - 1, "{}", case.title);
            let text = serde_json::to_string(&made).unwrap();
            assert!(text.contains("endPort") && text.contains("203.0.113.0/24") && text.contains("2001:db8::7/128"));
        }
        policies.extend(
            made.into_iter()
                .map(|policy: NetworkPolicy| (case.title.clone(), policy)),
        );
    }
    println!("{} policies of {} cases", policies.len(), cases.len());
    assert!(policies.len() > 200, "only {} policies", policies.len());

    let namespaces: BTreeSet<_> = policies
        .iter()
        .map(|(_, policy)| policy.metadata.namespace.clone().unwrap())
        .collect();
    for namespace in namespaces {
        let api: Api<Namespace> = Api::all(client.clone());
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        let apply = PatchParams::apply("test");
        api.patch(&namespace, &apply, &Patch::Apply(object)).await.unwrap();
    }
    let strict = PatchParams {
        dry_run: true,
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply("nanoseg")
    };
    for (title, policy) in policies {
        let name = policy.metadata.name.clone().unwrap();
        let namespace = policy.metadata.namespace.clone().unwrap();
        let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), &namespace);
        let taken = api
            .patch(&name, &strict, &Patch::Apply(&policy))
            .await
            .unwrap_or_else(|error| panic!("{title}: {namespace}/{name}: {error}\n{policy:#?}"));
        assert!(
            same(&policy, &taken),
            "{title}: {namespace}/{name} came back as something else: {taken:#?}"
        );
    }
}
