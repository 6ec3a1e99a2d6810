//! Manifests: YAML and JSON, several documents in one file, lists as kubectl prints them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::{Object, ObjectKey, Pod};
use nanoseg_policy::cluster_policy::ClusterNetworkPolicy;
use nanoseg_policy::evaluate::PolicyRef;
use nanoseg_policy::objects::{self, Manifest, Parsed};
use nanoseg_policy::ownership::PolicyName;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fault::{Fault, Syntax};
use super::place::{MANIFEST_EXTENSIONS, Place, ReadError, STANDARD_INPUT, files, open};
use super::yaml;

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

impl Document {
    /// The documents of a list as kubectl prints it, each as a type; of anything else the document itself.
    pub fn unfolded<T: DeserializeOwned>(mut self) -> Result<Vec<T>, Fault> {
        let is_list = self
            .value
            .get("kind")
            .and_then(Value::as_str)
            .is_some_and(|kind| kind.ends_with("List"));
        match self.value.get_mut("items").filter(|_| is_list).map(Value::take) {
            Some(Value::Array(items)) => items
                .into_iter()
                .map(|value| {
                    let place = self.place.clone();
                    Self { place, value }.typed()
                })
                .collect(),
            _ => Ok(vec![self.typed()?]),
        }
    }
}

/// What manifests hold.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Objects that tell who is who.
    pub objects: Vec<Object>,
    /// A pod for each workload, as its template describes it.
    pub declared: Vec<Pod>,
    /// Policies, as they were written.
    pub policies: Vec<NetworkPolicy>,
    /// Policies of the cluster, as they were written.
    pub cluster_policies: Vec<ClusterNetworkPolicy>,
    /// Where each policy was read last.
    pub places: BTreeMap<PolicyRef, Place>,
    /// What was left out.
    pub faults: Vec<Fault>,
    /// How many objects are of a kind that does not matter.
    pub other: usize,
    /// Where each object was read last, and which of [`Self::objects`] it is.
    objects_at: BTreeMap<ObjectKey, (usize, Place)>,
    /// Which of [`Self::policies`] or [`Self::cluster_policies`] each policy was last.
    policies_at: BTreeMap<PolicyRef, usize>,
    /// The pod that has each UID, and where it was read first.
    pods_by_uid: BTreeMap<Arc<str>, (ObjectKey, Place)>,
}

impl Manifests {
    /// Everything that the files of a path hold, or that standard input does. Before each file it is told how many there are.
    pub fn read(path: &Path, mut next_of: impl FnMut(usize)) -> Result<Self, ReadError> {
        let mut manifests = Self::default();
        let files = files(path, &MANIFEST_EXTENSIONS)?;
        for file in &files {
            next_of(files.len());
            manifests.add(file);
        }
        Ok(manifests)
    }

    /// Takes in what a file holds.
    pub fn add(&mut self, file: &Path) {
        self.take_all(documents(file));
    }

    /// Takes in bytes, as those of a file.
    pub fn add_bytes(&mut self, file: &Path, bytes: &[u8]) {
        self.take_all(documents_in(file, bytes));
    }

    fn take_all(&mut self, documents: Vec<Result<Document, Fault>>) {
        for document in documents {
            match document {
                Ok(document) => self.take(document),
                Err(fault) => self.faults.push(fault),
            }
        }
    }

    fn take(&mut self, Document { place, value }: Document) {
        let Parsed {
            manifests,
            declared,
            unreadable,
            unknown_fields,
        } = objects::parse(value);
        self.declared.extend(declared);
        for manifest in manifests {
            match manifest {
                Manifest::Object(object) => self.object(object, &place),
                Manifest::NetworkPolicy(policy) => {
                    let name = PolicyRef::Namespaced(PolicyName::of(&policy).into());
                    let before = self.policies_at.insert(name.clone(), self.policies.len());
                    let differs = before.is_some_and(|before| self.policies[before].spec != policy.spec);
                    self.policy(name, &place, differs);
                    self.policies.push(*policy);
                }
                Manifest::ClusterNetworkPolicy(policy) => {
                    let name = PolicyRef::Cluster(policy.name());
                    let before = self.policies_at.insert(name.clone(), self.cluster_policies.len());
                    let differs = before.is_some_and(|before| self.cluster_policies[before].spec != policy.spec);
                    self.policy(name, &place, differs);
                    self.cluster_policies.push(*policy);
                }
                Manifest::OtherVersion {
                    object,
                    found,
                    expected,
                } => self.faults.push(Fault::OtherVersion {
                    place: place.clone(),
                    object: Box::new(object),
                    found,
                    expected,
                }),
                Manifest::OtherPolicy(object) => {
                    self.other += 1;
                    self.faults.push(Fault::OtherPolicy {
                        place: place.clone(),
                        object: Box::new(object),
                    });
                }
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

impl Manifests {
    fn object(&mut self, mut object: Object, place: &Place) {
        let key = object.key();
        if let Object::Pod(pod) = &mut object {
            self.own_uid(pod, &key, place);
        }
        let name = key.to_string();
        let at = (self.objects.len(), place.clone());
        if let Some((before, first)) = self.objects_at.insert(key, at)
            && self.objects[before] != object
        {
            self.again(name, place, first);
        }
        self.objects.push(object);
    }

    /// An API server never gives two pods one UID; whoever writes or edits manifests may. A cluster knows its pods by it, so the
    /// later would take the place of the earlier.
    fn own_uid(&mut self, pod: &mut Pod, key: &ObjectKey, place: &Place) {
        match self.pods_by_uid.entry(Arc::clone(&pod.uid)) {
            Entry::Vacant(entry) => {
                entry.insert((key.clone(), place.clone()));
            }
            Entry::Occupied(entry) if entry.get().0 == *key => {}
            Entry::Occupied(entry) => {
                let (other, before) = entry.get().clone();
                self.faults.push(Fault::SameUid {
                    place: place.clone(),
                    object: key.to_string(),
                    other: other.to_string(),
                    before: Box::new(before),
                });
                pod.uid = format!("{}/{}", pod.namespace, pod.name).into();
            }
        }
    }

    fn policy(&mut self, policy: PolicyRef, place: &Place, differs: bool) {
        let name = policy.to_string();
        let before = self.places.insert(policy, place.clone());
        if let Some(before) = before.filter(|_| differs) {
            self.again(name, place, before);
        }
    }

    fn again(&mut self, object: String, place: &Place, before: Place) {
        self.faults.push(Fault::Again {
            place: place.clone(),
            object,
            before,
        });
    }
}

/// The documents of a file in their order, those that had to be left out among them.
pub fn documents(file: &Path) -> Vec<Result<Document, Fault>> {
    let read = || {
        if file.as_os_str() == STANDARD_INPUT {
            let mut bytes = Vec::new();
            open(file)?.read_to_end(&mut bytes)?;
            Ok(bytes)
        } else {
            fs::read(file)
        }
    };
    match read() {
        Ok(bytes) => documents_in(file, &bytes),
        Err(source) => vec![Err(unreadable(file, source))],
    }
}

fn unreadable(file: &Path, source: io::Error) -> Fault {
    Fault::Unreadable {
        file: file.to_owned(),
        source,
    }
}

/// The documents of what a file holds.
pub fn documents_in(file: &Path, bytes: &[u8]) -> Vec<Result<Document, Fault>> {
    let text = match text(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
            let source = io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8 text"));
            return vec![Err(unreadable(file, source))];
        }
    };
    let mut reader = Reader {
        file,
        next: 1,
        documents: Vec::new(),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    for (line, part) in split(text) {
        if part.trim_start().starts_with('{') {
            reader.json(part, line);
        } else {
            let place = reader.place(line);
            reader.documents.push(match yaml::document(part) {
                Ok(value) => Ok(Document { place, value }),
                Err(error) => Err(not_yaml(place, part, &error)),
            });
        }
    }
    reader.documents
}

/// Text in UTF-8, or in UTF-16 if it begins with a byte order mark that says so, as what a shell on Windows redirects to a file.
fn text(bytes: &[u8]) -> Result<Cow<'_, str>, std::str::Utf8Error> {
    let order: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return std::str::from_utf8(bytes).map(Cow::Borrowed),
    };
    let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().copied().map(order).collect();
    Ok(Cow::Owned(String::from_utf16_lossy(&units)))
}

struct Reader<'a> {
    file: &'a Path,
    /// Number of the next document.
    next: usize,
    documents: Vec<Result<Document, Fault>>,
}

impl Reader<'_> {
    fn place(&mut self, line: usize) -> Place {
        let document = self.next;
        self.next += 1;
        Place {
            file: self.file.to_owned(),
            document,
            line,
        }
    }

    /// JSON objects, one after the other, as `jq -c` and `kubectl get --raw` in a loop write them; or one YAML document that
    /// begins with a brace. After an error it goes on with the next line that begins with one.
    fn json(&mut self, part: &str, first_line: usize) {
        let (mut rest, mut line) = (part, first_line);
        loop {
            let blank = rest.len() - rest.trim_start().len();
            line += newlines(&rest[..blank]);
            rest = &rest[blank..];
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            let end = match values.next() {
                None => return,
                Some(Ok(value)) => {
                    let place = self.place(line);
                    self.documents.push(Ok(Document { place, value }));
                    values.byte_offset()
                }
                Some(Err(error)) => {
                    let end = rest.find("\n{").map_or(rest.len(), |at| at + 1);
                    let place = self.place(line);
                    self.documents.push(match yaml::document(&rest[..end]) {
                        Ok(value) => Ok(Document { place, value }),
                        Err(_) if is_json(rest) => Err(not_json(place, &error)),
                        Err(error) => Err(not_yaml(place, &rest[..end], &error)),
                    });
                    end
                }
            };
            line += newlines(&rest[..end]);
            rest = &rest[end..];
        }
    }
}

/// Whether text that begins with a brace was meant as JSON: its first key is quoted.
fn is_json(text: &str) -> bool {
    let inside = text.trim_start().strip_prefix('{').unwrap_or(text).trim_start();
    inside.starts_with('"') || inside.starts_with('}') || inside.is_empty()
}

fn not_json(place: Place, error: &serde_json::Error) -> Fault {
    let line = (place.line + error.line()).saturating_sub(1);
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text);
    Fault::Syntax {
        place,
        language: "JSON",
        source: Syntax(format!("{reason} at line {line}, column {}", error.column())),
    }
}

fn not_yaml(place: Place, part: &str, error: &serde_yaml::Error) -> Fault {
    let text = error.to_string();
    let reason = match error.location() {
        Some(at) => {
            let line = (place.line + at.line()).saturating_sub(1);
            // Lines in the parser's words count from the document's first.
            let reason = text.split(" at line ").next().unwrap_or(&text);
            format!("{reason} at line {line}, column {}", at.column())
        }
        None => text,
    };
    // Of templates it is true and does not help.
    let advice = if part.contains("{{") {
        "; it looks like a template, which has to be rendered first, as `helm template` does"
    } else {
        ""
    };
    Fault::Syntax {
        place,
        language: "YAML",
        source: Syntax(format!("{reason}{advice}")),
    }
}

fn newlines(text: &str) -> usize {
    text.matches('\n').count()
}

/// The documents of a YAML stream with the line on which each begins. Split before parsing, because a parser that meets an
/// error in one document cannot find the next.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut begin, mut begin_line, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        let opens = line.starts_with("--- ") || line.starts_with("---\t");
        if bare == "---" || bare == "..." || opens {
            parts.push((begin_line, &text[begin..at]));
            // A document may begin on the separator's own line.
            let content = opens && bare != "---" && !line[4..].trim_start().starts_with('#');
            begin = if content { at + 4 } else { at + line.len() };
            begin_line = if content { index + 1 } else { index + 2 };
        } else if bare.starts_with('%') && text[begin..at].trim().is_empty() {
            // A directive, which the separator after it ends.
            begin = at + line.len();
            begin_line = index + 2;
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
mod tests;
