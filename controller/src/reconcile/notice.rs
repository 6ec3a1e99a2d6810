//! What people who look at a Segment are told as an Event.

use nanoseg_graph::endpoint::Workload;

use crate::segment::{Phase, SegmentName, name_of};

/// Something that happened to a Segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The Segment.
    pub segment: SegmentName,
    /// Its UID, if it was there before this.
    pub uid: Option<String>,
    /// What happened.
    pub what: Happening,
    /// The same as a sentence.
    pub note: String,
}

/// What happens to Segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It came into this phase, or stays in it for another reason.
    Phase(Phase),
    /// An edge outside its frozen baseline was seen for the first time.
    Violation,
    /// Its policy was taken back, because an edge of its baseline was not answered any more.
    RolledBack,
    /// Its policy was edited or deleted by somebody, and is as it was.
    DriftRepaired,
    /// Its live policy is not as it is to be, and is left alone.
    Drift,
    /// Somebody changes its policy each time that it is repaired.
    Contested,
}

impl Happening {
    /// The Event's reason.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Phase(phase) => phase.as_str(),
            Self::Violation => "Violation",
            Self::RolledBack => "RolledBack",
            Self::DriftRepaired => "DriftRepaired",
            Self::Drift => "Drift",
            Self::Contested => "Contested",
        }
    }

    /// What the controller was doing.
    pub const fn action(self) -> &'static str {
        match self {
            Self::Phase(_) => "Judge",
            Self::Violation => "Watch",
            Self::RolledBack => "RollBack",
            Self::DriftRepaired | Self::Drift | Self::Contested => "KeepInSync",
        }
    }

    /// Whether a person should look at it.
    pub const fn is_warning(self) -> bool {
        match self {
            Self::Phase(phase) => matches!(phase, Phase::Degraded),
            Self::DriftRepaired => false,
            Self::Violation | Self::RolledBack | Self::Drift | Self::Contested => true,
        }
    }
}

impl Notice {
    /// About a workload's Segment.
    pub fn new(workload: &Workload, uid: Option<String>, what: Happening, note: String) -> Self {
        Self {
            segment: name_of(workload),
            uid,
            what,
            note,
        }
    }
}
