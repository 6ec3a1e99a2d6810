//! Peers that need not be named, because a wider peer means their pods already.
//!
//! Law: every pod that was meant at a port still is, and no peer that is left could be left out as well.

use std::collections::{BTreeMap, BTreeSet};

use nanoseg_graph::cluster::Labels;
use nanoseg_graph::endpoint::Endpoint;

use super::peers::Peer;
use super::rules::Allowed;
use crate::direction::Port;
use crate::identity::{Identities, Proof};

/// A peer that selects pods.
struct Extent<'a> {
    peer: &'a Peer,
    namespace: &'a str,
    labels: &'a Labels,
    /// What all pods that were observed behind it have.
    shared: Labels,
    /// Whether it selects pods of others, too. Only such a peer can make another superfluous.
    wide: bool,
}

impl Extent<'_> {
    fn covers(&self, other: &Self) -> bool {
        self.wide
            && self.peer != other.peer
            && self.namespace == other.namespace
            && self
                .labels
                .iter()
                .all(|(key, value)| other.shared.get(key) == Some(value))
    }
}

/// Takes superfluous peers out, port by port, and hands their sources to the peers that stand in for them. Returns what was
/// taken out.
pub(super) fn drop_covered(allowed: &mut Allowed, identities: &Identities<'_>) -> BTreeSet<(Peer, Port)> {
    let moves = superfluous(allowed, identities);
    for ((narrow, port), wide) in &moves {
        let Some(ports) = allowed.peers.get_mut(narrow) else {
            continue;
        };
        let Some(sources) = ports.remove(port) else { continue };
        if ports.is_empty() {
            allowed.peers.remove(narrow);
        }
        if let Some(ports) = allowed.peers.get_mut(wide) {
            ports.entry(*port).or_default().extend(sources);
        }
    }
    moves.into_keys().collect()
}

fn superfluous(allowed: &Allowed, identities: &Identities<'_>) -> BTreeMap<(Peer, Port), Peer> {
    let mut extents: Vec<Extent<'_>> = allowed
        .peers
        .keys()
        .filter_map(|peer| extent(peer, allowed, identities))
        .collect();
    if !extents.iter().any(|extent| extent.wide) {
        return BTreeMap::new();
    }
    // The widest first, so that as few as possible are kept.
    extents.sort_by_key(|extent| (extent.labels.len(), extent.peer));
    let ports: BTreeSet<Port> = extents
        .iter()
        .filter(|extent| extent.wide)
        .flat_map(|extent| allowed.peers[extent.peer].keys().copied())
        .collect();
    let mut moves = BTreeMap::new();
    for port in ports {
        let named: Vec<&Extent<'_>> = extents
            .iter()
            .filter(|extent| allowed.peers[extent.peer].contains_key(&port))
            .collect();
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
                moves.insert((extent.peer.clone(), port), wide.peer.clone());
            }
        }
    }
    moves
}

fn extent<'a>(peer: &'a Peer, allowed: &Allowed, identities: &Identities<'_>) -> Option<Extent<'a>> {
    let Peer::Pods { namespace, labels } = peer else {
        return None;
    };
    let mut shared: Option<Labels> = None;
    let mut wide = false;
    for (endpoint, _) in allowed.peers[peer].values().flatten() {
        let known = match endpoint {
            Endpoint::Workload(workload) => {
                wide |= identities
                    .get(workload)
                    .is_some_and(|identity| identity.proof != Proof::Exact);
                identities.shared(workload).unwrap_or(labels)
            }
            Endpoint::Service(_) | Endpoint::Node(_) | Endpoint::External(_) | Endpoint::Unknown { .. } => labels,
        };
        match &mut shared {
            Some(shared) => shared.retain(|key, value| known.get(key) == Some(value)),
            None => shared = Some(known.clone()),
        }
    }
    Some(Extent {
        peer,
        namespace,
        labels,
        shared: shared.unwrap_or_default(),
        wide,
    })
}
