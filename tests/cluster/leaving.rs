//! What is left when nanoseg is removed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nanoseg_lab::peer::Call;
use nanoseg_tests::until;

use super::MANIFESTS;
use super::shop::{OURS, Shop};

/// Programs attached below a node's cgroup.
fn attached(cgroup: &Path) -> String {
    let output = Command::new("bpftool")
        .args(["cgroup", "tree"])
        .arg(cgroup)
        .output()
        .unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    listed.lines().filter(|line| line.contains("cgroup_inet")).collect()
}

/// Removing nanoseg leaves what the README says: the policies, and nothing in the kernel. They did refuse the intruder.
pub(crate) fn leaves_what_the_readme_says(shop: &Shop) {
    let before = shop.versions();
    for node in shop.cluster.nodes() {
        assert!(
            !attached(&node.cgroup).is_empty(),
            "{}: the learner's programs are attached",
            node.name
        );
    }
    shop.kubectl(&["delete", "--kustomize", MANIFESTS, "--timeout=120s"]);
    for node in shop.cluster.nodes() {
        until("the programs to be gone", Duration::from_secs(30), || {
            let left = attached(&node.cgroup);
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
    assert_eq!(
        shop.versions(),
        before,
        "removing nanoseg leaves the policies as they were"
    );
    shop.kubectl(&["delete", "networkpolicies", "--all-namespaces", "--selector", OURS]);
    until("the intruder to be let through again", Duration::from_mins(2), || {
        let refused: Vec<Call> = shop.intrude().into_iter().filter(|call| !call.ok).collect();
        if refused.is_empty() {
            Ok(())
        } else {
            Err(format!("{refused:?}"))
        }
    });
}
