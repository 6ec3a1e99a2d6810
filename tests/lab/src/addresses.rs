//! The address plan of both labs. Everything is in 198.18.0.0/15, which is set aside for tests, or in `fd00::/8`, which is
//! private, and exists in network namespaces only.
//!
//! Guarantee: pods, nodes and Services never get an address that a description may give to a host outside the cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Nodes and pods.
pub const POD_RANGE_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 18);
/// Nodes and pods.
pub const POD_RANGE_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 0), 32);
/// Services.
pub const SERVICE_RANGE_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 19, 0, 0), 20);
/// Services.
pub const SERVICE_RANGE_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x19, 0, 0, 0, 0, 0, 0), 112);
/// Where the address of `kube-system/kube-dns` is, as installers choose it: the tenth of the range.
pub const DNS_SERVICE_V4: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 10);
/// The same in IPv6.
pub const DNS_SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x19, 0, 0, 0, 0, 0, 10);
/// Where the API server puts `default/kubernetes`: the first of the range.
pub const API_SERVICE_V4: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);

/// Its place in IPv6, where the API server has such an address.
pub const API_SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x19, 0, 0, 0, 0, 0, 1);

/// All that a description may use for hosts outside the cluster, less the ranges above.
const LAB_RANGE_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);
const LAB_RANGE_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8);

/// Whether a host outside the cluster may have this address.
pub fn is_external(address: IpAddr) -> bool {
    let taken: [IpNet; 4] = [
        POD_RANGE_V4.into(),
        POD_RANGE_V6.into(),
        SERVICE_RANGE_V4.into(),
        SERVICE_RANGE_V6.into(),
    ];
    let inside = match address {
        IpAddr::V4(address) => LAB_RANGE_V4.contains(&address),
        IpAddr::V6(address) => LAB_RANGE_V6.contains(&address),
    };
    inside && !taken.iter().any(|range| range.contains(&address))
}

/// The addresses of the host outside the cluster with this place in the description, where it gives none.
pub fn assigned_external(index: u8) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(198, 19, 128, index).into(),
        Ipv6Addr::new(0xfd00, 0xe, 0, 0, 0, 0, 0, index.into()).into(),
    ]
}
