//! Writing to a folder. Every file is written beside its place and then renamed into it, so that a reader finds the old file
//! or the new one and never a part.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_policy::map::visible_json;
use nanoseg_policy::ownership::{PolicyName, is_owned};
use serde::Serialize;

use super::{Live, WriteError};
use crate::read;
use crate::reconcile::{Notice, Proposals, SegmentWrite, Violation};
use crate::segment::{Segment, SegmentName};

/// Subfolder of every current proposal.
const PROPOSED: &str = "proposed";
/// Subfolder of what is enforced.
pub const APPLIED: &str = "applied";
/// Subfolder of the Segments.
pub const SEGMENTS: &str = "segments";
/// File of the violations, one JSON object a line.
const VIOLATIONS: &str = "violations.jsonl";
/// What a file is called until it is whole. The dot keeps readers away, the rest says whose it is.
const UNFINISHED: &str = ".nanoseg-";

/// Policies and Segments in a folder.
#[derive(Clone, Debug)]
pub struct OnDirectory {
    out: PathBuf,
}

impl OnDirectory {
    /// In this folder, which is made if it is not there. What a controller that was killed left unfinished is removed.
    pub fn new(out: PathBuf) -> Result<Self, WriteError> {
        for part in [PROPOSED, APPLIED, SEGMENTS] {
            let path = out.join(part);
            fs::create_dir_all(&path).map_err(at("make the folder", &path))?;
            remove_unfinished(&path).map_err(at("clean up in", &path))?;
        }
        Ok(Self { out })
    }

    fn policy(&self, part: &str, PolicyName { namespace, name }: &PolicyName) -> PathBuf {
        file(&self.out.join(part), namespace, name)
    }

    fn segment(&self, segment: &Segment) -> PathBuf {
        let SegmentName { namespace, name } = segment.segment_name();
        file(&self.out.join(SEGMENTS), &namespace, &name)
    }
}

impl Live for OnDirectory {
    async fn put_segment(&self, write: &SegmentWrite) -> Result<Segment, WriteError> {
        let mut segment = write.segment.clone();
        let path = self.segment(&segment);
        // The mode is people's: what stands in the file now is right, whatever was read from it before.
        let current = read::documents(&path).into_iter().find_map(Result::ok);
        if let Some(Ok(current)) = current.as_ref().map(read::Document::typed::<Segment>) {
            segment.spec.mode = current.spec.mode;
        }
        write_yaml(&path, &segment)?;
        Ok(segment)
    }

    async fn remove_segment(&self, segment: &Segment) -> Result<(), WriteError> {
        remove(&self.segment(segment))
    }

    async fn put_policy(&self, desired: &NetworkPolicy) -> Result<NetworkPolicy, WriteError> {
        write_yaml(&self.policy(APPLIED, &PolicyName::of(desired)), desired)?;
        Ok(desired.clone())
    }

    async fn remove_policy(&self, live: &NetworkPolicy) -> Result<(), WriteError> {
        let path = self.policy(APPLIED, &PolicyName::of(live));
        if is_ours(&path) { remove(&path) } else { Ok(()) }
    }

    async fn put_proposals(&self, proposals: &Proposals) -> Result<(), WriteError> {
        let mut current = BTreeSet::new();
        for policy in &proposals.current {
            let path = self.policy(PROPOSED, &PolicyName::of(policy));
            let text = yaml(&path, &**policy)?;
            if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
                write_text(&path, &text)?;
                tracing::info!(path = %path.display(), "policy proposed");
            }
            current.insert(path);
        }
        let folder = self.out.join(PROPOSED);
        for path in read::files(&folder, &read::MANIFEST_EXTENSIONS).unwrap_or_default() {
            // A linked folder is not this one's to tidy.
            let is_here = path
                .parent()
                .is_some_and(|parent| parent.parent() == Some(&folder) && !parent.is_symlink());
            if is_here && !current.contains(&path) && is_ours(&path) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn tell(&self, _notices: Vec<Notice>) {}

    async fn record(&self, violations: &[Violation]) -> Result<(), WriteError> {
        if violations.is_empty() {
            return Ok(());
        }
        let path = self.out.join(VIOLATIONS);
        let mut lines = String::new();
        for violation in violations {
            let line = serde_json::to_string(violation)
                .map_err(io::Error::from)
                .map_err(at("write to", &path))?;
            // Whoever follows the file does so on a terminal.
            lines += &visible_json(&line);
            lines.push('\n');
        }
        // One write for all lines: a reader that follows the file sees whole lines.
        let append = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)?
                .write_all(lines.as_bytes())
        };
        append().map_err(at("write to", &path))
    }
}

/// Writes a policy as `FOLDER/NAMESPACE/NAME.yaml` and returns where that is.
pub fn write_policy(folder: &Path, policy: &NetworkPolicy) -> Result<PathBuf, WriteError> {
    let PolicyName { namespace, name } = PolicyName::of(policy);
    let path = file(folder, &namespace, &name);
    write_yaml(&path, policy)?;
    Ok(path)
}

/// Where an object of a folder is.
pub fn file(folder: &Path, namespace: &str, name: &str) -> PathBuf {
    folder.join(namespace).join(format!("{name}.yaml"))
}

/// Whether a file holds one policy, and it is ours: nothing else is ever deleted.
fn is_ours(path: &Path) -> bool {
    match &read::documents(path)[..] {
        [Ok(document)] => document.typed::<NetworkPolicy>().is_ok_and(|policy| is_owned(&policy)),
        _ => false,
    }
}

fn yaml(path: &Path, object: &impl Serialize) -> Result<String, WriteError> {
    serde_yaml::to_string(object).map_err(|source| WriteError::Yaml {
        path: path.to_owned(),
        source,
    })
}

fn write_yaml(path: &Path, object: &impl Serialize) -> Result<(), WriteError> {
    write_text(path, &yaml(path, object)?)
}

fn write_text(path: &Path, text: &str) -> Result<(), WriteError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || {
        fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        // On the disk before the name is: after a power failure the file is whole or the old one.
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(at("write", path))
}

fn remove(path: &Path) -> Result<(), WriteError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("delete", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_unfinished(&entry.path())?;
        } else if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn at(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::File { verb, path, source }
}
