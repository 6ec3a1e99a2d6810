//! From the bytes of an IP packet to what it says about a connection.
//!
//! Laws:
//! * Never panics, never reads outside the packet, follows a bounded number of headers.
//! * Direction comes from what a packet is (SYN, SYN-ACK, RST, INIT, INIT ACK), never from a port number.
//! * What is not a [`Signal`] is [`Skipped`], with the reason.
//!
//! In two steps, because nearly all packets are TCP data and must cost nothing: [`classify`] reads four fields of them and
//! says [`Skipped::Data`]; only what remains has its addresses and ports read by [`Signal::ends`], and asked about by
//! [`Ends::unrecorded`].

use crate::{Address, Count, Reason, Role, Transport};

/// Read access to a packet that begins at its IP header. `None` is past the end.
pub trait Bytes {
    /// One byte.
    fn byte(&self, at: usize) -> Option<u8>;
    /// Two bytes, as a number in network byte order.
    fn short(&self, at: usize) -> Option<u16>;
    /// Four bytes, as they are in memory.
    fn word(&self, at: usize) -> Option<u32>;
}

impl Bytes for [u8] {
    fn byte(&self, at: usize) -> Option<u8> {
        self.get(at).copied()
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes = self.get(at..at.checked_add(2)?)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    }
}

/// Which way a packet passes the cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Received by a socket of the cgroup.
    Ingress,
    /// Sent by a socket of the cgroup.
    Egress,
}

impl Way {
    /// Who the cgroup is when this packet opens something.
    pub const fn role_of_opener(self) -> Role {
        match self {
            Self::Egress => Role::Source,
            Self::Ingress => Role::Destination,
        }
    }
}

/// Version of the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What a packet says about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its sender asks for a connection.
    Open,
    /// Its sender accepts one.
    Accept,
    /// Its sender refuses one.
    Refuse,
    /// Its sender asks whether somebody is there.
    Echo,
    /// Its sender is there.
    EchoReply,
    /// A datagram: only who spoke before tells what it is.
    Datagram,
}

/// A packet that says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Version of the IP header.
    pub family: Family,
    /// Transport protocol.
    pub transport: Transport,
    /// Where the transport header begins.
    pub at: usize,
    /// What it says.
    pub event: Event,
}

/// A packet that says nothing to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// Belongs to a connection whose begin was seen: the one case that is not counted, because counting it costs.
    Data,
    /// Anything else is counted.
    Counted(Reason),
}

/// Both ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;

/// Each kind may occur once and destination options twice (RFC 8200, 4.1): five, and some for senders that differ.
const MAX_EXTENSION_HEADERS: usize = 8;

const TRUNCATED: Skipped = Skipped::Counted(Reason::Truncated);

/// What a packet says about a connection, from as few bytes as possible.
#[inline(always)]
pub fn classify<B: Bytes + ?Sized>(packet: &B) -> Result<Signal, Skipped> {
    let first = packet.byte(0).ok_or(TRUNCATED)?;
    match first >> 4 {
        4 => {
            let at = usize::from(first & 0x0f) * 4;
            if at < 20 {
                return Err(TRUNCATED);
            }
            v4(packet, at)
        }
        6 => {
            let next = packet.byte(6).ok_or(TRUNCATED)?;
            if is_plain_v6(packet) {
                return transport(packet, Family::V6, next, 40);
            }
            extended(packet, next)
        }
        _ => Err(TRUNCATED),
    }
}

/// Whether it is an IPv4 packet without options.
#[inline(always)]
pub fn is_plain_v4<B: Bytes + ?Sized>(packet: &B) -> bool {
    packet.byte(0) == Some(0x45)
}

/// Whether it is an IPv6 packet without extension headers.
#[inline(always)]
pub fn is_plain_v6<B: Bytes + ?Sized>(packet: &B) -> bool {
    let is_v6 = packet.byte(0).is_some_and(|first| first >> 4 == 6);
    is_v6
        && packet
            .byte(6)
            .is_some_and(|next| Transport::from_number(next).is_some())
}

/// Whether it is a TCP data packet whose headers are all where they nearly always are: those pay for nothing but this.
#[inline(always)]
pub fn is_plain_tcp_data<B: Bytes + ?Sized>(packet: &B) -> bool {
    const TCP: Option<u8> = Some(Transport::Tcp as u8);
    let is_data = |flags: Option<u8>| flags.is_some_and(|flags| flags & (SYN | RST) == 0);
    let Some(first) = packet.byte(0) else { return false };
    if first == 0x45 {
        let is_fragment = packet.short(6).is_none_or(|fragment| fragment & 0x1fff != 0);
        packet.byte(9) == TCP && !is_fragment && is_data(packet.byte(33))
    } else {
        first >> 4 == 6 && packet.byte(6) == TCP && is_data(packet.byte(53))
    }
}

/// Where name servers answer.
pub const DOMAIN: u16 = 53;

/// Where the message begins in a packet of a name server, and over which transport it came. `None` where the headers are not
/// where they nearly always are.
pub fn message_of<B: Bytes + ?Sized>(packet: &B) -> Option<(Transport, usize)> {
    let (protocol, at) = match packet.byte(0)? {
        // Of a message in several fragments only the first begins with its header.
        0x45 if packet.short(6)? & 0x1fff != 0 => return None,
        0x45 => (packet.byte(9)?, 20),
        first if first >> 4 == 6 => (packet.byte(6)?, 40),
        _ => return None,
    };
    match Transport::from_number(protocol)? {
        Transport::Udp => Some((Transport::Udp, at + 8)),
        Transport::Tcp => Some((Transport::Tcp, at + usize::from(packet.byte(at + 12)? >> 4) * 4)),
        Transport::Sctp | Transport::Icmp => None,
    }
}

/// As [`classify`], for a packet that [`is_plain_v4`]. Every offset is a constant, without which the kernel allows no direct
/// access to a packet unless the loader has `CAP_PERFMON`.
#[inline(always)]
pub fn classify_plain_v4<B: Bytes + ?Sized>(packet: &B) -> Result<Signal, Skipped> {
    v4(packet, 20)
}

/// As [`classify`], for a packet that [`is_plain_v6`], with constant offsets likewise.
#[inline(always)]
pub fn classify_plain_v6<B: Bytes + ?Sized>(packet: &B) -> Result<Signal, Skipped> {
    transport(packet, Family::V6, packet.byte(6).ok_or(TRUNCATED)?, 40)
}

#[inline(always)]
fn v4<B: Bytes + ?Sized>(packet: &B, at: usize) -> Result<Signal, Skipped> {
    let protocol = packet.byte(9).ok_or(TRUNCATED)?;
    // Of a fragmented datagram only the first piece carries ports.
    if packet.short(6).ok_or(TRUNCATED)? & 0x1fff != 0 {
        return Err(Skipped::Counted(Reason::Fragment));
    }
    transport(packet, Family::V4, protocol, at)
}

/// Follows IPv6 extension headers.
#[inline(always)]
fn extended<B: Bytes + ?Sized>(packet: &B, mut next: u8) -> Result<Signal, Skipped> {
    let mut at = 40;
    for _ in 0..MAX_EXTENSION_HEADERS {
        let units = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => usize::from(packet.byte(at + 1).ok_or(TRUNCATED)?),
            FRAGMENT => {
                if packet.short(at + 2).ok_or(TRUNCATED)? & 0xfff8 != 0 {
                    return Err(Skipped::Counted(Reason::Fragment));
                }
                0
            }
            _ => return transport(packet, Family::V6, next, at),
        };
        next = packet.byte(at).ok_or(TRUNCATED)?;
        at += (units + 1) * 8;
    }
    Err(Skipped::Counted(Reason::ExtensionHeaders))
}

/// What a TCP packet says. `is_first` is whether its sequence number is zero.
#[inline(always)]
pub const fn tcp_event(flags: u8, is_first: bool) -> Option<Event> {
    if flags & (SYN | RST) == 0 {
        None
    } else if flags & RST != 0 {
        if flags & ACK != 0 && is_first {
            Some(Event::Refuse)
        } else {
            None
        }
    } else if flags & ACK != 0 {
        Some(Event::Accept)
    } else {
        Some(Event::Open)
    }
}

#[inline(always)]
fn transport<B: Bytes + ?Sized>(packet: &B, family: Family, protocol: u8, at: usize) -> Result<Signal, Skipped> {
    let (transport, event) = match Transport::from_number(protocol) {
        Some(Transport::Tcp) => {
            let flags = packet.byte(at + 13).ok_or(TRUNCATED)?;
            // RFC 9293, 3.10.7.1: a RST that answers a SYN acknowledges it and has sequence number zero.
            // Any other ends a connection that was seen to begin.
            let is_first = flags & RST == 0 || packet.word(at + 4).ok_or(TRUNCATED)? == 0;
            (Transport::Tcp, tcp_event(flags, is_first).ok_or(Skipped::Data)?)
        }
        Some(Transport::Udp) => (Transport::Udp, Event::Datagram),
        Some(Transport::Sctp) => {
            // INIT and INIT ACK are alone in their packets (RFC 9260, 4.3), so the first chunk tells.
            let event = match packet.byte(at + 12).ok_or(TRUNCATED)? {
                1 => Event::Open,
                2 => Event::Accept,
                _ => return Err(Skipped::Data),
            };
            (Transport::Sctp, event)
        }
        Some(Transport::Icmp) => {
            // RFC 792 and RFC 4443, 4: each version of IP has its own.
            let (own, request, reply) = match family {
                Family::V4 => (ICMP, 8, 0),
                Family::V6 => (ICMPV6, 128, 129),
            };
            let kind = packet.byte(at).ok_or(TRUNCATED)?;
            let event = if protocol != own {
                return Err(Skipped::Counted(Reason::OtherTransport));
            } else if kind == request {
                Event::Echo
            } else if kind == reply {
                Event::EchoReply
            } else {
                return Err(Skipped::Counted(Reason::Icmp));
            };
            (Transport::Icmp, event)
        }
        None => return Err(Skipped::Counted(Reason::OtherTransport)),
    };
    Ok(Signal {
        family,
        transport,
        at,
        event,
    })
}

impl Event {
    /// Who this cgroup is and what is counted. `None` for a datagram, of which only an exchange can tell, and for a refusal
    /// that this cgroup sends: the kernel sends it for a port without a listener, from a socket of nobody's cgroup. So it does
    /// with answers to an echo, and who is asked by one is told by nobody.
    #[inline(always)]
    pub const fn meaning(self, way: Way) -> Option<(Role, Count)> {
        match (self, way) {
            (Self::Open | Self::Echo, Way::Egress) => Some((Role::Source, Count::Attempted)),
            (Self::Open, Way::Ingress) => Some((Role::Destination, Count::Attempted)),
            (Self::Accept, Way::Egress) => Some((Role::Destination, Count::Established)),
            (Self::Accept | Self::EchoReply, Way::Ingress) => Some((Role::Source, Count::Established)),
            (Self::Refuse, Way::Ingress) => Some((Role::Source, Count::Refused)),
            (Self::Refuse | Self::EchoReply, Way::Egress) | (Self::Echo, Way::Ingress) | (Self::Datagram, _) => None,
        }
    }
}

impl Signal {
    /// The initial sequence number of the end that opens a TCP connection, as it is in memory: where it opens it, and where the
    /// other end accepts it (RFC 9293, 3.5).
    #[inline(always)]
    pub fn opener<B: Bytes + ?Sized>(&self, packet: &B) -> Option<u32> {
        match (self.transport, self.event) {
            (Transport::Tcp, Event::Open) => packet.word(self.at + 4),
            (Transport::Tcp, Event::Accept) => packet
                .word(self.at + 8)
                .map(|next| u32::from_be(next).wrapping_sub(1).to_be()),
            _ => None,
        }
    }

    /// Addresses and ports as they are in the packet, whatever passes between them.
    #[inline(always)]
    pub fn ends<B: Bytes + ?Sized>(&self, packet: &B) -> Result<Ends, Skipped> {
        let Self {
            family,
            transport,
            at,
            event: _,
        } = *self;
        let (source, destination) = match family {
            Family::V4 => {
                let source = packet.word(12).ok_or(TRUNCATED)?;
                let destination = packet.word(16).ok_or(TRUNCATED)?;
                (mapped(source), mapped(destination))
            }
            Family::V6 => {
                let source = address(packet, 8).ok_or(TRUNCATED)?;
                let destination = address(packet, 24).ok_or(TRUNCATED)?;
                (source, destination)
            }
        };
        let (source_port, destination_port) = match transport {
            Transport::Icmp => (0, 0),
            Transport::Tcp | Transport::Udp | Transport::Sctp => (
                packet.short(at).ok_or(TRUNCATED)?,
                packet.short(at + 2).ok_or(TRUNCATED)?,
            ),
        };
        Ok(Ends {
            source,
            destination,
            source_port,
            destination_port,
        })
    }
}

impl Ends {
    /// The ends of a packet that a socket sends, as the socket has them. Rules of its network may have written other ones into
    /// the packet by the time it is seen, as those for Services do on a node, and what is received is seen after they were
    /// written back: only so both are between the same ends. `peer` is whom the socket is connected to, if it is.
    #[inline(always)]
    #[must_use]
    pub const fn sent_by(self, own_port: u16, peer: Option<(Address, u16)>) -> Self {
        let (destination, destination_port) = match peer {
            Some(peer) => peer,
            None => (self.destination, self.destination_port),
        };
        Self {
            source: self.source,
            destination,
            source_port: own_port,
            destination_port,
        }
    }

    /// Why what passes between these ends is not recorded, if it is not.
    #[inline(always)]
    pub const fn unrecorded(&self) -> Option<Reason> {
        let (source, destination) = (&self.source, &self.destination);
        if is_mapped(source) && is_mapped(destination) {
            unrecorded_v4(source[3], destination[3])
        } else {
            unrecorded_v6(source, destination)
        }
    }

    /// This cgroup's end.
    #[inline(always)]
    pub const fn own(&self, way: Way) -> Address {
        match way {
            Way::Ingress => self.destination,
            Way::Egress => self.source,
        }
    }

    /// The end that is not this cgroup.
    #[inline(always)]
    pub const fn peer(&self, way: Way) -> Address {
        match way {
            Way::Ingress => self.source,
            Way::Egress => self.destination,
        }
    }

    /// The port that is listened on, given who this cgroup is.
    #[inline(always)]
    pub const fn listener_port(&self, way: Way, role: Role) -> u16 {
        let (own, peers) = self.ports(way);
        match role {
            Role::Source => peers,
            Role::Destination => own,
        }
    }

    /// This cgroup's port and the other end's.
    #[inline(always)]
    pub const fn ports(&self, way: Way) -> (u16, u16) {
        match way {
            Way::Ingress => (self.destination_port, self.source_port),
            Way::Egress => (self.source_port, self.destination_port),
        }
    }
}

/// The v4-mapped IPv6 address of an IPv4 address in network byte order.
#[inline(always)]
pub const fn mapped(address: u32) -> Address {
    [0, 0, 0xffff_u32.to_be(), address]
}

/// Whether it is the v4-mapped IPv6 address of an IPv4 address.
#[inline(always)]
pub const fn is_mapped(address: &Address) -> bool {
    address[0] | address[1] == 0 && address[2] == 0xffff_u32.to_be()
}

#[inline(always)]
fn address<B: Bytes + ?Sized>(packet: &B, at: usize) -> Option<Address> {
    Some([
        packet.word(at)?,
        packet.word(at + 4)?,
        packet.word(at + 8)?,
        packet.word(at + 12)?,
    ])
}

/// Why what passes between two addresses of IPv4 is not recorded, if it is not.
#[inline(always)]
pub const fn unrecorded_v4(source: u32, destination: u32) -> Option<Reason> {
    let (from, to) = (u32::from_be(source), u32::from_be(destination));
    if from == to || from >> 24 == 127 || to >> 24 == 127 {
        return Some(Reason::Loopback);
    }
    // 224.0.0.0 and above: multicast, reserved, broadcast. 169.254.0.0/16 stays: node-local DNS and metadata services live there.
    if to >> 28 >= 14 || to == 0 || from == 0 {
        return Some(Reason::NotRouted);
    }
    None
}

/// Why what passes between two addresses of IPv6 is not recorded, if it is not.
#[inline(always)]
pub const fn unrecorded_v6(source: &Address, destination: &Address) -> Option<Reason> {
    if source[0] == destination[0]
        && source[1] == destination[1]
        && source[2] == destination[2]
        && source[3] == destination[3]
    {
        return Some(Reason::Loopback);
    }
    let (from, to) = (u32::from_be(source[0]), u32::from_be(destination[0]));
    if to >> 24 == 0xff || to >> 22 == 0xfe80 >> 6 || from >> 22 == 0xfe80 >> 6 || is_unspecified(source) {
        return Some(Reason::NotRouted);
    }
    None
}

#[inline(always)]
const fn is_unspecified(address: &Address) -> bool {
    address[0] | address[1] | address[2] | address[3] == 0
}
