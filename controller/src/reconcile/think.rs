//! From what was observed to what each workload is to get: resolve, judge, propose, verify.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::Pod;
use nanoseg_graph::connection::{ConnectionGraph, Edge, EdgeKey, Evidence, EvidenceRef};
use nanoseg_graph::endpoint::{Endpoint, Workload};
use nanoseg_graph::flow::{Origin, Tally, Transport};
use nanoseg_graph::resolve::Resolution;
use nanoseg_policy::audit::{self, Audit, audit};
use nanoseg_policy::cluster_policy::ClusterNetworkPolicy;
use nanoseg_policy::evaluate::PolicySet;
use nanoseg_policy::identity::Proof;
use nanoseg_policy::ownership::{PolicyName, is_owned};
use nanoseg_policy::synthesize::{Proposal, Surroundings, Synthesizer};
use nanoseg_policy::verify::{Candidate, Others, Violation as Fault, accept};

use super::memory::Subject;
use super::stale::{About, Parts, Stale};
use super::status::yaml;
use super::{Core, Happening, News, Proposals, Violation, Writes, wanted_mode};
use crate::lifecycle::guard::suspicions;
use crate::lifecycle::novel::Novel;
use crate::lifecycle::trial::Finding;
use crate::lifecycle::{Life, Seen, Stance};
use crate::segment::{Baseline, Decision, Known, LISTED_CAPTURES, Sightings, Suspicion, hash_of_text, name_of};

impl Core {
    pub(super) fn think(&mut self, now: Timestamp, writes: &mut Writes) {
        let about = self.resolve(now);
        let violations = self.judge(&about, now, writes);
        let proposals = self.propose();
        self.verify(&about);
        writes.violations = self.verdicts(violations, now);
        for violation in &writes.violations {
            let Violation {
                workload,
                edge,
                decision,
                ..
            } = violation;
            if let Some(subject) = self.subjects.get_mut(workload) {
                subject.life.decide(edge, *decision);
                subject.is_planned = false;
                let note = violation.to_string();
                writes
                    .notices
                    .push(subject.notice(workload, Happening::Violation, note));
            }
        }
        writes.proposals = proposals;
    }

    /// Takes in what has changed since the last round. Returns the workloads that it matters to.
    fn resolve(&mut self, now: Timestamp) -> About {
        let followed = match std::mem::take(&mut self.stale) {
            Stale::Parts(parts) if self.is_enough(&parts) => self
                .resolution
                .follow(&parts.heard, &self.flows, &self.cluster)
                .map(|touched| (touched, parts)),
            Stale::Parts(_) | Stale::All => None,
        };
        let Some((touched, parts)) = followed else {
            self.resolution = Resolution::of(&self.flows, &self.cluster);
            self.losses = self.losses();
            self.surroundings = None;
            return About::All;
        };
        let Parts {
            heard,
            losses,
            nodes,
            turned,
            mut workloads,
            replicas,
            services: _,
            namespaces,
            peopled,
        } = *parts;
        let graph = self.resolution.graph();
        // Whether an edge is suspicious depends on what else its source does, and on when its pods were started.
        let mut sources: BTreeSet<Endpoint> = replicas.iter().cloned().map(Endpoint::Workload).collect();
        for (source, destination) in touched {
            workloads.extend(destination.workload().cloned());
            sources.insert(source);
        }
        for source in &sources {
            workloads.extend(source.workload().cloned());
            if let Some(index) = graph.index_of(source) {
                let others = graph.outgoing(index).map(|(_, edge, _)| edge.destination);
                workloads.extend(others.filter_map(Endpoint::workload).cloned());
            }
        }
        if losses {
            let before = std::mem::take(&mut self.losses);
            self.losses = self.losses();
            let lost = self.losses.iter();
            let lost = lost.filter(|(workload, count)| before.get(*workload) != Some(count));
            workloads.extend(lost.map(|(workload, _)| workload.clone()));
        }
        if !nodes.is_empty() {
            let is_on_one = |pod: &&Pod| pod.node.as_ref().is_some_and(|node| nodes.contains(&**node));
            // A run that has ended may be deleted before its node is watched.
            let pods = self.cluster.pods().chain(self.cluster.gone_pods()).filter(is_on_one);
            workloads.extend(pods.map(|pod| self.cluster.workload_of(pod)));
        }
        if !namespaces.is_empty() || !replicas.is_empty() {
            for (workload, subject) in &mut self.subjects {
                // What is refused is told by the pods that it is refused for.
                let names_pods = !replicas.is_empty() && matches!(subject.checked, Some(Err(_)));
                subject.is_outdated |= names_pods || namespaces.contains(&workload.namespace);
            }
        }
        if !peopled.is_empty() {
            self.surroundings = None;
            let is_there = |end: &Endpoint| match end {
                Endpoint::Workload(workload) => peopled.contains(&workload.namespace),
                Endpoint::Service(service) => peopled.contains(&service.namespace),
                Endpoint::Node(_) | Endpoint::External(_) | Endpoint::Unknown { .. } => false,
            };
            for (workload, subject) in &mut self.subjects {
                subject.is_outdated |= peopled.contains(&workload.namespace) || subject.has_end(is_there);
            }
        }
        if !turned.is_empty() {
            self.surroundings = None;
            let is_one = |end: &Endpoint| matches!(end, Endpoint::Node(name) if turned.contains(name));
            for subject in self.subjects.values_mut() {
                subject.is_outdated |= subject.has_end(is_one);
            }
        }
        if heard.has_moved() {
            // What a Service leads to is told by its slices, which may be known before whom they name.
            let cluster = &self.cluster;
            let leads_elsewhere =
                |end: &Endpoint| matches!(end, Endpoint::Service(service) if heard.has_moved_behind(service, cluster));
            for subject in self.subjects.values_mut() {
                subject.is_outdated |= subject.has_end(leads_elsewhere);
            }
        }
        let waited = |subject: &Subject| subject.think_at.is_some_and(|at| at <= now);
        let due = self.subjects.iter().filter(|(_, subject)| waited(subject));
        workloads.extend(due.map(|(workload, _)| workload.clone()));
        About::These(workloads)
    }

    /// Judges each workload by its own window. Returns the edges that are novel.
    fn judge(&mut self, about: &About, now: Timestamp, writes: &mut Writes) -> Vec<(Workload, EdgeKey)> {
        let edges = edges_of(self.resolution.graph(), about);
        let starts = self.starts(&edges);
        let sightings = edges
            .iter()
            .map(|(key, evidence)| self.sighting(key, *evidence, &starts));
        let suspicions = suspicions(sightings);
        let mut seen = by_workload(&edges, about, &suspicions, self.resolution.graph());
        for (workload, edges) in &seen {
            let name = name_of(workload);
            if !self.subjects.contains_key(workload)
                && !self.unreadable.contains_key(&name)
                && edges.iter().any(|seen| seen.suspicion != Some(Suspicion::Unanswered))
                && self.cluster.has_workload(workload)
            {
                self.segments.insert(name, workload.clone());
                let subject = Box::new(Subject::new(Life::begin(now), None));
                self.subjects.insert(workload.clone(), subject);
            }
        }

        let mut members = self.members(about, now);
        let mut violations = Vec::new();
        let mut learned: BTreeMap<Arc<EdgeKey>, Known> = BTreeMap::new();
        let is_internal =
            |address| self.cluster.is_cluster_address(address) || !self.cluster.owners_of(address, now, now).is_empty();
        let subjects = self.subjects.iter_mut().filter(|(workload, _)| about.is(workload));
        for (workload, subject) in subjects {
            subject.is_planned = false;
            subject.think_at = None;
            let mode = wanted_mode(&self.cluster, workload, subject.segment.as_ref());
            if subject.life.mode != mode {
                subject.life.set_mode(mode, now);
            }
            subject
                .life
                .lose(self.losses.get(workload).copied().unwrap_or_default(), now);
            let exists = self.cluster.has_workload(workload);
            subject.gone_since = if exists { None } else { subject.gone_since.or(Some(now)) };
            subject.is_outdated |= matches!(about, About::All);
            let timing = self
                .guide
                .rules
                .timing(&workload.namespace, subject.window(), self.started);
            let until = match self.guide.rules.stance(&workload.namespace, subject.life.mode) {
                Stance::Off => {
                    subject.life.switch_off(now);
                    subject.baseline = Arc::default();
                    subject.is_outdated = true;
                    subject.unanswered = 0;
                    continue;
                }
                Stance::Learn => None,
                Stance::Propose(_) | Stance::Audit | Stance::Enforce => Some(timing),
            };
            if !exists {
                continue;
            }
            let ready = Life::ready_at(timing);
            let members = members.remove(workload).unwrap_or_default();
            subject.life.look(&workload.kind, &members, ready, now);
            if subject.life.frozen_at.is_none() && ready > now {
                subject.think_at = Some(ready);
            }
            let edges = seen.remove(workload).unwrap_or_default();
            let was_frozen = subject.life.frozen_at.is_some();
            let judgement = subject.life.judge(edges, &subject.baseline, until, is_internal, now);
            for (key, known) in judgement.baseline.iter() {
                if !subject.baseline.contains_key(key) {
                    learned.entry(Arc::clone(key)).or_default().extend(known.clone());
                }
            }
            if was_frozen && subject.life.frozen_at.is_none() {
                // Pods are looked at while a workload is learned: this round did not yet.
                self.stale.judge(workload);
            }
            if judgement.froze {
                // What waits for a person is outside of a baseline that is frozen, and is told by the next round.
                self.stale.judge(workload);
                self.news.push(News::Frozen(workload.clone(), judgement.baseline.len()));
            }
            if subject.life.frozen_at.is_none() && !judgement.baseline.is_empty() && until.is_some() {
                subject.think_at = earlier(subject.think_at, subject.life.wakes_at(timing));
            }
            violations.extend(judgement.violations.into_iter().map(|key| (workload.clone(), key)));
            subject.unanswered = judgement.unanswered;
            subject.is_outdated |= !means_the_same(&subject.baseline, &judgement.baseline);
            subject.baseline = judgement.baseline;
            if until.is_some() {
                let Finding { failed, again } = subject.watch(self.resolution.graph(), ready, now);
                subject.think_at = earlier(subject.think_at, again);
                if let (Some(key), Some(rollback)) = (failed, &subject.rollback) {
                    let note = format!("{} was not answered any more with the policy live", rollback.edge);
                    writes
                        .notices
                        .push(subject.notice(workload, Happening::RolledBack, note));
                    self.news.push(News::RolledBack(workload.clone(), key));
                }
            }
        }
        self.look_for_learners(now);
        // One edge joins two baselines, and is told once.
        let learned = learned.into_iter().map(|(key, known)| News::EdgeLearned(key, known));
        self.news.splice(0..0, learned);
        violations
    }

    /// Makes the policy of each workload whose baseline has changed. Returns all of them if any of them changed.
    fn propose(&mut self) -> Option<Proposals> {
        if !self.subjects.values().any(|subject| subject.is_outdated) {
            return None;
        }
        let surroundings = self
            .surroundings
            .get_or_insert_with(|| Surroundings::new(&self.cluster, &self.accepted));
        let synthesizer = Synthesizer::within(surroundings, &self.cluster, &self.accepted);
        let mut changed = Vec::new();
        let mut any = false;
        let outdated = self.subjects.iter_mut().filter(|(_, subject)| subject.is_outdated);
        for (workload, subject) in outdated {
            // A workload that is gone leaves its labels to whoever comes after it.
            let identity = synthesizer.identity(workload).filter(|_| subject.gone_since.is_none());
            let selector = match identity.map(|identity| (&identity.proof, &identity.labels)) {
                Some((Proof::Exact, labels)) => Some(Arc::clone(labels)),
                // Who puts them on as well must not end thereby that they are guarded.
                Some((Proof::Overlaps { .. }, _)) => subject.selector.clone(),
                Some((Proof::NoLabels { .. }, _)) | None => None,
            };
            let wanted = subject.gone_since.is_none() && !subject.baseline.is_empty();
            let proposal = wanted.then(|| synthesizer.propose(workload, &graph_of(&subject.baseline)));
            let policy = |proposal: &Option<Result<Proposal, _>>| match proposal {
                Some(Ok(proposal)) => Some(proposal.policy.clone()),
                Some(Err(_)) | None => None,
            };
            let (earlier, current) = (policy(&subject.proposal), policy(&proposal));
            if earlier != current {
                any = true;
                subject.proposal_hash = current.as_deref().map(|policy| hash_of_text(&yaml(policy)));
                changed.extend(current.as_deref().map(PolicyName::of));
            }
            subject.is_planned &= subject.proposal == proposal && subject.selector == selector;
            subject.proposal = proposal;
            subject.selector = selector;
        }
        any.then(|| Proposals {
            current: self.proposed().map(Arc::clone).collect(),
            changed,
        })
    }

    /// Has the evaluator check every proposal, together with people's own policies, against its baseline. What a policy isolates and
    /// allows are pods of its own namespace, so a changed one is checked together with those of its namespace.
    pub(super) fn verify(&mut self, about: &About) {
        let outdated = self.subjects.iter().filter(|(_, subject)| subject.is_outdated);
        let outdated = outdated.map(|(workload, _)| workload.namespace.clone());
        let namespaces: BTreeSet<String> = outdated.collect();
        let is_checked = |workload: &Workload| match about {
            About::All => true,
            About::These(_) => namespaces.contains(&workload.namespace),
        };
        if matches!(about, About::These(_)) && namespaces.is_empty() {
            return;
        }
        let proposed: Vec<(&Proposal, ConnectionGraph)> = self
            .subjects
            .iter()
            .filter(|(workload, _)| is_checked(workload))
            .filter_map(|(_, subject)| match &subject.proposal {
                Some(Ok(proposal)) => Some((proposal, graph_of(&subject.baseline))),
                Some(Err(_)) | None => None,
            })
            .collect();
        let candidates = proposed
            .iter()
            .map(|(proposal, baseline)| Candidate { proposal, baseline });
        let network: Vec<NetworkPolicy> = self.foreign().cloned().collect();
        let cluster: Vec<ClusterNetworkPolicy> = self.cluster_policies.values().cloned().collect();
        let others = Others {
            network: &network,
            cluster: &cluster,
        };
        let mut verdicts = accept(candidates, others, &self.cluster, &self.accepted);
        let checked = self.subjects.iter_mut().filter(|(workload, _)| is_checked(workload));
        for (workload, subject) in checked {
            subject.is_outdated = false;
            let checked = verdicts.remove(workload).map(|verdict| {
                // One edge that would be cut is reason enough, and one sentence.
                let sentence = |violations: Vec<Fault>| match violations.first() {
                    Some(cut @ Fault::Cut { .. }) => format!("it would cut {}", crate::trouble::chain(cut)),
                    Some(fault) => crate::trouble::chain(fault),
                    None => String::new(),
                };
                verdict.map_err(sentence)
            });
            subject.is_planned &= subject.checked == checked;
            subject.checked = checked;
        }
    }

    /// Asks the evaluator about novel edges: people's policies, and ours as they are proposed.
    fn verdicts(&self, novel: Vec<(Workload, EdgeKey)>, now: Timestamp) -> Vec<Violation> {
        if novel.is_empty() {
            return Vec::new();
        }
        let ends = novel.iter().flat_map(|(_, key)| [&key.source, &key.destination]);
        let namespaces: BTreeSet<&str> = ends
            .filter_map(|end| Some(end.workload()?.namespace.as_str()))
            .collect();
        let at_ends = |policy: &&NetworkPolicy| {
            let namespace = policy.metadata.namespace.as_deref();
            namespaces.contains(namespace.unwrap_or_default())
        };
        let proposed = self.proposed().map(Arc::as_ref).filter(at_ends);
        let (policies, _rejected) =
            PolicySet::parse_all(self.foreign().chain(proposed), self.cluster_policies.values());
        let mut graph = ConnectionGraph::default();
        for (_, key) in &novel {
            graph.insert(key.clone(), &Evidence::default());
        }
        let Audit {
            denied,
            undecided,
            permitted: _,
        } = audit(&graph, &policies, &self.cluster);
        // A flood of edges is of few workloads, and each is found among all pods of its namespace.
        let mut other_captures: BTreeMap<Workload, Vec<String>> = BTreeMap::new();
        for (workload, _) in &novel {
            if !other_captures.contains_key(workload) {
                other_captures.insert(workload.clone(), self.other_captures(workload));
            }
        }
        novel
            .into_iter()
            .map(|(workload, edge)| {
                let finding = denied.iter().find(|finding| finding.edge == edge);
                let open = undecided.iter().find(|(key, _)| *key == edge);
                let (decision, verdict) = match (finding, open) {
                    (Some(audit::Finding { why, .. }), _) => {
                        let why: Vec<String> = why.iter().map(ToString::to_string).collect();
                        (Decision::Denied, format!("denied: {}", why.join("; ")))
                    }
                    (None, Some((_, audit::Why::NoEnds(why)))) => (Decision::Unknown, format!("unknown: {why}")),
                    (None, Some((_, audit::Why::Unknown(why)))) => (Decision::Unknown, format!("unknown: {why}")),
                    (None, None) => (Decision::Allowed, "allowed".to_owned()),
                };
                let subject = self.subjects.get(&workload);
                let novel = subject.and_then(|subject| subject.life.novel().get(&edge));
                let enforced = subject.is_some_and(|subject| subject.applied_hash().is_some());
                let other_captures = other_captures.get(&workload).cloned().unwrap_or_default();
                Violation {
                    at: now,
                    workload,
                    first_seen: novel.map_or(now, |novel| novel.first_seen),
                    count: novel.map_or(0, Novel::told),
                    edge,
                    verdict,
                    decision,
                    enforced,
                    other_captures,
                }
            })
            .collect()
    }

    /// What sees a workload now and is none of what its baseline was learned by, as far as both are known.
    fn other_captures(&self, workload: &Workload) -> Vec<String> {
        let coverage = self
            .subjects
            .get(workload)
            .and_then(|subject| subject.life.pods().coverage());
        let learned_by = coverage.map_or(&[][..], |coverage| &coverage.captures);
        if learned_by.is_empty() {
            return Vec::new();
        }
        let nodes: BTreeSet<&str> = self
            .cluster
            .pods_of(workload)
            .filter_map(|pod| pod.node.as_deref())
            .collect();
        let captures = nodes.into_iter().filter_map(|node| self.flows.capture(node));
        let other: BTreeSet<String> = captures.map(ToString::to_string).collect();
        other
            .into_iter()
            .filter(|capture| !learned_by.contains(capture))
            .take(LISTED_CAPTURES)
            .collect()
    }

    pub(super) fn foreign(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.policies.values().filter(|policy| !is_owned(policy))
    }

    pub(super) fn proposed(&self) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        self.subjects.values().filter_map(|subject| match &subject.proposal {
            Some(Ok(proposal)) => Some(&proposal.policy),
            Some(Err(_)) | None => None,
        })
    }
}

/// Every edge of these workloads, and every other one of its source.
fn edges_of<'a>(graph: &'a ConnectionGraph, about: &About) -> Vec<(EdgeKey, EvidenceRef<'a>)> {
    let policies_can_name = |edge: &(Edge<'_>, EvidenceRef<'_>)| edge.0.transport != Transport::Icmp;
    let owned = |(edge, evidence): (Edge<'_>, _)| (edge.key(), evidence);
    let About::These(workloads) = about else {
        return graph.edges().filter(policies_can_name).map(owned).collect();
    };
    let mut sources = BTreeSet::new();
    for workload in workloads {
        if let Some(index) = graph.index_of(&Endpoint::Workload(workload.clone())) {
            sources.insert(index);
            sources.extend(graph.incoming(index).map(|(source, _, _)| source));
        }
    }
    let outgoing = sources.into_iter().flat_map(|source| graph.outgoing(source));
    let mut edges: Vec<_> = outgoing
        .map(|(_, edge, evidence)| (edge, evidence))
        .filter(policies_can_name)
        .collect();
    edges.sort_by_key(|(edge, _)| *edge);
    edges.into_iter().map(owned).collect()
}

/// What is seen of each workload.
fn by_workload<'a>(
    edges: &'a [(EdgeKey, EvidenceRef<'_>)],
    about: &About,
    suspicions: &BTreeMap<&EdgeKey, Suspicion>,
    graph: &ConnectionGraph,
) -> BTreeMap<Workload, Vec<Seen<'a>>> {
    let mut seen: BTreeMap<Workload, Vec<Seen<'_>>> = BTreeMap::new();
    for (key, evidence) in edges {
        let ends: BTreeSet<&Workload> = [&key.source, &key.destination]
            .into_iter()
            .filter_map(Endpoint::workload)
            .filter(|workload| about.is(workload))
            .collect();
        let sightings = Sightings::of(*evidence);
        for end in ends {
            seen.entry(end.clone()).or_default().push(Seen {
                key,
                known: Known {
                    via: evidence.via.iter().cloned().collect(),
                    seen_at: evidence.reporters().into(),
                    names: graph.names(&key.source, &key.destination).iter().cloned().collect(),
                    sightings,
                },
                suspicion: suspicions.get(key).copied(),
            });
        }
    }
    seen
}

pub(super) fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

/// Whether the same policy follows from both: when and how often edges were seen makes no difference.
fn means_the_same(one: &Baseline, other: &Baseline) -> bool {
    type Entry<'a> = (&'a Arc<EdgeKey>, &'a Known);
    let same = |((one_key, one), (other_key, other)): (Entry<'_>, Entry<'_>)| {
        let Known {
            via,
            seen_at,
            names,
            sightings: _,
        } = one;
        one_key == other_key && *via == other.via && *seen_at == other.seen_at && *names == other.names
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}

/// A baseline as a graph. When and how often is left out: a policy must not depend on it.
fn graph_of(baseline: &Baseline) -> ConnectionGraph {
    let mut graph = ConnectionGraph::default();
    for (key, known) in baseline {
        let Known {
            via,
            seen_at,
            names,
            sightings: _,
        } = known;
        let once = Tally {
            first_seen: Timestamp::UNIX_EPOCH,
            last_seen: Timestamp::UNIX_EPOCH,
            attempted: 1,
            established: 1,
            refused: 0,
            unanswered: 0,
        };
        let nobody = Origin {
            node: String::new(),
            epoch: 0,
        };
        let tallies = seen_at
            .iter()
            .map(|reporter| ((*reporter, nobody.clone()), once))
            .collect();
        graph.insert(
            EdgeKey::clone(key),
            &Evidence {
                tallies,
                via: via.to_set(),
            },
        );
        for name in &**names {
            graph.name(&key.source, &key.destination, name);
        }
    }
    graph
}
