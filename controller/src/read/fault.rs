//! What was wrong with input, and where.

use std::fmt;
use std::io;
use std::path::PathBuf;

use nanoseg_policy::evaluate::Rejected;
use nanoseg_policy::objects::{ObjectName, UnknownField, Unreadable};

use super::place::{Place, file_name};
use crate::segment::{SegmentError, SegmentName};

/// A parser's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Syntax(pub(super) String);

/// A document or a line that was left out, or something in it that was.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file is there and cannot be read, or is not text.
    #[error("{}: left out", file_name(file))]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Not the language that it begins like.
    #[error("{place}: left out, because it is not {language}")]
    Syntax {
        /// Where.
        place: Place,
        /// YAML or JSON.
        language: &'static str,
        /// The parser's words.
        source: Syntax,
    },
    /// A field that its kind does not take.
    #[error("{place}: left out, because of the field `{field}`")]
    Field {
        /// Where.
        place: Place,
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Not an object of Kubernetes, or one that cannot be read.
    #[error("{place}: left out")]
    Object {
        /// Where.
        place: Place,
        /// Which object and which field.
        source: Box<Unreadable>,
    },
    /// A field that no API server would keep.
    #[error("{place}")]
    UnknownField {
        /// Where.
        place: Place,
        /// Which object and which field.
        source: Box<UnknownField>,
    },
    /// A policy of another API.
    #[error(
        "{place}: {object} is not taken in: verdicts are those of NetworkPolicies and of policy.networking.k8s.io alone"
    )]
    OtherPolicy {
        /// Where.
        place: Place,
        /// The policy.
        object: Box<ObjectName>,
    },
    /// An object that no API server takes as it is written.
    #[error("{place}: {object} is left out: it is of {found}, and API servers have this kind in {expected}")]
    OtherVersion {
        /// Where.
        place: Place,
        /// The object.
        object: Box<ObjectName>,
        /// The API that it names.
        found: String,
        /// The API that has its kind.
        expected: &'static str,
    },
    /// Another object with the same kind, namespace and name.
    #[error("{place}: {object} is another one than at {before}, and the later counts")]
    Again {
        /// Where.
        place: Place,
        /// The object.
        object: String,
        /// Where it was before.
        before: Place,
    },
    /// A pod with the UID of another.
    #[error("{place}: {object} has the UID of {other} at {before}; they are told apart by their names")]
    SameUid {
        /// Where.
        place: Place,
        /// The pod.
        object: String,
        /// The other.
        other: String,
        /// Where that was.
        before: Box<Place>,
    },
    /// A policy that no API server would take.
    #[error("{}left out, the API server would not take it", at(place.as_ref()))]
    Policy {
        /// Where, unless it came from an API server.
        place: Option<Place>,
        /// Which field, and why.
        source: Box<Rejected>,
    },
    /// A line of flows that cannot be used.
    #[error("{}: line {line}: left out{}", file_name(file), of_field(field.as_deref()))]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Path of the field, if it is about one.
        field: Option<String>,
        /// What is wrong.
        source: Syntax,
    },
    /// A key of a flow that means nothing, and is ignored.
    #[error(
        "{}: line {line}: `{key}` is not a field of a flow, and is ignored (said once for each name)",
        file_name(file)
    )]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The key.
        key: String,
    },
    /// A kind of object that the API server does not list.
    #[error("cannot list {plural} at {url}")]
    Listing {
        /// The kind.
        plural: &'static str,
        /// The API server.
        url: String,
        /// What it said.
        source: crate::trouble::Trouble,
    },
    /// A Segment that says something that cannot be.
    #[error("{segment}: left out")]
    Segment {
        /// The Segment.
        segment: SegmentName,
        /// What is wrong with it.
        source: Box<SegmentError>,
    },
    /// An object of the API server that cannot be read.
    #[error("{url}: left out")]
    Live {
        /// The API server.
        url: String,
        /// Which object and which field.
        source: Box<Unreadable>,
    },
}

impl Fault {
    /// Whether something was left out because of it that a cluster may have.
    pub const fn leaves_out(&self) -> bool {
        match self {
            Self::UnknownField { .. }
            | Self::UnknownKey { .. }
            | Self::OtherPolicy { .. }
            | Self::OtherVersion { .. }
            | Self::Again { .. }
            | Self::SameUid { .. } => false,
            Self::Unreadable { .. }
            | Self::Syntax { .. }
            | Self::Field { .. }
            | Self::Object { .. }
            | Self::Policy { .. }
            | Self::Line { .. }
            | Self::Listing { .. }
            | Self::Segment { .. }
            | Self::Live { .. } => true,
        }
    }
}

fn at(place: Option<&Place>) -> Text {
    Text(place.map(|place| format!("{place}: ")))
}

fn of_field(field: Option<&str>) -> Text {
    Text(field.map(|field| format!(", because of the field `{field}`")))
}

/// Text that may not be there.
struct Text(Option<String>);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or_default())
    }
}
