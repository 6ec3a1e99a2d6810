//! What the kernel programs and the learner agree on: the records of the maps, and the packet parser.
//!
//! Guarantees:
//! * Kernel and user space share these types; their layout has no implicit padding and is asserted at compile time.
//! * The parser in [`packet`] and the rules for datagrams in [`exchange`] are pure and run on the host as they run in the kernel.
//! * Everything a program does not record has a [`Reason`] and is counted by it.
#![no_std]
#![deny(missing_docs)]
#![expect(
    clippy::inline_always,
    reason = "in the kernel a call costs more than what these functions do, and the verifier follows values better without it"
)]

pub mod exchange;
pub mod kept;
pub mod packet;
pub mod returning;

/// Names of the maps and programs in the object file.
pub mod name {
    /// `HashMap<FlowSlot, FlowEntry>`: what was observed.
    pub const FLOWS: &str = "FLOWS";
    /// `LruHashMap<exchange::ExchangeSlot, exchange::ExchangeEntry>`: live UDP exchanges.
    pub const EXCHANGES: &str = "EXCHANGES";
    /// The same for cgroups that begin very many of them, so that they drive out only each other's.
    pub const CROWDED: &str = "CROWDED";
    /// `LruHashMap<u64, exchange::Begun>`: how many exchanges each cgroup began.
    pub const CROWDS: &str = "CROWDS";
    /// `LruHashMap<exchange::Asking, exchange::Asked>`: whom a port asked last. Never pinned: nothing in it is of use for long.
    pub const ASKED: &str = "ASKED";
    /// `Array<u64>` of [`returning::Sent`](super::returning::Sent): connections that were just asked for. Never pinned, as above.
    pub const SENT: &str = "SENT";
    /// `HashMap<Address, u8>` of the node's own addresses. The learner alone writes here. Never pinned, as above.
    pub const NODE: &str = "NODE";
    /// Constant of the programs: how many exchanges a cgroup may begin in the time of one silence before it is one of many.
    pub const EXCHANGES_SHARE: &str = "EXCHANGES_SHARE";
    /// `Array<u64>` of one: from when on, in `CLOCK_MONOTONIC` nanoseconds, the first datagram that is seen between two ports
    /// is the first one. 0 until the learner knows that both programs are attached.
    pub const GRACE_END: &str = "GRACE_END";
    /// `HashMap<u64, u64>`: how many keys of each cgroup were ever taken into `FLOWS`, and under [`super::EVERY_CGROUP`] of all.
    pub const ADMITTED: &str = "ADMITTED";
    /// `HashMap<u64, u64>`: how many of them the learner took out again. It alone writes here, and only programs write in
    /// `ADMITTED`, so that neither undoes what the other counts.
    pub const RELEASED: &str = "RELEASED";
    /// Constant of the programs: how many entries `FLOWS` has.
    pub const FLOWS_CAPACITY: &str = "FLOWS_CAPACITY";
    /// `HashMap<LossKey, u64>`: what was not recorded, for each cgroup.
    pub const LOSSES: &str = "LOSSES";
    /// `PerCpuArray<u64>`, indexed by [`super::Reason`]: what was not recorded, in all.
    pub const COUNTERS: &str = "COUNTERS";
    /// `RingBuf` of [`super::FlowKey`]: keys that are new in `FLOWS`. A hint: a key is in `FLOWS` whether or not it fits here.
    pub const ANNOUNCEMENTS: &str = "ANNOUNCEMENTS";
    /// `RingBuf` of [`super::Answer`]: packets of name servers, as far as they fit.
    pub const ANSWERS: &str = "ANSWERS";
    /// `HashMap<FlowKey, kept::Archived>`: what left `FLOWS`. Only learners read and write it, and only those that pin.
    pub const ARCHIVE: &str = "ARCHIVE";
    /// `HashMap<u64, kept::Owner>`: the paths of cgroups. As above.
    pub const OWNERS: &str = "OWNERS";
    /// `Array<u64>`, indexed by [`super::kept::Header`]: what the pinned maps are. As above.
    pub const HEADER: &str = "HEADER";
    /// Program for packets that a cgroup receives.
    pub const INGRESS: &str = "nanoseg_ingress";
    /// Program for packets that a cgroup sends.
    pub const EGRESS: &str = "nanoseg_egress";
}

/// An IPv6 address or a v4-mapped IPv4 address, as four words in network byte order.
pub type Address = [u32; 4];

/// Instead of a cgroup id, which is never zero: all of them.
pub const EVERY_CGROUP: u64 = 0;

/// How many cgroups the maps that count by cgroup have room for.
pub const CGROUPS: u32 = 16_384;

/// Whether a cgroup that holds `own` of the `held` keys in the flow map may have another one.
///
/// Nobody gets another one who holds as much as is free. So each can take at most half of what is free when it comes, and a
/// flood of one leaves half of the map to the others, a flood of two a quarter, and so on.
#[inline(always)]
pub const fn is_admitted(own: u64, held: u64, capacity: u64) -> bool {
    own < capacity.saturating_sub(held)
}

/// Transport protocols that are recorded, by their IANA number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// SCTP.
    Sctp = 132,
    /// Echo of ICMP, of either version: it has no ports, so the listener's is 0.
    Icmp = 1,
}

impl Transport {
    /// The transport with this IANA number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 | 58 => Some(Self::Icmp),
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// Which end of a connection a cgroup is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It opened the connection.
    Source = 0,
    /// It listened.
    Destination = 1,
}

impl Role {
    /// The role with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Source),
            1 => Some(Self::Destination),
            _ => None,
        }
    }
}

/// What flows are counted by. The port of the end that opened the connection is not in it, so that a thousand connections
/// to one listener are one key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Id of the cgroup whose socket it was: the inode number of its folder.
    pub cgroup: u64,
    /// The other end.
    pub peer: Address,
    /// The listener's port, in host byte order.
    pub port: u16,
    /// A [`Transport`].
    pub transport: u8,
    /// A [`Role`].
    pub role: u8,
    /// Always zero.
    pub pad: u32,
}

/// Where a flow is in the flow map: its key, in three words instead of four, because to hash one more takes as long as to read
/// the packet.
///
/// The kernel gives out the ids of cgroups in order. So two cgroups whose ids differ only in the half that is not here are
/// thousands of millions of folders apart; where that happens all the same, the entry says whose it is, and what would be
/// the other's is a loss.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowSlot {
    /// As in the key.
    pub peer: Address,
    /// As in the key.
    pub port: u16,
    /// As in the key.
    pub transport: u8,
    /// As in the key.
    pub role: u8,
    /// The lower half of the cgroup's id.
    pub cgroup: u32,
}

impl FlowKey {
    /// Where it is in the flow map.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "half of it is what is wanted")]
    pub const fn slot(&self) -> FlowSlot {
        let Self {
            cgroup,
            peer,
            port,
            transport,
            role,
            pad: _,
        } = *self;
        FlowSlot {
            peer,
            port,
            transport,
            role,
            cgroup: cgroup as u32,
        }
    }
}

/// How often and when. Times are `CLOCK_MONOTONIC` nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowRecord {
    /// First packet that counted.
    pub first_ns: u64,
    /// Last packet that counted, or for UDP a packet at most a second before the last one.
    pub last_ns: u64,
    /// Connections asked for: TCP SYN, SCTP INIT, UDP exchanges begun, ICMP echo requests.
    pub attempted: u64,
    /// Connections accepted: TCP SYN-ACK, SCTP INIT ACK, UDP exchanges answered, ICMP echo replies.
    pub established: u64,
    /// Connections refused: TCP RST in answer to a SYN.
    pub refused: u64,
}

/// Value of the flow map. It carries its key, so that whoever found it can make sure that it is the right one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEntry {
    /// What was observed.
    pub record: FlowRecord,
    /// What it is counted by.
    pub key: FlowKey,
}

/// What one event adds to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// A connection was asked for.
    Attempted,
    /// A connection was accepted.
    Established,
    /// A connection was refused.
    Refused,
    /// Only the time.
    Seen,
}

/// A packet of a name server to a cgroup, from its IP header on.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Answer {
    /// Id of the cgroup whose socket it was.
    pub cgroup: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// How many bytes of the packet follow; what is behind them means nothing.
    pub length: u32,
    /// Always zero.
    pub pad: u32,
    /// The packet.
    pub packet: [u8; Self::LONGEST],
}

impl Answer {
    /// As much of a packet as is kept: what every path of IPv6 takes whole, which servers stay below for datagrams.
    pub const LONGEST: usize = 1280;
}

/// What losses are counted by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LossKey {
    /// Id of the cgroup whose packet it was.
    pub cgroup: u64,
    /// A [`Reason`].
    pub reason: u32,
    /// Always zero.
    pub pad: u32,
}

/// Why a packet, or with [`Reason::UnderWay`] an exchange, is not in a flow record.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The flow map had no room for another key of this cgroup.
    MapFull = 0,
    /// The table of UDP exchanges took no new entry.
    ExchangeTableFull = 1,
    /// Not a whole IP packet: shorter than its headers, or a header that cannot be.
    Truncated = 2,
    /// A fragment without a transport header.
    Fragment = 3,
    /// More IPv6 extension headers than the parser follows.
    ExtensionHeaders = 4,
    /// A transport protocol that is not recorded.
    OtherTransport = 5,
    /// A UDP exchange that may have begun before the programs were attached: who began it is not known. Counted once for
    /// each exchange.
    UnderWay = 6,
    /// Not lost: from an address to itself, or by the loopback device. It never leaves the pod.
    Loopback = 7,
    /// Not lost: multicast, broadcast, unspecified or IPv6 link-local. No policy speaks of it.
    NotRouted = 8,
    /// Not lost: ICMP of either version, but for what a cgroup asks and is answered by echo. No policy speaks of it.
    Icmp = 9,
    /// Not lost: the announcement of a new key did not fit; the key itself is in the map.
    Unannounced = 10,
    /// Not lost: a copy that a raw socket gets of a packet to another socket.
    Copy = 11,
    /// Not lost: a name server's answer that did not fit. Addresses in it may stay without a name.
    Unheard = 12,
    /// A TCP connection that was open before the programs were attached and has no known direction. Learners count it.
    Undecided = 13,
    /// Not lost: a connection that came back to its sender. It is told as one to whom was asked.
    Returned = 14,
    /// Not lost, as far as can be told: a datagram of somebody who was not asked, taken for the answer of who was.
    OtherAnswer = 15,
}

impl Reason {
    /// How many the map has room for: more than there are, so that a pinned one can count those of a later version.
    pub const PLACES: u32 = 32;

    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::MapFull,
        Self::ExchangeTableFull,
        Self::Truncated,
        Self::Fragment,
        Self::ExtensionHeaders,
        Self::OtherTransport,
        Self::UnderWay,
        Self::Loopback,
        Self::NotRouted,
        Self::Icmp,
        Self::Unannounced,
        Self::Copy,
        Self::Unheard,
        Self::Undecided,
        Self::Returned,
        Self::OtherAnswer,
    ];

    /// Whether something that a policy could speak of was lost.
    pub const fn is_loss(self) -> bool {
        match self {
            Self::MapFull
            | Self::ExchangeTableFull
            | Self::Truncated
            | Self::Fragment
            | Self::ExtensionHeaders
            | Self::OtherTransport
            | Self::UnderWay
            | Self::Undecided => true,
            Self::Loopback
            | Self::NotRouted
            | Self::Icmp
            | Self::Unannounced
            | Self::Copy
            | Self::Unheard
            | Self::Returned
            | Self::OtherAnswer => false,
        }
    }

    /// The reason with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

const _: () = {
    assert!(size_of::<FlowKey>() == 32 && align_of::<FlowKey>() == 8);
    assert!(size_of::<FlowSlot>() == 24 && align_of::<FlowSlot>() == 4);
    assert!(size_of::<FlowRecord>() == 40 && align_of::<FlowRecord>() == 8);
    assert!(size_of::<FlowEntry>() == 72 && align_of::<FlowEntry>() == 8);
    assert!(size_of::<Answer>() == 24 + Answer::LONGEST && align_of::<Answer>() == 8);
    assert!(size_of::<LossKey>() == 16 && align_of::<LossKey>() == 8);
    let mut number = 0;
    while number < Reason::ALL.len() {
        assert!(Reason::ALL[number] as usize == number);
        number += 1;
    }
};
