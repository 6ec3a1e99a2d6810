//! The whole loop on a real cluster: the shop is learned from its packets, its policies are applied, and a real engine refuses
//! what was not learned. The shipped manifests are applied as they are, but for the place of the cgroup tree in the lab.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod audit;
mod doctor;
mod matrix;
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use nanoseg_lab::app::{App, Kind, ObjectName};
use nanoseg_lab::full::{Cluster, Options};
use nanoseg_lab::peer::Call;
use nanoseg_tests::{is_root, program, until};
use serde_json::Value;

use audit::Audit;

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");

/// Learned first: one run of the CronJob, which comes each minute, and some seconds for it to start.
const WINDOW: &str = "80s";

/// How long after its start a pod's calls may fail: an engine learns of a pod's address some time after the pod has it, and
/// until then it refuses what policies allow that pod. Measured here: one to three seconds with idle cores.
const ENGINE: Duration = Duration::from_secs(6);

/// How long no call may have failed until the engine counts as done with a change. It takes up one event after the other, some
/// seconds each on busy cores, and rewrites all of its rules each time.
const QUIET: Duration = Duration::from_secs(10);

/// Label of every policy that is nanoseg's.
const OURS: &str = "app.kubernetes.io/managed-by=nanoseg";

const FOREIGN: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: by-hand, namespace: ops}
spec:
  podSelector: {matchLabels: {app: nobody}}
  policyTypes: [Ingress]
";

/// Namespace and name to object.
type Policies = BTreeMap<(String, String), Value>;

struct Shop {
    cluster: Cluster,
    app: App,
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
    fn up(audit: &Audit) -> Self {
        let app = App::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/lab/shop.yaml"))).unwrap();
        let mut options = Options::new(program("lab-peer"));
        options.api_server_flags = audit.flags();
        let begun = Instant::now();
        options.say = Box::new(move |step| println!("[{:>4.0?}] {step}", begun.elapsed()));
        let mut cluster = Cluster::up(options).unwrap();
        cluster.apply(&app).unwrap();
        Self { cluster, app }
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.cluster.kubectl().args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn items(&self, arguments: &[&str]) -> Vec<Value> {
        self.cluster.get(&[&["get"], arguments].concat()).unwrap()["items"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// The learner on both nodes and the controller, from the shipped manifests.
    fn install(&self) {
        let programs = program("nanoseg");
        let enforce = ["shop", "data", "ops"].map(|namespace| format!("{namespace}={WINDOW}"));
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

    /// Waits until every workload that talks is enforced, and its policy is there.
    fn wait_for_enforcement(&self) {
        until("every workload to be enforced", Duration::from_mins(5), || {
            let segments = self.items(&["segments", "--all-namespaces"]);
            let enforced: BTreeSet<(String, String)> = segments
                .iter()
                .filter(|segment| segment["status"]["phase"] == "Enforcing")
                .map(|segment| {
                    (
                        text(&segment["metadata"]["namespace"]),
                        text(&segment["spec"]["workload"]["name"]),
                    )
                })
                .collect();
            let missing: Vec<_> = self.talkers().difference(&enforced).cloned().collect();
            if missing.is_empty() {
                return Ok(());
            }
            let reasons: Vec<String> = segments
                .iter()
                .filter(|segment| segment["status"]["phase"] != "Enforcing")
                .map(|segment| {
                    let status = &segment["status"];
                    format!(
                        "\n  {} {}: {}",
                        segment["metadata"]["name"], status["phase"], status["reason"]
                    )
                })
                .collect();
            Err(format!("{missing:?}{}", reasons.concat()))
        });
        let policies = self.policies();
        assert_eq!(
            policies.len(),
            self.talkers().len(),
            "one policy for each workload: {policies:?}"
        );
    }

    /// The policies that are nanoseg's, but for the intruder's own: its window begins when it is told to speak, so when it gets
    /// one depends on how long the rest takes.
    fn policies(&self) -> Policies {
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
    fn versions(&self) -> BTreeMap<(String, String), String> {
        self.policies()
            .into_iter()
            .map(|(key, policy)| (key, text(&policy["metadata"]["resourceVersion"])))
            .collect()
    }

    /// Everything that pods of the application called since then, but for the time that the engine needs with a new pod.
    fn calls(&self, since: Timestamp) -> Vec<Call> {
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
    fn assert_all_answered(&self, length: Duration, when: &str) {
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
    fn wait_for_engine(&self, what: &str) {
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
    fn intrude(&self) -> Vec<Call> {
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
    fn repaired(&self, key: &(String, String), before: &Value, spoil: impl FnOnce()) -> Duration {
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

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a person who reviews the policies looks at first.
fn review(policies: &Policies, cluster: &Cluster) {
    let volatile = [
        "pod-template-hash",
        "controller-revision-hash",
        "job-name",
        "controller-uid",
        "pod-index",
    ];
    for ((namespace, name), policy) in policies {
        let spec = policy["spec"].to_string();
        for label in volatile {
            assert!(!spec.contains(label), "{namespace}/{name} selects by {label}: {spec}");
        }
        assert!(
            policy["metadata"]["annotations"]["nanoseg.io/evidence"].is_string(),
            "{namespace}/{name}: no evidence"
        );
        for rule in ["ingress", "egress"]
            .iter()
            .flat_map(|way| policy["spec"][way].as_array().into_iter().flatten())
        {
            assert!(
                rule["ports"].as_array().is_some_and(|ports| !ports.is_empty()),
                "{namespace}/{name}: any port"
            );
            let peers = rule["to"].as_array().or_else(|| rule["from"].as_array());
            assert!(
                peers.is_some_and(|peers| !peers.is_empty()),
                "{namespace}/{name}: anybody"
            );
            for block in peers
                .into_iter()
                .flatten()
                .filter_map(|peer| peer["ipBlock"]["cidr"].as_str())
            {
                let (address, length) = block.split_once('/').unwrap();
                let address: std::net::IpAddr = address.parse().unwrap();
                assert_eq!(
                    length,
                    if address.is_ipv6() { "128" } else { "32" },
                    "{namespace}/{name}: {block}"
                );
                let of_pod = cluster
                    .nodes()
                    .iter()
                    .flat_map(|node| node.pod_ranges)
                    .any(|range| range.contains(&address));
                assert!(!of_pod, "{namespace}/{name}: the ipBlock {block} is a pod's address");
            }
        }
    }
}

/// Programs attached below a node's cgroup.
fn attached(cgroup: &Path) -> String {
    let output = Command::new("bpftool")
        .args(["cgroup", "tree"])
        .arg(cgroup)
        .output()
        .unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    listed.lines().filter(|line| line.contains("cgroup_inet")).collect()
}

/// The intruder is refused everywhere, and that is reported.
fn refuses_the_intruder(shop: &Shop) {
    let calls = shop.intrude();
    let passed: Vec<&Call> = calls.iter().filter(|call| call.ok).collect();
    assert!(passed.is_empty(), "the intruder got through: {passed:#?}");
    let pairs: BTreeSet<_> = calls.iter().map(|call| (&call.to, call.port, call.address)).collect();
    assert!(pairs.len() >= 12, "{} pairs: {pairs:?}", pairs.len());
    println!("the intruder was refused on {} pairs", pairs.len());
    until(
        "the intrusion to be reported on the database's segment",
        Duration::from_secs(15),
        || {
            let segment = shop
                .cluster
                .get(&["get", "segment", "--namespace=data", "statefulset-orders-db"])
                .unwrap();
            let novel = &segment["status"]["novel"];
            if novel.as_u64() > Some(0) {
                Ok(())
            } else {
                Err(format!("novel is {novel}"))
            }
        },
    );
}

/// Every workload is restarted: its traffic goes on, its policy stays.
fn survives_a_restart(shop: &Shop, policies: &Policies) {
    for workload in shop
        .app
        .workloads
        .iter()
        .filter(|workload| workload.kind != Kind::CronJob)
    {
        let id = format!("{}/{}", workload.kind.as_str().to_lowercase(), workload.name);
        let namespace = workload.namespace.as_str();
        shop.kubectl(&["rollout", "restart", "--namespace", namespace, &id]);
        shop.kubectl(&["rollout", "status", "--namespace", namespace, "--timeout=180s", &id]);
    }
    shop.wait_for_engine("the engine to know the new pods");
    shop.assert_all_answered(Duration::from_mins(1), "after a rolling restart of every workload");
    let specs = |policies: &Policies| -> BTreeMap<_, _> {
        policies
            .iter()
            .map(|(key, policy)| (key.clone(), policy["spec"].clone()))
            .collect()
    };
    assert_eq!(specs(&shop.policies()), specs(policies), "a restart changes no policy");
}

/// What somebody else does to a policy is undone; what is not nanoseg's is left alone.
fn repairs_drift(shop: &Shop, policies: &Policies) {
    let (key, policy) = policies
        .iter()
        .find(|((_, name), _)| name.contains("orders-db"))
        .unwrap();
    let (namespace, name) = (key.0.as_str(), key.1.as_str());
    let edit = r#"[{"op":"replace","path":"/spec/ingress","value":[{}]}]"#;
    let edited = shop.repaired(key, policy, || {
        shop.kubectl(&[
            "patch",
            "networkpolicy",
            "--namespace",
            namespace,
            name,
            "--type=json",
            "--patch",
            edit,
        ]);
    });
    let deleted = shop.repaired(key, policy, || {
        shop.kubectl(&["delete", "networkpolicy", "--namespace", namespace, name]);
    });
    println!("an edited policy was back after {edited:?}, a deleted one after {deleted:?}");
    assert!(edited < Duration::from_secs(5) && deleted < Duration::from_secs(5));
}

/// A workload that is gone takes its policy along.
fn forgets_a_deleted_workload(shop: &mut Shop) {
    shop.kubectl(&["delete", "deployment", "--namespace=ops", "autoscaler"]);
    shop.app
        .workloads
        .retain(|workload| workload.name.as_str() != "autoscaler");
    until(
        "the policy of a deleted workload to go",
        Duration::from_secs(30),
        || {
            let left = shop
                .policies()
                .into_keys()
                .find(|(_, name)| name.contains("autoscaler"));
            left.map_or(Ok(()), |(namespace, name)| Err(format!("{namespace}/{name} is there")))
        },
    );
    // What was learned of it is kept for a day, unless it is switched off.
    let segment = ["--namespace=ops", "deployment-autoscaler"];
    let off = ["--type=merge", "--patch", r#"{"spec":{"mode":"Off"}}"#];
    shop.kubectl(&[&["patch", "segment"][..], &segment, &off].concat());
    until("its Segment to go", Duration::from_secs(30), || {
        let left = shop.items(&["segments", "--namespace=ops"]);
        let is_there = left
            .iter()
            .any(|segment| segment["metadata"]["name"] == "deployment-autoscaler");
        if is_there { Err("it is there") } else { Ok(()) }
    });
}

/// A controller that is killed leaves the policies as they were, and the next one finds nothing to write.
fn survives_its_controllers_death(shop: &Shop) {
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

/// Removing nanoseg leaves what the README says: the policies, and nothing in the kernel. They did refuse the intruder.
fn leaves_what_the_readme_says(shop: &Shop) {
    let before = shop.versions();
    for node in shop.cluster.nodes() {
        assert!(
            !attached(&node.cgroup).is_empty(),
            "{}: the learner's programs are attached",
            node.name
        );
    }
    shop.kubectl(&["delete", "--kustomize", MANIFESTS, "--timeout=120s"]);
    for node in shop.cluster.nodes() {
        until("the programs to be gone", Duration::from_secs(30), || {
            let left = attached(&node.cgroup);
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
    assert_eq!(
        shop.versions(),
        before,
        "removing nanoseg leaves the policies as they were"
    );
    shop.kubectl(&["delete", "networkpolicies", "--all-namespaces", "--selector", OURS]);
    until("the intruder to be let through again", Duration::from_mins(2), || {
        let refused: Vec<Call> = shop.intrude().into_iter().filter(|call| !call.ok).collect();
        if refused.is_empty() {
            Ok(())
        } else {
            Err(format!("{refused:?}"))
        }
    });
}

#[test]
fn the_shop_is_learned_enforced_and_kept_in_sync() {
    if !is_root("the real cluster") {
        return;
    }
    let audit = Audit::new();
    let mut shop = Shop::up(&audit);
    shop.cluster.apply_objects(FOREIGN).unwrap();
    let foreign = |shop: &Shop| {
        let by_hand = ["get", "networkpolicy", "--namespace=ops", "by-hand"];
        shop.cluster.get(&by_hand).unwrap()["metadata"]["resourceVersion"].clone()
    };
    let by_hand = foreign(&shop);

    shop.install();
    shop.wait_for_enforcement();
    println!("{}", shop.kubectl(&["get", "segments", "--all-namespaces"]));
    let policies = shop.policies();
    println!(
        "{}",
        shop.kubectl(&[
            "get",
            "networkpolicies",
            "--all-namespaces",
            "--selector",
            OURS,
            "-o",
            "yaml"
        ])
    );
    review(&policies, &shop.cluster);
    shop.wait_for_engine("the engine to know the policies");
    shop.assert_all_answered(Duration::from_mins(1), "after enforcement");

    refuses_the_intruder(&shop);
    survives_a_restart(&shop, &policies);
    repairs_drift(&shop, &policies);
    forgets_a_deleted_workload(&mut shop);
    survives_its_controllers_death(&shop);
    assert_eq!(foreign(&shop), by_hand, "not nanoseg's, not touched");
    page::comes_to_this_machine(&shop);
    doctor::tells_whether_the_cluster_enforces(&shop);
    audit.assert_rights_are_exact();
    leaves_what_the_readme_says(&shop);
    matrix::the_engine_agrees_with_the_evaluator(&mut shop);
}
