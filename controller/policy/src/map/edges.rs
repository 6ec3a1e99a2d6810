//! Connections, what was seen of them and what policies make of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use nanoseg_graph::connection::{Edge as Known, EdgeKey, EvidenceRef};
use nanoseg_graph::endpoint::{Endpoint, ServiceName, Workload};
use nanoseg_graph::flow::Reporter;
use nanoseg_graph::recorded::UNTIMED;

use super::document::{
    Answer, Edge, Judgement, Link, Moment, Observed, Party, Period, Policy, Report, Rule, Side, State,
};
use super::{Input, Segment, id};
use crate::audit::Weighed;
use crate::direction::Direction;
use crate::ends::{Ends, NoEnds};
use crate::evaluate::{AllowedBy, Cause, Denial, Evaluator, PolicyRef, RuleNumber, Undecidable, Verdict};

/// An evaluator and the ends that it knows.
type Judge<'e, 'a> = (&'e Evaluator<'a>, &'e Ends<'e, 'a>);

/// Those who are asked about each edge.
pub(super) struct Judges<'e, 'a> {
    live: Judge<'e, 'a>,
    proposed: Option<Judge<'e, 'a>>,
    /// How many edges each rule of the last set means.
    used: BTreeMap<RuleNumber, usize>,
}

impl<'e, 'a> Judges<'e, 'a> {
    pub(super) const fn new(live: Judge<'e, 'a>, proposed: Option<Judge<'e, 'a>>) -> Self {
        Self {
            live,
            proposed,
            used: BTreeMap::new(),
        }
    }

    fn judge(&mut self, edge: Known<'_>) -> (Judgement, Option<Judgement>) {
        let mut rules = BTreeSet::new();
        let answers = match self.proposed {
            None => (judge(self.live, edge, Some(&mut rules)), None),
            Some(proposed) => (
                judge(self.live, edge, None),
                Some(judge(proposed, edge, Some(&mut rules))),
            ),
        };
        for rule in rules {
            *self.used.entry(rule).or_default() += 1;
        }
        answers
    }

    /// Every policy, with what its rules were used for by the edges that were judged.
    pub(super) fn policies(&self) -> Vec<Policy> {
        let live: BTreeSet<&PolicyRef> = self.live.0.policies().map(|(_, name, _)| name).collect();
        let (all, _) = self.proposed.unwrap_or(self.live);
        let mut policies: Vec<Policy> = all
            .policies()
            .map(|(number, name, counts)| {
                let used = |direction, count: usize| {
                    let rules = (0..).take(count);
                    let edges = rules.map(|index| self.used.get(&(number, direction, index)));
                    edges.map(|edges| edges.copied().unwrap_or_default()).collect()
                };
                let [ingress, egress] = counts;
                let (kind, namespace, policy) = match name {
                    PolicyRef::Namespaced(name) => ("NetworkPolicy", Some(name.namespace.clone()), name.name.clone()),
                    PolicyRef::Cluster(name) => (name.kind.as_str(), None, name.name.to_string()),
                };
                Policy {
                    id: id::of_policy(name),
                    kind: kind.to_owned(),
                    namespace,
                    name: policy,
                    proposed: !live.contains(name),
                    ingress: used(Direction::Ingress, ingress),
                    egress: used(Direction::Egress, egress),
                }
            })
            .collect();
        policies.sort_by(|one, other| one.id.cmp(&other.id));
        policies
    }
}

fn judge((evaluator, ends): Judge<'_, '_>, edge: Known<'_>, mut rules: Option<&mut BTreeSet<RuleNumber>>) -> Judgement {
    let mut weighed = Weighed::default();
    let asked = ends.pairs(edge, |pair| {
        weighed.take(evaluator, edge, pair);
        if let Some(rules) = &mut rules {
            evaluator.rules_for(&pair.source, &pair.destination, edge.port, edge.transport, rules);
        }
    });
    let Weighed {
        denied,
        possible,
        first_denied,
        first_unknown,
        first_allowed,
    } = weighed;
    let speaks = first_denied.or(first_unknown).or(first_allowed);
    let nobody = |why: &NoEnds| Side {
        answer: Answer::Unknown,
        rules: Vec::new(),
        policies: Vec::new(),
        reason: Some(why.to_string()),
    };
    let (egress, ingress) = match (asked, speaks) {
        (Err(why), _) => (nobody(&why), nobody(&why)),
        (Ok(()), None) => {
            let why = NoEnds::Undecidable(Undecidable::NoCommonFamily);
            (nobody(&why), nobody(&why))
        }
        (Ok(()), Some((pair, decision))) => {
            let answer = evaluator.explain(&pair.source, &pair.destination, decision);
            (side(&answer.egress), side(&answer.ingress))
        }
    };
    Judgement {
        answer: match (egress.answer, ingress.answer) {
            (Answer::Denied, _) | (_, Answer::Denied) => Answer::Denied,
            (Answer::Unknown, _) | (_, Answer::Unknown) => Answer::Unknown,
            (Answer::Allowed, _) | (_, Answer::Allowed) => Answer::Allowed,
            (Answer::NotIsolated, Answer::NotIsolated) => Answer::NotIsolated,
        },
        pairs: possible,
        denied_pairs: denied,
        egress,
        ingress,
    }
}

fn side(verdict: &Verdict) -> Side {
    let mut side = Side {
        answer: Answer::NotIsolated,
        rules: Vec::new(),
        policies: Vec::new(),
        reason: None,
    };
    match verdict {
        Verdict::NotIsolated => {}
        Verdict::Allowed(by) => {
            side.answer = Answer::Allowed;
            for by in by {
                match by {
                    AllowedBy::Rule(rule) => side.rules.push(Rule {
                        policy: id::of_policy(&rule.policy),
                        index: rule.index,
                    }),
                    AllowedBy::SamePod | AllowedBy::OwnNode => side.reason = Some(by.to_string()),
                }
            }
        }
        Verdict::Denied(why) => {
            side.answer = Answer::Denied;
            let words: Vec<String> = why.iter().map(ToString::to_string).collect();
            side.reason = Some(words.join("; "));
            for Denial { cause, .. } in why {
                match cause {
                    Cause::NoRule(policies) => side.policies.extend(policies.iter().map(id::of_policy)),
                    Cause::Rule(rule) => side.rules.push(Rule {
                        policy: id::of_policy(&rule.policy),
                        index: rule.index,
                    }),
                }
            }
        }
        Verdict::Unknown(why) => {
            side.answer = Answer::Unknown;
            side.reason = Some(why.to_string());
        }
    }
    side
}

/// Every edge that was seen or that a Segment knows, by id, and every end of them.
pub(super) fn all(input: &Input<'_>, judges: &mut Judges<'_, '_>) -> (Vec<Edge>, BTreeSet<Endpoint>) {
    let mut marks: BTreeMap<&EdgeKey, Marks<'_>> = BTreeMap::new();
    let mut frozen: BTreeMap<&Workload, &Segment> = BTreeMap::new();
    for segment in input.segments {
        if segment.is_frozen {
            frozen.insert(&segment.workload, segment);
        }
        for (key, at) in &segment.last_seen {
            // Both ends may have a time: the later one.
            let last_seen = &mut marks.entry(key).or_default().last_seen;
            *last_seen = Some(last_seen.map_or(*at, |known| known.max(*at)));
        }
        for key in &segment.baseline {
            marks.entry(key).or_default().baseline = true;
        }
        // What already waits for a person is nothing new to its Segment.
        for key in segment
            .novel
            .iter()
            .filter(|key| !segment.quarantined.contains_key(*key))
        {
            marks.entry(key).or_default().novel = true;
        }
        for (key, why) in &segment.quarantined {
            let suspicion = &mut marks.entry(key).or_default().suspicion;
            // Both ends may have a reason: the first in order, whichever Segment came first.
            *suspicion = Some(suspicion.map_or(why.as_str(), |known| known.min(why)));
        }
    }
    let mut edges = Vec::with_capacity(input.graph.len());
    let mut ends = BTreeSet::new();
    let mut take = |known: Known<'_>, evidence: Option<EvidenceRef<'_>>, marks: Marks<'_>| {
        for end in [known.source, known.destination] {
            if !ends.contains(end) {
                ends.insert(end.clone());
            }
        }
        edges.push(edge(input, judges, known, evidence, marks));
    };
    let is_outside = |key: &EdgeKey| {
        let ends = [&key.source, &key.destination];
        // Who is unknown may turn out to be somebody of the baseline.
        let is_known = ends.iter().all(|end| !matches!(end, Endpoint::Unknown { .. }));
        let knows = |segment: &&Segment| segment.baseline.contains(key) || segment.quarantined.contains_key(key);
        let segments = ends.into_iter().filter_map(|end| frozen.get(end.workload()?));
        is_known && segments.into_iter().any(|segment| !knows(segment))
    };
    for (known, evidence) in input.graph.edges() {
        if marks.is_empty() && frozen.is_empty() {
            take(known, Some(evidence), Marks::default());
            continue;
        }
        let key = known.key();
        let mut marks = marks.remove(&key).unwrap_or_default();
        marks.novel |= is_outside(&key);
        take(known, Some(evidence), marks);
    }
    for (key, marks) in marks {
        take(key.as_edge(), None, marks);
    }
    edges.sort_by(|one, other| one.id.cmp(&other.id));
    (edges, ends)
}

/// What Segments say of an edge.
#[derive(Clone, Copy, Debug, Default)]
struct Marks<'a> {
    baseline: bool,
    novel: bool,
    last_seen: Option<Timestamp>,
    suspicion: Option<&'a str>,
}

fn edge(
    input: &Input<'_>,
    judges: &mut Judges<'_, '_>,
    known: Known<'_>,
    evidence: Option<EvidenceRef<'_>>,
    marks: Marks<'_>,
) -> Edge {
    let (live, proposed) = judges.judge(known);
    let observed = evidence.and_then(|evidence| observed(input, known, evidence));
    let states = states(input, observed.as_ref(), &live, proposed.as_ref(), marks);
    let source = id::of_endpoint(known.source);
    let destination = id::of_endpoint(known.destination);
    Edge {
        id: format!("{source}>{destination}:{}:{}", known.transport, known.port),
        source,
        destination,
        port: known.port,
        protocol: known.transport,
        state: states.first().copied().unwrap_or(State::Observed),
        states,
        observed,
        live,
        proposed,
        suspicion: marks.suspicion.map(str::to_owned),
    }
}

fn states(
    input: &Input<'_>,
    observed: Option<&Observed>,
    live: &Judgement,
    proposed: Option<&Judgement>,
    marks: Marks<'_>,
) -> BTreeSet<State> {
    let seen = observed.map(|observed| observed.last_seen.map(|moment| moment.0));
    // What was seen without a time is there now.
    let is_untimed = seen == Some(None);
    let last_seen = seen.flatten().max(marks.last_seen);
    let is_stale = !is_untimed
        && input
            .stale_before
            .is_some_and(|before| last_seen.is_none_or(|at| at < before));
    let would = proposed.map(|judgement| judgement.answer);
    let holds = |state: &State| match state {
        State::Quarantined => marks.suspicion.is_some(),
        State::Novel => marks.novel,
        State::Denied => live.answer == Answer::Denied,
        State::WouldBeDenied => live.answer != Answer::Denied && would == Some(Answer::Denied),
        State::Undecided => would.unwrap_or(live.answer) == Answer::Unknown,
        State::Stale => marks.baseline && is_stale,
        State::Enforced => live.answer == Answer::Allowed,
        State::Covered => live.answer == Answer::NotIsolated && would == Some(Answer::Allowed),
        State::Observed => live.answer == Answer::NotIsolated && observed.is_some(),
    };
    let states: BTreeSet<State> = State::ALL.into_iter().filter(holds).collect();
    if states.is_empty() {
        [State::Observed].into()
    } else {
        states
    }
}

fn observed(input: &Input<'_>, edge: Known<'_>, evidence: EvidenceRef<'_>) -> Option<Observed> {
    let mut reports: BTreeMap<Reporter, Report> = BTreeMap::new();
    let mut first_seen = None;
    let mut last_seen = None;
    for reporter in [Reporter::Source, Reporter::Destination] {
        let Some(tally) = evidence.tally(reporter) else {
            continue;
        };
        let [first, last] = [tally.first_seen, tally.last_seen].map(|time| (time != UNTIMED).then_some(Moment(time)));
        first_seen = first_seen.into_iter().chain(first).min();
        last_seen = last_seen.max(last);
        let report = Report {
            reporter,
            attempted: tally.attempted,
            established: tally.established,
            refused: tally.refused,
            nodes: BTreeSet::new(),
        };
        reports.insert(reporter, report);
    }
    for (reporter, origin, _) in evidence.tallies() {
        // Who gives flows may not say where they were seen.
        if let Some(report) = reports.get_mut(&reporter)
            && !origin.node.is_empty()
        {
            report.nodes.insert(origin.node.clone());
        }
    }
    if reports.is_empty() {
        return None;
    }
    let via = evidence.via.iter();
    let names = input.graph.names(edge.source, edge.destination);
    let processes = |end| {
        input
            .graph
            .processes(edge, end)
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    Some(Observed {
        outcome: evidence.outcome(),
        first_seen,
        last_seen,
        reports: reports.into_values().collect(),
        via: via
            .map(|ServiceName { namespace, name }| format!("{namespace}/{name}"))
            .collect(),
        names: names.iter().map(ToString::to_string).collect(),
        source_processes: processes(Reporter::Source),
        destination_processes: processes(Reporter::Destination),
    })
}

/// From the first connection to the last, of those that have times.
pub(super) fn period(edges: &[Edge]) -> Option<Period> {
    let seen = || edges.iter().filter_map(|edge| edge.observed.as_ref());
    Some(Period {
        first_seen: seen().filter_map(|observed| observed.first_seen).min()?,
        last_seen: seen().filter_map(|observed| observed.last_seen).max()?,
    })
}

/// The same by group.
pub(super) fn links(edges: &[Edge], parties: &[Party]) -> Vec<Link> {
    let groups: BTreeMap<&str, &str> = parties
        .iter()
        .map(|party| (party.id.as_str(), party.group.as_str()))
        .collect();
    let mut links: BTreeMap<(&str, &str), Link> = BTreeMap::new();
    for edge in edges {
        let group = |party: &str| groups.get(party).copied().unwrap_or_default();
        let (source, destination) = (group(&edge.source), group(&edge.destination));
        let link = links.entry((source, destination)).or_insert_with(|| Link {
            source: source.to_owned(),
            destination: destination.to_owned(),
            edges: 0,
            state: edge.state,
            states: BTreeMap::new(),
        });
        link.edges += 1;
        link.state = link.state.min(edge.state);
        *link.states.entry(edge.state).or_default() += 1;
    }
    links.into_values().collect()
}
