//! Containers that no kubelet started: their addresses, from the network of one of their processes, and their names, from what
//! their runtime keeps on disk where that can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nanoseg_graph::flow::{Held, Subject};
use nanoseg_graph::hosted::{Hosted, hosted};
use serde::Deserialize;

use crate::addresses;

/// How often a container is looked at that has no address: it gets one after its folder was made, or never.
const LOOKS: u32 = 30;

/// What is known of the containers of this host.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    waiting: BTreeMap<PathBuf, (Subject, u32)>,
    held: BTreeMap<Subject, Held>,
}

impl Plain {
    /// Notes a cgroup that was found: its path below the mount, and its folder.
    pub(crate) fn found(&mut self, path: &str, folder: PathBuf, subject: &Subject) {
        // What a container made below its own folder has the same network, and is not it.
        let is_container = matches!((subject, hosted(path)), (Subject::Host(_), Hosted::Container(id))
            if path.rsplit('/').next().is_some_and(|last| last.contains(id)));
        if is_container {
            self.waiting.insert(folder, (subject.clone(), 0));
        }
    }

    /// Looks at the containers that have no address yet. Says whether something is new.
    pub(crate) fn look(&mut self, now: Timestamp) -> bool {
        let own = network_of("self");
        let mut is_new = false;
        let Self { waiting, held } = self;
        waiting.retain(|folder, (subject, looks)| {
            *looks += 1;
            let found = addresses_of(folder, own);
            if found.is_empty() {
                return *looks < LOOKS && folder.exists();
            }
            let Subject::Host(path) = &*subject else { return false };
            let name = match hosted(path) {
                Hosted::Container(id) => name_of(Path::new("/"), id),
                Hosted::Unit(_) | Hosted::Other => None,
            };
            is_new = true;
            held.insert(
                subject.clone(),
                Held {
                    subject: subject.clone(),
                    name,
                    addresses: found,
                    first_seen: now,
                },
            );
            false
        });
        is_new
    }

    /// All that is known.
    pub(crate) fn held(&self) -> Vec<Held> {
        self.held.values().cloned().collect()
    }
}

fn network_of(process: &str) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{process}/net/tcp")).ok()?.ino())
}

/// Addresses of the first process that has a network of its own.
fn addresses_of(cgroup: &Path, own: Option<u64>) -> BTreeSet<IpAddr> {
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let with_network = |process: &&str| network_of(process).is_some_and(|network| Some(network) != own);
    match processes.lines().find(with_network) {
        Some(process) => addresses::of_process(process),
        None => BTreeSet::new(),
    }
}

/// What people call a container, if its runtime says so. `root` is where the host's files are.
fn name_of(root: &Path, id: &str) -> Option<String> {
    docker(root, id)
        .or_else(|| podman(root, id))
        .or_else(|| nerdctl(root, id))
}

fn docker(root: &Path, id: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "Name")]
        name: String,
    }
    let text = fs::read(root.join("var/lib/docker/containers").join(id).join("config.v2.json")).ok()?;
    let Config { name } = serde_json::from_slice(&text).ok()?;
    Some(name.trim_start_matches('/').to_owned()).filter(|name| !name.is_empty())
}

fn podman(root: &Path, id: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Container {
        id: String,
        #[serde(default)]
        names: Vec<String>,
    }
    let text = fs::read(root.join("var/lib/containers/storage/overlay-containers/containers.json")).ok()?;
    let all: Vec<Container> = serde_json::from_slice(&text).ok()?;
    all.into_iter()
        .find(|container| container.id == id)?
        .names
        .into_iter()
        .next()
}

/// A file for each name of each namespace, in which is the id.
fn nerdctl(root: &Path, id: &str) -> Option<String> {
    let inside = |folder: PathBuf| {
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    inside(root.join("var/lib/nerdctl"))
        .flat_map(|store| inside(store.join("names")))
        .flat_map(inside)
        .find(|file| fs::read_to_string(file).is_ok_and(|text| text.trim() == id))
        .and_then(|file| Some(file.file_name()?.to_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_runtimes_keep() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "var/lib/docker/containers/1a/config.v2.json",
            r#"{"ID": "1a", "Name": "/web", "Config": {}}"#,
        );
        write("var/lib/docker/containers/1b/config.v2.json", "not whole");
        write(
            "var/lib/containers/storage/overlay-containers/containers.json",
            r#"[{"id": "2a", "names": ["db"], "layer": "x"}, {"id": "2b"}]"#,
        );
        write("var/lib/nerdctl/1935db59/names/default/cache", "3a\n");
        for (id, expected) in [
            ("1a", Some("web")),
            ("1b", None),
            ("2a", Some("db")),
            ("2b", None),
            ("3a", Some("cache")),
            ("4a", None),
        ] {
            assert_eq!(name_of(root.path(), id).as_deref(), expected, "{id}");
        }
    }
}
