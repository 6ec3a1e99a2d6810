//! Nodes that come, change and go: on a large cluster that is scaled, all the time.
//!
//! What a node says is which addresses and which ranges are the cluster's, and by which addresses policies mean connections with it. No
//! label of it counts, but for policies of the cluster.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use nanoseg_graph::cluster::Node;
use nanoseg_graph::endpoint::Endpoint;

use super::stale::Stale;
use super::{Core, Due};

/// What two states of a node differ in: of which addresses and of which ranges it is told otherwise whose they are.
#[derive(Debug, Default)]
struct Difference {
    begun: BTreeSet<IpAddr>,
    ended: BTreeSet<IpAddr>,
    ranges: BTreeSet<IpNet>,
}

impl Difference {
    fn of(before: Option<&Node>, after: Option<&Node>) -> Self {
        let states = [before, after];
        let [had, has] = states.map(|node| node.map(|node| node.addresses.clone()).unwrap_or_default());
        let [ranges, now] = states.map(|node| node.map(|node| node.pod_cidrs.clone()).unwrap_or_default());
        Self {
            begun: &has - &had,
            ended: &had - &has,
            ranges: &ranges ^ &now,
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        let in_one = |range: &IpNet| range.contains(&address);
        self.begun.contains(&address) || self.ended.contains(&address) || self.ranges.iter().any(in_one)
    }

    fn is_nothing(&self) -> bool {
        self.begun.is_empty() && self.ended.is_empty() && self.ranges.is_empty()
    }
}

impl Core {
    /// Takes note of a node before and after it comes, changes or goes.
    pub(super) fn note_node(&mut self, before: Option<&Node>, after: Option<&Node>, now: Timestamp) {
        let differ = Difference::of(before, after);
        // Without any object hosts are taken for what they are.
        let is_alone = self.cluster.pods().next().is_none();
        let is_selected = !self.cluster_policies.is_empty() || !self.guide.synthesis.external_groups.is_empty();
        // A node that is known, be it without any address, is told of otherwise than one that is not.
        if differ.is_nothing() && before.is_some() && after.is_some() && !is_selected {
            return;
        }
        if is_alone || is_selected || self.is_external_in_a_baseline(|address| differ.has(address)) {
            return self.rethink();
        }
        let Stale::Parts(parts) = &mut self.stale else { return };
        let Difference { begun, ended, ranges } = differ;
        for address in begun {
            parts.heard.begins(address, None);
        }
        for address in ended {
            parts.heard.ends(address, now);
        }
        for range in ranges {
            parts.heard.redeclares(range);
        }
        parts.turned.extend(before.or(after).map(|node| node.name.clone()));
        self.due = Due::Soon;
    }

    /// Whether an edge of a workload that is known has an address outside of the cluster that is one of these, as far as its baseline
    /// and what waits for a person go.
    fn is_external_in_a_baseline(&self, is_one: impl Fn(IpAddr) -> bool) -> bool {
        self.is_end_in_a_baseline(|end| matches!(end, Endpoint::External(address) if is_one(*address)))
    }
}
