//! The images that a pod runs.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core;
use nanoseg_graph::cluster::Image;

use super::non_empty;

/// What all containers run, with the digests that the container runtime tells.
pub(super) fn images(spec: Option<&core::v1::PodSpec>, status: Option<&core::v1::PodStatus>) -> BTreeSet<Image> {
    let told = status.into_iter().flat_map(|status| {
        let all = [&status.container_statuses, &status.init_container_statuses];
        all.into_iter().flatten().flatten()
    });
    let digests: BTreeMap<&str, &str> = told
        .filter_map(|status| Some((status.name.as_str(), digest_in(&status.image_id)?)))
        .collect();
    let containers = spec.into_iter().flat_map(|spec| {
        let init = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(init)
    });
    let image = |container: &core::v1::Container| {
        let name = non_empty(container.image.as_deref())?;
        let digest = digests
            .get(container.name.as_str())
            .copied()
            .or_else(|| digest_in(&name));
        let digest = digest.map(str::to_owned);
        Some(Image { name, digest })
    };
    containers.filter_map(image).collect()
}

/// The digest in a reference: behind its `@`, or all of one that names no repository.
fn digest_in(reference: &str) -> Option<&str> {
    let digest = match reference.rsplit_once('@') {
        Some((_, digest)) => digest,
        None => reference,
    };
    digest.starts_with("sha256:").then_some(digest)
}
