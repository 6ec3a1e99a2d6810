//! The laws of merging: any order, any batching, twice is once.
#![expect(clippy::unwrap_used, reason = "a test that cannot make its input has failed")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use nanoseg_graph::connection::{ConnectionGraph, EdgeKey, Evidence};
use nanoseg_graph::container::ContainerRef;
use nanoseg_graph::endpoint::Endpoint;
use nanoseg_graph::flow::{
    Flow, FlowKey, FlowTable, Held, Loss, LossReason, Named, Origin, Report, Reporter, Subject, Tally, Transport,
};
use nanoseg_graph::process::Process;
use proptest::prelude::*;

fn tally() -> impl Strategy<Value = Tally> {
    (0_i64..1000, 0_i64..1000, 0_u64..9, 0_u64..9, 0_u64..9, 0_u64..9).prop_map(
        |(first, length, attempted, established, refused, unanswered)| Tally {
            first_seen: Timestamp::from_second(first).unwrap(),
            last_seen: Timestamp::from_second(first + length).unwrap(),
            attempted,
            established,
            refused,
            unanswered,
        },
    )
}

fn reporter() -> impl Strategy<Value = Reporter> {
    prop_oneof![Just(Reporter::Source), Just(Reporter::Destination)]
}

fn report() -> impl Strategy<Value = Report> {
    let flow = (0_u8..3, 0_u8..3, 1_u16..3, reporter(), tally()).prop_map(|(pod, peer, port, reporter, tally)| {
        let container = ContainerRef {
            pod_uid: format!("u{pod}"),
            container_id: "c".to_owned(),
        };
        let key = FlowKey {
            subject: Subject::Container(container),
            peer: IpAddr::V4(Ipv4Addr::new(198, 18, 0, peer)),
            port,
            transport: Transport::Tcp,
            reporter,
        };
        Flow { key, tally }
    });
    let loss = (0_usize..LossReason::ALL.len(), 0_u64..9).prop_map(|(reason, count)| Loss {
        subject: None,
        reason: LossReason::ALL[reason],
        count,
    });
    let name =
        (0_u8..2, 0_u8..2, "[a-g]", 0_i64..1000, 0_i64..1000).prop_map(|(pod, peer, name, first, length)| Named {
            subject: Subject::Container(ContainerRef {
                pod_uid: format!("u{pod}"),
                container_id: "c".to_owned(),
            }),
            address: IpAddr::V4(Ipv4Addr::new(198, 18, 0, peer)),
            name: name.try_into().unwrap(),
            first_seen: Timestamp::from_second(first).unwrap(),
            until: Timestamp::from_second(first + length).unwrap(),
        });
    let held = (
        0_u8..2,
        prop::option::of("[ab]"),
        prop::collection::btree_set(0_u8..3, 0..3),
        0_i64..1000,
    )
        .prop_map(|(number, name, addresses, first)| Held {
            subject: Subject::Host(format!("/docker/{number}")),
            name,
            addresses: addresses
                .into_iter()
                .map(|last| IpAddr::V4(Ipv4Addr::new(198, 18, 0, last)))
                .collect(),
            first_seen: Timestamp::from_second(first).unwrap(),
        });
    (
        0_u64..3,
        prop::collection::vec(flow, 0..8),
        prop::collection::vec(loss, 0..3),
        prop::collection::vec(name, 0..8),
        prop::collection::vec(held, 0..4),
        prop::option::of("0[.][1-3]"),
    )
        .prop_map(|(epoch, flows, losses, names, held, capture)| Report {
            origin: Origin {
                node: "n".to_owned(),
                epoch,
            },
            flows,
            losses,
            node_addresses: [IpAddr::V4(Ipv4Addr::new(198, 18, 9, 9))].into(),
            names,
            held,
            capture: capture.map(|capture| capture.try_into().unwrap()),
        })
}

fn merged<'a>(reports: impl IntoIterator<Item = &'a Report>) -> FlowTable {
    let mut table = FlowTable::default();
    for report in reports {
        table.merge(report);
    }
    table
}

fn edge() -> impl Strategy<Value = (EdgeKey, Evidence)> {
    (0_u8..4, 0_u8..4, 1_u16..3, reporter(), 0_u64..2, tally()).prop_map(
        |(source, destination, port, reporter, epoch, tally)| {
            let end = |number| Endpoint::External(IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)));
            let key = EdgeKey {
                source: end(source),
                destination: end(destination),
                port,
                transport: Transport::Tcp,
            };
            let origin = Origin {
                node: "n".to_owned(),
                epoch,
            };
            (
                key,
                Evidence {
                    tallies: [((reporter, origin), tally)].into(),
                    ..Evidence::default()
                },
            )
        },
    )
}

fn graph<'a>(edges: impl IntoIterator<Item = &'a (EdgeKey, Evidence)>) -> ConnectionGraph {
    let mut graph = ConnectionGraph::default();
    for (key, evidence) in edges {
        graph.insert(key.clone(), evidence);
        // More than are kept, and other ones at each end.
        for ((reporter, _), tally) in &evidence.tallies {
            let unit = Process::Unit(format!("{}.service", tally.attempted));
            graph.run_by(key.as_edge(), *reporter, &unit);
        }
    }
    graph
}

proptest! {
    #[test]
    fn reports_merge_in_any_order(reports in prop::collection::vec(report(), 0..6)) {
        prop_assert_eq!(merged(&reports), merged(reports.iter().rev()));
    }

    #[test]
    fn a_report_twice_is_a_report_once(reports in prop::collection::vec(report(), 0..6)) {
        prop_assert_eq!(merged(&reports), merged(reports.iter().chain(&reports)));
    }

    #[test]
    fn reports_merge_in_any_batching(report in report(), cut in 0_usize..8) {
        let mut one = report.clone();
        let mut two = report.clone();
        two.flows = one.flows.split_off(cut.min(one.flows.len()));
        prop_assert_eq!(merged([&report]), merged([&two, &one]));
    }

    #[test]
    fn a_report_survives_its_encoding(report in report()) {
        let text = serde_json::to_string(&report).unwrap();
        prop_assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }

    #[test]
    fn a_graph_holds_what_a_plain_map_would(edges in prop::collection::vec(edge(), 0..12)) {
        let mut plain: BTreeMap<EdgeKey, Evidence> = BTreeMap::new();
        for (key, evidence) in &edges {
            plain.entry(key.clone()).or_default().join(evidence);
        }
        let graph = graph(&edges);
        let held: Vec<(EdgeKey, Evidence)> = graph.edges().map(|(edge, told)| (edge.key(), told.to_evidence())).collect();
        prop_assert_eq!(held, plain.clone().into_iter().collect::<Vec<_>>());
        for (key, evidence) in &plain {
            prop_assert_eq!(graph.evidence(key).unwrap().to_evidence(), evidence.clone());
        }
        for endpoint in graph.endpoints() {
            let touches = |key: &&EdgeKey| key.source == *endpoint || key.destination == *endpoint;
            let touching: Vec<EdgeKey> = graph.touching(endpoint).into_iter().map(|(edge, _)| edge.key()).collect();
            prop_assert_eq!(touching, plain.keys().filter(touches).cloned().collect::<Vec<_>>());
        }
    }

    #[test]
    fn graphs_merge_in_any_order_and_twice_is_once(edges in prop::collection::vec(edge(), 0..12), cut in 0_usize..12) {
        let whole = graph(&edges);
        let (left, right) = edges.split_at(cut.min(edges.len()));
        let mut parts = graph(right);
        parts.merge(&graph(left));
        parts.merge(&graph(right));
        prop_assert_eq!(&parts, &whole);
        prop_assert_eq!(parts.endpoints().collect::<Vec<_>>(), whole.endpoints().collect::<Vec<_>>());
        for endpoint in whole.endpoints() {
            prop_assert_eq!(parts.touching(endpoint), whole.touching(endpoint));
        }
        for (edge, told) in whole.edges() {
            for end in told.reporters() {
                prop_assert!((1..=Process::KEPT).contains(&whole.processes(edge, end).len()));
                prop_assert_eq!(parts.processes(edge, end), whole.processes(edge, end));
            }
        }
    }
}
