use nanoseg_graph::connection::EdgeKey;
use nanoseg_graph::endpoint::Endpoint;
use nanoseg_graph::flow::Transport;
use prometheus_client::encoding::text::encode;

use super::*;

fn text(metrics: &Metrics) -> String {
    let mut text = String::new();
    encode(&mut text, &metrics.registry).unwrap();
    text
}

/// The series of a metric: labels and value.
fn series(metrics: &Metrics, name: &str) -> BTreeMap<String, u64> {
    let text = text(metrics);
    let lines = text.lines().filter_map(|line| line.strip_prefix(&format!("{name}{{")));
    lines
        .map(|line| {
            let (labels, value) = line.rsplit_once("} ").unwrap();
            (labels.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[test]
fn every_metric_is_there_before_anything_happened() {
    let text = text(&Metrics::default());
    let described = text.lines().filter(|line| line.starts_with("# TYPE "));
    for line in described.clone() {
        let name = line.split(' ').nth(2).unwrap();
        let has_value = |line: &&str| line.starts_with(name) && !line.starts_with('#');
        assert!(
            text.lines().any(|line| has_value(&line)),
            "{name} has no value:\n{text}"
        );
    }
    assert!(described.count() > 20, "{text}");
}

fn violation(name: &str, enforced: bool) -> Violation {
    let end = Endpoint::External("203.0.113.9".parse().unwrap());
    Violation {
        at: Timestamp::UNIX_EPOCH,
        workload: Workload {
            namespace: "shop".to_owned(),
            kind: "Deployment".to_owned(),
            name: name.to_owned(),
        },
        edge: EdgeKey {
            source: end.clone(),
            destination: end,
            port: 443,
            transport: Transport::Tcp,
        },
        first_seen: Timestamp::UNIX_EPOCH,
        count: 1,
        verdict: "denied: no rule allows it".to_owned(),
        decision: Decision::Denied,
        enforced,
        other_captures: Vec::new(),
    }
}

#[test]
fn p32_ten_thousand_workloads_are_a_hundred_series_and_one_and_none_is_uncounted() {
    let metrics = Metrics::default();
    let found: Vec<Violation> = (0..10_000)
        .map(|number| violation(&format!("w{number}"), false))
        .collect();
    metrics.novel(&found);
    metrics.novel(&found[..50]);
    let by_workload = series(&metrics, "nanoseg_workload_novel_edges_total");
    assert_eq!(by_workload.len(), WORKLOADS + 1);
    assert_eq!(by_workload.values().sum::<u64>(), 10_050);
    let others = r#"namespace="_other",kind="_other",workload="_other""#;
    assert_eq!(by_workload[others], 9_900);
    let by_verdict = series(&metrics, "nanoseg_novel_edges_total");
    assert_eq!(by_verdict[r#"verdict="denied",enforced="false""#], 10_050);
    metrics.novel(&[violation("w0", true)]);
    let by_verdict = series(&metrics, "nanoseg_novel_edges_total");
    assert_eq!(by_verdict[r#"verdict="denied",enforced="true""#], 1);
}

#[test]
fn p32_losses_of_more_nodes_than_the_bound_are_counted_together_and_once() {
    let metrics = Metrics::default();
    let losses = |each: u64| Census {
        losses: (0..NODES + 20)
            .map(|node| ((format!("n{node:04}"), LossReason::MapFull), each))
            .collect(),
        ..Census::default()
    };
    metrics.round(Duration::ZERO, &losses(2));
    metrics.round(Duration::ZERO, &losses(2));
    metrics.round(Duration::ZERO, &losses(5));
    for node in 0..NODES + 20 {
        metrics.merged(&format!("n{node:04}"), Timestamp::from_second(7).unwrap());
    }
    let by_node = series(&metrics, "nanoseg_losses_total");
    assert_eq!(by_node[r#"node="n0000",reason="map_full""#], 5);
    assert_eq!(by_node[r#"node="_other",reason="map_full""#], 100);
    assert_eq!(by_node.len(), NODES + LossReason::ALL.len());
    let reported = series(&metrics, "nanoseg_last_report_timestamp_seconds");
    assert_eq!((reported.len(), reported[r#"node="n0999""#]), (NODES + 1, 7));
}

#[test]
fn a_segment_is_counted_under_one_mode_and_phase_and_no_longer_where_it_was() {
    let metrics = Metrics::default();
    let at = |phase: Phase| Census {
        segments: [(("Enforce", phase.as_str()), 3)].into(),
        ..Census::default()
    };
    metrics.round(Duration::ZERO, &at(Phase::Learning));
    metrics.round(Duration::ZERO, &at(Phase::Enforcing));
    let segments = series(&metrics, "nanoseg_segments");
    assert_eq!(segments[r#"mode="Enforce",phase="Enforcing""#], 3);
    assert_eq!(segments.values().sum::<u64>(), 3);
}

#[test]
fn a_learner_is_connected_until_it_is_dropped() {
    let metrics = Metrics::default();
    let (first, second) = (metrics.connected(), metrics.connected());
    drop(first);
    assert!(text(&metrics).contains("nanoseg_learners_connected 1\n"));
    drop(second);
    assert!(text(&metrics).contains("nanoseg_learners_connected 0\n"));
}

#[test]
fn refused_parts_are_counted_on_by_a_controller_that_followed_in_between() {
    let metrics = Metrics::default();
    for total in [2, 5, 0, 1] {
        let census = Census {
            refused: [(RefusedPart::OtherNode, total)].into(),
            ..Census::default()
        };
        metrics.round(Duration::ZERO, &census);
    }
    let refused = series(&metrics, "nanoseg_report_parts_refused_total");
    assert_eq!(refused[r#"reason="other_node""#], 6);
}
