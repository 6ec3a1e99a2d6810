//! Flows: aggregated traffic of one container with one peer address, as a learner reports it.
//!
//! Law: reports merge in any order and any batching to the same table, and twice is once. Counts in a report are
//! cumulative since the learner's start, so that joining two reports takes the larger of each; a restarted learner is
//! another [`Origin`].

mod table;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::container::ContainerRef;
use crate::endpoint::UnknownReason;
use crate::name::DnsName;
pub use table::{FlowTable, Lacks};

/// Transport protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// IANA protocol 6.
    Tcp,
    /// IANA protocol 17.
    Udp,
    /// IANA protocol 132.
    Sctp,
    /// Echo of ICMP, IANA protocols 1 and 58, at port 0. Only who asks tells it, and no `NetworkPolicy` can speak of it: it is in
    /// graphs and never in a policy.
    Icmp,
}

impl Transport {
    /// Those that policies can speak of.
    pub const OF_POLICIES: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// As `NetworkPolicy` writes it, if it can.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which end of the connection the reporting container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reporter {
    /// The container opened the connection.
    Source,
    /// The container listened.
    Destination,
}

/// What became of a connection, at best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Asked for, and no answer was seen yet.
    Attempted,
    /// Asked for, and nobody answered within [`Tally::PATIENCE`]: whoever was asked is not there, or something drops the
    /// packets.
    Unanswered,
    /// Asked for, and refused by the other end.
    Refused,
    /// Answered.
    Established,
}

/// How often and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// First packet.
    pub first_seen: Timestamp,
    /// Last packet that was counted.
    pub last_seen: Timestamp,
    /// Connections asked for: TCP SYN, SCTP INIT, UDP exchanges begun. A UDP exchange is all datagrams between two ports until
    /// three minutes of silence, and counts once.
    pub attempted: u64,
    /// Connections accepted: TCP SYN-ACK, SCTP INIT ACK, UDP exchanges answered; and TCP connections that were open when the
    /// learner started, which nobody saw asked for.
    pub established: u64,
    /// Connections refused (TCP RST in answer to a SYN).
    pub refused: u64,
    /// Of those asked for, how many nobody answered within [`Tally::PATIENCE`]. Never more than there were: an answer is taken
    /// for one to the earliest that has none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unanswered: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_none(count: &u64) -> bool {
    *count == 0
}

impl Tally {
    /// How long an answer is waited for: twice as long as resolvers wait, and longer than Linux takes to ask three times.
    pub const PATIENCE: Duration = Duration::from_secs(10);

    /// Least upper bound: associative, commutative, idempotent.
    pub fn join(&mut self, other: &Self) {
        let Self {
            first_seen,
            last_seen,
            attempted,
            established,
            refused,
            unanswered,
        } = other;
        self.first_seen = self.first_seen.min(*first_seen);
        self.last_seen = self.last_seen.max(*last_seen);
        self.attempted = self.attempted.max(*attempted);
        self.established = self.established.max(*established);
        self.refused = self.refused.max(*refused);
        self.unanswered = self.unanswered.max(*unanswered);
    }

    /// Sum of two tallies of different origins.
    pub fn add(&mut self, other: &Self) {
        let Self {
            first_seen,
            last_seen,
            attempted,
            established,
            refused,
            unanswered,
        } = other;
        self.first_seen = self.first_seen.min(*first_seen);
        self.last_seen = self.last_seen.max(*last_seen);
        self.attempted = self.attempted.saturating_add(*attempted);
        self.established = self.established.saturating_add(*established);
        self.refused = self.refused.saturating_add(*refused);
        self.unanswered = self.unanswered.saturating_add(*unanswered);
    }

    /// What came to an earlier tally of the same flow: added to it, it gives this one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let Self {
            first_seen,
            last_seen,
            attempted,
            established,
            refused,
            unanswered,
        } = self;
        Self {
            first_seen: *first_seen,
            last_seen: *last_seen,
            attempted: attempted.saturating_sub(earlier.attempted),
            established: established.saturating_sub(earlier.established),
            refused: refused.saturating_sub(earlier.refused),
            unanswered: unanswered.saturating_sub(earlier.unanswered),
        }
    }

    /// Whether no connection was seen to begin, and some were open: all of them are older than who tells.
    pub const fn is_older(&self) -> bool {
        self.attempted == 0 && self.established > 0
    }

    /// The best that happened.
    pub const fn outcome(&self) -> Outcome {
        if self.established > 0 {
            Outcome::Established
        } else if self.refused > 0 {
            Outcome::Refused
        } else if self.unanswered > 0 {
            Outcome::Unanswered
        } else {
            Outcome::Attempted
        }
    }
}

/// One run of one learner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the node.
    pub node: String,
    /// Distinguishes runs: nanoseconds since the Unix epoch at the learner's start.
    pub epoch: u64,
}

/// Whose cgroup the packets passed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A container of a pod.
    Container(ContainerRef),
    /// A process of the node itself, by its cgroup path.
    Host(String),
    /// A cgroup that could not be attributed.
    Unknown(UnknownReason),
}

/// What a flow is counted by, within its origin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowKey {
    /// Own end.
    pub subject: Subject,
    /// The other end's address, as this end's packets carry it.
    pub peer: IpAddr,
    /// The listener's port.
    pub port: u16,
    /// Transport protocol.
    pub transport: Transport,
    /// Which end the subject is.
    pub reporter: Reporter,
}

impl FlowKey {
    /// The same, lent.
    pub const fn lend(&self) -> FlowRef<'_> {
        FlowRef {
            subject: &self.subject,
            peer: self.peer,
            port: self.port,
            transport: self.transport,
            reporter: self.reporter,
        }
    }
}

/// A [`FlowKey`], lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowRef<'a> {
    /// Own end.
    pub subject: &'a Subject,
    /// The other end's address.
    pub peer: IpAddr,
    /// The listener's port.
    pub port: u16,
    /// Transport protocol.
    pub transport: Transport,
    /// Which end the subject is.
    pub reporter: Reporter,
}

impl FlowRef<'_> {
    /// The same, owned.
    pub fn key(self) -> FlowKey {
        FlowKey {
            subject: self.subject.clone(),
            peer: self.peer,
            port: self.port,
            transport: self.transport,
            reporter: self.reporter,
        }
    }
}

/// One flow of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// What it is counted by.
    #[serde(flatten)]
    pub key: FlowKey,
    /// How often and when, since the learner's start.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Why traffic was not recorded as a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// The kernel's flow map had no room for another flow of this subject.
    MapFull,
    /// The kernel's table of live UDP exchanges was full.
    ExchangeTableFull,
    /// The packet was too short for its headers.
    Truncated,
    /// A fragment without a transport header.
    Fragment,
    /// An IPv6 extension header chain that is longer than the parser follows.
    ExtensionHeaders,
    /// Another transport protocol than the recorded ones.
    OtherTransport,
    /// A UDP exchange that may have begun before the learner started, or a TCP connection that did: nobody knows who began.
    /// Counted once for each, not for each of its packets.
    UnderWay,
    /// Counts that an earlier learner left in the kernel, which this one cannot read: what was counted there and not reported.
    /// Counted once for each flow that was there.
    Discarded,
}

impl LossReason {
    /// Every reason, for counters.
    pub const ALL: [Self; 8] = [
        Self::MapFull,
        Self::ExchangeTableFull,
        Self::Truncated,
        Self::Fragment,
        Self::ExtensionHeaders,
        Self::OtherTransport,
        Self::UnderWay,
        Self::Discarded,
    ];

    /// As reports write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MapFull => "map_full",
            Self::ExchangeTableFull => "exchange_table_full",
            Self::Truncated => "truncated",
            Self::Fragment => "fragment",
            Self::ExtensionHeaders => "extension_headers",
            Self::OtherTransport => "other_transport",
            Self::UnderWay => "under_way",
            Self::Discarded => "discarded",
        }
    }
}

/// A count of something not recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Whose packets, if that could be told.
    pub subject: Option<Subject>,
    /// Why.
    pub reason: LossReason,
    /// How many packets, or exchanges and connections for [`LossReason::UnderWay`] and flows for [`LossReason::Discarded`], since the learner's start.
    pub count: u64,
}

/// A name that a container asked for, and an address that it was told. It says how people call the address, and nothing about
/// who has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Who asked.
    pub subject: Subject,
    /// What it was told.
    pub address: IpAddr,
    /// What it asked for.
    pub name: DnsName,
    /// First answer.
    pub first_seen: Timestamp,
    /// Until when the last answer holds.
    pub until: Timestamp,
}

/// The addresses of a container that no kubelet started, and what people call it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The container, by its cgroup path.
    pub subject: Subject,
    /// What its runtime calls it, if that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Addresses of its network.
    pub addresses: BTreeSet<IpAddr>,
    /// When it had them first.
    pub first_seen: Timestamp,
}

/// What one learner says: everything, or what changed since its last report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who says it.
    pub origin: Origin,
    /// Flows, with cumulative counts.
    pub flows: Vec<Flow>,
    /// Losses, with cumulative counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<Loss>,
    /// Addresses of the node's own interfaces, bridges to its pods included: the source of kubelet's probes is one of them,
    /// and no object of the API names it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub node_addresses: BTreeSet<IpAddr>,
    /// Names of the peers of its flows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Named>,
    /// Containers that no kubelet started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Held>,
    /// What sees for this learner. Another capture may see more than one before it, or less: what it shows for the first time need
    /// not have begun then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureVersion>,
}

/// Which capture saw something: the learner's version and what its kernel programs are told by, as `0.1.0 (maps 2)`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct CaptureVersion(String);

impl CaptureVersion {
    /// Characters of one at most: it is shown beside each workload, and a learner's node may have been taken over.
    pub const LONGEST: usize = 40;
}

impl fmt::Display for CaptureVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that names no capture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a capture is named by 1 to {} printable characters of ASCII",
    CaptureVersion::LONGEST
)]
pub struct CaptureVersionError;

impl TryFrom<String> for CaptureVersion {
    type Error = CaptureVersionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if printable && (1..=Self::LONGEST).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(CaptureVersionError)
        }
    }
}
