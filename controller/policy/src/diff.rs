//! What two sets of policies allow differently: a comparison of reachability, never of text.
//!
//! Laws:
//! * a connection between two live ends at a port is in exactly one change if the two sets decide it differently, and in none
//!   if they do not;
//! * a set compared with itself, with its policies renamed or its rules written in another way, has no change;
//! * exchanging the sets exchanges what opens and what closes.
//!
//! Ends are the pods of each workload, the nodes, and all other addresses, in the ranges that the policies tell apart. Ports are
//! compared from where a rule begins to mean a pair to where the next one does, so none of the 65,535 is left out.

mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Subnets, Ipv6Subnets};
use jiff::Timestamp;
use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::endpoint::Workload;
use nanoseg_graph::flow::Transport;

pub use self::summary::{Group as ChangeGroup, Kind, Line, Other, PortSet, summary};
use crate::direction::{Direction, ports_in_words};
use crate::evaluate::{Decision, End, Evaluator, Place, PolicySet, Ruling, Verdict};

/// Addresses without a gap, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    /// The first.
    pub first: IpAddr,
    /// The last.
    pub last: IpAddr,
}

impl AddressRange {
    /// The ranges from each start to the next, or to the end of its family.
    pub(crate) fn between(starts: &BTreeSet<IpAddr>) -> impl Iterator<Item = Self> {
        let following = starts.iter().skip(1).map(Some).chain([None]);
        starts.iter().zip(following).map(|(first, next)| Self {
            first: *first,
            last: match (first, next) {
                (IpAddr::V4(_), Some(IpAddr::V4(next))) => IpAddr::V4(Ipv4Addr::from_bits(next.to_bits() - 1)),
                (IpAddr::V4(_), _) => IpAddr::V4(Ipv4Addr::BROADCAST),
                (IpAddr::V6(_), Some(IpAddr::V6(next))) => IpAddr::V6(Ipv6Addr::from_bits(next.to_bits() - 1)),
                (IpAddr::V6(_), _) => IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
            },
        })
    }

    /// How many addresses lie between its first and its last.
    pub(crate) fn width(&self) -> u128 {
        match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => u128::from(last.to_bits() - first.to_bits()),
            (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits() - first.to_bits(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
        }
    }

    /// The first of its addresses that nobody in the cluster has.
    pub(crate) fn free_address(self, cluster: &Cluster) -> Option<IpAddr> {
        let now = Timestamp::MAX;
        addresses(self).find(|address| cluster.owners_of(*address, now, now).is_empty())
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let single = match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let mut ranges = Ipv4Subnets::new(first, last, 0);
                ranges.next().map(Into::into).filter(|_| ranges.next().is_none())
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let mut ranges = Ipv6Subnets::new(first, last, 0);
                ranges.next().map(Into::into).filter(|_| ranges.next().is_none())
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None::<ipnet::IpNet>,
        };
        match single {
            Some(range) => range.fmt(f),
            None => write!(f, "{} to {}", self.first, self.last),
        }
    }
}

/// An end of a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// Pods of a workload.
    Pods(Workload),
    /// The addresses of a node.
    Node(String),
    /// Addresses that nobody in the cluster has.
    Addresses(AddressRange),
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(workload) => workload.fmt(f),
            Self::Node(name) => write!(f, "Node {name}"),
            Self::Addresses(range) => range.fmt(f),
        }
    }
}

/// Connections that are decided differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The initiators.
    pub source: Party,
    /// The listeners.
    pub destination: Party,
    /// Transport protocol.
    pub transport: Transport,
    /// First and last port.
    pub ports: (u16, u16),
    /// How many pairs of ends it is about; a range of addresses counts as one end.
    pub pairs: usize,
    /// How many pairs of these parties there are.
    pub of: usize,
    /// What the old policies say of one of them.
    pub before: Verdict,
    /// What the new policies say of it.
    pub after: Verdict,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            destination,
            transport,
            ports: (first, last),
            pairs,
            of,
            before: _,
            after: _,
        } = self;
        write!(
            f,
            "{source} -> {destination} {}",
            ports_in_words(*transport, *first, *last)
        )?;
        if pairs < of {
            write!(f, " ({pairs} of {of} pairs)")?;
        }
        Ok(())
    }
}

/// What is different, in a fixed order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Denied before, allowed now.
    pub opened: Vec<Change>,
    /// Allowed before, denied now.
    pub closed: Vec<Change>,
    /// Not decidable before or now, and the other way decided.
    pub unclear: Vec<Change>,
    /// Parties of which other rules apply than before to pods that use their nodes' network: nobody can say what that changes.
    pub undecided: BTreeSet<Party>,
}

impl Diff {
    /// Whether the two sets decide everything alike that can be decided.
    pub const fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.closed.is_empty() && self.unclear.is_empty()
    }
}

/// Compares what two sets of policies allow in a cluster.
pub fn diff(old: &PolicySet, new: &PolicySet, cluster: &Cluster) -> Diff {
    let sides = Sides {
        old: Evaluator::new(old, cluster),
        new: Evaluator::new(new, cluster),
    };
    let groups = sides.groups(cluster);
    let ends = sizes(&groups);
    let changed: Vec<[bool; 2]> = groups.iter().map(|group| sides.changed(group)).collect();
    let mut found = Found::new();
    for (source, [_, egress]) in groups.iter().zip(&changed) {
        for (destination, [ingress, _]) in groups.iter().zip(&changed) {
            // Where the same rules apply, nothing can be decided differently.
            if (*egress || *ingress) && (source.is_pod || destination.is_pod) {
                sides.compare(source, destination, &mut found);
            }
        }
    }
    Diff {
        undecided: groups
            .iter()
            .zip(&changed)
            .filter(|(group, [ingress, egress])| (*ingress || *egress) && sides.is_on_a_nodes_network(group))
            .map(|(group, _)| group.party.clone())
            .collect(),
        ..collect(found, &ends)
    }
}

/// A place in both evaluators.
#[derive(Clone, Copy)]
struct Spot {
    old: Place,
    new: Place,
}

/// Ends of one party of which both evaluators say the same; at least one.
struct Group {
    party: Party,
    is_pod: bool,
    spots: Vec<Spot>,
}

/// What a change is about, but for how many pairs.
type Key = (Party, Party, Transport, Ruling, Ruling, u16, u16);
/// How many pairs, and what is said of the first.
type Found = BTreeMap<Key, (usize, Verdict, Verdict)>;

struct Sides<'a> {
    old: Evaluator<'a>,
    new: Evaluator<'a>,
}

impl Sides<'_> {
    fn groups(&self, cluster: &Cluster) -> Vec<Group> {
        let mut groups: BTreeMap<Party, Vec<Group>> = BTreeMap::new();
        for ((pod, old), (_, new)) in self.old.pods().zip(self.new.pods()) {
            let party = Party::Pods(cluster.workload_of(pod));
            let known = groups.entry(party.clone()).or_default();
            let spot = Spot { old, new };
            let alike = |group: &&mut Group| {
                let first = group.spots[0];
                first.old.kind() == old.kind() && first.new.kind() == new.kind()
            };
            match known.iter_mut().find(alike) {
                Some(group) => group.spots.push(spot),
                None => known.push(Group {
                    party,
                    is_pod: true,
                    spots: vec![spot],
                }),
            }
        }
        for node in cluster.nodes() {
            for address in &node.addresses {
                let party = Party::Node(node.name.clone());
                groups
                    .entry(party.clone())
                    .or_default()
                    .extend(self.group(party, *address));
            }
        }
        for range in self.ranges() {
            // Of one that is partly the cluster's, any other address speaks for all.
            let free = range.free_address(cluster);
            let party = Party::Addresses(range);
            groups
                .entry(party.clone())
                .or_default()
                .extend(free.and_then(|address| self.group(party, address)));
        }
        groups.into_values().flatten().collect()
    }

    fn group(&self, party: Party, address: IpAddr) -> Option<Group> {
        let end = End::Address(address);
        let spot = Spot {
            old: self.old.find(&end).ok()?,
            new: self.new.find(&end).ok()?,
        };
        // A host-network pod's address is its node's; a pod's own is not.
        Evaluator::is_address(&spot.old).then(|| Group {
            party,
            is_pod: false,
            spots: vec![spot],
        })
    }

    /// The ranges of addresses that neither evaluator cuts.
    fn ranges(&self) -> Vec<AddressRange> {
        let starts: BTreeSet<IpAddr> = self.old.address_starts().chain(self.new.address_starts()).collect();
        AddressRange::between(&starts).collect()
    }

    /// Whether other rules apply than before: to ingress, to egress.
    fn changed(&self, group: &Group) -> [bool; 2] {
        let Spot { old, new } = group.spots[0];
        Direction::ALL.map(|direction| !self.old.says_the_same(&old, &self.new, &new, direction))
    }

    /// Whether policies select its pods, before and now, and cannot be shown to do anything.
    fn is_on_a_nodes_network(&self, group: &Group) -> bool {
        let Spot { old, new } = group.spots[0];
        self.old.is_on_a_nodes_network(&old) && self.new.is_on_a_nodes_network(&new)
    }

    fn compare(&self, source: &Group, destination: &Group, found: &mut Found) {
        for (source_spot, destination_spot, count) in pairs(source, destination) {
            for transport in Transport::OF_POLICIES {
                let mut starts = BTreeSet::from([1]);
                self.old
                    .port_starts(&source_spot.old, &destination_spot.old, transport, &mut starts);
                self.new
                    .port_starts(&source_spot.new, &destination_spot.new, transport, &mut starts);
                let mut run: Option<(u16, [Decision; 2])> = None;
                for start in starts {
                    let old = self
                        .old
                        .decide(&source_spot.old, &destination_spot.old, start, transport);
                    let new = self
                        .new
                        .decide(&source_spot.new, &destination_spot.new, start, transport);
                    let now = [old, new];
                    match run {
                        Some((_, before)) if before.map(Decision::combined) == now.map(Decision::combined) => {}
                        Some((first, before)) => {
                            let pair = (&source_spot, &destination_spot, count);
                            self.note(source, destination, pair, transport, (first, start - 1), before, found);
                            run = Some((start, now));
                        }
                        None => run = Some((start, now)),
                    }
                }
                if let Some((first, decisions)) = run {
                    let pair = (&source_spot, &destination_spot, count);
                    self.note(
                        source,
                        destination,
                        pair,
                        transport,
                        (first, u16::MAX),
                        decisions,
                        found,
                    );
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that a change is")]
    fn note(
        &self,
        source: &Group,
        destination: &Group,
        (source_spot, destination_spot, count): (&Spot, &Spot, usize),
        transport: Transport,
        (first, last): (u16, u16),
        [old, new]: [Decision; 2],
        found: &mut Found,
    ) {
        let (before, after) = (old.combined(), new.combined());
        // Ends without a common family have no connection that could change.
        if before == after || old.is_impossible() {
            return;
        }
        let key = (
            source.party.clone(),
            destination.party.clone(),
            transport,
            before,
            after,
            first,
            last,
        );
        let entry = found.entry(key).or_insert_with(|| {
            let before = self.old.explain(&source_spot.old, &destination_spot.old, old);
            let after = self.new.explain(&source_spot.new, &destination_spot.new, new);
            (0, before.combined(), after.combined())
        });
        entry.0 += count;
    }
}

/// Pairs of two groups, and how many each stands for.
fn pairs(source: &Group, destination: &Group) -> Vec<(Spot, Spot, usize)> {
    let (first, other) = (source.spots[0], destination.spots[0]);
    if first.old.is_on_a_node() || other.old.is_on_a_node() {
        let all = source.spots.iter();
        return all
            .flat_map(|source| destination.spots.iter().map(|destination| (*source, *destination, 1)))
            .collect();
    }
    let count = source.spots.len() * destination.spots.len();
    if first.old != other.old {
        return vec![(first, other, count)];
    }
    // A pod with itself is decided alike whatever the policies say.
    let others = source
        .spots
        .get(1)
        .map(|second| (first, *second, count - source.spots.len()));
    others.into_iter().collect()
}

fn sizes(groups: &[Group]) -> BTreeMap<&Party, usize> {
    let mut sizes = BTreeMap::new();
    for group in groups {
        *sizes.entry(&group.party).or_default() += group.spots.len();
    }
    sizes
}

fn collect(found: Found, sizes: &BTreeMap<&Party, usize>) -> Diff {
    let mut diff = Diff::default();
    // Ranges that touch and change alike are one range: where the last of each kind went.
    let mut latest: BTreeMap<Alike, usize> = BTreeMap::new();
    for ((source, destination, transport, before, after, first, last), (pairs, old, new)) in found {
        let size = |party| sizes.get(party).copied().unwrap_or(1);
        let list = match (before, after) {
            (Ruling::Denied, Ruling::Allowed) => &mut diff.opened,
            (Ruling::Allowed, Ruling::Denied) => &mut diff.closed,
            _ => &mut diff.unclear,
        };
        let change = Change {
            of: size(&source) * size(&destination),
            source,
            destination,
            transport,
            ports: (first, last),
            pairs,
            before: old,
            after: new,
        };
        if let Some(alike) = alike(&change, [before, after]) {
            if let Some(earlier) = latest.get(&alike).and_then(|index| list.get_mut(*index))
                && earlier.join(&change)
            {
                continue;
            }
            latest.insert(alike, list.len());
        }
        list.push(change);
    }
    diff
}

/// What two changes have in common that differ in a range of addresses only: the other party, which of the two that is, and the
/// rest.
type Alike = (Party, bool, Transport, (u16, u16), [Ruling; 2]);

fn alike(change: &Change, rulings: [Ruling; 2]) -> Option<Alike> {
    let (other, is_source) = match (&change.source, &change.destination) {
        (Party::Addresses(_), other) => (other, false),
        (other, Party::Addresses(_)) => (other, true),
        _ => return None,
    };
    Some((other.clone(), is_source, change.transport, change.ports, rulings))
}

impl Change {
    /// Takes in a change that is alike, if its range of addresses follows.
    fn join(&mut self, next: &Self) -> bool {
        if (self.pairs, self.of) != (next.pairs, next.of) {
            return false;
        }
        for (own, next) in [
            (&mut self.source, &next.source),
            (&mut self.destination, &next.destination),
        ] {
            if let Some(range) = touching(own, next) {
                *own = range;
                return true;
            }
        }
        false
    }
}

fn touching(one: &Party, other: &Party) -> Option<Party> {
    let (Party::Addresses(one), Party::Addresses(other)) = (one, other) else {
        return None;
    };
    let follows = match (one.last, other.first) {
        (IpAddr::V4(last), IpAddr::V4(first)) => last.to_bits().checked_add(1) == Some(first.to_bits()),
        (IpAddr::V6(last), IpAddr::V6(first)) => last.to_bits().checked_add(1) == Some(first.to_bits()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    };
    follows.then_some(Party::Addresses(AddressRange {
        first: one.first,
        last: other.last,
    }))
}

/// Every address of a range, one after the other.
fn addresses(range: AddressRange) -> impl Iterator<Item = IpAddr> {
    let next = move |address: &IpAddr| {
        if *address == range.last {
            return None;
        }
        Some(match address {
            IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() + 1)),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() + 1)),
        })
    };
    std::iter::successors(Some(range.first), next)
}
