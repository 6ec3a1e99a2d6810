//! Services of every shape, from manifests and flows to a policy and the evaluator's verdicts on it.

use nanoseg_graph::container::ContainerRef;
use nanoseg_graph::flow::{Flow, FlowKey, FlowTable, Origin, Report, Subject, Tally};
use nanoseg_graph::resolve::resolve;

use super::*;
use crate::evaluate::{Connection, End, Evaluator, PolicySet, Undecidable, Verdict};
use crate::fixture::{at, cluster_of};

/// A client, three servers whose port `http` has another number on each, and one that nobody speaks to; a node.
const CLUSTER: &str = "
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}, status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: client, labels: {app: client}}, spec: {nodeName: n1, containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: one, labels: {app: one, tier: back}}, spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}, status: {phase: Running, podIPs: [{ip: 198.18.1.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: two, labels: {app: two, tier: back}}, spec: {nodeName: n2, containers: [{name: c, ports: [{name: http, containerPort: 9090}]}]}, status: {phase: Running, podIPs: [{ip: 198.18.1.3}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: other, labels: {app: other}}, spec: {nodeName: n2, containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.4}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: kube-system, name: dns, labels: {k8s-app: kube-dns}}, spec: {nodeName: n2, containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.2.1}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: kube-system, name: kube-dns}, spec: {clusterIP: 198.18.200.10, selector: {k8s-app: kube-dns}, ports: [{name: dns, port: 53, protocol: UDP, targetPort: 1053}, {name: dns-tcp, port: 53, protocol: TCP, targetPort: 1053}]}}
";

/// Pods that share the network of every node and cache DNS there.
const CACHE: &str = "
{apiVersion: v1, kind: Pod, metadata: {namespace: kube-system, name: node-local-dns-x, labels: {k8s-app: node-local-dns}}, spec: {nodeName: n1, hostNetwork: true, containers: []}, status: {phase: Running, podIPs: [{ip: 192.0.2.1}]}}
";

struct Shape {
    /// What it is.
    name: &'static str,
    /// Manifests beside those of the cluster.
    yaml: &'static str,
    /// What the client's packets carry.
    contacted: &'static [(&'static str, u16, Transport)],
    /// Everything that the client may reach then: pods by name and addresses, at the ports where they listen.
    reaches: &'static [(&'static str, u16, Transport)],
}

use Transport::{Tcp, Udp};

const SHAPES: &[Shape] = &[
    Shape {
        name: "ClusterIP whose port is not the pods'",
        yaml: "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: s}, spec: {clusterIP: 198.18.200.1, selector: {app: one}, ports: [{port: 80, targetPort: 8080}]}}",
        contacted: &[("198.18.200.1", 80, Tcp)],
        reaches: &[("one", 8080, Tcp)],
    },
    Shape {
        name: "headless: the pod's address itself",
        yaml: "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: s}, spec: {clusterIP: None, selector: {app: one}, ports: [{port: 80, targetPort: 8080}]}}",
        contacted: &[("198.18.1.2", 8080, Tcp)],
        reaches: &[("one", 8080, Tcp)],
    },
    Shape {
        name: "a named target port with another number on each pod",
        yaml: "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: s}, spec: {clusterIP: 198.18.200.1, selector: {tier: back}, ports: [{port: 80, targetPort: http}]}}",
        contacted: &[("198.18.200.1", 80, Tcp)],
        reaches: &[("one", 8080, Tcp), ("two", 9090, Tcp)],
    },
    Shape {
        name: "no selector, slices inside and outside",
        yaml: "
{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: s}, spec: {clusterIP: 198.18.200.1, ports: [{port: 80, targetPort: 5432}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: shop, name: s-1, labels: {kubernetes.io/service-name: s}}, addressType: IPv4, endpoints: [{addresses: [198.18.1.2]}, {addresses: [203.0.113.7]}], ports: [{port: 5432}]}",
        contacted: &[("198.18.200.1", 80, Tcp)],
        reaches: &[("one", 5432, Tcp), ("203.0.113.7", 5432, Tcp)],
    },
    Shape {
        name: "ExternalName: DNS answers with an address outside",
        yaml: "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: s}, spec: {type: ExternalName, externalName: db.example.com}}",
        contacted: &[("203.0.113.7", 5432, Tcp)],
        reaches: &[("203.0.113.7", 5432, Tcp)],
    },
    Shape {
        name: "NodePort through a node's address",
        yaml: "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: s}, spec: {type: NodePort, clusterIP: 198.18.200.1, selector: {app: two}, ports: [{port: 80, targetPort: http, nodePort: 30080}]}}",
        contacted: &[("192.0.2.2", 30080, Tcp)],
        reaches: &[("two", 9090, Tcp)],
    },
    Shape {
        name: "LoadBalancer through its own address",
        yaml: "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: s}, spec: {type: LoadBalancer, clusterIP: 198.18.200.1, selector: {app: one}, ports: [{port: 443, targetPort: http, nodePort: 30443}]}, status: {loadBalancer: {ingress: [{ip: 203.0.113.80}]}}}",
        contacted: &[("203.0.113.80", 443, Tcp)],
        reaches: &[("one", 8080, Tcp)],
    },
    Shape {
        name: "externalIPs",
        yaml: "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: s}, spec: {clusterIP: 198.18.200.1, externalIPs: [203.0.113.81], selector: {app: one}, ports: [{port: 443, targetPort: 8080}]}}",
        contacted: &[("203.0.113.81", 443, Tcp)],
        reaches: &[("one", 8080, Tcp)],
    },
    Shape {
        name: "kubernetes.default: the API servers' own addresses",
        yaml: "
{apiVersion: v1, kind: Service, metadata: {namespace: default, name: kubernetes}, spec: {clusterIP: 198.18.200.2, ports: [{name: https, port: 443, targetPort: 6443}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: default, name: kubernetes, labels: {kubernetes.io/service-name: kubernetes}}, addressType: IPv4, endpoints: [{addresses: [192.0.2.2]}, {addresses: [203.0.113.5]}], ports: [{name: https, port: 6443}]}",
        contacted: &[("198.18.200.2", 443, Tcp)],
        reaches: &[("192.0.2.2", 6443, Tcp), ("203.0.113.5", 6443, Tcp)],
    },
    Shape {
        name: "cluster DNS, seen in one transport",
        yaml: "",
        contacted: &[("198.18.200.10", 53, Udp)],
        reaches: &[("dns", 1053, Udp), ("dns", 1053, Tcp)],
    },
    Shape {
        name: "NodeLocal DNS that is asked at the address of cluster DNS",
        yaml: CACHE,
        contacted: &[("198.18.200.10", 53, Udp)],
        reaches: &[
            ("dns", 1053, Udp),
            ("dns", 1053, Tcp),
            ("169.254.20.10", 53, Udp),
            ("169.254.20.10", 53, Tcp),
            ("198.18.200.10", 53, Udp),
            ("198.18.200.10", 53, Tcp),
        ],
    },
    Shape {
        name: "NodeLocal DNS at its own address",
        yaml: CACHE,
        contacted: &[("169.254.20.10", 53, Udp)],
        // Also cluster DNS's own address: the cache answers there as well.
        reaches: &[
            ("169.254.20.10", 53, Udp),
            ("169.254.20.10", 53, Tcp),
            ("198.18.200.10", 53, Udp),
            ("198.18.200.10", 53, Tcp),
        ],
    },
];

fn contact(contacted: &[(&str, u16, Transport)]) -> FlowTable {
    let flow = |(peer, port, transport): &(&str, u16, Transport)| Flow {
        key: FlowKey {
            subject: Subject::Container(ContainerRef {
                pod_uid: "shop/client".to_owned(),
                container_id: "c".to_owned(),
            }),
            peer: ip(peer),
            port: *port,
            transport: *transport,
            reporter: Reporter::Source,
        },
        tally: Tally {
            first_seen: at(5),
            last_seen: at(9),
            attempted: 1,
            established: 1,
            refused: 0,
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
    for Shape {
        name,
        yaml,
        contacted,
        reaches,
    } in SHAPES
    {
        let separator = if yaml.is_empty() { "" } else { "---\n" };
        let cluster = cluster_of(&format!("{CLUSTER}{separator}{yaml}"));
        let graph = resolve(&contact(contacted), &cluster);
        let client = workload("Pod", "shop", "client");
        let settings = Settings::default();
        let proposal =
            synthesize(&client, &graph, &cluster, &settings).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!(
            verify(
                std::slice::from_ref(&proposal),
                Others::default(),
                &cluster,
                &graph,
                &settings
            ),
            [],
            "{name}"
        );
        let (policies, rejected) = PolicySet::parse([&proposal.policy]);
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
                let expected = reaches.contains(&(end, port, transport));
                let fits = match verdict {
                    Verdict::Allowed(_) => expected,
                    Verdict::Denied(_) => !expected,
                    // The evaluator does not say what a Service's own address means to an engine.
                    Verdict::Unknown(Undecidable::ServiceAddress(_)) => true,
                    Verdict::Unknown(_) | Verdict::NotIsolated => false,
                };
                assert!(
                    fits,
                    "{name}: {end} at {transport} {port}: {verdict:?}\n{}",
                    yaml_of(&proposal)
                );
            }
        }
    }
}

fn yaml_of(proposal: &Proposal) -> String {
    serde_yaml::to_string(&proposal.policy).unwrap()
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
    let egress = proposal.policy.spec.unwrap().egress.unwrap();
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
