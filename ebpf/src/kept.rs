//! What outlives one learner for the next, where it is told a folder to pin it in.
//!
//! Laws:
//! * Counts are absolute. A record that leaves the flow map is in [`Archived`] before it leaves, by when it began: seen in both
//!   it is the same one and counts once, whenever the process that moved it was killed.
//! * What leaves the archive for good was delivered before, and stays in the sum of what left: counted once, whenever the process
//!   that let it leave was killed.
//! * Only maps of [`LAYOUTS`] are read.

use crate::{EVERY_CGROUP, FlowKey, FlowRecord, LossKey, name};

/// Raised with every change to what a pinned map holds or means.
pub const LAYOUT: u64 = 5;

/// Layouts that can be taken over as they are. In none of them does anything mean something else: in the first [`Kept::Left`] is not
/// there, and neither of those before counts what is [`crate::Reason::Returned`] or an [`crate::Reason::OtherAnswer`].
pub const LAYOUTS: [u64; 3] = [3, 4, LAYOUT];

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

    /// Of [`Kept::Left`]: from now on this cgroup's flows are counted here, with what they come to, and leave the archive.
    #[must_use]
    pub fn leaving(self, cgroup: u64, flows: &FlowRecord) -> Self {
        Self {
            before: events(&self.total()),
            last: FlowRecord {
                first_ns: cgroup,
                ..events(flows)
            },
        }
    }

    /// Of [`Kept::Left`]: all of them have left.
    #[must_use]
    pub fn left(self) -> Self {
        Self {
            before: events(&self.total()),
            last: FlowRecord::default(),
        }
    }

    /// Of [`Kept::Left`]: the cgroup whose flows are counted here, and perhaps are in the archive still.
    pub const fn leaver(&self) -> Option<u64> {
        match self.last.first_ns {
            0 => None,
            cgroup => Some(cgroup),
        }
    }
}

/// What a record counts, at no time.
fn events(record: &FlowRecord) -> FlowRecord {
    FlowRecord {
        first_ns: 0,
        last_ns: 0,
        ..*record
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

/// Instead of a role: what left the archive.
const LEFT: u8 = 0x20;

/// Instead of a role: what could not be taken over, as attempted.
const DISCARDED: u8 = 0x10;

/// What a key of the archive stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A flow.
    Flow(FlowKey),
    /// Connections that were older than the programs, by the flow they belong to.
    Older(FlowKey),
    /// A loss.
    Loss(LossKey),
    /// All flows that are not in the archive any more: those that have left before, and the cgroup that leaves last.
    Left,
    /// How many flows could not be taken over from a learner before.
    Discarded,
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
            Self::Left => FlowKey {
                cgroup: EVERY_CGROUP,
                role: LEFT,
                ..FlowKey::default()
            },
            Self::Discarded => FlowKey {
                cgroup: EVERY_CGROUP,
                role: DISCARDED,
                ..FlowKey::default()
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
        } else if key.role == LEFT {
            Self::Left
        } else if key.role == DISCARDED {
            Self::Discarded
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
