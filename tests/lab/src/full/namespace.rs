//! Named network namespaces, and running things in them.
//!
//! Guarantee: whatever runs through [`Namespace::command`] or [`Namespace::inside`] sees this namespace's network and the
//! machine's own files: no mount is changed, so the cgroup trees stay visible.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::error::{Error, on};
use super::process::succeed;

/// A network namespace that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The namespace of that name, which need not exist.
    pub(super) fn named(name: String) -> Self {
        Self { name }
    }

    pub(super) fn create(name: String) -> Result<Self, Error> {
        succeed(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.ip(&["link set lo up".to_owned()])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it: what `nsenter --net=` and setns take.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command that will run in this namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        // Not `ip netns exec`: that mounts a new /sys, without the cgroup trees.
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs `ip` commands in this namespace, in one go.
    pub(super) fn ip(&self, lines: &[String]) -> Result<(), Error> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        super::process::feed(&mut command, &lines.join("\n"))
    }

    /// Sets kernel parameters of this namespace (`net/ipv4/ip_forward`).
    pub(super) fn sysctl(&self, settings: &[(&str, &str)]) -> Result<(), Error> {
        self.inside(|| {
            for (name, value) in settings {
                let path = Path::new("/proc/sys").join(name);
                fs::write(&path, value).map_err(on("write", path))?;
            }
            Ok(())
        })?
    }

    /// Runs `work` on a thread of its own that is in this namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let entered = |source| Error::Enter {
            namespace: self.name.clone(),
            source,
        };
        let file = File::open(self.path()).map_err(entered)?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|errno| entered(errno.into()))?;
                Ok(work())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Whether a plain HTTP GET in this namespace is answered with 200; otherwise what came instead.
    pub(super) fn healthy(&self, address: SocketAddr, path: &str) -> Result<Result<(), String>, Error> {
        self.inside(|| {
            let answer = || -> std::io::Result<String> {
                // The answer comes at once or the process is busy; the caller asks again.
                let patience = Duration::from_secs(2);
                let mut stream = TcpStream::connect_timeout(&address, patience)?;
                stream.set_read_timeout(Some(patience))?;
                write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", address.ip())?;
                let mut start = [0; 64];
                let length = stream.read(&mut start)?;
                Ok(String::from_utf8_lossy(&start[..length])
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned())
            };
            match answer() {
                Ok(status) if status.split_whitespace().nth(1) == Some("200") => Ok(()),
                Ok(status) => Err(format!("http://{address}{path} answers `{status}`")),
                Err(error) => Err(format!("http://{address}{path}: {error}")),
            }
        })
    }

    /// Takes the name away; the namespace ends with its last process. Absent is fine.
    pub(super) fn delete(&self) -> Result<(), Error> {
        if !self.path().exists() {
            return Ok(());
        }
        succeed(Command::new("ip").args(["netns", "del", &self.name]))
    }
}
