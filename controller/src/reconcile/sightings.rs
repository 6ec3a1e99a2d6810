//! What is known beside the graph when a workload is judged: what was lost of it, and how often an edge can be expected.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use nanoseg_graph::connection::{EdgeKey, EvidenceRef};
use nanoseg_graph::endpoint::Workload;
use nanoseg_graph::flow::{LossReason, Subject};

use super::Core;
use crate::lifecycle::guard::{START_UP, Sighting};
use crate::segment::Sightings;

impl Core {
    /// How much was lost of each workload: what its containers' learners say, and what they cannot tell whose it was.
    pub(super) fn losses(&self) -> BTreeMap<Workload, u64> {
        let mut losses: BTreeMap<Workload, u64> = BTreeMap::new();
        let mut lose = |workload: &Workload, count: u64| {
            if let Some(total) = losses.get_mut(workload) {
                *total = total.saturating_add(count);
            } else {
                losses.insert(workload.clone(), count);
            }
        };
        let mut of_nodes: BTreeMap<&str, u64> = BTreeMap::new();
        for (origin, subject, reason, count) in self.flows.losses() {
            match (reason, subject) {
                // No NetworkPolicy is about other transports, and none about the node's own processes.
                (LossReason::OtherTransport, _) | (_, Some(Subject::Host(_))) => {}
                (_, Some(Subject::Container(container))) => {
                    if let Some(pod) = self.cluster.pod_by_uid(&container.pod_uid) {
                        lose(&self.cluster.workload_of(pod), count);
                    }
                }
                (_, None | Some(Subject::Unknown(_))) => {
                    let of_node = of_nodes.entry(&origin.node).or_default();
                    *of_node = of_node.saturating_add(count);
                }
            }
        }
        if of_nodes.is_empty() {
            return losses;
        }
        let mut workloads: BTreeMap<&str, BTreeSet<Workload>> = BTreeMap::new();
        for pod in self.cluster.pods() {
            if let Some(node) = pod.node.as_deref().filter(|node| of_nodes.contains_key(node)) {
                workloads.entry(node).or_default().insert(self.cluster.workload_of(pod));
            }
        }
        for (node, workloads) in workloads {
            for workload in &workloads {
                lose(workload, of_nodes.get(node).copied().unwrap_or_default());
            }
        }
        losses
    }

    /// When the pods of each workload were started that tried something once, gone ones included.
    pub(super) fn starts(&self, edges: &[(EdgeKey, EvidenceRef<'_>)]) -> BTreeMap<Workload, Vec<Timestamp>> {
        let once = edges.iter().filter(|(_, evidence)| Sightings::of(*evidence).count == 1);
        let sources = once.filter_map(|(key, _)| key.source.workload());
        let sources = sources.filter(|workload| !is_job(workload));
        let mut starts: BTreeMap<Workload, Vec<Timestamp>> =
            sources.map(|workload| (workload.clone(), Vec::new())).collect();
        if starts.is_empty() {
            return starts;
        }
        let namespaces: BTreeSet<String> = starts.keys().map(|workload| workload.namespace.clone()).collect();
        let live = namespaces.iter().flat_map(|namespace| self.cluster.pods_in(namespace));
        let gone = self.cluster.gone_pods();
        for pod in live.chain(gone.filter(|pod| namespaces.contains(&*pod.namespace))) {
            if let Some(started) = pod.started
                && let Some(starts) = starts.get_mut(&self.cluster.workload_of(pod))
            {
                starts.push(started);
            }
        }
        starts
    }

    pub(super) fn sighting<'a>(
        &self,
        key: &'a EdgeKey,
        evidence: EvidenceRef<'_>,
        starts: &BTreeMap<Workload, Vec<Timestamp>>,
    ) -> Sighting<'a> {
        let Sightings { first_seen, count, .. } = Sightings::of(evidence);
        let (first_seen, attempts) = (first_seen.unwrap_or(Timestamp::MAX), count);
        let just_started = |workload: &Workload| {
            let starts = starts.get(workload).into_iter().flatten();
            starts.into_iter().any(|started| {
                let age = first_seen.duration_since(*started);
                !age.is_negative() && age <= START_UP
            })
        };
        let once_is_enough = attempts == 1
            && key
                .source
                .workload()
                .is_some_and(|workload| is_job(workload) || just_started(workload));
        Sighting {
            key,
            first_seen,
            attempts,
            answered: self.guide.synthesis.in_baseline(key.as_edge(), evidence),
            once_is_enough,
        }
    }
}

fn is_job(workload: &Workload) -> bool {
    matches!(workload.kind.as_str(), "Job" | "CronJob")
}
