//! Connections that are open when the learner starts: who listens tells their direction, or nobody does.

use std::net::{IpAddr, Ipv6Addr};

use nanoseg_graph::flow::{LossReason, Report, Reporter, Transport};

use crate::node::learner::{Learner, Reported as _};
use crate::node::{Container, Node, Step, is_possible};

const LISTENER: u16 = 50_051;
const CLOSED: u16 = 50_052;
const FROM: u16 = 7000;

fn hold(to: std::net::SocketAddr) -> Step {
    Step::Hold { from: None, to }
}

/// Two connections over each family to a listener of both families, one to a listener that is closed afterwards, and one
/// that began while nobody watched and has ended.
fn learned(start: impl FnOnce(&Node) -> Learner) {
    let mut node = Node::new();
    let (client, server) = (node.container(), node.container());
    let dual = Step::Accept((Ipv6Addr::UNSPECIFIED, LISTENER).into());
    let _listening = server.run(&[&[dual][..], &server.at(CLOSED).map(Step::AcceptOne)].concat());
    let ended = server.at(LISTENER).map(|to| Step::Connect { to, accepted: true });
    client.run(&ended).end();
    let held = server.at(LISTENER).map(hold);
    let to_closed = server.at(CLOSED).map(hold);
    let _holding = client.run(&[&held[..], &held, &to_closed].concat());

    let learner = start(&node);
    // One more, that is seen to begin.
    let _holding_more = client.run(&server.at(LISTENER).map(hold));
    let report = learner.end();
    check(&report, &client, &server);
}

fn check(report: &Report, client: &Container, server: &Container) {
    for (servers, clients) in [
        (IpAddr::from(server.v4), IpAddr::from(client.v4)),
        (server.v6.into(), client.v6.into()),
    ] {
        let source = report.counts(&client.subject(), Reporter::Source, servers, LISTENER, Transport::Tcp);
        assert_eq!(source, Some([1, 3, 0]), "two before and one since: {report:#?}");
        let destination = report.counts(
            &server.subject(),
            Reporter::Destination,
            clients,
            LISTENER,
            Transport::Tcp,
        );
        assert_eq!(destination, Some([1, 3, 0]), "{report:#?}");
    }
    assert_eq!(report.flows.len(), 4, "nothing else is in the report: {report:#?}");
    for end in [client, server] {
        assert_eq!(
            report.lost(&end.subject(), LossReason::UnderWay),
            2,
            "{:?}",
            report.losses
        );
    }
}

#[test]
fn a_connection_that_is_open_at_the_start_is_seen_at_both_ends_over_both_families() {
    if is_possible() {
        learned(|node| node.learner(&[]));
    }
}

#[test]
fn two_capabilities_are_enough_for_open_connections() {
    if is_possible() {
        learned(|node| node.learner_with_two_capabilities(&[]));
    }
}

#[test]
fn whoever_connects_from_a_port_of_its_own_is_known_by_who_listens() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server) = (node.container(), node.container());
    let _listening = server.run(&server.at(FROM).map(Step::Accept));
    let from_its_own = client.at(80).into_iter().zip(server.at(FROM));
    let steps: Vec<Step> = from_its_own
        .map(|(from, to)| Step::Hold { from: Some(from), to })
        .collect();
    let _holding = client.run(&steps);
    let report = node.learner(&[]).end();
    for peer in [IpAddr::from(server.v4), server.v6.into()] {
        let source = report.counts(&client.subject(), Reporter::Source, peer, FROM, Transport::Tcp);
        assert_eq!(source, Some([0, 1, 0]), "{report:#?}");
    }
    assert!(report.flows.iter().all(|flow| flow.tally.is_older()));
    assert_eq!(report.flows.len(), 4);
    assert!(report.losses.is_empty(), "{:?}", report.losses);
}

/// How long the start takes longer by, in `--nocapture`.
#[test]
fn many_open_connections_are_read_at_once() {
    const CONNECTIONS: usize = 2000;
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server) = (node.container(), node.container());
    let [at, _] = server.at(LISTENER);
    let _listening = server.run(&[Step::Accept(at)]);
    let _holding = client.run(&vec![hold(at); CONNECTIONS]);
    let started = std::time::Instant::now();
    let learner = node.learner(&[]);
    println!(
        "{CONNECTIONS} open connections: observing after {:?}",
        started.elapsed()
    );
    let report = learner.end();
    let [begun, open, _] = report
        .counts(&client.subject(), Reporter::Source, server.v4, LISTENER, Transport::Tcp)
        .unwrap();
    assert_eq!((begun, open), (0, CONNECTIONS as u64));
}
