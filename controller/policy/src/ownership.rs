//! What NetworkPolicies are called, which are ours, and whose they are.
//!
//! Law: a policy is ours only if its label *and* its annotations say so. A label alone is easily copied with a manifest; what
//! is not ours is never touched.

use std::fmt;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nanoseg_graph::endpoint::Workload;
use sha2::{Digest, Sha256};

use crate::direction::Direction;

/// The label that says who manages an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value on our objects.
pub const MANAGER: &str = "nanoseg";
/// The annotation that holds the kind of a policy's workload.
pub const WORKLOAD_KIND: &str = "nanoseg.io/workload-kind";
/// The annotation that holds the name of a policy's workload.
pub const WORKLOAD_NAME: &str = "nanoseg.io/workload-name";
/// The annotation that says what each rule comes from.
pub const EVIDENCE: &str = "nanoseg.io/evidence";

/// Longest name that the API takes.
const LONGEST: usize = 253;
/// Hexadecimal digits of a hash that stand for what a name could not hold: 40 bits, enough for the names of one namespace.
const DIGITS: usize = 10;

/// Names a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl PolicyName {
    /// The name of a policy; a namespace that is not given is `default`, as everywhere.
    pub fn of(policy: &NetworkPolicy) -> Self {
        let namespace = policy
            .metadata
            .namespace
            .clone()
            .filter(|namespace| !namespace.is_empty());
        Self {
            namespace: namespace.unwrap_or_else(|| "default".to_owned()),
            name: policy.metadata.name.clone().unwrap_or_default(),
        }
    }

    /// The name of the policy of a workload.
    pub fn of_workload(workload: &Workload) -> Self {
        Self {
            namespace: workload.namespace.clone(),
            name: policy_name(workload),
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkPolicy {}/{}", self.namespace, self.name)
    }
}

/// What the names of our policies begin with.
pub const PREFIX: &str = "nanoseg-";

/// The name of the policy of a workload: `nanoseg-<kind>-<name>`. What the API would not take as a name is replaced, and a hash
/// of the whole keeps such names apart.
pub fn policy_name(workload: &Workload) -> String {
    let plain = format!("{PREFIX}{}-{}", workload.kind.to_lowercase(), workload.name);
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let part = |part: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-');
        part.bytes().all(allowed) && edge(part.as_bytes().first()) && edge(part.as_bytes().last())
    };
    if plain.len() <= LONGEST && plain.split('.').all(part) {
        return plain;
    }
    let hash: String = Sha256::digest(plain.as_bytes())
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .take(DIGITS)
        .map(digit)
        .collect();
    let readable: String = plain
        .bytes()
        .take(LONGEST - DIGITS - 1)
        .map(|byte| if allowed(byte) { char::from(byte) } else { '-' })
        .collect();
    format!("{}-{hash}", readable.trim_end_matches('-'))
}

fn digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

/// Metadata of a policy of ours, without evidence.
pub(crate) fn metadata(workload: &Workload) -> ObjectMeta {
    ObjectMeta {
        name: Some(policy_name(workload)),
        namespace: Some(workload.namespace.clone()),
        labels: Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into()),
        annotations: Some(
            [
                (WORKLOAD_KIND.to_owned(), workload.kind.clone()),
                (WORKLOAD_NAME.to_owned(), workload.name.clone()),
            ]
            .into(),
        ),
        ..ObjectMeta::default()
    }
}

/// The workload of a policy that is ours; `None` for every other policy.
pub fn owned_workload(policy: &NetworkPolicy) -> Option<Workload> {
    let annotations = policy.metadata.annotations.as_ref().filter(|_| is_owned(policy))?;
    Some(Workload {
        namespace: policy.metadata.namespace.clone()?,
        kind: annotations.get(WORKLOAD_KIND)?.clone(),
        name: annotations.get(WORKLOAD_NAME)?.clone(),
    })
}

/// Whether a policy is ours.
pub fn is_owned(policy: &NetworkPolicy) -> bool {
    let ObjectMeta {
        labels: Some(labels),
        annotations: Some(annotations),
        namespace: Some(_),
        ..
    } = &policy.metadata
    else {
        return false;
    };
    let names_it = [WORKLOAD_KIND, WORKLOAD_NAME]
        .iter()
        .all(|key| annotations.contains_key(*key));
    names_it && labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

/// What a policy says that its rules come from.
pub fn evidence(policy: &NetworkPolicy) -> Option<&String> {
    policy.metadata.annotations.as_ref()?.get(EVIDENCE)
}

/// The lines of evidence that a rule comes from, as synthesis wrote them. `index` is its position in the list of its direction, from 0.
pub fn evidence_of(policy: &NetworkPolicy, direction: Direction, index: usize) -> impl Iterator<Item = &str> {
    let prefix = format!("{direction} {}: ", index + 1);
    evidence(policy)
        .map_or("", String::as_str)
        .lines()
        .filter_map(move |line| line.strip_prefix(&prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn workload(kind: &str, name: &str) -> Workload {
        fixture::workload(kind, "shop", name)
    }

    #[test]
    fn names_are_what_the_api_takes() {
        assert_eq!(policy_name(&workload("Deployment", "web")), "nanoseg-deployment-web");
        assert_eq!(policy_name(&workload("Pod", "db.v2-0")), "nanoseg-pod-db.v2-0");
        let long = workload("StatefulSet", &"x".repeat(253));
        assert_eq!(policy_name(&long).len(), LONGEST);
        assert_ne!(
            policy_name(&long),
            policy_name(&workload("StatefulSet", &"x".repeat(252)))
        );
        for odd in ["a_b", "a..b", "-a.", "Ä", "a.-b"] {
            let name = policy_name(&workload("Rollout", odd));
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
                "{name}"
            );
            assert_ne!(name, policy_name(&workload("Rollout", "a-b")), "{odd}");
        }
    }

    #[test]
    fn a_copied_label_does_not_make_a_policy_ours() {
        let ours = NetworkPolicy {
            metadata: metadata(&workload("Deployment", "web")),
            spec: None,
        };
        assert_eq!(owned_workload(&ours), Some(workload("Deployment", "web")));
        let mut copied = ours.clone();
        copied.metadata.annotations = None;
        assert_eq!(owned_workload(&copied), None);
        let mut unlabelled = ours;
        unlabelled.metadata.labels = None;
        assert_eq!(owned_workload(&unlabelled), None);
    }
}
