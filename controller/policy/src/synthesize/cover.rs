//! Peers that need not be named, because a wider peer means them already.
//!
//! Law: everybody who was meant at a port still is, and no peer that is left could be left out as well.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use nanoseg_graph::cluster::Labels;
use nanoseg_graph::endpoint::Endpoint;

use super::peers::Peer;
use super::rules::{Entry, Whom};
use super::selection::Selection;
use super::settings::Span;
use crate::identity::{Identities, Proof};

/// A peer that selects pods.
struct Extent<'a> {
    peer: Peer<'a>,
    selection: &'a Selection,
    spans: BTreeSet<Span>,
    /// What all pods that were observed behind it have.
    shared: Labels,
    /// Whether it selects pods of others, too. Only such a peer can make another superfluous.
    wide: bool,
}

impl Extent<'_> {
    fn covers(&self, other: &Self) -> bool {
        self.wide
            && self.peer != other.peer
            && self.selection.namespace == other.selection.namespace
            && self
                .selection
                .labels
                .iter()
                .all(|(key, value)| other.shared.get(key) == Some(value))
    }
}

/// Takes superfluous peers out, port by port, and hands what they come from to the peers that stand in for them. Returns what
/// was taken out.
pub(super) fn drop_covered<'a>(entries: &mut [Entry<'a>], identities: &Identities) -> BTreeSet<(Peer<'a>, Span)> {
    let mut moves = BTreeMap::new();
    superfluous_pods(entries, identities, &mut moves);
    superfluous_blocks(entries, &mut moves);
    if moves.is_empty() {
        return BTreeSet::new();
    }
    for entry in entries {
        if let Some(wide) = moves.get(&(entry.peer, entry.span)) {
            entry.peer = *wide;
        }
    }
    moves.into_keys().collect()
}

/// Addresses that lie in a range which is named at the same port.
fn superfluous_blocks<'a>(entries: &[Entry<'a>], moves: &mut BTreeMap<(Peer<'a>, Span), Peer<'a>>) {
    let block = |entry: &Entry<'_>| match entry.peer {
        Peer::Block(cidr) => Some((entry.span, cidr)),
        Peer::Pods(_) => None,
    };
    let is_wide = |(_, cidr): &(Span, IpNet)| cidr.prefix_len() < cidr.max_prefix_len();
    let wide: BTreeSet<(Span, IpNet)> = entries.iter().filter_map(block).filter(is_wide).collect();
    if wide.is_empty() {
        return;
    }
    for (span, cidr) in entries.iter().filter_map(block) {
        let around = wide
            .iter()
            .filter(|(at, range)| *at == span && *range != cidr && range.contains(&cidr));
        // The widest, which is in no other.
        if let Some((_, widest)) = around.min_by_key(|(_, range)| range.prefix_len()) {
            moves.insert((Peer::Block(cidr), span), Peer::Block(*widest));
        }
    }
}

fn superfluous_pods<'a>(
    entries: &[Entry<'a>],
    identities: &Identities,
    moves: &mut BTreeMap<(Peer<'a>, Span), Peer<'a>>,
) {
    let is_wide = |entry: &Entry<'_>| matches!(entry.peer, Peer::Pods(named) if named.selection.wide);
    if !entries.iter().any(is_wide) {
        return;
    }
    let mut behind: BTreeMap<Peer<'a>, Vec<&Entry<'a>>> = BTreeMap::new();
    for entry in entries {
        behind.entry(entry.peer).or_default().push(entry);
    }
    let mut extents: Vec<Extent<'_>> = behind
        .into_iter()
        .filter_map(|(peer, entries)| extent(peer, &entries, identities))
        .collect();
    // The widest first, so that as few as possible are kept.
    extents.sort_by_key(|extent| (extent.selection.count, extent.peer));
    let spans: BTreeSet<Span> = extents
        .iter()
        .filter(|extent| extent.wide)
        .flat_map(|extent| extent.spans.iter().copied())
        .collect();
    for span in spans {
        let named: Vec<&Extent<'_>> = extents.iter().filter(|extent| extent.spans.contains(&span)).collect();
        for (extent, wide) in named.iter().zip(stand_ins(&named)) {
            if let Some(wide) = wide {
                moves.insert((extent.peer, span), named[wide].peer);
            }
        }
    }
}

/// Which of the extents stands in for each that is superfluous. Only wide ones stand in for others, and those are few: what all
/// others cost does not grow with their number.
fn stand_ins(named: &[&Extent<'_>]) -> Vec<Option<usize>> {
    let wide: Vec<usize> = (0..named.len()).filter(|place| named[*place].wide).collect();
    let mut kept = vec![false; named.len()];
    let covering = |kept: &[bool], place: usize, without: Option<usize>| {
        let mut others = wide
            .iter()
            .copied()
            .filter(|wide| kept[*wide] && Some(*wide) != without);
        others.find(|wide| named[*wide].covers(named[place]))
    };
    for place in 0..named.len() {
        kept[place] = covering(&kept, place, None).is_none();
    }
    // One that was kept early may be superfluous beside one that was kept later.
    for place in 0..named.len() {
        let stands_in = named[place].wide;
        let is_covered = |other: usize| covering(&kept, other, Some(place)).is_some();
        let is_superfluous = kept[place]
            && is_covered(place)
            && (!stands_in || (0..named.len()).all(|other| kept[other] || is_covered(other)));
        if is_superfluous {
            kept[place] = false;
        }
    }
    (0..named.len())
        .map(|place| {
            if kept[place] {
                None
            } else {
                covering(&kept, place, None)
            }
        })
        .collect()
}

fn is_wide(whom: Whom<'_>, identities: &Identities) -> bool {
    match whom {
        Whom::Endpoint(Endpoint::Workload(workload)) => identities
            .get(workload)
            .is_some_and(|identity| identity.proof != Proof::Exact),
        Whom::Endpoint(_) | Whom::Group(_) => false,
    }
}

fn extent<'a>(peer: Peer<'a>, entries: &[&Entry<'a>], identities: &Identities) -> Option<Extent<'a>> {
    let Peer::Pods(named) = peer else {
        return None;
    };
    let selection = named.selection;
    let mut shared: Option<Labels> = None;
    for entry in entries {
        let known = match entry.whom {
            Whom::Endpoint(Endpoint::Workload(workload)) => identities.shared(workload),
            Whom::Endpoint(_) | Whom::Group(_) => None,
        };
        let known = known.unwrap_or(&selection.labels);
        match &mut shared {
            Some(shared) => shared.retain(|key, value| known.get(key) == Some(value)),
            None => shared = Some(known.clone()),
        }
    }
    Some(Extent {
        peer,
        selection,
        spans: entries.iter().map(|entry| entry.span).collect(),
        shared: shared.unwrap_or_default(),
        wide: entries.iter().any(|entry| is_wide(entry.whom, identities)),
    })
}
