//! What the addresses in answers of name servers are called.

use std::net::{IpAddr, Ipv4Addr};

use nanoseg_graph::flow::{Reporter, Subject, Transport};
use rustix::process::Signal;

use crate::node::learner::{Learner, Reported as _};
use crate::node::names::{ALIASED, LARGE};
use crate::node::{Node, Step, is_possible};

/// Nobody has it, and no name.
const UNNAMED: Ipv4Addr = Ipv4Addr::new(198, 18, 200, 249);

fn named(start: impl FnOnce(&Node) -> Learner) {
    let mut node = Node::new();
    let (server, client, other) = (node.container(), node.container(), node.container());
    let learner = start(&node);
    let [v4, v6] = server.at(53);
    let _serving = server.run(&[Step::AnswerNames(v4), Step::AnswerNames(v6)]);
    let ask = |server, name: &str, over_tcp| Step::AskName {
        server,
        name: name.to_owned(),
        over_tcp,
    };
    let connect = |to| Step::Try((to, 443).into());
    client
        .run(&[
            ask(v4, "datagram.Example.com", false),
            ask(v6, "datagram6.example.com", false),
            ask(v4, "stream.example.com", true),
            ask(v6, "stream6.example.com", true),
            ask(v6, "large.example.com", true),
            connect(ALIASED),
            connect(LARGE),
            connect(UNNAMED),
        ])
        .end();
    // It did not ask, so for it the address has no name.
    other.run(&[connect(ALIASED)]).end();
    let report = learner.end();
    let names: Vec<_> = report
        .names
        .iter()
        .map(|named| (named.address, named.name.as_str()))
        .collect();
    let expected: [(IpAddr, &str); 5] = [
        (ALIASED.into(), "datagram.example.com"),
        (ALIASED.into(), "datagram6.example.com"),
        (ALIASED.into(), "stream.example.com"),
        (ALIASED.into(), "stream6.example.com"),
        (LARGE.into(), "large.example.com"),
    ];
    assert_eq!(names, expected);
    for named in &report.names {
        let is_the_clients =
            matches!(&named.subject, Subject::Container(asked) if asked.pod_uid == client.reference.pod_uid);
        assert!(is_the_clients, "{named:?}");
    }
    assert_eq!(report.of(&other.subject()).count(), 1);
    assert!(report.losses.is_empty(), "{:?}", report.losses);
}

#[test]
fn p25_an_address_is_called_what_the_container_asked_for() {
    if is_possible() {
        named(|node| node.learner(&[]));
    }
}

#[test]
fn two_capabilities_are_enough_for_names() {
    if is_possible() {
        named(|node| node.learner_with_two_capabilities(&[]));
    }
}

/// While nobody listens to the answers there is room for some, and a flood of them costs the connections nothing.
#[test]
fn more_answers_than_fit_lose_no_flow() {
    const QUESTIONS: usize = 500;
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (server, client) = (node.container(), node.container());
    let learner = node.learner(&[]);
    let [v4, _] = server.at(53);
    let _serving = server.run(&[Step::AnswerNames(v4)]);
    learner.signal(Signal::STOP);
    let question = |number| Step::AskName {
        server: v4,
        name: format!("n{number}.example.com"),
        over_tcp: false,
    };
    client.run(&(0..QUESTIONS).map(question).collect::<Vec<_>>()).end();
    client.run(&[Step::Try((ALIASED, 443).into())]).end();
    learner.signal(Signal::CONT);
    let report = learner.end();
    assert!((1..=4).contains(&report.names.len()), "{:?}", report.names);
    let asked = report.counts(&client.subject(), Reporter::Source, server.v4, 53, Transport::Udp);
    // A port that the kernel chooses again goes on with its exchange, so there are a few less.
    let [begun, answered, _] = asked.unwrap();
    assert_eq!(begun, answered);
    assert!((QUESTIONS as u64 / 2..=QUESTIONS as u64).contains(&begun), "{begun}");
    assert!(report.losses.is_empty(), "{:?}", report.losses);
}
