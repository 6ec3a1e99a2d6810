//! Where something stands: a path or standard input, a document, a line.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The path that means standard input.
pub const STANDARD_INPUT: &str = "-";

/// What files of manifests are called.
pub const MANIFEST_EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// What files of reports are called.
pub const REPORT_EXTENSIONS: [&str; 1] = ["json"];
/// What files of flows are called; their format is told by what is in them.
pub const FLOW_EXTENSIONS: [&str; 5] = ["json", "jsonl", "ndjson", "gz", "log"];

/// A path that cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Neither a file nor a folder can be opened there.
    #[error("cannot read {}", file_name(path))]
    Path {
        /// The path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Where a document stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Which document of the file, from 1.
    pub document: usize,
    /// The document's first line in the file, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, document, line } = self;
        write!(f, "{}: document {document} (line {line})", file_name(file))
    }
}

/// A path for a person.
pub fn file_name(path: &Path) -> std::path::Display<'_> {
    if path.as_os_str() == STANDARD_INPUT {
        Path::new("standard input").display()
    } else {
        path.display()
    }
}

/// What a path holds, byte by byte.
pub fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    Ok(if path.as_os_str() == STANDARD_INPUT {
        Box::new(io::stdin().lock())
    } else {
        Box::new(fs::File::open(path)?)
    })
}

/// The files of a path, sorted: the path itself, or every file with one of the extensions in the folder and below. What
/// begins with a dot is left out (own files of editors and of volumes), and so is a kustomization, which says how manifests are
/// put together, mostly without a kind. What is linked counts as if it were there, once. A folder or a link that leads nowhere
/// is among the files, so that whoever reads it learns why it cannot be read.
pub fn files(path: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, ReadError> {
    let unreadable = |source| ReadError::Path {
        path: path.to_owned(),
        source,
    };
    if path.as_os_str() == STANDARD_INPUT || !fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    // Entered last, so that what lies in the folder itself is called by its own name.
    let mut linked = BTreeSet::new();
    let mut entered = BTreeSet::new();
    while let Some(folder) = folders.pop().or_else(|| linked.pop_first()) {
        // A link could lead back, or to what another link leads to.
        if !entered.insert(fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone())) {
            continue;
        }
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(source) if folder == path => return Err(unreadable(source)),
            // Gone since its parent was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => {
                found.push(folder);
                continue;
            }
        };
        for entry in entries {
            let entry = entry.map_err(|source| ReadError::Path {
                path: folder.clone(),
                source,
            })?;
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let fits = path.file_stem().is_none_or(|stem| stem != "kustomization")
                && path
                    .extension()
                    .is_some_and(|extension| extensions.iter().any(|known| extension == *known));
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() && path.is_symlink() => {
                    linked.insert(path);
                }
                Ok(metadata) if metadata.is_dir() => folders.push(path),
                Ok(metadata) if metadata.is_file() && fits => found.push(path),
                Err(_) if fits && path.is_symlink() => found.push(path),
                Ok(_) | Err(_) => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_linked_is_read_once_and_what_leads_nowhere_is_told() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["in/a/..data", "outside/b", "in/.git"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for file in [
            "in/a/1.yaml",
            "in/a/..data/2.yaml",
            "outside/b/3.yml",
            "outside/4.json",
            "in/.git/5.yaml",
            "in/a/kustomization.yaml",
            "in/kustomization.yml",
            "in/6.txt",
        ] {
            fs::write(at(file), "").unwrap();
        }
        symlink("..data/2.yaml", at("in/a/2.yaml")).unwrap();
        symlink("../outside", at("in/linked")).unwrap();
        symlink("../outside/b", at("in/linked-too")).unwrap();
        symlink("..", at("in/a/back")).unwrap();
        symlink("nowhere.yaml", at("in/gone.yaml")).unwrap();
        symlink("nowhere", at("in/gone")).unwrap();
        let found = files(&at("in"), &MANIFEST_EXTENSIONS).unwrap();
        let names: Vec<_> = found.iter().map(|file| file.strip_prefix(at("in")).unwrap()).collect();
        let expected = ["a/1.yaml", "a/2.yaml", "gone.yaml", "linked/4.json", "linked/b/3.yml"];
        assert_eq!(names, expected.map(Path::new));
        let kustomization = at("in/kustomization.yml");
        assert_eq!(files(&kustomization, &MANIFEST_EXTENSIONS).unwrap(), [kustomization]);
    }
}
