//! What is known of each edge, packed: runs of learners and sets of Services are numbered, tallies are in one array.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use petgraph::graph::EdgeIndex;

use super::{EdgeKey, Evidence};
use crate::endpoint::{Endpoint, ServiceName};
use crate::flow::{Origin, Outcome, Reporter, Tally, Transport};

/// An edge of a graph: an [`EdgeKey`], lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge<'a> {
    /// The initiator.
    pub source: &'a Endpoint,
    /// The listener.
    pub destination: &'a Endpoint,
    /// The listener's own port: the target port, never the Service's.
    pub port: u16,
    /// Transport protocol.
    pub transport: Transport,
}

impl<'a> Edge<'a> {
    /// The endpoint at one end.
    pub const fn end(self, end: Reporter) -> &'a Endpoint {
        match end {
            Reporter::Source => self.source,
            Reporter::Destination => self.destination,
        }
    }

    /// The same, owned.
    pub fn key(self) -> EdgeKey {
        EdgeKey {
            source: self.source.clone(),
            destination: self.destination.clone(),
            port: self.port,
            transport: self.transport,
        }
    }
}

/// What a graph knows of an edge: an [`Evidence`], lent.
#[derive(Clone, Copy, Debug)]
pub struct EvidenceRef<'a> {
    all: &'a Links,
    first: u32,
    number: u32,
    sum: Sum,
    /// Services through which the source reached the destination.
    pub via: &'a BTreeSet<ServiceName>,
}

impl<'a> EvidenceRef<'a> {
    /// Every tally and who told it, ordered by reporter and origin.
    pub fn tallies(self) -> impl Iterator<Item = (Reporter, &'a Origin, Tally)> {
        let all = self.all;
        let teller = |by: Teller| (by.reporter(), &*all.origins[by.origin()]);
        all.told(self.first).map(move |told| {
            let (reporter, origin) = teller(told.by);
            (reporter, origin, told.tally())
        })
    }

    /// Which ends reported the edge.
    pub fn reporters(self) -> BTreeSet<Reporter> {
        self.all.told(self.first).map(|told| told.by.reporter()).collect()
    }

    /// Whether this end reported the edge.
    pub const fn reported_by(self, reporter: Reporter) -> bool {
        self.sum.reporters & Sum::bit(reporter) != 0
    }

    /// The number of its set of Services: sets of one graph have the same number exactly if they are equal.
    pub const fn via_number(self) -> u32 {
        self.number
    }

    /// All of what one end counted, over every origin; `None` when that end never reported.
    pub fn tally(self, reporter: Reporter) -> Option<Tally> {
        let mut told = self.all.told(self.first).filter(|told| told.by.reporter() == reporter);
        let mut sum = told.next()?.tally();
        for told in told {
            sum.add(&told.tally());
        }
        Some(sum)
    }

    /// The best that any end saw happen.
    pub const fn outcome(self) -> Outcome {
        self.sum.best
    }

    /// The same, owned.
    pub fn to_evidence(self) -> Evidence {
        Evidence {
            tallies: self
                .tallies()
                .map(|(reporter, origin, tally)| ((reporter, origin.clone()), tally))
                .collect(),
            via: self.via.clone(),
        }
    }
}

impl PartialEq for EvidenceRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.via == other.via && self.tallies().eq(other.tallies())
    }
}

impl Eq for EvidenceRef<'_> {}

/// No entry follows.
const END: u32 = u32::MAX;

/// Who told: the number of an origin, twice, and one more where it was the destination's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Teller(u32);

impl Teller {
    const fn new(reporter: Reporter, origin: u32) -> Self {
        Self(origin << 1 | matches!(reporter, Reporter::Destination) as u32)
    }

    const fn reporter(self) -> Reporter {
        if self.0 & 1 == 0 {
            Reporter::Source
        } else {
            Reporter::Destination
        }
    }

    const fn origin(self) -> usize {
        (self.0 >> 1) as usize
    }
}

/// One tally of one edge, and where the edge's next one is. Of a large graph most memory is this, so the parts of the two times
/// lie where they leave no gaps, and more than four thousand million refusals or silences are told as that many.
#[derive(Clone, Debug)]
struct Told {
    first_second: i64,
    last_second: i64,
    attempted: u64,
    established: u64,
    refused: u32,
    unanswered: u32,
    first_nanosecond: i32,
    last_nanosecond: i32,
    by: Teller,
    next: u32,
}

impl Told {
    fn new(tally: &Tally, by: Teller, next: u32) -> Self {
        let Tally {
            first_seen,
            last_seen,
            attempted,
            established,
            refused,
            unanswered,
        } = *tally;
        let at_most = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            first_second: first_seen.as_second(),
            last_second: last_seen.as_second(),
            attempted,
            established,
            refused: at_most(refused),
            unanswered: at_most(unanswered),
            first_nanosecond: first_seen.subsec_nanosecond(),
            last_nanosecond: last_seen.subsec_nanosecond(),
            by,
            next,
        }
    }

    fn tally(&self) -> Tally {
        // They came from times, so they are some.
        let time = |second, nanosecond| Timestamp::new(second, nanosecond).unwrap_or_default();
        Tally {
            first_seen: time(self.first_second, self.first_nanosecond),
            last_seen: time(self.last_second, self.last_nanosecond),
            attempted: self.attempted,
            established: self.established,
            refused: self.refused.into(),
            unanswered: self.unanswered.into(),
        }
    }
}

/// What most questions are about, so that the tallies themselves need not be looked at: a large graph is not in the cache.
#[derive(Clone, Copy, Debug)]
struct Sum {
    /// A bit for each end that told.
    reporters: u8,
    /// The best that any end saw happen: counts only grow, and so does this.
    best: Outcome,
}

impl Sum {
    const fn bit(reporter: Reporter) -> u8 {
        match reporter {
            Reporter::Source => 1,
            Reporter::Destination => 2,
        }
    }

    fn tell(&mut self, reporter: Reporter, tally: &Tally) {
        self.reporters |= Self::bit(reporter);
        self.best = self.best.max(tally.outcome());
    }
}

/// An edge's first tally, its set of Services, and what its tallies come to.
#[derive(Clone, Copy, Debug)]
struct Link {
    first: u32,
    via: u32,
    sum: Sum,
}

/// What is known of every edge, by its index.
#[derive(Clone, Debug)]
pub(super) struct Links {
    edges: Vec<Link>,
    told: Vec<Told>,
    origins: Vec<Arc<Origin>>,
    origin_numbers: BTreeMap<Arc<Origin>, u32>,
    vias: Vec<Arc<BTreeSet<ServiceName>>>,
    via_numbers: BTreeMap<Arc<BTreeSet<ServiceName>>, u32>,
}

impl Default for Links {
    fn default() -> Self {
        let none: Arc<BTreeSet<ServiceName>> = Arc::default();
        Self {
            edges: Vec::new(),
            told: Vec::new(),
            origins: Vec::new(),
            origin_numbers: BTreeMap::new(),
            vias: vec![Arc::clone(&none)],
            via_numbers: [(none, 0)].into(),
        }
    }
}

impl Links {
    /// Makes room for the next edge.
    pub(super) fn begin(&mut self) {
        self.edges.push(Link {
            first: END,
            via: 0,
            sum: Sum {
                reporters: 0,
                best: Outcome::Attempted,
            },
        });
    }

    pub(super) fn evidence(&self, index: EdgeIndex) -> EvidenceRef<'_> {
        let Link { first, via, sum } = self.edges[index.index()];
        EvidenceRef {
            all: self,
            first,
            number: via,
            sum,
            via: &self.vias[via as usize],
        }
    }

    pub(super) fn via_count(&self) -> usize {
        self.vias.len()
    }

    /// Adds Services through which an edge was reached.
    pub(super) fn reach(&mut self, index: EdgeIndex, services: &BTreeSet<ServiceName>) {
        let known = &self.vias[self.edges[index.index()].via as usize];
        if services.is_subset(known) {
            return;
        }
        if known.is_empty() {
            self.edges[index.index()].via = self.via(services);
        } else {
            let both = known.union(services).cloned().collect();
            self.edges[index.index()].via = self.via(&both);
        }
    }

    /// Adds a Service through which an edge was reached.
    pub(super) fn reach_one(&mut self, index: EdgeIndex, service: &ServiceName) {
        if !self.vias[self.edges[index.index()].via as usize].contains(service) {
            self.reach(index, &[service.clone()].into());
        }
    }

    /// Puts tallies, which are in order, among those of an edge; `same` makes one of two of the same origin.
    pub(super) fn tell<'a>(
        &mut self,
        index: EdgeIndex,
        tallies: impl IntoIterator<Item = (Reporter, &'a Origin, Tally)>,
        same: impl Fn(&mut Tally, &Tally),
    ) {
        let mut before = END;
        for (reporter, origin, tally) in tallies {
            let by = Teller::new(reporter, self.origin(origin));
            let mut at = match before {
                END => self.edges[index.index()].first,
                before => self.told[before as usize].next,
            };
            let mut order = Ordering::Greater;
            while at != END {
                let known = &self.told[at as usize];
                order = if known.by == by {
                    Ordering::Equal
                } else {
                    let origin = |by: Teller| &self.origins[by.origin()];
                    let known = known.by;
                    (known.reporter(), origin(known)).cmp(&(by.reporter(), origin(by)))
                };
                if order != Ordering::Less {
                    break;
                }
                before = at;
                at = known.next;
            }
            if at != END && order == Ordering::Equal {
                let known = &mut self.told[at as usize];
                let mut both = known.tally();
                same(&mut both, &tally);
                *known = Told::new(&both, by, known.next);
                self.edges[index.index()].sum.tell(reporter, &both);
                before = at;
                continue;
            }
            self.edges[index.index()].sum.tell(reporter, &tally);
            let new = number(self.told.len());
            self.told.push(Told::new(&tally, by, at));
            match before {
                END => self.edges[index.index()].first = new,
                before => self.told[before as usize].next = new,
            }
            before = new;
        }
    }

    fn told(&self, first: u32) -> impl Iterator<Item = &Told> {
        let at = |index: u32| self.told.get(index as usize);
        std::iter::successors(at(first), move |told| at(told.next))
    }

    fn origin(&mut self, origin: &Origin) -> u32 {
        if let Some(number) = self.origin_numbers.get(origin) {
            return *number;
        }
        let new = number(self.origins.len());
        let origin = Arc::new(origin.clone());
        self.origins.push(Arc::clone(&origin));
        self.origin_numbers.insert(origin, new);
        new
    }

    fn via(&mut self, services: &BTreeSet<ServiceName>) -> u32 {
        if let Some(number) = self.via_numbers.get(services) {
            return *number;
        }
        let new = number(self.vias.len());
        let services = Arc::new(services.clone());
        self.vias.push(Arc::clone(&services));
        self.via_numbers.insert(services, new);
        new
    }
}

/// Four thousand million tallies are more than 250 GiB: memory ends long before numbers do.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(END)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_of_which_both_ends_told_is_small() {
        // petgraph's own edge has two ends and two successors; the index may be half empty and has a byte beside each entry.
        let graph = 4 * size_of::<u32>() + size_of::<(u16, Transport)>();
        let index = 2 * (size_of::<u32>() + 1);
        let all = graph + index + size_of::<Link>() + 2 * size_of::<Told>();
        assert!(all <= 160, "{all} bytes");
    }
}
