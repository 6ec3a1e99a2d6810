//! Words that every step shares.

use std::fmt;

use nanoseg_graph::flow::Transport;

/// Direction of a connection, relative to the subject of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The subject listens.
    Ingress,
    /// The subject connects.
    Egress,
}

impl Direction {
    /// Both, in the order in which a policy lists them.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As `policyTypes` writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// Ports of one protocol from a first to a last one, in words.
pub(crate) fn ports_in_words(transport: Transport, first: u16, last: u16) -> impl fmt::Display {
    fmt::from_fn(move |f| match (first, last) {
        (1, u16::MAX) => write!(f, "{transport} all ports"),
        (first, last) if first == last => write!(f, "{transport} {first}"),
        (first, last) => write!(f, "{transport} {first}-{last}"),
    })
}

/// A listener's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Number, 1 to 65535.
    pub number: u16,
    /// Transport protocol.
    pub transport: Transport,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.transport, self.number)
    }
}
