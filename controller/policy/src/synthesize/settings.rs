//! What people can choose about the baseline and its policies.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;
use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::connection::{Edge, EvidenceRef};
use nanoseg_graph::endpoint::ServiceName;
use nanoseg_graph::flow::{Outcome, Transport};

use crate::direction::Port;

/// What becomes of TCP and SCTP connections that were asked for and never accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unanswered {
    /// They stay in the graph and never become rules: what nobody answers, nobody needs.
    #[default]
    Ignore,
    /// They count like answered ones.
    Learn,
}

/// Ports of a range that a policy lists one by one at most, where ranges are not understood: what a person can still read.
pub const LISTED: usize = 64;

/// How a range of ports is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ranges {
    /// As a range.
    #[default]
    Grouped,
    /// Port by port, at most [`LISTED`]: the network plugin was shown not to understand ranges.
    Listed,
}

/// What a network plugin compares a connection to a Service with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceView {
    /// The pod behind the Service and its port, as the specification has it.
    #[default]
    Translated,
    /// The Service's own address and port.
    Untranslated,
    /// Nothing that a rule could name.
    Nothing,
}

/// What the cluster's network plugin was shown to do with policies, where it is not what the specification says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plugin {
    /// How ranges of ports are written.
    pub ranges: Ranges,
    /// What egress rules have to name where a connection goes through a Service.
    pub services: ServiceView,
}

/// Choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connections that were never accepted.
    pub unanswered: Unanswered,
    /// The Services that are cluster DNS.
    pub dns_services: BTreeSet<ServiceName>,
    /// Addresses at which a DNS cache on each node listens, beside those of the DNS Services. They are never in a group.
    pub node_local_dns: BTreeSet<IpAddr>,
    /// External addresses that mean their whole group as soon as one of them is observed. Without groups each address that was
    /// observed is named, and no other. A group that holds addresses of the cluster is not used: see
    /// [`conflicts`](Self::conflicts).
    pub external_groups: BTreeSet<ExternalGroup>,
    /// External addresses outside every group that one direction of one workload names at most: where more were observed they
    /// come and go behind a name, or are everybody's, and a list of those of today would cut those of tomorrow.
    pub external_addresses: usize,
    /// Ports that mean their whole range as soon as one of them is observed.
    pub port_ranges: BTreeSet<PortRange>,
    /// The network plugin.
    pub plugin: Plugin,
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
            external_groups: BTreeSet::new(),
            // What a person can still read in one policy.
            external_addresses: 100,
            port_ranges: BTreeSet::new(),
            plugin: Plugin::default(),
        }
    }
}

impl Settings {
    /// Whether an edge counts: it was answered, or it is UDP, where many protocols have no answers. ICMP never does, because no
    /// policy can name it.
    pub fn in_baseline(&self, edge: Edge<'_>, evidence: EvidenceRef<'_>) -> bool {
        match (edge.transport, self.unanswered) {
            (Transport::Icmp, _) => false,
            (Transport::Udp, _) | (_, Unanswered::Learn) => true,
            (Transport::Tcp | Transport::Sctp, Unanswered::Ignore) => evidence.outcome() == Outcome::Established,
        }
    }

    /// The groups that hold addresses of the cluster, and so are not used: the address that a pod, a Service or a node has, or
    /// will have tomorrow, must never be allowed as if it were outside.
    pub fn conflicts(&self, cluster: &Cluster) -> Vec<GroupConflict> {
        let within = |group: &ExternalGroup| {
            group.cidrs.iter().find_map(|cidr| {
                cluster.address_within(*cidr).map(|inside| GroupConflict {
                    group: group.name.clone(),
                    cidr: *cidr,
                    inside,
                })
            })
        };
        self.external_groups.iter().filter_map(within).collect()
    }

    /// What a rule says of a port that was observed: the widest range that was declared around it, else the port.
    pub(super) fn span(&self, port: Port) -> Span {
        let around = self.port_ranges.iter().filter(|range| range.contains(port));
        around
            .max_by_key(|range| (range.last - range.first, std::cmp::Reverse(range.first)))
            .map_or(Span::of(port), |range| Span {
                first: range.first,
                last: range.last,
                transport: range.transport,
            })
    }
}

/// Why a setting means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// A range of ports that has none.
    #[error("no port is in the range {first} to {last}: ports are 1 to 65535, the lower one first")]
    EmptyRange {
        /// The lowest port.
        first: u16,
        /// The highest port.
        last: u16,
    },
    /// A group without addresses.
    #[error("the external group {name:?} has no address range")]
    EmptyGroup {
        /// The group.
        name: String,
    },
    /// Text that is no range of ports.
    #[error("{text:?} is no range of ports: write [NAME=]PROTOCOL:FIRST-LAST, as in rtp=UDP:16384-32767")]
    NotARange {
        /// The text.
        text: String,
    },
    /// Text that is no group.
    #[error("{text:?} is no external group: write NAME=CIDR[,CIDR...], as in partner=203.0.113.0/24,2001:db8::/32")]
    NotAGroup {
        /// The text.
        text: String,
    },
}

/// A group that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error(
    "the external group {group} is not used: its range {cidr} holds {inside} of the cluster; take it out of the group"
)]
pub struct GroupConflict {
    /// The group.
    pub group: String,
    /// Its range.
    pub cidr: IpNet,
    /// What it holds: a range of the cluster, or one address.
    pub inside: IpNet,
}

/// External addresses that belong together, by a person's word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExternalGroup {
    name: String,
    cidrs: BTreeSet<IpNet>,
}

impl ExternalGroup {
    /// A group of at least one range. Ranges that lie in others of them, or complete one another, become one.
    pub fn new(name: impl Into<String>, cidrs: impl IntoIterator<Item = IpNet>) -> Result<Self, SettingError> {
        let name = name.into();
        let cidrs: Vec<IpNet> = cidrs.into_iter().map(|cidr| cidr.trunc()).collect();
        let cidrs: BTreeSet<IpNet> = IpNet::aggregate(&cidrs).into_iter().collect();
        if cidrs.is_empty() {
            return Err(SettingError::EmptyGroup { name });
        }
        Ok(Self { name, cidrs })
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its ranges; none lies in another.
    pub const fn cidrs(&self) -> &BTreeSet<IpNet> {
        &self.cidrs
    }

    /// How much of the address is fixed by the range around it; `None` when no range is.
    pub(super) fn prefix_around(&self, address: IpAddr) -> Option<u8> {
        let around = self.cidrs.iter().filter(|cidr| cidr.contains(&address));
        around.map(IpNet::prefix_len).max()
    }
}

impl FromStr for ExternalGroup {
    type Err = SettingError;

    /// `NAME=CIDR[,CIDR...]`; a single address is a range as well.
    fn from_str(text: &str) -> Result<Self, SettingError> {
        let wrong = || SettingError::NotAGroup { text: text.to_owned() };
        let (name, ranges) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(wrong)?;
        let range = |range: &str| {
            let single = range.parse::<IpAddr>().map(IpNet::from);
            range.parse::<IpNet>().or(single).map_err(|_error| wrong())
        };
        let cidrs: Vec<IpNet> = ranges.split(',').map(range).collect::<Result<_, _>>()?;
        Self::new(name, cidrs)
    }
}

/// Ports that belong together, by a person's word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    transport: Transport,
    first: u16,
    last: u16,
    name: Option<String>,
}

impl PortRange {
    /// The ports from `first` to `last`, both included.
    pub fn new(transport: Transport, first: u16, last: u16, name: Option<String>) -> Result<Self, SettingError> {
        if first == 0 || last < first {
            return Err(SettingError::EmptyRange { first, last });
        }
        Ok(Self {
            transport,
            first,
            last,
            name,
        })
    }

    /// Whether a port is in it.
    pub fn contains(&self, port: Port) -> bool {
        port.transport == self.transport && (self.first..=self.last).contains(&port.number)
    }

    /// Its ports.
    pub fn ports(&self) -> impl Iterator<Item = Port> + use<> {
        let transport = self.transport;
        (self.first..=self.last).map(move |number| Port { number, transport })
    }

    pub(super) fn is(&self, span: Span) -> bool {
        (self.first, self.last, self.transport) == (span.first, span.last, span.transport)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            transport,
            first,
            last,
            name,
        } = self;
        match name {
            Some(name) => write!(f, "{name} ({transport} {first}-{last})"),
            None => write!(f, "{transport} {first}-{last}"),
        }
    }
}

impl FromStr for PortRange {
    type Err = SettingError;

    /// `[NAME=]PROTOCOL:FIRST-LAST`.
    fn from_str(text: &str) -> Result<Self, SettingError> {
        let wrong = || SettingError::NotARange { text: text.to_owned() };
        let (name, ports) = match text.split_once('=') {
            Some((name, ports)) => (Some(name.to_owned()), ports),
            None => (None, text),
        };
        let (protocol, ports) = ports.split_once(':').ok_or_else(wrong)?;
        let (first, last) = ports.split_once('-').ok_or_else(wrong)?;
        let transport = Transport::OF_POLICIES
            .into_iter()
            .find(|transport| transport.as_str() == protocol)
            .ok_or_else(wrong)?;
        let number = |text: &str| text.parse().map_err(|_error| wrong());
        Self::new(transport, number(first)?, number(last)?, name)
    }
}

/// What a rule says of ports: one, or a declared range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) transport: Transport,
}

impl Span {
    pub(super) const fn of(port: Port) -> Self {
        Self {
            first: port.number,
            last: port.number,
            transport: port.transport,
        }
    }

    /// What orders spans.
    pub(super) const fn key(self) -> u64 {
        (self.first as u64) << 24 | (self.last as u64) << 8 | self.transport as u64
    }

    pub(super) const fn is_range(self) -> bool {
        self.first < self.last
    }

    /// How many ports it has.
    pub(super) const fn len(self) -> usize {
        (self.last - self.first) as usize + 1
    }
}

impl Span {
    /// Appends it. There is one in each line of evidence, so it does without the formatter.
    pub(super) fn write(self, line: &mut String) {
        line.push_str(self.transport.as_str());
        line.push(' ');
        push_number(line, self.first);
        if self.is_range() {
            line.push('-');
            push_number(line, self.last);
        }
    }
}

fn push_number(line: &mut String, number: u16) {
    let digits = [10_000, 1_000, 100, 10, 1].map(|unit| number / unit % 10);
    let first = digits.iter().position(|digit| *digit > 0).unwrap_or(4);
    line.extend(
        digits[first..]
            .iter()
            .filter_map(|digit| char::from_digit(u32::from(*digit), 10)),
    );
}
