//! What the kernel gives out again, and what it does not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use crate::node::{Container, Node, PATIENCE, is_possible};

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

/// Whatever is kept of a container is given up some time after it is gone, so that it must be known to be.
#[test]
fn a_container_that_is_gone_is_known_to_be_and_is_not_watched_any_more() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let _stays = node.container();
    let learner = node.learner(&["--health-listen=127.0.0.1:0"]);
    let wait_for = |containers: u64| {
        let end = Instant::now() + PATIENCE;
        while learner.metric("nanoseg_learner_containers") != containers {
            assert!(Instant::now() < end, "there are {containers} containers");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait_for(1);
    let watches = learner.watches();
    let brief: Vec<Container> = (0..20).map(|_| node.container()).collect();
    wait_for(21);
    for container in &brief {
        container.remove_pod();
    }
    wait_for(1);
    assert_eq!(learner.watches(), watches);
}
