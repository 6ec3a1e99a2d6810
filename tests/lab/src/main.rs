//! The `lab` command: see `lab --help`.

mod arguments;
mod building;
mod demo;
mod full_command;
mod small_command;
mod stdout;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use nanoseg_lab::app::App;

use arguments::{Arguments, Command};

/// The application that runs where no other is named.
const SHOP: &str = include_str!("../shop.yaml");

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Up {
            which,
            app,
            foreground,
            systemd_cgroups: _,
            detach: _,
        } if which.full => full_command::up(&description(app.as_deref())?, foreground),
        Command::Up {
            which,
            app,
            foreground: false,
            systemd_cgroups,
            detach: false,
        } => {
            // A mistake in the file is to be said here, before anything is started.
            description(app.as_deref())?;
            small_command::up_in_background(&which.id, app.as_deref(), systemd_cgroups)
        }
        Command::Up {
            which,
            app,
            foreground: _,
            systemd_cgroups,
            detach,
        } => small_command::up(&description(app.as_deref())?, &which.id, systemd_cgroups, detach),
        Command::Say { which, who } if which.full => full_command::say(&who),
        Command::Say { which, who } => small_command::say(&which.id, who),
        Command::Status { which, output } if which.full => full_command::status(output),
        Command::Status { which, output } => small_command::status(&which.id, output),
        Command::Kubeconfig => full_command::kubeconfig(),
        Command::Kubectl { arguments } => full_command::become_kubectl(&arguments),
        Command::Roll {
            which,
            who,
            reuse_addresses: _,
        } if which.full => full_command::roll(&who),
        Command::Roll {
            which,
            who,
            reuse_addresses,
        } => small_command::roll(&which.id, who, reuse_addresses),
        Command::Delete { which, who } if which.full => full_command::delete(&who),
        Command::Delete { which, who } => small_command::delete(&which.id, who),
        Command::Down { which: _, all: true } => {
            let small = small_command::down_all();
            full_command::down()?;
            small
        }
        Command::Down { which, all: false } if which.full => full_command::down(),
        Command::Down { which, all: false } => small_command::down(&which.id),
        Command::Build { full } => building::build(full),
        Command::Install { enforce, manifests } => full_command::install(&manifests, &enforce),
        Command::Image { out } => full_command::image(&out),
        Command::Demo {
            app,
            intruder,
            out,
            stay,
        } => demo::run(&description(app.as_deref())?, &intruder, out, stay),
    }
}

fn description(path: Option<&Path>) -> Result<App> {
    match path {
        Some(path) => Ok(App::read(path)?),
        None => App::parse(SHOP, &PathBuf::from("shop.yaml")).context("the shop, which is part of this program"),
    }
}
