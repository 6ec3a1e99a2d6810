//! The reconcile core: what was observed goes in, what must be written comes out. Synchronous, without I/O and without a
//! clock; the adapters for an API server and for folders point inward at it.
//!
//! ```text
//!  Event ──take──► Cluster, FlowTable, live policies, Segments
//!                        │ round
//!                        ▼
//!   resolve ─► judge (windows, baselines) ─► propose ─► verify ─► plan ─► Writes ──apply──► Event
//! ```
//!
//! Laws:
//! * nothing is written before every source was read whole once;
//! * a policy enforces only a baseline that was read back from its Segment: what is enforced is durable;
//! * a policy that the evaluator refuses is not applied;
//! * a live policy of ours is removed only when its workload is gone, switched off or to be audited;
//! * where people promote, only the very proposal is applied that a person approved;
//! * where others own the policies none is written, whatever they say;
//! * when nothing changed, a round writes nothing;
//! * a core that follows another controller writes nothing, and one that takes over knows what is durable and nothing else.

mod attested;
mod census;
mod conditions;
mod desk;
mod hearing;
mod learners;
mod members;
mod memory;
mod nodes;
mod notice;
mod open;
mod pacing;
mod replicas;
mod rollback;
mod sightings;
mod snapshot;
mod stale;
mod stand;
mod status;
mod taking;
#[cfg(test)]
mod tests;
mod think;
mod writes;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::endpoint::Workload;
use nanoseg_graph::flow::FlowTable;
use nanoseg_graph::resolve::Resolution;
use nanoseg_policy::cluster_policy::{ClusterNetworkPolicy, ClusterPolicyName};
use nanoseg_policy::ownership::{PolicyName, owned_workload};
use nanoseg_policy::synthesize::{self, Plugin, Surroundings};

use self::attested::Attested;
use self::desk::{Desk, SEGMENTS};
use self::learners::Learners;
use self::memory::{Hold, Subject};
use self::pacing::Pacing;
use self::stale::Stale;
use crate::lifecycle::Rules;
use crate::segment::{MODE_LABEL, Mode, Segment, SegmentName, name_of};

pub use self::attested::RefusedPart;
pub use self::census::Census;
pub use self::notice::{Happening, Notice};
pub use self::snapshot::Snapshot;
pub use self::stale::Work;
pub use self::stand::MANAGER;
pub use self::writes::{Event, News, ObjectId, PolicyStep, Proposals, SegmentWrite, Source, Violation, Why, Writes};

/// How long what was learned of a workload is kept after the workload is gone: deleting and making it again is a common way to
/// update one.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

/// How soon a round is worth its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// Nothing changed.
    No,
    /// Only counts and times changed; an outcome may have.
    Later,
    /// Something changed that policies depend on.
    Soon,
}

/// What a round wants.
#[derive(Debug, Default)]
pub struct Round {
    /// What to write.
    pub writes: Writes,
    /// What to tell.
    pub news: Vec<News>,
    /// When to hold the next round even if nothing happens until then.
    pub next: Option<Timestamp>,
}

/// The settings that the core follows.
#[derive(Clone, Debug)]
pub struct Guide {
    /// What may be done with which workload.
    pub rules: Rules,
    /// How often, at most, the Segment of a workload that is learned is written.
    pub report_interval: SignedDuration,
    /// How policies are made.
    pub synthesis: synthesize::Settings,
    /// Others own the policies: none is written, and it is told how what is live differs from what is proposed.
    pub reports_only: bool,
    /// How many policies a second, at most, go live that were not live before; `None`: all at once.
    pub policies_per_second: Option<NonZeroU32>,
}

/// Everything that is known, and what follows from it.
#[derive(Debug)]
pub struct Core {
    guide: Guide,
    /// As in the guide, and every edge counts: whether it was answered is asked when it joins a baseline, and not again.
    accepted: synthesize::Settings,
    pacing: Pacing,
    started: Timestamp,
    awaited: BTreeSet<Source>,
    cluster: Cluster,
    flows: FlowTable,
    attested: Attested,
    /// When pods were last listed whole.
    listed: Option<Timestamp>,
    learners: Learners,
    /// When the next one that has left counts as away.
    away_at: Option<Timestamp>,
    resolution: Resolution,
    /// What synthesis has to know of the cluster as it is.
    surroundings: Option<Surroundings>,
    /// What was lost of each workload.
    losses: BTreeMap<Workload, u64>,
    policies: BTreeMap<PolicyName, NetworkPolicy>,
    /// Those of ours whose workload was not known when they were taken in, or was forgotten since.
    strays: BTreeSet<PolicyName>,
    cluster_policies: BTreeMap<ClusterPolicyName, ClusterNetworkPolicy>,
    /// The ranges of addresses that people's policies tell apart, once somebody asked.
    blocks: OnceCell<BTreeSet<IpNet>>,
    /// Each apart: half of a map's places are free.
    subjects: BTreeMap<Workload, Box<Subject>>,
    segments: BTreeMap<SegmentName, Workload>,
    unreadable: BTreeMap<SegmentName, String>,
    held: BTreeMap<ObjectId, Hold>,
    /// Since which report a Segment lacks something, once somebody asked: each report that is taken in asks.
    unwritten: OnceCell<Option<u64>>,
    news: Vec<News>,
    /// What the cluster was shown not to do with policies.
    refuted: Option<String>,
    /// What people said of the network plugin, which counts where nothing else was shown of it.
    chosen: Plugin,
    /// What resolving, judging, proposing and verifying depends on and has changed since.
    stale: Stale,
    due: Due,
    /// When the next learning window ends, or the next trial is decided.
    think_at: Option<Timestamp>,
    /// Reports that were taken in, and how many of them the last round knew.
    heard: u64,
    judged: u64,
    /// Another controller decides: what is known follows the durable state, and nothing is written.
    follows: bool,
}

impl Core {
    /// A core that knows nothing yet and waits for the sources `awaited`. `cidrs` are ranges of the cluster.
    pub fn new(
        guide: Guide,
        cidrs: impl IntoIterator<Item = IpNet>,
        awaited: impl IntoIterator<Item = Source>,
        started: Timestamp,
    ) -> Self {
        let accepted = synthesize::Settings {
            unanswered: synthesize::Unanswered::Learn,
            ..guide.synthesis.clone()
        };
        let chosen = guide.synthesis.plugin;
        Self {
            pacing: Pacing::new(guide.policies_per_second),
            guide,
            accepted,
            started,
            awaited: awaited.into_iter().collect(),
            cluster: Cluster::new(cidrs),
            flows: FlowTable::default(),
            attested: Attested::default(),
            listed: None,
            learners: Learners::default(),
            away_at: None,
            resolution: Resolution::default(),
            surroundings: None,
            losses: BTreeMap::new(),
            policies: BTreeMap::new(),
            strays: BTreeSet::new(),
            cluster_policies: BTreeMap::new(),
            blocks: OnceCell::new(),
            subjects: BTreeMap::new(),
            segments: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            held: BTreeMap::new(),
            unwritten: OnceCell::new(),
            news: Vec::new(),
            refuted: None,
            chosen,
            stale: Stale::All,
            due: Due::No,
            think_at: None,
            heard: 0,
            judged: 0,
            follows: false,
        }
    }

    /// Leaves deciding to another controller. What was learned and is in no Segment is forgotten: learners send it again, to whoever
    /// leads.
    pub fn follow(&mut self, now: Timestamp) {
        self.follows = true;
        self.flows = FlowTable::default();
        self.attested = Attested::default();
        self.learners = Learners::default();
        self.away_at = None;
        self.resolution = Resolution::default();
        self.stale = Stale::All;
        self.held.clear();
        self.unwritten.take();
        let segments = std::mem::take(&mut self.subjects).into_values();
        self.segments.clear();
        for segment in segments.filter_map(|subject| subject.segment) {
            self.take_segment(segment, now);
        }
    }

    /// Decides from now on, from the durable state as it is known.
    pub fn lead(&mut self, now: Timestamp) {
        self.follows = false;
        // Learners come anew, and no window ends before they have had the time.
        self.started = now;
        // Who followed has forgotten whatever was in no Segment.
        self.strays.extend(self.policies.keys().cloned());
        self.rethink();
    }

    /// How soon a round is worth its cost.
    pub const fn due(&self) -> Due {
        self.due
    }

    /// Whether another controller decides.
    pub const fn follows(&self) -> bool {
        self.follows
    }

    /// How many reports were taken in.
    pub const fn heard(&self) -> u64 {
        self.heard
    }

    /// How many reports rounds have taken in, or had no need to.
    pub fn judged(&self) -> u64 {
        if self.stale.is_nothing() {
            self.heard
        } else {
            self.judged
        }
    }

    /// What the next round has to do.
    pub fn work(&self) -> Work {
        self.stale.work()
    }

    /// Sources that were not read whole yet.
    pub const fn awaited(&self) -> &BTreeSet<Source> {
        &self.awaited
    }

    /// Parts of recognised learners' reports that were not used, by reason.
    pub const fn refused(&self) -> &BTreeMap<RefusedPart, u64> {
        self.attested.refused()
    }

    /// Decides what must be written, as of `now`.
    pub fn round(&mut self, now: Timestamp) -> Round {
        if self.follows || !self.awaited.is_empty() {
            self.due = Due::No;
            return Round {
                news: std::mem::take(&mut self.news),
                ..Round::default()
            };
        }
        let expected = self.attested.give_up(now);
        if self.away_at.is_some_and(|at| at <= now) {
            self.away_at = None;
            self.stale.watched(self.learners.away(now).map(str::to_owned));
        }
        let mut writes = Writes::default();
        if !self.stale.is_nothing() || self.think_at.is_some_and(|end| end <= now) {
            self.think(now, &mut writes);
        }
        self.due = if self.stale.is_nothing() { Due::No } else { Due::Soon };
        let mut next = think::earlier(expected, self.away_at);
        self.plan(now, &mut writes, &mut next);
        self.unwritten.take();
        self.judged = self.heard;
        self.attested.forget(self.durable());
        self.remove_orphans(&mut writes);
        // A window that ends while the round is on its way is not missed: the past counts as now.
        next = next.map(|at| at.max(now));
        Round {
            writes,
            news: std::mem::take(&mut self.news),
            next,
        }
    }

    fn plan(&mut self, now: Timestamp, writes: &mut Writes, next: &mut Option<Timestamp>) {
        let mut forgotten = Vec::new();
        // Who was put off has nothing new to say, and comes after those who have.
        for put_off in [false, true] {
            for (workload, subject) in &mut self.subjects {
                let waits = subject.is_planned && subject.is_put_off;
                let is_due = !subject.is_planned || subject.plan_at.is_some_and(|at| at <= now);
                if !is_due || waits != put_off || (put_off && writes.segments.len() >= SEGMENTS) {
                    continue;
                }
                let mut desk = Desk {
                    guide: &self.guide,
                    started: self.started,
                    cluster: &self.cluster,
                    graph: self.resolution.graph(),
                    policies: &self.policies,
                    held: &self.held,
                    refuted: self.refuted.as_deref(),
                    judged: self.judged,
                    pacing: &mut self.pacing,
                    news: &mut self.news,
                };
                let planned = desk.plan(workload, subject, now, writes);
                subject.is_planned = true;
                subject.plan_at = planned.again;
                if planned.is_over {
                    forgotten.push(workload.clone());
                }
            }
        }
        let subjects = self.subjects.values();
        let (think_at, plan_at) = subjects.fold((None, None), |(think_at, plan_at), subject| {
            let think_at = think::earlier(think_at, subject.think_at);
            (think_at, think::earlier(plan_at, subject.plan_at))
        });
        self.think_at = think_at;
        *next = think::earlier(*next, think::earlier(plan_at, think_at));
        for workload in forgotten {
            self.segments.remove(&name_of(&workload));
            self.strays.insert(PolicyName::of_workload(&workload));
            writes
                .forget
                .extend(self.subjects.remove(&workload).and_then(|subject| subject.segment));
        }
    }

    /// Live policies of ours for workloads that nothing else is known of.
    fn remove_orphans(&mut self, writes: &mut Writes) {
        let (policies, subjects) = (&self.policies, &self.subjects);
        let orphan = |name: &PolicyName| {
            let policy = policies.get(name)?;
            let workload = owned_workload(policy)?;
            let known = subjects.contains_key(&workload) && *name == PolicyName::of_workload(&workload);
            (!known).then_some((workload, policy))
        };
        self.strays.retain(|name| orphan(name).is_some());
        if self.guide.reports_only {
            return;
        }
        for (workload, policy) in self.strays.iter().filter_map(orphan) {
            let held = self.held.contains_key(&ObjectId::Policy(PolicyName::of(policy)));
            if !held && !self.cluster.has_workload(&workload) {
                writes.remove.push((policy.clone(), "its workload is gone"));
            }
        }
    }
}

/// The mode that people want for a workload: its Segment says it, or else its namespace's label.
fn wanted_mode(cluster: &Cluster, workload: &Workload, segment: Option<&Segment>) -> Option<Mode> {
    segment.and_then(|segment| segment.spec.mode).or_else(|| {
        let labels = cluster.namespace_labels(&workload.namespace);
        labels.get(MODE_LABEL)?.parse().ok()
    })
}

/// What is wrong with the label that sets the mode of a workload's namespace.
fn label_fault(cluster: &Cluster, workload: &Workload) -> Option<String> {
    let labels = cluster.namespace_labels(&workload.namespace);
    let fault = labels.get(MODE_LABEL)?.parse::<Mode>().err()?;
    Some(format!("the namespace's label {MODE_LABEL} is passed over: {fault}"))
}
