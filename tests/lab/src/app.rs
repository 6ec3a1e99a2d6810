//! The description of an application, which both labs run: the file's format is in this crate's README.
//!
//! Guarantee: an [`App`] exists only if every name in it leads somewhere, so nothing that runs one meets a dangling reference.
//! What is wrong with a file is reported all at once, each fault with the object and the field.

mod check;
mod service_file;
mod target;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use check::{Fault, Problem};
pub use target::{HostName, Name, ObjectName, PortName, Target, TargetError};

/// Labels of an object, or of a selector.
pub type Labels = BTreeMap<String, String>;

/// Why a description cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The file could not be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not YAML, or not of the format's shape: the source names line and field.
    #[error("{} is not a description of an application", .path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_yaml::Error,
    },
    /// Well formed, but its parts do not fit together.
    #[error("{} does not fit together:{}", .path.display(), check::listed(.problems))]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Everything that was found.
        problems: Vec<Problem>,
    },
}

/// An application: who there is, who listens, who calls whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Namespaces, in the file's order.
    pub namespaces: Vec<Namespace>,
    /// Workloads, in the file's order.
    pub workloads: Vec<Workload>,
    /// Services, in the file's order.
    pub services: Vec<Service>,
    /// Hosts outside the cluster, with their addresses.
    pub external: Vec<ExternalHost>,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "the lists namespaces, workloads, services and external"
)]
struct File {
    #[serde(default)]
    namespaces: Vec<Namespace>,
    #[serde(default)]
    workloads: Vec<Workload>,
    #[serde(default)]
    services: Vec<Service>,
    #[serde(default)]
    external: Vec<ExternalHost>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Name.
    pub name: Name,
    /// Labels of the user's own; `kubernetes.io/metadata.name` is there always.
    #[serde(default)]
    pub labels: Labels,
}

/// What makes a workload's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Replaceable pods.
    #[default]
    Deployment,
    /// Pods with an ordinal each.
    StatefulSet,
    /// One pod a node.
    DaemonSet,
    /// A pod that ends.
    Job,
    /// A Job now and then.
    CronJob,
    /// A pod that nothing owns.
    Pod,
}

impl Kind {
    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
            Self::Pod => "Pod",
        }
    }

    /// The kind that Kubernetes calls so, if it is one of these.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Deployment,
            Self::StatefulSet,
            Self::DaemonSet,
            Self::Job,
            Self::CronJob,
            Self::Pod,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == name)
    }

    /// Whether its pods end by themselves.
    pub const fn ends(self) -> bool {
        matches!(self, Self::Job | Self::CronJob)
    }
}

/// Transport protocol. SCTP is left out: not every kernel that the labs run on has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE", try_from = "String")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl TryFrom<String> for Protocol {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "SCTP" => Err("protocol SCTP cannot run here: the lab's kernel has no SCTP; use TCP or UDP".to_owned()),
            other => Err(format!("protocol `{other}` is not TCP or UDP")),
        }
    }
}

/// A group of pods of one kind, all running the same.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Workload {
    /// Namespace.
    pub namespace: Name,
    /// Name, unique in its namespace.
    pub name: Name,
    /// Kind.
    #[serde(default)]
    pub kind: Kind,
    /// Number of pods; only where the kind has one.
    #[serde(default)]
    pub replicas: Option<u16>,
    /// Labels of the pods; `app: NAME` if there are none.
    #[serde(default)]
    pub labels: Labels,
    /// Which of the labels its selector has; all of them if not given.
    #[serde(default)]
    pub selector: Option<Labels>,
    /// Runs in the node's network.
    #[serde(default)]
    pub host_network: bool,
    /// Ports on which it answers.
    #[serde(default)]
    pub listens: Vec<Listen>,
    /// Whom it calls.
    #[serde(default)]
    pub calls: Vec<Call>,
    /// When a `CronJob` runs: five fields of cron.
    #[serde(default)]
    pub schedule: Option<String>,
    /// How long a pod that ends goes on calling; one round of calls if not given.
    #[serde(default, deserialize_with = "optional_duration")]
    pub lasts: Option<Duration>,
}

impl Workload {
    /// `NAMESPACE/NAME`.
    pub fn id(&self) -> ObjectName {
        ObjectName {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// What selects its pods.
    pub fn selector(&self) -> &Labels {
        self.selector.as_ref().unwrap_or(&self.labels)
    }

    /// How many pods it has on `nodes` nodes at any time.
    pub fn pods_on(&self, nodes: u16) -> u16 {
        match self.kind {
            Kind::Deployment | Kind::StatefulSet => self.replicas.unwrap_or(1),
            Kind::DaemonSet => nodes,
            Kind::Job | Kind::CronJob | Kind::Pod => 1,
        }
    }
}

/// A port on which something answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Number.
    pub port: NonZeroU16,
    /// Name, by which Services can refer to it.
    #[serde(default)]
    pub name: Option<PortName>,
    /// Protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Address families of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FamilyText", into = "String")]
pub enum Families {
    /// IPv4 only.
    #[default]
    V4,
    /// IPv6 only.
    V6,
    /// One after the other.
    Both,
}

impl Families {
    /// Whether it has IPv4.
    pub const fn v4(self) -> bool {
        matches!(self, Self::V4 | Self::Both)
    }

    /// Whether it has IPv6.
    pub const fn v6(self) -> bool {
        matches!(self, Self::V6 | Self::Both)
    }

    /// Whether `address` is of one of them.
    pub const fn has(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.v4(),
            IpAddr::V6(_) => self.v6(),
        }
    }

    const fn both() -> Self {
        Self::Both
    }
}

/// `4` and `6` are numbers to YAML, `both` is text.
#[derive(Deserialize)]
#[serde(untagged)]
enum FamilyText {
    Number(u8),
    Text(String),
}

impl TryFrom<FamilyText> for Families {
    type Error = String;

    fn try_from(text: FamilyText) -> Result<Self, String> {
        match text {
            FamilyText::Number(4) => Ok(Self::V4),
            FamilyText::Number(6) => Ok(Self::V6),
            FamilyText::Text(text) if text == "4" => Ok(Self::V4),
            FamilyText::Text(text) if text == "6" => Ok(Self::V6),
            FamilyText::Text(text) if text == "both" => Ok(Self::Both),
            FamilyText::Number(number) => Err(format!("family {number} is not 4, 6 or both")),
            FamilyText::Text(text) => Err(format!("family `{text}` is not 4, 6 or both")),
        }
    }
}

impl From<Families> for String {
    fn from(families: Families) -> Self {
        match families {
            Families::V4 => "4",
            Families::V6 => "6",
            Families::Both => "both",
        }
        .to_owned()
    }
}

/// When a call is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// On its schedule.
    #[default]
    Always,
    /// Once, each time its workload is told to speak.
    Told,
}

/// A call that is made again and again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Whom.
    pub to: Target,
    /// On which port; 443 for the API server if not given.
    #[serde(default)]
    pub port: Option<NonZeroU16>,
    /// Protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// Families.
    #[serde(default)]
    pub family: Families,
    /// Time from one round to the next.
    #[serde(default = "one_second", deserialize_with = "duration")]
    pub every: Duration,
    /// Time from the pod's start to the first round.
    #[serde(default, deserialize_with = "duration")]
    pub after: Duration,
    /// On its schedule or when told.
    #[serde(default)]
    pub when: When,
}

/// The API server's port, as the Service `kubernetes` has it.
const API_SERVER_PORT: NonZeroU16 = NonZeroU16::new(443).expect("not zero");

impl Call {
    /// The port that is called.
    pub fn port(&self) -> NonZeroU16 {
        self.port.unwrap_or(API_SERVER_PORT)
    }
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "service_file::ServiceFile")]
pub struct Service {
    /// Namespace.
    pub namespace: Name,
    /// Name.
    pub name: Name,
    /// What is behind it.
    pub backing: Backing,
    /// Has no address of its own.
    pub headless: bool,
    /// Families of its addresses.
    pub families: Families,
    /// Ports.
    pub ports: Vec<ServicePort>,
}

impl Service {
    /// `NAMESPACE/NAME`.
    pub fn id(&self) -> ObjectName {
        ObjectName {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// Whether it is open on every node.
    pub fn is_node_port(&self) -> bool {
        self.ports.iter().any(|port| port.node_port.is_some())
    }
}

/// What is behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// The pods of this workload of its namespace: by all of the workload's selector.
    Workload(Name),
    /// The pods of its namespace with these labels.
    Labels(Labels),
    /// A host outside the cluster.
    External(Name),
    /// Another name.
    ExternalName(HostName),
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServicePort {
    /// Name; needed where there are several.
    #[serde(default)]
    pub name: Option<PortName>,
    /// Port of the Service.
    pub port: NonZeroU16,
    /// Port of the pods: the same number if not given.
    #[serde(default)]
    pub target: Option<TargetPort>,
    /// Protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// Port on every node.
    #[serde(default)]
    pub node_port: Option<NonZeroU16>,
}

impl ServicePort {
    /// Where it leads to.
    pub fn target(&self) -> TargetPort {
        self.target.clone().unwrap_or(TargetPort::Number(self.port))
    }
}

/// Where a Service's port leads to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "a target is a port number from 1 to 65535 or the name of a port"
)]
pub enum TargetPort {
    /// A number.
    Number(NonZeroU16),
    /// A port by its name: its number may differ from pod to pod.
    Name(PortName),
}

/// A host outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalHost {
    /// Name, by which this file refers to it.
    pub name: Name,
    /// Its name in DNS, if it has one.
    #[serde(default)]
    pub hostname: Option<HostName>,
    /// Its addresses; one of each family is assigned where none is given.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Ports on which it answers.
    #[serde(default)]
    pub listens: Vec<Listen>,
    /// Whom it calls.
    #[serde(default)]
    pub calls: Vec<Call>,
}

impl App {
    /// Reads a description.
    pub fn read(path: &Path) -> Result<Self, AppError> {
        let text = std::fs::read_to_string(path).map_err(|source| AppError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Reads the text of a description; `path` is only what errors call it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, AppError> {
        let file: File = serde_yaml::from_str(text).map_err(|source| AppError::Yaml {
            path: path.to_owned(),
            source,
        })?;
        check::fit(file, check::Author::User).map_err(|problems| AppError::Unfit {
            path: path.to_owned(),
            problems,
        })
    }

    /// Reads the description of the lab's own parts, which may have the names that are reserved for them.
    pub(crate) fn parse_own(text: &str, path: &Path) -> Result<Self, AppError> {
        let file: File = serde_yaml::from_str(text).map_err(|source| AppError::Yaml {
            path: path.to_owned(),
            source,
        })?;
        check::fit(file, check::Author::Lab).map_err(|problems| AppError::Unfit {
            path: path.to_owned(),
            problems,
        })
    }

    /// A workload by name.
    pub fn workload(&self, id: &ObjectName) -> Option<&Workload> {
        self.workloads
            .iter()
            .find(|workload| workload.namespace == id.namespace && workload.name == id.name)
    }

    /// A Service by name.
    pub fn service(&self, id: &ObjectName) -> Option<&Service> {
        self.services
            .iter()
            .find(|service| service.namespace == id.namespace && service.name == id.name)
    }

    /// A host outside the cluster by name.
    pub fn external_host(&self, name: &Name) -> Option<&ExternalHost> {
        self.external.iter().find(|host| host.name == *name)
    }

    /// What selects the pods behind a Service; `None` where it has no selector.
    pub fn selector_of<'a>(&'a self, service: &'a Service) -> Option<&'a Labels> {
        match &service.backing {
            Backing::Labels(labels) => Some(labels),
            Backing::Workload(name) => {
                let id = ObjectName {
                    namespace: service.namespace.clone(),
                    name: name.clone(),
                };
                self.workload(&id).map(Workload::selector)
            }
            Backing::External(_) | Backing::ExternalName(_) => None,
        }
    }
}

/// Whether everything that `selector` asks for is among `labels`.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

const fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| {
        serde::de::Error::custom(format!("`{text}` is not a duration such as 500ms, 2s or 1m: {error}"))
    })
}

fn optional_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
