//! The whole loop on a real cluster: the shop is learned from its packets, its policies are applied, and a real engine refuses
//! what was not learned. The shipped manifests are applied as they are, but for the place of the cgroup tree in the lab.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod audit;
mod doctor;
mod failing;
mod intruding;
mod keeping;
mod leaving;
mod matrix;
mod page;
mod promoting;
mod review;
mod shop;

use std::time::Duration;

use nanoseg_tests::is_root;

use audit::Audit;
use shop::{OURS, Shop};

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");

/// Learned first: one run of the CronJob, which comes each minute, and some seconds for it to start.
const WINDOW: &str = "80s";

const FOREIGN: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: by-hand, namespace: ops}
spec:
  podSelector: {matchLabels: {app: nobody}}
  policyTypes: [Ingress]
";

#[test]
fn the_shop_is_learned_enforced_and_kept_in_sync() {
    if !is_root("the real cluster") {
        return;
    }
    let audit = Audit::new();
    let mut shop = Shop::up(&audit);
    shop.cluster.apply_objects(FOREIGN).unwrap();
    let foreign = |shop: &Shop| {
        let by_hand = ["get", "networkpolicy", "--namespace=ops", "by-hand"];
        shop.cluster.get(&by_hand).unwrap()["metadata"]["resourceVersion"].clone()
    };
    let by_hand = foreign(&shop);

    shop.install();
    promoting::audits_by_a_label(&shop);
    shop.wait_for_audit();
    shop.wait_for_engine("the engine to know the first policies");
    promoting::tells_what_would_be_denied(&shop);
    promoting::enforces_what_was_approved(&shop);
    shop.wait_for_enforcement();
    println!("{}", shop.kubectl(&["get", "segments", "--all-namespaces"]));
    let policies = shop.policies();
    let ours = ["get", "networkpolicies", "--all-namespaces", "--selector", OURS];
    println!("{}", shop.kubectl(&[&ours[..], &["-o", "yaml"]].concat()));
    review::review(&policies, &shop.cluster);
    shop.wait_for_engine("the engine to know the policies");
    shop.assert_all_answered(Duration::from_mins(1), "after enforcement");

    failing::learners_are_killed(&shop);
    intruding::refuses_the_intruder(&shop);
    let frozen = failing::freezes_the_leader(&shop);
    keeping::survives_a_restart(&shop, &policies);
    failing::the_frozen_one_writes_nothing(&shop, &audit, frozen);
    keeping::repairs_drift(&shop, &policies);
    keeping::forgets_a_deleted_workload(&mut shop);
    failing::survives_its_controllers_death(&shop);
    failing::learners_let_go_of_what_is_gone(&shop);
    assert_eq!(foreign(&shop), by_hand, "not nanoseg's, not touched");
    page::comes_to_this_machine(&shop);
    doctor::tells_whether_the_cluster_enforces(&shop);
    audit.assert_rights_are_exact();
    leaving::leaves_what_the_readme_says(&shop);
    matrix::the_engine_agrees_with_the_evaluator(&mut shop);
}
