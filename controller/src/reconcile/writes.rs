//! What goes into the core, and what it wants written.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::{Object, ObjectKey};
use nanoseg_graph::connection::EdgeKey;
use nanoseg_graph::endpoint::Workload;
use nanoseg_graph::flow::Report;
use nanoseg_policy::cluster_policy::{ClusterNetworkPolicy, ClusterPolicyName};
use nanoseg_policy::ownership::PolicyName;
use serde::{Serialize, Serializer};

use super::notice::Notice;
use crate::enforcement::Enforcement;
use crate::lifecycle::has_unknown_end;
use crate::segment::{Decision, Known, Phase, Segment, SegmentName, to_edges};

/// Something that was observed, or that became of a write.
#[derive(Clone, Debug)]
pub enum Event {
    /// An object is there, new or changed.
    Object(Object),
    /// An object is not there any more.
    ObjectGone(ObjectKey),
    /// A live policy, ours or not.
    Policy(Box<NetworkPolicy>),
    /// A policy is not there any more.
    PolicyGone(PolicyName),
    /// A policy of the cluster.
    ClusterPolicy(Box<ClusterNetworkPolicy>),
    /// A policy of the cluster, by name, is not there any more.
    ClusterPolicyGone(ClusterPolicyName),
    /// A live Segment.
    Segment(Box<Segment>),
    /// There is a Segment that cannot be read.
    SegmentUnreadable {
        /// Which.
        name: SegmentName,
        /// Why.
        reason: String,
    },
    /// A Segment is not there any more.
    SegmentGone(SegmentName),
    /// A learner's report.
    Report(Report),
    /// A report of a learner that was recognised as the one of the node that the report is about.
    Attested(Report),
    /// A stream of a node's learner brings something, or has ended.
    Stream {
        /// The node.
        node: String,
        /// Which of all streams.
        stream: u64,
        /// It goes on.
        open: bool,
    },
    /// What was last shown of whether the cluster enforces; `None`: nothing.
    Enforcement(Option<Box<Enforcement>>),
    /// A source was read whole for the first time since it began or began again.
    Synced(Source),
    /// A write failed.
    Failed {
        /// What was to be written.
        id: ObjectId,
        /// Why it was not, as a sentence.
        reason: String,
        /// It was an answer about this very object: trying again as it is will not help.
        refused: bool,
    },
}

/// Where objects come from. Nothing is written before each of an adapter's sources was read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A watch of the API server, by the kind's plural.
    Watch(&'static str),
    /// The manifests of a folder.
    Manifests,
    /// The reports that are in a folder already.
    Reports,
    /// The folder of what is enforced, and of the Segments.
    Out,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Watch(plural) => plural,
            Self::Manifests => "manifests",
            Self::Reports => "reports",
            Self::Out => "policies and Segments",
        })
    }
}

/// What can be written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectId {
    /// A policy.
    Policy(PolicyName),
    /// A Segment.
    Segment(SegmentName),
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(name) => name.fmt(f),
            Self::Segment(name) => name.fmt(f),
        }
    }
}

/// Everything that a round wants written.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    /// Segments to create or change.
    pub segments: Vec<SegmentWrite>,
    /// Proposals, if one of them changed.
    pub proposals: Option<Proposals>,
    /// Policies to create or change.
    pub put: Vec<PolicyStep>,
    /// Policies to delete, as they were last seen, and why.
    pub remove: Vec<(NetworkPolicy, &'static str)>,
    /// Segments to delete.
    pub forget: Vec<Segment>,
    /// Edges outside a frozen baseline, seen for the first time.
    pub violations: Vec<Violation>,
    /// What to tell people who look at Segments.
    pub notices: Vec<Notice>,
}

impl Writes {
    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        let Self {
            segments,
            proposals,
            put,
            remove,
            forget,
            violations,
            notices,
        } = self;
        segments.is_empty()
            && proposals.is_none()
            && put.is_empty()
            && remove.is_empty()
            && forget.is_empty()
            && violations.is_empty()
            && notices.is_empty()
    }
}

/// Every current proposal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposals {
    /// The policies.
    pub current: Vec<Arc<NetworkPolicy>>,
    /// Those that are new or differ from the last round's.
    pub changed: Vec<PolicyName>,
}

/// A Segment to write.
#[derive(Clone, Debug)]
pub struct SegmentWrite {
    /// As it is to be.
    pub segment: Segment,
    /// It is there already, and only its status is to be written.
    pub exists: bool,
}

/// A policy to write.
#[derive(Clone, Debug)]
pub struct PolicyStep {
    /// As it is to be.
    pub desired: NetworkPolicy,
    /// What for.
    pub why: Why,
    /// UID of its workload's Segment.
    pub segment_uid: Option<String>,
}

/// Why a policy is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It does not exist, and never did by our hand.
    Wanted,
    /// What is wanted has changed.
    Changed,
    /// Somebody changed the live one.
    Edited,
    /// Somebody deleted the live one.
    Deleted,
}

impl Why {
    /// What to say when it is done.
    pub const fn as_done(self) -> &'static str {
        match self {
            Self::Wanted => "policy applied",
            Self::Changed => "policy applied, it has changed",
            Self::Edited => "drift repaired: the policy had been edited",
            Self::Deleted => "drift repaired: the policy had been deleted",
        }
    }
}

/// An edge outside a frozen baseline.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// When it was found.
    pub at: Timestamp,
    /// The workload whose baseline does not have it.
    #[serde(serialize_with = "display")]
    pub workload: Workload,
    /// The edge.
    #[serde(flatten, serialize_with = "edge")]
    pub edge: EdgeKey,
    /// When it was first tried.
    pub first_seen: Timestamp,
    /// How often it had been tried then.
    pub count: u64,
    /// What the policies say: the ones of people, and ours as they are proposed or live.
    pub verdict: String,
    /// The same in a word.
    pub decision: Decision,
    /// Whether the workload's policy is live.
    pub enforced: bool,
    /// What sees the workload now and is none of what its baseline was learned by: the edge may be older than that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_captures: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EdgeKey {
            source,
            destination,
            port,
            transport,
        } = &self.edge;
        let would_be = if self.enforced { "" } else { "would be " };
        write!(
            f,
            "{source} -> {destination} {transport} {port} is outside the baseline, {would_be}{}",
            self.finding()
        )
    }
}

impl Violation {
    /// What the policies say, and why the edge may be no news although nobody has seen it before.
    pub fn finding(&self) -> Cow<'_, str> {
        if self.other_captures.is_empty() {
            return Cow::Borrowed(&self.verdict);
        }
        Cow::Owned(format!(
            "{}; the baseline was not learned by {}, which may see more",
            self.verdict,
            self.other_captures.join(", ")
        ))
    }
}

fn display<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn edge<S: Serializer>(key: &EdgeKey, serializer: S) -> Result<S::Ok, S::Error> {
    let mut edges = to_edges([(key, &Known::default())]);
    edges.remove(0).serialize(serializer)
}

/// Something that a person who follows the log wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Everything was read, and rounds begin.
    InSync,
    /// An edge joined a baseline.
    EdgeLearned(Arc<EdgeKey>, Known),
    /// A window ended.
    Frozen(Workload, usize),
    /// A policy is taken back, because this edge of its baseline is not answered any more.
    RolledBack(Workload, EdgeKey),
    /// A Segment changed its phase.
    Phase(Workload, Phase, String),
    /// A Segment that cannot be used.
    SegmentLeftOut(SegmentName, String),
}

impl News {
    /// Tells it.
    pub fn tell(&self) {
        match self {
            Self::InSync => tracing::info!("everything was read, in sync"),
            Self::EdgeLearned(
                key,
                Known {
                    via,
                    seen_at: _,
                    names: _,
                    sightings: _,
                },
            ) => {
                let EdgeKey {
                    source,
                    destination,
                    port,
                    transport,
                } = &**key;
                let via: Vec<String> = via.iter().map(ToString::to_string).collect();
                let via = (!via.is_empty()).then(|| via.join(", "));
                if has_unknown_end(key) {
                    return tracing::info!(%source, %destination, port, protocol = %transport, "an end is not known, its direction stays open");
                }
                tracing::info!(%source, %destination, port, protocol = %transport, via, "edge learned");
            }
            Self::Frozen(workload, edges) => {
                tracing::info!(%workload, edges, "learning window over, baseline frozen");
            }
            Self::RolledBack(workload, key) => {
                let EdgeKey {
                    source,
                    destination,
                    port,
                    transport,
                } = key;
                tracing::warn!(%workload, %source, %destination, port, protocol = %transport, "rolled back: the policy was live, and this was not answered any more");
            }
            Self::Phase(workload, phase @ Phase::Degraded, reason) => {
                tracing::warn!(%workload, phase = phase.as_str(), "{reason}");
            }
            Self::Phase(workload, phase, reason) => tracing::info!(%workload, phase = phase.as_str(), "{reason}"),
            Self::SegmentLeftOut(name, reason) => {
                tracing::warn!(segment = %name, "Segment cannot be used, its workload is left as it is: {reason}");
            }
        }
    }
}
