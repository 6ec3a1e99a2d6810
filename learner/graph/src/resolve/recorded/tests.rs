use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::*;
use crate::cluster::{Node, Object, OwnerRef, Pod, PodPhase, Service, ServicePort, TargetPort};
use crate::endpoint::{ServiceName, Workload};
use crate::flow::{Outcome, Report, Transport};
use crate::recorded::{Recorded, UNTIMED};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod(name: &str, address: Option<&str>, started: i64) -> Object {
    Object::Pod(Pod {
        uid: format!("uid-{name}").into(),
        mirror_uid: None,
        images: Arc::default(),
        namespace: "shop".into(),
        name: name.into(),
        labels: Arc::new([("app".to_owned(), name.split('-').next().unwrap().to_owned())].into()),
        owner: Some(Arc::new(OwnerRef {
            kind: "StatefulSet".to_owned(),
            name: name.split('-').next().unwrap().to_owned(),
        })),
        addresses: address.map(ip).into_iter().collect(),
        host_network: name == "host-0",
        node: Some("n1".into()),
        ports: Arc::default(),
        phase: PodPhase::Running,
        ready: true,
        started: Some(at(started)),
    })
}

fn cluster() -> Cluster {
    let range: IpNet = "198.18.0.0/16".parse().unwrap();
    let mut cluster = Cluster::new([range]);
    let service = Service {
        name: ServiceName {
            namespace: "shop".to_owned(),
            name: "db".to_owned(),
        },
        cluster_ips: [ip("198.19.0.10")].into(),
        external_ips: BTreeSet::new(),
        selector: Some([("app".to_owned(), "db".to_owned())].into()),
        ports: [ServicePort {
            name: None,
            port: 80,
            target: TargetPort::Number(5432),
            node_port: None,
            transport: Transport::Tcp,
        }]
        .into(),
        external_name: None,
        created: None,
    };
    let node = Node {
        name: "n1".to_owned(),
        addresses: [ip("192.0.2.1")].into(),
        labels: std::collections::BTreeMap::new(),
        pod_cidrs: BTreeSet::new(),
    };
    for object in [
        pod("web-0", Some("198.18.1.2"), 0),
        pod("db-0", Some("198.18.1.3"), 0),
        pod("late-0", Some("198.18.1.4"), 1000),
        pod("bare-0", None, 0),
        pod("host-0", Some("192.0.2.1"), 0),
        Object::Service(service),
        Object::Node(node),
    ] {
        cluster.observe(object, at(0));
    }
    cluster
}

fn end(text: &str) -> RecordedEnd {
    match text.parse() {
        Ok(address) => RecordedEnd::Address(address),
        Err(_) => RecordedEnd::Pod {
            namespace: "shop".to_owned(),
            name: text.to_owned(),
        },
    }
}

fn record(source: &str, destination: &str, port: u16) -> Recorded {
    Recorded {
        key: RecordedKey {
            source: end(source),
            destination: end(destination),
            port,
            transport: Transport::Tcp,
            reporter: Reporter::Source,
        },
        outcome: Outcome::Established,
        count: 1,
        seen: None,
        workloads: [None, None],
    }
}

fn graph(records: impl IntoIterator<Item = Recorded>, flows: &FlowTable) -> ConnectionGraph {
    let mut recording = Recording::default();
    for record in records {
        recording.add(record);
    }
    resolve_recorded(&recording, flows, &cluster())
}

fn words(graph: &ConnectionGraph) -> Vec<String> {
    graph
        .edges()
        .map(|(edge, evidence)| {
            let via: Vec<&str> = evidence.via.iter().flat_map(|via| [" via ", &via.name]).collect();
            let via = via.concat();
            format!("{} -> {} {}{via}", edge.source, edge.destination, edge.port)
        })
        .collect()
}

#[test]
fn ends_by_name_and_by_address() {
    let rows = [
        (
            "web-0",
            "db-0",
            5432,
            "StatefulSet shop/web -> StatefulSet shop/db 5432",
        ),
        (
            "198.18.1.2",
            "198.18.1.3",
            5432,
            "StatefulSet shop/web -> StatefulSet shop/db 5432",
        ),
        (
            "web-0",
            "198.19.0.10",
            80,
            "StatefulSet shop/web -> StatefulSet shop/db 5432 via db",
        ),
        (
            "203.0.113.9",
            "198.19.0.10",
            80,
            "external 203.0.113.9 -> StatefulSet shop/db 5432 via db",
        ),
        ("web-0", "198.19.0.10", 81, "StatefulSet shop/web -> Service shop/db 81"),
        (
            "web-0",
            "203.0.113.9",
            443,
            "StatefulSet shop/web -> external 203.0.113.9 443",
        ),
        ("192.0.2.1", "web-0", 80, "Node n1 -> StatefulSet shop/web 80"),
        ("host-0", "web-0", 80, "Node n1 -> StatefulSet shop/web 80"),
        (
            "bare-0",
            "db-0",
            5432,
            "StatefulSet shop/bare -> StatefulSet shop/db 5432",
        ),
        (
            "gone-0",
            "db-0",
            5432,
            "unknown (the container's pod was never seen in the cluster) -> StatefulSet shop/db 5432",
        ),
        (
            "198.18.7.7",
            "db-0",
            5432,
            "unknown 198.18.7.7 (nobody was seen to have this cluster address at that time) -> StatefulSet shop/db 5432",
        ),
    ];
    for (source, destination, port, expected) in rows {
        let graph = graph([record(source, destination, port)], &FlowTable::default());
        assert_eq!(words(&graph), [expected], "{source} {destination}");
    }
}

#[test]
fn a_pod_that_is_gone_is_of_the_workload_that_its_records_name() {
    let of = |kind: &str, name: &str| {
        Some(Workload {
            namespace: "shop".to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        })
    };
    let named = |workloads| Recorded {
        workloads,
        ..record("gone-0", "db-0", 5432)
    };
    let known = "StatefulSet shop/web -> StatefulSet shop/db 5432";
    let unknown = "unknown (the container's pod was never seen in the cluster) -> StatefulSet shop/db 5432";
    let rows = [
        (vec![named([of("StatefulSet", "web"), None])], known),
        // One record is enough for all.
        (
            vec![named([None, None]), named([of("StatefulSet", "web"), None])],
            known,
        ),
        // Of a pod that is there the cluster knows better.
        (vec![named([of("StatefulSet", "web"), of("Deployment", "db")])], known),
        (vec![named([of("CronJob", "guess"), None])], unknown),
        (
            vec![
                named([of("StatefulSet", "web"), None]),
                named([of("StatefulSet", "late"), None]),
            ],
            unknown,
        ),
    ];
    for (records, expected) in rows {
        assert_eq!(
            words(&graph(records.clone(), &FlowTable::default())),
            [expected],
            "{records:?}"
        );
    }
    let record = Recorded {
        workloads: [None, of("StatefulSet", "late")],
        ..record("web-0", "gone-0", 80)
    };
    assert_eq!(
        words(&graph([record], &FlowTable::default())),
        ["StatefulSet shop/web -> StatefulSet shop/late 80"]
    );
}

#[test]
fn a_pods_connection_to_itself_is_not_traffic() {
    for (source, destination) in [("db-0", "db-0"), ("db-0", "198.18.1.3"), ("198.18.1.3", "db-0")] {
        assert!(graph([record(source, destination, 5432)], &FlowTable::default()).is_empty());
    }
}

#[test]
fn an_address_is_whose_it_was_then_and_a_name_is_a_name() {
    let timed = |destination: &str| Recorded {
        seen: Some((at(10), at(20))),
        ..record("web-0", destination, 80)
    };
    assert_eq!(
        words(&graph([timed("198.18.1.4")], &FlowTable::default())),
        ["StatefulSet shop/web -> unknown 198.18.1.4 (nobody was seen to have this cluster address at that time) 80"]
    );
    for record in [timed("late-0"), record("web-0", "198.18.1.4", 80)] {
        assert_eq!(
            words(&graph([record], &FlowTable::default())),
            ["StatefulSet shop/web -> StatefulSet shop/late 80"]
        );
    }
}

#[test]
fn what_learners_say_of_their_nodes_holds_here_too() {
    let mut flows = FlowTable::default();
    flows.merge(&Report {
        origin: Origin {
            node: "n7".to_owned(),
            epoch: 0,
        },
        flows: Vec::new(),
        losses: Vec::new(),
        node_addresses: [ip("198.18.7.1")].into(),
        names: Vec::new(),
        held: Vec::new(),
        capture: None,
    });
    assert_eq!(
        words(&graph([record("198.18.7.1", "web-0", 80)], &flows)),
        ["Node n7 -> StatefulSet shop/web 80"]
    );
}

#[test]
fn records_add_up_in_any_order() {
    let with = |reporter, count, outcome, seen| {
        let mut record = record("web-0", "db-0", 5432);
        record.key.reporter = reporter;
        Recorded {
            outcome,
            count,
            seen,
            ..record
        }
    };
    let mut records = vec![
        with(Reporter::Source, 3, Outcome::Established, Some((at(5), at(6)))),
        with(Reporter::Source, 0, Outcome::Established, Some((at(1), at(2)))),
        with(Reporter::Source, 2, Outcome::Refused, None),
        with(Reporter::Destination, 0, Outcome::Established, None),
    ];
    let forwards = graph(records.clone(), &FlowTable::default());
    records.reverse();
    assert_eq!(forwards, graph(records, &FlowTable::default()));
    let (_, evidence) = forwards.edges().next().unwrap();
    let source = evidence.tally(Reporter::Source).unwrap();
    assert_eq!((source.attempted, source.established, source.refused), (5, 3, 2));
    assert_eq!((source.first_seen, source.last_seen), (at(1), UNTIMED));
    let destination = evidence.tally(Reporter::Destination).unwrap();
    assert_eq!(
        (destination.attempted, destination.established),
        (1, 1),
        "seen, so at least once"
    );
    assert_eq!(forwards.len(), 1);
    let expected = Endpoint::Workload(Workload {
        namespace: "shop".to_owned(),
        kind: "StatefulSet".to_owned(),
        name: "db".to_owned(),
    });
    assert_eq!(*forwards.edges().next().unwrap().0.destination, expected);
}
