//! What people can choose about the baseline and its policies.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use nanoseg_graph::connection::{EdgeKey, Evidence};
use nanoseg_graph::endpoint::ServiceName;
use nanoseg_graph::flow::{Outcome, Transport};

/// What becomes of TCP and SCTP connections that were asked for and never accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unanswered {
    /// They stay in the graph and never become rules: what nobody answers, nobody needs.
    #[default]
    Ignore,
    /// They count like answered ones.
    Learn,
}

/// Choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connections that were never accepted.
    pub unanswered: Unanswered,
    /// The Services that are cluster DNS.
    pub dns_services: BTreeSet<ServiceName>,
    /// Addresses at which a DNS cache on each node listens, beside those of the DNS Services.
    pub node_local_dns: BTreeSet<IpAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        let dns = ServiceName {
            namespace: "kube-system".to_owned(),
            name: "kube-dns".to_owned(),
        };
        Self {
            unanswered: Unanswered::default(),
            dns_services: [dns].into(),
            // Where NodeLocal DNSCache listens unless told otherwise.
            node_local_dns: [IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10))].into(),
        }
    }
}

impl Settings {
    /// Whether an edge counts: it was answered, or it is UDP, where many protocols have no answers.
    pub fn in_baseline(&self, key: &EdgeKey, evidence: &Evidence) -> bool {
        match (evidence.outcome(), key.transport, self.unanswered) {
            (Outcome::Established, _, _) | (_, Transport::Udp, _) | (_, _, Unanswered::Learn) => true,
            (Outcome::Attempted | Outcome::Refused, Transport::Tcp | Transport::Sctp, Unanswered::Ignore) => false,
        }
    }
}
