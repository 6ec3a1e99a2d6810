//! What nanoseg asked the API server for, by the server's own audit log, beside what its manifests let it ask for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::Value;
use tempfile::TempDir;

use super::MANIFESTS;
use super::shop::text;

const CONTROLLER: &str = "system:serviceaccount:nanoseg:nanoseg-controller";
const LEARNER: &str = "system:serviceaccount:nanoseg:nanoseg-learner";

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ['system:serviceaccounts:nanoseg']
- level: None
";

/// What is granted and not asked for in the minutes of this test, and why. Whatever of it is asked for after all is to be taken out.
const NOT_YET: [(&str, &str, &str, &str); 5] = [
    ("", "secrets", "update", "the certificate is renewed after months"),
    ("", "configmaps", "update", "the authority is replaced after years"),
    (
        "policy.networking.k8s.io",
        "clusternetworkpolicies",
        "watch",
        "this cluster does not know the kind",
    ),
    (
        "policy.networking.k8s.io",
        "adminnetworkpolicies",
        "watch",
        "this cluster does not know the kind",
    ),
    (
        "policy.networking.k8s.io",
        "baselineadminnetworkpolicies",
        "watch",
        "this cluster does not know the kind",
    ),
];

/// Group, resource and verb.
type Right = (String, String, String);

/// The audit log of an API server.
pub(crate) struct Audit {
    folder: TempDir,
}

impl Audit {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
        Self { folder }
    }

    /// For the API server.
    pub(crate) fn flags(&self) -> Vec<String> {
        let policy = self.folder.path().join("policy.yaml");
        vec![
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", self.log().display()),
        ]
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    fn events(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.log()).unwrap();
        // The last line may be half written.
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What a pod has asked for since then, and got: verb and resource.
    pub(crate) fn requests_of(&self, pod: &str, since: Timestamp) -> Vec<(String, String)> {
        let got = |event: &Value| {
            let at = event["requestReceivedTimestamp"].as_str()?.parse::<Timestamp>().ok()?;
            let of = &event["user"]["extra"]["authentication.kubernetes.io/pod-name"][0];
            let is_done = event["responseStatus"]["code"].as_u64()? < 300;
            let request = || Some((text(&event["verb"]), text(event["objectRef"].get("resource")?)));
            (of == pod && at >= since && is_done).then(request)?
        };
        self.events().iter().filter_map(got).collect()
    }

    /// What was asked for is what is granted, and nothing was refused.
    pub(crate) fn assert_rights_are_exact(&self) {
        let mut seen = BTreeSet::new();
        let mut requests = 0;
        for event in self.events() {
            let user = event["user"]["username"].as_str().unwrap_or_default();
            assert_ne!(user, LEARNER, "a learner asked the API server: {event}");
            if user != CONTROLLER {
                continue;
            }
            requests += 1;
            let decision = &event["annotations"]["authorization.k8s.io/decision"];
            assert_ne!(decision, "forbid", "a right is missing: {event}");
            let of = &event["objectRef"];
            if let Some(resource) = of["resource"].as_str() {
                let part = of["subresource"]
                    .as_str()
                    .map(|part| format!("/{part}"))
                    .unwrap_or_default();
                let group = of["apiGroup"].as_str().unwrap_or_default();
                let verb = event["verb"].as_str().unwrap();
                let resource = format!("{resource}{part}");
                // Who makes an object by applying it needs both rights, and the log names the first.
                if verb == "patch" && event["responseStatus"]["code"] == 201 {
                    seen.insert((group.to_owned(), resource.clone(), "create".to_owned()));
                }
                seen.insert((group.to_owned(), resource, verb.to_owned()));
            }
        }
        let granted = granted();
        let not_yet: BTreeSet<Right> = NOT_YET
            .into_iter()
            .map(|(group, resource, verb, _)| (group.to_owned(), resource.to_owned(), verb.to_owned()))
            .collect();
        let spare: Vec<&Right> = granted
            .difference(&seen)
            .filter(|right| !not_yet.contains(*right))
            .collect();
        let missing: Vec<&Right> = seen.difference(&granted).collect();
        let asked: Vec<&Right> = not_yet.intersection(&seen).collect();
        let gone: Vec<&Right> = not_yet.difference(&granted).collect();
        assert!(spare.is_empty(), "granted and never asked for: {spare:?}");
        assert!(missing.is_empty(), "asked for and not granted: {missing:?}");
        assert!(asked.is_empty(), "said not to be asked for here, and was: {asked:?}");
        assert!(gone.is_empty(), "said to be granted, and is not: {gone:?}");
        println!(
            "{requests} requests of the controller by {} rights, of {} granted",
            seen.len(),
            granted.len()
        );
    }
}

/// What the manifest grants to the controller.
fn granted() -> BTreeSet<Right> {
    let text = fs::read_to_string(Path::new(MANIFESTS).join("rbac.yaml")).unwrap();
    let mut granted = BTreeSet::new();
    let texts = |value: &serde_yaml::Value| serde_yaml::from_value::<Vec<String>>(value.clone()).unwrap();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let document = serde_yaml::Value::deserialize(document).unwrap();
        for rule in document["rules"].as_sequence().into_iter().flatten() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    let rights = texts(&rule["verbs"])
                        .into_iter()
                        .map(|verb| (group.clone(), resource.clone(), verb));
                    granted.extend(rights);
                }
            }
        }
    }
    granted
}
