//! The node agent: loads the capture programs, attributes what they count to containers, and reports it.
//!
//! ```text
//!  kernel maps ──► capture ──► table ──► report ──► directory | controller | standard output
//!                               ▲
//!                  cgroups ─────┘  cgroup id to container, from the cgroup tree alone
//! ```
//!
//! Guarantees:
//! * Nothing outlives the process: programs are attached by links that the kernel drops with it, however it ends. Unless it is
//!   told where to pin them: then they go on to count, and the next process goes on where this one was, to the unit.
//! * Everything that the kernel counted arrives in a report, or is counted as lost with its reason.
//! * Direction is who asked: who sent the SYN or the INIT, and for UDP who sent the first datagram between two ports, which
//!   with all that follow it until three minutes of silence are one exchange. An exchange is counted as attempted when it
//!   begins and as established when it is answered. One that may have begun before the learner is recorded only if a
//!   connected socket says who began it, and counted as lost otherwise.
//! * Names are words for people, from the answers of name servers that a container asked; nothing else depends on them.
//! * A TCP connection that is older than the learner is read from the socket table of its network namespace, and recorded if
//!   that says who listens; else it is counted as lost.
//! * No access to the API server: needs `CAP_BPF` and `CAP_NET_ADMIN` and a view of the node's cgroup tree.

mod addresses;
mod agent;
mod bpf;
mod capture;
mod cgroups;
mod clock;
mod delivery;
mod health;
mod leaving;
mod names;
mod pins;
mod plain;
mod preflight;
mod report;
mod settings;
mod sockets;
mod table;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use nanoseg_health::heap;

use crate::settings::{Arguments, LogFormat, Settings};

fn main() -> ExitCode {
    heap::share();
    let arguments = Arguments::parse();
    log_to_stderr(&arguments);
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if let Some((folder, is_all)) = arguments.to_uninstall() {
        let was_there = pins::uninstall(&folder)?;
        tracing::info!(folder = %folder.display(), was_there, "nothing is pinned any more");
        if is_all {
            return Ok(());
        }
    }
    let settings = Settings::try_from(arguments)?;
    let tree = preflight::check(settings.cgroup_root.as_deref())?;
    // One thread: the work is reading maps, and a second thread would cost more memory than it saves time.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent::run(settings, tree))?;
    Ok(())
}

fn log_to_stderr(arguments: &Arguments) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(&arguments.log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match arguments.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
