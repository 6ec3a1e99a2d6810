//! The laws of the packet parser, on the host, with the code that runs in the kernel.

#![expect(
    clippy::unwrap_used,
    reason = "a packet of a test that has not what it was built with is a failed test"
)]

use nanoseg_ebpf::packet::{
    Bytes as _, Ends, Event, Family, Signal, Skipped, Way, classify, classify_plain_v4, classify_plain_v6,
    is_plain_tcp_data, is_plain_v4, is_plain_v6, mapped,
};
use nanoseg_ebpf::{Address, Count, Reason, Role, Transport};
use proptest::prelude::*;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A TCP header from port 40000 to port 8080.
fn tcp(flags: u8, sequence: u32) -> Vec<u8> {
    let mut header = vec![0x9c, 0x40, 0x1f, 0x90];
    header.extend(sequence.to_be_bytes());
    header.extend([0, 0, 0, 1, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    header
}

/// A datagram from port 53 to port 8080: a low source port says nothing (P1).
fn udp() -> Vec<u8> {
    vec![0, 53, 0x1f, 0x90, 0, 9, 0, 0, 1]
}

fn sctp(chunk: u8) -> Vec<u8> {
    vec![0x9c, 0x40, 0x1f, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, chunk, 0, 0, 4]
}

fn v4_between(source: [u8; 4], destination: [u8; 4], protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet.extend(source);
    packet.extend(destination);
    packet.extend(transport);
    packet
}

fn v4(protocol: u8, transport: &[u8]) -> Vec<u8> {
    v4_between([198, 18, 0, 1], [198, 18, 0, 2], protocol, transport)
}

fn v6_between(source: [u8; 16], destination: [u8; 16], next: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    packet.extend(source);
    packet.extend(destination);
    packet.extend(rest);
    packet
}

fn host(last: u8) -> [u8; 16] {
    [0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    v6_between(host(1), host(2), next, rest)
}

fn address(bytes: [u8; 16]) -> Address {
    [0, 4, 8, 12].map(|at| bytes[..].word(at).unwrap())
}

fn read(packet: &[u8]) -> Result<(Signal, Ends), Skipped> {
    let signal = classify(packet)?;
    let ends = signal.ends(packet)?;
    match ends.unrecorded() {
        Some(reason) => Err(Skipped::Counted(reason)),
        None => Ok((signal, ends)),
    }
}

fn event(packet: &[u8]) -> Result<(Transport, Event), Skipped> {
    read(packet).map(|(signal, _)| (signal.transport, signal.event))
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_a_packet_says() {
    let counted = |reason| Err(Skipped::Counted(reason));
    let chain = |headers: &[u8], last: &[u8]| [headers, last].concat();
    let cases = [
        ("SYN", v4(6, &tcp(SYN, 7)), Ok((Transport::Tcp, Event::Open))),
        (
            "SYN with ECN bits",
            v4(6, &tcp(SYN | 0xc0, 7)),
            Ok((Transport::Tcp, Event::Open)),
        ),
        (
            "SYN-ACK",
            v4(6, &tcp(SYN | ACK, 7)),
            Ok((Transport::Tcp, Event::Accept)),
        ),
        (
            "RST that answers a SYN",
            v4(6, &tcp(RST | ACK, 0)),
            Ok((Transport::Tcp, Event::Refuse)),
        ),
        ("RST inside a connection", v4(6, &tcp(RST | ACK, 7)), Err(Skipped::Data)),
        ("RST that answers an ACK", v4(6, &tcp(RST, 0)), Err(Skipped::Data)),
        ("data", v4(6, &tcp(ACK | 0x08, 0)), Err(Skipped::Data)),
        ("FIN", v4(6, &tcp(ACK | 0x01, 0)), Err(Skipped::Data)),
        ("UDP", v4(17, &udp()), Ok((Transport::Udp, Event::Datagram))),
        ("INIT", v4(132, &sctp(1)), Ok((Transport::Sctp, Event::Open))),
        ("INIT ACK", v4(132, &sctp(2)), Ok((Transport::Sctp, Event::Accept))),
        ("SCTP data", v4(132, &sctp(0)), Err(Skipped::Data)),
        ("ping", v4(1, &[8, 0, 0, 0]), Ok((Transport::Icmp, Event::Echo))),
        (
            "its answer",
            v4(1, &[0, 0, 0, 0]),
            Ok((Transport::Icmp, Event::EchoReply)),
        ),
        ("IPv6 ping", v6(58, &[128, 0, 0, 0]), Ok((Transport::Icmp, Event::Echo))),
        (
            "IPv6 ping's answer",
            v6(58, &[129, 0, 0, 0]),
            Ok((Transport::Icmp, Event::EchoReply)),
        ),
        ("nobody is there", v4(1, &[3, 1, 0, 0]), counted(Reason::Icmp)),
        (
            "ICMP of the other version",
            v6(1, &[8, 0, 0, 0]),
            counted(Reason::OtherTransport),
        ),
        ("ICMP without a kind", v4(1, &[]), counted(Reason::Truncated)),
        ("neighbour discovery", v6(58, &[135, 0, 0, 0]), counted(Reason::Icmp)),
        ("GRE", v4(47, &[0; 8]), counted(Reason::OtherTransport)),
        ("no next header", v6(59, &[]), counted(Reason::OtherTransport)),
        ("IPv6 SYN", v6(6, &tcp(SYN, 7)), Ok((Transport::Tcp, Event::Open))),
        ("IPv6 UDP", v6(17, &udp()), Ok((Transport::Udp, Event::Datagram))),
        (
            "hop-by-hop, destination options, routing, fragment header of a whole datagram",
            v6(
                0,
                &chain(
                    &[
                        60, 0, 0, 0, 0, 0, 0, 0, 43, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0,
                        0, 6, 0, 0, 0, 0, 0, 0, 1,
                    ],
                    &tcp(SYN, 7),
                ),
            ),
            Ok((Transport::Tcp, Event::Open)),
        ),
        (
            "IPv6 first fragment",
            v6(44, &chain(&[17, 0, 0, 1, 0, 0, 0, 1], &udp())),
            Ok((Transport::Udp, Event::Datagram)),
        ),
        (
            "IPv6 later fragment",
            v6(44, &chain(&[17, 0, 0, 8, 0, 0, 0, 1], &udp())),
            counted(Reason::Fragment),
        ),
        (
            "more extension headers than are followed",
            v6(60, &[60, 0, 0, 0, 0, 0, 0, 0].repeat(40)),
            counted(Reason::ExtensionHeaders),
        ),
        ("empty", vec![], counted(Reason::Truncated)),
        ("neither version", vec![0x50; 60], counted(Reason::Truncated)),
        (
            "IPv4 header length below 20",
            [&[0x44], &v4(6, &tcp(SYN, 7))[1..]].concat(),
            counted(Reason::Truncated),
        ),
        (
            "to itself",
            v4_between([198, 18, 0, 1], [198, 18, 0, 1], 6, &tcp(SYN, 7)),
            counted(Reason::Loopback),
        ),
        (
            "loopback",
            v4_between([127, 0, 0, 1], [127, 0, 0, 53], 17, &udp()),
            counted(Reason::Loopback),
        ),
        (
            "IPv6 to itself",
            v6_between(host(1), host(1), 6, &tcp(SYN, 7)),
            counted(Reason::Loopback),
        ),
        (
            "multicast",
            v4_between([198, 18, 0, 1], [224, 0, 0, 251], 17, &udp()),
            counted(Reason::NotRouted),
        ),
        (
            "broadcast",
            v4_between([198, 18, 0, 1], [255; 4], 17, &udp()),
            counted(Reason::NotRouted),
        ),
        (
            "DHCP",
            v4_between([0; 4], [198, 18, 0, 1], 17, &udp()),
            counted(Reason::NotRouted),
        ),
        (
            "node-local DNS",
            v4_between([198, 18, 0, 1], [169, 254, 20, 10], 17, &udp()),
            Ok((Transport::Udp, Event::Datagram)),
        ),
        (
            "IPv6 multicast",
            v6_between(host(1), [0xff; 16], 17, &udp()),
            counted(Reason::NotRouted),
        ),
        (
            "IPv6 link-local",
            v6_between(
                [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
                host(1),
                17,
                &udp(),
            ),
            counted(Reason::NotRouted),
        ),
        (
            "IPv6 to link-local",
            v6_between(
                host(1),
                [0xfe, 0xbf, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
                17,
                &udp(),
            ),
            counted(Reason::NotRouted),
        ),
    ];
    for (name, packet, expected) in cases {
        assert_eq!(event(&packet), expected, "{name}");
    }
}

#[test]
fn a_later_fragment_has_no_ports_and_a_first_one_has() {
    let mut packet = v4(17, &udp());
    packet[6..8].copy_from_slice(&[0x20, 0]);
    assert_eq!(event(&packet), Ok((Transport::Udp, Event::Datagram)));
    packet[6..8].copy_from_slice(&[0x20, 1]);
    assert_eq!(event(&packet), Err(Skipped::Counted(Reason::Fragment)));
    packet[6..8].copy_from_slice(&[0x40, 0]);
    assert_eq!(event(&packet), Ok((Transport::Udp, Event::Datagram)));
}

#[test]
fn p1_direction_is_what_a_packet_says_and_never_a_port_number() {
    let (source, destination) = (
        mapped(u32::from_ne_bytes([198, 18, 0, 1])),
        mapped(u32::from_ne_bytes([198, 18, 0, 2])),
    );
    for (flags, way, role, count, peer, port) in [
        (SYN, Way::Egress, Role::Source, Count::Attempted, destination, 8080),
        (SYN, Way::Ingress, Role::Destination, Count::Attempted, source, 8080),
        (
            SYN | ACK,
            Way::Egress,
            Role::Destination,
            Count::Established,
            destination,
            40000,
        ),
        (SYN | ACK, Way::Ingress, Role::Source, Count::Established, source, 40000),
        (RST | ACK, Way::Ingress, Role::Source, Count::Refused, source, 40000),
    ] {
        let (signal, ends) = read(&v4(6, &tcp(flags, 0))).unwrap();
        assert_eq!(signal.event.meaning(way), Some((role, count)), "{flags:#x} {way:?}");
        assert_eq!(ends.peer(way), peer, "{flags:#x} {way:?}");
        assert_eq!(ends.listener_port(way, role), port, "{flags:#x} {way:?}");
    }
}

#[test]
fn what_is_sent_is_between_the_ends_that_the_socket_has() {
    let (_, packet) = read(&v4(
        17,
        &[&40_000_u16.to_be_bytes()[..], &8080_u16.to_be_bytes(), &[0; 4]].concat(),
    ))
    .unwrap();
    let service = (mapped(u32::from_ne_bytes([198, 19, 0, 80])), 80);
    let connected = packet.sent_by(40_001, Some(service));
    assert_eq!(connected.source, packet.source);
    assert_eq!(connected.ports(Way::Egress), (40_001, 80));
    assert_eq!(connected.peer(Way::Egress), service.0);
    let unconnected = packet.sent_by(40_001, None);
    assert_eq!(unconnected.ports(Way::Egress), (40_001, 8080));
    assert_eq!(unconnected.peer(Way::Egress), packet.destination);
    // To a proxy beside the sender, in whose stead the sender means somebody else.
    let proxy = (mapped(u32::from_ne_bytes([127, 0, 0, 1])), 15_053);
    let redirected = packet.sent_by(40_001, Some(proxy));
    assert_eq!(redirected.unrecorded(), Some(Reason::Loopback));
    assert_eq!(redirected.sent_by(40_001, Some(service)).unrecorded(), None);
}

/// A chain of extension headers that ends in `last`, with the value for the header before it.
fn extension_chain(kinds: &[(u8, u8)], last: u8) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut next = last;
    for (kind, units) in kinds.iter().rev() {
        let mut header = vec![0; if *kind == 44 { 8 } else { (usize::from(*units) + 1) * 8 }];
        header[0] = next;
        header[1] = if *kind == 44 { 0 } else { *units };
        header.extend(bytes);
        bytes = header;
        next = *kind;
    }
    (next, bytes)
}

fn transport_header() -> impl Strategy<Value = (u8, Vec<u8>)> {
    prop_oneof![
        (any::<u8>(), any::<u32>()).prop_map(|(flags, sequence)| (6, tcp(flags, sequence))),
        Just((17, udp())),
        any::<u8>().prop_map(|chunk| (132, sctp(chunk))),
    ]
}

fn whole_packet() -> impl Strategy<Value = (Family, Vec<u8>, usize)> {
    let v4 = (transport_header(), 0_usize..=10, any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(
        |((protocol, transport), options, source, destination)| {
            let mut packet = v4_between(source, destination, protocol, &[]);
            packet[0] = 0x45 + u8::try_from(options).unwrap();
            packet.extend(vec![1; options * 4]);
            let at = packet.len();
            packet.extend(transport);
            (Family::V4, packet, at)
        },
    );
    let kinds = prop::collection::vec((prop_oneof![Just(0), Just(43), Just(44), Just(60)], 0_u8..4), 0..=7);
    let v6 = (transport_header(), kinds, any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(
        |((protocol, transport), kinds, source, destination)| {
            let (next, chain) = extension_chain(&kinds, protocol);
            let mut packet = v6_between(source, destination, next, &chain);
            let at = packet.len();
            packet.extend(transport);
            (Family::V6, packet, at)
        },
    );
    prop_oneof![v4, v6]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_bytes_are_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), version in prop_oneof![Just(0x40), Just(0x60)]) {
        if let Some(first) = bytes.first_mut() {
            *first = version | (*first & 0x0f);
        }
        prop_assert!(read(&bytes).is_ok_and(|(signal, _)| signal.at < bytes.len()) || read(&bytes).is_err());
    }

    #[test]
    fn transport_is_found_behind_options_and_extension_headers((family, packet, at) in whole_packet()) {
        match classify(&packet[..]) {
            Ok(signal) => {
                prop_assert_eq!((signal.family, signal.at), (family, at));
                if let Ok(ends) = signal.ends(&packet[..]) {
                    prop_assert_eq!(ends.source_port, packet[..].short(at).unwrap());
                    prop_assert_eq!(ends.destination_port, packet[..].short(at + 2).unwrap());
                    let (source, destination) = match family {
                        Family::V4 => (mapped(packet[..].word(12).unwrap()), mapped(packet[..].word(16).unwrap())),
                        Family::V6 => (address(packet[8..24].try_into().unwrap()), address(packet[24..40].try_into().unwrap())),
                    };
                    prop_assert_eq!((ends.source, ends.destination), (source, destination));
                }
            }
            Err(skipped) => prop_assert_eq!(skipped, Skipped::Data),
        }
    }

    #[test]
    fn the_way_with_constant_offsets_says_the_same((family, packet, at) in whole_packet(), cut in any::<prop::sample::Index>()) {
        let is_plain = at == if family == Family::V4 { 20 } else { 40 };
        prop_assert_eq!(is_plain_v4(&packet[..]), is_plain && family == Family::V4);
        prop_assert_eq!(is_plain_v6(&packet[..]), is_plain && family == Family::V6);
        let part = &packet[..cut.index(packet.len())];
        prop_assert_eq!(is_plain_tcp_data(&packet[..]), is_plain && packet[if family == Family::V4 { 9 } else { 6 }] == 6 && classify(&packet[..]) == Err(Skipped::Data) && packet[at + 13] & (SYN | RST) == 0);
        if is_plain_tcp_data(part) {
            prop_assert_eq!(classify(part), Err(Skipped::Data));
        }
        if is_plain_v4(part) {
            prop_assert_eq!(classify_plain_v4(part), classify(part));
        }
        if is_plain_v6(part) {
            prop_assert_eq!(classify_plain_v6(part), classify(part));
        }
    }

    #[test]
    fn a_shorter_packet_says_the_same_or_is_truncated((_, packet, _) in whole_packet(), cut in any::<prop::sample::Index>()) {
        let whole = read(&packet);
        let part = read(&packet[..cut.index(packet.len())]);
        prop_assert!(part == whole || part == Err(Skipped::Counted(Reason::Truncated)), "{part:?} of {whole:?}");
    }
}
