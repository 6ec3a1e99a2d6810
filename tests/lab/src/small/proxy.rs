//! Services as rules of the node: what kube-proxy does. Pure: it only writes the text for `nft`.
//!
//! Guarantee: the whole set of rules is replaced at once, so a connection meets the old Services or the new ones, never half.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::cluster::{Cluster, transport};

/// Marks what has to leave with the node's address, as kube-proxy does.
const MASQUERADE: u32 = 0x4000;

/// The text that replaces all rules, of both families.
pub(super) fn rules(cluster: &Cluster) -> String {
    let mut text = String::new();
    for v4 in [true, false] {
        text.push_str(&Family { v4, cluster }.table());
    }
    text
}

struct Family<'a> {
    v4: bool,
    cluster: &'a Cluster,
}

/// What the maps of one family hold.
#[derive(Default)]
struct Parts {
    chains: String,
    services: BTreeSet<String>,
    node_ports: BTreeSet<String>,
    dead: BTreeSet<String>,
}

impl Family<'_> {
    fn parts(&self) -> Parts {
        let mut parts = Parts::default();
        for (index, service) in self.cluster.services.iter().enumerate() {
            let own: Vec<IpAddr> = self
                .cluster
                .service_addresses
                .get(&service.id())
                .into_iter()
                .flatten()
                .copied()
                .filter(|address| address.is_ipv4() == self.v4)
                .collect();
            let Some(address) = own.first() else { continue };
            for port in &service.ports {
                let transport = transport(port.protocol);
                let key = format!("{address} . {transport} . {}", port.port);
                let backends = self.cluster.backends(service, port, self.v4);
                if backends.is_empty() {
                    parts.dead.insert(key);
                    continue;
                }
                let chain = format!("service-{index}-{transport}-{}", port.port);
                parts.chain(&chain, transport, &backends);
                parts.services.insert(format!("{key} : goto {chain}"));
                if let Some(number) = port.node_port {
                    let entry = format!("node-port-{transport}-{number}");
                    // Writing into a string cannot fail.
                    let _infallible = writeln!(
                        parts.chains,
                        " chain {entry} {{\n  meta mark set {MASQUERADE:#x}\n  goto {chain}\n }}"
                    );
                    parts
                        .node_ports
                        .insert(format!("{transport} . {number} : goto {entry}"));
                }
            }
        }
        parts
    }

    fn table(&self) -> String {
        let Parts {
            chains,
            services,
            node_ports,
            dead,
        } = self.parts();
        let (family, address) = if self.v4 {
            ("ip", "ipv4_addr")
        } else {
            ("ip6", "ipv6_addr")
        };
        let hairpin = self
            .cluster
            .pods
            .iter()
            .filter(|pod| !pod.host_network)
            .flat_map(|pod| &pod.addresses)
            .filter(|address| address.is_ipv4() == self.v4)
            .map(|address| format!("{address} . {address}"))
            .collect();
        let service_key = format!("{address} . inet_proto . inet_service");
        let services = elements("map", "services", &format!("{service_key} : verdict"), &services);
        let node_ports = elements("map", "node-ports", "inet_proto . inet_service : verdict", &node_ports);
        let dead = elements("set", "dead", &service_key, &dead);
        let hairpin = elements("set", "hairpin", &format!("{address} . {address}"), &hairpin);
        // Naming the table before deleting it makes the deletion right the first time too.
        format!(
            "table {family} lab\ndelete table {family} lab\ntable {family} lab {{\n\
             {chains}{services}{node_ports}{dead}{hairpin}\
             \x20chain find {{\n  {family} daddr . meta l4proto . th dport vmap @services\n\
             \x20 fib daddr type local meta l4proto . th dport vmap @node-ports\n }}\n\
             \x20chain prerouting {{\n  type nat hook prerouting priority dstnat\n  jump find\n }}\n\
             \x20chain output {{\n  type nat hook output priority -100\n  jump find\n }}\n\
             \x20chain postrouting {{\n  type nat hook postrouting priority srcnat\n\
             \x20 meta mark {MASQUERADE:#x} masquerade\n  {family} saddr . {family} daddr @hairpin masquerade\n }}\n\
             \x20chain nobody {{\n  {family} daddr . meta l4proto . th dport @dead reject\n }}\n\
             \x20chain forward {{\n  type filter hook forward priority filter\n  jump nobody\n }}\n\
             \x20chain local {{\n  type filter hook output priority filter\n  jump nobody\n }}\n}}\n"
        )
    }
}

impl Parts {
    /// Each new connection goes to one of the backends at random.
    fn chain(&mut self, name: &str, transport: &str, backends: &[SocketAddr]) {
        let mut choices = Vec::new();
        for (index, backend) in backends.iter().enumerate() {
            let own = format!("{name}-{index}");
            let _infallible = writeln!(
                self.chains,
                " chain {own} {{\n  meta l4proto {transport} dnat to {backend}\n }}"
            );
            choices.push(format!("{index} : goto {own}"));
        }
        let _infallible = writeln!(
            self.chains,
            " chain {name} {{\n  numgen random mod {} vmap {{ {} }}\n }}",
            backends.len(),
            choices.join(", ")
        );
    }
}

fn elements(what: &str, name: &str, kind: &str, elements: &BTreeSet<String>) -> String {
    let listed = if elements.is_empty() {
        String::new()
    } else {
        let listed: Vec<&str> = elements.iter().map(String::as_str).collect();
        format!("  elements = {{ {} }}\n", listed.join(", "))
    };
    format!(" {what} {name} {{\n  type {kind}\n{listed} }}\n")
}
