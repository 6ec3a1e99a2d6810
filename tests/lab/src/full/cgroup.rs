//! The lab's folders in the machine's cgroup trees.
//!
//! Guarantee: everything that a lab starts is in a cgroup2 folder whose name begins with the lab's prefix, containers and
//! their daemonised shims included, so [`remove`] finds and ends all of it without knowing any process id.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::error::{Error, on};

/// SIGKILL takes effect when the process next leaves the kernel: seconds when the disk is slow.
const DYING: Duration = Duration::from_secs(20);

/// The cgroup trees of this machine.
#[derive(Clone, Debug)]
pub(super) struct Trees {
    /// Where cgroup2 is mounted.
    pub(super) unified: PathBuf,
    /// Where each cgroup v1 hierarchy is mounted.
    pub(super) legacy: Vec<PathBuf>,
}

impl Trees {
    pub(super) fn find() -> Result<Self, Error> {
        let mounts = fs::read_to_string("/proc/mounts").map_err(on("read", "/proc/mounts"))?;
        let of_type = |wanted: &str| {
            mounts
                .lines()
                .filter_map(|line| {
                    let mut fields = line.split(' ').skip(1);
                    let path = fields.next()?;
                    (fields.next()? == wanted).then(|| PathBuf::from(path))
                })
                .collect::<Vec<_>>()
        };
        let unified = of_type("cgroup2").into_iter().next().ok_or(Error::NoCgroup2)?;
        Ok(Self {
            unified,
            legacy: of_type("cgroup"),
        })
    }

    /// Makes the folder that a kubelet takes for its root, in every tree: kubelet does not make it and ends without it.
    pub(super) fn create(&self, name: &str) -> Result<PathBuf, Error> {
        for tree in &self.legacy {
            let folder = tree.join(name);
            fs::create_dir_all(&folder).map_err(on("make", &folder))?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                // A new cpuset is empty, and nothing can run in an empty one.
                if let Ok(value) = fs::read_to_string(tree.join(file)) {
                    fs::write(folder.join(file), value.trim()).map_err(on("write", folder.join(file)))?;
                }
            }
        }
        let folder = self.unified.join(name);
        fs::create_dir_all(&folder).map_err(on("make", &folder))?;
        // Where cgroup2 has the controllers (no v1 hierarchies), kubelet wants them handed down to its folder.
        for parent in [&self.unified, &folder] {
            let controllers = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
            for controller in controllers.split_whitespace() {
                let path = parent.join("cgroup.subtree_control");
                fs::write(&path, format!("+{controller}")).map_err(on("write", path))?;
            }
        }
        Ok(folder)
    }

    /// Ends every process under the folders whose name begins with `prefix`, and removes these from every tree.
    pub(super) fn remove(&self, prefix: &str) -> Result<(), Error> {
        for folder in beginning(&self.unified, prefix)? {
            kill(&folder)?;
        }
        for tree in self.legacy.iter().chain([&self.unified]) {
            for folder in beginning(tree, prefix)? {
                remove_tree(&folder)?;
            }
        }
        Ok(())
    }
}

fn beginning(tree: &Path, prefix: &str) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(tree).map_err(on("read", tree))?;
    Ok(entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect())
}

/// Ends every process in a cgroup2 folder and below it.
fn kill(folder: &Path) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        // Since Linux 5.14 the kernel does it at once, forks in flight included; before, one after the other until none is
        // left. Either way the folder must be seen empty.
        let at_once = fs::write(folder.join("cgroup.kill"), "1").is_ok();
        let pids = processes(folder);
        if pids.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > DYING {
            return Err(Error::Unkillable {
                cgroup: folder.to_owned(),
                pids,
            });
        }
        if !at_once {
            for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
                // Gone already is what is wanted, and what is not gone is seen in the next round.
                if kill_process(pid, Signal::KILL).is_err() {}
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes in a cgroup2 folder and below it. One that goes away meanwhile has none.
pub(super) fn processes(folder: &Path) -> Vec<u32> {
    let mut pids: Vec<u32> = fs::read_to_string(folder.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for child in children(folder) {
        pids.extend(processes(&child));
    }
    pids
}

fn children(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(folder: &Path) -> Result<(), Error> {
    for child in children(folder) {
        remove_tree(&child)?;
    }
    let begun = Instant::now();
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // A killed process leaves its cgroup only when it is fully gone, a little after it left cgroup.procs.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && begun.elapsed() < DYING => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(on("remove", folder)(error)),
        }
    }
}
