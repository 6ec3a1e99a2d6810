use std::net::Ipv4Addr;

use nanoseg_graph::container::ContainerRef;
use nanoseg_graph::flow::Outcome;
use proptest::prelude::*;

use super::*;

pub(crate) const CLOCK: Clock = Clock::with_offset(1_000_000_000_000_000_000);

fn key(cgroup: u64, port: u16) -> kernel::FlowKey {
    let peer = kernel::packet::mapped(u32::from_ne_bytes([198, 18, 0, 9]));
    kernel::FlowKey {
        cgroup,
        peer,
        port,
        transport: 6,
        role: 0,
        pad: 0,
    }
}

fn record(first_ns: u64, last_ns: u64, attempted: u64) -> kernel::FlowRecord {
    kernel::FlowRecord {
        first_ns,
        last_ns,
        attempted,
        established: 0,
        refused: 0,
    }
}

/// Cgroups 1 and 2 are of one container, 3 is of another, any other is unknown.
pub(crate) fn subject(cgroup: u64) -> Subject {
    let container = |id: &str| {
        Subject::Container(ContainerRef {
            pod_uid: "uid".to_owned(),
            container_id: id.to_owned(),
        })
    };
    match cgroup {
        1 | 2 => container("a"),
        3 => container("b"),
        _ => Subject::Unknown(UnknownReason::CgroupGone),
    }
}

#[test]
fn addresses_are_what_packets_carry() {
    let mut table = Table::default();
    let v6 = kernel::FlowKey {
        peer: [0xfd00_0018_u32.to_be(), 0, 0, 7_u32.to_be()],
        role: 1,
        transport: 17,
        ..key(1, 53)
    };
    table.observe(&key(1, 80), &record(1, 1, 1), CLOCK, subject);
    table.observe(&v6, &record(1, 1, 1), CLOCK, subject);
    let flows: Vec<Flow> = table.changed_since(0).collect();
    assert_eq!(flows[0].key.peer, IpAddr::from(Ipv4Addr::new(198, 18, 0, 9)));
    assert_eq!(
        (flows[0].key.transport, flows[0].key.reporter),
        (Transport::Tcp, Reporter::Source)
    );
    assert_eq!(flows[1].key.peer, "fd00:18::7".parse::<IpAddr>().unwrap());
    assert_eq!(
        (flows[1].key.transport, flows[1].key.reporter),
        (Transport::Udp, Reporter::Destination)
    );
}

#[test]
fn the_same_record_again_changes_nothing() {
    let mut table = Table::default();
    assert_eq!(
        table.observe(&key(1, 80), &record(1, 2, 3), CLOCK, subject),
        Change::Novel(0)
    );
    let version = table.version();
    assert_eq!(
        table.observe(&key(1, 80), &record(1, 2, 3), CLOCK, subject),
        Change::None
    );
    assert_eq!(table.version(), version);
    assert_eq!(table.changed_since(version).count(), 0);
}

#[test]
fn a_key_that_no_program_writes_is_refused() {
    let mut table = Table::default();
    for wrong in [
        kernel::FlowKey {
            transport: 2,
            ..key(1, 80)
        },
        kernel::FlowKey { role: 2, ..key(1, 80) },
    ] {
        assert_eq!(
            table.observe(&wrong, &record(1, 2, 3), CLOCK, subject),
            Change::Malformed
        );
    }
    assert_eq!((table.len(), table.delivered()), (0, 0));
}

#[test]
fn idle_keys_are_those_not_seen_since() {
    let mut table = Table::default();
    for (port, last_ns) in [(1, 30), (2, 10), (3, 20)] {
        table.observe(&key(1, port), &record(1, last_ns, 1), CLOCK, subject);
    }
    let ports: Vec<u16> = table.idle_since(30).iter().map(|key| key.port).collect();
    assert_eq!(ports, [2, 3], "the oldest first");
}

#[test]
fn the_most_of_one_cgroup_follows_what_comes_and_goes() {
    let mut table = Table::default();
    for (cgroup, port) in [(1, 1), (1, 2), (1, 2), (3, 1)] {
        table.observe(&key(cgroup, port), &record(1, 1, 1), CLOCK, subject);
    }
    assert_eq!(table.most_of_one_cgroup(), 2);
    table.forget(&key(1, 2));
    table.forget(&key(1, 2));
    assert_eq!(table.most_of_one_cgroup(), 1);
    table.forget(&key(1, 1));
    table.forget(&key(3, 1));
    assert_eq!(table.most_of_one_cgroup(), 0);
}

#[test]
fn who_leaves_takes_what_is_its_own_and_whoever_comes_has_its_place() {
    let mut table = Table::default();
    for (cgroup, port) in [(1, 80), (2, 81), (3, 80), (3, 81)] {
        table.observe(&key(cgroup, port), &record(1, 1, 1), CLOCK, subject);
    }
    let flows = |table: &Table| -> Vec<(Subject, u16, u64)> {
        let all = table.changed_since(0);
        all.map(|flow| (flow.key.subject, flow.key.port, flow.tally.attempted))
            .collect()
    };
    let before = flows(&table);
    table.leave(&[subject(1)].into());
    assert_eq!(flows(&table), before, "the kernel holds something of it");
    for port in [80, 81] {
        table.forget(&key(1, port));
        table.forget(&key(2, port));
    }
    table.leave(&[subject(1), subject(9)].into());
    assert_eq!(flows(&table), before[2..]);
    assert_eq!((table.len(), table.delivered()), (2, 4));
    assert!(!table.knows(&subject(1)) && table.knows(&subject(3)));

    // The places of what left are another's, and what was seen of the ones before is not.
    let (version, room) = (table.version(), table.room());
    table.observe(&key(9, 80), &record(5, 5, 1), CLOCK, subject);
    table.observe(&key(9, 82), &record(5, 5, 1), CLOCK, subject);
    table.observe(&key(3, 80), &record(1, 6, 3), CLOCK, subject);
    let mut changed: Vec<_> = table.changed_since(version).collect();
    changed.sort_by(|left, right| left.key.cmp(&right.key));
    let counts: Vec<_> = changed
        .iter()
        .map(|flow| (flow.key.port, flow.tally.attempted))
        .collect();
    assert_eq!(counts, [(80, 3), (80, 1), (82, 1)]);
    assert_eq!(changed[1].key.subject, subject(9));
    assert_eq!(changed[1].tally.first_seen, CLOCK.timestamp(5));
    assert_eq!((table.room(), table.delivered()), (room, 8));
}

#[test]
fn losses_add_up_to_the_totals() {
    let mut counters = Counters::default();
    counters.totals[kernel::Reason::MapFull as usize] = 10;
    counters.totals[kernel::Reason::Fragment as usize] = 1;
    counters.totals[kernel::Reason::Loopback as usize] = 99;
    for (cgroup, count) in [(1, 2), (2, 3), (3, 1)] {
        counters
            .by_cgroup
            .insert((cgroup, kernel::Reason::MapFull as u32), count);
    }
    let expected = [
        (None, LossReason::MapFull, 4),
        (None, LossReason::Fragment, 1),
        (Some(subject(1)), LossReason::MapFull, 5),
        (Some(subject(3)), LossReason::MapFull, 1),
    ];
    let losses: Vec<_> = losses(&counters, subject)
        .into_iter()
        .map(|Loss { subject, reason, count }| (subject, reason, count))
        .collect();
    assert_eq!(losses, expected);
}

#[test]
fn what_nobody_answers_in_time_is_told_apart_from_what_was_just_asked() {
    const SECOND: u64 = 1_000_000_000;
    let counted = |last_s: u64, [attempted, established, refused]: [u64; 3]| kernel::FlowRecord {
        established,
        refused,
        ..record(SECOND, last_s * SECOND, attempted)
    };
    // What the kernel counted by which second, and what is unanswered then.
    let rows = [
        (1, [1, 0, 0], 0),
        (10, [1, 0, 0], 0),
        // Ten seconds after it was asked.
        (11, [1, 0, 0], 1),
        (12, [5, 2, 1], 1),
        // Two of the five have no answer, one of which was told.
        (22, [5, 2, 1], 2),
        // An answer that comes too late takes nothing back.
        (23, [5, 5, 1], 2),
        // A policy begins to drop what was answered before.
        (30, [8, 5, 1], 2),
        (41, [9, 5, 1], 2),
        (51, [9, 5, 1], 3),
    ];
    let mut table = Table::default();
    for (second, counts, expected) in rows {
        table.observe(&key(1, 80), &counted(second, counts), CLOCK, subject);
        table.settle(second * SECOND, second * SECOND);
        let tally = table.flow(0).unwrap().tally;
        assert_eq!(tally.unanswered, expected, "after {second} s");
    }
    assert_eq!(table.flow(0).unwrap().tally.outcome(), Outcome::Established);
}

proptest! {
    /// However readings fall between attempts and answers, no more is told as unanswered than has no answer.
    #[test]
    fn no_answer_is_taken_for_silence(steps in prop::collection::vec((0_u64..15, 0_u64..4, 0_u64..4), 1..60)) {
        let mut table = Table::default();
        let (mut now, mut counts) = (1_000_000_000, [1_u64, 0]);
        for (seconds, asked, answered) in steps {
            now += seconds * 1_000_000_000;
            counts[0] += asked;
            // Nothing is answered before it is asked, and everything within a reading.
            counts[1] = counts[0].min(counts[1] + answered.max(asked));
            let record = kernel::FlowRecord { established: counts[1], ..record(1, now, counts[0]) };
            table.observe(&key(1, 80), &record, CLOCK, subject);
            table.settle(now, now);
            prop_assert!(table.flow(0).unwrap().tally.unanswered <= 1, "only the first may have none");
        }
    }

    /// Whatever the order of readings and evictions, every event of the kernel is in the flows once.
    #[test]
    fn produced_is_delivered(steps in prop::collection::vec((0_u64..5, 0_u16..3, 0_u8..4, 1_u64..50), 1..200)) {
        let mut table = Table::default();
        let mut kernel: BTreeMap<(u64, u16), kernel::FlowRecord> = BTreeMap::new();
        let mut produced: BTreeMap<(Subject, u16), u64> = BTreeMap::new();
        for (now, (cgroup, port, what, events)) in (1_u64..).zip(steps) {
            match what {
                0 | 1 => {
                    let record = kernel.entry((cgroup, port)).or_insert(record(now, now, 0));
                    record.attempted += events;
                    record.last_ns = now;
                    *produced.entry((subject(cgroup), port)).or_default() += events;
                }
                2 => if let Some(record) = kernel.get(&(cgroup, port)) {
                    table.observe(&key(cgroup, port), record, CLOCK, subject);
                },
                _ => if let Some(record) = kernel.remove(&(cgroup, port)) {
                    table.observe(&key(cgroup, port), &record, CLOCK, subject);
                    table.forget(&key(cgroup, port));
                },
            }
        }
        for ((cgroup, port), record) in kernel {
            table.observe(&key(cgroup, port), &record, CLOCK, subject);
        }
        let delivered: BTreeMap<(Subject, u16), u64> =
            table.changed_since(0).map(|flow| ((flow.key.subject, flow.key.port), flow.tally.attempted)).collect();
        prop_assert_eq!(table.delivered(), produced.values().sum::<u64>());
        prop_assert_eq!(delivered, produced);
    }

    /// Parts of a limited size, one after another, are all of the changes.
    #[test]
    fn parts_are_the_whole(observations in prop::collection::vec((0_u64..4, 0_u16..20, 1_u64..9), 1..100), limit in 1_usize..10) {
        let mut table = Table::default();
        let mut received: BTreeMap<(Subject, u16), u64> = BTreeMap::new();
        let mut version = 0;
        let mut counts: BTreeMap<(u64, u16), u64> = BTreeMap::new();
        for (cgroup, port, events) in observations {
            let count = counts.entry((cgroup, port)).or_default();
            *count += events;
            table.observe(&key(cgroup, port), &record(1, 1, *count), CLOCK, subject);
            if events > 4 {
                let (flows, up_to) = table.oldest_changes(version, limit);
                prop_assert!(flows.len() <= limit);
                version = up_to;
                received.extend(flows.into_iter().map(|flow| ((flow.key.subject, flow.key.port), flow.tally.attempted)));
            }
        }
        while version < table.version() {
            let (flows, up_to) = table.oldest_changes(version, limit);
            version = up_to;
            received.extend(flows.into_iter().map(|flow| ((flow.key.subject, flow.key.port), flow.tally.attempted)));
        }
        let whole: BTreeMap<(Subject, u16), u64> =
            table.changed_since(0).map(|flow| ((flow.key.subject, flow.key.port), flow.tally.attempted)).collect();
        prop_assert_eq!(received, whole);
    }
}

#[test]
fn a_connection_that_was_open_before_counts_once() {
    use crate::sockets::Open;

    let open = |count| Open {
        key: FlowKey {
            subject: Subject::Container(ContainerRef {
                pod_uid: "uid".to_owned(),
                container_id: String::new(),
            }),
            peer: Ipv4Addr::new(198, 18, 0, 9).into(),
            port: 80,
            transport: Transport::Tcp,
            reporter: Reporter::Source,
        },
        owners: [subject(1), subject(3)].into(),
        count,
    };
    let seen = |established| kernel::FlowRecord {
        established,
        ..record(1, 1, established)
    };
    let mut table = Table::default();
    // What began since is among what is open; that of another peer, or of nobody here, is not.
    table.observe(&key(1, 80), &seen(1), CLOCK, subject);
    table.observe(&key(3, 80), &seen(2), CLOCK, subject);
    table.observe(&key(3, 81), &seen(7), CLOCK, subject);
    table.observe(&key(9, 80), &seen(7), CLOCK, subject);
    let (version, delivered) = (table.version(), table.delivered());
    assert_eq!(table.found_open(&open(3), 5, CLOCK), Change::None);
    assert_eq!((table.version(), table.delivered()), (version, delivered));
    assert_eq!(table.found_open(&open(5), 5, CLOCK), Change::Novel(4));
    let tally = table.flow(4).unwrap().tally;
    assert_eq!((tally.attempted, tally.established, tally.is_older()), (0, 2, true));
    assert_eq!(
        (tally.first_seen, tally.last_seen),
        (CLOCK.timestamp(5), CLOCK.timestamp(5))
    );
    assert_eq!(table.changed_since(version).count(), 1);
    assert_eq!(table.delivered(), delivered + 2);
}
