//! A policy on trial: whether the edges that it allows are still answered once it is live. Pure.
//!
//! Laws:
//! * an edge fails only if it was answered before, is tried again, and is not answered for [`PATIENCE`] since;
//! * an edge that was answered later than [`PROOF`] after the policy went live has passed, for good: what stops answering after that is
//!   not the policy's doing;
//! * nothing is counted before engines and learners have had their time, and nothing fails after [`TRIAL`];
//! * a trial goes on across restarts from what it has told ([`Trial::answered`]): what passed has passed, and what was answered before the
//!   policy fails although whoever counts began anew. What passed since it told last is open again, and that is never more than
//!   [`OPEN`].

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use nanoseg_graph::connection::EdgeKey;

use crate::segment::{Answered, Listed};

/// How long an answer may take, and a learner to tell of it: a lost SYN is sent again after one second, an increment takes another.
pub const PATIENCE: SignedDuration = SignedDuration::from_secs(3);

/// How long an engine may take to do what a policy says. What is answered until then proves nothing.
pub const SETTLING: SignedDuration = SignedDuration::from_secs(2);

/// How long the answers of slow engines prove nothing.
pub const PROOF: SignedDuration = SignedDuration::from_mins(1);

/// What recurs does so within a day.
pub const TRIAL: SignedDuration = SignedDuration::from_hours(24);

/// How long after a policy went live it is first written down what passed. Each further time waits until the policy was live twice as
/// long, or for [`OPEN`]: what nothing passed since is not written, and none of it after the trial.
pub const TOLD: SignedDuration = SignedDuration::from_mins(2);

/// How long what passed may be known to one run of the controller alone. Edges that recur seldom pass one by one: four writes in an
/// hour at most, and each for an edge that will not be written of again.
pub const OPEN: SignedDuration = SignedDuration::from_mins(15);

/// How often an edge was tried and answered, by all who count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were tried.
    pub attempted: u64,
    /// Connections that were answered.
    pub answered: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// A Segment tells that it was answered before the policy went live. Nobody has counted it since.
    Told,
    Watched {
        /// Compared with what it was when it was last answered.
        reference: Counts,
        /// Unanswered since then.
        failing: Option<Timestamp>,
        /// Answered at any time.
        was_answered: bool,
    },
    Passed,
}

impl Course {
    const fn watched(reference: Counts, was_answered: bool) -> Self {
        Self::Watched {
            reference,
            failing: None,
            was_answered: was_answered || reference.answered > 0,
        }
    }
}

/// A policy that went live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    hash: String,
    since: Timestamp,
    edges: Listed<Arc<EdgeKey>, Course>,
}

/// What came out so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// An edge that is not answered any more.
    pub failed: Option<EdgeKey>,
    /// When to look again although nothing happens until then.
    pub again: Option<Timestamp>,
}

impl Trial {
    /// Of the policy with this hash, live since then.
    pub const fn begin(hash: String, since: Timestamp) -> Self {
        Self {
            hash,
            since,
            edges: Listed::new(),
        }
    }

    /// Of a policy that another run of the controller has tried, from what it told of edges.
    pub fn resume(hash: String, since: Timestamp, told: impl IntoIterator<Item = (Arc<EdgeKey>, Answered)>) -> Self {
        let course = |answered| match answered {
            Answered::Learning => Course::Told,
            Answered::Enforced => Course::Passed,
        };
        let edges = told.into_iter().map(|(key, answered)| (key, course(answered)));
        Self {
            hash,
            since,
            edges: edges.collect(),
        }
    }

    /// When an edge was answered, as it is to be told.
    pub fn answered(&self, key: &EdgeKey) -> Option<Answered> {
        match self.edges.get(key)? {
            Course::Passed => Some(Answered::Enforced),
            Course::Told | Course::Watched { was_answered: true, .. } => Some(Answered::Learning),
            Course::Watched {
                was_answered: false, ..
            } => None,
        }
    }

    /// When to tell again what passed, having told last `before`.
    pub fn tells_at(&self, before: Option<Timestamp>) -> Timestamp {
        let later = |at: Timestamp, by: SignedDuration| at.checked_add(by).unwrap_or(Timestamp::MAX);
        let first = later(self.since, TOLD);
        let Some(before) = before else { return first };
        let live = before.duration_since(self.since);
        later(before, live.min(OPEN)).max(first)
    }

    /// The policy's hash.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Takes in what is known of the baseline's edges by `now`. Learners are all back at `ready`.
    pub fn watch(
        &mut self,
        edges: impl IntoIterator<Item = (Arc<EdgeKey>, Counts)>,
        ready: Timestamp,
        now: Timestamp,
    ) -> Finding {
        let later = |at: Timestamp, by: SignedDuration| at.checked_add(by).unwrap_or(Timestamp::MAX);
        let mut finding = Finding::default();
        if now > later(self.since, TRIAL) {
            return finding;
        }
        let counts_from = later(self.since, SETTLING).max(ready);
        let proven_from = later(self.since, PROOF).max(ready);
        if now < counts_from {
            finding.again = Some(counts_from);
        }
        let edges: Vec<(Arc<EdgeKey>, Counts)> = edges.into_iter().collect();
        if edges.iter().any(|(key, _)| !self.edges.contains_key(key)) {
            let known = std::mem::take(&mut self.edges);
            let begun = edges
                .iter()
                .map(|(key, counts)| (Arc::clone(key), Course::watched(*counts, false)));
            self.edges = begun.chain(known).collect();
        }
        for (key, counts) in edges {
            let Some(course) = self.edges.get_mut(&key) else {
                continue;
            };
            if *course == Course::Told {
                *course = Course::watched(counts, true);
            }
            let Course::Watched {
                reference,
                failing,
                was_answered,
            } = course
            else {
                continue;
            };
            if now < counts_from {
                *course = Course::watched(counts, *was_answered);
            } else if counts.answered > reference.answered {
                *course = if now >= proven_from {
                    Course::Passed
                } else {
                    Course::watched(counts, true)
                };
            } else if *was_answered && counts.attempted > reference.attempted {
                let decided = later(*failing.get_or_insert(now), PATIENCE);
                if decided <= now {
                    finding.failed.get_or_insert_with(|| EdgeKey::clone(&key));
                } else {
                    finding.again = Some(finding.again.map_or(decided, |again| again.min(decided)));
                }
            }
        }
        finding
    }
}

#[cfg(test)]
mod tests {
    use nanoseg_graph::endpoint::{Endpoint, Workload};
    use nanoseg_graph::flow::Transport;

    use super::*;

    /// When, and attempts and answers until then.
    type Look = (i64, u64, u64);

    /// What was told, what is seen, and when it fails, if it does.
    type Resumed<'a> = (&'a str, Option<Answered>, &'a [Look], Option<i64>);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn edge() -> Arc<EdgeKey> {
        Arc::new(EdgeKey {
            source: Endpoint::External("203.0.113.9".parse().unwrap()),
            destination: Endpoint::Workload(Workload {
                namespace: "shop".to_owned(),
                kind: "Deployment".to_owned(),
                name: "web".to_owned(),
            }),
            port: 80,
            transport: Transport::Tcp,
        })
    }

    #[test]
    fn an_edge_fails_only_if_it_was_answered_is_tried_and_is_not_answered_any_more() {
        // When learners are back, what is seen, and when it fails, if it does.
        let cases: [(&str, i64, &[Look], Option<i64>); 9] = [
            ("cut", 0, &[(0, 9, 9), (4, 9, 9), (5, 10, 9), (8, 10, 9)], Some(8)),
            (
                "still answered",
                0,
                &[(4, 9, 9), (5, 10, 9), (6, 10, 10), (9, 10, 10)],
                None,
            ),
            ("not tried", 0, &[(4, 9, 9), (60, 9, 9)], None),
            ("never answered", 0, &[(4, 9, 0), (5, 10, 0), (60, 20, 0)], None),
            (
                "an engine that takes a moment",
                0,
                &[(0, 9, 9), (1, 12, 12), (3, 12, 12), (4, 13, 12), (7, 13, 12)],
                Some(7),
            ),
            (
                "a slow engine",
                0,
                &[(4, 9, 9), (5, 12, 12), (20, 13, 12), (23, 14, 12)],
                Some(23),
            ),
            (
                "passed, and its server stops later",
                0,
                &[(4, 9, 9), (70, 10, 10), (80, 20, 10), (90, 30, 10)],
                None,
            ),
            (
                "what failed while learners were away",
                50,
                &[(4, 9, 9), (49, 20, 9), (51, 20, 9), (60, 20, 9)],
                None,
            ),
            (
                "tried two days later",
                0,
                &[(4, 9, 9), (172_800, 20, 9), (172_900, 30, 9)],
                None,
            ),
        ];
        for (what, ready, looks, fails) in cases {
            let mut trial = Trial::begin("sha256:1".to_owned(), at(0));
            let failed = looks.iter().find_map(|(second, attempted, answered)| {
                let counts = Counts {
                    attempted: *attempted,
                    answered: *answered,
                };
                let finding = trial.watch([(edge(), counts)], at(ready), at(*second));
                finding.failed.map(|_| *second)
            });
            assert_eq!(failed, fails, "{what}");
        }
    }

    #[test]
    fn a_trial_goes_on_where_the_run_before_has_told_it() {
        // What was told, when learners are back after a restart at 1000, what is seen, and when it fails, if it does.
        let (learning, enforced) = (Some(Answered::Learning), Some(Answered::Enforced));
        let cases: [Resumed<'_>; 6] = [
            (
                "passed, and its server stops while nobody looks",
                enforced,
                &[(1001, 20, 10), (1040, 30, 10), (1050, 40, 10)],
                None,
            ),
            (
                "cut while nobody looked, and every count begins anew",
                learning,
                &[(1001, 2, 0), (1040, 3, 0), (1043, 4, 0)],
                Some(1043),
            ),
            (
                "cut while nobody looked, and learners go on",
                learning,
                &[(1001, 20, 9), (1040, 21, 9), (1043, 22, 9)],
                Some(1043),
            ),
            (
                "answered with the policy live, and cut by nobody",
                learning,
                &[(1001, 1, 1), (1040, 2, 2), (1050, 9, 2), (1060, 19, 2)],
                None,
            ),
            (
                "never answered, because it needs no answer",
                None,
                &[(1001, 2, 0), (1040, 3, 0), (1050, 9, 0)],
                None,
            ),
            (
                "told, and not tried any more",
                learning,
                &[(1040, 0, 0), (1050, 0, 0)],
                None,
            ),
        ];
        for (what, told, looks, fails) in cases {
            let known = told.map(|answered| (edge(), answered));
            let mut trial = Trial::resume("sha256:1".to_owned(), at(0), known);
            assert_eq!(trial.answered(&edge()), told);
            let failed = looks.iter().find_map(|(second, attempted, answered)| {
                let counts = Counts {
                    attempted: *attempted,
                    answered: *answered,
                };
                let finding = trial.watch([(edge(), counts)], at(1030), at(*second));
                finding.failed.map(|_| *second)
            });
            assert_eq!(failed, fails, "{what}");
        }
    }

    #[test]
    fn what_passed_is_told_less_and_less_often() {
        let trial = Trial::begin("sha256:1".to_owned(), at(0));
        let mut told = Vec::new();
        let mut before = None;
        while let Some(next) = Some(trial.tells_at(before)).filter(|next| *next <= at(TRIAL.as_secs())) {
            told.push(next.duration_since(at(0)).as_secs());
            before = Some(next);
        }
        assert_eq!(told[..6], [120, 240, 480, 960, 960 + 900, 960 + 1800]);
        let apart = told.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert_eq!(apart, Some(OPEN.as_secs()), "no longer than that is it open again");
    }

    #[test]
    fn it_says_when_to_look_again() {
        let mut trial = Trial::begin("sha256:1".to_owned(), at(0));
        let counts = |attempted| Counts { attempted, answered: 9 };
        let begins = trial.watch([(edge(), counts(9))], at(0), at(0));
        assert_eq!((begins.failed, begins.again), (None, Some(at(2))));
        assert_eq!(trial.watch([(edge(), counts(9))], at(0), at(4)), Finding::default());
        let finding = trial.watch([(edge(), counts(10))], at(0), at(5));
        assert_eq!((finding.failed, finding.again), (None, Some(at(8))));
    }
}
