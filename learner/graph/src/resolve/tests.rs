use std::sync::Arc;

use super::*;
use crate::cluster::{ContainerPort, Controller, EndpointSlice, Node, Object, ObjectKey, OwnerRef};
use crate::container::ContainerRef;
use crate::endpoint::Workload;
use crate::flow::{Flow, FlowKey, Named, Outcome, Report};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn workload(kind: &str, name: &str) -> Endpoint {
    Endpoint::Workload(Workload {
        namespace: "shop".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    })
}

pub(super) fn pod(name: &str, address: &str) -> Pod {
    Pod {
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
        addresses: [ip(address)].into(),
        host_network: false,
        node: Some("n1".into()),
        ports: Arc::default(),
        phase: PodPhase::Running,
        ready: true,
        started: Some(at(0)),
    }
}

fn port(port: u16, target: TargetPort) -> ServicePort {
    ServicePort {
        name: None,
        port,
        target,
        node_port: None,
        transport: Transport::Tcp,
    }
}

fn service(name: &str, address: &str, selector: Option<&str>, port: ServicePort) -> Service {
    Service {
        name: ServiceName {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        },
        cluster_ips: [ip(address)].into(),
        external_ips: BTreeSet::new(),
        selector: selector.map(|app| [("app".to_owned(), app.to_owned())].into()),
        ports: [port].into(),
        external_name: None,
        created: Some(at(-100)),
    }
}

pub(super) fn flow(pod: &str, reporter: Reporter, peer: &str, port: u16, first: i64, last: i64) -> Flow {
    let container = ContainerRef {
        pod_uid: format!("uid-{pod}"),
        container_id: "c".to_owned(),
    };
    Flow {
        key: FlowKey {
            subject: Subject::Container(container),
            peer: ip(peer),
            port,
            transport: Transport::Tcp,
            reporter,
        },
        tally: Tally {
            first_seen: at(first),
            last_seen: at(last),
            attempted: 3,
            established: 2,
            refused: 0,
            unanswered: 0,
        },
    }
}

fn table(flows: Vec<Flow>) -> FlowTable {
    let mut table = FlowTable::default();
    table.merge(&Report {
        origin: Origin {
            node: "n1".to_owned(),
            epoch: 1,
        },
        flows,
        losses: Vec::new(),
        node_addresses: [ip("198.18.1.1")].into(),
        names: Vec::new(),
        held: Vec::new(),
        capture: None,
    });
    table
}

/// The edges as `source -> destination:port`.
fn edges(cluster: &Cluster, flows: Vec<Flow>) -> Vec<(Endpoint, Endpoint, u16)> {
    let graph = resolve(&table(flows), cluster);
    graph
        .edges()
        .map(|(key, _)| (key.source.clone(), key.destination.clone(), key.port))
        .collect()
}

fn cluster(objects: impl IntoIterator<Item = Object>) -> Cluster {
    let mut cluster = Cluster::new(["198.18.0.0/16".parse().unwrap()]);
    for object in objects {
        cluster.observe(object, at(1));
    }
    cluster
}

/// Pods, a Service, and one pod that is not there any more; its address may have gone to another one.
pub(super) fn cluster_of_the_shop(reused: bool) -> Cluster {
    let mut cluster = cluster([
        Object::Pod(pod("web-0", "198.18.1.10")),
        Object::Pod(pod("web-1", "198.18.1.11")),
        Object::Pod(pod("db-0", "198.18.1.12")),
        Object::Pod(pod("gone-0", "198.18.1.20")),
        Object::Service(service(
            "db",
            "198.19.0.10",
            Some("db"),
            port(80, TargetPort::Number(5432)),
        )),
    ]);
    cluster.remove(&ObjectKey::Pod("shop".to_owned(), "gone-0".to_owned()), at(50));
    let mut new = pod("new-0", if reused { "198.18.1.20" } else { "198.18.1.21" });
    new.started = Some(at(60));
    cluster.observe(Object::Pod(new), at(60));
    cluster
}

#[test]
fn both_ends_of_one_connection_are_one_edge() {
    let cluster = cluster([
        Object::Pod(pod("web-0", "198.18.1.2")),
        Object::Pod(pod("db-0", "198.18.1.3")),
    ]);
    let flows = vec![
        flow("web-0", Reporter::Source, "198.18.1.3", 5432, 5, 9),
        flow("db-0", Reporter::Destination, "198.18.1.2", 5432, 5, 9),
    ];
    let graph = resolve(&table(flows), &cluster);
    assert_eq!(graph.len(), 1);
    let (key, evidence) = graph.edges().next().unwrap();
    assert_eq!(
        (key.source, key.destination),
        (&workload("StatefulSet", "web"), &workload("StatefulSet", "db"))
    );
    assert_eq!(evidence.reporters(), [Reporter::Source, Reporter::Destination].into());
    assert_eq!(
        evidence.tally(Reporter::Source).unwrap().attempted,
        3,
        "ends are never added together"
    );
    assert_eq!(evidence.outcome(), Outcome::Established);
}

#[test]
fn p4_an_address_is_resolved_at_the_time_of_the_flow() {
    let mut cluster = cluster([
        Object::Pod(pod("web-0", "198.18.1.2")),
        Object::Pod(pod("old-0", "198.18.1.3")),
    ]);
    cluster.remove(&ObjectKey::Pod("shop".to_owned(), "old-0".to_owned()), at(20));
    cluster.observe(
        Object::Pod(Pod {
            started: Some(at(30)),
            ..pod("new-0", "198.18.1.3")
        }),
        at(31),
    );
    let to = |first, last| {
        edges(
            &cluster,
            vec![flow("web-0", Reporter::Source, "198.18.1.3", 80, first, last)],
        )[0]
        .1
        .clone()
    };
    assert_eq!(to(5, 9), workload("StatefulSet", "old"), "before the reuse");
    assert_eq!(to(40, 49), workload("StatefulSet", "new"), "after it");
    let reused = Endpoint::Unknown {
        reason: UnknownReason::AddressReused,
        address: Some(ip("198.18.1.3")),
    };
    assert_eq!(to(5, 49), reused, "across it, nobody else reports: never guessed");
}

#[test]
fn p3_the_other_ends_report_settles_a_reused_address() {
    let mut cluster = cluster([
        Object::Pod(pod("web-0", "198.18.1.2")),
        Object::Pod(pod("old-0", "198.18.1.3")),
    ]);
    cluster.remove(&ObjectKey::Pod("shop".to_owned(), "old-0".to_owned()), at(20));
    cluster.observe(
        Object::Pod(Pod {
            started: Some(at(30)),
            ..pod("new-0", "198.18.1.3")
        }),
        at(31),
    );
    let settled = edges(
        &cluster,
        vec![
            flow("web-0", Reporter::Source, "198.18.1.3", 80, 5, 49),
            flow("new-0", Reporter::Destination, "198.18.1.2", 80, 41, 49),
        ],
    );
    assert_eq!(
        settled,
        [(workload("StatefulSet", "web"), workload("StatefulSet", "new"), 80)]
    );
}

#[test]
fn p10_a_service_port_becomes_the_target_port_of_each_pod_behind_it() {
    let named = |name: &str, address: &str, number| {
        let port = ContainerPort {
            name: Some("http".to_owned()),
            number,
            transport: Transport::Tcp,
        };
        Pod {
            labels: Arc::new([("app".to_owned(), "api".to_owned())].into()),
            ports: Arc::new([port].into()),
            ..pod(name, address)
        }
    };
    let cluster = cluster([
        Object::Pod(pod("web-0", "198.18.1.2")),
        Object::Pod(named("api-0", "198.18.1.3", 8080)),
        Object::Pod(named("canary-0", "198.18.1.4", 9090)),
        Object::Service(service(
            "api",
            "198.18.200.1",
            Some("api"),
            port(80, TargetPort::Name("http".to_owned())),
        )),
    ]);
    let graph = resolve(
        &table(vec![flow("web-0", Reporter::Source, "198.18.200.1", 80, 5, 9)]),
        &cluster,
    );
    let seen: Vec<_> = graph
        .edges()
        .map(|(key, evidence)| (key.destination.clone(), key.port, evidence.via.len()))
        .collect();
    assert_eq!(
        seen,
        [
            (workload("StatefulSet", "api"), 8080, 1),
            (workload("StatefulSet", "canary"), 9090, 1)
        ]
    );
}

#[test]
fn p12_a_service_without_selector_stays_a_service_at_its_slices_port() {
    let name = ServiceName {
        namespace: "shop".to_owned(),
        name: "kubernetes".to_owned(),
    };
    let cluster = cluster([
        Object::Pod(pod("web-0", "198.18.1.2")),
        Object::Service(service(
            "kubernetes",
            "198.18.200.1",
            None,
            port(443, TargetPort::Number(6443)),
        )),
        Object::EndpointSlice(EndpointSlice {
            name: "kubernetes".to_owned(),
            service: name.clone(),
            addresses: [ip("192.0.2.1")].into(),
            ports: [(None, 6443, Transport::Tcp)].into(),
        }),
    ]);
    let seen = edges(
        &cluster,
        vec![flow("web-0", Reporter::Source, "198.18.200.1", 443, 5, 9)],
    );
    assert_eq!(seen, [(workload("StatefulSet", "web"), Endpoint::Service(name), 6443)]);
}

#[test]
fn p14_a_cluster_address_never_turns_external() {
    let cluster = cluster([Object::Pod(pod("web-0", "198.18.1.2"))]);
    let peer = |address: &str| {
        edges(&cluster, vec![flow("web-0", Reporter::Source, address, 80, 5, 9)])[0]
            .1
            .clone()
    };
    let unseen = Endpoint::Unknown {
        reason: UnknownReason::AddressNotSeen,
        address: Some(ip("198.18.7.7")),
    };
    assert_eq!(peer("198.18.7.7"), unseen);
    assert_eq!(peer("192.0.2.7"), Endpoint::External(ip("192.0.2.7")));
    assert_eq!(peer("2001:db8::7"), Endpoint::External(ip("2001:db8::7")));
}

#[test]
fn p25_an_external_address_has_the_name_that_this_workload_asked_for_at_that_time() {
    let cluster = cluster([
        Object::Pod(pod("web-0", "198.18.1.2")),
        Object::Pod(pod("db-0", "198.18.1.3")),
    ]);
    let asked = |pod: &str, address, name: &str, first, until| Named {
        subject: flow(pod, Reporter::Source, address, 0, 0, 0).key.subject,
        address: ip(address),
        name: name.to_owned().try_into().unwrap(),
        first_seen: at(first),
        until: at(until),
    };
    let mut names: Vec<Named> = ["g", "f", "e", "d", "c", "b", "a"]
        .into_iter()
        .map(|name| asked("web-0", "192.0.2.8", name, 0, 90))
        .collect();
    names.extend([
        asked("web-0", "192.0.2.7", "api.example.com", 3, 5),
        asked("web-0", "192.0.2.7", "before.example.com", 1, 4),
        asked("web-0", "192.0.2.7", "later.example.com", 10, 20),
        asked("db-0", "192.0.2.7", "not.mine.example.com", 3, 20),
        asked("web-0", "198.18.1.3", "db.cluster.local", 3, 20),
    ]);
    let mut flows = table(vec![
        flow("web-0", Reporter::Source, "192.0.2.7", 443, 5, 9),
        flow("web-0", Reporter::Source, "192.0.2.8", 443, 5, 9),
        flow("web-0", Reporter::Source, "198.18.1.3", 5432, 5, 9),
        flow("db-0", Reporter::Destination, "192.0.2.7", 5432, 5, 9),
    ]);
    flows.merge(&Report {
        origin: Origin {
            node: "n1".to_owned(),
            epoch: 1,
        },
        flows: Vec::new(),
        losses: Vec::new(),
        node_addresses: [].into(),
        names,
        held: Vec::new(),
        capture: None,
    });
    let graph = resolve(&flows, &cluster);
    let called: Vec<String> = graph
        .edges()
        .map(|(edge, _)| {
            let names = graph.names(edge.source, edge.destination).iter();
            let names: Vec<&str> = names.map(crate::name::DnsName::as_str).collect();
            format!("{} {} {}", edge.destination, edge.port, names.join(","))
        })
        .collect();
    assert_eq!(
        called,
        [
            "StatefulSet shop/db 5432 ",
            "external 192.0.2.7 443 api.example.com",
            "external 192.0.2.8 443 a,b,c,d",
            "StatefulSet shop/db 5432 ",
        ]
    );
}

#[test]
fn p15_p16_a_nodes_address_is_the_node() {
    let node = Node {
        name: "n2".to_owned(),
        addresses: [ip("192.0.2.2")].into(),
        labels: BTreeMap::new(),
        pod_cidrs: BTreeSet::new(),
    };
    let host = Pod {
        host_network: true,
        addresses: [ip("192.0.2.3")].into(),
        node: Some("n3".into()),
        ..pod("hosted-0", "::1")
    };
    let cluster = cluster([
        Object::Pod(pod("web-0", "198.18.1.2")),
        Object::Node(node),
        Object::Pod(host),
    ]);
    for (address, name, message) in [
        ("192.0.2.2", "n2", "a Node object's address"),
        ("192.0.2.3", "n3", "a host-network pod's address"),
        (
            "198.18.1.1",
            "n1",
            "an interface of the learner's own node, inside the pod range",
        ),
    ] {
        let seen = edges(&cluster, vec![flow("web-0", Reporter::Destination, address, 80, 5, 9)]);
        assert_eq!(
            seen,
            [(Endpoint::Node(name.to_owned()), workload("StatefulSet", "web"), 80)],
            "{message}"
        );
    }
    let own = edges(
        &cluster,
        vec![flow("hosted-0", Reporter::Source, "198.18.1.2", 80, 5, 9)],
    );
    assert_eq!(
        own,
        [(Endpoint::Node("n3".to_owned()), workload("StatefulSet", "web"), 80)],
        "its own end"
    );
}

#[test]
fn a_node_port_leads_to_the_pods() {
    let node = Node {
        name: "n2".to_owned(),
        addresses: [ip("192.0.2.2")].into(),
        labels: BTreeMap::new(),
        pod_cidrs: BTreeSet::new(),
    };
    let node_port = ServicePort {
        node_port: Some(30080),
        ..port(80, TargetPort::Number(8080))
    };
    let cluster = cluster([
        Object::Pod(pod("web-0", "198.18.1.2")),
        Object::Pod(pod("api-0", "198.18.1.3")),
        Object::Node(node),
        Object::Service(service("api", "198.18.200.1", Some("api"), node_port)),
    ]);
    let seen = edges(
        &cluster,
        vec![flow("web-0", Reporter::Source, "192.0.2.2", 30080, 5, 9)],
    );
    assert_eq!(
        seen,
        [(workload("StatefulSet", "web"), workload("StatefulSet", "api"), 8080)]
    );
}

#[test]
fn an_end_that_cannot_be_told_is_unknown_with_its_reason() {
    let cluster = cluster([Object::Pod(pod("web-0", "198.18.1.2"))]);
    let mut gone = flow("x", Reporter::Source, "198.18.1.2", 80, 5, 9);
    let seen = edges(&cluster, vec![gone.clone()]);
    assert_eq!(
        seen[0].0,
        Endpoint::Unknown {
            reason: UnknownReason::PodNotSeen,
            address: None
        }
    );
    gone.key.subject = Subject::Unknown(UnknownReason::CgroupGone);
    assert_eq!(
        edges(&cluster, vec![gone])[0].0,
        Endpoint::Unknown {
            reason: UnknownReason::CgroupGone,
            address: None
        }
    );
}

#[test]
fn a_pod_talking_to_itself_is_not_traffic() {
    let cluster = cluster([Object::Pod(pod("web-0", "198.18.1.2"))]);
    assert_eq!(
        edges(&cluster, vec![flow("web-0", Reporter::Source, "198.18.1.2", 80, 5, 9)]),
        []
    );
}

#[test]
fn p5_a_jobs_pod_belongs_to_its_cron_job_also_after_both_are_gone() {
    let job = Controller {
        namespace: "shop".to_owned(),
        kind: "Job".to_owned(),
        name: "report-123".to_owned(),
        owner: Some(OwnerRef {
            kind: "CronJob".to_owned(),
            name: "report".to_owned(),
        }),
        selector: Arc::default(),
        template_labels: Arc::default(),
    };
    let owner = Some(OwnerRef {
        kind: "Job".to_owned(),
        name: "report-123".to_owned(),
    });
    let mut cluster = cluster([
        Object::Controller(job),
        Object::Pod(Pod {
            owner: owner.map(Arc::new),
            ..pod("report-123-x", "198.18.1.5")
        }),
        Object::Pod(pod("db-0", "198.18.1.3")),
    ]);
    cluster.remove(
        &ObjectKey::Controller("shop".to_owned(), "Job".to_owned(), "report-123".to_owned()),
        at(11),
    );
    cluster.remove(&ObjectKey::Pod("shop".to_owned(), "report-123-x".to_owned()), at(12));
    let seen = edges(
        &cluster,
        vec![flow("report-123-x", Reporter::Source, "198.18.1.3", 5432, 5, 9)],
    );
    assert_eq!(
        seen,
        [(workload("CronJob", "report"), workload("StatefulSet", "db"), 5432)]
    );
}

#[test]
fn who_of_a_node_it_was_is_told_beside_the_edge_and_is_no_endpoint() {
    let mut hosted = pod("hosted-0", "192.0.2.3");
    hosted.host_network = true;
    let cluster = cluster([Object::Pod(pod("web-0", "198.18.1.2")), Object::Pod(hosted)]);
    let of_host = |path: &str| {
        let mut flow = flow("web-0", Reporter::Source, "198.18.1.2", 80, 5, 9);
        flow.key.subject = Subject::Host(path.to_owned());
        flow
    };
    let of_pod = flow("hosted-0", Reporter::Source, "198.18.1.2", 80, 5, 9);
    let seen_by_web = flow("web-0", Reporter::Destination, "198.18.1.1", 80, 5, 9);
    let flows = vec![
        of_host("/system.slice/kubelet.service"),
        of_host("/system.slice"),
        of_pod,
        seen_by_web,
    ];
    let graph = resolve(&table(flows), &cluster);
    let edges: Vec<_> = graph.edges().map(|(edge, _)| edge).collect();
    let [edge] = *edges else { panic!("{edges:?}") };
    assert_eq!(edge.source, &Endpoint::Node("n1".to_owned()));
    let told = |end| {
        let processes = graph.processes(edge, end).iter();
        processes.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(told(Reporter::Source), ["kubelet.service", "StatefulSet shop/hosted"]);
    assert!(told(Reporter::Destination).is_empty(), "a pod has a name of its own");
}
