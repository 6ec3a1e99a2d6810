//! Who spoke first between two ports.
//!
//! Laws:
//! * The first datagram between two ports opens an exchange; whoever sent it is its source, whatever the port numbers are.
//! * While the first datagram that is seen need not be the first one, because the programs have only just been attached,
//!   the socket says who began the exchange, or nobody does: then it is undecided and in no flow record.
//! * Who was asked may answer under another address: rules of the asking end's own network translate what is sent and what comes
//!   back. A socket that is connected to somebody says to whom; of one that is not, the first datagram of anybody within
//!   [`Asked::ANSWERED_WITHIN_NS`] to a port that the kernel chose is the answer, as long as there is none.
//! * Datagrams of the other end are answers, until both were silent for [`Exchange::SILENCE_NS`].
//! * Whoever begins so many exchanges that they would drive out others' is put among those that do as well: see [`Begun`].
//! * Of datagrams that have nothing to say, one in a second is heard.
//! * An exchange is counted once when it begins and once when it is answered, however many datagrams it has.

use crate::{Address, Count, FlowKey, Role, Transport};

/// Two ports that exchange datagrams, as one end sees them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeKey {
    /// Id of the cgroup whose socket it was.
    pub cgroup: u64,
    /// The other end.
    pub peer: Address,
    /// This end's port, in host byte order.
    pub local_port: u16,
    /// The other end's port, in host byte order.
    pub peer_port: u16,
    /// Always zero.
    pub pad: u32,
}

/// Where an exchange is in its table: its key without half of the cgroup's id, as a [`crate::FlowSlot`] is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeSlot {
    /// As in the key.
    pub peer: Address,
    /// As in the key.
    pub local_port: u16,
    /// As in the key.
    pub peer_port: u16,
    /// The lower half of the cgroup's id.
    pub cgroup: u32,
}

impl ExchangeKey {
    /// What the flow of an exchange is counted by, given who this end is in it.
    #[inline(always)]
    pub const fn flow(&self, role: Role) -> FlowKey {
        FlowKey {
            cgroup: self.cgroup,
            peer: self.peer,
            port: match role {
                Role::Source => self.peer_port,
                Role::Destination => self.local_port,
            },
            transport: Transport::Udp as u8,
            role: role as u8,
            pad: 0,
        }
    }

    /// Where it is in the table.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "half of it is what is wanted")]
    pub const fn slot(&self) -> ExchangeSlot {
        let Self {
            cgroup,
            peer,
            local_port,
            peer_port,
            pad: _,
        } = *self;
        ExchangeSlot {
            peer,
            local_port,
            peer_port,
            cgroup: cgroup as u32,
        }
    }
}

/// An exchange, and what of it is in the flow record already.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Last datagram of either end, `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
    /// When the flow record was last written.
    pub written_ns: u64,
    /// A [`Role`], who this end is; or [`Exchange::UNDECIDED`] or [`Exchange::ANSWERS`].
    pub role: u32,
    /// Which of the two events of an exchange are in the flow record.
    pub written: u32,
}

/// Value of the table of exchanges. It carries its key as [`crate::FlowEntry`] does.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeEntry {
    /// The exchange.
    pub exchange: Exchange,
    /// Whose it is.
    pub key: ExchangeKey,
}

/// Which port of which cgroup asked: see [`Asked`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    /// The lower half of the cgroup's id.
    pub cgroup: u32,
    /// The port, in host byte order.
    pub port: u32,
}

impl Asking {
    /// Of an end's port. `None`: it is none that the kernel chooses, so that somebody may wait there for whoever comes.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "half of it is what is wanted")]
    pub const fn of(cgroup: u64, port: u16) -> Option<Self> {
        // The first of `ip_local_port_range` as Linux has it by default.
        if port < 32_768 {
            return None;
        }
        Some(Self {
            cgroup: cgroup as u32,
            port: port as u32,
        })
    }
}

/// Whom a port asked last by a socket that is connected to nobody.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The exchange that the question began.
    pub slot: ExchangeSlot,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
}

impl Asked {
    /// How long a question waits: the longest that resolv.conf(5) lets a resolver wait.
    pub const ANSWERED_WITHIN_NS: u64 = 30_000_000_000;

    /// Whether what comes now may be the answer to the question, of which `exchange` is what is known.
    #[inline(always)]
    pub const fn may_be_answered(&self, exchange: &Exchange, now: u64) -> bool {
        exchange.role == Role::Source as u32
            && exchange.written & ANSWERED == 0
            && now.saturating_sub(self.at_ns) <= Self::ANSWERED_WITHIN_NS
    }
}

/// How many exchanges a cgroup began since when.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub since_ns: u64,
    /// How many.
    pub count: u64,
}

impl Begun {
    /// What one cgroup may begin of a table of `entries` before it is put among the many: it would take sixteen at this mark to
    /// drive out what is alive of others.
    pub const fn share(entries: u32) -> u32 {
        if entries < 16 { 1 } else { entries / 16 }
    }

    /// Counts another one, and says whether it belongs among the many.
    #[inline(always)]
    pub const fn another(&mut self, share: u32, now: u64) -> bool {
        // Whatever was begun in the time before is over, or alive among the many.
        if now.saturating_sub(self.since_ns) > Exchange::SILENCE_NS {
            self.since_ns = now;
            self.count = 0;
        }
        self.count += 1;
        self.count > share as u64
    }
}

const OPENED: u32 = 1;
const ANSWERED: u32 = 2;

impl Exchange {
    /// Silence after which the next datagram begins a new exchange: the longest that Linux's connection tracking, by which
    /// policies are enforced, has ever remembered one by default, and the second in which not every datagram is heard.
    pub const SILENCE_NS: u64 = 180_000_000_000 + Self::REFRESH_NS;
    /// How old the last time in a flow record may become while its exchange goes on.
    pub const REFRESH_NS: u64 = 1_000_000_000;
    /// Instead of a role: the exchange may have begun before it could be seen.
    pub const UNDECIDED: u32 = 2;
    /// Instead of a role: what comes here are the answers of another exchange, which has them in its flow record.
    pub const ANSWERS: u32 = 3;

    /// The exchange of which a datagram of `speaker` is the first that was seen. `grace_end` is when the first one that is
    /// seen is the first one, or 0 as long as that is not known; before, `is_initiator` is asked whether the socket alone
    /// says that this end began it.
    #[inline(always)]
    pub fn first_seen(speaker: Role, now: u64, grace_end: u64, is_initiator: impl FnOnce() -> bool) -> Self {
        if grace_end != 0 && now >= grace_end {
            Self::begun(speaker, now)
        } else if is_initiator() {
            Self::begun(Role::Source, now)
        } else {
            Self::silent(Self::UNDECIDED, now)
        }
    }

    /// One whose datagrams are answers of another one.
    #[inline(always)]
    pub const fn answering(now: u64) -> Self {
        Self::silent(Self::ANSWERS, now)
    }

    #[inline(always)]
    const fn silent(role: u32, now: u64) -> Self {
        Self {
            last_ns: now,
            // Never older than anything and nothing left to write: hearing more of it costs what it does of others.
            written_ns: u64::MAX,
            role,
            written: OPENED | ANSWERED,
        }
    }

    /// The exchange that a datagram of `speaker` opens.
    #[inline(always)]
    pub const fn begun(speaker: Role, now: u64) -> Self {
        Self {
            last_ns: now,
            written_ns: now,
            role: speaker as u32,
            written: 0,
        }
    }

    /// Who this end is, unless that is undecided.
    #[inline(always)]
    pub const fn role(&self) -> Option<Role> {
        if self.role == Role::Source as u32 {
            Some(Role::Source)
        } else if self.role == Role::Destination as u32 {
            Some(Role::Destination)
        } else {
            None
        }
    }

    /// What a datagram adds to the flow record, if anything. `speaker` is who this end would be if the datagram opened something.
    #[inline(always)]
    pub fn hear(&mut self, speaker: Role, now: u64) -> Option<Count> {
        // Another processor may have taken its time before this one and stored it after.
        if now > self.last_ns {
            if now - self.last_ns > Self::SILENCE_NS && self.role != Self::ANSWERS {
                *self = Self::begun(speaker, now);
            }
            self.last_ns = now;
        }
        if self.role == speaker as u32 {
            if self.written & OPENED == 0 {
                return Some(Count::Attempted);
            }
        } else if self.written & ANSWERED == 0 {
            return Some(Count::Established);
        }
        (now > self.written_ns && now - self.written_ns > Self::REFRESH_NS).then_some(Count::Seen)
    }

    /// Until when another datagram of the end that was just heard, and had nothing to write, has nothing to write either.
    #[inline(always)]
    pub const fn nothing_to_write_until(&self, now: u64) -> u64 {
        let since = if self.written_ns < now { self.written_ns } else { now };
        since + Self::REFRESH_NS
    }

    /// Notes that the flow record has it. Until then the next datagram of the same end tries again.
    #[inline(always)]
    pub const fn wrote(&mut self, count: Count, now: u64) {
        match count {
            Count::Attempted => self.written |= OPENED,
            Count::Established => self.written |= ANSWERED,
            Count::Refused | Count::Seen => {}
        }
        self.written_ns = now;
    }
}

const _: () = {
    assert!(size_of::<Asking>() == 8 && align_of::<Asking>() == 4);
    assert!(size_of::<Asked>() == 32 && align_of::<Asked>() == 8);
    assert!(size_of::<Begun>() == 16 && align_of::<Begun>() == 8);
    assert!(size_of::<ExchangeKey>() == 32 && align_of::<ExchangeKey>() == 8);
    assert!(size_of::<ExchangeSlot>() == 24 && align_of::<ExchangeSlot>() == 4);
    assert!(size_of::<Exchange>() == 24 && align_of::<Exchange>() == 8);
    assert!(size_of::<ExchangeEntry>() == 56 && align_of::<ExchangeEntry>() == 8);
};
