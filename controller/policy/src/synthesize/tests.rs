mod laws;
mod plugins;
mod shapes;

use nanoseg_graph::cluster::{Labels, Object, Pod, TargetPort};
use nanoseg_graph::endpoint::UnknownReason;
use nanoseg_graph::flow::{Outcome, Reporter, Transport};

use super::*;
use crate::direction::Port;
use crate::fixture::{
    cluster, container_port, controller, edge, evidence, graph, ip, labels, node, owned, pod, service, service_name,
    slice, workload,
};
use crate::verify::{Others, verify};

const BOTH: &[Reporter] = &[Reporter::Source, Reporter::Destination];

fn end(name: &str) -> Endpoint {
    Endpoint::Workload(workload("StatefulSet", "shop", name))
}

fn app(name: &str) -> Labels {
    labels([("app", name)])
}

/// A StatefulSet of one pod, labelled `app: <name>`.
fn set(name: &str, addresses: &[&str]) -> [Object; 2] {
    [
        controller("StatefulSet", "shop", name, app(name), app(name)),
        Object::Pod(member(name, addresses)),
    ]
}

fn member(name: &str, addresses: &[&str]) -> Pod {
    owned(
        "StatefulSet",
        name,
        pod("shop", &format!("{name}-0"), app(name), addresses),
    )
}

/// The shop: web, api and db; two nodes; cluster DNS that listens on other ports than its Service.
fn shop() -> Cluster {
    let dns =
        |number, transport| container_port(Some(if number == 5353 { "dns" } else { "dns-tcp" }), number, transport);
    let core_labels = || labels([("k8s-app", "kube-dns")]);
    let mut core_dns = owned(
        "ReplicaSet",
        "coredns-1",
        pod("kube-system", "coredns-1-x", core_labels(), &["198.18.2.9"]),
    );
    core_dns.ports = Arc::new([dns(5353, Transport::Udp), dns(5354, Transport::Tcp)].into());
    let dns_ports = [
        (53, TargetPort::Name("dns".to_owned()), Transport::Udp),
        (53, TargetPort::Name("dns-tcp".to_owned()), Transport::Tcp),
        (9153, TargetPort::Number(9153), Transport::Tcp),
    ];
    let mut host = owned(
        "DaemonSet",
        "agent",
        pod("shop", "agent-x", app("agent"), &["192.0.2.2"]),
    );
    host.host_network = true;
    host.node = Some("n2".into());
    cluster(
        [
            node("n1", &["192.0.2.1", "2001:db8::1"]),
            node("n2", &["192.0.2.2"]),
            crate::fixture::replica_set("kube-system", "coredns-1", "coredns", core_labels()),
            Object::Pod(core_dns),
            service("kube-system", "kube-dns", Some(core_labels()), &dns_ports),
            service(
                "default",
                "kubernetes",
                None,
                &[(443, TargetPort::Number(6443), Transport::Tcp)],
            ),
            slice("default", "kubernetes", &["192.0.2.2", "203.0.113.5"], 6443),
            controller("DaemonSet", "shop", "agent", app("agent"), app("agent")),
            Object::Pod(host),
        ]
        .into_iter()
        .chain(set("web", &["198.18.1.2", "fd00:18::2"]))
        .chain(set("api", &["198.18.1.3"]))
        .chain(set("db", &["198.18.1.4"])),
    )
}

fn core_dns() -> Endpoint {
    Endpoint::Workload(workload("Deployment", "kube-system", "coredns"))
}

fn propose(graph: &ConnectionGraph, name: &str) -> Result<Proposal, Refusal> {
    let cluster = shop();
    let settings = Settings::default();
    let proposal = synthesize(&workload("StatefulSet", "shop", name), graph, &cluster, &settings)?;
    assert_eq!(
        verify(
            std::slice::from_ref(&proposal),
            Others::default(),
            &cluster,
            graph,
            &settings
        ),
        []
    );
    Ok(proposal)
}

fn yaml(proposal: &Proposal) -> String {
    serde_yaml::to_string(&*proposal.policy).unwrap()
}

fn cidrs(proposal: &Proposal) -> BTreeSet<String> {
    let spec = proposal.policy.spec.as_ref().unwrap();
    let ingress = spec
        .ingress
        .iter()
        .flatten()
        .flat_map(|rule| rule.from.iter().flatten());
    let egress = spec.egress.iter().flatten().flat_map(|rule| rule.to.iter().flatten());
    ingress
        .chain(egress)
        .filter_map(|peer| peer.ip_block.as_ref())
        .map(|block| block.cidr.clone())
        .collect()
}

const READABLE: &str = include_str!("tests/readable.yaml");

#[test]
fn p20_p21_p24_a_policy_reads_well() {
    let mut graph = graph([
        edge(end("web"), end("api"), 8080, Transport::Tcp),
        edge(end("db"), end("api"), 8080, Transport::Tcp),
        edge(end("db"), end("api"), 9090, Transport::Tcp),
        edge(end("api"), end("db"), 5432, Transport::Tcp),
        edge(end("api"), Endpoint::External(ip("198.51.100.7")), 443, Transport::Tcp),
        edge(end("api"), Endpoint::External(ip("2001:db8:7::1")), 443, Transport::Tcp),
    ]);
    let dns = edge(end("api"), core_dns(), 5353, Transport::Udp);
    graph.insert(
        dns,
        &evidence(
            Outcome::Established,
            &[Reporter::Source],
            &[service_name("kube-system", "kube-dns")],
        ),
    );
    let proposal = propose(&graph, "api").unwrap();
    assert_eq!(yaml(&proposal), READABLE);
    assert_eq!(
        crate::ownership::owned_workload(&proposal.policy),
        Some(proposal.workload)
    );
}

#[test]
fn p10_every_target_port_that_was_observed_comes_out() {
    let api = service_name("shop", "api");
    let mut seen = ConnectionGraph::default();
    for port in [8080, 9090] {
        let via = evidence(Outcome::Established, BOTH, std::slice::from_ref(&api));
        seen.insert(edge(end("web"), end("api"), port, Transport::Tcp), &via);
    }
    let proposal = propose(&seen, "web").unwrap();
    let text = yaml(&proposal);
    assert!(text.contains("port: 8080") && text.contains("port: 9090"), "{text}");
    assert!(
        text.contains("TCP 8080, TCP 9090, seen at both ends, through Service shop/api"),
        "{text}"
    );
}

#[test]
fn p25_a_name_is_told_and_allows_nothing_more() {
    let addresses = ["198.51.100.7", "2001:db8:7::1"].map(|address| Endpoint::External(address.parse().unwrap()));
    let unnamed = graph(
        addresses
            .clone()
            .map(|address| edge(end("web"), address, 443, Transport::Tcp)),
    );
    let mut named = unnamed.clone();
    for name in ["api.example.com", "*.evil\\010.example.com"] {
        named.name(&end("web"), &addresses[0], &name.to_owned().try_into().unwrap());
    }
    // What somebody else calls it.
    named.name(
        &end("db"),
        &addresses[1],
        &"db.example.com".to_owned().try_into().unwrap(),
    );
    let (named, unnamed) = (propose(&named, "web").unwrap(), propose(&unnamed, "web").unwrap());
    assert_eq!(named.policy.spec, unnamed.policy.spec);
    assert_eq!(named.notes, unnamed.notes);
    let text = yaml(&named);
    let line =
        r"egress 1: -> external 198.51.100.7 (*.evil\010.example.com, api.example.com) TCP 443, seen at both ends";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("egress 1: -> external 2001:db8:7::1 TCP 443,"), "{text}");
}

#[test]
fn p11_p12_a_service_without_pods_is_its_slices_addresses() {
    let kubernetes = Endpoint::Service(service_name("default", "kubernetes"));
    let proposal = propose(
        &graph([edge(end("web"), kubernetes.clone(), 6443, Transport::Tcp)]),
        "web",
    )
    .unwrap();
    assert_eq!(
        cidrs(&proposal),
        ["192.0.2.2/32".to_owned(), "203.0.113.5/32".to_owned()].into()
    );
    let note = Note::HostNetwork {
        direction: Direction::Egress,
        peer: kubernetes.clone(),
        addresses: [ip("192.0.2.2")].into(),
        ports: [Port {
            number: 6443,
            transport: Transport::Tcp,
        }]
        .into(),
    };
    assert!(
        proposal.notes.contains(&note),
        "of the two addresses one is a node's: {:?}",
        proposal.notes
    );
    let refusal = propose(&graph([edge(end("web"), kubernetes, 443, Transport::Tcp)]), "web").unwrap_err();
    assert!(
        matches!(refusal, Refusal::NotReady { .. }),
        "no slice has this port: {refusal}"
    );
}

#[test]
fn p12_a_slice_that_names_a_pod_is_the_pods_workload() {
    let mut cluster = shop();
    cluster.observe(slice("shop", "manual", &["198.18.1.4"], 5432), crate::fixture::at(2));
    cluster.observe(
        service(
            "shop",
            "manual",
            None,
            &[(80, TargetPort::Number(5432), Transport::Tcp)],
        ),
        crate::fixture::at(2),
    );
    let seen = graph([edge(
        end("web"),
        Endpoint::Service(service_name("shop", "manual")),
        5432,
        Transport::Tcp,
    )]);
    let proposal = synthesize(
        &workload("StatefulSet", "shop", "web"),
        &seen,
        &cluster,
        &Settings::default(),
    )
    .unwrap();
    assert_eq!(cidrs(&proposal), BTreeSet::new(), "p14");
    assert!(yaml(&proposal).contains("app: db"));
}

#[test]
fn p13_an_ipv6_address_is_a_range_of_128_bits() {
    let seen = graph([edge(
        end("web"),
        Endpoint::External(ip("2001:db8::9")),
        443,
        Transport::Tcp,
    )]);
    assert_eq!(
        cidrs(&propose(&seen, "web").unwrap()),
        ["2001:db8::9/128".to_owned()].into()
    );
}

#[test]
fn p14_a_cluster_address_never_becomes_an_ip_block() {
    for address in ["198.18.1.4", "198.18.77.7"] {
        let seen = graph([
            edge(end("web"), Endpoint::External(ip(address)), 443, Transport::Tcp),
            edge(end("api"), end("web"), 80, Transport::Tcp),
        ]);
        let proposal = propose(&seen, "web").unwrap();
        assert_eq!(cidrs(&proposal), BTreeSet::new());
        assert_eq!(proposal.directions, [Direction::Ingress].into());
        assert!(proposal.notes[0].to_string().contains(address), "{}", proposal.notes[0]);
    }
}

#[test]
fn p15_p16_nodes_and_host_network_peers_are_addresses_with_a_note() {
    let n1 = Endpoint::Node("n1".to_owned());
    let agent = Endpoint::Workload(workload("DaemonSet", "shop", "agent"));
    let seen = graph([
        edge(n1, end("web"), 8080, Transport::Tcp),
        edge(agent, end("web"), 9100, Transport::Tcp),
    ]);
    let proposal = propose(&seen, "web").unwrap();
    let expected = ["192.0.2.1/32", "2001:db8::1/128", "192.0.2.2/32"]
        .map(str::to_owned)
        .into();
    assert_eq!(cidrs(&proposal), expected);
    assert_eq!(
        proposal
            .notes
            .iter()
            .filter(|note| matches!(note, Note::HostNetwork { .. }))
            .count(),
        2
    );
    let agent = workload("DaemonSet", "shop", "agent");
    let refusal = synthesize(&agent, &seen, &shop(), &Settings::default()).unwrap_err();
    assert_eq!(refusal, Refusal::HostNetwork { workload: agent });
}

#[test]
fn p17_only_observed_directions_are_isolated() {
    let seen = graph([edge(end("web"), end("api"), 8080, Transport::Tcp)]);
    for (name, direction) in [("web", Direction::Egress), ("api", Direction::Ingress)] {
        let proposal = propose(&seen, name).unwrap();
        assert_eq!(proposal.directions, [direction].into());
        let types = proposal.policy.spec.clone().unwrap().policy_types.unwrap();
        assert_eq!(types, [direction.as_str()]);
    }
    let refusal = propose(&seen, "db").unwrap_err();
    assert!(matches!(refusal, Refusal::NotObserved { .. }));
}

#[test]
fn p17_a_direction_with_an_unknown_end_stays_open() {
    let unknown = Endpoint::Unknown {
        reason: UnknownReason::AddressReused,
        address: Some(ip("198.18.1.99")),
    };
    let seen = graph([
        edge(end("web"), end("api"), 8080, Transport::Tcp),
        edge(end("web"), unknown.clone(), 8080, Transport::Tcp),
        edge(end("db"), end("web"), 80, Transport::Tcp),
    ]);
    let proposal = propose(&seen, "web").unwrap();
    assert_eq!(proposal.directions, [Direction::Ingress].into());
    assert_eq!(
        proposal.notes[0].to_string(),
        "egress stays open, it is not ready: 198.18.1.99 at TCP 8080: several owners had this address during the flow"
    );
    let only = graph([edge(end("web"), unknown, 8080, Transport::Tcp)]);
    assert!(matches!(propose(&only, "web").unwrap_err(), Refusal::NotReady { .. }));
}

#[test]
fn p18_a_workload_that_is_refused_does_not_keep_others_out() {
    let gone = Endpoint::Workload(workload("Deployment", "shop", "gone"));
    let seen = graph([
        edge(end("web"), end("api"), 8080, Transport::Tcp),
        edge(gone.clone(), end("api"), 8081, Transport::Tcp),
    ]);
    let all = synthesize_all(&seen, &shop(), &Settings::default());
    let gone_workload = gone.workload().unwrap().clone();
    assert_eq!(
        all[&gone_workload],
        Err(Refusal::Gone {
            workload: gone_workload.clone()
        })
    );
    let api = all[&workload("StatefulSet", "shop", "api")].as_ref().unwrap();
    assert!(all[&workload("StatefulSet", "shop", "web")].is_ok());
    assert!(!yaml(api).contains("8081"), "a peer that is gone has no rule");
    assert!(
        api.notes
            .iter()
            .any(|note| matches!(note, Note::PeerGone { peer, .. } if *peer == gone))
    );
}

#[test]
fn p19_dns_is_kept_at_both_ends_in_both_transports() {
    let seen = graph([
        edge(end("web"), core_dns(), 5353, Transport::Udp),
        edge(end("web"), end("api"), 8080, Transport::Tcp),
        edge(end("db"), core_dns(), 9153, Transport::Tcp),
    ]);
    let port = Port {
        number: 5354,
        transport: Transport::Tcp,
    };
    let web = propose(&seen, "web").unwrap();
    let dns = Note::Dns {
        direction: Direction::Egress,
        peer: core_dns(),
        ports: [port].into(),
    };
    assert!(web.notes.contains(&dns), "{:?}", web.notes);
    let server = workload("Deployment", "kube-system", "coredns");
    let server = synthesize(&server, &seen, &shop(), &Settings::default()).unwrap();
    let dns = Note::Dns {
        direction: Direction::Ingress,
        peer: end("web"),
        ports: [port].into(),
    };
    assert!(server.notes.contains(&dns), "{:?}", server.notes);
    let db = propose(&seen, "db").unwrap();
    assert!(!yaml(&db).contains("535"), "another port of the DNS pods is not DNS");
}

#[test]
fn p19_a_dns_cache_on_the_node_is_reached_by_address() {
    let cache = ip("169.254.20.10");
    let seen = graph([edge(end("web"), Endpoint::External(cache), 53, Transport::Udp)]);
    let proposal = propose(&seen, "web").unwrap();
    assert_eq!(cidrs(&proposal), ["169.254.20.10/32".to_owned()].into());
    assert!(yaml(&proposal).contains("port: 53\n      protocol: TCP"));

    let mut cluster = shop();
    let mut local = pod(
        "kube-system",
        "node-local-dns-x",
        labels([("k8s-app", "node-local-dns")]),
        &["192.0.2.1"],
    );
    local.host_network = true;
    cluster.observe(Object::Pod(local), crate::fixture::at(2));
    let seen = graph([edge(end("web"), core_dns(), 5353, Transport::Udp)]);
    let proposal = synthesize(
        &workload("StatefulSet", "shop", "web"),
        &seen,
        &cluster,
        &Settings::default(),
    )
    .unwrap();
    assert_eq!(cidrs(&proposal), ["169.254.20.10/32".to_owned()].into());
    assert!(
        proposal
            .notes
            .iter()
            .any(|note| matches!(note, Note::NodeLocalDns { .. }))
    );
}

#[test]
fn p33_connections_that_nobody_answered_make_no_rules() {
    let mut seen = graph([edge(end("db"), end("web"), 80, Transport::Tcp)]);
    let tried = edge(end("web"), end("api"), 8080, Transport::Tcp);
    seen.insert(tried.clone(), &evidence(Outcome::Attempted, &[Reporter::Source], &[]));
    let refused = edge(end("web"), end("api"), 8081, Transport::Tcp);
    seen.insert(refused.clone(), &evidence(Outcome::Refused, BOTH, &[]));
    let proposal = propose(&seen, "web").unwrap();
    assert_eq!(proposal.directions, [Direction::Ingress].into());
    let note = Note::Unanswered {
        direction: Direction::Egress,
        edges: [tried, refused].into(),
    };
    assert!(proposal.notes.contains(&note));

    let learn = Settings {
        unanswered: Unanswered::Learn,
        ..Settings::default()
    };
    let proposal = synthesize(&workload("StatefulSet", "shop", "web"), &seen, &shop(), &learn).unwrap();
    assert_eq!(proposal.directions.len(), 2);

    let mut datagrams = ConnectionGraph::default();
    datagrams.insert(
        edge(end("web"), end("api"), 8125, Transport::Udp),
        &evidence(Outcome::Attempted, &[Reporter::Source], &[]),
    );
    assert!(propose(&datagrams, "web").is_ok(), "datagrams need no answer");
}

#[test]
fn echo_is_noted_and_makes_no_rule() {
    let mut seen = graph([edge(end("db"), end("web"), 80, Transport::Tcp)]);
    let ping = edge(end("web"), end("api"), 0, Transport::Icmp);
    seen.insert(ping.clone(), &evidence(Outcome::Established, &[Reporter::Source], &[]));
    for unanswered in [Unanswered::Ignore, Unanswered::Learn] {
        let settings = Settings {
            unanswered,
            ..Settings::default()
        };
        let proposal = synthesize(&workload("StatefulSet", "shop", "web"), &seen, &shop(), &settings).unwrap();
        assert_eq!(proposal.directions, [Direction::Ingress].into());
        let note = Note::Echo {
            direction: Direction::Egress,
            edges: [ping.clone()].into(),
        };
        assert!(proposal.notes.contains(&note), "{:?}", proposal.notes);
    }
}

#[test]
fn p9_a_subject_that_cannot_be_selected_is_refused_and_a_peer_is_noted() {
    let mut cluster = shop();
    let shared = || labels([("app", "db")]);
    cluster.observe(
        controller("StatefulSet", "shop", "twin", shared(), shared()),
        crate::fixture::at(2),
    );
    let seen = graph([edge(end("web"), end("db"), 5432, Transport::Tcp)]);
    let settings = Settings::default();
    let refusal = synthesize(&workload("StatefulSet", "shop", "db"), &seen, &cluster, &settings).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "StatefulSet shop/db gets no policy: its stable labels also select pods of StatefulSet shop/twin; \
         add the label app.kubernetes.io/component: db to its pod template"
    );
    let web = synthesize(&workload("StatefulSet", "shop", "web"), &seen, &cluster, &settings).unwrap();
    assert_eq!(
        web.notes[1].to_string(),
        "egress at TCP 5432: the rule for StatefulSet shop/db means every pod with its labels, also those of StatefulSet \
         shop/twin; the label app.kubernetes.io/component: db on its pod template would separate it"
    );
}

#[test]
fn a_pod_of_its_own_has_no_template_to_put_a_label_on() {
    let mut cluster = shop();
    cluster.observe(
        Object::Pod(pod("shop", "solo", labels([("app", "db")]), &["198.18.1.77"])),
        crate::fixture::at(2),
    );
    let seen = graph([edge(end("web"), end("db"), 5432, Transport::Tcp)]);
    let refusal = synthesize(&workload("Pod", "shop", "solo"), &seen, &cluster, &Settings::default()).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "Pod shop/solo gets no policy: its stable labels also select pods of StatefulSet shop/db; \
         add the label app.kubernetes.io/component: solo to it"
    );
}

#[test]
fn p39_verify_takes_other_peoples_policies_in() {
    let seen = graph([edge(end("web"), end("api"), 8080, Transport::Tcp)]);
    let cluster = shop();
    let settings = Settings::default();
    let proposals: Vec<Proposal> = synthesize_all(&seen, &cluster, &settings)
        .into_values()
        .flatten()
        .collect();
    let deny = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: deny}, spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}";
    let deny = crate::fixture::policies(deny);
    let others = Others {
        network: &deny,
        cluster: &[],
    };
    assert_eq!(
        verify(&proposals, others, &cluster, &seen, &settings),
        [],
        "our policies allow what theirs isolate"
    );
    let web: Vec<_> = proposals
        .iter()
        .filter(|proposal| proposal.workload.name == "web")
        .cloned()
        .collect();
    let violations = verify(&web, others, &cluster, &seen, &settings);
    assert_eq!(violations.len(), 1, "api has no policy of ours that allows it");
    assert!(
        violations[0]
            .to_string()
            .contains("ingress of Pod shop/api-0 is isolated by NetworkPolicy shop/deny")
    );

    let mut mutant = proposals;
    for proposal in &mut mutant {
        let spec = Arc::make_mut(&mut proposal.policy).spec.as_mut().unwrap();
        (spec.ingress, spec.egress) = (None, None);
    }
    assert_eq!(
        verify(&mutant, Others::default(), &cluster, &seen, &settings).len(),
        2,
        "a proposal that lost its rules"
    );
}
