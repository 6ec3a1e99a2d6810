//! Whether the controller is alive, whether it is ready, and what it counts.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nanoseg_health::{ListenError, Pulse, Vital};

use crate::metrics::Metrics;
use crate::reconcile::Source;
use crate::telemetry::Lost;

/// How long the loop may not come round. It rests a minute at most, and a request to an API server that does not answer is given
/// up after five.
const SILENCE: Duration = Duration::from_mins(10);

/// The controller's own view of itself.
#[derive(Debug, Default)]
pub struct Health {
    /// What is counted.
    pub metrics: Metrics,
    pulse: Pulse,
    /// What was not read whole yet; `None` before that is known.
    awaited: Mutex<Option<BTreeSet<Source>>>,
}

impl Health {
    /// With what a collector of OpenTelemetry was not told among what is counted.
    pub fn counting(lost: &Lost) -> Self {
        Self {
            metrics: Metrics::new(lost),
            ..Self::default()
        }
    }

    /// The loop has come round, or a part of its work is done.
    pub fn beat(&self) {
        self.pulse.beat();
    }

    /// What was not read whole yet.
    pub fn await_sources(&self, sources: &BTreeSet<Source>) {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        if awaited.as_ref() != Some(sources) {
            self.metrics.set_in_sync(sources.is_empty());
            *awaited = Some(sources.clone());
        }
    }
}

impl Vital for Health {
    fn alive(&self) -> Result<(), String> {
        self.pulse.check(SILENCE)
    }

    /// A controller that stands by is ready to take over.
    fn ready(&self) -> Result<(), String> {
        let awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        match awaited.as_ref() {
            None => Err("starting".to_owned()),
            Some(sources) if sources.is_empty() => Ok(()),
            Some(sources) => {
                let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
                Err(format!("still reading {}", sources.join(", ")))
            }
        }
    }
}

/// Answers at this address for as long as what it returns is polled; for ever nothing without one.
pub async fn answer(
    address: Option<SocketAddr>,
    health: Arc<Health>,
) -> Result<impl Future<Output = Infallible> + Send, ListenError> {
    let listener = match address {
        Some(address) => Some(nanoseg_health::listen(address).await?),
        None => None,
    };
    if let Some(listener) = &listener
        && let Ok(address) = listener.local_addr()
    {
        tracing::info!(%address, "answering /healthz, /readyz and /metrics");
    }
    Ok(async move {
        match listener {
            Some(listener) => nanoseg_health::serve(listener, health.metrics.registry(), health).await,
            None => std::future::pending().await,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_once_everything_was_read() {
        let health = Health::default();
        assert_eq!(health.ready().unwrap_err(), "starting");
        health.await_sources(&[Source::Watch("pods"), Source::Watch("segments")].into());
        assert_eq!(health.ready().unwrap_err(), "still reading pods, segments");
        assert_eq!(health.alive(), Ok(()));
        health.await_sources(&BTreeSet::new());
        assert_eq!(health.ready(), Ok(()));
    }
}
