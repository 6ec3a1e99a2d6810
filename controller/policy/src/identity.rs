//! Identity: the stable labels that a workload's replicas share and nobody else's do.
//!
//! Law: the labels of an [`Identity`] whose proof is [`Proof::Exact`] select every pod of the workload and no other pod of
//! the namespace, and no pod that another owner's template there would make; they hold no label that a rollout, a replica or a
//! run changes. Same cluster, same labels; none of the labels added to the owner's own selector can be taken away.

mod scope;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use nanoseg_graph::cluster::{Cluster, Controller, Labels, OwnerRef, Pod, PodPhase};
use nanoseg_graph::endpoint::Workload;

pub use scope::Overlap;
use scope::{Crowd, Scope, Stable, owned};

/// Labels that name one revision, one run or one replica. They are put there by controllers, also into selectors.
const GENERATED: &[&str] = &[
    "apps.kubernetes.io/pod-index",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "pod-template-generation",
    "pod-template-hash",
    "rollouts-pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// Prefix of the labels that name one run of a Job.
const GENERATED_PREFIX: &str = "batch.kubernetes.io/";

/// Labels that people and packagers change with every release. In the selector of a Deployment, `StatefulSet` or `DaemonSet`
/// they cannot change, and are used when nothing else tells two workloads apart (`version: v1` beside `version: v2`).
const RELEASE: &[&str] = &[
    "app.kubernetes.io/version",
    "build",
    "build-id",
    "chart",
    "commit",
    "date",
    "git-commit",
    "git-sha",
    "helm.sh/chart",
    "helm.sh/revision",
    "image-tag",
    "istio.io/rev",
    "release-version",
    "revision",
    "skaffold.dev/run-id",
    "tag",
    "tags.datadoghq.com/version",
    "timestamp",
    "version",
];

/// Prefixes of the labels that say where a pod runs. API servers copy them from the pod's node (`PodTopologyLabels`, since
/// Kubernetes 1.35), so that they are on pods whose template has none, and the next pod may have others.
const PLACE_PREFIXES: [&str; 2] = ["failure-domain.beta.kubernetes.io/", "topology.kubernetes.io/"];

/// Labels that are meant to say who a workload is, the most telling first.
const TELLING: &[&str] = &[
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app",
    "k8s-app",
    "name",
    "component",
    "release",
    "tier",
    "role",
    "app.kubernetes.io/part-of",
];

/// Candidate labels that are tried in every combination, 4096 at most; beyond it one is added after another.
const COMBINED: usize = 12;

/// Owner references that are followed at most: a reference that leads back to itself must end.
const CHAIN: usize = 8;

/// A label that somebody could put on a pod template.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.value)
    }
}

/// How sure it is that a selector means its workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It selects the workload's pods and no others.
    Exact,
    /// No stable labels can tell the workload from these others.
    Overlaps {
        /// The others whose pods it selects as well.
        with: Overlap,
        /// A label which, put on the workload's pod template, would separate it.
        hint: Label,
    },
    /// Its pods have no stable label at all.
    NoLabels {
        /// The others of its namespace, all of whom a selector without labels selects.
        with: Overlap,
        /// A label which, put on the workload's pod template, would identify it.
        hint: Label,
    },
}

/// What replicas of a workload share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The labels; where the proof is not exact, the narrowest there are.
    pub labels: Arc<Labels>,
    /// What they were shown to select.
    pub proof: Proof,
}

/// Where the live pods of a workload are, as far as policies can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Whether one that has not finished has a network of its own.
    pub own_network: bool,
    /// Whether one that has not finished shares its node's network.
    pub host_network: bool,
    /// The nodes of those that share their node's network.
    pub hosts: BTreeSet<String>,
}

/// A workload among others.
#[derive(Clone, Debug)]
struct Described {
    identity: Identity,
    shared: Arc<Labels>,
    placement: Placement,
}

/// Identities of all workloads of a cluster, computed together because each is proven against the others. They are a picture:
/// as long as no pod and no owner changes, they need not be made again.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    workloads: BTreeMap<Workload, Described>,
    scopes: BTreeMap<String, Scope>,
}

impl Identities {
    /// Looks at every pod and every owner once.
    pub fn new(cluster: &Cluster) -> Self {
        let mut members: BTreeMap<Workload, Members<'_>> = BTreeMap::new();
        for controller in cluster.controllers() {
            let workload = top_of(cluster, controller);
            if workload.kind == controller.kind && workload.name == controller.name {
                let of = members.entry(workload).or_default();
                of.selector = Some(&controller.selector);
                of.template = Some(&controller.template_labels);
            } else {
                members.entry(workload).or_default().revisions.push(controller);
            }
        }
        let pods: Vec<&Pod> = cluster.pods().collect();
        // Pods come in the order of their names, so that those of one owner stand together.
        let siblings =
            |one: &&Pod, next: &&Pod| one.owner.is_some() && one.owner == next.owner && one.namespace == next.namespace;
        for run in pods.chunk_by(siblings) {
            if let Some(first) = run.first() {
                members.entry(cluster.workload_of(first)).or_default().pods.extend(run);
            }
        }

        let mut scopes: BTreeMap<String, Scope> = BTreeMap::new();
        let mut described = Vec::new();
        for (workload, members) in members {
            let sets = members.label_sets();
            if !scopes.contains_key(&workload.namespace) {
                scopes.insert(workload.namespace.clone(), Scope::default());
            }
            if members.counts_for_others(&workload)
                && let Some(scope) = scopes.get_mut(&workload.namespace)
            {
                scope.add(&workload, &sets);
            }
            let common = intersection(&sets);
            let known = scopes.get(&workload.namespace).and_then(Scope::latest);
            let shared = known.filter(|known| is(known, &common)).cloned();
            let shared = shared.unwrap_or_else(|| Arc::new(owned(&common)));
            described.push((workload, members, common, shared));
        }
        let mut crowds = Crowds::new();
        let workloads = described.into_iter().map(|(workload, members, common, shared)| {
            let scope = &scopes[&workload.namespace];
            let mut identity = identify(&workload, &members, &common, scope, &mut crowds);
            if identity.labels == shared {
                identity.labels = Arc::clone(&shared);
            }
            let described = Described {
                identity,
                shared,
                placement: members.placement(),
            };
            (workload, described)
        });
        Self {
            workloads: workloads.collect(),
            scopes,
        }
    }

    /// The identity of a workload; `None` when the cluster has no such workload.
    pub fn get(&self, workload: &Workload) -> Option<&Identity> {
        self.workloads.get(workload).map(|described| &described.identity)
    }

    /// Where the pods of a workload are.
    pub fn placement(&self, workload: &Workload) -> Option<&Placement> {
        self.workloads.get(workload).map(|described| &described.placement)
    }

    /// All stable labels that the pods of a workload share: a selector means all of them if it asks for nothing else.
    pub fn shared(&self, workload: &Workload) -> Option<&Labels> {
        self.workloads.get(workload).map(|described| &*described.shared)
    }

    /// Every workload there is and its identity, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&Workload, &Identity)> {
        self.workloads
            .iter()
            .map(|(workload, described)| (workload, &described.identity))
    }

    /// The workloads of a namespace of which at least one pod (that lives, or that a template would make) has these labels.
    pub fn selected(&self, namespace: &str, labels: &Labels) -> BTreeSet<Workload> {
        self.scopes
            .get(namespace)
            .map(|scope| scope.selected(labels))
            .unwrap_or_default()
    }
}

/// Whether a label names a revision, a run or a replica, and so never belongs into a selector of ours.
fn is_generated(key: &str) -> bool {
    key.starts_with(GENERATED_PREFIX) || GENERATED.contains(&key)
}

/// Whether a label changes with a release or with the node by its usual meaning.
fn is_passing(key: &str) -> bool {
    RELEASE.contains(&key) || PLACE_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// The workload that a controller's pods belong to.
fn top_of(cluster: &Cluster, controller: &Controller) -> Workload {
    let namespace = &controller.namespace;
    let mut top = OwnerRef {
        kind: controller.kind.clone(),
        name: controller.name.clone(),
    };
    let mut next = controller.owner.clone();
    for _ in 0..CHAIN {
        let Some(owner) = next else { break };
        next = cluster
            .controller(namespace, &owner.kind, &owner.name)
            .and_then(|above| above.owner.clone());
        top = owner;
    }
    Workload {
        namespace: namespace.clone(),
        kind: top.kind,
        name: top.name,
    }
}

fn stable(labels: &Labels) -> Stable<'_> {
    labels
        .iter()
        .filter(|(key, _)| !is_generated(key))
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

/// What is known of one workload.
#[derive(Debug, Default)]
struct Members<'a> {
    selector: Option<&'a Labels>,
    template: Option<&'a Labels>,
    /// Each `ReplicaSet` of a Deployment, each `Job` of a `CronJob`.
    revisions: Vec<&'a Controller>,
    pods: Vec<&'a Pod>,
}

impl<'a> Members<'a> {
    /// The distinct stable labels of its pods, those that live and those that its template would make. Finished pods and old
    /// revisions speak only where nothing else does.
    fn label_sets(&self) -> BTreeSet<Stable<'a>> {
        let mut sets: BTreeSet<Stable<'a>> = self.template.map(stable).into_iter().collect();
        let mut before = None;
        for pod in self.pods.iter().filter(|pod| pod.phase != PodPhase::Finished) {
            // Replicas have the same labels, most of the time.
            if before != Some(&pod.labels) {
                sets.insert(stable(&pod.labels));
            }
            before = Some(&pod.labels);
        }
        if !sets.is_empty() {
            return sets;
        }
        let finished = self.pods.iter().map(|pod| &*pod.labels);
        finished
            .chain(self.revisions.iter().map(|revision| &*revision.template_labels))
            .map(stable)
            .collect()
    }

    /// A bare pod that has finished never comes back: what it was called must not keep others from being told apart.
    fn counts_for_others(&self, workload: &Workload) -> bool {
        workload.kind != "Pod" || self.pods.iter().any(|pod| pod.phase != PodPhase::Finished)
    }

    fn placement(&self) -> Placement {
        let mut placement = Placement::default();
        for pod in self.pods.iter().filter(|pod| pod.phase != PodPhase::Finished) {
            if pod.host_network {
                placement.host_network = true;
                placement.hosts.extend(pod.node.as_deref().map(str::to_owned));
            } else {
                placement.own_network = true;
            }
        }
        placement
    }

    /// The owner's own selector; a custom owner has none that we know, but what it owns may have one.
    fn own_selector(&self) -> Stable<'a> {
        match self.selector {
            Some(selector) => stable(selector),
            None => self
                .revisions
                .first()
                .map(|revision| stable(&revision.selector))
                .unwrap_or_default(),
        }
    }
}

/// Everybody whom certain labels select, by namespace and labels: where one workload's labels select others, those of others do so too.
type Crowds<'a> = BTreeMap<(String, Stable<'a>), Crowd>;

fn identify<'a>(
    workload: &Workload,
    members: &Members<'a>,
    common: &Stable<'a>,
    scope: &Scope,
    crowds: &mut Crowds<'a>,
) -> Identity {
    let selector = members.own_selector();
    let selecting = |key: &str| selector.get(key) == common.get(key) && selector.contains_key(key);
    let mut base: Stable<'a> = BTreeMap::new();
    let mut usual: Vec<(&str, &str)> = Vec::new();
    let mut fixed: Vec<(&str, &str)> = Vec::new();
    for (key, value) in common {
        match (is_passing(key), selecting(key)) {
            (false, true) => {
                base.insert(key, value);
            }
            (false, false) => usual.push((key, value)),
            (true, true) => fixed.push((key, value)),
            // It changes and nothing holds it: not an identity.
            (true, false) => {}
        }
    }
    usual.sort_by_key(|(key, _)| {
        (
            TELLING
                .iter()
                .position(|telling| telling == key)
                .unwrap_or(TELLING.len()),
            *key,
        )
    });
    // A selector's fixed passing labels come last: they hold, but a person would not expect them.
    let candidates: Vec<_> = usual.iter().chain(&fixed).copied().collect();
    let mut narrowest = base.clone();
    narrowest.extend(candidates.iter().copied());

    let alone = Alone { workload, base, scope };
    if !narrowest.is_empty() && alone.is_with(&candidates) {
        let chosen = if !alone.base.is_empty() && alone.is_with(&[]) {
            Some(alone.base.clone())
        } else {
            alone.separate(&usual).or_else(|| alone.separate(&candidates))
        };
        return Identity {
            labels: Arc::new(owned(&chosen.unwrap_or(narrowest))),
            proof: Proof::Exact,
        };
    }
    let key = (workload.namespace.clone(), narrowest);
    let labels = key.1.clone();
    let crowd = crowds.entry(key).or_insert_with_key(|(_, labels)| scope.crowd(labels));
    let with = crowd.without(scope, workload);
    let proof = if labels.is_empty() {
        let hint = Label {
            key: "app.kubernetes.io/name".to_owned(),
            value: workload.name.clone(),
        };
        Proof::NoLabels { with, hint }
    } else {
        let hint = separating_label(workload, &selector, &labels, scope);
        Proof::Overlaps { with, hint }
    };
    Identity {
        labels: Arc::new(owned(&labels)),
        proof,
    }
}

/// What separates a workload from all others of its namespace.
struct Alone<'a, 'b> {
    workload: &'b Workload,
    base: Stable<'a>,
    scope: &'b Scope,
}

impl<'a> Alone<'a, '_> {
    /// Whether no other has the base labels and these.
    fn is_with(&self, added: &[(&str, &str)]) -> bool {
        let labels = self.base.iter().map(|(key, value)| (*key, *value));
        let mut others = self.scope.others(self.workload, labels.chain(added.iter().copied()));
        others.next().is_none()
    }

    /// The fewest candidates, the most telling first, that leave none of the others; at least one label in all.
    fn separate(&self, candidates: &[(&'a str, &'a str)]) -> Option<Stable<'a>> {
        if candidates.is_empty() || !self.is_with(candidates) {
            return None;
        }
        let added = if candidates.len() <= COMBINED {
            combinations(candidates).find(|added| self.is_with(added))?
        } else {
            self.separate_by_many(candidates)?
        };
        let mut labels = self.base.clone();
        labels.extend(added);
        Some(labels)
    }

    /// One candidate after another, always the one that leaves the fewest.
    fn separate_by_many(&self, candidates: &[(&'a str, &'a str)]) -> Option<Vec<(&'a str, &'a str)>> {
        if let Some(one) = candidates.iter().find(|one| self.is_with(&[**one])) {
            return Some(vec![*one]);
        }
        let labels = self.base.iter().map(|(key, value)| (*key, *value));
        let others: Vec<usize> = self.scope.others(self.workload, labels).collect();
        let remaining = |added: &[(&str, &str)]| -> usize {
            let has_all = |index: &&usize| added.iter().all(|(key, value)| self.scope.has(**index, key, value));
            others.iter().filter(has_all).count()
        };
        let mut added: Vec<(&str, &str)> = Vec::new();
        while added.is_empty() || remaining(&added) > 0 {
            let best = candidates
                .iter()
                .filter(|candidate| !added.contains(candidate))
                .min_by_key(|candidate| {
                    let mut with = added.clone();
                    with.push(**candidate);
                    remaining(&with)
                })?;
            added.push(*best);
        }
        for candidate in added.clone().into_iter().rev() {
            let without: Vec<_> = added.iter().copied().filter(|kept| *kept != candidate).collect();
            if remaining(&without) == 0 && !(without.is_empty() && self.base.is_empty()) {
                added = without;
            }
        }
        Some(added)
    }
}

/// Every non-empty choice, smaller ones first, and among those of one size the earlier candidates first.
fn combinations<'a, 'b>(candidates: &'b [(&'a str, &'a str)]) -> impl Iterator<Item = Vec<(&'a str, &'a str)>> + 'b {
    (1..=candidates.len())
        .flat_map(move |size| {
            std::iter::successors(Some((0..size).collect::<Vec<usize>>()), move |chosen| {
                // The last index that can still move up does, and those behind it follow it closely.
                let moving = (0..size)
                    .rev()
                    .find(|place| chosen[*place] < candidates.len() - size + place)?;
                let mut next = chosen.clone();
                for (offset, index) in next[moving..].iter_mut().enumerate() {
                    *index = chosen[moving] + 1 + offset;
                }
                Some(next)
            })
        })
        .map(move |chosen| chosen.into_iter().map(|index| candidates[index]).collect())
}

/// A label that the workload's template could get and that none of the others with these labels has with this value.
fn separating_label(workload: &Workload, selector: &Stable<'_>, labels: &Stable<'_>, scope: &Scope) -> Label {
    const KEYS: [&str; 3] = [
        "app.kubernetes.io/component",
        "app.kubernetes.io/instance",
        "nanoseg.io/workload",
    ];
    let value = workload.name.as_str();
    let is_taken = |key: &str| {
        let asked = labels.iter().map(|(key, value)| (*key, *value)).chain([(key, value)]);
        scope.others(workload, asked).next().is_some()
    };
    // A label in the owner's selector cannot be changed.
    let free = |key: &&str| !selector.contains_key(key) && !is_taken(key);
    let key = KEYS.into_iter().find(free).unwrap_or("nanoseg.io/workload");
    Label {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

fn intersection<'a>(sets: &BTreeSet<Stable<'a>>) -> Stable<'a> {
    let mut sets = sets.iter();
    let mut common = sets.next().cloned().unwrap_or_default();
    for set in sets {
        common.retain(|key, value| set.get(key) == Some(value));
    }
    common
}

/// Whether these are the same labels.
fn is(labels: &Labels, others: &Stable<'_>) -> bool {
    let others = others.iter().map(|(key, value)| (*key, *value));
    labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .eq(others)
}
