//! `ClusterNetworkPolicy` of `policy.networking.k8s.io/v1alpha2`, as its API writes it: policies of a whole cluster that come
//! before (tier Admin) and behind (tier Baseline) the `NetworkPolicies` of its namespaces.
//!
//! Its forerunners `AdminNetworkPolicy` and `BaselineAdminNetworkPolicy` are read as such policies ([`v1alpha1`]).
//!
//! The shapes and their bounds are those of the `CustomResourceDefinition` of the Network Policy API. Nothing is checked here:
//! [`crate::evaluate::PolicySet::parse_all`] does that.

pub mod v1alpha1;

use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

/// Group and version of the API.
pub const API_VERSION: &str = "policy.networking.k8s.io/v1alpha2";
/// As which kind a policy of the cluster was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Of [`API_VERSION`].
    #[default]
    ClusterNetworkPolicy,
    /// Of [`v1alpha1::API_VERSION`]: the tier Admin.
    AdminNetworkPolicy,
    /// Of [`v1alpha1::API_VERSION`]: the tier Baseline; one at most, with the name `default`.
    BaselineAdminNetworkPolicy,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [
        Self::ClusterNetworkPolicy,
        Self::AdminNetworkPolicy,
        Self::BaselineAdminNetworkPolicy,
    ];

    /// As objects write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
        }
    }

    /// Group and version of its API.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::ClusterNetworkPolicy => API_VERSION,
            Self::AdminNetworkPolicy | Self::BaselineAdminNetworkPolicy => v1alpha1::API_VERSION,
        }
    }
}

/// Names a policy of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterPolicyName {
    /// As which kind it was written.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for ClusterPolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name } = self;
        write!(f, "{} {name}", kind.as_str())
    }
}

/// A policy of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicy {
    /// `policy.networking.k8s.io/v1alpha2`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// As which kind it was written.
    #[serde(default)]
    pub kind: Kind,
    /// Metadata; it has no namespace.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: ClusterNetworkPolicySpec,
    /// What the network plugin says of it.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub status: serde_json::Value,
}

impl ClusterNetworkPolicy {
    /// What it is called.
    pub fn name(&self) -> ClusterPolicyName {
        ClusterPolicyName {
            kind: self.kind,
            name: self.metadata.name.as_deref().unwrap_or_default().into(),
        }
    }
}

/// What a policy says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicySpec {
    /// `Admin` or `Baseline`.
    pub tier: String,
    /// 0 to 1000; the lower comes first within its tier.
    pub priority: i32,
    /// The pods that it is about. Pods on their node's network never are.
    pub subject: Subject,
    /// Rules for connections to the subject, the first that fits decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressRule>,
    /// Rules for connections from the subject, the first that fits decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
}

/// Pods: exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// These pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// Pods of namespaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPod {
    /// The namespaces; empty means all, and so does absent, which [`v1alpha1`] does not allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// The pods; empty means all.
    pub pod_selector: LabelSelector,
}

/// A rule for connections to the subject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressRule {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `Accept`, `Deny` or `Pass`; in [`v1alpha1`] `Allow` for `Accept`.
    pub action: String,
    /// Sources; at least one.
    #[serde(default)]
    pub from: Vec<Peer>,
    /// Transport protocols and ports; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<Protocol>>,
}

/// A rule for connections from the subject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressRule {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `Accept`, `Deny` or `Pass`; in [`v1alpha1`] `Allow` for `Accept`.
    pub action: String,
    /// Destinations; at least one.
    #[serde(default)]
    pub to: Vec<Peer>,
    /// Transport protocols and ports; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<Protocol>>,
}

/// The other end: exactly one field. The last three are for egress only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// All pods of these namespaces, but those on their node's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// These pods of these namespaces, but those on their node's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// The addresses of these nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// Address ranges, in the cluster and outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    /// Names in DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_names: Option<Vec<String>>,
}

/// Transport protocol and ports: exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    /// TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Ports>,
    /// UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<Ports>,
    /// SCTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp: Option<Ports>,
    /// A port that the destination pod declares by this name, of whatever protocol it declares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

/// Ports of a transport protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ports {
    /// The listener's port; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<Port>,
}

/// A port or several: exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// One.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i32>,
    /// Several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<PortRange>,
}

/// Ports, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortRange {
    /// First.
    pub start: i32,
    /// Last; behind the first.
    pub end: i32,
}
