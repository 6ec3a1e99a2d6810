//! The commands that look at files once and print what they find. Thin calls of the policy crate.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::CustomResourceExt as _;
use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::connection::{ConnectionGraph, EdgeKey};
use nanoseg_graph::flow::{FlowTable, Outcome, Reporter};
use nanoseg_graph::resolve::resolve;
use nanoseg_policy::audit::{self, Audit, Finding, audit};
use nanoseg_policy::cluster_policy::ClusterNetworkPolicy;
use nanoseg_policy::evaluate::{Answer, Connection, Denial, End, PolicySet, Verdict, evaluate};
use nanoseg_policy::synthesize::{self, synthesize_all};
use serde_json::json;

use crate::apply::{WriteError, write_policy};
use crate::read::{self, Manifests, ReadError};
use crate::segment::{Segment, to_edges};
use crate::settings::{
    AuditArguments, ExplainArguments, GraphArguments, InputArguments, Output, Party, SynthesizeArguments,
};
use crate::trouble::chain;

/// Why a command cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A path cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no report that could be used.
    #[error("{}: no learner's report could be read there (`*.json`, as nanoseg-learner writes them)", path.display())]
    NoReports {
        /// The path.
        path: PathBuf,
    },
    /// The pod that is asked about is not among the manifests.
    #[error("there is no pod {namespace}/{name} among the manifests of {}", cluster.display())]
    NoSuchPod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Where it was looked for.
        cluster: PathBuf,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The answer cannot be printed.
    #[error("cannot print")]
    Print(#[from] io::Error),
    /// An object cannot be printed as YAML.
    #[error("cannot print as YAML")]
    Yaml(#[from] serde_yaml::Error),
}

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// All well.
    Nothing,
    /// Something that the exit code tells.
    Something,
}

/// What the commands look at.
struct Input {
    cluster: Cluster,
    policies: Vec<NetworkPolicy>,
    cluster_policies: Vec<ClusterNetworkPolicy>,
}

impl Input {
    fn read(arguments: &InputArguments, policies: Option<&Path>) -> Result<Self, CommandError> {
        let InputArguments {
            cluster: path,
            cluster_cidr,
        } = arguments;
        let manifests = Manifests::read(path)?;
        warn(&manifests.faults);
        let mut cluster = Cluster::new(cluster_cidr.iter().copied());
        // When the objects were made is in the objects; that they are there now is all that reading them tells.
        let now = Timestamp::now();
        for object in manifests.objects {
            cluster.observe(object, now);
        }
        let mut all = manifests.policies;
        let mut cluster_policies = manifests.cluster_policies;
        if let Some(path) = policies {
            let more = Manifests::read(path)?;
            warn(&more.faults);
            all.extend(more.policies);
            cluster_policies.extend(more.cluster_policies);
        }
        Ok(Self {
            cluster,
            policies: all,
            cluster_policies,
        })
    }

    fn graph(&self, flows: &Path) -> Result<ConnectionGraph, CommandError> {
        let mut table = FlowTable::default();
        let mut read = 0;
        for file in read::files(flows, &read::REPORT_EXTENSIONS)? {
            match read::report(&file) {
                Ok(report) => {
                    table.merge(&report);
                    read += 1;
                }
                Err(fault) => tracing::warn!("{}", chain(&fault)),
            }
        }
        if read == 0 {
            return Err(CommandError::NoReports { path: flows.to_owned() });
        }
        Ok(resolve(&table, &self.cluster))
    }

    fn policies(&self) -> PolicySet {
        let (policies, rejected) = PolicySet::parse_all(&self.policies, &self.cluster_policies);
        for rejected in rejected {
            tracing::warn!("left out, the API server would not take it: {rejected}");
        }
        policies
    }
}

fn warn(faults: &[read::Fault]) {
    for fault in faults {
        tracing::warn!("{}", chain(fault));
    }
    if !faults.is_empty() {
        tracing::warn!(faults = faults.len(), "some manifests have faults, the rest is used");
    }
}

/// `nanoseg crd`.
pub fn crd(out: &mut impl Write) -> Result<Found, CommandError> {
    out.write_all(crd_yaml()?.as_bytes())?;
    Ok(Found::Nothing)
}

/// The `CustomResourceDefinition`s as YAML.
pub fn crd_yaml() -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(&Segment::crd())
}

/// `nanoseg audit`.
pub fn audit_flows(arguments: &AuditArguments, out: &mut impl Write) -> Result<Found, CommandError> {
    let AuditArguments {
        input,
        flows,
        policies,
        output,
    } = arguments;
    let input = Input::read(input, policies.as_deref())?;
    let graph = input.graph(flows)?;
    let Audit {
        denied,
        undecided,
        permitted,
    } = audit(&graph, &input.policies(), &input.cluster);
    for Finding {
        edge,
        connection,
        why,
        denied,
        pairs,
    } in &denied
    {
        match output {
            Output::Table => {
                writeln!(out, "denied: {}", words(edge))?;
                writeln!(out, "  {denied} of {pairs} pairs, for example {}", asked(connection))?;
                for why in why {
                    writeln!(out, "  {why}")?;
                }
            }
            Output::Json => {
                let mut line = edge_json(edge);
                line["verdict"] = "Denied".into();
                line["from"] = connection.source.to_string().into();
                line["to"] = connection.destination.to_string().into();
                line["pairs"] = (*pairs).into();
                line["deniedPairs"] = (*denied).into();
                line["reasons"] = why.iter().map(ToString::to_string).collect();
                line["isolatedBy"] = isolating(why);
                writeln!(out, "{line}")?;
            }
        }
    }
    for (edge, why) in &undecided {
        let reason = match why {
            audit::Why::NoEnds(why) => why.to_string(),
            audit::Why::Unknown(why) => why.to_string(),
        };
        tracing::info!("cannot be decided: {}: {reason}", words(edge));
    }
    if *output == Output::Table {
        writeln!(
            out,
            "{} edges: {} denied, {} cannot be decided, {permitted} permitted",
            graph.len(),
            denied.len(),
            undecided.len()
        )?;
    }
    Ok(if denied.is_empty() {
        Found::Nothing
    } else {
        Found::Something
    })
}

/// `nanoseg synthesize`.
pub fn synthesize_policies(arguments: &SynthesizeArguments, out: &mut impl Write) -> Result<Found, CommandError> {
    let SynthesizeArguments {
        input,
        flows,
        out: folder,
    } = arguments;
    let input = Input::read(input, None)?;
    let graph = input.graph(flows)?;
    for (workload, proposal) in synthesize_all(&graph, &input.cluster, &synthesize::Settings::default()) {
        let proposal = match proposal {
            Ok(proposal) => proposal,
            Err(refusal) => {
                tracing::warn!("{refusal}");
                continue;
            }
        };
        for note in &proposal.notes {
            tracing::info!(%workload, "{note}");
        }
        match folder {
            Some(folder) => writeln!(out, "{}", write_policy(folder, &proposal.policy)?.display())?,
            None => write!(out, "---\n{}", serde_yaml::to_string(&proposal.policy)?)?,
        }
    }
    Ok(Found::Nothing)
}

/// `nanoseg graph`.
pub fn graph(arguments: &GraphArguments, out: &mut impl Write) -> Result<Found, CommandError> {
    let GraphArguments { input, flows, output } = arguments;
    let graph = Input::read(input, None)?.graph(flows)?;
    let mut rows = vec![["SOURCE", "DESTINATION", "PORT", "OUTCOME", "VIA", "SEEN BY", "COUNT"].map(str::to_owned)];
    for (edge, evidence) in graph.edges() {
        let outcome = match evidence.outcome() {
            Outcome::Attempted => "attempted",
            Outcome::Refused => "refused",
            Outcome::Established => "established",
        };
        let reporters: Vec<&str> = evidence
            .reporters()
            .into_iter()
            .map(|reporter| match reporter {
                Reporter::Source => "source",
                Reporter::Destination => "destination",
            })
            .collect();
        let via: Vec<String> = evidence
            .via
            .iter()
            .map(|service| format!("{}/{}", service.namespace, service.name))
            .collect();
        // Both ends count the same connections: the larger count is the better one.
        let tallies = [Reporter::Source, Reporter::Destination].map(|reporter| evidence.tally(reporter));
        let count = tallies
            .iter()
            .flatten()
            .map(|tally| tally.attempted.max(tally.established))
            .max()
            .unwrap_or(0);
        match output {
            Output::Table => rows.push([
                edge.source.to_string(),
                edge.destination.to_string(),
                format!("{} {}", edge.transport, edge.port),
                outcome.to_owned(),
                via.join(","),
                reporters.join(","),
                count.to_string(),
            ]),
            Output::Json => {
                let mut line = edge_json(edge);
                line["outcome"] = outcome.into();
                line["via"] = via.into();
                line["seenBy"] = reporters.into();
                line["count"] = count.into();
                line["firstSeen"] = json!(tallies.iter().flatten().map(|tally| tally.first_seen).min());
                line["lastSeen"] = json!(tallies.iter().flatten().map(|tally| tally.last_seen).max());
                writeln!(out, "{line}")?;
            }
        }
    }
    if *output == Output::Table {
        table(&rows, out)?;
    }
    Ok(Found::Nothing)
}

/// `nanoseg explain`.
pub fn explain(arguments: &ExplainArguments, out: &mut impl Write) -> Result<Found, CommandError> {
    let ExplainArguments {
        input: paths,
        policies,
        from,
        to,
        port,
        protocol,
        output,
    } = arguments;
    let input = Input::read(paths, policies.as_deref())?;
    let end = |party: &Party| match party {
        Party::Address(address) => Ok(End::Address(*address)),
        Party::Pod { namespace, name } => match input.cluster.pod(namespace, name) {
            Some(_) => Ok(End::Pod {
                namespace: namespace.clone(),
                name: name.clone(),
            }),
            None => Err(CommandError::NoSuchPod {
                namespace: namespace.clone(),
                name: name.clone(),
                cluster: paths.cluster.clone(),
            }),
        },
    };
    let connection = Connection {
        source: end(from)?,
        destination: end(to)?,
        port: *port,
        transport: *protocol,
    };
    let answer = evaluate(&input.policies(), &input.cluster, &connection);
    let combined = answer.combined();
    let Answer { egress, ingress } = &answer;
    match output {
        Output::Table => {
            writeln!(out, "{}", asked(&connection))?;
            writeln!(out, "{}", verdict_word(&combined))?;
            writeln!(out, "  egress:  {egress}")?;
            writeln!(out, "  ingress: {ingress}")?;
        }
        Output::Json => {
            let by = match &combined {
                Verdict::Allowed(by) => by.iter().map(ToString::to_string).collect(),
                Verdict::Denied(why) => isolating(why),
                Verdict::NotIsolated | Verdict::Unknown(_) => json!([]),
            };
            let (egress, ingress) = (egress.to_string(), ingress.to_string());
            let line = json!({ "verdict": verdict_word(&combined), "egress": egress, "ingress": ingress, "by": by });
            writeln!(out, "{line}")?;
        }
    }
    Ok(if combined.denies() {
        Found::Something
    } else {
        Found::Nothing
    })
}

const fn verdict_word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed(_) | Verdict::NotIsolated => "Allowed",
        Verdict::Denied(_) => "Denied",
        Verdict::Unknown(_) => "Unknown",
    }
}

fn isolating(why: &[Denial]) -> serde_json::Value {
    why.iter().flat_map(Denial::policies).map(ToString::to_string).collect()
}

fn words(
    EdgeKey {
        source,
        destination,
        port,
        transport,
    }: &EdgeKey,
) -> String {
    format!("{source} -> {destination} {transport} {port}")
}

fn asked(
    Connection {
        source,
        destination,
        port,
        transport,
    }: &Connection,
) -> String {
    format!("{source} -> {destination} {transport} {port}")
}

fn edge_json(edge: &EdgeKey) -> serde_json::Value {
    let mut line = json!(to_edges([(edge, &crate::segment::Known::default())]).pop());
    if !line.is_object() {
        line = json!({});
    }
    line
}

fn table<const N: usize>(rows: &[[String; N]], out: &mut impl Write) -> io::Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
