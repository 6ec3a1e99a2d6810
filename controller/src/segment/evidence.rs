//! When and how often an edge of a baseline was seen.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nanoseg_graph::connection::{EdgeKey, EvidenceRef};
use nanoseg_graph::flow::{Outcome, Reporter};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::baseline::{Baseline, to_edge};
use super::{BaselineEdge, Known, SegmentError, from_edges, seconds};

/// For how long a status may be behind with when and how often its edges were last seen, while nothing else of it changes: so a
/// cluster in its steady state writes a Segment once a day, for the edges that are in use.
const BEHIND: SignedDuration = SignedDuration::from_hours(24);

/// When and how often an edge was seen, and what became of it at best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sightings {
    /// First packet; `None` when nobody saw it.
    pub first_seen: Option<Timestamp>,
    /// Last packet.
    pub last_seen: Option<Timestamp>,
    /// Connections tried, at least: learners that have restarted count anew.
    pub count: u64,
    /// The best that became of one.
    pub outcome: Option<Outcome>,
}

impl Sightings {
    /// What a graph says.
    pub fn of(evidence: EvidenceRef<'_>) -> Self {
        let both = [Reporter::Source, Reporter::Destination].map(|reporter| evidence.tally(reporter));
        let told = || both.iter().flatten();
        Self {
            first_seen: told().map(|tally| tally.first_seen).min(),
            last_seen: told().map(|tally| tally.last_seen).max(),
            // Both ends count the same connections. One that was open before it was watched was not seen to be opened, and counts none.
            count: told().map(|tally| tally.attempted).max().unwrap_or_default(),
            outcome: told().next().map(|_| evidence.outcome()),
        }
    }

    /// Takes in what another observation of the same edge knows.
    pub fn extend(&mut self, other: Self) {
        let Self {
            first_seen,
            last_seen,
            count,
            outcome,
        } = other;
        self.first_seen = self.first_seen.into_iter().chain(first_seen).min();
        self.last_seen = self.last_seen.max(last_seen);
        self.count = self.count.max(count);
        self.outcome = self.outcome.max(outcome);
    }
}

/// What became of an edge's connections, at best. Attempted: no answer was seen yet. Unanswered: nobody answered within ten seconds.
/// Refused: the other end refused. Established: answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Became {
    /// No answer was seen yet.
    Attempted,
    /// Nobody answered within ten seconds.
    Unanswered,
    /// The other end refused.
    Refused,
    /// Answered.
    Established,
}

impl From<Outcome> for Became {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Attempted => Self::Attempted,
            Outcome::Unanswered => Self::Unanswered,
            Outcome::Refused => Self::Refused,
            Outcome::Established => Self::Established,
        }
    }
}

impl From<Became> for Outcome {
    fn from(became: Became) -> Self {
        match became {
            Became::Attempted => Self::Attempted,
            Became::Unanswered => Self::Unanswered,
            Became::Refused => Self::Refused,
            Became::Established => Self::Established,
        }
    }
}

/// An edge of a baseline, and its evidence. Times and count are up to a day behind: a status is not written for them sooner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LearnedEdge {
    /// The edge.
    #[serde(flatten)]
    pub edge: BaselineEdge,
    /// When it was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Time>,
    /// When it was last seen, up to a day behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
    /// How many connections were tried, at least; up to a day behind.
    #[serde(default)]
    #[schemars(with = "i64", range(min = 0))]
    pub count: u64,
    /// What became of them, at best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Became>,
    /// While the NetworkPolicy is live: when the connection was answered. The NetworkPolicy is not taken back for what stops answering
    /// after it was answered with it live, whoever restarts in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Answered>,
}

/// When a connection was answered. Learning: before the NetworkPolicy that is live was. Enforced: more than a minute after it went live,
/// so that it is not what the connection fails by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Answered {
    /// Before the `NetworkPolicy` that is live was.
    Learning,
    /// More than a minute after it went live.
    Enforced,
}

impl LearnedEdge {
    fn new(key: &EdgeKey, known: &Known) -> Self {
        let Sightings {
            first_seen,
            last_seen,
            count,
            outcome,
        } = known.sightings;
        Self {
            edge: to_edge(key, known),
            first_seen: first_seen.map(seconds),
            last_seen: last_seen.map(seconds),
            count,
            outcome: outcome.map(Became::from),
            answered: None,
        }
    }

    /// The same edge as it was written, unless that is too far behind.
    fn or_as_written(self, written: &Self) -> Self {
        let is_near = match (&self.last_seen, &written.last_seen) {
            (Some(Time(now)), Some(Time(then))) => now.duration_since(*then) < BEHIND,
            (now, then) => now.is_none() || then.is_some(),
        };
        if is_near && self.edge == written.edge {
            written.clone()
        } else {
            self
        }
    }
}

/// A baseline as the status lists it.
pub fn to_learned(baseline: &Baseline) -> Vec<LearnedEdge> {
    baseline
        .iter()
        .map(|(key, known)| LearnedEdge::new(key, known))
        .collect()
}

/// A baseline as a status lists it that is written only if there is more to say than an earlier one has `written`.
pub fn to_learned_since(baseline: &Baseline, written: &[LearnedEdge]) -> Vec<LearnedEdge> {
    if written.len() != baseline.len() {
        return to_learned(baseline);
    }
    let edges = baseline.iter().zip(written);
    edges
        .map(|((key, known), written)| LearnedEdge::new(key, known).or_as_written(written))
        .collect()
}

/// A baseline from what a status lists.
pub fn from_learned(edges: &[LearnedEdge]) -> Result<Baseline, SegmentError> {
    let mut baseline = BTreeMap::new();
    for LearnedEdge {
        edge,
        first_seen,
        last_seen,
        count,
        outcome,
        answered: _,
    } in edges
    {
        let sightings = Sightings {
            first_seen: first_seen.as_ref().map(|at| at.0),
            last_seen: last_seen.as_ref().map(|at| at.0),
            count: *count,
            outcome: outcome.map(Outcome::from),
        };
        let edges = from_edges(std::slice::from_ref(edge))?;
        baseline.extend(
            edges
                .into_iter()
                .map(|(key, known)| (key, Known { sightings, ..known })),
        );
    }
    Ok(baseline.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Few;

    const WRITTEN: &str = "[
        {source: shop/Deployment/web, destination: shop/StatefulSet/db, port: 5432, protocol: TCP, via: [shop/db], seenAt: [Source],
         firstSeen: 2026-01-01T00:00:00Z, lastSeen: 2026-01-02T00:00:00Z, count: 3, outcome: Established},
        {source: shop/Deployment/web, destination: external 203.0.113.9, port: 443, protocol: TCP, count: 0}
    ]";

    #[test]
    fn evidence_reads_back_as_it_was_written() {
        let written: Vec<LearnedEdge> = serde_yaml::from_str(WRITTEN).unwrap();
        assert_eq!(to_learned(&from_learned(&written).unwrap()), written);
    }

    #[test]
    fn what_was_written_stands_for_a_day_or_until_the_edge_is_another() {
        let written: Vec<LearnedEdge> = serde_yaml::from_str(WRITTEN).unwrap();
        let seen = |at: &str, via: bool| {
            let mut baseline = from_learned(&written).unwrap();
            let (_, known) = baseline.iter_mut().find(|(key, _)| key.port == 5432).unwrap();
            known.sightings.extend(Sightings {
                first_seen: Some("2026-01-01T12:00:00Z".parse().unwrap()),
                last_seen: Some(at.parse().unwrap()),
                count: 1000,
                outcome: Some(Outcome::Attempted),
            });
            if !via {
                known.via = Few::default();
            }
            to_learned_since(&baseline, &written)
        };
        assert_eq!(seen("2026-01-02T23:59:59Z", true), written);
        assert_ne!(seen("2026-01-02T01:00:00Z", false), written);
        let told = seen("2026-01-03T00:00:00Z", true);
        let edge = told.iter().find(|learned| learned.edge.port == 5432).unwrap();
        assert_eq!((edge.count, edge.outcome), (1000, Some(Became::Established)));
        assert_eq!(
            edge.first_seen.clone().unwrap().0,
            "2026-01-01T00:00:00Z".parse().unwrap()
        );
        assert_eq!(
            edge.last_seen.clone().unwrap().0,
            "2026-01-03T00:00:00Z".parse().unwrap()
        );
        // An edge more, and all are told as they are.
        assert_eq!(
            to_learned_since(&from_learned(&written[..1]).unwrap(), &written).len(),
            1
        );
    }
}
