//! The newest copy of what the controller knows, and the last violations.
//!
//! Guarantee: it holds one copy, the places of the map before it, [`KEPT`] violations and two numbers, however many look.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nanoseg_policy::map::{Map, Places};
use tokio::sync::{Notify, watch};

use crate::reconcile::{Snapshot, Violation};

/// Violations that are kept: more than anybody reads, and about a quarter of a megabyte.
pub const KEPT: usize = 500;

/// For how long somebody who asked counts as looking.
const LOOKING: Duration = Duration::from_secs(30);

/// How long somebody who asks waits for the first copy.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long somebody who comes back waits for a newer copy than the one that is there.
const STALE: Duration = Duration::from_secs(1);

/// How many copies were made and how many violations were found since the controller began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Copies.
    pub version: u64,
    /// Violations.
    pub violations: u64,
}

/// A copy, and what was computed from it.
#[derive(Debug)]
pub struct Copy {
    /// Which.
    pub version: u64,
    /// What the controller knew.
    pub snapshot: Snapshot,
    /// The map, once somebody asked for it.
    pub map: OnceLock<Arc<Map>>,
    /// Where the map before it was drawn: who looks on finds everything where it was.
    pub places: Option<Places>,
}

/// What the controller leaves here for those who look.
#[derive(Debug)]
pub struct Board {
    started: Timestamp,
    stamp: watch::Sender<Stamp>,
    copy: Mutex<Option<Arc<Copy>>>,
    ring: Mutex<VecDeque<(u64, Violation)>>,
    asked: Mutex<Option<Instant>>,
    watched: Notify,
    /// There is something that the copy does not have.
    stale: AtomicBool,
    /// Nobody has looked since the copy was made.
    missed: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked left a whole value behind: each is replaced in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// An empty one, of a controller that was started then.
    pub fn new(started: Timestamp) -> Self {
        Self {
            started,
            stamp: watch::Sender::new(Stamp::default()),
            copy: Mutex::new(None),
            ring: Mutex::default(),
            asked: Mutex::new(None),
            watched: Notify::new(),
            stale: AtomicBool::new(true),
            missed: AtomicBool::new(false),
        }
    }

    /// Since when violations are counted.
    pub const fn started(&self) -> Timestamp {
        self.started
    }

    /// Takes note that the controller knows more than the copy.
    pub fn age(&self) {
        self.stale.store(true, Ordering::Release);
    }

    /// Whether the controller knows more than the copy.
    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// Takes a copy in.
    pub fn publish(&self, snapshot: Snapshot) {
        self.stale.store(false, Ordering::Release);
        let version = self.stamp.borrow().version + 1;
        let mut copy = lock(&self.copy);
        let places = copy.as_ref().and_then(|before| match before.map.get() {
            Some(map) => Some(map.places()),
            None => before.places.clone(),
        });
        // Who comes back finds nothing where it was by heart: better a good picture.
        let places = if self.missed.swap(false, Ordering::AcqRel) {
            places.map(Places::unwatched)
        } else {
            places
        };
        *copy = Some(Arc::new(Copy {
            version,
            snapshot,
            map: OnceLock::new(),
            places,
        }));
        drop(copy);
        self.stamp.send_modify(|stamp| stamp.version = version);
    }

    /// Takes violations in.
    pub fn tell(&self, violations: &[Violation]) {
        if violations.is_empty() {
            return;
        }
        let mut number = self.stamp.borrow().violations;
        {
            let mut ring = lock(&self.ring);
            for violation in violations {
                number += 1;
                ring.push_back((number, violation.clone()));
            }
            let surplus = ring.len().saturating_sub(KEPT);
            ring.drain(..surplus);
        }
        self.stamp.send_modify(|stamp| stamp.violations = number);
    }

    /// The violations behind number `seen`, oldest first; `None` where some of them are not kept any more.
    pub fn since(&self, seen: u64) -> Option<Vec<(u64, Violation)>> {
        let ring = lock(&self.ring);
        let first = ring.front().map_or(u64::MAX, |(number, _)| *number);
        let total = ring.back().map_or(0, |(number, _)| *number);
        (seen >= total || seen + 1 >= first)
            .then(|| ring.iter().filter(|(number, _)| *number > seen).cloned().collect())
    }

    /// All that are kept, newest first.
    pub fn violations(&self) -> Vec<(u64, Violation)> {
        lock(&self.ring).iter().rev().cloned().collect()
    }

    /// Follows copies and violations by their numbers.
    pub fn follow(&self) -> watch::Receiver<Stamp> {
        self.stamp.subscribe()
    }

    /// Whether somebody looks.
    pub fn is_watched(&self) -> bool {
        self.stamp.receiver_count() > 0 || lock(&self.asked).is_some_and(|at| at.elapsed() < LOOKING)
    }

    /// Returns when somebody begins to look.
    pub async fn watched(&self) {
        self.watched.notified().await;
    }

    /// The newest copy; the first one is waited for.
    pub async fn copy(&self) -> Option<Arc<Copy>> {
        let looked = self.is_watched();
        if !looked {
            self.missed.store(true, Ordering::Release);
        }
        *lock(&self.asked) = Some(Instant::now());
        let mut stamp = self.stamp.subscribe();
        let before = stamp.borrow_and_update().version;
        self.watched.notify_one();
        let known = lock(&self.copy).clone();
        match known {
            Some(copy) if looked || !self.is_stale() => Some(copy),
            // Nobody looked for a while, and the copy is of then.
            Some(copy) => {
                let newer = stamp.wait_for(|stamp| stamp.version > before);
                drop(tokio::time::timeout(STALE, newer).await);
                lock(&self.copy).clone().or(Some(copy))
            }
            None => {
                let first = stamp.wait_for(|stamp| stamp.version > before);
                drop(tokio::time::timeout(PATIENCE, first).await);
                lock(&self.copy).clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::views::tests::violation_of;

    #[test]
    fn a_client_that_missed_nothing_gets_what_is_new_and_one_that_did_is_told_so() {
        let board = Board::new(Timestamp::UNIX_EPOCH);
        let numbers = |seen| {
            let since = board.since(seen)?;
            Some(since.into_iter().map(|(number, _)| number).collect::<Vec<_>>())
        };
        assert_eq!(numbers(0), Some(vec![]), "nothing was found yet");
        board.tell(&[violation_of(1), violation_of(2)]);
        assert_eq!(numbers(0), Some(vec![1, 2]));
        assert_eq!(numbers(1), Some(vec![2]));
        assert_eq!(numbers(2), Some(vec![]));
        let many: Vec<_> = (0..KEPT).map(|_| violation_of(3)).collect();
        board.tell(&many);
        assert_eq!(board.violations().len(), KEPT, "no more than that is kept");
        assert_eq!(numbers(1), None, "the second one is gone");
        assert_eq!(numbers(2).unwrap().len(), KEPT);
        assert_eq!(
            *board.follow().borrow(),
            Stamp {
                version: 0,
                violations: KEPT as u64 + 2
            }
        );
    }

    #[test]
    fn nobody_looks_until_somebody_follows() {
        let board = Board::new(Timestamp::UNIX_EPOCH);
        assert!(!board.is_watched());
        let follower = board.follow();
        assert!(board.is_watched());
        drop(follower);
        assert!(!board.is_watched(), "one that is gone does not count");
    }
}
