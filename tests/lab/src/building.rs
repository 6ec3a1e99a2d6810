//! Builds what a lab needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nanoseg_lab::full::Binaries;
use nanoseg_lab::small;

/// `lab-peer` as a static program, which is all that an image has to hold. Built if it is missing or out of date.
///
/// In a folder of its own, because Cargo would otherwise build it again and again in turn with the ordinary one.
pub(crate) fn static_peer() -> Result<PathBuf> {
    let own = small::beside("lab")?;
    let folder = own
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("."))
        .join("static");
    let folder_text = folder.to_str().context("the path of the build folder is not text")?;
    eprintln!("lab: building lab-peer as a static program (half a minute the first time)");
    let flags = ["-C", "target-feature=+crt-static", "-C", "strip=symbols"];
    cargo(
        &[
            "rustc",
            "--quiet",
            "--package",
            "nanoseg-lab",
            "--bin",
            "lab-peer",
            "--target-dir",
            folder_text,
        ],
        &flags,
    )?;
    Ok(folder
        .join(if cfg!(debug_assertions) { "debug" } else { "release" })
        .join("lab-peer"))
}

pub(crate) fn build(full: bool) -> Result<()> {
    cargo(&["build", "--package", "nanoseg-lab", "--bin", "lab-peer"], &[])?;
    if full {
        static_peer()?;
        Binaries::ensure(&|text| eprintln!("lab: {text}"))?;
    }
    Ok(())
}

/// Runs cargo in this workspace, for the profile that this program was built with.
fn cargo(arguments: &[&str], flags: &[&str]) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    if !flags.is_empty() {
        command.arg("--").args(flags);
    }
    let status = command.status().context("cargo cannot be run")?;
    if status.success() {
        Ok(())
    } else {
        bail!("cargo {} failed", arguments.join(" "))
    }
}
