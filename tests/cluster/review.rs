//! What a person who reviews the policies looks at first.

use std::net::IpAddr;

use nanoseg_lab::full::Cluster;

use super::shop::Policies;

/// Each peer and port is one that a person would have written.
pub(crate) fn review(policies: &Policies, cluster: &Cluster) {
    let volatile = [
        "pod-template-hash",
        "controller-revision-hash",
        "job-name",
        "controller-uid",
        "pod-index",
    ];
    for ((namespace, name), policy) in policies {
        let spec = policy["spec"].to_string();
        for label in volatile {
            assert!(!spec.contains(label), "{namespace}/{name} selects by {label}: {spec}");
        }
        assert!(
            policy["metadata"]["annotations"]["nanoseg.io/evidence"].is_string(),
            "{namespace}/{name}: no evidence"
        );
        for rule in ["ingress", "egress"]
            .iter()
            .flat_map(|way| policy["spec"][way].as_array().into_iter().flatten())
        {
            assert!(
                rule["ports"].as_array().is_some_and(|ports| !ports.is_empty()),
                "{namespace}/{name}: any port"
            );
            let peers = rule["to"].as_array().or_else(|| rule["from"].as_array());
            assert!(
                peers.is_some_and(|peers| !peers.is_empty()),
                "{namespace}/{name}: anybody"
            );
            for block in peers
                .into_iter()
                .flatten()
                .filter_map(|peer| peer["ipBlock"]["cidr"].as_str())
            {
                let (address, length) = block.split_once('/').unwrap();
                let address: IpAddr = address.parse().unwrap();
                assert_eq!(
                    length,
                    if address.is_ipv6() { "128" } else { "32" },
                    "{namespace}/{name}: {block}"
                );
                let of_pod = cluster
                    .nodes()
                    .iter()
                    .flat_map(|node| node.pod_ranges)
                    .any(|range| range.contains(&address));
                assert!(!of_pod, "{namespace}/{name}: the ipBlock {block} is a pod's address");
            }
        }
    }
}
