//! The container and the pod that a cgroup path belongs to, from the path alone.
//!
//! The shapes are kubelet's (`pkg/kubelet/cm`): with the cgroupfs driver `kubepods/<qos>/pod<uid>/<id>`, with the systemd
//! driver `kubepods.slice/kubepods-<qos>.slice/kubepods-<qos>-pod<uid>.slice/<runtime>-<id>.scope` in which the dashes of the UID
//! are underscores; guaranteed pods have no level for their quality of service; kubelet's own root may stand before either.
//!
//! Law: the pod's UID is read, never guessed: a folder that merely looks similar is the node's own.

use serde::{Deserialize, Serialize};

/// A container of a pod, as its cgroup path names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerRef {
    /// The pod's UID as the path carries it, with dashes; for a static pod the hash of its configuration.
    pub pod_uid: String,
    /// The runtime's container id; empty for the pod's own folder, in which some runtimes keep a sandbox's processes.
    pub container_id: String,
}

/// Whose cgroup a path is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CgroupOwner {
    /// A container of a pod, or a cgroup inside one.
    Container(ContainerRef),
    /// Anything else on the node: a systemd unit, kubelet, a shell.
    Host,
}

/// Reads a cgroup path relative to the cgroup2 mount. Whatever the container itself made below its folder is the container's.
pub fn owner_of(path: &str) -> CgroupOwner {
    let mut below_kubepods = false;
    let mut folders = path.split('/').filter(|folder| !folder.is_empty());
    while let Some(folder) = folders.next() {
        below_kubepods |= is_kubepods(folder);
        let Some(pod_uid) = pod_uid(folder).filter(|_| below_kubepods) else {
            continue;
        };
        let container_id = match folders.next().map(container_id) {
            None => String::new(),
            Some(Some(id)) => id.to_owned(),
            // conmon runs beside the containers, in the node's network.
            Some(None) => return CgroupOwner::Host,
        };
        return CgroupOwner::Container(ContainerRef { pod_uid, container_id });
    }
    CgroupOwner::Host
}

fn is_kubepods(folder: &str) -> bool {
    let name = folder.strip_suffix(".slice").unwrap_or(folder);
    name.split('-').any(|part| part == "kubepods")
}

fn pod_uid(folder: &str) -> Option<String> {
    let uid = match folder.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        None => folder.strip_prefix("pod")?.to_owned(),
    };
    (is_uuid(&uid) || is_hash(&uid)).then_some(uid)
}

/// 8-4-4-4-12 hexadecimal digits.
fn is_uuid(uid: &str) -> bool {
    let groups = [8, 4, 4, 4, 12];
    let mut parts = uid.split('-');
    groups
        .iter()
        .all(|length| parts.next().is_some_and(|part| part.len() == *length && is_hex(part)))
        && parts.next().is_none()
}

/// The hash of a static pod's configuration (MD5 in hexadecimal), which kubelet takes for its UID.
fn is_hash(uid: &str) -> bool {
    uid.len() == 32 && is_hex(uid)
}

fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// `cri-containerd-<id>.scope`, `crio-<id>.scope`, `docker-<id>.scope`, `<id>`, `crio-<id>`; `None` for a container's monitor.
fn container_id(folder: &str) -> Option<&str> {
    let name = folder.strip_suffix(".scope").unwrap_or(folder);
    if name.starts_with("crio-conmon-") || name.starts_with("libpod-conmon-") {
        return None;
    }
    Some(name.rsplit_once('-').map_or(name, |(_, id)| id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f2e9a8b-1c3d-4e5f-8a9b-0c1d2e3f4a5b";
    const SLICE_UID: &str = "0f2e9a8b_1c3d_4e5f_8a9b_0c1d2e3f4a5b";
    const HASH: &str = "3dfe59d4c0b1a2938475665748392a1b";
    const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn paths_that_kubelet_makes() {
        let rows = [
            (
                "cgroupfs, burstable",
                format!("/kubepods/burstable/pod{UID}/{ID}"),
                Some((UID, ID)),
            ),
            (
                "cgroupfs, guaranteed",
                format!("/kubepods/pod{UID}/{ID}"),
                Some((UID, ID)),
            ),
            (
                "cgroupfs, below another root",
                format!("/lab-node1/kubepods/besteffort/pod{UID}/{ID}"),
                Some((UID, ID)),
            ),
            (
                "cgroupfs, CRI-O",
                format!("/kubepods/besteffort/pod{UID}/crio-{ID}"),
                Some((UID, ID)),
            ),
            (
                "static pod",
                format!("/kubepods/burstable/pod{HASH}/{ID}"),
                Some((HASH, ID)),
            ),
            (
                "inside a container",
                format!("/kubepods/burstable/pod{UID}/{ID}/init.scope/x"),
                Some((UID, ID)),
            ),
            (
                "systemd, containerd",
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE_UID}.slice/cri-containerd-{ID}.scope"
                ),
                Some((UID, ID)),
            ),
            (
                "systemd, CRI-O, guaranteed",
                format!("/kubepods.slice/kubepods-pod{SLICE_UID}.slice/crio-{ID}.scope"),
                Some((UID, ID)),
            ),
            (
                "systemd, Docker, static pod",
                format!(
                    "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{HASH}.slice/docker-{ID}.scope"
                ),
                Some((HASH, ID)),
            ),
            (
                "systemd, kubelet below its own slice in a nested node",
                format!(
                    "/docker/{ID}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{SLICE_UID}.slice/cri-containerd-{ID}.scope"
                ),
                Some((UID, ID)),
            ),
            (
                "the pod's own folder",
                format!("/kubepods/burstable/pod{UID}"),
                Some((UID, "")),
            ),
            (
                "CRI-O's monitor",
                format!("/kubepods.slice/kubepods-pod{SLICE_UID}.slice/crio-conmon-{ID}.scope"),
                None,
            ),
            ("a unit", "/system.slice/sshd.service".to_owned(), None),
            ("the root", "/".to_owned(), None),
            ("kubepods itself", "/kubepods/burstable".to_owned(), None),
            ("a pod folder of somebody else", format!("/user/pod{UID}/{ID}"), None),
            ("not a UID", format!("/kubepods/burstable/podinfo/{ID}"), None),
            (
                "upper case is no UID of kubelet's",
                format!("/kubepods/pod{}/{ID}", UID.to_uppercase()),
                None,
            ),
        ];
        for (message, path, expected) in rows {
            let expected = expected.map_or(CgroupOwner::Host, |(pod_uid, container_id)| {
                CgroupOwner::Container(ContainerRef {
                    pod_uid: pod_uid.to_owned(),
                    container_id: container_id.to_owned(),
                })
            });
            assert_eq!(owner_of(&path), expected, "{message}: {path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_is_read_without_panic(path in "[-a-z0-9_./]{0,80}") {
            owner_of(&path);
        }
    }
}
