//! What is asked, and what is answered.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use nanoseg_graph::endpoint::ServiceName;
use nanoseg_graph::flow::Transport;

use super::policy::PolicyRef;
use crate::direction::Direction;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A live pod, by namespace and name.
    Pod {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// A live pod, by UID.
    Uid(String),
    /// Whoever has the address now: a pod, a node, or nobody in the cluster. For a dual-stack pod it chooses the family.
    Address(IpAddr),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "Pod {namespace}/{name}"),
            Self::Uid(uid) => write!(f, "Pod with UID {uid}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// The initiator.
    pub source: End,
    /// The listener.
    pub destination: End,
    /// The listener's own port, after any Service translated it.
    pub port: u16,
    /// Transport protocol.
    pub transport: Transport,
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleName {
    /// The policy.
    pub policy: PolicyRef,
    /// Which of its lists.
    pub direction: Direction,
    /// Position in that list, from 0.
    pub index: usize,
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} spec.{}[{}]", self.policy, self.direction, self.index)
    }
}

/// What allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AllowedBy {
    /// A rule: of `NetworkPolicies` the first that does, by name of the policy and position in it; of the cluster's policies
    /// the one that decides.
    Rule(RuleName),
    /// A pod cannot be kept from itself.
    SamePod,
    /// Traffic between a pod and the node that it runs on is always allowed.
    OwnNode,
}

impl fmt::Display for AllowedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => rule.fmt(f),
            Self::SamePod => f.write_str("both ends are the same pod"),
            Self::OwnNode => f.write_str("traffic between a pod and its own node is always allowed"),
        }
    }
}

/// What denies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// `NetworkPolicies` isolate the pod, none of which allows the connection; in a fixed order, at least one.
    NoRule(Vec<PolicyRef>),
    /// A rule of a policy of the cluster.
    Rule(RuleName),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRule(policies) => {
                f.write_str("isolated by ")?;
                for (index, policy) in policies.iter().enumerate() {
                    write!(f, "{}{policy}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str(", and no rule allows it")
            }
            Self::Rule(rule) => write!(f, "denied by {rule}"),
        }
    }
}

/// Why it is denied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Denial {
    /// The direction in which the subject is kept from it.
    pub direction: Direction,
    /// Namespace of the subject.
    pub namespace: Arc<str>,
    /// Name of the subject.
    pub pod: Arc<str>,
    /// What denies.
    pub cause: Cause,
}

impl Denial {
    /// The policies that deny.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyRef> {
        match &self.cause {
            Cause::NoRule(policies) => policies.as_slice(),
            Cause::Rule(rule) => std::slice::from_ref(&rule.policy),
        }
        .iter()
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            direction,
            namespace,
            pod,
            cause,
        } = self;
        write!(f, "{direction} of Pod {namespace}/{pod} is {cause}")
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Undecidable {
    /// There is no such live pod.
    NoSuchPod(End),
    /// The pod has finished.
    Finished(End),
    /// The pod has no address yet.
    NoAddress(End),
    /// The ends have no address family in common.
    NoCommonFamily,
    /// IPv4 and IPv6 are answered differently; asking with an address chooses one.
    FamiliesDiffer,
    /// What a policy does to a pod on its node's network is left to each implementation.
    HostNetworkSubject(End),
    /// Whether a selector means a pod on its node's network is left to each implementation, and it decides here.
    HostNetworkPeer(End),
    /// A rule means addresses, and which one a pod that does not run yet will have is not known; it decides.
    AddressDecides {
        /// The pod.
        end: End,
        /// The rule.
        rule: RuleName,
    },
    /// Whether a policy sees a Service's address or the pod's behind it is left to each implementation; ask about the pods.
    ServiceAddress(ServiceName),
    /// A rule means names in DNS, and which addresses have those is not known here; it decides.
    DomainNames(RuleName),
    /// Policies speak of TCP, UDP and SCTP, and what one that isolates does to ICMP is left to each implementation.
    Icmp,
    /// Two policies of one tier have the same priority and do not agree: which of them decides is left to each implementation.
    SamePriority(Box<[RuleName; 2]>),
}

impl fmt::Display for Undecidable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchPod(end) => write!(f, "there is no {end}"),
            Self::Finished(end) => write!(f, "{end} has finished"),
            Self::NoAddress(end) => write!(f, "{end} has no address"),
            Self::NoCommonFamily => f.write_str("the ends have no address family in common"),
            Self::Icmp => {
                f.write_str("no rule can name ICMP, and whether isolation stops it depends on the network plugin")
            }
            Self::FamiliesDiffer => f.write_str("IPv4 and IPv6 are answered differently; ask with an address"),
            Self::HostNetworkSubject(end) => {
                write!(
                    f,
                    "{end} uses its node's network, and what policies do to it depends on the network plugin"
                )
            }
            Self::HostNetworkPeer(end) => {
                write!(
                    f,
                    "{end} uses its node's network, and whether a selector means it depends on the network plugin"
                )
            }
            Self::AddressDecides { end, rule } => {
                write!(f, "{rule} means addresses, and {end} has none before it runs")
            }
            Self::ServiceAddress(service) => {
                write!(
                    f,
                    "whether policies apply to the address of {service} depends on the network plugin; ask about its pods"
                )
            }
            Self::DomainNames(rule) => write!(f, "{rule} means names in DNS, and who has these is not known here"),
            Self::SamePriority(rules) => {
                let [one, other] = &**rules;
                write!(f, "{one} and {other} have the same priority and do not agree")
            }
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Allowed, by what; of a combined verdict, by what at each isolated end.
    Allowed(Vec<AllowedBy>),
    /// Denied, and why; of a combined verdict, at each end that denies.
    Denied(Vec<Denial>),
    /// No policy applies to the subject in this direction: allowed.
    NotIsolated,
    /// Not decidable, and why.
    Unknown(Undecidable),
}

impl Verdict {
    /// Whether the connection is known to work.
    pub const fn permits(&self) -> bool {
        matches!(self, Self::Allowed(_) | Self::NotIsolated)
    }

    /// Whether the connection is known to be refused.
    pub const fn denies(&self) -> bool {
        matches!(self, Self::Denied(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, items: &mut dyn Iterator<Item = &dyn fmt::Display>| {
            for (index, item) in items.enumerate() {
                write!(f, "{}{item}", if index == 0 { "" } else { "; " })?;
            }
            Ok(())
        };
        match self {
            Self::Allowed(by) => {
                f.write_str("allowed: ")?;
                list(f, &mut by.iter().map(|by| by as &dyn fmt::Display))
            }
            Self::Denied(why) => {
                f.write_str("denied: ")?;
                list(f, &mut why.iter().map(|why| why as &dyn fmt::Display))
            }
            Self::NotIsolated => f.write_str("allowed: no policy applies"),
            Self::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}

/// The answer for each direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// At the source.
    pub egress: Verdict,
    /// At the destination.
    pub ingress: Verdict,
}

impl Answer {
    /// The answer for one direction.
    pub const fn direction(&self, direction: Direction) -> &Verdict {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Both together: one denial denies, whatever the other end says; after that, what one end leaves open stays open.
    pub fn combined(&self) -> Verdict {
        match (&self.egress, &self.ingress) {
            (Verdict::Denied(egress), Verdict::Denied(ingress)) => {
                Verdict::Denied(egress.iter().chain(ingress).cloned().collect())
            }
            (denied @ Verdict::Denied(_), _) | (_, denied @ Verdict::Denied(_)) => denied.clone(),
            (unknown @ Verdict::Unknown(_), _) | (_, unknown @ Verdict::Unknown(_)) => unknown.clone(),
            (Verdict::Allowed(egress), Verdict::Allowed(ingress)) => {
                Verdict::Allowed(egress.iter().chain(ingress).cloned().collect())
            }
            (allowed @ Verdict::Allowed(_), Verdict::NotIsolated)
            | (Verdict::NotIsolated, allowed @ Verdict::Allowed(_)) => allowed.clone(),
            (Verdict::NotIsolated, Verdict::NotIsolated) => Verdict::NotIsolated,
        }
    }
}
