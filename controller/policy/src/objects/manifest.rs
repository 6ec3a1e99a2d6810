//! Manifests: any Kubernetes document to what we know of it. Lists are unfolded, and one bad item never stops the rest.

use std::fmt;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::serde::de::DeserializeOwned;
use nanoseg_graph::cluster::{Object, Pod};
use serde::Serialize;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use super::custom::{self, CustomWorkload};
use super::template::{self, Declaration};
use super::{ObjectName, Unreadable};
use crate::cluster_policy::{self, ClusterNetworkPolicy, v1alpha1::AdminNetworkPolicy};

/// One object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub enum Manifest {
    /// An object that tells who is who.
    Object(Object),
    /// A policy, as it was written: nothing is defaulted here.
    NetworkPolicy(Box<NetworkPolicy>),
    /// A policy of the whole cluster, as it was written.
    ClusterNetworkPolicy(Box<ClusterNetworkPolicy>),
    /// A policy of a kind that is not evaluated, though somebody may enforce it.
    OtherPolicy(ObjectName),
    /// An object of a kind that is read, in an API of Kubernetes' own that does not have it, or not any more.
    OtherVersion {
        /// The object.
        object: ObjectName,
        /// Its `apiVersion`.
        found: String,
        /// The `apiVersion` that has the kind.
        expected: &'static str,
    },
    /// An object of a kind that does not matter here.
    Other {
        /// Its `apiVersion`.
        api_version: String,
        /// Its kind.
        kind: String,
        /// Its name, if it has one.
        name: Option<String>,
    },
}

/// A field that the API does not have; the API server would drop it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{object}: {field} is not a field of this kind, and is ignored")]
pub struct UnknownField {
    /// The object.
    pub object: ObjectName,
    /// Path of the field.
    pub field: String,
}

/// What a document held.
#[derive(Debug, Default)]
pub struct Parsed {
    /// What could be read, in the order of the document.
    pub manifests: Vec<Manifest>,
    /// A pod for each workload that will have pods, as its template describes them. It stands for the workload where no pod of
    /// it is known.
    pub declared: Vec<Pod>,
    /// What could not, in the order of the document.
    pub unreadable: Vec<Unreadable>,
    /// Fields of objects that could be read, and that no API server would keep.
    pub unknown_fields: Vec<UnknownField>,
}

/// Reads one document by its `apiVersion` and `kind`. An empty document (`null`, as after a trailing `---`) is nothing.
pub fn parse(value: Value) -> Parsed {
    let mut parsed = Parsed::default();
    if !value.is_null() {
        read(value, Path::Root, &mut parsed);
    }
    parsed
}

fn read(value: Value, path: Path<'_>, parsed: &mut Parsed) {
    let no = |field| Unreadable::NotAnObject {
        field: Path::Key(&path, field).to_string(),
    };
    let Value::Object(mut fields) = value else {
        parsed.unreadable.push(no("kind"));
        return;
    };
    let (Some(api_version), Some(kind)) = (text(&fields, "apiVersion"), text(&fields, "kind")) else {
        let field = if text(&fields, "kind").is_none() {
            "kind"
        } else {
            "apiVersion"
        };
        parsed.unreadable.push(no(field));
        return;
    };
    // A custom kind may end in "List" as well; only one that holds items and has no name of its own is a list.
    if kind.ends_with("List")
        && fields
            .get("items")
            .is_some_and(|items| items.is_array() || items.is_null())
    {
        let items = fields.remove("items");
        let Some(Value::Array(items)) = items else { return };
        let list = Path::Key(&path, "items");
        for (index, mut item) in items.into_iter().enumerate() {
            // The API's own lists (`PodList`) say kind and version once, for all of their items.
            if let (Value::Object(item), Some(of)) = (&mut item, kind.strip_suffix("List").filter(|of| !of.is_empty()))
            {
                item.entry("apiVersion")
                    .or_insert_with(|| Value::from(api_version.clone()));
                item.entry("kind").or_insert_with(|| Value::from(of));
            }
            read(item, Path::Index(&list, index), parsed);
        }
        return;
    }
    let outcome = object(&api_version, &kind, fields, parsed);
    match outcome {
        Ok(manifest) => parsed.manifests.push(manifest),
        Err(unreadable) => parsed.unreadable.push(unreadable),
    }
}

fn object(
    api_version: &str,
    kind: &str,
    fields: Map<String, Value>,
    parsed: &mut Parsed,
) -> Result<Manifest, Unreadable> {
    let metadata = fields.get("metadata").and_then(Value::as_object);
    let part = |key| metadata.and_then(|metadata| text(metadata, key));
    let name = ObjectName {
        kind: kind.to_owned(),
        namespace: part("namespace"),
        name: part("name"),
    };
    let mut document = Document { name, fields, parsed };
    let object = match (api_version, kind) {
        ("v1", "Pod") => super::pod(&document.decode()?),
        ("v1", "Service") => super::service(&document.decode()?),
        ("v1", "Node") => super::node(&document.decode()?),
        ("v1", "Namespace") => super::namespace(&document.decode()?),
        ("v1", "ReplicationController") => {
            document.workload(template::of_replication_controller, super::replication_controller)
        }
        ("apps/v1", "ReplicaSet") => document.workload(template::of_replica_set, super::replica_set),
        ("apps/v1", "Deployment") => document.workload(template::of_deployment, super::deployment),
        ("apps/v1", "StatefulSet") => document.workload(template::of_stateful_set, super::stateful_set),
        ("apps/v1", "DaemonSet") => document.workload(template::of_daemon_set, super::daemon_set),
        ("batch/v1", "Job") => document.workload(template::of_job, super::job),
        ("batch/v1", "CronJob") => document.workload(template::of_cron_job, super::cron_job),
        ("discovery.k8s.io/v1", "EndpointSlice") => super::endpoint_slice(&document.decode()?),
        ("networking.k8s.io/v1", "NetworkPolicy") => {
            let policy: NetworkPolicy = document.decode()?;
            super::name_of(&document.name)?;
            return Ok(Manifest::NetworkPolicy(Box::new(policy)));
        }
        _ if let Some(kind) = cluster_policy_kind(api_version, kind) => {
            let policy = match kind {
                cluster_policy::Kind::ClusterNetworkPolicy => document.decode::<ClusterNetworkPolicy>()?,
                cluster_policy::Kind::AdminNetworkPolicy | cluster_policy::Kind::BaselineAdminNetworkPolicy => {
                    document.decode::<AdminNetworkPolicy>()?.into_cluster_policy(kind)
                }
            };
            super::name_of(&document.name)?;
            return Ok(Manifest::ClusterNetworkPolicy(Box::new(policy)));
        }
        _ if custom::is_workload(api_version, kind) => document.custom_workload(),
        _ if is_other_policy(api_version, kind) => return Ok(Manifest::OtherPolicy(document.name)),
        _ if let Some(expected) = other_version(api_version, kind) => {
            return Ok(Manifest::OtherVersion {
                object: document.name,
                found: api_version.to_owned(),
                expected,
            });
        }
        _ => {
            let name = document.name.name;
            return Ok(Manifest::Other {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                name,
            });
        }
    };
    object.map(Manifest::Object)
}

/// The API that has a kind of Kubernetes' own, where a manifest names another of Kubernetes' own: an older one that is served no
/// longer, or a wrong one.
fn other_version(api_version: &str, kind: &str) -> Option<&'static str> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let own = [
        "",
        "apps",
        "batch",
        "extensions",
        "networking.k8s.io",
        "discovery.k8s.io",
    ];
    if !own.contains(&group) {
        return None;
    }
    match kind {
        "Pod" | "Service" | "Node" | "Namespace" | "ReplicationController" => Some("v1"),
        "ReplicaSet" | "Deployment" | "StatefulSet" | "DaemonSet" => Some("apps/v1"),
        "Job" | "CronJob" => Some("batch/v1"),
        "EndpointSlice" => Some("discovery.k8s.io/v1"),
        "NetworkPolicy" => Some("networking.k8s.io/v1"),
        _ => None,
    }
}

/// Kinds by which other network plugins and meshes allow and deny connections.
fn is_other_policy(api_version: &str, kind: &str) -> bool {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let kinds: &[&str] = match group {
        "cilium.io" => &["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"],
        "crd.projectcalico.org" | "projectcalico.org" => &["NetworkPolicy", "GlobalNetworkPolicy"],
        "crd.antrea.io" => &["NetworkPolicy", "ClusterNetworkPolicy"],
        // Of a version that is not read.
        "policy.networking.k8s.io" => &[
            "AdminNetworkPolicy",
            "BaselineAdminNetworkPolicy",
            "ClusterNetworkPolicy",
        ],
        "k8s.cni.cncf.io" => &["MultiNetworkPolicy"],
        "k8s.ovn.org" => &["EgressFirewall", "UserDefinedNetwork", "ClusterUserDefinedNetwork"],
        "network.openshift.io" => &["EgressNetworkPolicy"],
        "networking.gke.io" => &["FQDNNetworkPolicy"],
        "networking.k8s.aws" => &["ApplicationNetworkPolicy", "ClusterNetworkPolicy"],
        "policy.linkerd.io" | "security.istio.io" => &["AuthorizationPolicy"],
        _ => &[],
    };
    kinds.contains(&kind)
}

fn cluster_policy_kind(api_version: &str, kind: &str) -> Option<cluster_policy::Kind> {
    let mut all = cluster_policy::Kind::ALL.into_iter();
    all.find(|known| known.as_str() == kind && known.api_version() == api_version)
}

struct Document<'a> {
    name: ObjectName,
    fields: Map<String, Value>,
    parsed: &'a mut Parsed,
}

impl Document<'_> {
    fn workload<T: DeserializeOwned + Serialize>(
        &mut self,
        template: fn(&T) -> Option<Declaration<'_>>,
        read: fn(&T) -> Result<Object, Unreadable>,
    ) -> Result<Object, Unreadable> {
        let typed = self.decode()?;
        let object = read(&typed)?;
        self.declare(template(&typed));
        Ok(object)
    }

    fn custom_workload(&mut self) -> Result<Object, Unreadable> {
        let mut document = Value::Object(std::mem::take(&mut self.fields));
        let typed: CustomWorkload = self.typed(&mut document)?;
        let object = typed.object(&self.name.kind)?;
        // Of its other fields nobody knows here which there are.
        if let Some(template) = typed.template() {
            let spec = Path::Key(&Path::Root, "spec");
            self.compare(&document["spec"]["template"], template, Path::Key(&spec, "template"));
        }
        self.declare(typed.declaration());
        Ok(object)
    }

    fn declare(&mut self, declaration: Option<Declaration<'_>>) {
        match declaration.map(|declaration| declaration.pod(&self.name)) {
            Some(Ok(pod)) => self.parsed.declared.extend(pod),
            // The workload is who it is, whatever its pods would be.
            Some(Err(unreadable)) => self.parsed.unreadable.push(unreadable),
            None => {}
        }
    }

    fn decode<T: DeserializeOwned + Serialize>(&mut self) -> Result<T, Unreadable> {
        let mut document = Value::Object(std::mem::take(&mut self.fields));
        let typed = self.typed(&mut document)?;
        self.compare(&document, &typed, Path::Root);
        Ok(typed)
    }

    fn typed<T: DeserializeOwned>(&self, document: &mut Value) -> Result<T, Unreadable> {
        let mut read = serde_path_to_error::deserialize(&*document);
        for _ in 0..OLDER {
            match &read {
                Err(error) if from_older_yaml(document, error.path(), &error.inner().to_string()) => {}
                Ok(_) | Err(_) => break,
            }
            read = serde_path_to_error::deserialize(&*document);
        }
        read.map_err(|error| Unreadable::Shape {
            object: Box::new(self.name.clone()),
            field: error.path().to_string(),
            source: error.into_inner(),
        })
    }

    /// What was read is written again: a field that does not come back is one that the API does not have.
    fn compare(&mut self, before: &Value, typed: &impl Serialize, path: Path<'_>) {
        let Ok(known) = serde_json::to_value(typed) else { return };
        let mut fields = Vec::new();
        lost(before, &known, path, &mut fields);
        let fields = fields.into_iter().map(|field| UnknownField {
            object: self.name.clone(),
            field,
        });
        self.parsed.unknown_fields.extend(fields);
    }
}

/// How many values of YAML 1.1 an object may have. Each costs another reading, and real ones are modes of a few volumes.
const OLDER: usize = 64;

/// Gives a text the value that it has in YAML 1.1, which Kubernetes reads: octal numbers begin with 0 alone there (`0400`), and
/// `yes`, `no`, `on` and `off` are booleans. The later YAML has them as text. Returns whether there was something to do.
fn from_older_yaml(document: &mut Value, path: &serde_path_to_error::Path, wrong: &str) -> bool {
    let mut at = document;
    for segment in path {
        let below = match segment {
            Segment::Seq { index } => at.get_mut(*index),
            Segment::Map { key } => at.get_mut(key),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        let Some(below) = below else { return false };
        at = below;
    }
    let Value::String(text) = &*at else { return false };
    let value = if wrong.ends_with("expected a boolean") {
        match text.to_ascii_lowercase().as_str() {
            "yes" | "y" | "on" => Some(Value::Bool(true)),
            "no" | "n" | "off" => Some(Value::Bool(false)),
            _ => None,
        }
    } else if wrong.ends_with("expected i32") || wrong.ends_with("expected i64") {
        let digits = text.strip_prefix('0').filter(|digits| !digits.starts_with(['+', '-']));
        digits
            .and_then(|digits| i64::from_str_radix(digits, 8).ok())
            .map(Value::from)
    } else {
        None
    };
    let is_older = value.is_some();
    if let Some(value) = value {
        *at = value;
    }
    is_older
}

/// Where in a document.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Key(&'a Self, &'a str),
    Index(&'a Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(key),
            Self::Key(above, key) => write!(f, "{above}.{key}"),
            Self::Index(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

/// Paths of `before` that have a value and are not in `after`. A status is what somebody else said of the object: kinds lose and
/// gain it with versions of the API.
fn lost(before: &Value, after: &Value, path: Path<'_>, fields: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let ignored = |key: &str| matches!(path, Path::Root) && key == "status";
            for (key, value) in before.iter().filter(|(key, value)| !value.is_null() && !ignored(key)) {
                let path = Path::Key(&path, key);
                match after.get(key) {
                    Some(kept) => lost(value, kept, path, fields),
                    None => fields.push(path.to_string()),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (index, (value, kept)) in before.iter().zip(after).enumerate() {
                lost(value, kept, Path::Index(&path, index), fields);
            }
        }
        _ => {}
    }
}

fn text(fields: &Map<String, Value>, key: &str) -> Option<String> {
    fields
        .get(key)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}
