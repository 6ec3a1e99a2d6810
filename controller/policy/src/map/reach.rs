//! How far somebody gets who has taken a workload over, and from where it can be reached, under the policies.
//!
//! Laws: one workload reaches another in one hop exactly if the evaluator allows a connection between a pod of the one and a pod
//! of the other at some port; the number of hops is the smallest; what is not decidable is no hop, and is counted.

use std::collections::BTreeSet;

use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::endpoint::Workload;
use schemars::JsonSchema;
use serde::Serialize;

use super::document::Ports;
use super::{exposure, id};
use crate::ends::{Ends, Pods};
use crate::evaluate::{Decision, Evaluator, Place, PolicySet, Ruling};

/// What some workloads reach, and what reaches them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reach {
    /// Ids of the workloads that were asked about.
    pub of: Vec<String>,
    /// What they can connect to, nearest first.
    pub reaches: Vec<Passage>,
    /// What can connect to them, nearest first.
    pub reached_by: Vec<Passage>,
    /// Ports at which they can connect to an address outside of the cluster that no policy names.
    pub outside: Vec<Ports>,
    /// Ports at which such an address can connect to them.
    pub from_outside: Vec<Ports>,
    /// Pairs of workloads on the way of which nobody can say whether they can connect at any port.
    pub undecided: usize,
}

/// A workload, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Passage {
    /// Its id.
    pub workload: String,
    /// Connections on the shortest way, one after the other.
    pub hops: usize,
    /// Id of the workload before it on that way: where the last connection begins or, of what reaches, where the first one ends.
    pub through: String,
    /// Ports at which that connection is possible.
    pub ports: Vec<Ports>,
}

/// Asks about workloads, all at once.
pub fn reach(cluster: &Cluster, policies: &PolicySet, of: &BTreeSet<Workload>) -> Reach {
    let evaluator = Evaluator::new(policies, cluster);
    let ends = Ends::new(cluster, &evaluator);
    let mut walk = Walk {
        evaluator: &evaluator,
        all: ends.all(),
        undecided: 0,
    };
    let start: BTreeSet<usize> = (0..walk.all.len())
        .filter(|index| of.contains(walk.all[*index].0))
        .collect();
    let reaches = walk.from(&start, true);
    let reached_by = walk.from(&start, false);
    let strangers = exposure::strangers(cluster, &evaluator);
    let places: Vec<Place> = start.iter().flat_map(|index| walk.all[*index].1.kinds()).collect();
    let crossing = |outwards: bool| {
        let pairs = strangers
            .iter()
            .flat_map(|stranger| places.iter().map(move |place| (stranger, place)));
        let ports = pairs.flat_map(|(stranger, place)| {
            let (from, to) = if outwards { (place, stranger) } else { (stranger, place) };
            exposure::ports(&evaluator, from, to, Decision::combined)
        });
        merged(ports)
    };
    Reach {
        of: of.iter().map(id::of_workload).collect(),
        reaches,
        reached_by,
        outside: crossing(true),
        from_outside: crossing(false),
        undecided: walk.undecided,
    }
}

struct Walk<'e, 'a> {
    evaluator: &'e Evaluator<'a>,
    all: Vec<(&'e Workload, Pods<'e>)>,
    undecided: usize,
}

impl Walk<'_, '_> {
    /// Breadth first, along connections or against them.
    fn from(&mut self, start: &BTreeSet<usize>, along: bool) -> Vec<Passage> {
        let mut open: BTreeSet<usize> = (0..self.all.len()).filter(|index| !start.contains(index)).collect();
        let mut ring: Vec<usize> = start.iter().copied().collect();
        let mut passages = Vec::new();
        for hops in 1.. {
            let mut next = Vec::new();
            for here in ring {
                let found: Vec<(usize, Vec<Ports>)> = open
                    .iter()
                    .filter_map(|there| {
                        let (from, to) = if along { (here, *there) } else { (*there, here) };
                        let ports = self
                            .evaluator
                            .way(self.all[from].1, self.all[to].1, &mut self.undecided);
                        (!ports.is_empty()).then_some((*there, ports))
                    })
                    .collect();
                for (there, ports) in found {
                    open.remove(&there);
                    next.push(there);
                    passages.push(Passage {
                        workload: id::of_workload(self.all[there].0),
                        hops,
                        through: id::of_workload(self.all[here].0),
                        ports,
                    });
                }
            }
            if next.is_empty() {
                break;
            }
            next.sort_unstable();
            ring = next;
        }
        passages.sort_by(|one, other| (one.hops, &one.workload).cmp(&(other.hops, &other.workload)));
        passages
    }
}

impl Evaluator<'_> {
    /// The ports at which any of some pods can connect to any of others.
    fn way(&self, from: Pods<'_>, to: Pods<'_>, undecided: &mut usize) -> Vec<Ports> {
        let mut found = BTreeSet::new();
        let mut open = false;
        from.pairs(to, &mut |pair| {
            found.extend(exposure::ports(self, &pair.source, &pair.destination, |decision| {
                let ruling = decision.combined();
                open |= ruling == Ruling::Unknown && !decision.is_impossible();
                ruling
            }));
        });
        if open && found.is_empty() {
            *undecided += 1;
        }
        merged(found)
    }
}

/// Ports without a gap or an overlap between them are one entry.
fn merged(ports: impl IntoIterator<Item = Ports>) -> Vec<Ports> {
    let sorted: BTreeSet<Ports> = ports.into_iter().collect();
    let mut merged: Vec<Ports> = Vec::new();
    for ports in sorted {
        match merged.last_mut() {
            Some(last) if last.protocol == ports.protocol && u32::from(ports.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(ports.last);
            }
            _ => merged.push(ports),
        }
    }
    merged
}
