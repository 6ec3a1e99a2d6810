//! The ranges that nodes declare for their pods, so that an address is not compared with those of thousands of nodes.
//!
//! Law: an address is contained exactly if one of the ranges that were added and not removed contains it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

/// How many nodes declare each range, by the length of its prefix: a cluster has one or two lengths.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeRanges(BTreeMap<u8, BTreeMap<IpNet, usize>>);

impl NodeRanges {
    pub(super) fn add(&mut self, ranges: &BTreeSet<IpNet>) {
        for range in ranges {
            let known = self.0.entry(range.prefix_len()).or_default();
            *known.entry(range.trunc()).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, ranges: &BTreeSet<IpNet>) {
        for range in ranges {
            let length = range.prefix_len();
            let Some(known) = self.0.get_mut(&length) else { continue };
            if let Some(count) = known.get_mut(&range.trunc()) {
                *count -= 1;
                if *count == 0 {
                    known.remove(&range.trunc());
                }
            }
            if known.is_empty() {
                self.0.remove(&length);
            }
        }
    }

    pub(super) fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|(length, known)| {
            // An address of the other family has no such prefix, or is in none of its ranges.
            IpNet::new(address, *length).is_ok_and(|around| known.contains_key(&around.trunc()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = IpAddr> {
        // Few addresses, so that ranges hold each other and are declared twice.
        prop_oneof![
            (0_u32..64).prop_map(|low| IpAddr::V4(Ipv4Addr::from_bits(10 << 24 | low))),
            (0_u128..64).prop_map(|low| IpAddr::V6(Ipv6Addr::from_bits(0xfd << 120 | low))),
        ]
    }

    fn range() -> impl Strategy<Value = IpNet> {
        (address(), 0_u8..8).prop_map(|(address, wider)| {
            let host = IpNet::from(address);
            IpNet::new(address, host.max_prefix_len() - wider).unwrap_or(host)
        })
    }

    proptest! {
        #[test]
        fn an_address_is_contained_as_by_one_range_after_another(
            nodes in prop::collection::vec((prop::collection::btree_set(range(), 0..4), any::<bool>()), 0..6),
            address in address(),
        ) {
            let mut ranges = NodeRanges::default();
            for (declared, _) in &nodes {
                ranges.add(declared);
            }
            for (declared, _) in nodes.iter().filter(|(_, stays)| !stays) {
                ranges.remove(declared);
            }
            let mut left = nodes.iter().filter(|(_, stays)| *stays).flat_map(|(declared, _)| declared);
            prop_assert_eq!(ranges.contain(address), left.any(|range| range.contains(&address)));
            if nodes.iter().all(|(_, stays)| !stays) {
                prop_assert!(ranges.0.is_empty());
            }
        }
    }
}
