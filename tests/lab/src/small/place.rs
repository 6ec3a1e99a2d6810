//! Where a lab's things are, and whose they are.
//!
//! Guarantee: a lab belongs to the process that holds the lock on its lock file, and the kernel lets go of it with the process.
//! So a lab whose lock is free is nobody's, and whoever comes next removes what is left of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{Error, cgroup, network};

/// A lab's files go with the machine, as its namespaces do.
const STATE: &str = "/run/nanoseg-lab";
const LOCK_SUFFIX: &str = ".lock";
/// The longest id: names of namespaces have to fit in a file name.
const LONGEST_ID: usize = 24;
/// Behind the name of the cgroup folder of what is outside the cluster.
const OUTSIDE: &str = "-outside";

/// Names and paths of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The lab's id.
    pub id: String,
    /// The folder of its files.
    pub state: PathBuf,
    /// The cgroup folder that is the node's root.
    pub cgroup_root: PathBuf,
    /// The cgroup folder of what is outside the cluster.
    pub cgroup_outside: PathBuf,
    /// The folder with the cluster's manifests.
    pub cluster: PathBuf,
    /// The file of the node's network namespace.
    pub node_netns: PathBuf,
    /// The node's name.
    pub node: String,
}

impl Place {
    /// Where the lab with this id is, whether it runs or not.
    pub fn of(id: &str) -> Result<Self, Error> {
        let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = !id.is_empty()
            && id.len() <= LONGEST_ID
            && id.bytes().all(|byte| edge(byte) || byte == b'-')
            && id.bytes().next().is_some_and(edge)
            && id.bytes().last().is_some_and(edge)
            && !id.ends_with(OUTSIDE);
        if !fits {
            return Err(Error::BadId(id.to_owned()));
        }
        let cgroups = cgroup::mount_point()?;
        let state = Path::new(STATE).join(id);
        Ok(Self {
            id: id.to_owned(),
            cluster: state.join("cluster"),
            state,
            cgroup_root: cgroups.join(format!("lab-{id}")),
            cgroup_outside: cgroups.join(format!("lab-{id}{OUTSIDE}")),
            node_netns: network::path(&format!("lab.{id}.node")),
            node: super::cluster::NODE.to_owned(),
        })
    }

    /// The socket on which a lab in the background takes orders.
    pub fn socket(&self) -> PathBuf {
        self.state.join("control.sock")
    }

    /// The folder of the ledgers, one folder in it for each workload.
    pub fn ledgers(&self) -> PathBuf {
        self.state.join("ledger")
    }

    /// The name of the node's network namespace.
    pub(super) fn node_namespace(&self) -> String {
        format!("lab.{}.node", self.id)
    }

    /// The name of the network namespace that the node's uplink leads to.
    pub(super) fn beyond_namespace(&self) -> String {
        format!("lab.{}.beyond", self.id)
    }

    /// The name of a pod's network namespace.
    pub(super) fn pod_namespace(&self, namespace: &str, pod: &str) -> String {
        format!("lab.{}.{namespace}.{pod}", self.id)
    }

    /// The name of an outside host's network namespace: no Kubernetes namespace can be called `_`.
    pub(super) fn outside_namespace(&self, host: &str) -> String {
        format!("lab.{}._.{host}", self.id)
    }

    /// Removes all there is of the lab: processes, namespaces, cgroups, files. What is not there is fine.
    fn sweep(&self) -> Result<(), Error> {
        cgroup::remove(&self.cgroup_root)?;
        cgroup::remove(&self.cgroup_outside)?;
        let left = network::named(&format!("lab.{}.", self.id))?;
        if !left.is_empty() {
            network::delete(left.iter().map(String::as_str))?;
        }
        match fs::remove_dir_all(&self.state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::File {
                doing: "removed",
                path: self.state.clone(),
                source: error,
            }),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// A lab that belongs to this process. When it is dropped, nothing of the lab is left.
#[derive(Debug)]
pub(super) struct Claim {
    place: Place,
    lock: Option<File>,
}

impl Claim {
    /// Takes a lab into possession and removes what is left of earlier ones that are nobody's any more.
    pub(super) fn take(place: &Place) -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(STATE)
            .map_err(Error::file("created", STATE))?;
        for id in ids()? {
            if id != place.id {
                drop(Self::abandoned(&id)?);
            }
        }
        let lock = lock(&place.id)?.map_err(|owner| Error::AlreadyUp {
            id: place.id.clone(),
            owner,
        })?;
        let claim = Self {
            place: place.clone(),
            lock: Some(lock),
        };
        claim.place.sweep()?;
        fs::create_dir_all(&place.state).map_err(Error::file("created", &place.state))?;
        Ok(claim)
    }

    /// A lab that is nobody's; `None` if it is somebody's, or was never there.
    pub(super) fn abandoned(id: &str) -> Result<Option<Self>, Error> {
        let place = Place::of(id)?;
        if !lock_path(id).exists() {
            return Ok(None);
        }
        Ok(lock(id)?.ok().map(|lock| Self {
            place,
            lock: Some(lock),
        }))
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Removes the lab and lets go of it.
    pub(super) fn release(&mut self) -> Result<(), Error> {
        let Some(lock) = self.lock.take() else { return Ok(()) };
        self.place.sweep()?;
        let path = lock_path(&self.place.id);
        fs::remove_file(&path).map_err(Error::file("removed", &path))?;
        drop(lock);
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            eprintln!(
                "lab {}: something is left: {:#}",
                self.place.id,
                anyhow::Error::from(error)
            );
        }
    }
}

fn lock_path(id: &str) -> PathBuf {
    Path::new(STATE).join(format!("{id}{LOCK_SUFFIX}"))
}

/// Ids of all labs of this machine, running or not.
pub fn ids() -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(STATE) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(Error::File {
                doing: "read",
                path: STATE.into(),
                source,
            });
        }
    };
    let mut ids: Vec<String> = entries
        .filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .into_string()
                .ok()?
                .strip_suffix(LOCK_SUFFIX)
                .map(str::to_owned)
        })
        .filter(|id| Place::of(id).is_ok())
        .collect();
    ids.sort();
    Ok(ids)
}

/// The process that a lab belongs to, if it belongs to one.
pub fn owner(id: &str) -> Result<Option<u32>, Error> {
    if !lock_path(id).exists() {
        return Ok(None);
    }
    Ok(lock(id)?.err())
}

/// The lock, or the process that has it.
fn lock(id: &str) -> Result<Result<File, u32>, Error> {
    let path = lock_path(id);
    loop {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::file("opened", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(Error::file("read", &path))?;
                return Ok(Err(text.trim().parse().unwrap_or_default()));
            }
            Err(error) => {
                return Err(Error::File {
                    doing: "locked",
                    path,
                    source: error.into(),
                });
            }
        }
        // The owner removes the file before it lets go: then this is the lock of a file that nobody else will find.
        let same = fs::metadata(&path)
            .and_then(|there| Ok(there.ino() == file.metadata()?.ino()))
            .unwrap_or(false);
        if same {
            file.set_len(0)
                .and_then(|()| file.seek(SeekFrom::Start(0)))
                .and_then(|_start| writeln!(file, "{}", std::process::id()))
                .map_err(Error::file("written", &path))?;
            return Ok(Ok(file));
        }
    }
}
