//! Labels that cannot grow.
//!
//! Law: however many different values are offered in one run, at most the bound of them are used, and [`OTHER`].

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// What stands for every value beyond the bound. No name of Kubernetes begins with `_`.
pub const OTHER: &str = "_other";

/// Values that a label may have: the first ones that were offered.
#[derive(Debug)]
pub struct Bounded<T> {
    most: usize,
    known: Mutex<BTreeSet<T>>,
}

impl<T: Ord + Clone> Bounded<T> {
    /// At most this many.
    pub const fn new(most: usize) -> Self {
        Self {
            most,
            known: Mutex::new(BTreeSet::new()),
        }
    }

    /// Whether a value may be used. The answer for one value never changes.
    pub fn admits(&self, value: &T) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(value) || (known.len() < self.most && known.insert(value.clone()))
    }
}
