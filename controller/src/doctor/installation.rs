//! What is installed, on what, and whether it is well. Reads only.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt as _};
use nanoseg_policy::map::counted;
use serde::Deserialize as _;

use super::{Finding, Verdict};
use crate::segment::Segment;
use crate::trouble::Trouble;

/// What the controller needs, as it is shipped.
const RIGHTS: &str = include_str!("../../../manifests/rbac.yaml");

/// The first minor version whose tokens say which node their pod is bound to.
const KUBERNETES: u32 = 30;

/// The first kernel with everything that the programs use.
const KERNEL: (u32, u32) = (5, 8);

/// How far clocks may be apart: times of flows are compared with those of pods, which come by the second.
const SKEW: SignedDuration = SignedDuration::from_secs(5);

/// A node renews its lease every ten seconds, and is lost after forty.
const RENEWED: SignedDuration = SignedDuration::from_secs(40);

/// Names that are told at most: the rest is a number.
const NAMED: usize = 5;

pub(super) async fn examine(client: &Client, namespace: &str) -> Vec<Finding> {
    let mut findings = vec![version(client).await, segments(client).await];
    findings.push(controller(client, namespace).await);
    findings.push(learners(client, namespace).await);
    findings.extend(restarts(client, namespace).await);
    findings.push(rights(client, namespace).await);
    for guard in &GUARDS {
        findings.push(guarded(client, guard).await);
    }
    findings.extend(nodes(client).await);
    findings.push(clock(client).await);
    findings
}

async fn version(client: &Client) -> Finding {
    let check = "Kubernetes";
    match client.apiserver_version().await {
        Err(error) => Finding::hidden(check, &error.into()),
        Ok(version) => {
            let number = version
                .minor
                .trim_end_matches(|c: char| !c.is_ascii_digit())
                .parse::<u32>();
            match number {
                Ok(minor) if version.major == "1" && minor < KUBERNETES => Finding::fault(
                    check,
                    version.git_version,
                    "learners are recognised by tokens that Kubernetes 1.30 and later make: update it",
                ),
                Ok(_) => Finding::well(check, version.git_version),
                Err(_) => Finding::of(check, Verdict::Unknown, version.git_version, None),
            }
        }
    }
}

async fn segments(client: &Client) -> Finding {
    let check = "Segments";
    let listed = Api::<Segment>::all(client.clone())
        .list(&ListParams::default().limit(1))
        .await;
    match listed.map_err(Trouble::from) {
        Ok(list) => {
            let more = list
                .metadata
                .remaining_item_count
                .and_then(|more| usize::try_from(more).ok());
            Finding::well(
                check,
                format!("{} are there", list.items.len() + more.unwrap_or_default()),
            )
        }
        Err(trouble) if trouble.code() == Some(404) => Finding::fault(
            check,
            "the API server does not know them",
            "nanoseg crd | kubectl apply -f -",
        ),
        Err(trouble) => Finding::hidden(check, &trouble),
    }
}

async fn controller(client: &Client, namespace: &str) -> Finding {
    let check = "controller";
    let found = Api::<Deployment>::namespaced(client.clone(), namespace)
        .get_opt("nanoseg-controller")
        .await;
    match found.map_err(Trouble::from) {
        Err(trouble) => Finding::hidden(check, &trouble),
        Ok(None) => Finding::fault(
            check,
            format!("there is none in namespace {namespace}"),
            "kubectl apply -k manifests/",
        ),
        Ok(Some(deployment)) => {
            let status = deployment.status.unwrap_or_default();
            let (wanted, ready) = (
                status.replicas.unwrap_or_default(),
                status.ready_replicas.unwrap_or_default(),
            );
            let found = format!("{ready} of {wanted} are ready");
            if ready > 0 {
                Finding::well(check, found)
            } else {
                Finding::fault(check, found, "its /readyz says what it cannot read, and its log why")
            }
        }
    }
}

async fn learners(client: &Client, namespace: &str) -> Finding {
    let check = "learners";
    let found = Api::<DaemonSet>::namespaced(client.clone(), namespace)
        .get_opt("nanoseg-learner")
        .await;
    match found.map_err(Trouble::from) {
        Err(trouble) => Finding::hidden(check, &trouble),
        Ok(None) => Finding::fault(
            check,
            format!("there are none in namespace {namespace}"),
            "kubectl apply -k manifests/",
        ),
        Ok(Some(set)) => {
            let status = set.status.unwrap_or_default();
            let (wanted, ready) = (status.desired_number_scheduled, status.number_ready);
            let found = format!("{ready} ready, for {}", counted(wanted, "node", "nodes"));
            if ready == wanted && wanted > 0 {
                Finding::well(check, found)
            } else {
                Finding::fault(
                    check,
                    found,
                    "what they said when they ended is below, or in their logs",
                )
            }
        }
    }
}

/// What pods of ours said when they ended: a learner whose node lacks something says so and ends.
async fn restarts(client: &Client, namespace: &str) -> Vec<Finding> {
    let ours = ListParams::default().labels("app.kubernetes.io/name=nanoseg");
    let Ok(pods) = Api::<Pod>::namespaced(client.clone(), namespace).list(&ours).await else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for pod in pods {
        let node = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default();
        let statuses = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref());
        for status in statuses.into_iter().flatten() {
            let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            let last = last.filter(|last| last.exit_code != 0);
            let waits = status.state.as_ref().and_then(|state| state.waiting.as_ref());
            let said = last
                .and_then(|last| last.message.as_deref())
                .and_then(|said| said.trim().lines().last());
            let why = said.or_else(|| waits.and_then(|waits| waits.message.as_deref()));
            if let (Some(why), false) = (why, status.ready) {
                let check = format!("{} on {node}", status.name);
                findings.push(Finding::of(&check, Verdict::Fault, why, None));
            }
        }
        if findings.len() >= NAMED {
            break;
        }
    }
    findings
}

/// Whether the controller's account may do what it needs.
async fn rights(client: &Client, namespace: &str) -> Finding {
    let check = "rights";
    let reviews = Api::<SubjectAccessReview>::all(client.clone());
    let mut missing = Vec::new();
    let mut asked = 0;
    for question in needed(namespace) {
        let words = format!(
            "{} {}",
            question.verb.as_deref().unwrap_or_default(),
            question.resource.as_deref().unwrap_or_default()
        );
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{namespace}:nanoseg-controller")),
                resource_attributes: Some(question),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        match reviews.create(&PostParams::default(), &review).await {
            Err(error) => return Finding::hidden(check, &error.into()),
            Ok(answer) => {
                asked += 1;
                if !answer.status.is_some_and(|status| status.allowed) {
                    missing.push(words);
                }
            }
        }
    }
    if missing.is_empty() {
        return Finding::well(check, format!("the controller has all {asked} that it needs"));
    }
    Finding::fault(
        check,
        format!("the controller may not {}", some(&missing)),
        "kubectl apply -f manifests/rbac.yaml",
    )
}

/// Every single right of the shipped roles.
fn needed(namespace: &str) -> Vec<ResourceAttributes> {
    let documents = serde_yaml::Deserializer::from_str(RIGHTS);
    let documents = documents.filter_map(|document| serde_yaml::Value::deserialize(document).ok());
    let mut needed = Vec::new();
    for document in documents {
        let own = match document["kind"].as_str() {
            Some("ClusterRole") => None,
            Some("Role") => Some(namespace.to_owned()),
            _ => continue,
        };
        let rules: Vec<PolicyRule> = serde_yaml::from_value(document["rules"].clone()).unwrap_or_default();
        for rule in rules {
            let names = rule.resource_names.unwrap_or_default();
            let names: Vec<Option<String>> = if names.is_empty() {
                vec![None]
            } else {
                names.into_iter().map(Some).collect()
            };
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    let (resource, part) = resource
                        .split_once('/')
                        .map_or((resource.as_str(), None), |(of, part)| (of, Some(part)));
                    for verb in &rule.verbs {
                        needed.extend(names.iter().map(|name| ResourceAttributes {
                            group: Some(group.clone()),
                            resource: Some(resource.to_owned()),
                            subresource: part.map(str::to_owned),
                            verb: Some(verb.clone()),
                            namespace: own.clone(),
                            name: name.clone(),
                            ..ResourceAttributes::default()
                        }));
                    }
                }
            }
        }
    }
    needed
}

/// A policy of admission that is shipped: bound under its own name.
struct Guard {
    check: &'static str,
    policy: &'static str,
    /// What it sees to.
    kept: &'static str,
    /// What anybody may do without it.
    open: &'static str,
}

const GUARDS: [Guard; 3] = [
    Guard {
        check: "admission",
        policy: "nanoseg-own-objects",
        kept: "only nanoseg changes its policies",
        open: "whoever may write NetworkPolicies may change nanoseg's",
    },
    Guard {
        check: "admission of Segments",
        policy: "nanoseg-segments",
        kept: "a Segment stays about the workload that it was made for",
        open: "whoever may write Segments may make one be about another workload",
    },
    Guard {
        check: "admission of pods",
        policy: "nanoseg-identity",
        kept: "in namespaces with nanoseg.io/identity=guarded no pod takes another workload's labels",
        open: "whoever may make pods may give them another workload's labels, also where nanoseg.io/identity=guarded",
    },
];

async fn guarded(client: &Client, guard: &Guard) -> Finding {
    let Guard {
        check,
        policy,
        kept,
        open,
    } = *guard;
    let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone());
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
    let there = match policies.get_opt(policy).await {
        Ok(there) => there.is_some(),
        Err(error) => return Finding::hidden(check, &error.into()),
    };
    let binding = match bindings.get_opt(policy).await {
        Ok(binding) => binding,
        Err(error) => return Finding::hidden(check, &error.into()),
    };
    match unguarded(policy, there, binding.as_ref()) {
        None => Finding::well(check, kept),
        Some(why) => Finding::notice(
            check,
            format!("{open}: {why}"),
            "kubectl apply -f manifests/admission.yaml",
        ),
    }
}

/// Why a policy of admission refuses nothing, if it does not.
fn unguarded(policy: &str, there: bool, binding: Option<&ValidatingAdmissionPolicyBinding>) -> Option<String> {
    let kind = "ValidatingAdmissionPolicy";
    if !there {
        return Some(format!("there is no {kind} {policy}"));
    }
    let Some(spec) = binding.map(|binding| &binding.spec) else {
        return Some(format!("{kind} {policy} is bound to nothing"));
    };
    let bound = &spec.policy_name;
    if *bound != *policy {
        return Some(format!("{kind}Binding {policy} is for {bound}"));
    }
    // Warn and Audit let everything through.
    let denies = spec.validation_actions.iter().any(|action| action == "Deny");
    (!denies).then(|| format!("{kind}Binding {policy} does not deny"))
}

async fn nodes(client: &Client) -> Vec<Finding> {
    let nodes = match Api::<Node>::all(client.clone()).list(&ListParams::default()).await {
        Ok(nodes) => nodes.items,
        Err(error) => return vec![Finding::hidden("kernels", &error.into())],
    };
    let kernel = |node: &Node| {
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        info.map(|info| info.kernel_version.clone()).unwrap_or_default()
    };
    let old: Vec<String> = nodes
        .iter()
        .filter(|node| version_of(&kernel(node)).is_none_or(|version| version < KERNEL))
        .map(|node| format!("{} ({})", node.name_any(), kernel(node)))
        .collect();
    let kernels = if old.is_empty() {
        Finding::well("kernels", "every node has Linux 5.8 or later")
    } else {
        Finding::fault(
            "kernels",
            some(&old),
            "learners need Linux 5.8 or later, with cgroup v2",
        )
    };
    vec![kernels, leases(client, &nodes).await]
}

/// The nodes' clocks, by when they say that they renewed their leases.
async fn leases(client: &Client, nodes: &[Node]) -> Finding {
    let check = "nodes' clocks";
    let leases = Api::<Lease>::namespaced(client.clone(), "kube-node-lease")
        .list(&ListParams::default())
        .await;
    let leases = match leases {
        Ok(leases) => leases.items,
        Err(error) => return Finding::hidden(check, &error.into()),
    };
    let now = match time_of(client).await {
        Ok(now) => now,
        Err(trouble) => return Finding::hidden(check, &trouble),
    };
    let mut wrong = Vec::new();
    for lease in leases
        .iter()
        .filter(|lease| nodes.iter().any(|node| node.name_any() == lease.name_any()))
    {
        let renewed = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.renew_time.as_ref())
            .map(|time| time.0);
        let Some(renewed) = renewed else { continue };
        let age = now.duration_since(renewed);
        if age < -SKEW || age > RENEWED + SKEW {
            let seconds = age.as_secs();
            wrong.push(format!(
                "{} renewed its lease {seconds} s ago by its own clock",
                lease.name_any()
            ));
        }
    }
    if wrong.is_empty() {
        return Finding::well(check, "no node's clock is far from the API server's");
    }
    Finding::fault(
        check,
        some(&wrong),
        "synchronise the nodes' clocks: who had an address is asked for the time of a flow",
    )
}

/// This machine's clock, which a controller beside it would have.
async fn clock(client: &Client) -> Finding {
    let check = "this clock";
    match time_of(client).await {
        Err(trouble) => Finding::hidden(check, &trouble),
        Ok(theirs) => {
            let apart = Timestamp::now().duration_since(theirs).abs();
            // The API server tells whole seconds.
            if apart <= SKEW {
                Finding::well(check, "as the API server's")
            } else {
                let apart = Duration::try_from(apart).unwrap_or_default().as_secs();
                Finding::notice(
                    check,
                    format!("{apart} s from the API server's"),
                    "synchronise it, if a controller is to run here",
                )
            }
        }
    }
}

/// What time the API server thinks it is, by the head of its answer.
async fn time_of(client: &Client) -> Result<Timestamp, Trouble> {
    let request = http::Request::get("/version").body(kube::client::Body::empty());
    let request = request.map_err(|error| kube::Error::Service(Box::new(error)))?;
    let answer = client.send(request).await?;
    let date = answer
        .headers()
        .get(http::header::DATE)
        .and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    date.map(|date| date.timestamp())
        .ok_or_else(|| kube::Error::Service("the API server tells no time".into()).into())
}

/// `6.1.0-18-cloud-amd64` is 6.1.
fn version_of(kernel: &str) -> Option<(u32, u32)> {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Some of a list, and how many more.
fn some(names: &[String]) -> String {
    let told = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMISSION: &str = include_str!("../../../manifests/admission.yaml");

    #[test]
    fn kernels_are_compared_by_number() {
        for (kernel, enough) in [
            ("6.18.44", true),
            ("5.8.0-rc1", true),
            ("5.15.0-1031-azure", true),
            ("5.7.19", false),
            ("4.18.0-553.el8.x86_64", false),
            ("", false),
            ("linux", false),
        ] {
            assert_eq!(
                version_of(kernel).is_some_and(|version| version >= KERNEL),
                enough,
                "{kernel}"
            );
        }
    }

    #[test]
    fn every_right_of_the_shipped_roles_is_asked_for() {
        let needed = needed("nanoseg");
        let has = |group: &str, resource: &str, part: Option<&str>, verb: &str, name: Option<&str>| {
            needed.iter().any(|right| {
                right.group.as_deref() == Some(group)
                    && right.resource.as_deref() == Some(resource)
                    && right.subresource.as_deref() == part
                    && right.verb.as_deref() == Some(verb)
                    && right.name.as_deref() == name
            })
        };
        assert!(has("", "pods", None, "watch", None));
        assert!(has("nanoseg.io", "segments", Some("status"), "patch", None));
        assert!(has("", "secrets", None, "update", Some("nanoseg-controller-tls")));
        assert!(needed.len() > 30, "{}", needed.len());
    }

    #[test]
    fn every_shipped_policy_of_admission_is_looked_at_and_one_that_does_not_deny_guards_nothing() {
        let shipped: Vec<serde_yaml::Value> = serde_yaml::Deserializer::from_str(ADMISSION)
            .map(|document| serde_yaml::Value::deserialize(document).unwrap())
            .collect();
        let named = |kind: &str| -> Vec<String> {
            let of_kind = shipped.iter().filter(|document| document["kind"] == kind);
            of_kind
                .map(|document| document["metadata"]["name"].as_str().unwrap().to_owned())
                .collect()
        };
        let looked_at = GUARDS.map(|guard| guard.policy.to_owned());
        assert_eq!(named("ValidatingAdmissionPolicy"), looked_at);
        assert_eq!(named("ValidatingAdmissionPolicyBinding"), looked_at);
        for document in shipped {
            if document["kind"] != "ValidatingAdmissionPolicyBinding" {
                continue;
            }
            let mut binding: ValidatingAdmissionPolicyBinding = serde_yaml::from_value(document).unwrap();
            let name = binding.name_any();
            assert_eq!(unguarded(&name, true, Some(&binding)), None);
            assert!(unguarded(&name, false, Some(&binding)).is_some(), "without the policy");
            assert!(unguarded(&name, true, None).is_some(), "without the binding");
            assert!(unguarded("other", true, Some(&binding)).is_some(), "bound elsewhere");
            binding.spec.validation_actions = vec!["Warn".to_owned(), "Audit".to_owned()];
            assert!(unguarded(&name, true, Some(&binding)).is_some(), "only warns");
        }
    }

    #[test]
    fn a_long_list_is_told_in_part() {
        let names: Vec<String> = (0..7).map(|number| format!("n{number}")).collect();
        assert_eq!(some(&names), "n0, n1, n2, n3, n4 and 2 more");
        assert_eq!(some(&names[..2]), "n0, n1");
    }
}
