//! Proposals for clusters whose network plugin was shown to do otherwise than the specification says.

use nanoseg_graph::cluster::Service;

use super::*;
use Transport::{Tcp, Udp};

/// web, and api behind a Service whose port is another than its target port, which has a name.
fn behind_a_service() -> Cluster {
    let mut api = member("api", &["198.18.1.11"]);
    api.ports = Arc::new([container_port(Some("http"), 8080, Tcp)].into());
    let mut objects: Vec<Object> = set("web", &["198.18.1.10"]).into();
    objects.push(controller("StatefulSet", "shop", "api", app("api"), app("api")));
    objects.push(Object::Pod(api));
    let ports = [
        (80, TargetPort::Name("http".to_owned()), Tcp),
        (9000, TargetPort::Number(9000), Tcp),
    ];
    let Object::Service(service) = service("shop", "api", Some(app("api")), &ports) else {
        unreachable!()
    };
    objects.push(Object::Service(Service {
        cluster_ips: ["198.19.0.10", "fd00:19::10"].map(ip).into(),
        ..service
    }));
    cluster(objects)
}

fn through_the_service() -> ConnectionGraph {
    let mut graph = ConnectionGraph::default();
    let via = [service_name("shop", "api")];
    graph.insert(
        edge(end("web"), end("api"), 8080, Tcp),
        &evidence(Outcome::Established, BOTH, &via),
    );
    graph
}

fn with(ranges: Ranges, services: ServiceView) -> Settings {
    Settings {
        port_ranges: [
            "rtp=UDP:16384-16390".parse().unwrap(),
            "long=TCP:30000-30100".parse().unwrap(),
        ]
        .into(),
        plugin: Plugin { ranges, services },
        ..Settings::default()
    }
}

/// What egress of web names: peers, each with its ports.
fn egress(proposal: &Proposal) -> Vec<(String, Vec<String>)> {
    let rules = proposal.policy.spec.as_ref().unwrap().egress.iter().flatten();
    let mut named = Vec::new();
    for rule in rules {
        let ports = rule.ports.iter().flatten().map(|port| {
            let number = serde_json::to_value(&port.port).unwrap();
            let end = port.end_port.map(|end| format!("-{end}")).unwrap_or_default();
            format!("{number}{end}")
        });
        let ports: Vec<String> = ports.collect();
        for peer in rule.to.iter().flatten() {
            let name = match &peer.ip_block {
                Some(block) => block.cidr.clone(),
                None => "pods".to_owned(),
            };
            named.push((name, ports.clone()));
        }
    }
    named.sort();
    named
}

fn pair(peer: &str, ports: &[&str]) -> (String, Vec<String>) {
    (peer.to_owned(), ports.iter().map(|port| (*port).to_owned()).collect())
}

#[test]
fn where_rules_see_a_connection_before_the_service_is_translated_its_address_is_named_as_well() {
    let (cluster, graph) = (behind_a_service(), through_the_service());
    let propose = |services| {
        synthesize(
            &workload("StatefulSet", "shop", "web"),
            &graph,
            &cluster,
            &with(Ranges::Grouped, services),
        )
    };
    let usual = propose(ServiceView::Translated).unwrap();
    assert_eq!(egress(&usual), [pair("pods", &["8080"])]);

    let before = propose(ServiceView::Untranslated).unwrap();
    let expected = [
        pair("198.19.0.10/32", &["80"]),
        pair("fd00:19::10/128", &["80"]),
        pair("pods", &["8080"]),
    ];
    assert_eq!(egress(&before), expected);
    let notes: Vec<String> = before.notes.iter().map(ToString::to_string).collect();
    let note = "egress at TCP 80: the rule names the address of Service shop/api (198.19.0.10, fd00:19::10), which this cluster \
                compares with before it is translated";
    assert!(notes.iter().any(|told| told == note), "{notes:?}");
    let violations = verify(&[before], Others::default(), &cluster, &graph, &Settings::default());
    assert!(violations.is_empty(), "{violations:?}");
    // What comes in has the pod's address and port in any case.
    let api = synthesize(
        &workload("StatefulSet", "shop", "api"),
        &graph,
        &cluster,
        &with(Ranges::Grouped, ServiceView::Untranslated),
    );
    let usual = synthesize(
        &workload("StatefulSet", "shop", "api"),
        &graph,
        &cluster,
        &Settings::default(),
    );
    assert_eq!(api.unwrap().policy, usual.unwrap().policy);

    // Where no rule lets it through, none is made, and it is said why.
    let refusal = propose(ServiceView::Nothing).unwrap_err().to_string();
    assert!(
        refusal.contains("egress stays open") && refusal.contains("Service shop/api at TCP 8080"),
        "{refusal}"
    );
}

#[test]
fn where_ranges_are_not_understood_ports_are_listed_and_a_long_range_is_refused() {
    let cluster = behind_a_service();
    let settings = with(Ranges::Listed, ServiceView::Translated);
    let web = workload("StatefulSet", "shop", "web");
    for (port, transport, expected) in [
        (
            16385,
            Udp,
            Some(vec!["16384", "16385", "16386", "16387", "16388", "16389", "16390"]),
        ),
        (8080, Tcp, Some(vec!["8080"])),
        (30005, Tcp, None),
    ] {
        let graph = graph([edge(end("web"), end("api"), port, transport)]);
        match (synthesize(&web, &graph, &cluster, &settings), expected) {
            (Ok(proposal), Some(expected)) => assert_eq!(egress(&proposal), [pair("pods", &expected)]),
            (Err(refusal), None) => {
                let said = refusal.to_string();
                assert!(said.contains("the range around TCP 30005 has 101 ports"), "{said}");
            }
            (outcome, expected) => unreachable!("{port}: {outcome:?}, expected {expected:?}"),
        }
    }
}
