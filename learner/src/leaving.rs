//! Which flows may leave: the table, and what is kept for the next learner; and how they leave that.
//!
//! Laws:
//! * Nothing leaves but what the controller has acknowledged, of containers of pods of which no cgroup is there any more: they
//!   count nothing again, and are not asked for again.
//! * All cgroups of a container leave together, because what stays of one would be told as all of it. Where a learner is killed
//!   in between, that is less than what is acknowledged, and changes nothing.
//! * Stopped after any step, the next learner finds each flow kept or left, and what left is counted once.

use std::collections::{BTreeMap, BTreeSet};

use nanoseg_ebpf::kept::{Archived, Kept};
use nanoseg_ebpf::{FlowKey, FlowRecord};
use nanoseg_graph::flow::Subject;

/// Cgroups of one container that are gone, and of which something is kept.
#[derive(Debug, Default)]
struct Gone {
    cgroups: BTreeSet<u64>,
    /// The version of the table that has all that was kept of them.
    version: u64,
}

/// What may leave now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) subjects: BTreeSet<Subject>,
    /// All of theirs.
    pub(crate) cgroups: BTreeSet<u64>,
}

/// What may leave once it is acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    gone: BTreeMap<Subject, Gone>,
    whose: BTreeMap<u64, Subject>,
}

impl Leaving {
    /// A cgroup is gone, of which something is in the table up to this version.
    pub(crate) fn is_gone(&mut self, cgroup: u64, subject: Subject, version: u64) {
        // A unit and what some other runtime started may come back under the same name and count on.
        let Subject::Container(_) = &subject else { return };
        let gone = self.gone.entry(subject.clone()).or_default();
        gone.cgroups.insert(cgroup);
        gone.version = gone.version.max(version);
        self.whose.insert(cgroup, subject);
    }

    /// Something is kept of a cgroup, which may be gone: a packet was late.
    pub(crate) fn is_kept(&mut self, cgroup: u64, version: u64) {
        let whose = self.whose.get(&cgroup);
        if let Some(gone) = whose.and_then(|subject| self.gone.get_mut(subject)) {
            gone.version = gone.version.max(version);
        }
    }

    /// What may leave now: what the table had up to this version is acknowledged. `is_there` tells whether a container
    /// has cgroups, `is_held` whether the flow map has something of a cgroup.
    pub(crate) fn ready(
        &mut self,
        acknowledged: u64,
        is_there: impl Fn(&Subject) -> bool,
        is_held: impl Fn(u64) -> bool,
    ) -> Ready {
        let may_leave = |subject: &Subject, gone: &mut Gone| {
            gone.version <= acknowledged && !is_there(subject) && !gone.cgroups.iter().any(|cgroup| is_held(*cgroup))
        };
        let mut ready = Ready::default();
        for (subject, gone) in self.gone.extract_if(.., may_leave) {
            for cgroup in &gone.cgroups {
                self.whose.remove(cgroup);
            }
            ready.subjects.insert(subject);
            ready.cgroups.extend(gone.cgroups);
        }
        ready
    }
}

/// What is done to the archive, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// Writes what is kept under [`Kept::Left`].
    Write(Archived),
    /// Removes a key.
    Remove(FlowKey),
    /// Forgets whose a cgroup was: a packet that is later still is not counted as one of the container's, which would begin from
    /// zero.
    Forget(u64),
}

/// Lets all flows of a cgroup leave, of which this is known: their keys as the archive has them and what they come to. `left` is
/// what has left before.
pub(crate) fn steps(cgroup: u64, keys: &[FlowKey], total: &FlowRecord, left: Archived) -> impl Iterator<Item = Step> {
    let leaving = left.leaving(cgroup, total);
    let removed = keys.iter().map(|key| Step::Remove(*key));
    [Step::Write(leaving)]
        .into_iter()
        .chain(removed)
        .chain([Step::Forget(cgroup), Step::Write(leaving.left())])
}

/// Whether something of a cgroup is among what leaves with it.
pub(crate) const fn leaves(kept: Kept) -> bool {
    match kept {
        Kept::Flow(_) | Kept::Older(_) => true,
        // Whose a loss was is told as long as there is room for that, and the sum of what left stays.
        Kept::Loss(_) | Kept::Left | Kept::Discarded => false,
    }
}

/// The steps that an earlier learner did not live to take.
pub(crate) fn unfinished(all: &[(Kept, Archived)]) -> Vec<Step> {
    let left = all.iter().find(|(kept, _)| *kept == Kept::Left);
    let Some((cgroup, left)) = left.and_then(|(_, left)| Some((left.leaver()?, left))) else {
        return Vec::new();
    };
    let keys = all
        .iter()
        .filter(|(kept, _)| leaves(*kept))
        .map(|(kept, _)| kept.to_key());
    let keys = keys.filter(|key| key.cgroup == cgroup);
    keys.map(Step::Remove)
        .chain([Step::Forget(cgroup), Step::Write(left.left())])
        .collect()
}

#[cfg(test)]
mod tests;
