//! The laws of what is kept for the next learner.

use nanoseg_ebpf::kept::{Archived, Kept, Owner};
use nanoseg_ebpf::{FlowKey, FlowRecord, LossKey};
use proptest::prelude::*;

fn key(cgroup: u64, role: u8) -> FlowKey {
    FlowKey {
        cgroup,
        peer: [1, 2, 3, 4],
        port: 80,
        transport: 6,
        role,
        pad: 0,
    }
}

#[test]
fn what_a_key_stands_for_is_read_again() {
    for kept in [
        Kept::Flow(key(7, 0)),
        Kept::Flow(key(7, 1)),
        Kept::Older(key(7, 0)),
        Kept::Older(key(7, 1)),
        Kept::Loss(LossKey {
            cgroup: 7,
            reason: 6,
            pad: 0,
        }),
        Kept::Left,
        Kept::Discarded,
    ] {
        assert_eq!(Kept::from_key(kept.to_key()), kept);
    }
}

#[test]
fn a_path_is_kept_whole_or_not_at_all() {
    let longest = "/".repeat(Owner::LONGEST);
    for path in ["", "/a/b", &longest] {
        assert_eq!(Owner::new(path).unwrap().path(), Some(path));
    }
    assert!(Owner::new(&(longest + "/")).is_none());
}

/// A record that began then, and has counted this much.
fn record(first_ns: u64, attempted: u64) -> FlowRecord {
    FlowRecord {
        first_ns,
        last_ns: first_ns + attempted,
        attempted,
        established: attempted / 2,
        refused: attempted / 3,
    }
}

proptest! {
    /// A cgroup after another leaves the archive, and at each moment it is told which one is on its way out.
    #[test]
    fn what_left_adds_up(all in prop::collection::vec((1_u64..9, 0_u64..99), 0..20)) {
        let mut left = Archived::default();
        let mut attempted = 0;
        for (cgroup, count) in all {
            attempted += count;
            let leaving = left.leaving(cgroup, &record(100, count));
            prop_assert_eq!((leaving.leaver(), leaving.total().attempted), (Some(cgroup), attempted));
            left = leaving.left();
            prop_assert_eq!((left.leaver(), left.total().attempted), (None, attempted));
        }
    }

    /// Each of the records leaves once or several times, growing meanwhile, as after a process that was killed between.
    #[test]
    fn what_leaves_twice_counts_once(records in prop::collection::vec((1_u64..9, 1_usize..4), 1..20)) {
        let mut archived = Archived::default();
        let mut expected = FlowRecord::default();
        for (began, (count, times)) in (1_u64..).map(|number| number * 100).zip(records) {
            for time in 1..=times as u64 {
                archived = archived.with(&record(began, count * time));
            }
            let last = record(began, count * times as u64);
            expected.first_ns = if expected.first_ns == 0 { began } else { expected.first_ns };
            expected.last_ns = last.last_ns;
            expected.attempted += last.attempted;
            expected.established += last.established;
            expected.refused += last.refused;
        }
        prop_assert_eq!(archived.total(), expected);
    }
}
