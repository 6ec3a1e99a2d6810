//! What a cgroup of the host itself is, outside of any pod: a container that no kubelet started, or a systemd unit.
//!
//! The shapes: with the systemd driver `<runtime>-<id>.scope` somewhere below a slice (`docker-`, `libpod-`, `nerdctl-`), with the
//! cgroupfs driver a folder of the runtime's or of a namespace of containerd's with the id alone, or `libpod-<id>`, in it.
//!
//! Law: a container's id is read, never guessed: 64 hexadecimal digits, and not of its monitor.

use std::fmt;

/// Who it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hosted<'a> {
    /// A container, by its id.
    Container(&'a str),
    /// A systemd unit, by its name.
    Unit(&'a str),
    /// Neither: the kernel, the first process, what somebody made by hand.
    Other,
}

impl Hosted<'_> {
    /// Kind of the workload that it is.
    pub const CONTAINER: &'static str = "Container";
    /// The same.
    pub const UNIT: &'static str = "Unit";
}

impl fmt::Display for Hosted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // As runtimes shorten it.
            Self::Container(id) => f.write_str(id.get(..12).unwrap_or(id)),
            Self::Unit(name) => f.write_str(name),
            Self::Other => f.write_str("host"),
        }
    }
}

/// Reads a cgroup path relative to the cgroup2 mount. Whatever a container made below its folder is the container's; a unit is the
/// innermost one.
pub fn hosted(path: &str) -> Hosted<'_> {
    let folders = || path.split('/');
    if let Some(id) = folders().find_map(container) {
        return Hosted::Container(id);
    }
    let unit = |kind: &str| folders().rfind(|folder| folder.strip_suffix(kind).is_some_and(|name| !name.is_empty()));
    // A scope is what somebody started from outside: a session, a machine. What is in a service is more than what is around it.
    match unit(".service").or_else(|| unit(".scope")) {
        Some(unit) => Hosted::Unit(unit),
        None => Hosted::Other,
    }
}

fn container(folder: &str) -> Option<&str> {
    let name = folder.strip_suffix(".scope").unwrap_or(folder);
    let (runtime, id) = name.rsplit_once('-').unwrap_or(("", name));
    let is_id = id.len() == 64
        && id
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (is_id && !runtime.ends_with("conmon")).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn paths_that_runtimes_and_systemd_make() {
        let container = Hosted::Container(ID);
        for (message, path, expected) in [
            (
                "Docker, systemd",
                format!("/system.slice/docker-{ID}.scope"),
                container.clone(),
            ),
            ("Docker, cgroupfs", format!("/docker/{ID}"), container.clone()),
            (
                "Podman",
                format!("/machine.slice/libpod-{ID}.scope/container"),
                container.clone(),
            ),
            (
                "Podman, of a user",
                format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"),
                container.clone(),
            ),
            (
                "Podman, cgroupfs",
                format!("/libpod_parent/libpod-{ID}"),
                container.clone(),
            ),
            (
                "nerdctl",
                format!("/system.slice/nerdctl-{ID}.scope"),
                container.clone(),
            ),
            ("containerd's own client", format!("/default/{ID}"), container),
            (
                "Podman's monitor",
                format!("/machine.slice/libpod-conmon-{ID}.scope"),
                Hosted::Unit("libpod-conmon-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.scope"),
            ),
            (
                "a unit",
                "/system.slice/sshd.service".to_owned(),
                Hosted::Unit("sshd.service"),
            ),
            (
                "what a unit made",
                "/system.slice/web.service/workers".to_owned(),
                Hosted::Unit("web.service"),
            ),
            (
                "a user's unit",
                "/user.slice/user-1000.slice/user@1000.service/app.slice/sync.service".to_owned(),
                Hosted::Unit("sync.service"),
            ),
            (
                "a session",
                "/user.slice/user-1000.slice/session-3.scope".to_owned(),
                Hosted::Unit("session-3.scope"),
            ),
            (
                "the first process",
                "/init.scope".to_owned(),
                Hosted::Unit("init.scope"),
            ),
            ("the root", "/".to_owned(), Hosted::Other),
            ("a slice", "/system.slice".to_owned(), Hosted::Other),
            ("no id", "/docker/web".to_owned(), Hosted::Other),
            (
                "upper case is no id",
                format!("/docker/{}", ID.to_uppercase()),
                Hosted::Other,
            ),
        ] {
            assert_eq!(hosted(&path), expected, "{message}: {path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_is_read_without_panic(path in "[-a-z0-9_./@é]{0,80}") {
            hosted(&path).to_string();
        }
    }
}
