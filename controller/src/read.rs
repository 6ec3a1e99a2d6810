//! Manifests and reports from files: YAML and JSON, several documents in one file.
//!
//! Guarantee: a document that cannot be read is one [`Fault`] that names the file, the document, its line and the field, and
//! every other document is read all the same.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::Object;
use nanoseg_graph::flow::Report;
use nanoseg_policy::cluster_policy::ClusterNetworkPolicy;
use nanoseg_policy::objects::{self, Manifest, Parsed, UnknownField, Unreadable};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What files of manifests are called.
pub const MANIFEST_EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// What files of reports are called.
pub const REPORT_EXTENSIONS: [&str; 1] = ["json"];

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
        write!(f, "{}: document {document} (line {line})", file.display())
    }
}

/// A path that cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Neither a file nor a folder can be opened there.
    #[error("cannot read {}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// A document that was left out.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file is there and cannot be read, or is not text.
    #[error("{}: left out", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Not YAML.
    #[error("{place}: left out, because it is not YAML")]
    Yaml {
        /// Where.
        place: Place,
        /// The parser's words; its lines count from the document's first.
        source: serde_yaml::Error,
    },
    /// Not JSON.
    #[error("{place}: left out, because it is not JSON")]
    Json {
        /// Where.
        place: Place,
        /// The parser's words.
        source: serde_json::Error,
    },
    /// A field that its kind does not take.
    #[error("{place}: left out, because of the field `{field}`")]
    Field {
        /// Where.
        place: Place,
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Not an object of Kubernetes, or one that cannot be read.
    #[error("{place}: left out")]
    Object {
        /// Where.
        place: Place,
        /// Which object and which field.
        source: Box<Unreadable>,
    },
    /// A field that no API server would keep.
    #[error("{place}")]
    UnknownField {
        /// Where.
        place: Place,
        /// Which object and which field.
        source: Box<UnknownField>,
    },
}

impl Fault {
    /// Whether something was left out because of it.
    pub const fn leaves_out(&self) -> bool {
        !matches!(self, Self::UnknownField { .. })
    }
}

/// A document of a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it stands.
    pub place: Place,
    /// All of it.
    pub value: Value,
}

impl Document {
    /// The document as a type.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_path_to_error::deserialize(&self.value).map_err(|error| Fault::Field {
            place: self.place.clone(),
            field: error.path().to_string(),
            source: error.into_inner(),
        })
    }
}

/// What manifests hold.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Objects that tell who is who.
    pub objects: Vec<Object>,
    /// Policies, as they were written.
    pub policies: Vec<NetworkPolicy>,
    /// Policies of the cluster, as they were written.
    pub cluster_policies: Vec<ClusterNetworkPolicy>,
    /// What was left out.
    pub faults: Vec<Fault>,
    /// How many objects are of a kind that does not matter.
    pub other: usize,
}

impl Manifests {
    /// Everything that the files of a path hold.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let mut manifests = Self::default();
        for file in files(path, &MANIFEST_EXTENSIONS)? {
            manifests.add(&file);
        }
        Ok(manifests)
    }

    /// Takes in what a file holds.
    pub fn add(&mut self, file: &Path) {
        let (documents, faults) = documents(file);
        self.faults.extend(faults);
        for Document { place, value } in documents {
            let Parsed {
                manifests,
                unreadable,
                unknown_fields,
            } = objects::parse(value);
            for manifest in manifests {
                match manifest {
                    Manifest::Object(object) => self.objects.push(object),
                    Manifest::NetworkPolicy(policy) => self.policies.push(*policy),
                    Manifest::ClusterNetworkPolicy(policy) => self.cluster_policies.push(*policy),
                    Manifest::Other { .. } => self.other += 1,
                }
            }
            self.faults.extend(unreadable.into_iter().map(|reason| Fault::Object {
                place: place.clone(),
                source: Box::new(reason),
            }));
            self.faults
                .extend(unknown_fields.into_iter().map(|field| Fault::UnknownField {
                    place: place.clone(),
                    source: Box::new(field),
                }));
        }
    }
}

/// The files of a path, sorted: the path itself, or every file with one of the extensions in the folder and below. What
/// begins with a dot is left out (own files of editors and of volumes).
pub fn files(path: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, ReadError> {
    let unreadable = |source| ReadError::Path {
        path: path.to_owned(),
        source,
    };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Gone since its parent was listed.
            Err(error) if folder != path && error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(ReadError::Path { path: folder, source }),
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
            let fits = path
                .extension()
                .is_some_and(|extension| extensions.iter().any(|known| extension == *known));
            match fs::metadata(&path) {
                // A link to a folder is not followed: it could lead back.
                Ok(metadata) if metadata.is_dir() && !path.is_symlink() => folders.push(path),
                Ok(metadata) if metadata.is_file() && fits => found.push(path),
                Ok(_) | Err(_) => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The documents of a file, and what had to be left out.
pub fn documents(file: &Path) -> (Vec<Document>, Vec<Fault>) {
    match fs::read_to_string(file) {
        Ok(text) => documents_in(file, &text),
        Err(source) => (
            Vec::new(),
            vec![Fault::Unreadable {
                file: file.to_owned(),
                source,
            }],
        ),
    }
}

fn documents_in(file: &Path, text: &str) -> (Vec<Document>, Vec<Fault>) {
    let mut documents = Vec::new();
    let mut faults = Vec::new();
    for (document, (line, part)) in split(text).into_iter().enumerate() {
        let place = Place {
            file: file.to_owned(),
            document: document + 1,
            line,
        };
        let value = if part.trim_start().starts_with('{') {
            serde_json::from_str(part).map_err(|source| Fault::Json {
                place: place.clone(),
                source,
            })
        } else {
            yaml(part).map_err(|source| Fault::Yaml {
                place: place.clone(),
                source,
            })
        };
        match value {
            Ok(value) => documents.push(Document { place, value }),
            Err(fault) => faults.push(fault),
        }
    }
    (documents, faults)
}

/// A learner's report.
pub fn report(file: &Path) -> Result<Report, Fault> {
    let text = fs::read(file).map_err(|source| Fault::Unreadable {
        file: file.to_owned(),
        source,
    })?;
    let place = || Place {
        file: file.to_owned(),
        document: 1,
        line: 1,
    };
    let mut json = serde_json::Deserializer::from_slice(&text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let source = error.into_inner();
        if source.is_data() {
            Fault::Field {
                place: place(),
                field,
                source,
            }
        } else {
            Fault::Json { place: place(), source }
        }
    })
}

fn yaml(text: &str) -> Result<Value, serde_yaml::Error> {
    let mut value: serde_yaml::Value = serde_yaml::from_str(text)?;
    value.apply_merge()?;
    serde_yaml::from_value(value)
}

/// The documents of a YAML stream with the line on which each begins. Split before parsing, because a parser that meets an
/// error in one document cannot find the next.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut begin, mut begin_line, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        if bare == "---" || bare == "..." || line.starts_with("--- ") {
            parts.push((begin_line, &text[begin..at]));
            // A document may begin on the separator's own line.
            let content = line.starts_with("--- ") && !line[4..].trim_start().starts_with('#');
            begin = if content { at + 4 } else { at + line.len() };
            begin_line = if content { index + 1 } else { index + 2 };
        }
        at += line.len();
    }
    parts.push((begin_line, &text[begin..]));
    parts.retain(|(_, part)| {
        part.lines()
            .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    parts
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn faults(text: &str) -> (usize, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.yaml");
        fs::write(&file, text).unwrap();
        let manifests = Manifests::read(folder.path()).unwrap();
        let chain = |fault: &Fault| match fault.source() {
            Some(source) => format!("{fault}: {source}"),
            None => fault.to_string(),
        };
        let prefix = format!("{}: ", file.display());
        let texts = manifests
            .faults
            .iter()
            .map(|fault| chain(fault).replace(&prefix, ""))
            .collect();
        (manifests.objects.len(), texts)
    }

    #[test]
    fn p18_a_bad_document_does_not_take_the_others_with_it() {
        let (objects, faults) = faults(
            "# shop\n---\nkind: Pod\napiVersion: v1\nmetadata: {name: a, namespace: n}\n---\nkind: [\n---\n\n---\nname: x\n--- \nkind: Node\napiVersion: v1\nmetadata: {name: b}\n",
        );
        assert_eq!(objects, 2);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(
            faults[0].starts_with("document 2 (line 7): left out, because it is not YAML: "),
            "{}",
            faults[0]
        );
        assert!(
            faults[1].starts_with("document 3 (line 11): left out: the document has no kind"),
            "{}",
            faults[1]
        );
    }

    #[test]
    fn a_bad_field_is_named_with_its_path() {
        let (objects, faults) = faults(
            "kind: Service\napiVersion: v1\nmetadata: {name: a, namespace: n}\nspec:\n  ports:\n  - port: http\n",
        );
        assert_eq!((objects, faults.len()), (0, 1));
        assert!(faults[0].contains("Service n/a: spec.ports[0].port"), "{}", faults[0]);
    }

    #[test]
    fn json_lists_are_read() {
        let (objects, faults) = faults(
            r#"{"kind":"List","apiVersion":"v1","items":[{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}},{"x":1}]}"#,
        );
        assert_eq!((objects, faults.len()), (1, 1));
    }
}
