//! Many flows: who gets room in the kernel's map, and when what is there is read.

use std::time::{Duration, Instant};

use nanoseg_graph::flow::{LossReason, Reporter, Transport};
use rustix::process::Signal;

use crate::node::learner::Reported as _;
use crate::node::{Container, Node, PATIENCE, Step, is_possible};

#[test]
fn p32_a_flood_of_one_container_costs_another_nothing_and_is_counted_to_the_unit() {
    const ENTRIES: u64 = 1024;
    const PORTS: u16 = 10_000;
    const FEW: u16 = 200;
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (noisy, quiet, second) = (node.container(), node.container(), node.container());
    let learner = node.learner(&["--map-entries", &ENTRIES.to_string()]);
    // Stopped, so that it cannot make room.
    learner.signal(Signal::STOP);
    noisy
        .run(&[Step::Spray {
            to: quiet.v4.into(),
            first_port: 1000,
            ports: PORTS,
        }])
        .end();
    quiet
        .run(&[Step::Spray {
            to: noisy.v4.into(),
            first_port: 1000,
            ports: FEW,
        }])
        .end();
    second
        .run(&[Step::Spray {
            to: quiet.v4.into(),
            first_port: 1000,
            ports: PORTS,
        }])
        .end();
    learner.signal(Signal::CONT);

    let report = learner.end();
    let delivered = |of: &Container| report.of(&of.subject()).map(|flow| flow.tally.attempted).sum::<u64>();
    let lost = |of: &Container| report.lost(&of.subject(), LossReason::MapFull);
    // Nobody holds more than is free: half of all, and then half of what the others left.
    let (few, half) = (u64::from(FEW), ENTRIES / 2);
    assert_eq!(delivered(&noisy), half);
    assert_eq!((delivered(&quiet), lost(&quiet)), (few, 0));
    assert_eq!(delivered(&second), (half - few) / 2);
    for flooding in [&noisy, &second] {
        assert_eq!(
            delivered(flooding) + lost(flooding),
            u64::from(PORTS),
            "produced = delivered + lost"
        );
    }
    let all: u64 = report.losses.iter().map(|loss| loss.count).sum();
    assert_eq!(all, lost(&noisy) + lost(&second), "{:?}", report.losses);
}

#[test]
fn p32_a_flood_of_exchanges_drives_out_nobody_elses() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server, noisy) = (node.container(), node.container(), node.container());
    let learner = node.learner(&["--exchange-entries", "1024"]);
    let ([from, _], [to, _]) = (client.at(5000), server.at(40_000));
    let after = Duration::from_secs(2);
    let _answering = server.run(&[Step::EchoLate { at: to, after }]);
    // The answer comes when the flood is over.
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.run(&[Step::Ask { from, to, times: 1 }]).end());
        let spray = Step::Spray {
            to: client.v4.into(),
            first_port: 10_000,
            ports: 10_000,
        };
        noisy.run(&[spray]).end();
        asking.join().unwrap();
    });
    let report = learner.end();
    let source = report.counts(&client.subject(), Reporter::Source, server.v4, 40_000, Transport::Udp);
    let destination = report.counts(
        &server.subject(),
        Reporter::Destination,
        client.v4,
        40_000,
        Transport::Udp,
    );
    let subjects = [client.subject(), server.subject()];
    let others: Vec<_> = subjects.iter().flat_map(|subject| report.of(subject)).collect();
    assert_eq!(others.len(), 2, "no answer is taken for a question: {others:#?}");
    assert_eq!((source, destination), (Some([1, 1, 0]), Some([1, 1, 0])));
}

#[test]
fn a_full_map_gets_room_again() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server) = (node.container(), node.container());
    let learner = node.learner(&["--map-entries", "16", "--health-listen=127.0.0.1:0"]);
    // Flows keep their counts when the kernel forgets them: more of them than the map holds end up in the report.
    let mut sent = 0;
    for ports in [8, 4, 4, 4, 4] {
        client
            .run(&[Step::Spray {
                to: server.v4.into(),
                first_port: 1000 + sent,
                ports,
            }])
            .end();
        sent += ports;
        learner.wait_for("every flow", |report| {
            report.of(&client.subject()).count() == usize::from(sent)
        });
        // A map that is nearly full is relieved of what is idle, until a quarter is left.
        learner.wait_for_room(4);
    }
    let report = learner.end();
    assert!(report.losses.is_empty(), "{:?}", report.losses);
    assert!(report.of(&client.subject()).all(|flow| flow.tally.attempted == 1));
}

#[test]
fn p2_what_is_not_announced_arrives_all_the_same() {
    // More than the ring buffer holds announcements.
    const PORTS: u16 = 10_000;
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server) = (node.container(), node.container());
    let learner = node.learner(&[]);
    learner.signal(Signal::STOP);
    client
        .run(&[Step::Spray {
            to: server.v4.into(),
            first_port: 1000,
            ports: PORTS,
        }])
        .end();
    learner.signal(Signal::CONT);
    let report = learner.end();
    assert_eq!(report.of(&client.subject()).count(), usize::from(PORTS));
    assert!(report.losses.is_empty(), "{:?}", report.losses);
}

#[test]
fn counts_of_a_map_that_is_too_large_for_one_turn_arrive_within_seconds() {
    // More than are read at once.
    const PORTS: u16 = 13_000;
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let server = node.container();
    let clients = [(); 3].map(|()| node.container());
    let learner = node.learner(&["--health-listen=127.0.0.1:0"]);
    let spray = Step::Spray {
        to: server.v4.into(),
        first_port: 1000,
        ports: PORTS,
    };
    for times in 1..=3 {
        for client in &clients {
            client.run(std::slice::from_ref(&spray)).end();
        }
        // Reports of so many flows are rare.
        let all = times * clients.len() as u64 * u64::from(PORTS);
        let end = Instant::now() + PATIENCE;
        while learner.recorded() < all {
            assert!(
                Instant::now() < end,
                "{} of {all} after {times} times",
                learner.recorded()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(learner.recorded(), all);
    }
    let report = learner.end();
    assert!(report.losses.is_empty(), "{:?}", report.losses);
    assert!(report.flows.iter().all(|flow| flow.tally.attempted == 3));
}
