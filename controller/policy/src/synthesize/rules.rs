//! Peers and ports to rules: merged, sorted, and each with what it comes from.
//!
//! Law: the rules mean exactly the pairs of peer and ports that were put in, each pair in one rule. Of the two ways to merge
//! (each peer once with all its ports, or each port once with all its peers) the one that takes fewer lines is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

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

impl Entry<'_> {
    /// What orders entries, as far as it fits into a number: entries with the same one are compared in full.
    fn key(&self) -> u64 {
        let Span { first, last, .. } = self.span;
        let span = match self.peer {
            Peer::Pods(_) => u64::from(first) << 16 | u64::from(last),
            // Other ranges may have the same half.
            Peer::Block(_) => 0,
        };
        u64::from(self.peer.coarse()) << 32 | span
    }
}

/// Items ordered by numbers, those with the same number as they stood. Sorting the numbers moves a fraction of what sorting the
/// items would.
#[expect(clippy::cast_possible_truncation, reason = "the lower half is the place")]
pub(super) fn in_order<T: Copy>(items: &[T], key: impl Fn(&T) -> u64) -> Vec<T> {
    let mut order: Vec<u128> = (0..)
        .zip(items)
        .map(|(place, item)| u128::from(key(item)) << 64 | place)
        .collect();
    order.sort_unstable();
    order.into_iter().map(|place| items[place as u64 as usize]).collect()
}

/// The rules that mean these entries.
pub(super) fn merge<'a>(entries: &[Entry<'a>]) -> Vec<Rule<'a>> {
    let mut entries = in_order(entries, Entry::key);
    for same in entries.chunk_by_mut(|one, next| one.key() == next.key()) {
        if same.len() > 1 {
            same.sort_unstable();
        }
    }
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

/// A peer's entries, and its spans among those of all peers.
#[derive(Clone, Copy)]
struct Run<'a, 'b> {
    spans: (usize, usize),
    entries: &'b [Entry<'a>],
    /// The first span, and whether there are more: what orders runs, but those of which both have more.
    key: u64,
}

/// Each peer once: peers with the same ports share a rule.
fn by_peer<'a>(entries: &[Entry<'a>]) -> Vec<Rule<'a>> {
    let mut spans: Vec<Span> = Vec::with_capacity(entries.len());
    let mut runs = Vec::with_capacity(entries.len());
    for run in entries.chunk_by(|one, next| one.peer == next.peer) {
        let begin = spans.len();
        for entry in run {
            if spans[begin..].last() != Some(&entry.span) {
                spans.push(entry.span);
            }
        }
        runs.push(Run {
            spans: (begin, spans.len()),
            entries: run,
            key: spans[begin].key() << 1 | u64::from(spans.len() - begin > 1),
        });
    }
    let of = |run: &Run<'_, '_>| &spans[run.spans.0..run.spans.1];
    // The peers of a rule stay in order.
    let mut runs = in_order(&runs, |run| run.key);
    for same in runs.chunk_by_mut(|one, next| one.key == next.key) {
        if same.first().is_some_and(|run| of(run).len() > 1) {
            same.sort_by(|one, next| of(one).cmp(of(next)));
        }
    }
    let rule = |runs: &[Run<'a, '_>]| {
        let mut rule = Rule {
            spans: runs.first().map(|run| of(run).to_vec()).unwrap_or_default(),
            peers: Vec::with_capacity(runs.len()),
            entries: Vec::with_capacity(runs.iter().map(|run| run.entries.len()).sum()),
        };
        for run in runs {
            rule.peers.extend(run.entries.first().map(|entry| entry.peer));
            rule.entries.extend_from_slice(run.entries);
        }
        rule
    };
    runs.chunk_by(|one, next| one.key == next.key && of(one) == of(next))
        .map(rule)
        .collect()
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
                    pod_selector: Some(selector(named.selection.to_labels())),
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
        evidence: &mut Evidence,
    ) {
        let prefix = match direction {
            Direction::Ingress => format!("{direction} {}: ", index + 1),
            Direction::Egress => format!("{direction} {}: -> ", index + 1),
        };
        let ports = |spans: &[Span], line: &mut String| {
            line.push_str(match direction {
                Direction::Ingress => " -> ",
                Direction::Egress => " ",
            });
            for (place, span) in spans.iter().enumerate() {
                line.push_str(if place == 0 { "" } else { ", " });
                span.write(line);
            }
            line.push_str(", ");
        };
        let who = |entry: &Entry<'a>, line: &mut String| {
            line.push_str(&prefix);
            words.endpoint(entry.who, line, |line| entry.whom.name(line));
            if let (Direction::Egress, Whom::Endpoint(peer @ Endpoint::External(_))) = (direction, entry.whom) {
                let names = names(peer);
                for (place, name) in names.iter().enumerate() {
                    line.push_str(if place == 0 { " (" } else { ", " });
                    line.push_str(name.as_str());
                }
                if !names.is_empty() {
                    line.push(')');
                }
            }
        };
        let mut order: Vec<(u32, u32)> = (0..)
            .zip(&self.entries)
            .map(|(place, entry)| (entry.who, place))
            .collect();
        order.sort_unstable();
        if order.windows(2).all(|pair| pair[0].0 != pair[1].0) {
            // Most lines of a rule say the same of ports.
            let mut said = (None, String::new());
            for entry in &self.entries {
                if said.0 != Some(entry.span) {
                    said.0 = Some(entry.span);
                    said.1.clear();
                    ports(&[entry.span], &mut said.1);
                }
                evidence.line(|line| {
                    who(entry, line);
                    line.push_str(&said.1);
                    entry.reason.explain(line, words);
                });
            }
            return;
        }
        for source in self.sources(&order) {
            let entry = &self.entries[source.place];
            evidence.line(|line| {
                who(entry, line);
                ports(&source.spans, line);
                entry.reason.explain(line, words);
            });
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

/// Bytes of evidence that an object carries at most. All annotations of an object together may have 256 KiB.
const EVIDENCE: usize = 128 * 1024;

/// Lines of evidence, as many as an object carries, and how many there are beyond.
pub(super) struct Evidence {
    text: String,
    omitted: usize,
}

impl Evidence {
    pub(super) const fn within(room: String) -> Self {
        Self { text: room, omitted: 0 }
    }

    /// Appends what `write` does. After a line that has no place no other has one.
    fn line(&mut self, write: impl FnOnce(&mut String)) {
        if self.omitted > 0 {
            self.omitted += 1;
            return;
        }
        let begin = self.text.len();
        write(&mut self.text);
        if self.text.len() >= EVIDENCE {
            self.text.truncate(begin);
            self.omitted = 1;
        } else {
            self.text.push('\n');
        }
    }

    /// The lines; `None` when there is none.
    pub(super) fn text(&mut self) -> Option<&str> {
        if self.omitted > 0 {
            let rest = format!("and {} more\n", self.omitted);
            self.text.push_str(&rest);
        }
        (!self.text.is_empty()).then_some(&self.text)
    }

    /// The room, for other lines.
    pub(super) fn into_room(mut self) -> String {
        self.text.clear();
        self.text
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
