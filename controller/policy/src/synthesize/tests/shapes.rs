//! Services of every shape, from manifests and flows (`shapes.yaml`) to a policy and the evaluator's verdicts on it.

use nanoseg_graph::container::ContainerRef;
use nanoseg_graph::flow::{Flow, FlowKey, FlowTable, Origin, Report, Subject, Tally};
use nanoseg_graph::resolve::resolve;
use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::evaluate::{Connection, End, Evaluator, PolicySet, Undecidable, Verdict};
use crate::fixture::{at, cluster_of_documents};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shapes {
    cluster: Vec<Value>,
    shapes: Vec<Shape>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    title: String,
    /// Manifests beside those of the cluster.
    #[serde(default)]
    manifests: Vec<Value>,
    /// What the client's packets carry.
    contacted: Vec<Contact>,
    /// Everything that the client may reach then: pods by name and addresses, at the ports where they listen.
    reaches: Vec<Contact>,
}

#[derive(PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contact {
    to: String,
    port: u16,
    protocol: Transport,
}

use Transport::{Tcp, Udp};

fn contact(contacted: &[Contact]) -> FlowTable {
    let flow = |Contact { to, port, protocol }: &Contact| Flow {
        key: FlowKey {
            subject: Subject::Container(ContainerRef {
                pod_uid: "shop/client".to_owned(),
                container_id: "c".to_owned(),
            }),
            peer: ip(to),
            port: *port,
            transport: *protocol,
            reporter: Reporter::Source,
        },
        tally: Tally {
            first_seen: at(5),
            last_seen: at(9),
            attempted: 1,
            established: 1,
            refused: 0,
            unanswered: 0,
        },
    };
    let mut table = FlowTable::default();
    table.merge(&Report {
        origin: Origin {
            node: "n1".to_owned(),
            epoch: 1,
        },
        flows: contacted.iter().map(flow).collect(),
        losses: Vec::new(),
        node_addresses: BTreeSet::new(),
        names: Vec::new(),
        held: Vec::new(),
        capture: None,
    });
    table
}

fn end_of(name: &str) -> End {
    match name.parse() {
        Ok(address) => End::Address(address),
        Err(_) => End::Pod {
            namespace: if name == "dns" { "kube-system" } else { "shop" }.to_owned(),
            name: name.to_owned(),
        },
    }
}

#[test]
fn p10_p11_p12_a_service_of_any_shape_allows_what_answers_and_nothing_else() {
    let Shapes { cluster, shapes } = serde_yaml::from_str(include_str!("shapes.yaml")).unwrap();
    for Shape {
        title,
        manifests,
        contacted,
        reaches,
    } in shapes
    {
        let cluster = cluster_of_documents(cluster.iter().cloned().chain(manifests));
        let graph = resolve(&contact(&contacted), &cluster);
        let client = workload("Pod", "shop", "client");
        let settings = Settings::default();
        let proposal =
            synthesize(&client, &graph, &cluster, &settings).unwrap_or_else(|refusal| panic!("{title}: {refusal}"));
        assert_eq!(
            verify(
                std::slice::from_ref(&proposal),
                Others::default(),
                &cluster,
                &graph,
                &settings
            ),
            [],
            "{title}"
        );
        let (policies, rejected) = PolicySet::parse([&*proposal.policy]);
        assert_eq!(rejected, []);
        let evaluator = Evaluator::new(&policies, &cluster);
        let ends = [
            "one",
            "two",
            "other",
            "dns",
            "203.0.113.7",
            "203.0.113.5",
            "203.0.113.80",
            "192.0.2.2",
        ];
        let ends = ends
            .into_iter()
            .chain(["169.254.20.10", "198.18.200.10", "198.18.200.1"]);
        for (end, port) in
            ends.flat_map(|end| [53, 80, 443, 1053, 5432, 6443, 8080, 9090, 30080].map(|port| (end, port)))
        {
            for transport in [Tcp, Udp] {
                let connection = Connection {
                    source: end_of("client"),
                    destination: end_of(end),
                    port,
                    transport,
                };
                let verdict = evaluator.evaluate(&connection).direction(Direction::Egress).clone();
                let expected = reaches.contains(&Contact {
                    to: end.to_owned(),
                    port,
                    protocol: transport,
                });
                let fits = match verdict {
                    Verdict::Allowed(_) => expected,
                    Verdict::Denied(_) => !expected,
                    // The evaluator does not say what a Service's own address means to an engine.
                    Verdict::Unknown(Undecidable::ServiceAddress(_)) => true,
                    Verdict::Unknown(_) | Verdict::NotIsolated => false,
                };
                assert!(
                    fits,
                    "{title}: {end} at {transport} {port}: {verdict:?}\n{}",
                    yaml(&proposal)
                );
            }
        }
    }
}

fn seen_outside(addresses: &[&str], port: u16) -> ConnectionGraph {
    graph(
        addresses
            .iter()
            .map(|address| edge(end("web"), Endpoint::External(ip(address)), port, Tcp)),
    )
}

#[test]
fn an_external_group_is_named_once_and_declared() {
    let settings = Settings {
        external_groups: ["partner=203.0.113.0/25,203.0.113.128/25,2001:db8:9::/48"
            .parse()
            .unwrap()]
        .into(),
        ..Settings::default()
    };
    let seen = seen_outside(&["203.0.113.7", "203.0.113.200", "198.51.100.1"], 443);
    let web = workload("StatefulSet", "shop", "web");
    let proposal = synthesize(&web, &seen, &shop(), &settings).unwrap();
    let expected = ["198.51.100.1/32", "203.0.113.0/24", "2001:db8:9::/48"];
    assert_eq!(cidrs(&proposal), expected.map(str::to_owned).into());
    let text = yaml(&proposal);
    assert!(
        text.contains("egress 1: -> external group partner TCP 443, seen at both ends"),
        "{text}"
    );
    assert!(
        !text.contains("external 203.0.113.7"),
        "one by one they are in the Note: {text}"
    );
    let note = proposal
        .notes
        .iter()
        .find(|note| note.is_widening())
        .unwrap()
        .to_string();
    assert_eq!(
        note,
        "egress at TCP 443: the rule means the whole external group partner (203.0.113.0/24, 2001:db8:9::/48), of which 2 \
         addresses were observed: 203.0.113.7, 203.0.113.200"
    );
}

#[test]
fn p25_addresses_of_a_group_do_not_make_its_policy_grow() {
    let settings = Settings {
        external_groups: ["partner=203.0.113.0/24".parse().unwrap()].into(),
        ..Settings::default()
    };
    // As a name with other addresses every minute is seen, from the first one on.
    let policies = [1, 2, 250].map(|count| {
        let addresses: Vec<String> = (1..=count).map(|last| format!("203.0.113.{last}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let web = workload("StatefulSet", "shop", "web");
        let proposal = synthesize(&web, &seen_outside(&addresses, 443), &shop(), &settings).unwrap();
        yaml(&proposal)
    });
    assert_eq!(policies[0], policies[1]);
    assert_eq!(policies[0], policies[2]);
}

#[test]
fn p25_more_addresses_than_a_person_reads_are_no_list() {
    let web = workload("StatefulSet", "shop", "web");
    let settings = Settings {
        external_addresses: 3,
        external_groups: ["partner=203.0.113.0/28".parse().unwrap()].into(),
        ..Settings::default()
    };
    // Addresses of a group do not count.
    let few = [
        "203.0.113.1",
        "203.0.113.2",
        "203.0.113.20",
        "203.0.113.21",
        "2001:db8::1",
    ];
    let proposal = synthesize(&web, &seen_outside(&few, 443), &shop(), &settings).unwrap();
    assert_eq!(cidrs(&proposal).len(), 4);
    let many = [&few[..], &["203.0.113.22"]].concat();
    let refusal = synthesize(&web, &seen_outside(&many, 443), &shop(), &settings).unwrap_err();
    let Refusal::NotReady { notes, .. } = &refusal else {
        panic!("{refusal}")
    };
    let told = notes
        .iter()
        .map(ToString::to_string)
        .find(|note| note.contains("external group"));
    assert_eq!(
        told.unwrap(),
        "egress stays open, it is not ready: 4 external addresses are in no group, and a policy names 3 at most: name those \
         that belong together as an external group"
    );
}

#[test]
fn p14_a_group_that_holds_cluster_addresses_is_not_used() {
    // A configured range, a node's address, a range around all of a pod's.
    for cidr in ["198.18.7.0/24", "192.0.2.0/28", "198.0.0.0/8"] {
        let group: ExternalGroup = format!("mixed={cidr},203.0.113.0/24").parse().unwrap();
        let settings = Settings {
            external_groups: [group].into(),
            ..Settings::default()
        };
        let conflicts = settings.conflicts(&shop());
        assert_eq!(conflicts.len(), 1, "{cidr}");
        let seen = seen_outside(&["203.0.113.7"], 443);
        let proposal = synthesize(&workload("StatefulSet", "shop", "web"), &seen, &shop(), &settings).unwrap();
        assert_eq!(cidrs(&proposal), ["203.0.113.7/32".to_owned()].into());
        assert!(
            proposal.notes.contains(&Note::GroupNotUsed(conflicts[0].clone())),
            "{:?}",
            proposal.notes
        );
    }
}

#[test]
fn p24_ports_become_a_range_only_where_a_person_declared_it() {
    let seen = graph([16400, 16500, 40000].map(|port| edge(end("web"), end("api"), port, Udp)));
    let plain = propose(&seen, "web").unwrap();
    assert!(!yaml(&plain).contains("endPort"));
    let settings = Settings {
        port_ranges: [
            "rtp=UDP:16384-32767".parse().unwrap(),
            "TCP:16384-32767".parse().unwrap(),
        ]
        .into(),
        ..Settings::default()
    };
    let proposal = synthesize(&workload("StatefulSet", "shop", "web"), &seen, &shop(), &settings).unwrap();
    let text = yaml(&proposal);
    assert!(
        text.contains("- endPort: 32767\n      port: 16384\n      protocol: UDP\n    - port: 40000"),
        "{text}"
    );
    assert!(
        text.contains("-> StatefulSet shop/api UDP 16384-32767, UDP 40000, seen at both ends"),
        "{text}"
    );
    let note = proposal
        .notes
        .iter()
        .find(|note| note.is_widening())
        .unwrap()
        .to_string();
    assert_eq!(
        note,
        "egress: the rule for StatefulSet shop/api means the whole range rtp (UDP 16384-32767), of which 2 ports were \
         observed: UDP 16400, UDP 16500"
    );
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    for text in ["UDP:9-8", "UDP:0-8", "udp:1-2", "1-2", "UDP:1", "x=UDP:1-70000"] {
        assert!(text.parse::<PortRange>().is_err(), "{text}");
    }
    for text in ["partner", "=203.0.113.0/24", "partner=", "partner=example.com"] {
        assert!(text.parse::<ExternalGroup>().is_err(), "{text}");
    }
}

#[test]
fn of_two_ways_to_merge_the_one_with_fewer_lines_is_written() {
    let addresses: Vec<String> = (1..=6).map(|last| format!("203.0.113.{last}")).collect();
    let ports = [[1, 2], [1, 3], [1, 4], [2, 3], [2, 4], [3, 4]];
    let edges = addresses
        .iter()
        .zip(ports)
        .flat_map(|(address, ports)| ports.map(|port| edge(end("web"), Endpoint::External(ip(address)), port, Tcp)));
    let proposal = propose(&graph(edges), "web").unwrap();
    let egress = proposal.policy.spec.clone().unwrap().egress.unwrap();
    let shape: Vec<(usize, usize)> = egress
        .iter()
        .map(|rule| (rule.ports.as_ref().unwrap().len(), rule.to.as_ref().unwrap().len()))
        .collect();
    assert_eq!(
        shape,
        [(1, 3); 4],
        "each port once, where each peer once would take six rules"
    );
}
