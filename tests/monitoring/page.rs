//! The page that documents metrics, and what a program tells of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What is known of a metric: its type, its labels, what it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Documented {
    kind: String,
    labels: BTreeSet<String>,
    about: String,
}

/// The metrics of a program, by name as it is queried.
pub(crate) type Metrics = BTreeMap<String, Documented>;

/// The tables under the headings that name a program.
pub(crate) fn documented(page: &str) -> BTreeMap<String, Metrics> {
    let mut found: BTreeMap<String, Metrics> = BTreeMap::new();
    let mut program = String::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## Metrics of the ") {
            heading.clone_into(&mut program);
        } else if line.starts_with("## ") {
            program.clear();
        } else if let Some(row) = line.strip_prefix("| `").filter(|_| !program.is_empty()) {
            let cells: Vec<&str> = row.trim_end_matches(" |").splitn(4, " | ").collect();
            let &[name, kind, labels, about] = cells.as_slice() else {
                unreachable!("not a row of a metric: {line}")
            };
            let labels = labels.split(", ").filter(|label| !label.trim().is_empty());
            let metric = Documented {
                kind: kind.to_owned(),
                labels: labels.map(|label| label.trim_matches('`').to_owned()).collect(),
                about: about.to_owned(),
            };
            let earlier = found
                .entry(program.clone())
                .or_default()
                .insert(name.trim_end_matches('`').to_owned(), metric);
            assert_eq!(earlier, None, "{name} is there twice");
        }
    }
    found
}

/// What the text that Prometheus scrapes says.
pub(crate) fn told(text: &str) -> Metrics {
    let mut found = Metrics::new();
    let mut family = String::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (of, about) = help.split_once(' ').unwrap();
            of.clone_into(&mut family);
            let metric = Documented {
                about: about.trim_end_matches('.').to_owned(),
                ..Documented::default()
            };
            found.insert(family.clone(), metric);
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let kind = typed.rsplit(' ').next().unwrap();
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            name = format!("{family}{suffix}");
            let mut metric = found.remove(&family).unwrap();
            kind.clone_into(&mut metric.kind);
            found.insert(name.clone(), metric);
        } else if let Some((_, rest)) = line.split_once('{') {
            let labels = rest.rsplit_once('}').unwrap().0;
            let names = labels.split("\",").map(|label| label.split_once('=').unwrap().0);
            // A histogram's own, which everybody knows.
            let names = names.filter(|label| *label != "le").map(str::to_owned);
            found.get_mut(&name).unwrap().labels.extend(names);
        }
    }
    found
}

/// As the page has it.
pub(crate) fn table(metrics: &Metrics) -> String {
    let mut text = "| metric | type | labels | what |\n|---|---|---|---|\n".to_owned();
    for (name, Documented { kind, labels, about }) in metrics {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(text, "| `{name}` | {kind} | {} | {about} |", labels.join(", ")).unwrap();
    }
    text
}
