//! Room in the kernel's map for what is new.

use std::time::Duration;

use nanoseg_ebpf::FlowKey;

use super::{Agent, AgentError};
use crate::capture::Capture;
use crate::clock::monotonic_ns;
use crate::table::Table;

/// What has to leave the kernel's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Surplus {
    /// How long it was not seen.
    idle: Duration,
    /// How many keys at most, the oldest first.
    keys: usize,
}

/// After so many keys, which takes a few milliseconds, their room is given to others: who needs it in a flood does not wait for
/// all of them.
const EVICTED_AT_ONCE: usize = 1024;

/// Percent: how full the map is, for everybody or for the cgroup that holds most of it. A cgroup is full when it holds as much
/// as is free, which is before the map is.
fn fullness(held: usize, own: usize, capacity: usize) -> usize {
    let of_one = own.saturating_mul(100) / capacity.saturating_sub(held).max(1);
    (held.saturating_mul(100) / capacity).max(of_one)
}

/// Up to this fullness what was seen in the last minute stays, which most of it is where nothing is wrong: by default there is
/// room for 110,000 keys, and who holds most can have at once a twelfth more.
const ROOMY: usize = 85;

impl Surplus {
    /// The fuller the map is, the less idle is what leaves. What was seen in the last minute leaves only as far as it must,
    /// because most of it comes back, and that costs more than to keep it; unless there is a flood.
    fn of(held: usize, own: usize, capacity: usize) -> Option<Self> {
        let above = |least: usize| held.saturating_sub(least);
        let (idle, keys) = match fullness(held, own, capacity) {
            0..=50 => return None,
            51..=ROOMY => (Duration::from_mins(1), above(capacity / 4)),
            86..=90 => {
                // So many that there is no more than room enough, for whichever reason there is less.
                let free = (own * 100)
                    .div_ceil(ROOMY)
                    .max((capacity * (100 - ROOMY)).div_ceil(100));
                (Duration::from_secs(5), above(capacity.saturating_sub(free)))
            }
            _ => (Duration::from_secs(1), above(capacity / 4)),
        };
        Some(Self { idle, keys })
    }
}

/// Whether there is room for everybody, so that only what has been idle for long has to leave, if anything.
pub(super) fn is_roomy(capture: &Capture, table: &Table, held: usize) -> bool {
    fullness(held, table.most_of_one_cgroup(), capacity(capture)) <= ROOMY
}

/// How many flows there is room for.
pub(super) fn capacity(capture: &Capture) -> usize {
    usize::try_from(capture.capacity()).unwrap_or(usize::MAX)
}

impl Agent {
    /// Takes idle keys out of the kernel's map when it fills up.
    pub(super) fn make_room(&mut self, held: usize) -> Result<(), AgentError> {
        let Some(Surplus { idle, keys }) = Surplus::of(held, self.table.most_of_one_cgroup(), capacity(&self.capture))
        else {
            return Ok(());
        };
        let before = monotonic_ns().saturating_sub(u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX));
        self.evict_all(self.table.idle_since(before).into_iter().take(keys), before)
    }

    /// Takes keys out of the kernel's map, but those that were seen at `before` or later.
    pub(super) fn evict_all(&mut self, keys: impl Iterator<Item = FlowKey>, before: u64) -> Result<(), AgentError> {
        for (number, key) in (1_usize..).zip(keys) {
            self.evict(&key, before)?;
            if number.is_multiple_of(EVICTED_AT_ONCE) {
                self.capture.release()?;
            }
        }
        Ok(self.capture.release()?)
    }

    fn evict(&mut self, key: &FlowKey, before: u64) -> Result<(), AgentError> {
        if let Some(record) = self.capture.record(key)? {
            let cgroups = &mut self.cgroups;
            self.table.observe(key, &record, self.clock, |id| cgroups.subject(id));
            if record.last_ns >= before {
                return Ok(());
            }
            let last = self.capture.evict(key, &record)?;
            self.table.observe(key, &last, self.clock, |id| cgroups.subject(id));
            self.leaving.is_kept(key.cgroup, self.table.version());
        }
        self.table.forget(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_just_seen_stays_while_there_is_room() {
        assert_eq!(Surplus::of(500, 100, 1000), None);
        let minute = Duration::from_mins(1);
        assert_eq!(
            Surplus::of(600, 100, 1000),
            Some(Surplus {
                idle: minute,
                keys: 350
            })
        );
        // A hundred thousand edges of four containers, in the map as it is by default.
        let surplus = Surplus::of(100_000, 25_000, 131_072).unwrap();
        assert_eq!(surplus.idle, minute);
        // A few more than there is room enough for.
        let surplus = Surplus::of(870, 90, 1000).unwrap();
        assert_eq!((surplus.idle, surplus.keys), (Duration::from_secs(5), 20));
        let surplus = Surplus::of(700, 261, 1000).unwrap();
        assert_eq!((surplus.idle, surplus.keys), (Duration::from_secs(5), 8));
        let flood = Surplus::of(950, 50, 1000).unwrap();
        assert_eq!((flood.idle, flood.keys), (Duration::from_secs(1), 700));
    }

    proptest! {
        #[test]
        fn afterwards_there_is_room_unless_what_is_there_was_just_seen(capacity in 16_usize..200_000, part in 0_usize..=100, of in 1_usize..9) {
            let held = capacity * part / 100;
            let own = held / of;
            if let Some(Surplus { idle: _, keys }) = Surplus::of(held, own, capacity) {
                prop_assert!(keys <= held);
                prop_assert!(fullness(held - keys, own.min(held - keys), capacity) <= ROOMY);
            }
        }
    }
}
