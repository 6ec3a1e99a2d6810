//! Container images, made here: no registry is reachable from a lab, and none is wanted.
//!
//! Guarantee: an image holds the given files and nothing else, in one layer; the same files give the same bytes.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::error::{Error, on};

/// What goes into an image.
pub struct Image<'a> {
    /// Its name with the tag, as pods refer to it (`nanoseg.lab/peer:1`).
    pub name: &'a str,
    /// Files on this machine, and where each is in the image. All are executable.
    pub files: &'a [(&'a Path, &'a str)],
    /// The program that a container of it runs, with its arguments.
    pub entrypoint: &'a [&'a str],
}

impl Image<'_> {
    /// Writes the image as an OCI archive, which `ctr images import` takes.
    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
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
        let mut layer = tar::Builder::new(Vec::new());
        for (source, target) in self.files {
            let content = fs::read(source).map_err(on("read", *source))?;
            append(&mut layer, target.trim_start_matches('/'), 0o755, &content).map_err(on("pack", *source))?;
        }
        layer.into_inner().map_err(on("pack", PathBuf::from(self.name)))
    }
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
