//! What learners say, and when they may forget it.

use jiff::Timestamp;
use nanoseg_graph::flow::Report;

use super::attested::{Arrival, Released};
use super::memory::Subject;
use super::writes::ObjectId;
use super::{Core, Due};
use crate::segment::name_of;

impl Core {
    /// How many reports, from the first on, are of no more use: what they said is in Segments, or needs none. What the API server
    /// refuses to keep is told where it is refused, and nobody waits for it.
    pub fn durable(&self) -> u64 {
        if self.follows || !self.awaited.is_empty() {
            return 0;
        }
        let unwritten = *self.unwritten.get_or_init(|| self.unwritten());
        unwritten.unwrap_or(u64::MAX).min(self.judged())
    }

    /// How many reports had been judged when the first Segment came to lack something that it still lacks.
    fn unwritten(&self) -> Option<u64> {
        let waiting = self.subjects.iter().filter_map(|(workload, subject)| {
            let before = subject.unwritten?;
            let hold = self.held.get(&ObjectId::Segment(name_of(workload)));
            (!hold.is_some_and(|hold| hold.refused)).then_some(before)
        });
        waiting.min()
    }

    /// How many reports, from the first on, must be durable for the learner that sent this one to forget it; `None`: a part of it waits
    /// for a pod that is not known.
    pub fn settled_by(&self, report: u64) -> Option<u64> {
        self.attested.settled_by(report)
    }

    pub(super) fn take_attested(&mut self, report: Report, now: Timestamp) {
        let arrival = Arrival {
            number: self.heard + 1,
            listed: self.listed,
            now,
        };
        let admitted = self.attested.admit(report, arrival, &self.cluster);
        self.take_report(&admitted);
        if self.attested.settled_by(self.heard).is_none() {
            // The round says until when it waits.
            self.due = self.due.max(Due::Later);
        }
    }

    pub(super) fn take_report(&mut self, report: &Report) {
        self.heard += 1;
        self.stale.hear(report, &self.flows);
        let novel = self.flows.merge(report);
        if !self.stale.is_nothing() {
            self.due = self.due.max(if novel { Due::Soon } else { Due::Later });
        }
    }

    pub(super) fn take_stream(&mut self, node: &str, stream: u64, open: bool, now: Timestamp) {
        if open {
            if self.learners.came(node, stream, now) {
                self.stale.watched([node.to_owned()]);
                self.due = Due::Soon;
            }
            return;
        }
        self.learners.left(node, stream, now);
        self.look_for_learners(now);
        if self.away_at.is_some() {
            // The round says when to look whether it has come back.
            self.due = self.due.max(Due::Later);
        }
    }

    /// Notes when the next learner counts as away, which holds what is learned.
    pub(super) fn look_for_learners(&mut self, now: Timestamp) {
        let is_learned = |subject: &Subject| subject.life.frozen_at.is_none();
        self.away_at = self
            .learners
            .next(now)
            .filter(|_| self.subjects.values().any(|subject| is_learned(subject)));
    }

    /// Merges what waited for a pod.
    pub(super) fn release(&mut self, uids: [Option<&str>; 2], now: Timestamp) {
        let Released { reports, owed } = self.attested.release(uids);
        for report in reports {
            self.take_attested(report, now);
        }
        self.attested.settle(owed, self.heard);
    }
}
