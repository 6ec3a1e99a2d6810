//! Builds the kernel programs and the code of the report protocol.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

/// Name of the rustup toolchain that can build `core` for the BPF target.
const TOOLCHAIN: &str = "NANOSEG_BPF_TOOLCHAIN";

#[expect(
    unsafe_code,
    reason = "this process has one thread, and aya-build takes the variables from its environment"
)]
fn main() -> Result<()> {
    // A toolchain that is not a nightly one builds `core` all the same when it is told to.
    // SAFETY: no other thread exists that could read the environment now.
    unsafe {
        std::env::set_var("RUSTC_BOOTSTRAP", "1");
        // Its progress would come out as warnings of this package.
        std::env::set_var("CARGO_TERM_QUIET", "true");
    }
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?);
    protocol(&root)?;
    programs(&root)
}

fn protocol(root: &Path) -> Result<()> {
    let file = root.join("report.proto");
    println!("cargo:rerun-if-changed={}", file.display());
    let descriptors = protox::compile([&file], [root]).with_context(|| format!("cannot read {}", file.display()))?;
    tonic_prost_build::configure()
        .compile_fds(descriptors)
        .context("cannot generate the report client")
}

fn programs(root: &Path) -> Result<()> {
    println!("cargo:rerun-if-env-changed={TOOLCHAIN}");
    let chosen = std::env::var(TOOLCHAIN).ok();
    let toolchain = match &chosen {
        Some(name) => name.as_str(),
        None => ["bpf", "nightly"]
            .into_iter()
            .find(|name| has_core_source(name))
            .with_context(|| {
                format!(
                    "no rustup toolchain has the source of `core`, which the kernel programs are built from: run \
                 `rustup toolchain install nightly --component rust-src`, or name one that has it in {TOOLCHAIN}"
                )
            })?,
    };
    if !has_core_source(toolchain) {
        bail!(
            "the toolchain `{toolchain}` does not have the source of `core`, which the kernel programs are built from: run \
             `rustup component add rust-src --toolchain {toolchain}`, or name another one in {TOOLCHAIN}"
        );
    }
    if Command::new("bpf-linker").arg("--version").output().is_err() {
        bail!("bpf-linker is not on PATH: run `cargo install bpf-linker`");
    }
    let folder = root.join("../ebpf");
    let package = Package {
        name: "nanoseg-ebpf",
        root_dir: folder.to_str().context("the path of the source tree is not UTF-8")?,
        ..Package::default()
    };
    aya_build::build_ebpf([package], Toolchain::Custom(toolchain)).context("cannot build the kernel programs")
}

fn has_core_source(toolchain: &str) -> bool {
    let output = Command::new("rustup")
        .args(["run", toolchain, "rustc", "--print", "sysroot"])
        .output();
    let Ok(output) = output else { return false };
    let sysroot = String::from_utf8_lossy(&output.stdout);
    output.status.success()
        && Path::new(sysroot.trim())
            .join("lib/rustlib/src/rust/library/core/Cargo.toml")
            .is_file()
}
