use std::net::IpAddr;

use jiff::Timestamp;

use crate::cluster::Cluster;
use crate::flow::{Flow, FlowKey, FlowTable, Held, Origin, Report, Reporter, Subject, Tally, Transport};
use crate::resolve::resolve;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Two containers, one of them with a name, and what systemd calls a unit.
fn path(who: &str) -> String {
    match who {
        "web" => format!("/system.slice/docker-{}.scope", "a1".repeat(32)),
        "other" => format!("/docker/{}", "b2".repeat(32)),
        unit => format!("/system.slice/{unit}.service"),
    }
}

fn flow(who: &str, reporter: Reporter, peer: &str, port: u16, times: [i64; 2]) -> Flow {
    Flow {
        key: FlowKey {
            subject: Subject::Host(path(who)),
            peer: ip(peer),
            port,
            transport: Transport::Tcp,
            reporter,
        },
        tally: Tally {
            first_seen: at(times[0]),
            last_seen: at(times[1]),
            attempted: 1,
            established: 1,
            refused: 0,
            unanswered: 0,
        },
    }
}

fn held(who: &str, name: Option<&str>, address: &str, since: i64) -> Held {
    Held {
        subject: Subject::Host(path(who)),
        name: name.map(str::to_owned),
        addresses: [ip(address)].into(),
        first_seen: at(since),
    }
}

fn edges(flows: Vec<Flow>, held: Vec<Held>) -> Vec<String> {
    let mut table = FlowTable::default();
    table.merge(&Report {
        origin: Origin {
            node: "h1".to_owned(),
            epoch: 1,
        },
        flows,
        losses: Vec::new(),
        node_addresses: [ip("198.18.0.1"), ip("203.0.113.5")].into(),
        names: Vec::new(),
        held,
        capture: None,
    });
    let graph = resolve(&table, &Cluster::new([]));
    let edges = graph.edges().map(|(edge, evidence)| {
        let ends = evidence.reporters().len();
        format!("{} -> {}:{} by {ends}", edge.source, edge.destination, edge.port)
    });
    edges.collect()
}

#[test]
fn one_connection_is_one_edge_between_containers_and_units() {
    let (source, destination) = (Reporter::Source, Reporter::Destination);
    let rows = [
        (
            "container to container",
            vec![
                flow("web", source, "198.18.0.3", 80, [10, 20]),
                flow("other", destination, "198.18.0.2", 80, [10, 20]),
            ],
            "Container h1/shop -> Container h1/b2b2b2b2b2b2:80 by 2",
        ),
        (
            "container to a unit of the host",
            vec![
                flow("web", source, "198.18.0.1", 5432, [10, 20]),
                flow("postgresql", destination, "198.18.0.2", 5432, [10, 20]),
            ],
            "Container h1/shop -> Unit h1/postgresql.service:5432 by 2",
        ),
        (
            "a unit of the host to a container",
            vec![
                flow("proxy", source, "198.18.0.2", 80, [10, 20]),
                flow("web", destination, "198.18.0.1", 80, [10, 20]),
            ],
            "Unit h1/proxy.service -> Container h1/shop:80 by 2",
        ),
        (
            "to the host, and no unit told",
            vec![flow("web", source, "198.18.0.1", 22, [10, 20])],
            "Container h1/shop -> Node h1:22 by 1",
        ),
        (
            "from outside",
            vec![flow("sshd", destination, "203.0.113.9", 22, [10, 20])],
            "external 203.0.113.9 -> Unit h1/sshd.service:22 by 1",
        ),
    ];
    for (message, flows, expected) in rows {
        let held = vec![
            held("web", Some("shop"), "198.18.0.2", 5),
            held("other", None, "198.18.0.3", 12),
        ];
        assert_eq!(edges(flows, held), [expected], "{message}");
    }
}

#[test]
fn p4_an_address_is_whose_it_was_and_nobodys_where_it_changed_hands() {
    let source = Reporter::Source;
    let both = || {
        vec![
            held("web", Some("shop"), "198.18.0.2", 100),
            held("other", None, "198.18.0.2", 200),
        ]
    };
    for (message, times, expected) in [
        ("the first", [110, 120], "Container h1/shop"),
        ("the second", [210, 220], "Container h1/b2b2b2b2b2b2"),
        ("it was read a moment late", [98, 120], "Container h1/shop"),
        (
            "both",
            [110, 220],
            "unknown 198.18.0.2 (several owners had this address during the flow)",
        ),
    ] {
        let flows = vec![flow("proxy", source, "198.18.0.2", 80, times)];
        let expected = format!("Unit h1/proxy.service -> {expected}:80 by 1");
        assert_eq!(edges(flows, both()), [expected], "{message}");
    }
}
