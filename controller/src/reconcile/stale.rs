//! What of the last round's thinking does not hold any more. What still holds is not thought again: on a large cluster a round about
//! everything takes seconds, and one about a new flow is to take milliseconds.

use std::collections::BTreeSet;

use nanoseg_graph::cluster::Object;
use nanoseg_graph::endpoint::{ServiceName, Workload};
use nanoseg_graph::flow::{FlowTable, Report};
use nanoseg_graph::resolve::Changes;

use super::Core;

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
    /// What follows from these.
    Parts(Box<Parts>),
}

/// What has changed, and nothing else that resolving, judging, proposing and verifying depends on.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// What reports said.
    pub(super) heard: Changes,
    /// More was lost.
    pub(super) losses: bool,
    /// Nodes of which it has changed whether their pods are watched, or by what.
    pub(super) nodes: BTreeSet<String>,
    /// Nodes that came, changed or went: what is proposed of connections with one is to be proposed again.
    pub(super) turned: BTreeSet<String>,
    /// Workloads that are to be judged again.
    pub(super) workloads: BTreeSet<Workload>,
    /// Workloads of which a pod came, changed or went that others are like.
    pub(super) replicas: BTreeSet<Workload>,
    /// Services whose slices have changed.
    pub(super) services: BTreeSet<ServiceName>,
    /// Namespaces whose proposals are to be verified again.
    pub(super) namespaces: BTreeSet<String>,
    /// Namespaces in which labels may select others than before: what is proposed there, and to whom talks to somebody there, is to be
    /// proposed again.
    pub(super) peopled: BTreeSet<String>,
}

impl Parts {
    fn is_nothing(&self) -> bool {
        let Self {
            heard,
            losses,
            nodes,
            turned,
            workloads,
            replicas,
            services,
            namespaces,
            peopled,
        } = self;
        let nobody = nodes.is_empty() && turned.is_empty() && workloads.is_empty() && replicas.is_empty();
        let nothing_else = services.is_empty() && namespaces.is_empty() && peopled.is_empty();
        heard.is_empty() && !losses && nobody && nothing_else
    }
}

impl Default for Stale {
    fn default() -> Self {
        Self::Parts(Box::default())
    }
}

impl Stale {
    /// Whether nothing is to be thought again.
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Self::All => false,
            Self::Parts(parts) => parts.is_nothing(),
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
        let Self::Parts(parts) = self else { return };
        let lacks = table.lacks(report);
        parts.losses |= lacks.losses;
        // With its first report somebody watches the pods of a node.
        if lacks.capture.is_some() || !table.knows(&report.origin) {
            parts.nodes.insert(report.origin.node.clone());
        }
        parts.heard.note(report, lacks, table);
        if parts.heard.len() > FOLLOWED {
            *self = Self::All;
        }
    }

    /// A workload is to be judged again.
    pub(super) fn judge(&mut self, workload: &Workload) {
        if let Self::Parts(parts) = self {
            parts.workloads.insert(workload.clone());
        }
    }

    /// The pods of these nodes are watched by others, or not any more.
    pub(super) fn watched(&mut self, nodes: impl IntoIterator<Item = String>) {
        if let Self::Parts(parts) = self {
            parts.nodes.extend(nodes);
        }
    }

    /// People's policies of a namespace have changed.
    pub(super) fn verify(&mut self, namespace: &str) {
        if let Self::Parts(parts) = self {
            parts.namespaces.insert(namespace.to_owned());
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
