//! What is measured, as a table for people and as a file for programs.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What a value should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// It lies within the interval.
    Includes(f64),
    /// Only to be read.
    None,
}

impl Goal {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(value >= least),
            Self::AtMost(most) => Some(value <= most),
            Self::Includes(_) | Self::None => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!(">= {}", short(least)),
            Self::AtMost(most) => format!("<= {}", short(most)),
            Self::Includes(value) => format!("has {}", short(value)),
            Self::None => String::new(),
        }
    }
}

/// One thing that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    name: String,
    unit: String,
    value: f64,
    low: f64,
    high: f64,
    goal: Option<String>,
    met: Option<bool>,
    /// What it is compared with, and that one's own value.
    baselines: Vec<(String, f64)>,
}

impl Row {
    /// The median of the samples, and their extremes.
    pub(crate) fn new(name: impl Into<String>, unit: &str, samples: &[f64], goal: Goal) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let value = sorted[sorted.len() / 2];
        let goal_text = goal.text();
        Self {
            name: name.into(),
            unit: unit.to_owned(),
            value,
            low: sorted[0],
            high: sorted[sorted.len() - 1],
            goal: (!goal_text.is_empty()).then_some(goal_text),
            met: goal.is_met(value),
            baselines: Vec::new(),
        }
    }

    /// The median of the samples, and the interval in which it lies with 95 % certainty, by drawing from them again and again.
    pub(crate) fn interval(name: impl Into<String>, unit: &str, samples: &[f64], goal: Goal) -> Self {
        const DRAWS: usize = 2000;
        let mut random = fastrand::Rng::with_seed(1);
        let mut medians: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let mut drawn: Vec<f64> = samples.iter().map(|_| samples[random.usize(..samples.len())]).collect();
                drawn.sort_by(f64::total_cmp);
                drawn[drawn.len() / 2]
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let row = Self::new(name, unit, samples, goal);
        let (low, high) = (medians[DRAWS * 25 / 1000], medians[DRAWS * 975 / 1000]);
        Self {
            low,
            high,
            met: match goal {
                Goal::Includes(value) => Some(low <= value && value <= high),
                Goal::AtLeast(_) | Goal::AtMost(_) | Goal::None => row.met,
            },
            ..row
        }
    }

    pub(crate) fn beside(mut self, name: &str, value: f64) -> Self {
        self.baselines.push((name.to_owned(), value));
        self
    }
}

/// Writes `target/bench.json`, and returns the table.
pub(crate) fn write(rows: &[Row], file: &Path) -> io::Result<String> {
    fs::write(file, serde_json::to_string_pretty(rows)? + "\n")?;
    let mut table = format!(
        "{:<64} {:>12} {:<10} {:>10} {:>10}  {:<12} {}\n",
        "what", "median", "", "low", "high", "goal", "beside"
    );
    for row in rows {
        let Row {
            name,
            unit,
            value,
            low,
            high,
            goal,
            met,
            baselines,
        } = row;
        let verdict = match met {
            Some(true) => " met",
            Some(false) => " MISSED",
            None => "",
        };
        let goal = goal.as_deref().unwrap_or_default();
        let beside: Vec<String> = baselines
            .iter()
            .map(|(name, value)| format!("{name} {}", short(*value)))
            .collect();
        // Writing to a string cannot fail.
        let written = writeln!(
            table,
            "{name:<64} {:>12} {unit:<10} {:>10} {:>10}  {:<12} {}",
            short(*value),
            short(*low),
            short(*high),
            format!("{goal}{verdict}"),
            beside.join(", ")
        );
        debug_assert!(written.is_ok());
    }
    Ok(table)
}

/// Three or four digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        1_000_000.0.. => format!("{:.2} M", value / 1e6),
        10_000.0.. => format!("{:.1} k", value / 1e3),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
