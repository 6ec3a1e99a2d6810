//! The `Segment` resource: what one workload was seen to do, and what became of it. It is the controller's durable state.
//!
//! Law: reading back what was written gives the same baseline, edge for edge. A Segment that cannot be read whole is an
//! error and never a smaller baseline, because a smaller baseline cuts traffic.

#![expect(clippy::duplicated_attributes, reason = "several columns have the same type")]

mod baseline;
mod coverage;
mod evidence;
mod listed;
mod on_map;
mod packed;
mod window;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use nanoseg_graph::endpoint::Workload;
use nanoseg_policy::ownership::{PREFIX, PolicyName, policy_name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::baseline::{
    Baseline, BaselineEdge, EdgeEnd, Known, NotAnEnd, Protocol, SeenAt, from_edges, hash_of, hash_of_text, into_keys,
    to_edges,
};
pub use self::coverage::{Coverage, LISTED_CAPTURES, LISTED_NODES};
pub use self::evidence::{Answered, Became, LearnedEdge, Sightings, from_learned, to_learned, to_learned_since};
pub use self::listed::{Few, Listed};
pub use self::window::{LearningWindow, NotAWindow};

/// Novel edges that a status lists at most: enough for a person to see what goes on, and few beside the object's size limit.
pub const LISTED: usize = 100;

/// Which workload the Segment is about, and what people want for it.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nanoseg.io",
    version = "v1alpha1",
    kind = "Segment",
    namespaced,
    status = "SegmentStatus",
    shortname = "seg",
    derive = "PartialEq",
    doc = "A Segment is one workload's part of the connection graph and the NetworkPolicy that follows from it. The controller makes one for each workload that it has seen talking, named <kind>-<name>. People set the spec's fields beside workload; the status is the controller's.",
    printcolumn(
        name = "Workload",
        type_ = "string",
        json_path = ".status.workload",
        description = "Kind and name of the workload"
    ),
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".status.mode",
        description = "What nanoseg may do with it, whoever said so"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "How far it has come"
    ),
    printcolumn(
        name = "Edges",
        type_ = "integer",
        json_path = ".status.edges",
        description = "Edges in the baseline"
    ),
    printcolumn(
        name = "Novel",
        type_ = "integer",
        json_path = ".status.novel",
        description = "Edges outside the frozen baseline"
    ),
    printcolumn(
        name = "Loss",
        type_ = "integer",
        json_path = ".status.loss",
        description = "Packets and exchanges that were not recorded while it was learned"
    ),
    printcolumn(
        name = "Watched",
        type_ = "string",
        json_path = ".status.coverage.share",
        description = "Share of its pods that a learner watches, or watched when the baseline was frozen"
    ),
    printcolumn(
        name = "Policy",
        type_ = "string",
        json_path = ".status.policy",
        description = "Name of the NetworkPolicy"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.reason",
        description = "Why it is in this phase",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SegmentSpec {
    /// The workload whose pods this Segment is about. It lives in the Segment's own namespace.
    pub workload: SegmentWorkload,
    /// What nanoseg may do with this workload. Without it the namespace's label `nanoseg.io/mode` decides, and without that the
    /// controller's settings (`--enforce`, `--learn-for`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Who promotes the proposal to an enforced NetworkPolicy once nothing stands in its way. Without it: Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
    /// The proposal that a person approves, as status.proposalHash names it. With promotion Manual nothing else is applied: a
    /// proposal that has changed since has another hash, and is not approved by this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub approval: Option<String>,
    /// How long this workload is learned, in seconds, minutes, hours or days: 90s, 15m, 24h, 7d. Without it the controller's
    /// settings decide (--enforce, --learn-for). A baseline that is frozen already stays frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = self::window::PATTERN))]
    pub learning_window: Option<LearningWindow>,
    /// Edges of this workload that belong to the baseline because a person says so, seen or not, frozen or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5000))]
    pub accepted_edges: Vec<BaselineEdge>,
    /// Edges of this workload that are never part of the baseline. They win over acceptedEdges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5000))]
    pub rejected_edges: Vec<BaselineEdge>,
}

/// Who promotes a proposal. Manual: a person, by spec.approval. Auto: the controller, once nothing stands in its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Promotion {
    /// A person, by naming the proposal's hash in `spec.approval`.
    Manual,
    /// The controller, once nothing stands in its way.
    #[default]
    Auto,
}

/// The controller object at the top of the pods' owner chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SegmentWorkload {
    /// Kind of the workload: Deployment, StatefulSet, DaemonSet, CronJob, Job, Pod, or a custom controller's kind.
    pub kind: String,
    /// Name of the workload.
    pub name: String,
}

/// What nanoseg may do with the workload. Off: learn and enforce nothing; what was learned is forgotten, and the NetworkPolicy
/// that nanoseg made is removed. Learn: keep learning, whatever the learning window says, and apply nothing; a NetworkPolicy that
/// is live already stays as it is. Audit: propose once the learning window has passed, and tell what the proposal would deny; the
/// NetworkPolicy that nanoseg made is removed. Enforce: enforce once the learning window has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Learn nothing, enforce nothing: what was learned is forgotten, and the NetworkPolicy that nanoseg made is removed.
    Off,
    /// Keep learning, whatever the learning window says, and apply nothing: a frozen baseline takes up what it lacks. A
    /// NetworkPolicy that is live already stays as it is.
    Learn,
    /// Propose once the learning window has passed, and tell what the proposal would deny. Nothing is enforced, and the
    /// NetworkPolicy that nanoseg made is removed.
    Audit,
    /// Enforce once the learning window has passed, although the controller's settings do not name the namespace.
    Enforce,
}

/// Label of a namespace that sets the mode of its workloads.
pub const MODE_LABEL: &str = "nanoseg.io/mode";

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Off, Self::Learn, Self::Audit, Self::Enforce];

    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "Off",
            Self::Learn => "Learn",
            Self::Audit => "Audit",
            Self::Enforce => "Enforce",
        }
    }
}

/// Why a text is not a mode.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a mode: write Off, Learn, Audit or Enforce")]
pub struct NotAMode(String);

impl FromStr for Mode {
    type Err = NotAMode;

    fn from_str(text: &str) -> Result<Self, NotAMode> {
        // Labels are written in lower case by habit.
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| NotAMode(text.to_owned()))
    }
}

/// How far the Segment has come. Learning: new edges join the baseline until the learning window has passed. Stabilizing: it has
/// passed, and the baseline is not quiet yet: an edge was new, or something was lost, too short a time ago. Stable: the baseline is
/// frozen, and something that a person must look at keeps it from being promoted. Proposed: the proposal is complete and is not
/// applied. Auditing: as Proposed, and what the proposal would deny is told. Enforcing: the NetworkPolicy is live and kept in sync.
/// Degraded: something stands in the way, see reason. Off: switched off. Gone: the workload is gone and its NetworkPolicy removed;
/// the baseline is kept for a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// New edges join the baseline until the learning window has passed.
    Learning,
    /// The learning window has passed, and the baseline is not quiet yet.
    Stabilizing,
    /// The baseline is frozen, and something that a person must look at keeps it from being promoted.
    Stable,
    /// The baseline is frozen and there is a proposal, which is not applied.
    Proposed,
    /// As proposed, and what the proposal would deny is told.
    Auditing,
    /// The NetworkPolicy is live and kept in sync.
    Enforcing,
    /// Something stands in the way; `reason` says what.
    Degraded,
    /// Switched off by `spec.mode` or the namespace's label.
    Off,
    /// The workload is gone and its NetworkPolicy removed. The baseline is kept for a day, in case the workload comes back.
    Gone,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 9] = [
        Self::Learning,
        Self::Stabilizing,
        Self::Stable,
        Self::Proposed,
        Self::Auditing,
        Self::Enforcing,
        Self::Degraded,
        Self::Off,
        Self::Gone,
    ];

    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Learning => "Learning",
            Self::Stabilizing => "Stabilizing",
            Self::Stable => "Stable",
            Self::Proposed => "Proposed",
            Self::Auditing => "Auditing",
            Self::Enforcing => "Enforcing",
            Self::Degraded => "Degraded",
            Self::Off => "Off",
            Self::Gone => "Gone",
        }
    }
}

/// A proposal that was live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its hash, as status.proposalHash named it.
    pub hash: String,
    /// When it was first seen live.
    pub at: Time,
    /// When it was taken back because an edge of the baseline was not answered any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_at: Option<Time>,
}

/// A policy that was taken back because an edge of the baseline was not answered any more while it was live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// When.
    pub at: Time,
    /// Its hash.
    pub hash: String,
    /// The edge.
    pub edge: BaselineEdge,
    /// What spec.approval was then: another approval lets the proposal be applied again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
}

/// An edge that was seen and is not learned, because a person should look at it: spec.acceptedEdges or spec.rejectedEdges decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuarantinedEdge {
    /// The edge, written as one of the baseline is.
    #[serde(flatten)]
    pub edge: BaselineEdge,
    /// What is suspicious about it.
    pub suspicion: Suspicion,
}

/// What is suspicious about an edge. Once: the connection was opened one time only, and not by a pod that had just started nor by
/// a Job. Ports: its source tried many ports of its destination within a minute. `FanOut`: its source tried many destinations
/// within a minute, and most of them never answered. Unanswered: nobody ever answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Suspicion {
    /// It was opened one time only, and not by a pod that had just started nor by a Job.
    Once,
    /// Its source tried many ports of its destination within a minute.
    Ports,
    /// Its source tried many destinations within a minute, and most of them never answered.
    FanOut,
    /// Nobody ever answered.
    Unanswered,
}

/// What policies say of a connection: the ones of people, and the proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Decision {
    /// It is allowed, by a policy of people.
    Allowed,
    /// It is denied, or would be.
    Denied,
    /// It depends on what is not known.
    Unknown,
}

/// An edge that was seen since the baseline was frozen and is not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NovelEdge {
    /// The edge, written as one of the baseline is.
    #[serde(flatten)]
    pub edge: BaselineEdge,
    /// When it was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Time>,
    /// How many connections were tried, at least: the number is written anew when it has doubled.
    #[serde(default)]
    #[schemars(with = "i64", range(min = 0))]
    pub count: u64,
    /// What policies said of it when it was found, the proposal taken in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// Revisions that a status lists at most.
pub const REVISIONS: usize = 5;

/// What the controller has seen, decided and done. When and how often an edge was last seen is written once a day at most, so that a
/// cluster in its steady state writes next to nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
// How it is written and read is in `packed`.
#[serde(remote = "Self", rename_all = "camelCase")]
pub struct SegmentStatus {
    /// How far the Segment has come.
    pub phase: Phase,
    /// Why it is in this phase, as a sentence.
    #[serde(default)]
    pub reason: String,
    /// Kind and name of the workload in one word, for `kubectl get`.
    #[serde(default)]
    pub workload: String,
    /// The labels by which policies know the pods of this workload; absent until some were shown to select them and no others.
    /// Where the namespace has the label nanoseg.io/identity=guarded nobody else puts them on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// What nanoseg may do with the workload: by spec.mode, else the namespace's label, else the controller's settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What holds of it. Promotable: whether anything keeps the proposal from being applied, as a sentence. `IngressReady`,
    /// `EgressReady`: whether the proposal isolates this direction. `RolledBack`: the policy was taken back, and why. `Contested`:
    /// somebody changes the policy each time that it is repaired. `InSync`: with --report-only, whether what is live is what is
    /// proposed. `DnsReachable`, when it is not: the proposal would keep the workload from asking for names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// When the workload was first seen talking: its learning window begins here.
    pub learning_since: Time,
    /// When an edge last joined the baseline while it was learned: the quiet period begins here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_novel: Option<Time>,
    /// Packets and exchanges of the workload that were not recorded while it was learned. What other transports than TCP, UDP and
    /// SCTP carried does not count: no NetworkPolicy is about it.
    #[serde(default)]
    #[schemars(with = "i64", range(min = 0))]
    pub loss: u64,
    /// When the loss last grew while the workload was learned: a learning window without loss begins here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_loss: Option<Time>,
    /// When it was known that a run of a `CronJob` had begun and ended since the workload was first seen talking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<Time>,
    /// When a pod last came or went in a rollout, or in the first scaling, while the workload was learned: the quiet period begins here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rollout: Option<Time>,
    /// Since when each of its pods is on a node whose learner reports, after one was not: the quiet period begins here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched_since: Option<Time>,
    /// How much of the workload is watched, or was when the baseline was frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// When the learning window ended. From then on the baseline does not change, and every other edge is novel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_at: Option<Time>,
    /// Since when the workload is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<Time>,
    /// Number of edges in the baseline.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0))]
    pub edges: u32,
    /// The edges that the NetworkPolicy allows: every connection of the workload that was learned, in both directions, with the
    /// evidence. Where they are more than a thousand, these are the first hundred, and all are in packed.
    #[serde(default)]
    pub baseline: Vec<LearnedEdge>,
    /// What is too large for an object: all of baseline and proposal as JSON, compressed. `kubectl get segment NAME -o
    /// jsonpath='{.status.packed}' | base64 -d | gunzip` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub packed: Option<ByteString>,
    /// SHA-256 of the baseline's edges: it changes when an edge comes or goes, and at no other time.
    #[serde(default)]
    pub baseline_hash: String,
    /// Number of edges that were seen since the baseline was frozen and are not in it.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0))]
    pub novel: u32,
    /// Edges outside the frozen baseline, since when, how often, and what policies say of them; at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub novel_edges: Vec<NovelEdge>,
    /// Edges that were seen while it was learned and are not learned, because a person should look at them, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<QuarantinedEdge>,
    /// Name of the NetworkPolicy that is proposed or live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The proposed NetworkPolicy as YAML: `kubectl get segment NAME -o jsonpath='{.status.proposal}'` prints it. One that is too
    /// large for an object is in packed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<String>,
    /// SHA-256 of the proposal: spec.approval names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal_hash: Option<String>,
    /// Where the proposal allows more than was seen, or leaves something out, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// SHA-256 of the proposal that was applied last; absent when the controller never applied one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_hash: Option<String>,
    /// Why nothing is applied any more, although it was. It ends when the mode is not Enforce for a moment, or when the proposal is approved
    /// again by its hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<Rollback>,
    /// The proposals that were live, the last one at the end, at most five.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Revision>,
}

/// Names a Segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment {}/{}", self.namespace, self.name)
    }
}

/// Why a Segment cannot be used. Nothing is written for its workload until it can.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SegmentError {
    /// The object carries no namespace or no name.
    #[error("it has no namespace or no name")]
    Nameless,
    /// Another Segment than the controller's own for this workload.
    #[error("its name does not fit its workload: a Segment of {workload} is named {expected}; rename or delete it")]
    Misnamed {
        /// Its workload.
        workload: Workload,
        /// The name that the controller would give it.
        expected: String,
    },
    /// A Service in `via` that is not `namespace/name`.
    #[error("status: `{0}` is not a Service: write `namespace/name`")]
    Via(String),
    /// A proposal that is no NetworkPolicy.
    #[error("status.proposal: this is no NetworkPolicy: {0}")]
    Proposal(String),
}

/// The Segment of a workload: `<kind>-<name>`, which is its policy's name without the prefix.
pub fn name_of(workload: &Workload) -> SegmentName {
    let policy = policy_name(workload);
    let name = policy.strip_prefix(PREFIX).unwrap_or(&policy).to_owned();
    SegmentName {
        namespace: workload.namespace.clone(),
        name,
    }
}

/// The Segment of the workload that a policy of this name is of, if it is one's.
pub fn segment_of(policy: &PolicyName) -> Option<SegmentName> {
    Some(SegmentName {
        namespace: policy.namespace.clone(),
        name: policy.name.strip_prefix(PREFIX)?.to_owned(),
    })
}

impl Segment {
    /// A Segment for a workload, with nothing set by people.
    pub fn of(workload: &Workload) -> Self {
        let spec = SegmentSpec {
            workload: SegmentWorkload {
                kind: workload.kind.clone(),
                name: workload.name.clone(),
            },
            mode: None,
            promotion: None,
            approval: None,
            learning_window: None,
            accepted_edges: Vec::new(),
            rejected_edges: Vec::new(),
        };
        let SegmentName { namespace, name } = name_of(workload);
        let mut segment = Self::new(&name, spec);
        segment.metadata.namespace = Some(namespace);
        segment
    }

    /// A Segment for the workload of another one, with nothing set by people.
    pub fn of_same_workload(other: &Self) -> Self {
        let workload = Workload {
            namespace: other.metadata.namespace.clone().unwrap_or_default(),
            kind: other.spec.workload.kind.clone(),
            name: other.spec.workload.name.clone(),
        };
        Self::of(&workload)
    }

    /// Its own name.
    pub fn segment_name(&self) -> SegmentName {
        SegmentName {
            namespace: self.metadata.namespace.clone().unwrap_or_default(),
            name: self.metadata.name.clone().unwrap_or_default(),
        }
    }

    /// The workload that it is about.
    pub fn subject(&self) -> Result<Workload, SegmentError> {
        let namespace = self.metadata.namespace.as_ref().ok_or(SegmentError::Nameless)?;
        let name = self.metadata.name.as_ref().ok_or(SegmentError::Nameless)?;
        let SegmentWorkload { kind, name: workload } = &self.spec.workload;
        let workload = Workload {
            namespace: namespace.clone(),
            kind: kind.clone(),
            name: workload.clone(),
        };
        let expected = name_of(&workload).name;
        if *name == expected {
            Ok(workload)
        } else {
            Err(SegmentError::Misnamed { workload, expected })
        }
    }
}

/// A timestamp in whole seconds, as the API keeps them.
pub fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

#[cfg(test)]
mod tests;
