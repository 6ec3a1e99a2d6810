//! Two ends and a port to a verdict, under what is live and under what is proposed.

use std::net::IpAddr;

use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::endpoint::{Endpoint, Workload};
use nanoseg_graph::flow::Transport;
use nanoseg_policy::evaluate::{Answer, Connection, Decision, End, Evaluator, PolicySet, Undecidable, Verdict};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{Rules, by, combined_word, connection_words, direction_word};
use crate::page::board::Copy;
use crate::reconcile::Snapshot;
use crate::segment::EdgeEnd;

/// Pods of a workload that are asked about: replicas beyond these are nearly always alike, and the answer says how many it is
/// about.
const MOST: usize = 50;

/// What is asked, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Question {
    /// Who connects.
    #[serde(default)]
    pub from: String,
    /// To whom.
    #[serde(default)]
    pub to: String,
    /// At which port of the listener.
    #[serde(default)]
    pub port: String,
    /// By which protocol; TCP if it is not said.
    #[serde(default)]
    pub protocol: String,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unclear {
    /// Not a port.
    #[error("`{0}` is not a port: write a number from 1 to 65535")]
    Port(String),
    /// Not a protocol.
    #[error("`{0}` is not a protocol: write TCP, UDP or SCTP")]
    Protocol(String),
    /// Not an end.
    #[error(
        "`{0}` is no end: write `namespace/Kind/name` for a workload, `namespace/name` for a pod, `node NAME`, or an address"
    )]
    End(String),
    /// There is nobody of that name.
    #[error("{0} has no live pod with an address")]
    NoPods(Workload),
    /// There is no such node, or nobody knows its address.
    #[error("Node {0} has no known address")]
    NoAddress(String),
    /// The evaluator cannot find an end.
    #[error("{0}")]
    Undecidable(Undecidable),
    /// A Service is not an end of a connection.
    #[error("ask about the pods behind {0}: policies are about those")]
    Service(String),
}

/// Asks the evaluator.
pub fn what_if(copy: &Copy, question: &Question) -> Result<Value, Unclear> {
    let Question {
        from,
        to,
        port,
        protocol,
    } = question;
    let snapshot = &copy.snapshot;
    let number = port.trim().parse().ok().filter(|port| *port > 0);
    let port: u16 = number.ok_or_else(|| Unclear::Port(port.clone()))?;
    let transport = match protocol.trim() {
        "" => Transport::Tcp,
        word => Transport::OF_POLICIES
            .into_iter()
            .find(|transport| transport.as_str().eq_ignore_ascii_case(word))
            .ok_or_else(|| Unclear::Protocol(protocol.clone()))?,
    };
    let (sources, all_sources) = ends(from, &snapshot.cluster)?;
    let (destinations, all_destinations) = ends(to, &snapshot.cluster)?;
    let asked = Asked {
        sources,
        destinations,
        port,
        transport,
    };
    Ok(json!({
        "version": copy.version,
        "from": from.trim(),
        "to": to.trim(),
        "port": port,
        "protocol": transport.as_str(),
        "pairs": asked.sources.len() * asked.destinations.len(),
        "of": all_sources * all_destinations,
        "live": asked.under(&snapshot.live, snapshot)?,
        "proposed": asked.under(&snapshot.proposed, snapshot)?,
    }))
}

struct Asked {
    sources: Vec<End>,
    destinations: Vec<End>,
    port: u16,
    transport: Transport,
}

impl Asked {
    /// One answer for each way in which the pairs are decided, the most frequent first.
    fn under<'a>(
        &self,
        policies: impl IntoIterator<Item = &'a k8s_openapi::api::networking::v1::NetworkPolicy>,
        snapshot: &'a Snapshot,
    ) -> Result<Value, Unclear> {
        let (policies, _rejected) = PolicySet::parse_all(policies, &snapshot.cluster_policies);
        let evaluator = Evaluator::new(&policies, &snapshot.cluster);
        let place = |end: &End| evaluator.find(end).map_err(Unclear::Undecidable);
        let destinations: Vec<_> = self.destinations.iter().map(place).collect::<Result<_, _>>()?;
        let mut ways: Vec<(Decision, Answer, Connection, usize)> = Vec::new();
        for (source, from) in self.sources.iter().zip(self.sources.iter().map(place)) {
            let from = from?;
            for (destination, to) in self.destinations.iter().zip(&destinations) {
                let decision = evaluator.decide(&from, to, self.port, self.transport);
                if let Some((_, _, _, pairs)) = ways.iter_mut().find(|(known, ..)| *known == decision) {
                    *pairs += 1;
                    continue;
                }
                let connection = Connection {
                    source: source.clone(),
                    destination: destination.clone(),
                    port: self.port,
                    transport: self.transport,
                };
                ways.push((decision, evaluator.explain(&from, to, decision), connection, 1));
            }
        }
        ways.sort_by_key(|(.., pairs)| std::cmp::Reverse(*pairs));
        let rules = Rules::of(&snapshot.cluster);
        let told: Vec<Value> = ways
            .iter()
            .map(|(_, answer, connection, pairs)| way(answer, connection, *pairs, &rules))
            .collect();
        let mut words = ways.iter().map(|(_, answer, ..)| combined_word(&answer.combined()));
        let first = words.next().unwrap_or("Unknown");
        let verdict = if words.all(|word| word == first) {
            first
        } else {
            "Mixed"
        };
        Ok(json!({ "verdict": verdict, "ways": told }))
    }
}

fn way(answer: &Answer, connection: &Connection, pairs: usize, rules: &Rules<'_>) -> Value {
    let Answer { egress, ingress } = answer;
    let combined = answer.combined();
    let missing: Vec<String> = rules
        .missing(&combined, connection)
        .iter()
        .filter_map(|missing| missing.text().ok())
        .collect();
    let direction = |verdict: &Verdict| json!({ "verdict": direction_word(verdict), "reason": verdict.to_string() });
    json!({
        "verdict": combined_word(&combined),
        "example": connection_words(connection),
        "pairs": pairs,
        "egress": direction(egress),
        "ingress": direction(ingress),
        "by": by(&combined),
        "missing": missing,
    })
}

/// The ends that a text names, and how many there are in all.
fn ends(text: &str, cluster: &Cluster) -> Result<(Vec<End>, usize), Unclear> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((vec![End::Address(address.to_canonical())], 1));
    }
    let pod = text.split_once('/').filter(|(_, name)| !name.contains('/'));
    if let Some((namespace, name)) = pod.filter(|_| !text.contains(' ')) {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        return Ok((vec![End::Pod { namespace, name }], 1));
    }
    let EdgeEnd(endpoint) = text.parse().map_err(|_no_end| Unclear::End(text.to_owned()))?;
    let ends: Vec<End> = match &endpoint {
        Endpoint::Workload(workload) => {
            let pods = cluster
                .pods_of(workload)
                .filter(|pod| pod.addresses.iter().next().is_some());
            let pods = pods.map(|pod| End::Pod {
                namespace: pod.namespace.to_string(),
                name: pod.name.to_string(),
            });
            let mut pods: Vec<End> = pods.collect();
            pods.sort();
            if pods.is_empty() {
                return Err(Unclear::NoPods(workload.clone()));
            }
            pods
        }
        Endpoint::Node(name) => {
            let node = cluster.node(name);
            let addresses = node.iter().flat_map(|node| node.addresses.iter());
            let addresses: Vec<End> = addresses.map(|address| End::Address(*address)).collect();
            if addresses.is_empty() {
                return Err(Unclear::NoAddress(name.clone()));
            }
            addresses
        }
        Endpoint::External(address) => vec![End::Address(*address)],
        Endpoint::Service(service) => return Err(Unclear::Service(service.to_string())),
        Endpoint::Unknown { .. } => return Err(Unclear::End(text.to_owned())),
    };
    let all = ends.len();
    Ok((ends.into_iter().take(MOST).collect(), all))
}
