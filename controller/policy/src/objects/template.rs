//! Pods that are not there yet, as the templates of their workloads describe them.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::api::{apps, batch, core};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nanoseg_graph::cluster::{Addresses, Cluster, OwnerRef, Pod, PodPhase};
use nanoseg_graph::endpoint::Workload;

use super::{ObjectName, TEMPLATE_LABELS, Unreadable, container_ports, labels_of, name_of, namespace_of, non_empty};

/// Of declared pods those whose workloads have no pod in the cluster, so that workloads can be asked about before they run. A
/// name that another pod has gets its workload's kind before it.
pub fn stand_ins(cluster: &Cluster, declared: Vec<Pod>) -> Vec<Pod> {
    let present: BTreeSet<Workload> = cluster.pods().map(|pod| cluster.workload_of(pod)).collect();
    let mut taken = BTreeSet::new();
    let mut stand_ins = Vec::new();
    for mut pod in declared {
        let workload = cluster.workload_of(&pod);
        if present.contains(&workload) {
            continue;
        }
        let is_taken = |name: &str| {
            cluster.pod(&workload.namespace, name).is_some()
                || taken.contains(&(workload.namespace.clone(), name.to_owned()))
        };
        if is_taken(&pod.name) {
            pod.name = format!("{}-{}", workload.kind.to_lowercase(), pod.name).into();
        }
        taken.insert((pod.namespace.to_string(), pod.name.to_string()));
        stand_ins.push(pod);
    }
    stand_ins
}

/// A workload that makes pods of a template.
pub(super) struct Declaration<'a> {
    metadata: &'a ObjectMeta,
    template: &'a PodTemplateSpec,
    /// What follows the workload's name in that of its first pod, where that is known.
    suffix: &'static str,
    /// Labels that its controller adds and that do not change from pod to pod, with the pod's name as their value.
    named_by: &'static [&'static str],
}

impl<'a> Declaration<'a> {
    pub(super) const fn new(metadata: &'a ObjectMeta, template: &'a PodTemplateSpec) -> Self {
        Self {
            metadata,
            template,
            suffix: "",
            named_by: &[],
        }
    }

    /// The pod that stands for all; none for what another object makes, which has its own template.
    pub(super) fn pod(&self, object: &ObjectName) -> Result<Option<Pod>, Unreadable> {
        let owned = self.metadata.owner_references.iter().flatten();
        if owned.into_iter().any(|owner| owner.controller == Some(true)) {
            return Ok(None);
        }
        let workload = name_of(object)?;
        let namespace = namespace_of(object)?;
        let name = format!("{workload}{}", self.suffix);
        let mut labels = self
            .template
            .metadata
            .as_ref()
            .map(|metadata| labels_of(object, TEMPLATE_LABELS, metadata))
            .transpose()?
            .unwrap_or_default();
        labels.extend(self.named_by.iter().map(|label| ((*label).to_owned(), name.clone())));
        let spec = self.template.spec.as_ref();
        Ok(Some(Pod {
            // Two workloads of different kinds may have one name; neither is the UID of a pod.
            uid: format!("{namespace}/{}/{workload}", object.kind).into(),
            mirror_uid: None,
            images: super::image::images(spec, None).into(),
            namespace: namespace.into(),
            name: name.into(),
            labels: labels.into(),
            owner: Some(Arc::new(OwnerRef {
                kind: object.kind.clone(),
                name: workload,
            })),
            addresses: Addresses::default(),
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
            node: spec
                .and_then(|spec| non_empty(spec.node_name.as_deref()))
                .map(Arc::from),
            ports: spec
                .map(|spec| container_ports(object, spec))
                .transpose()?
                .unwrap_or_default()
                .into(),
            phase: PodPhase::Declared,
            ready: true,
            started: None,
        }))
    }
}

/// Whether any pod is wanted. Absent means one.
pub(super) const fn wanted(replicas: Option<i32>) -> bool {
    !matches!(replicas, Some(0))
}

pub(super) fn of_replication_controller(set: &core::v1::ReplicationController) -> Option<Declaration<'_>> {
    let spec = set.spec.as_ref().filter(|spec| wanted(spec.replicas))?;
    Some(Declaration::new(&set.metadata, spec.template.as_ref()?))
}

pub(super) fn of_replica_set(set: &apps::v1::ReplicaSet) -> Option<Declaration<'_>> {
    let spec = set.spec.as_ref().filter(|spec| wanted(spec.replicas))?;
    Some(Declaration::new(&set.metadata, spec.template.as_ref()?))
}

pub(super) fn of_deployment(deployment: &apps::v1::Deployment) -> Option<Declaration<'_>> {
    let spec = deployment.spec.as_ref().filter(|spec| wanted(spec.replicas))?;
    Some(Declaration::new(&deployment.metadata, &spec.template))
}

pub(super) fn of_stateful_set(set: &apps::v1::StatefulSet) -> Option<Declaration<'_>> {
    let spec = set.spec.as_ref().filter(|spec| wanted(spec.replicas))?;
    Some(Declaration {
        suffix: "-0",
        named_by: &["statefulset.kubernetes.io/pod-name"],
        ..Declaration::new(&set.metadata, &spec.template)
    })
}

pub(super) fn of_daemon_set(set: &apps::v1::DaemonSet) -> Option<Declaration<'_>> {
    Some(Declaration::new(&set.metadata, &set.spec.as_ref()?.template))
}

/// A Job that has begun has pods, or had them.
pub(super) fn of_job(job: &batch::v1::Job) -> Option<Declaration<'_>> {
    if job.status.as_ref().is_some_and(|status| status.start_time.is_some()) {
        return None;
    }
    Some(Declaration {
        named_by: &["batch.kubernetes.io/job-name", "job-name"],
        ..Declaration::new(&job.metadata, &job.spec.as_ref()?.template)
    })
}

pub(super) fn of_cron_job(job: &batch::v1::CronJob) -> Option<Declaration<'_>> {
    Some(Declaration::new(
        &job.metadata,
        &job.spec.job_template.spec.as_ref()?.template,
    ))
}
