//! Where a full lab lives: its id, its folder, and the record by which another command finds it again.
//!
//! Guarantee: two labs share no name. An id is taken by making its folder, which only one can do, and every namespace, cgroup,
//! socket and file of the lab has the id in its name. So a lab is removed completely by its id alone, even when its record was
//! never finished.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cgroup::Trees;
use super::error::{Error, on};
use super::namespace::Namespace;
use super::node::{FIXED_FOLDERS, Node};
use super::process::Process;

/// The folder that has a folder for each full lab.
const LABS: &str = "/run/nanoseg-full-lab";

/// The file in a lab's folder that says what it consists of.
const RECORD: &str = "lab.json";

/// A lab's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Site {
    id: String,
}

/// What another command needs to use a running lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) site: Site,
    /// Who removes the lab when it ends. None for a lab that stays until `lab down`.
    pub(super) owner: Option<Process>,
    pub(super) nodes: Vec<Node>,
    pub(super) processes: Vec<Process>,
    pub(super) kubectl: PathBuf,
    /// Whether it came up; false while it is coming up.
    pub(super) complete: bool,
}

impl Site {
    /// Takes an id that nobody has: this process's own id, with a number behind it for its second lab and further ones.
    pub(super) fn take() -> Result<Self, Error> {
        fs::create_dir_all(LABS).map_err(on("make", LABS))?;
        let pid = std::process::id();
        let mut id = pid.to_string();
        let mut number = 1;
        loop {
            let site = Self { id };
            match fs::create_dir(site.folder()) {
                Ok(()) => return Ok(site),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    number += 1;
                    id = format!("{pid}.{number}");
                }
                Err(error) => return Err(on("make", site.folder())(error)),
            }
        }
    }

    /// Every lab that has a folder.
    pub(super) fn all() -> Result<Vec<Self>, Error> {
        let entries = match fs::read_dir(LABS) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(on("read", LABS)(error)),
        };
        let mut ids: Vec<String> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        ids.sort();
        Ok(ids.into_iter().map(|id| Self { id }).collect())
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Files of the lab: configuration, keys, logs, images, the containers' file systems.
    pub(super) fn folder(&self) -> PathBuf {
        Path::new(LABS).join(&self.id)
    }

    pub(super) fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder().join(name)
    }

    /// What the names of the lab's namespaces and cgroups begin with. Ids have no dash, so no lab's prefix is the beginning of
    /// another's.
    fn prefix(&self) -> String {
        format!("lab-{}-", self.id)
    }

    /// The name of the lab's namespace or cgroup for `part` (`node1`).
    pub(super) fn name(&self, part: &str) -> String {
        format!("{}{part}", self.prefix())
    }

    pub(super) fn namespace(&self, part: &str) -> Namespace {
        Namespace::named(self.name(part))
    }

    /// Writes a file in the lab's folder. Only root reads it: there are keys and tokens among them.
    pub(super) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<PathBuf, Error> {
        let path = self.file(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(on("make", folder))?;
        }
        fs::write(&path, content).map_err(on("write", &path))?;
        Ok(path)
    }

    /// The lab's record, `None` when it has none (yet).
    pub(super) fn record(&self) -> Result<Option<Record>, Error> {
        let path = self.file(RECORD);
        match fs::read(&path) {
            Ok(content) => serde_json::from_slice(&content)
                .map(Some)
                .map_err(|source| Error::Record { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(on("read", path)(error)),
        }
    }

    /// Ends and removes everything that has this lab's name. Twice is fine.
    pub(super) fn remove(&self) -> Result<(), Error> {
        // Processes first: the mounts of a node exist in a mount namespace that ends with its last process, and a network
        // namespace ends, with every interface in it, when neither a process nor a name holds it.
        Trees::find()?.remove(&self.prefix())?;
        for part in PARTS {
            self.namespace(part).delete()?;
        }
        let folder = self.folder();
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(on("read", "/proc/self/mounts"))?;
        let mounted = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
        if let Some(path) = mounted.into_iter().find(|path| path.starts_with(&folder)) {
            return Err(Error::Mounted { path: path.to_owned() });
        }
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(on("remove", folder)(error)),
            _ => {}
        }
        // The last lab takes along the folder of labs, which another one's folder in it keeps, and what the nodes mounted over,
        // which another one's node would lose. What is not empty is not the lab's and stays.
        if fs::remove_dir(LABS).is_ok() {
            for folder in FIXED_FOLDERS {
                drop(fs::remove_dir(folder));
            }
        }
        Ok(())
    }
}

impl Record {
    /// Writes the record, whole or not at all.
    pub(super) fn save(&self) -> Result<(), Error> {
        let path = self.site.file(RECORD);
        let content = serde_json::to_vec_pretty(self).map_err(|source| Error::Record {
            path: path.clone(),
            source,
        })?;
        let new = self.site.write(format!("{RECORD}.new"), content)?;
        fs::rename(new, &path).map_err(on("write", path))
    }
}

/// The parts of a lab that have a namespace and a cgroup of their own.
pub(super) const PARTS: [&str; 4] = ["control", "node1", "node2", "outside"];
