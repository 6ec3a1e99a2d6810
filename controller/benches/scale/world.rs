//! A simulated cluster: who is in it, and what its nodes' learners see. Everything follows from numbers.
//!
//! Each workload is a Deployment with a `ReplicaSet`, ten pods, a Service and its slice; pods are as large as real ones are. Each
//! pod talks to two other workloads through their Services and is talked to by two, and the first pod of each to an address
//! outside. The last [`LATE`] workloads are silent until their turn comes.

use std::net::Ipv4Addr;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Pods of a workload.
const PODS: usize = 10;
/// Workloads of a namespace.
const NAMESPACE: usize = 100;
/// Workloads that begin to talk when everything else is settled.
pub(crate) const LATE: usize = 200;

/// Its numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    /// Workloads that talk from the beginning.
    pub(crate) segments: usize,
    /// Nodes, each with a learner.
    pub(crate) nodes: usize,
}

/// An object, and where an API server keeps it in etcd.
pub(crate) type Kept = (String, Value);

impl World {
    /// One part in so many of 10,000 workloads on 5,000 nodes.
    pub(crate) const fn part(of: usize) -> Self {
        Self {
            segments: 10_000 / of,
            nodes: 5_000 / of,
        }
    }

    pub(crate) const fn workloads(self) -> usize {
        self.segments + LATE
    }

    pub(crate) const fn pods(self) -> usize {
        self.workloads() * PODS
    }

    pub(crate) const fn namespaces(self) -> usize {
        self.workloads().div_ceil(NAMESPACE)
    }

    pub(crate) fn late(self) -> std::ops::Range<usize> {
        self.segments..self.workloads()
    }

    /// The node of a workload's first pod.
    pub(crate) const fn node_of_first_pod(self, workload: usize) -> usize {
        workload * PODS % self.nodes
    }

    /// Everything but pods.
    pub(crate) fn objects(self) -> impl Iterator<Item = Kept> {
        let namespaces = (0..self.namespaces()).map(|number| {
            let name = format!("n{number}");
            let mut object = object(
                "v1",
                "Namespace",
                None,
                &name,
                &json!({ "kubernetes.io/metadata.name": name }),
            );
            object["spec"] = json!({ "finalizers": ["kubernetes"] });
            object["status"] = json!({ "phase": "Active" });
            (format!("/registry/namespaces/{name}"), object)
        });
        let nodes = (0..self.nodes).map(|number| {
            let name = node(number);
            let mut object = object("v1", "Node", None, &name, &json!({ "kubernetes.io/hostname": name }));
            object["status"] = json!({ "addresses": [{ "type": "InternalIP", "address": node_address(number) }] });
            (format!("/registry/minions/{name}"), object)
        });
        namespaces
            .chain(nodes)
            .chain([services_range()])
            .chain((0..self.workloads()).flat_map(workload))
    }

    /// The pods, and each node's learner's.
    pub(crate) fn all_pods(self) -> impl Iterator<Item = Kept> {
        let learners = (0..self.nodes).map(|number| {
            let name = learner(number);
            let mut pod = object(
                "v1",
                "Pod",
                Some("nanoseg"),
                &name,
                &json!({ "app": "nanoseg-learner" }),
            );
            pod["spec"] = json!({
                "serviceAccountName": "nanoseg-learner", "nodeName": node(number), "containers": [container("learner")],
            });
            pod["status"] = json!({ "phase": "Running" });
            (format!("/registry/pods/nanoseg/{name}"), pod)
        });
        learners.chain((0..self.pods()).map(move |number| pod(number, self.nodes)))
    }

    /// What the learner of a node sees, from its beginning.
    pub(crate) fn report(self, number: usize) -> Vec<u8> {
        let mut flows = Vec::new();
        let talks = (number..self.pods()).step_by(self.nodes);
        for pod in talks.take_while(|pod| pod / PODS < self.segments) {
            let (workload, replica) = (pod / PODS, pod % PODS);
            for away in [1, NAMESPACE + 1] {
                let to = (workload + away) % self.segments;
                let from = (workload + self.segments - away) % self.segments;
                flows.push(flow(pod, &service_address(to), 80, "source"));
                flows.push(flow(pod, &pod_address(from * PODS + replica), 8080, "destination"));
            }
            if replica == 0 {
                flows.push(outside(workload));
            }
        }
        report(number, &flows)
    }

    /// What is seen when a workload that was silent begins to talk.
    pub(crate) fn first_words(self, workload: usize) -> Vec<u8> {
        report(self.node_of_first_pod(workload), &[outside(workload)])
    }
}

/// Name of a workload's policy and its namespace.
pub(crate) fn policy_of(workload: usize) -> (String, String) {
    let (namespace, name) = names(workload);
    (namespace, format!("nanoseg-deployment-{name}"))
}

pub(crate) fn learner(number: usize) -> String {
    format!("learner-{number}")
}

/// The UID of an object, by its kind and name: made up, and always the same.
pub(crate) fn uid(kind: &str, name: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in kind.bytes().chain(name.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mixed = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        hash >> 32,
        (hash >> 16) & 0xffff,
        hash & 0xfff,
        mixed >> 52,
        mixed & 0xffff_ffff_ffff
    )
}

fn report(node_number: usize, flows: &[Value]) -> Vec<u8> {
    json!({ "origin": { "node": node(node_number), "epoch": 1 }, "flows": flows })
        .to_string()
        .into_bytes()
}

fn flow(pod: usize, peer: &str, port: u16, reporter: &str) -> Value {
    let now = Timestamp::now();
    let uid = uid("Pod", &pod_name(pod));
    json!({
        "subject": { "container": { "pod_uid": uid, "container_id": format!("{pod:064x}") } },
        "peer": peer, "port": port, "transport": "TCP", "reporter": reporter,
        "first_seen": now - SignedDuration::from_mins(10), "last_seen": now,
        "attempted": 3, "established": 3, "refused": 0,
    })
}

fn outside(workload: usize) -> Value {
    let address = Ipv4Addr::new(203, 0, 113, u8::try_from(workload % 250).unwrap_or_default() + 1);
    flow(workload * PODS, &address.to_string(), 443, "source")
}

fn node(number: usize) -> String {
    format!("node-{number}")
}

fn names(workload: usize) -> (String, String) {
    (format!("n{}", workload / NAMESPACE), format!("w{workload}"))
}

fn pod_name(number: usize) -> String {
    format!("w{}-6d4b75cb6d-{:05x}", number / PODS, number % PODS)
}

fn address(first: Ipv4Addr, number: usize) -> String {
    Ipv4Addr::from(u32::from(first) + u32::try_from(number).unwrap_or_default()).to_string()
}

fn pod_address(number: usize) -> String {
    address(Ipv4Addr::new(10, 0, 0, 1), number)
}

fn service_address(workload: usize) -> String {
    address(Ipv4Addr::new(10, 128, 0, 1), workload)
}

/// Where the addresses of Services are from. Without it and an object for each address the API server complains of all Services by
/// an Event of each, every three minutes.
fn services_range() -> Kept {
    let name = "simulated";
    let mut range = object("networking.k8s.io/v1", "ServiceCIDR", None, name, &json!({}));
    range["spec"] = json!({ "cidrs": ["10.128.0.0/16"] });
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:10Z",
    });
    range["status"] = json!({ "conditions": [ready] });
    (format!("/registry/servicecidrs/{name}"), range)
}

/// That a Service has its address.
fn taken(workload: usize) -> Kept {
    let (namespace, name) = names(workload);
    let address = service_address(workload);
    let labels = json!({
        "ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    });
    let mut object = object("networking.k8s.io/v1", "IPAddress", None, &address, &labels);
    object["spec"] = json!({
        "parentRef": { "group": "", "resource": "services", "namespace": namespace, "name": name },
    });
    (format!("/registry/ipaddresses/{address}"), object)
}

fn node_address(number: usize) -> String {
    address(Ipv4Addr::new(172, 16, 0, 1), number)
}

fn object(version: &str, kind: &str, namespace: Option<&str>, name: &str, labels: &Value) -> Value {
    let mut object = json!({
        "apiVersion": version, "kind": kind,
        "metadata": {
            "name": name, "uid": uid(kind, name), "creationTimestamp": "2026-01-01T00:00:00Z", "labels": labels,
            "managedFields": [managed("kube-controller-manager", kind)],
        },
    });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

fn owner(kind: &str, name: &str) -> Value {
    json!([{ "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid(kind, name), "controller": true }])
}

fn workload(number: usize) -> Vec<Kept> {
    let (namespace, name) = names(number);
    let at = |what: &str, name: &str| format!("/registry/{what}/{namespace}/{name}");
    let selector = json!({ "app": name });
    let mut template = json!({ "metadata": { "labels": selector }, "spec": { "containers": [container("app")] } });
    let mut deployment = object("apps/v1", "Deployment", Some(&namespace), &name, &selector);
    deployment["spec"] = json!({ "replicas": PODS, "selector": { "matchLabels": selector }, "template": template });
    let set_name = format!("{name}-6d4b75cb6d");
    let labels = json!({ "app": name, "pod-template-hash": "6d4b75cb6d" });
    let mut set = object("apps/v1", "ReplicaSet", Some(&namespace), &set_name, &labels);
    set["metadata"]["ownerReferences"] = owner("Deployment", &name);
    template["metadata"]["labels"] = labels.clone();
    set["spec"] = json!({ "replicas": PODS, "selector": { "matchLabels": labels }, "template": template });
    let mut service = object("v1", "Service", Some(&namespace), &name, &selector);
    let cluster_ip = service_address(number);
    service["spec"] = json!({
        "clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "selector": selector, "type": "ClusterIP",
        "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" }],
    });
    let labels = json!({ "kubernetes.io/service-name": name });
    let mut slice = object("discovery.k8s.io/v1", "EndpointSlice", Some(&namespace), &name, &labels);
    slice["addressType"] = "IPv4".into();
    slice["ports"] = json!([{ "name": "http", "port": 8080, "protocol": "TCP" }]);
    let endpoint = |replica: usize| {
        let pod = number * PODS + replica;
        json!({ "addresses": [pod_address(pod)], "conditions": { "ready": true },
            "targetRef": { "kind": "Pod", "namespace": namespace, "name": pod_name(pod) } })
    };
    slice["endpoints"] = (0..PODS).map(endpoint).collect();
    vec![
        (at("deployments", &name), deployment),
        (at("replicasets", &set_name), set),
        (at("services/specs", &name), service),
        (at("endpointslices", &name), slice),
        taken(number),
    ]
}

fn pod(number: usize, nodes: usize) -> Kept {
    let (namespace, workload) = names(number / PODS);
    let name = pod_name(number);
    let labels = json!({ "app": workload, "pod-template-hash": "6d4b75cb6d" });
    let mut pod = object("v1", "Pod", Some(&namespace), &name, &labels);
    pod["metadata"]["ownerReferences"] = owner("ReplicaSet", &format!("{workload}-6d4b75cb6d"));
    pod["metadata"]["managedFields"] = json!([managed("kube-controller-manager", "Pod"), managed("kubelet", "Pod")]);
    pod["spec"] = json!({
        "nodeName": node(number % nodes), "serviceAccountName": "default", "restartPolicy": "Always",
        "containers": [container("app"), container("proxy")],
        "volumes": [{ "name": "token", "projected": { "sources": [
            { "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } },
            { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        ] } }],
        "tolerations": [
            { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
            { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
        ],
    });
    let address = pod_address(number);
    let condition =
        |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z" });
    let ran = |name: &str| {
        json!({
            "name": name, "ready": true, "started": true, "restartCount": 0, "image": "registry.example/shop/app:1.2.3",
            "imageID": format!("registry.example/shop/app@sha256:{:064x}", number / PODS),
            "containerID": format!("containerd://{number:064x}"), "state": { "running": { "startedAt": "2026-01-01T00:00:05Z" } },
        })
    };
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    pod["status"] = json!({
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "hostIP": node_address(number % nodes),
        "startTime": "2026-01-01T00:00:00Z", "qosClass": "Burstable",
        "conditions": conditions,
        "containerStatuses": [ran("app"), ran("proxy")],
    });
    (format!("/registry/pods/{namespace}/{name}"), pod)
}

fn container(name: &str) -> Value {
    let variable =
        |number: usize| json!({ "name": format!("SETTING_{number}"), "value": format!("value-of-{number}") });
    json!({
        "name": name, "image": "registry.example/shop/app:1.2.3", "imagePullPolicy": "IfNotPresent",
        "env": (0..8).map(variable).collect::<Vec<Value>>(),
        "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" }],
        "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "256Mi" } },
        "readinessProbe": { "httpGet": { "path": "/ready", "port": 8080 }, "periodSeconds": 10 },
        "volumeMounts": [{ "name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true }],
    })
}

/// What the API server notes of who set which field: a third of a real pod.
fn managed(manager: &str, kind: &str) -> Value {
    let nothing = json!({});
    let named = |names: &[&str]| -> Value {
        let fields = names.iter().map(|name| (format!("f:{name}"), nothing.clone()));
        Value::Object(fields.collect())
    };
    let mut fields =
        json!({ "f:metadata": { "f:labels": named(&["app", "pod-template-hash"]), "f:ownerReferences": nothing } });
    if kind == "Pod" {
        let spec = [
            "env",
            "image",
            "imagePullPolicy",
            "name",
            "ports",
            "readinessProbe",
            "resources",
            "volumeMounts",
        ];
        fields["f:spec"] =
            json!({ "f:containers": { "k:{\"name\":\"app\"}": named(&spec), "k:{\"name\":\"proxy\"}": named(&spec) } });
        let status = [
            "conditions",
            "containerStatuses",
            "hostIP",
            "phase",
            "podIP",
            "podIPs",
            "startTime",
        ];
        fields["f:status"] = named(&status);
    }
    json!({
        "manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    })
}
