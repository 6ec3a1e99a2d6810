//! Which keys leave the flow map, and whose room that is.
//!
//! Law: what the programs are told is free is free. They may be told late, and a learner that is killed in between leaves the
//! rest to the next one.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use aya::maps::{HashMap, MapData, MapError};
use nanoseg_ebpf::kept::Kept;
use nanoseg_ebpf::{EVERY_CGROUP, FlowEntry, FlowKey, FlowRecord, name};

use super::{Capture, CaptureError, Plain, remove};
use crate::bpf;
use crate::clock::monotonic_ns;

/// What the kernel answers to a command that a kind of map does not have; not one of the errors that programs are meant to see.
const ENOTSUPP: i32 = 524;

fn counted(map: &HashMap<MapData, u64, u64>, name: &'static str, cgroup: u64) -> Result<Option<u64>, CaptureError> {
    match map.get(&cgroup, 0) {
        Ok(count) => Ok(Some(count)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(source) => Err(CaptureError::Read { name, source }),
    }
}

impl Capture {
    /// Takes out a key to make room for others, which [`Capture::release`] then gives. The caller has read the record; returned
    /// is what it was when it left.
    pub(crate) fn evict(&mut self, key: &FlowKey, record: &FlowRecord) -> Result<FlowRecord, CaptureError> {
        self.archive(Kept::Flow(*key), record)?;
        let Some(last) = self.take(key, record)? else {
            return Ok(*record);
        };
        for cgroup in [key.cgroup, EVERY_CGROUP] {
            *self.unreleased.entry(cgroup).or_default() += 1;
        }
        if last != *record {
            self.archive(Kept::Flow(*key), &last)?;
        }
        Ok(last)
    }

    /// Takes out a key, which was seen there, and returns what it was then: as it was known, where the kernel does not tell.
    fn take(&mut self, key: &FlowKey, known: &FlowRecord) -> Result<Option<FlowRecord>, CaptureError> {
        match bpf::take::<_, Plain<FlowEntry>>(self.all_flows.as_fd(), &Plain(key.slot())) {
            Ok(taken) => return Ok(taken.map(|Plain(entry)| self.whole(key, entry.record))),
            // Before Linux 5.14 there is no such command for hash maps, and what is counted in between is lost.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP)) => {}
            Err(source) => {
                let name = name::FLOWS;
                return Err(CaptureError::Take { name, source });
            }
        }
        let was_there = remove(&mut self.flows, &Plain(key.slot()), name::FLOWS)?;
        Ok(was_there.then_some(*known))
    }

    /// Lets the programs know of the room that was made: once for many keys, because it takes more than they do.
    pub(crate) fn release(&mut self) -> Result<(), CaptureError> {
        while let Some((cgroup, count)) = self.unreleased.pop_first() {
            let name = name::RELEASED;
            let before = counted(&self.released, name, cgroup)?.unwrap_or(0);
            self.released
                .insert(cgroup, before + count, 0)
                .map_err(|source| CaptureError::Write { name, source })?;
        }
        Ok(())
    }

    /// Gives back the room of keys that an earlier learner took out and did not live to count. What the programs make meanwhile
    /// is never counted as room: that errs towards less of it.
    pub(crate) fn release_what_is_not_held(&mut self) -> Result<(), CaptureError> {
        let mut missing: BTreeMap<u64, u64> = BTreeMap::new();
        for entry in &self.admitted {
            let (cgroup, admitted) = entry.map_err(|source| CaptureError::Read {
                name: name::ADMITTED,
                source,
            })?;
            let released = counted(&self.released, name::RELEASED, cgroup)?.unwrap_or(0);
            missing.insert(cgroup, admitted.saturating_sub(released));
        }
        // Only what is older was admitted by then.
        let counted_ns = monotonic_ns();
        self.scan(|key, record| {
            for cgroup in [key.cgroup, EVERY_CGROUP] {
                if let Some(missing) = missing.get_mut(&cgroup).filter(|_| record.first_ns < counted_ns) {
                    *missing = missing.saturating_sub(1);
                }
            }
        })?;
        self.unreleased = missing;
        self.unreleased.retain(|_, count| *count > 0);
        self.release()
    }

    /// How many flows the kernel holds. One that enters at this moment may not be counted yet.
    pub(crate) fn held(&self) -> Result<usize, CaptureError> {
        let admitted = counted(&self.admitted, name::ADMITTED, EVERY_CGROUP)?.unwrap_or(0);
        let released = counted(&self.released, name::RELEASED, EVERY_CGROUP)?.unwrap_or(0);
        Ok(usize::try_from(admitted.saturating_sub(released)).unwrap_or(usize::MAX))
    }

    /// Gives the place of a cgroup that is gone to another one, if it has nothing in the flow map any more.
    pub(crate) fn dismiss(&mut self, cgroup: u64) -> Result<(), CaptureError> {
        let Some(admitted) = counted(&self.admitted, name::ADMITTED, cgroup)? else {
            return Ok(());
        };
        if admitted != counted(&self.released, name::RELEASED, cgroup)?.unwrap_or(0) {
            return Ok(());
        }
        for (map, name) in [
            (&mut self.admitted, name::ADMITTED),
            (&mut self.released, name::RELEASED),
        ] {
            remove(map, &cgroup, name)?;
        }
        Ok(())
    }
}
