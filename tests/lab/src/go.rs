//! Programs built from Go modules when they are missing.
//!
//! Guarantee: a program in the cache was built from exactly the `go.mod`, `go.sum` and sources that the [`Module`] holds, by the
//! Go version at hand: all of them are in the name of its folder. The folder appears only when the build has succeeded, so an
//! interrupted build leaves nothing that looks finished.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use sha2::{Digest, Sha256};

/// Why the programs could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no Go compiler.
    #[error("no Go compiler was found: install Go 1.26 or later (https://go.dev/dl) and put it on PATH")]
    NoGo(#[source] io::Error),
    /// The Go compiler does not tell its version.
    #[error("`go env GOVERSION` failed: {said}")]
    Version {
        /// What it wrote instead.
        said: String,
    },
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where to keep the programs.
    #[error("nowhere to keep the built programs: set HOME or XDG_CACHE_HOME")]
    NoCache,
    /// A file of the cache could not be handled.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The compiler refused.
    #[error("building {program} failed:\n{said}")]
    Build {
        /// Which program.
        program: &'static str,
        /// The last lines that the compiler wrote.
        said: String,
    },
}

/// A Go module, and how to build it.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Name of the program.
    pub name: &'static str,
    /// Shown while it builds: the whole of it cold, on two cores.
    pub about: &'static str,
    /// What of the module is built.
    pub package: &'static str,
    /// What the linker is told.
    pub ldflags: &'static str,
    /// Names and contents.
    pub files: &'static [(&'static str, &'static str)],
    /// Names by which the program is called, when the name chooses what it does.
    pub links: &'static [&'static str],
}

/// The folder with the module's program in it, built if it is not there yet. Says through `say` what is built and about how
/// long that takes.
pub fn ensure(module: &Module, say: &dyn Fn(&str)) -> Result<PathBuf, Error> {
    let version = go_version()?;
    let cache = cache()?;
    fs::create_dir_all(&cache).map_err(on("make", &cache))?;
    let folder = cache.join(format!("{}-{}", module.name, key(module, &version)));
    if folder.exists() {
        return Ok(folder);
    }
    // Two that start at once build once: the second waits here and then finds the folder.
    let path = cache.join(format!("{}.lock", module.name));
    let lock = File::create(&path).map_err(on("make", &path))?;
    lock.lock().map_err(on("lock", &path))?;
    if folder.exists() {
        return Ok(folder);
    }
    let unfinished = cache.join(format!("{}.unfinished", module.name));
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(on("remove", &unfinished)(error)),
        _ => {}
    }
    build(module, &unfinished, say)?;
    fs::rename(&unfinished, &folder).map_err(on("make", &folder))?;
    Ok(folder)
}

/// The folder that built programs are kept in: `nanoseg-lab` in the user's cache.
fn cache() -> Result<PathBuf, Error> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("nanoseg-lab"))
        .ok_or(Error::NoCache)
}

fn go_version() -> Result<String, Error> {
    let asked = Command::new("go")
        .args(["env", "GOVERSION"])
        .output()
        .map_err(Error::NoGo)?;
    let version = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    if asked.status.success() && !version.is_empty() {
        Ok(version)
    } else {
        Err(Error::Version {
            said: String::from_utf8_lossy(&asked.stderr).trim().to_owned(),
        })
    }
}

fn build(module: &Module, folder: &Path, say: &dyn Fn(&str)) -> Result<(), Error> {
    let sources = folder.join("source");
    fs::create_dir_all(&sources).map_err(on("make", &sources))?;
    for (name, content) in module.files {
        let path = sources.join(name);
        fs::write(&path, content).map_err(on("write", &path))?;
    }
    say(&format!(
        "building {} from its Go module: {} the first time",
        module.name, module.about
    ));
    let begun = Instant::now();
    // The programs can wait for whatever else the machine is compiling.
    let built = Command::new("nice")
        .args(["-n", "10", "go", "build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", module.ldflags])
        .arg("-o")
        .arg(folder.join(module.name))
        .arg(module.package)
        .current_dir(&sources)
        // Static: the same file runs in a pod that has no C library.
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null())
        .output()
        .map_err(Error::NoGo)?;
    if !built.status.success() {
        let said = String::from_utf8_lossy(&built.stderr);
        let lines: Vec<&str> = said.lines().collect();
        return Err(Error::Build {
            program: module.name,
            said: lines[lines.len().saturating_sub(20)..].join("\n"),
        });
    }
    for link in module.links {
        let path = folder.join(link);
        symlink(module.name, &path).map_err(on("make", &path))?;
    }
    say(&format!("built {} in {} s", module.name, begun.elapsed().as_secs()));
    Ok(())
}

/// What names a build: everything that goes into it.
fn key(module: &Module, version: &str) -> String {
    let mut hash = Sha256::new();
    let parts = [module.package, module.ldflags, version].into_iter();
    for part in parts.chain(module.files.iter().flat_map(|(name, content)| [*name, *content])) {
        // Lengths keep two different lists of parts from running into the same bytes.
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .take(8)
        .fold(String::new(), |key, byte| format!("{key}{byte:02x}"))
}

fn on(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { action, path, source }
}
