//! The controller as its metrics, the kernel and other clients of the API server see it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ObjectMeta, PartialObjectMeta};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::task::JoinHandle;

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_mins(10);

/// MiB that a process holds.
pub(crate) fn resident(pid: rustix::process::Pid) -> f64 {
    let text = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Seconds for which a process had a core.
pub(crate) fn spent(pid: rustix::process::Pid) -> f64 {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2);
    ticks.map(|field| field.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// The controller's metrics; `None` as long as it does not answer.
pub(crate) fn metrics(port: u16) -> Option<Metrics> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(Metrics(answer))
}

pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of the series of a metric that have all of these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let own = self.0.lines().filter_map(|line| line.strip_prefix(name));
        let own = own.filter(|rest| rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label)));
        own.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// Waits until `check` returns something. Returns how long that took.
pub(crate) async fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> (T, Duration) {
    let began = Instant::now();
    loop {
        if let Some(found) = check() {
            return (found, began.elapsed());
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// When each policy was first seen live, by namespace and name.
#[derive(Clone, Default)]
pub(crate) struct Arrivals(Arc<Mutex<BTreeMap<(String, String), Instant>>>);

impl Arrivals {
    /// Begins to watch.
    pub(crate) fn watch(client: kube::Client) -> (Self, JoinHandle<()>) {
        let arrivals = Self::default();
        let seen = Arc::clone(&arrivals.0);
        let task = tokio::spawn(async move {
            let policies = watcher(
                Api::<PartialObjectMeta<NetworkPolicy>>::all(client),
                watcher::Config::default(),
            );
            let mut policies = pin!(policies.applied_objects());
            while let Ok(Some(policy)) = policies.try_next().await {
                let ObjectMeta { namespace, name, .. } = policy.metadata;
                let name = (namespace.unwrap_or_default(), name.unwrap_or_default());
                seen.lock().unwrap().entry(name).or_insert_with(Instant::now);
            }
        });
        (arrivals, task)
    }

    pub(crate) fn of(&self, policy: &(String, String)) -> Option<Instant> {
        self.0.lock().unwrap().get(policy).copied()
    }

    /// How many there are, and from when until when they came.
    pub(crate) fn all(&self) -> (usize, Option<(Instant, Instant)>) {
        let seen = self.0.lock().unwrap();
        let first = seen.values().min().copied();
        (seen.len(), first.zip(seen.values().max().copied()))
    }
}
