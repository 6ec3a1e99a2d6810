//! What a monitoring system is told of the controller. `manifests/monitoring/README.md` documents each metric, and a test compares.
//!
//! Law: bounded. A label has a closed set of values, or at most [`NODES`] or [`WORKLOADS`] in one run of the controller and
//! [`OTHER`] for the rest; nothing is ever labelled with a pod, an address or a port.
//!
//! * [`counted`]: what becomes of writes.

pub mod counted;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use nanoseg_graph::endpoint::Workload;
use nanoseg_graph::flow::LossReason;
use nanoseg_health::bounded::{Bounded, OTHER};
use nanoseg_health::process::Process;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use crate::reconcile::{Census, RefusedPart, Violation, Why};
use crate::segment::{Decision, Mode, Phase};
use crate::telemetry::Lost;

/// Nodes that have series of their own: 7 reasons of loss and one time each.
pub const NODES: usize = 1000;

/// Workloads that have a series of their own.
pub const WORKLOADS: usize = 100;

/// A round of a small cluster takes a millisecond, and one of 10,000 Segments is to take less than five seconds.
const ROUND_SECONDS: [f64; 10] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SegmentLabels {
    mode: &'static str,
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
    enforced: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkloadLabels {
    namespace: String,
    kind: String,
    workload: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LossLabels {
    node: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    object: &'static str,
    action: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

/// Why a learner's stream or one increment of it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedLearner {
    /// No token came with it.
    NoToken,
    /// The API server does not know the token.
    NotValid,
    /// The token is another account's.
    Account,
    /// The token is not bound to a node.
    NoNode,
    /// The API server could not be asked.
    NotAsked,
    /// The report is about another node than the token is bound to.
    OtherNode,
    /// The increment is no report.
    NoReport,
}

impl RefusedLearner {
    const ALL: [Self; 7] = [
        Self::NoToken,
        Self::NotValid,
        Self::Account,
        Self::NoNode,
        Self::NotAsked,
        Self::OtherNode,
        Self::NoReport,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::NotValid => "token_not_valid",
            Self::Account => "other_account",
            Self::NoNode => "token_without_node",
            Self::NotAsked => "api_server_not_asked",
            Self::OtherNode => "other_node",
            Self::NoReport => "no_report",
        }
    }
}

/// Every metric of the controller.
#[derive(Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    in_sync: Gauge,
    leader: Gauge,
    segments: Family<SegmentLabels, Gauge>,
    edges: Family<StateLabels, Gauge>,
    flows: Gauge,
    nodes: Gauge,
    policies: Gauge,
    held: Gauge,
    rounds: Histogram,
    novel: Family<VerdictLabels, Counter>,
    novel_of: Family<WorkloadLabels, Counter>,
    workloads: Bounded<Workload>,
    losses: Family<LossLabels, Counter>,
    last_report: Family<NodeLabels, Gauge>,
    node_names: Bounded<String>,
    /// Losses that were told, by node and reason.
    told: Mutex<BTreeMap<(String, LossReason), u64>>,
    /// Refused parts as they were last counted: a controller that follows begins anew.
    parts: Mutex<BTreeMap<RefusedPart, u64>>,
    learners: Gauge,
    reports: Counter,
    refused_learners: Family<ReasonLabels, Counter>,
    refused_parts: Family<ReasonLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    repaired: Family<CauseLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(&Lost::default())
    }
}

impl Metrics {
    /// With what a collector of OpenTelemetry was not told.
    pub fn new(lost: &Lost) -> Self {
        let mut registry = Registry::default();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("nanoseg_build", "The controller's version", version);
        registry.register_collector(Box::new(Process::default()));
        let mut metrics = Register(&mut registry);
        let untold = "Spans and log records that no collector of OpenTelemetry took, by what they were and why";
        metrics.put("nanoseg_telemetry_lost", untold, lost.metric());
        let held = "Objects that are left alone for a while after a write of them failed";
        let in_sync = "1 once everything was read from the API server and rounds are held, 0 before";
        let leader = "1 while this controller is the one that writes, 0 while it stands by";
        let segments = "Segments, by the mode and the phase that the last round found";
        let edges = "Edges of Segments, at each end that has one: in the baseline, outside a frozen baseline, or waiting for a person";
        let flows = "Flows that learners have reported and that are kept";
        let policies = "NetworkPolicies of nanoseg that are live";
        let rounds = "How long rounds took: resolving, judging, proposing and verifying, without the writes";
        let novel = "Edges outside a frozen baseline that were seen for the first time, by what policies say and whether the workload's own is live";
        let novel_of = "The same by workload: the first 100 that have any, the rest together";
        let losses = "What learners could not record, by node and reason; the first 1000 nodes, the rest together";
        let last_report =
            "When the last report of a node's learner was merged; the first 1000 nodes, the latest of the rest";
        let repaired = "Policies of nanoseg that somebody had changed or deleted and that were put back";
        Self {
            in_sync: metrics.add("nanoseg_in_sync", in_sync),
            leader: metrics.add("nanoseg_leader", leader),
            segments: metrics.add("nanoseg_segments", segments),
            edges: metrics.add("nanoseg_edges", edges),
            flows: metrics.add("nanoseg_flows", flows),
            nodes: metrics.add("nanoseg_nodes", "Nodes of the cluster"),
            policies: metrics.add("nanoseg_policies_live", policies),
            held: metrics.add("nanoseg_writes_held", held),
            rounds: metrics.put("nanoseg_round_duration_seconds", rounds, Histogram::new(ROUND_SECONDS)),
            novel: metrics.add("nanoseg_novel_edges", novel),
            novel_of: metrics.add("nanoseg_workload_novel_edges", novel_of),
            workloads: Bounded::new(WORKLOADS),
            losses: metrics.add("nanoseg_losses", losses),
            last_report: metrics.add("nanoseg_last_report_timestamp_seconds", last_report),
            node_names: Bounded::new(NODES),
            told: Mutex::default(),
            parts: Mutex::default(),
            learners: metrics.add(
                "nanoseg_learners_connected",
                "Learners that have a stream open and have reported on it",
            ),
            reports: metrics.add("nanoseg_reports", "Increments of learners that were merged"),
            refused_learners: metrics.add(
                "nanoseg_learner_refusals",
                "Streams and increments of learners that were refused",
            ),
            refused_parts: metrics.add(
                "nanoseg_report_parts_refused",
                "Parts of reports that were refused, and the rest used",
            ),
            writes: metrics.add("nanoseg_writes", "What became of writes"),
            repaired: metrics.add("nanoseg_drift_repaired", repaired),
            registry: Arc::new(registry),
        }
        .with_everything_at_zero()
    }
}

struct Register<'a>(&'a mut Registry);

impl Register<'_> {
    fn add<M: Metric + Clone + Default>(&mut self, name: &str, about: &str) -> M {
        self.put(name, about, M::default())
    }

    fn put<M: Metric + Clone>(&mut self, name: &str, about: &str, metric: M) -> M {
        self.0.register(name, about, metric.clone());
        metric
    }
}

impl Metrics {
    /// A series that appears with its first event has no rate at that event, and none that is missing can be told from zero.
    fn with_everything_at_zero(self) -> Self {
        self.leader.set(1);
        self.census(&Census::default());
        for verdict in [Decision::Allowed, Decision::Denied, Decision::Unknown] {
            for enforced in [false, true] {
                drop(self.novel.get_or_create(&verdict_labels(verdict, enforced)));
            }
        }
        drop(self.novel_of.get_or_create(&of_others()));
        for reason in LossReason::ALL {
            drop(self.losses.get_or_create(&loss_labels(OTHER, reason)));
        }
        drop(self.last_report.get_or_create(&NodeLabels { node: OTHER.to_owned() }));
        for reason in RefusedLearner::ALL {
            drop(self.refused_learners.get_or_create(&ReasonLabels {
                reason: reason.as_str(),
            }));
        }
        for object in ["segment", "policy"] {
            for action in ["put", "remove"] {
                for outcome in ["done", "failed"] {
                    drop(self.writes.get_or_create(&WriteLabels {
                        object,
                        action,
                        outcome,
                    }));
                }
            }
        }
        for cause in ["edited", "deleted"] {
            drop(self.repaired.get_or_create(&CauseLabels { cause }));
        }
        self
    }

    /// For whoever is asked for them.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    /// Whether everything was read, and rounds are held.
    pub fn set_in_sync(&self, in_sync: bool) {
        self.in_sync.set(in_sync.into());
    }

    /// Whether this controller is the one that writes.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// A round was held.
    pub fn round(&self, took: Duration, census: &Census) {
        self.rounds.observe(took.as_secs_f64());
        self.census(census);
    }

    /// How many there are now.
    pub fn census(&self, census: &Census) {
        let Census {
            segments,
            baseline,
            novel,
            quarantined,
            flows,
            nodes,
            policies,
            held,
            losses,
            refused,
        } = census;
        for mode in Mode::ALL.map(Mode::as_str) {
            for phase in Phase::ALL.map(Phase::as_str) {
                let number = segments.get(&(mode, phase)).copied().unwrap_or_default();
                self.segments
                    .get_or_create(&SegmentLabels { mode, phase })
                    .set(gauge(number));
            }
        }
        for (state, number) in [("baseline", baseline), ("novel", novel), ("quarantined", quarantined)] {
            self.edges.get_or_create(&StateLabels { state }).set(gauge(*number));
        }
        self.flows.set(gauge(*flows));
        self.nodes.set(gauge(*nodes));
        self.policies.set(gauge(*policies));
        self.held.set(gauge(*held));
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        for part in RefusedPart::ALL {
            let labels = ReasonLabels { reason: part.as_str() };
            let total = refused.get(&part).copied().unwrap_or_default();
            let before = parts
                .insert(part, total)
                .filter(|before| *before <= total)
                .unwrap_or_default();
            self.refused_parts.get_or_create(&labels).inc_by(total - before);
        }
        drop(parts);
        self.lose(losses);
    }

    fn lose(&self, losses: &BTreeMap<(String, LossReason), u64>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for ((node, reason), total) in losses {
            let key = (node.clone(), *reason);
            let known = told.entry(key).or_default();
            let more = total.saturating_sub(*known);
            if more > 0 {
                *known = *total;
                let node = self.label_of(node);
                self.losses.get_or_create(&loss_labels(&node, *reason)).inc_by(more);
            }
        }
    }

    fn label_of(&self, node: &str) -> String {
        let admitted = self.node_names.admits(&node.to_owned());
        if admitted { node } else { OTHER }.to_owned()
    }

    /// A report about this node was merged.
    pub fn merged(&self, node: &str, at: Timestamp) {
        self.reports.inc();
        let labels = NodeLabels {
            node: self.label_of(node),
        };
        self.last_report.get_or_create(&labels).set(at.as_second());
    }

    /// A learner has reported on its stream; it counts as connected until what is returned is dropped.
    pub fn connected(&self) -> Connected {
        self.learners.inc();
        Connected(self.learners.clone())
    }

    /// A learner was refused.
    pub fn refused(&self, reason: RefusedLearner) {
        let labels = ReasonLabels {
            reason: reason.as_str(),
        };
        self.refused_learners.get_or_create(&labels).inc();
    }

    /// Edges outside a frozen baseline were found.
    pub fn novel(&self, violations: &[Violation]) {
        for violation in violations {
            let Violation {
                at: _,
                workload,
                edge: _,
                first_seen: _,
                count: _,
                verdict: _,
                decision,
                enforced,
                other_captures: _,
            } = violation;
            let labels = verdict_labels(*decision, *enforced);
            self.novel.get_or_create(&labels).inc();
            let labels = if self.workloads.admits(workload) {
                WorkloadLabels {
                    namespace: workload.namespace.clone(),
                    kind: workload.kind.clone(),
                    workload: workload.name.clone(),
                }
            } else {
                of_others()
            };
            self.novel_of.get_or_create(&labels).inc();
        }
    }

    /// A policy that was not as it was to be is again.
    pub fn repaired(&self, why: Why) {
        let cause = match why {
            Why::Edited => "edited",
            Why::Deleted => "deleted",
            Why::Wanted | Why::Changed => return,
        };
        self.repaired.get_or_create(&CauseLabels { cause }).inc();
    }

    fn wrote(&self, object: &'static str, action: &'static str, done: bool) {
        let outcome = if done { "done" } else { "failed" };
        self.writes
            .get_or_create(&WriteLabels {
                object,
                action,
                outcome,
            })
            .inc();
    }
}

/// A learner that counts as connected.
#[derive(Debug)]
pub struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn verdict_labels(decision: Decision, enforced: bool) -> VerdictLabels {
    VerdictLabels {
        verdict: match decision {
            Decision::Allowed => "allowed",
            Decision::Denied => "denied",
            Decision::Unknown => "unknown",
        },
        enforced: if enforced { "true" } else { "false" },
    }
}

fn loss_labels(node: &str, reason: LossReason) -> LossLabels {
    LossLabels {
        node: node.to_owned(),
        reason: reason.as_str(),
    }
}

fn of_others() -> WorkloadLabels {
    WorkloadLabels {
        namespace: OTHER.to_owned(),
        kind: OTHER.to_owned(),
        workload: OTHER.to_owned(),
    }
}

fn gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
