//! The program that is every container of both labs: it listens, calls on a schedule, and writes what became of each call.
//!
//! Guarantees: each call is one line in the ledger, whatever became of it; nothing waits longer than [`PATIENCE`]; the number
//! of threads is bounded by the configuration; SIGTERM ends it at once, also where it is process 1.
//!
//! It resolves names itself, because a static glibc has no resolver, and because every query is then traffic of the container.

mod caller;
mod dns_server;
mod ledger;
mod listener;
mod resolver;
mod run;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::app::{Families, HostName, Protocol, When};

pub use dns_server::Zone;
pub use ledger::{Call, Failure, Ledger};
pub use resolver::Resolver;
pub use run::{PeerError, run};

/// How long a connection or an answer is waited for: long enough for a busy machine of two cores, short enough that a
/// round of calls that are all dropped ends soon.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The environment variable with the configuration: JSON, or `@` and the path of a file with it.
pub const CONFIG_VARIABLE: &str = "LAB_PEER";
/// The environment variable with the pod's name.
pub const POD_VARIABLE: &str = "POD_NAME";
/// The environment variable with the pod's addresses, commas between them. UDP answers from these, so that a pod in the node's
/// network answers from the address that it was asked at.
pub const ADDRESSES_VARIABLE: &str = "POD_IPS";

/// What a peer is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Who it is: `NAMESPACE/NAME` of its workload, or `external/NAME`.
    pub name: String,
    /// Ports on which it answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listens: Vec<PeerListen>,
    /// Calls that it makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<PeerCall>,
    /// Ends when every call was made and this time has passed; runs for ever if not given.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "humantime_option")]
    pub ends_after: Option<Duration>,
    /// Whom it asks for names; `/etc/resolv.conf` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<ResolverConfig>,
    /// Serves the names in this file on port 53, of both protocols. The file is read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<PathBuf>,
    /// Where it writes its calls; standard output if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<PathBuf>,
    /// Standard input is a socket to whoever started it: it writes one byte there when it listens, calls nobody before it has
    /// read one, and ends with the other end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub supervised: bool,
}

/// A port on which a peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerListen {
    /// Number.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A call that a peer makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerCall {
    /// What the ledger calls the target: as the description of the application writes it.
    pub to: String,
    /// Where the target is.
    pub at: Place,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Families.
    pub family: Families,
    /// Time from one round to the next.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
    /// Time from the start to the first round.
    #[serde(with = "humantime_serde")]
    pub after: Duration,
    /// On its schedule or when told.
    pub when: When,
}

/// Where a target is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Behind a name: each round calls the next of its addresses.
    OneOf(HostName),
    /// Behind a name: each round calls all of its addresses.
    EachOf(HostName),
    /// At these addresses: each round calls all of them.
    Addresses(Vec<IpAddr>),
}

/// Whom a peer asks for names, as `resolv.conf` says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolverConfig {
    /// Name servers, asked in this order.
    pub servers: Vec<SocketAddr>,
    /// Domains that are tried behind a name.
    pub search: Vec<String>,
    /// A name with fewer dots is tried in the search domains first.
    pub ndots: usize,
}

/// Durations as text, in configurations that people read.
mod humantime_serde {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(serde::de::Error::custom)
    }
}

mod humantime_option {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub(super) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::humantime_serde::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        super::humantime_serde::deserialize(deserializer).map(Some)
    }
}
