//! `nanoseg controller`: events in, rounds, writes out, until it is told to end. Ending leaves policies as they are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use nanoseg_health::{ListenError, heap};
use nanoseg_policy::ownership::PolicyName;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{self, mpsc, oneshot};
use tracing::field::Empty;
use tracing::{Instrument as _, info_span};

use crate::apply::{Live, OnCluster, OnDirectory, WriteError, apply};
use crate::directory::{self, Directory};
use crate::enforcement::{CONFIG_MAP, Enforcement};
use crate::health::{self, Health};
use crate::lease::{Leadership, Pen, Standing, Terms};
use crate::metrics::counted::Counted;
use crate::page::{Page, PageError};
use crate::read::ReadError;
use crate::read::live::{ConnectError, client, configuration};
use crate::receive::certificates::Certificates;
use crate::receive::identity::Recogniser;
use crate::receive::{self, Delivery, Door, ReceiveError, Trust};
use crate::reconcile::{Core, Due, Event, Guide, News, RefusedPart, Round, Why, Work};
use crate::settings::access::Access;
use crate::settings::{Place, Settings};
use crate::telemetry::{Lost, ROUND};
use crate::watch;

/// How long to wait for more after something changed: a rollout is hundreds of events, and one round for all of them.
const SETTLE: Duration = Duration::from_millis(200);

/// How long to wait after only counts changed.
const SETTLE_COUNTS: Duration = Duration::from_secs(1);

/// Deciding may take at most one part in this many of the time, as long as nobody waits for the next round longer than
/// [`LONGEST_PAUSE`]. What a round writes is not part of it, and the next one need not wait for what passed meanwhile.
const SHARE: u32 = 5;

/// How long the cost of one decision puts off the next one at most. One about everything may have frozen ten thousand baselines, and the
/// next one is about a flow whose policy is to be live within seconds. Less, and while five thousand learners tell all that they know
/// decisions of a second take most of the time.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long what came during a round is taken in before the next one, although that is due: thousands of events take less.
const BREATH: Duration = Duration::from_millis(50);

/// How often folders are looked through. Four times a second, so that an edit is repaired within one.
const LOOK: Duration = Duration::from_millis(250);

/// How often the finding of a probe is looked for: people wait for what follows from it.
const ENFORCEMENT: Duration = Duration::from_secs(30);

/// How long the loop sleeps at most.
const LONGEST_REST: Duration = Duration::from_mins(1);

/// A round that took so long, its writes included, has left holes in the heap that are worth the milliseconds of giving them back.
const LONG: Duration = Duration::from_millis(100);

/// Events that wait to be taken before their sources wait: a few milliseconds of work.
const WAITING: usize = 1024;

/// Reports that wait: the first of a node tells all that it has seen, in tens of kilobytes.
const REPORTS: usize = 64;

/// Why the controller cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// There is no way to the API server.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Learners cannot be listened to.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// Probes cannot be listened to.
    #[error(transparent)]
    Health(#[from] ListenError),
    /// The manifests cannot be read.
    #[error(transparent)]
    Manifests(#[from] ReadError),
    /// The output folder cannot be used.
    #[error(transparent)]
    Out(#[from] WriteError),
    /// The page cannot be served.
    #[error(transparent)]
    Page(#[from] PageError),
    /// Nobody said where learners are to be known by.
    #[error(
        "learners cannot be recognised outside a pod without the namespace that they run in: give --own-namespace, or \
         --insecure-learners to take reports from whoever connects"
    )]
    NoNamespace,
    /// Signals cannot be listened to.
    #[error("cannot listen to signals")]
    Signal(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT. `lost` counts what a collector of OpenTelemetry was not told.
pub async fn run(settings: Settings, lost: &Lost) -> Result<(), ControllerError> {
    let mut term = signal(SignalKind::terminate()).map_err(ControllerError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ControllerError::Signal)?;
    let health = Arc::new(Health::counting(lost));
    // A task of its own: whoever asks is answered while a round is held.
    let answers = tokio::spawn(health::answer(settings.health_listen, Arc::clone(&health)).await?);
    let mut leadership = None;
    let outcome = {
        let work = async {
            match settings.place.clone() {
                Place::Cluster {
                    access,
                    listen,
                    insecure_learners,
                    terms,
                } => {
                    let door = (listen, insecure_learners);
                    Box::pin(on_cluster(settings, health, &access, door, terms, &mut leadership)).await
                }
                Place::Directory { cluster, flows, out } => on_directory(settings, health, cluster, flows, out).await,
            }
        };
        tokio::select! {
            outcome = work => outcome,
            _ = term.recv() => {
                tracing::info!("SIGTERM: ending, policies stay as they are");
                Ok(())
            }
            _ = interrupt.recv() => {
                tracing::info!("SIGINT: ending, policies stay as they are");
                Ok(())
            }
        }
    };
    answers.abort();
    // Nothing is under way any more that writes.
    if let Some(leadership) = leadership {
        leadership.give_back().await;
    }
    outcome
}

fn guide(settings: Settings) -> Guide {
    let Settings {
        place: _,
        rules,
        cluster_cidrs: _,
        report_interval,
        synthesis,
        reports_only,
        policies_per_second,
        health_listen: _,
        page: _,
    } = settings;
    Guide {
        rules,
        report_interval,
        synthesis,
        reports_only,
        policies_per_second,
    }
}

async fn on_directory(
    settings: Settings,
    health: Arc<Health>,
    cluster: std::path::PathBuf,
    flows: std::path::PathBuf,
    out: std::path::PathBuf,
) -> Result<(), ControllerError> {
    let live = OnDirectory::new(out.clone())?;
    tracing::info!(cluster = %cluster.display(), flows = %flows.display(), out = %out.display(), "watching folders");
    let mut directory = Directory::new(cluster, flows, &out);
    let cidrs = settings.cluster_cidrs.clone();
    let shown = Page::open(&settings.page).await?;
    let core = Core::new(guide(settings), cidrs, directory::SOURCES, Timestamp::now());
    let mut pace = Pace::new(core, health, shown);
    loop {
        let began = Instant::now();
        for event in directory.look()? {
            pace.take(event);
        }
        while pace.is_time() {
            pace.round(&live, |event| directory.wrote(event)).await;
        }
        if pace.page.is_due() {
            pace.page.publish(&pace.core);
        }
        // However many files there are, looking takes a tenth of the time at most.
        tokio::time::sleep(LOOK.max(began.elapsed() * 10)).await;
    }
}

async fn on_cluster(
    mut settings: Settings,
    health: Arc<Health>,
    access: &Access,
    (listen, insecure_learners): (std::net::SocketAddr, bool),
    terms: Terms,
    leadership: &mut Option<Leadership>,
) -> Result<(), ControllerError> {
    let config = configuration(access).await?;
    let url = config.cluster_url.to_string();
    let in_cluster = kube::Config::incluster().is_ok();
    settings.rules.own_namespace = settings
        .rules
        .own_namespace
        .or_else(|| in_cluster.then(|| config.default_namespace.clone()));
    // A pod has one process of this name at a time; elsewhere nobody knows, and the process is named.
    let mut name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if !in_cluster {
        name = format!("{name}-{}-{}", std::process::id(), Timestamp::now().as_millisecond());
    }
    let pen = match &settings.rules.own_namespace {
        Some(_) => Pen::none(),
        None => Pen::always(),
    };
    let writer = pen.client(config.clone()).map_err(|error| ConnectError::Client {
        url: url.clone(),
        source: error.into(),
    })?;
    let client = client(config)?;
    let door = match &settings.rules.own_namespace {
        _ if insecure_learners => {
            tracing::warn!("--insecure-learners: whoever reaches this address may report what they like");
            Door::Open
        }
        Some(namespace) => Door::Guarded {
            certificates: Box::new(Certificates::new(&client, namespace)),
            recogniser: Box::new(Recogniser::new(&client, namespace)),
        },
        None => return Err(ControllerError::NoNamespace),
    };
    let listener = receive::listen(listen).await?;
    open_as_many_files_as_possible();
    tracing::info!(url, learners = %listen, "watching the cluster");

    let (deliver, mut deliveries) = mpsc::channel::<Delivery>(REPORTS);
    let (tell, mut events) = mpsc::channel::<Event>(WAITING);
    let mut watches = watch::watch_all(&client, &url, &tell);
    if let Some(namespace) = &settings.rules.own_namespace {
        watches.spawn(follow_enforcement(client.clone(), namespace.clone(), tell.clone()));
    }
    let own_namespace = settings.rules.own_namespace.clone();
    let cidrs = settings.cluster_cidrs.clone();
    let shown = Page::open(&settings.page).await?;
    let core = Core::new(guide(settings), cidrs, watch::SOURCES, Timestamp::now());
    let mut pace = Pace::new(core, Arc::clone(&health), shown);
    let (_alone, mut standing) = sync::watch::channel(Standing::Leads { term: 0 });
    if let Some(namespace) = own_namespace {
        pace.core.follow(Timestamp::now());
        let seeking = leadership.insert(Leadership::seek(&client, &namespace, name.clone(), terms, pen.clone()));
        standing = seeking.standing();
        health.metrics.set_leader(false);
    } else {
        tracing::warn!("without --own-namespace there is no Lease: this controller takes itself for the only one");
    }
    let server = receive::serve(listener, door, deliver, standing.clone(), Arc::clone(&health));
    tokio::pin!(server);
    let live = OnCluster::new(writer, &name);
    loop {
        tokio::select! {
            Ok(()) = standing.changed() => {
                let standing = standing.borrow_and_update().clone();
                pace.stand(&standing, &pen);
            }
            outcome = &mut server => return outcome.map_err(ControllerError::Receive),
            Some(event) = events.recv() => pace.take(event),
            // Whose it is cannot be told before everything was read: until then it stays on its stream.
            Some(delivery) = deliveries.recv(), if pace.core.awaited().is_empty() => {
                let (report, trust, stream, durable) = match delivery {
                    Delivery::Report { report, trust, stream, durable } => (report, trust, stream, durable),
                    Delivery::Ended { node, stream } => {
                        pace.take(Event::Stream { node, stream, open: false });
                        continue;
                    }
                };
                let node = report.origin.node.clone();
                pace.take(Event::Stream { node, stream, open: true });
                match trust {
                    Trust::Blind => pace.take(Event::Report(report)),
                    Trust::OwnNode => {
                        let node = report.origin.node.clone();
                        let before = pace.core.refused().clone();
                        pace.take(Event::Attested(report));
                        tell_of_refused(&node, &before, pace.core.refused());
                    }
                }
                // While another controller leads it is dropped here, not acknowledged, and sent again to whoever leads.
                if !pace.core.follows() {
                    pace.waiting.push_back((pace.core.heard(), durable));
                    pace.acknowledge();
                }
            }
            Some(ended) = watches.join_next() => {
                // Watches end only with this loop, or by a fault in the program itself.
                tracing::error!(?ended, "a watch ended");
            }
            () = tokio::time::sleep(pace.rest()) => pace.round(&live, |_| {}).await,
            () = pace.page.due() => pace.page.publish(&pace.core),
        }
    }
}

/// Tells what `nanoseg doctor --probe` last found of the cluster, for as long as somebody listens.
async fn follow_enforcement(client: Client, namespace: String, tell: mpsc::Sender<Event>) {
    let kept = Api::<ConfigMap>::namespaced(client, &namespace);
    loop {
        // Without an answer what is known stays.
        if let Ok(found) = kept.get_opt(CONFIG_MAP).await {
            let found = found.as_ref().and_then(Enforcement::kept).map(Box::new);
            if tell.send(Event::Enforcement(found)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(ENFORCEMENT).await;
    }
}

/// Each learner is a connection, and by default a process may have a thousand.
fn open_as_many_files_as_possible() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit != most
        && let Err(error) = setrlimit(Resource::Nofile, most)
    {
        tracing::warn!(?limit, "cannot allow more connections: {error}");
    }
}

fn tell_of_refused(node: &str, before: &BTreeMap<RefusedPart, u64>, after: &BTreeMap<RefusedPart, u64>) {
    for (reason, total) in after {
        let parts = total - before.get(reason).unwrap_or(&0);
        if parts > 0 {
            tracing::warn!(node, parts, total, "parts of a learner's report were refused: {reason}");
        }
    }
}

/// The core and its clock: when the next round is worth its cost.
struct Pace {
    core: Core,
    /// Whom to tell when so many reports are durable.
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    /// Those of them whose reports are durable but for what waits for a pod that is not known.
    incomplete: Vec<(u64, oneshot::Sender<()>)>,
    health: Arc<Health>,
    /// When something changed that no round has seen.
    changed: Option<(Instant, Due)>,
    /// When to hold a round although nothing happened.
    wake: Option<Timestamp>,
    /// How long it took to decide in the last round of each kind, and when that and all of it was done in the last one of any.
    costs: BTreeMap<Work, Duration>,
    decided: Instant,
    ended: Instant,
    page: Page,
}

impl Pace {
    fn new(core: Core, health: Arc<Health>, page: Page) -> Self {
        Self {
            core,
            waiting: VecDeque::new(),
            incomplete: Vec::new(),
            health,
            changed: None,
            wake: None,
            costs: BTreeMap::new(),
            decided: Instant::now(),
            ended: Instant::now(),
            page,
        }
    }

    fn take(&mut self, event: Event) {
        let now = Timestamp::now();
        if let Event::Report(report) | Event::Attested(report) = &event {
            self.health.metrics.merged(&report.origin.node, now);
        }
        self.core.take(event, now);
        self.note();
    }

    /// Leads or follows from now on.
    fn stand(&mut self, standing: &Standing, pen: &Pen) {
        self.waiting.clear();
        self.incomplete.clear();
        // In a new term too what was known is forgotten first: another may have led in between.
        self.core.follow(Timestamp::now());
        self.health
            .metrics
            .set_leader(matches!(standing, Standing::Leads { .. }));
        if let Standing::Leads { term } = standing {
            self.core.lead(Timestamp::now());
            pen.adopt(*term);
        }
        self.note();
    }

    /// Tells learners of what is durable.
    fn acknowledge(&mut self) {
        // Whoever waits for a round waits whatever Segments say, and there are many of both.
        let judged = self.core.judged();
        let waits = self.waiting.front().is_none_or(|(heard, _)| *heard > judged);
        if waits && self.incomplete.is_empty() {
            return;
        }
        let durable = self.core.durable();
        while let Some(ready) = self.waiting.pop_front_if(|(heard, _)| *heard <= durable) {
            self.incomplete.push(ready);
        }
        let is_settled = |(heard, learner): &mut (u64, oneshot::Sender<()>)| {
            learner.is_closed() || self.core.settled_by(*heard).is_some_and(|by| by <= durable)
        };
        for (_, learner) in self.incomplete.extract_if(.., is_settled) {
            // A learner that is gone meanwhile sends it again when it is back.
            let _gone = learner.send(());
        }
    }

    fn note(&mut self) {
        match (self.core.due(), &mut self.changed) {
            (Due::No, _) => {}
            (due, None) => self.changed = Some((Instant::now(), due)),
            (due, Some((_, known))) => *known = due.max(*known),
        }
    }

    /// How long until the next round.
    fn rest(&self) -> Duration {
        self.health.beat();
        // Whatever the next round is held for, it decides all there is to decide.
        let work = self.core.work();
        let cost = self.costs.get(&work).copied().unwrap_or_default();
        // Somebody may have changed a policy, which is to be repaired within a second, and what is written next may be waited for.
        let longest = if work == Work::Plan { SETTLE } else { LONGEST_PAUSE };
        let pause = (self.decided + longest.min(cost * SHARE)).saturating_duration_since(Instant::now());
        let by_change = self.changed.map(|(since, due)| {
            let settle = if due == Due::Soon { SETTLE } else { SETTLE_COUNTS };
            (since + settle).saturating_duration_since(Instant::now()).max(pause)
        });
        let by_clock = self.wake.map(|at| {
            let left = at.duration_since(Timestamp::now());
            // Clocks that the core's times come from may be set back: never wait longer than it takes to notice.
            let left = Duration::try_from(left).unwrap_or(Duration::ZERO).min(LONGEST_REST);
            left.max((self.ended + BREATH).saturating_duration_since(Instant::now()))
                .max(pause)
        });
        [by_change, by_clock]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(LONGEST_REST)
    }

    fn is_time(&self) -> bool {
        self.rest().is_zero()
    }

    /// Holds a round, and tells `wrote` what was written.
    async fn round(&mut self, live: &impl Live, mut wrote: impl FnMut(&Event)) {
        let (began, work) = (Instant::now(), self.core.work());
        let span = info_span!(
            target: ROUND,
            "round",
            segments = Empty,
            policies = Empty,
            removed = Empty,
            violations = Empty,
            failed = Empty,
            otel.status_code = Empty,
        );
        let Round { writes, news, next } =
            info_span!(target: ROUND, parent: &span, "decide").in_scope(|| self.core.round(Timestamp::now()));
        span.record("segments", writes.segments.len());
        span.record("policies", writes.put.len());
        span.record("removed", writes.remove.len());
        span.record("violations", writes.violations.len());
        let cost = began.elapsed();
        self.costs.insert(work, cost);
        self.decided = Instant::now();
        self.health.await_sources(self.core.awaited());
        self.changed = None;
        self.wake = next;
        // Lists were parsed until then.
        let is_read = news.contains(&News::InSync);
        for news in news {
            news.tell();
        }
        self.page.note(&writes.violations);
        if !writes.is_empty() {
            // Who reads a status on the API server finds it counted.
            self.health.metrics.census(&self.core.census());
            tracing::debug!(millis = cost.as_millis(), ?work, "round");
            let health = Arc::clone(&self.health);
            let whys: BTreeMap<PolicyName, Why> = (writes.put.iter())
                .map(|step| (PolicyName::of(&step.desired), step.why))
                .collect();
            let counted = Counted { live, health: &health };
            let applying = info_span!(target: ROUND, parent: &span, "apply");
            let written = apply(&counted, writes).instrument(applying).await;
            let failed = written
                .iter()
                .filter(|event| matches!(event, Event::Failed { .. }))
                .count();
            span.record("failed", failed);
            if failed > 0 {
                span.record("otel.status_code", "ERROR");
            }
            for event in &written {
                if let Event::Policy(policy) = event
                    && let Some(why) = whys.get(&PolicyName::of(policy))
                {
                    health.metrics.repaired(*why);
                }
            }
            for event in written {
                wrote(&event);
                self.core.take(event, Timestamp::now());
            }
        }
        self.health.metrics.round(cost, &self.core.census());
        if began.elapsed() > LONG || is_read {
            heap::give_back();
        }
        self.ended = Instant::now();
        self.note();
        self.acknowledge();
    }
}
