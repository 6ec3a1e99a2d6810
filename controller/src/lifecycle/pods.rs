//! What a workload's pods must have gone through before what was learned of it counts as all that it does. Pure.
//!
//! * **A run.** A `CronJob` is held until a run has ended that began after the workload was first seen talking, on a node with a
//!   learner: that is one whole cycle, and the one that made it known was seen in part.
//! * **A rollout.** While there are pods of more than one revision, and when the revisions change, every pod that comes or goes begins
//!   the quiet period anew: a new revision may do something new. A rollout that stands still for that long, because it is paused,
//!   partitioned or waits for deletions, has shown what it does.
//! * **A scaling.** Pods that come and go within one revision begin the quiet period anew the first time: what a start does was seen
//!   then, and an autoscaler that acts every few minutes would hold its workload for ever.
//! * **Readiness.** A pod that is not ready holds for [`STARTS`] from its start; one that is not by then is broken, and the others are
//!   what there is to see. Where no pod is ready, the first one is waited for.
//! * **A learner.** A pod on a node without a learner holds, and the quiet period begins anew when each has one.
//!
//! A workload that has none of these - no schedule, no rollout, no scaling, every pod ready and watched - waits for none. A Job is one
//! run, and comes and goes as it does.
//!
//! Law: what is waited for depends on pods alone, and never on who restarts in between: what was seen is in the Segment, and pods that
//! came while nobody looked are known by their start.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use nanoseg_graph::flow::CaptureVersion;

use crate::segment::{Coverage, LISTED_CAPTURES, LISTED_NODES, SegmentStatus};

/// How long a pod may take to become ready: as long as Kubernetes waits for the progress of a Deployment.
pub const STARTS: SignedDuration = SignedDuration::from_mins(10);

/// A pod of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// UID.
    pub uid: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// What tells pods before a rollout from those after it, where the kind of workload has that.
    pub revision: Option<Arc<str>>,
    /// Its node, once it has one.
    pub node: Option<Arc<str>>,
    /// Kubelet says so, or says nothing.
    pub is_ready: bool,
    /// It has ended.
    pub is_finished: bool,
    /// From when on it may talk.
    pub started: Option<Timestamp>,
    /// A learner reports from its node.
    pub is_watched: bool,
    /// What sees there, if its learner says so.
    pub capture: Option<CaptureVersion>,
}

/// What is waited for, for as long as it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// A run of a `CronJob` that was seen from its begin to its end.
    Run,
    /// A pod that is not ready, by name.
    Ready(Arc<str>),
    /// A learner on the node of a pod.
    Learner {
        /// The node.
        node: Arc<str>,
        /// The pod, by name.
        pod: Arc<str>,
    },
}

impl Awaits {
    /// In a word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Run => "NoRun",
            Self::Ready(_) => "NotReady",
            Self::Learner { .. } => "NotWatched",
        }
    }
}

impl fmt::Display for Awaits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run => f.write_str("no run has ended yet that began after it was first seen talking"),
            Self::Ready(pod) => write!(f, "pod {pod} is not ready"),
            Self::Learner { node, pod } => write!(f, "no learner reports from node {node}, where pod {pod} is"),
        }
    }
}

/// Whether pods come and go with each run.
fn is_run(kind: &str) -> bool {
    matches!(kind, "CronJob" | "Job")
}

/// What was seen of a workload's pods while it is learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    cycled: Option<Timestamp>,
    turned: Option<Timestamp>,
    watched_since: Option<Timestamp>,
    coverage: Option<Coverage>,
    awaits: Option<Awaits>,
    /// When what is waited for may be over although nothing happens.
    again: Option<Timestamp>,
    known: Option<Crew>,
}

/// Pods that are there, and their revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Crew {
    pods: BTreeSet<Arc<str>>,
    revisions: BTreeSet<Arc<str>>,
}

impl Pods {
    /// What a Segment tells of it.
    pub(super) fn read(status: &SegmentStatus) -> Self {
        let at = |time: &Option<Time>| time.as_ref().map(|at| at.0);
        Self {
            cycled: at(&status.last_run),
            turned: at(&status.last_rollout),
            watched_since: at(&status.watched_since),
            coverage: status.coverage.clone(),
            ..Self::default()
        }
    }

    /// What is waited for, whatever the time.
    pub const fn awaits(&self) -> Option<&Awaits> {
        self.awaits.as_ref()
    }

    /// When to look again although nothing happens until then.
    pub const fn again(&self) -> Option<Timestamp> {
        self.again
    }

    /// How much of it is watched.
    pub const fn coverage(&self) -> Option<&Coverage> {
        self.coverage.as_ref()
    }

    /// When a whole run was known.
    pub const fn cycled(&self) -> Option<Timestamp> {
        self.cycled
    }

    /// When a pod last came or went in a rollout, or in the first scaling.
    pub const fn turned(&self) -> Option<Timestamp> {
        self.turned
    }

    /// Since when each pod is watched, after one was not.
    pub const fn watched_since(&self) -> Option<Timestamp> {
        self.watched_since
    }

    /// From when on the quiet period counts.
    pub(super) fn restless_until(&self) -> Option<Timestamp> {
        self.turned.max(self.watched_since)
    }

    /// Takes in the pods as they are. `since`: when the workload was first seen talking. `ready`: every learner has had the time to come
    /// to the controller.
    pub(super) fn look(&mut self, kind: &str, members: &[Member], since: Timestamp, ready: bool, now: Timestamp) {
        let live: Vec<&Member> = members.iter().filter(|member| !member.is_finished).collect();
        self.again = None;
        let unwatched = self.cover(members, since, ready, now);
        let whole = |member: &&Member| {
            let began = member.started.is_some_and(|started| started > since);
            member.is_finished && member.is_watched && began
        };
        if kind == "CronJob" && self.cycled.is_none() && members.iter().any(|member| whole(&member)) {
            self.cycled = Some(now);
        }
        if !is_run(kind) {
            self.turn(&live, since, now);
        }
        self.awaits = unwatched.or_else(|| {
            if is_run(kind) {
                return (kind == "CronJob" && self.cycled.is_none()).then_some(Awaits::Run);
            }
            self.starting(&live, now)
        });
    }

    /// Takes in who is watched. Returns whom a learner is missing for.
    fn cover(&mut self, members: &[Member], since: Timestamp, ready: bool, now: Timestamp) -> Option<Awaits> {
        let counts = |member: &&Member| {
            // What ended before is no part of what was learned.
            !member.is_finished || member.started.is_some_and(|started| started > since)
        };
        let placed = members
            .iter()
            .filter(counts)
            .filter_map(|member| Some((member, member.node.as_ref()?)));
        let (watched, unwatched): (Vec<_>, Vec<_>) = placed.partition(|(member, _)| member.is_watched);
        if !unwatched.is_empty() && !ready {
            return None;
        }
        let nodes: BTreeSet<&Arc<str>> = unwatched.iter().map(|(_, node)| *node).collect();
        let coverage = Coverage::of(
            watched.len(),
            watched.len() + unwatched.len(),
            nodes
                .into_iter()
                .take(LISTED_NODES)
                .map(|node| (**node).to_owned())
                .collect(),
        );
        let captures: BTreeSet<&CaptureVersion> = watched
            .iter()
            .filter_map(|(member, _)| member.capture.as_ref())
            .collect();
        let captures = captures.into_iter().take(LISTED_CAPTURES).map(ToString::to_string);
        let coverage = coverage.seen_by(captures.collect());
        let before = self.coverage.replace(coverage);
        if unwatched.is_empty() && before.is_some_and(|before| before.watched < before.pods) {
            self.watched_since = Some(now);
        }
        let (member, node) = unwatched.first()?;
        Some(Awaits::Learner {
            node: Arc::clone(node),
            pod: Arc::clone(&member.name),
        })
    }

    /// Takes in who came and went.
    fn turn(&mut self, live: &[&Member], since: Timestamp, now: Timestamp) {
        let crew = Crew {
            pods: live.iter().map(|member| Arc::clone(&member.uid)).collect(),
            revisions: live.iter().filter_map(|member| member.revision.clone()).collect(),
        };
        let turned = match &self.known {
            Some(known) if known.pods == crew.pods => None,
            Some(known) => {
                let rolls = crew.revisions != known.revisions || crew.revisions.len() > 1;
                (rolls || self.turned.is_none()).then_some(now)
            }
            // Nobody knows of which kind it was that came while nobody looked.
            None => {
                let youngest = live.iter().filter_map(|member| member.started).max();
                youngest.filter(|started| *started > since && Some(*started) > self.turned)
            }
        };
        self.turned = turned.or(self.turned);
        self.known = Some(crew);
    }

    /// A pod that is waited for until it is ready.
    fn starting(&mut self, live: &[&Member], now: Timestamp) -> Option<Awaits> {
        let mut unready = live.iter().filter(|member| !member.is_ready);
        let first = unready.clone().next()?;
        if live.iter().all(|member| !member.is_ready) {
            return Some(Awaits::Ready(Arc::clone(&first.name)));
        }
        let until = |member: &Member| member.started?.checked_add(STARTS).ok().filter(|until| *until > now);
        let starting = unready.find(|member| until(member).is_some())?;
        self.again = until(starting);
        Some(Awaits::Ready(Arc::clone(&starting.name)))
    }
}

#[cfg(test)]
mod tests;
