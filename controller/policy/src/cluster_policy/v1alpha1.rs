//! `AdminNetworkPolicy` and `BaselineAdminNetworkPolicy`, which `ClusterNetworkPolicy` has followed, read as what they mean there:
//! the tiers Admin and Baseline. Clusters still have them.
//!
//! Shapes and bounds: version 0.1 of the Network Policy API.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::{
    ClusterNetworkPolicy, ClusterNetworkPolicySpec, EgressRule, IngressRule, Kind, Peer, Port, PortRange, Ports,
    Protocol, Subject,
};

/// Group and version of the API.
pub const API_VERSION: &str = "policy.networking.k8s.io/v1alpha1";

/// Either kind: the second has no priority.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminNetworkPolicy {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(default)]
    metadata: ObjectMeta,
    spec: Spec,
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    status: serde_json::Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<i32>,
    subject: Subject,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ingress: Vec<Ingress>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    egress: Vec<Egress>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ingress {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    action: String,
    #[serde(default)]
    from: Vec<Peer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ports: Option<Vec<PolicyPort>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Egress {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    action: String,
    #[serde(default)]
    to: Vec<Peer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ports: Option<Vec<PolicyPort>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicyPort {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port_number: Option<Numbered>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    named_port: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port_range: Option<Ranged>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Numbered {
    #[serde(default)]
    protocol: TransportProtocol,
    port: i32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Ranged {
    #[serde(default)]
    protocol: TransportProtocol,
    start: i32,
    end: i32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum TransportProtocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl AdminNetworkPolicy {
    /// The same policy as the later API writes it.
    pub fn into_cluster_policy(self, kind: Kind) -> ClusterNetworkPolicy {
        let Self {
            api_version,
            kind: _,
            metadata,
            spec,
            status,
        } = self;
        let Spec {
            priority,
            subject,
            ingress,
            egress,
        } = spec;
        let (tier, least) = match kind {
            Kind::ClusterNetworkPolicy | Kind::AdminNetworkPolicy => ("Admin", None),
            // There is one at most, so it needs no priority.
            Kind::BaselineAdminNetworkPolicy => ("Baseline", Some(0)),
        };
        ClusterNetworkPolicy {
            api_version,
            kind,
            metadata,
            spec: ClusterNetworkPolicySpec {
                tier: tier.to_owned(),
                // A required field that is not there is as wrong as a number out of its bounds.
                priority: priority.or(least).unwrap_or(-1),
                subject,
                ingress: ingress.into_iter().map(Ingress::into_rule).collect(),
                egress: egress.into_iter().map(Egress::into_rule).collect(),
            },
            status,
        }
    }
}

impl Ingress {
    fn into_rule(self) -> IngressRule {
        let Self {
            name,
            action,
            from,
            ports,
        } = self;
        IngressRule {
            name,
            action,
            from,
            protocols: ports.map(protocols),
        }
    }
}

impl Egress {
    fn into_rule(self) -> EgressRule {
        let Self {
            name,
            action,
            to,
            ports,
        } = self;
        EgressRule {
            name,
            action,
            to,
            protocols: ports.map(protocols),
        }
    }
}

fn protocols(ports: Vec<PolicyPort>) -> Vec<Protocol> {
    ports.into_iter().map(PolicyPort::into_protocol).collect()
}

impl PolicyPort {
    /// A port with several fields, or none, stays one, so that it is found wrong.
    fn into_protocol(self) -> Protocol {
        let Self {
            port_number,
            named_port,
            port_range,
        } = self;
        let mut protocol = Protocol {
            destination_named_port: named_port,
            ..Protocol::default()
        };
        if let Some(Numbered {
            protocol: transport,
            port,
        }) = port_number
        {
            let number = Some(port);
            protocol.at(transport).number = number;
        }
        if let Some(Ranged {
            protocol: transport,
            start,
            end,
        }) = port_range
        {
            protocol.at(transport).range = Some(PortRange { start, end });
        }
        protocol
    }
}

impl Protocol {
    fn at(&mut self, transport: TransportProtocol) -> &mut Port {
        let ports = match transport {
            TransportProtocol::Tcp => &mut self.tcp,
            TransportProtocol::Udp => &mut self.udp,
            TransportProtocol::Sctp => &mut self.sctp,
        };
        ports
            .get_or_insert_with(Ports::default)
            .destination_port
            .get_or_insert_with(Port::default)
    }
}
