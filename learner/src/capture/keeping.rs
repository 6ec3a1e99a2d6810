//! What is kept in the kernel for the next learner, beside what the programs count there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, OwnedFd};

use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData, MapError};
use nanoseg_ebpf::kept::{Archived, Kept, Owner};
use nanoseg_ebpf::{FlowKey, FlowRecord, LossKey, name};
use nanoseg_graph::flow::Subject;

use super::{Capture, CaptureError, Plain, remove, take};
use crate::bpf::{self, Place};
use crate::leaving::{self, Step};

pub(super) struct Keeping {
    archive: HashMap<MapData, Plain<FlowKey>, Plain<Archived>>,
    /// The same map, to be read as a whole.
    whole_archive: OwnedFd,
    owners: HashMap<MapData, u64, Plain<Owner>>,
    /// How many keys of each cgroup are in the archive.
    archived: BTreeMap<u64, usize>,
    counts: KeptCounts,
    complained: bool,
}

/// What became of keys of the archive, as far as this learner knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeptCounts {
    /// Keys that are there.
    pub(crate) held: usize,
    /// Keys that left, because nobody needs them any more.
    pub(crate) left: u64,
    /// How often there was no room for what had to be kept.
    pub(crate) refused: u64,
}

impl Keeping {
    pub(super) fn new(programs: &mut Ebpf, discarded: u64) -> Result<Self, CaptureError> {
        let name = name::ARCHIVE;
        let Some(Map::HashMap(map)) = programs.map(name) else {
            return Err(CaptureError::Missing { name });
        };
        let whole_archive = map.fd().as_fd().try_clone_to_owned();
        let mut keeping = Self {
            whole_archive: whole_archive.map_err(|source| CaptureError::ReadAll { name, source })?,
            archive: take(programs, name)?,
            owners: take(programs, name::OWNERS)?,
            archived: BTreeMap::new(),
            counts: KeptCounts::default(),
            complained: false,
        };
        let all = keeping.all()?;
        for (kept, _) in &all {
            keeping.came(kept.to_key());
        }
        keeping.take(leaving::unfinished(&all))?;
        let owners = keeping.owners()?.into_iter().collect();
        keeping.take(leaving::unjoined(&owners, &keeping.all()?))?;
        // A place for what leaves, while there is room for one.
        keeping.put(Kept::Left, |left| left)?;
        if discarded > 0 {
            let last = FlowRecord {
                attempted: discarded,
                ..FlowRecord::default()
            };
            keeping.put(Kept::Discarded, |known| Archived { last, ..known })?;
        }
        Ok(keeping)
    }

    fn get(&self, kept: Kept) -> Result<Option<Archived>, CaptureError> {
        match self.archive.get(&Plain(kept.to_key()), 0) {
            Ok(Plain(known)) => Ok(Some(known)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(CaptureError::Read {
                name: name::ARCHIVE,
                source,
            }),
        }
    }

    /// Says whether there was room for it.
    fn put(&mut self, kept: Kept, change: impl FnOnce(Archived) -> Archived) -> Result<bool, CaptureError> {
        let known = self.get(kept)?;
        let key = kept.to_key();
        match self
            .archive
            .insert(Plain(key), Plain(change(known.unwrap_or_default())), 0)
        {
            Ok(()) => {
                if known.is_none() {
                    self.came(key);
                }
                Ok(true)
            }
            Err(source) => self.complain(name::ARCHIVE, source).map(|()| false),
        }
    }

    fn came(&mut self, key: FlowKey) {
        *self.archived.entry(key.cgroup).or_default() += 1;
        self.counts.held += 1;
    }

    fn let_leave(&mut self, key: FlowKey) -> Result<(), CaptureError> {
        if self.remove(key)? {
            self.counts.left += 1;
        }
        Ok(())
    }

    /// Says whether it was there.
    fn remove(&mut self, key: FlowKey) -> Result<bool, CaptureError> {
        if !remove(&mut self.archive, &Plain(key), name::ARCHIVE)? {
            return Ok(false);
        }
        self.counts.held = self.counts.held.saturating_sub(1);
        if let Some(keys) = self.archived.get_mut(&key.cgroup) {
            *keys -= 1;
            if *keys == 0 {
                self.archived.remove(&key.cgroup);
            }
        }
        Ok(true)
    }

    fn forget_owner(&mut self, cgroup: u64) -> Result<(), CaptureError> {
        if self.archived.contains_key(&cgroup) {
            return Ok(());
        }
        // None was kept of a path that is too long, or where there was no room.
        remove(&mut self.owners, &cgroup, name::OWNERS).map(drop)
    }

    /// Says whether all could be done: there is no place for what left in an archive that was full when it came to be one.
    fn take(&mut self, steps: impl IntoIterator<Item = Step>) -> Result<bool, CaptureError> {
        for step in steps {
            match step {
                Step::Write(kept, archived) => {
                    if !self.put(kept, |_| archived)? {
                        return Ok(false);
                    }
                }
                Step::Remove(key) => self.let_leave(key)?,
                Step::Join(key) => drop(self.remove(key)?),
                Step::Forget(cgroup) => self.forget_owner(cgroup)?,
            }
        }
        Ok(true)
    }

    fn leave(&mut self, cgroups: &BTreeSet<u64>) -> Result<(), CaptureError> {
        let mut leaving: BTreeMap<u64, (Vec<FlowKey>, FlowRecord)> = BTreeMap::new();
        for (kept, archived) in self.all()? {
            let key = kept.to_key();
            if leaving::leaves(kept) && cgroups.contains(&key.cgroup) {
                let (keys, before) = leaving.entry(key.cgroup).or_default();
                keys.push(key);
                let last = archived.total();
                *before = Archived { before: *before, last }.total();
            }
        }
        for (cgroup, (keys, total)) in leaving {
            let left = self.get(Kept::Left)?.unwrap_or_default();
            if !self.take(leaving::steps(cgroup, &keys, &total, left))? {
                break;
            }
        }
        Ok(())
    }

    fn join(&mut self, names: &BTreeMap<u64, Subject>) -> Result<(), CaptureError> {
        let steps = leaving::joining(names, &self.all()?);
        self.take(steps).map(drop)
    }

    fn owners(&self) -> Result<Vec<(u64, String)>, CaptureError> {
        let mut all = Vec::new();
        for entry in &self.owners {
            let (cgroup, Plain(owner)) = entry.map_err(|source| CaptureError::Read {
                name: name::OWNERS,
                source,
            })?;
            all.extend(owner.path().map(|path| (cgroup, path.to_owned())));
        }
        Ok(all)
    }

    fn all(&self) -> Result<Vec<(Kept, Archived)>, CaptureError> {
        let mut all = Vec::new();
        let each = |Plain(key): &Plain<FlowKey>, Plain(archived): &Plain<Archived>| {
            all.push((Kept::from_key(*key), *archived));
        };
        bpf::part(self.whole_archive.as_fd(), Place::default(), usize::MAX, each).map_err(|source| {
            CaptureError::ReadAll {
                name: name::ARCHIVE,
                source,
            }
        })?;
        Ok(all)
    }

    /// A full map is no reason to end: what is in it stays, and what was reported is reported.
    fn complain(&mut self, name: &'static str, source: MapError) -> Result<(), CaptureError> {
        let is_full = matches!(&source, MapError::SyscallError(error)
            if error.io_error.raw_os_error() == Some(rustix::io::Errno::TOOBIG.raw_os_error()));
        if !is_full {
            return Err(CaptureError::Write { name, source });
        }
        self.counts.refused += 1;
        if !self.complained {
            self.complained = true;
            tracing::warn!(
                map = name,
                "what is kept for the next learner is full: it will not know what was reported and is not in the kernel any more"
            );
        }
        Ok(())
    }
}

impl Capture {
    /// Keeps what leaves the kernel's map or was never in it.
    pub(crate) fn archive(&mut self, kept: Kept, record: &FlowRecord) -> Result<(), CaptureError> {
        self.put(kept, |known| known.with(record))
    }

    /// Keeps how much of a loss left the kernel's map: before, and now.
    pub(super) fn keep_loss(&mut self, key: LossKey, before: u64, now: u64) -> Result<(), CaptureError> {
        let [before, last] = [before, now].map(|attempted| FlowRecord {
            attempted,
            ..FlowRecord::default()
        });
        self.put(Kept::Loss(key), |_| Archived { before, last })
    }

    /// Counts a loss that no program counts.
    pub(crate) fn lose(&mut self, key: LossKey, count: u64) -> Result<(), CaptureError> {
        self.keep_loss(key, 0, count)
    }

    /// What a loss came to that left the kernel's map while an earlier learner ran. One that is still there was on its way out
    /// when that learner ended.
    pub(crate) fn kept_loss(&mut self, key: LossKey, kept: &Archived) -> Result<u64, CaptureError> {
        let (before, last) = (kept.before.attempted, kept.last.attempted);
        match self.losses.get(&Plain(key), 0) {
            Ok(count) if count >= last => self.forgive(key, before),
            Ok(_) | Err(MapError::KeyNotFound) => Ok(before + last),
            Err(source) => Err(CaptureError::Read {
                name: name::LOSSES,
                source,
            }),
        }
    }

    fn put(&mut self, kept: Kept, change: impl FnOnce(Archived) -> Archived) -> Result<(), CaptureError> {
        match &mut self.keeping {
            Some(keeping) => keeping.put(kept, change).map(drop),
            None => Ok(()),
        }
    }

    /// Everything that was kept of flows and losses.
    pub(crate) fn archived(&self) -> Result<Vec<(Kept, Archived)>, CaptureError> {
        self.keeping.as_ref().map_or_else(|| Ok(Vec::new()), Keeping::all)
    }

    /// Lets what is kept of the flows of cgroups leave: all of it is delivered, and none of them comes back.
    pub(crate) fn leave(&mut self, cgroups: &BTreeSet<u64>) -> Result<(), CaptureError> {
        match &mut self.keeping {
            Some(keeping) if !cgroups.is_empty() => keeping.leave(cgroups),
            Some(_) | None => Ok(()),
        }
    }

    /// Makes one of what is kept of cgroups that are gone and have the same name.
    pub(crate) fn join(&mut self, names: &BTreeMap<u64, Subject>) -> Result<(), CaptureError> {
        match &mut self.keeping {
            // Of one there is nothing to become one.
            Some(keeping) if names.len() > 1 => keeping.join(names),
            Some(_) | None => Ok(()),
        }
    }

    /// Forgets whose a loss was: it stays in what was lost in all.
    pub(crate) fn forget_loss(&mut self, key: LossKey) -> Result<(), CaptureError> {
        match &mut self.keeping {
            Some(keeping) => keeping.let_leave(Kept::Loss(key).to_key()),
            None => Ok(()),
        }
    }

    /// Whether something is kept of a cgroup.
    pub(crate) fn is_archived(&self, cgroup: u64) -> bool {
        let keeping = self.keeping.as_ref();
        keeping.is_some_and(|keeping| keeping.archived.contains_key(&cgroup))
    }

    /// What became of what is kept.
    pub(crate) fn kept(&self) -> KeptCounts {
        self.keeping
            .as_ref()
            .map_or_else(KeptCounts::default, |keeping| keeping.counts)
    }

    /// Keeps the path of a cgroup.
    pub(crate) fn keep_owner(&mut self, cgroup: u64, path: &str) -> Result<(), CaptureError> {
        let (Some(keeping), Some(owner)) = (&mut self.keeping, Owner::new(path)) else {
            return Ok(());
        };
        match keeping.owners.insert(cgroup, Plain(owner), 0) {
            Ok(()) => Ok(()),
            Err(source) => keeping.complain(name::OWNERS, source),
        }
    }

    /// The path of every cgroup that was kept.
    pub(crate) fn owners(&self) -> Result<Vec<(u64, String)>, CaptureError> {
        self.keeping.as_ref().map_or_else(|| Ok(Vec::new()), Keeping::owners)
    }

    /// Forgets the path of a cgroup that is gone, unless something is kept of it.
    pub(crate) fn forget_owner(&mut self, cgroup: u64) -> Result<(), CaptureError> {
        match &mut self.keeping {
            Some(keeping) => keeping.forget_owner(cgroup),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
