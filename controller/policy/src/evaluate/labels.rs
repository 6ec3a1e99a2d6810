//! Labels and label selectors as small numbers, so that asking whether one means the other touches no text.
//!
//! Law: a compiled selector selects a compiled set of labels exactly if the selector selects the labels.

use std::collections::HashMap;
use std::sync::Arc;

use nanoseg_graph::cluster::Labels;
use rustc_hash::FxBuildHasher;

use crate::selector::{Requirement, Selector};

/// A part of an arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Span {
    start: u32,
    length: u32,
}

impl Span {
    pub(super) fn of<T>(self, arena: &[T]) -> &[T] {
        &arena[self.start as usize..(self.start + self.length) as usize]
    }

    /// Appends to an arena.
    pub(super) fn push<T>(arena: &mut Vec<T>, items: impl IntoIterator<Item = T>) -> Self {
        let start = arena.len();
        arena.extend(items);
        // Four billion entries would be 16 GiB of the smallest arena: memory ends before the numbers do.
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Self {
            start: number(start),
            length: number(arena.len() - start),
        }
    }
}

/// A set of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LabelSet {
    pairs: Span,
    keys: Span,
}

/// One requirement of a selector.
#[derive(Clone, Copy, Debug)]
enum Test {
    Pair(u32),
    OneOf(Span),
    NoneOf(Span),
    Key(u32),
    NoKey(u32),
    /// Asks for a label that nothing has, or selects nothing by itself.
    Never,
}

/// A compiled selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tests(Span);

type Numbers<K> = HashMap<K, u32, FxBuildHasher>;

/// Every label and selector of one evaluator.
#[derive(Debug, Default)]
pub(super) struct LabelArena<'a> {
    pairs: Numbers<(&'a str, &'a str)>,
    keys: Numbers<&'a str>,
    numbers: Vec<u32>,
    tests: Vec<Test>,
    /// What selectors that several rules share were compiled to, by where they are.
    shared: HashMap<*const Selector, Tests, FxBuildHasher>,
}

impl<'a> LabelArena<'a> {
    /// Takes labels in. All labels come before the first selector: what no label set has by then, nothing has.
    pub(super) fn labels(&mut self, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> LabelSet {
        let mut pairs = Vec::new();
        let mut keys = Vec::new();
        for (key, value) in labels {
            pairs.push(number(&mut self.pairs, (key, value)));
            keys.push(number(&mut self.keys, key));
        }
        LabelSet {
            pairs: Span::push(&mut self.numbers, pairs),
            keys: Span::push(&mut self.numbers, keys),
        }
    }

    /// Compiles a selector that lives as long as this arena, once.
    pub(super) fn shared(&mut self, selector: &'a Arc<Selector>) -> Tests {
        let place = Arc::as_ptr(selector);
        if let Some(tests) = self.shared.get(&place) {
            return *tests;
        }
        let tests = self.selector(selector);
        self.shared.insert(place, tests);
        tests
    }

    /// Compiles a selector.
    pub(super) fn selector(&mut self, selector: &Selector) -> Tests {
        let Selector::All(requirements) = selector else {
            return Tests(Span::push(&mut self.tests, [Test::Never]));
        };
        let mut tests = Vec::with_capacity(requirements.len());
        for requirement in requirements {
            let pair = |key: &str, value: &str| self.pairs.get(&(key, value)).copied();
            let listed = |values: &std::collections::BTreeSet<String>, key: &str| {
                values.iter().filter_map(|value| pair(key, value)).collect::<Vec<_>>()
            };
            match requirement {
                Requirement::Equals(key, value) => tests.push(pair(key, value).map_or(Test::Never, Test::Pair)),
                Requirement::In(key, values) => {
                    let pairs = listed(values, key);
                    tests.push(match pairs.as_slice() {
                        [] => Test::Never,
                        [pair] => Test::Pair(*pair),
                        _ => Test::OneOf(Span::push(&mut self.numbers, pairs)),
                    });
                }
                Requirement::NotIn(key, values) => {
                    let pairs = listed(values, key);
                    if !pairs.is_empty() {
                        tests.push(Test::NoneOf(Span::push(&mut self.numbers, pairs)));
                    }
                }
                Requirement::Exists(key) => {
                    tests.push(self.keys.get(key.as_str()).map_or(Test::Never, |key| Test::Key(*key)));
                }
                Requirement::DoesNotExist(key) => {
                    tests.extend(self.keys.get(key.as_str()).map(|key| Test::NoKey(*key)));
                }
            }
        }
        Tests(Span::push(&mut self.tests, tests))
    }

    /// Whether a selector means a set of labels.
    pub(super) fn matches(&self, tests: Tests, labels: LabelSet) -> bool {
        let pairs = labels.pairs.of(&self.numbers);
        tests.0.of(&self.tests).iter().all(|test| match test {
            Test::Pair(pair) => pairs.contains(pair),
            Test::OneOf(listed) => listed.of(&self.numbers).iter().any(|pair| pairs.contains(pair)),
            Test::NoneOf(listed) => !listed.of(&self.numbers).iter().any(|pair| pairs.contains(pair)),
            Test::Key(key) => labels.keys.of(&self.numbers).contains(key),
            Test::NoKey(key) => !labels.keys.of(&self.numbers).contains(key),
            Test::Never => false,
        })
    }

    /// A label that everything which the selector means must have: `Ok(None)` if there is no single one, `Err` if the
    /// selector means nothing at all.
    pub(super) fn required_pair(&self, tests: Tests) -> Result<Option<u32>, MeansNothing> {
        let mut required = None;
        for test in tests.0.of(&self.tests) {
            match test {
                Test::Pair(pair) => required = required.or(Some(*pair)),
                Test::Never => return Err(MeansNothing),
                Test::OneOf(_) | Test::NoneOf(_) | Test::Key(_) | Test::NoKey(_) => {}
            }
        }
        Ok(required)
    }

    /// The labels of a set, as numbers.
    pub(super) fn pairs(&self, labels: LabelSet) -> &[u32] {
        labels.pairs.of(&self.numbers)
    }
}

/// Labels as they are taken in.
pub(super) fn texts(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
    labels.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

/// No labels of the cluster satisfy a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MeansNothing;

fn number<K: std::hash::Hash + Eq>(numbers: &mut Numbers<K>, key: K) -> u32 {
    let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
    *numbers.entry(key).or_insert(next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels() -> impl Strategy<Value = Labels> {
        prop::collection::btree_map("[abc]", "[xy]?", 0..4)
    }

    fn requirement() -> impl Strategy<Value = Requirement> {
        let values = || prop::collection::btree_set("[xyz]?", 1..3);
        prop_oneof![
            ("[abcd]", "[xyz]?").prop_map(|(key, value)| Requirement::Equals(key, value)),
            ("[abcd]", values()).prop_map(|(key, values)| Requirement::In(key, values)),
            ("[abcd]", values()).prop_map(|(key, values)| Requirement::NotIn(key, values)),
            "[abcd]".prop_map(Requirement::Exists),
            "[abcd]".prop_map(Requirement::DoesNotExist),
        ]
    }

    proptest! {
        #[test]
        fn a_compiled_selector_selects_the_same(
            sets in prop::collection::vec(labels(), 1..5),
            requirements in prop::option::of(prop::collection::vec(requirement(), 0..4)),
        ) {
            let selector = requirements.map_or(Selector::Nothing, Selector::All);
            let mut arena = LabelArena::default();
            let compiled: Vec<_> = sets.iter().map(|labels| arena.labels(texts(labels))).collect();
            let tests = arena.selector(&selector);
            for (labels, compiled) in sets.iter().zip(compiled) {
                let selected = selector.matches(labels);
                prop_assert_eq!(arena.matches(tests, compiled), selected);
                if selected {
                    let required = arena.required_pair(tests).unwrap();
                    prop_assert!(required.is_none_or(|pair| arena.pairs(compiled).contains(&pair)));
                }
            }
        }
    }
}
