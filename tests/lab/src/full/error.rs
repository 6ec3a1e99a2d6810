//! What can fail while a full lab comes up or goes away.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::go;

/// Why a full lab did not do what was asked. Every variant names the object and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The lab makes network namespaces, mounts and cgroups.
    #[error("the full lab makes network namespaces, mounts and cgroups, so it has to run as root")]
    NotRoot,
    /// A program of the distribution is missing.
    #[error("`{program}` is not installed: apt-get install {package}")]
    Missing {
        /// What was looked for.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// No cgroup2 tree is mounted.
    #[error("no cgroup2 tree is mounted (none in /proc/mounts): mount -t cgroup2 none /sys/fs/cgroup/unified")]
    NoCgroup2,
    /// The kernel has no bridge netfilter, without which policies between pods of one node are not enforced.
    #[error("the kernel does not filter bridged packets (no /proc/sys/net/bridge): modprobe br_netfilter")]
    NoBridgeNetfilter,
    /// The cluster's programs could not be built.
    #[error("the cluster's programs could not be built")]
    Binaries(#[from] go::Error),
    /// A file or folder could not be handled.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program could not be started at all.
    #[error("cannot start `{command}`")]
    Start {
        /// The command line.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// A program that should have done something said that it could not.
    #[error("`{command}` failed: {said}")]
    Failed {
        /// The command line.
        command: String,
        /// What it wrote to its standard error.
        said: String,
    },
    /// A network namespace could not be entered.
    #[error("cannot enter the network namespace {namespace}")]
    Enter {
        /// Its name.
        namespace: String,
        /// Why not.
        source: io::Error,
    },
    /// A process that should keep running has ended.
    #[error("{process} has ended; the last lines of its log:\n{log}")]
    Ended {
        /// Which process.
        process: String,
        /// The last lines that it wrote.
        log: String,
    },
    /// Something that was waited for did not come.
    #[error("waited {} s for {awaited}: {last}\n{log}", waited.as_secs())]
    Late {
        /// What was waited for.
        awaited: String,
        /// For how long.
        waited: Duration,
        /// What was seen instead, last of all.
        last: String,
        /// The last lines of the log that tells most about it.
        log: String,
    },
    /// The user wants it to stop.
    #[error("interrupted while waiting for {awaited}")]
    Interrupted {
        /// What was being waited for.
        awaited: String,
    },
    /// A lab's record cannot be read.
    #[error("the lab's record {path} is damaged: lab down removes what it describes")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// No full lab runs, or not the one that was asked for.
    #[error("no full lab is running: lab up --full starts one")]
    NotRunning,
    /// The manifests that are to be installed lack what a lab has to set.
    #[error("the manifests in {} do not have `{expected}` once, where a lab puts its own value", .folder.display())]
    Shipped {
        /// The manifests.
        folder: PathBuf,
        /// What was looked for.
        expected: &'static str,
    },
    /// What kubectl answered is not what it should be.
    #[error("kubectl answered something that is not {expected}")]
    Answer {
        /// What was expected.
        expected: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A described application cannot be written as objects.
    #[error("the application cannot be written as Kubernetes objects")]
    Manifest(#[source] crate::manifest::ManifestError),
    /// Processes of the lab do not die.
    #[error("processes of {cgroup} are still alive after SIGKILL: {pids:?}")]
    Unkillable {
        /// Their cgroup.
        cgroup: PathBuf,
        /// Their ids.
        pids: Vec<u32>,
    },
    /// A mount in the lab's folder would be emptied together with it.
    #[error("{path} is still mounted, so the lab's folder was not removed: umount it, then lab down")]
    Mounted {
        /// Where.
        path: PathBuf,
    },
}

/// Gives an I/O error its object: `read(path).map_err(on("read", path))`.
pub(super) fn on(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { action, path, source }
}
