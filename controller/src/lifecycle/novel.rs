//! Edges outside a frozen baseline: since when, how often, and what policies say of them. Pure.
//!
//! Law: what is told of them changes with their number and their doubling, never with each connection, so that a Segment is not written
//! for every one.

use jiff::Timestamp;

use crate::segment::Decision;

/// What is known of an edge outside a frozen baseline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Novel {
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// What policies said of it when it was found.
    pub decision: Option<Decision>,
    count: u64,
    told: u64,
}

impl Novel {
    /// Found just now, or earlier and written down.
    pub const fn found(first_seen: Timestamp, count: u64, decision: Option<Decision>) -> Self {
        Self {
            first_seen,
            decision,
            count,
            told: count,
        }
    }

    /// Takes in what was counted of it until now. A learner that has restarted counts anew.
    pub fn count(&mut self, first_seen: Timestamp, count: u64) {
        self.first_seen = self.first_seen.min(first_seen);
        self.count = self.count.max(count);
        if self.count >= self.told.saturating_mul(2) {
            self.told = self.count;
        }
    }

    /// How many connections were tried, at least: the number as it was when it had last doubled.
    pub const fn told(&self) -> u64 {
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_told_when_it_has_doubled() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut novel = Novel::found(at(9), 1, None);
        let told: Vec<u64> = [1, 2, 3, 4, 3, 7, 9, 17, 18]
            .into_iter()
            .map(|count| {
                novel.count(at(5), count);
                novel.told()
            })
            .collect();
        assert_eq!(told, [1, 2, 2, 4, 4, 4, 9, 9, 18]);
        assert_eq!(novel.first_seen, at(5));
    }
}
