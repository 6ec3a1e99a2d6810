//! `nanoseg doctor --probe` on a cluster whose engine enforces, and on the same one while it does not.

use std::collections::BTreeMap;
use std::time::Duration;

use nanoseg_tests::{program, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::shop::Shop;

/// What was found, by what was looked at; and the exit code.
fn ask(shop: &Shop, more: &[&str]) -> (BTreeMap<String, Value>, Option<i32>) {
    let mut command = shop.cluster.command(program("nanoseg"));
    command
        .args(["doctor", "-o", "json", "--kubeconfig"])
        .arg(shop.cluster.kubeconfig())
        .args(more);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let findings = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let findings: BTreeMap<String, Value> = findings
        .map(|finding| (finding["check"].as_str().unwrap().to_owned(), finding))
        .collect();
    assert!(
        !findings.is_empty(),
        "doctor said nothing: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    for finding in findings.values() {
        println!("  {}: {} {}", finding["check"], finding["verdict"], finding["found"]);
    }
    (findings, output.status.code())
}

fn assert_verdicts(findings: &BTreeMap<String, Value>, checks: &[&str], verdict: &str) {
    for check in checks {
        assert_eq!(findings[*check]["verdict"], verdict, "{}", findings[*check]);
    }
}

const ENFORCED: [&str; 4] = ["ingress by IPv4", "ingress by IPv6", "egress by IPv4", "egress by IPv6"];

pub(crate) fn tells_whether_the_cluster_enforces(shop: &Shop) {
    println!("a cluster that enforces:");
    let (findings, code) = ask(shop, &["--probe", "--settle", "25s"]);
    assert_eq!(code, Some(0));
    assert_verdicts(&findings, &ENFORCED, "well");
    assert_verdicts(&findings, &["endPort by IPv4", "endPort by IPv6"], "well");
    assert_verdicts(&findings, &["Services by IPv4", "Services by IPv6"], "well");
    assert_verdicts(
        &findings,
        &[
            "Kubernetes",
            "Segments",
            "controller",
            "learners",
            "rights",
            "admission",
            "kernels",
            "nodes' clocks",
            "this clock",
        ],
        "well",
    );

    // The engine stands still: it knows nothing of the probe's pods and policies, nor of those of a CronJob, whose policies would be
    // taken back when it refuses them.
    let suspend = |suspend: bool| {
        let change = format!(r#"{{"spec":{{"suspend":{suspend}}}}}"#);
        shop.kubectl(&[
            "patch",
            "cronjob",
            "--namespace=data",
            "report",
            "--type=merge",
            "--patch",
            &change,
        ]);
    };
    suspend(true);
    let engines = shop
        .cluster
        .processes()
        .iter()
        .filter(|process| process.name.ends_with("/kube-router"));
    let engines: Vec<Pid> = engines
        .map(|process| Pid::from_raw(i32::try_from(process.pid).unwrap()).unwrap())
        .collect();
    assert_eq!(engines.len(), 2);
    let signal = |signal: Signal| {
        for engine in &engines {
            kill_process(*engine, signal).unwrap();
        }
    };
    signal(Signal::STOP);
    println!("the same one while its engine stands still:");
    let (findings, code) = ask(shop, &["--probe", "--settle", "5s"]);
    // What is Degraded for another reason is not counted.
    let phases = |wanted: &str| {
        let segments = shop.items(&["segments", "--all-namespaces"]);
        let count = |is: &dyn Fn(&Value) -> bool| segments.iter().filter(|segment| is(&segment["status"])).count();
        let enforcing = count(&|status| status["phase"] == "Enforcing");
        let refuted = count(&|status| {
            let conditions = status["conditions"].as_array();
            conditions.is_some_and(|conditions| conditions.iter().any(|condition| condition["reason"] == "NotEnforced"))
        });
        match (wanted, enforcing, refuted) {
            ("Degraded", 0, refuted) if refuted > 0 => Ok(()),
            ("Enforcing", enforcing, 0) if enforcing > 0 => Ok(()),
            (_, enforcing, refuted) => Err(format!(
                "{enforcing} are Enforcing, {refuted} are told that they are not enforced"
            )),
        }
    };
    until("no Segment to be called Enforcing", Duration::from_mins(2), || {
        phases("Degraded")
    });
    signal(Signal::CONT);
    assert_eq!(code, Some(1));
    assert_verdicts(&findings, &ENFORCED, "fault");

    let (findings, code) = ask(shop, &[]);
    assert_eq!(code, Some(1), "what was found is kept");
    assert_verdicts(&findings, &ENFORCED, "fault");
    println!("and when it goes on:");
    let (findings, code) = ask(shop, &["--probe", "--settle", "25s"]);
    assert_eq!(code, Some(0));
    assert_verdicts(&findings, &ENFORCED, "well");
    suspend(false);
    until("Segments to be called Enforcing again", Duration::from_mins(2), || {
        phases("Enforcing")
    });
    until("the probes' namespaces to be gone", Duration::from_mins(1), || {
        let left = shop.items(&["namespaces", "--selector=nanoseg.io/probe"]);
        if left.is_empty() { Ok(()) } else { Err(left.len()) }
    });
}
