//! Manifests of any bytes: read, and every policy among them evaluated and synthesized against.
#![no_main]

use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use nanoseg::read::manifests::documents_in;
use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::flow::Transport;
use nanoseg_policy::diff::diff;
use nanoseg_policy::evaluate::{Connection, End, Evaluator, PolicySet};
use nanoseg_policy::objects::{Manifest, parse};

fuzz_target!(|bytes: &[u8]| {
    let (documents, _faults) = documents_in(Path::new("fuzz"), bytes);
    let mut cluster = Cluster::new([]);
    let (mut network, mut of_cluster, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    ends.push(End::Address(IpAddr::from([203, 0, 113, 9])));
    for manifest in documents.into_iter().flat_map(|document| parse(document.value).manifests) {
        match manifest {
            Manifest::Object(object) => cluster.observe(object, Timestamp::UNIX_EPOCH),
            Manifest::NetworkPolicy(policy) => network.push(*policy),
            Manifest::ClusterNetworkPolicy(policy) => of_cluster.push(*policy),
            Manifest::Other { .. } => {}
        }
    }
    let (policies, _rejected) = PolicySet::parse_all(&network, &of_cluster);
    ends.extend(cluster.pods().take(4).map(|pod| End::Uid(pod.uid.clone())));
    let evaluator = Evaluator::new(&policies, &cluster);
    for source in &ends {
        for destination in &ends {
            let connection = Connection {
                source: source.clone(),
                destination: destination.clone(),
                port: 80,
                transport: Transport::Tcp,
            };
            // Words as well: they are what a person sees.
            let _words = evaluator.evaluate(&connection).combined().to_string();
        }
    }
    assert!(diff(&policies, &policies, &cluster).is_empty(), "a set differs from itself");
});
