//! What a verdict costs: again about a pair that was asked about before, and for the first time.

#![expect(clippy::expect_used, reason = "a bench that cannot run says why and ends")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::{Cluster, Labels, Object, Pod, PodPhase};
use nanoseg_graph::flow::Transport;
use nanoseg_policy::evaluate::{End, Evaluator, Place, PolicySet};
use serde_json::json;

/// Different values of each label: pods with one set of labels are replicas.
const APPS: usize = 50;
const TIERS: usize = 4;

/// Questions of a round: each pair of some pods at some ports.
const ASKED: usize = 1000;

struct World {
    cluster: Cluster,
    policies: PolicySet,
}

impl World {
    /// Pods and policies spread over namespaces; every policy selects an app, and has two rules of two peers.
    fn new(namespaces: usize, pods: usize, policies: usize) -> Self {
        let mut cluster = Cluster::new([]);
        for number in 0..pods {
            let labels: Labels = [
                ("app".to_owned(), format!("a{}", number / namespaces % APPS)),
                ("tier".to_owned(), format!("t{}", number / namespaces % TIERS)),
            ]
            .into();
            let address = u32::from_be_bytes([198, 18, 0, 0]) + u32::try_from(number).expect("few pods");
            let pod = Pod {
                uid: format!("u{number}").into(),
                mirror_uid: None,
                images: Arc::default(),
                namespace: format!("n{}", number % namespaces).into(),
                name: format!("p{number}").into(),
                labels: labels.into(),
                owner: None,
                addresses: [std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(address))].into(),
                host_network: false,
                node: None,
                ports: Arc::default(),
                phase: PodPhase::Running,
                ready: true,
                started: None,
            };
            cluster.observe(Object::Pod(pod), Timestamp::UNIX_EPOCH);
        }
        let policies: Vec<NetworkPolicy> = (0..policies)
            .map(|number| {
                let value = json!({
                    "metadata": {"namespace": format!("n{}", number % namespaces), "name": format!("q{number}")},
                    "spec": {
                        "podSelector": {"matchLabels": {"app": format!("a{}", number / namespaces % APPS)}},
                        "policyTypes": ["Ingress", "Egress"],
                        "ingress": [rule("from", number), rule("from", number + 7)],
                        "egress": [rule("to", number + 1), rule("to", number + 11)],
                    }
                });
                serde_json::from_value(value).expect("a policy")
            })
            .collect();
        let (policies, rejected) = PolicySet::parse(&policies);
        assert!(rejected.is_empty(), "{rejected:?}");
        Self { cluster, policies }
    }
}

fn rule(side: &str, number: usize) -> serde_json::Value {
    json!({
        side: [
            {"podSelector": {"matchLabels": {"app": format!("a{}", number % APPS)}}},
            {"namespaceSelector": {}, "podSelector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": [format!("t{}", number % TIERS), "t9"]}]}},
        ],
        "ports": [{"port": 80 + number % 3}, {"port": 8000, "endPort": 8010}],
    })
}

fn places(evaluator: &Evaluator<'_>, world: &World) -> Vec<Place> {
    let ends = world.cluster.pods().map(|pod| End::Pod {
        namespace: pod.namespace.to_string(),
        name: pod.name.to_string(),
    });
    ends.map(|end| evaluator.find(&end).expect("it lives")).collect()
}

/// Pairs that a small step through the pods makes, so that few repeat.
fn questions(places: &[Place]) -> Vec<(Place, Place, u16)> {
    (0..ASKED)
        .map(|number| {
            let source = places[number * 31 % places.len()];
            let destination = places[(number * 17 + 5) % places.len()];
            let port = [80, 81, 443, 8005][number % 4];
            (source, destination, port)
        })
        .collect()
}

fn ask(evaluator: &Evaluator<'_>, questions: &[(Place, Place, u16)]) {
    for (source, destination, port) in questions {
        black_box(evaluator.decide(source, destination, *port, Transport::Tcp));
    }
}

fn verdicts(criterion: &mut Criterion) {
    for (name, namespaces, pods, policies) in [
        ("10 pods, 1 policy", 1, 10, 1),
        ("600 pods, 1,000 policies", 6, 600, 1000),
        ("10,000 pods, 10,000 policies", 50, 10_000, 10_000),
    ] {
        let world = World::new(namespaces, pods, policies);
        let evaluator = Evaluator::new(&world.policies, &world.cluster);
        let asked = questions(&places(&evaluator, &world));
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(ASKED as u64));
        group.bench_function("verdicts again", |bencher| bencher.iter(|| ask(&evaluator, &asked)));
        // A new evaluator remembers nothing; making it is not counted.
        group.sample_size(20);
        group.bench_function("verdicts cold", |bencher| {
            bencher.iter_batched(
                || Evaluator::new(&world.policies, &world.cluster),
                |evaluator| {
                    ask(&evaluator, &asked);
                    evaluator
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function("evaluator", |bencher| {
            bencher.iter(|| black_box(Evaluator::new(&world.policies, &world.cluster)));
        });
        group.finish();
    }
}

criterion_group!(benches, verdicts);
criterion_main!(benches);
