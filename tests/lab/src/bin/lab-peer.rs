//! Every container of the lab: see [`nanoseg_lab::peer`]. Called as `lab-peer enter ..`, it first moves into the cgroup and the
//! network namespace that are to be its container, then becomes the program that is named: see [`nanoseg_lab::small::enter`].

use std::process::ExitCode;

use anyhow::Result;
use nanoseg_lab::{peer, small};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-peer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek().is_some_and(|first| first == "enter") {
        match small::enter::run(arguments.skip(1))? {}
    }
    Ok(peer::run()?)
}
