//! A namespace that the settings do not name is taken from Learn to Audit to Enforce by a person who has kubectl alone.

use std::collections::BTreeSet;
use std::time::Duration;

use nanoseg_lab::peer::Call;
use nanoseg_tests::until;
use serde_json::{Value, json};

use super::WINDOW;
use super::shop::{BY_HAND, OURS, Shop, text};

const SEGMENTS: [&str; 3] = ["daemonset-agent", "deployment-autoscaler", "deployment-metrics"];

/// What nobody proposed.
const STALE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn policies(shop: &Shop) -> Vec<Value> {
    shop.items(&["networkpolicies", "--namespace", BY_HAND, "--selector", OURS])
}

/// The settings would learn it for a day: its Segments say that it is to be less, its label that nothing is to be enforced.
pub(crate) fn audits_by_a_label(shop: &Shop) {
    let wanted = BTreeSet::from(SEGMENTS);
    until("the Segments to be there", Duration::from_mins(2), || {
        let segments = shop.items(&["segments", "--namespace", BY_HAND]);
        let found = segments
            .iter()
            .filter_map(|segment| segment["metadata"]["name"].as_str());
        let missing: Vec<_> = wanted.difference(&found.collect()).copied().collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{missing:?} are missing"))
        }
    });
    let refused = shop
        .set(BY_HAND, "deployment-metrics", &json!({ "learningWindow": "a while" }))
        .unwrap_err();
    assert!(refused.contains("spec.learningWindow"), "{refused}");
    for segment in SEGMENTS {
        assert_eq!(shop.status(BY_HAND, segment)["phase"], "Learning");
        shop.set(BY_HAND, segment, &json!({ "learningWindow": WINDOW }))
            .unwrap();
    }
    shop.kubectl(&["label", "namespace", BY_HAND, "nanoseg.io/mode=Audit"]);
}

/// While it is audited everything passes, and what the proposals would deny is told.
pub(crate) fn tells_what_would_be_denied(shop: &Shop) {
    assert_eq!(policies(shop), Vec::<Value>::new(), "nothing of it is enforced");
    let (here, there): (Vec<Call>, Vec<Call>) = shop
        .intrude()
        .into_iter()
        .partition(|call| call.to.ends_with(&format!(".{BY_HAND}")));
    assert!(
        !here.is_empty() && here.iter().all(|call| call.ok),
        "audited, not enforced: {here:#?}"
    );
    assert!(
        !there.is_empty() && there.iter().all(|call| !call.ok),
        "enforced: {there:#?}"
    );
    until("the audit to name the intruder", Duration::from_secs(15), || {
        let status = shop.status(BY_HAND, "deployment-metrics");
        let told = status["novelEdges"].as_array().into_iter().flatten();
        let mut told = told.filter(|edge| {
            edge["source"] == "shop/Deployment/intruder"
                && edge["decision"] == "Denied"
                && edge["count"].as_u64() > Some(0)
                && edge["firstSeen"].is_string()
        });
        told.next().map(drop).ok_or_else(|| status["novelEdges"].to_string())
    });
    until("an Event to say so", Duration::from_secs(15), || {
        let events = shop.items(&[
            "events",
            "--namespace",
            BY_HAND,
            "--field-selector=involvedObject.name=deployment-metrics,reason=Violation",
        ]);
        if events.is_empty() {
            Err("there is none")
        } else {
            Ok(())
        }
    });
}

/// One Segment by the hash of its proposal, the others by their namespace's label.
pub(crate) fn enforces_what_was_approved(shop: &Shop) {
    let segment = "deployment-metrics";
    shop.set(
        BY_HAND,
        segment,
        &json!({ "mode": "Enforce", "promotion": "Manual", "approval": STALE }),
    )
    .unwrap();
    until(
        "another proposal's approval not to count",
        Duration::from_secs(15),
        || {
            let status = shop.status(BY_HAND, segment);
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            let promotable = conditions.find(|condition| condition["type"] == "Promotable").cloned();
            match promotable {
                Some(it) if it["reason"] == "ApprovalOutdated" && status["phase"] == "Proposed" => Ok(()),
                other => Err(format!("{} {other:?}", status["phase"])),
            }
        },
    );
    assert_eq!(
        policies(shop),
        Vec::<Value>::new(),
        "the approval is another proposal's"
    );
    let hash = text(&shop.status(BY_HAND, segment)["proposalHash"]);
    shop.set(BY_HAND, segment, &json!({ "approval": hash })).unwrap();
    until("what was approved to be enforced", Duration::from_secs(15), || {
        let status = shop.status(BY_HAND, segment);
        if status["phase"] == "Enforcing" && status["appliedHash"] == hash.as_str() {
            Ok(())
        } else {
            Err(format!("{} {}", status["phase"], status["reason"]))
        }
    });
    assert_eq!(policies(shop).len(), 1, "that one, and no other");
    shop.kubectl(&["label", "--overwrite", "namespace", BY_HAND, "nanoseg.io/mode=Enforce"]);
}
