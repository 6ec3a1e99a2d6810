//! `ClusterNetworkPolicies`, checked once against the bounds of their `CustomResourceDefinition`.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use nanoseg_graph::flow::Transport;

use super::policy::{
    Action, Fault, OnHost, Peer, Pods, PolicyRef, PortMatch, PortNumbers, Problem, Rule, Tier, range, selector,
};
use crate::cluster_policy::{self as api, ClusterNetworkPolicy, ClusterNetworkPolicySpec, ClusterPolicyName, Kind};
use crate::selector::Selector;

/// Most networks of a peer, and names.
const MOST: usize = 25;

/// Most rules of a direction, peers of a rule and protocols of a rule.
const fn most(kind: Kind) -> usize {
    match kind {
        Kind::ClusterNetworkPolicy => MOST,
        Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy => 100,
    }
}

/// A checked policy of the cluster.
#[derive(Clone, Debug)]
pub(super) struct ClusterPolicy {
    pub(super) name: PolicyRef,
    pub(super) namespaces: Selector,
    pub(super) pods: Selector,
    pub(super) ingress: Vec<Rule>,
    pub(super) egress: Vec<Rule>,
}

impl ClusterPolicy {
    pub(super) fn parse(policy: &ClusterNetworkPolicy, name: &ClusterPolicyName) -> Result<(Tier, u16, Self), Fault> {
        let kind = name.kind;
        let most = most(kind);
        if kind == Kind::BaselineAdminNetworkPolicy && &*name.name != "default" {
            return Err(("metadata.name".to_owned(), Problem::NotDefault(name.name.to_string())));
        }
        let ClusterNetworkPolicySpec {
            tier,
            priority,
            subject,
            ingress,
            egress,
        } = &policy.spec;
        let tier = match tier.as_str() {
            "Admin" => Tier::Admin,
            "Baseline" => Tier::Baseline,
            other => return Err(("spec.tier".to_owned(), Problem::Tier(other.to_owned()))),
        };
        let priority = u16::try_from(*priority)
            .ok()
            .filter(|priority| *priority <= 1000)
            .ok_or_else(|| ("spec.priority".to_owned(), Problem::Priority(*priority)))?;
        let api::Subject { namespaces, pods } = subject;
        let (namespaces, pods) = match (namespaces, pods) {
            (Some(namespaces), None) => (read(namespaces, "spec.subject.namespaces")?, Selector::everything()),
            (None, Some(pods)) => named_pods(kind, pods, "spec.subject.pods")?,
            (None, None) => return Err(("spec.subject".to_owned(), Problem::OneField(0))),
            (Some(_), Some(_)) => return Err(("spec.subject".to_owned(), Problem::OneField(2))),
        };
        for (field, found) in [("spec.ingress", ingress.len()), ("spec.egress", egress.len())] {
            if found > most {
                return Err((field.to_owned(), Problem::Items { found, most }));
            }
        }
        let ingress = ingress.iter().enumerate().map(|(index, rule)| {
            let api::IngressRule {
                name: _,
                action,
                from,
                protocols,
            } = rule;
            let path = format!("spec.ingress[{index}]");
            for (index, peer) in from.iter().enumerate() {
                if peer.nodes.is_some() || peer.networks.is_some() || peer.domain_names.is_some() {
                    return Err((format!("{path}.from[{index}]"), Problem::EgressOnly));
                }
            }
            rule_of(kind, action, from, protocols.as_deref(), &path, "from")
        });
        let egress = egress.iter().enumerate().map(|(index, rule)| {
            let api::EgressRule {
                name: _,
                action,
                to,
                protocols,
            } = rule;
            rule_of(
                kind,
                action,
                to,
                protocols.as_deref(),
                &format!("spec.egress[{index}]"),
                "to",
            )
        });
        let policy = Self {
            name: PolicyRef::Cluster(name.clone()),
            namespaces,
            pods,
            ingress: ingress.collect::<Result<_, _>>()?,
            egress: egress.collect::<Result<_, _>>()?,
        };
        Ok((tier, priority, policy))
    }
}

/// What each kind calls the list of protocols and ports.
const fn protocols_of(kind: Kind) -> &'static str {
    match kind {
        Kind::ClusterNetworkPolicy => "protocols",
        Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy => "ports",
    }
}

fn read(labels: &LabelSelector, path: &str) -> Result<Selector, Fault> {
    selector(Some(labels), || path.to_owned())
}

fn named_pods(kind: Kind, pods: &api::NamespacedPod, path: &str) -> Result<(Selector, Selector), Fault> {
    let api::NamespacedPod {
        namespace_selector,
        pod_selector,
    } = pods;
    let field = format!("{path}.namespaceSelector");
    let namespaces = match (namespace_selector, kind) {
        (Some(namespaces), _) => read(namespaces, &field)?,
        (None, Kind::ClusterNetworkPolicy) => Selector::everything(),
        (None, Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy) => return Err((field, Problem::Missing)),
    };
    Ok((namespaces, read(pod_selector, &format!("{path}.podSelector"))?))
}

fn items(found: usize, most: usize, path: impl FnOnce() -> String) -> Result<(), Fault> {
    if (1..=most).contains(&found) {
        Ok(())
    } else {
        Err((path(), Problem::Items { found, most }))
    }
}

fn rule_of(
    kind: Kind,
    action: &str,
    peers: &[api::Peer],
    protocols: Option<&[api::Protocol]>,
    path: &str,
    list: &str,
) -> Result<Rule, Fault> {
    let action = match (action, kind) {
        ("Accept", Kind::ClusterNetworkPolicy)
        | ("Allow", Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy) => Action::Accept,
        ("Deny", _) => Action::Deny,
        ("Pass", Kind::ClusterNetworkPolicy | Kind::AdminNetworkPolicy) => Action::Pass,
        (other, _) => {
            let found = other.to_owned();
            let expected = match kind {
                Kind::ClusterNetworkPolicy => "Accept, Deny or Pass",
                Kind::AdminNetworkPolicy => "Allow, Deny or Pass",
                Kind::BaselineAdminNetworkPolicy => "Allow or Deny",
            };
            return Err((format!("{path}.action"), Problem::Action { found, expected }));
        }
    };
    items(peers.len(), most(kind), || format!("{path}.{list}"))?;
    let mut named = Vec::new();
    for (index, peer) in peers.iter().enumerate() {
        named.extend(peers_of(kind, peer, action, &format!("{path}.{list}[{index}]"))?);
    }
    let ports = protocols
        .map(|protocols| {
            let list = protocols_of(kind);
            items(protocols.len(), most(kind), || format!("{path}.{list}"))?;
            let numbered = protocols.iter().enumerate();
            numbered
                .map(|(index, protocol)| port_of(kind, protocol, &format!("{path}.{list}[{index}]")))
                .collect::<Result<Vec<_>, _>>()
        })
        .transpose()?;
    Ok(Rule {
        action,
        peers: Some(named),
        ports,
    })
}

fn peers_of(kind: Kind, peer: &api::Peer, action: Action, path: &str) -> Result<Vec<Peer>, Fault> {
    let api::Peer {
        namespaces,
        pods,
        nodes,
        networks,
        domain_names,
    } = peer;
    let set = [
        namespaces.is_some(),
        pods.is_some(),
        nodes.is_some(),
        networks.is_some(),
        domain_names.is_some(),
    ];
    let fields = set.into_iter().filter(|set| *set).count();
    if fields > 1 {
        return Err((path.to_owned(), Problem::OneField(fields)));
    }
    if let Some(namespaces) = namespaces {
        return Ok(vec![Peer::Pods(Pods {
            namespaces: Some(Arc::new(read(namespaces, &format!("{path}.namespaces"))?)),
            selector: Arc::new(Selector::everything()),
            on_host: OnHost::Never,
        })]);
    }
    if let Some(pods) = pods {
        let (namespaces, pods) = named_pods(kind, pods, &format!("{path}.pods"))?;
        return Ok(vec![Peer::Pods(Pods {
            namespaces: Some(Arc::new(namespaces)),
            selector: Arc::new(pods),
            on_host: OnHost::Never,
        })]);
    }
    if let Some(nodes) = nodes {
        return Ok(vec![Peer::Nodes(read(nodes, &format!("{path}.nodes"))?)]);
    }
    if let Some(networks) = networks {
        items(networks.len(), MOST, || format!("{path}.networks"))?;
        let block = |(index, text): (usize, &String)| {
            let cidr = range(text, || format!("{path}.networks[{index}]"))?;
            let except = Vec::new();
            Ok(Peer::Block { cidr, except })
        };
        return networks.iter().enumerate().map(block).collect();
    }
    if let Some(names) = domain_names {
        items(names.len(), MOST, || format!("{path}.domainNames"))?;
        if action != Action::Accept {
            return Err((format!("{path}.domainNames"), Problem::AcceptOnly));
        }
        return Ok(vec![Peer::Domains]);
    }
    Ok(vec![Peer::Unsupported])
}

fn port_of(kind: Kind, protocol: &api::Protocol, path: &str) -> Result<PortMatch, Fault> {
    let api::Protocol {
        tcp,
        udp,
        sctp,
        destination_named_port,
    } = protocol;
    let fields = [
        tcp.is_some(),
        udp.is_some(),
        sctp.is_some(),
        destination_named_port.is_some(),
    ];
    let fields = fields.into_iter().filter(|set| *set).count();
    if fields != 1 {
        return Err((path.to_owned(), Problem::OneField(fields)));
    }
    if let Some(name) = destination_named_port {
        return Ok(PortMatch {
            transport: None,
            port: PortNumbers::Named(name.clone()),
        });
    }
    let given = [
        (Transport::Tcp, "tcp", tcp),
        (Transport::Udp, "udp", udp),
        (Transport::Sctp, "sctp", sctp),
    ];
    let found = given
        .into_iter()
        .find_map(|(transport, name, ports)| Some((transport, name, ports.as_ref()?)));
    let Some((transport, name, api::Ports { destination_port })) = found else {
        return Err((path.to_owned(), Problem::OneField(0)));
    };
    let (path, number_field, range_field) = match kind {
        Kind::ClusterNetworkPolicy => (format!("{path}.{name}.destinationPort"), "number", "range"),
        Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy => {
            (path.to_owned(), "portNumber.port", "portRange")
        }
    };
    let number = |value: i32, path: String| {
        u16::try_from(value)
            .ok()
            .filter(|number| *number > 0)
            .ok_or((path, Problem::PortNumber(value)))
    };
    let port = match destination_port {
        None => PortNumbers::Any,
        Some(api::Port {
            number: Some(value),
            range: None,
        }) => {
            let number = number(*value, format!("{path}.{number_field}"))?;
            PortNumbers::Range(number..=number)
        }
        Some(api::Port {
            number: None,
            range: Some(api::PortRange { start, end }),
        }) => {
            let first = number(*start, format!("{path}.{range_field}.start"))?;
            let last = number(*end, format!("{path}.{range_field}.end"))?;
            if first >= last {
                return Err((format!("{path}.{range_field}.end"), Problem::RangeEnd(*end)));
            }
            PortNumbers::Range(first..=last)
        }
        Some(api::Port { number, range }) => {
            let fields = usize::from(number.is_some()) + usize::from(range.is_some());
            return Err((path, Problem::OneField(fields)));
        }
    };
    Ok(PortMatch {
        transport: Some(transport),
        port,
    })
}
