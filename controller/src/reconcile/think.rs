//! From what was observed to what each workload is to get: resolve, judge, propose, verify.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::connection::{ConnectionGraph, EdgeKey, Evidence};
use nanoseg_graph::endpoint::{Endpoint, Workload};
use nanoseg_graph::flow::{Origin, Tally};
use nanoseg_graph::resolve::resolve;
use nanoseg_policy::audit::{self, Audit, audit};
use nanoseg_policy::cluster_policy::ClusterNetworkPolicy;
use nanoseg_policy::evaluate::PolicySet;
use nanoseg_policy::ownership::{PolicyName, owned_workload};
use nanoseg_policy::synthesize::{Proposal, Synthesizer};
use nanoseg_policy::verify::{Candidate, Others, Violation as Cut, accept};

use super::memory::Subject;
use super::{Core, News, Proposals, Violation, Writes};
use crate::lifecycle::{Life, Seen, Stance};
use crate::segment::{Baseline, Known, name_of};

impl Core {
    pub(super) fn think(&mut self, now: Timestamp, writes: &mut Writes) {
        self.graph = resolve(&self.flows, &self.cluster);
        let violations = self.judge(now);
        let proposals = self.propose();
        self.verify();
        writes.violations = self.verdicts(violations, now);
        writes.proposals = proposals;
    }

    /// Judges every workload by its own window. Returns the edges that are novel.
    fn judge(&mut self, now: Timestamp) -> Vec<(Workload, EdgeKey)> {
        let mut seen: BTreeMap<Workload, Vec<Seen<'_>>> = BTreeMap::new();
        let edges: Vec<_> = self
            .graph
            .edges()
            .map(|(edge, evidence)| (edge.key(), evidence))
            .collect();
        for (key, evidence) in &edges {
            let ends: BTreeSet<&Workload> = [&key.source, &key.destination]
                .into_iter()
                .filter_map(Endpoint::workload)
                .collect();
            for end in ends {
                let known = Known {
                    via: evidence.via.clone(),
                    seen_at: evidence.reporters(),
                    names: self.graph.names(&key.source, &key.destination).clone(),
                };
                let answered = self.guide.synthesis.in_baseline(key.as_edge(), *evidence);
                seen.entry(end.clone()).or_default().push(Seen { key, known, answered });
            }
        }
        for (workload, edges) in &seen {
            let name = name_of(workload);
            if !self.subjects.contains_key(workload)
                && !self.unreadable.contains_key(&name)
                && edges.iter().any(|seen| seen.answered)
                && self.cluster.has_workload(workload)
            {
                self.segments.insert(name, workload.clone());
                self.subjects
                    .insert(workload.clone(), Subject::new(Life::begin(now), None));
            }
        }

        self.window_ends = None;
        let mut violations = Vec::new();
        let mut learned: BTreeMap<EdgeKey, Known> = BTreeMap::new();
        let is_internal =
            |address| self.cluster.is_cluster_address(address) || !self.cluster.owners_of(address, now, now).is_empty();
        for (workload, subject) in &mut self.subjects {
            let exists = self.cluster.has_workload(workload);
            subject.gone_since = if exists { None } else { subject.gone_since.or(Some(now)) };
            let ends_at = match self.guide.rules.stance(&workload.namespace, subject.life.mode) {
                Stance::Off => {
                    subject.baseline.clear();
                    subject.unanswered = 0;
                    continue;
                }
                Stance::Learn => None,
                Stance::Propose(_) | Stance::Enforce => {
                    let window = self.guide.rules.window(&workload.namespace);
                    Some(subject.life.ends_at(window, self.started))
                }
            };
            if !exists {
                continue;
            }
            let edges = seen.remove(workload).unwrap_or_default();
            let judgement = subject.life.judge(edges, ends_at, is_internal, now);
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
                && let Some(end) = ends_at
            {
                self.window_ends = Some(self.window_ends.map_or(end, |earlier| earlier.min(end)));
            }
            violations.extend(judgement.violations.into_iter().map(|key| (workload.clone(), key)));
            subject.unanswered = judgement.unanswered;
            subject.baseline = judgement.baseline;
        }
        // One edge joins two baselines, and is told once.
        let learned = learned.into_iter().map(|(key, known)| News::EdgeLearned(key, known));
        self.news.splice(0..0, learned);
        violations
    }

    /// Makes each workload's policy from its own baseline. Returns all of them if any changed.
    fn propose(&mut self) -> Option<Proposals> {
        let synthesizer = Synthesizer::new(&self.cluster, &self.accepted);
        let mut changed = Vec::new();
        let mut any = false;
        for (workload, subject) in &mut self.subjects {
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
    fn verify(&mut self) {
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
                let verdict = match (finding, open) {
                    (Some(audit::Finding { why, .. }), _) => {
                        let why: Vec<String> = why.iter().map(ToString::to_string).collect();
                        format!("denied: {}", why.join("; "))
                    }
                    (None, Some((_, audit::Why::NoEnds(why)))) => format!("unknown: {why}"),
                    (None, Some((_, audit::Why::Unknown(why)))) => format!("unknown: {why}"),
                    (None, None) => "allowed".to_owned(),
                };
                let subject = self.subjects.get(&workload);
                let enforced = subject.is_some_and(|subject| subject.applied_hash().is_some());
                Violation {
                    at: now,
                    workload,
                    edge,
                    verdict,
                    enforced,
                }
            })
            .collect()
    }

    fn foreign(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.policies.values().filter(|policy| owned_workload(policy).is_none())
    }

    fn proposed(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.subjects.values().filter_map(|subject| match &subject.proposal {
            Some(Ok(proposal)) => Some(&proposal.policy),
            Some(Err(_)) | None => None,
        })
    }
}

/// A baseline as a graph. When and how often is left out: a policy must not depend on it.
fn graph_of(baseline: &Baseline) -> ConnectionGraph {
    let mut graph = ConnectionGraph::default();
    for (key, Known { via, seen_at, names }) in baseline {
        let once = Tally {
            first_seen: Timestamp::UNIX_EPOCH,
            last_seen: Timestamp::UNIX_EPOCH,
            attempted: 1,
            established: 1,
            refused: 0,
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
