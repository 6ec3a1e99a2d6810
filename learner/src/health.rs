//! What kubelet and Prometheus are told of the learner. `manifests/monitoring/README.md` documents each metric, and a test compares.
//!
//! Law: bounded. No label has another value than a reason of loss or a word of this file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nanoseg_ebpf::Reason;
use nanoseg_graph::flow::{Loss, LossReason};
use nanoseg_health::process::Process;
use nanoseg_health::{ListenError, Pulse, Vital};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::capture::KeptCounts;
use crate::report::StreamEvent;
use crate::settings::{Settings, Sink};

/// How long the loop may not come round, beside its own interval: to read a full map takes a second on a busy node.
const SILENCE: Duration = Duration::from_mins(1);

/// What is not lost, as the metric names it.
const SKIPPED: [(Reason, &str); 8] = [
    (Reason::Loopback, "loopback"),
    (Reason::NotRouted, "not_routed"),
    (Reason::Icmp, "icmp"),
    (Reason::Unannounced, "unannounced"),
    (Reason::Copy, "copy"),
    (Reason::Unheard, "unheard"),
    (Reason::Returned, "returned"),
    (Reason::OtherAnswer, "other_answer"),
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// What one turn of the loop found.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    /// Packets and exchanges that flows account for.
    pub(crate) delivered: u64,
    /// What no flow accounts for.
    pub(crate) losses: &'a [Loss],
    /// What is in no flow by itself, by reason, losses among it.
    pub(crate) skipped: &'a [u64; Reason::ALL.len()],
    /// Flows that are kept.
    pub(crate) flows: usize,
    /// Keys in the kernel's map.
    pub(crate) held: usize,
    /// Keys that it has room for: one that was taken over has the size that it had.
    pub(crate) capacity: usize,
    /// What is kept for the next learner.
    pub(crate) kept: KeptCounts,
    /// Containers whose cgroups are followed.
    pub(crate) containers: usize,
}

/// The learner's own view of itself.
#[derive(Debug)]
pub(crate) struct Health {
    registry: Arc<Registry>,
    pulse: Pulse,
    silence: Duration,
    observing: AtomicBool,
    recorded: Counter,
    lost: Family<ReasonLabels, Counter>,
    skipped: Family<ReasonLabels, Counter>,
    flows: Gauge,
    held: Gauge,
    capacity: Gauge,
    archived: Gauge,
    archive_left: Counter,
    archive_refused: Counter,
    containers: Gauge,
    connected: Gauge,
    acknowledged: Counter,
}

impl Health {
    /// Of a learner with these settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut registry = Registry::default();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("nanoseg_learner_build", "The learner's version", version);
        registry.register_collector(Box::new(Process::default()));
        let mut gauge = |name: &str, about: &str| {
            let gauge = Gauge::default();
            registry.register(name, about, gauge.clone());
            gauge
        };
        let flows = gauge(
            "nanoseg_learner_flows",
            "Flows that were seen since the start and are kept",
        );
        let held = gauge("nanoseg_learner_map_entries", "Flows that the kernel's map holds");
        let capacity = gauge(
            "nanoseg_learner_map_capacity",
            "Flows that the kernel's map has room for",
        );
        capacity.set(settings.map_entries.into());
        let archived = gauge(
            "nanoseg_learner_archive_entries",
            "Flows and losses that are kept for the next learner and are not in the kernel's map any more",
        );
        let containers = gauge(
            "nanoseg_learner_containers",
            "Containers of this node whose cgroups are followed",
        );
        let connected = gauge(
            "nanoseg_learner_connected",
            "1 while a stream to the controller is open, and where none is asked for",
        );
        connected.set(i64::from(!matches!(settings.sink, Sink::Controller(_))));
        let mut counter = |name: &str, about: &str| {
            let counter = Counter::<u64>::default();
            registry.register(name, about, counter.clone());
            counter
        };
        let recorded = counter(
            "nanoseg_learner_recorded",
            "What flows account for: packets that begin or answer a connection, and exchanges",
        );
        let acknowledged = counter(
            "nanoseg_learner_acknowledged",
            "Increments that the controller has acknowledged",
        );
        let archive_left = counter(
            "nanoseg_learner_archive_left",
            "Entries of containers that are gone that were delivered and left what is kept",
        );
        let archive_refused = counter(
            "nanoseg_learner_archive_refused",
            "How often there was no room for what had to be kept",
        );
        let lost = Family::<ReasonLabels, Counter>::default();
        registry.register(
            "nanoseg_learner_lost",
            "What no flow accounts for, by reason",
            lost.clone(),
        );
        for reason in LossReason::ALL {
            drop(lost.get_or_create(&ReasonLabels {
                reason: reason.as_str(),
            }));
        }
        let skipped = Family::<ReasonLabels, Counter>::default();
        registry.register(
            "nanoseg_learner_skipped",
            "What is in no flow by itself and not lost, by reason",
            skipped.clone(),
        );
        for (_, reason) in SKIPPED {
            drop(skipped.get_or_create(&ReasonLabels { reason }));
        }
        Self {
            registry: Arc::new(registry),
            pulse: Pulse::default(),
            silence: SILENCE.saturating_add(settings.interval.saturating_mul(3)),
            observing: AtomicBool::new(false),
            recorded,
            lost,
            skipped,
            flows,
            held,
            capacity,
            archived,
            archive_left,
            archive_refused,
            containers,
            connected,
            acknowledged,
        }
    }

    /// The loop has come round.
    pub(crate) fn turned(&self, turn: &Turn<'_>) {
        let Turn {
            delivered,
            losses,
            skipped,
            flows,
            held,
            capacity,
            kept,
            containers,
        } = turn;
        self.pulse.beat();
        self.observing.store(true, Ordering::Relaxed);
        catch_up(&self.recorded, *delivered);
        for reason in LossReason::ALL {
            let of_reason = losses.iter().filter(|loss| loss.reason == reason);
            let total = of_reason.fold(0_u64, |sum, loss| sum.saturating_add(loss.count));
            catch_up(
                &self.lost.get_or_create(&ReasonLabels {
                    reason: reason.as_str(),
                }),
                total,
            );
        }
        for (number, reason) in SKIPPED {
            let total = skipped.get(number as usize).copied().unwrap_or(0);
            catch_up(&self.skipped.get_or_create(&ReasonLabels { reason }), total);
        }
        catch_up(&self.archive_left, kept.left);
        catch_up(&self.archive_refused, kept.refused);
        for (gauge, number) in [
            (&self.flows, flows),
            (&self.held, held),
            (&self.capacity, capacity),
            (&self.archived, &kept.held),
            (&self.containers, containers),
        ] {
            gauge.set(i64::try_from(*number).unwrap_or(i64::MAX));
        }
    }

    /// Something happened on the way to the controller.
    pub(crate) fn streamed(&self, event: &StreamEvent) {
        match event {
            StreamEvent::Open(_) => drop(self.connected.set(1)),
            StreamEvent::Acknowledged(_) => drop(self.acknowledged.inc()),
            StreamEvent::Closed => drop(self.connected.set(0)),
        }
    }

    /// Answers, if that was asked for, until the runtime ends.
    pub(crate) async fn answer(self: &Arc<Self>, settings: &Settings) -> Result<(), ListenError> {
        if let Some(address) = settings.health_listen {
            let listener = nanoseg_health::listen(address).await?;
            // The port may have been left to the operating system.
            let address = listener.local_addr().unwrap_or(address);
            tracing::info!(%address, "answering /healthz, /readyz and /metrics");
            let (registry, vital) = (Arc::clone(&self.registry), Arc::clone(self));
            tokio::spawn(nanoseg_health::serve(listener, registry, vital));
        }
        Ok(())
    }
}

/// Counts in reports are since the start, and so are these.
fn catch_up(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

impl Vital for Health {
    fn alive(&self) -> Result<(), String> {
        self.pulse.check(self.silence)
    }

    /// A controller that is away is no reason to replace a learner, which keeps what it has.
    fn ready(&self) -> Result<(), String> {
        if self.observing.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err("the programs are not attached yet".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn health() -> Health {
        use clap::Parser as _;
        let arguments = [
            "nanoseg-learner",
            "--node=a",
            "--controller=http://b:1",
            "--insecure-controller",
        ];
        let arguments = crate::settings::Arguments::try_parse_from(arguments).unwrap();
        Health::new(&Settings::try_from(arguments).unwrap())
    }

    fn text(health: &Health) -> String {
        let mut text = String::new();
        encode(&mut text, &health.registry).unwrap();
        text
    }

    fn loss(reason: LossReason, count: u64) -> Loss {
        Loss {
            subject: None,
            reason,
            count,
        }
    }

    #[test]
    fn what_was_produced_is_recorded_or_lost_and_counted_once() {
        let health = health();
        assert_eq!(health.ready().unwrap_err(), "the programs are not attached yet");
        let losses = [
            loss(LossReason::MapFull, 3),
            loss(LossReason::MapFull, 4),
            loss(LossReason::Fragment, 1),
        ];
        let mut skipped = [0; Reason::ALL.len()];
        skipped[Reason::Returned as usize] = 8;
        for delivered in [10, 10, 25] {
            health.turned(&Turn {
                delivered,
                losses: &losses,
                skipped: &skipped,
                flows: 5,
                held: 4,
                capacity: 7,
                kept: KeptCounts {
                    held: 3,
                    left: 6,
                    refused: 1,
                },
                containers: 2,
            });
        }
        assert_eq!(health.ready(), Ok(()));
        let text = text(&health);
        for line in [
            "nanoseg_learner_recorded_total 25",
            "nanoseg_learner_lost_total{reason=\"map_full\"} 7",
            "nanoseg_learner_lost_total{reason=\"fragment\"} 1",
            "nanoseg_learner_lost_total{reason=\"under_way\"} 0",
            "nanoseg_learner_skipped_total{reason=\"returned\"} 8",
            "nanoseg_learner_skipped_total{reason=\"loopback\"} 0",
            "nanoseg_learner_flows 5",
            "nanoseg_learner_map_entries 4",
            "nanoseg_learner_archive_entries 3",
            "nanoseg_learner_archive_left_total 6",
            "nanoseg_learner_archive_refused_total 1",
            "nanoseg_learner_map_capacity 7",
            "nanoseg_learner_containers 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }

    #[test]
    fn what_is_not_lost_is_told_as_skipped() {
        let named: Vec<Reason> = SKIPPED.into_iter().map(|(reason, _)| reason).collect();
        let not_lost: Vec<Reason> = Reason::ALL.into_iter().filter(|reason| !reason.is_loss()).collect();
        assert_eq!(named, not_lost);
    }

    #[test]
    fn a_learner_is_connected_while_its_stream_is_open() {
        let health = health();
        let connected = |number: u8| text(&health).contains(&format!("nanoseg_learner_connected {number}\n"));
        assert!(connected(0));
        let (sender, _stream) = tokio::sync::mpsc::channel(1);
        health.streamed(&StreamEvent::Open(sender));
        health.streamed(&StreamEvent::Acknowledged(1));
        assert!(connected(1));
        health.streamed(&StreamEvent::Closed);
        assert!(connected(0) && text(&health).contains("nanoseg_learner_acknowledged_total 1\n"));
    }
}
