//! NetworkPolicies, checked once and defaulted as the API server does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nanoseg_graph::flow::Transport;

use crate::ownership::PolicyName;
use crate::selector::{Selector, SelectorError};

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A selector.
    #[error("is not a label selector")]
    Selector(#[source] SelectorError),
    /// A policy type that does not exist.
    #[error("is {0:?}, expected Ingress or Egress")]
    PolicyType(String),
    /// A peer without any field means nothing.
    #[error("must have ipBlock, podSelector or namespaceSelector")]
    EmptyPeer,
    /// An address range cannot be combined with selectors.
    #[error("must not have ipBlock together with a selector")]
    MixedPeer,
    /// Not an address range.
    #[error("is {0:?}, expected an address range such as 192.0.2.0/24")]
    Cidr(String),
    /// An exception that takes nothing away, or everything.
    #[error("is {0:?}, expected a range strictly inside of cidr")]
    Except(String),
    /// Not a transport protocol.
    #[error("is {0:?}, expected TCP, UDP or SCTP")]
    Protocol(String),
    /// Not a port number.
    #[error("is {0}, expected a number from 1 to 65535")]
    PortNumber(i32),
    /// A range needs a first number.
    #[error("needs port to be a number")]
    EndPortAlone,
    /// A range that ends before it begins.
    #[error("is {0}, expected a number from port to 65535")]
    EndPort(i32),
}

/// A policy that the API server would not have taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{policy}: {field} {problem}")]
pub struct Rejected {
    /// The policy.
    pub policy: PolicyName,
    /// Path of the field.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// Policies, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    namespaces: BTreeMap<String, BTreeMap<String, Policy>>,
}

impl PolicySet {
    /// Checks policies. One that is rejected does not keep the others out; of two with one name the later counts, as when they
    /// are applied one after the other.
    pub fn parse<'a>(policies: impl IntoIterator<Item = &'a NetworkPolicy>) -> (Self, Vec<Rejected>) {
        let mut set = Self::default();
        let mut rejected = Vec::new();
        for policy in policies {
            let name = PolicyName::of(policy);
            match Policy::parse(policy, &name) {
                Ok(policy) => {
                    set.namespaces
                        .entry(name.namespace)
                        .or_default()
                        .insert(name.name, policy);
                }
                Err((field, problem)) => rejected.push(Rejected {
                    policy: name,
                    field,
                    problem,
                }),
            }
        }
        (set, rejected)
    }

    /// How many policies there are.
    pub fn len(&self) -> usize {
        self.namespaces.values().map(BTreeMap::len).sum()
    }

    /// Whether there is no policy.
    pub fn is_empty(&self) -> bool {
        self.namespaces.values().all(BTreeMap::is_empty)
    }

    pub(super) fn of(&self, namespace: &str) -> impl Iterator<Item = &Policy> {
        self.namespaces.get(namespace).into_iter().flat_map(BTreeMap::values)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) name: Arc<PolicyName>,
    pub(super) subject: Selector,
    /// `None`: the policy does not isolate in this direction.
    pub(super) ingress: Option<Vec<Rule>>,
    pub(super) egress: Option<Vec<Rule>>,
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// `None`: everyone.
    pub(super) peers: Option<Vec<Peer>>,
    /// `None`: every port of every transport.
    pub(super) ports: Option<Vec<PortMatch>>,
}

#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// `None`: the policy's own namespace.
    Pods {
        namespaces: Option<Selector>,
        pods: Selector,
    },
    Block {
        cidr: IpNet,
        except: Vec<IpNet>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct PortMatch {
    pub(super) transport: Transport,
    pub(super) port: PortNumbers,
}

#[derive(Clone, Debug)]
pub(super) enum PortNumbers {
    Any,
    Range(RangeInclusive<u16>),
    /// A port that the destination pod declares by this name.
    Named(String),
}

impl Peer {
    pub(super) fn holds(cidr: &IpNet, except: &[IpNet], address: IpAddr) -> bool {
        cidr.contains(&address) && !except.iter().any(|range| range.contains(&address))
    }
}

type Fault = (String, Problem);

impl Policy {
    fn parse(policy: &NetworkPolicy, name: &PolicyName) -> Result<Self, Fault> {
        let absent = NetworkPolicySpec::default();
        let NetworkPolicySpec {
            egress,
            ingress,
            pod_selector,
            policy_types,
        } = policy.spec.as_ref().unwrap_or(&absent);
        let subject = match pod_selector {
            None => Selector::everything(),
            some => selector(some.as_ref(), || "spec.podSelector".to_owned())?,
        };
        let ingress: Vec<Rule> = ingress
            .iter()
            .flatten()
            .enumerate()
            .map(|(index, rule)| {
                let path = format!("spec.ingress[{index}]");
                Rule::parse(rule.from.as_deref(), rule.ports.as_deref(), &path, "from")
            })
            .collect::<Result<_, _>>()?;
        let egress: Vec<Rule> = egress
            .iter()
            .flatten()
            .enumerate()
            .map(|(index, rule)| {
                let path = format!("spec.egress[{index}]");
                Rule::parse(rule.to.as_deref(), rule.ports.as_deref(), &path, "to")
            })
            .collect::<Result<_, _>>()?;
        let mut isolates_ingress = false;
        let mut isolates_egress = false;
        for (index, given) in policy_types.iter().flatten().enumerate() {
            match given.as_str() {
                "Ingress" => isolates_ingress = true,
                "Egress" => isolates_egress = true,
                other => {
                    return Err((
                        format!("spec.policyTypes[{index}]"),
                        Problem::PolicyType(other.to_owned()),
                    ));
                }
            }
        }
        if !isolates_ingress && !isolates_egress {
            isolates_ingress = true;
            isolates_egress = !egress.is_empty();
        }
        Ok(Self {
            name: Arc::new(name.clone()),
            subject,
            ingress: isolates_ingress.then_some(ingress),
            egress: isolates_egress.then_some(egress),
        })
    }
}

impl Rule {
    fn parse(
        peers: Option<&[NetworkPolicyPeer]>,
        ports: Option<&[NetworkPolicyPort]>,
        path: &str,
        list: &str,
    ) -> Result<Self, Fault> {
        let peers = peers.filter(|peers| !peers.is_empty()).map(|peers| {
            peers
                .iter()
                .enumerate()
                .map(|(index, peer)| Peer::parse(peer, &format!("{path}.{list}[{index}]")))
                .collect()
        });
        let ports = ports.filter(|ports| !ports.is_empty()).map(|ports| {
            ports
                .iter()
                .enumerate()
                .map(|(index, port)| PortMatch::parse(port, &format!("{path}.ports[{index}]")))
                .collect()
        });
        Ok(Self {
            peers: peers.transpose()?,
            ports: ports.transpose()?,
        })
    }
}

impl Peer {
    fn parse(peer: &NetworkPolicyPeer, path: &str) -> Result<Self, Fault> {
        let NetworkPolicyPeer {
            ip_block,
            namespace_selector,
            pod_selector,
        } = peer;
        match (ip_block, namespace_selector, pod_selector) {
            (None, None, None) => Err((path.to_owned(), Problem::EmptyPeer)),
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => Err((path.to_owned(), Problem::MixedPeer)),
            (Some(IPBlock { cidr, except }), None, None) => {
                let range = |text: &str, field: String, problem: fn(String) -> Problem| {
                    text.parse::<IpNet>()
                        .map_err(|_error| (field, problem(text.to_owned())))
                };
                let cidr = range(cidr, format!("{path}.ipBlock.cidr"), Problem::Cidr)?;
                let mut exceptions = Vec::new();
                for (index, text) in except.iter().flatten().enumerate() {
                    let field = format!("{path}.ipBlock.except[{index}]");
                    let exception = range(text, field.clone(), Problem::Cidr)?;
                    if !cidr.contains(&exception) || cidr.prefix_len() == exception.prefix_len() {
                        return Err((field, Problem::Except(text.clone())));
                    }
                    exceptions.push(exception);
                }
                Ok(Self::Block {
                    cidr,
                    except: exceptions,
                })
            }
            (None, namespaces, pods) => Ok(Self::Pods {
                namespaces: namespaces
                    .as_ref()
                    .map(|namespaces| selector(Some(namespaces), || format!("{path}.namespaceSelector")))
                    .transpose()?,
                pods: match pods {
                    None => Selector::everything(),
                    some => selector(some.as_ref(), || format!("{path}.podSelector"))?,
                },
            }),
        }
    }
}

impl PortMatch {
    fn parse(port: &NetworkPolicyPort, path: &str) -> Result<Self, Fault> {
        let NetworkPolicyPort {
            end_port,
            port,
            protocol,
        } = port;
        let transport = match protocol.as_deref() {
            None | Some("" | "TCP") => Transport::Tcp,
            Some("UDP") => Transport::Udp,
            Some("SCTP") => Transport::Sctp,
            Some(other) => return Err((format!("{path}.protocol"), Problem::Protocol(other.to_owned()))),
        };
        let numbers = match (port, end_port) {
            (None, None) => PortNumbers::Any,
            (Some(IntOrString::String(name)), None) => PortNumbers::Named(name.clone()),
            (None | Some(IntOrString::String(_)), Some(_)) => {
                return Err((format!("{path}.endPort"), Problem::EndPortAlone));
            }
            (Some(IntOrString::Int(number)), end) => {
                let first = u16::try_from(*number)
                    .ok()
                    .filter(|first| *first > 0)
                    .ok_or_else(|| (format!("{path}.port"), Problem::PortNumber(*number)))?;
                let last = match end {
                    None => first,
                    Some(end) => u16::try_from(*end)
                        .ok()
                        .filter(|last| *last >= first)
                        .ok_or_else(|| (format!("{path}.endPort"), Problem::EndPort(*end)))?,
                };
                PortNumbers::Range(first..=last)
            }
        };
        Ok(Self {
            transport,
            port: numbers,
        })
    }
}

fn selector(
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    path: impl FnOnce() -> String,
) -> Result<Selector, Fault> {
    Selector::parse(selector).map_err(|error| (path(), Problem::Selector(error)))
}
