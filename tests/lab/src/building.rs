//! Builds what a lab needs.
//!
//! Guarantee: the static program appears in its place only when it is complete.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nanoseg_lab::full::Binaries;
use nanoseg_lab::small;

/// Where the static `lab-peer` is: an image has no libraries to share.
pub(crate) fn static_peer_path() -> Result<PathBuf> {
    Ok(small::beside("lab-peer-static")?)
}

/// The static `lab-peer`, if it was built.
pub(crate) fn static_peer() -> Result<PathBuf> {
    let path = static_peer_path()?;
    if !path.is_file() {
        bail!("{} is not there: `lab build --full` builds it", path.display());
    }
    Ok(path)
}

pub(crate) fn build(full: bool) -> Result<()> {
    cargo(&["build", "--package", "nanoseg-lab", "--bin", "lab-peer"])?;
    if full {
        eprintln!("lab: building lab-peer as a static program (some seconds)");
        // Only the last crate is linked another way, so nothing else is built again.
        let flags = ["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"];
        cargo(&[&["rustc", "--package", "nanoseg-lab", "--bin", "lab-peer"][..], &flags].concat())?;
        let (built, path) = (small::beside("lab-peer")?, static_peer_path()?);
        let new = path.with_extension("new");
        std::fs::copy(&built, &new)
            .and_then(|_bytes| std::fs::rename(&new, &path))
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Binaries::ensure(&|text| eprintln!("lab: {text}"))?;
    }
    Ok(())
}

/// Runs cargo in this workspace, for the profile that this program was built with.
fn cargo(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let split = arguments.iter().position(|argument| *argument == "--").unwrap_or(arguments.len());
    command.args(&arguments[..split]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.args(&arguments[split..]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = command.status().context("cargo cannot be run")?;
    if status.success() { Ok(()) } else { bail!("cargo {} failed", arguments.join(" ")) }
}
