//! The pods of the workloads that are learned, and whether a learner watches them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use nanoseg_graph::cluster::{Pod, PodPhase};
use nanoseg_graph::endpoint::Workload;
use nanoseg_graph::flow::CaptureVersion;

use super::Core;
use super::stale::About;
use crate::lifecycle::pods::Member;

/// The label that tells pods of one revision from another's where no object of their own does.
const REVISION: &str = "controller-revision-hash";

impl Core {
    /// Pods of every workload that is learned and that the round is about. One pass over the pods of its namespaces: there may be a
    /// hundred thousand.
    pub(super) fn members(&self, about: &About, now: Timestamp) -> BTreeMap<Workload, Vec<Member>> {
        let learned = self
            .subjects
            .iter()
            .filter(|(workload, subject)| subject.life.frozen_at.is_none() && about.is(workload));
        let learned: BTreeSet<&Workload> = learned.map(|(workload, _)| workload).collect();
        if learned.is_empty() {
            return BTreeMap::new();
        }
        let namespaces: BTreeSet<&str> = learned.iter().map(|workload| workload.namespace.as_str()).collect();
        let watched: BTreeMap<&str, Option<&CaptureVersion>> = self
            .flows
            .nodes()
            .filter(|node| !self.learners.is_away(node, now))
            .map(|node| (node, self.flows.capture(node)))
            .collect();
        let mut members: BTreeMap<Workload, Vec<Member>> = BTreeMap::new();
        let mut add = |pod: &Pod, workload: Workload| {
            if learned.contains(&workload) {
                let member = member(pod, &workload, &watched);
                members.entry(workload).or_default().push(member);
            }
        };
        for pod in namespaces
            .into_iter()
            .flat_map(|namespace| self.cluster.pods_in(namespace))
        {
            add(pod, self.cluster.workload_of(pod));
        }
        // A run that has ended may be deleted at once, and was one.
        if learned.iter().any(|workload| workload.kind == "CronJob") {
            for pod in self.cluster.gone_pods().filter(|pod| pod.phase == PodPhase::Finished) {
                let workload = self.cluster.workload_of(pod);
                if workload.kind == "CronJob" {
                    add(pod, workload);
                }
            }
        }
        members
    }
}

fn member(pod: &Pod, workload: &Workload, watched: &BTreeMap<&str, Option<&CaptureVersion>>) -> Member {
    let revision = match workload.kind.as_str() {
        // Each of their ReplicaSets is a revision.
        "Deployment" | "Rollout" => pod.owner.as_ref().map(|owner| owner.name.as_str().into()),
        "StatefulSet" | "DaemonSet" => pod.labels.get(REVISION).map(|hash| hash.as_str().into()),
        _ => None,
    };
    let learner = pod.node.as_ref().and_then(|node| watched.get(&**node));
    Member {
        uid: Arc::clone(&pod.uid),
        name: Arc::clone(&pod.name),
        revision,
        node: pod.node.clone(),
        is_ready: pod.ready,
        is_finished: pod.phase == PodPhase::Finished,
        started: pod.started,
        is_watched: learner.is_some(),
        capture: learner.and_then(|capture| (*capture).cloned()),
    }
}
