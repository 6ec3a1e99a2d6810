//! The laws of UDP exchanges, against a model that keeps every datagram.

#![expect(clippy::panic, reason = "a test fails by it")]

use nanoseg_ebpf::exchange::{Asked, Asking, Begun, Exchange, ExchangeKey};
use nanoseg_ebpf::{Count, Role};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn role(exchange: &Exchange) -> usize {
    exchange.role().map_or_else(
        || panic!("nothing of an undecided exchange is counted"),
        |role| role as usize,
    )
}

/// Feeds datagrams to one exchange and says what was counted: attempts and answers by role.
fn count(datagrams: &[(Role, u64)]) -> [[u64; 2]; 2] {
    let mut exchange: Option<Exchange> = None;
    let mut counts = [[0; 2]; 2];
    for (speaker, now) in datagrams {
        let exchange = exchange.get_or_insert_with(|| Exchange::begun(*speaker, *now));
        if let Some(count) = exchange.hear(*speaker, *now) {
            match count {
                Count::Attempted => counts[role(exchange)][0] += 1,
                Count::Established => counts[role(exchange)][1] += 1,
                Count::Seen => {}
                Count::Refused => panic!("nobody refuses a datagram with a datagram"),
            }
            exchange.wrote(count, *now);
        }
    }
    counts
}

#[test]
fn an_answer_is_no_attempt() {
    let counts = count(&[
        (Role::Source, 10),
        (Role::Destination, 20),
        (Role::Source, 30),
        (Role::Destination, 40),
    ]);
    assert_eq!(counts, [[1, 1], [0, 0]]);
}

#[test]
fn after_silence_the_other_end_may_open() {
    let later = Exchange::SILENCE_NS + 21;
    assert_eq!(
        count(&[(Role::Source, 10), (Role::Destination, 20), (Role::Destination, later)]),
        [[1, 1], [1, 0]]
    );
    assert_eq!(
        count(&[
            (Role::Source, 10),
            (Role::Destination, 20),
            (Role::Destination, later - 1)
        ]),
        [[1, 1], [0, 0]]
    );
}

#[test]
fn what_could_not_be_written_is_tried_again() {
    let mut exchange = Exchange::begun(Role::Source, 1);
    assert_eq!(exchange.hear(Role::Source, 1), Some(Count::Attempted));
    assert_eq!(exchange.hear(Role::Destination, 2), Some(Count::Established));
    exchange.wrote(Count::Established, 2);
    assert_eq!(exchange.hear(Role::Source, 3), Some(Count::Attempted));
    exchange.wrote(Count::Attempted, 3);
    assert_eq!(exchange.hear(Role::Source, 4), None);
    assert_eq!(exchange.hear(Role::Source, 4 + Exchange::REFRESH_NS), Some(Count::Seen));
}

#[test]
fn in_the_grace_only_the_socket_decides() {
    const END: u64 = 10 * SECOND;
    for speaker in [Role::Source, Role::Destination] {
        for (now, grace_end) in [(END - 1, END), (END, 0), (u64::MAX, 0)] {
            assert_eq!(Exchange::first_seen(speaker, now, grace_end, || false).role(), None);
            let exchange = Exchange::first_seen(speaker, now, grace_end, || true);
            assert_eq!(exchange, Exchange::begun(Role::Source, now));
        }
        let ask = || panic!("whoever spoke first is known");
        assert_eq!(
            Exchange::first_seen(speaker, END, END, ask),
            Exchange::begun(speaker, END)
        );
    }
}

#[test]
fn an_initiator_may_be_seen_first_by_its_answer() {
    let mut exchange = Exchange::first_seen(Role::Destination, 5, 0, || true);
    assert_eq!(exchange.hear(Role::Destination, 5), Some(Count::Established));
    exchange.wrote(Count::Established, 5);
    assert_eq!(exchange.hear(Role::Destination, 6), None);
    assert_eq!(exchange.hear(Role::Source, 7), Some(Count::Attempted));
    assert_eq!(exchange.role(), Some(Role::Source));
}

#[test]
fn a_question_is_answered_by_whoever_comes_first_and_in_time() {
    let key = ExchangeKey {
        cgroup: 7,
        peer: [1, 2, 3, 4],
        local_port: 40_000,
        peer_port: 53,
        pad: 0,
    };
    let asked = Asked {
        slot: key.slot(),
        at_ns: 100,
    };
    let last = 100 + Asked::ANSWERED_WITHIN_NS;
    let question = Exchange::begun(Role::Source, 100);
    assert!(asked.may_be_answered(&question, 100) && asked.may_be_answered(&question, last));
    assert!(!asked.may_be_answered(&question, last + 1), "too late");
    // Another processor's clock may be read a moment before.
    assert!(asked.may_be_answered(&question, 99));
    let mut answered = question;
    assert_eq!(answered.hear(Role::Destination, 101), Some(Count::Established));
    assert!(
        asked.may_be_answered(&answered, 102),
        "what could not be written is tried again"
    );
    answered.wrote(Count::Established, 102);
    assert!(!asked.may_be_answered(&answered, 103));
    let others = [
        Exchange::begun(Role::Destination, 100),
        Exchange::first_seen(Role::Source, 100, 0, || false),
        Exchange::answering(100),
    ];
    assert!(others.iter().all(|other| !asked.may_be_answered(other, 100)));
}

#[test]
fn where_somebody_may_wait_for_whoever_comes_nobody_is_taken_for_an_answer() {
    for port in [53, 7946, 32_767] {
        assert_eq!(Asking::of(1, port), None);
    }
    let asking = |cgroup| Asking::of(cgroup, 32_768);
    assert_ne!(asking(1), asking(2));
    assert_ne!(asking(1), Asking::of(1, 32_769));
}

proptest! {
    #[test]
    fn answers_of_another_exchange_are_nothing_by_themselves(
        steps in prop::collection::vec((any::<bool>(), 0_u64..=2 * Exchange::SILENCE_NS), 0..60),
    ) {
        let mut now = 1;
        let mut exchange = Exchange::answering(now);
        for (is_source, pause) in steps {
            now += pause;
            prop_assert_eq!(exchange.hear(if is_source { Role::Source } else { Role::Destination }, now), None);
            prop_assert_eq!(exchange.role(), None);
        }
    }

    #[test]
    fn the_undecided_stay_so_until_they_are_silent(
        steps in prop::collection::vec((any::<bool>(), 0_u64..=Exchange::SILENCE_NS), 0..60),
        opener in any::<bool>(),
    ) {
        let role = |is_source| if is_source { Role::Source } else { Role::Destination };
        let mut now = 1;
        let mut exchange = Exchange::first_seen(Role::Destination, now, 2, || false);
        for (is_source, pause) in steps {
            now += pause;
            prop_assert_eq!(exchange.hear(role(is_source), now), None);
            prop_assert_eq!(exchange.role(), None);
        }
        now += Exchange::SILENCE_NS + 1;
        prop_assert_eq!(exchange.hear(role(opener), now), Some(Count::Attempted));
        prop_assert_eq!(exchange.role(), Some(role(opener)));
    }

    /// As programs do it, which remember for each way until when there is nothing to say.
    #[test]
    fn nothing_is_missed_of_what_is_not_heard(
        steps in prop::collection::vec((any::<bool>(), prop_oneof![4 => 0_u64..1500, 1 => Just(400_000)]), 1..60),
    ) {
        let mut now = 5 * SECOND;
        let datagrams: Vec<(Role, u64)> = steps
            .iter()
            .map(|(is_source, milliseconds)| {
                now += milliseconds * 1_000_000;
                (if *is_source { Role::Source } else { Role::Destination }, now)
            })
            .collect();
        let mut exchange: Option<Exchange> = None;
        let (mut until, mut counts) = ([0; 2], [[0_u64; 2]; 2]);
        for (speaker, now) in &datagrams {
            let exchange = exchange.get_or_insert_with(|| Exchange::begun(*speaker, *now));
            if *now <= until[*speaker as usize] {
                continue;
            }
            if let Some(count) = exchange.hear(*speaker, *now) {
                match count {
                    Count::Attempted => counts[role(exchange)][0] += 1,
                    Count::Established => counts[role(exchange)][1] += 1,
                    Count::Seen | Count::Refused => {}
                }
                exchange.wrote(count, *now);
            } else {
                until[*speaker as usize] = exchange.nothing_to_write_until(*now);
            }
            prop_assert!(now - exchange.last_ns <= Exchange::REFRESH_NS);
        }
        prop_assert_eq!(counts, count(&datagrams));
    }

    #[test]
    fn equal_to_the_model(steps in prop::collection::vec((any::<bool>(), 0_u64..400), 1..60)) {
        let mut now = 5 * SECOND;
        let datagrams: Vec<(Role, u64)> = steps
            .iter()
            .map(|(is_source, seconds)| {
                now += seconds * SECOND;
                (if *is_source { Role::Source } else { Role::Destination }, now)
            })
            .collect();
        let mut expected = [[0_u64; 2]; 2];
        for exchange in datagrams.chunk_by(|(_, before), (_, after)| after - before <= Exchange::SILENCE_NS) {
            let opener = exchange[0].0;
            expected[opener as usize][0] += 1;
            expected[opener as usize][1] += u64::from(exchange.iter().any(|(speaker, _)| *speaker != opener));
        }
        prop_assert_eq!(count(&datagrams), expected);
    }

    #[test]
    fn time_that_goes_back_between_processors_opens_nothing(times in prop::collection::vec(1_u64..1_000, 1..20)) {
        let datagrams: Vec<(Role, u64)> = times.iter().map(|now| (Role::Destination, *now)).collect();
        prop_assert_eq!(count(&datagrams), [[0, 0], [1, 0]]);
    }
}

#[test]
fn who_begins_more_than_its_share_in_the_time_of_a_silence_is_one_of_many() {
    let share = Begun::share(1024);
    let mut begun = Begun::default();
    let many: u64 = (0..u64::from(share) * 3)
        .map(|now| u64::from(begun.another(share, now)))
        .sum();
    assert_eq!(many, u64::from(share) * 2);
    assert!(
        !begun.another(share, Exchange::SILENCE_NS + 1),
        "after a silence it has its share again"
    );
    assert_eq!(Begun::share(1), 1);
}
