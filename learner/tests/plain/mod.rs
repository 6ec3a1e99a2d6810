//! A host without Kubernetes.

use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::flow::FlowTable;
use nanoseg_graph::resolve::resolve;

use crate::node::{Node, Step, is_possible};

#[test]
fn containers_and_units_are_workloads_where_there_is_no_kubernetes() {
    if !is_possible() {
        return;
    }
    let id = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let mut node = Node::new();
    let (first, second) = (node.container(), node.container());
    let learner = node.learner_with_two_capabilities(&[]);
    let server = first.at_cgroup(&node, &format!("system.slice/docker-{id}.scope"));
    let client = second.at_cgroup(&node, "system.slice/sync.service");
    let _listening = server.run(&server.at(8080).map(Step::Accept));
    client
        .run(&server.at(8080).map(|to| Step::Connect { to, accepted: true }))
        .end();
    learner.wait_for("the container's addresses", |report| {
        report.held.iter().any(|held| held.addresses.len() == 2)
    });
    let report = learner.end();
    let mut table = FlowTable::default();
    table.merge(&report);
    let graph = resolve(&table, &Cluster::new([]));
    let edges: Vec<String> = graph
        .edges()
        .map(|(edge, _)| format!("{} -> {}:{}", edge.source, edge.destination, edge.port))
        .collect();
    // Who called is a unit with a network of its own, of which only itself can tell.
    assert_eq!(
        edges,
        [
            "Unit here/sync.service -> Container here/9f86d081884c:8080".to_owned(),
            format!("external {} -> Container here/9f86d081884c:8080", client.v4),
            format!("external {} -> Container here/9f86d081884c:8080", client.v6),
        ]
    );
}
