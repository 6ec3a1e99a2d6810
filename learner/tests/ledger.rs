//! What a program says that it did, against what is in the report, to the unit.
//!
//! A program of its own, because it takes the whole machine, and other tests ask how soon something happens.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its node has failed")]

#[expect(dead_code, reason = "the other tests of the programs use the rest of it")]
mod node;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nanoseg_graph::flow::{Report, Transport};
use rustix::process::Signal;

use crate::node::learner::Reported as _;
use crate::node::{Container, Node, Step, is_possible, run_script_if_told};

/// Not a test: what this program does when a test has started it in a container.
#[test]
fn in_a_container() {
    run_script_if_told();
}

/// How much traffic, and how long the learner is stopped in the middle of it.
struct Size {
    /// Of each client; each is a distinct edge.
    ports: u16,
    /// Connections to each port before, while and after the learner is stopped.
    rounds: [u16; 3],
    pause: Duration,
}

const CLIENTS: usize = 4;

impl Size {
    const SMALL: Self = Self {
        ports: 1500,
        rounds: [1, 2, 1],
        pause: Duration::from_secs(2),
    };
    /// A million connections over a hundred thousand edges.
    const FULL: Self = Self {
        ports: 25_000,
        rounds: [4, 4, 4],
        pause: Duration::from_mins(1),
    };

    fn wanted() -> Self {
        if std::env::var_os("NANOSEG_FULL_LEDGER").is_some() {
            Self::FULL
        } else {
            Self::SMALL
        }
    }
}

/// Every client asks for every port of the server, all clients at once, as fast as they can. Nobody listens: each connection
/// is refused at once, so a client knows how each ended.
fn knock(clients: &[Container], server: &Container, ports: u16, times: u16) {
    let step = Step::Knock {
        to: server.v4.into(),
        first_port: 1000,
        ports,
        times,
    };
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| client.run(std::slice::from_ref(&step)).end());
        }
    });
}

/// A server that listens nowhere, and its clients.
fn containers(node: &mut Node) -> (Container, Vec<Container>) {
    let server = node.container();
    let clients = (0..CLIENTS).map(|_| node.container()).collect();
    (server, clients)
}

/// Whether the report is the ledger: of each client the first half of the ports `first` times more than the others.
fn compare(report: &Report, server: &Container, clients: &[Container], size: &Size) {
    let Size {
        ports,
        rounds: [before, meanwhile, after],
        pause: _,
    } = *size;
    let peer = IpAddr::from(server.v4);
    let ledger: BTreeMap<u16, [u64; 3]> = (0..ports)
        .map(|port| {
            let first = if port < ports / 2 { before } else { 0 };
            let times = u64::from(first + meanwhile + after);
            (1000 + port, [times, 0, times])
        })
        .collect();
    for client in clients {
        let reported: BTreeMap<u16, [u64; 3]> = report
            .of(&client.subject())
            .map(|flow| {
                assert_eq!((flow.key.peer, flow.key.transport), (peer, Transport::Tcp));
                let tally = &flow.tally;
                (flow.key.port, [tally.attempted, tally.established, tally.refused])
            })
            .collect();
        let lost = ledger.keys().filter(|port| !reported.contains_key(port)).count();
        assert_eq!(lost, 0, "edges of {} are lost", client.v4);
        assert!(reported == ledger, "{}: counts differ", client.v4);
    }
    assert_eq!(
        report.flows.len(),
        CLIENTS * usize::from(ports),
        "nothing else is there"
    );
    assert!(report.losses.is_empty(), "{:?}", report.losses);
}

/// One at a time: each takes the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

#[test]
fn p2_what_was_done_is_what_is_reported_though_the_learner_was_stopped() {
    if !is_possible() {
        return;
    }
    let _alone = MACHINE.lock();
    let size = Size::wanted();
    let [before, meanwhile, after] = size.rounds;
    let mut node = Node::new();
    let (server, clients) = containers(&mut node);
    let learner = node.learner_with_two_capabilities(&[]);
    let _idle = server.run(&[]);

    // New edges appear in each part: the first has half of the ports.
    knock(&clients, &server, size.ports / 2, before);
    learner.signal(Signal::STOP);
    let stopped = Instant::now();
    knock(&clients, &server, size.ports, meanwhile);
    std::thread::sleep(size.pause.saturating_sub(stopped.elapsed()));
    learner.signal(Signal::CONT);
    knock(&clients, &server, size.ports, after);
    compare(&learner.end(), &server, &clients, &size);
}

#[test]
fn p2_what_was_done_is_what_is_reported_though_the_learner_was_stopped_and_killed_and_another_took_over() {
    if !is_possible() {
        return;
    }
    let _alone = MACHINE.lock();
    let size = Size::wanted();
    let [before, meanwhile, after] = size.rounds;
    let mut node = Node::new();
    let (server, clients) = containers(&mut node);
    let pins = node.pins();
    let arguments = ["--pin", pins.as_str()];
    let first = node.learner_with_two_capabilities(&arguments);
    let _idle = server.run(&[]);

    knock(&clients, &server, size.ports / 2, before);
    first.signal(Signal::STOP);
    let stopped = Instant::now();
    knock(&clients, &server, size.ports, meanwhile);
    std::thread::sleep(size.pause.saturating_sub(stopped.elapsed()));
    // The programs are replaced under full traffic.
    let second = std::thread::scope(|scope| {
        scope.spawn(|| knock(&clients, &server, size.ports, after));
        first.kill();
        node.learner_with_two_capabilities(&arguments)
    });
    compare(&second.end(), &server, &clients, &size);
}
