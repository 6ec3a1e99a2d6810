//! The changes of one kind as a person reads them: put together by the end whose policies decide, and by ports.
//!
//! Law: each change is told in exactly one line, and the lines tell nothing else.

use std::collections::BTreeMap;
use std::fmt::{self, Display as _};

use nanoseg_graph::flow::Transport;

use super::{Change, Diff, Party};
use crate::direction::{Direction, ports_in_words};
use crate::evaluate::{AllowedBy, Cause, Verdict};

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Denied before, allowed now.
    Opened,
    /// Allowed before, denied now.
    Closed,
    /// Not decidable before or now.
    Unclear,
}

impl Kind {
    /// Every kind, in the order in which they are told.
    pub const ALL: [Self; 3] = [Self::Opened, Self::Closed, Self::Unclear];

    /// In one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Unclear => "unclear",
        }
    }
}

impl Diff {
    /// The changes of one kind.
    pub fn of(&self, kind: Kind) -> &[Change] {
        match kind {
            Kind::Opened => &self.opened,
            Kind::Closed => &self.closed,
            Kind::Unclear => &self.unclear,
        }
    }

    /// Every change, and of which kind it is.
    pub fn all(&self) -> impl Iterator<Item = (Kind, &Change)> {
        Kind::ALL
            .into_iter()
            .flat_map(|kind| self.of(kind).iter().map(move |change| (kind, change)))
    }
}

/// Changes that have an end in common, and what denies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What becomes of them.
    pub kind: Kind,
    /// Whether the common end listens or connects.
    pub direction: Direction,
    /// The common end.
    pub subject: Party,
    /// What denies there. Of what opens, what allows it is told, and not what denied it.
    pub cause: Option<Cause>,
    /// The changes, by ports.
    pub lines: Vec<Line>,
}

/// Other ends of which the same changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// At which ports of the listener.
    pub ports: PortSet,
    /// The other ends.
    pub others: Vec<Other>,
    /// What allows: now or, of what is denied now, before. None where no policy applies.
    pub allowed: Vec<AllowedBy>,
    /// Why it cannot be said, of one of them.
    pub unknown: Option<String>,
}

/// The other end of a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Other {
    /// Who it is.
    pub party: Party,
    /// How many pairs of ends it is about.
    pub pairs: usize,
    /// How many pairs of these parties there are.
    pub of: usize,
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.party.fmt(f)?;
        if self.pairs < self.of {
            write!(f, " ({} of {} pairs)", self.pairs, self.of)?;
        }
        Ok(())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.direction, self.subject)?;
        match &self.cause {
            Some(cause) => write!(f, " is {cause}"),
            None => Ok(()),
        }
    }
}

impl Line {
    /// The line in words.
    pub fn told(&self, group: &Group) -> String {
        let preposition = match group.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let mut told = format!("{} {preposition} {}", self.ports, joined(&self.others, ", "));
        let by = joined(&self.allowed, "; ");
        match group.kind {
            Kind::Opened if by.is_empty() => told.push_str(": no policy applies any more"),
            Kind::Opened => told = format!("{told}: {by}"),
            Kind::Closed if !by.is_empty() => told = format!("{told}: allowed until then by {by}"),
            Kind::Closed | Kind::Unclear => {}
        }
        match &self.unknown {
            Some(why) => format!("{told}: {why}"),
            None => told,
        }
    }
}

fn joined<T: fmt::Display>(items: &[T], between: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

/// Ports of every transport protocol that policies speak of, as ranges that neither touch nor overlap, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortSet(BTreeMap<Transport, Vec<(u16, u16)>>);

impl PortSet {
    /// Adds ports of which none is in it yet; or says that it does not.
    fn add(&mut self, transport: Transport, ports: (u16, u16)) -> bool {
        let ranges = self.0.entry(transport).or_default();
        if ranges.iter().any(|known| known.0 <= ports.1 && ports.0 <= known.1) {
            return false;
        }
        ranges.push(ports);
        ranges.sort_unstable();
        ranges.dedup_by(|next, before| {
            let touches = before.1.checked_add(1) == Some(next.0);
            if touches {
                before.1 = next.1;
            }
            touches
        });
        true
    }

    /// Every range, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (Transport, (u16, u16))> {
        self.0
            .iter()
            .flat_map(|(transport, ranges)| ranges.iter().map(|ports| (*transport, *ports)))
    }

    /// All other ports.
    fn others(&self) -> Self {
        let mut others = Self::default();
        for transport in Transport::OF_POLICIES {
            let mut next = Some(1);
            for (first, last) in self.0.get(&transport).into_iter().flatten() {
                if let Some(from) = next.filter(|from| from < first) {
                    others.add(transport, (from, first - 1));
                }
                next = last.checked_add(1);
            }
            if let Some(from) = next {
                others.add(transport, (from, u16::MAX));
            }
        }
        others
    }

    fn list(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (transport, ports)) in self.ranges().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            ports_in_words(transport, ports.0, ports.1).fmt(f)?;
        }
        Ok(())
    }
}

/// Whichever is shorter: those that are in it or those that are not.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others = self.others();
        // Two whole protocols are not all ports but a third.
        let is_for_all = others.ranges().all(|(_, ports)| ports != (1, u16::MAX));
        match (others.ranges().count(), self.ranges().count()) {
            (0, _) => f.write_str("all ports"),
            (other, own) if other < own && is_for_all => {
                f.write_str("all ports but ")?;
                others.list(f)
            }
            _ => self.list(f),
        }
    }
}

/// Puts changes together. The subject of each is the end that denies it; where both do, the one that denies more.
pub fn summary(diff: &Diff) -> Vec<Group> {
    Kind::ALL
        .into_iter()
        .flat_map(|kind| of_kind(kind, diff.of(kind)))
        .collect()
}

/// Where changes are put: which end, who, and what denies there.
type Place<'a> = (&'a Party, Direction, Option<&'a Cause>);
/// Whose ports are put together: the other end, and what allows.
type Who<'a> = (Other, &'a [AllowedBy]);
/// Ports, and what stands in the way of an answer at one of them.
type Ports = (PortSet, Option<String>);

fn of_kind(kind: Kind, changes: &[Change]) -> Vec<Group> {
    let mut weights: BTreeMap<Place<'_>, usize> = BTreeMap::new();
    for place in changes.iter().flat_map(|change| places(kind, change)) {
        *weights.entry(place).or_default() += 1;
    }
    let mut groups: BTreeMap<Place<'_>, BTreeMap<Who<'_>, Vec<Ports>>> = BTreeMap::new();
    for change in changes {
        let mut places = places(kind, change);
        // Of two that are alike the first.
        places.sort_by_key(|place| std::cmp::Reverse(weights.get(place).copied()));
        let Some(place) = places.into_iter().next() else {
            continue;
        };
        let other = match place.1 {
            Direction::Ingress => &change.source,
            Direction::Egress => &change.destination,
        };
        let who = (
            Other {
                party: other.clone(),
                pairs: change.pairs,
                of: change.of,
            },
            allowed(kind, change),
        );
        // The same ports again are of other pods of the same two.
        let known = groups.entry(place).or_default().entry(who).or_default();
        let taken = known
            .iter_mut()
            .find_map(|ports| ports.0.add(change.transport, change.ports).then_some(&mut ports.1));
        if let Some(why) = taken {
            *why = why.take().or_else(|| unknown(change));
        } else {
            let mut ports = PortSet::default();
            ports.add(change.transport, change.ports);
            known.push((ports, unknown(change)));
        }
    }
    groups
        .into_iter()
        .map(|((subject, direction, cause), whos)| Group {
            kind,
            direction,
            subject: subject.clone(),
            cause: cause.cloned(),
            lines: lines(whos),
        })
        .collect()
}

fn lines(whos: BTreeMap<Who<'_>, Vec<Ports>>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let all = whos
        .into_iter()
        .flat_map(|(who, all)| all.into_iter().map(move |ports| (who.clone(), ports)));
    for ((other, allowed), (ports, unknown)) in all {
        let alike = |line: &&mut Line| {
            line.ports == ports && line.allowed == allowed && line.unknown.is_some() == unknown.is_some()
        };
        match lines.iter_mut().find(alike) {
            Some(line) => line.others.push(other),
            None => lines.push(Line {
                ports,
                others: vec![other],
                allowed: allowed.to_vec(),
                unknown,
            }),
        }
    }
    lines
}

/// Where a change may be put: at the ends that deny it, or at its listener.
fn places(kind: Kind, change: &Change) -> Vec<Place<'_>> {
    let verdicts = match kind {
        Kind::Opened => [Some(&change.before), None],
        Kind::Closed => [Some(&change.after), None],
        Kind::Unclear => [Some(&change.after), Some(&change.before)],
    };
    let party = |direction| match direction {
        Direction::Ingress => &change.destination,
        Direction::Egress => &change.source,
    };
    let denials = verdicts.into_iter().flatten().find_map(|verdict| match verdict {
        Verdict::Denied(denials) => Some(denials.iter()),
        Verdict::Allowed(_) | Verdict::NotIsolated | Verdict::Unknown(_) => None,
    });
    let places: Vec<_> = denials
        .into_iter()
        .flatten()
        .map(|denial| {
            (
                party(denial.direction),
                denial.direction,
                (kind != Kind::Opened).then_some(&denial.cause),
            )
        })
        .collect();
    if places.is_empty() {
        vec![(&change.destination, Direction::Ingress, None)]
    } else {
        places
    }
}

fn allowed(kind: Kind, change: &Change) -> &[AllowedBy] {
    let verdict = match kind {
        Kind::Opened => &change.after,
        Kind::Closed => &change.before,
        Kind::Unclear => return &[],
    };
    match verdict {
        Verdict::Allowed(by) => by,
        Verdict::NotIsolated | Verdict::Denied(_) | Verdict::Unknown(_) => &[],
    }
}

fn unknown(change: &Change) -> Option<String> {
    match (&change.before, &change.after) {
        (Verdict::Unknown(why), _) => Some(format!("not known before, {why}")),
        (_, Verdict::Unknown(why)) => Some(format!("not known now, {why}")),
        _ => None,
    }
}
