//! Whether this machine can be observed at all. Each thing that is missing is one sentence that says what to do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the tree that is observed is.
#[derive(Clone, Debug)]
pub(crate) struct CgroupTree {
    /// Where the cgroup2 file system is mounted.
    pub(crate) mount: PathBuf,
    /// The folder below it to observe; equal to `mount` for all.
    pub(crate) root: PathBuf,
}

/// What this machine lacks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PreflightError {
    #[error("cannot read {path}")]
    Read { path: &'static str, source: io::Error },
    #[error("Linux {release} is too old: nanoseg-learner needs 5.8 or newer")]
    Kernel { release: String },
    #[error(
        "not permitted: missing {missing}; run as root, or add {missing} to the container's securityContext.capabilities"
    )]
    Capability { missing: String },
    #[error(
        "cannot raise the limit of locked memory, which Linux {release} needs for eBPF maps: run with CAP_SYS_RESOURCE or `ulimit -l unlimited`"
    )]
    LockedMemory { release: String, source: io::Error },
    #[error(
        "no cgroup v2 file system is mounted: boot with systemd.unified_cgroup_hierarchy=1, or mount one with `mount -t cgroup2 none /sys/fs/cgroup`"
    )]
    NoCgroup2,
    #[error("cannot open the cgroup folder {}: give one that exists with --cgroup-root", path.display())]
    Root { path: PathBuf, source: io::Error },
    #[error("{} is not in a cgroup v2 file system ({}): give a folder of one with --cgroup-root", path.display(), known(mounts))]
    NotCgroup2 { path: PathBuf, mounts: Vec<PathBuf> },
    #[error(
        "{} shows only this container's own cgroup: mount the node's tree from the host and name it with --cgroup-root", path.display()
    )]
    Namespaced { path: PathBuf },
}

fn known(mounts: &[PathBuf]) -> String {
    let list: Vec<String> = mounts.iter().map(|mount| mount.display().to_string()).collect();
    if list.is_empty() {
        "none is mounted".to_owned()
    } else {
        format!("mounted at {}", list.join(", "))
    }
}

/// Checks kernel, permissions and the cgroup tree.
pub(crate) fn check(root: Option<&Path>) -> Result<CgroupTree, PreflightError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let version = version_of(&release);
    if version < (5, 8) {
        return Err(PreflightError::Kernel { release });
    }
    let status = read("/proc/self/status")?;
    let missing = missing_capabilities(&status);
    if !missing.is_empty() {
        return Err(PreflightError::Capability {
            missing: missing.join(" and "),
        });
    }
    if version < (5, 11) {
        let unlimited = rustix::process::Rlimit {
            current: None,
            maximum: None,
        };
        rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited).map_err(|errno| {
            PreflightError::LockedMemory {
                release,
                source: errno.into(),
            }
        })?;
    }
    tree(&read("/proc/self/mounts")?, root)
}

fn read(path: &'static str) -> Result<String, PreflightError> {
    fs::read_to_string(path).map_err(|source| PreflightError::Read { path, source })
}

fn tree(mounts: &str, root: Option<&Path>) -> Result<CgroupTree, PreflightError> {
    let mounts = cgroup2_mounts(mounts);
    let Some(path) = root else {
        let mount = mounts.into_iter().next().ok_or(PreflightError::NoCgroup2)?;
        // Every cgroup but the root of the machine has this file.
        if mount.join("cgroup.events").exists() {
            return Err(PreflightError::Namespaced { path: mount });
        }
        return Ok(CgroupTree {
            root: mount.clone(),
            mount,
        });
    };
    let is_folder = |root: PathBuf| {
        if root.is_dir() {
            Ok(root)
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    };
    let root = path
        .canonicalize()
        .and_then(is_folder)
        .map_err(|source| PreflightError::Root {
            path: path.to_owned(),
            source,
        })?;
    let nearest = mounts
        .iter()
        .filter(|mount| root.starts_with(mount))
        .max_by_key(|mount| mount.as_os_str().len());
    match nearest.cloned() {
        // Another file system can be mounted inside the tree: the files of a cgroup are what tells.
        Some(mount) if root.join("cgroup.procs").exists() => Ok(CgroupTree { mount, root }),
        Some(_) | None => Err(PreflightError::NotCgroup2 { path: root, mounts }),
    }
}

/// Mount points of cgroup2 file systems, in the order of the mount table.
fn cgroup2_mounts(table: &str) -> Vec<PathBuf> {
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(unescape(point)))
        })
        .collect()
}

/// Undoes the octal escapes that the kernel writes for space, tab, newline and backslash.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

fn version_of(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether the kernel shows its programs what a listener of IPv6 sends to accept a connection. Before 6.6 it took such a packet
/// for somebody else's.
pub(crate) fn shows_accepts_of_ipv6() -> bool {
    version_of(&rustix::system::uname().release().to_string_lossy()) >= (6, 6)
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    const BPF: u64 = 1 << 39;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    // CAP_SYS_ADMIN still implies CAP_BPF.
    let needed = [("CAP_BPF", BPF | SYS_ADMIN), ("CAP_NET_ADMIN", NET_ADMIN)];
    needed
        .into_iter()
        .filter(|(_, any)| effective & any == 0)
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (release, expected) in [
            ("5.8.0", (5, 8)),
            ("6.18.44-fc-v445", (6, 18)),
            ("4.19.0-21-amd64", (4, 19)),
            ("6.1-rc2", (6, 1)),
            ("", (0, 0)),
        ] {
            assert_eq!(version_of(release), expected, "{release}");
        }
    }

    #[test]
    fn capabilities() {
        for (mask, expected) in [
            ("000001ffffffffff", vec![]),
            ("0000008000001000", vec![]),
            ("0000000000201000", vec![]),
            ("0000000000001000", vec!["CAP_BPF"]),
            ("0000008000000000", vec!["CAP_NET_ADMIN"]),
            ("0000000000000000", vec!["CAP_BPF", "CAP_NET_ADMIN"]),
        ] {
            assert_eq!(
                missing_capabilities(&format!("Name:\tx\nCapEff:\t{mask}\n")),
                expected,
                "{mask}"
            );
        }
    }

    #[test]
    fn mounts() {
        let table = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                     cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\nnone /host/my\\040tree cgroup2 rw 0 0\n";
        assert_eq!(
            cgroup2_mounts(table),
            [PathBuf::from("/sys/fs/cgroup/unified"), PathBuf::from("/host/my tree")]
        );
        assert!(matches!(tree("", None), Err(PreflightError::NoCgroup2)));
        assert!(matches!(
            tree(table, Some(Path::new("/proc"))),
            Err(PreflightError::NotCgroup2 { .. })
        ));
        assert!(matches!(
            tree(table, Some(Path::new("/nowhere"))),
            Err(PreflightError::Root { .. })
        ));
    }
}
