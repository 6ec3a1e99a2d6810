//! How much of a workload was watched while it was learned.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nodes without a learner that a status names at most.
pub const LISTED_NODES: usize = 20;

/// Captures that a status names at most: two while learners are replaced, one by one.
pub const LISTED_CAPTURES: usize = 5;

/// How much of the workload learners watch: a connection of a pod on a node without a learner is seen by its other end alone, if at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Coverage {
    /// Pods of the workload that are on a node; of a `CronJob` or a Job also those that have ended since it is learned.
    #[schemars(with = "i32", range(min = 0))]
    pub pods: u32,
    /// How many of them are on a node whose learner reports.
    #[schemars(with = "i32", range(min = 0))]
    pub watched: u32,
    /// The same in percent, rounded down; absent where there is no pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
    /// Nodes that pods of the workload are on and whose learner does not report, at most 20. The workload is not promoted as long as
    /// there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unwatched_nodes: Vec<String>,
    /// What sees on those nodes, by the learner's version, at most 5. Once the baseline is frozen: what it was learned by. Another
    /// capture may show what this one could not see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub captures: Vec<String>,
}

impl Coverage {
    /// So many of so many pods.
    pub fn of(watched: usize, pods: usize, unwatched_nodes: Vec<String>) -> Self {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            pods: count(pods),
            watched: count(watched),
            share: (watched * 100).checked_div(pods).map(|percent| format!("{percent}%")),
            unwatched_nodes,
            captures: Vec::new(),
        }
    }

    /// The same, seen by these.
    #[must_use]
    pub fn seen_by(self, captures: Vec<String>) -> Self {
        Self { captures, ..self }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pods,
            watched,
            share: _,
            unwatched_nodes,
            captures: _,
        } = self;
        write!(f, "{watched} of {pods} pods watched")?;
        if unwatched_nodes.is_empty() {
            return Ok(());
        }
        write!(f, ", no learner reports from {}", unwatched_nodes.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_of_them_are_a_hundred_percent() {
        for (watched, pods, share) in [
            (0, 0, None),
            (0, 3, Some("0%")),
            (2, 3, Some("66%")),
            (999, 1000, Some("99%")),
            (7, 7, Some("100%")),
        ] {
            assert_eq!(Coverage::of(watched, pods, Vec::new()).share.as_deref(), share);
        }
    }
}
