//! What a comparison of two sets of policies asks of their evaluators: where answers can change, and where they cannot.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nanoseg_graph::flow::Transport;

use super::compiled::{Governing, NONE};
use super::decide::port_starts;
use super::place::Place;
use super::policy::{ClusterRules, Rule};
use super::{Evaluator, Who};
use crate::direction::Direction;

/// What applies to a pod in one direction, apart from how the policies are called.
#[derive(Debug, PartialEq)]
pub(super) struct Says<'a> {
    of_cluster: Vec<ClusterRules<'a>>,
    isolated: bool,
    network: Vec<&'a [Rule]>,
}

impl<'a> Evaluator<'a> {
    /// Whether the same rules apply to a pod in a direction as in another evaluator of the same cluster.
    pub(crate) fn says_the_same(&self, place: &Place, other: &Self, there: &Place, direction: Direction) -> bool {
        match (place.class, there.class) {
            (NONE, NONE) => true,
            (own, class) => self.says(own, direction) == other.says(class, direction),
        }
    }

    /// Whether it is a pod that policies select and that uses its node's network.
    pub(crate) fn is_on_a_nodes_network(&self, place: &Place) -> bool {
        let class = self.compiled.classes.get(place.class as usize);
        class.is_some_and(|class| class.host_network)
    }

    fn says(&self, class: u32, direction: Direction) -> Says<'a> {
        let Governing {
            admin,
            isolating,
            network: _,
            baseline,
        } = self.compiled.governing(class, direction);
        let mut of_cluster: Vec<u32> = admin
            .iter()
            .chain(baseline)
            .map(|rule| self.compiled.rules[*rule as usize].policy)
            .collect();
        of_cluster.dedup();
        let sources = &self.compiled.sources;
        Says {
            of_cluster: of_cluster
                .into_iter()
                .filter_map(|policy| sources[policy as usize].of_cluster(direction))
                .collect(),
            isolated: !isolating.is_empty(),
            network: isolating
                .iter()
                .filter_map(|policy| sources[*policy as usize].network(direction))
                .collect(),
        }
    }

    /// The ports at which the decision about two places may change: it is the same from each to the next.
    pub(crate) fn port_starts(
        &self,
        source: &Place,
        destination: &Place,
        transport: Transport,
        starts: &mut BTreeSet<u16>,
    ) {
        let memory = &mut self.memory.borrow_mut();
        port_starts(&self.compiled, memory, source, destination, transport, starts);
    }

    /// The addresses at which the answer may change: it is the same for all that nobody in the cluster has, from each to the
    /// next of its family.
    pub(crate) fn address_starts(&self) -> impl Iterator<Item = IpAddr> {
        self.compiled.space.starts()
    }

    /// Whether a place is an address that no pod has.
    pub(crate) const fn is_address(place: &Place) -> bool {
        matches!(place.who, Who::Address(_))
    }
}
