//! Becomes a container: moves into a cgroup and a network namespace, then becomes another program.
//!
//! Guarantee: the program never runs a single instruction outside of its cgroup or its network, so nothing of its traffic is
//! anybody else's.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use rustix::thread::LinkNameSpaceType;

/// Why a container cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The command line is not understood.
    #[error("usage: lab-peer enter [--cgroup DIR] [--netns FILE] [--dies-with-parent] -- PROGRAM [ARGUMENT..]")]
    Usage,
    /// The cgroup cannot be entered.
    #[error("the cgroup {} cannot be entered", .path.display())]
    Cgroup {
        /// Its folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The network namespace cannot be entered.
    #[error("the network namespace {} cannot be entered", .path.display())]
    Network {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tie to the parent cannot be made.
    #[error("the parent's end cannot be followed")]
    Parent(#[source] io::Error),
    /// The program cannot be run.
    #[error("{} cannot be run", .program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Does as the arguments say; returns only if it cannot.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> Result<Infallible, EnterError> {
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--cgroup") => {
                let path = PathBuf::from(arguments.next().ok_or(EnterError::Usage)?);
                // 0 is whoever writes it.
                std::fs::write(path.join("cgroup.procs"), "0").map_err(|source| EnterError::Cgroup {
                    path: path.clone(),
                    source,
                })?;
            }
            Some("--netns") => {
                let path = PathBuf::from(arguments.next().ok_or(EnterError::Usage)?);
                File::open(&path)
                    .and_then(|file| {
                        let kind = Some(LinkNameSpaceType::Network);
                        Ok(rustix::thread::move_into_link_name_space(file.as_fd(), kind)?)
                    })
                    .map_err(|source| EnterError::Network { path, source })?;
            }
            Some("--dies-with-parent") => rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
                .map_err(|error| EnterError::Parent(error.into()))?,
            Some("--") => {
                let program = PathBuf::from(arguments.next().ok_or(EnterError::Usage)?);
                let source = Command::new(&program).args(arguments).exec();
                return Err(EnterError::Run { program, source });
            }
            Some(_) | None => return Err(EnterError::Usage),
        }
    }
    Err(EnterError::Usage)
}
