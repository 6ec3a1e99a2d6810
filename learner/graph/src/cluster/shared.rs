//! What many objects have in common, held once: the replicas of a workload differ in little but their names.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::{ContainerPort, Image, Labels, OwnerRef, Pod};

/// Values of one kind, each once.
#[derive(Debug)]
pub(super) struct Pool<T: ?Sized> {
    known: HashSet<Arc<T>>,
    /// At this size those that nobody uses any more are thrown out.
    sweep_at: usize,
}

/// Sweeping a smaller pool is not worth it.
const SMALL: usize = 1024;

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            sweep_at: SMALL,
        }
    }
}

impl<T: ?Sized> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self {
            known: self.known.clone(),
            sweep_at: self.sweep_at,
        }
    }
}

impl<T: Eq + Hash + ?Sized> Pool<T>
where
    Arc<T>: Borrow<T>,
{
    /// Replaces a value by an equal one that is known, or makes it known.
    pub(super) fn share(&mut self, value: &mut Arc<T>) {
        if let Some(known) = self.known.get(&**value) {
            *value = Arc::clone(known);
            return;
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            // Twice what is in use: each value is looked at twice on average, however often others come and go.
            self.sweep_at = (self.known.len() * 2).max(SMALL);
        }
        self.known.insert(Arc::clone(value));
    }
}

/// What pods and their owners share.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    pub(super) labels: Pool<Labels>,
    names: Pool<str>,
    owners: Pool<OwnerRef>,
    ports: Pool<BTreeSet<ContainerPort>>,
    images: Pool<BTreeSet<Image>>,
}

impl Shared {
    pub(super) fn pod(&mut self, pod: &mut Pod) {
        self.labels.share(&mut pod.labels);
        self.names.share(&mut pod.namespace);
        if let Some(node) = &mut pod.node {
            self.names.share(node);
        }
        if let Some(owner) = &mut pod.owner {
            self.owners.share(owner);
        }
        self.ports.share(&mut pod.ports);
        self.images.share(&mut pod.images);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_unused_ones_go() {
        let mut pool = Pool::<str>::default();
        let mut first: Arc<str> = "shop".into();
        let mut second: Arc<str> = "shop".into();
        pool.share(&mut first);
        pool.share(&mut second);
        assert!(Arc::ptr_eq(&first, &second));
        for number in 0..10 * SMALL {
            pool.share(&mut number.to_string().into());
        }
        assert!(pool.known.len() <= 2 * SMALL, "{}", pool.known.len());
        let mut third: Arc<str> = "shop".into();
        pool.share(&mut third);
        assert!(Arc::ptr_eq(&first, &third), "what is used stays");
    }
}
