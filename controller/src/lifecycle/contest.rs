//! Somebody who changes a policy each time that it is repaired. Pure.
//!
//! Laws:
//! * the first [`PATIENT`] repairs within a calm time are made at once;
//! * each further one waits twice as long, up to [`LONGEST`], so that nobody is fought for ever;
//! * after a calm time nothing is held against anybody.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

/// A person who tries something out, or a rollback by hand, needs fewer edits than this.
pub const PATIENT: u32 = 5;

/// Who has changed nothing for so long does not fight.
pub const CALM: SignedDuration = SignedDuration::from_mins(10);

/// How long a policy stays as somebody else wants it, at most.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(1);

/// Names that are kept of those who fight.
const NAMED: usize = 4;

/// The repairs of one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contest {
    repairs: u32,
    last: Option<Timestamp>,
    by: BTreeSet<String>,
}

impl Contest {
    /// Takes in that the policy is repaired. `by`: who had changed it, if that is known.
    pub fn repaired(&mut self, by: Option<&str>, now: Timestamp) {
        if self.calm_at().is_none_or(|calm| calm <= now) {
            *self = Self::default();
        }
        self.repairs = self.repairs.saturating_add(1);
        self.last = Some(now);
        if self.by.len() < NAMED {
            self.by.extend(by.map(str::to_owned));
        }
    }

    /// Until when the policy is to be left as it is.
    pub fn waits_until(&self) -> Option<Timestamp> {
        let last = self.last?;
        Some(last.checked_add(self.wait()).unwrap_or(Timestamp::MAX))
    }

    /// Whether it is fought over.
    pub fn is_on(&self, now: Timestamp) -> bool {
        self.repairs >= PATIENT && self.calm_at().is_some_and(|calm| now < calm)
    }

    /// When nothing is held against anybody any more.
    pub fn calm_at(&self) -> Option<Timestamp> {
        let calm = CALM.max(self.wait().saturating_add(self.wait()));
        Some(self.last?.checked_add(calm).unwrap_or(Timestamp::MAX))
    }

    /// How often it was repaired.
    pub const fn repairs(&self) -> u32 {
        self.repairs
    }

    /// Who fights, in words.
    pub fn who(&self) -> String {
        if self.by.is_empty() {
            return "somebody".to_owned();
        }
        let names: Vec<&str> = self.by.iter().map(String::as_str).collect();
        format!("field manager {}", names.join(", "))
    }

    fn wait(&self) -> SignedDuration {
        let Some(beyond) = self.repairs.checked_sub(PATIENT) else {
            return SignedDuration::ZERO;
        };
        let seconds = 1_i64.checked_shl(beyond).filter(|seconds| *seconds > 0);
        seconds.map_or(LONGEST, SignedDuration::from_secs).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_few_repairs_are_made_at_once_and_each_further_one_waits_twice_as_long() {
        let mut contest = Contest::default();
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..40 {
            contest.repaired(Some("kubectl-edit"), now);
            let until = contest.waits_until().unwrap();
            waits.push(until.duration_since(now).as_secs());
            now = until;
        }
        assert_eq!(waits[..8], [0, 0, 0, 0, 1, 2, 4, 8]);
        assert!(waits.is_sorted() && waits[39] == LONGEST.as_secs(), "{waits:?}");
        assert!(contest.is_on(now));
        assert_eq!(contest.who(), "field manager kubectl-edit");
        let later = now.checked_add(LONGEST.saturating_add(LONGEST)).unwrap();
        assert!(!contest.is_on(later));
        contest.repaired(None, later);
        assert_eq!((contest.repairs(), contest.waits_until()), (1, Some(later)));
    }

    #[test]
    fn edits_now_and_then_are_no_fight() {
        let mut contest = Contest::default();
        for hour in 0..100 {
            contest.repaired(None, at(hour * 3600));
            assert!(!contest.is_on(at(hour * 3600)));
        }
    }
}
