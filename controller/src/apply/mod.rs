//! The only module that writes.
//!
//! Guarantees, in this order:
//! * policies are created and changed first: people wait for those, and what one enforces was read back from its Segment before it was
//!   wanted. Segments may be thousands;
//! * Segments are written before any policy is deleted, so that one that was taken back is not taken for one that somebody deleted; and
//!   policies are created and changed before, so that nothing loses an allowance that is about to move;
//! * every step is whole by itself and may be the last one before a crash: a policy carries its allows and its isolation in
//!   one object, and a deletion names the object that it means;
//! * one step that fails stops no other, and what it says comes back as an [`Event`].

mod cluster;
mod directory;
mod events;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;

use futures::StreamExt as _;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_policy::ownership::{PolicyName, owned_workload};

use crate::reconcile::{
    Event, Happening, Notice, ObjectId, PolicyStep, Proposals, SegmentWrite, Violation, Why, Writes,
};
use crate::segment::{Segment, SegmentName};
use crate::telemetry::VIOLATION;
use crate::trouble::{Trouble, chain};

pub use cluster::OnCluster;
pub use directory::{APPLIED, OnDirectory, SEGMENTS, file, write_policy};
pub use events::Events;

/// Writes under way at once: what etcd has got together it writes to the disk together, and it is few beside the hundreds of requests
/// that an API server takes in at a time.
const AT_ONCE: usize = 16;

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The API server refused it or cannot be reached.
    #[error("cannot {verb} {object} on the API server")]
    Cluster {
        /// What was tried.
        verb: &'static str,
        /// On what.
        object: ObjectId,
        /// What the API server or the way to it said.
        source: Trouble,
    },
    /// The file cannot be written.
    #[error("cannot {verb} {}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// An object that cannot be written as YAML.
    #[error("cannot write {} as YAML", path.display())]
    Yaml {
        /// Where it was to go.
        path: PathBuf,
        /// Why.
        source: serde_yaml::Error,
    },
}

impl WriteError {
    /// Whether the API server has looked at the object and does not want it. That it is busy, or changed in between, is no such answer.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Cluster { source, .. } => matches!(source.code(), Some(400 | 403 | 404 | 413 | 422)),
            Self::File { .. } | Self::Yaml { .. } => false,
        }
    }
}

/// Somewhere that policies and Segments live.
pub trait Live: Sync {
    /// Creates or changes a Segment, its status included. Returns it as it is then.
    fn put_segment(&self, write: &SegmentWrite) -> impl Future<Output = Result<Segment, WriteError>> + Send;
    /// Deletes a Segment.
    fn remove_segment(&self, segment: &Segment) -> impl Future<Output = Result<(), WriteError>> + Send;
    /// Creates or changes a policy. Returns it as it is then.
    fn put_policy(&self, desired: &NetworkPolicy) -> impl Future<Output = Result<NetworkPolicy, WriteError>> + Send;
    /// Deletes a policy that was last seen as `live`.
    fn remove_policy(&self, live: &NetworkPolicy) -> impl Future<Output = Result<(), WriteError>> + Send;
    /// Takes every current proposal to where it is kept, if that is not the Segment's status, and tells of those that changed.
    fn put_proposals(&self, proposals: &Proposals) -> impl Future<Output = Result<(), WriteError>> + Send;
    /// Tells people who look at Segments, if there is a way to, without waiting for it.
    fn tell(&self, notices: Vec<Notice>);
    /// Keeps violations, if there is a place for it.
    fn record(&self, violations: &[Violation]) -> impl Future<Output = Result<(), WriteError>> + Send;
}

/// Does what a round decided. Returns what became of it, for the next round.
pub async fn apply(live: &impl Live, writes: Writes) -> Vec<Event> {
    let Writes {
        segments,
        proposals,
        put,
        remove,
        forget,
        violations,
        mut notices,
    } = writes;
    let mut events = Vec::new();

    for violation in &violations {
        let Violation {
            at: _,
            workload,
            edge,
            first_seen,
            count,
            verdict: _,
            decision,
            enforced,
            other_captures: _,
        } = violation;
        let (source, destination, port, protocol) = (&edge.source, &edge.destination, edge.port, edge.transport);
        tracing::warn!(
            name: "nanoseg.violation",
            target: VIOLATION,
            %workload, %source, %destination, port, %protocol, %first_seen, count, ?decision, enforced,
            "violation, {}",
            violation.finding()
        );
    }
    complain(live.record(&violations).await);
    if let Some(proposals) = proposals {
        complain(live.put_proposals(&proposals).await);
    }

    let repaired = |policy: &NetworkPolicy, why: Why, uid: Option<String>| {
        if matches!(why, Why::Edited | Why::Deleted)
            && let Some(workload) = owned_workload(policy)
        {
            let note = format!("{}: {}", PolicyName::of(policy), why.as_done());
            live.tell(vec![Notice::new(&workload, uid, Happening::DriftRepaired, note)]);
        }
    };
    let put = futures::stream::iter(put).map(
        async |PolicyStep {
                   desired,
                   why,
                   segment_uid,
               }| {
            let name = PolicyName::of(&desired);
            match live.put_policy(&desired).await {
                Ok(policy) => {
                    tracing::info!(policy = %name, "{}", why.as_done());
                    repaired(&desired, why, segment_uid);
                    Event::Policy(Box::new(policy))
                }
                Err(error) => failed(ObjectId::Policy(name), &error),
            }
        },
    );
    events.extend(put.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);

    let segments = futures::stream::iter(segments).map(async |write| {
        let id = ObjectId::Segment(write.segment.segment_name());
        match live.put_segment(&write).await {
            Ok(segment) => Event::Segment(Box::new(segment)),
            Err(error) => failed(id, &error),
        }
    });
    events.extend(segments.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);
    identify(&mut notices, &events);
    live.tell(notices);

    let remove = futures::stream::iter(remove).map(async |(policy, reason)| {
        let name = PolicyName::of(&policy);
        match live.remove_policy(&policy).await {
            Ok(()) => {
                tracing::info!(policy = %name, reason, "policy removed");
                Event::PolicyGone(name)
            }
            Err(error) => failed(ObjectId::Policy(name), &error),
        }
    });
    events.extend(remove.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);

    for segment in forget {
        let name = segment.segment_name();
        events.push(match live.remove_segment(&segment).await {
            Ok(()) => {
                tracing::info!(segment = %name, "Segment removed, its workload is gone");
                Event::SegmentGone(name)
            }
            Err(error) => failed(ObjectId::Segment(name), &error),
        });
    }
    events
}

/// A Segment that was made just now has a UID since then, and its Events are found by that.
fn identify(notices: &mut [Notice], events: &[Event]) {
    let uids: BTreeMap<SegmentName, &String> = events
        .iter()
        .filter_map(|event| match event {
            Event::Segment(segment) => Some((segment.segment_name(), segment.metadata.uid.as_ref()?)),
            _ => None,
        })
        .collect();
    for notice in notices.iter_mut().filter(|notice| notice.uid.is_none()) {
        notice.uid = uids.get(&notice.segment).copied().cloned();
    }
}

fn complain(outcome: Result<(), WriteError>) {
    if let Err(error) = outcome {
        tracing::warn!("{}", chain(&error));
    }
}

fn failed(id: ObjectId, error: &WriteError) -> Event {
    let reason = chain(error);
    tracing::warn!(object = %id, "{reason}");
    let refused = error.is_refusal();
    Event::Failed { id, reason, refused }
}
