//! Proposals that were tampered with, in every way that there is a place for: whatever would cut something that is needed is refused,
//! whatever cuts nothing is not, and what is needed is asked of the evaluator by hand, pod by pod.
//!
//! The cluster has all that tools of this kind have locked out: cluster DNS, the API server, kubelet's probes, and nanoseg itself.

use std::fmt;

use nanoseg_graph::cluster::{Labels, Object, TargetPort};
use nanoseg_graph::flow::Transport;
use serde_json::{Value, json};

use super::*;
use crate::evaluate::End;
use crate::fixture::{
    cluster, container_port, controller, edge, graph, labels, node, owned, pod, policies, replica_set, service,
    workload,
};
use crate::plan::Plan;
use crate::synthesize::synthesize_all;

/// Node, its address, and where its pods' addresses begin.
const NODES: [(&str, &str, &str); 3] = [
    ("control", "192.0.2.1", "198.18.0"),
    ("n1", "192.0.2.2", "198.18.1"),
    ("n2", "192.0.2.3", "198.18.2"),
];

/// Where the API server listens.
const API_SERVER: u16 = 6443;

const OUTSIDE: &str = "203.0.113.9";

/// People's own policies: in the shop nobody gets in whom nothing lets in, and who is called backup asks for names by UDP alone.
const FOREIGN: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: backup, namespace: data}
spec:
  podSelector: {matchLabels: {app: backup}}
  policyTypes: [Egress]
  egress:
    - to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]
      ports: [{protocol: UDP, port: 53}]
";

fn app(name: &str) -> Labels {
    labels([("app", name)])
}

/// A Deployment with a pod on each of two nodes.
fn deployment(namespace: &str, name: &str, own: &Labels, number: u8) -> Vec<Object> {
    let mut of_set = own.clone();
    of_set.insert("pod-template-hash".to_owned(), "5d4f".to_owned());
    let set = format!("{name}-5d4f");
    let mut objects = vec![
        controller("Deployment", namespace, name, own.clone(), own.clone()),
        replica_set(namespace, &set, name, of_set.clone()),
    ];
    for (host, _, prefix) in &NODES[1..] {
        let mut pod = pod(
            namespace,
            &format!("{set}-{host}"),
            of_set.clone(),
            &[&format!("{prefix}.{number}")],
        );
        pod.node = Some((*host).into());
        if name == "coredns" {
            let ports = [Transport::Udp, Transport::Tcp].map(|transport| container_port(None, 53, transport));
            pod.ports = std::sync::Arc::new(ports.into());
        }
        objects.push(Object::Pod(owned("ReplicaSet", &set, pod)));
    }
    objects
}

fn world() -> Cluster {
    let dns = || labels([("k8s-app", "kube-dns")]);
    let own = |component| {
        labels([
            ("app.kubernetes.io/name", "nanoseg"),
            ("app.kubernetes.io/component", component),
        ])
    };
    let mut objects: Vec<Object> = NODES.iter().map(|(name, address, _)| node(name, &[address])).collect();
    for (namespace, name, labels, number) in [
        ("shop", "web", app("web"), 10),
        ("shop", "cart", app("cart"), 11),
        ("shop", "idle", app("idle"), 12),
        ("data", "db", app("db"), 13),
        ("data", "backup", app("backup"), 14),
        ("kube-system", "coredns", dns(), 15),
        ("monitoring", "prometheus", app("prometheus"), 16),
        ("nanoseg", "nanoseg-controller", own("controller"), 17),
    ] {
        objects.extend(deployment(namespace, name, &labels, number));
    }
    let own_labels = own("learner");
    objects.push(controller(
        "DaemonSet",
        "nanoseg",
        "nanoseg-learner",
        own_labels.clone(),
        own_labels.clone(),
    ));
    for (host, address, _) in NODES {
        let mut learner = pod("nanoseg", &format!("learner-{host}"), own_labels.clone(), &[address]);
        learner.node = Some(host.into());
        learner.host_network = true;
        objects.push(Object::Pod(owned("DaemonSet", "nanoseg-learner", learner)));
    }
    let ports = [Transport::Udp, Transport::Tcp].map(|transport| (53, TargetPort::Number(53), transport));
    objects.push(service("kube-system", "kube-dns", Some(dns()), &ports));
    cluster(objects)
}

/// Who needs to reach whom.
fn needs() -> Vec<EdgeKey> {
    use Transport::{Tcp, Udp};
    let of = |namespace, name| Endpoint::Workload(workload("Deployment", namespace, name));
    let host = |name: &str| Endpoint::Node(name.to_owned());
    let outside = || Endpoint::External(OUTSIDE.parse().unwrap());
    let (web, cart, db) = (of("shop", "web"), of("shop", "cart"), of("data", "db"));
    let (dns, prometheus) = (of("kube-system", "coredns"), of("monitoring", "prometheus"));
    let own = of("nanoseg", "nanoseg-controller");
    let learner = Endpoint::Workload(workload("DaemonSet", "nanoseg", "nanoseg-learner"));
    let mut needs = vec![
        edge(outside(), web.clone(), 8080, Tcp),
        edge(web.clone(), cart.clone(), 7000, Tcp),
        edge(web.clone(), cart.clone(), 16400, Udp),
        edge(web.clone(), outside(), 443, Tcp),
        edge(cart.clone(), db.clone(), 5432, Tcp),
        edge(of("data", "backup"), db.clone(), 5432, Tcp),
        // The API server calls a webhook, and is called.
        edge(host("control"), cart.clone(), 9443, Tcp),
        edge(web.clone(), host("control"), API_SERVER, Tcp),
        edge(own.clone(), host("control"), API_SERVER, Tcp),
        edge(dns.clone(), host("control"), API_SERVER, Tcp),
        edge(prometheus.clone(), host("control"), API_SERVER, Tcp),
        // nanoseg: reports and numbers.
        edge(learner, own.clone(), 7443, Tcp),
        edge(prometheus.clone(), own.clone(), 8081, Tcp),
    ];
    // Cluster DNS, which itself asks somebody outside.
    needs.push(edge(dns.clone(), outside(), 53, Udp));
    for asking in [&web, &cart, &of("data", "backup"), &prometheus] {
        needs.push(edge(asking.clone(), dns.clone(), 53, Udp));
    }
    needs.push(edge(cart.clone(), dns.clone(), 53, Tcp));
    // Kubelet's probes: of the own node, and in a graph also what looks like one of another's.
    for (probed, port) in [(&web, 8080), (&cart, 7000), (&dns, 8181), (&own, 8081)] {
        for (name, _, _) in &NODES[1..] {
            needs.push(edge(host(name), probed.clone(), port, Tcp));
        }
    }
    needs
}

fn settings() -> Settings {
    Settings {
        port_ranges: ["rtp=UDP:16384-16500".parse().unwrap()].into(),
        ..Settings::default()
    }
}

/// Every connection that stands behind a need, and for questions by UDP the same by TCP, with what the evaluator says of it.
fn verdicts(cluster: &Cluster, policies: &PolicySet) -> BTreeMap<Connection, bool> {
    let ends = |endpoint: &Endpoint| -> Vec<End> {
        match endpoint {
            Endpoint::Workload(workload) => (cluster.pods_of(workload))
                .map(|pod| {
                    if pod.host_network {
                        End::Address(*pod.addresses.first().unwrap())
                    } else {
                        End::Pod {
                            namespace: pod.namespace.to_string(),
                            name: pod.name.to_string(),
                        }
                    }
                })
                .collect(),
            Endpoint::Node(name) => vec![End::Address(*cluster.node(name).unwrap().addresses.first().unwrap())],
            Endpoint::External(address) => vec![End::Address(*address)],
            Endpoint::Service(_) | Endpoint::Unknown { .. } => Vec::new(),
        }
    };
    let evaluator = Evaluator::new(policies, cluster);
    let mut verdicts = BTreeMap::new();
    let backup = Endpoint::Workload(workload("Deployment", "data", "backup"));
    for EdgeKey {
        source,
        destination,
        port,
        transport,
    } in needs()
    {
        let mut transports = vec![transport];
        // Whom people keep from it does not need it.
        if (port, transport) == (53, Transport::Udp) && source != backup {
            transports.push(Transport::Tcp);
        }
        for source in ends(&source) {
            for destination in ends(&destination) {
                for transport in &transports {
                    let connection = Connection {
                        source: source.clone(),
                        destination: destination.clone(),
                        port,
                        transport: *transport,
                    };
                    let permits = evaluator.evaluate(&connection).combined().permits();
                    verdicts.insert(connection, permits);
                }
            }
        }
    }
    verdicts
}

/// A policy that was tampered with, and how.
struct Mutant {
    how: String,
    policy: NetworkPolicy,
}

/// What is changed of a policy, one thing at a time.
struct Mutants {
    original: Value,
    made: Vec<Mutant>,
}

impl Mutants {
    /// Every way to change one thing.
    fn of(original: &NetworkPolicy) -> Vec<Mutant> {
        let mut mutants = Self {
            original: json!(original),
            made: Vec::new(),
        };
        mutants.of_directions();
        mutants.of_itself();
        mutants.made.retain(|mutant| mutant.policy != *original);
        mutants.made
    }

    fn make(&mut self, how: impl fmt::Display, change: impl Fn(&mut Value)) {
        let mut value = self.original.clone();
        change(&mut value);
        self.made.push(Mutant {
            how: how.to_string(),
            policy: serde_json::from_value(value).unwrap(),
        });
    }

    /// Sets what is at a path.
    fn set(&mut self, how: impl fmt::Display, at: &str, to: &Value) {
        self.make(how, |it| {
            let (parent, key) = at.rsplit_once('/').unwrap();
            it.pointer_mut(parent).unwrap()[key] = to.clone();
        });
    }

    /// Takes an entry out of a list.
    fn drop(&mut self, list: &str, index: usize) {
        self.make(format!("{list}/{index} dropped"), |it| {
            it.pointer_mut(list).unwrap().as_array_mut().unwrap().remove(index);
        });
    }

    fn list(&self, at: &str) -> Vec<Value> {
        self.original.pointer(at).map(array).unwrap_or_default()
    }

    fn of_itself(&mut self) {
        let subject = "/spec/podSelector";
        self.set("everybody's pods", subject, &json!({}));
        self.set("another's pods", subject, &json!({ "matchLabels": { "app": "idle" } }));
        self.set("nobody's pods", "/spec/podSelector/matchLabels/more", &json!("things"));
        self.set("in another namespace", "/metadata/namespace", &json!("shop"));
        self.set("another's name", "/metadata/name", &json!("nanoseg-deployment-idle"));
        self.set("nobody's", "/metadata/labels", &json!({}));
        self.make("no rules", |it| {
            it["spec"]["ingress"] = Value::Null;
            it["spec"]["egress"] = Value::Null;
        });
        self.set(
            "isolated in both directions",
            "/spec/policyTypes",
            &json!(["Ingress", "Egress"]),
        );
    }

    fn of_directions(&mut self) {
        for (direction, side) in [("ingress", "from"), ("egress", "to")] {
            let rules = format!("/spec/{direction}");
            self.set(format!("no {direction} rules"), &rules, &Value::Null);
            for index in 0..self.list(&rules).len() {
                self.drop(&rules, index);
                let peers = format!("{rules}/{index}/{side}");
                for (place, peer) in self.list(&peers).iter().enumerate() {
                    // An empty list is everybody.
                    if self.list(&peers).len() > 1 {
                        self.drop(&peers, place);
                    }
                    self.of_peer(&format!("{peers}/{place}"), peer);
                }
                let ports = format!("{rules}/{index}/ports");
                for (place, port) in self.list(&ports).iter().enumerate() {
                    if self.list(&ports).len() > 1 {
                        self.drop(&ports, place);
                    }
                    self.of_port(&format!("{ports}/{place}"), port);
                }
            }
        }
    }

    fn of_peer(&mut self, at: &str, peer: &Value) {
        if peer["ipBlock"].is_object() {
            let cidr = &peer["ipBlock"]["cidr"];
            let (block, excepted) = (
                format!("{at}/ipBlock"),
                json!({ "cidr": "0.0.0.0/0", "except": [cidr] }),
            );
            self.set(format!("{at} excepted"), &block, &excepted);
            self.set(
                format!("{at} another address"),
                &format!("{block}/cidr"),
                &json!("203.0.113.77/32"),
            );
            return;
        }
        let selector = format!("{at}/podSelector");
        self.set(
            format!("{at} another label"),
            &format!("{selector}/matchLabels/more"),
            &json!("things"),
        );
        let (key, value) = peer["podSelector"]["matchLabels"]
            .as_object()
            .unwrap()
            .iter()
            .next()
            .unwrap();
        let others = json!({ "matchExpressions": [{ "key": key, "operator": "NotIn", "values": [value] }] });
        self.set(format!("{at} not those labels"), &selector, &others);
        let within = format!("{at}/namespaceSelector");
        let elsewhere = json!({ "matchLabels": { "kubernetes.io/metadata.name": "elsewhere" } });
        self.set(format!("{at} another namespace"), &within, &elsewhere);
        self.set(format!("{at} only the own namespace"), &within, &Value::Null);
    }

    fn of_port(&mut self, at: &str, port: &Value) {
        let number = port["port"].as_i64().unwrap();
        for other in [json!(number + 1), json!("metrics")] {
            self.set(format!("{at} is {other}"), &format!("{at}/port"), &other);
        }
        for protocol in ["TCP", "UDP", "SCTP"] {
            self.set(
                format!("{at} is {protocol}"),
                &format!("{at}/protocol"),
                &json!(protocol),
            );
        }
        if let Some(end) = port["endPort"].as_i64() {
            for end in [Value::Null, json!(end - 1), json!(number + 1)] {
                self.set(format!("{at} ends at {end}"), &format!("{at}/endPort"), &end);
            }
        }
    }
}

fn array(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// What a refusal is about.
fn is_about_itself(violation: &Violation) -> bool {
    match violation {
        Violation::NotItsOwn { .. } | Violation::Strangers { .. } | Violation::Malformed(_) => true,
        Violation::Cut { .. } => false,
    }
}

#[test]
fn p40_every_mutant_that_cuts_what_is_needed_is_refused_and_no_other_is() {
    let (cluster, settings, foreign) = (world(), settings(), policies(FOREIGN));
    let others = Others {
        network: &foreign,
        ..Others::default()
    };
    let baseline = graph(needs());
    let proposals: BTreeMap<Workload, Proposal> = synthesize_all(&baseline, &cluster, &settings)
        .into_iter()
        .filter_map(|(workload, proposal)| Some((workload, proposal.ok()?)))
        .collect();
    assert_eq!(
        proposals.len(),
        7,
        "all but the learner, which has its node's network: {:?}",
        proposals.keys()
    );
    let judge = |proposals: &BTreeMap<Workload, Proposal>| {
        let candidates = proposals.values().map(|proposal| Candidate {
            proposal,
            baseline: &baseline,
        });
        accept(candidates, others, &cluster, &settings)
    };
    let permitted = |proposals: &BTreeMap<Workload, Proposal>| {
        let (set, _) = PolicySet::parse(
            foreign
                .iter()
                .chain(proposals.values().map(|proposal| &*proposal.policy)),
        );
        verdicts(&cluster, &set)
    };
    let honest = permitted(&proposals);
    assert!(
        honest.len() > 60 && honest.values().all(|permits| *permits),
        "{honest:#?}"
    );
    for (workload, verdict) in judge(&proposals) {
        assert!(verdict.is_ok(), "{workload}: {verdict:?}");
    }

    let (mut refused, mut passed, mut cut) = (0, 0, BTreeSet::new());
    for (workload, proposal) in &proposals {
        for Mutant { how, policy } in Mutants::of(&proposal.policy) {
            let title = format!("{workload}, {how}");
            let mut tampered = proposals.clone();
            let directions = [Direction::Ingress, Direction::Egress];
            let types = policy
                .spec
                .as_ref()
                .and_then(|spec| spec.policy_types.clone())
                .unwrap_or_default();
            let isolates = directions
                .into_iter()
                .filter(|direction| types.iter().any(|it| it == direction.as_str()));
            let mutant = Proposal {
                directions: isolates.collect(),
                policy: Arc::new(policy),
                ..proposal.clone()
            };
            tampered.insert(workload.clone(), mutant.clone());
            let after = permitted(&tampered);
            let lost: Vec<&Connection> = after
                .iter()
                .filter(|(_, permits)| !**permits)
                .map(|(it, _)| it)
                .collect();
            let mut verdicts = judge(&tampered);
            let own = verdicts.remove(workload).unwrap();
            let applied: Vec<Accepted> = verdicts.into_values().flatten().chain(own.clone().ok()).collect();
            let plan = Plan::new(&applied, &[]);
            if let Err(violations) = own {
                refused += 1;
                assert!(!plan.create().contains(&*mutant.policy), "{title}: refused and planned");
                assert!(
                    !lost.is_empty() || violations.iter().any(is_about_itself),
                    "{title}: cuts nothing, and is refused: {}",
                    violations[0]
                );
                assert!(violations.iter().all(|violation| !violation.to_string().is_empty()));
            } else {
                passed += 1;
                assert!(lost.is_empty(), "{title}: cuts {lost:?}, and is accepted");
                assert!(plan.create().contains(&*mutant.policy), "{title}");
            }
            cut.extend(lost.into_iter().cloned());
        }
    }
    println!("{refused} mutants refused, {passed} cut nothing");
    assert!(refused > 250 && passed > 20, "{refused} refused, {passed} passed");
    // What is let through in any case, by the specification, is that of a pod's own node.
    let never: Vec<&Connection> = honest.keys().filter(|it| !cut.contains(it)).collect();
    let is_own_node = |it: &&&Connection| match (&it.source, &it.destination) {
        (End::Address(address), End::Pod { name, .. }) => NODES
            .iter()
            .any(|(host, at, _)| address.to_string() == *at && name.ends_with(host)),
        _ => false,
    };
    assert!(never.iter().all(|it| is_own_node(&it)), "no mutant cuts {never:?}");
}
