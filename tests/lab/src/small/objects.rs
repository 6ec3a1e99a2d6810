//! The cluster as `kubectl get -o yaml` would print it: what a person applied, with what the API server fills in, and what the
//! controllers and kubelet make of it. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cluster::{Cluster, Generation, NODE, NODE_ADDRESSES, POD_CIDRS, Phase, Pod};
use crate::app::{Backing, Kind, Labels, Protocol, Service, Workload};
use crate::manifest::{self, ManifestError};

/// Objects by the file that they belong to: one for each namespace, and one for what is in none.
pub(super) type Files = BTreeMap<String, Vec<Value>>;

/// Everything.
pub(super) fn files(cluster: &Cluster) -> Result<Files, ManifestError> {
    let mut files = Files::new();
    let mut add = |namespace: &str, object: Value| files.entry(format!("{namespace}.yaml")).or_default().push(object);
    for name in namespaces(cluster) {
        add("cluster", namespace(cluster, &name));
    }
    add("cluster", node(cluster));
    let wiring = cluster.wiring();
    for object in manifest::objects(&wiring)? {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let place = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let removed = Kind::from_name(&kind).is_some_and(|_kind| {
            !cluster
                .workloads()
                .any(|workload| workload.id().to_string() == format!("{place}/{name}"))
        });
        // Namespaces are among those above, and a bare pod is the same object as the pod that runs.
        if !place.is_empty() && kind != "Pod" && !removed {
            add(&place, filled_in(cluster, object, &kind));
        }
    }
    for generation in &cluster.generations {
        if let Some(workload) = cluster.app.workload(&generation.workload)
            && let Some(object) = self::generation(cluster, workload, generation)?
        {
            add(workload.namespace.as_str(), object);
        }
    }
    for pod in &cluster.pods {
        if let Some(workload) = cluster.app.workload(&pod.workload) {
            add(workload.namespace.as_str(), self::pod(cluster, workload, pod)?);
        }
    }
    for service in &cluster.services {
        for slice in slices(cluster, service) {
            add(service.namespace.as_str(), slice);
        }
    }
    Ok(files)
}

/// As the API server prints times: to the second, which never makes one later than it was.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn namespaces(cluster: &Cluster) -> Vec<String> {
    let mut names: Vec<String> = ["default", "kube-node-lease", "kube-public", "kube-system"]
        .map(str::to_owned)
        .into();
    for namespace in &cluster.app.namespaces {
        if !names.iter().any(|name| name == namespace.name.as_str()) {
            names.push(namespace.name.to_string());
        }
    }
    names
}

fn namespace(cluster: &Cluster, name: &str) -> Value {
    let described = cluster
        .app
        .namespaces
        .iter()
        .find(|namespace| namespace.name.as_str() == name);
    let mut labels = described.map(|namespace| namespace.labels.clone()).unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": labels, "creationTimestamp": time(cluster.created), "uid": super::cluster::uid(name)},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    })
}

fn node(cluster: &Cluster) -> Value {
    let mut addresses: Vec<Value> = NODE_ADDRESSES
        .iter()
        .map(|address| json!({"type": "InternalIP", "address": address}))
        .collect();
    addresses.push(json!({"type": "Hostname", "address": NODE}));
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": NODE, "uid": cluster.uid_of("Node", &NODE), "creationTimestamp": time(cluster.created),
            "labels": {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"},
        },
        "spec": {"podCIDR": POD_CIDRS[0], "podCIDRs": POD_CIDRS},
        "status": {"addresses": addresses, "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// Adds what the API server and the controllers add to an applied object.
fn filled_in(cluster: &Cluster, mut object: Value, kind: &str) -> Value {
    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    let id = format!(
        "{}/{}",
        text(&object["metadata"]["namespace"]),
        text(&object["metadata"]["name"])
    );
    object["metadata"]["creationTimestamp"] = json!(time(cluster.created));
    object["metadata"]["uid"] = json!(cluster.uid_of(kind, &id));
    if kind == "EndpointSlice" {
        object["metadata"]["uid"] = json!(super::cluster::uid(&id));
    }
    let running = cluster
        .pods
        .iter()
        .filter(|pod| pod.phase == Phase::Running && pod.workload.to_string() == id)
        .count();
    match kind {
        "Service" => {
            let service = cluster.services.iter().find(|service| service.id().to_string() == id);
            let own = service.and_then(|service| cluster.service_addresses.get(&service.id()));
            match own.map(Vec::as_slice) {
                Some([first, ..]) => {
                    object["spec"]["clusterIP"] = json!(first);
                    object["spec"]["clusterIPs"] = json!(own);
                }
                _ if service.is_some_and(|service| service.headless) => {
                    object["spec"]["clusterIPs"] = json!(["None"]);
                }
                _ => {}
            }
        }
        "Deployment" | "StatefulSet" => {
            object["status"] = json!({"replicas": running, "readyReplicas": running, "availableReplicas": running});
        }
        "DaemonSet" => {
            object["status"] = json!({"desiredNumberScheduled": 1, "currentNumberScheduled": running, "numberReady": running, "numberMisscheduled": 0});
        }
        "Job" => {
            let done = cluster
                .pods
                .iter()
                .any(|pod| pod.phase == Phase::Succeeded && pod.workload.to_string() == id);
            object["status"] = if done {
                json!({"succeeded": 1})
            } else {
                json!({"active": running})
            };
            // The API server makes the selector of a Job itself.
            let uid = object["metadata"]["uid"].clone();
            object["spec"]["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
        }
        _ => {}
    }
    object
}

fn reference(kind: &str, api: &str, name: &str, uid: &str) -> Value {
    json!([{"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": true}])
}

fn generation(cluster: &Cluster, workload: &Workload, generation: &Generation) -> Result<Option<Value>, ManifestError> {
    let config = cluster.wiring().peer(workload);
    let mut template = manifest::pod_template(workload, &config)?;
    let own_uid = cluster.uid_of(workload.kind.as_str(), &workload.id());
    let pods: Vec<&Pod> = cluster
        .pods
        .iter()
        .filter(|pod| pod.owner.as_ref().is_some_and(|owner| owner.uid == generation.uid))
        .collect();
    let mut object = match workload.kind {
        Kind::Deployment => {
            let mut labels = workload.labels.clone();
            labels.insert("pod-template-hash".to_owned(), generation.hash.clone());
            let mut selector = workload.selector().clone();
            selector.insert("pod-template-hash".to_owned(), generation.hash.clone());
            template["metadata"]["labels"] = json!(labels);
            json!({
                "apiVersion": "apps/v1", "kind": "ReplicaSet",
                "metadata": manifest::metadata(workload.namespace.as_str(), &generation.name, &labels),
                "spec": {"replicas": pods.len(), "selector": {"matchLabels": selector}, "template": template},
                "status": {"replicas": pods.len(), "readyReplicas": pods.len()},
            })
        }
        Kind::CronJob => {
            let done = pods.iter().filter(|pod| pod.phase == Phase::Succeeded).count();
            let mut spec = manifest::job_spec(&template);
            spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": generation.uid}});
            json!({
                "apiVersion": "batch/v1", "kind": "Job",
                "metadata": manifest::metadata(workload.namespace.as_str(), &generation.name, &Labels::new()),
                "spec": spec,
                "status": if done > 0 { json!({"succeeded": done}) } else { json!({"active": pods.len()}) },
            })
        }
        Kind::StatefulSet | Kind::DaemonSet | Kind::Job | Kind::Pod => return Ok(None),
    };
    let api = if workload.kind == Kind::CronJob {
        "batch/v1"
    } else {
        "apps/v1"
    };
    object["metadata"]["uid"] = json!(generation.uid);
    object["metadata"]["creationTimestamp"] = json!(time(generation.created));
    object["metadata"]["ownerReferences"] = reference(workload.kind.as_str(), api, workload.name.as_str(), &own_uid);
    Ok(Some(object))
}

fn pod(cluster: &Cluster, workload: &Workload, pod: &Pod) -> Result<Value, ManifestError> {
    let template = manifest::pod_template(workload, &cluster.wiring().peer(workload))?;
    let mut metadata = manifest::metadata(workload.namespace.as_str(), &pod.name, &pod.labels);
    metadata["uid"] = json!(pod.uid);
    metadata["creationTimestamp"] = json!(time(pod.started));
    if let Some(owner) = &pod.owner {
        let api = if owner.kind == "Job" { "batch/v1" } else { "apps/v1" };
        metadata["ownerReferences"] = reference(owner.kind, api, &owner.name, &owner.uid);
    }
    let mut spec = template["spec"].clone();
    spec["nodeName"] = json!(NODE);
    let ready = if pod.phase == Phase::Running { "True" } else { "False" };
    let (phase, state) = match pod.phase {
        Phase::Starting | Phase::Running => ("Running", json!({"running": {"startedAt": time(pod.started)}})),
        Phase::Succeeded => (
            "Succeeded",
            json!({"terminated": {"exitCode": 0, "reason": "Completed"}}),
        ),
        Phase::Failed => ("Failed", json!({"terminated": {"exitCode": 1, "reason": "Error"}})),
    };
    Ok(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec,
        "status": {
            "phase": phase, "qosClass": "Burstable", "startTime": time(pod.started),
            "hostIP": NODE_ADDRESSES[0], "hostIPs": NODE_ADDRESSES.map(|ip| json!({"ip": ip})),
            "podIP": pod.addresses.first(), "podIPs": pod.addresses.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [{
                "name": workload.name, "image": manifest::IMAGE, "imageID": "", "ready": pod.phase == Phase::Running,
                "restartCount": 0, "started": true, "containerID": format!("containerd://{}", pod.container), "state": state,
            }],
        },
    }))
}

/// The ports of a slice: name, number, protocol.
type Ports<'a> = Vec<(Option<&'a str>, u16, Protocol)>;

/// The slices of a Service with a selector: pods with different numbers for a named port are in different slices.
fn slices(cluster: &Cluster, service: &Service) -> Vec<Value> {
    if matches!(service.backing, Backing::External(_) | Backing::ExternalName(_)) {
        return Vec::new();
    }
    let mut slices = Vec::new();
    for (wanted, v4) in [(service.families.v4(), true), (service.families.v6(), false)] {
        if !wanted {
            continue;
        }
        let mut groups: BTreeMap<Ports<'_>, Vec<(IpAddr, &Pod)>> = BTreeMap::new();
        for pod in cluster.pods_behind(service) {
            let Some(address) = pod.addresses.iter().find(|address| address.is_ipv4() == v4) else {
                continue;
            };
            let ports = service
                .ports
                .iter()
                .filter_map(|port| {
                    let name = port.name.as_ref().map(crate::app::PortName::as_str);
                    Some((name, cluster.target_on(pod, port)?, port.protocol))
                })
                .collect();
            groups.entry(ports).or_default().push((*address, pod));
        }
        for (index, (ports, members)) in groups.iter().enumerate() {
            let family = if v4 { "v4" } else { "v6" };
            let name = format!("{}-{family}-{index}", service.name);
            let addresses: Vec<IpAddr> = members.iter().map(|(address, _)| *address).collect();
            let endpoints: Vec<Value> = members.iter().map(|(address, pod)| endpoint(*address, pod)).collect();
            let (namespace, manager) = (service.namespace.as_str(), "endpointslice-controller.k8s.io");
            let mut slice = manifest::endpoint_slice(
                namespace,
                service.name.as_str(),
                &name,
                manager,
                &addresses,
                &endpoints,
                ports,
            );
            let uid = cluster.uid_of("Service", &service.id());
            slice["metadata"]["ownerReferences"] = reference("Service", "v1", service.name.as_str(), &uid);
            slice["metadata"]["uid"] = json!(super::cluster::uid(&format!("{uid}{name}")));
            slices.push(slice);
        }
    }
    slices
}

fn endpoint(address: IpAddr, pod: &Pod) -> Value {
    json!({
        "addresses": [address],
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "nodeName": NODE,
        "targetRef": {"kind": "Pod", "namespace": pod.workload.namespace, "name": pod.name, "uid": pod.uid},
    })
}
