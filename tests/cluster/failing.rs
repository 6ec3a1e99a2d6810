//! nanoseg's own programs killed and frozen.

use std::collections::BTreeMap;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nanoseg_tests::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::audit::Audit;
use super::shop::{Shop, text};

/// How long a leader stands still. Six times what its Lease lasts.
const FREEZE: Duration = Duration::from_mins(1);

fn pods(shop: &Shop, component: &str) -> Vec<Value> {
    let selector = format!("--selector=app.kubernetes.io/component={component}");
    shop.items(&["pods", "--namespace=nanoseg", &selector])
}

fn signal(processes: &[Pid], signal: Signal) {
    for process in processes {
        // One that is gone meanwhile needs none.
        let _gone = kill_process(*process, signal);
    }
}

/// Learners that are killed come back by themselves, and go on with what is in the kernel.
pub(crate) fn learners_are_killed(shop: &Shop) {
    let restarts = |pods: &[Value]| -> BTreeMap<String, u64> {
        let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        let named = |pod: &Value| (text(&pod["metadata"]["name"]), restarts(pod).unwrap_or_default());
        pods.iter().map(named).collect()
    };
    let before = pods(shop, "learner");
    assert_eq!(before.len(), shop.cluster.nodes().len(), "one on each node");
    for pod in &before {
        let processes = shop.cluster.processes_of(pod);
        assert!(!processes.is_empty(), "{}", pod["metadata"]["name"]);
        signal(&processes, Signal::KILL);
    }
    let before = restarts(&before);
    until("the learners to be back", Duration::from_mins(1), || {
        let now = pods(shop, "learner");
        let ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
        let again = restarts(&now);
        if now.iter().all(ready) && before.iter().all(|(name, count)| again.get(name) > Some(count)) {
            Ok(())
        } else {
            Err(format!("{before:?} and now {again:?}"))
        }
    });
}

/// What the controller has of containers that are gone, learners keep no longer: a run of the CronJob ends each minute.
pub(crate) fn learners_let_go_of_what_is_gone(shop: &Shop) {
    let flows = |pod: &Value| -> u64 {
        let pod = text(&pod["metadata"]["name"]);
        let path = format!("/api/v1/namespaces/nanoseg/pods/{pod}:7444/proxy/metrics");
        let metrics = shop.kubectl(&["get", "--raw", &path]);
        let mut lines = metrics.lines();
        let kept = lines.find_map(|line| line.strip_prefix("nanoseg_learner_flows ")?.trim().parse().ok());
        kept.expect("it is among the metrics")
    };
    let learners = pods(shop, "learner");
    let mut most = vec![0; learners.len()];
    // A container is remembered for two minutes, which are looked at each minute.
    until("flows to leave", Duration::from_mins(5), || {
        let now: Vec<u64> = learners.iter().map(flows).collect();
        let has_left = now.iter().zip(&most).any(|(now, most)| now < most);
        println!("learners keep {now:?} flows, and kept {most:?}");
        if has_left {
            return Ok(());
        }
        most.clone_from(&now);
        Err(format!("{now:?} flows are kept"))
    });
}

fn leader(shop: &Shop) -> String {
    let lease = ["get", "lease", "--namespace=nanoseg", "nanoseg-controller"];
    text(&shop.cluster.get(&lease).unwrap()["spec"]["holderIdentity"])
}

/// A leader that stands still.
pub(crate) struct Frozen {
    name: String,
    /// Ends when it is thawed, and tells when that was.
    thaw: JoinHandle<Timestamp>,
}

/// Stops the leader for a minute; another takes over within fifteen seconds.
pub(crate) fn freezes_the_leader(shop: &Shop) -> Frozen {
    let name = leader(shop);
    let pods = pods(shop, "controller");
    let pod = pods
        .iter()
        .find(|pod| pod["metadata"]["name"] == name.as_str())
        .unwrap();
    let processes = shop.cluster.processes_of(pod);
    assert!(!processes.is_empty(), "{name}");
    signal(&processes, Signal::STOP);
    let frozen = Instant::now();
    let thaw = thread::spawn(move || {
        // It is thawed however the test goes on.
        thread::sleep(FREEZE);
        let thawed = Timestamp::now();
        signal(&processes, Signal::CONT);
        thawed
    });
    until("another controller to lead", Duration::from_secs(30), || {
        let now = leader(shop);
        if now.is_empty() || now == name {
            Err("the same one holds the Lease")
        } else {
            Ok(())
        }
    });
    let took = frozen.elapsed();
    println!("taken over {took:?} after the leader was frozen");
    assert!(took < Duration::from_secs(15), "taken over after {took:?}");
    Frozen { name, thaw }
}

/// The one that was frozen has written nothing since: not as it was thawed with old plans, and not as kubelet ended it.
pub(crate) fn the_frozen_one_writes_nothing(shop: &Shop, audit: &Audit, Frozen { name, thaw }: Frozen) {
    let thawed = thaw.join().unwrap();
    let next = leader(shop);
    assert_ne!(next, name);
    // It asks who leads, if kubelet, which had no answer for a minute, has not ended it meanwhile.
    until("the thawed one to be heard of again", Duration::from_mins(2), || {
        let pods = pods(shop, "controller");
        let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name.as_str());
        let ended = pod.is_none_or(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64() > Some(0));
        if ended || !audit.requests_of(&name, thawed).is_empty() {
            Ok(())
        } else {
            Err("it asks for nothing")
        }
    });
    // What it would do on an impulse it does within a round.
    thread::sleep(Duration::from_secs(5));
    assert_eq!(leader(shop), next, "the Lease stays where it is");
    let written: Vec<String> = audit
        .requests_of(&name, thawed)
        .into_iter()
        .filter(|(verb, what)| !matches!(verb.as_str(), "get" | "list" | "watch") && what != "tokenreviews")
        .map(|(verb, what)| format!("{verb} {what}"))
        .collect();
    assert_eq!(written, Vec::<String>::new(), "{name} wrote after it was thawed");
}

pub(crate) fn survives_its_controllers_death(shop: &Shop) {
    let before = shop.versions();
    shop.kubectl(&[
        "delete",
        "pod",
        "--namespace=nanoseg",
        "--selector=app.kubernetes.io/component=controller",
        "--grace-period=0",
        "--force",
    ]);
    shop.kubectl(&[
        "rollout",
        "status",
        "--namespace=nanoseg",
        "--timeout=120s",
        "deployment/nanoseg-controller",
    ]);
    shop.assert_all_answered(Duration::from_secs(15), "after the controller was killed");
    assert_eq!(
        shop.versions(),
        before,
        "a new controller writes no policy that is right already"
    );
}
