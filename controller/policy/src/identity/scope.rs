//! The label sets of one namespace, whose they are, and whom labels select.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use nanoseg_graph::cluster::Labels;
use nanoseg_graph::endpoint::Workload;

/// Labels without the generated ones.
pub(super) type Stable<'a> = BTreeMap<&'a str, &'a str>;

/// How many of the workloads that a selector selects as well are named; the rest is counted. Each of thousands of pods with
/// one label would else name all the others.
pub(super) const NAMED: usize = 20;

/// The others that a workload's labels select as well: the first of them in order, and how many there are. Workloads with the
/// same labels share the names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Overlap {
    pub(super) named: Arc<[Arc<Workload>]>,
    count: usize,
}

impl Overlap {
    /// The first of them, in order.
    pub fn named(&self) -> impl Iterator<Item = &Workload> {
        self.named.iter().map(|workload| &**workload)
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// How many there are that are not named.
    pub fn unnamed(&self) -> usize {
        self.count.saturating_sub(self.named.len())
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, workload) in self.named().enumerate() {
            write!(f, "{}{workload}", if place == 0 { "" } else { ", " })?;
        }
        match self.unnamed() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// All workloads that certain labels select.
#[derive(Debug)]
pub(super) struct Crowd {
    /// One more than are named: any one of them leaves itself out.
    first: Vec<Arc<Workload>>,
    named: Arc<[Arc<Workload>]>,
    count: usize,
}

impl Crowd {
    /// All of them but this one.
    pub(super) fn without(&self, scope: &Scope, workload: &Workload) -> Overlap {
        let is_one = scope.is_owner(workload);
        let named = match self.named.iter().position(|known| **known == *workload) {
            Some(place) => self.first[..place]
                .iter()
                .chain(&self.first[place + 1..])
                .cloned()
                .collect(),
            None => Arc::clone(&self.named),
        };
        Overlap {
            named,
            count: self.count - usize::from(is_one),
        }
    }
}

/// Label sets of one namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// Whose each set is, in order.
    owners: Vec<Arc<Workload>>,
    sets: Vec<Arc<Labels>>,
    having: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
}

impl Scope {
    /// Takes a workload in, after all that come before it in order.
    pub(super) fn add(&mut self, owner: &Workload, sets: &BTreeSet<Stable<'_>>) {
        let owner = Arc::new(owner.clone());
        for set in sets {
            let index = self.sets.len();
            for (key, value) in set {
                let values = self.having.entry((*key).to_owned()).or_default();
                values.entry((*value).to_owned()).or_default().push(index);
            }
            self.owners.push(Arc::clone(&owner));
            self.sets.push(Arc::new(owned(set)));
        }
    }

    /// The set that was taken in last.
    pub(super) fn latest(&self) -> Option<&Arc<Labels>> {
        self.sets.last()
    }

    pub(super) fn has(&self, index: usize, key: &str, value: &str) -> bool {
        self.sets[index].get(key).is_some_and(|known| known == value)
    }

    /// Indexes of the sets that have all of these labels, in order.
    fn matching<'s>(
        &'s self,
        labels: impl Iterator<Item = (&'s str, &'s str)> + Clone + 's,
    ) -> impl Iterator<Item = usize> + 's {
        let mut rarest: Option<&[usize]> = None;
        for (key, value) in labels.clone() {
            let having = self.having.get(key).and_then(|values| values.get(value));
            let having = having.map_or(&[][..], Vec::as_slice);
            if rarest.is_none_or(|known| having.len() < known.len()) {
                rarest = Some(having);
            }
        }
        let (some, all) = match rarest {
            Some(rarest) => (rarest, 0..0),
            None => (&[][..], 0..self.sets.len()),
        };
        let has_all = move |index: &usize| labels.clone().all(|(key, value)| self.has(*index, key, value));
        some.iter().copied().chain(all).filter(has_all)
    }

    /// Sets of others that have all of these labels.
    pub(super) fn others<'s>(
        &'s self,
        workload: &'s Workload,
        labels: impl Iterator<Item = (&'s str, &'s str)> + Clone + 's,
    ) -> impl Iterator<Item = usize> + 's {
        self.matching(labels)
            .filter(move |index| *self.owners[*index] != *workload)
    }

    /// Everybody who has these labels.
    pub(super) fn selected(&self, labels: &Labels) -> BTreeSet<Workload> {
        let labels = labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        self.matching(labels)
            .map(|index| (*self.owners[index]).clone())
            .collect()
    }

    /// Everybody who has these labels, as far as they are named.
    pub(super) fn crowd(&self, labels: &Stable<'_>) -> Crowd {
        let labels = labels.iter().map(|(key, value)| (*key, *value));
        let mut first: Vec<Arc<Workload>> = Vec::new();
        let mut count = 0;
        let mut before = None;
        // The sets of one owner stand together.
        for owner in self.matching(labels).map(|index| &self.owners[index]) {
            if before.is_some_and(|before| Arc::ptr_eq(before, owner)) {
                continue;
            }
            before = Some(owner);
            count += 1;
            if first.len() <= NAMED {
                first.push(Arc::clone(owner));
            }
        }
        Crowd {
            named: first.iter().take(NAMED).cloned().collect(),
            first,
            count,
        }
    }

    /// Whether any set here is this workload's.
    fn is_owner(&self, workload: &Workload) -> bool {
        self.owners.binary_search_by(|owner| (**owner).cmp(workload)).is_ok()
    }
}

pub(super) fn owned(labels: &Stable<'_>) -> Labels {
    labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}
