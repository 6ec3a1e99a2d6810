//! Peers and ports to rules: merged, sorted, and each with what it comes from.
//!
//! Law: the rules mean exactly the pairs of peer and ports that were put in, each pair in one rule. Of the two ways to merge
//! (each peer once with all its ports, or each port once with all its peers) the one that takes fewer lines is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nanoseg_graph::cluster::Labels;
use nanoseg_graph::connection::EvidenceRef;
use nanoseg_graph::endpoint::{Endpoint, ServiceName};
use nanoseg_graph::flow::Reporter;

use super::peers::Peer;
use super::settings::{ExternalGroup, Span};
use crate::direction::Direction;
use crate::objects::NAMESPACE_NAME;

/// Why a peer is allowed at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason<'a> {
    /// It was observed, by these ends, through these Services.
    Observed {
        source: bool,
        destination: bool,
        via: &'a BTreeSet<ServiceName>,
    },
    /// DNS needs both transports.
    Dns,
    /// A DNS cache on the node answers in place of cluster DNS.
    DnsCache,
}

impl<'a> Reason<'a> {
    pub(super) fn observed(evidence: EvidenceRef<'a>) -> Self {
        Self::Observed {
            source: evidence.reported_by(Reporter::Source),
            destination: evidence.reported_by(Reporter::Destination),
            via: evidence.via,
        }
    }

    fn explain(self, line: &mut String) {
        match self {
            Self::Observed {
                source,
                destination,
                via,
            } => {
                line.push_str(match (source, destination) {
                    (true, true) => "seen at both ends",
                    (true, false) => "seen at the source",
                    (false, true) => "seen at the destination",
                    (false, false) => "observed",
                });
                for (index, service) in via.iter().enumerate() {
                    line.push_str(if index == 0 {
                        ", through Service "
                    } else {
                        " and Service "
                    });
                    line.push_str(&service.namespace);
                    line.push('/');
                    line.push_str(&service.name);
                }
            }
            Self::Dns => line.push_str("not seen, DNS needs it"),
            Self::DnsCache => line.push_str("not seen, the DNS cache of the node may answer"),
        }
    }
}

/// Whom a line of evidence speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whom<'a> {
    /// What was observed.
    Endpoint(&'a Endpoint),
    /// The group in which the observed address lies.
    Group(&'a ExternalGroup),
}

impl Whom<'_> {
    fn name(self, line: &mut String) -> fmt::Result {
        match self {
            // By far the most, so that they do not go through the formatter.
            Self::Endpoint(Endpoint::Workload(workload)) => {
                for part in [&workload.kind, " ", &workload.namespace, "/", &workload.name] {
                    line.push_str(part);
                }
                Ok(())
            }
            Self::Endpoint(endpoint) => write!(line, "{endpoint}"),
            Self::Group(group) => write!(line, "external group {}", group.name()),
        }
    }
}

/// A peer that is allowed at a port, and where that comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry<'a> {
    pub(super) peer: Peer,
    pub(super) span: Span,
    pub(super) whom: Whom<'a>,
    pub(super) reason: Reason<'a>,
    /// The same number where the same is spoken of. It says nothing else, and orders nothing that can be seen.
    pub(super) who: u32,
}

/// Ports, the peers that have them, and what that comes from.
#[derive(Debug, Default)]
pub(super) struct Rule<'a> {
    spans: Vec<Span>,
    peers: Vec<Peer>,
    entries: Vec<Entry<'a>>,
}

/// The rules that mean these entries.
pub(super) fn merge(mut entries: Vec<Entry<'_>>) -> Vec<Rule<'_>> {
    entries.sort_unstable();
    entries.dedup();
    let by_peer = by_peer(&entries);
    if by_peer.len() < 2 {
        return by_peer;
    }
    // Only where a port is in several rules could it be written fewer times.
    let mut spans: Vec<Span> = by_peer.iter().flat_map(|rule| &rule.spans).copied().collect();
    let written = spans.len();
    spans.sort_unstable();
    spans.dedup();
    if spans.len() == written {
        return by_peer;
    }
    let lines = |rules: &[Rule<'_>]| -> usize { rules.iter().map(Rule::lines).sum() };
    let by_span = by_span(entries);
    if lines(&by_span) < lines(&by_peer) {
        by_span
    } else {
        by_peer
    }
}

/// Each peer once: peers with the same ports share a rule.
fn by_peer<'a>(entries: &[Entry<'a>]) -> Vec<Rule<'a>> {
    let mut rules: BTreeMap<Vec<Span>, Rule<'a>> = BTreeMap::new();
    for run in entries.chunk_by(|one, next| one.peer == next.peer) {
        let mut spans: Vec<Span> = run.iter().map(|entry| entry.span).collect();
        spans.dedup();
        let rule = rules.entry(spans).or_default();
        rule.peers.extend(run.first().map(|entry| entry.peer.clone()));
        rule.entries.extend_from_slice(run);
    }
    let with_spans = |(spans, rule): (Vec<Span>, Rule<'a>)| Rule { spans, ..rule };
    rules.into_iter().map(with_spans).collect()
}

/// Each port once: ports with the same peers share a rule.
fn by_span(mut entries: Vec<Entry<'_>>) -> Vec<Rule<'_>> {
    entries.sort_unstable_by(|one, next| one.span.cmp(&next.span).then_with(|| one.cmp(next)));
    let mut rules: BTreeMap<Vec<Peer>, Rule<'_>> = BTreeMap::new();
    for run in entries.chunk_by(|one, next| one.span == next.span) {
        let mut peers: Vec<Peer> = run.iter().map(|entry| entry.peer.clone()).collect();
        peers.dedup();
        let rule = rules.entry(peers).or_default();
        rule.spans.extend(run.first().map(|entry| entry.span));
        rule.entries.extend_from_slice(run);
    }
    let with_peers = |(peers, rule)| Rule { peers, ..rule };
    let mut rules: Vec<Rule<'_>> = rules.into_iter().map(with_peers).collect();
    rules.sort_unstable_by(|one, next| one.spans.cmp(&next.spans));
    rules
}

impl<'a> Rule<'a> {
    /// How many lines of YAML it takes.
    fn lines(&self) -> usize {
        let ports: usize = self.spans.iter().map(|span| 2 + usize::from(span.is_range())).sum();
        let peers: usize = self.peers.iter().map(Peer::lines).sum();
        2 + ports + peers
    }

    fn ports(&self) -> Vec<NetworkPolicyPort> {
        self.spans
            .iter()
            .map(|span| NetworkPolicyPort {
                end_port: span.is_range().then_some(i32::from(span.last)),
                port: Some(IntOrString::Int(i32::from(span.first))),
                protocol: Some(span.transport.as_str().to_owned()),
            })
            .collect()
    }

    fn peers(&self) -> Vec<NetworkPolicyPeer> {
        self.peers
            .iter()
            .map(|peer| match peer {
                Peer::Pods(selection) => NetworkPolicyPeer {
                    ip_block: None,
                    namespace_selector: Some(selector(
                        [(NAMESPACE_NAME.to_owned(), selection.namespace.clone())].into(),
                    )),
                    pod_selector: Some(selector(selection.labels.clone())),
                },
                Peer::Block(cidr) => NetworkPolicyPeer {
                    ip_block: Some(IPBlock {
                        cidr: cidr.to_string(),
                        except: None,
                    }),
                    ..NetworkPolicyPeer::default()
                },
            })
            .collect()
    }

    pub(super) fn ingress(&self) -> NetworkPolicyIngressRule {
        NetworkPolicyIngressRule {
            from: Some(self.peers()),
            ports: Some(self.ports()),
        }
    }

    pub(super) fn egress(&self) -> NetworkPolicyEgressRule {
        NetworkPolicyEgressRule {
            to: Some(self.peers()),
            ports: Some(self.ports()),
        }
    }

    /// One line for each endpoint and reason, in the order of the peers:
    /// `ingress 1: Deployment shop/web -> TCP 8080, seen at both ends, through Service shop/api`.
    pub(super) fn evidence(&self, direction: Direction, index: usize, mut take: impl FnMut(&str)) {
        let prefix = match direction {
            Direction::Ingress => format!("{direction} {}: ", index + 1),
            Direction::Egress => format!("{direction} {}: -> ", index + 1),
        };
        let mut line = String::new();
        for source in self.sources() {
            line.clear();
            line.push_str(&prefix);
            let mut written = source.whom.name(&mut line);
            line.push_str(match direction {
                Direction::Ingress => " -> ",
                Direction::Egress => " ",
            });
            for (place, span) in source.spans.iter().enumerate() {
                line.push_str(if place == 0 { "" } else { ", " });
                written = written.and_then(|()| write!(line, "{span}"));
            }
            // Writing to a string cannot fail.
            debug_assert!(written.is_ok());
            line.push_str(", ");
            source.reason.explain(&mut line);
            take(&line);
        }
    }

    fn sources(&self) -> Vec<Source<'a>> {
        let mut places: Vec<usize> = (0..self.entries.len()).collect();
        places.sort_by_key(|place| self.entries[*place].who);
        let mut sources: Vec<Source<'a>> = Vec::new();
        for run in places.chunk_by(|one, next| self.entries[*one].who == self.entries[*next].who) {
            let begin = sources.len();
            for place in run {
                let entry = &self.entries[*place];
                match sources[begin..].iter_mut().find(|source| source.reason == entry.reason) {
                    Some(source) => source.spans.push(entry.span),
                    None => sources.push(Source {
                        place: *place,
                        whom: entry.whom,
                        reason: entry.reason,
                        spans: vec![entry.span],
                    }),
                }
            }
        }
        for source in &mut sources {
            source.spans.sort_unstable();
            source.spans.dedup();
        }
        sources.sort_unstable_by_key(|source| source.place);
        sources
    }
}

/// One line of evidence.
struct Source<'a> {
    /// The first of the rule's entries that it is about.
    place: usize,
    whom: Whom<'a>,
    reason: Reason<'a>,
    spans: Vec<Span>,
}

pub(super) fn selector(labels: Labels) -> LabelSelector {
    LabelSelector {
        match_expressions: None,
        match_labels: (!labels.is_empty()).then_some(labels),
    }
}
