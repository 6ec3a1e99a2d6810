//! Losses that are not in the kernel's map any more, or never were, and whose every loss is.
//!
//! Laws:
//! * Bounded: of cgroups that are gone, those that went last are told by name, the others all together.
//! * Nothing is given up but whose it was: what was lost for a reason never becomes less.

use std::collections::{BTreeMap, VecDeque};

use nanoseg_ebpf::Reason;
use nanoseg_graph::flow::{Loss, LossReason, Subject};

use crate::capture::Counters;

/// So many cgroups that are gone are told by name, for each reason: with their names a megabyte.
const NAMED: usize = 4096;

/// A cgroup, and the number of a reason.
type Key = (u64, u32);

#[derive(Default)]
pub(super) struct Lost {
    /// How much, by whose and why.
    told: BTreeMap<Key, u64>,
    /// Those of them that programs counted, in the order in which their cgroups went.
    gone: VecDeque<Key>,
    /// How much of it no program counted.
    undecided: u64,
    /// Flows of which something is lost that nobody can read.
    pub(super) discarded: u64,
    /// Cgroups are forgotten before what they lost is.
    whose: BTreeMap<u64, Subject>,
}

impl Lost {
    /// How much a cgroup lost that is not in the kernel's map.
    pub(super) fn told(&self, key: Key) -> u64 {
        self.told.get(&key).copied().unwrap_or(0)
    }

    /// How much a cgroup lost that is not in the kernel's map, from now on. Returns whose loss is not told by name any more.
    pub(super) fn tell(&mut self, key: Key, count: u64) -> Option<Key> {
        let before = self.told.insert(key, count);
        if key.1 == Reason::Undecided as u32 {
            // Only of who was there at the beginning, so they are few, and alive perhaps.
            self.undecided += count.saturating_sub(before.unwrap_or(0));
            return None;
        }
        if before.is_none() {
            self.gone.push_back(key);
        }
        if self.gone.len() <= NAMED {
            return None;
        }
        // It stays in what programs counted in all.
        let first = self.gone.pop_front()?;
        self.told.remove(&first);
        Some(first)
    }

    /// Whose the losses of a cgroup are that cannot be asked for.
    pub(super) fn owned_by(&mut self, cgroup: u64, whose: Subject) {
        self.whose.insert(cgroup, whose);
    }

    /// With what the kernel counts: all there is.
    pub(super) fn with(&mut self, mut counters: Counters) -> Counters {
        for (key, count) in &self.told {
            *counters.by_cgroup.entry(*key).or_default() += count;
        }
        counters.totals[Reason::Undecided as usize] += self.undecided;
        let by_cgroup = &counters.by_cgroup;
        self.whose
            .retain(|cgroup, _| by_cgroup.range((*cgroup, 0)..=(*cgroup, u32::MAX)).next().is_some());
        counters
    }

    /// What nobody can say whose it was.
    pub(super) fn of_nobody(&self) -> Option<Loss> {
        (self.discarded > 0).then_some(Loss {
            subject: None,
            reason: LossReason::Discarded,
            count: self.discarded,
        })
    }

    /// Whose the losses of a cgroup are. Asked once, because later nobody may know.
    pub(super) fn whose(&mut self, cgroup: u64, ask: impl FnOnce(u64) -> Subject) -> Subject {
        self.whose.entry(cgroup).or_insert_with(|| ask(cgroup)).clone()
    }
}

#[cfg(test)]
mod tests {
    use nanoseg_graph::endpoint::UnknownReason;
    use proptest::prelude::*;

    use super::*;
    use crate::table::losses;

    /// Takes the count of a loss out of the kernel's map, as the agent does.
    fn forgive(lost: &mut Lost, kernel: &mut Counters, key: Key) {
        if let Some(count) = kernel.by_cgroup.remove(&key) {
            lost.tell(key, lost.told(key) + count);
        }
    }

    fn subject(cgroup: u64) -> Subject {
        if cgroup == 0 {
            Subject::Unknown(UnknownReason::CgroupGone)
        } else {
            Subject::Host(format!("/{cgroup}"))
        }
    }

    fn all(lost: &mut Lost, kernel: &Counters) -> u64 {
        let counters = lost.with(kernel.clone());
        let told = losses(&counters, |cgroup| lost.whose(cgroup, subject));
        told.iter().map(|loss| loss.count).sum()
    }

    #[test]
    fn of_ever_more_that_are_gone_every_loss_is_told_and_not_every_name() {
        let (mut lost, mut kernel) = (Lost::default(), Counters::default());
        lost.tell((1, Reason::Undecided as u32), 7);
        lost.owned_by(1, subject(1));
        let most = u64::try_from(NAMED).unwrap();
        for cgroup in 2..3 * most {
            let key = (cgroup, Reason::MapFull as u32);
            kernel.by_cgroup.insert(key, 2);
            kernel.totals[Reason::MapFull as usize] += 2;
            if cgroup % 100 == 0 {
                assert_eq!(all(&mut lost, &kernel), kernel.totals[Reason::MapFull as usize] + 7);
            }
            forgive(&mut lost, &mut kernel, key);
        }
        assert_eq!(all(&mut lost, &kernel), kernel.totals[Reason::MapFull as usize] + 7);
        assert_eq!(lost.told.len(), NAMED + 1);
        assert_eq!(lost.whose.len(), NAMED + 1);
        let counters = lost.with(kernel);
        assert_eq!(
            counters.by_cgroup.get(&(1, Reason::Undecided as u32)),
            Some(&7),
            "it is alive perhaps"
        );
        assert!(
            counters.by_cgroup.contains_key(&(3 * most - 1, Reason::MapFull as u32)),
            "the last that went"
        );
    }

    proptest! {
        #[test]
        fn what_was_lost_never_becomes_less(steps in prop::collection::vec((0_u64..6, 0_usize..7, 0_u64..5, any::<bool>()), 0..60)) {
            let (mut lost, mut kernel) = (Lost::default(), Counters::default());
            let mut produced = 0;
            for (cgroup, reason, count, is_gone) in steps {
                let key = (cgroup, u32::try_from(reason).unwrap());
                *kernel.by_cgroup.entry(key).or_default() += count;
                kernel.totals[reason] += count;
                produced += count;
                if is_gone {
                    forgive(&mut lost, &mut kernel, key);
                }
                prop_assert_eq!(all(&mut lost, &kernel), produced);
            }
        }
    }
}
