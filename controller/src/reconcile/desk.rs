//! From what is known of one workload to what is to be written for it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::connection::ConnectionGraph;
use nanoseg_graph::endpoint::Workload;
use nanoseg_policy::ownership::{PolicyName, owned_workload};

use super::memory::{Hold, Subject};
use super::pacing::Pacing;
use super::stand::{compare, stand};
use super::status::{self, Standing, Standpoint};
use super::think::earlier;
use super::{Guide, News, ObjectId, REMEMBERED, SegmentWrite, Writes, label_fault};
use crate::lifecycle::Life;
use crate::segment::{Mode, Segment, name_of, to_learned};

/// Segments that one round writes at most: a busy API server takes a second for them. A policy that nobody knew of when a round began
/// waits for the rest of that one, for the one that writes its own Segment, and for the one after.
pub(super) const SEGMENTS: usize = 128;

/// What a round does with a workload's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Put,
    Remove,
}

/// What a plan for a workload depends on beside it.
pub(super) struct Desk<'a> {
    pub(super) guide: &'a Guide,
    pub(super) started: Timestamp,
    pub(super) cluster: &'a Cluster,
    pub(super) graph: &'a ConnectionGraph,
    pub(super) policies: &'a BTreeMap<PolicyName, NetworkPolicy>,
    pub(super) held: &'a BTreeMap<ObjectId, Hold>,
    pub(super) refuted: Option<&'a str>,
    pub(super) judged: u64,
    pub(super) pacing: &'a mut Pacing,
    pub(super) news: &'a mut Vec<News>,
}

/// What became of planning.
#[derive(Default)]
pub(super) struct Planned {
    /// When to plan again although nothing is heard until then.
    pub(super) again: Option<Timestamp>,
    /// Nothing is to be known of the workload any more.
    pub(super) is_over: bool,
}

impl Planned {
    fn wake(&mut self, at: Timestamp) {
        self.again = earlier(self.again, Some(at));
    }
}

impl Desk<'_> {
    pub(super) fn plan(
        &mut self,
        workload: &Workload,
        subject: &mut Subject,
        now: Timestamp,
        writes: &mut Writes,
    ) -> Planned {
        let mut planned = Planned::default();
        let stance = self.guide.rules.stance(&workload.namespace, subject.life.mode);
        let timing = self
            .guide
            .rules
            .timing(&workload.namespace, subject.window(), self.started);
        let policy = PolicyName::of_workload(workload);
        let live = self.policies.get(&policy);
        let id = ObjectId::Policy(policy);
        let hold = self.held.get(&id).filter(|hold| hold.until > now);

        let [put, removed] = [writes.put.len(), writes.remove.len()];
        subject.is_put_off = false;
        subject.lift(stance);
        let reports_only = self.guide.reports_only;
        let standing = if reports_only {
            compare(workload, subject, stance, live)
        } else {
            stand(workload, subject, stance, (live, hold), now, (writes, self.pacing))
        };
        if let Some(turn) = subject.turn {
            planned.wake(turn);
        }
        if let Standing::Contested { until } = standing {
            planned.wake(until);
        }
        // The condition of a fight goes when it is over.
        if let Some(calm) = subject.contest.calm_at().filter(|calm| *calm > now) {
            planned.wake(calm);
        }
        if let Some(at) = subject.try_out(&standing, self.graph, now) {
            subject.think_at = earlier(subject.think_at, Some(at));
        }
        if let Some(hold) = hold {
            planned.wake(hold.until);
        }

        let unwanted_live = live.is_some_and(|live| owned_workload(live).as_ref() == Some(workload));
        if let Some(since) = subject.gone_since
            && !unwanted_live
        {
            let keep = subject.life.frozen_at.is_some() && stance.mode() != Mode::Off;
            let until = if keep {
                since.checked_add(REMEMBERED).unwrap_or(Timestamp::MAX)
            } else {
                since
            };
            if until <= now {
                planned.is_over = true;
                return planned;
            }
            planned.wake(until);
        }

        // What is said of a workload that is learned changes with these.
        let learned = &subject.life;
        let windows = [Some(learned.learning_since), learned.last_loss].map(|since| (since, timing.window));
        let pods = learned.pods();
        let quiet = [Some(learned.last_novel), pods.turned(), pods.watched_since()].map(|since| (since, timing.quiet));
        let periods = windows.into_iter().chain(quiet);
        let ends = periods.filter_map(|(since, length)| since?.checked_add(length).ok());
        let ends = ends.chain([Life::ready_at(timing)]);
        for at in ends.filter(|at| learned.frozen_at.is_none() && *at > now) {
            planned.wake(at);
        }
        let standpoint = Standpoint {
            stance,
            timing,
            standing,
            label_fault: label_fault(self.cluster, workload),
            reports_only,
            refuted: self.refuted.map(str::to_owned),
            now,
        };
        let step = if writes.put.len() > put {
            Some(Step::Put)
        } else if writes.remove.len() > removed {
            Some(Step::Remove)
        } else {
            None
        };
        self.report(workload, subject, (&standpoint, step), writes, &mut planned);
        planned
    }

    /// Has the Segment written if it does not say what it should. Where a policy is on its way that waits until it has arrived, or has
    /// failed to: either is heard of, and then there is more to say. Where one is removed it does not wait for room: removed with nothing
    /// that says so, it would be put back by whoever reads that alone.
    fn report(
        &mut self,
        workload: &Workload,
        subject: &mut Subject,
        (at, step): (&Standpoint, Option<Step>),
        writes: &mut Writes,
        planned: &mut Planned,
    ) {
        let now = at.now;
        if step.is_none() && writes.segments.len() >= SEGMENTS {
            // What it is to say takes longer to find out than whatever else is planned, and is found out when there is room for it.
            subject.is_put_off = true;
            subject.unwritten = subject.unwritten.or(Some(self.judged));
            planned.wake(now);
            return;
        }
        let mut status = status::status_of(workload, subject, at);
        subject.announce(workload, &status, at, self.news, &mut writes.notices);
        subject.history.clone_from(&status.history);
        subject.conditions.clone_from(&status.conditions);
        let written = subject.segment.as_ref().and_then(|segment| segment.status.as_ref());
        if written == Some(&status) {
            subject.unwritten = None;
            return;
        }
        let told_at = subject.lack(&status, self.judged);
        if step == Some(Step::Put) {
            return;
        }
        let written = subject.segment.as_ref().and_then(|segment| segment.status.as_ref());
        let may_be_written = [
            self.held
                .get(&ObjectId::Segment(name_of(workload)))
                .map(|hold| hold.until),
            told_at,
            subject.written_at.and_then(|at| {
                at.checked_add(status::may_wait(written, &status, self.guide.report_interval))
                    .ok()
            }),
        ];
        if let Some(at) = may_be_written.into_iter().flatten().filter(|at| *at > now).max() {
            planned.wake(at);
            return;
        }
        subject.written_at = Some(now);
        let exists = subject.segment.is_some();
        let mut segment = subject.segment.clone().unwrap_or_else(|| Segment::of(workload));
        status.baseline = status::told(to_learned(&subject.baseline), &subject.baseline, subject.trial.as_ref());
        segment.status = Some(status);
        writes.segments.push(SegmentWrite { segment, exists });
    }
}
