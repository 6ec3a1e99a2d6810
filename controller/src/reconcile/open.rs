//! Why a baseline is still open, and until when.

use jiff::Timestamp;

use super::memory::Subject;
use super::status::Standpoint;
use crate::lifecycle::pods::Awaits;
use crate::lifecycle::{Life, Timing};
use crate::segment::{Phase, seconds};

/// What keeps a baseline open although its window has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Open<'a> {
    /// Something was lost within the window.
    Loss,
    /// An edge was new within the quiet period.
    Novel,
    /// Pods came or went within the quiet period.
    Rollout,
    /// A learner came within the quiet period.
    Learner,
    /// Learners may not be back.
    Started,
    /// Its pods have to do something first.
    Pods(&'a Awaits),
    /// There is nothing to freeze.
    Empty,
}

fn open(life: &Life, timing: Timing, now: Timestamp) -> Open<'_> {
    let within = |at: Option<Timestamp>, by| {
        at.and_then(|at| at.checked_add(by).ok())
            .is_some_and(|until| until > now)
    };
    if within(life.last_loss, timing.window) {
        return Open::Loss;
    }
    if let Some(awaits) = life.awaits() {
        return Open::Pods(awaits);
    }
    if within(Some(life.last_novel), timing.quiet) {
        Open::Novel
    } else if within(life.pods().turned(), timing.quiet) {
        Open::Rollout
    } else if within(life.pods().watched_since(), timing.quiet) {
        Open::Learner
    } else if now < Life::ready_at(timing) {
        Open::Started
    } else {
        Open::Empty
    }
}

/// How far a workload that is still learned has come.
pub(super) fn learning(Subject { life, .. }: &Subject, timing: Timing, now: Timestamp) -> (Phase, String) {
    let ends = seconds(life.ends_at(timing)).0;
    let passed = life.learning_since.checked_add(timing.window).unwrap_or(Timestamp::MAX);
    if now < passed {
        return (Phase::Learning, format!("new edges join the baseline until {ends}"));
    }
    let why = match open(life, timing, now) {
        Open::Loss => "something was lost within the learning window",
        Open::Novel => "an edge was new within the quiet period",
        Open::Rollout => "its pods were rolled out or scaled within the quiet period",
        Open::Learner => "the last of its nodes got a learner within the quiet period",
        Open::Started => "learners are given time to come back after the controller's start",
        Open::Pods(awaits) => {
            return (
                Phase::Stabilizing,
                format!("{awaits}: the baseline is open until that changes"),
            );
        }
        Open::Empty => return (Phase::Stabilizing, "no edge was learned yet".to_owned()),
    };
    (Phase::Stabilizing, format!("{why}: the baseline is open until {ends}"))
}

/// The same in a word, of one whose window has passed.
pub(super) fn word(Subject { life, .. }: &Subject, at: &Standpoint) -> &'static str {
    match open(life, at.timing, at.now) {
        Open::Loss => "Loss",
        Open::Novel => "NewEdge",
        Open::Rollout => "RollingOut",
        Open::Learner => "LearnerCame",
        Open::Started => "Started",
        Open::Pods(awaits) => awaits.word(),
        Open::Empty => "NoEdge",
    }
}
