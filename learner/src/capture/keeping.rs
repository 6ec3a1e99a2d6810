//! What is kept in the kernel for the next learner, beside what the programs count there.

use std::collections::BTreeSet;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError};
use nanoseg_ebpf::kept::{Archived, Kept, Owner};
use nanoseg_ebpf::{FlowKey, FlowRecord, LossKey, name};

use super::{Capture, CaptureError, Plain, take};

pub(super) struct Keeping {
    archive: HashMap<MapData, Plain<FlowKey>, Plain<Archived>>,
    owners: HashMap<MapData, u64, Plain<Owner>>,
    /// Cgroups that the archive names.
    archived: BTreeSet<u64>,
    complained: bool,
}

impl Keeping {
    pub(super) fn new(programs: &mut Ebpf) -> Result<Self, CaptureError> {
        Ok(Self {
            archive: take(programs, name::ARCHIVE)?,
            owners: take(programs, name::OWNERS)?,
            archived: BTreeSet::new(),
            complained: false,
        })
    }

    /// A full map is no reason to end: what is in it stays, and what was reported is reported.
    fn complain(&mut self, name: &'static str, source: MapError) -> Result<(), CaptureError> {
        let is_full = matches!(&source, MapError::SyscallError(error)
            if error.io_error.raw_os_error() == Some(rustix::io::Errno::TOOBIG.raw_os_error()));
        if !is_full {
            return Err(CaptureError::Write { name, source });
        }
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
        let Some(keeping) = &mut self.keeping else {
            return Ok(());
        };
        let name = name::ARCHIVE;
        let key = kept.to_key();
        let known = match keeping.archive.get(&Plain(key), 0) {
            Ok(Plain(known)) => known,
            Err(MapError::KeyNotFound) => Archived::default(),
            Err(source) => return Err(CaptureError::Read { name, source }),
        };
        match keeping.archive.insert(Plain(key), Plain(change(known)), 0) {
            Ok(()) => {
                keeping.archived.insert(key.cgroup);
                Ok(())
            }
            Err(source) => keeping.complain(name, source),
        }
    }

    /// Everything that was kept of flows and losses.
    pub(crate) fn archived(&mut self) -> Result<Vec<(Kept, Archived)>, CaptureError> {
        let Some(keeping) = &mut self.keeping else {
            return Ok(Vec::new());
        };
        let mut all = Vec::new();
        for entry in &keeping.archive {
            let (Plain(key), Plain(archived)) = entry.map_err(|source| CaptureError::Read {
                name: name::ARCHIVE,
                source,
            })?;
            all.push((Kept::from_key(key), archived));
        }
        keeping
            .archived
            .extend(all.iter().map(|(kept, _)| kept.to_key().cgroup));
        Ok(all)
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
        let Some(keeping) = &self.keeping else {
            return Ok(Vec::new());
        };
        let mut all = Vec::new();
        for entry in &keeping.owners {
            let (cgroup, Plain(owner)) = entry.map_err(|source| CaptureError::Read {
                name: name::OWNERS,
                source,
            })?;
            all.extend(owner.path().map(|path| (cgroup, path.to_owned())));
        }
        Ok(all)
    }

    /// Forgets the path of a cgroup that is gone, unless something is kept of it.
    pub(crate) fn forget_owner(&mut self, cgroup: u64) -> Result<(), CaptureError> {
        let Some(keeping) = &mut self.keeping else {
            return Ok(());
        };
        if keeping.archived.contains(&cgroup) {
            return Ok(());
        }
        match keeping.owners.remove(&cgroup) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(source) => Err(CaptureError::Write {
                name: name::OWNERS,
                source,
            }),
        }
    }
}
