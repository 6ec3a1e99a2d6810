//! Two places, a port and a transport to a decision, without a word.

use std::collections::{BTreeSet, HashMap};

use nanoseg_graph::flow::Transport;
use rustc_hash::FxBuildHasher;

use super::classes::Match;
use super::compiled::{Compiled, Governing, NONE, Rule};
use super::place::{Place, Who};
use super::policy::Action;
use super::space::{SOMEWHERE, Spot};
use crate::direction::Direction;

/// Pairs that are remembered at most: at some 40 bytes each with the rules that mean them this is about 50 MiB, and holds the
/// pairs of a thousand kinds of pods that all talk to each other.
const REMEMBERED: usize = 1 << 20;

/// What is known of a connection without a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ruling {
    /// It works.
    Allowed,
    /// It is refused.
    Denied,
    /// Not decidable.
    Unknown,
}

/// What decides a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    NotIsolated,
    SamePod,
    OwnNode,
    /// A rule that allows.
    Allowed(u32),
    /// A rule that denies.
    Denied(u32),
    /// Isolated, and no rule allows.
    NoRule,
    NoCommonFamily,
    FamiliesDiffer,
    HostNetworkSubject,
    HostNetworkPeer,
    /// A rule that means some addresses, and which address the peer will have is not known.
    AddressDecides(u32),
    /// A rule that means names in DNS.
    Domains(u32),
    /// Rules of two policies of one priority that do not agree.
    SamePriority(u32, u32),
    /// No rule can name it.
    Icmp,
}

impl Outcome {
    pub(super) const fn ruling(self) -> Ruling {
        match self {
            Self::NotIsolated | Self::SamePod | Self::OwnNode | Self::Allowed(_) => Ruling::Allowed,
            Self::Denied(_) | Self::NoRule => Ruling::Denied,
            Self::NoCommonFamily
            | Self::FamiliesDiffer
            | Self::HostNetworkSubject
            | Self::HostNetworkPeer
            | Self::AddressDecides(_)
            | Self::Domains(_)
            | Self::SamePriority(..)
            | Self::Icmp => Ruling::Unknown,
        }
    }
}

/// A decision for each direction. Its words come from [`super::Evaluator::explain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    pub(super) egress: Outcome,
    pub(super) ingress: Outcome,
}

impl Decision {
    /// Of one direction.
    pub const fn direction(self, direction: Direction) -> Ruling {
        match direction {
            Direction::Ingress => self.ingress.ruling(),
            Direction::Egress => self.egress.ruling(),
        }
    }

    /// Of both together: one denial denies, whatever the other end says; after that, what one end leaves open stays open.
    pub const fn combined(self) -> Ruling {
        match (self.egress.ruling(), self.ingress.ruling()) {
            (Ruling::Denied, _) | (_, Ruling::Denied) => Ruling::Denied,
            (Ruling::Unknown, _) | (_, Ruling::Unknown) => Ruling::Unknown,
            (Ruling::Allowed, Ruling::Allowed) => Ruling::Allowed,
        }
    }

    /// What was decided for each direction on its own.
    pub(crate) const fn of(egress: Outcome, ingress: Outcome) -> Self {
        Self { egress, ingress }
    }

    /// Whether the ends have no address family in common: there is no such connection.
    pub const fn is_impossible(self) -> bool {
        matches!(self.egress, Outcome::NoCommonFamily)
    }
}

/// A rule whose peers mean a place.
#[derive(Clone, Copy, Debug)]
struct Meant {
    rule: u32,
    /// It depends on what is not known here.
    perhaps: bool,
}

/// Which rules mean a pair: places in [`Memory::meant`].
#[derive(Clone, Copy, Debug)]
struct Pair {
    admin: u32,
    network: u32,
    baseline: u32,
    end: u32,
}

/// Subject's class and direction, peer's class and spot.
type PairKey = (u64, u64);

/// What was looked at already.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pairs: HashMap<PairKey, Pair, FxBuildHasher>,
    meant: Vec<Meant>,
    /// The rules of the latest pair that was not remembered.
    once: Vec<Meant>,
}

/// The side of a connection that policies select, and the other side.
struct Sides<'a> {
    direction: Direction,
    subject: &'a Place,
    peer: &'a Place,
    port: u16,
    transport: Transport,
}

impl Sides<'_> {
    /// The pod whose declared ports a name means; an address outside the cluster declares none.
    const fn listener(&self) -> u32 {
        match self.direction {
            Direction::Ingress => self.subject.class,
            Direction::Egress => self.peer.class,
        }
    }

    /// Whether the peer is on the network of the node that the subject runs on.
    const fn is_own_node(&self) -> bool {
        self.subject.runs_on != NONE && self.peer.on_network_of == self.subject.runs_on
    }
}

/// The questions that a tier asks of the rules that mean a pair.
struct Asked<'a, 'b> {
    compiled: &'b Compiled<'a>,
    meant: &'b [Meant],
    listener: u32,
    port: u16,
    transport: Transport,
    peer: &'b Place,
    spot: Spot,
}

/// Whether the rules that mean a pair are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// The pair will be asked about at other ports, or again.
    Often,
    /// It will hardly be: only the rules at the port are looked at.
    Once,
}

pub(super) fn decide(
    compiled: &Compiled<'_>,
    memory: &mut Memory,
    asks: Asks,
    source: &Place,
    destination: &Place,
    port: u16,
    transport: Transport,
) -> Decision {
    let mut of = |direction| {
        decide_side(
            compiled,
            memory,
            asks,
            direction,
            [source, destination],
            port,
            transport,
        )
    };
    Decision {
        egress: of(Direction::Egress),
        ingress: of(Direction::Ingress),
    }
}

/// One direction of it.
pub(super) fn decide_side(
    compiled: &Compiled<'_>,
    memory: &mut Memory,
    asks: Asks,
    direction: Direction,
    [source, destination]: [&Place; 2],
    port: u16,
    transport: Transport,
) -> Outcome {
    let (subject, peer) = match direction {
        Direction::Ingress => (destination, source),
        Direction::Egress => (source, destination),
    };
    let sides = Sides {
        direction,
        subject,
        peer,
        port,
        transport,
    };
    side(compiled, memory, asks, &sides)
}

/// The ports at which the decision about two places may change.
pub(super) fn port_starts(
    compiled: &Compiled<'_>,
    memory: &mut Memory,
    source: &Place,
    destination: &Place,
    transport: Transport,
    starts: &mut BTreeSet<u16>,
) {
    for direction in Direction::ALL {
        let (subject, peer) = match direction {
            Direction::Ingress => (destination, source),
            Direction::Egress => (source, destination),
        };
        let Who::Pod(_) = subject.who else { continue };
        let sides = Sides {
            direction,
            subject,
            peer,
            port: 0,
            transport,
        };
        let governing = compiled.governing(subject.class, direction);
        for spot in (0..2).filter_map(|family: usize| subject.spots[family].and(peer.spots[family])) {
            let pair = memory.pair(compiled, governing, &sides, spot);
            for meant in &memory.meant[pair.admin as usize..pair.end as usize] {
                let rule = &compiled.rules[meant.rule as usize];
                starts.extend(compiled.port_starts(rule, destination.class, transport));
            }
        }
    }
}

fn side(compiled: &Compiled<'_>, memory: &mut Memory, asks: Asks, sides: &Sides<'_>) -> Outcome {
    let [v4, v6] = [0, 1].map(|family: usize| sides.subject.spots[family].and(sides.peer.spots[family]));
    let (first, second) = match (v4, v6) {
        (None, None) => return Outcome::NoCommonFamily,
        (Some(first), second) => (first, second),
        (None, Some(first)) => (first, None),
    };
    let Who::Pod(subject) = sides.subject.who else {
        return Outcome::NotIsolated;
    };
    let governing = compiled.governing(sides.subject.class, sides.direction);
    if governing.is_empty() {
        return Outcome::NotIsolated;
    }
    if sides.peer.who == Who::Pod(subject) {
        return Outcome::SamePod;
    }
    if compiled.classes[sides.subject.class as usize].host_network {
        return Outcome::HostNetworkSubject;
    }
    if sides.transport == Transport::Icmp {
        return Outcome::Icmp;
    }
    let first = by_tiers(compiled, memory, asks, governing, sides, first);
    let Some(second) = second else { return first };
    let second = by_tiers(compiled, memory, asks, governing, sides, second);
    // Where the address decides it decides the family as well.
    if let Some(decides) = [first, second]
        .into_iter()
        .find(|outcome| matches!(outcome, Outcome::AddressDecides(_)))
    {
        return decides;
    }
    if first.ruling() == second.ruling() {
        first
    } else {
        Outcome::FamiliesDiffer
    }
}

/// What the tiers say of a peer at this spot, one after the other.
fn by_tiers(
    compiled: &Compiled<'_>,
    memory: &mut Memory,
    asks: Asks,
    governing: &Governing,
    sides: &Sides<'_>,
    spot: Spot,
) -> Outcome {
    if asks == Asks::Once && governing.admin.is_empty() && !governing.isolating.is_empty() {
        return by_network_policies(compiled, governing, sides, spot);
    }
    let (pair, meant) = match asks {
        Asks::Often => (memory.pair(compiled, governing, sides, spot), &memory.meant),
        Asks::Once => (memory.pair_at_port(compiled, governing, sides, spot), &memory.once),
    };
    let part = |from: u32, to: u32| &meant[from as usize..to as usize];
    let listener = sides.listener();
    let asked = |meant| Asked {
        compiled,
        meant,
        listener,
        port: sides.port,
        transport: sides.transport,
        peer: sides.peer,
        spot,
    };
    let baseline = || asked(part(pair.baseline, pair.end)).first_that_fits(&|| Outcome::NotIsolated);
    let network = || {
        if governing.isolating.is_empty() {
            return baseline();
        }
        if sides.is_own_node() {
            return Outcome::OwnNode;
        }
        let asked = asked(part(pair.network, pair.baseline));
        let fitting = asked.meant.iter().copied().filter(|meant| asked.fits(*meant));
        any_that_allows(fitting, |rule| asked.open(rule))
    };
    asked(part(pair.admin, pair.network)).first_that_fits(&network)
}

/// What `NetworkPolicies` that isolate say where nothing comes before them: they end at the first rule that allows.
fn by_network_policies(compiled: &Compiled<'_>, governing: &Governing, sides: &Sides<'_>, spot: Spot) -> Outcome {
    if sides.is_own_node() {
        return Outcome::OwnNode;
    }
    let fitting = governing.network.iter().filter_map(|number| {
        let matched = matched_at_port(compiled, sides, spot, &compiled.rules[*number as usize]);
        (matched != Match::No).then_some(Meant {
            rule: *number,
            perhaps: matched == Match::Perhaps,
        })
    });
    any_that_allows(fitting, |rule| open(compiled, sides.peer, spot, rule))
}

/// Whether a rule fits at the port of the question, and means its peer.
fn matched_at_port(compiled: &Compiled<'_>, sides: &Sides<'_>, spot: Spot, rule: &Rule) -> Match {
    if compiled.at_port(rule, sides.listener(), sides.port, sides.transport) {
        compiled.means(rule, sides.peer.class, spot)
    } else {
        Match::No
    }
}

/// The rules of `NetworkPolicies` add up: the first of those that fit allows, and one that perhaps fits leaves it open.
fn any_that_allows(fitting: impl Iterator<Item = Meant>, open: impl FnOnce(u32) -> Outcome) -> Outcome {
    let mut perhaps = None;
    for meant in fitting {
        if !meant.perhaps {
            return Outcome::Allowed(meant.rule);
        }
        perhaps = perhaps.or(Some(meant.rule));
    }
    perhaps.map_or(Outcome::NoRule, open)
}

/// Why a rule that perhaps fits leaves the answer open.
fn open(compiled: &Compiled<'_>, peer: &Place, spot: Spot, rule: u32) -> Outcome {
    let on_host = compiled
        .classes
        .get(peer.class as usize)
        .is_some_and(|class| class.host_network);
    if SOMEWHERE.contains(&spot) && !on_host {
        Outcome::AddressDecides(rule)
    } else if peer.class == NONE {
        Outcome::Domains(rule)
    } else {
        Outcome::HostNetworkPeer
    }
}

impl Pair {
    /// Puts the rules that match at the end of `meant`.
    fn of(
        compiled: &Compiled<'_>,
        governing: &Governing,
        meant: &mut Vec<Meant>,
        matched: impl Fn(&Rule) -> Match,
    ) -> Self {
        let mut part = |rules: &[u32]| {
            let start = u32::try_from(meant.len()).unwrap_or(NONE);
            for number in rules {
                let matched = matched(&compiled.rules[*number as usize]);
                if matched != Match::No {
                    meant.push(Meant {
                        rule: *number,
                        perhaps: matched == Match::Perhaps,
                    });
                }
            }
            start
        };
        Self {
            admin: part(&governing.admin),
            network: part(&governing.network),
            baseline: part(&governing.baseline),
            end: part(&[]),
        }
    }
}

impl Memory {
    fn pair(&mut self, compiled: &Compiled<'_>, governing: &Governing, sides: &Sides<'_>, spot: Spot) -> Pair {
        let direction = match sides.direction {
            Direction::Ingress => 0,
            Direction::Egress => 1_u64 << 32,
        };
        let key = (
            u64::from(sides.subject.class) | direction,
            u64::from(sides.peer.class) << 32 | u64::from(spot),
        );
        if let Some(pair) = self.pairs.get(&key) {
            return *pair;
        }
        if self.pairs.len() >= REMEMBERED || self.meant.len() >= REMEMBERED {
            self.pairs.clear();
            self.meant.clear();
        }
        let matched = |rule: &Rule| compiled.means(rule, sides.peer.class, spot);
        let pair = Pair::of(compiled, governing, &mut self.meant, matched);
        self.pairs.insert(key, pair);
        pair
    }

    /// The same at the port of the question alone, and not remembered: of many rules few are about a port.
    fn pair_at_port(&mut self, compiled: &Compiled<'_>, governing: &Governing, sides: &Sides<'_>, spot: Spot) -> Pair {
        self.once.clear();
        let matched = |rule: &Rule| matched_at_port(compiled, sides, spot, rule);
        Pair::of(compiled, governing, &mut self.once, matched)
    }
}

impl Asked<'_, '_> {
    fn rule(&self, meant: Meant) -> &Rule {
        &self.compiled.rules[meant.rule as usize]
    }

    fn fits(&self, meant: Meant) -> bool {
        self.compiled
            .at_port(self.rule(meant), self.listener, self.port, self.transport)
    }

    /// In a tier of the cluster's policies the first rule that fits decides; what none decides is left to what comes `next`.
    fn first_that_fits(&self, next: &dyn Fn() -> Outcome) -> Outcome {
        let mut rest = self.meant;
        // What rules that perhaps fit would make of it: no difference, if what follows makes the same of it.
        let mut perhaps: Vec<(u32, Ruling)> = Vec::new();
        while let Some(leader) = rest.first() {
            let priority = self.rule(*leader).priority;
            let others = rest.iter().position(|meant| self.rule(*meant).priority != priority);
            let (equals, behind) = rest.split_at(others.unwrap_or(rest.len()));
            rest = behind;
            // Which of two policies of one priority is asked first is anybody's choice.
            let mut decided: Option<Meant> = None;
            let mut contrary: Option<Meant> = None;
            let mut speaker = None;
            for meant in equals.iter().copied() {
                let rule = self.rule(meant);
                if speaker == Some(rule.policy) || !self.fits(meant) {
                    continue;
                }
                if meant.perhaps {
                    perhaps.push((meant.rule, self.acts(meant, next).ruling()));
                    continue;
                }
                speaker = Some(rule.policy);
                match decided {
                    None => decided = Some(meant),
                    Some(first) if self.rule(first).action != rule.action => contrary = contrary.or(Some(meant)),
                    Some(_) => {}
                }
            }
            if let Some(first) = decided {
                let outcome = self.acts(first, next);
                let agreed = match contrary.map(|other| (other, self.acts(other, next))) {
                    Some((other, second)) if second.ruling() != outcome.ruling() => {
                        Outcome::SamePriority(first.rule, other.rule)
                    }
                    _ => outcome,
                };
                return self.certain(&perhaps, agreed);
            }
        }
        self.certain(&perhaps, next())
    }

    /// An outcome that holds whether or not the rules that perhaps fit do.
    fn certain(&self, perhaps: &[(u32, Ruling)], otherwise: Outcome) -> Outcome {
        let contrary = perhaps.iter().find(|(_, ruling)| *ruling != otherwise.ruling());
        contrary.map_or(otherwise, |(rule, _)| self.open(*rule))
    }

    fn open(&self, rule: u32) -> Outcome {
        open(self.compiled, self.peer, self.spot, rule)
    }

    fn acts(&self, meant: Meant, next: &dyn Fn() -> Outcome) -> Outcome {
        match self.rule(meant).action {
            Action::Accept => Outcome::Allowed(meant.rule),
            Action::Deny => Outcome::Denied(meant.rule),
            Action::Pass => next(),
        }
    }
}
