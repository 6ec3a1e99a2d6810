//! What comes back to its sender: who asks a Service may be chosen to answer itself, and the node in between writes its own
//! address into what it leads back, or answers would go past it.
//!
//! Laws:
//! * Such a connection is told once, at the end that asks, as one to the Service. At the other end it would look like the node's.
//! * Only an address of the node leads something back. Nobody else can have it: whoever learns a number by being asked, and asks
//!   with it in turn, is told as any other.
//! * A TCP connection is known by its initial sequence number (RFC 9293, 3.4.1), which no translation of addresses changes, and by
//!   the own address, which is that of both ends. Another one of the node that has the same number at the same address, within the
//!   time in which [`PLACES`] connections begin, is one in thousands of millions.
//! * What is forgotten too early is told twice, and where the node connects to the same port itself, what comes back is counted with
//!   that. Nothing else becomes of it.

use crate::Address;

/// How many connections that were asked for are remembered: what comes back does so before this processor does anything else,
/// so these are for all the others.
pub const PLACES: u32 = 4096;

/// How many addresses of the node are known: one of each pod's interface on it, where a network plugin wants that, and some more.
pub const NODE_ADDRESSES: u32 = 1024;

/// A connection that an address asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    number: u32,
    own: u32,
}

impl Sent {
    /// `number` is the initial sequence number as it is in memory, and `own` the address of the end that is seen: of the sender
    /// when it is sent, of the receiver when it comes.
    #[inline(always)]
    pub const fn new(number: u32, own: &Address) -> Self {
        Self {
            number,
            // Addresses of one network differ in one word.
            own: own[0] ^ own[1] ^ own[2] ^ own[3],
        }
    }

    /// Where it is remembered.
    #[inline(always)]
    pub const fn place(self) -> u32 {
        self.number % PLACES
    }

    /// What is remembered.
    #[inline(always)]
    pub const fn mark(self) -> u64 {
        (self.number as u64) << 32 | self.own as u64
    }
}
