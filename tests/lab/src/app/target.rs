//! Names, checked when they are read, and whom a call goes to.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Name of an object: a DNS label, because pods, Services and host names are made from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Longest name: Kubernetes puts up to 17 characters behind it (template hash and pod suffix), and 63 is the limit.
const LONGEST_NAME: usize = 46;

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_dns_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if is_dns_label(&text) && text.len() <= LONGEST_NAME {
            Ok(Self(text))
        } else {
            Err(format!(
                "name `{text}` is not a DNS label of at most {LONGEST_NAME} characters: lower-case letters, digits and inner dashes"
            ))
        }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of a port: at most 15 of lower-case letters, digits and inner dashes, at least one letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortName(String);

impl PortName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PortName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fits = is_dns_label(&text)
            && text.len() <= 15
            && !text.contains("--")
            && text.bytes().any(|byte| byte.is_ascii_lowercase());
        if fits {
            Ok(Self(text))
        } else {
            Err(format!(
                "port name `{text}` is not at most 15 lower-case letters, digits and inner dashes with a letter among them"
            ))
        }
    }
}

impl From<PortName> for String {
    fn from(name: PortName) -> Self {
        name.0
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name in DNS, without the final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() <= 253 && text.split('.').all(is_dns_label) {
            Ok(Self(text))
        } else {
            Err(format!(
                "`{text}` is not a host name: DNS labels with dots between them, in lower case"
            ))
        }
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Namespace and name of an object, written `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: Name,
    /// Name.
    pub name: Name,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for ObjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = text
            .split_once('/')
            .ok_or_else(|| format!("`{text}` is not NAMESPACE/NAME, such as shop/web"))?;
        Ok(Self {
            namespace: Name::try_from(namespace.to_owned())?,
            name: Name::try_from(name.to_owned())?,
        })
    }
}

/// Whom a call goes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Target {
    /// A Service, by its name in DNS: `service/NAME.NAMESPACE`.
    Service(ObjectName),
    /// Every pod of a workload, at the pods' own addresses: `workload/NAMESPACE/NAME`.
    Workload(ObjectName),
    /// A Service from outside, at a node's address: `nodeport/NAME.NAMESPACE`.
    NodePort(ObjectName),
    /// A host outside the cluster, at its addresses: `external/NAME`.
    External(Name),
    /// Any name in DNS: `name/HOST.NAME`.
    Name(HostName),
    /// An address.
    Address(IpAddr),
    /// The API server, as `kubernetes.default`.
    ApiServer,
}

/// A target that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("target `{text}` {reason}")]
pub struct TargetError {
    text: String,
    reason: String,
}

impl TryFrom<String> for Target {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        Self::parse(&text).map_err(|reason| TargetError { text, reason })
    }
}

impl Target {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "apiserver" {
            return Ok(Self::ApiServer);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let named = |reason: String| format!("has a part that cannot be: {reason}");
        match text.split_once('/') {
            Some(("service", name)) => service_name(name).map(Self::Service),
            Some(("nodeport", name)) => service_name(name).map(Self::NodePort),
            Some(("workload", name)) => name.parse().map(Self::Workload).map_err(named),
            Some(("external", name)) => Name::try_from(name.to_owned()).map(Self::External).map_err(named),
            Some(("name", name)) => HostName::try_from(name.to_owned()).map(Self::Name).map_err(named),
            Some(_) | None => Err(
                "is none of service/NAME.NAMESPACE, workload/NAMESPACE/NAME, external/NAME, name/HOST.NAME, nodeport/NAME.NAMESPACE, an address, apiserver"
                    .to_owned(),
            ),
        }
    }
}

fn service_name(text: &str) -> Result<ObjectName, String> {
    let (name, namespace) = text
        .split_once('.')
        .ok_or_else(|| "names a Service without its namespace: write NAME.NAMESPACE".to_owned())?;
    let part =
        |text: &str| Name::try_from(text.to_owned()).map_err(|reason| format!("has a part that cannot be: {reason}"));
    Ok(ObjectName {
        namespace: part(namespace)?,
        name: part(name)?,
    })
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(ObjectName { namespace, name }) => write!(f, "service/{name}.{namespace}"),
            Self::NodePort(ObjectName { namespace, name }) => write!(f, "nodeport/{name}.{namespace}"),
            Self::Workload(id) => write!(f, "workload/{id}"),
            Self::External(name) => write!(f, "external/{name}"),
            Self::Name(name) => write!(f, "name/{name}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::ApiServer => f.write_str("apiserver"),
        }
    }
}
