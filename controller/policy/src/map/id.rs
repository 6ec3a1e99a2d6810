//! Names of parties and policies within a map.
//!
//! Law: two things have the same id only if they are the same; an id has no character that means something to whoever prints it.

use std::fmt::Write as _;

use nanoseg_graph::endpoint::{Endpoint, ServiceName, Workload};

use crate::evaluate::PolicyRef;

/// Joins parts by `/`.
fn joined(parts: &[&str]) -> String {
    let mut id = String::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            id.push('/');
        }
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || b"._:-".contains(&byte) {
                id.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _written = write!(id, "%{byte:02X}");
            }
        }
    }
    id
}

pub(super) fn of_endpoint(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Workload(workload) => of_workload(workload),
        Endpoint::Service(ServiceName { namespace, name }) => joined(&["service", namespace, name]),
        Endpoint::Node(name) => joined(&["node", name]),
        Endpoint::External(address) => joined(&["external", &address.to_string()]),
        Endpoint::Unknown { reason, address } => {
            let address = address.map(|address| address.to_string()).unwrap_or_default();
            joined(&["unknown", &format!("{reason:?}"), &address])
        }
    }
}

pub(super) fn of_workload(Workload { namespace, kind, name }: &Workload) -> String {
    joined(&["workload", namespace, kind, name])
}

pub(super) fn of_namespace(name: &str) -> String {
    joined(&["namespace", name])
}

pub(super) fn of_policy(policy: &PolicyRef) -> String {
    match policy {
        PolicyRef::Namespaced(name) => joined(&["NetworkPolicy", &name.namespace, &name.name]),
        PolicyRef::Cluster(name) => joined(&[name.kind.as_str(), &name.name]),
    }
}
