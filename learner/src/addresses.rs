//! The addresses of the node's own interfaces, as far as other hosts can see them.
//!
//! Read from `/proc` and not by a netlink socket: it is two files, and needs nothing.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of this network namespace, without loopback and link-local ones. What cannot be read is not there.
pub(crate) fn of_this_node() -> BTreeSet<IpAddr> {
    of_process("self")
}

/// The same of the network namespace of a process.
pub(crate) fn of_process(process: &str) -> BTreeSet<IpAddr> {
    let text = |table| fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
    let mut addresses: BTreeSet<IpAddr> = v4(&text("fib_trie")).map(IpAddr::V4).collect();
    addresses.extend(v6(&text("if_inet6")).map(IpAddr::V6));
    addresses
}

/// Of the routing table as a trie: a leaf `|-- ADDRESS` followed by what it is for.
fn v4(trie: &str) -> impl Iterator<Item = Ipv4Addr> {
    let mut leaf = None;
    trie.lines().filter_map(move |line| {
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok();
            return None;
        }
        (line == "/32 host LOCAL")
            .then_some(leaf)
            .flatten()
            .filter(|address| !address.is_loopback())
    })
}

/// Of lines such as `fd000000000000000000000000000002 04 40 00 82 eth0`.
fn v6(table: &str) -> impl Iterator<Item = Ipv6Addr> {
    table
        .lines()
        .filter_map(|line| u128::from_str_radix(line.split(' ').next()?, 16).ok())
        .map(Ipv6Addr::from)
        .filter(|address| !address.is_loopback() && !address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_without_loopback_and_link_local() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n        +-- 127.0.0.0/31 1 0 0\n           |-- 127.0.0.1\n              /32 host LOCAL\n        +-- 198.18.1.0/30 2 0 2\n           |-- 198.18.1.0\n              /24 link UNICAST\n           |-- 198.18.1.1\n              /32 host LOCAL\n        |-- 198.18.1.255\n           /32 link BROADCAST\n";
        assert_eq!(v4(trie).collect::<Vec<_>>(), [Ipv4Addr::new(198, 18, 1, 1)]);
        let table = "00000000000000000000000000000001 01 80 10 80       lo\nfd000000000000000000000000000002 04 40 00 82     eth0\nfe8000000000000000fc00fffe000001 04 40 20 80     eth0\n";
        assert_eq!(v6(table).collect::<Vec<_>>(), ["fd00::2".parse::<Ipv6Addr>().unwrap()]);
    }
}
