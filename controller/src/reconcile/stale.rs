//! What of the last round's thinking does not hold any more. What still holds is not thought again: on a large cluster a round about
//! everything takes seconds, and one about a new flow is to take milliseconds.

use std::collections::BTreeSet;

use nanoseg_graph::cluster::{Object, Pod};
use nanoseg_graph::endpoint::Workload;
use nanoseg_graph::flow::{FlowTable, Report};
use nanoseg_graph::resolve::Changes;

use super::{Core, ObjectId};

/// Flows that are followed one by one at most: more are resolved faster with everything else.
const FOLLOWED: usize = 20_000;

/// What a round has to do, and so how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Compare what is with what is to be.
    Plan,
    /// Think about some workloads before.
    Think,
    /// Think about everything.
    ThinkAll,
}

/// What is to be thought again.
#[derive(Debug)]
pub(super) enum Stale {
    /// Everything.
    All,
    /// What follows from these flows, and these workloads.
    Parts(Changes, BTreeSet<Workload>),
}

impl Default for Stale {
    fn default() -> Self {
        Self::Parts(Changes::default(), BTreeSet::new())
    }
}

impl Stale {
    /// Whether nothing is to be thought again.
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Self::All => false,
            Self::Parts(flows, workloads) => flows.is_empty() && workloads.is_empty(),
        }
    }

    /// What a round has to do then.
    pub(super) fn work(&self) -> Work {
        match self {
            Self::All => Work::ThinkAll,
            Self::Parts(..) if self.is_nothing() => Work::Plan,
            Self::Parts(..) => Work::Think,
        }
    }

    /// Takes note of a report that `table` is about to take in.
    pub(super) fn hear(&mut self, report: &Report, table: &FlowTable) {
        if let Self::Parts(flows, _) = self {
            flows.note(report, table);
            if table.lacks_beside_flows(report) || flows.len() > FOLLOWED {
                *self = Self::All;
            }
        }
    }

    /// A workload is to be judged again.
    pub(super) fn judge(&mut self, workload: &Workload) {
        if let Self::Parts(_, workloads) = self {
            workloads.insert(workload.clone());
        }
    }
}

impl Core {
    /// Whether it is known as it is.
    pub(super) fn is_known(&self, object: &Object) -> bool {
        match object {
            Object::Pod(pod) => self.cluster.pod(&pod.namespace, &pod.name) == Some(pod),
            Object::Controller(owner) => {
                self.cluster.controller(&owner.namespace, &owner.kind, &owner.name) == Some(owner)
            }
            Object::Service(service) => self.cluster.service(&service.name) == Some(service),
            Object::EndpointSlice(slice) => self.cluster.slices_of(&slice.service).any(|known| known == slice),
            Object::Node(node) => self.cluster.node(&node.name) == Some(node),
            Object::Namespace(namespace) => self.cluster.namespaces().any(|known| known == namespace),
        }
    }

    /// The workload of a pod that is known and has come to be ready, or not to be, and nothing else. That is what pods do most, and only
    /// what is said of their own workload depends on it.
    pub(super) fn only_turned(&self, object: &Object) -> Option<Workload> {
        let Object::Pod(pod) = object else { return None };
        let known = self.cluster.pod(&pod.namespace, &pod.name)?;
        let turned = Pod {
            ready: pod.ready,
            ..known.clone()
        };
        (turned == *pod).then(|| self.cluster.workload_of(known))
    }
}

/// Which workloads a round is about.
#[derive(Debug)]
pub(super) enum About {
    /// Everyone.
    All,
    /// These.
    These(BTreeSet<Workload>),
}

impl About {
    /// Whether it is about this one.
    pub(super) fn is(&self, workload: &Workload) -> bool {
        match self {
            Self::All => true,
            Self::These(workloads) => workloads.contains(workload),
        }
    }
}

/// Objects of which something was heard since the last plan.
#[derive(Debug, Default)]
pub(super) struct Heard(BTreeSet<ObjectId>);

impl Heard {
    pub(super) fn of(&mut self, id: ObjectId) {
        self.0.insert(id);
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, id: &ObjectId) -> bool {
        self.0.contains(id)
    }
}
