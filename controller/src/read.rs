//! Input: manifests and flows, from files, folders, standard input and an API server.
//!
//! Guarantee: a document or a line that cannot be read is one [`Fault`] that names the file, the line and the field, and
//! everything else is read all the same. No bytes make a reader panic, and flows are never held in memory as a whole.
//!
//! * [`place`]: paths, standard input, and where something stands in them.
//! * [`manifests`]: YAML and JSON to objects and policies.
//! * [`live`]: the same from an API server.
//! * [`flows`]: learners' reports, JSON lines, and what Hubble exports.

mod fault;
pub mod flows;
pub mod live;
pub mod manifests;
pub mod place;
mod yaml;

pub use fault::{Fault, Syntax};
pub use flows::report;
pub use manifests::{Document, Manifests, documents};
pub use place::{MANIFEST_EXTENSIONS, Place, REPORT_EXTENSIONS, ReadError, files};
