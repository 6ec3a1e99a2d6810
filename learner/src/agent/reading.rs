//! Reading what the kernel counted: all of it in a turn, or of a large map a part.
//!
//! Law: what was last seen before the last whole pass began is in the table as it was then, and no flow is left out of a pass.

use std::time::Duration;

use nanoseg_ebpf::{FlowKey, FlowRecord, Reason};

use super::room::{capacity, is_roomy};
use super::{Agent, AgentError};
use crate::bpf::Place;
use crate::clock::{Clock, monotonic_ns};
use crate::health::Turn;
use crate::table::{Change, losses};

/// How many flows are read before new cgroups are looked at again: about a millisecond of them.
const FLOWS_BETWEEN_CGROUPS: usize = 1024;

/// A flow that was last seen so long before the last reading was as it is then: longer than a tick of the kernel, which is how
/// exactly programs know the time, and than nearly all of them take from looking at the clock until they have counted.
const HELD_UP: Duration = Duration::from_millis(100);

/// So many flows are read in a turn without a thought: about ten milliseconds of them.
const LEAST: usize = 32_768;

/// How long a pass over a large map may take. Answers are waited for longer than this and the time in which nearly all come.
const PASS: Duration = Duration::from_secs(4);

/// Whether flows that are known are read one by one: to look one up takes as long as it takes the kernel to look into about a
/// hundred places of its map, and to find all of them it looks into each place.
const fn is_few(held: usize, capacity: usize) -> bool {
    held <= capacity / 256
}

/// How many flows to read in a turn of those that are held.
fn share(held: usize, interval: Duration) -> usize {
    let turns = PASS.as_nanos() / interval.as_nanos().max(1);
    held.div_ceil(usize::try_from(turns).unwrap_or(usize::MAX).max(1))
        .max(LEAST)
}

/// How far the kernel's map was read. Times are of the kernel's monotonic clock, in nanoseconds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    place: Place,
    /// When the pass began that is not over.
    begun: u64,
    /// When the last whole pass began: what was last seen before is in the table. 0 to look at everything again.
    complete: u64,
    /// How many keys were not announced by then.
    unannounced: u64,
}

impl Reading {
    /// Looks at everything in the next turn, whenever it was last seen.
    pub(super) const fn look_at_all(&mut self) {
        self.complete = 0;
    }

    /// Where to go on, and how much to read at most.
    fn next(&mut self, now: u64, share: usize, is_urgent: bool) -> (Place, usize) {
        let is_whole = is_urgent || self.complete == 0;
        if is_whole || self.place.is_beginning() {
            self.place = Place::default();
            self.begun = now;
        }
        (self.place, if is_whole { usize::MAX } else { share })
    }

    /// What was last seen before this need not be looked at.
    fn is_known(&self, last_ns: u64) -> bool {
        last_ns
            < self
                .complete
                .saturating_sub(u64::try_from(HELD_UP.as_nanos()).unwrap_or(u64::MAX))
    }

    /// It was read as far as here.
    const fn reached(&mut self, place: Place) {
        self.place = place;
        if place.is_beginning() {
            self.complete = self.begun;
        }
    }
}

impl Agent {
    /// Takes in what the kernel counted since the last time.
    pub(super) fn read(&mut self) -> Result<(), AgentError> {
        let clock = Clock::now();
        if clock.differs_from(self.clock) {
            tracing::warn!("the wall clock was set; times from now on follow it");
            self.clock = clock;
        }
        let held = self.capture.held()?;
        for change in self.read_flows(held)? {
            self.changed(change)?;
        }
        let now = monotonic_ns();
        self.table.settle(self.reading.complete, now);
        if self.plain.look(self.clock.timestamp(now)) {
            self.other_version += 1;
        }
        // In a flood many more than before.
        let held = self.capture.held()?;
        self.make_room(held)?;
        self.keep_owners()?;
        let counters = self.lost.with(self.capture.counters()?);
        self.names.note_unheard(counters.totals[Reason::Unheard as usize]);
        let Self { cgroups, lost, .. } = self;
        let mut now = losses(&counters, |id| lost.whose(id, |id| cgroups.subject(id)));
        now.extend(lost.of_nobody());
        if now != self.losses {
            self.losses = now;
            self.other_version += 1;
        }
        self.health.turned(&Turn {
            delivered: self.table.delivered(),
            losses: &self.losses,
            skipped: &counters.totals,
            flows: self.table.len(),
            held,
            capacity: capacity(&self.capture),
            kept: self.capture.kept(),
            containers: self.cgroups.containers(),
        });
        Ok(())
    }

    /// Reads flows, and returns what they changed beyond counts.
    fn read_flows(&mut self, held: usize) -> Result<Vec<Change>, AgentError> {
        let unannounced = self.capture.total(Reason::Unannounced)?;
        // What nobody announced is found only here, and who makes room must know what is idle.
        let is_urgent = unannounced != self.reading.unannounced || !is_roomy(&self.capture, &self.table, held);
        let (from, most) = self
            .reading
            .next(monotonic_ns(), share(held, self.settings.interval), is_urgent);
        let Self {
            capture,
            cgroups,
            clock,
            table,
            reading,
            ..
        } = self;
        // As many are known as are held, so these are all of them.
        let is_pass = from.is_beginning() && most < usize::MAX;
        let few: Option<Vec<FlowKey>> = (is_pass && is_few(held, capacity(capture)) && table.held().len() == held)
            .then(|| table.held().copied().collect());
        cgroups.absorb();
        let mut changes = Vec::new();
        let mut seen = 0_usize;
        let mut take = |key, record: FlowRecord| {
            // What is made while a large map is read may be gone before its end.
            seen += 1;
            if seen.is_multiple_of(FLOWS_BETWEEN_CGROUPS) {
                cgroups.absorb();
            }
            if reading.is_known(record.last_ns) {
                return;
            }
            let change = table.observe(&key, &record, *clock, |id| cgroups.subject(id));
            if let Change::Novel(_) | Change::Malformed = change {
                changes.push(change);
            }
        };
        let reached = match few {
            None => capture.scan_part(from, most, &mut take)?,
            Some(keys) => {
                for key in keys {
                    if let Some(record) = capture.record(&key)? {
                        take(key, record);
                    }
                }
                Place::default()
            }
        };
        reading.reached(reached);
        reading.unannounced = unannounced;
        if !changes.is_empty() {
            self.refresh_addresses()?;
        }
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_large_map_is_read_within_a_few_seconds_and_a_small_one_at_once() {
        assert_eq!(share(100, SECOND), LEAST);
        assert_eq!(share(1_000_000, SECOND), 250_000);
        assert_eq!(share(1_000_000, SECOND / 2), 125_000);
        for seldom in [PASS, PASS + SECOND, SECOND * 60] {
            assert_eq!(share(1_000_000, seldom), 1_000_000);
        }
    }

    /// What happens to a map with ten flows.
    #[derive(Clone, Debug)]
    enum Step {
        /// A flow is seen again.
        Seen(usize),
        /// So many are read.
        Turn {
            share: usize,
            is_urgent: bool,
        },
        LookAtAll,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..10).prop_map(Step::Seen),
            4 => (1_usize..12, prop::bool::weighted(0.1)).prop_map(|(share, is_urgent)| Step::Turn { share, is_urgent }),
            1 => Just(Step::LookAtAll),
        ]
    }

    proptest! {
        /// Of each flow the time at which it was last seen, in the kernel and in the table.
        #[test]
        fn what_was_seen_before_the_last_whole_pass_is_in_the_table(steps in prop::collection::vec(step(), 1..100)) {
            let mut reading = Reading::default();
            let (mut kernel, mut table) = ([1_u64; 10], [0_u64; 10]);
            // Longer than a program is held up.
            for (step, now) in steps.into_iter().zip((1_u64..).map(|second| second * 1_000_000_000)) {
                match step {
                    Step::Seen(flow) => kernel[flow] = now,
                    Step::LookAtAll => reading.look_at_all(),
                    Step::Turn { share, is_urgent } => {
                        let (from, most) = reading.next(now, share, is_urgent);
                        let begin = (0..10_u8).find(|place| Place::at((*place).into()) == from).map_or(0, usize::from);
                        let end = begin.saturating_add(most);
                        for (known, last_ns) in table.iter_mut().zip(kernel).take(end).skip(begin) {
                            if !reading.is_known(last_ns) {
                                *known = last_ns;
                            }
                        }
                        reading.reached(if end < 10 { Place::at(u32::try_from(end).unwrap()) } else { Place::default() });
                        for (known, last_ns) in table.iter().zip(kernel) {
                            prop_assert!(*known == last_ns || last_ns >= reading.complete);
                        }
                    }
                }
            }
        }
    }
}
