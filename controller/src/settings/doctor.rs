//! Arguments of `nanoseg doctor`, and of what runs in the pods of its probe.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::access::Access;
use super::output::{Output, TABLES};

pub(super) const DOCTOR_EXAMPLES: &str = "\
Examples:
  Versions, rights, nodes, clocks, what is installed and whether it is well:
    nanoseg doctor
  Whether this cluster enforces NetworkPolicies at all: six pods, for a minute:
    nanoseg doctor --probe
  nanoseg doctor -o json | jq 'select(.verdict == \"fault\")'

The probe runs in a namespace of its own, which is removed in every case. It is
of nanoseg's own image, as the Deployment nanoseg-controller has it, or --image.
What it finds is kept in ConfigMap nanoseg-enforcement: where policies were
shown not to be enforced, no Segment is said to be Enforcing. Run it again after
the network plugin was changed.

Exit code 0; 1 if something is wrong; 2 if there is no answer.";

/// Arguments of `nanoseg doctor`.
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Find out by short-lived pods whether the cluster enforces NetworkPolicies
    #[arg(long)]
    pub probe: bool,
    /// Image of the probe's pods [default: the controller's]
    #[arg(long, value_name = "IMAGE", requires = "probe")]
    pub image: Option<String>,
    /// How long the network plugin has to work in the probe's policies (90s, 2m)
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = humantime::parse_duration, requires = "probe")]
    pub settle: Duration,
    /// Namespace that nanoseg runs in
    #[arg(long, value_name = "NAMESPACE", default_value = "nanoseg")]
    pub own_namespace: String,
    /// How to print
    #[arg(short, long, value_parser = TABLES, default_value = "table")]
    pub output: Output,
    #[command(flatten)]
    pub access: Access,
}

/// Arguments of what runs in the pods of a probe.
#[derive(Debug, Args)]
pub struct PodArguments {
    /// Accept connections at this port
    #[arg(long, value_name = "PORT")]
    pub answer: Vec<u16>,
    /// Call this address, and tell by this name what became of it
    #[arg(long, value_name = "NAME=ADDRESS")]
    pub call: Vec<Call>,
    /// Call for this long; what counts is how it ended
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub patience: Duration,
}

/// Whom to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What the answer is told by.
    pub name: String,
    /// Where.
    pub address: SocketAddr,
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text.split_once('=').ok_or("write NAME=ADDRESS:PORT")?;
        let address = address.parse().map_err(|error| format!("{address}: {error}"))?;
        Ok(Self {
            name: name.to_owned(),
            address,
        })
    }
}
