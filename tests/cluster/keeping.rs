//! Policies stay what they are while everything else comes and goes.

use std::collections::BTreeMap;
use std::time::Duration;

use nanoseg_lab::app::Kind;
use nanoseg_tests::until;
use serde_json::json;

use super::shop::{Policies, Shop};

/// Every workload is restarted: its traffic goes on, its policy stays.
pub(crate) fn survives_a_restart(shop: &Shop, policies: &Policies) {
    for workload in shop
        .app
        .workloads
        .iter()
        .filter(|workload| workload.kind != Kind::CronJob)
    {
        let id = format!("{}/{}", workload.kind.as_str().to_lowercase(), workload.name);
        let namespace = workload.namespace.as_str();
        shop.kubectl(&["rollout", "restart", "--namespace", namespace, &id]);
        shop.kubectl(&["rollout", "status", "--namespace", namespace, "--timeout=180s", &id]);
    }
    shop.wait_for_engine("the engine to know the new pods");
    shop.assert_all_answered(Duration::from_mins(1), "after a rolling restart of every workload");
    let specs = |policies: &Policies| -> BTreeMap<_, _> {
        policies
            .iter()
            .map(|(key, policy)| (key.clone(), policy["spec"].clone()))
            .collect()
    };
    assert_eq!(specs(&shop.policies()), specs(policies), "a restart changes no policy");
}

/// What somebody else does to a policy is undone; what is not nanoseg's is left alone.
pub(crate) fn repairs_drift(shop: &Shop, policies: &Policies) {
    let (key, policy) = policies
        .iter()
        .find(|((_, name), _)| name.contains("orders-db"))
        .unwrap();
    let (namespace, name) = (key.0.as_str(), key.1.as_str());
    let edit = r#"[{"op":"replace","path":"/spec/ingress","value":[{}]}]"#;
    let edited = shop.repaired(key, policy, || {
        shop.kubectl(&[
            "patch",
            "networkpolicy",
            "--namespace",
            namespace,
            name,
            "--type=json",
            "--patch",
            edit,
        ]);
    });
    let deleted = shop.repaired(key, policy, || {
        shop.kubectl(&["delete", "networkpolicy", "--namespace", namespace, name]);
    });
    println!("an edited policy was back after {edited:?}, a deleted one after {deleted:?}");
    assert!(edited < Duration::from_secs(5) && deleted < Duration::from_secs(5));
}

/// A workload that is gone takes its policy along.
pub(crate) fn forgets_a_deleted_workload(shop: &mut Shop) {
    shop.kubectl(&["delete", "deployment", "--namespace=ops", "autoscaler"]);
    shop.app
        .workloads
        .retain(|workload| workload.name.as_str() != "autoscaler");
    until(
        "the policy of a deleted workload to go",
        Duration::from_secs(30),
        || {
            let left = shop
                .policies()
                .into_keys()
                .find(|(_, name)| name.contains("autoscaler"));
            left.map_or(Ok(()), |(namespace, name)| Err(format!("{namespace}/{name} is there")))
        },
    );
    // What was learned of it is kept for a day, unless it is switched off.
    let off = json!({ "mode": "Off" });
    shop.set("ops", "deployment-autoscaler", &off).unwrap();
    until("its Segment to go", Duration::from_secs(30), || {
        let left = shop.items(&["segments", "--namespace=ops"]);
        let is_there = left
            .iter()
            .any(|segment| segment["metadata"]["name"] == "deployment-autoscaler");
        if is_there { Err("it is there") } else { Ok(()) }
    });
}
