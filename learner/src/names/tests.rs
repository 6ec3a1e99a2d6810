use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use simple_dns::rdata::{A, AAAA, CNAME};
use simple_dns::{CLASS, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 53);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn subject(pod: &str, container: &str) -> Subject {
    Subject::Container(ContainerRef {
        pod_uid: pod.to_owned(),
        container_id: container.to_owned(),
    })
}

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

/// `alias=target` or `name=address`, each with a time to live.
fn message(question: &str, records: &[(&str, &str, u32)]) -> Vec<u8> {
    let mut packet = Packet::new_reply(7);
    let name = Name::new(question).unwrap().into_owned();
    packet.questions.push(Question::new(
        name,
        QTYPE::TYPE(TYPE::A),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    for (owner, value, ttl) in records {
        let data = match value.parse() {
            Ok(IpAddr::V4(address)) => RData::A(A {
                address: address.into(),
            }),
            Ok(IpAddr::V6(address)) => RData::AAAA(AAAA {
                address: address.into(),
            }),
            Err(_) => RData::CNAME(CNAME(Name::new(value).unwrap())),
        };
        packet
            .answers
            .push(ResourceRecord::new(Name::new(owner).unwrap(), CLASS::IN, *ttl, data));
    }
    packet.build_bytes_vec_compressed().unwrap()
}

fn over_udp(message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(SERVER.octets());
    packet.extend([198, 18, 0, 1, 0, 53, 0x9c, 0x40, 0, 0, 0, 0]);
    packet.extend(message);
    packet
}

fn over_tcp_v6(payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
    packet.extend(SERVER.to_ipv6_mapped().octets());
    packet.extend(Ipv6Addr::LOCALHOST.octets());
    // A header with an option of 12 bytes.
    packet.extend([
        0,
        53,
        0x9c,
        0x40,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        8 << 4,
        0x10,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    packet.extend([1; 12]);
    packet.extend(payload);
    packet
}

fn with_length(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn flow(pod: &str, peer: IpAddr, reporter: Reporter, first: i64, last: i64) -> Flow {
    Flow {
        key: nanoseg_graph::flow::FlowKey {
            subject: subject(pod, "connects"),
            peer,
            port: 443,
            transport: Transport::Tcp,
            reporter,
        },
        tally: nanoseg_graph::flow::Tally {
            first_seen: at(first),
            last_seen: at(last),
            attempted: 1,
            established: 1,
            refused: 0,
            unanswered: 0,
        },
    }
}

fn told(names: &Names) -> Vec<String> {
    let line = |named: Named| format!("{} {} {}", named.address, named.name, named.until.as_second());
    names.told().into_iter().map(line).collect()
}

/// What a packet names, where a flow to each address follows.
fn heard(packet: &[u8]) -> (Vec<String>, Unused) {
    let mut names = Names::default();
    names.hear(packet, &subject("a", "asks"), NOW, |server, _| server == SERVER);
    let flows = (0..=9).map(|last| flow("a", v4(last), Reporter::Source, 1, 1));
    names.tell(
        flows.chain([flow("a", "2001:db8::1".parse().unwrap(), Reporter::Source, 1, 1)]),
        1,
    );
    (told(&names), names.unused())
}

#[test]
fn an_answer_names_what_was_asked_for() {
    let chain = [
        ("www.example.com", "cdn.example.net", 300),
        ("unrelated.example.org", "192.0.2.9", 600),
        ("CDN.example.net", "edge.example.net", 60),
        ("edge.example.net", "192.0.2.1", 600),
        ("edge.example.net", "2001:db8::1", 40),
        ("cdn.example.net", "192.0.2.8", 600),
    ];
    let message = message("WWW.example.com", &chain);
    let expected = ["2001:db8::1 www.example.com 40", "192.0.2.1 www.example.com 60"];
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    let none = Unused::default();
    let (lines, unused) = heard(&over_udp(&message));
    // An alias that has an address beside it is wrong: the address of who is asked for counts, and no further alias is followed.
    assert_eq!(
        (sorted(lines), unused),
        (vec!["192.0.2.8 www.example.com 300".to_owned()], none)
    );
    let whole = self::message("www.example.com", &chain[..5]);
    for packet in [
        over_udp(&whole),
        over_tcp_v6(&with_length(&whole)),
        over_tcp_v6(&whole),
        over_tcp_v6(&[with_length(&self::message("x.example.com", &[])), with_length(&whole)].concat()),
    ] {
        let (lines, unused) = heard(&packet);
        let mut expected = expected.map(str::to_owned).to_vec();
        expected.sort();
        assert_eq!((sorted(lines), unused), (expected, none));
    }
}

#[test]
fn a_flow_that_is_timed_by_the_last_tick_of_the_kernel_has_its_name() {
    let message = message("www.example.com", &[("www.example.com", "192.0.2.1", 60)]);
    let told_of = |early: Duration| {
        let mut names = Names::default();
        names.hear(&over_udp(&message), &subject("a", "asks"), at(100), |_, _| true);
        let mut known = flow("a", v4(1), Reporter::Source, 1, 100);
        known.tally.last_seen = at(100).checked_sub(early).unwrap();
        names.tell([known].into_iter(), 1);
        told(&names).len()
    };
    assert_eq!(told_of(Duration::from_millis(9)), 1);
    assert_eq!(told_of(Duration::from_millis(11)), 0);
}

#[test]
fn what_is_cut_off_names_what_is_whole() {
    let records: Vec<(String, String)> = (0..40)
        .map(|last| ("a.example.com".to_owned(), format!("192.0.2.{last}")))
        .collect();
    let records: Vec<(&str, &str, u32)> = records
        .iter()
        .map(|(name, to)| (name.as_str(), to.as_str(), 60))
        .collect();
    let message = message("a.example.com", &records);
    for payload in [message[..200].to_vec(), with_length(&message)[..200].to_vec()] {
        let packet = if payload.len() == 200 && payload[..2] == message[..2] {
            over_udp(&payload)
        } else {
            over_tcp_v6(&payload)
        };
        let (lines, unused) = heard(&packet);
        assert!(lines.len() >= 5, "{lines:?}");
        assert_eq!(unused, Unused::default());
    }
}

#[test]
fn what_says_nothing_of_addresses_names_nothing() {
    let mut refused = message("a.example.com", &[("a.example.com", "192.0.2.1", 60)]);
    refused[3] |= 3;
    let mut question = message("a.example.com", &[("a.example.com", "192.0.2.1", 60)]);
    question[2] &= 0x7f;
    let loops = message(
        "a.example.com",
        &[
            ("a.example.com", "b.example.com", 60),
            ("b.example.com", "a.example.com", 60),
        ],
    );
    let unreadable = Unused {
        unreadable: 1,
        ..Unused::default()
    };
    for (message, packet, unused) in [
        ("an error", over_udp(&refused), Unused::default()),
        ("a question", over_udp(&question), unreadable),
        ("aliases in a ring", over_udp(&loops), Unused::default()),
        ("no message", over_udp(&[0; 40]), unreadable),
        ("the root", over_udp(&self::message(".", &[])), unreadable),
        ("an acknowledgement", over_tcp_v6(&[]), Unused::default()),
        ("a length alone", over_tcp_v6(&[0, 40]), Unused::default()),
    ] {
        assert_eq!(heard(&packet), (vec![], unused), "{message}");
    }
}

#[test]
fn p25_names_are_of_their_time_and_their_pod() {
    let mut names = Names::default();
    let packet = over_udp(&message("a.example.com", &[("a.example.com", "192.0.2.1", 100)]));
    let asks =
        |names: &mut Names, pod: &str, now, asked| names.hear(&packet, &subject(pod, "asks"), at(now), |_, _| asked);
    asks(&mut names, "a", 10, true);
    asks(&mut names, "b", 10, false);
    assert_eq!(names.unused().unasked, 1);
    for unnamed in [
        flow("a", v4(1), Reporter::Source, 111, 120),
        flow("a", v4(1), Reporter::Source, 1, 9),
        flow("a", v4(2), Reporter::Source, 10, 20),
        flow("a", v4(1), Reporter::Destination, 10, 20),
        flow("b", v4(1), Reporter::Source, 10, 20),
    ] {
        assert!(!names.tell([unnamed].into_iter(), 1));
    }
    assert!(names.told().is_empty());
    let connects = || [flow("a", v4(1), Reporter::Source, 110, 120)].into_iter();
    assert!(names.tell(connects(), 2));
    assert!(!names.tell(connects(), 3), "told already");
    assert_eq!(told(&names), ["192.0.2.1 a.example.com 110"]);
    // Asked again, it holds longer; that is worth telling after a while.
    asks(&mut names, "a", 60, true);
    assert!(!names.tell(connects(), 4));
    asks(&mut names, "a", 130, true);
    assert!(names.tell(connects(), 5));
    // What a flow used is kept; what waited for one is forgotten when it holds no more.
    names.tidy(at(10_000));
    assert_eq!(
        (names.held, told(&names)),
        (0, vec!["192.0.2.1 a.example.com 230".to_owned()])
    );
}

#[test]
fn p25_memory_is_bounded_for_each_pod_and_in_all() {
    let mut names = Names::default();
    let ask = |names: &mut Names, pod: usize, number: usize, now| {
        let name = format!("{number}.example.com");
        let packet = over_udp(&message(&name, &[(&name, "192.0.2.1", 60)]));
        names.hear(&packet, &subject(&pod.to_string(), "asks"), at(now), |_, _| true);
    };
    for number in 0..MOST_OF_ONE + 5 {
        ask(&mut names, 0, number, 0);
    }
    assert_eq!((names.held, names.unused().surplus), (MOST_OF_ONE, 5));
    for pod in 1..20 {
        for number in 0..MOST_OF_ONE {
            ask(&mut names, pod, number, 0);
        }
    }
    assert_eq!(names.held, MOST);
    // Room is made by what holds no more. A flow has few names, the first in order.
    ask(&mut names, 99, 1, 1000);
    assert_eq!(names.held, 1);
    for number in 0..30 {
        ask(&mut names, 99, number, 1000);
    }
    names.tell([flow("99", v4(1), Reporter::Source, 1000, 1000)].into_iter(), 1);
    let kept: Vec<String> = names.told().into_iter().map(|named| named.name.to_string()).collect();
    assert_eq!(
        kept,
        ["0.example.com", "1.example.com", "10.example.com", "11.example.com"]
    );
}

#[test]
fn p25_a_name_goes_with_the_last_flow_that_it_names() {
    let mut names = Names::default();
    for (pod, name, address) in [("a", "a.example.com", "192.0.2.1"), ("b", "b.example.com", "192.0.2.1")] {
        let packet = over_udp(&message(name, &[(name, address, 60)]));
        names.hear(&packet, &subject(pod, "asks"), NOW, |_, _| true);
    }
    let flows = ["a", "b"].map(|pod| flow(pod, v4(1), Reporter::Source, 1, 1));
    names.tell(flows.clone().into_iter(), 1);
    let [_, of_b] = flows;
    let before = told(&names);
    assert_eq!(before.len(), 2);
    names.keep_those_of([of_b.clone(), of_b].into_iter());
    assert_eq!(told(&names), before[1..]);
    let other_end = flow("b", v4(1), Reporter::Destination, 1, 1);
    names.keep_those_of([other_end].into_iter());
    assert_eq!(told(&names), [""; 0]);
}

proptest! {
    #[test]
    fn any_packet_is_read_without_panic(
        begin in prop_oneof![Just(over_udp(&[])), Just(over_tcp_v6(&[])), Just(vec![])],
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        heard(&[begin, bytes].concat());
    }

    /// One byte of a good answer is another, or it ends early: it is read or counted, and what it names is plain.
    #[test]
    fn a_damaged_answer_is_read_without_panic(place in 0..200_usize, byte in any::<u8>(), end in 0..200_usize) {
        let mut packet = over_udp(&message(
            "www.example.com",
            &[("www.example.com", "cdn.example.net", 5), ("cdn.example.net", "192.0.2.1", 60), ("cdn.example.net", "192.0.2.2", 60)],
        ));
        if let Some(damaged) = packet.get_mut(place) {
            *damaged = byte;
        }
        packet.truncate(end);
        let (lines, _) = heard(&packet);
        prop_assert!(lines.iter().all(|line| line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())));
    }
}
