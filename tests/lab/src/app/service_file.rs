//! A Service as a description writes it, and the Service that it means.

use serde::Deserialize;

use super::{Backing, Families, HostName, Labels, Name, Service, ServicePort};

/// A Service as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ServiceFile {
    namespace: Name,
    name: Name,
    #[serde(default)]
    selects: Option<SelectsFile>,
    #[serde(default)]
    external: Option<Name>,
    #[serde(default)]
    external_name: Option<HostName>,
    #[serde(default)]
    headless: bool,
    #[serde(default = "Families::both")]
    family: Families,
    #[serde(default)]
    ports: Vec<ServicePort>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectsFile {
    #[serde(default)]
    workload: Option<Name>,
    #[serde(default)]
    labels: Option<Labels>,
}

impl TryFrom<ServiceFile> for Service {
    type Error = String;

    fn try_from(file: ServiceFile) -> Result<Self, String> {
        let ServiceFile {
            namespace,
            name,
            selects,
            external,
            external_name,
            headless,
            family,
            ports,
        } = file;
        let fault = |text: &str| Err(format!("service {namespace}/{name}: {text}"));
        let backing = match (selects, external, external_name) {
            (
                Some(SelectsFile {
                    workload: Some(workload),
                    labels: None,
                }),
                None,
                None,
            ) => Backing::Workload(workload),
            (
                Some(SelectsFile {
                    workload: None,
                    labels: Some(labels),
                }),
                None,
                None,
            ) => Backing::Labels(labels),
            (Some(_), None, None) => return fault("selects: has `workload: NAME` or `labels: {..}`, one of them"),
            (None, Some(host), None) => Backing::External(host),
            (None, None, Some(other)) => Backing::ExternalName(other),
            _ => return fault("has one of `selects`, `external` and `externalName`, and only one"),
        };
        if matches!(backing, Backing::ExternalName(_)) && (headless || !ports.is_empty()) {
            return fault("externalName: is only another name, without `headless` and `ports`");
        }
        if ports.is_empty() && !headless && !matches!(backing, Backing::ExternalName(_)) {
            return fault("ports: is empty");
        }
        if ports.len() > 1 && ports.iter().any(|port| port.name.is_none()) {
            return fault("ports: each needs a name where there are several");
        }
        if headless && ports.iter().any(|port| port.node_port.is_some()) {
            return fault("nodePort: a headless Service has none");
        }
        Ok(Self {
            namespace,
            name,
            backing,
            headless,
            families: family,
            ports,
        })
    }
}
