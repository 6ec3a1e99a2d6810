mod drawing;

use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::connection::Evidence;
use nanoseg_graph::endpoint::{Endpoint, UnknownReason};
use nanoseg_graph::flow::{Outcome, Reporter, Transport};
use nanoseg_graph::process::Process;
use proptest::prelude::*;

use super::*;
use crate::fixture::{cluster_of, edge, evidence, ip, manifests, policies, service_name, workload};
use crate::objects::Manifest;

/// A small shop: of three workloads one is isolated, one Service is open to the world.
pub(crate) const SHOP: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: data}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 198.18.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web-0, labels: {app: web}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: u, controller: true}]}, spec: {nodeName: n1, containers: [{name: c, image: 'shop/web:1'}]}, status: {phase: Running, podIPs: [{ip: 198.18.1.2}], containerStatuses: [{name: c, image: 'shop/web:1', imageID: 'r.example/shop/web@sha256:aa', ready: true, restartCount: 0}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web-1, labels: {app: web}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: u, controller: true}]}, spec: {nodeName: n1, containers: [{name: c, image: 'shop/web:1'}]}, status: {phase: Running, podIPs: [{ip: 198.18.1.3}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: data, name: db, labels: {app: db}}, spec: {nodeName: n1, containers: [{name: c, image: db}]}, status: {phase: Running, podIPs: [{ip: 198.18.1.4}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: data, name: probe}, spec: {nodeName: n1, hostNetwork: true, containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.0.1}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: web}, spec: {type: LoadBalancer, selector: {app: web}, clusterIP: 198.19.0.9, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}, status: {loadBalancer: {ingress: [{ip: 203.0.113.80}]}}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: data, name: db}, spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}, {from: [{podSelector: {matchLabels: {app: nobody}}}]}]}}
";

pub(crate) const PROPOSED: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: web}, spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}]}]}}
";

pub(crate) fn shop_edges() -> Vec<(EdgeKey, Evidence)> {
    let web = Endpoint::Workload(workload("StatefulSet", "shop", "web"));
    let db = Endpoint::Workload(workload("Pod", "data", "db"));
    let outside = Endpoint::External(ip("203.0.113.9"));
    let unknown = Endpoint::Unknown {
        reason: UnknownReason::PodNotSeen,
        address: None,
    };
    let both = [Reporter::Source, Reporter::Destination];
    let service = [service_name("data", "db")];
    let tcp = Transport::Tcp;
    [
        (
            edge(web.clone(), db.clone(), 5432, tcp),
            evidence(Outcome::Established, &both, &service),
        ),
        (
            edge(web.clone(), db.clone(), 22, tcp),
            evidence(Outcome::Attempted, &both[..1], &[]),
        ),
        (
            edge(web.clone(), outside.clone(), 443, tcp),
            evidence(Outcome::Established, &both[..1], &[]),
        ),
        (
            edge(outside, web.clone(), 8080, tcp),
            evidence(Outcome::Established, &both[1..], &[]),
        ),
        (
            edge(Endpoint::Node("n1".to_owned()), web, 8080, tcp),
            evidence(Outcome::Established, &both[1..], &[]),
        ),
        (
            edge(unknown, db, 53, Transport::Udp),
            evidence(Outcome::Refused, &both[1..], &[]),
        ),
    ]
    .into()
}

pub(crate) fn graph_of(edges: &[(EdgeKey, Evidence)]) -> ConnectionGraph {
    let mut graph = ConnectionGraph::default();
    for (key, evidence) in edges {
        graph.insert(key.clone(), evidence);
    }
    let web = Endpoint::Workload(workload("StatefulSet", "shop", "web"));
    let outside = Endpoint::External(ip("203.0.113.9"));
    for (key, _) in edges {
        if let Endpoint::Node(_) = key.source {
            for unit in ["kubelet.service", "chrony.service"] {
                graph.run_by(key.as_edge(), Reporter::Source, &Process::Unit(unit.to_owned()));
            }
        }
    }
    if graph.index_of(&outside).is_some() {
        graph.name(&web, &outside, &"api.example.com".to_owned().try_into().unwrap());
    }
    graph
}

pub(crate) fn segment() -> Segment {
    let web = workload("StatefulSet", "shop", "web");
    let key = |destination: Endpoint, port| edge(Endpoint::Workload(web.clone()), destination, port, Transport::Tcp);
    let db = || Endpoint::Workload(workload("Pod", "data", "db"));
    Segment {
        workload: web.clone(),
        facts: SegmentFacts {
            name: "statefulset-web".to_owned(),
            mode: Some("Enforce".to_owned()),
            phase: "Stable".to_owned(),
            reason: String::new(),
            baseline: 2,
            loss: 0,
        },
        baseline: [key(db(), 5432), key(db(), 5433)].into(),
        is_frozen: false,
        last_seen: BTreeMap::new(),
        novel: [key(db(), 22)].into(),
        quarantined: [(key(Endpoint::External(ip("203.0.113.9")), 443), "Once".to_owned())].into(),
    }
}

/// The shop, with its policies and a proposal.
pub(crate) fn shop() -> Map {
    let (live, _) = PolicySet::parse(&policies(SHOP));
    let (proposed, _) = PolicySet::parse(&policies(&format!("{SHOP}---{PROPOSED}")));
    Map::draw(&Input {
        cluster: &cluster_of(SHOP),
        graph: &graph_of(&shop_edges()),
        live: &live,
        proposed: Some(&proposed),
        segments: &[segment()],
        stale_before: Some(Timestamp::MIN),
        places: None,
    })
}

fn workload_of<'a>(map: &'a Map, id: &str) -> &'a Workload {
    let party = map.parties.iter().find(|party| party.id == id).unwrap();
    match &party.who {
        Who::Workload(workload) => workload,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_edge_outside_of_a_complete_baseline_is_novel_before_its_segment_tells_of_it() {
    let web = workload("StatefulSet", "shop", "web");
    let db = workload("Pod", "data", "db");
    let to = |destination: Endpoint| edge(Endpoint::Workload(web.clone()), destination, 80, Transport::Tcp);
    let unknown = Endpoint::Unknown {
        address: None,
        reason: UnknownReason::PodNotSeen,
    };
    let (known, other, unsure) = (
        to(Endpoint::Workload(db.clone())),
        to(Endpoint::Node("n1".to_owned())),
        to(unknown),
    );
    let novel_with = |segments: &[Segment]| {
        let map = Map::draw(&Input {
            cluster: &cluster_of(SHOP),
            graph: &crate::fixture::graph([known.clone(), other.clone(), unsure.clone()]),
            live: &PolicySet::default(),
            proposed: None,
            segments,
            stale_before: None,
            places: None,
        });
        let novel = map.edges.into_iter().filter(|edge| edge.state == State::Novel);
        novel.map(|edge| edge.destination).collect::<Vec<_>>()
    };
    let learning = Segment {
        baseline: [known.clone()].into(),
        novel: BTreeSet::new(),
        quarantined: BTreeMap::new(),
        ..segment()
    };
    assert_eq!(
        novel_with(std::slice::from_ref(&learning)),
        [""; 0],
        "it may still be learned"
    );
    let frozen = Segment {
        is_frozen: true,
        ..learning
    };
    assert_eq!(novel_with(std::slice::from_ref(&frozen)), ["node/n1"]);
    let waiting = Segment {
        novel: [other.clone()].into(),
        quarantined: [(other.clone(), "Once".to_owned())].into(),
        ..frozen.clone()
    };
    assert_eq!(novel_with(&[waiting]), [""; 0], "a person has been asked about it");
    let at_the_other_end = Segment {
        workload: db,
        baseline: BTreeSet::new(),
        ..frozen.clone()
    };
    assert_eq!(
        novel_with(&[frozen, at_the_other_end]),
        ["node/n1", "workload/data/Pod/db"],
        "each end has a baseline of its own"
    );
}

#[test]
fn an_edge_is_stale_when_neither_the_graph_nor_its_segment_saw_it_lately() {
    let stale_with = |remembered: &[(usize, i64)]| {
        let mut segment = segment();
        let baseline: Vec<_> = segment.baseline.iter().cloned().collect();
        let at = |(number, second): &(usize, i64)| (baseline[*number].clone(), crate::fixture::at(*second));
        segment.last_seen = remembered.iter().map(at).collect();
        let map = Map::draw(&Input {
            cluster: &cluster_of(SHOP),
            graph: &graph_of(&shop_edges()),
            live: &PolicySet::default(),
            proposed: None,
            segments: &[segment],
            stale_before: Some(crate::fixture::at(1000)),
            places: None,
        });
        let stale = map.edges.into_iter().filter(|edge| edge.states.contains(&State::Stale));
        stale.map(|edge| edge.port).collect::<Vec<_>>()
    };
    assert_eq!(stale_with(&[]), [5432, 5433]);
    assert_eq!(stale_with(&[(0, 999)]), [5432, 5433]);
    assert_eq!(
        stale_with(&[(0, 1000)]),
        [5433],
        "the Segment knows better than the graph"
    );
    assert_eq!(stale_with(&[(0, 1000), (1, 5000)]), [0_u16; 0]);
}

#[test]
fn the_map_says_what_the_evaluator_says() {
    let map = shop();
    let states: Vec<_> = map.edges.iter().map(|edge| (edge.id.as_str(), edge.state)).collect();
    assert_eq!(
        states,
        [
            (
                "external/203.0.113.9>workload/shop/StatefulSet/web:TCP:8080",
                State::WouldBeDenied
            ),
            ("node/n1>workload/shop/StatefulSet/web:TCP:8080", State::Covered),
            ("unknown/PodNotSeen/>workload/data/Pod/db:UDP:53", State::Undecided),
            (
                "workload/shop/StatefulSet/web>external/203.0.113.9:TCP:443",
                State::Quarantined
            ),
            (
                "workload/shop/StatefulSet/web>workload/data/Pod/db:TCP:22",
                State::Novel
            ),
            (
                "workload/shop/StatefulSet/web>workload/data/Pod/db:TCP:5432",
                State::Enforced
            ),
            (
                "workload/shop/StatefulSet/web>workload/data/Pod/db:TCP:5433",
                State::Denied
            ),
        ]
    );
    let enforced = &map.edges[5];
    assert_eq!(
        enforced.live.ingress.rules,
        [Rule {
            policy: "NetworkPolicy/data/db".to_owned(),
            index: 0
        }]
    );
    assert_eq!(enforced.live.egress.answer, Answer::NotIsolated);
    assert_eq!(
        enforced.proposed.as_ref().unwrap().egress.rules[0].policy,
        "NetworkPolicy/shop/web"
    );
    assert_eq!(enforced.observed.as_ref().unwrap().via, ["data/db"]);
    assert!(map.edges[6].observed.is_none());
    assert!(map.edges[6].states.contains(&State::Stale));
    assert_eq!(map.edges[4].live.ingress.policies, ["NetworkPolicy/data/db"]);
    let unused: Vec<_> = map
        .policies
        .iter()
        .map(|policy| {
            (
                policy.id.as_str(),
                policy.proposed,
                &policy.ingress[..],
                &policy.egress[..],
            )
        })
        .collect();
    assert_eq!(
        unused,
        [
            ("NetworkPolicy/data/db", false, &[1, 0][..], &[][..]),
            ("NetworkPolicy/shop/web", true, &[], &[1])
        ]
    );
}

#[test]
fn workloads_carry_their_images_and_what_protects_them() {
    let map = shop();
    let web = workload_of(&map, "workload/shop/StatefulSet/web");
    assert_eq!(
        web.images,
        [
            Image {
                name: "shop/web:1".to_owned(),
                digest: None
            },
            Image {
                name: "shop/web:1".to_owned(),
                digest: Some("sha256:aa".to_owned())
            }
        ]
    );
    assert_eq!(web.protection.ingress.status, IsolationStatus::Open);
    assert_eq!(
        web.proposed_protection.as_ref().unwrap().ingress.status,
        IsolationStatus::Isolated
    );
    assert_eq!(
        workload_of(&map, "workload/data/Pod/db").protection.ingress.status,
        IsolationStatus::Isolated
    );
    assert_eq!(
        workload_of(&map, "workload/data/Pod/probe").protection.ingress.status,
        IsolationStatus::NodeNetwork
    );
    assert_eq!(
        (map.totals.open_ingress, map.totals.open_egress, map.totals.unused_rules),
        (1, 2, 1)
    );
    let outside = map.parties.iter().find(|party| party.group == "external").unwrap();
    assert_eq!(outside.title, "api.example.com");
}

#[test]
fn ways_in_from_outside_are_told() {
    let found: Vec<_> = shop()
        .exposures
        .into_iter()
        .map(
            |Exposure {
                 how,
                 service,
                 ports,
                 workloads,
                 ..
             }| {
                (
                    how,
                    service,
                    ports.first().map(|ports| (ports.first, ports.last)),
                    workloads.join(" "),
                )
            },
        )
        .collect();
    let web = || "workload/shop/StatefulSet/web".to_owned();
    let service = || Some("shop/web".to_owned());
    assert_eq!(
        found,
        [
            (How::NodePort, service(), Some((30080, 30080)), web()),
            (How::ExternalAddress, service(), Some((80, 80)), web()),
            (How::FromAnywhere, None, Some((1, 65535)), web()),
        ]
    );
}

#[test]
fn what_was_written_reads_back() {
    let map = shop();
    let text = serde_json::to_string(&map).unwrap();
    assert_eq!(serde_json::from_str::<Map>(&text).unwrap(), map);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_order_of_learning_changes_nothing(edges in Just(shop_edges()).prop_shuffle(), documents in Just(manifests(SHOP)).prop_shuffle()) {
        let mut cluster = Cluster::new(["198.18.0.0/16".parse().unwrap(), "fd00:18::/32".parse().unwrap()]);
        let mut live = Vec::new();
        for manifest in documents {
            match manifest {
                Manifest::Object(object) => cluster.observe(object, crate::fixture::at(1)),
                Manifest::NetworkPolicy(policy) => live.push(*policy),
                other => panic!("{other:?}"),
            }
        }
        let (live, _) = PolicySet::parse(&live);
        let (proposed, _) = PolicySet::parse(&policies(&format!("{SHOP}---{PROPOSED}")));
        let map = Map::draw(&Input {
            cluster: &cluster,
            graph: &graph_of(&edges),
            live: &live,
            proposed: Some(&proposed),
            segments: &[segment()],
            stale_before: Some(Timestamp::MIN),
            places: None,
        });
        prop_assert_eq!(serde_json::to_string(&map).unwrap(), serde_json::to_string(&shop()).unwrap());
    }
}

#[test]
fn the_published_schema_is_up_to_date() {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/map.schema.json");
    expect_file(FILE, &Map::schema());
}

#[test]
fn the_map_fits_its_published_schema() {
    let schema: serde_json::Value = serde_json::from_str(&Map::schema()).unwrap();
    let map = serde_json::to_value(shop()).unwrap();
    let named = schema["properties"].as_object().unwrap();
    for (field, _) in map.as_object().unwrap() {
        assert!(named.contains_key(field), "{field}");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test compares with the file that is published"
)]
pub(crate) fn expect_file(file: &str, current: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(file, current).unwrap();
        return;
    }
    let published = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        published == current,
        "{file} is not what the code says; run: UPDATE=1 cargo test -p nanoseg-policy map"
    );
}

/// Three workloads in a row, and one aside: `a` may connect to `b` at one port, `b` to `c` at a range, and nobody to `d`.
const ROW: &str = "
{apiVersion: v1, kind: Pod, metadata: {namespace: x, name: a, labels: {app: a}}, spec: {containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: x, name: b, labels: {app: b}}, spec: {containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: x, name: c, labels: {app: c}}, spec: {containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.3}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: x, name: d, labels: {app: d}}, spec: {containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.4}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: x, name: all}, spec: {podSelector: {}, policyTypes: [Ingress]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: x, name: b}, spec: {podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}], ports: [{port: 80}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: x, name: c}, spec: {podSelector: {matchLabels: {app: c}}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}], ports: [{port: 100, endPort: 200, protocol: UDP}]}]}}
";

#[test]
fn reach_goes_hop_by_hop() {
    let (live, _) = PolicySet::parse(&policies(ROW));
    let hops = |passages: &[Passage]| -> Vec<(String, usize)> {
        passages
            .iter()
            .map(|passage| (passage.workload.clone(), passage.hops))
            .collect()
    };
    let row = |name: &str, hops| (format!("workload/x/Pod/{name}"), hops);
    let found = reach(&cluster_of(ROW), &live, &[workload("Pod", "x", "a")].into());
    assert_eq!(hops(&found.reaches), [row("b", 1), row("c", 2)]);
    assert_eq!(found.reaches[1].through, "workload/x/Pod/b");
    assert_eq!(
        found.reaches[1].ports,
        [Ports {
            protocol: Transport::Udp,
            first: 100,
            last: 200
        }]
    );
    assert_eq!(
        (found.reached_by.len(), found.from_outside.len(), found.undecided),
        (0, 0, 0)
    );
    assert_eq!(found.outside.len(), 3, "egress is open: all ports of three protocols");
    let found = reach(&cluster_of(ROW), &live, &[workload("Pod", "x", "c")].into());
    assert_eq!(hops(&found.reached_by), [row("b", 1), row("a", 2)]);
    assert!(found.reaches.is_empty());
}
