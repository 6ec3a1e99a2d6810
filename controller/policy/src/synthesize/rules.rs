//! Peers and ports to rules: merged, sorted, and each with what it comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nanoseg_graph::cluster::Labels;
use nanoseg_graph::connection::Evidence;
use nanoseg_graph::endpoint::{Endpoint, ServiceName};
use nanoseg_graph::flow::Reporter;

use super::note::list;
use super::peers::Peer;
use crate::direction::{Direction, Port};
use crate::objects::NAMESPACE_NAME;

/// Why a peer is allowed at a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// It was observed, by these ends, through these Services.
    Observed {
        seen: BTreeSet<Reporter>,
        via: BTreeSet<ServiceName>,
    },
    /// DNS needs both transports.
    Dns,
    /// A DNS cache on the node answers in place of cluster DNS.
    DnsCache,
}

impl Reason {
    pub(super) fn observed(evidence: &Evidence) -> Self {
        Self::Observed {
            seen: evidence.reporters(),
            via: evidence.via.clone(),
        }
    }

    fn explain(&self) -> String {
        match self {
            Self::Observed { seen, via } => {
                let mut text = match (seen.contains(&Reporter::Source), seen.contains(&Reporter::Destination)) {
                    (true, true) => "seen at both ends",
                    (true, false) => "seen at the source",
                    (false, true) => "seen at the destination",
                    (false, false) => "observed",
                }
                .to_owned();
                if !via.is_empty() {
                    text.push_str(", through ");
                    text.push_str(&list(via, " and "));
                }
                text
            }
            Self::Dns => "not seen, DNS needs it".to_owned(),
            Self::DnsCache => "not seen, the DNS cache of the node may answer".to_owned(),
        }
    }
}

/// What one peer is allowed, and where each port comes from.
pub(super) type Ports = BTreeMap<Port, BTreeSet<(Endpoint, Reason)>>;

/// What a policy allows in one direction.
#[derive(Debug, Default)]
pub(super) struct Allowed {
    pub(super) peers: BTreeMap<Peer, Ports>,
}

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    ports: BTreeSet<Port>,
    peers: BTreeSet<Peer>,
    sources: BTreeMap<Endpoint, BTreeMap<Reason, BTreeSet<Port>>>,
}

impl Allowed {
    pub(super) fn insert(&mut self, peer: Peer, port: Port, endpoint: &Endpoint, reason: &Reason) {
        let sources = self.peers.entry(peer).or_default().entry(port).or_default();
        sources.insert((endpoint.clone(), reason.clone()));
    }

    /// The rules: peers with the same ports share one.
    pub(super) fn into_rules(self) -> Vec<Rule> {
        let mut rules: BTreeMap<BTreeSet<Port>, Rule> = BTreeMap::new();
        for (peer, ports) in self.peers {
            let key: BTreeSet<Port> = ports.keys().copied().collect();
            let rule = rules.entry(key.clone()).or_insert_with(|| Rule {
                ports: key,
                peers: BTreeSet::new(),
                sources: BTreeMap::new(),
            });
            rule.peers.insert(peer);
            for (port, sources) in ports {
                for (endpoint, reason) in sources {
                    rule.sources
                        .entry(endpoint)
                        .or_default()
                        .entry(reason)
                        .or_default()
                        .insert(port);
                }
            }
        }
        rules.into_values().collect()
    }
}

impl Rule {
    fn ports(&self) -> Vec<NetworkPolicyPort> {
        self.ports
            .iter()
            .map(|port| NetworkPolicyPort {
                end_port: None,
                port: Some(IntOrString::Int(i32::from(port.number))),
                protocol: Some(port.transport.as_str().to_owned()),
            })
            .collect()
    }

    fn peers(&self) -> Vec<NetworkPolicyPeer> {
        self.peers
            .iter()
            .map(|peer| match peer {
                Peer::Pods { namespace, labels } => NetworkPolicyPeer {
                    ip_block: None,
                    namespace_selector: Some(selector([(NAMESPACE_NAME.to_owned(), namespace.clone())].into())),
                    pod_selector: Some(selector(labels.clone())),
                },
                Peer::Block(address) => NetworkPolicyPeer {
                    ip_block: Some(IPBlock {
                        cidr: Peer::cidr(*address),
                        except: None,
                    }),
                    ..NetworkPolicyPeer::default()
                },
            })
            .collect()
    }

    pub(super) fn ingress(&self) -> NetworkPolicyIngressRule {
        NetworkPolicyIngressRule {
            from: Some(self.peers()),
            ports: Some(self.ports()),
        }
    }

    pub(super) fn egress(&self) -> NetworkPolicyEgressRule {
        NetworkPolicyEgressRule {
            to: Some(self.peers()),
            ports: Some(self.ports()),
        }
    }

    /// One line for each endpoint: `ingress 1: Deployment shop/web -> TCP 8080, seen at both ends, through Service shop/api`.
    pub(super) fn evidence(&self, direction: Direction, index: usize) -> impl Iterator<Item = String> {
        let lines = self
            .sources
            .iter()
            .flat_map(|(endpoint, reasons)| reasons.iter().map(move |pair| (endpoint, pair)));
        lines.map(move |(endpoint, (reason, ports))| {
            let mut line = format!("{direction} {}: ", index + 1);
            // Writing to a string cannot fail.
            let written = match direction {
                Direction::Ingress => write!(line, "{endpoint} -> {}", list(ports, ", ")),
                Direction::Egress => write!(line, "-> {endpoint} {}", list(ports, ", ")),
            };
            debug_assert!(written.is_ok());
            line.push_str(", ");
            line.push_str(&reason.explain());
            line
        })
    }
}

pub(super) fn selector(labels: Labels) -> LabelSelector {
    LabelSelector {
        match_expressions: None,
        match_labels: (!labels.is_empty()).then_some(labels),
    }
}
