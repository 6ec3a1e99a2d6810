//! What the kernel gives out again, and what it does not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::node::{Node, is_possible};

/// Attribution rests on this: packets and records of a cgroup that is gone are never taken for another's.
#[test]
fn p3_ten_thousand_cgroups_one_after_the_other_have_ten_thousand_ids() {
    const CGROUPS: usize = 10_000;
    if !is_possible() {
        return;
    }
    let node = Node::new();
    let folder = node.cgroup.join("recycled");
    let ids: BTreeSet<u64> = (0..CGROUPS)
        .map(|_| {
            fs::create_dir(&folder).unwrap();
            let id = fs::metadata(&folder).unwrap().ino();
            fs::remove_dir(&folder).unwrap();
            id
        })
        .collect();
    assert_eq!(ids.len(), CGROUPS);
}
