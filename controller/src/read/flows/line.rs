//! One line of JSON, of either shape, read in one pass without a tree.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use jiff::Timestamp;
use nanoseg_graph::endpoint::Workload;
use nanoseg_graph::flow::{Outcome, Reporter, Transport};
use nanoseg_graph::recorded::{Recorded, RecordedEnd, RecordedKey};
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, Unexpected, Visitor};

use super::Entry;
use super::hubble::{Hubble, Layer4};

/// A field and what is wrong with it.
pub(super) type Wrong = (String, String);

/// All keys of both shapes that mean something.
#[derive(Default)]
pub(super) struct Line<'a> {
    source: Option<EndKeys<'a>>,
    destination: Option<EndKeys<'a>>,
    port: Option<NonZeroU16>,
    protocol: Option<Cow<'a, str>>,
    count: Option<u64>,
    first_seen: Option<Timestamp>,
    last_seen: Option<Timestamp>,
    outcome: Option<Word>,
    reporter: Option<Reporter>,
    hubble: Hubble<'a>,
    /// Hubble's envelope.
    flow: Option<Box<Self>>,
    /// Keys of Hubble's other events.
    event: bool,
    /// Keys that mean nothing in the plain shape.
    pub(super) unknown: Vec<Cow<'a, str>>,
}

/// An end, of either shape.
#[derive(Default)]
pub(super) struct EndKeys<'a> {
    namespace: Option<Cow<'a, str>>,
    pod: Option<Cow<'a, str>>,
    ip: Option<IpAddr>,
    /// Hubble's.
    pub(super) pod_name: Option<Cow<'a, str>>,
    /// Hubble's.
    pub(super) identity: Option<u32>,
    /// Hubble's.
    workloads: Vec<Owner<'a>>,
    unknown: Vec<Cow<'a, str>>,
}

/// What Hubble says of who owns a pod.
#[derive(Deserialize)]
struct Owner<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Attempted,
    Unanswered,
    Refused,
    Established,
}

impl<'a> Line<'a> {
    /// Reads a line. The field is `None` when it is not JSON at all.
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, (Option<String>, String)> {
        match serde_json::from_slice(text) {
            Ok(line) => Ok(line),
            // Once more, with an eye on where: that costs too much to do it for every line.
            Err(first) => {
                let json = &mut serde_json::Deserializer::from_slice(text);
                let located: Result<Self, _> = serde_path_to_error::deserialize(json);
                let (path, error) = match located {
                    Ok(_) => (String::new(), first),
                    Err(error) => (error.path().to_string(), error.into_inner()),
                };
                let text = error.to_string();
                let reason = text.split(" at line ").next().unwrap_or(&text);
                if error.is_data() {
                    let field = Some(path).filter(|path| path != ".");
                    Err((field, reason.to_owned()))
                } else {
                    Err((None, format!("it is not JSON: {reason} at column {}", error.column())))
                }
            }
        }
    }

    /// What the line tells.
    pub(super) fn entry(self) -> Result<Entry, Wrong> {
        if let Some(flow) = self.flow {
            let mut flow = *flow;
            flow.hubble.recognised = true;
            if flow.hubble.node_name.is_none() {
                flow.hubble.node_name = self.hubble.node_name;
            }
            return flow.entry();
        }
        if self.event {
            return Ok(Entry::Skipped(super::Skip::NoFlow));
        }
        if self.hubble.recognised {
            let (source, destination) = (self.source.unwrap_or_default(), self.destination.unwrap_or_default());
            return self.hubble.entry(&source, &destination);
        }
        self.plain()
    }

    fn plain(self) -> Result<Entry, Wrong> {
        let missing = |field: &str, what: &str| (field.to_owned(), format!("it is missing: {what}"));
        let ends = "{\"namespace\": .., \"pod\": ..} or {\"ip\": ..}";
        let source = self.source.ok_or_else(|| missing("source", ends))?;
        let destination = self.destination.ok_or_else(|| missing("destination", ends))?;
        let key = RecordedKey {
            source: source.end("source")?,
            destination: destination.end("destination")?,
            port: self.port.ok_or_else(|| missing("port", PORT.expected))?.get(),
            transport: match self.protocol {
                None => Transport::Tcp,
                Some(protocol) => transport(&protocol)
                    .ok_or_else(|| ("protocol".to_owned(), format!("{protocol:?} is not TCP, UDP or SCTP")))?,
            },
            reporter: self.reporter.unwrap_or(Reporter::Source),
        };
        let seen = match (self.first_seen, self.last_seen) {
            (Some(first), Some(last)) if first > last => {
                return Err(("last_seen".to_owned(), "it is before first_seen".to_owned()));
            }
            (Some(first), Some(last)) => Some((first, last)),
            (Some(once), None) | (None, Some(once)) => Some((once, once)),
            (None, None) => None,
        };
        Ok(Entry::Connection(Box::new(Recorded {
            key,
            outcome: match self.outcome {
                None | Some(Word::Established) => Outcome::Established,
                Some(Word::Refused) => Outcome::Refused,
                Some(Word::Unanswered) => Outcome::Unanswered,
                Some(Word::Attempted) => Outcome::Attempted,
            },
            count: self.count.unwrap_or(1),
            seen,
            workloads: [None, None],
        })))
    }
}

impl EndKeys<'_> {
    fn end(&self, field: &str) -> Result<RecordedEnd, Wrong> {
        match (self.pod.as_deref(), self.ip) {
            (Some(""), _) => Err((format!("{field}.pod"), "it is empty".to_owned())),
            (Some(pod), _) => Ok(RecordedEnd::Pod {
                namespace: self.namespace(),
                name: pod.to_owned(),
            }),
            (None, Some(ip)) => Ok(RecordedEnd::Address(ip.to_canonical())),
            (None, None) => Err((
                field.to_owned(),
                "it names nobody: write {\"namespace\": .., \"pod\": ..} or {\"ip\": ..}".to_owned(),
            )),
        }
    }

    /// The namespace; without one it is `default`, as everywhere.
    fn namespace(&self) -> String {
        let namespace = self.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        namespace.unwrap_or("default").to_owned()
    }

    /// Hubble's end: the pod if it knew it, else the address.
    pub(super) fn hubble_end(&self, address: Option<IpAddr>) -> Option<RecordedEnd> {
        match self.pod_name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => Some(RecordedEnd::Pod {
                namespace: self.namespace(),
                name: name.to_owned(),
            }),
            None => address.map(|address| RecordedEnd::Address(address.to_canonical())),
        }
    }

    /// The workload of Hubble's pod. Of several nobody knows which.
    pub(super) fn hubble_workload(&self) -> Option<Workload> {
        let is_pod = self.pod_name.as_deref().is_some_and(|name| !name.is_empty());
        match &self.workloads[..] {
            [Owner { kind, name }] if is_pod && !kind.is_empty() && !name.is_empty() => Some(Workload {
                namespace: self.namespace(),
                kind: kind.to_string(),
                name: name.to_string(),
            }),
            _ => None,
        }
    }
}

pub(super) fn transport(text: &str) -> Option<Transport> {
    Transport::OF_POLICIES
        .into_iter()
        .find(|transport| transport.as_str().eq_ignore_ascii_case(text))
}

/// A string that is borrowed where it can be: serde's own borrows nothing through `Option`.
#[derive(Deserialize)]
#[serde(transparent)]
struct Str<'a>(#[serde(borrow)] Cow<'a, str>);

fn string<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<Cow<'de, str>>, A::Error> {
    Ok(map.next_value::<Option<Str<'de>>>()?.map(|text| text.0))
}

/// Which whole numbers a field takes. serde's own integers name the types of Rust to whoever gave another.
struct Whole<T> {
    expected: &'static str,
    read: fn(u64) -> Option<T>,
}

const PORT: Whole<NonZeroU16> = Whole {
    expected: "a number from 1 to 65535",
    read: |number| u16::try_from(number).ok().and_then(NonZeroU16::new),
};

/// Hubble's: a flow without ports has zeros.
const HUBBLE_PORT: Whole<u16> = Whole {
    expected: "a number up to 65535",
    read: |number| u16::try_from(number).ok(),
};

/// A port of Hubble's flows.
pub(super) fn hubble_port<'de, D: de::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    Ok(HUBBLE_PORT.deserialize(deserializer)?.unwrap_or_default())
}

const COUNT: Whole<u64> = Whole {
    expected: "a whole number",
    read: Some,
};

impl<'de, T> DeserializeSeed<'de> for Whole<T> {
    type Value = Option<T>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<T> Visitor<'_> for Whole<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        let read = (self.read)(number).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))?;
        Ok(Some(read))
    }
}

impl<'de> Deserialize<'de> for Line<'de> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Line<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with source, destination and port, or a flow of Hubble")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut line = Line::default();
                while let Some(Str(key)) = map.next_key()? {
                    match &*key {
                        "source" => line.source = map.next_value()?,
                        "destination" => line.destination = map.next_value()?,
                        "port" => line.port = map.next_value_seed(PORT)?,
                        "protocol" => line.protocol = string(&mut map)?,
                        "count" => line.count = map.next_value_seed(COUNT)?,
                        "first_seen" => line.first_seen = map.next_value()?,
                        "last_seen" => line.last_seen = map.next_value()?,
                        "outcome" => line.outcome = map.next_value()?,
                        "reporter" => line.reporter = map.next_value()?,
                        "flow" => line.flow = map.next_value()?,
                        "lost_events" | "lostEvents" | "node_status" | "nodeStatus" | "agent_event" | "agentEvent"
                        | "debug_event" | "debugEvent" => {
                            line.event = true;
                            map.next_value::<IgnoredAny>()?;
                        }
                        _ => {
                            if !line.hubble.take(&key, &mut map)? {
                                map.next_value::<IgnoredAny>()?;
                                line.unknown.push(key);
                            }
                        }
                    }
                }
                if line.hubble.recognised || line.flow.is_some() || line.event {
                    // Hubble's flows have many keys that do not matter here.
                    line.unknown.clear();
                } else {
                    for end in [&mut line.source, &mut line.destination].into_iter().flatten() {
                        line.unknown.append(&mut end.unknown);
                    }
                }
                Ok(line)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

impl<'de> Deserialize<'de> for EndKeys<'de> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = EndKeys<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with namespace and pod, or with ip")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut end = EndKeys::default();
                while let Some(Str(key)) = map.next_key()? {
                    match &*key {
                        "namespace" => end.namespace = string(&mut map)?,
                        "pod" => end.pod = string(&mut map)?,
                        "ip" => end.ip = map.next_value()?,
                        "pod_name" | "podName" => end.pod_name = string(&mut map)?,
                        "identity" => end.identity = map.next_value()?,
                        "workloads" => end.workloads = map.next_value::<Option<_>>()?.unwrap_or_default(),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            end.unknown.push(key);
                        }
                    }
                }
                Ok(end)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// Hubble's `l4`: an object whose one key is the protocol.
impl<'de> Deserialize<'de> for Layer4 {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Layer4;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with TCP, UDP, SCTP or ICMP")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = Layer4::Other;
                while let Some(Str(key)) = map.next_key()? {
                    match transport(&key) {
                        Some(transport) => found = Layer4::Ports(transport, map.next_value()?),
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}
