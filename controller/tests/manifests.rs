//! The shipped manifests as they are read: they name each other rightly, and no container has more than it needs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize as _;
use serde_yaml::Value;

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");

fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|document| !document.is_null())
        .collect()
}

/// What the kustomization lists.
fn shipped() -> Vec<Value> {
    let kustomization = documents(&Path::new(MANIFESTS).join("kustomization.yaml")).remove(0);
    let resources = kustomization["resources"].as_sequence().unwrap();
    resources
        .iter()
        .flat_map(|name| documents(&Path::new(MANIFESTS).join(name.as_str().unwrap())))
        .collect()
}

fn of_kind(kind: &str) -> Vec<Value> {
    let mut found = shipped();
    found.retain(|document| document["kind"] == kind);
    assert!(!found.is_empty(), "no {kind}");
    found
}

fn pods() -> Vec<Value> {
    let workloads = of_kind("Deployment").into_iter().chain(of_kind("DaemonSet"));
    workloads.map(|workload| workload["spec"]["template"].clone()).collect()
}

#[test]
fn nothing_in_the_folder_is_left_out() {
    let kustomization = documents(&Path::new(MANIFESTS).join("kustomization.yaml")).remove(0);
    let listed: BTreeSet<String> = serde_yaml::from_value(kustomization["resources"].clone()).unwrap();
    let mut there: BTreeSet<String> = fs::read_dir(MANIFESTS)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    there.remove("kustomization.yaml");
    assert_eq!(listed, there);
}

#[test]
fn a_container_has_what_it_needs_and_no_more() {
    for pod in pods() {
        let component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
            .as_str()
            .unwrap()
            .to_owned();
        for container in pod["spec"]["containers"].as_sequence().unwrap() {
            let security = &container["securityContext"];
            assert_eq!(security["readOnlyRootFilesystem"], true, "{component}");
            assert_eq!(security["allowPrivilegeEscalation"], false, "{component}");
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{component}");
            assert_eq!(security["capabilities"]["drop"][0], "ALL", "{component}");
            assert!(security["privileged"].is_null(), "{component}");
            let added = security["capabilities"]["add"]
                .as_sequence()
                .cloned()
                .unwrap_or_default();
            if component == "learner" {
                assert_eq!(added, ["BPF", "NET_ADMIN"]);
            } else {
                assert_eq!(added.len(), 0);
                assert_eq!(security["runAsNonRoot"], true);
                assert!(pod["spec"]["hostNetwork"].is_null() && pod["spec"]["hostPID"].is_null());
            }
            assert!(container["resources"]["limits"]["memory"].is_string(), "{component}");
            assert!(container["resources"]["requests"]["cpu"].is_string(), "{component}");
            for mount in container["volumeMounts"].as_sequence().into_iter().flatten() {
                // What stays in the kernel is pinned there.
                assert!(
                    mount["readOnly"] == true || mount["name"] == "bpf",
                    "{component}: {mount:?}"
                );
            }
        }
    }
}

#[test]
fn each_program_is_probed_where_it_answers() {
    for pod in pods() {
        let container = &pod["spec"]["containers"][0];
        let ports = container["ports"].as_sequence().unwrap();
        let health = ports.iter().find(|port| port["name"] == "health").unwrap();
        let number = health["containerPort"].as_u64().unwrap();
        let argument = format!("--health-listen=[::]:{number}");
        assert!(
            container["args"]
                .as_sequence()
                .unwrap()
                .contains(&Value::from(argument))
        );
        for (probe, path) in [
            ("startupProbe", "/healthz"),
            ("livenessProbe", "/healthz"),
            ("readinessProbe", "/readyz"),
        ] {
            assert_eq!(container[probe]["httpGet"]["path"], path, "{probe}");
            assert_eq!(container[probe]["httpGet"]["port"], "health", "{probe}");
        }
        let annotated = &pod["metadata"]["annotations"]["prometheus.io/port"];
        assert_eq!(annotated.as_str().unwrap(), number.to_string());
    }
}

#[test]
fn p40_selectors_and_ports_find_the_controller() {
    let controller = of_kind("Deployment").remove(0);
    let pod = &controller["spec"]["template"];
    let labels: BTreeMap<String, String> = serde_yaml::from_value(pod["metadata"]["labels"].clone()).unwrap();
    let ports: Vec<&str> = pod["spec"]["containers"][0]["ports"]
        .as_sequence()
        .unwrap()
        .iter()
        .map(|port| port["name"].as_str().unwrap())
        .collect();
    let selects = |selector: &Value| {
        let selector: BTreeMap<String, String> = serde_yaml::from_value(selector.clone()).unwrap();
        assert!(!selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value)));
    };
    let service = of_kind("Service").remove(0);
    selects(&service["spec"]["selector"]);
    assert!(ports.contains(&service["spec"]["ports"][0]["targetPort"].as_str().unwrap()));
    selects(&of_kind("PodDisruptionBudget").remove(0)["spec"]["selector"]["matchLabels"]);
    let policies = of_kind("NetworkPolicy");
    let own = policies
        .iter()
        .find(|policy| policy["metadata"]["name"] == "controller")
        .unwrap();
    selects(&own["spec"]["podSelector"]["matchLabels"]);
    let open: BTreeSet<&str> = own["spec"]["ingress"]
        .as_sequence()
        .unwrap()
        .iter()
        .map(|rule| rule["ports"][0]["port"].as_str().unwrap())
        .collect();
    assert_eq!(open, ports.into_iter().collect(), "every port is let in, and no other");
}
