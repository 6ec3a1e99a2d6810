//! Peers that need not be named, because a wider peer means them already.
//!
//! Law: everybody who was meant at a port still is, and no peer that is left could be left out as well.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use nanoseg_graph::cluster::Labels;
use nanoseg_graph::endpoint::Endpoint;

use super::peers::{Peer, Selection};
use super::rules::{Entry, Whom};
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
    extents.sort_by_key(|extent| (extent.selection.labels.len(), extent.peer));
    let spans: BTreeSet<Span> = extents
        .iter()
        .filter(|extent| extent.wide)
        .flat_map(|extent| extent.spans.iter().copied())
        .collect();
    for span in spans {
        let named: Vec<&Extent<'_>> = extents.iter().filter(|extent| extent.spans.contains(&span)).collect();
        let mut kept: Vec<&Extent<'_>> = Vec::new();
        for extent in &named {
            if !kept.iter().any(|wide| wide.covers(extent)) {
                kept.push(extent);
            }
        }
        // One that was kept early may be superfluous beside one that was kept later.
        let mut index = 0;
        while index < kept.len() {
            let without: Vec<&Extent<'_>> = kept
                .iter()
                .copied()
                .filter(|extent| extent.peer != kept[index].peer)
                .collect();
            let is_meant = |extent: &&Extent<'_>| {
                without
                    .iter()
                    .any(|wide| wide.peer == extent.peer || wide.covers(extent))
            };
            if named.iter().all(is_meant) {
                kept = without;
            } else {
                index += 1;
            }
        }
        for extent in named {
            let stays = kept.iter().any(|kept| kept.peer == extent.peer);
            if let Some(wide) = kept.iter().find(|wide| !stays && wide.covers(extent)) {
                moves.insert((extent.peer, span), wide.peer);
            }
        }
    }
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
