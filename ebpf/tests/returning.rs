//! The laws of what comes back to its sender.

use nanoseg_ebpf::packet::{Bytes as _, Way, classify, mapped};
use nanoseg_ebpf::returning::{PLACES, Sent};
use proptest::prelude::*;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A TCP packet over IPv4.
fn tcp(from: ([u8; 4], u16), to: ([u8; 4], u16), flags: u8, sequence: u32, acknowledged: u32) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    packet.extend([from.0, to.0].concat());
    packet.extend([from.1.to_be_bytes(), to.1.to_be_bytes()].concat());
    packet.extend([sequence.to_be_bytes(), acknowledged.to_be_bytes()].concat());
    packet.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    packet
}

fn sent(packet: &[u8], way: Way) -> Option<Sent> {
    let signal = classify(packet).ok()?;
    let ends = signal.ends(packet).ok()?;
    Some(Sent::new(signal.opener(packet)?, &ends.own(way)))
}

proptest! {
    #[test]
    fn whatever_is_translated_it_is_the_same_where_it_is_sent_comes_back_and_is_accepted(
        own: [u8; 4],
        service: ([u8; 4], u16),
        node: ([u8; 4], u16),
        ports: (u16, u16),
        number: u32,
        answer: u32,
    ) {
        let asked = sent(&tcp((own, ports.0), service, SYN, number, 0), Way::Egress);
        let came = sent(&tcp(node, (own, ports.1), SYN, number, 0), Way::Ingress);
        let accepted = sent(&tcp((own, ports.1), node, SYN | ACK, answer, number.wrapping_add(1)), Way::Egress);
        prop_assert!(asked.is_some() && asked == came && asked == accepted);
        prop_assert!(asked.is_some_and(|sent| sent.place() < PLACES));
    }

    #[test]
    fn another_number_or_another_address_is_another_connection(one: (u32, [u8; 4]), other: (u32, [u8; 4])) {
        let mark = |(number, own): (u32, [u8; 4])| {
            own[..].word(0).map(|own| Sent::new(number, &mapped(own)).mark())
        };
        prop_assert_eq!(mark(one) == mark(other), one == other);
    }
}

#[test]
fn what_opens_nothing_is_not_remembered() {
    let (one, other) = (([198, 18, 0, 1], 40_000), ([198, 18, 0, 2], 8080));
    for flags in [0x04, ACK | 0x04] {
        assert_eq!(sent(&tcp(one, other, flags, 0, 1), Way::Egress), None, "{flags}");
    }
    let mut datagram = tcp(one, other, SYN, 1, 0);
    datagram[9] = 17;
    assert_eq!(sent(&datagram, Way::Egress), None);
}
