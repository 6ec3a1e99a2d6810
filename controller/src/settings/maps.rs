//! Arguments of the commands about the segmentation map.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{ArgGroup, Args, ValueEnum};

use super::commands::{InputArguments, PolicyArguments, ProposalArguments, SegmentFiles};
use super::output::{Output, TABLES};

pub(super) const EXPORT_EXAMPLES: &str = "\
Examples:
  The cluster of the current kubeconfig, its policies and its Segments:
    nanoseg export --out map.html
    nanoseg export -o dot | dot -Tpdf -o map.pdf
  Files:
    nanoseg export --cluster manifests/ --flows reports/ -o svg --out map.svg
    nanoseg export --cluster manifests/ --flows reports/ --policies policies/proposed/ -o markdown
  To keep, and what changed since the next time:
    nanoseg export --cluster manifests/ --flows reports/ -o json --out audit.json
    nanoseg export --cluster manifests/ --flows reports/ -o markdown --since audit.json
  The schema of the JSON form:
    nanoseg export --schema

States:
  Enforced       a policy in force allows it by a rule
  Covered        only the proposal does
  Observed       no policy in force is about it
  Denied         by the policies in force
  WouldBeDenied  by --policies and the Segments' proposals
  Novel, Quarantined, Stale: as the Segment has it
  Undecided      nobody can say
Equal input gives the same bytes. Names are texts in every format, whatever
they are made of.

Exit code 0; 1 if something changed (--since); 2 if the input cannot be used.";

pub(super) const REACH_EXAMPLES: &str = "\
Examples:
  By its name, or as shop/Deployment/web:
    nanoseg reach --workload shop/web
  Whoever runs an image: a digest, its first 12 digits or more, or a name:
    nanoseg reach --image sha256:4f53cda18c2baa0c
    nanoseg reach --image r.example/shop/web:1 -o json | jq '.reaches[] | select(.hops == 1)'
  As it would be with what is proposed:
    nanoseg reach --proposed --workload shop/web
    nanoseg reach --cluster manifests/ --policies policies/proposed/ --workload shop/web

Whoever has taken a workload over can go as far as policies let its pods
connect, from there on as far as they let those, and so on. Which ports somebody
listens at is not looked at.

Exit code 0; 1 if there is no such workload, or nobody runs the image; 2 if the
input cannot be used.";

/// Arguments of `nanoseg export`.
#[derive(Debug, Args)]
pub struct ExportArguments {
    #[command(flatten)]
    pub input: InputArguments,
    /// Learners' reports, JSON lines or Hubble's JSON, plain or gzip; `-`: standard input. Can be given several times
    #[arg(long, value_name = "DIR|FILE|-")]
    pub flows: Vec<PathBuf>,
    #[command(flatten)]
    pub policies: PolicyArguments,
    #[command(flatten)]
    pub segments: SegmentFiles,
    /// What to write [default: as the name of --out ends]
    #[arg(short = 'o', long, value_enum)]
    pub format: Option<Format>,
    /// Write into this file instead of printing
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// An earlier map as JSON: tell what changed since, as html, markdown, csv or json. With json and csv nothing else is told;
    /// `-`: standard input
    #[arg(long, value_name = "MAP.json|-")]
    pub since: Option<PathBuf>,
    /// Print the schema of the JSON form instead
    #[arg(long, exclusive = true)]
    pub schema: bool,
}

/// Forms of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A page that opens without a server and prints.
    Html,
    /// A picture.
    Svg,
    /// Graphviz.
    Dot,
    /// For yEd, Gephi and the like.
    Graphml,
    /// As code hosts and wikis draw it.
    Mermaid,
    /// One row for each connection.
    Csv,
    /// All of it; `nanoseg export --schema` prints its schema.
    Json,
    /// Tables for pull requests and wikis.
    Markdown,
}

impl Format {
    /// What a file's name says that it is to hold.
    pub fn of_file(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "html" | "htm" => Some(Self::Html),
            "svg" => Some(Self::Svg),
            "dot" | "gv" => Some(Self::Dot),
            "graphml" => Some(Self::Graphml),
            "mmd" | "mermaid" => Some(Self::Mermaid),
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "md" | "markdown" => Some(Self::Markdown),
            _ => None,
        }
    }
}

/// Arguments of `nanoseg reach`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("of").required(true).multiple(false))]
pub struct ReachArguments {
    #[command(flatten)]
    pub input: InputArguments,
    #[command(flatten)]
    pub policies: PolicyArguments,
    #[command(flatten)]
    pub proposals: ProposalArguments,
    /// The workload
    #[arg(long, value_name = "NAMESPACE[/KIND]/NAME", group = "of")]
    pub workload: Option<Wanted>,
    /// Every workload that runs this image: by its digest, or by its name as pods write it
    #[arg(long, value_name = "DIGEST|NAME", group = "of")]
    pub image: Option<String>,
    /// How to print
    #[arg(short, long, value_parser = TABLES, default_value = "table")]
    pub output: Output,
}

/// A workload that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its namespace.
    pub namespace: String,
    /// Its kind; without it whatever has the name.
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
}

impl FromStr for Wanted {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, kind, name) = match text.split('/').collect::<Vec<_>>()[..] {
            [namespace, name] => (namespace, None, name),
            [namespace, kind, name] => (namespace, Some(kind), name),
            _ => return Err("write NAMESPACE/NAME or NAMESPACE/KIND/NAME"),
        };
        if namespace.is_empty() || name.is_empty() || kind == Some("") {
            return Err("write NAMESPACE/NAME or NAMESPACE/KIND/NAME");
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            kind: kind.map(str::to_owned),
            name: name.to_owned(),
        })
    }
}
