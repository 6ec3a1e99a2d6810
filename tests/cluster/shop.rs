//! The shop on the full lab, and what its pods and nanoseg say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use nanoseg_lab::app::{App, Kind, ObjectName};
use nanoseg_lab::full::{Cluster, Options};
use nanoseg_lab::peer::Call;
use nanoseg_tests::{program, until};
use serde_json::{Value, json};

use super::audit::Audit;
use super::{MANIFESTS, WINDOW};

/// How long after its start a pod's calls may fail: an engine learns of a pod's address some time after the pod has it, and
/// until then it refuses what policies allow that pod. Measured here: one to three seconds with idle cores.
const ENGINE: Duration = Duration::from_secs(6);

/// How long no call may have failed until the engine counts as done with a change. It takes up one event after the other, some
/// seconds each on busy cores, and rewrites all of its rules each time.
const QUIET: Duration = Duration::from_secs(10);

/// Label of every policy that is nanoseg's.
pub(crate) const OURS: &str = "app.kubernetes.io/managed-by=nanoseg";

/// The namespace that a person promotes by hand.
pub(crate) const BY_HAND: &str = "ops";

/// Namespace and name to object.
pub(crate) type Policies = BTreeMap<(String, String), Value>;

pub(crate) struct Shop {
    pub(crate) cluster: Cluster,
    pub(crate) app: App,
}

impl Drop for Shop {
    /// A failure on a cluster that is gone a second later can be understood only from what is printed now.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for arguments in [
                &["get", "pods", "--all-namespaces", "-o", "wide"][..],
                &["get", "segments", "--all-namespaces", "-o", "wide"],
                &[
                    "logs",
                    "--namespace=nanoseg",
                    "--tail=60",
                    "--prefix",
                    "--selector=app.kubernetes.io/name=nanoseg",
                ],
            ] {
                if let Ok(output) = self.cluster.kubectl().args(arguments).output() {
                    println!("{}", String::from_utf8_lossy(&output.stdout));
                }
            }
        }
    }
}

impl Shop {
    pub(crate) fn up(audit: &Audit) -> Self {
        let app = App::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/lab/shop.yaml"))).unwrap();
        let mut options = Options::new(program("lab-peer"));
        options.api_server_flags = audit.flags();
        let begun = Instant::now();
        options.say = Box::new(move |step| println!("[{:>4.0?}] {step}", begun.elapsed()));
        let mut cluster = Cluster::up(options).unwrap();
        cluster.apply(&app).unwrap();
        Self { cluster, app }
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.cluster.kubectl().args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn items(&self, arguments: &[&str]) -> Vec<Value> {
        self.cluster.get(&[&["get"], arguments].concat()).unwrap()["items"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// A Segment's status.
    pub(crate) fn status(&self, namespace: &str, segment: &str) -> Value {
        let segment = ["get", "segment", "--namespace", namespace, segment];
        self.cluster.get(&segment).unwrap()["status"].clone()
    }

    /// Sets fields of a Segment's spec, or says why they are refused.
    pub(crate) fn set(&self, namespace: &str, segment: &str, spec: &Value) -> Result<(), String> {
        let patch = json!({ "spec": spec }).to_string();
        let output = self
            .cluster
            .kubectl()
            .args(["patch", "segment", "--namespace", namespace, segment])
            .args(["--type=merge", "--patch", &patch])
            .output()
            .unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// The learner on both nodes and the controller, from the shipped manifests.
    pub(crate) fn install(&self) {
        let programs = program("nanoseg");
        let enforce = ["shop", "data"].map(|namespace| format!("{namespace}={WINDOW}"));
        self.cluster
            .install(programs.parent().unwrap(), Path::new(MANIFESTS), &enforce)
            .unwrap();
    }

    /// Workloads that talk without being told.
    fn talkers(&self) -> BTreeSet<(String, String)> {
        self.app
            .workloads
            .iter()
            .filter(|workload| workload.name.as_str() != "intruder")
            .map(|workload| (workload.namespace.to_string(), workload.name.to_string()))
            .collect()
    }

    /// Waits until every workload that talks is enforced, and audited where nothing else was asked for.
    pub(crate) fn wait_for_audit(&self) {
        self.wait_for_phases("every workload to be enforced or audited", |namespace| {
            if namespace == BY_HAND { "Auditing" } else { "Enforcing" }
        });
    }

    /// Waits until every workload that talks is enforced, and its policy is there.
    pub(crate) fn wait_for_enforcement(&self) {
        self.wait_for_phases("every workload to be enforced", |_namespace| "Enforcing");
        let policies = self.policies();
        assert_eq!(
            policies.len(),
            self.talkers().len(),
            "one policy for each workload: {policies:?}"
        );
    }

    fn wait_for_phases(&self, what: &str, phase: impl Fn(&str) -> &'static str) {
        until(what, Duration::from_mins(5), || {
            let segments = self.items(&["segments", "--all-namespaces"]);
            let (there, others): (Vec<&Value>, Vec<&Value>) = segments.iter().partition(|segment| {
                let namespace = segment["metadata"]["namespace"].as_str().unwrap_or_default();
                segment["status"]["phase"] == phase(namespace)
            });
            let there = there.into_iter().map(|segment| {
                (
                    text(&segment["metadata"]["namespace"]),
                    text(&segment["spec"]["workload"]["name"]),
                )
            });
            let missing: Vec<_> = self.talkers().difference(&there.collect()).cloned().collect();
            if missing.is_empty() {
                return Ok(());
            }
            let reasons = others.into_iter().map(|segment| {
                let status = &segment["status"];
                format!(
                    "\n  {} {}: {}",
                    segment["metadata"]["name"], status["phase"], status["reason"]
                )
            });
            Err(format!("{missing:?}{}", reasons.collect::<String>()))
        });
    }

    /// The policies that are nanoseg's, but for the intruder's own: its window begins when it is told to speak, so when it gets
    /// one depends on how long the rest takes.
    pub(crate) fn policies(&self) -> Policies {
        self.items(&["networkpolicies", "--all-namespaces", "--selector", OURS])
            .into_iter()
            .filter(|policy| policy["metadata"]["annotations"]["nanoseg.io/workload-name"] != "intruder")
            .map(|policy| {
                (
                    (
                        text(&policy["metadata"]["namespace"]),
                        text(&policy["metadata"]["name"]),
                    ),
                    policy,
                )
            })
            .collect()
    }

    /// The resource version of each policy, which changes with every write.
    pub(crate) fn versions(&self) -> BTreeMap<(String, String), String> {
        self.policies()
            .into_iter()
            .map(|(key, policy)| (key, text(&policy["metadata"]["resourceVersion"])))
            .collect()
    }

    /// Everything that pods of the application called since then, but for the time that the engine needs with a new pod.
    pub(crate) fn calls(&self, since: Timestamp) -> Vec<Call> {
        let mut calls = Vec::new();
        for namespace in &self.app.namespaces {
            let namespace = namespace.name.as_str();
            for pod in self.items(&["pods", "--namespace", namespace]) {
                let name = text(&pod["metadata"]["name"]);
                let started = pod["status"]["startTime"]
                    .as_str()
                    .and_then(|time| time.parse::<Timestamp>().ok());
                let since = started.map_or(since, |started| since.max(started + ENGINE));
                let log = self
                    .cluster
                    .kubectl()
                    .args([
                        "logs",
                        "--namespace",
                        namespace,
                        &name,
                        &format!("--since-time={since}"),
                    ])
                    .output()
                    .unwrap();
                // A pod that is just starting or going has no log.
                let lines = String::from_utf8(log.stdout).unwrap();
                let made = lines.lines().filter_map(|line| serde_json::from_str::<Call>(line).ok());
                calls.extend(made.filter(|call| call.at >= since));
            }
        }
        calls
    }

    /// Every kind of call that the application makes by itself: from, to, port, and whether over IPv6.
    fn expected_calls(&self) -> BTreeSet<(String, String, u16)> {
        self.app
            .workloads
            .iter()
            .filter(|workload| workload.name.as_str() != "intruder")
            .flat_map(|workload| {
                workload.calls.iter().map(|call| {
                    (
                        format!("{}/{}", workload.namespace, workload.name),
                        call.to.to_string(),
                        call.port().get(),
                    )
                })
            })
            .collect()
    }

    /// Watches the application for `length`: every call is answered, and none of the expected ones is missing.
    pub(crate) fn assert_all_answered(&self, length: Duration, when: &str) {
        let since = Timestamp::now();
        // The condition is an uneventful time of this length.
        std::thread::sleep(length);
        let calls = self.calls(since);
        let failed: Vec<&Call> = calls.iter().filter(|call| !call.ok).collect();
        assert!(
            failed.is_empty(),
            "{when}: {} of {} calls failed: {failed:#?}",
            failed.len(),
            calls.len()
        );
        let seen: BTreeSet<(String, String, u16)> = calls
            .iter()
            .map(|call| (call.from.clone(), call.to.clone(), call.port))
            .collect();
        let missing: Vec<_> = self
            .expected_calls()
            .into_iter()
            .filter(|(from, _, _)| length >= Duration::from_mins(1) || !self.is_cron_job(from))
            .filter(|call| !seen.contains(call))
            .collect();
        assert!(missing.is_empty(), "{when}: never called: {missing:#?}");
        println!(
            "{when}: {} calls of {} kinds in {length:?}, all answered",
            calls.len(),
            seen.len()
        );
    }

    /// Waits until no call fails any more: the engine works in a change of policies or pods within some seconds.
    pub(crate) fn wait_for_engine(&self, what: &str) {
        let begun = Timestamp::now();
        until(what, Duration::from_mins(2), || {
            let now = Timestamp::now();
            let lately = begun.max(now - QUIET);
            let calls = self.calls(lately);
            let failed: Vec<&Call> = calls.iter().filter(|call| !call.ok).collect();
            if SignedDuration::try_from(QUIET).is_ok_and(|quiet| now.duration_since(begun) > quiet) && failed.is_empty()
            {
                return Ok(());
            }
            Err(format!("{} calls, of which failed: {failed:#?}", calls.len()))
        });
    }

    fn is_cron_job(&self, id: &str) -> bool {
        self.app
            .workloads
            .iter()
            .any(|workload| workload.kind == Kind::CronJob && format!("{}/{}", workload.namespace, workload.name) == id)
    }

    /// Lets the intruder make each of its calls once, and returns them.
    pub(crate) fn intrude(&self) -> Vec<Call> {
        let intruder: ObjectName = "shop/intruder".parse().unwrap();
        let expected = self.app.workload(&intruder).unwrap().calls.len();
        let since = Timestamp::now();
        assert_eq!(self.cluster.say_to(&intruder).unwrap(), 1, "one intruder was told");
        until(
            "the intruder to have made all of its calls",
            Duration::from_secs(90),
            || {
                let calls: Vec<Call> = self
                    .calls(since)
                    .into_iter()
                    .filter(|call| call.from == "shop/intruder")
                    .collect();
                let made: BTreeSet<_> = calls
                    .iter()
                    .map(|call| (&call.to, call.port, call.address.is_some_and(|it| it.is_ipv6())))
                    .collect();
                if made.len() >= expected {
                    Ok(calls)
                } else {
                    Err(format!("{} of {expected}", made.len()))
                }
            },
        )
    }

    /// How long until a policy is again what it was, since `spoiled`.
    pub(crate) fn repaired(&self, key: &(String, String), before: &Value, spoil: impl FnOnce()) -> Duration {
        spoil();
        let begun = Instant::now();
        until("the policy to be repaired", Duration::from_secs(30), || {
            self.policies()
                .get(key)
                .filter(|policy| policy["spec"] == before["spec"])
                .map(|_| begun.elapsed())
                .ok_or("it differs")
        })
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
