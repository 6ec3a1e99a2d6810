//! Name servers that answer real questions, and what the addresses of their answers are then called.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use nanoseg_graph::flow::{Reporter, Subject, Transport};
use rustix::process::Signal;
use simple_dns::rdata::{A, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

use crate::node::{Learner, Node, PATIENCE, Reported as _, Step, is_possible};

/// Nobody has these.
const ALIASED: Ipv4Addr = Ipv4Addr::new(198, 18, 200, 250);
const LARGE: Ipv4Addr = Ipv4Addr::new(198, 18, 200, 251);
const UNNAMED: Ipv4Addr = Ipv4Addr::new(198, 18, 200, 249);

/// Answers every question over both transports from then on: with an alias of [`ALIASED`], or with more addresses than fit in
/// a packet, of which the first is [`LARGE`].
pub(crate) fn serve(at: SocketAddr) {
    let socket = UdpSocket::bind(at).unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut question).unwrap();
            socket.send_to(&reply(&question[..length]), from).unwrap();
        }
    });
    let listener = TcpListener::bind(at).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let question = framed(&mut stream);
            let reply = reply(&question);
            let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length[..], &reply].concat()).unwrap();
        }
    });
}

fn reply(question: &[u8]) -> Vec<u8> {
    let question = Packet::parse(question).unwrap();
    let name = question.questions[0].qname.clone();
    let mut reply = Packet::new_reply(question.id());
    let record = |name: &Name<'static>, data| ResourceRecord::new(name.clone(), CLASS::IN, 60, data);
    let (alias, own) = (Name::new_unchecked("edge.example.net"), name.clone().into_owned());
    if name.to_string().starts_with("large") {
        let addresses = (0..200).map(|number| u32::from(LARGE) + number);
        reply
            .answers
            .extend(addresses.map(|address| record(&own, RData::A(A { address }))));
    } else {
        reply.answers.push(record(&own, RData::CNAME(CNAME(alias.clone()))));
        let address = ALIASED.into();
        reply.answers.push(record(&alias, RData::A(A { address })));
    }
    reply.questions = question.questions;
    reply.build_bytes_vec_compressed().unwrap()
}

/// Asks and waits for the answer.
pub(crate) fn ask(server: SocketAddr, name: &str, over_tcp: bool) {
    let mut packet = Packet::new_query(7);
    let name = Name::new_unchecked(name);
    packet.questions.push(Question::new(
        name,
        QTYPE::TYPE(TYPE::A),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    let question = packet.build_bytes_vec().unwrap();
    if over_tcp {
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE).unwrap();
        let length = u16::try_from(question.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &question].concat()).unwrap();
        framed(&mut stream);
    } else {
        let any: IpAddr = if server.is_ipv4() {
            [0; 4].into()
        } else {
            [0_u16; 8].into()
        };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(&question, server).unwrap();
        socket.recv_from(&mut [0; 512]).unwrap();
    }
}

fn framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    message
}

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
        named(|node| {
            let mut command = Command::new("setpriv");
            command
                .args(["--bounding-set", "-all,+bpf,+net_admin", "--"])
                .arg(env!("CARGO_BIN_EXE_nanoseg-learner"));
            node.learner_as(command)
        });
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
