//! How fast policies go live that were not live before: whoever watches can still say stop.
//!
//! Law: in no time of whole seconds more of them are let through than so many times the rate, and the rate of one more second.

use std::num::NonZeroU32;

use jiff::{SignedDuration, Timestamp};

/// Turns are given in the order in which they are asked for.
#[derive(Clone, Debug)]
pub(super) struct Pacing {
    /// Between two turns; zero: everybody may at once.
    apart: SignedDuration,
    /// When the next turn would be if none had been saved up.
    next: Timestamp,
}

impl Pacing {
    /// So many a second; `None`: as many as there are.
    pub(super) fn new(a_second: Option<NonZeroU32>) -> Self {
        let apart = a_second.map_or(0, |number| 1_000_000_000 / i64::from(number.get()));
        Self {
            apart: SignedDuration::from_nanos(apart),
            next: Timestamp::MIN,
        }
    }

    /// The next turn, as of `now`: it may have come. What a second before this brings is saved up.
    pub(super) fn turn(&mut self, now: Timestamp) -> Timestamp {
        if self.apart.is_zero() {
            return now;
        }
        let saved = now
            .checked_sub(SignedDuration::from_secs(1) - self.apart)
            .unwrap_or(Timestamp::MIN);
        let turn = self.next.max(saved);
        self.next = turn.checked_add(self.apart).unwrap_or(Timestamp::MAX);
        turn
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    #[test]
    fn without_a_rate_every_turn_has_come() {
        let mut pacing = Pacing::new(None);
        assert!((0..10_000).all(|_| pacing.turn(at(0)) == at(0)));
    }

    proptest! {
        #[test]
        fn no_second_has_more_turns_than_the_rate_allows(
            rate in 1_u32..20, asked in prop::collection::vec((0_i64..3000, 1_usize..30), 1..20)
        ) {
            let mut pacing = Pacing::new(NonZeroU32::new(rate));
            let mut now = 0;
            let mut used: Vec<Timestamp> = Vec::new();
            for (later, times) in asked {
                now += later;
                // A turn that has come is used now, and one that has not is used when it comes.
                used.extend((0..times).map(|_| pacing.turn(at(now)).max(at(now))));
            }
            used.sort();
            for (number, first) in used.iter().enumerate() {
                let end = first.checked_add(SignedDuration::from_secs(1)).unwrap();
                let within = used[number..].iter().take_while(|turn| **turn < end).count();
                prop_assert!(within <= 2 * rate as usize, "{within} in a second at {rate} a second");
            }
            // And none waits longer than those before it need.
            let most = i64::try_from(used.len()).unwrap() * 1000 / i64::from(rate);
            prop_assert!(used.last().unwrap().duration_since(at(now)) <= SignedDuration::from_millis(most + 1));
        }
    }
}
