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
    /// What cannot be a label's key.
    #[error("{0:?} cannot be a label's key")]
    Key(String),
    /// What cannot be a label's value.
    #[error("{0:?} cannot be a label's value")]
    Value(String),
}

/// Whether it can be a label's value: letters, digits and `-_.` within, 63 at most, or empty.
fn is_value(text: &str) -> bool {
    let within = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = [text.bytes().next(), text.bytes().next_back()];
    text.len() <= 63 && text.bytes().all(within) && ends.into_iter().flatten().all(|end| end.is_ascii_alphanumeric())
}

/// Whether it can be a label's key: a name like a value's, and perhaps a domain before it.
fn is_key(text: &str) -> bool {
    let is_part = |part: &str| {
        let within = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(within) && !part.starts_with('-') && !part.ends_with('-')
    };
    let is_domain = |domain: &str| domain.len() <= 253 && domain.split('.').all(is_part);
    let (domain, name) = text
        .split_once('/')
        .map_or((None, text), |(domain, name)| (Some(domain), name));
    !name.is_empty() && is_value(name) && domain.is_none_or(is_domain)
}

/// Whether an object can have this label.
pub(crate) fn is_label(key: &str, value: &str) -> bool {
    is_key(key) && is_value(value)
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
    /// Whether any label could be meant.
    fn check(&self) -> Result<(), SelectorError> {
        let (key, value, values) = match self {
            Self::Equals(key, value) => (key, Some(value), None),
            Self::In(key, values) | Self::NotIn(key, values) => (key, None, Some(values)),
            Self::Exists(key) | Self::DoesNotExist(key) => (key, None, None),
        };
        if !is_key(key) {
            return Err(SelectorError::Key(key.clone()));
        }
        let mut values = value.into_iter().chain(values.into_iter().flatten());
        match values.find(|value| !is_value(value)) {
            Some(value) => Err(SelectorError::Value(value.clone())),
            None => Ok(()),
        }
    }

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
        for requirement in &requirements {
            requirement.check()?;
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

    #[test]
    fn what_cannot_be_a_label_is_refused() {
        let long = [
            "n".repeat(63),
            "n".repeat(64),
            format!("{}/n", "d".repeat(253)),
            format!("{}/n", "d".repeat(254)),
        ];
        let [name, too_long, domain, too_long_domain] = long.each_ref().map(String::as_str);
        for key in ["a", "A_b.c-9", "example.com/a", "x/y", name, domain] {
            let parsed = Selector::parse(Some(&expression(key, "Exists", &[])));
            assert!(parsed.is_ok(), "{key}: {parsed:?}");
        }
        for key in [
            "",
            "-a",
            "a.",
            "a b",
            "{{ x }}",
            "/a",
            "a/",
            "a/b/c",
            "Example.com/a",
            "a..b/c",
            too_long,
            too_long_domain,
        ] {
            let parsed = Selector::parse(Some(&expression(key, "Exists", &[])));
            assert_eq!(parsed, Err(SelectorError::Key(key.to_owned())), "{key}");
        }
        for (value, is_value) in [
            ("", true),
            ("a", true),
            ("A_b.c-9", true),
            (name, true),
            (too_long, false),
            ("-a", false),
            ("{{ x }}", false),
            ("a/b", false),
        ] {
            let selector = LabelSelector {
                match_labels: Some([("a".to_owned(), value.to_owned())].into()),
                match_expressions: None,
            };
            for selector in [selector, expression("a", "NotIn", &["x", value])] {
                let refused = Selector::parse(Some(&selector)).err();
                let expected = (!is_value).then(|| SelectorError::Value(value.to_owned()));
                assert_eq!(refused, expected, "{value}");
            }
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
