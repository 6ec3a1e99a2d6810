//! What a real engine lets through, beside what the evaluator says: pairs of pods at ports, over both families, under policies
//! that use all that a policy can say.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::Cluster as Known;
use nanoseg_graph::flow::Transport;
use nanoseg_lab::app::{App, ObjectName, Protocol};
use nanoseg_lab::peer::Call;
use nanoseg_policy::evaluate::{Connection, End, Evaluator, PolicySet};
use nanoseg_policy::objects::{Manifest, parse};
use nanoseg_tests::until;

use super::shop::{Shop, text};

const POLICIES: &str = include_str!("matrix-policies.yaml");

/// One row of the matrix: pod, address, port, protocol.
type Question = (String, IpAddr, u16, Protocol);

/// Applies the matrix, and compares until the engine has done its work.
pub(super) fn the_engine_agrees_with_the_evaluator(shop: &mut Shop) {
    let app = App::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/matrix.yaml"))).unwrap();
    shop.cluster.apply(&app).unwrap();
    shop.cluster.apply_objects(POLICIES).unwrap();
    let (cluster, policies) = known(shop);
    let (policies, rejected) = PolicySet::parse(&policies);
    assert!(rejected.is_empty(), "{rejected:?}");
    let evaluator = Evaluator::new(&policies, &cluster);
    let expected = |(pod, address, port, protocol): &Question, namespace: &str| {
        let connection = Connection {
            source: End::Pod {
                namespace: namespace.to_owned(),
                name: pod.clone(),
            },
            destination: End::Address(*address),
            port: *port,
            transport: match protocol {
                Protocol::Tcp => Transport::Tcp,
                Protocol::Udp => Transport::Udp,
            },
        };
        evaluator.evaluate(&connection).combined()
    };
    let (allowed, denied) = until("the engine to agree with the evaluator", Duration::from_mins(2), || {
        let asked = ask(shop, &app);
        let (mut allowed, mut denied, mut wrong) = (0, 0, Vec::new());
        for ((namespace, question), answered) in &asked {
            let verdict = expected(question, namespace);
            assert!(verdict.permits() || verdict.denies(), "{question:?}: {verdict}");
            if verdict.permits() == *answered {
                *(if *answered { &mut allowed } else { &mut denied }) += 1;
            } else {
                wrong.push(format!("{question:?} was answered: {answered}; {verdict}"));
            }
        }
        if wrong.is_empty() {
            Ok((allowed, denied))
        } else {
            Err(format!("{} of {}: {wrong:#?}", wrong.len(), asked.len()))
        }
    });
    println!("the engine and the evaluator agree on {allowed} connections that are allowed and {denied} that are not");
    assert!(allowed >= 20 && denied >= 20, "both are in the matrix");
}

/// The cluster and its policies, as the API server has them.
fn known(shop: &Shop) -> (Known, Vec<NetworkPolicy>) {
    let ranges = shop.cluster.nodes().iter().flat_map(|node| node.pod_ranges);
    let mut cluster = Known::new(ranges);
    let mut policies = Vec::new();
    let kinds = "pods,namespaces,nodes,services,networkpolicies";
    let all = shop.cluster.get(&["get", kinds, "--all-namespaces"]).unwrap();
    for manifest in parse(all).manifests {
        match manifest {
            Manifest::Object(object) => cluster.observe(object, Timestamp::now()),
            Manifest::NetworkPolicy(policy) => policies.push(*policy),
            Manifest::ClusterNetworkPolicy(_)
            | Manifest::OtherPolicy(_)
            | Manifest::OtherVersion { .. }
            | Manifest::Other { .. } => {}
        }
    }
    (cluster, policies)
}

/// Lets every workload make each of its calls once. Returns what became of each, with the namespace of the caller.
fn ask(shop: &Shop, app: &App) -> BTreeMap<(String, Question), bool> {
    let since = Timestamp::now();
    let mut expected = 0;
    for workload in &app.workloads {
        let name: ObjectName = format!("{}/{}", workload.namespace, workload.name).parse().unwrap();
        assert_eq!(shop.cluster.say_to(&name).unwrap(), 1, "{name} was told");
        let families = workload.calls.iter().map(|call| call.family);
        expected += families
            .map(|family| usize::from(family.v4()) + usize::from(family.v6()))
            .sum::<usize>();
    }
    until("every call to be made", Duration::from_secs(90), || {
        let mut made = BTreeMap::new();
        for (namespace, call) in calls(shop, app, since) {
            let address = call.address.ok_or_else(|| format!("{} did not resolve", call.to))?;
            let question = (call.pod.clone(), address, call.port, call.protocol);
            made.insert((namespace, question), call.ok);
        }
        if made.len() >= expected {
            Ok(made)
        } else {
            Err(format!("{} of {expected}", made.len()))
        }
    })
}

fn calls(shop: &Shop, app: &App, since: Timestamp) -> Vec<(String, Call)> {
    let mut calls = Vec::new();
    for namespace in &app.namespaces {
        let namespace = namespace.name.to_string();
        for pod in shop.items(&["pods", "--namespace", &namespace]) {
            let name = text(&pod["metadata"]["name"]);
            let log = shop.kubectl(&[
                "logs",
                "--namespace",
                &namespace,
                &name,
                &format!("--since-time={since}"),
            ]);
            let made = log.lines().filter_map(|line| serde_json::from_str::<Call>(line).ok());
            calls.extend(
                made.filter(|call| call.at >= since)
                    .map(|call| (namespace.clone(), call)),
            );
        }
    }
    calls
}
