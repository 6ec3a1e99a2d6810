//! Manifests of any bytes: read, every policy among them evaluated, and policies synthesized for the pods among them.
#![no_main]

use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use nanoseg::read::Manifests;
use nanoseg_graph::cluster::{Cluster, Object};
use nanoseg_graph::flow::{FlowTable, Outcome, Reporter, Transport};
use nanoseg_graph::recorded::{Recorded, RecordedEnd, RecordedKey, Recording};
use nanoseg_graph::resolve::resolve_recorded;
use nanoseg_policy::diff::diff;
use nanoseg_policy::evaluate::{Connection, End, Evaluator, PolicySet};
use nanoseg_policy::objects::stand_ins;
use nanoseg_policy::synthesize::{Settings, synthesize_all};

/// Ends that are asked about: each with each, so that few make many questions.
const ENDS: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let mut manifests = Manifests::default();
    manifests.add_bytes(Path::new("fuzz"), bytes);
    // Words as well, here and below: they are what a person sees.
    for fault in &manifests.faults {
        let _words = fault.to_string();
    }
    let mut cluster = Cluster::new([]);
    for object in manifests.objects {
        cluster.observe(object, Timestamp::UNIX_EPOCH);
    }
    for pod in stand_ins(&cluster, manifests.declared) {
        cluster.observe(Object::Pod(pod), Timestamp::UNIX_EPOCH);
    }
    let (policies, _rejected) = PolicySet::parse_all(&manifests.policies, &manifests.cluster_policies);
    let names = cluster
        .pods()
        .map(|pod| (pod.namespace.to_string(), pod.name.to_string()));
    let names: Vec<_> = names.take(ENDS).collect();
    let outside = IpAddr::from([203, 0, 113, 9]);

    let pods = names.iter().map(|(namespace, name)| End::Pod {
        namespace: namespace.clone(),
        name: name.clone(),
    });
    let ends: Vec<End> = pods.chain([End::Address(outside)]).collect();
    let evaluator = Evaluator::new(&policies, &cluster);
    for source in &ends {
        for destination in &ends {
            let connection = Connection {
                source: source.clone(),
                destination: destination.clone(),
                port: 80,
                transport: Transport::Tcp,
            };
            let _words = evaluator.evaluate(&connection).combined().to_string();
        }
    }
    assert!(
        diff(&policies, &policies, &cluster).is_empty(),
        "a set differs from itself"
    );

    let pods = names
        .into_iter()
        .map(|(namespace, name)| RecordedEnd::Pod { namespace, name });
    let ends: Vec<RecordedEnd> = pods.chain([RecordedEnd::Address(outside)]).collect();
    let mut recording = Recording::default();
    for source in &ends {
        for destination in &ends {
            recording.add(Recorded {
                key: RecordedKey {
                    source: source.clone(),
                    destination: destination.clone(),
                    port: 80,
                    transport: Transport::Tcp,
                    reporter: Reporter::Source,
                },
                outcome: Outcome::Established,
                count: 1,
                seen: None,
                workloads: [None, None],
            });
        }
    }
    let graph = resolve_recorded(&recording, &FlowTable::default(), &cluster);
    for proposal in synthesize_all(&graph, &cluster, &Settings::default())
        .into_values()
        .flatten()
    {
        let (_, rejected) = PolicySet::parse([&*proposal.policy]);
        assert!(
            rejected.is_empty(),
            "the API server would not take {:?}: {rejected:?}",
            proposal.policy
        );
    }
});
