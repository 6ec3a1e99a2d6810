//! A described application as the Kubernetes objects that a person applies. What a cluster makes of them itself (pods, owners,
//! addresses, endpoints) is not here.
//!
//! Guarantee: equal descriptions give equal objects, in an order in which they can be applied.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::app::{Backing, ExternalHost, Families, Kind, Labels, Listen, Protocol, Service, TargetPort, Workload};
use crate::peer::{ADDRESSES_VARIABLE, CONFIG_VARIABLE, POD_VARIABLE, PeerConfig};
use crate::wiring::{Wiring, governing_service};

/// The image of every container, made locally.
pub const IMAGE: &str = "lab-peer:dev";

/// How long a pod that serves goes on after it was told to end: its address has to leave the node proxies first.
const LINGER_SECONDS: u32 = 3;
/// When a `CronJob` runs if its description does not say.
const EVERY_MINUTE: &str = "*/1 * * * *";

/// A described application cannot be written as objects.
#[derive(Debug, thiserror::Error)]
#[error("the configuration of {name} cannot be written as JSON")]
pub struct ManifestError {
    name: String,
    source: serde_json::Error,
}

/// Everything that a person applies, namespaces first.
pub fn objects(wiring: &Wiring<'_>) -> Result<Vec<Value>, ManifestError> {
    let app = wiring.app();
    let mut objects: Vec<Value> = app
        .namespaces
        .iter()
        // `kubectl apply` of a built-in namespace only adds the labels.
        .map(|namespace| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name, "labels": namespace.labels}}))
        .collect();
    for service in wiring.services() {
        objects.push(self::service(wiring, service));
        if let Backing::External(name) = &service.backing
            && let Some(host) = app.external_host(name)
        {
            objects.extend(external_slices(service, host));
        }
    }
    for workload in &app.workloads {
        objects.push(self::workload(wiring, workload, &wiring.peer(workload))?);
    }
    Ok(objects)
}

/// Metadata of an object in a namespace.
pub(crate) fn metadata(namespace: &str, name: &str, labels: &Labels) -> Value {
    let mut metadata = json!({"namespace": namespace, "name": name});
    if !labels.is_empty() {
        metadata["labels"] = json!(labels);
    }
    metadata
}

/// The object that a person applies for a workload; `config` is what its pods do.
pub fn workload(wiring: &Wiring<'_>, workload: &Workload, config: &PeerConfig) -> Result<Value, ManifestError> {
    let template = pod_template(workload, config)?;
    let metadata = metadata(workload.namespace.as_str(), workload.name.as_str(), &workload.labels);
    let selector = json!({"matchLabels": workload.selector()});
    let replicas = workload.replicas.unwrap_or(1);
    Ok(match workload.kind {
        Kind::Deployment => json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
            "spec": {
                "replicas": replicas, "selector": selector, "template": template,
                // No pod goes before another has taken its place.
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            },
        }),
        Kind::StatefulSet => {
            let mut spec = json!({"replicas": replicas, "selector": selector, "template": template});
            if let Some(service) = governing_service(wiring.services(), workload) {
                spec["serviceName"] = json!(service.name);
            }
            json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec})
        }
        Kind::DaemonSet => json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata,
            "spec": {"selector": selector, "template": template},
        }),
        Kind::Job => json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job_spec(&template),
        }),
        Kind::CronJob => json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata,
            "spec": {
                "schedule": workload.schedule.as_deref().unwrap_or(EVERY_MINUTE),
                "concurrencyPolicy": "Forbid",
                "jobTemplate": {"spec": job_spec(&template)},
            },
        }),
        Kind::Pod => json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}),
    })
}

pub(crate) fn job_spec(template: &Value) -> Value {
    json!({"backoffLimit": 2, "template": template})
}

/// What each pod of a workload is made from.
pub(crate) fn pod_template(workload: &Workload, config: &PeerConfig) -> Result<Value, ManifestError> {
    let config = serde_json::to_string(config).map_err(|source| ManifestError {
        name: workload.id().to_string(),
        source,
    })?;
    let field = |path: &str| json!({"fieldRef": {"apiVersion": "v1", "fieldPath": path}});
    let mut container = json!({
        "name": workload.name,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "env": [
            {"name": CONFIG_VARIABLE, "value": config},
            {"name": POD_VARIABLE, "valueFrom": field("metadata.name")},
            {"name": ADDRESSES_VARIABLE, "valueFrom": field("status.podIPs")},
        ],
        "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}},
    });
    if !workload.listens.is_empty() {
        container["ports"] = workload
            .listens
            .iter()
            .map(|listen| container_port(workload, listen))
            .collect();
        if workload.kind == Kind::Deployment {
            container["lifecycle"] = json!({"preStop": {"sleep": {"seconds": LINGER_SECONDS}}});
        }
    }
    let mut spec = json!({
        "containers": [container],
        "dnsPolicy": if workload.host_network { "ClusterFirstWithHostNet" } else { "ClusterFirst" },
        "enableServiceLinks": false,
        "restartPolicy": if workload.kind.ends() { "Never" } else { "Always" },
        "terminationGracePeriodSeconds": LINGER_SECONDS + 2,
    });
    if workload.host_network {
        spec["hostNetwork"] = json!(true);
    }
    Ok(json!({"metadata": {"labels": workload.labels}, "spec": spec}))
}

fn container_port(workload: &Workload, listen: &Listen) -> Value {
    let mut port = json!({"containerPort": listen.port, "protocol": listen.protocol.as_str()});
    if let Some(name) = &listen.name {
        port["name"] = json!(name);
    }
    if workload.host_network {
        port["hostPort"] = json!(listen.port);
    }
    port
}

/// The object that a person applies for a Service.
pub fn service(wiring: &Wiring<'_>, service: &Service) -> Value {
    let mut spec = Map::new();
    if let Backing::ExternalName(other) = &service.backing {
        spec.insert("type".to_owned(), json!("ExternalName"));
        spec.insert("externalName".to_owned(), json!(other));
    } else {
        let kind = if service.is_node_port() {
            "NodePort"
        } else {
            "ClusterIP"
        };
        spec.insert("type".to_owned(), json!(kind));
        let (families, policy) = match service.families {
            Families::V4 => (json!(["IPv4"]), "SingleStack"),
            Families::V6 => (json!(["IPv6"]), "SingleStack"),
            Families::Both => (json!(["IPv4", "IPv6"]), "PreferDualStack"),
        };
        spec.insert("ipFamilies".to_owned(), families);
        spec.insert("ipFamilyPolicy".to_owned(), json!(policy));
        if service.headless {
            spec.insert("clusterIP".to_owned(), json!("None"));
        }
        if let Some(selector) = wiring.app().selector_of(service) {
            spec.insert("selector".to_owned(), json!(selector));
        }
        if !service.ports.is_empty() {
            spec.insert(
                "ports".to_owned(),
                service
                    .ports
                    .iter()
                    .map(|port| service_port(wiring, service, port))
                    .collect(),
            );
        }
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": metadata(service.namespace.as_str(), service.name.as_str(), &Labels::new()),
        "spec": spec,
    })
}

fn service_port(wiring: &Wiring<'_>, service: &Service, port: &crate::app::ServicePort) -> Value {
    let target = match port.target() {
        TargetPort::Number(number) => json!(number),
        // A host outside the cluster has no container whose port could be named: the number is known here.
        TargetPort::Name(name) => match &service.backing {
            Backing::External(host) => wiring
                .app()
                .external_host(host)
                .and_then(|host| host.listens.iter().find(|listen| listen.name.as_ref() == Some(&name)))
                .map_or_else(|| json!(name), |listen| json!(listen.port)),
            Backing::Workload(_) | Backing::Labels(_) | Backing::ExternalName(_) => json!(name),
        },
    };
    let mut value = json!({"port": port.port, "targetPort": target, "protocol": port.protocol.as_str()});
    if let Some(name) = &port.name {
        value["name"] = json!(name);
    }
    if let Some(number) = port.node_port {
        value["nodePort"] = json!(number);
    }
    value
}

/// The slices by which a Service without a selector leads to a host outside the cluster, one for each family.
fn external_slices(service: &Service, host: &ExternalHost) -> Vec<Value> {
    let ports: Vec<(Option<&str>, u16, Protocol)> = service
        .ports
        .iter()
        .map(|port| {
            let number = match port.target() {
                TargetPort::Number(number) => number,
                TargetPort::Name(name) => host
                    .listens
                    .iter()
                    .find(|listen| listen.name.as_ref() == Some(&name))
                    .map_or(port.port, |listen| listen.port),
            };
            (
                port.name.as_ref().map(crate::app::PortName::as_str),
                number.get(),
                port.protocol,
            )
        })
        .collect();
    let by_family = |v4: bool| {
        host.addresses
            .iter()
            .copied()
            .filter(|address| address.is_ipv4() == v4)
            .collect::<Vec<_>>()
    };
    [(service.families.v4(), by_family(true), "external-v4"), (service.families.v6(), by_family(false), "external-v6")]
        .into_iter()
        .filter(|(wanted, addresses, _)| *wanted && !addresses.is_empty())
        .map(|(_, addresses, suffix)| {
            let endpoints: Vec<Value> = addresses
                .iter()
                .map(|address| json!({"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false}}))
                .collect();
            let name = format!("{}-{suffix}", service.name);
            endpoint_slice(service.namespace.as_str(), service.name.as_str(), &name, "lab", &addresses, &endpoints, &ports)
        })
        .collect()
}

/// An `EndpointSlice` of addresses of one family.
pub(crate) fn endpoint_slice(
    namespace: &str,
    service: &str,
    name: &str,
    managed_by: &str,
    addresses: &[IpAddr],
    endpoints: &[Value],
    ports: &[(Option<&str>, u16, Protocol)],
) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, number, protocol)| json!({"name": name.unwrap_or_default(), "port": number, "protocol": protocol.as_str()}))
        .collect();
    let family = if addresses.iter().all(IpAddr::is_ipv6) {
        "IPv6"
    } else {
        "IPv4"
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace, "name": name,
            "labels": {"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": managed_by},
        },
        "addressType": family, "endpoints": endpoints, "ports": ports,
    })
}
