//! Policies of the cluster: tiers, priorities, actions, and how they meet `NetworkPolicies`.

use serde_json::Value;

use super::*;
use crate::cluster_policy::ClusterNetworkPolicy;
use crate::objects::{self, Manifest};

/// Specs of policies of the cluster, specs of `NetworkPolicies` in `shop`, `source destination port [transport]`, the verdicts of
/// egress and ingress, and what the case is about.
type Case = (
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
    &'static str,
    &'static str,
);

const ALL: &str = "subject: {namespaces: {}}";
const EVERYONE: &str = "[{namespaces: {}}]";

fn cluster_policies(specs: &[&str]) -> Vec<ClusterNetworkPolicy> {
    specs
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            let spec = spec.replace("ALL", ALL).replace("EVERYONE", EVERYONE);
            let text = format!(
                "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: c{index}}}, spec: {{{spec}}}}}"
            );
            let value: Value = serde_yaml::from_str(&text).unwrap();
            serde_json::from_value(value).unwrap()
        })
        .collect()
}

fn ask_both(of_cluster: &[&str], specs: &[&str], question: &str) -> Answer {
    let yaml: Vec<_> = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            format!("{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: shop, name: p{index}}}, spec: {spec}}}")
        })
        .collect();
    let (set, rejected) = PolicySet::parse_all(&policies(&yaml.join("\n---\n")), &cluster_policies(of_cluster));
    assert_eq!(rejected, []);
    evaluate(&set, &cluster_of(CLUSTER), &connection(question))
}

const CASES: &[Case] = &[
    (
        &[
            "tier: Admin, priority: 1, subject: {pods: {podSelector: {}}}, ingress: [{action: Deny, from: [{pods: {podSelector: {matchLabels: {app: web}}}}]}]",
        ],
        &[],
        "other/api shop/db 80",
        "ND",
        "pods without a namespaceSelector are those of all namespaces",
    ),
    (
        &["tier: Admin, priority: 1, ALL, ingress: [{action: Deny, from: EVERYONE}]"],
        &["{podSelector: {}, ingress: [{}]}"],
        "shop/web shop/db 80",
        "ND",
        "Admin comes before NetworkPolicy",
    ),
    (
        &["tier: Admin, priority: 1, ALL, ingress: [{action: Accept, from: EVERYONE}]"],
        &["{podSelector: {}}"],
        "shop/web shop/db 80",
        "NA",
        "also when it accepts",
    ),
    (
        &["tier: Admin, priority: 1, ALL, ingress: [{action: Pass, from: EVERYONE}, {action: Accept, from: EVERYONE}]"],
        &["{podSelector: {}}"],
        "shop/web shop/db 80",
        "ND",
        "Pass skips the rest of the tier",
    ),
    (
        &[
            "tier: Admin, priority: 7, ALL, ingress: [{action: Pass, from: EVERYONE}]",
            "tier: Baseline, priority: 1, ALL, ingress: [{action: Deny, from: EVERYONE}]",
        ],
        &[],
        "shop/web shop/db 80",
        "ND",
        "and leads to Baseline where nothing isolates",
    ),
    (
        &["tier: Baseline, priority: 1, ALL, ingress: [{action: Deny, from: EVERYONE}]"],
        &["{podSelector: {}, ingress: [{}]}"],
        "shop/web shop/db 80",
        "NA",
        "a NetworkPolicy that isolates decides before Baseline",
    ),
    (
        &["tier: Baseline, priority: 1, ALL, ingress: [{action: Accept, from: EVERYONE}]"],
        &["{podSelector: {}}"],
        "shop/web shop/db 80",
        "ND",
        "also when it denies",
    ),
    (
        &["tier: Baseline, priority: 1, ALL, egress: [{action: Deny, to: EVERYONE}]"],
        &["{podSelector: {}, ingress: [{}]}"],
        "shop/web shop/db 80",
        "DA",
        "one that isolates the other direction does not",
    ),
    (
        &[
            "tier: Admin, priority: 2, ALL, ingress: [{action: Accept, from: EVERYONE}]",
            "tier: Admin, priority: 1, ALL, ingress: [{action: Deny, from: EVERYONE}]",
        ],
        &[],
        "shop/web shop/db 80",
        "ND",
        "the lower number comes first",
    ),
    (
        &[
            "tier: Admin, priority: 1, ALL, ingress: [{action: Deny, from: [{pods: {namespaceSelector: {matchLabels: {team: red}}, podSelector: {}}}]}, {action: Accept, from: EVERYONE}]",
        ],
        &["{podSelector: {}}"],
        "other/api shop/db 80",
        "ND",
        "the first rule that fits decides",
    ),
    (
        &[
            "tier: Admin, priority: 1, ALL, ingress: [{action: Deny, from: [{pods: {namespaceSelector: {matchLabels: {team: red}}, podSelector: {}}}]}, {action: Accept, from: EVERYONE}]",
        ],
        &["{podSelector: {}}"],
        "shop/web shop/db 80",
        "NA",
        "one that does not fit is skipped",
    ),
    (
        &[
            "tier: Admin, priority: 1, ALL, ingress: [{action: Deny, from: EVERYONE, protocols: [{tcp: {destinationPort: {number: 80}}}]}]",
        ],
        &[],
        "shop/web shop/db 81",
        "NN",
        "another port",
    ),
    (
        &[
            "tier: Admin, priority: 1, ALL, ingress: [{action: Deny, from: EVERYONE, protocols: [{tcp: {destinationPort: {range: {start: 80, end: 90}}}}]}]",
        ],
        &[],
        "shop/web shop/db 90",
        "ND",
        "a range holds its last port",
    ),
    (
        &["tier: Admin, priority: 1, ALL, ingress: [{action: Deny, from: EVERYONE, protocols: [{udp: {}}]}]"],
        &[],
        "shop/web shop/db 7 UDP",
        "ND",
        "all ports of a protocol",
    ),
    (
        &[
            "tier: Admin, priority: 1, ALL, egress: [{action: Deny, to: EVERYONE, protocols: [{destinationNamedPort: http}]}]",
        ],
        &[],
        "shop/web shop/db 5432",
        "DN",
        "a named port is the destination pod's",
    ),
    (
        &[
            "tier: Admin, priority: 1, ALL, egress: [{action: Deny, to: EVERYONE, protocols: [{destinationNamedPort: udp}]}]",
        ],
        &[],
        "shop/db shop/web 9000 TCP",
        "NN",
        "with the protocol that it is declared with",
    ),
    (
        &["tier: Admin, priority: 1, ALL, egress: [{action: Deny, to: [{networks: [198.18.0.0/16]}]}]"],
        &[],
        "198.18.1.2 shop/db 80",
        "DN",
        "networks mean pods too",
    ),
    (
        &["tier: Admin, priority: 1, ALL, egress: [{action: Deny, to: [{networks: [198.18.0.0/16]}]}]"],
        &[],
        "shop/web shop/db 80",
        "UN",
        "of one family only: it depends on which is used",
    ),
    (
        &["tier: Admin, priority: 1, ALL, egress: [{action: Deny, to: EVERYONE}]"],
        &[],
        "shop/web 198.51.100.1 80",
        "NN",
        "namespaces mean no address outside",
    ),
    (
        &["tier: Admin, priority: 1, ALL, egress: [{action: Deny, to: [{nodes: {}}]}]"],
        &[],
        "shop/web 192.0.2.2 80",
        "DN",
        "nodes are their addresses",
    ),
    (
        &["tier: Admin, priority: 1, ALL, egress: [{action: Deny, to: [{nodes: {matchLabels: {role: infra}}}]}]"],
        &[],
        "shop/web 192.0.2.2 80",
        "NN",
        "of those that are selected",
    ),
    (
        &["tier: Admin, priority: 1, ALL, ingress: [{action: Deny, from: EVERYONE}]"],
        &[],
        "shop/web shop/host 80",
        "NN",
        "a pod on its node's network is no subject",
    ),
    (
        &["tier: Admin, priority: 1, ALL, ingress: [{action: Deny, from: EVERYONE}]"],
        &[],
        "shop/host shop/db 80",
        "NN",
        "and no peer of namespaces",
    ),
    (
        &[
            "tier: Admin, priority: 1, ALL, ingress: [{action: Deny, from: EVERYONE}], egress: [{action: Deny, to: EVERYONE}]",
        ],
        &[],
        "shop/db shop/db 80",
        "AA",
        "a pod and its own address never leave the pod",
    ),
    (
        &[
            "tier: Admin, priority: 1, ALL, egress: [{action: Accept, to: [{domainNames: [db.example.com]}]}, {action: Deny, to: [{networks: [0.0.0.0/0]}]}]",
        ],
        &[],
        "198.18.1.2 198.51.100.1 80",
        "UN",
        "who has a name in DNS is not known here",
    ),
    (
        &["tier: Admin, priority: 1, ALL, egress: [{action: Accept, to: [{domainNames: [db.example.com]}]}]"],
        &[],
        "198.18.1.2 198.51.100.1 80",
        "NN",
        "and need not be where the rest allows as well",
    ),
    (
        &[
            "tier: Admin, priority: 1, ALL, ingress: [{action: Deny, from: EVERYONE}]",
            "tier: Admin, priority: 1, ALL, ingress: [{action: Accept, from: EVERYONE}]",
        ],
        &[],
        "shop/web shop/db 80",
        "NU",
        "two of one priority that do not agree",
    ),
    (
        &[
            "tier: Admin, priority: 1, ALL, ingress: [{action: Pass, from: EVERYONE}]",
            "tier: Admin, priority: 1, ALL, ingress: [{action: Accept, from: EVERYONE}]",
        ],
        &["{podSelector: {}, ingress: [{}]}"],
        "shop/web shop/db 80",
        "NA",
        "and two that come to the same",
    ),
    (
        &["tier: Admin, priority: 1, ALL, ingress: [{action: Accept, from: [{}]}]"],
        &["{podSelector: {}}"],
        "shop/web shop/db 80",
        "ND",
        "a peer that nobody understands: Accept means nobody",
    ),
    (
        &["tier: Admin, priority: 1, ALL, ingress: [{action: Deny, from: [{}]}]"],
        &["{podSelector: {}, ingress: [{}]}"],
        "shop/web shop/db 80",
        "ND",
        "and Deny everybody",
    ),
    (
        &[
            "tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}}, egress: [{action: Deny, to: EVERYONE}]",
        ],
        &[],
        "shop/web shop/db 80",
        "NN",
        "only the subject is meant",
    ),
];

#[test]
fn tiers_case_by_case() {
    for (of_cluster, specs, question, expected, message) in CASES {
        let answer = ask_both(of_cluster, specs, question);
        assert_eq!(
            letters(&answer),
            *expected,
            "{message}: {question} with {of_cluster:?} and {specs:?}: {answer:?}"
        );
    }
}

#[test]
fn answers_name_the_rule_of_the_cluster() {
    let deny = "tier: Admin, priority: 1, ALL, ingress: [{action: Pass, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}}]}, {action: Deny, from: EVERYONE}]";
    let answer = ask_both(&[deny], &[], "shop/web shop/db 2");
    assert_eq!(
        answer.combined().to_string(),
        "denied: ingress of Pod shop/db is denied by ClusterNetworkPolicy c0 spec.ingress[1]"
    );
}

#[test]
fn what_the_definition_would_refuse_is_rejected_with_its_field() {
    for (spec, expected) in [
        (
            "tier: Network, priority: 1, ALL",
            "spec.tier is \"Network\", expected Admin or Baseline",
        ),
        (
            "tier: Admin, priority: 1001, ALL",
            "spec.priority is 1001, expected a number from 0 to 1000",
        ),
        (
            "tier: Admin, priority: 1, subject: {}",
            "spec.subject has 0 fields, expected exactly one",
        ),
        (
            "tier: Admin, priority: 1, ALL, ingress: [{action: Allow, from: EVERYONE}]",
            "spec.ingress[0].action is \"Allow\", expected Accept, Deny or Pass",
        ),
        (
            "tier: Admin, priority: 1, ALL, ingress: [{action: Deny}]",
            "spec.ingress[0].from has 0 items, expected 1 to 25",
        ),
        (
            "tier: Admin, priority: 1, ALL, ingress: [{action: Deny, from: [{networks: [0.0.0.0/0]}]}]",
            "spec.ingress[0].from[0] is for egress only",
        ),
        (
            "tier: Admin, priority: 1, ALL, egress: [{action: Deny, to: [{networks: [x]}]}]",
            "spec.egress[0].to[0].networks[0] is \"x\", expected an address range such as 192.0.2.0/24",
        ),
        (
            "tier: Admin, priority: 1, ALL, egress: [{action: Deny, to: [{domainNames: [a.example.com]}]}]",
            "spec.egress[0].to[0].domainNames goes with the action Accept only",
        ),
        (
            "tier: Admin, priority: 1, ALL, egress: [{action: Deny, to: EVERYONE, protocols: [{tcp: {}, udp: {}}]}]",
            "spec.egress[0].protocols[0] has 2 fields, expected exactly one",
        ),
        (
            "tier: Admin, priority: 1, ALL, egress: [{action: Deny, to: EVERYONE, protocols: [{tcp: {destinationPort: {range: {start: 5, end: 5}}}}]}]",
            "spec.egress[0].protocols[0].tcp.destinationPort.range.end is not behind start, 5",
        ),
    ] {
        let good = "tier: Admin, priority: 1, ALL";
        let (set, rejected) = PolicySet::parse_all([], &cluster_policies(&[spec, good]));
        assert_eq!(set.len(), 1, "p18 the good one stays");
        assert_eq!(rejected[0].to_string(), format!("ClusterNetworkPolicy c0: {expected}"));
    }
}

#[test]
fn policies_of_the_former_api_are_the_tiers() {
    let read = |text: &str| {
        let mut parsed = objects::parse(serde_yaml::from_str(text).unwrap());
        assert!(parsed.unreadable.is_empty(), "{:?}", parsed.unreadable);
        match parsed.manifests.pop() {
            Some(Manifest::ClusterNetworkPolicy(policy)) => *policy,
            other => panic!("{other:?}"),
        }
    };
    let admin = read(
        "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {name: a}, spec: {priority: 5, subject: {namespaces: {}}, ingress: [
          {action: Allow, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}], ports: [{portNumber: {port: 80}}, {portRange: {protocol: UDP, start: 10, end: 20}}]},
          {action: Pass, from: [{namespaces: {}}], ports: [{portNumber: {protocol: SCTP, port: 7}}]},
          {action: Deny, from: [{namespaces: {}}]}]}}",
    );
    let baseline = read(
        "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: BaselineAdminNetworkPolicy, metadata: {name: default}, spec: {subject: {namespaces: {}}, egress: [
          {action: Deny, to: [{networks: [198.51.100.0/24]}]}]}}",
    );
    let named = read(
        "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: BaselineAdminNetworkPolicy, metadata: {name: other}, spec: {subject: {namespaces: {}}}}",
    );
    let lacking = read(
        "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {name: lacking}, spec: {priority: 5, subject: {pods: {podSelector: {}}}}}",
    );
    let wrong = [
        ("BaselineAdminNetworkPolicy", "", "default", "action: Pass, from: [{namespaces: {}}]"),
        ("AdminNetworkPolicy", "priority: 1, ", "a1", "action: Accept, from: [{namespaces: {}}]"),
        (
            "AdminNetworkPolicy",
            "priority: 1, ",
            "a2",
            "action: Deny, from: [{namespaces: {}}], ports: [{portRange: {start: 9, end: 8}}]",
        ),
        (
            "AdminNetworkPolicy",
            "priority: 1, ",
            "a3",
            "action: Deny, from: [{namespaces: {}}], ports: [{portNumber: {port: 0}}]",
        ),
    ]
    .map(|(kind, priority, name, rule)| {
        read(&format!("{{apiVersion: policy.networking.k8s.io/v1alpha1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{priority}subject: {{namespaces: {{}}}}, ingress: [{{{rule}}}]}}}}"))
    });
    let all = [&admin, &baseline, &named, &lacking].into_iter().chain(&wrong);
    let (set, rejected) = PolicySet::parse_all([], all);
    let rejected: Vec<String> = rejected.iter().map(ToString::to_string).collect();
    assert_eq!(
        rejected,
        [
            "BaselineAdminNetworkPolicy other: metadata.name is \"other\", expected default",
            "AdminNetworkPolicy lacking: spec.subject.pods.namespaceSelector is missing",
            "BaselineAdminNetworkPolicy default: spec.ingress[0].action is \"Pass\", expected Allow or Deny",
            "AdminNetworkPolicy a1: spec.ingress[0].action is \"Accept\", expected Allow, Deny or Pass",
            "AdminNetworkPolicy a2: spec.ingress[0].ports[0].portRange.end is not behind start, 8",
            "AdminNetworkPolicy a3: spec.ingress[0].ports[0].portNumber.port is 0, expected a number from 1 to 65535",
        ]
    );
    let cluster = cluster_of(CLUSTER);
    for (question, expected) in [
        ("shop/web shop/db 80", "allowed: AdminNetworkPolicy a spec.ingress[0]"),
        (
            "shop/web shop/db 20 UDP",
            "allowed: AdminNetworkPolicy a spec.ingress[0]",
        ),
        (
            "shop/web shop/db 21 UDP",
            "denied: ingress of Pod shop/db is denied by AdminNetworkPolicy a spec.ingress[2]",
        ),
        ("shop/web shop/db 7 SCTP", "allowed: no policy applies"),
        (
            "shop/web shop/db 81",
            "denied: ingress of Pod shop/db is denied by AdminNetworkPolicy a spec.ingress[2]",
        ),
        (
            "shop/web 198.51.100.1 443",
            "denied: egress of Pod shop/web is denied by BaselineAdminNetworkPolicy default spec.egress[0]",
        ),
    ] {
        let verdict = evaluate(&set, &cluster, &connection(question)).combined();
        assert_eq!(verdict.to_string(), expected, "{question}");
    }
}
