//! The address space, cut where any range that is asked about begins or ends.
//!
//! Law: two addresses in the same spot are in exactly the same of those ranges. So whether a range holds an address is a
//! comparison of small numbers, and addresses in one spot are interchangeable.

use std::net::IpAddr;

use ipnet::IpNet;

/// A piece of the address space that no range cuts.
pub(super) type Spot = u32;

/// The spot of an IPv4 and of an IPv6 address of which only the family is known.
pub(super) const SOMEWHERE: [Spot; 2] = [Spot::MAX - 1, Spot::MAX];

/// First and last spot of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    first: Spot,
    last: Spot,
}

/// See [`Space::part_of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    None,
    Some,
    All,
}

impl Stretch {
    pub(super) const fn holds(self, spot: Spot) -> bool {
        self.first <= spot && spot <= self.last
    }
}

/// Where each spot begins. IPv4's spots come before IPv6's.
#[derive(Debug)]
pub(super) struct Space {
    v4: Vec<u32>,
    v6: Vec<u128>,
}

impl Space {
    pub(super) fn new(ranges: impl IntoIterator<Item = IpNet>) -> Self {
        let mut v4 = vec![0];
        let mut v6 = vec![0];
        for range in ranges {
            match range {
                IpNet::V4(range) => {
                    v4.push(range.network().to_bits());
                    v4.extend(range.broadcast().to_bits().checked_add(1));
                }
                IpNet::V6(range) => {
                    v6.push(range.network().to_bits());
                    v6.extend(range.broadcast().to_bits().checked_add(1));
                }
            }
        }
        v4.sort_unstable();
        v4.dedup();
        v6.sort_unstable();
        v6.dedup();
        Self { v4, v6 }
    }

    /// The spot of an address.
    pub(super) fn spot(&self, address: IpAddr) -> Spot {
        let (before, index) = match address {
            IpAddr::V4(address) => (0, place(&self.v4, address.to_bits())),
            IpAddr::V6(address) => (self.v4.len(), place(&self.v6, address.to_bits())),
        };
        // Each range adds two spots at most, so billions of ranges would be needed to run out of numbers.
        u32::try_from(before + index).unwrap_or(SOMEWHERE[0] - 1)
    }

    /// Of the addresses at one of [`SOMEWHERE`] all, some or none are in a range.
    pub(super) fn part_of(&self, stretch: Stretch, somewhere: Spot) -> Part {
        let [v4, v6] = [self.v4.len(), self.v4.len() + self.v6.len()].map(|end| u32::try_from(end).unwrap_or(u32::MAX));
        let (first, end) = if somewhere == SOMEWHERE[0] { (0, v4) } else { (v4, v6) };
        if stretch.last < first || stretch.first >= end {
            Part::None
        } else if stretch.first == first && stretch.last + 1 == end {
            Part::All
        } else {
            Part::Some
        }
    }

    /// The first address of each spot.
    pub(super) fn starts(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.iter().map(|bits| IpAddr::V4((*bits).into()));
        v4.chain(self.v6.iter().map(|bits| IpAddr::V6((*bits).into())))
    }

    /// The spots of one of the ranges that the space was cut by.
    pub(super) fn stretch(&self, range: &IpNet) -> Stretch {
        Stretch {
            first: self.spot(range.network()),
            last: self.spot(range.broadcast()),
        }
    }
}

/// The last start that is not behind the value. The first start is 0, so there is one.
fn place<T: Ord + Copy>(starts: &[T], value: T) -> usize {
    starts.partition_point(|start| *start <= value) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = IpNet> {
        // Few distinct prefixes, so that ranges nest, touch and repeat; both ends of the address space are among them.
        let v4 = (
            prop::sample::select(vec![0_u32, 1, 0x0a00_0000, 0x0a00_00ff, 0xffff_ff00, u32::MAX]),
            0..=32_u8,
        )
            .prop_map(|(bits, length)| IpNet::new(IpAddr::V4(bits.into()), length).unwrap());
        let v6 = (
            prop::sample::select(vec![0_u128, 1, 0xfd << 120, u128::MAX]),
            0..=128_u8,
        )
            .prop_map(|(bits, length)| IpNet::new(IpAddr::V6(bits.into()), length).unwrap());
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn a_stretch_holds_exactly_the_spots_of_its_range(
            ranges in prop::collection::vec(range(), 0..6),
            near in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8), 1..8),
            v4 in any::<u32>(),
            v6 in any::<u128>(),
        ) {
            let space = Space::new(ranges.iter().copied());
            let mut addresses = vec![IpAddr::V4(v4.into()), IpAddr::V6(v6.into())];
            for (index, which) in near {
                let Some(range) = ranges.get(index.index(ranges.len().max(1))) else { continue };
                let beside = |address: IpAddr, up: bool| match address {
                    IpAddr::V4(address) => IpAddr::V4(if up { address.to_bits().wrapping_add(1) } else { address.to_bits().wrapping_sub(1) }.into()),
                    IpAddr::V6(address) => IpAddr::V6(if up { address.to_bits().wrapping_add(1) } else { address.to_bits().wrapping_sub(1) }.into()),
                };
                addresses.push(match which {
                    0 => range.network(),
                    1 => range.broadcast(),
                    2 => beside(range.network(), false),
                    _ => beside(range.broadcast(), true),
                });
            }
            for address in addresses {
                for range in &ranges {
                    prop_assert_eq!(space.stretch(range).holds(space.spot(address)), range.contains(&address), "{} {}", address, range);
                }
            }
        }
    }
}
