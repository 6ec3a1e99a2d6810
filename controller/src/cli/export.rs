//! `nanoseg export`: the segmentation map to take away.

use std::path::{Path, PathBuf};
use std::{fs, io};

use jiff::Timestamp;
use kube::api::{Api, ListParams};
use nanoseg_graph::connection::ConnectionGraph;
use nanoseg_policy::evaluate::PolicySet;
use nanoseg_policy::map::{self, Changes, Map};

use super::input::Input;
use super::output::Screen;
use super::segments::{of_files, proposals};
use super::{CommandError, Found};
use crate::read::live::{ConnectError, with_cluster};
use crate::read::place::{file_name, open};
use crate::read::{Fault, ReadError};
use crate::segment::Segment;
use crate::settings::access::Access;
use crate::settings::commands::SegmentFiles;
use crate::settings::maps::{ExportArguments, Format};
use crate::trouble::Trouble;

/// Why there is no map.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The earlier map cannot be read.
    #[error("cannot read {}", file_name(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The earlier map is none.
    #[error("{}: this is not a map; `nanoseg export --format json` writes one", file_name(path))]
    NotAMap {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Neither an option nor the file's name says it.
    #[error(
        "which format? name one by --format, or a file by --out that ends in .html, .svg, .dot, .graphml, .mmd, .csv, .json or .md"
    )]
    WhichFormat,
    /// Changes have no such form.
    #[error("what changed has no form {0}: use html, markdown, csv or json with --since")]
    NoForm(&'static str),
    /// The file cannot be written.
    #[error("cannot write {}", file_name(path))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The Segments cannot be listed.
    #[error(
        "cannot list Segments at {url}; are the CRDs there (`nanoseg crd`), and may you list segments.nanoseg.io in all namespaces?"
    )]
    Segments {
        /// The API server.
        url: String,
        /// What it said.
        source: Trouble,
    },
    /// There is no way to the cluster.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Segments cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Writes the map down.
pub fn export(arguments: &ExportArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    let ExportArguments {
        input: from,
        flows,
        policies,
        segments: SegmentFiles { files },
        format,
        out,
        since,
        schema,
    } = arguments;
    if *schema {
        screen.print(&Map::schema())?;
        return Ok(Found::Nothing);
    }
    // Whoever names the file says it by its name.
    let by_name = || Format::of_file(out.as_deref()?);
    let format = format.or_else(by_name).ok_or(ExportError::WhichFormat)?;
    let earlier = since.as_deref().map(|path| earlier(path, format)).transpose()?;
    let others: Vec<_> = flows
        .iter()
        .chain(files)
        .chain(&policies.policies)
        .chain(since)
        .cloned()
        .collect();
    let mut input = Input::read(from, &[], &others, screen)?;
    let segments = if from.cluster.is_empty() {
        screen.busy("reading the Segments");
        listed(&from.access)?
    } else {
        of_files(files, &mut input, screen)?
    };
    let live = input.policies(screen);
    let proposed = proposed(&mut input, &policies.policies, &segments, screen)?;
    let graph = if flows.is_empty() {
        ConnectionGraph::default()
    } else {
        input.graph(flows, screen)?
    };
    let mut told = Vec::new();
    for segment in &segments {
        match segment.on_map() {
            Ok(segment) => told.push(segment),
            Err(source) => input.faults.about(
                &Fault::Segment {
                    segment: segment.segment_name(),
                    source: Box::new(source),
                },
                screen,
            ),
        }
    }
    input.faults.settle(screen)?;
    screen.busy("drawing the map");
    let map = Map::draw(&map::Input {
        cluster: &input.cluster,
        graph: &graph,
        live: &live,
        proposed: proposed.as_ref(),
        segments: &told,
        // What is not among the flows that were given is no longer seen; where none were, nobody knows.
        stale_before: (!flows.is_empty()).then_some(Timestamp::MIN),
        places: None,
    });
    let changes = earlier.map(|earlier| Changes::between(&earlier, &map));
    let text = written(&map, changes.as_ref(), format)?;
    match out {
        Some(path) => fs::write(path, text).map_err(|source| ExportError::Write {
            path: path.clone(),
            source,
        })?,
        None => screen.print(&text)?,
    }
    Ok(Found::when(changes.is_some_and(|changes| !changes.is_empty())))
}

/// An earlier map, to be compared with.
fn earlier(path: &Path, format: Format) -> Result<Map, ExportError> {
    match format {
        Format::Html | Format::Markdown | Format::Csv | Format::Json => {}
        Format::Svg => return Err(ExportError::NoForm("svg")),
        Format::Dot => return Err(ExportError::NoForm("dot")),
        Format::Graphml => return Err(ExportError::NoForm("graphml")),
        Format::Mermaid => return Err(ExportError::NoForm("mermaid")),
    }
    let text = open(path)
        .and_then(io::read_to_string)
        .map_err(|source| ExportError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
    serde_json::from_str(&text).map_err(|source| ExportError::NotAMap {
        path: path.to_owned(),
        source,
    })
}

/// The policies as they would be with those of some paths and of the Segments' proposals; `None` where nothing is proposed.
fn proposed(
    input: &mut Input,
    paths: &[PathBuf],
    segments: &[Segment],
    screen: &mut Screen<'_>,
) -> Result<Option<PolicySet>, CommandError> {
    let proposals = proposals(segments, input, screen);
    if paths.is_empty() && proposals.is_empty() {
        return Ok(None);
    }
    input.policies.extend(proposals);
    input.add_policies(paths, screen)?;
    Ok(Some(input.policies(screen)))
}

/// The Segments of the cluster.
fn listed(access: &Access) -> Result<Vec<Segment>, ExportError> {
    with_cluster(access, async |client, url| {
        let list = Api::<Segment>::all(client).list(&ListParams::default()).await;
        match list {
            Ok(list) => Ok(list.items),
            // Where nanoseg was never installed nobody has learned anything.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(ExportError::Segments {
                url: url.to_owned(),
                source: error.into(),
            }),
        }
    })
}

fn written(map: &Map, changes: Option<&Changes>, format: Format) -> Result<String, CommandError> {
    let json = |document: serde_json::Result<String>| {
        document
            .map(|text| map::visible_json(&text).into_owned() + "\n")
            .map_err(|error| CommandError::Format {
                what: "the map",
                reason: error.to_string(),
            })
    };
    Ok(match format {
        Format::Html => map::html(map, changes),
        Format::Svg => map::svg(map),
        Format::Dot => map::dot(map),
        Format::Graphml => map::graphml(map),
        Format::Mermaid => map::mermaid(map),
        Format::Csv => map::csv(map, changes),
        Format::Markdown => map::markdown(map, changes),
        Format::Json => match changes {
            Some(changes) => json(serde_json::to_string_pretty(changes))?,
            None => json(serde_json::to_string_pretty(map))?,
        },
    })
}
