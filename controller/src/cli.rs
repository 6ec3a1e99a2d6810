//! The commands that look at files or a cluster once and print what they find. Thin calls of the policy crate.
//!
//! What is asked for goes to stdout, everything else in plain lines to stderr.

mod audit;
mod complete;
mod diff;
mod doctor;
mod explain;
mod export;
mod graph;
mod input;
mod output;
mod reach;
mod reference;
mod review;
mod screen;
mod segments;
mod synthesize;
mod ui;

use std::io;
use std::path::PathBuf;

use kube::CustomResourceExt as _;

use crate::apply::WriteError;
use crate::doctor::ProbeError;
use crate::read::ReadError;
use crate::read::live::ConnectError;
use crate::read::place::file_name;
use crate::segment::Segment;

pub use audit::audit_flows;
pub use complete::complete;
pub use diff::diff_policies;
pub use doctor::doctor;
pub(crate) use explain::Rules;
pub use explain::explain;
pub use export::{ExportError, export};
pub use graph::graph;
pub use output::Screen;
pub(crate) use output::{by, combined_word, connection_words, direction_word};
pub use reach::reach_of;
pub use reference::{completions, man, reference, reference_text};
pub use review::{ReviewError, approve, promote, reject, rollback, status, violations};
pub use synthesize::synthesize_policies;
pub use ui::{UiError, ui};

/// Why a command cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A path cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no way to the cluster.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Not all of the cluster could be seen.
    #[error(
        "{kinds} cannot be listed, and policies made without them would be others than those made with them; may you list them in \
         all namespaces?"
    )]
    Part {
        /// The kinds that are missing.
        kinds: String,
    },
    /// Standard input can be read once.
    #[error("only one of the inputs can be `-`: standard input can be read once")]
    TwiceStandardInput,
    /// A path holds no object.
    #[error(
        "{}: no Kubernetes object could be read there (*.yaml, *.yml, *.json, as `kubectl get ... -o yaml` prints them)",
        file_name(path)
    )]
    NoObjects {
        /// The path.
        path: PathBuf,
    },
    /// Neither two sets of policies nor Segments were named.
    #[error("what is to be compared? name policies by --old and --new, or Segments by --segments")]
    NothingToCompare,
    /// There is no flow that could be used.
    #[error(
        "{}: no flow could be read there; --flows takes learners' reports, JSON lines such as \
         {{\"source\": {{\"namespace\": \"a\", \"pod\": \"x\"}}, \"destination\": {{\"ip\": \"203.0.113.9\"}}, \"port\": 443}}, \
         and Hubble's JSON",
        file_name(path)
    )]
    NoFlows {
        /// The path.
        path: PathBuf,
    },
    /// Something was wrong with the input, and that was not to be.
    #[error("{} in the input, and --strict was given", output::counted(*count, "fault", "faults"))]
    Strict {
        /// How many.
        count: u64,
    },
    /// The pod that is asked about is not there.
    #[error("there is no pod {namespace}/{name} {cluster}{hint}")]
    NoSuchPod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Where it was looked for.
        cluster: String,
        /// What may have been meant.
        hint: String,
    },
    /// A learner's report is not a list of questions.
    #[error(
        "{}: this is a learner's report, of which each line is no question; use `nanoseg audit --flows` for it",
        file_name(path)
    )]
    NotQuestions {
        /// The file.
        path: PathBuf,
    },
    /// A Segment cannot be looked at or decided on.
    #[error(transparent)]
    Review(#[from] ReviewError),
    /// There is no map.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The page cannot be brought here.
    #[error(transparent)]
    Ui(#[from] UiError),
    /// The probe found nothing out.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The answer cannot be printed.
    #[error("cannot print")]
    Print(#[from] io::Error),
    /// An object cannot be printed.
    #[error("cannot print {what}: {reason}")]
    Format {
        /// What.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// All well.
    Nothing,
    /// Something that the exit code tells.
    Something,
}

impl Found {
    const fn when(something: bool) -> Self {
        if something { Self::Something } else { Self::Nothing }
    }
}

/// `nanoseg crd`.
pub fn crd(screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    screen.print(&crd_yaml()?)?;
    Ok(Found::Nothing)
}

/// The `CustomResourceDefinition`s as YAML.
pub fn crd_yaml() -> Result<String, CommandError> {
    let mut definition = serde_json::json!(Segment::crd());
    join_lines(&mut definition);
    output::yaml("the custom resource definitions", &definition)
}

/// Makes one line of each paragraph of the descriptions: kubectl keeps the line breaks that are there and adds its own.
fn join_lines(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    serde_json::Value::String(text) if name == "description" => {
                        *text = text
                            .split("\n\n")
                            .map(|paragraph| paragraph.replace('\n', " "))
                            .collect::<Vec<_>>()
                            .join("\n\n");
                    }
                    value => join_lines(value),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(join_lines),
        _ => {}
    }
}
