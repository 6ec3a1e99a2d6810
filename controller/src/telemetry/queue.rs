//! Bounded queues before a collector: whoever tells something never waits, and what is dropped is counted.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::mpsc;

use crate::trouble::chain;

/// What waits at most: some minutes of rounds, or the violations of a port scan; a few megabytes.
const WAITING: usize = 2048;

/// What is sent at once at most, well under the four megabytes that a gRPC server takes.
const BATCH: usize = 256;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Rounds.
    Spans,
    /// Violations.
    Logs,
}

impl Signal {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Spans, Self::Logs];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Spans => "spans",
            Self::Logs => "logs",
        }
    }
}

/// Why something was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// The queue was full.
    Full,
    /// The collector was not there, or refused it.
    NotTaken,
}

impl Unsent {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Full, Self::NotTaken];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "queue_full",
            Self::NotTaken => "not_taken",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    signal: &'static str,
    reason: &'static str,
}

/// How much was not told.
#[derive(Clone, Debug, Default)]
pub struct Lost(Family<Labels, Counter>);

impl Lost {
    /// As a metric, with everything at zero.
    pub fn metric(&self) -> impl prometheus_client::registry::Metric + Clone + use<> {
        for signal in Signal::ALL {
            for reason in Unsent::ALL {
                self.add(signal, reason, 0);
            }
        }
        self.0.clone()
    }

    /// How much so far.
    pub fn count(&self, signal: Signal, reason: Unsent) -> u64 {
        self.0.get_or_create(&labels(signal, reason)).get()
    }

    fn add(&self, signal: Signal, reason: Unsent, count: u64) {
        self.0.get_or_create(&labels(signal, reason)).inc_by(count);
    }
}

const fn labels(signal: Signal, reason: Unsent) -> Labels {
    Labels {
        signal: signal.as_str(),
        reason: reason.as_str(),
    }
}

/// Where something waits that is told.
pub(super) struct Queue<T> {
    /// `None` once nothing more is taken.
    sender: Mutex<Option<mpsc::Sender<T>>>,
    signal: Signal,
    lost: Lost,
}

/// A queue, and its other end.
pub(super) fn queue<T>(signal: Signal, lost: Lost) -> (Queue<T>, mpsc::Receiver<T>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let queue = Queue {
        sender: Mutex::new(Some(sender)),
        signal,
        lost,
    };
    (queue, receiver)
}

impl<T> Queue<T> {
    fn put(&self, item: T) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.as_ref()
            && sender.try_send(item).is_err()
        {
            self.lost.add(self.signal, Unsent::Full, 1);
        }
    }

    fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue of {}", self.signal.as_str())
    }
}

impl SpanProcessor for Queue<SpanData> {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.put(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.close();
        Ok(())
    }
}

impl LogProcessor for Queue<(SdkLogRecord, InstrumentationScope)> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        self.put((record.clone(), scope.clone()));
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.close();
        Ok(())
    }
}

/// Sends what waits until the queue is closed and empty.
pub(super) async fn drain<T, F: Future<Output = OTelSdkResult>>(
    mut waiting: mpsc::Receiver<T>,
    signal: Signal,
    lost: Lost,
    mut send: impl FnMut(Vec<T>) -> F,
) {
    let mut failed = false;
    loop {
        let mut batch = Vec::new();
        let count = waiting.recv_many(&mut batch, BATCH).await;
        if count == 0 {
            return;
        }
        let outcome = send(batch).await;
        if let Err(error) = &outcome {
            lost.add(signal, Unsent::NotTaken, u64::try_from(count).unwrap_or(u64::MAX));
            // Once, until it goes again: each further one is counted.
            if !failed {
                tracing::warn!(
                    signal = signal.as_str(),
                    "the collector of OpenTelemetry did not take this: {}",
                    chain(error)
                );
            }
        }
        failed = outcome.is_err();
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;

    #[tokio::test]
    async fn whoever_tells_never_waits_and_what_is_dropped_is_counted() {
        let lost = Lost::default();
        let (queue, waiting) = queue(Signal::Spans, lost.clone());
        for number in 0..WAITING + 3 {
            queue.put(number);
        }
        assert_eq!(lost.count(Signal::Spans, Unsent::Full), 3);
        queue.close();
        queue.put(0);
        let mut sizes = Vec::new();
        drain(waiting, Signal::Spans, lost.clone(), |batch: Vec<usize>| {
            sizes.push(batch.len());
            let away = || Err(OTelSdkError::InternalFailure("away".to_owned()));
            std::future::ready(if sizes.len() == 2 { away() } else { Ok(()) })
        })
        .await;
        assert_eq!(sizes.iter().sum::<usize>(), WAITING);
        assert!(sizes.iter().all(|size| *size <= BATCH), "{sizes:?}");
        assert_eq!(lost.count(Signal::Spans, Unsent::NotTaken), sizes[1] as u64);
        assert_eq!(lost.count(Signal::Logs, Unsent::NotTaken), 0);
    }
}
