//! One proposal beside what it comes from and what it would change.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nanoseg_policy::diff::{ChangeGroup, Kind, diff, summary};
use nanoseg_policy::direction::Direction;
use nanoseg_policy::evaluate::PolicySet;
use nanoseg_policy::ownership::{PolicyName, evidence, evidence_of};
use serde::Serialize;
use serde_json::{Value, json};

use super::compare;
use super::segments::row;
use super::violations::novel;
use crate::page::board::Copy;
use crate::reconcile::Snapshot;
use crate::segment::{Segment, SegmentName, SegmentStatus};

/// Lines that are listed of each kind of change; the rest is counted.
const LISTED: usize = 200;

/// One Segment's proposal; `None` when there is no such Segment.
pub fn review(copy: &Copy, name: &SegmentName) -> Option<Value> {
    let snapshot = &copy.snapshot;
    let segment = snapshot
        .segments
        .iter()
        .find(|segment| segment.segment_name() == *name)?;
    let mut told = row(segment);
    told["version"] = copy.version.into();
    let Some(SegmentStatus {
        baseline,
        quarantined,
        proposal,
        proposal_hash,
        notes,
        history,
        ..
    }) = &segment.status
    else {
        return Some(told);
    };
    told["baseline"] = json!(baseline);
    told["novelEdges"] = json!(novel(segment));
    told["quarantinedEdges"] = json!(quarantined);
    told["notes"] = json!(notes);
    told["history"] = json!(history);
    // The controller's own words: they read back.
    let parsed = segment.proposed_policy().ok().flatten();
    if let (Some(text), Some(policy), Some(hash)) = (proposal, parsed, proposal_hash) {
        told["yaml"] = json!(text);
        told["rules"] = rules(&policy);
        told["commands"] = commands(segment, hash);
        compared(snapshot, &policy, &mut told);
    }
    Some(told)
}

/// Each rule beside the lines of evidence that it comes from, as synthesis wrote them.
fn rules(policy: &NetworkPolicy) -> Value {
    let evidence = evidence(policy).map_or("", String::as_str);
    let rule = |direction: Direction, index: usize, yaml: String| {
        json!({
            "direction": direction.as_str(),
            "number": index + 1,
            "yaml": yaml,
            "evidence": evidence_of(policy, direction, index).collect::<Vec<_>>(),
        })
    };
    let spec = policy.spec.clone().unwrap_or_default();
    let ingress = spec.ingress.unwrap_or_default();
    let egress = spec.egress.unwrap_or_default();
    let ingress = ingress
        .iter()
        .enumerate()
        .map(|(index, text)| rule(Direction::Ingress, index, yaml(text)));
    let egress = egress
        .iter()
        .enumerate()
        .map(|(index, text)| rule(Direction::Egress, index, yaml(text)));
    json!({
        "isolates": spec.policy_types,
        "selector": yaml(&spec.pod_selector),
        "rules": ingress.chain(egress).collect::<Vec<_>>(),
        "rest": evidence.lines().filter(|line| line.starts_with("and ")).collect::<Vec<_>>(),
    })
}

fn yaml(object: &impl Serialize) -> String {
    // Maps with string keys and plain values: nothing in a policy is beyond YAML.
    serde_yaml::to_string(object).unwrap_or_default()
}

/// A policy without what an API server writes on it.
fn bare(policy: &NetworkPolicy) -> NetworkPolicy {
    let ObjectMeta {
        name,
        namespace,
        labels,
        annotations,
        ..
    } = policy.metadata.clone();
    NetworkPolicy {
        metadata: ObjectMeta {
            name,
            namespace,
            labels,
            annotations,
            ..ObjectMeta::default()
        },
        spec: policy.spec.clone(),
    }
}

/// What applying it would change: in the text, and in who may connect to whom.
fn compared(snapshot: &Snapshot, proposal: &NetworkPolicy, told: &mut Value) {
    let name = PolicyName::of(proposal);
    let live = snapshot.live.iter().find(|live| PolicyName::of(live) == name);
    let (old, new) = (
        live.map(|live| yaml(&bare(live))).unwrap_or_default(),
        yaml(&bare(proposal)),
    );
    told["live"] = live.is_some().into();
    told["text"] = json!(compare::lines(&old, &new));
    let others = || snapshot.live.iter().filter(|live| PolicyName::of(live) != name);
    let (before, _rejected) = PolicySet::parse_all(&snapshot.live, &snapshot.cluster_policies);
    let (after, _rejected) = PolicySet::parse_all(others().chain([proposal]), &snapshot.cluster_policies);
    let found = diff(&before, &after, &snapshot.cluster);
    let groups = summary(&found);
    for kind in Kind::ALL {
        told[kind.as_str()] = changes(found.of(kind).len(), groups.iter().filter(|group| group.kind == kind));
    }
}

fn changes<'a>(total: usize, groups: impl Iterator<Item = &'a ChangeGroup>) -> Value {
    let (mut listed, mut taken, mut more) = (Vec::new(), 0, 0);
    for group in groups {
        let room = LISTED.saturating_sub(taken);
        more += group.lines.len().saturating_sub(room);
        let lines: Vec<_> = group.lines.iter().take(room).map(|line| line.told(group)).collect();
        taken += lines.len();
        if !lines.is_empty() {
            listed.push(json!({ "what": group.to_string(), "lines": lines }));
        }
    }
    json!({ "total": total, "groups": listed, "more": more })
}

/// What a person types who agrees.
fn commands(segment: &Segment, hash: &str) -> Value {
    let SegmentName { namespace, name } = segment.segment_name();
    let spec = json!({ "spec": { "approval": hash } });
    json!([
        {
            "about": "approve this very proposal",
            "command": format!(
                "kubectl patch segment -n {} {} --type=merge -p {}",
                quoted(&namespace), quoted(&name), quoted(&spec.to_string())
            ),
        },
        {
            "about": "do the same with nanoseg, installed as a plugin of kubectl",
            "command": format!("kubectl nanoseg approve {}", quoted(&format!("{namespace}/{name}"))),
        },
        {
            "about": "take it one mode further: Learn, Audit, Enforce",
            "command": format!("kubectl nanoseg promote {}", quoted(&format!("{namespace}/{name}"))),
        },
    ])
}

/// A word as a shell takes it, whatever is in it.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'/' | b'_');
    // A word that begins with a dash would be an option.
    if !word.is_empty() && !word.starts_with('-') && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_runs_nothing_that_a_name_says() {
        for (word, expected) in [
            ("shop/deployment-web", "shop/deployment-web"),
            ("a b", "'a b'"),
            ("$(reboot)", "'$(reboot)'"),
            ("'; reboot; '", r"''\''; reboot; '\'''"),
            ("-rf", "'-rf'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn each_rule_stands_beside_its_own_evidence() {
        let policy: NetworkPolicy = serde_yaml::from_str(
            "{metadata: {name: web, annotations: {nanoseg.io/evidence: \"ingress 1: a -> TCP 1\\ningress 10: j -> TCP 2\\negress 1: -> b TCP 3\\nand 2 more\\n\"}}, \
             spec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 1}]}], egress: [{ports: [{port: 3}]}]}}",
        )
        .unwrap();
        let told = rules(&policy);
        assert_eq!(
            told["rules"][0]["evidence"],
            json!(["a -> TCP 1"]),
            "not the tenth rule's"
        );
        assert_eq!(told["rules"][1]["evidence"], json!(["-> b TCP 3"]));
        assert_eq!(told["rest"], json!(["and 2 more"]));
    }
}
