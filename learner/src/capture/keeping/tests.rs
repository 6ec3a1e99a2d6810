//! The kernel's own maps, without programs.

use super::super::{Sizes, load};
use super::*;

/// As the learner has it, if this may be asked of the kernel.
fn keeping() -> Option<Keeping> {
    if !rustix::process::geteuid().is_root() {
        assert!(
            std::env::var_os("NANOSEG_REQUIRE_ROOT").is_none(),
            "this test needs root: it makes maps in the kernel"
        );
        return None;
    }
    let sizes = Sizes {
        flows: 64,
        exchanges: 64,
    };
    let mut maps = load(sizes, true, None).unwrap();
    Some(Keeping::new(&mut maps, 0).unwrap())
}

fn key(cgroup: u64, port: u16) -> FlowKey {
    FlowKey {
        cgroup,
        port,
        transport: 6,
        ..FlowKey::default()
    }
}

fn keep(keeping: &mut Keeping, kept: Kept, attempted: u64) -> bool {
    let record = FlowRecord {
        first_ns: kept.to_key().cgroup,
        last_ns: 1000,
        attempted,
        ..FlowRecord::default()
    };
    keeping.put(kept, |known| known.with(&record)).unwrap()
}

fn left(keeping: &Keeping) -> u64 {
    keeping.get(Kept::Left).unwrap().unwrap().total().attempted
}

#[test]
fn who_leaves_is_counted_and_a_loss_stays_with_its_name() {
    let Some(mut keeping) = keeping() else { return };
    let loss = Kept::Loss(LossKey {
        cgroup: 2,
        reason: 0,
        pad: 0,
    });
    for (kept, attempted) in [
        (Kept::Flow(key(1, 80)), 1),
        (Kept::Flow(key(2, 80)), 2),
        (Kept::Flow(key(2, 81)), 4),
        (Kept::Older(key(2, 81)), 8),
        (loss, 16),
        (Kept::Flow(key(3, 80)), 32),
    ] {
        assert!(keep(&mut keeping, kept, attempted));
    }
    for cgroup in 1..=3 {
        keeping
            .owners
            .insert(cgroup, Plain(Owner::new("/a").unwrap()), 0)
            .unwrap();
    }
    keeping.leave(&[2, 3].into()).unwrap();
    assert_eq!(left(&keeping), 2 + 4 + 8 + 32);
    let mut there: Vec<u64> = keeping
        .all()
        .unwrap()
        .iter()
        .map(|(kept, _)| kept.to_key().cgroup)
        .collect();
    there.sort_unstable();
    assert_eq!(there, [0, 1, 2], "what left, a flow, and a loss");
    let has_owner = |cgroup: u64| keeping.owners.get(&cgroup, 0).is_ok();
    assert_eq!(
        [1, 2, 3].map(has_owner),
        [true, true, false],
        "whose the loss was is still told"
    );
    let expected = KeptCounts {
        held: 3,
        left: 4,
        refused: 0,
    };
    assert_eq!(keeping.counts, expected);
    keeping.leave(&[3].into()).unwrap();
    assert_eq!(keeping.counts, expected);
}

#[test]
fn of_a_unit_that_was_started_again_and_again_each_flow_is_kept_once() {
    const STARTS: u64 = 50;
    const PORTS: u16 = 10;
    let Some(mut keeping) = keeping() else { return };
    let unit = |cgroup: u64| (cgroup, Subject::Host("/system.slice/web.service".to_owned()));
    for (cgroup, _) in (1..=STARTS).map(unit) {
        keeping
            .owners
            .insert(cgroup, Plain(Owner::new("/a").unwrap()), 0)
            .unwrap();
        for port in 0..PORTS {
            keep(&mut keeping, Kept::Flow(key(cgroup, port)), 1);
            keep(&mut keeping, Kept::Older(key(cgroup, port)), 1);
        }
    }
    let other = Kept::Flow(key(STARTS + 1, 0));
    keep(&mut keeping, other, 7);
    // It runs for the last time.
    keeping.join(&(1..STARTS).map(unit).collect()).unwrap();
    let held = 2 * usize::from(PORTS);
    assert_eq!(
        keeping.counts.held,
        1 + held + held + 1,
        "what left, twice the unit, another"
    );
    keeping.join(&(1..=STARTS).map(unit).collect()).unwrap();
    let all = keeping.all().unwrap();
    assert_eq!((all.len(), keeping.counts.held), (1 + held + 1, 1 + held + 1));
    assert_eq!(keeping.counts.left, 0);
    for (kept, archived) in all.iter().filter(|(kept, _)| leaving::leaves(*kept) && *kept != other) {
        let total = archived.total();
        assert_eq!((total.first_ns, total.attempted), (1, STARTS), "{kept:?}");
    }
    assert_eq!(keeping.get(other).unwrap().unwrap().total().attempted, 7);
    let owners: Vec<u64> = keeping
        .owners()
        .unwrap()
        .into_iter()
        .map(|(cgroup, _)| cgroup)
        .collect();
    assert_eq!(owners, [1], "the others have nothing any more");
}

#[test]
fn cut_short_the_next_learner_lets_the_rest_leave_and_counts_it_once() {
    let Some(mut keeping) = keeping() else { return };
    let keys = [80, 81, 82].map(|port| key(7, port));
    for key in keys {
        keep(&mut keeping, Kept::Flow(key), 1);
    }
    let total = FlowRecord {
        attempted: 3,
        ..FlowRecord::default()
    };
    keeping
        .take(leaving::steps(7, &keys, &total, Archived::default()).take(2))
        .unwrap();
    assert_eq!(keeping.all().unwrap().len(), 3, "two of them and what left");
    let unfinished = leaving::unfinished(&keeping.all().unwrap());
    assert!(keeping.take(unfinished).unwrap());
    assert_eq!((keeping.all().unwrap().len(), left(&keeping)), (1, 3));
    assert_eq!(leaving::unfinished(&keeping.all().unwrap()), []);
}

#[test]
fn a_full_archive_has_room_again_after_containers_that_are_gone_have_left() {
    // A container that starts again and again, each time with as many peers.
    const PORTS: u16 = 64;
    let Some(mut keeping) = keeping() else { return };
    let most = u64::from(nanoseg_ebpf::kept::ARCHIVED);
    let (mut cgroup, mut kept) = (0, 0);
    while keeping.counts.refused == 0 {
        cgroup += 1;
        for port in 0..PORTS {
            kept += u64::from(keep(&mut keeping, Kept::Flow(key(cgroup, port)), 1));
        }
    }
    assert_eq!(kept + 1, most);
    keeping.leave(&(1..cgroup).collect()).unwrap();
    assert_eq!(left(&keeping) + u64::from(PORTS) - keeping.counts.refused, kept);
    assert!(keep(&mut keeping, Kept::Flow(key(cgroup + 1, 1)), 1));
}
