//! What is shipped for Prometheus and Grafana, in a real Prometheus that scrapes the real programs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod page;
mod programs;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nanoseg_tests::{is_root, until};
use serde_json::Value;

use programs::{Controller, Learner, Prometheus};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/monitoring");
const ALERTS_TEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/monitoring/alerts-test.yaml");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(SHIPPED).join(name)).unwrap()
}

/// Whether Prometheus is there. Where nothing may be skipped, it has to be.
fn has_prometheus() -> bool {
    let found = Command::new("promtool").arg("--version").output().is_ok();
    assert!(
        found || std::env::var_os("NANOSEG_REQUIRE_ROOT").is_none(),
        "promtool is missing: run .ci/setup test"
    );
    found
}

fn promtool(arguments: &[&str]) -> String {
    let output = Command::new("promtool").args(arguments).output().unwrap();
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "promtool {}: {said}{complained}",
        arguments.join(" ")
    );
    said.into_owned()
}

/// The rules, whichever file they are in.
fn rules(file: &Value) -> Vec<Value> {
    let groups = file["groups"]
        .as_array()
        .or_else(|| file["spec"]["groups"].as_array())
        .unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .cloned()
        .collect()
}

fn alerts() -> Vec<Value> {
    rules(&serde_yaml::from_str(&shipped("alerts.yaml")).unwrap())
}

/// Titles and expressions of the dashboard's panels, as Grafana would send them.
fn panels() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&shipped("dashboard.json")).unwrap();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
            found.push((panel["title"].as_str().unwrap().to_owned(), expression));
        }
    }
    found
}

/// Names of metrics in an expression.
fn metrics(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("nanoseg_") || word.starts_with("process_"));
    names.map(str::to_owned).collect()
}

#[test]
fn each_alert_fires_when_it_is_to_and_is_the_same_for_the_operator() {
    let operator: Value = serde_yaml::from_str(&shipped("prometheus-rule.yaml")).unwrap();
    assert_eq!(rules(&operator), alerts());
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(
            shipped("README.md").contains(&format!("| `{name}` |")),
            "{name} is not in README.md"
        );
    }
    if !has_prometheus() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("alerts.yaml"), shipped("alerts.yaml")).unwrap();
    fs::copy(ALERTS_TEST, at("alerts-test.yaml")).unwrap();
    promtool(&["check", "rules", &at("alerts.yaml")]);
    promtool(&["test", "rules", &at("alerts-test.yaml")]);
}

#[test]
fn panels_lie_beside_each_other_and_have_words() {
    let dashboard: Value = serde_json::from_str(&shipped("dashboard.json")).unwrap();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id is there twice");
        assert!(panel["type"] == "row" || !panel["description"].as_str().unwrap().is_empty());
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} lies over another panel", panel["title"]);
        }
    }
}

#[test]
fn p32_a_real_prometheus_finds_every_metric_and_every_metric_is_documented() {
    if !is_root("monitoring: the learner attaches its programs, and") || !has_prometheus() {
        return;
    }
    let controller = Controller::start();
    let learner = Learner::start();
    let prometheus = Prometheus::start(
        &[&controller.address, &learner.address],
        &Path::new(SHIPPED).join("alerts.yaml"),
    );
    let has = |expression: &str| {
        let found = prometheus.query(expression);
        if found.is_empty() {
            Err(format!("{expression} finds nothing"))
        } else {
            Ok(found)
        }
    };
    until("both programs to be scraped twice", PATIENCE, || {
        has("count(count_over_time(up[1m]) > 2 and up == 1) == 2")
    });
    controller.intrude();
    controller.spoil();
    until("what happened to be seen", PATIENCE, || {
        has(r#"ALERTS{alertname="NanosegViolation",alertstate="firing"}"#)
    });
    until("drift to be seen", PATIENCE, || {
        has(r#"nanoseg_drift_repaired_total{cause="deleted"} == 1"#)
    });
    let lost = until("loss to be seen", PATIENCE, || {
        has(r#"nanoseg_losses_total{reason="map_full"} > 0"#)
    });
    assert_eq!(lost[0]["metric"]["node"], "node1");

    // Whatever an expression is about is there, and every panel shows something.
    let documented = page::documented(&shipped("README.md"));
    let mut used = BTreeSet::new();
    for (title, expression) in panels() {
        let found = prometheus.query(&expression);
        assert!(!found.is_empty(), "{title} shows nothing: {expression}");
        used.extend(metrics(&expression));
    }
    for alert in alerts() {
        let expression = alert["expr"].as_str().unwrap();
        prometheus.query(expression);
        used.extend(metrics(expression));
    }
    for name in &used {
        has(&format!("count({name})")).unwrap();
    }
    for rule in prometheus.rules() {
        assert_eq!(rule["health"], "ok", "{rule}");
    }

    for (program, address) in [("controller", &controller.address), ("learner", &learner.address)] {
        let text = programs::get(address, "/metrics");
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let told = page::told(body);
        assert!(
            documented.get(program) == Some(&told),
            "the metrics of the {program} are, for README.md:\n{}",
            page::table(&told)
        );
    }
    println!(
        "{} expressions, {} metrics in use, {} documented",
        panels().len() + alerts().len(),
        used.len(),
        documented.values().map(std::collections::BTreeMap::len).sum::<usize>()
    );
    println!("the learner holds {} KiB", learner.resident());
}
