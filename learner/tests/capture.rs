//! Real packets of real processes through the real programs.
//!
//! Names that begin with a letter and a number are rows of the list of known faults of such tools.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its node has failed")]

mod answers;
mod halves;
mod headers;
mod heard;
mod node;
mod older;
mod pinned;
mod plain;
// The learner is a program, not a library.
#[path = "../src/capture/records.rs"]
#[expect(dead_code, reason = "not every record is looked at")]
mod records;
mod recycled;
mod returned;
mod room;
mod translated;
mod under_way;

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use nanoseg_graph::endpoint::UnknownReason;
use nanoseg_graph::flow::{LossReason, Outcome, Report, Reporter, Subject, Transport};

use crate::node::learner::Reported as _;
use crate::node::{Node, Step, is_possible, run_script_if_told};

/// Not a test: what this program does when a test has started it in a container.
#[test]
fn in_a_container() {
    run_script_if_told();
}

#[test]
fn tcp_is_seen_at_both_ends_over_both_families() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server) = (node.container(), node.container());
    let learner = node.learner(&[]);
    let _listening = server.run(&server.at(8080).map(Step::Accept));
    let connections = server.at(8080).map(|to| Step::Connect { to, accepted: true });
    client.run(&[connections.clone(), connections].concat()).end();

    let report = learner.end();
    for (servers, clients) in [
        (IpAddr::from(server.v4), IpAddr::from(client.v4)),
        (server.v6.into(), client.v6.into()),
    ] {
        let source = report.counts(&client.subject(), Reporter::Source, servers, 8080, Transport::Tcp);
        assert_eq!(source, Some([2, 2, 0]), "{servers}");
        let destination = report.counts(&server.subject(), Reporter::Destination, clients, 8080, Transport::Tcp);
        assert_eq!(destination, Some([2, 2, 0]), "{clients}");
    }
    assert_eq!(report.flows.len(), 4, "nothing else is in the report: {report:#?}");
    assert!(report.losses.is_empty(), "{:?}", report.losses);
    assert!(
        report
            .flows
            .iter()
            .all(|flow| flow.tally.first_seen <= flow.tally.last_seen)
    );
}

#[test]
fn p33_refused_and_unanswered_attempts_are_told_apart() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server) = (node.container(), node.container());
    let learner = node.learner(&[]);
    let nobody = Ipv4Addr::new(198, 18, 200, 250);
    let _idle = server.run(&[]);
    let [refusing_v4, refusing_v6] = server.at(81).map(|to| Step::Connect { to, accepted: false });
    client
        .run(&[refusing_v4, refusing_v6, Step::Try((nobody, 82).into())])
        .end();

    let outcome = |report: &Report, port| {
        let mut of_port = report.flows.iter().filter(|flow| flow.key.port == port);
        of_port.next().map(|flow| flow.tally.outcome())
    };
    let just = learner.wait_for("all three", |report| report.flows.len() == 3);
    assert_eq!(outcome(&just, 82), Some(Outcome::Attempted));
    learner.wait_for("silence", |report| outcome(report, 82) == Some(Outcome::Unanswered));
    let report = learner.end();
    assert_eq!(outcome(&report, 81), Some(Outcome::Refused));
    let counts = |peer: IpAddr, port| report.counts(&client.subject(), Reporter::Source, peer, port, Transport::Tcp);
    assert_eq!(counts(server.v4.into(), 81), Some([1, 0, 1]));
    assert_eq!(counts(server.v6.into(), 81), Some([1, 0, 1]));
    assert_eq!(counts(nobody.into(), 82), Some([1, 0, 0]));
    assert_eq!(report.flows.len(), 3, "{report:#?}");
}

#[test]
fn p1_udp_direction_is_who_spoke_first() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server) = (node.container(), node.container());
    let learner = node.learner(&[]);
    let _answering = server.run(&server.at(40_000).map(Step::Echo));
    let ask = |from, to| Step::Ask { from, to, times: 3 };
    let ([from_v4, from_v6], [to_v4, to_v6]) = (client.at(53), server.at(40_000));
    client.run(&[ask(from_v4, to_v4), ask(from_v6, to_v6)]).end();

    let report = learner.end();
    for (servers, clients) in [
        (IpAddr::from(server.v4), IpAddr::from(client.v4)),
        (server.v6.into(), client.v6.into()),
    ] {
        let source = report.counts(&client.subject(), Reporter::Source, servers, 40_000, Transport::Udp);
        assert_eq!(source, Some([1, 1, 0]), "three questions are one exchange");
        let destination = report.counts(
            &server.subject(),
            Reporter::Destination,
            clients,
            40_000,
            Transport::Udp,
        );
        assert_eq!(destination, Some([1, 1, 0]));
    }
    assert_eq!(report.flows.len(), 4, "{report:#?}");
}

/// How long a container lives that must be attributed. A learner that gets no processor for as long as one lives cannot know its
/// name: what made it is gone, and its cgroup as well.
const MOMENT: Duration = Duration::from_millis(200);

#[test]
fn p6_a_container_that_lives_for_a_moment_is_attributed() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let server = node.container();
    let learner = node.learner(&[]);
    let _listening = server.run(&server.at(8080).map(Step::Accept));
    for _ in 0..5 {
        let brief = node.container();
        let [to, _] = server.at(8080);
        let born = Instant::now();
        let running = brief.run(&[Step::Connect { to, accepted: true }]);
        std::thread::sleep(MOMENT.saturating_sub(born.elapsed()));
        running.end();
        brief.remove_cgroup();
        let seen = |report: &nanoseg_graph::flow::Report| {
            report
                .counts(&brief.subject(), Reporter::Source, server.v4, 8080, Transport::Tcp)
                .is_some()
        };
        learner.wait_for("the container that is gone", seen);
    }
    let report = learner.end();
    let unknown = Subject::Unknown(UnknownReason::CgroupGone);
    assert_eq!(report.of(&unknown).count(), 0, "{report:#?}");
}

#[test]
fn traffic_inside_a_container_is_not_traffic() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let alone = node.container();
    let learner = node.learner(&[]);
    let (own, local) = (alone.at(8080), (Ipv4Addr::LOCALHOST, 8081).into());
    let connect = |to| Step::Connect { to, accepted: true };
    let steps = [
        Step::Accept(own[0]),
        Step::Accept(own[1]),
        Step::Accept(local),
        connect(own[0]),
        connect(own[1]),
        connect(local),
    ];
    alone.run(&steps).end();
    let ping = Step::Raw {
        to: Ipv4Addr::new(198, 18, 200, 200).into(),
        protocol: 1,
        // A question for the time: only echo is recorded.
        bytes: vec![13, 0, 0xf2, 0xff, 0, 0, 0, 0],
    };
    alone.run(&[ping]).end();
    let report = learner.end();
    assert!(report.flows.is_empty() && report.losses.is_empty(), "{report:#?}");
}

#[test]
fn what_is_not_recorded_is_counted_for_its_container() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (sender, other) = (node.container(), node.container());
    let learner = node.learner(&[]);
    let gre = |to| Step::Raw {
        to,
        protocol: 47,
        bytes: vec![0; 8],
    };
    sender.run(&[gre(other.v4.into()), gre(other.v4.into())]).end();
    other.run(&[gre(sender.v4.into())]).end();
    let report = learner.end();
    assert_eq!(report.lost(&sender.subject(), LossReason::OtherTransport), 2);
    assert_eq!(report.lost(&other.subject(), LossReason::OtherTransport), 1);
    assert!(report.flows.is_empty());
}

/// An IPv4 packet with a UDP datagram from port 5000 to port 40000. The kernel fills in the source and the checksum.
fn whole_v4(to: Ipv4Addr, options: &[u8], fragment: [u8; 2], protocol: u8, payload: &[u8]) -> Step {
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    let mut bytes = vec![
        0x40 | words,
        0,
        0,
        0,
        0,
        7,
        fragment[0],
        fragment[1],
        64,
        protocol,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    bytes.extend(to.octets());
    bytes.extend(options);
    bytes.extend(payload);
    Step::Raw {
        to: to.into(),
        protocol: 255,
        bytes,
    }
}

const DATAGRAM: [u8; 9] = [0x13, 0x88, 0x9c, 0x40, 0, 9, 0, 0, b'?'];

#[test]
fn headers_behind_options_and_extension_headers_are_read() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server) = (node.container(), node.container());
    let learner = node.learner(&[]);
    let _answering = server.run(&server.at(40_000).map(Step::Echo));
    let no_operation = [1; 4];
    let mut extended = vec![17, 0, 1, 4, 0, 0, 0, 0];
    extended.extend(DATAGRAM);
    let steps = [
        whole_v4(server.v4, &no_operation, [0, 0], 17, &DATAGRAM),
        Step::Raw {
            to: server.v6.into(),
            protocol: 60,
            bytes: extended,
        },
    ];
    client.run(&steps).end();
    let answered = |report: &nanoseg_graph::flow::Report| {
        let at_server = report.counts(
            &server.subject(),
            Reporter::Destination,
            client.v4,
            40_000,
            Transport::Udp,
        );
        at_server == Some([1, 1, 0])
    };
    learner.wait_for("the answered datagram", answered);
    let report = learner.end();
    for peer in [IpAddr::from(server.v4), server.v6.into()] {
        let sent = report.counts(&client.subject(), Reporter::Source, peer, 40_000, Transport::Udp);
        assert_eq!(sent.map(|[attempted, ..]| attempted), Some(1), "{peer}");
    }
    assert!(report.losses.is_empty(), "{:?}", report.losses);
}

#[test]
fn whoever_gets_copies_of_packets_is_nobodys_peer() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, sniffer) = (node.container(), node.container());
    let learner = node.learner(&[]);
    let _sniffing = sniffer.run(&[Step::Sniff { protocol: 6 }, Step::Sniff { protocol: 17 }]);
    let ([refused, _], spray) = (
        sniffer.at(8080),
        Step::Spray {
            to: sniffer.v4.into(),
            first_port: 1000,
            ports: 1,
        },
    );
    client
        .run(&[
            Step::Connect {
                to: refused,
                accepted: false,
            },
            spray,
        ])
        .end();
    let report = learner.end();
    assert_eq!(report.of(&client.subject()).count(), 2);
    assert_eq!(report.of(&sniffer.subject()).count(), 0, "{report:#?}");
}

#[test]
fn what_has_no_ports_is_counted_as_lost() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (sender, other) = (node.container(), node.container());
    let learner = node.learner(&[]);
    let steps = [
        whole_v4(other.v4, &[], [0, 1], 17, &DATAGRAM),
        whole_v4(other.v4, &[], [0, 0], 17, &DATAGRAM[..3]),
        Step::Raw {
            to: other.v6.into(),
            protocol: 60,
            bytes: [60, 0, 1, 4, 0, 0, 0, 0].repeat(20),
        },
    ];
    sender.run(&steps).end();
    let report = learner.end();
    for reason in [
        LossReason::Fragment,
        LossReason::Truncated,
        LossReason::ExtensionHeaders,
    ] {
        assert_eq!(
            report.lost(&sender.subject(), reason),
            1,
            "{reason:?} of {:?}",
            report.losses
        );
    }
    assert!(report.flows.is_empty());
}

#[test]
fn the_first_packet_is_in_the_report_within_a_second_and_a_half() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let server = node.container();
    let clients = [node.container(), node.container(), node.container()];
    let mut command = Command::new(env!("CARGO_BIN_EXE_nanoseg-learner"));
    command.env("NANOSEG_INTERVAL", "1s");
    let learner = node.learner_as(command);
    let _listening = server.run(&server.at(8080).map(Step::Accept));
    let [to, _] = server.at(8080);
    // Tried again, since a busy machine pauses now and then.
    let took = clients.each_ref().map(|client| {
        let before = Instant::now();
        let _connected = client.run(&[Step::Connect { to, accepted: true }]);
        learner.wait_for("the connection", |report| report.of(&client.subject()).count() == 1);
        before.elapsed()
    });
    assert!(took.iter().any(|took| *took < Duration::from_millis(1500)), "{took:?}");
}

#[test]
fn killed_it_leaves_nothing_attached() {
    if !is_possible() {
        return;
    }
    let node = Node::new();
    let mut learner = node.learner(&[]);
    let programs = learner.program_ids();
    assert_eq!(programs.len(), 2, "one for each way");
    learner.child.kill().unwrap();
    learner.child.wait().unwrap();
    pinned::wait_until_gone(&programs);
}

#[test]
fn two_capabilities_are_enough() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server) = (node.container(), node.container());
    let learner = node.learner_with_two_capabilities(&[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", learner.child.id())).unwrap();
    assert!(status.contains("CapEff:\t0000008000001000"), "{status}");
    let _listening = server.run(&[server.at(8080).map(Step::Accept), server.at(40_000).map(Step::Echo)].concat());
    let ([from, _], [to, _], [tcp, _]) = (client.at(53), server.at(40_000), server.at(8080));
    client
        .run(&[
            Step::Connect {
                to: tcp,
                accepted: true,
            },
            Step::Ask { from, to, times: 2 },
        ])
        .end();
    let report = learner.end();
    let counts = |port, transport| report.counts(&client.subject(), Reporter::Source, server.v4, port, transport);
    assert_eq!(counts(8080, Transport::Tcp), Some([1, 1, 0]));
    assert_eq!(counts(40_000, Transport::Udp), Some([1, 1, 0]));
}

#[test]
fn what_is_missing_is_one_sentence() {
    if !is_possible() {
        return;
    }
    let learner = env!("CARGO_BIN_EXE_nanoseg-learner");
    let without = |capabilities: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", capabilities, "--", learner]);
        command
    };
    for (mut command, arguments, expected) in [
        (without("-bpf,-sys_admin"), vec!["--print"], "missing CAP_BPF"),
        (without("-net_admin"), vec!["--print"], "missing CAP_NET_ADMIN"),
        (Command::new(learner), vec![], "--out DIR, --controller URL or --print"),
        (
            Command::new(learner),
            vec!["--print", "--cgroup-root", "/nowhere"],
            "/nowhere",
        ),
        (
            Command::new(learner),
            vec!["--print", "--cgroup-root", "/proc"],
            "not in a cgroup v2 file system",
        ),
        (
            Command::new(learner),
            vec!["--out", "/proc/nowhere"],
            "cannot make the folder /proc/nowhere",
        ),
    ] {
        let output = command.args(&arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
