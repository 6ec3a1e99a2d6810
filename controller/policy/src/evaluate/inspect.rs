//! What a map of policies asks of their evaluator: what applies to whom, and which rules mean whom.

use std::collections::BTreeSet;

use nanoseg_graph::flow::Transport;

use super::Evaluator;
use super::classes::Match;
use super::compiled::Governing;
use super::place::{Place, Who};
use super::policy::{PolicyRef, Source};
use crate::direction::Direction;

/// What applies to a pod in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applies {
    /// `NetworkPolicies` that isolate it.
    pub(crate) isolating: BTreeSet<PolicyRef>,
    /// Policies of the cluster with a rule for it.
    pub(crate) of_cluster: BTreeSet<PolicyRef>,
}

/// A rule, in the evaluator's numbers: policy, direction, position.
pub(crate) type RuleNumber = (u32, Direction, u32);

impl Evaluator<'_> {
    /// What applies to a pod in a direction; nothing does to an address.
    pub(crate) fn applies(&self, place: &Place, direction: Direction) -> Applies {
        let Who::Pod(_) = place.who else {
            return Applies::default();
        };
        let Governing {
            admin,
            isolating,
            network: _,
            baseline,
        } = self.compiled.governing(place.class, direction);
        let name = |policy: u32| self.compiled.sources[policy as usize].name().clone();
        let of_rule = |rule: &u32| name(self.compiled.rules[*rule as usize].policy);
        Applies {
            isolating: isolating.iter().map(|policy| name(*policy)).collect(),
            of_cluster: admin.iter().chain(baseline).map(of_rule).collect(),
        }
    }

    /// Every policy with how many rules it has in each direction, by its number.
    pub(crate) fn policies(&self) -> impl Iterator<Item = (u32, &PolicyRef, [usize; 2])> {
        (0..).zip(&self.compiled.sources).map(|(number, source)| {
            let rules = Direction::ALL.map(|direction| match source {
                Source::Network(_) => source.network(direction).map_or(0, <[_]>::len),
                Source::Cluster(..) => source.of_cluster(direction).map_or(0, |(_, _, rules)| rules.len()),
            });
            (number, source.name(), rules)
        })
    }

    /// Adds the rules that mean this connection, whether or not others are asked before them.
    pub(crate) fn rules_for(
        &self,
        source: &Place,
        destination: &Place,
        port: u16,
        transport: Transport,
        rules: &mut BTreeSet<RuleNumber>,
    ) {
        for direction in Direction::ALL {
            let (subject, peer) = match direction {
                Direction::Ingress => (destination, source),
                Direction::Egress => (source, destination),
            };
            let Who::Pod(_) = subject.who else { continue };
            let Governing {
                admin,
                isolating: _,
                network,
                baseline,
            } = self.compiled.governing(subject.class, direction);
            for family in 0..2_usize {
                let Some(spot) = subject.spots[family].and(peer.spots[family]) else {
                    continue;
                };
                for number in admin.iter().chain(network).chain(baseline) {
                    let rule = &self.compiled.rules[*number as usize];
                    if self.compiled.at_port(rule, destination.class, port, transport)
                        && self.compiled.means(rule, peer.class, spot) != Match::No
                    {
                        rules.insert((rule.policy, direction, rule.index));
                    }
                }
            }
        }
    }
}
