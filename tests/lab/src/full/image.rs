//! Container images, made here: no registry is reachable from a lab, and none is wanted.
//!
//! Guarantee: an image holds the given files and the shared libraries that they need, in one layer; the same files give the
//! same bytes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::error::{Error, on};

/// What goes into an image.
pub struct Image<'a> {
    /// Its name with the tag, as pods refer to it (`nanoseg.lab/peer:1`).
    pub name: &'a str,
    /// Files on this machine, and where each is in the image. All are executable; the shared libraries of a program come
    /// along.
    pub files: &'a [(&'a Path, &'a str)],
    /// The program that a container of it runs, with its arguments.
    pub entrypoint: &'a [&'a str],
}

impl Image<'_> {
    /// Writes the image as an OCI archive, which `ctr images import` takes.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let layer = self.layer()?;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        })
        .to_string()
        .into_bytes();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({ "io.containerd.image.name": self.full_name() });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] })
            .to_string()
            .into_bytes();

        let file = File::create(path).map_err(on("make", path))?;
        let mut archive = tar::Builder::new(file);
        let wrote = on("write", path);
        (|| {
            append(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
            append(&mut archive, "index.json", 0o644, &index)?;
            for blob in [&manifest, &config, &layer] {
                append(&mut archive, &format!("blobs/sha256/{}", hex(blob)), 0o644, blob)?;
            }
            archive.into_inner()?.flush()
        })()
        .map_err(wrote)
    }

    /// The name as containerd keeps it: a name without a registry belongs to Docker's, by old custom.
    fn full_name(&self) -> String {
        match self.name.split_once('/') {
            Some((registry, _)) if registry.contains('.') => self.name.to_owned(),
            Some(_) => format!("docker.io/{}", self.name),
            None => format!("docker.io/library/{}", self.name),
        }
    }

    fn layer(&self) -> Result<Vec<u8>, Error> {
        let mut libraries = BTreeSet::new();
        for (source, _) in self.files {
            libraries.extend(libraries_of(source)?);
        }
        // Where the loader expects them: at the paths that they have here.
        let libraries = libraries.iter().map(|path| (path.as_path(), path.to_string_lossy()));
        let files = self.files.iter().map(|(source, target)| (*source, (*target).into()));
        let mut layer = tar::Builder::new(Vec::new());
        for (source, target) in files.chain(libraries) {
            let content = fs::read(source).map_err(on("read", source))?;
            append(&mut layer, target.trim_start_matches('/'), 0o755, &content).map_err(on("pack", source))?;
        }
        layer.into_inner().map_err(on("pack", PathBuf::from(self.name)))
    }
}

/// The shared libraries of a program, its loader among them; none for a static one.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut command = Command::new("ldd");
    command.arg(program).env("LC_ALL", "C");
    let asked = command.output().map_err(|source| Error::Start {
        command: "ldd".to_owned(),
        source,
    })?;
    let said = String::from_utf8_lossy(&asked.stdout);
    if let Some(missing) = said.lines().find(|line| line.contains("not found")) {
        return Err(Error::Failed {
            command: format!("ldd {}", program.display()),
            said: missing.trim().to_owned(),
        });
    }
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)`, and `/lib64/ld-linux-x86-64.so.2 (0x...)` for the loader. What is
    // no dynamic program makes ldd fail without a line like these.
    Ok(said
        .lines()
        .filter_map(|line| line.rsplit_once(" (0x"))
        .map(|(library, _)| library.rsplit_once("=> ").map_or(library, |(_, path)| path).trim())
        .filter(|path| path.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

fn append(archive: &mut tar::Builder<impl Write>, path: &str, mode: u32, content: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content)
}

fn descriptor(media_type: &str, content: &[u8]) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex(content))
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .fold(String::with_capacity(64), |text, byte| format!("{text}{byte:02x}"))
}

/// The machine's architecture as images call it.
const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    }
}
