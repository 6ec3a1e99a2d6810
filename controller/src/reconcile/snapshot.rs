//! What the core knows, copied for whoever looks at it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::connection::ConnectionGraph;
use nanoseg_policy::cluster_policy::ClusterNetworkPolicy;

use super::Core;
use crate::segment::Segment;

/// The core at one moment. It shares nothing with the core, so that whoever looks at it holds up no round.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken.
    pub at: Timestamp,
    /// Sources that were not read whole yet: as long as there are any, the rest is a part.
    pub awaited: Vec<String>,
    /// The cluster's objects.
    pub cluster: Cluster,
    /// Who was seen to connect to whom.
    pub graph: ConnectionGraph,
    /// Live policies, ours and people's.
    pub live: Vec<NetworkPolicy>,
    /// What the policies would be if every proposal were applied: people's own, and our proposals.
    pub proposed: Vec<NetworkPolicy>,
    /// Policies of the cluster.
    pub cluster_policies: Vec<ClusterNetworkPolicy>,
    /// Segments as they were last read back or written.
    pub segments: Vec<Segment>,
}

impl Core {
    /// Copies what is known.
    pub fn snapshot(&self, at: Timestamp) -> Snapshot {
        Snapshot {
            at,
            awaited: self.awaited.iter().map(ToString::to_string).collect(),
            cluster: self.cluster.clone(),
            graph: self.resolution.graph().clone(),
            live: self.policies.values().cloned().collect(),
            proposed: self
                .foreign()
                .chain(self.proposed().map(Arc::as_ref))
                .cloned()
                .collect(),
            cluster_policies: self.cluster_policies.values().cloned().collect(),
            segments: self
                .subjects
                .values()
                .filter_map(|subject| subject.segment.clone())
                .collect(),
        }
    }
}
