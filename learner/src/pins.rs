//! The folder of a bpf file system in which maps and links wait for the next learner.
//!
//! Laws:
//! * One learner at a time has the folder.
//! * What is there is taken over as a whole or not at all: only if every pin is there, of a layout that means the same, of this
//!   node and this part of the cgroup tree. Anything else is removed, after the new programs are attached, and that is said and
//!   counted.
//! * Programs are replaced in their links by one step of the kernel, so that no packet passes none of them or two.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData};
use nanoseg_ebpf::kept::{Header, LAYOUT, LAYOUTS, MAPS};
use nanoseg_ebpf::name;
use rustix::fs::{FlockOperation, flock, statfs};

use crate::bpf;
use crate::preflight::CgroupTree;

/// `BPF_FS_MAGIC`.
const BPF_FILE_SYSTEM: u64 = 0xcafe_4a11;

/// What prevents pinning.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinsError {
    #[error("cannot make or open the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("{} is not in a bpf file system: mount one with `mount -t bpf bpf /sys/fs/bpf`", path.display())]
    NotBpf { path: PathBuf },
    #[error("another learner has the folder {}: give each its own, or end that one", path.display())]
    Taken { path: PathBuf },
    #[error("cannot remove the pin {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("cannot replace the program of the link {}: remove the pins with --uninstall", path.display())]
    Replace { path: PathBuf, source: io::Error },
}

/// What a learner finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// All that a learner needs to go on with what was counted since this time.
    Whole {
        /// Nanoseconds since the Unix epoch.
        epoch: u64,
        /// How many flows its map holds.
        flows: u32,
    },
    /// Something that cannot be taken over, and why.
    Other(&'static str),
}

/// The folder, held by this process.
#[derive(Debug)]
pub(crate) struct Pins {
    folder: PathBuf,
    identity: u64,
    /// The lock goes with it.
    _lock: File,
}

/// Where a link is pinned, by its program.
const LINKS: [&str; 2] = [name::INGRESS, name::EGRESS];

impl Pins {
    /// Makes the folder and takes it.
    pub(crate) fn open(folder: &Path, node: &str, tree: &CgroupTree) -> Result<Self, PinsError> {
        let path = || folder.to_owned();
        // Parents first: what another file system lets be made there is no use.
        let parent = folder.ancestors().skip(1).find(|parent| parent.is_dir());
        if !is_bpf(parent.unwrap_or(folder)) && !is_bpf(folder) {
            return Err(PinsError::NotBpf { path: path() });
        }
        fs::create_dir_all(folder).map_err(|source| PinsError::Folder { path: path(), source })?;
        let lock = lock(folder)?;
        let root = fs::metadata(&tree.root).map(|root| root.ino()).unwrap_or_default();
        Ok(Self {
            folder: folder.to_owned(),
            identity: identity(node, root),
            _lock: lock,
        })
    }

    /// What is there.
    pub(crate) fn found(&self) -> Found {
        if fs::read_dir(&self.folder).is_ok_and(|mut inside| inside.next().is_none()) {
            return Found::Nothing;
        }
        let header = |place: Header| self.header().and_then(|header| header.get(&(place as u32), 0).ok());
        if !header(Header::Layout).is_some_and(|layout| LAYOUTS.contains(&layout)) {
            return Found::Other("they are of another version");
        }
        if header(Header::Identity) != Some(self.identity) {
            return Found::Other("they are of another node or another --cgroup-root");
        }
        let pins = MAPS.into_iter().chain(LINKS);
        if !pins.into_iter().all(|name| self.path(name).exists()) {
            return Found::Other("some of them are missing");
        }
        let flows = MapData::from_pin(self.path(name::FLOWS)).and_then(|map| Ok(map.info()?.max_entries()));
        match (header(Header::Epoch), flows) {
            (Some(epoch), Ok(flows)) => Found::Whole { epoch, flows },
            (None, _) | (_, Err(_)) => Found::Other("they cannot be read"),
        }
    }

    fn header(&self) -> Option<Array<MapData, u64>> {
        let map = MapData::from_pin(self.path(name::HEADER)).ok()?;
        Array::try_from(Map::Array(map)).ok()
    }

    /// What the header says of what begins now, in the order in which it is written.
    pub(crate) const fn beginning(&self, epoch: u64) -> [(Header, u64); 3] {
        [
            (Header::Epoch, epoch),
            (Header::Identity, self.identity),
            (Header::Layout, LAYOUT),
        ]
    }

    /// How many flows are there, whatever a key of them is; `None` when nobody can tell.
    pub(crate) fn flows(&self) -> Option<u64> {
        let map = MapData::from_pin(self.path(name::FLOWS)).ok()?;
        let info = map.info().ok()?;
        let [key_size, most] = [info.key_size(), info.max_entries()].map(|number| usize::try_from(number).ok());
        let count = bpf::count(map.fd().as_fd(), key_size?, most?).ok()?;
        u64::try_from(count).ok()
    }

    /// Where something is pinned.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Removes what is there. Links first: nothing counts into maps that nobody can read.
    pub(crate) fn clear(&self) -> Result<(), PinsError> {
        clear(&self.folder)
    }

    /// Lets a pinned link run another program from the next packet on.
    pub(crate) fn replace(&self, name: &str, program: BorrowedFd<'_>) -> Result<(), PinsError> {
        let path = self.path(name);
        bpf::replace(&path, program).map_err(|source| PinsError::Replace { path, source })
    }
}

/// Removes every pin and the folder. Says whether it was there.
pub(crate) fn uninstall(folder: &Path) -> Result<bool, PinsError> {
    let path = || folder.to_owned();
    // Who may not look must not be told that there is nothing.
    if !fs::exists(folder).map_err(|source| PinsError::Folder { path: path(), source })? {
        return Ok(false);
    }
    if !is_bpf(folder) {
        return Err(PinsError::NotBpf { path: path() });
    }
    let _lock = lock(folder)?;
    clear(folder)?;
    fs::remove_dir(folder).map_err(|source| PinsError::Remove { path: path(), source })?;
    Ok(true)
}

/// FNV-1a: the same in every build, unlike the standard library's.
fn identity(node: &str, root: u64) -> u64 {
    let bytes = node.bytes().chain(root.to_ne_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn clear(folder: &Path) -> Result<(), PinsError> {
    // Only what a learner pins: the folder may be somebody else's by mistake.
    for name in LINKS.into_iter().chain(MAPS) {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(PinsError::Remove { path, source }),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn is_bpf(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|known| u64::try_from(known.f_type) == Ok(BPF_FILE_SYSTEM))
}

fn lock(folder: &Path) -> Result<File, PinsError> {
    let path = || folder.to_owned();
    let lock = File::open(folder).map_err(|source| PinsError::Folder { path: path(), source })?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_held| PinsError::Taken { path: path() })?;
    Ok(lock)
}
