//! The kernel's monotonic nanoseconds as wall-clock time.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// The distance between `CLOCK_MONOTONIC`, which the programs stamp packets with, and `CLOCK_REALTIME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    offset_ns: i128,
}

impl Clock {
    /// Reads both clocks.
    pub(crate) fn now() -> Self {
        // Read between two readings of the other: the shortest of some tries is off by less than a microsecond.
        let sample = || {
            let before = nanoseconds(ClockId::Monotonic);
            let real = nanoseconds(ClockId::Realtime);
            let after = nanoseconds(ClockId::Monotonic);
            (after - before, real - i128::midpoint(before, after))
        };
        let best = (0..5).map(|_| sample()).min_by_key(|(width, _)| *width);
        Self {
            offset_ns: best.map_or(0, |(_, offset)| offset),
        }
    }

    /// A clock with a known distance.
    #[cfg(test)]
    pub(crate) const fn with_offset(offset_ns: i128) -> Self {
        Self { offset_ns }
    }

    /// Whether the wall clock was set since `other` was read, by more than it drifts.
    pub(crate) const fn differs_from(self, other: Self) -> bool {
        (self.offset_ns - other.offset_ns).unsigned_abs() > 10_000_000
    }

    /// Wall-clock time of a kernel time stamp.
    pub(crate) fn timestamp(self, monotonic_ns: u64) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(monotonic_ns) + self.offset_ns).unwrap_or(Timestamp::MAX)
    }
}

/// How long this thread had a core.
pub(crate) fn on_core() -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds(ClockId::ThreadCPUTime)).unwrap_or(0))
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_ns() -> u64 {
    u64::try_from(nanoseconds(ClockId::Monotonic)).unwrap_or(0)
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn realtime_ns() -> u64 {
    u64::try_from(nanoseconds(ClockId::Realtime)).unwrap_or(0)
}

fn nanoseconds(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}
