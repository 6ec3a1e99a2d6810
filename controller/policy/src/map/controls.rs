//! What a map has to say to the controls of three catalogues that people are asked about.
//!
//! Law: what is told are counts and names of the map. Whether a control is met depends on much that no map knows, so nothing
//! here says that it is.

use std::collections::BTreeSet;

use super::counted;
use super::document::{Control, GroupKind, How, Map, State, Who};

/// Payment Card Industry Data Security Standard, version 4.
const PCI: &str = "PCI DSS v4.0.1";
/// Center for Internet Security, Kubernetes Benchmark, section 5.3.
const CIS: &str = "CIS Kubernetes Benchmark, 5.3";
/// Kubernetes Hardening Guide of NSA and CISA, version 1.2.
const NSA: &str = "NSA/CISA Kubernetes Hardening Guide v1.2";

/// Facts that several controls ask for.
struct Facts {
    seen: String,
    sizes: String,
    open_ingress: String,
    open_egress: String,
    denied: String,
    waiting: String,
    unused: String,
    ways_in: String,
    anywhere: String,
    crossing: String,
    ports: String,
}

fn facts(map: &Map) -> Facts {
    let totals = &map.totals;
    let state = |state| totals.states.get(&state).copied().unwrap_or_default();
    let of = |how| map.exposures.iter().filter(move |exposure| exposure.how == how).count();
    let edges = counted(totals.edges, "connection", "connections");
    let workloads = counted(totals.workloads, "workload", "workloads");
    let open = |direction: &str, open: usize| {
        format!("{open} of {workloads} have a pod that no NetworkPolicy isolates in {direction}")
    };
    let ports: BTreeSet<_> = map.edges.iter().map(|edge| (edge.protocol, edge.port)).collect();
    let seen = map.observed.map_or_else(
        || {
            let seen = map.edges.iter().any(|edge| edge.observed.is_some());
            let words = if seen {
                "observed at times that nobody told"
            } else {
                "no connection was observed"
            };
            words.to_owned()
        },
        |period| format!("observed from {} to {}", period.first_seen.0, period.last_seen.0),
    );
    Facts {
        seen,
        sizes: format!("{workloads} and {edges} are on this map"),
        open_ingress: open("ingress", totals.open_ingress),
        open_egress: open("egress", totals.open_egress),
        denied: format!(
            "{} denied by the policies in force, {} more would be denied by what is proposed, {} cannot be decided",
            state(State::Denied),
            state(State::WouldBeDenied),
            state(State::Undecided)
        ),
        waiting: format!(
            "{} wait for a person's decision, {} are outside of their baseline",
            state(State::Quarantined),
            state(State::Novel)
        ),
        unused: format!(
            "{} of {} were needed by no connection of this map",
            totals.unused_rules,
            counted(totals.rules, "rule", "rules")
        ),
        ways_in: format!(
            "{} by ports of nodes, {} by addresses outside of the cluster",
            counted(of(How::NodePort), "Service is exposed", "Services are exposed"),
            of(How::ExternalAddress)
        ),
        anywhere: format!(
            "{} connections from addresses that no policy names",
            counted(of(How::FromAnywhere), "workload accepts", "workloads accept")
        ),
        crossing: crossing(map),
        ports: format!("{edges} at {}", counted(ports.len(), "port", "different ports")),
    }
}

pub(super) fn all(map: &Map) -> Vec<Control> {
    let facts = facts(map);
    // One row each: number in its catalogue, what it is about, and the facts.
    let (bare, images) = (bare_namespaces(map), images(map));
    let rows: [(&str, &str, &str, Vec<&str>); 14] = [
        (
            PCI,
            "1.2.3",
            "a diagram of network connections",
            vec![&facts.sizes, &facts.seen],
        ),
        (
            PCI,
            "1.2.4",
            "a diagram of data flows",
            vec![
                &facts.sizes,
                &facts.crossing,
                "what data a connection carries is not known",
            ],
        ),
        (
            PCI,
            "1.2.5",
            "allowed services, protocols and ports are known and approved",
            vec![&facts.ports, &facts.waiting],
        ),
        (
            PCI,
            "1.2.7",
            "rules are reviewed for whether they are needed",
            vec![&facts.unused, &facts.seen],
        ),
        (
            PCI,
            "1.3.1",
            "inbound traffic is restricted to what is necessary",
            vec![&facts.open_ingress, &facts.denied],
        ),
        (
            PCI,
            "1.3.2",
            "outbound traffic is restricted to what is necessary",
            vec![&facts.open_egress, &facts.denied],
        ),
        (
            PCI,
            "1.4.1",
            "controls between trusted and untrusted networks",
            vec![&facts.ways_in, &facts.anywhere],
        ),
        (
            PCI,
            "1.4.2",
            "inbound traffic from untrusted networks",
            vec![&facts.anywhere, &facts.crossing],
        ),
        (
            PCI,
            "1.4.4",
            "stores of card data are not reached directly from untrusted networks",
            vec![&facts.anywhere, "which workloads store card data is not known"],
        ),
        (
            CIS,
            "5.3.1",
            "the network plugin supports NetworkPolicies",
            vec!["a map of policies cannot tell whether somebody enforces them"],
        ),
        (
            CIS,
            "5.3.2",
            "every namespace has NetworkPolicies",
            vec![&bare, &facts.open_ingress, &facts.open_egress],
        ),
        (
            NSA,
            "Network policies",
            "pods are isolated by policies, and everything else is denied",
            vec![&facts.open_ingress, &facts.open_egress, &facts.unused],
        ),
        (
            NSA,
            "Network separation and hardening",
            "only what has to be is reachable from outside",
            vec![&facts.ways_in, &facts.anywhere],
        ),
        (
            NSA,
            "Building secure container images",
            "what runs is known",
            vec![&images, &facts.waiting],
        ),
    ];
    let control = |(catalogue, id, about, found): (&str, &str, &str, Vec<&str>)| Control {
        catalogue: catalogue.to_owned(),
        id: id.to_owned(),
        about: about.to_owned(),
        found: found.into_iter().map(str::to_owned).collect(),
    };
    rows.into_iter().map(control).collect()
}

fn crossing(map: &Map) -> String {
    let of = |from: &str, to: &str| {
        let crosses = |link: &&super::document::Link| {
            (from.is_empty() || link.source == from) && (to.is_empty() || link.destination == to)
        };
        map.links.iter().filter(crosses).map(|link| link.edges).sum::<usize>()
    };
    format!(
        "{} from outside of the cluster, {} to outside",
        counted(of("external", ""), "connection comes", "connections come"),
        of("", "external")
    )
}

fn bare_namespaces(map: &Map) -> String {
    let namespaces = map.groups.iter().filter(|group| group.kind == GroupKind::Namespace);
    let with: BTreeSet<&str> = map
        .policies
        .iter()
        .filter(|policy| !policy.proposed)
        .filter_map(|policy| policy.namespace.as_deref())
        .collect();
    let (with, without): (Vec<_>, Vec<_>) = namespaces.partition(|group| with.contains(group.title.as_str()));
    format!(
        "{} of {} on this map have no NetworkPolicy",
        without.len(),
        counted(with.len() + without.len(), "namespace", "namespaces")
    )
}

fn images(map: &Map) -> String {
    let images: BTreeSet<_> = map
        .parties
        .iter()
        .filter_map(|party| match &party.who {
            Who::Workload(workload) => Some(&workload.images),
            Who::Service { .. } | Who::Node { .. } | Who::External { .. } | Who::Unknown { .. } => None,
        })
        .flatten()
        .collect();
    let named = images.iter().filter(|image| image.digest.is_some()).count();
    format!(
        "{}, {named} of them with their digest",
        counted(images.len(), "image", "images")
    )
}
