//! Name servers that answer real questions, and those who ask them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use simple_dns::rdata::{A, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

use super::PATIENCE;

/// What the server answers with. Nobody has these.
pub(crate) const ALIASED: Ipv4Addr = Ipv4Addr::new(198, 18, 200, 250);
pub(crate) const LARGE: Ipv4Addr = Ipv4Addr::new(198, 18, 200, 251);

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
