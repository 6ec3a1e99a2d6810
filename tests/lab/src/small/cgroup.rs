//! Folders of the cgroup2 tree, named as kubelet names them.
//!
//! Guarantee: what is removed is only what is below the lab's own folders, and everything that ran there has ended before.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::Error;

/// Killed processes are gone in milliseconds; one in an uninterruptible wait may take longer.
const DEATH: Duration = Duration::from_secs(10);

/// Which of kubelet's cgroup drivers the folders are named after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// `kubepods/burstable/pod<uid>/<container>`.
    #[default]
    Cgroupfs,
    /// `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/cri-containerd-<container>.scope`.
    Systemd,
}

impl Driver {
    /// The pod's folder below the node's, and the container's below the pod's.
    pub(super) fn pod_folders(self, uid: &str, container: &str) -> (PathBuf, PathBuf) {
        match self {
            Self::Cgroupfs => (
                ["kubepods", "burstable", &format!("pod{uid}")].iter().collect(),
                container.into(),
            ),
            Self::Systemd => {
                let uid = uid.replace('-', "_");
                let slices = [
                    "kubepods.slice",
                    "kubepods-burstable.slice",
                    &format!("kubepods-burstable-pod{uid}.slice"),
                ];
                (
                    slices.iter().collect(),
                    format!("cri-containerd-{container}.scope").into(),
                )
            }
        }
    }
}

/// Where the cgroup2 tree is mounted.
pub(super) fn mount_point() -> Result<PathBuf, Error> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(Error::file("read", "/proc/self/mounts"))?;
    mounts
        .lines()
        .find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (point, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(point))
        })
        .ok_or(Error::NoCgroup2)
}

/// Makes a folder and those above it.
pub(super) fn create(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(Error::file("created", folder))
}

/// Kills all that runs in a folder and below, waits until it has ended, and removes the folder. One that is not there is fine.
pub(super) fn remove(folder: &Path) -> Result<(), Error> {
    match fs::write(folder.join("cgroup.kill"), "1") {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(Error::File {
                doing: "killed",
                path: folder.to_owned(),
                source,
            });
        }
    }
    wait_until_empty(folder)?;
    remove_folders(folder).map_err(Error::file("removed", folder))
}

/// The kernel announces a change of `cgroup.events` as a priority event on the file.
fn wait_until_empty(folder: &Path) -> Result<(), Error> {
    let path = folder.join("cgroup.events");
    let mut file = File::open(&path).map_err(Error::file("read", &path))?;
    let deadline = Instant::now() + DEATH;
    loop {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0))
            .and_then(|_start| file.read_to_string(&mut text))
            .map_err(Error::file("read", &path))?;
        if text.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::StillAlive(folder.to_owned()));
        }
        let wait = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(1),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut events = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::PRI)];
        match rustix::event::poll(&mut events, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(Error::File {
                    doing: "watched",
                    path,
                    source: error.into(),
                });
            }
        }
    }
}

/// Only folders can be removed in this file system, the innermost first.
fn remove_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_folders(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}
