//! Writes that are counted on their way. Each also tells that the controller is alive: a large change takes many minutes.

use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::apply::{Live, WriteError};
use crate::health::Health;
use crate::reconcile::{Notice, Proposals, SegmentWrite, Violation};
use crate::segment::Segment;

/// Where writes go, and who counts them.
#[derive(Debug)]
pub struct Counted<'a, L> {
    /// Where they go.
    pub live: &'a L,
    /// Who counts.
    pub health: &'a Health,
}

impl<L> Counted<'_, L> {
    fn count<T>(
        &self,
        object: &'static str,
        action: &'static str,
        outcome: Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        self.health.beat();
        self.health.metrics.wrote(object, action, outcome.is_ok());
        outcome
    }
}

impl<L: Live> Live for Counted<'_, L> {
    async fn put_segment(&self, write: &SegmentWrite) -> Result<Segment, WriteError> {
        self.count("segment", "put", self.live.put_segment(write).await)
    }

    async fn remove_segment(&self, segment: &Segment) -> Result<(), WriteError> {
        self.count("segment", "remove", self.live.remove_segment(segment).await)
    }

    async fn put_policy(&self, desired: &NetworkPolicy) -> Result<NetworkPolicy, WriteError> {
        self.count("policy", "put", self.live.put_policy(desired).await)
    }

    async fn remove_policy(&self, live: &NetworkPolicy) -> Result<(), WriteError> {
        self.count("policy", "remove", self.live.remove_policy(live).await)
    }

    async fn put_proposals(&self, proposals: &Proposals) -> Result<(), WriteError> {
        self.live.put_proposals(proposals).await
    }

    fn tell(&self, notices: Vec<Notice>) {
        self.live.tell(notices);
    }

    async fn record(&self, violations: &[Violation]) -> Result<(), WriteError> {
        self.health.metrics.novel(violations);
        self.live.record(violations).await
    }
}
