//! A container's process, from outside.
//!
//! Guarantee: it ends with whoever started it, however that one ends, because its standard input is a socket to it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use super::Error;
use crate::peer::{ADDRESSES_VARIABLE, CONFIG_VARIABLE, POD_VARIABLE, PeerConfig};

/// A process listens within milliseconds; on a machine that is busy building it may take seconds.
const START: Duration = Duration::from_secs(20);

/// What a process is started with.
#[derive(Debug)]
pub(super) struct Start<'a> {
    /// The program.
    pub(super) peer: &'a Path,
    /// What errors call it, and what its files are called.
    pub(super) name: &'a str,
    /// The pod's name.
    pub(super) pod: &'a str,
    /// What it does.
    pub(super) config: &'a PeerConfig,
    /// Addresses from which UDP answers.
    pub(super) addresses: String,
    /// The folder of its cgroup.
    pub(super) cgroup: &'a Path,
    /// The file of its network namespace.
    pub(super) netns: &'a Path,
    /// The folder for its configuration and its standard error.
    pub(super) files: &'a Path,
}

/// A process that runs.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    handle: OwnedFd,
    child: Option<Child>,
    supervisor: UnixStream,
    log: PathBuf,
}

impl Process {
    /// Starts it. It then listens and waits for [`Process::begin`].
    pub(super) fn start(start: &Start<'_>) -> Result<Self, Error> {
        let Start {
            peer,
            name,
            pod,
            config,
            addresses,
            cgroup,
            netns,
            files,
        } = start;
        let failed = |source| Error::Start {
            name: (*name).to_owned(),
            source,
        };
        let file = files.join(format!("{}.json", name.replace('/', ".")));
        fs::write(&file, serde_json::to_vec_pretty(config)?).map_err(Error::file("written", &file))?;
        let log = file.with_extension("log");
        let errors = File::create(&log).map_err(Error::file("created", &log))?;
        let (supervisor, theirs) = UnixStream::pair().map_err(failed)?;
        let child = Command::new(peer)
            .args(["enter", "--cgroup"])
            .arg(cgroup)
            .arg("--netns")
            .arg(netns)
            .arg("--")
            .arg(peer)
            .env_clear()
            .env(CONFIG_VARIABLE, format!("@{}", file.display()))
            .env(POD_VARIABLE, pod)
            .env(ADDRESSES_VARIABLE, addresses)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .map_err(failed)?;
        let handle = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
            .map_err(|error| failed(error.into()))?;
        Ok(Self {
            name: (*name).to_owned(),
            handle,
            child: Some(child),
            supervisor,
            log,
        })
    }

    /// Waits until it listens.
    pub(super) fn wait_ready(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + START;
        let mut word = [0; 1];
        let ready = self
            .supervisor
            .set_read_timeout(Some(
                deadline
                    .saturating_duration_since(Instant::now())
                    .max(Duration::from_millis(1)),
            ))
            .and_then(|()| self.supervisor.read(&mut word));
        match ready {
            Ok(1) => Ok(()),
            _ => Err(Error::NotReady {
                name: self.name.clone(),
                seconds: START.as_secs(),
                log: fs::read_to_string(&self.log).unwrap_or_default(),
            }),
        }
    }

    /// Lets it call.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        self.supervisor.write_all(b"g").map_err(|source| Error::Start {
            name: self.name.clone(),
            source,
        })
    }

    /// Has it speak one round of what it says only when told.
    pub(super) fn tell(&self) -> Result<(), Error> {
        rustix::process::pidfd_send_signal(&self.handle, Signal::USR1).map_err(|error| Error::Tell {
            name: self.name.clone(),
            source: error.into(),
        })
    }

    /// Gives the child away to somebody who waits for its end.
    pub(super) fn take_child(&mut self) -> Option<Child> {
        self.child.take()
    }

    /// Waits for a process that was killed, so that no zombie stays.
    pub(super) fn reap(mut self) {
        if let Some(mut child) = self.child.take() {
            // Nothing is left to do for one that cannot be waited for.
            drop(child.wait());
        }
    }
}
