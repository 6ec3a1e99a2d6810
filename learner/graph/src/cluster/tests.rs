use std::sync::Arc;

use super::*;
use crate::endpoint::Workload;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn pod(uid: &str, name: &str, owner: Option<(&str, &str)>) -> Pod {
    Pod {
        uid: uid.into(),
        mirror_uid: None,
        images: Arc::default(),
        namespace: "shop".into(),
        name: name.into(),
        labels: Arc::default(),
        owner: owner.map(|(kind, name)| {
            Arc::new(OwnerRef {
                kind: kind.to_owned(),
                name: name.to_owned(),
            })
        }),
        addresses: ["198.18.1.2".parse().unwrap()].into(),
        host_network: false,
        node: None,
        ports: Arc::default(),
        phase: PodPhase::Running,
        ready: true,
        started: Some(at(0)),
    }
}

fn controller(kind: &str, name: &str, owner: Option<(&str, &str)>) -> Object {
    Object::Controller(Controller {
        namespace: "shop".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        owner: owner.map(|(kind, name)| OwnerRef {
            kind: kind.to_owned(),
            name: name.to_owned(),
        }),
        selector: Arc::default(),
        template_labels: Arc::default(),
    })
}

#[test]
fn the_owner_chain_ends_at_its_top() {
    let mut cluster = Cluster::default();
    cluster.observe(controller("ReplicaSet", "web-5d8", Some(("Deployment", "web"))), at(0));
    cluster.observe(controller("Job", "report-1", Some(("CronJob", "report"))), at(0));
    cluster.observe(controller("ReplicaSet", "roll-1", Some(("Rollout", "roll"))), at(0));
    cluster.observe(controller("ReplicaSet", "loop", Some(("ReplicaSet", "loop"))), at(0));
    for (owner, kind, name, message) in [
        (
            Some(("ReplicaSet", "web-5d8")),
            "Deployment",
            "web",
            "ReplicaSet to Deployment",
        ),
        (
            Some(("ReplicaSet", "alone")),
            "ReplicaSet",
            "alone",
            "a ReplicaSet that was never seen",
        ),
        (Some(("StatefulSet", "db")), "StatefulSet", "db", "StatefulSet"),
        (Some(("DaemonSet", "log")), "DaemonSet", "log", "DaemonSet"),
        (Some(("Job", "report-1")), "CronJob", "report", "Job to CronJob"),
        (Some(("Job", "once")), "Job", "once", "a Job of nobody"),
        (
            Some(("ReplicaSet", "roll-1")),
            "Rollout",
            "roll",
            "an owner of an unknown kind at the top",
        ),
        (
            Some(("Kafka", "events")),
            "Kafka",
            "events",
            "a custom controller that owns pods itself",
        ),
        (Some(("Node", "n1")), "Pod", "p", "a static pod"),
        (
            Some(("ReplicaSet", "loop")),
            "ReplicaSet",
            "loop",
            "a chain that leads back to itself ends",
        ),
        (None, "Pod", "p", "a bare pod"),
    ] {
        let expected = Workload {
            namespace: "shop".to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        assert_eq!(cluster.workload_of(&pod("u", "p", owner)), expected, "{message}");
    }
}

#[test]
fn a_pod_of_the_same_name_takes_the_place_of_the_one_before() {
    let mut cluster = Cluster::default();
    let address = "198.18.1.2".parse().unwrap();
    cluster.observe(Object::Pod(pod("first", "db-0", None)), at(1));
    cluster.observe(
        Object::Pod(Pod {
            started: Some(at(10)),
            ..pod("second", "db-0", None)
        }),
        at(11),
    );
    assert_eq!(cluster.pods().count(), 1);
    assert_eq!(
        cluster.owners_of(address, at(2), at(3)),
        [AddressOwner::Pod("first".into())].into()
    );
    assert_eq!(
        cluster.owners_of(address, at(12), at(13)),
        [AddressOwner::Pod("second".into())].into()
    );
    assert!(cluster.pod_by_uid("first").is_some(), "a late report still finds it");
}

#[test]
fn a_finished_pod_gives_its_address_back() {
    let mut cluster = Cluster::default();
    let address = "198.18.1.2".parse().unwrap();
    cluster.observe(Object::Pod(pod("job", "job-x", None)), at(1));
    for again in [20, 25] {
        cluster.observe(
            Object::Pod(Pod {
                phase: PodPhase::Finished,
                ..pod("job", "job-x", None)
            }),
            at(again),
        );
    }
    assert_eq!(
        cluster.owners_of(address, at(15), at(16)),
        [AddressOwner::Pod("job".into())].into()
    );
    assert_eq!(cluster.owners_of(address, at(22), at(30)), BTreeSet::new());
    let seen_late = Pod {
        phase: PodPhase::Finished,
        ..pod("late", "late-x", None)
    };
    cluster.observe(Object::Pod(seen_late), at(40));
    assert_eq!(
        cluster.owners_of(address, at(33), at(34)),
        [AddressOwner::Pod("late".into())].into()
    );
    assert_eq!(cluster.owners_of(address, at(41), at(42)), BTreeSet::new());
}

#[test]
fn a_static_pod_is_found_by_the_hash_in_its_cgroup_path() {
    let mut cluster = Cluster::default();
    let mirror = Pod {
        mirror_uid: Some("3dfe59d4c0b1a2938475665748392a1b".into()),
        ..pod("api-uid", "etcd-n1", None)
    };
    cluster.observe(Object::Pod(mirror), at(1));
    assert_eq!(
        cluster
            .pod_by_uid("3dfe59d4c0b1a2938475665748392a1b")
            .map(|pod| &*pod.name),
        Some("etcd-n1")
    );
}

#[test]
fn a_namespace_that_only_pods_speak_of_has_its_name_for_a_label() {
    let labels = Cluster::default().namespace_labels("shop");
    assert_eq!(labels, [(NAMESPACE_NAME.to_owned(), "shop".to_owned())].into());
}

#[test]
fn keys_are_what_was_observed_and_not_removed() {
    let mut cluster = Cluster::default();
    cluster.observe(Object::Pod(pod("u", "p", None)), at(1));
    cluster.observe(controller("Job", "j", None), at(1));
    assert_eq!(cluster.keys().len(), 2);
    for key in cluster.keys() {
        cluster.remove(&key, at(2));
    }
    assert_eq!(cluster.keys(), BTreeSet::new());
    assert!(
        cluster.is_cluster_address("198.18.1.2".parse().unwrap()),
        "once the cluster's, never external"
    );
}

proptest::proptest! {
    /// Whoever holds an address in an interval is found by every question that touches the interval, and by no other.
    #[test]
    fn owners_are_those_whose_interval_is_touched(lives in proptest::collection::vec((0_i64..100, 1_i64..50), 1..8), first in 0_i64..160, length in 0_i64..40) {
        let mut cluster = Cluster::default();
        let address: IpAddr = "198.18.1.2".parse().unwrap();
        let mut start = 0;
        let mut expected = BTreeSet::new();
        for (index, (gap, length_of_life)) in lives.iter().enumerate() {
            let (from, until) = (start + gap, start + gap + length_of_life);
            start = until + 1;
            let uid = format!("u{index}");
            cluster.observe(Object::Pod(Pod { started: Some(at(from)), ..pod(&uid, &uid, None) }), at(from));
            cluster.remove(&ObjectKey::Pod("shop".to_owned(), uid.clone()), at(until));
            if from <= first + length && first <= until {
                expected.insert(AddressOwner::Pod(uid.into()));
            }
        }
        proptest::prop_assert_eq!(cluster.owners_of(address, at(first), at(first + length)), expected);
    }
}
