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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
