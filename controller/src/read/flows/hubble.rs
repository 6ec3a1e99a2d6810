//! Hubble's flows, as `hubble observe -o json` and its exporter write them (`flow.proto` of Cilium, in either case of JSON
//! names).
//!
//! Law: direction is what Hubble says of it (`is_reply`), or what only the initiator sends (a SYN), or only an initiator can
//! meet (a policy's drop, which replies pass by); never a port number. Lines of both observation points are evidence for one
//! connection, from its two ends.

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;
use nanoseg_graph::flow::{Outcome, Reporter, Transport};
use nanoseg_graph::recorded::{Recorded, RecordedKey};
use serde::Deserialize;
use serde::de::MapAccess;

use super::line::{EndKeys, Wrong, hubble_port};
use super::{Entry, Skip};

/// The numeric identity that Cilium reserves for the reporting node itself.
const HOST: u32 = 1;

/// Keys of a flow beside its ends.
#[derive(Default)]
pub(super) struct Hubble<'a> {
    /// Whether any of the keys by which the shape is recognised was there.
    pub(super) recognised: bool,
    pub(super) node_name: Option<Cow<'a, str>>,
    ip: Option<Addresses>,
    l4: Option<Layer4>,
    is_reply: Option<bool>,
    reply: Option<bool>,
    direction: Option<Name<'a>>,
    verdict: Option<Name<'a>>,
    drop_reason: Option<Name<'a>>,
    drop_code: Option<u32>,
    kind: Option<Name<'a>>,
    time: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Addresses {
    #[serde(default)]
    source: Option<IpAddr>,
    #[serde(default)]
    destination: Option<IpAddr>,
}

/// The transport header.
pub(super) enum Layer4 {
    Ports(Transport, Ports),
    /// ICMP, or what a newer version has.
    Other,
}

#[derive(Deserialize)]
pub(super) struct Ports {
    #[serde(default, alias = "destinationPort", deserialize_with = "hubble_port")]
    destination_port: u16,
    #[serde(default)]
    flags: Option<Flags>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Flags {
    #[serde(default, rename = "SYN")]
    syn: bool,
    #[serde(default, rename = "ACK")]
    ack: bool,
}

/// A value of an enum: its name, or its number where names are switched off.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name<'a> {
    Number(i64),
    Text(#[serde(borrow)] Cow<'a, str>),
}

impl Name<'_> {
    fn is(&self, name: &str, number: i64) -> bool {
        match self {
            Self::Number(found) => *found == number,
            Self::Text(found) => found == name,
        }
    }
}

impl<'a> Hubble<'a> {
    /// Takes a key's value if it is one of Hubble's.
    pub(super) fn take<A: MapAccess<'a>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match key {
            "IP" => self.ip = map.next_value()?,
            "l4" => self.l4 = map.next_value()?,
            "is_reply" | "isReply" => self.is_reply = map.next_value()?,
            "reply" => self.reply = map.next_value()?,
            "traffic_direction" | "trafficDirection" => self.direction = map.next_value()?,
            "verdict" => self.verdict = map.next_value()?,
            "drop_reason_desc" | "dropReasonDesc" => self.drop_reason = map.next_value()?,
            "drop_reason" | "dropReason" => self.drop_code = map.next_value()?,
            "Type" => self.kind = map.next_value()?,
            "time" => self.time = map.next_value()?,
            // Stands beside the flow, too, and does not tell the shape.
            "node_name" | "nodeName" => {
                self.node_name = map.next_value()?;
                return Ok(true);
            }
            _ => return Ok(false),
        }
        self.recognised |= key != "time" && key != "reply" && key != "Type";
        Ok(true)
    }

    pub(super) fn entry(&self, source: &EndKeys<'a>, destination: &EndKeys<'a>) -> Result<Entry, Wrong> {
        if self.kind.as_ref().is_some_and(|kind| kind.is("SOCK", 3)) {
            return Ok(Entry::Skipped(Skip::Translation));
        }
        let (transport, ports) = match &self.l4 {
            Some(Layer4::Ports(transport, ports)) if ports.destination_port > 0 => (*transport, ports),
            Some(Layer4::Ports(..) | Layer4::Other) | None => return Ok(Entry::Skipped(Skip::NoPorts)),
        };
        let verdict = |name: &str, number| self.verdict.as_ref().is_some_and(|verdict| verdict.is(name, number));
        let outcome = if verdict("FORWARDED", 1) || verdict("REDIRECTED", 5) || verdict("AUDIT", 4) {
            Outcome::Established
        } else if verdict("DROPPED", 2) || verdict("ERROR", 3) {
            Outcome::Attempted
        } else if verdict("TRANSLATED", 7) {
            return Ok(Entry::Skipped(Skip::Translation));
        } else {
            return Ok(Entry::Skipped(Skip::NoVerdict));
        };
        let flags = ports.flags.unwrap_or_default();
        let opens = transport == Transport::Tcp && flags.syn && !flags.ack;
        match self.is_reply {
            Some(true) => return Ok(Entry::Skipped(Skip::Reply)),
            Some(false) => {}
            // The older key cannot tell `false` from unknown.
            None if self.reply == Some(true) || (flags.syn && flags.ack) => return Ok(Entry::Skipped(Skip::Reply)),
            None if opens || self.is_policy_drop() => {}
            None => return Ok(Entry::Skipped(Skip::UnknownDirection)),
        }
        let addresses = self.ip.as_ref();
        let missing = |field: &str| {
            (
                field.to_owned(),
                "neither a pod's name nor an address is there".to_owned(),
            )
        };
        let address = addresses.and_then(|ip| ip.source);
        let key = RecordedKey {
            source: source.hubble_end(address).ok_or_else(|| missing("source"))?,
            destination: destination
                .hubble_end(addresses.and_then(|ip| ip.destination))
                .ok_or_else(|| missing("destination"))?,
            port: ports.destination_port,
            transport,
            reporter: if self
                .direction
                .as_ref()
                .is_some_and(|direction| direction.is("INGRESS", 1))
            {
                Reporter::Destination
            } else {
                Reporter::Source
            },
        };
        let connection = Box::new(Recorded {
            key,
            outcome,
            // A TCP connection has one SYN and many lines.
            count: u64::from(opens || transport != Transport::Tcp),
            seen: self.time.map(|time| (time, time)),
            workloads: [source, destination].map(EndKeys::hubble_workload),
        });
        // With several clusters the name has the cluster's before it.
        let node = self.node_name.as_deref().and_then(|name| name.rsplit('/').next());
        match (node, address, source.identity) {
            (Some(node), Some(address), Some(HOST)) if !node.is_empty() => Ok(Entry::OnNode {
                connection,
                node: node.to_owned(),
                address,
            }),
            _ => Ok(Entry::Connection(connection)),
        }
    }

    fn is_policy_drop(&self) -> bool {
        let described = self.drop_reason.as_ref();
        described.is_some_and(|reason| reason.is("POLICY_DENIED", 133) || reason.is("POLICY_DENY", 181))
            || matches!(self.drop_code, Some(133 | 181))
    }
}
