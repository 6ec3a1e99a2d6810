//! What can fail in the small lab.

use std::io;
use std::path::PathBuf;

use crate::app::{AppError, ObjectName};
use crate::manifest::ManifestError;

/// Why the small lab cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not root.
    #[error("the lab makes network namespaces and cgroups, so it has to run as root: try again with sudo")]
    NotRoot,
    /// No cgroup2 tree.
    #[error("no cgroup2 file system is mounted: mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`")]
    NoCgroup2,
    /// The id cannot be part of names.
    #[error("id `{0}` cannot be used: 1 to 24 lower-case letters, digits and inner dashes, not ending in -outside")]
    BadId(String),
    /// A lab of this id runs.
    #[error("a lab `{id}` is up already (process {owner}): `lab down --id {id}` ends it, or choose another --id")]
    AlreadyUp {
        /// The id.
        id: String,
        /// Process id of whoever runs it.
        owner: u32,
    },
    /// No lab of this id runs.
    #[error("no lab `{0}` is up: `lab up --id {0}` starts one")]
    NotUp(String),
    /// The program of the containers was not built.
    #[error("{} is not there: build it with `cargo build -p nanoseg-lab`", .0.display())]
    NoPeer(PathBuf),
    /// A file or folder.
    #[error("{} cannot be {doing}", .path.display())]
    File {
        /// What was to be done, such as `read`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program that the lab needs is missing.
    #[error("`{program}` cannot be run; on Debian, `apt-get install {package}` installs it")]
    NoTool {
        /// The program.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A program that the lab needs refused.
    #[error("`{command}` failed: {}", .stderr.trim())]
    Tool {
        /// What was run.
        command: String,
        /// What it said.
        stderr: String,
    },
    /// A container cannot be started.
    #[error("the process of {name} cannot be started")]
    Start {
        /// Whose.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A container did not come up.
    #[error("{name} did not begin to listen (waited {seconds} s at most): {}", .log.trim())]
    NotReady {
        /// Which.
        name: String,
        /// How long it was waited for.
        seconds: u64,
        /// What it wrote to standard error.
        log: String,
    },
    /// A container cannot be signalled.
    #[error("{name} cannot be told to speak")]
    Tell {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Some process will not end.
    #[error("the processes in {} do not end", .0.display())]
    StillAlive(PathBuf),
    /// A workload that is not there.
    #[error("no workload or external host `{who}` is in this lab; there are {}", .known.join(", "))]
    Unknown {
        /// What was asked for.
        who: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A workload that cannot be rolled.
    #[error("{0} ends by itself and cannot be rolled")]
    NotRollable(ObjectName),
    /// The description of the lab's own parts is wrong.
    #[error("the lab's own parts cannot be described")]
    System(#[source] AppError),
    /// Every address is taken.
    #[error("the lab has no free pod address left")]
    NoAddress,
    /// An object cannot be written.
    #[error("the manifests cannot be made")]
    Manifest(#[from] ManifestError),
    /// An object cannot be written as YAML.
    #[error("the manifests cannot be written as YAML")]
    Yaml(#[from] serde_yaml::Error),
    /// A configuration cannot be written as JSON.
    #[error("a configuration cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// A network namespace cannot be set up from within.
    #[error("the network namespace {} cannot be set up", .path.display())]
    Network {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err` on a file operation.
    pub(super) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }
}
