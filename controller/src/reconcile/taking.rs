//! Events, as the core takes them in.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nanoseg_graph::cluster::Object;
use nanoseg_graph::endpoint::Workload;
use nanoseg_policy::ownership::{PolicyName, is_owned, owned_workload};
use nanoseg_policy::synthesize::Plugin;

use super::memory::{Hold, Subject};
use super::stale::Stale;
use super::{Core, Due, Event, News, ObjectId, Source, wanted_mode};
use crate::enforcement::Enforcement;
use crate::lifecycle::Life;
use crate::segment::{Segment, SegmentName, segment_of};

impl Core {
    /// Takes an event in.
    pub fn take(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Object(object) => {
                if !self.is_known(&object) {
                    // Before it is bound to a node nobody speaks for it.
                    let pod = match &object {
                        Object::Pod(pod) if pod.node.is_some() => Some((pod.uid.clone(), pod.mirror_uid.clone())),
                        _ => None,
                    };
                    self.note_object(&object, now);
                    self.cluster.observe(object, now);
                    if let Some((uid, mirror_uid)) = pod {
                        self.release([Some(&uid), mirror_uid.as_deref()], now);
                    }
                }
            }
            Event::ObjectGone(key) => {
                self.note_gone(&key, now);
                self.cluster.remove(&key, now);
            }
            Event::Policy(policy) => self.take_policy(*policy),
            Event::PolicyGone(name) => {
                if let Some(gone) = self.policies.remove(&name) {
                    self.strays.remove(&name);
                    self.policy_changed(&name.namespace, are_theirs_other(Some(&gone), None));
                }
                self.let_go(&ObjectId::Policy(name), true);
            }
            Event::ClusterPolicy(policy) => {
                let name = policy.name();
                let known = self.cluster_policies.get(&name);
                if known.is_none_or(|known| known.spec != policy.spec) {
                    self.blocks.take();
                    self.rethink();
                }
                self.cluster_policies.insert(name, *policy);
            }
            Event::ClusterPolicyGone(name) => {
                if self.cluster_policies.remove(&name).is_some() {
                    self.blocks.take();
                    self.rethink();
                }
            }
            Event::Segment(segment) => self.take_segment(*segment, now),
            Event::SegmentUnreadable { name, reason } => self.leave_out(name, reason),
            Event::SegmentGone(name) => {
                self.unreadable.remove(&name);
                if self.follows {
                    let workload = self.segments.remove(&name);
                    workload.and_then(|workload| self.subjects.remove(&workload));
                } else if let Some(subject) = self
                    .segments
                    .get(&name)
                    .and_then(|workload| self.subjects.get_mut(workload))
                {
                    // What it told is known, and is written again while the workload exists.
                    subject.segment = None;
                }
                self.let_go(&ObjectId::Segment(name), true);
                self.due = Due::Soon;
            }
            Event::Attested(_) | Event::Report(_) | Event::Stream { .. } if self.follows => {}
            Event::Stream { node, stream, open } => self.take_stream(&node, stream, open, now),
            Event::Attested(report) => self.take_attested(report, now),
            Event::Report(report) => self.take_report(&report),
            Event::Enforcement(found) => self.take_enforcement(found.as_deref()),
            Event::Synced(source) => {
                if source == Source::Watch("pods") {
                    self.listed = Some(now);
                }
                if self.awaited.remove(&source) && self.awaited.is_empty() {
                    self.news.push(News::InSync);
                    self.rethink();
                }
            }
            Event::Failed { id, reason, refused } => {
                let hold = Hold::after(self.held.get(&id), reason, refused, now);
                self.replan(&id);
                self.held.insert(id, hold);
                self.unwritten.take();
                self.due = Due::Soon;
            }
        }
    }

    fn take_enforcement(&mut self, found: Option<&Enforcement>) {
        let shown = found
            .map(Enforcement::plugin)
            .filter(|shown| *shown != Plugin::default());
        let plugin = shown.unwrap_or(self.chosen);
        if plugin != self.guide.synthesis.plugin {
            self.guide.synthesis.plugin = plugin;
            self.accepted.plugin = plugin;
            self.rethink();
        }
        let refuted = found.and_then(Enforcement::refuted);
        if refuted != self.refuted {
            self.refuted = refuted;
            for subject in self.subjects.values_mut() {
                subject.is_planned = false;
            }
            self.due = Due::Soon;
        }
    }

    /// What is held is not any more. It is planned again if it was, or is another than it was.
    fn let_go(&mut self, id: &ObjectId, is_other: bool) {
        let was_held = self.held.remove(id).is_some();
        if was_held {
            self.unwritten.take();
        }
        if was_held || is_other {
            self.replan(id);
        }
    }

    /// Has the workload of a policy or a Segment planned again.
    fn replan(&mut self, id: &ObjectId) {
        let subject = match id {
            ObjectId::Segment(name) => self.segments.get(name),
            ObjectId::Policy(name) => segment_of(name).and_then(|name| self.segments.get(&name)),
        }
        .and_then(|workload| self.subjects.get_mut(workload));
        if let Some(subject) = subject {
            subject.is_planned = false;
        }
    }

    pub(super) fn rethink(&mut self) {
        self.stale = Stale::All;
        self.due = Due::Soon;
    }

    fn take_policy(&mut self, policy: NetworkPolicy) {
        let name = PolicyName::of(&policy);
        let known = self.policies.get(&name);
        if known.is_some_and(|known| is_older(&policy.metadata, &known.metadata)) {
            return;
        }
        let is_other = known != Some(&policy);
        if is_other {
            let differ = are_theirs_other(known, Some(&policy));
            self.policy_changed(&name.namespace, differ);
            self.note_stray(&name, owned_workload(&policy).as_ref());
            self.policies.insert(name.clone(), policy);
        }
        self.let_go(&ObjectId::Policy(name), is_other);
    }

    /// Notes a live policy whose workload, if it is ours, nothing is known of.
    fn note_stray(&mut self, name: &PolicyName, owner: Option<&Workload>) {
        let known = segment_of(name).and_then(|name| self.segments.get(&name));
        if owner.is_some() && owner != known {
            self.strays.insert(name.clone());
        }
    }

    fn policy_changed(&mut self, namespace: &str, are_theirs_other: bool) {
        self.due = Due::Soon;
        if are_theirs_other {
            self.blocks.take();
            self.stale.verify(namespace);
        }
    }

    pub(super) fn take_segment(&mut self, segment: Segment, now: Timestamp) {
        let name = segment.segment_name();
        let workload = match segment.subject() {
            Ok(workload) => workload,
            Err(error) => return self.leave_out(name, error.to_string()),
        };
        let known = self
            .subjects
            .get(&workload)
            .and_then(|subject| subject.segment.as_ref());
        let is_other = known != Some(&segment);
        let is_late = known.is_some_and(|known| is_older(&segment.metadata, &known.metadata));
        self.let_go(&ObjectId::Segment(name.clone()), is_other);
        if is_late {
            return;
        }
        if self.follows {
            self.subjects.remove(&workload);
        }
        if let Some(subject) = self.subjects.get_mut(&workload) {
            let known = subject.segment.as_ref();
            if is_other {
                self.due = Due::Soon;
            }
            if known.and_then(|known| known.spec.learning_window.as_ref()) != segment.spec.learning_window.as_ref() {
                self.stale.judge(&workload);
            }
            let mode = wanted_mode(&self.cluster, &workload, Some(&segment));
            if subject.life.mode != mode {
                subject.life.set_mode(mode, now);
                self.stale.judge(&workload);
            }
            match subject.life.hear(&segment) {
                Ok(true) => self.stale.judge(&workload),
                Ok(false) => {}
                Err(error) => self.news.push(News::SegmentLeftOut(name, error.to_string())),
            }
            subject.segment = Some(segment);
        } else {
            match Life::read(&segment, now) {
                Ok(life) => {
                    self.unreadable.remove(&name);
                    self.segments.insert(name, workload.clone());
                    let subject = Box::new(Subject::new(life, Some(segment)));
                    self.subjects.insert(workload, subject);
                    self.rethink();
                }
                Err(error) => self.leave_out(name, error.to_string()),
            }
        }
    }

    fn leave_out(&mut self, name: SegmentName, reason: String) {
        if let Some(subject) = self
            .segments
            .get(&name)
            .and_then(|workload| self.subjects.get_mut(workload))
        {
            // A workload whose life is known already keeps it: its Segment is written again over what cannot be read.
            subject.segment = None;
            subject.is_planned = false;
            self.due = Due::Soon;
            return;
        }
        if self.unreadable.get(&name) == Some(&reason) {
            return;
        }
        self.news.push(News::SegmentLeftOut(name.clone(), reason.clone()));
        self.unreadable.insert(name, reason);
    }
}

/// Whether people's policies are others than before. What they allow or deny is part of what a proposal is verified against; ours are
/// planned only.
fn are_theirs_other(before: Option<&NetworkPolicy>, now: Option<&NetworkPolicy>) -> bool {
    let spec = |policy: Option<&NetworkPolicy>| {
        let theirs = policy.filter(|policy| !is_owned(policy));
        theirs.map(|policy| policy.spec.clone())
    };
    spec(before) != spec(now)
}

/// Whether a version of an object is older than the one that is known. A write's answer may overtake the watch.
fn is_older(version: &ObjectMeta, known: &ObjectMeta) -> bool {
    let number = |metadata: &ObjectMeta| metadata.resource_version.as_ref()?.parse::<u64>().ok();
    matches!((number(version), number(known)), (Some(version), Some(known)) if version < known)
}
