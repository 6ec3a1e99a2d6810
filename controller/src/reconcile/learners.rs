//! Whose learner reports now. Flows that learners have told stay; this is about what happens from now on.
//!
//! Law: a learner is away when it has had no stream for as long as one may take to come back, and not before; which of its streams ends
//! last does not matter, nor in which order they begin and end.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::lifecycle::LEARNERS_RETURN;

/// Streams of learners, by node.
#[derive(Debug, Default)]
pub(super) struct Learners {
    open: BTreeMap<String, BTreeSet<u64>>,
    /// Since when a node has none.
    left: BTreeMap<String, Timestamp>,
}

impl Learners {
    /// Takes in that a stream has brought something. Returns whether its learner was away.
    pub(super) fn came(&mut self, node: &str, stream: u64, now: Timestamp) -> bool {
        let was_away = self.is_away(node, now);
        self.left.remove(node);
        if let Some(open) = self.open.get_mut(node) {
            open.insert(stream);
        } else {
            self.open.insert(node.to_owned(), [stream].into());
        }
        was_away
    }

    /// Takes in that a stream has ended.
    pub(super) fn left(&mut self, node: &str, stream: u64, now: Timestamp) {
        let Some(open) = self.open.get_mut(node) else { return };
        open.remove(&stream);
        if open.is_empty() {
            self.open.remove(node);
            self.left.insert(node.to_owned(), now);
        }
    }

    /// Whether the node's learner has been away for longer than it takes to come back.
    pub(super) fn is_away(&self, node: &str, now: Timestamp) -> bool {
        self.left.get(node).is_some_and(|left| away_from(*left) <= now)
    }

    /// Nodes whose learner is away.
    pub(super) fn away(&self, now: Timestamp) -> impl Iterator<Item = &str> {
        let away = self.left.iter().filter(move |(_, left)| away_from(**left) <= now);
        away.map(|(node, _)| node.as_str())
    }

    /// When the next one is away, if it does not come back.
    pub(super) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let away = self.left.values().map(|left| away_from(*left));
        away.filter(|away| *away > now).min()
    }
}

fn away_from(left: Timestamp) -> Timestamp {
    left.checked_add(LEARNERS_RETURN).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learner_is_away_when_its_last_stream_has_ended_for_long() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut learners = Learners::default();
        assert!(!learners.is_away("node1", at(0)), "nobody knows it");
        assert!(!learners.came("node1", 1, at(0)));
        // It connects again before its old stream is known to be dead.
        assert!(!learners.came("node1", 2, at(10)));
        learners.left("node1", 1, at(20));
        assert_eq!(
            (learners.is_away("node1", at(900)), learners.next(at(20))),
            (false, None)
        );
        learners.left("node1", 2, at(900));
        learners.left("node1", 2, at(910));
        assert_eq!(learners.next(at(900)), Some(at(930)));
        assert!(!learners.is_away("node1", at(929)));
        assert!(learners.is_away("node1", at(930)));
        assert_eq!(learners.next(at(930)), None);
        assert!(learners.came("node1", 3, at(940)));
        assert!(!learners.is_away("node1", at(999)));
    }
}
