mod cases;
mod tiers;

use proptest::prelude::*;

use super::*;
use crate::fixture::{cluster_of, ip, policies};

/// Two nodes, three namespaces. Shop: web (both families, named port), db, host (on n2's network), done, unborn.
const CLUSTER: &str = "
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}, status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: other, labels: {team: red}}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web, uid: u-web, labels: {app: web}}, spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}, {name: udp, containerPort: 9000, protocol: UDP}]}]}, status: {phase: Running, podIPs: [{ip: 198.18.1.2}, {ip: 'fd00:18::2'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: db, labels: {app: db, tier: back}}, spec: {nodeName: n2, containers: [{name: c, ports: [{name: http, containerPort: 5432}]}]}, status: {phase: Running, podIPs: [{ip: 198.18.1.3}, {ip: 'fd00:18::3'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: host, labels: {app: host}}, spec: {nodeName: n2, hostNetwork: true, containers: []}, status: {phase: Running, podIP: 192.0.2.2}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: done, labels: {app: web}}, spec: {containers: []}, status: {phase: Succeeded, podIP: 198.18.1.9}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: unborn, labels: {app: web}}, spec: {containers: []}, status: {phase: Pending}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: other, name: api, labels: {app: web}}, spec: {nodeName: n2, containers: []}, status: {phase: Running, podIP: 198.18.2.2}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: other, name: six, labels: {app: six}}, spec: {nodeName: n1, containers: []}, status: {phase: Running, podIP: 'fd00:18::6'}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: db}, spec: {clusterIP: 198.18.200.1, selector: {app: db}, ports: [{port: 5432}]}}
";

fn end(text: &str) -> End {
    match text.split_once('/') {
        Some((namespace, name)) => End::Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        None => End::Address(ip(text)),
    }
}

/// `source destination port [transport]`.
fn connection(text: &str) -> Connection {
    let parts: Vec<_> = text.split(' ').collect();
    let transport = match parts.get(3) {
        None => Transport::Tcp,
        Some(&"UDP") => Transport::Udp,
        Some(_) => Transport::Sctp,
    };
    Connection {
        source: end(parts[0]),
        destination: end(parts[1]),
        port: parts[2].parse().unwrap(),
        transport,
    }
}

fn ask(specs: &[&str], question: &str) -> Answer {
    let yaml: Vec<_> = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            format!("{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: shop, name: p{index}}}, spec: {spec}}}")
        })
        .collect();
    let (set, rejected) = PolicySet::parse(&policies(&yaml.join("\n---\n")));
    assert_eq!(rejected, []);
    let cluster = cluster_of(CLUSTER);
    let answer = evaluate(&set, &cluster, &connection(question));
    assert_eq!(
        answer,
        Evaluator::new(&set, &cluster).evaluate(&connection(question)),
        "prepared or not"
    );
    answer
}

/// `A`llowed, `D`enied, `N`ot isolated, `U`nknown: egress, ingress.
fn letters(answer: &Answer) -> String {
    [&answer.egress, &answer.ingress]
        .into_iter()
        .map(|verdict| match verdict {
            Verdict::Allowed(_) => 'A',
            Verdict::Denied(_) => 'D',
            Verdict::NotIsolated => 'N',
            Verdict::Unknown(_) => 'U',
        })
        .collect()
}

#[test]
fn the_specification_case_by_case() {
    for (specs, question, expected, message) in cases::CASES {
        let answer = ask(specs, question);
        assert_eq!(
            letters(&answer),
            *expected,
            "{message}: {question} with {specs:?}: {answer:?}"
        );
    }
}

#[test]
fn answers_name_what_decided() {
    let answer = ask(
        &[
            "{podSelector: {}, ingress: [{ports: [{port: 1}]}, {ports: [{port: 2}]}]}",
            "{podSelector: {}}",
        ],
        "shop/web shop/db 2",
    );
    assert_eq!(
        answer.combined().to_string(),
        "allowed: NetworkPolicy shop/p0 spec.ingress[1]"
    );
    let answer = ask(
        &["{podSelector: {}}", "{podSelector: {}, policyTypes: [Egress]}"],
        "shop/web shop/db 2",
    );
    assert_eq!(
        answer.combined().to_string(),
        "denied: egress of Pod shop/web is isolated by NetworkPolicy shop/p1, and no rule allows it; \
         ingress of Pod shop/db is isolated by NetworkPolicy shop/p0, and no rule allows it"
    );
}

#[test]
fn both_directions_together() {
    let allowed = Verdict::Allowed(vec![AllowedBy::SamePod]);
    let denied = Verdict::Denied(Vec::new());
    let unknown = Verdict::Unknown(Undecidable::NoCommonFamily);
    for (egress, ingress, expected) in [
        (&denied, &unknown, &denied),
        (&unknown, &denied, &denied),
        (&allowed, &denied, &denied),
        (&unknown, &allowed, &unknown),
        (&Verdict::NotIsolated, &unknown, &unknown),
        (&allowed, &Verdict::NotIsolated, &allowed),
        (&Verdict::NotIsolated, &allowed, &allowed),
        (&Verdict::NotIsolated, &Verdict::NotIsolated, &Verdict::NotIsolated),
    ] {
        let answer = Answer {
            egress: egress.clone(),
            ingress: ingress.clone(),
        };
        assert_eq!(&answer.combined(), expected);
    }
}

#[test]
fn what_the_api_server_would_refuse_is_rejected_with_its_field() {
    for (spec, expected) in [
        (
            "{policyTypes: [Both]}",
            "spec.policyTypes[0] is \"Both\", expected Ingress or Egress",
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: Is}]}}",
            "spec.podSelector is not a label selector: matchExpressions[0].operator is \"Is\", expected In, NotIn, Exists or DoesNotExist",
        ),
        (
            "{ingress: [{from: [{namespaceSelector: {matchLabels: {team: '{{ x }}'}}}]}]}",
            "spec.ingress[0].from[0].namespaceSelector is not a label selector: \"{{ x }}\" cannot be a label's value",
        ),
        (
            "{policyTypes: [Ingress, Egress, Ingress]}",
            "spec.policyTypes has 3 items, expected 2 at most",
        ),
        (
            "{egress: [{ports: [{port: '80'}]}]}",
            "spec.egress[0].ports[0].port is \"80\", expected a port's number or its name: 15 of a-z, 0-9 and single - within, with a letter among them",
        ),
        (
            "{ingress: [{from: [{}]}]}",
            "spec.ingress[0].from[0] must have ipBlock, podSelector or namespaceSelector",
        ),
        (
            "{egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}, podSelector: {}}]}]}",
            "spec.egress[0].to[0] must not have ipBlock together with a selector",
        ),
        (
            "{ingress: [{}, {from: [{ipBlock: {cidr: 192.0.2.0}}]}]}",
            "spec.ingress[1].from[0].ipBlock.cidr is \"192.0.2.0\", expected an address range such as 192.0.2.0/24",
        ),
        (
            "{ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [198.51.100.0/25]}}]}]}",
            "spec.ingress[0].from[0].ipBlock.except[0] is \"198.51.100.0/25\", expected a range strictly inside of cidr",
        ),
        (
            "{ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/24]}}]}]}",
            "spec.ingress[0].from[0].ipBlock.except[0] is \"192.0.2.0/24\", expected a range strictly inside of cidr",
        ),
        (
            "{ingress: [{ports: [{protocol: ICMP}]}]}",
            "spec.ingress[0].ports[0].protocol is \"ICMP\", expected TCP, UDP or SCTP",
        ),
        (
            "{ingress: [{ports: [{port: 0}]}]}",
            "spec.ingress[0].ports[0].port is 0, expected a number from 1 to 65535",
        ),
        (
            "{ingress: [{ports: [{port: 80, endPort: 79}]}]}",
            "spec.ingress[0].ports[0].endPort is 79, expected a number from port to 65535",
        ),
        (
            "{ingress: [{ports: [{port: http, endPort: 79}]}]}",
            "spec.ingress[0].ports[0].endPort needs port to be a number",
        ),
    ] {
        let yaml = format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: shop, name: p}}, spec: {spec}}}\n---\n{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: shop, name: good}}}}"
        );
        let (set, rejected) = PolicySet::parse(&policies(&yaml));
        assert_eq!(set.len(), 1, "p18 the good one stays");
        assert_eq!(rejected[0].to_string(), format!("NetworkPolicy shop/p: {expected}"));
    }
}

/// Every policy of a small world, as YAML flow text, so that the API's own reading and defaulting are exercised.
fn spec() -> impl Strategy<Value = String> {
    let labels = prop::sample::select(vec![
        "{}",
        "{matchLabels: {app: web}}",
        "{matchLabels: {app: db}}",
        "{matchExpressions: [{key: tier, operator: NotIn, values: [back]}]}",
    ]);
    let peer = prop_oneof![
        labels.clone().prop_map(|pods| format!("{{podSelector: {pods}}}")),
        labels
            .clone()
            .prop_map(|pods| format!("{{namespaceSelector: {{matchLabels: {{team: red}}}}, podSelector: {pods}}}")),
        prop::sample::select(vec![
            "{ipBlock: {cidr: 198.18.0.0/16, except: [198.18.2.0/24]}}",
            "{ipBlock: {cidr: 'fd00::/8'}}",
            "{ipBlock: {cidr: 192.0.2.2/32}}"
        ])
        .prop_map(str::to_owned),
    ];
    let port = prop::sample::select(vec![
        "{port: 8080}",
        "{port: http}",
        "{protocol: UDP}",
        "{port: 5000, endPort: 6000}",
    ]);
    let rule = (prop::collection::vec(peer, 0..3), prop::collection::vec(port, 0..3));
    let rules = prop::collection::vec(rule, 0..3);
    let types = prop::sample::select(vec![
        "",
        "policyTypes: [Ingress],",
        "policyTypes: [Egress],",
        "policyTypes: [Egress, Ingress],",
    ]);
    (labels, types, rules.clone(), rules).prop_map(|(subject, types, ingress, egress)| {
        let list = |rules: Vec<(Vec<String>, Vec<&str>)>, peers: &str| {
            let rules: Vec<_> = rules
                .into_iter()
                .map(|(named, ports)| format!("{{{peers}: [{}], ports: [{}]}}", named.join(", "), ports.join(", ")))
                .collect();
            rules.join(", ")
        };
        format!(
            "{{podSelector: {subject}, {types} ingress: [{}], egress: [{}]}}",
            list(ingress, "from"),
            list(egress, "to")
        )
    })
}

const ENDS: [&str; 8] = [
    "shop/web",
    "shop/db",
    "shop/host",
    "other/api",
    "198.18.1.2",
    "fd00:18::3",
    "192.0.2.2",
    "198.51.100.1",
];

proptest! {
    /// More policies of a pod that is isolated already never take anything away, and rules only matter within their policy's
    /// own direction.
    #[test]
    fn policies_only_add_up(
        specs in prop::collection::vec(spec(), 1..4),
        source in prop::sample::select(ENDS.to_vec()),
        destination in prop::sample::select(ENDS.to_vec()),
        port in prop::sample::select(vec![8080_u16, 5432, 53]),
    ) {
        let question = format!("{source} {destination} {port}");
        let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
        let together = ask(&specs, &question);
        let single: Vec<Answer> = specs.iter().map(|spec| ask(&[spec], &question)).collect();
        for direction in Direction::ALL {
            let verdicts: Vec<&Verdict> = single.iter().map(|answer| answer.direction(direction)).collect();
            let together = together.direction(direction);
            if verdicts.iter().any(|verdict| matches!(verdict, Verdict::Allowed(_))) {
                prop_assert!(matches!(together, Verdict::Allowed(_)), "{together:?}");
            } else if verdicts.iter().all(|verdict| matches!(verdict, Verdict::NotIsolated)) {
                prop_assert_eq!(together, &Verdict::NotIsolated);
            } else if verdicts.iter().all(|verdict| !matches!(verdict, Verdict::Unknown(_))) {
                // Two families may each be allowed by another policy.
                prop_assert!(!matches!(together, Verdict::NotIsolated | Verdict::Allowed(_)), "{together:?}");
            }
        }
    }
}

#[test]
fn names_of_ports() {
    for (name, is_name) in [
        ("http", true),
        ("a", true),
        ("9p", true),
        ("a-b-c", true),
        ("fifteen-letters", true),
        ("sixteen-letters1", false),
        ("", false),
        ("80", false),
        ("8-0", false),
        ("HTTP", false),
        ("a--b", false),
        ("-a", false),
        ("a-", false),
        ("a_b", false),
    ] {
        let yaml = format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: shop, name: p}}, spec: {{ingress: [{{ports: [{{port: '{name}'}}]}}]}}}}"
        );
        assert_eq!(PolicySet::parse(&policies(&yaml)).0.len() == 1, is_name, "{name}");
    }
}
