//! The lab's networks.
//!
//! ```text
//!  control 198.18.0.10    node1 198.18.0.11       node2 198.18.0.12
//!      │                  │  └ cni0: pods         │  └ cni0: pods
//!      │                  │    198.18.1.0/24      │    198.18.2.0/24
//!      └──────────────────┴───────┬───────────────┘
//!                        outside 198.18.0.1 (bridge, router, hosts outside the cluster)
//! ```
//!
//! The same in IPv6 (`fd00:18::/64` and `fd00:18:N::/64`). Addresses are never translated on the way out, so a host outside sees
//! a pod's own address. Guarantee: nothing leads to the machine's own network; what is sent to an address that nobody in the
//! lab has is answered as unreachable by `outside`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::error::Error;
use super::namespace::Namespace;
use super::site::Site;

const OUTSIDE: u8 = 1;
const CONTROL: u8 = 10;

/// Where names outside the cluster are served: by `outside`.
pub(super) const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, OUTSIDE);

/// The API server's address.
pub(super) const API_SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, CONTROL);

/// Names of the nodes. Their number is their place, from 1.
pub(super) const NODES: [&str; 2] = ["node1", "node2"];

/// Addresses on the network that joins the lab's parts.
fn addresses(host: u8) -> (Ipv4Net, Ipv6Net) {
    (
        Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, host), 24),
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, host.into()), 64),
    )
}

/// The addresses of a node.
pub(super) fn node_addresses(number: u8) -> [IpAddr; 2] {
    let (v4, v6) = addresses(CONTROL + number);
    [v4.addr().into(), v6.addr().into()]
}

/// The ranges from which a node's pods get their addresses.
pub(super) fn pod_ranges(number: u8) -> [IpNet; 2] {
    [
        Ipv4Net::new_assert(Ipv4Addr::new(198, 18, number, 0), 24).into(),
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x18, number.into(), 0, 0, 0, 0, 0), 64).into(),
    ]
}

/// Makes the lab's namespaces and joins them.
pub(super) fn create(site: &Site) -> Result<(), Error> {
    let outside = Namespace::create(site.name("outside"))?;
    let (v4, v6) = addresses(OUTSIDE);
    outside.ip(&[
        "link add br0 type bridge".to_owned(),
        "link set br0 up".to_owned(),
        format!("addr add {v4} dev br0"),
        // No duplicate address detection anywhere: an address would be unusable for its first second.
        format!("addr add {v6} dev br0 nodad"),
    ])?;
    outside.sysctl(FORWARD)?;
    join(site, &outside, "control", CONTROL)?;
    for (name, number) in NODES.into_iter().zip(1..) {
        let node = join(site, &outside, name, CONTROL + number)?;
        node.sysctl(FORWARD)?;
        // Pods of one node talk over a bridge; without this their packets pass by iptables, policies and Services alike.
        node.sysctl(&[
            ("net/bridge/bridge-nf-call-iptables", "1"),
            ("net/bridge/bridge-nf-call-ip6tables", "1"),
        ])?;
    }
    // Everybody knows the way to the pods of the nodes other than itself.
    for part in super::site::PARTS {
        let mut routes = Vec::new();
        for (_, number) in NODES.into_iter().zip(1..).filter(|(name, _)| *name != part) {
            for (range, via) in pod_ranges(number).into_iter().zip(node_addresses(number)) {
                routes.push(format!("route add {range} via {via}"));
            }
        }
        site.namespace(part).ip(&routes)?;
    }
    Ok(())
}

const FORWARD: &[(&str, &str)] = &[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];

/// Makes the namespace of one part, and a cable from it to the bridge.
fn join(site: &Site, outside: &Namespace, part: &str, host: u8) -> Result<Namespace, Error> {
    let namespace = Namespace::create(site.name(part))?;
    outside.ip(&[
        format!("link add {part} type veth peer name eth0 netns {}", namespace.name()),
        format!("link set {part} master br0 up"),
    ])?;
    let (v4, v6) = addresses(host);
    let (gateway_v4, gateway_v6) = addresses(OUTSIDE);
    namespace.ip(&[
        "link set eth0 up".to_owned(),
        format!("addr add {v4} dev eth0"),
        format!("addr add {v6} dev eth0 nodad"),
        format!("route add default via {}", gateway_v4.addr()),
        format!("route add default via {}", gateway_v6.addr()),
    ])?;
    Ok(namespace)
}
