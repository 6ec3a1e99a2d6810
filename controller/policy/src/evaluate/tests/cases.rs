//! The specification as a table.

/// Specs of policies in the namespace `shop`, `source destination port [transport]`, the verdicts of egress and ingress, and
/// what the case is about.
type Case = (&'static [&'static str], &'static str, &'static str, &'static str);

pub(super) const CASES: &[Case] = &[
    (&[], "shop/web shop/db 80", "NN", "without policies"),
    // Defaulting.
    (
        &["{podSelector: {}}"],
        "other/api shop/db 80",
        "ND",
        "no types and no rules: ingress is isolated",
    ),
    (
        &["{podSelector: {}}"],
        "shop/db other/api 80",
        "NN",
        "and egress is not",
    ),
    (
        &["{}"],
        "other/api shop/db 80",
        "ND",
        "an absent podSelector is an empty one",
    ),
    (
        &["{podSelector: {}, egress: [{}]}"],
        "shop/web shop/db 80",
        "AD",
        "egress rules without types isolate both",
    ),
    (
        &["{podSelector: {}, egress: []}"],
        "shop/web other/api 80",
        "NN",
        "an empty list of egress rules does not",
    ),
    (
        &["{podSelector: {}, policyTypes: [Egress], ingress: [{}]}"],
        "shop/web shop/db 80",
        "DN",
        "rules of a type that is not listed do nothing",
    ),
    (
        &["{podSelector: {}, policyTypes: [Egress]}"],
        "shop/web shop/db 80",
        "DN",
        "egress alone",
    ),
    (
        &["{podSelector: {}, ingress: [{}]}"],
        "198.51.100.1 shop/db 80 SCTP",
        "NA",
        "an empty rule allows everyone everywhere",
    ),
    (
        &["{podSelector: {}, ingress: [{from: [], ports: []}]}"],
        "198.51.100.1 shop/db 80",
        "NA",
        "empty lists are absent ones",
    ),
    (
        &["{podSelector: {}, ingress: [{ports: [{port: 80}]}]}"],
        "shop/web shop/db 80 UDP",
        "ND",
        "the protocol is TCP unless given",
    ),
    (
        &["{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}"],
        "shop/web shop/db 7 UDP",
        "NA",
        "every port of a protocol",
    ),
    (
        &["{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}"],
        "shop/web shop/db 7",
        "ND",
        "and of no other",
    ),
    // Selection.
    (
        &["{podSelector: {matchLabels: {app: db}}}"],
        "shop/db shop/web 80",
        "NN",
        "another pod is selected",
    ),
    (
        &["{podSelector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}}"],
        "other/api shop/web 80",
        "ND",
        "an absent key",
    ),
    (
        &["{podSelector: {}}"],
        "shop/web other/api 80",
        "NN",
        "a policy selects in its own namespace only",
    ),
    // Union.
    (
        &["{podSelector: {}}", "{podSelector: {}, ingress: [{}]}"],
        "shop/web shop/db 80",
        "NA",
        "policies add up",
    ),
    (
        &[
            "{podSelector: {}, ingress: [{ports: [{port: 1}]}]}",
            "{podSelector: {}, ingress: [{ports: [{port: 2}]}]}",
        ],
        "shop/web shop/db 3",
        "ND",
        "none allows",
    ),
    // Peers.
    (
        &["{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}"],
        "shop/web shop/db 80",
        "NA",
        "a podSelector alone means the own namespace",
    ),
    (
        &["{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}"],
        "other/api shop/db 80",
        "ND",
        "and no other",
    ),
    (
        &["{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}"],
        "other/api shop/db 80",
        "NA",
        "an empty namespaceSelector means all pods",
    ),
    (
        &["{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}"],
        "198.51.100.1 shop/db 80",
        "ND",
        "but nobody outside",
    ),
    (
        &["{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}]}]}"],
        "other/api shop/db 80",
        "NA",
        "by a namespace's label",
    ),
    (
        &[
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}]}]}",
        ],
        "shop/web shop/db 80",
        "NA",
        "p21 by the label that every namespace has",
    ),
    (
        &[
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {app: six}}}]}]}",
        ],
        "other/api shop/db 80",
        "ND",
        "both selectors must match",
    ),
    (
        &[
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [red]}]}}]}]}",
        ],
        "shop/web shop/db 80",
        "NA",
        "NotIn on an absent key of a namespace",
    ),
    // Addresses.
    (
        &[
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 198.51.100.0/24, except: [198.51.100.128/25]}}]}]}",
        ],
        "shop/web 198.51.100.1 80",
        "AN",
        "in a range",
    ),
    (
        &[
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 198.51.100.0/24, except: [198.51.100.128/25]}}]}]}",
        ],
        "shop/web 198.51.100.200 80",
        "DN",
        "excepted",
    ),
    (
        &["{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 198.51.100.7/24}}]}]}"],
        "shop/web 198.51.100.1 80",
        "AN",
        "host bits of a range do not count",
    ),
    (
        &["{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}"],
        "shop/web 2001:db8::1 80",
        "DN",
        "an IPv4 range means no IPv6 address",
    ),
    (
        &["{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: '::/0'}}]}]}"],
        "shop/web 2001:db8::1 80",
        "AN",
        "an IPv6 range does",
    ),
    (
        &["{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}"],
        "shop/web ::ffff:198.51.100.1 80",
        "AN",
        "a mapped address is the IPv4 one",
    ),
    (
        &["{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 198.18.2.0/24}}]}]}"],
        "other/api shop/db 80",
        "NA",
        "ipBlock means pod addresses, too",
    ),
    (
        &["{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 198.18.1.2/32}}]}]}"],
        "shop/web shop/db 80",
        "NU",
        "allowed in one family only",
    ),
    (
        &["{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 198.18.1.2/32}}]}]}"],
        "198.18.1.2 shop/db 80",
        "NA",
        "asked with an address: this family",
    ),
    (
        &["{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 198.18.1.2/32}}]}]}"],
        "fd00:18::2 shop/db 80",
        "ND",
        "or the other",
    ),
    (
        &[
            "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 198.18.1.2/32}}, {podSelector: {}}]}]}",
        ],
        "shop/web shop/db 80",
        "NA",
        "allowed in both, by different peers",
    ),
    (
        &["{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}"],
        "198.18.1.2 shop/db 80",
        "NA",
        "a pod's address is the pod",
    ),
    // Ports.
    (
        &["{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]}"],
        "shop/web shop/db 90",
        "NA",
        "the last port of a range",
    ),
    (
        &["{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]}"],
        "shop/web shop/db 91",
        "ND",
        "behind a range",
    ),
    (
        &["{podSelector: {}, ingress: [{ports: [{port: http}]}]}"],
        "shop/db shop/web 8080",
        "NA",
        "p10 a name means the destination's port",
    ),
    (
        &["{podSelector: {}, ingress: [{ports: [{port: http}]}]}"],
        "shop/web shop/db 5432",
        "NA",
        "p10 which differs from pod to pod",
    ),
    (
        &["{podSelector: {}, ingress: [{ports: [{port: http}]}]}"],
        "shop/web shop/db 8080",
        "ND",
        "p10 and is not the source's",
    ),
    (
        &["{podSelector: {}, ingress: [{ports: [{port: udp}]}]}"],
        "shop/db shop/web 9000",
        "ND",
        "a name of another protocol",
    ),
    (
        &["{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}"],
        "shop/web shop/db 5432",
        "AN",
        "for egress, too, the destination's",
    ),
    (
        &["{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}"],
        "shop/web 198.51.100.1 8080",
        "DN",
        "an outside address declares no names",
    ),
    // Itself, nodes, host network.
    (
        &["{podSelector: {}, policyTypes: [Ingress, Egress]}"],
        "shop/web shop/web 80",
        "AA",
        "a pod and itself",
    ),
    (
        &["{podSelector: {}}"],
        "192.0.2.1 shop/web 80",
        "NA",
        "a pod's own node",
    ),
    (&["{podSelector: {}}"], "192.0.2.2 shop/web 80", "ND", "another node"),
    (
        &["{podSelector: {}, policyTypes: [Egress]}"],
        "shop/web 192.0.2.1 80",
        "AN",
        "towards the own node",
    ),
    (
        &["{podSelector: {}}"],
        "shop/host shop/db 80",
        "NA",
        "a host-network pod of the own node",
    ),
    (
        &["{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.2/32}}]}]}"],
        "192.0.2.2 shop/web 80",
        "NA",
        "another node, by its address",
    ),
    (
        &["{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: host}}}]}]}"],
        "shop/host shop/web 80",
        "NU",
        "p15 whether a selector means a host-network pod is not specified",
    ),
    (
        &[
            "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: host}}}, {ipBlock: {cidr: 192.0.2.2/32}}]}]}",
        ],
        "shop/host shop/web 80",
        "NA",
        "p15 but an address does",
    ),
    (
        &["{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}"],
        "shop/host shop/web 80",
        "ND",
        "neither way",
    ),
    (
        &["{podSelector: {matchLabels: {app: web}}, ingress: [{}]}"],
        "shop/host shop/web 80",
        "NA",
        "everyone is everyone",
    ),
    (
        &["{podSelector: {matchLabels: {app: host}}}"],
        "shop/web shop/host 80",
        "NU",
        "a host-network pod as subject",
    ),
    (
        &["{podSelector: {matchLabels: {app: db}}}"],
        "shop/web shop/host 80",
        "NN",
        "one that no policy selects",
    ),
    // Who cannot be asked about.
    (&[], "shop/done shop/db 80", "UU", "a finished pod"),
    (&[], "shop/web shop/unborn 80", "UU", "a pod without an address"),
    (&[], "shop/web shop/nobody 80", "UU", "no pod"),
    (&[], "shop/web 198.18.200.1 5432", "UU", "a Service's address"),
    (&[], "other/api other/six 80", "UU", "no family in common"),
    (
        &["{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"],
        "198.18.1.9 shop/db 80",
        "ND",
        "a finished pod's address is nobody's",
    ),
];
