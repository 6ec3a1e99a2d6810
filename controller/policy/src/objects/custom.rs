//! Kinds of other groups that make pods of a template: what identity and policies need of them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use nanoseg_graph::cluster::Object;
use serde::Deserialize;

use super::template::{Declaration, wanted};
use super::{Unreadable, controller};

/// The kinds, by `apiVersion` and kind.
const KINDS: [(&str, &str); 2] = [
    ("apps.openshift.io/v1", "DeploymentConfig"),
    ("argoproj.io/v1alpha1", "Rollout"),
];

pub(super) fn is_workload(api_version: &str, kind: &str) -> bool {
    KINDS.contains(&(api_version, kind))
}

/// A workload of such a kind.
#[derive(Deserialize)]
pub(super) struct CustomWorkload {
    #[serde(default)]
    metadata: ObjectMeta,
    spec: Option<Spec>,
}

#[derive(Deserialize)]
struct Spec {
    replicas: Option<i32>,
    selector: Option<PodSelector>,
    template: Option<PodTemplateSpec>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PodSelector {
    Labels(BTreeMap<String, String>),
    Selector(LabelSelector),
}

impl CustomWorkload {
    /// The template of its pods, if it is not another object's.
    pub(super) fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    pub(super) fn declaration(&self) -> Option<Declaration<'_>> {
        let spec = self.spec.as_ref().filter(|spec| wanted(spec.replicas))?;
        Some(Declaration::new(&self.metadata, spec.template.as_ref()?))
    }

    pub(super) fn object(&self, kind: &str) -> Result<Object, Unreadable> {
        let selector = self.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selector = selector.map(|selector| match selector {
            PodSelector::Labels(labels) => LabelSelector {
                match_labels: Some(labels.clone()),
                match_expressions: None,
            },
            PodSelector::Selector(selector) => selector.clone(),
        });
        let labels = self.template().and_then(|template| template.metadata.as_ref());
        controller(kind, &self.metadata, selector.as_ref(), labels)
    }
}
