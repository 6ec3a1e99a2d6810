//! `nanoseg status`, and the commands by which people decide on Segments: each sets fields of a Segment's spec and nothing else,
//! so that `kubectl edit` and a repository can do the same.

mod decide;
mod novel;

use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::output::{Screen, counted, padded};
use super::segments::{failed, get, of_cluster};
use super::{CommandError, Found};
use crate::read::live::with_cluster;
use crate::segment::{NovelEdge, Segment, SegmentName, SegmentStatus};
use crate::settings::access::{One, Which};
use crate::settings::output::Output;
use crate::settings::review::{DecisionArguments, SegmentArguments, StatusArguments};
use crate::trouble::Trouble;
use decide::{Decision, Undecided, decide};
pub use novel::violations;

/// Field manager of what people decide by these commands.
const MANAGER: &str = "kubectl-nanoseg";

/// What kubectl calls Segments.
const RESOURCE: &str = "segment.nanoseg.io";

/// How often a change is tried that somebody else's overtakes: the controller writes a status every few seconds at most.
const TRIES: usize = 5;

/// Why a Segment cannot be looked at or decided on.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The API server refused it or cannot be reached.
    #[error("cannot {verb} {what} on the API server at {url}")]
    Request {
        /// What was tried.
        verb: &'static str,
        /// On what.
        what: String,
        /// Where.
        url: String,
        /// What it said.
        source: Trouble,
    },
    /// The decision cannot be made.
    #[error("{segment}")]
    Undecided {
        /// On which.
        segment: SegmentName,
        /// Why.
        source: Undecided,
    },
}

/// `nanoseg status`.
pub fn status(arguments: &StatusArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    let StatusArguments { which, output, access } = arguments;
    let segments = of_cluster(which, access, screen)?;
    match (*output, which, &segments[..]) {
        (Output::Document(language), _, _) => {
            for segment in &segments {
                screen.document(language, segment)?;
            }
        }
        (Output::Name, _, _) => {
            for segment in &segments {
                screen.name(RESOURCE, &segment.segment_name().name)?;
            }
        }
        (Output::Table, Which::Segment(_), [segment]) => one(segment, screen)?,
        (Output::Table, _, _) => {
            let mut rows = vec![HEAD.map(str::to_owned)];
            rows.extend(segments.iter().map(row));
            screen.table(*output, &rows)?;
        }
        (Output::Wide, _, _) => {
            let head = HEAD.into_iter().chain(["POLICY", "PROPOSAL", "APPLIED"]);
            let mut rows = vec![padded(head.map(str::to_owned))];
            rows.extend(segments.iter().map(wide));
            screen.table(*output, &rows)?;
        }
    }
    Ok(Found::Nothing)
}

/// `nanoseg approve`.
pub fn approve(arguments: &DecisionArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    let DecisionArguments { of, edges } = arguments;
    change(of, &Decision::Approve(edges), screen)
}

/// `nanoseg reject`.
pub fn reject(arguments: &DecisionArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    let DecisionArguments { of, edges } = arguments;
    change(of, &Decision::Reject(edges), screen)
}

/// `nanoseg promote`.
pub fn promote(arguments: &SegmentArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    change(arguments, &Decision::Promote, screen)
}

/// `nanoseg rollback`.
pub fn rollback(arguments: &SegmentArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    change(arguments, &Decision::Rollback, screen)
}

fn change(
    SegmentArguments {
        segment: One(name),
        output,
        access,
    }: &SegmentArguments,
    decision: &Decision<'_>,
    screen: &mut Screen<'_>,
) -> Result<Found, CommandError> {
    let (done, segment) = with_cluster(access, async |client, url| {
        let api: Api<Segment> = Api::namespaced(client, &name.namespace);
        let mut tries = 0;
        loop {
            let mut segment = get(&api, name, url).await?;
            let done = decide(&mut segment, decision).map_err(|source| ReviewError::Undecided {
                segment: name.clone(),
                source,
            })?;
            let spec = &segment.spec;
            let patch = json!({
                "metadata": { "resourceVersion": segment.metadata.resource_version },
                "spec": {
                    "mode": spec.mode,
                    "promotion": spec.promotion,
                    "approval": spec.approval,
                    "acceptedEdges": (!spec.accepted_edges.is_empty()).then_some(&spec.accepted_edges),
                    "rejectedEdges": (!spec.rejected_edges.is_empty()).then_some(&spec.rejected_edges),
                },
            });
            let params = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            tries += 1;
            match api.patch(&name.name, &params, &Patch::Merge(&patch)).await {
                Ok(changed) => return Ok::<_, CommandError>((done, changed)),
                Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => {}
                Err(error) => return Err(failed("change", name.to_string(), url)(error).into()),
            }
        }
    })?;
    let done = format!("{name}: {done}");
    match output {
        None | Some(Output::Table | Output::Wide) => screen.line(done)?,
        Some(Output::Document(language)) => {
            screen.remark(done);
            screen.document(*language, &segment)?;
        }
        Some(Output::Name) => {
            screen.remark(done);
            screen.name(RESOURCE, &name.name)?;
        }
    }
    Ok(Found::Nothing)
}

const HEAD: [&str; 8] = [
    "SEGMENT",
    "MODE",
    "PHASE",
    "EDGES",
    "NOVEL",
    "WAITING",
    "LOSS",
    "PROMOTABLE",
];

/// Digits of a hash that people compare by eye.
const SHORT: usize = "sha256:".len() + 12;

fn wide(segment: &Segment) -> [String; 11] {
    let status = segment.status.as_ref();
    let hash = |hash: Option<&String>| hash.map(|hash| hash.chars().take(SHORT).collect()).unwrap_or_default();
    let policy = status.and_then(|status| status.policy.clone()).unwrap_or_default();
    let proposal = hash(status.and_then(|status| status.proposal_hash.as_ref()));
    let applied = hash(status.and_then(|status| status.applied_hash.as_ref()));
    padded(row(segment).into_iter().chain([policy, proposal, applied]))
}

fn row(segment: &Segment) -> [String; 8] {
    let name = segment.segment_name();
    let name = format!("{}/{}", name.namespace, name.name);
    let Some(status) = &segment.status else {
        return [
            name,
            String::new(),
            "new".to_owned(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ];
    };
    [
        name,
        status.mode.map(|mode| mode.as_str().to_owned()).unwrap_or_default(),
        status.phase.as_str().to_owned(),
        status.edges.to_string(),
        status.novel.to_string(),
        status.quarantined.len().to_string(),
        status.loss.to_string(),
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Promotable")
            .map(|condition| format!("{} ({})", condition.status, condition.reason))
            .unwrap_or_default(),
    ]
}

fn one(segment: &Segment, screen: &mut Screen<'_>) -> Result<(), CommandError> {
    let name = segment.segment_name();
    let Some(status) = &segment.status else {
        return screen.line(format_args!("{name}: the controller has not seen it yet"));
    };
    let SegmentStatus {
        phase,
        reason,
        mode,
        conditions,
        edges,
        novel,
        novel_edges,
        quarantined,
        loss,
        coverage,
        proposal_hash,
        applied_hash,
        history,
        notes,
        ..
    } = status;
    let mode = mode.map_or("", crate::segment::Mode::as_str);
    screen.line(format_args!("{name}: {}, mode {mode}: {reason}", phase.as_str()))?;
    screen.line(format_args!(
        "  edges {edges}, novel {novel}, lost while learning {loss}"
    ))?;
    if let Some(coverage) = coverage {
        screen.line(format_args!("  {coverage}"))?;
    }
    let hash = |hash: &Option<String>| hash.clone().unwrap_or_else(|| "none".to_owned());
    screen.line(format_args!("  proposal {}", hash(proposal_hash)))?;
    screen.line(format_args!("  approved {}", hash(&segment.spec.approval)))?;
    screen.line(format_args!("  applied  {}", hash(applied_hash)))?;
    for condition in conditions {
        let (kind, status) = (&condition.type_, &condition.status);
        screen.line(format_args!("  {kind} {status}: {}", condition.message))?;
    }
    for quarantined in quarantined {
        let words = &quarantined.edge;
        screen.line(format_args!(
            "  waits for a person ({:?}): {words}",
            quarantined.suspicion
        ))?;
    }
    for NovelEdge {
        edge,
        first_seen,
        count,
        decision,
    } in novel_edges
    {
        let since = first_seen
            .as_ref()
            .map_or_else(String::new, |at| format!(", since {}", at.0));
        let decision = decision.map_or_else(String::new, |decision| format!(", {decision:?}"));
        let times = counted(*count, "time", "times");
        screen.line(format_args!("  novel: {edge}, {times}{since}{decision}"))?;
    }
    for revision in history {
        screen.line(format_args!("  live since {}: {}", revision.at.0, revision.hash))?;
    }
    for note in notes {
        screen.line(format_args!("  note: {note}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nanoseg_graph::endpoint::Workload;

    use super::*;

    #[test]
    fn more_columns_are_the_same_ones_and_hashes() {
        let mut segment = Segment::of(&Workload {
            namespace: "shop".to_owned(),
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
        });
        assert_eq!(wide(&segment)[..8], row(&segment));
        let status =
            "{phase: Stable, learningSince: 2026-01-01T00:00:00Z, policy: p, proposalHash: 'sha256:0123456789abcdef'}";
        segment.status = Some(serde_yaml::from_str(status).unwrap());
        let columns = wide(&segment);
        assert_eq!(columns[..8], row(&segment));
        assert_eq!(columns[8..], ["p", "sha256:0123456789ab", ""]);
    }
}
