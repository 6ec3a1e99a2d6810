//! The controller killed at every step of what it writes, the API server stopped, etcd restarted: never a wrong policy, and right
//! again within ten seconds.

use std::sync::Arc;

use nanoseg_policy::plan::same;

use super::proxy::{Proxy, Trap};
use super::*;

/// Kills in every run of the tests; `NANOSEG_KILLS` names another number.
const KILLS: u32 = 200;

/// Within which everything is right again.
const BOUND: Duration = Duration::from_secs(10);

/// Workloads beside web, which talks to each.
const OTHERS: [&str; 3] = ["db", "cache", "queue"];

/// What is right, by the policy's name.
type Right = BTreeMap<String, NetworkPolicy>;

/// What disturbs the controller.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    /// Every policy is deleted.
    Deleted,
    /// Every policy is opened.
    Opened,
    /// Every workload is switched off for a moment, and learned anew.
    SwitchedOff,
    /// Every Segment is deleted.
    Forgotten,
}

impl Disturbance {
    /// The cheap ones more often.
    const ROUND: [Self; 8] = [
        Self::Deleted,
        Self::Opened,
        Self::Deleted,
        Self::Forgotten,
        Self::Opened,
        Self::Deleted,
        Self::Opened,
        Self::SwitchedOff,
    ];
}

/// What a person has made of a policy: it allows everything.
fn opened() -> Value {
    json!({ "ingress": [{}], "egress": [{}], "policyTypes": ["Ingress", "Egress"] })
}

fn is_opened(policy: &NetworkPolicy) -> bool {
    let spec = policy.spec.as_ref().unwrap();
    let everything = |rules: Value| rules == json!([{}]);
    everything(json!(spec.ingress)) && everything(json!(spec.egress))
}

async fn live(cluster: &Cluster) -> Option<Right> {
    let policies = cluster.api::<NetworkPolicy>().list(&ListParams::default()).await.ok()?;
    Some(policies.into_iter().map(|policy| (policy.name_any(), policy)).collect())
}

fn is(right: &Right, name: &str, policy: &NetworkPolicy) -> bool {
    right.get(name).is_some_and(|right| same(right, policy))
}

async fn is_right(cluster: &Cluster, right: &Right) -> Option<()> {
    let segments = cluster.api::<Segment>().list(&ListParams::default()).await.ok()?;
    let enforced = segments.iter().filter(|segment| {
        let status = segment.status.as_ref();
        status.is_some_and(|status| status.phase == Phase::Enforcing)
    });
    let live = live(cluster).await?;
    let alike = live.len() == right.len() && live.iter().all(|(name, policy)| is(right, name, policy));
    (enforced.count() == right.len() && alike).then_some(())
}

/// What a person would look at.
async fn state(cluster: &Cluster, right: &Right) -> String {
    let mut lines = Vec::new();
    for segment in cluster.api::<Segment>().list(&ListParams::default()).await.unwrap() {
        let SegmentStatus {
            phase,
            reason,
            frozen_at,
            edges,
            novel,
            ..
        } = segment.status.clone().unwrap();
        let (name, mode) = (segment.name_any(), segment.spec.mode);
        lines.push(format!(
            "{name}: {phase:?}, mode {mode:?}, frozen {frozen_at:?}, {edges} edges, {novel} novel: {reason}"
        ));
    }
    for (name, policy) in live(cluster).await.unwrap_or_default() {
        lines.push(format!(
            "{name}: right {}, opened {}",
            is(right, &name, &policy),
            is_opened(&policy)
        ));
    }
    lines.join("\n")
}

impl Disturbance {
    async fn begin(self, cluster: &Cluster, right: &Right) {
        let policies: Api<NetworkPolicy> = cluster.api();
        let segments: Api<Segment> = cluster.api();
        let now = PatchParams::default();
        for name in right.keys() {
            let segment = name.strip_prefix("nanoseg-").unwrap();
            match self {
                Self::Deleted => drop(policies.delete(name, &DeleteParams::default()).await),
                Self::Opened => drop(
                    policies
                        .patch(name, &now, &Patch::Merge(json!({ "spec": opened() })))
                        .await,
                ),
                Self::SwitchedOff => {
                    let off = json!({ "spec": { "mode": "Off" } });
                    drop(segments.patch(segment, &now, &Patch::Merge(off)).await);
                }
                Self::Forgotten => drop(segments.delete(segment, &DeleteParams::default()).await),
            }
        }
    }

    /// What a person does afterwards.
    async fn end(self, cluster: &Cluster, right: &Right) {
        if let Self::SwitchedOff = self {
            let segments: Api<Segment> = cluster.api();
            for name in right.keys() {
                let segment = name.strip_prefix("nanoseg-").unwrap();
                let on = Patch::Merge(json!({ "spec": { "mode": null } }));
                drop(segments.patch(segment, &PatchParams::default(), &on).await);
            }
        }
    }
}

fn start(server: &Server, proxy: &Proxy, port: u16) -> Running {
    let arguments = [
        "--enforce",
        "shop=1s",
        "--quiet-for",
        "100ms",
        "--report-interval",
        "1s",
    ];
    proxy.controller(server, port, &arguments)
}

/// Tells every controller what a learner saw, as long as it runs.
pub(super) fn learner(port: u16, report: Vec<u8>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            if let Ok(mut client) = ReportsClient::connect(format!("http://127.0.0.1:{port}")).await {
                let (send, increments) = tokio::sync::mpsc::channel(1);
                let report = report.clone();
                send.send(Increment { sequence: 1, report }).await.unwrap();
                let increments = tokio_stream::wrappers::ReceiverStream::new(increments);
                if let Ok(answers) = client.send(increments).await {
                    let mut answers = answers.into_inner();
                    while let Ok(Some(_)) = answers.message().await {}
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

/// Looks all the time whether a policy is there that nobody wanted.
fn watch(client: Client, right: Arc<Right>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let cluster = Cluster { client };
        loop {
            for (name, policy) in live(&cluster).await.unwrap_or_default() {
                let wanted = is(&right, &name, &policy) || is_opened(&policy);
                assert!(wanted, "a wrong policy {name}: {:?}", policy.spec);
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_killed_anywhere_writes_no_wrong_policy_and_the_next_one_is_right_within_ten_seconds() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let kills: u32 = std::env::var("NANOSEG_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut server = Server::start(&kubernetes).await;
    let cluster = Cluster::ready(&server).await;
    let proxy = Proxy::start(server.client().await, server.folder.path()).await;
    let port = free_port();
    let web = cluster.workload("web", "198.18.1.10").await;
    let mut flows = Vec::new();
    for (number, name) in (11_u16..).zip(OTHERS) {
        let address = format!("198.18.1.{number}");
        let uid = cluster.workload(name, &address).await;
        flows.push(flow(&uid, "198.18.1.10", 5000 + number, "destination", 9));
        flows.push(flow(&web, &address, 5000 + number, "source", 9));
    }
    let mut nanoseg = start(&server, &proxy, port);
    let learner = learner(port, report(&flows));
    let (right, _) = until("everything is enforced", || async {
        let right = live(&cluster).await.filter(|live| live.len() == OTHERS.len() + 1)?;
        is_right(&cluster, &right).await.map(|()| right)
    })
    .await;
    let right = Arc::new(right);
    let watching = watch(server.client().await, Arc::clone(&right));

    let mut times = Vec::new();
    let (mut step, mut snapped) = (1, 0);
    let mut deepest = 0;
    for (kill, disturbance) in (0..kills).zip(Disturbance::ROUND.into_iter().cycle()) {
        // The next round of disturbances is interrupted one step later; alternately before and after what is asked for.
        let (round, after) = (kill / 8, kill % 2 == (kill / 8) % 2);
        if kill % 8 == 0 {
            step = round % 12 + 1;
        }
        let victim = nanoseg.pid();
        proxy.set(Trap {
            victim,
            countdown: step,
            after,
        });
        disturbance.begin(&cluster, &right).await;
        // Killed at that step, or when there are no more of them.
        let patience = Instant::now();
        while !nanoseg.has_ended() && patience.elapsed() < Duration::from_millis(1500) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if proxy.take() {
            (snapped, deepest) = (snapped + 1, deepest.max(step));
        }
        nanoseg.kill();
        disturbance.end(&cluster, &right).await;
        let began = Instant::now();
        nanoseg = start(&server, &proxy, port);
        while is_right(&cluster, &right).await.is_none() {
            assert!(
                began.elapsed() < BOUND,
                "kill {kill} ({disturbance:?}, step {step}, after: {after}):\n{}",
                state(&cluster, &right).await
            );
            assert!(
                !watching.is_finished(),
                "kill {kill} ({disturbance:?}, step {step}): a wrong policy"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        times.push(began.elapsed());
    }
    times.sort_unstable();
    println!(
        "{kills} kills, {snapped} of them within a write, up to the {deepest}th: right again within {:?}, half of them within {:?}",
        times[times.len() - 1],
        times[times.len() / 2]
    );
    assert!(snapped * 2 > kills, "only {snapped} kills were within a write");

    // The API server stopped and etcd restarted: what was done meanwhile is made right.
    for what in ["API server", "etcd"] {
        if what == "etcd" {
            server.restart_etcd();
        } else {
            server.pause();
            tokio::time::sleep(Duration::from_secs(8)).await;
            server.resume().await;
        }
        let policies: Api<NetworkPolicy> = cluster.api();
        until("a policy can be deleted", || async {
            let deleted = policies.delete("nanoseg-deployment-db", &DeleteParams::default()).await;
            deleted.is_ok().then_some(())
        })
        .await;
        let began = Instant::now();
        until("everything is right", || is_right(&cluster, &right)).await;
        println!("right {:?} after the {what} was back", began.elapsed());
        assert!(began.elapsed() < BOUND, "{what}: {:?}", began.elapsed());
    }
    assert!(!watching.is_finished(), "a wrong policy");
    learner.abort();
    watching.abort();
}
