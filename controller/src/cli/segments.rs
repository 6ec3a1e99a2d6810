//! The Segments that a command looks at, of the cluster or of files, and what follows from their proposals.

use std::path::PathBuf;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ListParams};

use super::input::Input;
use super::output::Screen;
use super::{CommandError, ReviewError};
use crate::read::live::with_cluster;
use crate::read::{Document, Fault, MANIFEST_EXTENSIONS, ReadError, documents, files};
use crate::segment::{Segment, SegmentName};
use crate::settings::access::{Access, Which};
use crate::settings::commands::{InputArguments, ProposalArguments, SegmentFiles};

/// Those of the cluster that are meant.
pub(super) fn of_cluster(
    which: &Which,
    access: &Access,
    screen: &mut Screen<'_>,
) -> Result<Vec<Segment>, CommandError> {
    screen.busy("reading the Segments");
    with_cluster(access, async |client, url| {
        let (api, what): (Api<Segment>, _) = match which {
            Which::All => (Api::all(client), "Segments".to_owned()),
            Which::Namespace(namespace) => (
                Api::namespaced(client, namespace),
                format!("Segments of namespace {namespace}"),
            ),
            Which::Segment(name) => {
                let segment = get(&Api::namespaced(client, &name.namespace), name, url).await?;
                return Ok::<_, CommandError>(vec![segment]);
            }
        };
        let list = api.list(&ListParams::default()).await;
        Ok(list.map_err(failed("list", what, url))?.items)
    })
}

/// One of the cluster.
pub(super) async fn get(api: &Api<Segment>, name: &SegmentName, url: &str) -> Result<Segment, ReviewError> {
    api.get(&name.name).await.map_err(failed("get", name.to_string(), url))
}

/// What was tried in vain, and where.
pub(super) fn failed(verb: &'static str, what: String, url: &str) -> impl FnOnce(kube::Error) -> ReviewError {
    let url = url.to_owned();
    move |error| ReviewError::Request {
        verb,
        what,
        url,
        source: error.into(),
    }
}

/// Those in some files.
pub(super) fn of_files(
    paths: &[PathBuf],
    input: &mut Input,
    screen: &mut Screen<'_>,
) -> Result<Vec<Segment>, ReadError> {
    let mut segments = Vec::new();
    for path in paths {
        for file in files(path, &MANIFEST_EXTENSIONS)? {
            for document in documents(&file) {
                // A list as kubectl prints it, or one object for each document.
                match document.and_then(Document::unfolded::<Segment>) {
                    Ok(listed) => segments.extend(listed),
                    Err(fault) => input.faults.about(&fault, screen),
                }
            }
        }
    }
    Ok(segments)
}

/// The policies that Segments propose. What cannot be read of them is a fault.
pub(super) fn proposals(segments: &[Segment], input: &mut Input, screen: &mut Screen<'_>) -> Vec<NetworkPolicy> {
    let mut proposals = Vec::new();
    for segment in segments {
        match segment.proposed_policy() {
            Ok(proposal) => proposals.extend(proposal),
            Err(source) => input.faults.about(
                &Fault::Segment {
                    segment: segment.segment_name(),
                    source: Box::new(source),
                },
                screen,
            ),
        }
    }
    proposals
}

/// Lets a command judge as if what is proposed were applied, where that is asked for.
pub(super) fn propose(
    arguments: &ProposalArguments,
    from: &InputArguments,
    input: &mut Input,
    screen: &mut Screen<'_>,
) -> Result<(), CommandError> {
    let ProposalArguments {
        proposed,
        segments: SegmentFiles { files },
    } = arguments;
    let segments = if *proposed {
        of_cluster(&Which::All, &from.access, screen)?
    } else {
        of_files(files, input, screen)?
    };
    let proposals = proposals(&segments, input, screen);
    input.policies.extend(proposals);
    Ok(())
}
