//! Writing to an API server: server-side apply under our own field manager, deletion by UID.

use std::fmt::Debug;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt as _};
use nanoseg_policy::ownership::PolicyName;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Events, Live, WriteError};
use crate::reconcile::{MANAGER, Notice, ObjectId, Proposals, SegmentWrite, Violation};
use crate::segment::{Segment, SegmentName};
use crate::watch;

/// Policies and Segments on an API server. Proposals are in the status of Segments, violations too.
#[derive(Clone)]
pub struct OnCluster {
    client: Client,
    events: Events,
}

impl OnCluster {
    /// On the API server of this client, as the controller of this name.
    pub fn new(client: Client, name: &str) -> Self {
        let events = Events::begin(&client, name);
        Self { client, events }
    }

    fn segments(&self, segment: &Segment) -> (Api<Segment>, SegmentName) {
        let name = segment.segment_name();
        (Api::namespaced(self.client.clone(), &name.namespace), name)
    }

    fn policies(&self, policy: &NetworkPolicy) -> (Api<NetworkPolicy>, PolicyName) {
        let name = PolicyName::of(policy);
        (Api::namespaced(self.client.clone(), &name.namespace), name)
    }
}

/// Server-side apply. It takes over only the fields that are in the request, and those are ours by definition.
fn ours() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

fn trouble(verb: &'static str, object: ObjectId) -> impl FnOnce(kube::Error) -> WriteError {
    move |source| WriteError::Cluster {
        verb,
        object,
        source: source.into(),
    }
}

impl Live for OnCluster {
    async fn put_segment(&self, write: &SegmentWrite) -> Result<Segment, WriteError> {
        let SegmentWrite { segment, exists } = write;
        let (api, name) = self.segments(segment);
        let id = || ObjectId::Segment(name.clone());
        if !exists {
            // Without the mode, which is people's.
            let new = Segment::of_same_workload(segment);
            api.patch(&name.name, &ours(), &Patch::Apply(&new))
                .await
                .map_err(trouble("create", id()))?;
        }
        let status = json!({ "apiVersion": "nanoseg.io/v1alpha1", "kind": "Segment", "status": segment.status });
        let patch = Patch::Apply(&status);
        let mut written = api
            .patch_status(&name.name, &ours(), &patch)
            .await
            .map_err(trouble("write the status of", id()))?;
        // As the watch tells it: what it says again of this is no news then.
        written.metadata.managed_fields = None;
        Ok(written)
    }

    async fn remove_segment(&self, segment: &Segment) -> Result<(), WriteError> {
        let (api, name) = self.segments(segment);
        delete(&api, &name.name.clone(), segment.uid(), ObjectId::Segment(name)).await
    }

    async fn put_policy(&self, desired: &NetworkPolicy) -> Result<NetworkPolicy, WriteError> {
        let (api, name) = self.policies(desired);
        let id = || ObjectId::Policy(name.clone());
        let patch = Patch::Apply(desired);
        let mut live = api
            .patch(&name.name, &ours(), &patch)
            .await
            .map_err(trouble("apply", id()))?;
        // A field that another manager added inside `spec` is not ours to apply away, yet a reader takes it for part of the policy,
        // and it may change what the policy means. The resource version in `live` makes this fail, and be tried again, if
        // somebody writes in between.
        if live.spec != desired.spec {
            let change = json!({
                "metadata": { "resourceVersion": live.metadata.resource_version },
                "spec": merge_patch(&json!(live.spec), &json!(desired.spec)),
            });
            let params = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            live = api
                .patch(&name.name, &params, &Patch::Merge(&change))
                .await
                .map_err(trouble("mend", id()))?;
        }
        Ok(watch::bare(live))
    }

    async fn remove_policy(&self, live: &NetworkPolicy) -> Result<(), WriteError> {
        let (api, name) = self.policies(live);
        delete(&api, &name.name.clone(), live.uid(), ObjectId::Policy(name)).await
    }

    async fn put_proposals(&self, proposals: &Proposals) -> Result<(), WriteError> {
        for name in &proposals.changed {
            tracing::info!(policy = %name, "policy proposed");
        }
        Ok(())
    }

    fn tell(&self, notices: Vec<Notice>) {
        for notice in notices {
            self.events.tell(notice);
        }
    }

    async fn record(&self, _violations: &[Violation]) -> Result<(), WriteError> {
        Ok(())
    }
}

/// The merge patch (RFC 7396) that makes `to` of `from`. `to` has no nulls, which the format could not carry.
fn merge_patch(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let gone = from
        .keys()
        .filter(|key| !to.contains_key(*key))
        .map(|key| (key.clone(), Value::Null));
    let changed = to.iter().filter(|(key, value)| from.get(*key) != Some(value));
    let changed = changed.map(|(key, value)| (key.clone(), merge_patch(from.get(key).unwrap_or(&Value::Null), value)));
    gone.chain(changed).collect()
}

async fn delete<K>(api: &Api<K>, name: &str, uid: Option<String>, object: ObjectId) -> Result<(), WriteError>
where
    K: Clone + Debug + DeserializeOwned,
{
    // Another object of the same name, made in the meantime, is not meant.
    let preconditions = Some(Preconditions {
        uid,
        resource_version: None,
    });
    match api
        .delete(
            name,
            &DeleteParams {
                preconditions,
                ..DeleteParams::default()
            },
        )
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(trouble("delete", object)(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_names_what_changes_and_what_goes() {
        let live = json!({ "podSelector": { "matchLabels": { "a": "1", "b": "2" } }, "egress": [{}], "policyTypes": ["Ingress"] });
        let desired = json!({ "podSelector": { "matchLabels": { "a": "1" } }, "ingress": [{ "ports": [] }], "policyTypes": ["Ingress"] });
        let patch =
            json!({ "podSelector": { "matchLabels": { "b": null } }, "egress": null, "ingress": [{ "ports": [] }] });
        assert_eq!(merge_patch(&live, &desired), patch);
    }
}
