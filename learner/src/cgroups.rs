//! From the id that the kernel counts by to the container that it belongs to.
//!
//! Guarantees:
//! * The id of a cgroup is the inode number of its folder and is not used again while the machine runs, so an id is never
//!   attributed to another container.
//! * A folder is known from the moment it is made, before a process can be in it, so that short lives are attributed; when an
//!   event was missed, an unknown id makes the whole tree be read again. Only an id that is then not there is unknown.
//! * A folder that is removed is not watched any more, and its id is forgotten some time later: nothing grows with what is gone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nanoseg_graph::container::{CgroupOwner, owner_of};
use nanoseg_graph::endpoint::UnknownReason;
use nanoseg_graph::flow::Subject;
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use rustix::io::Errno;

use crate::preflight::CgroupTree;

/// How long the id of a folder that is gone is remembered. Packets of its sockets and records of the kernel's map come for
/// some seconds more: TCP's longest wait for a peer that is gone is a minute.
const GRACE: Duration = Duration::from_mins(2);

/// What prevents attribution.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupsError {
    #[error("cannot watch the cgroup tree: raise the sysctl fs.inotify.max_user_instances")]
    Inotify(#[source] io::Error),
    #[error("cannot read the cgroup folder {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

struct Known {
    subject: Subject,
    gone: Option<Instant>,
}

/// Every cgroup of the tree, by id.
pub(crate) struct Cgroups {
    mount: PathBuf,
    root: PathBuf,
    known: HashMap<u64, Known>,
    inotify: OwnedFd,
    watches: HashMap<i32, (u64, PathBuf)>,
    /// Paths that nobody asked for yet.
    found: Vec<(u64, String)>,
    /// A folder could not be watched: only reading the tree tells what is new and what is gone.
    blind: bool,
}

impl Cgroups {
    /// Reads the tree and watches it.
    pub(crate) fn open(tree: &CgroupTree) -> Result<Self, CgroupsError> {
        let inotify =
            init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|errno| CgroupsError::Inotify(errno.into()))?;
        let mut cgroups = Self {
            mount: tree.mount.clone(),
            root: tree.root.clone(),
            known: HashMap::new(),
            inotify,
            watches: HashMap::new(),
            found: Vec::new(),
            blind: false,
        };
        let id = fs::metadata(&tree.root)
            .map_err(|source| CgroupsError::Read {
                path: tree.root.clone(),
                source,
            })?
            .ino();
        cgroups.enter(id, &tree.root.clone());
        Ok(cgroups)
    }

    /// Readable when there is something to [`Cgroups::absorb`].
    pub(crate) fn events(&self) -> Result<OwnedFd, CgroupsError> {
        self.inotify.try_clone().map_err(CgroupsError::Inotify)
    }

    /// How many containers are there now.
    pub(crate) fn containers(&self) -> usize {
        let is_there = |known: &&Known| match &known.subject {
            Subject::Container(container) => known.gone.is_none() && !container.container_id.is_empty(),
            Subject::Host(_) | Subject::Unknown(_) => false,
        };
        self.known.values().filter(is_there).count()
    }

    /// Whose cgroup it is. Reads the tree again when the id is not known.
    pub(crate) fn subject(&mut self, id: u64) -> Subject {
        if let Some(known) = self.known.get(&id) {
            return known.subject.clone();
        }
        self.absorb();
        if !self.known.contains_key(&id) {
            self.walk();
        }
        // What is not there now was there when its packet passed, so it is gone for good: ids are not used again.
        let known = self.known.entry(id).or_insert_with(|| {
            tracing::debug!(id, "cgroup gone before it was seen");
            Known {
                subject: Subject::Unknown(UnknownReason::CgroupGone),
                gone: Some(Instant::now()),
            }
        });
        known.subject.clone()
    }

    /// Whether it is there, or was until a while ago.
    pub(crate) fn is_known(&self, id: u64) -> bool {
        self.known.contains_key(&id)
    }

    /// Ids and paths that were found since this was last asked.
    pub(crate) fn found(&mut self) -> Vec<(u64, String)> {
        std::mem::take(&mut self.found)
    }

    /// The folder of a path below the mount.
    pub(crate) fn folder(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// Takes in what an earlier learner found. What is not there any more is gone.
    pub(crate) fn remember(&mut self, id: u64, path: &str) {
        self.known.entry(id).or_insert_with(|| Known {
            subject: subject_of(path),
            gone: Some(Instant::now()),
        });
    }

    /// A cgroup of a subject, the oldest if there are several.
    pub(crate) fn id_of(&self, subject: &Subject) -> Option<u64> {
        let all = self.known.iter().filter(|(_, known)| known.subject == *subject);
        all.map(|(id, _)| *id).min()
    }

    /// Whose cgroups are there, or were until a while ago.
    pub(crate) fn subjects(&self) -> HashSet<&Subject> {
        self.known.values().map(|known| &known.subject).collect()
    }

    /// Whose the tree's own folder is: of all that is nobody else's.
    pub(crate) fn subject_of_root(&self) -> Subject {
        let relative = self.root.strip_prefix(&self.mount).unwrap_or(&self.root);
        Subject::Host(format!("/{}", relative.display()))
    }

    /// Takes in what the kernel says has changed. Never waits.
    pub(crate) fn absorb(&mut self) {
        let (mut made, mut removed, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        let mut missed = false;
        {
            let mut buffer = [MaybeUninit::<u8>::uninit(); 16 * 1024];
            let mut reader = Reader::new(&self.inotify, &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => {
                        let flags = event.events();
                        missed |= flags.contains(ReadFlags::QUEUE_OVERFLOW);
                        if flags.contains(ReadFlags::IGNORED) {
                            gone.extend(self.watches.remove(&event.wd()).map(|(id, _)| id));
                        } else if flags.contains(ReadFlags::ISDIR)
                            && let (Some((_, parent)), Some(name)) = (self.watches.get(&event.wd()), event.file_name())
                        {
                            let path = parent.join(OsStr::from_bytes(name.to_bytes()));
                            if flags.contains(ReadFlags::DELETE) {
                                removed.push(path);
                            } else {
                                made.push(path);
                            }
                        }
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(errno) => {
                        tracing::warn!(error = %errno, "cannot read events of the cgroup tree");
                        missed = true;
                        break;
                    }
                }
            }
        }
        for path in removed {
            gone.extend(self.unwatch(|_, watched| *watched == path));
        }
        self.leave(gone);
        if missed {
            self.walk();
        }
        for path in made {
            if let Ok(metadata) = fs::metadata(&path) {
                self.enter(metadata.ino(), &path);
            }
        }
    }

    /// Forgets what is gone for long, and says which ids these were and whose.
    pub(crate) fn tidy(&mut self) -> BTreeMap<u64, Subject> {
        if self.blind {
            self.walk();
        }
        let now = Instant::now();
        let is_over = |known: &Known| known.gone.is_some_and(|gone| now.duration_since(gone) >= GRACE);
        self.known
            .extract_if(|_, known| is_over(known))
            .map(|(id, known)| (id, known.subject))
            .collect()
    }

    fn walk(&mut self) {
        let before: Vec<u64> = self
            .known
            .iter()
            .filter(|(_, known)| known.gone.is_none())
            .map(|(id, _)| *id)
            .collect();
        let mut there = HashSet::new();
        if let Ok(metadata) = fs::metadata(&self.root) {
            there.insert(metadata.ino());
        }
        let root = self.root.clone();
        self.descend(&root, &mut there);
        let gone: HashSet<u64> = before.into_iter().filter(|id| !there.contains(id)).collect();
        self.unwatch(|id, _| gone.contains(&id));
        self.leave(gone);
    }

    /// Notes that cgroups are gone.
    fn leave(&mut self, gone: impl IntoIterator<Item = u64>) {
        let now = Instant::now();
        for id in gone {
            if let Some(known) = self.known.get_mut(&id) {
                known.gone.get_or_insert(now);
            }
        }
    }

    /// Ends watches of folders that are gone, and says which ids these had. The kernel does not do it: file systems such as this
    /// one keep what is watched of a folder until nobody watches it.
    fn unwatch(&mut self, is_gone: impl Fn(u64, &Path) -> bool) -> Vec<u64> {
        let over: Vec<(i32, u64)> = self
            .watches
            .extract_if(|_, (id, path)| is_gone(*id, path))
            .map(|(watch, (id, _))| (watch, id))
            .collect();
        for (watch, _) in &over {
            // Where the kernel has ended it by itself there is none any more.
            _ = remove_watch(&self.inotify, *watch);
        }
        over.into_iter().map(|(_, id)| id).collect()
    }

    /// Notes a folder, then watches it, then reads what is in it: nothing made in between is missed.
    fn enter(&mut self, id: u64, path: &Path) {
        self.note(id, path);
        self.watch(id, path);
        let mut there = HashSet::new();
        self.descend(path, &mut there);
    }

    fn descend(&mut self, folder: &Path, there: &mut HashSet<u64>) {
        // A folder that vanishes while it is read is nobody's any more.
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let (id, path) = (entry.ino(), entry.path());
                there.insert(id);
                if !self.known.contains_key(&id) {
                    self.note(id, &path);
                    self.watch(id, &path);
                }
                self.descend(&path, there);
            }
        }
    }

    fn note(&mut self, id: u64, path: &Path) {
        if self.known.contains_key(&id) {
            return;
        }
        let relative = path.strip_prefix(&self.mount).unwrap_or(path);
        let name = format!("/{}", relative.display());
        let subject = subject_of(&name);
        if let Subject::Container(container) = &subject
            // The pod's own folder is not a container.
            && !container.container_id.is_empty()
        {
            tracing::info!(
                pod = container.pod_uid,
                container = container.container_id,
                "container found"
            );
        }
        self.found.push((id, name));
        self.known.insert(id, Known { subject, gone: None });
    }

    fn watch(&mut self, id: u64, path: &Path) {
        match add_watch(
            &self.inotify,
            path,
            WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW,
        ) {
            Ok(watch) => {
                self.watches.insert(watch, (id, path.to_owned()));
            }
            Err(Errno::NOENT) => self.leave([id]),
            Err(errno) => {
                if !self.blind {
                    self.blind = true;
                    tracing::warn!(
                        error = %errno,
                        folder = %path.display(),
                        "cannot watch a cgroup folder: very short-lived containers may stay unknown; raise the sysctl fs.inotify.max_user_watches"
                    );
                }
            }
        }
    }
}

fn subject_of(path: &str) -> Subject {
    match owner_of(path) {
        CgroupOwner::Container(container) => Subject::Container(container),
        CgroupOwner::Host => Subject::Host(path.to_owned()),
    }
}
