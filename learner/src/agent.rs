//! The loop: what the kernel announces, what it counted, what is due.
//!
//! Guarantees:
//! * A new flow is in the table as soon as it is announced, and at the latest after one interval, announced or not.
//! * Counts are in the table after one interval, and those of a large map after a few seconds; unless a program was held up while
//!   it counted: those are there a minute later.
//! * Where something is pinned, killed at any moment, the next one goes on: under the same epoch, with the same counts.
//! * Asked to end, the agent reads and reports once more, waits a moment for the acknowledgement, and ends with success.

mod beginning;
mod lost;
mod reading;
mod room;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nanoseg_ebpf::LossKey;
use nanoseg_graph::flow::{Loss, Origin, Report, Subject};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use self::lost::Lost;
use self::reading::Reading;
use crate::addresses;
use crate::capture::{self, Announcements, Answers, Capture, CaptureError, Sizes};
use crate::cgroups::{Cgroups, CgroupsError};
use crate::clock::{Clock, monotonic_ns, on_core};
use crate::delivery::Delivery;
use crate::health::Health;
use crate::leaving::{Leaving, Ready};
use crate::names::Names;
use crate::pins::PinsError;
use crate::plain::Plain;
use crate::preflight::CgroupTree;
use crate::report::{self, ReportError, ReportFile, StreamEvent, stream};
use crate::settings::{Settings, Sink, Way};
use crate::table::{Change, Table};

/// Between two summaries at debug level, and between two tidyings of the cgroup table.
const HOUSEKEEPING: Duration = Duration::from_mins(1);

/// How long the last acknowledgement is waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The whole report is written each time: no more often than that it takes one part in so many of a core.
const WRITING: u32 = 100;

/// Announcements read in one turn, so that a flood of them does not keep everything else waiting.
const ANNOUNCEMENTS_IN_A_TURN: usize = 4096;

/// What ends the agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Cgroups(#[from] CgroupsError),
    #[error(transparent)]
    Pins(#[from] PinsError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    Health(#[from] nanoseg_health::ListenError),
    #[error("cannot wait for events")]
    Events(#[source] io::Error),
    #[error("cannot print")]
    Print(#[source] io::Error),
}

enum Output {
    File {
        file: ReportFile,
        written: Option<u64>,
        /// Not before.
        due: Instant,
    },
    Controller {
        delivery: Delivery,
        events: mpsc::Receiver<StreamEvent>,
    },
    None,
}

/// Whether there is more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    More,
    Last,
}

struct Agent {
    settings: Settings,
    origin: Origin,
    capture: Capture,
    cgroups: Cgroups,
    clock: Clock,
    table: Table,
    losses: Vec<Loss>,
    lost: Lost,
    leaving: Leaving,
    names: Names,
    plain: Plain,
    node_addresses: BTreeSet<IpAddr>,
    reading: Reading,
    /// Grows when losses or addresses change.
    other_version: u64,
    output: Output,
    health: Arc<Health>,
}

/// Observes until it is asked to end.
pub(crate) async fn run(settings: Settings, tree: CgroupTree) -> Result<(), AgentError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Events)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Events)?;
    let mut summary = signal(SignalKind::user_defined1()).map_err(AgentError::Events)?;

    let health = Arc::new(Health::new(&settings));
    health.answer(&settings).await?;
    let beginning = beginning::find(&settings, &tree)?;
    let origin = Origin {
        node: settings.node.clone(),
        epoch: beginning.epoch,
    };
    let output = Output::open(&settings.sink, &origin)?;
    // The tree is read before the programs are attached: the first packet finds its container known.
    let cgroups = Cgroups::open(&tree)?;
    let sizes = Sizes {
        flows: settings.map_entries,
        exchanges: settings.exchange_entries,
    };
    let (capture, announcements, answers) = capture::start(&tree, sizes, settings.udp_grace, &beginning)?;
    let tree_events = readable(cgroups.events()?)?;
    let mut announcements = readable(announcements)?;
    let mut answers = readable(answers)?;

    let mut tick = interval(settings.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut housekeeping = interval(HOUSEKEEPING);
    housekeeping.reset();
    let mut agent = Agent {
        settings,
        origin,
        capture,
        cgroups,
        clock: Clock::now(),
        table: Table::default(),
        losses: Vec::new(),
        lost: Lost::default(),
        leaving: Leaving::default(),
        names: Names::default(),
        plain: Plain::default(),
        node_addresses: BTreeSet::new(),
        reading: Reading::default(),
        other_version: 0,
        output,
        health,
    };
    agent.refresh_addresses()?;
    agent.begin(&tree, &beginning)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            guard = announcements.readable_mut() => {
                let mut guard = guard.map_err(AgentError::Events)?;
                if agent.announced(guard.get_inner_mut())? {
                    guard.clear_ready();
                }
            }
            guard = answers.readable_mut() => {
                let mut guard = guard.map_err(AgentError::Events)?;
                if agent.heard(guard.get_inner_mut())? {
                    guard.clear_ready();
                }
            }
            guard = tree_events.readable() => {
                guard.map_err(AgentError::Events)?.clear_ready();
                agent.cgroups.absorb();
                agent.keep_owners()?;
            }
            Some(event) = agent.output.event() => agent.streamed(event),
            _ = tick.tick() => {
                agent.read()?;
                agent.name(answers.get_mut())?;
                agent.report(Said::More)?;
            }
            _ = housekeeping.tick() => {
                agent.tidy()?;
                agent.names.tidy(agent.clock.timestamp(monotonic_ns()));
                agent.refresh_addresses()?;
                agent.summarize(tracing::Level::DEBUG);
            }
            _ = summary.recv() => agent.summarize(tracing::Level::INFO),
        }
    }
    agent.reading.look_at_all();
    agent.read()?;
    agent.name(answers.get_mut())?;
    agent.report(Said::Last)?;
    agent.wait_for_the_last_acknowledgement().await?;
    agent.summarize(tracing::Level::INFO);
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "tokio asks for a promise about the descriptor that its trait cannot express"
)]
fn readable<T: AsRawFd>(inner: T) -> Result<AsyncFd<T>, AgentError> {
    // SAFETY: both types that are passed here own their descriptor and give the same one until they are dropped.
    let registered = unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) };
    registered.map_err(|failed| AgentError::Events(failed.into()))
}

impl Output {
    fn open(sink: &Sink, origin: &Origin) -> Result<Self, AgentError> {
        Ok(match sink {
            Sink::Directory(folder) => Self::File {
                file: ReportFile::open(folder, origin)?,
                written: None,
                due: Instant::now(),
            },
            Sink::Controller(way) => {
                let (sender, events) = mpsc::channel(16);
                tokio::spawn(stream(Way::clone(way), sender));
                Self::Controller {
                    delivery: Delivery::default(),
                    events,
                }
            }
            Sink::None => Self::None,
        })
    }

    /// The next event of the stream; waits forever when there is none.
    async fn event(&mut self) -> Option<StreamEvent> {
        match self {
            Self::Controller { delivery: _, events } => events.recv().await,
            Self::File { .. } | Self::None => std::future::pending().await,
        }
    }
}

impl Agent {
    /// Takes in new keys. Says whether all were read.
    fn announced(&mut self, announcements: &mut Announcements) -> Result<bool, AgentError> {
        for _ in 0..ANNOUNCEMENTS_IN_A_TURN {
            let Some(key) = announcements.next() else {
                return Ok(true);
            };
            // Evicted in the meantime: it was read before.
            let Some(record) = self.capture.record(&key)? else {
                continue;
            };
            let cgroups = &mut self.cgroups;
            let change = self.table.observe(&key, &record, self.clock, |id| cgroups.subject(id));
            self.changed(change)?;
        }
        Ok(false)
    }

    /// Takes in answers of name servers. Says whether all were read.
    fn heard(&mut self, answers: &mut Answers) -> Result<bool, AgentError> {
        for _ in 0..ANNOUNCEMENTS_IN_A_TURN {
            let Some(answer) = answers.next() else {
                return Ok(true);
            };
            let Self {
                capture,
                cgroups,
                clock,
                table,
                names,
                ..
            } = self;
            let length = usize::try_from(answer.length).unwrap_or(usize::MAX);
            let packet = answer.packet.get(..length).unwrap_or(&answer.packet);
            let subject = cgroups.subject(answer.cgroup);
            let mut failed = None;
            // What was asked a moment ago may not be in the table yet, and what was asked long ago not in the kernel any more.
            let asked = |server, transport| {
                table.has_asked(&subject, server, transport)
                    || capture.asked(answer.cgroup, server, transport).unwrap_or_else(|error| {
                        failed = Some(error);
                        false
                    })
            };
            names.hear(packet, &subject, clock.timestamp(answer.at_ns), asked);
            if let Some(error) = failed {
                return Err(error.into());
            }
        }
        Ok(false)
    }

    /// Gives flows their names. After they were read: whatever was answered before a flow began has then been heard.
    fn name(&mut self, answers: &mut Answers) -> Result<(), AgentError> {
        // One turn is more than there is room for, so nothing that was there is left; of a flood the rest is for the next turn.
        self.heard(answers)?;
        let version = self.table.version();
        if version != self.names.flows_version() {
            let changed = self.table.changed_since(self.names.flows_version());
            if self.names.tell(changed, version) {
                self.other_version += 1;
            }
        }
        Ok(())
    }

    /// Bridges to pods come and go with the pods.
    fn refresh_addresses(&mut self) -> Result<(), AgentError> {
        let now = addresses::of_this_node();
        if now != self.node_addresses {
            self.capture.tell_addresses(&now, &self.node_addresses)?;
            self.node_addresses = now;
            self.other_version += 1;
        }
        Ok(())
    }

    /// Forgets the cgroups that are gone for long, here and in the kernel's maps.
    fn tidy(&mut self) -> Result<(), AgentError> {
        self.reading.look_at_all();
        let whose = self.cgroups.tidy();
        let mut gone: BTreeSet<u64> = whose.keys().copied().collect();
        let now = monotonic_ns();
        self.evict_all(self.table.of_cgroups(&gone).into_iter(), now)?;
        let is_acknowledged = matches!(self.output, Output::Controller { .. });
        for (cgroup, subject) in whose {
            let may_go = is_acknowledged || matches!(subject, Subject::Host(_));
            if may_go && (self.table.knows(&subject) || self.capture.is_archived(cgroup)) {
                self.leaving.is_gone(cgroup, subject, self.table.version());
            }
        }
        let Self {
            capture,
            leaving,
            table,
            ..
        } = self;
        let returning = leaving.returning(|cgroup| capture.is_archived(cgroup), |cgroup| table.is_held(cgroup));
        capture.join(&returning)?;
        let mut lost = self.capture.counters()?.by_cgroup;
        self.cgroups.absorb();
        // Those too that were gone before, and of which something came and was lost since.
        lost.retain(|(cgroup, _), _| !self.cgroups.is_known(*cgroup));
        for (cgroup, reason) in lost.into_keys() {
            gone.insert(cgroup);
            let key = LossKey { cgroup, reason, pad: 0 };
            let told = self.capture.forgive(key, self.lost.told((cgroup, reason)))?;
            self.tell_lost(key, told)?;
        }
        for cgroup in gone {
            self.capture.dismiss(cgroup)?;
            self.capture.forget_owner(cgroup)?;
        }
        self.let_leave()
    }

    fn tell_lost(&mut self, key: LossKey, count: u64) -> Result<(), AgentError> {
        if let Some((cgroup, reason)) = self.lost.tell((key.cgroup, key.reason), count) {
            self.capture.forget_loss(LossKey { cgroup, reason, pad: 0 })?;
        }
        Ok(())
    }

    /// Lets what the controller has of containers that are gone leave, here and what is kept for the next learner.
    fn let_leave(&mut self) -> Result<(), AgentError> {
        let Self {
            output: Output::Controller { delivery, events: _ },
            cgroups,
            table,
            leaving,
            names,
            ..
        } = self
        else {
            return Ok(());
        };
        let Some(acknowledged) = delivery.acknowledged() else {
            return Ok(());
        };
        let there = cgroups.subjects();
        let Ready { subjects, cgroups } = leaving.ready(
            acknowledged,
            |subject| there.contains(subject),
            |cgroup| table.is_held(cgroup),
        );
        if !subjects.is_empty() {
            self.capture.leave(&cgroups)?;
            table.leave(&subjects);
            // Told before the flows that they name, or with them: the controller has them as well.
            names.keep_those_of(table.changed_since(0));
        }
        Ok(())
    }

    fn changed(&mut self, change: Change) -> Result<(), AgentError> {
        match change {
            Change::None | Change::Counts => {}
            Change::Novel(number) => {
                if let Some(flow) = self.table.flow(number).filter(|_| self.settings.print) {
                    let mut line = serde_json::to_vec(&flow).map_err(|error| AgentError::Print(error.into()))?;
                    line.push(b'\n');
                    io::stdout().lock().write_all(&line).map_err(AgentError::Print)?;
                }
            }
            Change::Malformed => tracing::warn!("the kernel's map holds a key that its programs do not write"),
        }
        Ok(())
    }

    /// Brings what changed to where it is reported.
    fn report(&mut self, said: Said) -> Result<(), AgentError> {
        let version = self.table.version() + self.other_version;
        match &mut self.output {
            Output::File { file, written, due } => {
                let now = Instant::now();
                if *written != Some(version) && (now >= *due || said == Said::Last) {
                    let before = on_core();
                    file.write(
                        &self.origin,
                        self.table.changed_since(0),
                        &self.losses,
                        &self.node_addresses,
                        &self.names.told(),
                        &self.plain.held(),
                    )?;
                    *due = now + (on_core().saturating_sub(before)) * WRITING;
                    if written.is_none() {
                        tracing::info!(path = %file.path().display(), "writing the report");
                    }
                    *written = Some(version);
                }
            }
            Output::Controller { delivery, events: _ } => {
                while let Some(part) = delivery.next(&self.table, self.other_version) {
                    let (losses, node_addresses, names, held, capture) = if part.with_others {
                        (
                            self.losses.clone(),
                            self.node_addresses.clone(),
                            self.names.told(),
                            self.plain.held(),
                            report::capture_version(),
                        )
                    } else {
                        Default::default()
                    };
                    let report = Report {
                        origin: self.origin.clone(),
                        flows: part.flows,
                        losses,
                        node_addresses,
                        names,
                        held,
                        capture,
                    };
                    delivery.send(&report, part.version, self.other_version);
                }
            }
            Output::None => {}
        }
        Ok(())
    }

    fn streamed(&mut self, event: StreamEvent) {
        self.health.streamed(&event);
        if let Output::Controller { delivery, events: _ } = &mut self.output {
            delivery.on(event);
        }
    }

    async fn wait_for_the_last_acknowledgement(&mut self) -> Result<(), AgentError> {
        let end = Instant::now() + LAST_WORDS;
        loop {
            let version = self.table.version();
            let Output::Controller { delivery, events } = &mut self.output else {
                return Ok(());
            };
            if delivery.is_complete(version, self.other_version) {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if let Ok(Some(event)) = timeout(left, events.recv()).await {
                delivery.on(event);
                self.report(Said::Last)?;
            } else {
                tracing::warn!("the controller did not acknowledge the last report; what only this report had is lost");
                return Ok(());
            }
        }
    }

    fn summarize(&self, level: tracing::Level) {
        let lost: u64 = self.losses.iter().map(|loss| loss.count).sum();
        let delivered = self.table.delivered();
        let by_reason: Vec<String> = nanoseg_graph::flow::LossReason::ALL
            .into_iter()
            .map(|reason| {
                (
                    reason,
                    self.losses
                        .iter()
                        .filter(|loss| loss.reason == reason)
                        .map(|loss| loss.count)
                        .sum::<u64>(),
                )
            })
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| format!("{reason:?}={count}"))
            .collect();
        let (flows, containers, produced) = (self.table.len(), self.cgroups.containers(), delivered + lost);
        let reasons = by_reason.join(" ");
        let names = self.names.unused();
        let since = Timestamp::from_nanosecond(i128::from(self.origin.epoch)).unwrap_or(Timestamp::UNIX_EPOCH);
        if level == tracing::Level::INFO {
            tracing::info!(%since, containers, flows, produced, delivered, lost, reasons, ?names, "summary");
        } else {
            tracing::debug!(%since, containers, flows, produced, delivered, lost, reasons, ?names, "summary");
        }
    }
}
