use proptest::prelude::*;

use super::*;
use crate::evaluate::{Connection, evaluate};
use crate::fixture::{cluster_of, ip, policies};

const CLUSTER: &str = "
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web-0, labels: {app: web}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: u, controller: true}]}, spec: {nodeName: n1, containers: []}, status: {phase: Running, podIPs: [{ip: 198.18.1.2}, {ip: 'fd00:18::2'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web-1, labels: {app: web, canary: yes}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: u, controller: true}]}, spec: {nodeName: n2, containers: []}, status: {phase: Running, podIP: 198.18.1.3}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: db, labels: {app: db}}, spec: {nodeName: n2, containers: [{name: c, ports: [{name: sql, containerPort: 5432}]}]}, status: {phase: Running, podIP: 198.18.1.4}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: other, name: api, labels: {app: web}}, spec: {nodeName: n1, containers: []}, status: {phase: Running, podIP: 198.18.2.2}}
";

fn set(specs: &[&str], prefix: &str) -> PolicySet {
    let yaml: Vec<_> = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            format!("{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: shop, name: {prefix}{index}}}, spec: {spec}}}")
        })
        .collect();
    let (set, rejected) = PolicySet::parse(&policies(&yaml.join("\n---\n")));
    assert_eq!(rejected, []);
    set
}

fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn a_port_that_opens_is_one_change_for_each_pair_of_parties() {
    let old = set(&["{podSelector: {matchLabels: {app: db}}}"], "p");
    let new = set(
        &[
            "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: sql}]}]}",
        ],
        "p",
    );
    let cluster = cluster_of(CLUSTER);
    let forth = diff(&old, &new, &cluster);
    assert_eq!(lines(&forth.opened), ["StatefulSet shop/web -> Pod shop/db TCP 5432"]);
    assert_eq!((forth.closed.len(), forth.unclear.len()), (0, 0));
    assert_eq!(
        forth.opened[0].before.to_string(),
        "denied: ingress of Pod shop/db is isolated by NetworkPolicy shop/p0, and no rule allows it"
    );
    assert_eq!(
        forth.opened[0].after.to_string(),
        "allowed: NetworkPolicy shop/p0 spec.ingress[0]"
    );
    let back = diff(&new, &old, &cluster);
    assert_eq!(lines(&back.closed), lines(&forth.opened));
    assert!(back.opened.is_empty());
}

#[test]
fn some_pods_of_a_workload_are_some_pairs() {
    let new = set(
        &["{podSelector: {matchLabels: {canary: 'yes'}}, policyTypes: [Egress]}"],
        "p",
    );
    let found = diff(&PolicySet::default(), &new, &cluster_of(CLUSTER));
    assert!(
        lines(&found.closed).contains(&"StatefulSet shop/web -> Pod shop/db TCP all ports (1 of 2 pairs)".to_owned()),
        "{:#?}",
        lines(&found.closed)
    );
    assert!(found.opened.is_empty());
}

/// Two pods that differ in one label alone, of which only one set of policies speaks.
#[test]
fn pods_that_one_side_tells_apart_are_told_apart() {
    let pod = |name: &str, labels: &str, address: u8| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{namespace: shop, name: {name}, labels: {{{labels}}}, ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: u, controller: true}}]}}, spec: {{nodeName: n1, containers: []}}, status: {{phase: Running, podIP: 198.18.1.{address}}}}}"
        )
    };
    let cluster =
        cluster_of(&[pod("web-0", "app: web", 2), pod("web-1", "app: web, canary: 'yes'", 3)].join("\n---\n"));
    let none = PolicySet::default();
    let some = set(
        &["{podSelector: {matchLabels: {canary: 'yes'}}, policyTypes: [Ingress]}"],
        "p",
    );
    let told = |changes: &[Change]| {
        changes
            .iter()
            .map(|change| (change.pairs, change.of))
            .collect::<BTreeSet<_>>()
    };
    let [there, back] = [diff(&none, &some, &cluster), diff(&some, &none, &cluster)];
    assert!(there.opened.is_empty() && back.closed.is_empty());
    assert!(
        lines(&there.closed).contains(&"0.0.0.0/0 -> StatefulSet shop/web TCP all ports (1 of 2 pairs)".to_owned()),
        "{:#?}",
        lines(&there.closed)
    );
    assert_eq!(told(&there.closed), told(&back.opened));
    assert!(
        told(&there.closed).iter().all(|(pairs, of)| pairs < of),
        "{:#?}",
        lines(&there.closed)
    );
}

#[test]
fn ranges_that_touch_are_one() {
    let old = set(
        &[
            "{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}",
        ],
        "p",
    );
    let new = set(
        &[
            "{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.64/26, 203.0.113.128/25]}}], ports: [{port: 443}]}]}",
        ],
        "p",
    );
    let found = diff(&old, &new, &cluster_of(CLUSTER));
    let closed = lines(&found.closed);
    assert!(
        closed.contains(&"Pod shop/db -> 203.0.113.0/26 TCP 1-442".to_owned()),
        "{closed:#?}"
    );
    assert!(
        closed.contains(&"Pod shop/db -> 203.0.113.0/26 TCP 444-65535".to_owned()),
        "{closed:#?}"
    );
    assert!(
        closed.contains(&"Pod shop/db -> 203.0.113.64 to 203.0.113.255 TCP all ports".to_owned()),
        "{closed:#?}"
    );
    assert!(found.opened.is_empty());
}

#[test]
fn another_way_to_write_the_same_is_no_change() {
    let old = set(
        &[
            "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}, {port: 81}, {port: 82}]}]}",
        ],
        "old",
    );
    let new = set(
        &[
            "{podSelector: {matchExpressions: [{key: app, operator: In, values: [db]}]}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}, namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}], ports: [{port: 80, endPort: 81}]}]}",
            "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 82, protocol: TCP}]}]}",
        ],
        "new",
    );
    assert!(diff(&old, &new, &cluster_of(CLUSTER)).is_empty());
}

fn spec() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "{podSelector: {}}",
        "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: sql}]}]}",
        "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5430, endPort: 5440}]}]}",
        "{podSelector: {matchLabels: {canary: 'yes'}}, ingress: [{from: [{namespaceSelector: {}}]}], egress: [{ports: [{protocol: UDP}]}]}",
        "{podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{ipBlock: {cidr: 198.18.0.0/15, except: [198.18.2.0/24]}}]}]}",
        "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}, {ports: [{port: 65535}]}]}",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Brute force over all pairs of pods and addresses at ports in and around those that are named.
    #[test]
    fn equal_to_brute_force(
        old in prop::collection::vec(spec(), 0..3),
        new in prop::collection::vec(spec(), 0..3),
    ) {
        let cluster = cluster_of(CLUSTER);
        let (old, new) = (set(&old, "old"), set(&new, "new"));
        let found = diff(&old, &new, &cluster);
        let named = |name: &str| End::Pod { namespace: "shop".to_owned(), name: name.to_owned() };
        let web = || Party::Pods(crate::fixture::workload("StatefulSet", "shop", "web"));
        let ends = [
            (named("web-0"), web()),
            (named("web-1"), web()),
            (named("db"), Party::Pods(crate::fixture::workload("Pod", "shop", "db"))),
            (End::Pod { namespace: "other".to_owned(), name: "api".to_owned() }, Party::Pods(crate::fixture::workload("Pod", "other", "api"))),
            (End::Address(ip("192.0.2.1")), Party::Node("n1".to_owned())),
            (End::Address(ip("203.0.113.7")), Party::Addresses(AddressRange { first: ip("203.0.113.7"), last: ip("203.0.113.7") })),
            (End::Address(ip("198.19.0.1")), Party::Addresses(AddressRange { first: ip("198.19.0.1"), last: ip("198.19.0.1") })),
        ];
        let holds = |party: &Party, asked: &Party| match (party, asked) {
            (Party::Addresses(range), Party::Addresses(one)) => range.first <= one.first && one.first <= range.last && range.first.is_ipv4() == one.first.is_ipv4(),
            (party, asked) => party == asked,
        };
        for transport in [Transport::Tcp, Transport::Udp] {
            for port in [1, 5429, 5430, 5432, 5440, 5441, 65535] {
                let mut expected: BTreeMap<(&Party, &Party), [usize; 2]> = BTreeMap::new();
                for (source, source_party) in &ends {
                    for (destination, destination_party) in &ends {
                        let connection = Connection { source: source.clone(), destination: destination.clone(), port, transport };
                        let before = evaluate(&old, &cluster, &connection).combined();
                        let after = evaluate(&new, &cluster, &connection).combined();
                        let counts = expected.entry((source_party, destination_party)).or_default();
                        counts[0] += usize::from(before.denies() && after.permits());
                        counts[1] += usize::from(before.permits() && after.denies());
                    }
                }
                for ((source, destination), counts) in expected {
                    let count = |changes: &[Change]| -> usize {
                        changes
                            .iter()
                            .filter(|change| change.transport == transport && change.ports.0 <= port && port <= change.ports.1)
                            .filter(|change| holds(&change.source, source) && holds(&change.destination, destination))
                            .map(|change| change.pairs)
                            .sum()
                    };
                    prop_assert_eq!([count(&found.opened), count(&found.closed)], counts, "{} -> {} {} {}", source, destination, transport, port);
                }
            }
        }
    }
}

fn told(diff: &Diff) -> String {
    let lines = summary(diff).into_iter().flat_map(|group| {
        let heading = format!("{}: {group}\n", group.kind.as_str());
        let below: Vec<_> = group
            .lines
            .iter()
            .map(|line| format!("  {}\n", line.told(&group)))
            .collect();
        std::iter::once(heading).chain(below)
    });
    lines.collect()
}

#[test]
fn whole_protocols_are_named() {
    let new = set(
        &["{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{protocol: TCP, port: 1, endPort: 65535}]}]}"],
        "p",
    );
    let closes = diff(&PolicySet::default(), &new, &cluster_of(CLUSTER));
    assert_eq!(
        told(&closes).lines().nth(1),
        Some("  UDP all ports, SCTP all ports from Pod other/api, StatefulSet shop/web, Node n1, 0.0.0.0/0")
    );
}

#[test]
fn what_closes_is_told_by_whom_it_is_closed_to_and_by_ports() {
    let new = set(
        &[
            "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: sql}]}]}",
        ],
        "p",
    );
    let cluster = cluster_of(CLUSTER);
    let closes = diff(&PolicySet::default(), &new, &cluster);
    assert_eq!(
        told(&closes),
        "closed: ingress of Pod shop/db is isolated by NetworkPolicy shop/p0, and no rule allows it
  all ports from Pod other/api, Node n1, 0.0.0.0/0
  all ports but TCP 5432 from StatefulSet shop/web
"
    );
    let opens = diff(&new, &PolicySet::default(), &cluster);
    assert_eq!(
        told(&opens),
        "opened: ingress of Pod shop/db
  all ports from Pod other/api, Node n1, 0.0.0.0/0: no policy applies any more
  all ports but TCP 5432 from StatefulSet shop/web: no policy applies any more
"
    );
    let wider = set(
        &["{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80, protocol: UDP}, {port: sql}]}]}"],
        "p",
    );
    assert_eq!(
        told(&diff(&new, &wider, &cluster)),
        "opened: ingress of Pod shop/db
  TCP 5432, UDP 80 from Pod other/api, Node n1, 0.0.0.0/0: NetworkPolicy shop/p0 spec.ingress[0]
  UDP 80 from StatefulSet shop/web: NetworkPolicy shop/p0 spec.ingress[0]
"
    );
    assert_eq!(
        told(&diff(&wider, &new, &cluster)),
        "closed: ingress of Pod shop/db is isolated by NetworkPolicy shop/p0, and no rule allows it
  TCP 5432, UDP 80 from Pod other/api, Node n1, 0.0.0.0/0: allowed until then by NetworkPolicy shop/p0 spec.ingress[0]
  UDP 80 from StatefulSet shop/web: allowed until then by NetworkPolicy shop/p0 spec.ingress[0]
"
    );
}

proptest! {
    #[test]
    fn each_change_is_in_one_line_of_its_summary_and_nothing_else_is(
        old in prop::collection::vec(spec(), 0..3),
        new in prop::collection::vec(spec(), 0..3),
    ) {
        let found = diff(&set(&old, "old"), &set(&new, "new"), &cluster_of(CLUSTER));
        let mut told = BTreeMap::new();
        for group in summary(&found) {
            for line in &group.lines {
                let ranges: Vec<_> = line.ports.ranges().collect();
                let apart = ranges.windows(2).all(|two| two[0].0 != two[1].0 || u32::from(two[0].1.1) + 1 < u32::from(two[1].1.0));
                prop_assert!(apart, "touch or overlap: {:?}", ranges);
                for (other, (transport, ports)) in line.others.iter().flat_map(|other| line.ports.ranges().map(move |ports| (other, ports))) {
                    let (source, destination) = match group.direction {
                        Direction::Ingress => (&other.party, &group.subject),
                        Direction::Egress => (&group.subject, &other.party),
                    };
                    let key = (group.kind, source.clone(), destination.clone(), transport as u8, other.pairs);
                    let ranges: &mut Vec<(u16, u16)> = told.entry(key).or_default();
                    ranges.push(ports);
                }
            }
        }
        let mut expected = BTreeMap::new();
        for (kind, change) in found.all() {
            let key = (kind, change.source.clone(), change.destination.clone(), change.transport as u8, change.pairs);
            let ranges: &mut Vec<(u16, u16)> = expected.entry(key).or_default();
            ranges.push(change.ports);
        }
        let widths = |of: BTreeMap<_, Vec<(u16, u16)>>| -> BTreeMap<_, u32> {
            of.into_iter().map(|(key, ranges)| (key, ranges.iter().map(|(first, last)| u32::from(last - first) + 1).sum())).collect()
        };
        // Ranges that touch are put together, so their widths are compared.
        prop_assert_eq!(widths(told), widths(expected));
    }
}

#[test]
fn pods_on_their_nodes_network_are_named_where_other_rules_apply_to_them() {
    let agent = "{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: agent, labels: {app: agent}}, spec: {hostNetwork: true, nodeName: n1, containers: []}, status: {phase: Running, podIP: 192.0.2.1}}";
    let cluster = cluster_of(&format!("{CLUSTER}---\n{agent}\n"));
    let closed = "{podSelector: {matchLabels: {app: agent}}}";
    let open = "{podSelector: {matchLabels: {app: agent}}, ingress: [{}]}";
    let [old, new] = [closed, open].map(|spec| set(&[spec], "p"));
    let changed = diff(&old, &new, &cluster);
    let named: Vec<String> = changed.undecided.iter().map(ToString::to_string).collect();
    assert_eq!(named, ["Pod shop/agent"]);
    assert!(diff(&old, &old, &cluster).undecided.is_empty());
    let other = set(&["{podSelector: {matchLabels: {app: db}}}"], "p");
    assert!(diff(&set(&[], "p"), &other, &cluster).undecided.is_empty());
}
