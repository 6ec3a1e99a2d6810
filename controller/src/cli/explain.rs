//! `nanoseg explain`: one connection, or many from a file, each answered by itself.

mod missing;

use std::path::Path;

use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::endpoint::Endpoint;
use nanoseg_graph::recorded::{Recorded, RecordedEnd, RecordedKey};
use nanoseg_policy::direction::Direction;
use nanoseg_policy::evaluate::{AllowedBy, Answer, Connection, End, Evaluator, PolicyRef, Verdict};
use nanoseg_policy::ownership::{PolicyName, evidence_of};
use serde::Serialize;

use super::input::{Faults, Input};
use super::output::{Screen, by, combined_word, connection_words, direction_word};
use super::segments::propose;
use super::{CommandError, Found};
use crate::read::Fault;
use crate::read::flows::{self, At, Ended, Entry, Visitor};
use crate::settings::commands::{ExplainArguments, Party};
use crate::settings::output::{Language, Output};
use crate::trouble::chain;
pub(crate) use missing::Rules;
use missing::{Missing, pod_of};

/// Whether connections are allowed, and what decides.
pub fn explain(arguments: &ExplainArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    let ExplainArguments {
        input: cluster,
        policies,
        proposals,
        from,
        to,
        port,
        protocol,
        flows,
        output,
    } = arguments;
    let others = [flows.as_slice(), &proposals.segments.files].concat();
    let mut input = Input::read(cluster, &policies.policies, &others, screen)?;
    propose(proposals, cluster, &mut input, screen)?;
    let policies = input.policies(screen);
    if let Some(path) = flows {
        input.faults.settle(screen)?;
        let output = output.unwrap_or(Output::Document(Language::Json));
        let evaluator = Evaluator::new(&policies, &input.cluster);
        return questions(path, &evaluator, output, &mut input.faults, screen);
    }
    // The command line demands all three where there are no flows.
    let (Some(from), Some(to), Some(port)) = (from, to, port) else {
        return Ok(Found::Nothing);
    };
    let connection = Connection {
        source: end(from, &input)?,
        destination: end(to, &input)?,
        port: *port,
        transport: *protocol,
    };
    input.faults.settle(screen)?;
    let answer = Evaluator::new(&policies, &input.cluster).evaluate(&connection);
    let combined = answer.combined();
    let missing = Rules::of(&input.cluster).missing(&combined, &connection);
    match output.unwrap_or(Output::Table) {
        Output::Table | Output::Wide | Output::Name => {
            screen.line(connection_words(&connection))?;
            screen.line(combined_word(&combined))?;
            let Answer { egress, ingress } = &answer;
            for (direction, verdict) in [("egress: ", egress), ("ingress:", ingress)] {
                screen.line(format_args!("  {direction} {verdict}"))?;
                for line in evidence(verdict, &connection, &input) {
                    screen.line(format_args!("    evidence: {line}"))?;
                }
            }
            for missing in missing {
                screen.print(&missing.text()?)?;
            }
        }
        Output::Document(language) => screen.document(
            language,
            &Told {
                from: Some(connection.source.to_string()),
                to: Some(connection.destination.to_string()),
                evidence: evidence(&combined, &connection, &input),
                missing,
                ..Told::of(&answer, &combined)
            },
        )?,
    }
    Ok(Found::when(!combined.permits()))
}

fn end(party: &Party, input: &Input) -> Result<End, CommandError> {
    match party {
        Party::Address(address) => Ok(End::Address(address.to_canonical())),
        Party::Pod { namespace, name } if input.cluster.pod(namespace, name).is_some() => Ok(End::Pod {
            namespace: namespace.clone(),
            name: name.clone(),
        }),
        Party::Pod { namespace, name } => Err(CommandError::NoSuchPod {
            namespace: namespace.clone(),
            name: name.clone(),
            cluster: input.from.clone(),
            hint: hint(namespace, name, &input.cluster),
        }),
    }
}

/// What the rules that allow it come from, as far as it is about this connection's peers: where the policies are ours.
fn evidence(verdict: &Verdict, connection: &Connection, input: &Input) -> Vec<String> {
    let Verdict::Allowed(by) = verdict else {
        return Vec::new();
    };
    let rules = by.iter().filter_map(|by| match by {
        AllowedBy::Rule(rule) => Some(rule),
        AllowedBy::SamePod | AllowedBy::OwnNode => None,
    });
    let mut found = Vec::new();
    for rule in rules {
        let PolicyRef::Namespaced(name) = &rule.policy else {
            continue;
        };
        // Of two with one name the later counts.
        let Some(policy) = input.policies.iter().rfind(|policy| PolicyName::of(policy) == **name) else {
            continue;
        };
        let (peer, lead) = match rule.direction {
            Direction::Ingress => (&connection.source, ""),
            Direction::Egress => (&connection.destination, "-> "),
        };
        let peer = match (pod_of(peer, &input.cluster), peer) {
            (Some(pod), _) => Endpoint::Workload(input.cluster.workload_of(pod)),
            (None, End::Address(address)) => Endpoint::External(address.to_canonical()),
            (None, End::Pod { .. } | End::Uid(_)) => continue,
        };
        let lead = format!("{lead}{peer} ");
        let lines = evidence_of(policy, rule.direction, rule.index).filter(|line| line.starts_with(&lead));
        found.extend(lines.map(str::to_owned));
    }
    found
}

/// A pod that may have been meant: people often write a workload's name.
fn hint(namespace: &str, name: &str, cluster: &Cluster) -> String {
    let mut pods = cluster.pods_in(namespace).peekable();
    if pods.peek().is_none() {
        return format!("; there is no pod in namespace {namespace} at all");
    }
    let mut elsewhere = cluster.pods().filter(|pod| *pod.name == *name);
    pods.find(|pod| pod.name.starts_with(name) || cluster.workload_of(pod).name == name)
        .or_else(|| elsewhere.next())
        .map(|pod| format!("; there is {}/{}", pod.namespace, pod.name))
        .unwrap_or_default()
}

/// An answer. The first four keys are a promise.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    verdict: &'static str,
    egress: &'static str,
    ingress: &'static str,
    by: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress_reason: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    evidence: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<Missing>,
    /// Why a line is no question.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Told {
    fn of(Answer { egress, ingress }: &Answer, combined: &Verdict) -> Self {
        Self {
            verdict: combined_word(combined),
            egress: direction_word(egress),
            ingress: direction_word(ingress),
            by: by(combined),
            egress_reason: Some(egress.to_string()),
            ingress_reason: Some(ingress.to_string()),
            ..Self::default()
        }
    }

    fn unknown() -> Self {
        Self {
            verdict: "Unknown",
            egress: "Unknown",
            ingress: "Unknown",
            ..Self::default()
        }
    }
}

fn questions(
    path: &Path,
    evaluator: &Evaluator<'_>,
    output: Output,
    faults: &mut Faults,
    screen: &mut Screen<'_>,
) -> Result<Found, CommandError> {
    let mut answering = Answering {
        evaluator,
        output,
        faults,
        screen,
        asked: 0,
        not_allowed: 0,
    };
    match flows::read(path, &mut answering) {
        Ok(()) => {}
        Err(Ended::Read(error)) => return Err(error.into()),
        Err(Ended::Visitor(error)) => return Err(error),
    }
    let Answering { asked, not_allowed, .. } = answering;
    faults.settle(screen)?;
    if asked == 0 {
        return Err(CommandError::NoFlows { path: path.to_owned() });
    }
    Ok(Found::when(not_allowed > 0))
}

struct Answering<'a, 's> {
    evaluator: &'a Evaluator<'a>,
    output: Output,
    faults: &'a mut Faults,
    screen: &'a mut Screen<'s>,
    asked: u64,
    not_allowed: u64,
}

impl Answering<'_, '_> {
    fn tell(&mut self, told: &Told) -> Result<(), CommandError> {
        match self.output {
            Output::Document(language) => self.screen.document(language, told),
            Output::Table | Output::Wide | Output::Name => {
                let why = told.error.as_deref().or(told.skipped).map(str::to_owned);
                let why = why.unwrap_or_else(|| told.by.join("; "));
                let line = told.line.unwrap_or_default();
                self.screen.line(format!("{line}: {} {why}", told.verdict).trim_end())
            }
        }
    }

    fn answer(&mut self, line: u64, recorded: Recorded) -> Result<(), CommandError> {
        let RecordedKey {
            source,
            destination,
            port,
            transport,
            reporter: _,
        } = recorded.key;
        let end = |end| match end {
            RecordedEnd::Pod { namespace, name } => End::Pod { namespace, name },
            RecordedEnd::Address(address) => End::Address(address),
        };
        let connection = Connection {
            source: end(source),
            destination: end(destination),
            port,
            transport,
        };
        let answer = self.evaluator.evaluate(&connection);
        let combined = answer.combined();
        self.asked += 1;
        self.not_allowed += u64::from(!combined.permits());
        self.tell(&Told {
            line: Some(line),
            ..Told::of(&answer, &combined)
        })
    }
}

impl Visitor for Answering<'_, '_> {
    type Error = CommandError;

    fn visit(&mut self, at: At<'_>, entry: Result<Entry, Fault>) -> Result<(), CommandError> {
        let line = Some(at.line);
        match entry {
            Ok(Entry::Connection(connection) | Entry::OnNode { connection, .. }) => self.answer(at.line, *connection),
            Ok(Entry::Skipped(skip)) => {
                self.asked += 1;
                self.tell(&Told {
                    line,
                    skipped: Some(skip.explain()),
                    ..Told::unknown()
                })
            }
            Ok(Entry::Report(_)) => Err(CommandError::NotQuestions {
                path: at.file.to_owned(),
            }),
            Err(fault) => {
                self.faults.about(&fault, self.screen);
                self.tell(&Told {
                    line,
                    error: Some(chain(&fault)),
                    ..Told::unknown()
                })
            }
        }
    }

    fn warn(&mut self, fault: Fault) {
        self.faults.about(&fault, self.screen);
    }
}
