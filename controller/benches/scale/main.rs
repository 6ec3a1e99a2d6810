//! `make bench`: the controller on a real API server with a simulated cluster of up to 10,000 workloads, 100,000 pods and 5,000
//! learners, each with a stream of its own. `NANOSEG_SCALE=10,3,1` measures a tenth, a third and all of that; without it only
//! [`PARTS`]: a tenth takes three minutes, and all of it half an hour and 16 GiB, most of them the API server's.
//!
//! What is measured of each size, in this order:
//! 1. the controller without pods and with all of them: what a pod takes;
//! 2. every workload is learned: all learners report, and are told that it is durable;
//! 3. the windows end, and people set every namespace to Enforce: how fast the policies are applied, beside a client that does
//!    the same with eight connections and without a thought;
//! 4. workloads that were silent begin to talk: how long it takes until the policy of each is live;
//! 5. nothing happens: what the controller holds, and that it writes nothing;
//! 6. another controller takes over: how long it takes until it has seen that all is as it is to be.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench that cannot go on says why and ends"
)]
#![expect(
    clippy::cast_precision_loss,
    reason = "three digits are read, and every count is below 2^52"
)]

mod bare;
mod etcd;
mod fleet;
mod look;
#[path = "../../../tests/benches/rows.rs"]
#[expect(dead_code, reason = "another bench uses the rest of it")]
mod rows;
#[path = "../../tests/api_server/server.rs"]
#[expect(dead_code, reason = "tests use the rest of it")]
mod server;
mod world;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};

use fleet::Fleet;
use look::{Arrivals, metrics, resident, spent, until};
use rows::{Goal, Row};
use server::{Running, Server, free_port};
use world::{LATE, World};

/// Parts of the full size that are measured if nobody says otherwise.
const PARTS: &str = "10";

/// With this and a kubeconfig, the program fills a client's caches and prints how much it holds.
const CACHES: &str = "caches";

/// For how long nothing is to happen.
const STILL: Duration = Duration::from_secs(20);

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [what, kubeconfig, ..] = &arguments[..]
        && what == CACHES
    {
        let held = runtime.block_on(async { bare::caches(server::client_of(Path::new(kubeconfig)).await).await });
        println!("{held}");
        return;
    }
    let Some(kubernetes) = server::kubernetes() else {
        println!("left out: kube-apiserver is not built (`lab build --full`)");
        return;
    };
    let parts = std::env::var("NANOSEG_SCALE").unwrap_or_else(|_unset| PARTS.to_owned());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench-scale.json");
    let (mut rows, mut table) = (Vec::new(), String::new());
    for part in parts.split(',') {
        let part = part.parse().expect("NANOSEG_SCALE is like 10,3,1");
        rows.extend(runtime.block_on(Bench::start(&kubernetes, part)).rows(&runtime));
        // Large sizes take long: what is known is kept.
        table = rows::write(&rows, &file).unwrap();
    }
    println!("\n{table}\nalso in target/bench-scale.json");
}

/// One size.
struct Bench {
    part: usize,
    world: World,
    server: Server,
    client: Client,
    /// When it began, to tell how far it is.
    began: Instant,
    /// Runs of the controller.
    runs: usize,
    rows: Vec<Row>,
}

/// A run of the controller.
struct Controller {
    process: Running,
    began: Instant,
    port: u16,
    health: u16,
}

impl Controller {
    fn resident(&self) -> f64 {
        resident(self.process.pid())
    }

    /// Waits until its metrics say so.
    async fn until(&self, what: &str, check: impl Fn(&look::Metrics) -> bool) -> Duration {
        let told = || metrics(self.health).filter(|metrics| check(metrics));
        until(what, told).await;
        self.began.elapsed()
    }

    /// Waits until it leads and has read everything.
    async fn leads(&self) {
        self.until("it leads", |metrics| {
            let has = |name: &str| metrics.sum(name, &[]) > 0.0;
            has("nanoseg_leader") && has("nanoseg_in_sync")
        })
        .await;
    }

    fn stop(mut self) {
        let code = self.process.terminate();
        assert_eq!(code, Some(0), "the controller ends as it should");
    }

    async fn reads(&self) -> Duration {
        self.until("everything is read", |metrics| {
            metrics.sum("nanoseg_in_sync", &[]) > 0.0
        })
        .await
    }

    /// Waits until it has written nothing for two seconds.
    async fn calms_down(&self) {
        let mut last = (f64::NAN, Instant::now());
        until("nothing more is written", || {
            let written = metrics(self.health)?.sum("nanoseg_writes_total", &[]);
            if written.total_cmp(&last.0).is_ne() {
                last = (written, Instant::now());
            }
            (last.1.elapsed() > Duration::from_secs(2)).then_some(())
        })
        .await;
    }
}

impl Bench {
    async fn start(kubernetes: &Path, part: usize) -> Self {
        let server = Server::start(kubernetes).await;
        let client = server.client().await;
        let bench = Self {
            part,
            world: World::part(part),
            server,
            client,
            began: Instant::now(),
            runs: 0,
            rows: Vec::new(),
        };
        bench
            .create(serde_yaml::from_str(&nanoseg::cli::crd_yaml().unwrap()).unwrap())
            .await;
        for namespace in ["nanoseg", "bare"] {
            bench
                .create(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }))
                .await;
        }
        let account = json!({ "name": "nanoseg-learner", "namespace": "nanoseg" });
        bench
            .create(json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": account }))
            .await;
        bench
    }

    fn rows(mut self, runtime: &tokio::runtime::Runtime) -> Vec<Row> {
        runtime.block_on(self.measure());
        self.rows
    }

    async fn measure(&mut self) {
        let objects = etcd::fill(self.server.etcd_port, self.world.objects()).await;
        self.say(&format!("{objects} objects without pods"));
        let empty = self.read_alone().await;
        let pods = etcd::fill(self.server.etcd_port, self.world.all_pods()).await;
        self.say(&format!("{pods} pods"));
        let read = self.read_alone().await;
        let each = (read.0 - empty.0) * 1024.0 / pods as f64;
        self.row("memory of a pod", "KiB", each, Goal::AtMost(1.0));

        let tokens = fleet::tokens(&self.client, self.world).await;
        self.say(&format!("{} tokens", tokens.len()));
        self.learn(&tokens).await;
        let policies = bare::proposed(&self.client).await;
        let bare_before = bare::apply(&self.server, &policies).await;
        self.say(&format!("a bare client applies {bare_before:.0} policies a second"));

        let (controller, fleet, rate) = self.enforce(&tokens).await;
        self.follow(&fleet).await;
        self.rest(&controller, read.0).await;
        drop(fleet);
        controller.stop();
        let bare_after = bare::apply(&self.server, &policies).await;
        self.say(&format!("a bare client applies {bare_after:.0} policies a second"));
        let bare = f64::midpoint(bare_before, bare_after);
        let ratio = Row::new(
            self.name("policies applied, as fast as a bare client"),
            "ratio",
            &[rate / bare],
            Goal::AtLeast(0.8),
        );
        self.rows
            .push(ratio.beside("its rate, 1/s", rate).beside("bare, 1/s", bare));
        self.take_over().await;
    }

    /// What it holds with nothing but the cluster's objects, in MiB, and how long reading took.
    async fn read_alone(&mut self) -> (f64, Duration) {
        let controller = self.controller(&["--learn-for", "24h"]);
        let took = controller.reads().await;
        controller.leads().await;
        let held = controller.resident();
        self.say(&format!("read in {took:.1?}, holds {held:.0} MiB"));
        controller.stop();
        (held, took)
    }

    /// Every workload is learned.
    async fn learn(&mut self, tokens: &[Arc<str>]) {
        let controller = self.controller(&["--learn-for", "24h"]);
        controller.leads().await;
        let before = controller.resident();
        let began = Instant::now();
        let fleet = Fleet::connect(self.world, &self.authority().await, controller.port, tokens);
        until("all learners are told", || {
            (fleet.settled() == tokens.len()).then_some(())
        })
        .await;
        let took = began.elapsed();
        controller.calms_down().await;
        let core = spent(controller.process.pid());
        self.say(&format!(
            "all reports durable in {took:.1?}, held {before:.0} MiB before, {:.0} after, {core:.0} s of a core",
            controller.resident()
        ));
        self.row(
            "all reports of all learners durable",
            "s",
            took.as_secs_f64(),
            Goal::None,
        );
        drop(fleet);
        controller.stop();
    }

    /// Every namespace is set to Enforce. Returns the rate of policies.
    async fn enforce(&mut self, tokens: &[Arc<str>]) -> (Controller, Fleet, f64) {
        let controller = self.controller(&[
            "--learn-for",
            "0s",
            "--quiet-for",
            "0s",
            "--policies-per-second",
            "unlimited",
        ]);
        controller.leads().await;
        let fleet = Fleet::connect(self.world, &self.authority().await, controller.port, tokens);
        until("all learners are back", || {
            (fleet.settled() == tokens.len()).then_some(())
        })
        .await;
        self.say(&format!(
            "all learners are back after {:.1?}",
            controller.began.elapsed()
        ));
        controller.calms_down().await;
        let (arrivals, watch) = Arrivals::watch(self.client.clone());
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let mode = json!({ "metadata": { "labels": { "nanoseg.io/mode": "Enforce" } } });
        for number in 0..self.world.namespaces() {
            let name = format!("n{number}");
            namespaces
                .patch(&name, &PatchParams::default(), &Patch::Merge(&mode))
                .await
                .unwrap();
        }
        let wanted = self.world.segments;
        until("all policies are live", || (arrivals.all().0 >= wanted).then_some(())).await;
        let (first, last) = arrivals.all().1.unwrap();
        let rate = wanted as f64 / last.duration_since(first).as_secs_f64();
        self.say(&format!("{rate:.0} policies a second"));
        controller.calms_down().await;
        watch.abort();
        (controller, fleet, rate)
    }

    /// Workloads that were silent begin to talk.
    async fn follow(&mut self, fleet: &Fleet) {
        let (arrivals, watch) = Arrivals::watch(self.client.clone());
        let mut random = fastrand::Rng::with_seed(1);
        let mut said = Vec::new();
        for workload in self.world.late() {
            tokio::time::sleep(Duration::from_millis(random.u64(50..450))).await;
            let node = self.world.node_of_first_pod(workload);
            said.push((world::policy_of(workload), Instant::now()));
            fleet.say(node, self.world.first_words(workload)).await;
        }
        let all = || {
            said.iter()
                .map(|(policy, at)| Some(arrivals.of(policy)?.duration_since(*at)))
                .collect()
        };
        let (took, _): (Vec<Duration>, _) = until("each has its policy", all).await;
        watch.abort();
        let mut seconds: Vec<f64> = took.iter().map(Duration::as_secs_f64).collect();
        seconds.sort_by(f64::total_cmp);
        let at = |percent: usize| seconds[(LATE * percent).div_ceil(100) - 1];
        let row = Row::new(
            self.name("observed flow to live policy, p99"),
            "s",
            &[at(99)],
            Goal::AtMost(5.0),
        );
        self.say(&format!("flow to policy: median {:.2} s, p99 {:.2} s", at(50), at(99)));
        self.rows.push(row.beside("median", at(50)).beside("longest", at(100)));
    }

    /// Nothing happens.
    async fn rest(&mut self, controller: &Controller, read: f64) {
        controller.calms_down().await;
        let before = (metrics(controller.health).unwrap(), spent(controller.process.pid()));
        tokio::time::sleep(STILL).await;
        let after = (metrics(controller.health).unwrap(), spent(controller.process.pid()));
        let written = |metrics: &look::Metrics| metrics.sum("nanoseg_writes_total", &[]);
        self.row(
            "writes while nothing happens",
            "",
            written(&after.0) - written(&before.0),
            Goal::AtMost(0.0),
        );
        let cores = (after.1 - before.1) / STILL.as_secs_f64();
        self.row("cores while nothing happens", "", cores, Goal::None);
        let held = controller.resident();
        let rounds = |of: &str| after.0.sum(&format!("nanoseg_round_duration_seconds_{of}"), &[]);
        let bare = self.bare_caches();
        self.say(&format!(
            "holds {held:.0} MiB, a bare client's caches {bare:.0} MiB; {} rounds of {:.3} s",
            rounds("count"),
            rounds("sum") / rounds("count")
        ));
        let all = Row::new(self.name("memory with everything live"), "MiB", &[held], Goal::None);
        self.rows.push(all.beside("a bare client's caches", bare));
        self.row(
            "memory above a bare client's caches",
            "MiB",
            held - bare,
            Goal::AtMost(150.0),
        );
        self.row(
            "memory above its own of the cluster's objects",
            "MiB",
            held - read,
            Goal::AtMost(150.0),
        );
    }

    /// Another controller takes over.
    async fn take_over(&mut self) {
        let controller = self.controller(&["--learn-for", "0s", "--quiet-for", "0s"]);
        let wanted = self.world.workloads() as f64;
        let took = controller
            .until("everything is enforced", |metrics| {
                metrics.sum("nanoseg_segments", &["phase=\"Enforcing\""]) >= wanted
            })
            .await;
        let core = spent(controller.process.pid());
        let row = Row::new(
            self.name("start to in sync"),
            "s",
            &[took.as_secs_f64()],
            Goal::AtMost(30.0),
        );
        self.rows.push(row.beside("seconds of a core", core));
        controller.calms_down().await;
        let written = metrics(controller.health).unwrap().sum("nanoseg_writes_total", &[]);
        self.row("writes by a new controller", "", written, Goal::AtMost(0.0));
        self.say(&format!("in sync after {took:.1?}"));
        controller.stop();
    }

    fn controller(&mut self, arguments: &[&str]) -> Controller {
        self.runs += 1;
        let (port, health) = (free_port(), free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_nanoseg"));
        command
            .arg("controller")
            .arg("--kubeconfig")
            .arg(self.server.kubeconfig())
            .args(["--own-namespace", "nanoseg", "--page-listen", "off"])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--health-listen", &format!("127.0.0.1:{health}")])
            .args(arguments);
        let log = self.server.folder.path().join(format!("controller-{}.log", self.runs));
        Controller {
            process: Running::start(&command, log),
            began: Instant::now(),
            port,
            health,
        }
    }

    /// The certificate of the authority that learners trust.
    async fn authority(&self) -> String {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), "nanoseg");
        let map = maps.get("nanoseg-authority").await.unwrap();
        map.data.unwrap().remove("ca.crt").unwrap()
    }

    /// MiB of a client's caches, in a process of its own.
    fn bare_caches(&self) -> f64 {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command
            .arg(CACHES)
            .arg(self.server.kubeconfig())
            .stderr(Stdio::inherit());
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    async fn create(&self, object: Value) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap());
        let api: Api<DynamicObject> = match object.metadata.namespace.as_deref() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let name = object.metadata.name.clone().unwrap();
        api.patch(&name, &PatchParams::apply("bench"), &Patch::Apply(&object))
            .await
            .unwrap();
    }

    fn name(&self, what: &str) -> String {
        format!("1/{}: {what}", self.part)
    }

    fn row(&mut self, what: &str, unit: &str, value: f64, goal: Goal) {
        let row = Row::new(self.name(what), unit, &[value], goal);
        self.rows.push(row);
    }

    fn say(&self, what: &str) {
        println!("[1/{} {:>5.0} s] {what}", self.part, self.began.elapsed().as_secs_f64());
    }
}
