//! The arrows of the architecture, read from what Cargo resolves: `ebpf <- learner -> graph <- policy <- controller`.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its input has failed")]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path("../Cargo.toml").exec().unwrap()
}

/// Everything that a package reaches by normal dependencies, by name.
fn reached(metadata: &Metadata, name: &str) -> BTreeSet<String> {
    let names: BTreeMap<&PackageId, &str> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package.name.as_str()))
        .collect();
    let nodes: BTreeMap<&PackageId, _> = metadata
        .resolve
        .as_ref()
        .unwrap()
        .nodes
        .iter()
        .map(|node| (&node.id, node))
        .collect();
    let start = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == name)
        .unwrap();
    let mut found = BTreeSet::new();
    let mut open = vec![&start.id];
    while let Some(id) = open.pop() {
        for dependency in &nodes[id].deps {
            let normal = dependency
                .dep_kinds
                .iter()
                .any(|kind| kind.kind == DependencyKind::Normal);
            if normal && found.insert(names[&dependency.pkg].to_owned()) {
                open.push(&dependency.pkg);
            }
        }
    }
    found
}

#[test]
fn pure_crates_reach_no_runtime_no_cluster_and_no_kernel() {
    let metadata = metadata();
    for package in ["nanoseg-graph", "nanoseg-policy"] {
        let reached = reached(&metadata, package);
        assert!(
            reached.contains("serde"),
            "{package}: the walk over dependencies found nothing"
        );
        for forbidden in [
            "tokio",
            "kube",
            "kube-client",
            "aya",
            "tonic",
            "hyper",
            "mio",
            "serde_yaml",
        ] {
            assert!(
                !reached.contains(forbidden),
                "{package} reaches {forbidden}: pure code does no I/O"
            );
        }
    }
}

#[test]
fn arrows_go_one_way() {
    let metadata = metadata();
    let rows = [
        (
            "nanoseg-ebpf",
            &["nanoseg-graph", "nanoseg-learner", "nanoseg-policy", "nanoseg"][..],
        ),
        (
            "nanoseg-graph",
            &["nanoseg-ebpf", "nanoseg-learner", "nanoseg-policy", "nanoseg"][..],
        ),
        ("nanoseg-policy", &["nanoseg-ebpf", "nanoseg-learner", "nanoseg"][..]),
        ("nanoseg-learner", &["nanoseg-policy", "nanoseg", "kube"][..]),
        ("nanoseg", &["nanoseg-ebpf", "nanoseg-learner", "aya"][..]),
    ];
    for (package, forbidden) in rows {
        let reached = reached(&metadata, package);
        for other in forbidden {
            assert!(!reached.contains(*other), "{package} must not reach {other}");
        }
    }
}
