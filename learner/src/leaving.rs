//! Which flows may leave: the table, and what is kept for the next learner; and how they leave that.
//!
//! Laws:
//! * Nothing leaves but what the controller has acknowledged, of containers of pods of which no cgroup is there any more: they
//!   count nothing again, and are not asked for again.
//! * All cgroups of a container leave together, because what stays of one would be told as all of it. Where a learner is killed
//!   in between, that is less than what is acknowledged, and changes nothing.
//! * A unit, and what some other runtime started, may come back under the same name and count on, so what is kept of it stays: once
//!   for each of its flows, however often it came back.
//! * Stopped after any step, the next learner finds each flow kept or left, and what left, or became one, is counted once.

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
    /// Cgroups that are gone of what may come back.
    returning: BTreeMap<u64, Subject>,
    /// Whether one of them went since they became one.
    is_another_gone: bool,
}

impl Leaving {
    /// A cgroup is gone, of which something is in the table up to this version.
    pub(crate) fn is_gone(&mut self, cgroup: u64, subject: Subject, version: u64) {
        match &subject {
            Subject::Container(_) => {}
            Subject::Host(_) => {
                self.returning.insert(cgroup, subject);
                self.is_another_gone = true;
                return;
            }
            Subject::Unknown(_) => return,
        }
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

    /// Cgroups of which what is kept may become one with others' of the same name: if another one is gone. `is_kept` tells whether
    /// something is kept of a cgroup, `is_held` whether the flow map has something of it.
    pub(crate) fn returning(
        &mut self,
        is_kept: impl Fn(u64) -> bool,
        is_held: impl Fn(u64) -> bool,
    ) -> BTreeMap<u64, Subject> {
        self.returning.retain(|cgroup, _| is_kept(*cgroup));
        if !self.is_another_gone {
            return BTreeMap::new();
        }
        let mut ready = self.returning.clone();
        ready.retain(|cgroup, _| !is_held(*cgroup));
        self.is_another_gone = ready.len() < self.returning.len();
        ready
    }
}

/// What is done to the archive, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// Writes what is kept.
    Write(Kept, Archived),
    /// Removes a key: it leaves.
    Remove(FlowKey),
    /// Removes a key that has become one with another: it is still there.
    Join(FlowKey),
    /// Forgets whose a cgroup was: a packet that is later still is not counted as one of the container's, which would begin from
    /// zero.
    Forget(u64),
}

/// Lets all flows of a cgroup leave, of which this is known: their keys as the archive has them and what they come to. `left` is
/// what has left before.
pub(crate) fn steps(cgroup: u64, keys: &[FlowKey], total: &FlowRecord, left: Archived) -> impl Iterator<Item = Step> {
    let leaving = left.leaving(cgroup, total);
    let removed = keys.iter().map(|key| Step::Remove(*key));
    [Step::Write(Kept::Left, leaving)]
        .into_iter()
        .chain(removed)
        .chain([Step::Forget(cgroup), Step::Write(Kept::Left, leaving.left())])
}

/// Whether something of a cgroup is among what leaves with it.
pub(crate) const fn leaves(kept: Kept) -> bool {
    match kept {
        Kept::Flow(_) | Kept::Older(_) => true,
        // Whose a loss was is told as long as there is room for that, and the sum of what left stays.
        Kept::Loss(_) | Kept::Left | Kept::Discarded => false,
    }
}

/// Makes one of all that is kept of one flow, where its cgroups are gone and have the same name: what came later is added to what
/// came first, as a record that left, and is then removed. No place is needed for it.
pub(crate) fn joining<W: Ord>(names: &BTreeMap<u64, W>, all: &[(Kept, Archived)]) -> Vec<Step> {
    let mut steps = Vec::new();
    for ((first, mut sum), others) in of_one_flow(names, all) {
        for (other, archived) in others {
            let (key, total) = (other.to_key(), archived.total());
            // What began at the same time would be taken for the record that left last.
            if total.first_ns == sum.last.first_ns {
                continue;
            }
            sum = sum.with(&total);
            steps.extend([Step::Write(first, sum), Step::Join(key), Step::Forget(key.cgroup)]);
        }
    }
    steps
}

/// What is kept of one flow: of the first cgroup, and of the others.
type OfOneFlow = ((Kept, Archived), Vec<(Kept, Archived)>);

/// What is kept more than once of flows with the same name.
fn of_one_flow<W: Ord>(names: &BTreeMap<u64, W>, all: &[(Kept, Archived)]) -> Vec<OfOneFlow> {
    let mut flows: BTreeMap<_, BTreeMap<u64, (Kept, Archived)>> = BTreeMap::new();
    for (kept, archived) in all.iter().filter(|(kept, _)| leaves(*kept)) {
        let FlowKey {
            cgroup,
            peer,
            port,
            transport,
            role,
            pad: _,
        } = kept.to_key();
        if let Some(name) = names.get(&cgroup) {
            let flow = (name, peer, port, transport, role);
            flows.entry(flow).or_default().insert(cgroup, (*kept, *archived));
        }
    }
    let mut all = Vec::new();
    for mut cgroups in flows.into_values().filter(|cgroups| cgroups.len() > 1) {
        if let Some((_, first)) = cgroups.pop_first() {
            all.push((first, cgroups.into_values().collect()));
        }
    }
    all
}

/// The steps of [`joining`] that an earlier learner did not live to take: what is the last that was added to another.
pub(crate) fn unjoined<W: Ord>(names: &BTreeMap<u64, W>, all: &[(Kept, Archived)]) -> Vec<Step> {
    let mut steps = Vec::new();
    for ((_, sum), others) in of_one_flow(names, all) {
        let added = others.into_iter().find(|(_, archived)| archived.total() == sum.last);
        if let Some((other, _)) = added {
            let key = other.to_key();
            steps.extend([Step::Join(key), Step::Forget(key.cgroup)]);
        }
    }
    steps
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
        .chain([Step::Forget(cgroup), Step::Write(Kept::Left, left.left())])
        .collect()
}

#[cfg(test)]
mod tests;
