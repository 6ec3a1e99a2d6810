//! From what was observed to what each workload is to get: resolve, judge, propose, verify.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::connection::{ConnectionGraph, EdgeKey, Evidence, EvidenceRef};
use nanoseg_graph::endpoint::{Endpoint, Workload};
use nanoseg_graph::flow::{LossReason, Origin, Subject as FlowSubject, Tally, Transport};
use nanoseg_graph::resolve::resolve;
use nanoseg_policy::audit::{self, Audit, audit};
use nanoseg_policy::cluster_policy::ClusterNetworkPolicy;
use nanoseg_policy::evaluate::PolicySet;
use nanoseg_policy::identity::Proof;
use nanoseg_policy::ownership::{PolicyName, owned_workload};
use nanoseg_policy::synthesize::{Proposal, Synthesizer};
use nanoseg_policy::verify::{Candidate, Others, Violation as Cut, accept};

use super::memory::Subject;
use super::{Core, Happening, News, Proposals, Violation, Writes, wanted_mode};
use crate::lifecycle::guard::{START_UP, Sighting, suspicions};
use crate::lifecycle::novel::Novel;
use crate::lifecycle::trial::Finding;
use crate::lifecycle::{Life, Seen, Stance};
use crate::segment::{Baseline, Decision, Known, Sightings, Suspicion, name_of};

impl Core {
    pub(super) fn think(&mut self, now: Timestamp, writes: &mut Writes) {
        self.graph = resolve(&self.flows, &self.cluster);
        let violations = self.judge(now, writes);
        let proposals = self.propose();
        self.verify();
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
                let note = violation.to_string();
                writes
                    .notices
                    .push(subject.notice(workload, Happening::Violation, note));
            }
        }
        writes.proposals = proposals;
    }

    /// Judges every workload by its own window. Returns the edges that are novel.
    fn judge(&mut self, now: Timestamp, writes: &mut Writes) -> Vec<(Workload, EdgeKey)> {
        let losses = self.losses();
        let edges: Vec<_> = self
            .graph
            .edges()
            // No policy can name it: it is in the graph alone.
            .filter(|(edge, _)| edge.transport != Transport::Icmp)
            .map(|(edge, evidence)| (edge.key(), evidence))
            .collect();
        let sightings = edges.iter().map(|(key, evidence)| self.sighting(key, *evidence));
        let suspicions = suspicions(sightings);
        let mut seen = by_workload(&edges, &suspicions, &self.graph);
        for (workload, edges) in &seen {
            let name = name_of(workload);
            if !self.subjects.contains_key(workload)
                && !self.unreadable.contains_key(&name)
                && edges.iter().any(|seen| seen.suspicion != Some(Suspicion::Unanswered))
                && self.cluster.has_workload(workload)
            {
                self.segments.insert(name, workload.clone());
                self.subjects
                    .insert(workload.clone(), Subject::new(Life::begin(now), None));
            }
        }

        let mut members = self.members(now);
        self.think_at = None;
        let mut violations = Vec::new();
        let mut learned: BTreeMap<EdgeKey, Known> = BTreeMap::new();
        let is_internal =
            |address| self.cluster.is_cluster_address(address) || !self.cluster.owners_of(address, now, now).is_empty();
        for (workload, subject) in &mut self.subjects {
            let mode = wanted_mode(&self.cluster, workload, subject.segment.as_ref());
            if subject.life.mode != mode {
                subject.life.set_mode(mode, now);
            }
            subject
                .life
                .lose(losses.get(workload).copied().unwrap_or_default(), now);
            let exists = self.cluster.has_workload(workload);
            subject.gone_since = if exists { None } else { subject.gone_since.or(Some(now)) };
            let timing = match self.guide.rules.stance(&workload.namespace, subject.life.mode) {
                Stance::Off => {
                    subject.life.switch_off(now);
                    subject.baseline.clear();
                    subject.unanswered = 0;
                    continue;
                }
                Stance::Learn => None,
                Stance::Propose(_) | Stance::Audit | Stance::Enforce => {
                    Some(self.guide.rules.timing(&workload.namespace, self.started))
                }
            };
            if !exists {
                continue;
            }
            let ready = Life::ready_at(self.guide.rules.timing(&workload.namespace, self.started));
            let members = members.remove(workload).unwrap_or_default();
            subject.life.look(&workload.kind, &members, ready, now);
            let edges = seen.remove(workload).unwrap_or_default();
            let judgement = subject.life.judge(edges, &subject.baseline, timing, is_internal, now);
            for (key, known) in &judgement.baseline {
                if !subject.baseline.contains_key(key) {
                    learned.entry(key.clone()).or_default().extend(known.clone());
                }
            }
            if judgement.froze {
                self.news.push(News::Frozen(workload.clone(), judgement.baseline.len()));
            }
            if subject.life.frozen_at.is_none()
                && !judgement.baseline.is_empty()
                && let Some(timing) = timing
            {
                self.think_at = earlier(self.think_at, subject.life.wakes_at(timing));
            }
            violations.extend(judgement.violations.into_iter().map(|key| (workload.clone(), key)));
            subject.unanswered = judgement.unanswered;
            subject.baseline = judgement.baseline;
            if let Some(timing) = timing {
                let Finding { failed, again } = subject.watch(&self.graph, Life::ready_at(timing), now);
                self.think_at = earlier(self.think_at, again);
                if let (Some(key), Some(rollback)) = (failed, &subject.rollback) {
                    let note = format!("{} was not answered any more with the policy live", rollback.edge);
                    writes
                        .notices
                        .push(subject.notice(workload, Happening::RolledBack, note));
                    self.news.push(News::RolledBack(workload.clone(), key));
                }
            }
        }
        if self.subjects.values().any(|subject| subject.life.frozen_at.is_none()) {
            self.think_at = earlier(self.think_at, self.learners.next(now));
        }
        // One edge joins two baselines, and is told once.
        let learned = learned.into_iter().map(|(key, known)| News::EdgeLearned(key, known));
        self.news.splice(0..0, learned);
        violations
    }

    /// How much was lost of each workload: what its containers' learners say, and what they cannot tell whose it was.
    fn losses(&self) -> BTreeMap<Workload, u64> {
        let mut losses: BTreeMap<Workload, u64> = BTreeMap::new();
        let mut lose = |workload: Workload, count: u64| {
            let total = losses.entry(workload).or_default();
            *total = total.saturating_add(count);
        };
        for (origin, subject, reason, count) in self.flows.losses() {
            match (reason, subject) {
                // No NetworkPolicy is about other transports, and none about the node's own processes.
                (LossReason::OtherTransport, _) | (_, Some(FlowSubject::Host(_))) => {}
                (_, Some(FlowSubject::Container(container))) => {
                    if let Some(pod) = self.cluster.pod_by_uid(&container.pod_uid) {
                        lose(self.cluster.workload_of(pod), count);
                    }
                }
                (_, None | Some(FlowSubject::Unknown(_))) => {
                    let pods = self.cluster.pods();
                    let pods = pods.filter(|pod| pod.node.as_deref() == Some(origin.node.as_str()));
                    let workloads: BTreeSet<Workload> = pods.map(|pod| self.cluster.workload_of(pod)).collect();
                    for workload in workloads {
                        lose(workload, count);
                    }
                }
            }
        }
        losses
    }

    fn sighting<'a>(&self, key: &'a EdgeKey, evidence: EvidenceRef<'_>) -> Sighting<'a> {
        let Sightings { first_seen, count, .. } = Sightings::of(evidence);
        let (first_seen, attempts) = (first_seen.unwrap_or(Timestamp::MAX), count);
        let is_job = |workload: &Workload| matches!(workload.kind.as_str(), "Job" | "CronJob");
        let just_started = |workload: &Workload| {
            let gone = self
                .cluster
                .gone_pods()
                .filter(|pod| self.cluster.workload_of(pod) == *workload);
            let pods = self.cluster.pods_of(workload).chain(gone);
            pods.filter_map(|pod| pod.started).any(|started| {
                let age = first_seen.duration_since(started);
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

    /// Makes each workload's policy from its own baseline. Returns all of them if any changed.
    fn propose(&mut self) -> Option<Proposals> {
        let synthesizer = Synthesizer::new(&self.cluster, &self.accepted);
        let mut changed = Vec::new();
        let mut any = false;
        for (workload, subject) in &mut self.subjects {
            // A workload that is gone leaves its labels to whoever comes after it.
            let identity = synthesizer.identity(workload).filter(|_| subject.gone_since.is_none());
            match identity.map(|identity| (&identity.proof, &identity.labels)) {
                Some((Proof::Exact, labels)) => subject.selector = Some(Arc::clone(labels)),
                // Who puts them on as well must not end thereby that they are guarded.
                Some((Proof::Overlaps { .. }, _)) => {}
                Some((Proof::NoLabels { .. }, _)) | None => subject.selector = None,
            }
            let wanted = subject.gone_since.is_none() && !subject.baseline.is_empty();
            let proposal = wanted.then(|| synthesizer.propose(workload, &graph_of(&subject.baseline)));
            let policy = |proposal: &Option<Result<Proposal, _>>| match proposal {
                Some(Ok(proposal)) => Some(proposal.policy.clone()),
                Some(Err(_)) | None => None,
            };
            let (earlier, current) = (policy(&subject.proposal), policy(&proposal));
            if earlier != current {
                any = true;
                changed.extend(current.as_ref().map(PolicyName::of));
            }
            subject.proposal = proposal;
        }
        any.then(|| Proposals {
            current: self
                .proposed()
                .map(|policy| (PolicyName::of(policy), policy.clone()))
                .collect(),
            changed,
        })
    }

    /// Has the evaluator check every proposal, together with people's own policies, against its baseline.
    pub(super) fn verify(&mut self) {
        let proposed: Vec<(&Proposal, ConnectionGraph)> = self
            .subjects
            .values()
            .filter_map(|subject| match &subject.proposal {
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
        for (workload, subject) in &mut self.subjects {
            subject.checked = verdicts.remove(workload).map(|verdict| {
                // One edge that would be cut is reason enough, and one sentence.
                let sentence = |violations: Vec<Cut>| {
                    violations
                        .first()
                        .map(|cut| crate::trouble::chain(cut))
                        .unwrap_or_default()
                };
                verdict.map_err(sentence)
            });
        }
    }

    /// Asks the evaluator about novel edges: people's policies, and ours as they are proposed.
    fn verdicts(&self, novel: Vec<(Workload, EdgeKey)>, now: Timestamp) -> Vec<Violation> {
        if novel.is_empty() {
            return Vec::new();
        }
        let (policies, _rejected) =
            PolicySet::parse_all(self.foreign().chain(self.proposed()), self.cluster_policies.values());
        let mut graph = ConnectionGraph::default();
        for (_, key) in &novel {
            graph.insert(key.clone(), &Evidence::default());
        }
        let Audit {
            denied,
            undecided,
            permitted: _,
        } = audit(&graph, &policies, &self.cluster);
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
                Violation {
                    at: now,
                    workload,
                    first_seen: novel.map_or(now, |novel| novel.first_seen),
                    count: novel.map_or(0, Novel::told),
                    edge,
                    verdict,
                    decision,
                    enforced,
                }
            })
            .collect()
    }

    pub(super) fn foreign(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.policies.values().filter(|policy| owned_workload(policy).is_none())
    }

    pub(super) fn proposed(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.subjects.values().filter_map(|subject| match &subject.proposal {
            Some(Ok(proposal)) => Some(&proposal.policy),
            Some(Err(_)) | None => None,
        })
    }
}

/// What is seen of each workload.
fn by_workload<'a>(
    edges: &'a [(EdgeKey, EvidenceRef<'_>)],
    suspicions: &BTreeMap<&EdgeKey, Suspicion>,
    graph: &ConnectionGraph,
) -> BTreeMap<Workload, Vec<Seen<'a>>> {
    let mut seen: BTreeMap<Workload, Vec<Seen<'_>>> = BTreeMap::new();
    for (key, evidence) in edges {
        let ends: BTreeSet<&Workload> = [&key.source, &key.destination]
            .into_iter()
            .filter_map(Endpoint::workload)
            .collect();
        let sightings = Sightings::of(*evidence);
        for end in ends {
            seen.entry(end.clone()).or_default().push(Seen {
                key,
                known: Known {
                    via: evidence.via.clone(),
                    seen_at: evidence.reporters(),
                    names: graph.names(&key.source, &key.destination).clone(),
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
            key.clone(),
            &Evidence {
                tallies,
                via: via.clone(),
            },
        );
        for name in names {
            graph.name(&key.source, &key.destination, name);
        }
    }
    graph
}
