//! Label selectors, parsed once and then only matched.
//!
//! Law: equal to the Kubernetes specification. `NotIn` and `DoesNotExist` match an object that lacks the key; an absent
//! (null) selector selects nothing, an empty one everything.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use nanoseg_graph::cluster::Labels;

/// Why a selector is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// An operator that the API does not have.
    #[error("matchExpressions[{index}].operator is {operator:?}, expected In, NotIn, Exists or DoesNotExist")]
    Operator {
        /// Which expression.
        index: usize,
        /// What it holds.
        operator: String,
    },
    /// `In` and `NotIn` compare with at least one value.
    #[error("matchExpressions[{index}].values is empty, and the operator needs at least one")]
    NoValues {
        /// Which expression.
        index: usize,
    },
    /// `Exists` and `DoesNotExist` compare with none.
    #[error("matchExpressions[{index}].values must be empty for this operator")]
    Values {
        /// Which expression.
        index: usize,
    },
}

/// One requirement; a selector is all of its requirements.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// The key has this value.
    Equals(String, String),
    /// The key has one of these values.
    In(String, BTreeSet<String>),
    /// The key has none of these values, or is not there.
    NotIn(String, BTreeSet<String>),
    /// The key is there.
    Exists(String),
    /// The key is not there.
    DoesNotExist(String),
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::Equals(key, value) => labels.get(key) == Some(value),
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

/// A checked selector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// Selects nothing: what an absent selector means.
    Nothing,
    /// Selects what satisfies every requirement; with none, everything.
    All(Vec<Requirement>),
}

impl Selector {
    /// Selects everything.
    pub const fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Selects by equality with each of the labels.
    pub fn labels(labels: &Labels) -> Self {
        Self::All(
            labels
                .iter()
                .map(|(key, value)| Requirement::Equals(key.clone(), value.clone()))
                .collect(),
        )
    }

    /// Checks a selector of the API; `None` is the absent one.
    pub fn parse(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(LabelSelector {
            match_expressions,
            match_labels,
        }) = selector
        else {
            return Ok(Self::Nothing);
        };
        let mut requirements: Vec<_> = match_labels
            .iter()
            .flatten()
            .map(|(key, value)| Requirement::Equals(key.clone(), value.clone()))
            .collect();
        for (index, expression) in match_expressions.iter().flatten().enumerate() {
            let key = expression.key.clone();
            let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
            let requirement = match (expression.operator.as_str(), values.is_empty()) {
                ("In", false) => Requirement::In(key, values),
                ("NotIn", false) => Requirement::NotIn(key, values),
                ("Exists", true) => Requirement::Exists(key),
                ("DoesNotExist", true) => Requirement::DoesNotExist(key),
                ("In" | "NotIn", true) => return Err(SelectorError::NoValues { index }),
                ("Exists" | "DoesNotExist", false) => return Err(SelectorError::Values { index }),
                (operator, _) => {
                    return Err(SelectorError::Operator {
                        index,
                        operator: operator.to_owned(),
                    });
                }
            };
            requirements.push(requirement);
        }
        Ok(Self::All(requirements))
    }

    /// Whether it selects an object with these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::Nothing => false,
            Self::All(requirements) => requirements.iter().all(|requirement| requirement.matches(labels)),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
    use proptest::prelude::*;

    use super::*;

    fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
        let requirement = LabelSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        };
        LabelSelector {
            match_expressions: Some(vec![requirement]),
            match_labels: None,
        }
    }

    fn matches(selector: &LabelSelector, labels: &[(&str, &str)]) -> bool {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Selector::parse(Some(selector)).unwrap().matches(&labels)
    }

    #[test]
    fn absent_selects_nothing_and_empty_everything() {
        assert!(!Selector::parse(None).unwrap().matches(&Labels::new()));
        assert!(matches(&LabelSelector::default(), &[]));
        assert!(matches(&LabelSelector::default(), &[("a", "b")]));
    }

    #[test]
    fn each_operator() {
        for (operator, values, labels, expected, message) in [
            ("In", &["x", "y"][..], &[("a", "y")][..], true, "one of the values"),
            ("In", &["x"], &[("a", "y")], false, "another value"),
            ("In", &["x"], &[], false, "In on an absent key"),
            ("In", &[""], &[("a", "")], true, "an empty value is a value"),
            ("In", &[""], &[], false, "an empty value is not an absent key"),
            ("NotIn", &["x"], &[("a", "y")], true, "another value"),
            ("NotIn", &["x"], &[("a", "x")], false, "the value"),
            ("NotIn", &["x"], &[], true, "NotIn on an absent key"),
            ("NotIn", &[""], &[], true, "NotIn of the empty value on an absent key"),
            ("Exists", &[], &[("a", "")], true, "the key with an empty value"),
            ("Exists", &[], &[("b", "x")], false, "another key"),
            ("DoesNotExist", &[], &[("a", "x")], false, "the key"),
            ("DoesNotExist", &[], &[], true, "no key"),
        ] {
            assert_eq!(
                matches(&expression("a", operator, values), labels),
                expected,
                "{operator}: {message}"
            );
        }
    }

    #[test]
    fn what_is_not_a_selector_is_refused() {
        for (operator, values, expected) in [
            ("In", &[][..], SelectorError::NoValues { index: 0 }),
            ("NotIn", &[], SelectorError::NoValues { index: 0 }),
            ("Exists", &["x"], SelectorError::Values { index: 0 }),
            ("DoesNotExist", &["x"], SelectorError::Values { index: 0 }),
            (
                "Is",
                &["x"],
                SelectorError::Operator {
                    index: 0,
                    operator: "Is".to_owned(),
                },
            ),
        ] {
            assert_eq!(Selector::parse(Some(&expression("a", operator, values))), Err(expected));
        }
    }

    /// The specification's words, one by one, on the API's own type.
    fn by_the_book(selector: &LabelSelector, labels: &Labels) -> bool {
        for (key, value) in selector.match_labels.iter().flatten() {
            if !labels.iter().any(|label| label == (key, value)) {
                return false;
            }
        }
        for requirement in selector.match_expressions.iter().flatten() {
            let value = labels
                .iter()
                .find(|(key, _)| **key == requirement.key)
                .map(|(_, value)| value);
            let listed = value.is_some_and(|value| requirement.values.iter().flatten().any(|known| known == value));
            let satisfied = match requirement.operator.as_str() {
                "In" => value.is_some() && listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                _ => value.is_none(),
            };
            if !satisfied {
                return false;
            }
        }
        true
    }

    fn map() -> impl Strategy<Value = Labels> {
        prop::collection::btree_map("[abc]", "[xy]?", 0..4)
    }

    fn requirement() -> impl Strategy<Value = LabelSelectorRequirement> {
        let values = prop::collection::vec("[xy]?", 1..3);
        ("[abc]", 0..4_usize, values).prop_map(|(key, operator, values)| {
            let operator = ["In", "NotIn", "Exists", "DoesNotExist"][operator];
            let values = matches!(operator, "In" | "NotIn").then_some(values);
            LabelSelectorRequirement {
                key,
                operator: operator.to_owned(),
                values,
            }
        })
    }

    proptest! {
        #[test]
        fn equal_to_brute_force(
            match_labels in prop::option::of(map()),
            match_expressions in prop::option::of(prop::collection::vec(requirement(), 0..4)),
            labels in map(),
        ) {
            let selector = LabelSelector { match_expressions, match_labels };
            prop_assert_eq!(Selector::parse(Some(&selector)).unwrap().matches(&labels), by_the_book(&selector, &labels));
        }
    }
}
