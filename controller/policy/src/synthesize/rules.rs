//! Peers and ports to rules: merged, sorted, and each with what it comes from.
//!
//! Law: the rules mean exactly the pairs of peer and ports that were put in, each pair in one rule. Of the two ways to merge
//! (each peer once with all its ports, or each port once with all its peers) the one that takes fewer lines is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nanoseg_graph::cluster::Labels;
use nanoseg_graph::connection::EvidenceRef;
use nanoseg_graph::endpoint::{Endpoint, ServiceName};
use nanoseg_graph::flow::Reporter;
use nanoseg_graph::name::DnsName;

use super::peers::Peer;
use super::settings::{ExternalGroup, Ranges, Span};
use super::words::Words;
use crate::direction::Direction;

/// Why a peer is allowed at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason<'a> {
    /// It was observed, by these ends, through these Services, which the graph has under this number.
    Observed {
        source: bool,
        destination: bool,
        via: &'a BTreeSet<ServiceName>,
        number: u32,
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
            number: evidence.via_number(),
        }
    }

    fn explain(self, line: &mut String, words: &Words) {
        match self {
            Self::Observed {
                source,
                destination,
                via,
                number,
            } => {
                line.push_str(match (source, destination) {
                    (true, true) => "seen at both ends",
                    (true, false) => "seen at the source",
                    (false, true) => "seen at the destination",
                    (false, false) => "observed",
                });
                words.services(number, line, |line| {
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
                });
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
    fn name(self, line: &mut String) {
        let written = match self {
            Self::Endpoint(endpoint) => write!(line, "{endpoint}"),
            Self::Group(group) => write!(line, "external group {}", group.name()),
        };
        // Writing to a string cannot fail.
        debug_assert!(written.is_ok());
    }
}

/// A peer that is allowed at a port, and where that comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry<'a> {
    pub(super) peer: Peer<'a>,
    pub(super) span: Span,
    pub(super) whom: Whom<'a>,
    pub(super) reason: Reason<'a>,
    /// The graph's number of an endpoint, or one that no endpoint has. It orders nothing that can be seen.
    pub(super) who: u32,
}

/// Ports, the peers that have them, and what that comes from.
#[derive(Debug, Default)]
pub(super) struct Rule<'a> {
    spans: Vec<Span>,
    peers: Vec<Peer<'a>>,
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
    let mut spans: Vec<Span> = Vec::with_capacity(entries.len());
    let mut runs = Vec::new();
    for run in entries.chunk_by(|one, next| one.peer == next.peer) {
        let begin = spans.len();
        for entry in run {
            if spans[begin..].last() != Some(&entry.span) {
                spans.push(entry.span);
            }
        }
        runs.push((begin..spans.len(), run));
    }
    // Stable, so that the peers of a rule stay in order.
    runs.sort_by(|(one, _), (next, _)| spans[one.clone()].cmp(&spans[next.clone()]));
    let same = |(one, _): &(Range<usize>, _), (next, _): &(Range<usize>, _)| spans[one.clone()] == spans[next.clone()];
    let rule = |runs: &[(Range<usize>, &[Entry<'a>])]| Rule {
        spans: runs
            .first()
            .map(|(range, _)| spans[range.clone()].to_vec())
            .unwrap_or_default(),
        peers: runs.iter().filter_map(|(_, run)| Some(run.first()?.peer)).collect(),
        entries: runs.iter().flat_map(|(_, run)| run.iter().copied()).collect(),
    };
    runs.chunk_by(same).map(rule).collect()
}

/// Each port once: ports with the same peers share a rule.
fn by_span(mut entries: Vec<Entry<'_>>) -> Vec<Rule<'_>> {
    entries.sort_unstable_by(|one, next| one.span.cmp(&next.span).then_with(|| one.cmp(next)));
    let mut rules: BTreeMap<Vec<Peer<'_>>, Rule<'_>> = BTreeMap::new();
    for run in entries.chunk_by(|one, next| one.span == next.span) {
        let mut peers: Vec<Peer<'_>> = run.iter().map(|entry| entry.peer).collect();
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

    fn ports(&self, ranges: Ranges) -> Vec<NetworkPolicyPort> {
        let port = |span: &Span, first: u16, last: Option<u16>| NetworkPolicyPort {
            end_port: last.map(i32::from),
            port: Some(IntOrString::Int(i32::from(first))),
            protocol: Some(span.transport.as_str().to_owned()),
        };
        let mut ports = Vec::with_capacity(self.spans.len());
        for span in &self.spans {
            match ranges {
                Ranges::Listed => ports.extend((span.first..=span.last).map(|number| port(span, number, None))),
                Ranges::Grouped => ports.push(port(span, span.first, span.is_range().then_some(span.last))),
            }
        }
        if ranges == Ranges::Listed {
            // A port may stand beside a range that it lies in.
            let mut known = BTreeSet::new();
            ports.retain(|port| {
                known.insert((port.protocol.clone(), port.port.clone().map(|port| format!("{port:?}"))))
            });
        }
        ports
    }

    fn peers(&self) -> Vec<NetworkPolicyPeer> {
        self.peers
            .iter()
            .map(|peer| match peer {
                Peer::Pods(named) => NetworkPolicyPeer {
                    ip_block: None,
                    namespace_selector: Some((*named.selection.within).clone()),
                    pod_selector: Some(selector((*named.selection.labels).clone())),
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

    pub(super) fn ingress(&self, ranges: Ranges) -> NetworkPolicyIngressRule {
        NetworkPolicyIngressRule {
            from: Some(self.peers()),
            ports: Some(self.ports(ranges)),
        }
    }

    pub(super) fn egress(&self, ranges: Ranges) -> NetworkPolicyEgressRule {
        NetworkPolicyEgressRule {
            to: Some(self.peers()),
            ports: Some(self.ports(ranges)),
        }
    }

    /// One line for each endpoint and reason, in the order of the peers:
    /// `ingress 1: Deployment shop/web -> TCP 8080, seen at both ends, through Service shop/api`.
    /// `names` are those by which the subject asked for an external address.
    pub(super) fn evidence<'n>(
        &self,
        direction: Direction,
        index: usize,
        words: &Words,
        names: impl Fn(&Endpoint) -> &'n BTreeSet<DnsName>,
        mut take: impl FnMut(&str),
    ) {
        let prefix = match direction {
            Direction::Ingress => format!("{direction} {}: ", index + 1),
            Direction::Egress => format!("{direction} {}: -> ", index + 1),
        };
        let mut line = String::new();
        let mut tell = |entry: &Entry<'a>, spans: &[Span]| {
            line.clear();
            line.push_str(&prefix);
            words.endpoint(entry.who, &mut line, |line| entry.whom.name(line));
            if let (Direction::Egress, Whom::Endpoint(peer @ Endpoint::External(_))) = (direction, entry.whom) {
                for (place, name) in names(peer).iter().enumerate() {
                    line.push_str(if place == 0 { " (" } else { ", " });
                    line.push_str(name.as_str());
                }
                if !names(peer).is_empty() {
                    line.push(')');
                }
            }
            line.push_str(match direction {
                Direction::Ingress => " -> ",
                Direction::Egress => " ",
            });
            for (place, span) in spans.iter().enumerate() {
                line.push_str(if place == 0 { "" } else { ", " });
                span.write(&mut line);
            }
            line.push_str(", ");
            entry.reason.explain(&mut line, words);
            take(&line);
        };
        let mut order: Vec<(u32, u32)> = (0..)
            .zip(&self.entries)
            .map(|(place, entry)| (entry.who, place))
            .collect();
        order.sort_unstable();
        if order.windows(2).all(|pair| pair[0].0 != pair[1].0) {
            for entry in &self.entries {
                tell(entry, &[entry.span]);
            }
            return;
        }
        for source in self.sources(&order) {
            tell(&self.entries[source.place], &source.spans);
        }
    }

    /// The lines, where several entries are one. `order`: who each entry speaks of and its place, in order.
    fn sources(&self, order: &[(u32, u32)]) -> Vec<Source> {
        let mut sources: Vec<Source> = Vec::new();
        for run in order.chunk_by(|one, next| one.0 == next.0) {
            let begin = sources.len();
            for (_, place) in run {
                let place = *place as usize;
                let entry = &self.entries[place];
                let known = sources[begin..].iter_mut();
                match known
                    .into_iter()
                    .find(|source| self.entries[source.place].reason == entry.reason)
                {
                    Some(source) => source.spans.push(entry.span),
                    None => sources.push(Source {
                        place,
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
struct Source {
    /// The first of the rule's entries that it is about.
    place: usize,
    spans: Vec<Span>,
}

pub(super) fn selector(labels: Labels) -> LabelSelector {
    LabelSelector {
        match_expressions: None,
        match_labels: (!labels.is_empty()).then_some(labels),
    }
}
