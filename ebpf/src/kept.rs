//! What outlives one learner for the next, where it is told a folder to pin it in.
//!
//! Laws:
//! * Counts are absolute. A record that leaves the flow map is in [`Archived`] before it leaves, by when it began: seen in both
//!   it is the same one and counts once, whenever the process that moved it was killed.
//! * Maps of another [`LAYOUT`] are never read.

use crate::{FlowKey, FlowRecord, LossKey, name};

/// Raised with every change to what a pinned map holds or means.
pub const LAYOUT: u64 = 3;

/// What the header says, by place. It is written from the end to the beginning: with the layout in it all is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// [`LAYOUT`].
    Layout,
    /// Whose: see the learner.
    Identity,
    /// Since when is counted, in nanoseconds since the Unix epoch.
    Epoch,
}

impl Header {
    /// How many places there are.
    pub const PLACES: u32 = 3;
}

/// The maps that are kept.
pub const MAPS: [&str; 14] = [
    name::FLOWS,
    name::EXCHANGES,
    name::CROWDED,
    name::CROWDS,
    name::GRACE_END,
    name::ADMITTED,
    name::RELEASED,
    name::LOSSES,
    name::COUNTERS,
    name::ANNOUNCEMENTS,
    name::ANSWERS,
    name::ARCHIVE,
    name::OWNERS,
    name::HEADER,
];

/// How many keys the archive has room for. It takes a hundred bytes for each that is there, and sixteen for each that is not.
pub const ARCHIVED: u32 = 262_144;

/// How many paths there is room for, likewise.
pub const OWNERS: u32 = 65_536;

/// What left the flow map of one key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Archived {
    /// The sum of all records but the last.
    pub before: FlowRecord,
    /// The last record that left, and perhaps is still there: the same one if it began at the same time.
    pub last: FlowRecord,
}

impl Archived {
    /// With a record that leaves, or that left before and has grown since.
    #[must_use]
    pub fn with(self, record: &FlowRecord) -> Self {
        let before = if self.last.first_ns == record.first_ns {
            self.before
        } else {
            sum(&self.before, &self.last)
        };
        Self { before, last: *record }
    }

    /// All that left.
    pub fn total(&self) -> FlowRecord {
        sum(&self.before, &self.last)
    }
}

fn sum(left: &FlowRecord, right: &FlowRecord) -> FlowRecord {
    // None began at 0: it is the record of nothing.
    let first_ns = match (left.first_ns, right.first_ns) {
        (0, first) | (first, 0) => first,
        (left, right) => left.min(right),
    };
    FlowRecord {
        first_ns,
        last_ns: left.last_ns.max(right.last_ns),
        attempted: left.attempted.saturating_add(right.attempted),
        established: left.established.saturating_add(right.established),
        refused: left.refused.saturating_add(right.refused),
    }
}

/// Instead of a role in the key of something archived: connections that were older than the programs.
const OLDER: u8 = 0x80;

/// Instead of a role: a loss, with its reason as the peer and its count as attempted.
const LOST: u8 = 0x40;

/// What a key of the archive stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A flow.
    Flow(FlowKey),
    /// Connections that were older than the programs, by the flow they belong to.
    Older(FlowKey),
    /// A loss.
    Loss(LossKey),
}

impl Kept {
    /// As the archive has it.
    pub fn to_key(self) -> FlowKey {
        match self {
            Self::Flow(key) => key,
            Self::Older(key) => FlowKey {
                role: key.role | OLDER,
                ..key
            },
            Self::Loss(LossKey { cgroup, reason, pad: _ }) => FlowKey {
                cgroup,
                peer: [reason, 0, 0, 0],
                port: 0,
                transport: 0,
                role: LOST,
                pad: 0,
            },
        }
    }

    /// What the archive has.
    pub fn from_key(key: FlowKey) -> Self {
        if key.role == LOST {
            Self::Loss(LossKey {
                cgroup: key.cgroup,
                reason: key.peer[0],
                pad: 0,
            })
        } else if key.role & OLDER != 0 {
            Self::Older(FlowKey {
                role: key.role & !OLDER,
                ..key
            })
        } else {
            Self::Flow(key)
        }
    }
}

/// The path of a cgroup, by which the next learner knows whose it was when it is gone.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Owner {
    /// How many bytes of the path follow; what is behind them means nothing.
    pub length: u32,
    /// Always zero.
    pub pad: u32,
    /// The path below the cgroup2 mount.
    pub path: [u8; Self::LONGEST],
}

impl Owner {
    /// Twice what kubelet in a nested node makes. A longer one is not kept.
    pub const LONGEST: usize = 504;

    /// Of a path, if it is not too long.
    pub fn new(path: &str) -> Option<Self> {
        let mut owner = Self {
            length: u32::try_from(path.len()).ok()?,
            pad: 0,
            path: [0; Self::LONGEST],
        };
        owner.path.get_mut(..path.len())?.copy_from_slice(path.as_bytes());
        Some(owner)
    }

    /// The path, unless it is none.
    pub fn path(&self) -> Option<&str> {
        let length = usize::try_from(self.length).ok()?;
        str::from_utf8(self.path.get(..length)?).ok()
    }
}

const _: () = {
    assert!(size_of::<Archived>() == 80 && align_of::<Archived>() == 8);
    assert!(size_of::<Owner>() == 512 && align_of::<Owner>() == 4);
};
