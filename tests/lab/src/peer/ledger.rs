//! What became of each call.
//!
//! Guarantee: a ledger file never grows beyond twice [`MOST_BYTES`]; the older half goes first.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::app::Protocol;

/// At some 200 bytes a line this keeps the last 40,000 calls at least.
const MOST_BYTES: u64 = 8 << 20;

/// One call and what became of it: one line of JSON in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// When it began.
    pub at: Timestamp,
    /// Whose call: `NAMESPACE/NAME` of the workload, or `external/NAME`.
    pub from: String,
    /// Which pod made it.
    pub pod: String,
    /// To whom, as the description of the application writes it.
    pub to: String,
    /// The address that was called, as the caller knew it; none if its name did not resolve.
    pub address: Option<IpAddr>,
    /// The port that was called: of a Service its own port, not the pods'.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Whether it was answered.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No connection, or no answer to a datagram, in time: this is what dropped packets look like.
    Timeout,
    /// Refused by the other end, or by something between that says so.
    Refused,
    /// No route, or something between says that it is not reachable.
    Unreachable,
    /// Connected, then broken off.
    Reset,
    /// Connected, and no answer in time.
    NoAnswer,
    /// No name server answered in time.
    NameTimeout,
    /// The name does not exist, or has no address of the family.
    NoSuchName,
    /// Anything else, as the system says it.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("timeout"),
            Self::Refused => f.write_str("refused"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Reset => f.write_str("reset"),
            Self::NoAnswer => f.write_str("connected, no answer"),
            Self::NameTimeout => f.write_str("name server does not answer"),
            Self::NoSuchName => f.write_str("no such name"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Timeout,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::PermissionDenied => {
                Self::Unreachable
            }
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                Self::Reset
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Where calls are written.
#[derive(Debug)]
pub struct Ledger(Mutex<Output>);

#[derive(Debug)]
enum Output {
    Standard,
    File { path: PathBuf, file: File, bytes: u64 },
}

impl Ledger {
    /// On standard output.
    pub const fn standard() -> Self {
        Self(Mutex::new(Output::Standard))
    }

    /// In a file, which is begun anew.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file = create(path)?;
        Ok(Self(Mutex::new(Output::File {
            path: path.to_owned(),
            file,
            bytes: 0,
        })))
    }

    /// Writes one call.
    pub fn write(&self, call: &Call) -> io::Result<()> {
        let mut line = serde_json::to_vec(call)?;
        line.push(b'\n');
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *output {
            Output::Standard => io::stdout().lock().write_all(&line),
            Output::File { path, file, bytes } => {
                if *bytes > MOST_BYTES {
                    std::fs::rename(&*path, older(path))?;
                    *file = create(path)?;
                    *bytes = 0;
                }
                *bytes += line.len() as u64;
                file.write_all(&line)
            }
        }
    }

    /// Reads a ledger file, oldest call first. A line that is still being written is left out, and so is a file that is not there yet.
    pub fn read(path: &Path) -> io::Result<Vec<Call>> {
        let mut calls = Vec::new();
        for path in [older(path), path.to_owned()] {
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            calls.extend(Self::parse(&text));
        }
        Ok(calls)
    }

    /// The calls among the lines of `text`; anything else that a container wrote is left out.
    pub fn parse(text: &str) -> impl Iterator<Item = Call> {
        text.lines().filter_map(|line| serde_json::from_str(line).ok())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(true).open(path)
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("older.jsonl")
}
