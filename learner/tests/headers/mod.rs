//! Protocols and headers that no socket of this machine need know how to make: the packets are written here, byte by byte.

use std::net::{IpAddr, SocketAddr};

use nanoseg_graph::flow::{LossReason, Reporter, Transport};

use crate::DATAGRAM;
use crate::node::learner::Reported as _;
use crate::node::{Node, Step, is_possible};

/// An SCTP packet from one port to another, with one chunk of this kind.
fn sctp(to: IpAddr, from_port: u16, to_port: u16, chunk: u8) -> Step {
    let mut bytes = Vec::new();
    bytes.extend(from_port.to_be_bytes());
    bytes.extend(to_port.to_be_bytes());
    // No tag and no checksum: nobody listens.
    bytes.extend([0; 8]);
    bytes.extend([chunk, 0, 0, 20]);
    bytes.extend([0; 16]);
    Step::Raw {
        to,
        protocol: 132,
        bytes,
    }
}

#[test]
fn sctp_is_asked_for_and_accepted_over_both_families() {
    const INIT: u8 = 1;
    const INIT_ACK: u8 = 2;
    const HEARTBEAT: u8 = 4;
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server) = (node.container(), node.container());
    let learner = node.learner(&[]);
    let servers = [IpAddr::from(server.v4), server.v6.into()];
    let clients = [IpAddr::from(client.v4), client.v6.into()];
    let asked = servers.map(|to| [INIT, INIT, HEARTBEAT].map(|chunk| sctp(to, 50_000, 3868, chunk)));
    client.run(&asked.concat()).end();
    let accepted = clients.map(|to| [INIT_ACK, HEARTBEAT].map(|chunk| sctp(to, 3868, 50_000, chunk)));
    server.run(&accepted.concat()).end();

    let report = learner.end();
    for (servers, clients) in servers.into_iter().zip(clients) {
        let source = report.counts(&client.subject(), Reporter::Source, servers, 3868, Transport::Sctp);
        assert_eq!(source, Some([2, 0, 0]), "{servers}");
        let destination = report.counts(&server.subject(), Reporter::Destination, clients, 3868, Transport::Sctp);
        assert_eq!(destination, Some([0, 1, 0]), "{clients}");
    }
    assert_eq!(report.flows.len(), 4, "nothing else is in the report: {report:#?}");
    assert!(report.losses.is_empty(), "{:?}", report.losses);
}

#[test]
fn echo_is_asked_and_answered_over_both_families_and_told_by_who_asks() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server, sniffer) = (node.container(), node.container(), node.container());
    let learner = node.learner_with_two_capabilities(&[]);
    // Gets a copy of every packet of its namespace, and asked for none.
    let _sniffing = server.run(&[Step::Sniff { protocol: 1 }]);
    let servers = [IpAddr::from(server.v4), server.v6.into()];
    let pings = servers.map(|to| Step::Ping { to });
    client.run(&[pings.clone(), pings].concat()).end();
    sniffer.run(&[Step::Ping { to: client.v4.into() }]).end();

    let report = learner.end();
    for peer in servers {
        let source = report.counts(&client.subject(), Reporter::Source, peer, 0, Transport::Icmp);
        assert_eq!(source, Some([2, 2, 0]), "{peer}");
    }
    let other = report.counts(&sniffer.subject(), Reporter::Source, client.v4, 0, Transport::Icmp);
    assert_eq!(other, Some([1, 1, 0]));
    assert_eq!(report.flows.len(), 3, "who is asked tells nothing: {report:#?}");
    assert!(report.losses.is_empty(), "{:?}", report.losses);
}

#[test]
fn the_first_fragment_over_ipv6_is_recorded_and_the_others_are_counted() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server) = (node.container(), node.container());
    let learner = node.learner(&[]);
    let fragment = |offset: u8, more: u8| {
        let mut bytes = vec![17, 0, 0, offset << 3 | more, 0, 0, 0, 7];
        bytes.extend(DATAGRAM);
        Step::Raw {
            to: server.v6.into(),
            protocol: 44,
            bytes,
        }
    };
    client.run(&[fragment(0, 1), fragment(1, 1), fragment(2, 0)]).end();
    let report = learner.end();
    let sent = report.counts(&client.subject(), Reporter::Source, server.v6, 40_000, Transport::Udp);
    assert_eq!(sent, Some([1, 0, 0]), "{report:#?}");
    assert_eq!(report.lost(&client.subject(), LossReason::Fragment), 2);
}

#[test]
fn an_ipv4_address_in_an_ipv6_socket_is_that_ipv4_address() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server) = (node.container(), node.container());
    let learner = node.learner(&[]);
    let [at, _] = server.at(8080);
    let _listening = server.run(&[Step::Accept(at)]);
    let to = SocketAddr::from((server.v4.to_ipv6_mapped(), 8080));
    client.run(&[Step::Connect { to, accepted: true }]).end();
    let report = learner.end();
    let source = report.counts(&client.subject(), Reporter::Source, server.v4, 8080, Transport::Tcp);
    assert_eq!(source, Some([1, 1, 0]), "{report:#?}");
    assert_eq!(report.flows.len(), 2, "{report:#?}");
}
