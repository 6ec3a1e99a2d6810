//! Policies, checked once and defaulted as the API server does: what both kinds share, and `NetworkPolicy`.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nanoseg_graph::flow::Transport;
use rustc_hash::FxBuildHasher;

use super::cluster::ClusterPolicy;
use crate::cluster_policy::{ClusterNetworkPolicy, ClusterPolicyName};
use crate::direction::Direction;
use crate::ownership::PolicyName;
use crate::selector::{Selector, SelectorError};

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A selector.
    #[error("is not a label selector: {0}")]
    Selector(SelectorError),
    /// A policy type that does not exist.
    #[error("is {0:?}, expected Ingress or Egress")]
    PolicyType(String),
    /// There are two policy types.
    #[error("has {0} items, expected 2 at most")]
    PolicyTypes(usize),
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
    /// Not a name that a port can have; a number in quotes is none.
    #[error(
        "is {0:?}, expected a port's number or its name: 15 of a-z, 0-9 and single - within, with a letter among them"
    )]
    PortName(String),
    /// A range needs a first number.
    #[error("needs port to be a number")]
    EndPortAlone,
    /// A range that ends before it begins.
    #[error("is {0}, expected a number from port to 65535")]
    EndPort(i32),
    /// A tier that does not exist.
    #[error("is {0:?}, expected Admin or Baseline")]
    Tier(String),
    /// A priority that does not exist.
    #[error("is {0}, expected a number from 0 to 1000")]
    Priority(i32),
    /// An action that does not exist.
    #[error("is {found:?}, expected {expected}")]
    Action {
        /// What it holds.
        found: String,
        /// What it may hold.
        expected: &'static str,
    },
    /// A field that must be there.
    #[error("is missing")]
    Missing,
    /// There is one policy of its kind at most.
    #[error("is {0:?}, expected default")]
    NotDefault(String),
    /// A list that is too short or too long.
    #[error("has {found} items, expected 1 to {most}")]
    Items {
        /// How many it has.
        found: usize,
        /// How many it may have.
        most: usize,
    },
    /// An object of which exactly one field must be set.
    #[error("has {0} fields, expected exactly one")]
    OneField(usize),
    /// A range that does not go upwards.
    #[error("is not behind start, {0}")]
    RangeEnd(i32),
    /// A peer that only egress rules can have.
    #[error("is for egress only")]
    EgressOnly,
    /// Names in DNS can be accepted only.
    #[error("goes with the action Accept only")]
    AcceptOnly,
}

/// Names a policy of either kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyRef {
    /// A `NetworkPolicy`.
    Namespaced(Arc<PolicyName>),
    /// A policy of the cluster.
    Cluster(ClusterPolicyName),
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespaced(name) => name.fmt(f),
            Self::Cluster(name) => name.fmt(f),
        }
    }
}

/// A policy that the API server would not have taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{policy}: {field} {problem}")]
pub struct Rejected {
    /// The policy.
    pub policy: PolicyRef,
    /// Path of the field.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// Policies, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    namespaces: BTreeMap<String, BTreeMap<String, Policy>>,
    /// In the order in which they are asked: those of one priority by name.
    cluster: BTreeMap<(Tier, u16, ClusterPolicyName), ClusterPolicy>,
}

impl PolicySet {
    /// Checks `NetworkPolicies`. One that is rejected does not keep the others out; of two with one name the later counts, as
    /// when they are applied one after the other.
    pub fn parse<'a>(policies: impl IntoIterator<Item = &'a NetworkPolicy>) -> (Self, Vec<Rejected>) {
        Self::parse_all(policies, [])
    }

    /// Checks policies of both kinds.
    pub fn parse_all<'a>(
        policies: impl IntoIterator<Item = &'a NetworkPolicy>,
        cluster: impl IntoIterator<Item = &'a ClusterNetworkPolicy>,
    ) -> (Self, Vec<Rejected>) {
        let mut set = Self::default();
        let mut rejected = Vec::new();
        let mut latest = BTreeMap::new();
        for policy in cluster {
            let name = policy.name();
            match ClusterPolicy::parse(policy, &name) {
                Ok((tier, priority, policy)) => {
                    latest.insert(name.clone(), ((tier, priority, name), policy));
                }
                Err((field, problem)) => rejected.push(Rejected {
                    policy: PolicyRef::Cluster(name),
                    field,
                    problem,
                }),
            }
        }
        set.cluster.extend(latest.into_values());
        let mut selectors = Selectors::default();
        for policy in policies {
            let name = PolicyName::of(policy);
            match Policy::parse(policy, &name, &mut selectors) {
                Ok(policy) => {
                    set.namespaces
                        .entry(name.namespace)
                        .or_default()
                        .insert(name.name, policy);
                }
                Err((field, problem)) => rejected.push(Rejected {
                    policy: PolicyRef::Namespaced(Arc::new(name)),
                    field,
                    problem,
                }),
            }
        }
        (set, rejected)
    }

    /// How many policies there are.
    pub fn len(&self) -> usize {
        self.namespaces.values().map(BTreeMap::len).sum::<usize>() + self.cluster.len()
    }

    /// Whether there is no policy.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every `NetworkPolicy` with its namespace, by namespace and name.
    pub(super) fn namespaced(&self) -> impl Iterator<Item = (&str, &Policy)> {
        self.namespaces
            .iter()
            .flat_map(|(namespace, policies)| policies.values().map(move |policy| (namespace.as_str(), policy)))
    }

    /// Every `ClusterNetworkPolicy` with its tier and priority, in the order in which they are asked.
    pub(super) fn cluster(&self) -> impl Iterator<Item = (Tier, u16, &ClusterPolicy)> {
        self.cluster
            .iter()
            .map(|((tier, priority, _), policy)| (*tier, *priority, policy))
    }
}

/// Where a policy of the cluster stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    /// Before every `NetworkPolicy`.
    Admin,
    /// Where no `NetworkPolicy` isolates.
    Baseline,
}

/// What a rule does with what it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Accept,
    Deny,
    /// Leaves it to the next tier.
    Pass,
}

#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) name: PolicyRef,
    pub(super) subject: Selector,
    /// `None`: the policy does not isolate in this direction.
    pub(super) ingress: Option<Vec<Rule>>,
    pub(super) egress: Option<Vec<Rule>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    pub(super) action: Action,
    /// `None`: everyone.
    pub(super) peers: Option<Vec<Peer>>,
    /// `None`: every port of every transport.
    pub(super) ports: Option<Vec<PortMatch>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Peer {
    Pods(Pods),
    Block {
        cidr: IpNet,
        except: Vec<IpNet>,
    },
    /// The addresses of the nodes with these labels.
    Nodes(Selector),
    /// Whatever has one of some names in DNS: not known here.
    Domains,
    /// A field that this version does not know: whoever it means, the rule must fail closed.
    Unsupported,
}

/// Pods as a peer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pods {
    /// `None`: the policy's own namespace.
    pub(super) namespaces: Option<Arc<Selector>>,
    pub(super) selector: Arc<Selector>,
    pub(super) on_host: OnHost,
}

/// Selectors of peers, each held once: many rules name the same peers.
#[derive(Debug, Default)]
struct Selectors(HashSet<Arc<Selector>, FxBuildHasher>);

impl Selectors {
    fn share(&mut self, selector: Selector) -> Arc<Selector> {
        if let Some(known) = self.0.get(&selector) {
            return Arc::clone(known);
        }
        let shared = Arc::new(selector);
        self.0.insert(Arc::clone(&shared));
        shared
    }
}

/// What a selector says of pods on their node's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum OnHost {
    /// It is left to each implementation whether it means them.
    Perhaps,
    /// It never means them.
    Never,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct PortMatch {
    /// `None`: whichever the named port is declared with.
    pub(super) transport: Option<Transport>,
    pub(super) port: PortNumbers,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum PortNumbers {
    Any,
    Range(RangeInclusive<u16>),
    /// A port that the destination pod declares by this name.
    Named(String),
}

/// Where compiled rules come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    Network(&'a Policy),
    Cluster(Tier, u16, &'a ClusterPolicy),
}

/// Tier, priority and rules of a policy of the cluster.
pub(super) type ClusterRules<'a> = (Tier, u16, &'a [Rule]);

impl<'a> Source<'a> {
    pub(super) const fn name(self) -> &'a PolicyRef {
        match self {
            Self::Network(policy) => &policy.name,
            Self::Cluster(_, _, policy) => &policy.name,
        }
    }

    pub(super) fn network(self, direction: Direction) -> Option<&'a [Rule]> {
        match (self, direction) {
            (Self::Network(policy), Direction::Ingress) => policy.ingress.as_deref(),
            (Self::Network(policy), Direction::Egress) => policy.egress.as_deref(),
            (Self::Cluster(..), _) => None,
        }
    }

    pub(super) fn of_cluster(self, direction: Direction) -> Option<ClusterRules<'a>> {
        match (self, direction) {
            (Self::Cluster(tier, priority, policy), Direction::Ingress) => Some((tier, priority, &policy.ingress)),
            (Self::Cluster(tier, priority, policy), Direction::Egress) => Some((tier, priority, &policy.egress)),
            (Self::Network(_), _) => None,
        }
    }
}

/// Path of a field, and what is wrong with it.
pub(super) type Fault = (String, Problem);

impl Policy {
    fn parse(policy: &NetworkPolicy, name: &PolicyName, selectors: &mut Selectors) -> Result<Self, Fault> {
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
                Rule::parse(rule.from.as_deref(), rule.ports.as_deref(), &path, "from", selectors)
            })
            .collect::<Result<_, _>>()?;
        let egress: Vec<Rule> = egress
            .iter()
            .flatten()
            .enumerate()
            .map(|(index, rule)| {
                let path = format!("spec.egress[{index}]");
                Rule::parse(rule.to.as_deref(), rule.ports.as_deref(), &path, "to", selectors)
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
        let types = policy_types.as_ref().map_or(0, Vec::len);
        if types > 2 {
            return Err(("spec.policyTypes".to_owned(), Problem::PolicyTypes(types)));
        }
        if !isolates_ingress && !isolates_egress {
            isolates_ingress = true;
            isolates_egress = !egress.is_empty();
        }
        Ok(Self {
            name: PolicyRef::Namespaced(Arc::new(name.clone())),
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
        selectors: &mut Selectors,
    ) -> Result<Self, Fault> {
        let peers = peers.filter(|peers| !peers.is_empty()).map(|peers| {
            peers
                .iter()
                .enumerate()
                .map(|(index, peer)| Peer::parse(peer, || format!("{path}.{list}[{index}]"), selectors))
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
            action: Action::Accept,
            peers: peers.transpose()?,
            ports: ports.transpose()?,
        })
    }
}

impl Peer {
    fn parse(peer: &NetworkPolicyPeer, path: impl Fn() -> String, selectors: &mut Selectors) -> Result<Self, Fault> {
        let NetworkPolicyPeer {
            ip_block,
            namespace_selector,
            pod_selector,
        } = peer;
        match (ip_block, namespace_selector, pod_selector) {
            (None, None, None) => Err((path(), Problem::EmptyPeer)),
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => Err((path(), Problem::MixedPeer)),
            (Some(IPBlock { cidr, except }), None, None) => {
                let cidr = range(cidr, || format!("{}.ipBlock.cidr", path()))?;
                let mut exceptions = Vec::new();
                for (index, text) in except.iter().flatten().enumerate() {
                    let field = format!("{}.ipBlock.except[{index}]", path());
                    let exception = range(text, || field.clone())?;
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
            (None, namespaces, pods) => Ok(Self::Pods(Pods {
                namespaces: namespaces
                    .as_ref()
                    .map(|namespaces| selector(Some(namespaces), || format!("{}.namespaceSelector", path())))
                    .transpose()?
                    .map(|namespaces| selectors.share(namespaces)),
                selector: selectors.share(match pods {
                    None => Selector::everything(),
                    some => selector(some.as_ref(), || format!("{}.podSelector", path()))?,
                }),
                on_host: OnHost::Perhaps,
            })),
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
            (Some(IntOrString::String(name)), None) if is_port_name(name) => PortNumbers::Named(name.clone()),
            (Some(IntOrString::String(name)), None) => {
                return Err((format!("{path}.port"), Problem::PortName(name.clone())));
            }
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
            transport: Some(transport),
            port: numbers,
        })
    }
}

fn is_port_name(name: &str) -> bool {
    let within = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=15).contains(&name.len())
        && name.bytes().all(within)
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// An address range, whichever of its addresses it is written with.
pub(super) fn range(text: &str, path: impl FnOnce() -> String) -> Result<IpNet, Fault> {
    text.parse::<IpNet>()
        .map_err(|_error| (path(), Problem::Cidr(text.to_owned())))
}

pub(super) fn selector(
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    path: impl FnOnce() -> String,
) -> Result<Selector, Fault> {
    Selector::parse(selector).map_err(|error| (path(), Problem::Selector(error)))
}
