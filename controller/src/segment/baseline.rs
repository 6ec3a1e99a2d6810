//! A baseline's edges as text that people read, and back.
//!
//! Law: reading back what was written gives the same edges.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use nanoseg_graph::connection::EdgeKey;
use nanoseg_graph::endpoint::{Endpoint, ServiceName, UnknownReason, Workload};
use nanoseg_graph::flow::{Reporter, Transport};
use nanoseg_graph::name::DnsName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::SegmentError;
use super::evidence::Sightings;
use super::listed::{Few, Listed};

/// One connection of the baseline: who opens it, to whom, on which port of the listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BaselineEdge {
    /// Who opens the connection: `namespace/Kind/name` for a workload, `service namespace/name`, `node NAME`, `external ADDRESS`, or
    /// `unknown REASON ADDRESS`, which keeps the NetworkPolicy from isolating this direction.
    pub source: EdgeEnd,
    /// Who listens, written as the source is.
    pub destination: EdgeEnd,
    /// The port that the listener itself listens on: a Service's target port, never the Service's own.
    #[schemars(with = "i32", range(min = 0, max = 65535))]
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Services through which the connection is made, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
    /// The ends whose nodes saw it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen_at: Vec<SeenAt>,
    /// Names by which the source asked for the destination, where that is an external address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub names: Vec<DnsName>,
}

impl BaselineEdge {
    /// The edge itself.
    pub fn key(&self) -> EdgeKey {
        EdgeKey {
            source: self.source.0.clone(),
            destination: self.destination.0.clone(),
            port: self.port,
            transport: self.protocol.into(),
        }
    }
}

impl fmt::Display for BaselineEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            destination,
            port,
            protocol,
            via: _,
            seen_at: _,
            names: _,
        } = self;
        write!(f, "{source} -> {destination} {} {port}", Transport::from(*protocol))
    }
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SeenAt {
    /// The end that opened the connection.
    Source,
    /// The end that listened.
    Destination,
}

/// Transport protocol as NetworkPolicy writes it, if it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// IANA protocol 6.
    Tcp,
    /// IANA protocol 17.
    Udp,
    /// IANA protocol 132.
    Sctp,
    /// ICMP echo, which is in no baseline.
    Icmp,
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
            Transport::Sctp => Self::Sctp,
            Transport::Icmp => Self::Icmp,
        }
    }
}

impl From<Protocol> for Transport {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
            Protocol::Icmp => Self::Icmp,
        }
    }
}

/// One end of an edge, as one readable word or two. Reads back as exactly the same endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(transparent)]
pub struct EdgeEnd(
    #[schemars(
        with = "String",
        regex(
            pattern = r"^([^/ ]+/[^/ ]+/[^/ ]+|service [^/ ]+/[^/ ]+|node [^/ ]+|external [0-9a-fA-F.:]+|unknown [a-z-]+( [0-9a-fA-F.:]+)?)$"
        )
    )]
    pub Endpoint,
);

/// Why a text is not an end of an edge.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not an end of an edge: write `namespace/Kind/name`, `service namespace/name`, `node NAME`, `external ADDRESS` or \
     `unknown REASON [ADDRESS]`"
)]
pub struct NotAnEnd(String);

const fn word(reason: UnknownReason) -> &'static str {
    match reason {
        UnknownReason::CgroupGone => "cgroup-gone",
        UnknownReason::PodNotSeen => "pod-not-seen",
        UnknownReason::AddressNotSeen => "address-not-seen",
        UnknownReason::AddressReused => "address-reused",
    }
}

impl fmt::Display for EdgeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Endpoint::Workload(Workload { namespace, kind, name }) => write!(f, "{namespace}/{kind}/{name}"),
            Endpoint::Service(ServiceName { namespace, name }) => write!(f, "service {namespace}/{name}"),
            Endpoint::Node(name) => write!(f, "node {name}"),
            Endpoint::External(address) => write!(f, "external {address}"),
            Endpoint::Unknown {
                reason,
                address: Some(address),
            } => write!(f, "unknown {} {address}", word(*reason)),
            Endpoint::Unknown { reason, address: None } => write!(f, "unknown {}", word(*reason)),
        }
    }
}

impl FromStr for EdgeEnd {
    type Err = NotAnEnd;

    fn from_str(text: &str) -> Result<Self, NotAnEnd> {
        let endpoint = match text.split(' ').collect::<Vec<_>>()[..] {
            [workload] => match workload.split('/').collect::<Vec<_>>()[..] {
                [namespace, kind, name] if ![namespace, kind, name].contains(&"") => {
                    Some(Endpoint::Workload(Workload {
                        namespace: namespace.to_owned(),
                        kind: kind.to_owned(),
                        name: name.to_owned(),
                    }))
                }
                _ => None,
            },
            ["service", service] => parse_service(service).map(Endpoint::Service),
            ["node", name] if !name.is_empty() && !name.contains('/') => Some(Endpoint::Node(name.to_owned())),
            ["external", address] => address.parse().ok().map(Endpoint::External),
            ["unknown", reason] => parse_reason(reason).map(|reason| Endpoint::Unknown { reason, address: None }),
            ["unknown", reason, address] => match (parse_reason(reason), address.parse()) {
                (Some(reason), Ok(address)) => Some(Endpoint::Unknown {
                    reason,
                    address: Some(address),
                }),
                _ => None,
            },
            _ => None,
        };
        endpoint.map(Self).ok_or_else(|| NotAnEnd(text.to_owned()))
    }
}

fn parse_reason(text: &str) -> Option<UnknownReason> {
    UnknownReason::ALL.into_iter().find(|reason| word(*reason) == text)
}

impl Serialize for EdgeEnd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EdgeEnd {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

fn parse_service(text: &str) -> Option<ServiceName> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [namespace, name] if ![namespace, name].contains(&"") => Some(ServiceName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }),
        _ => None,
    }
}

/// What is known of an edge of a baseline, beside that it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Services through which the source reaches the destination.
    pub via: Few<ServiceName>,
    /// The ends whose nodes saw it.
    pub seen_at: Few<Reporter>,
    /// Names by which the source asked for the destination.
    pub names: Few<DnsName>,
    /// When and how often.
    pub sightings: Sightings,
}

impl Known {
    /// Takes in what another observation knows.
    pub fn extend(&mut self, other: Self) {
        let Self {
            via,
            seen_at,
            names,
            sightings,
        } = other;
        if self.names != names {
            let mut all = self.names.to_set();
            for name in &*names {
                DnsName::keep(&mut all, name);
            }
            self.names = all.into();
        }
        self.via.extend(&via);
        self.seen_at.extend(&seen_at);
        self.sightings.extend(sightings);
    }
}

/// The edges that a workload's policy allows. A trial holds the same keys.
pub type Baseline = Listed<Arc<EdgeKey>, Known>;

/// The edges of a baseline, in order, by themselves.
pub fn into_keys(baseline: Baseline) -> impl Iterator<Item = EdgeKey> {
    baseline.into_iter().map(|(key, _)| Arc::unwrap_or_clone(key))
}

/// SHA-256 over the edges of a baseline, as `sha256:` and 64 hex digits. What they are reached through does not count.
pub fn hash_of(baseline: &Baseline) -> String {
    let mut hasher = Sha256::new();
    for key in baseline.keys() {
        let EdgeKey {
            source,
            destination,
            port,
            transport,
        } = &**key;
        for part in [
            EdgeEnd(source.clone()).to_string(),
            EdgeEnd(destination.clone()).to_string(),
            port.to_string(),
            transport.to_string(),
        ] {
            hasher.update(part.as_bytes());
            hasher.update([0]);
        }
    }
    format!("sha256:{}", hex(&hasher.finalize()))
}

/// SHA-256 over a text, as `sha256:` and 64 hex digits.
pub fn hash_of_text(text: &str) -> String {
    format!("sha256:{}", hex(&Sha256::digest(text.as_bytes())))
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _written = write!(text, "{byte:02x}");
            text
        })
}

/// Edges as people read them.
pub fn to_edges<'a, K: Borrow<EdgeKey> + 'a>(
    baseline: impl IntoIterator<Item = (&'a K, &'a Known)>,
) -> Vec<BaselineEdge> {
    baseline
        .into_iter()
        .map(|(key, known)| to_edge(key.borrow(), known))
        .collect()
}

pub(super) fn to_edge(key: &EdgeKey, known: &Known) -> BaselineEdge {
    let EdgeKey {
        source,
        destination,
        port,
        transport,
    } = key;
    let Known {
        via,
        seen_at,
        names,
        sightings: _,
    } = known;
    BaselineEdge {
        source: EdgeEnd(source.clone()),
        destination: EdgeEnd(destination.clone()),
        port: *port,
        protocol: (*transport).into(),
        via: via
            .iter()
            .map(|ServiceName { namespace, name }| format!("{namespace}/{name}"))
            .collect(),
        seen_at: seen_at
            .iter()
            .map(|end| match end {
                Reporter::Source => SeenAt::Source,
                Reporter::Destination => SeenAt::Destination,
            })
            .collect(),
        names: names.to_vec(),
    }
}

/// What people read, back.
pub fn from_edges(edges: &[BaselineEdge]) -> Result<Baseline, SegmentError> {
    edges
        .iter()
        .map(
            |BaselineEdge {
                 source,
                 destination,
                 port,
                 protocol,
                 via,
                 seen_at,
                 names,
             }| {
                let key = EdgeKey {
                    source: source.0.clone(),
                    destination: destination.0.clone(),
                    port: *port,
                    transport: (*protocol).into(),
                };
                let via = via
                    .iter()
                    .map(|text| parse_service(text).ok_or_else(|| SegmentError::Via(text.clone())))
                    .collect::<Result<_, _>>()?;
                let seen_at = seen_at
                    .iter()
                    .map(|end| match end {
                        SeenAt::Source => Reporter::Source,
                        SeenAt::Destination => Reporter::Destination,
                    })
                    .collect();
                let names = names.iter().cloned().collect();
                let known = Known {
                    via,
                    seen_at,
                    names,
                    sightings: Sightings::default(),
                };
                Ok((Arc::new(key), known))
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::tests::workload;

    #[test]
    fn ends_read_back_as_they_were_written() {
        let service = ServiceName {
            namespace: "shop".to_owned(),
            name: "db".to_owned(),
        };
        for endpoint in [
            Endpoint::Workload(workload("Deployment", "web")),
            // Knative's Service owns pods, and is not the core Service of the same name.
            Endpoint::Workload(workload("Service", "db")),
            // A static pod's owner is its node.
            Endpoint::Workload(workload("Node", "node1")),
            Endpoint::Service(service),
            Endpoint::Node("node1".to_owned()),
            Endpoint::External("203.0.113.9".parse().unwrap()),
            Endpoint::External("fd00::9".parse().unwrap()),
            Endpoint::Unknown {
                reason: UnknownReason::AddressReused,
                address: None,
            },
            Endpoint::Unknown {
                reason: UnknownReason::PodNotSeen,
                address: Some("fd00::9".parse().unwrap()),
            },
        ] {
            let text = serde_json::to_string(&EdgeEnd(endpoint.clone())).unwrap();
            assert_eq!(serde_json::from_str::<EdgeEnd>(&text).unwrap().0, endpoint, "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_ends_are_refused() {
        for text in [
            "",
            "web",
            "a/b",
            "a/b/c/d",
            "a//c",
            "a/b c/d",
            "service db",
            "node ",
            "external db",
            "external 1.2.3",
            "unknown",
            "unknown x",
        ] {
            assert_eq!(text.parse::<EdgeEnd>(), Err(NotAnEnd(text.to_owned())));
        }
    }

    #[test]
    fn a_baseline_reads_back_edge_for_edge() {
        let service = ServiceName {
            namespace: "shop".to_owned(),
            name: "db".to_owned(),
        };
        let baseline: Baseline = [
            (
                Arc::new(EdgeKey {
                    source: Endpoint::Workload(workload("Deployment", "web")),
                    destination: Endpoint::Workload(workload("StatefulSet", "db")),
                    port: 5432,
                    transport: Transport::Tcp,
                }),
                Known {
                    via: [service].into(),
                    seen_at: [Reporter::Source, Reporter::Destination].into(),
                    names: ["db.example.com".to_owned().try_into().unwrap()].into(),
                    sightings: Sightings::default(),
                },
            ),
            (
                Arc::new(EdgeKey {
                    source: Endpoint::Node("node1".to_owned()),
                    destination: Endpoint::Workload(workload("Deployment", "web")),
                    port: 8080,
                    transport: Transport::Sctp,
                }),
                Known::default(),
            ),
        ]
        .into();
        let text = serde_yaml::to_string(&to_edges(&baseline)).unwrap();
        let edges: Vec<BaselineEdge> = serde_yaml::from_str(&text).unwrap();
        assert_eq!(from_edges(&edges).unwrap(), baseline);
        let without_via: Baseline = baseline.keys().map(|key| (key.clone(), Known::default())).collect();
        assert_eq!(hash_of(&without_via), hash_of(&baseline));
    }
}
