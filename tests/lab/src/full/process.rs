//! Processes that outlive the command that started them, and commands that are waited for.
//!
//! Guarantee: a [`Process`] is known by its id *and* its start time, so an id that the kernel gave to somebody else is never
//! taken for it. Each runs in a session of its own (Ctrl-C in the starter's terminal does not reach it) and in a cgroup of
//! the lab, by which everything that it starts is found again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::error::{Error, on};

/// Lines of a log that go into an error: enough for a Go stack's head, little enough for a terminal.
const LAST_LINES: usize = 25;

/// A running program of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Where it runs and what it is, such as `node1/kubelet`.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// Its start time in clock ticks since the machine's start, as `/proc/PID/stat` has it.
    pub started: u64,
    /// What it writes to its standard output and error.
    pub log: PathBuf,
}

impl Process {
    /// Starts `command` (program and arguments) in `cgroup`, a folder of the cgroup2 tree that is made if need be.
    pub(super) fn start(name: &str, cgroup: &Path, log: PathBuf, command: &Command) -> Result<(Self, Child), Error> {
        fs::create_dir_all(cgroup).map_err(on("make", cgroup))?;
        let file = File::create(&log).map_err(on("make", &log))?;
        let again = file.try_clone().map_err(on("open", &log))?;
        // Each of these replaces itself by the next, so the child's id is the program's. Joining the cgroup comes before the
        // program, so nothing that it starts can be outside.
        let mut wrapped = Command::new("setsid");
        wrapped
            .args(["sh", "-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(cgroup)
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(again);
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        let child = wrapped.spawn().map_err(|source| Error::Start {
            command: shown(command),
            source,
        })?;
        let pid = child.id();
        // A child that has ended stays a zombie until it is waited for, so its entry is there.
        let started = Stat::of(pid).map_or(0, |stat| stat.started);
        Ok((
            Self {
                name: name.to_owned(),
                pid,
                started,
                log,
            },
            child,
        ))
    }

    /// This process, as the owner of what it makes.
    pub(super) fn own() -> Self {
        let pid = std::process::id();
        let started = Stat::of(pid).map_or(0, |stat| stat.started);
        Self {
            name: "owner".to_owned(),
            pid,
            started,
            log: PathBuf::new(),
        }
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.started == self.started && !stat.ended)
    }

    /// The last lines of its log.
    pub fn last_lines(&self) -> String {
        let content = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&content);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

/// What of `/proc/PID/stat` is needed.
struct Stat {
    started: u64,
    ended: bool,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name stands in parentheses and may hold anything, so fields are counted from behind it: the state
        // is the third of the line and the start time the twenty-second.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        Some(Self {
            started,
            ended: matches!(state, "Z" | "X"),
        })
    }
}

/// Runs a command to its end and asks that it succeeds.
pub(super) fn succeed(command: &mut Command) -> Result<(), Error> {
    output(command).map(drop)
}

/// Runs a command to its end and gives what it wrote to its standard output.
pub(super) fn output(command: &mut Command) -> Result<Vec<u8>, Error> {
    let ended = command.stdin(Stdio::null()).output().map_err(|source| Error::Start {
        command: shown(command),
        source,
    })?;
    if ended.status.success() {
        Ok(ended.stdout)
    } else {
        Err(Error::Failed {
            command: shown(command),
            said: String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
        })
    }
}

/// Runs a command to its end with this as its standard input.
pub(super) fn feed(command: &mut Command, input: &str) -> Result<(), Error> {
    let start = |source| Error::Start {
        command: shown(command),
        source,
    };
    let mut prepared = Command::new(command.get_program());
    prepared
        .args(command.get_args())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = prepared.spawn().map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that ends without reading everything says why on its standard error, which is the better message.
        drop(stdin.write_all(input.as_bytes()));
    }
    let ended = child.wait_with_output().map_err(start)?;
    if ended.status.success() {
        Ok(())
    } else {
        Err(Error::Failed {
            command: shown(command),
            said: String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
        })
    }
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
