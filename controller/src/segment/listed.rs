//! Sorted lists without room to grow.
//!
//! What is kept of a workload changes seldom, is mostly a handful, and there are thousands of workloads: a tree's nodes have room for
//! eleven of everything.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// A set of a few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Few<T>(Box<[T]>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Ord> From<BTreeSet<T>> for Few<T> {
    fn from(set: BTreeSet<T>) -> Self {
        Self(set.into_iter().collect())
    }
}

impl<T: Ord> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        items.into_iter().collect::<BTreeSet<T>>().into()
    }
}

impl<T: Ord, const N: usize> From<[T; N]> for Few<T> {
    fn from(items: [T; N]) -> Self {
        items.into_iter().collect()
    }
}

impl<T: Ord + Clone> Few<T> {
    /// The same as a tree.
    pub fn to_set(&self) -> BTreeSet<T> {
        self.iter().cloned().collect()
    }

    /// Takes in what another one has.
    pub fn extend(&mut self, other: &Self) {
        if other.iter().any(|item| self.binary_search(item).is_err()) {
            *self = self.iter().chain(&*other.0).cloned().collect();
        }
    }
}

/// A map, ordered by its keys. To put in or take out takes time by how many there are: for many at once, make it anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<K, V>(Vec<(K, V)>);

impl<K, V> Default for Listed<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> Listed<K, V> {
    /// Without anything.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        // Mostly whoever asks goes through all of them in order, and often this is the last one so far.
        match self.0.last() {
            Some((last, _)) if last.borrow() < key => Err(self.0.len()),
            Some(_) | None => self.0.binary_search_by(|(known, _)| known.borrow().cmp(key)),
        }
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let place = self.find(key).ok()?;
        self.0.get(place).map(|(_, value)| value)
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let place = self.find(key).ok()?;
        self.0.get_mut(place).map(|(_, value)| value)
    }

    /// Whether a key is there.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// Puts a value in, in place of the one that was there.
    pub fn insert(&mut self, key: K, value: V) {
        match self.find(&key) {
            Ok(place) => self.0[place].1 = value,
            Err(place) => {
                self.0.reserve_exact(1);
                self.0.insert(place, (key, value));
            }
        }
    }

    /// Takes a key out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if let Ok(place) = self.find(key) {
            self.0.remove(place);
            self.0.shrink_to_fit();
        }
    }

    /// Takes out what is not to stay.
    pub fn retain(&mut self, mut stays: impl FnMut(&K, &V) -> bool) {
        self.0.retain(|(key, value)| stays(key, value));
        self.0.shrink_to_fit();
    }

    /// Keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// Values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.into_iter()
    }

    /// All, in order, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.0.iter_mut().map(|(key, value)| (&*key, value))
    }
}

impl<K: Ord, V> From<BTreeMap<K, V>> for Listed<K, V> {
    fn from(map: BTreeMap<K, V>) -> Self {
        let mut all = Vec::with_capacity(map.len());
        all.extend(map);
        Self(all)
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Listed<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(all: I) -> Self {
        all.into_iter().collect::<BTreeMap<K, V>>().into()
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for Listed<K, V> {
    fn from(all: [(K, V); N]) -> Self {
        all.into_iter().collect()
    }
}

impl<'a, K: Ord, V> IntoIterator for &'a Listed<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::iter::Map<std::slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<K: Ord, V> IntoIterator for Listed<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Something done to a map.
    #[derive(Clone, Debug)]
    enum Done {
        Insert(u8, u8),
        Remove(u8),
        Retain(u8),
    }

    fn done() -> impl Strategy<Value = Done> {
        prop_oneof![
            (0..20_u8, any::<u8>()).prop_map(|(key, value)| Done::Insert(key, value)),
            (0..20_u8).prop_map(Done::Remove),
            (1..5_u8).prop_map(Done::Retain),
        ]
    }

    proptest! {
        #[test]
        fn a_list_has_what_a_tree_has_and_no_room(all in prop::collection::vec(done(), 0..30)) {
            let mut tree: BTreeMap<u8, u8> = BTreeMap::new();
            let mut list = Listed::new();
            for done in all {
                match done {
                    Done::Insert(key, value) => {
                        tree.insert(key, value);
                        list.insert(key, value);
                    }
                    Done::Remove(key) => {
                        tree.remove(&key);
                        list.remove(&key);
                    }
                    Done::Retain(by) => {
                        tree.retain(|key, _| key % by == 0);
                        list.retain(|key, _| key % by == 0);
                    }
                }
                prop_assert_eq!(list.iter().collect::<Vec<_>>(), tree.iter().collect::<Vec<_>>());
                prop_assert_eq!(list.0.capacity(), list.len());
                for key in 0..20 {
                    prop_assert_eq!(list.get(&key), tree.get(&key));
                    prop_assert_eq!(list.contains_key(&key), tree.contains_key(&key));
                }
            }
            prop_assert_eq!(&list, &Listed::from(tree));
        }

        #[test]
        fn few_are_a_set(one in prop::collection::vec(0..9_u8, 0..6), other in prop::collection::vec(0..9_u8, 0..6)) {
            let mut set: BTreeSet<u8> = one.iter().copied().collect();
            let mut few: Few<u8> = one.into_iter().collect();
            prop_assert_eq!(few.to_set(), set.clone());
            let other: Few<u8> = other.into_iter().collect();
            few.extend(&other);
            set.extend(other.iter());
            prop_assert_eq!(few, Few::from(set));
        }
    }
}
