//! Notices as Kubernetes Events on Segments: `kubectl describe segment` shows them.
//!
//! Guarantees: nobody waits for an Event; what happens to a Segment again within minutes is one Event with a count; no more than
//! ten a second are written over time, and those that are left out are counted and told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::reconcile::Notice;
use crate::trouble::{Trouble, chain};

/// Who says so.
const CONTROLLER: &str = "nanoseg.io/controller";

/// Events a second, over time. Ten thousand Segments that come into a phase at once take a quarter of an hour.
const RATE: u32 = 10;

/// Events that may be written at once after a quiet time.
const BURST: u32 = 100;

/// Notices that wait: about half a KiB each.
const WAITING: usize = 10_000;

/// What an API server takes for a note, in bytes.
const LONGEST: usize = 1024;

/// Where notices are told.
#[derive(Clone, Debug)]
pub struct Events {
    notices: mpsc::Sender<Notice>,
    left_out: Arc<AtomicU64>,
}

impl Events {
    /// Begins to write what is told from now on, by this client.
    pub fn begin(client: &Client, name: &str) -> Self {
        let (notices, waiting) = mpsc::channel(WAITING);
        let left_out = Arc::<AtomicU64>::default();
        let reporter = Reporter {
            controller: CONTROLLER.to_owned(),
            instance: Some(name.to_owned()),
        };
        let recorder = Recorder::new(client.clone(), reporter);
        tokio::spawn(write(recorder, waiting, Arc::clone(&left_out)));
        Self { notices, left_out }
    }

    /// Writes it soon, or counts it as left out.
    pub fn tell(&self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn write(recorder: Recorder, mut notices: mpsc::Receiver<Notice>, left_out: Arc<AtomicU64>) {
    let mut told_left_out = 0;
    // Earned over time and spent at once, up to a burst.
    let mut allowance = BURST;
    let mut earned = tokio::time::interval(Duration::from_secs(1) / RATE);
    earned.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut complained: Option<Instant> = None;
    while let Some(notice) = notices.recv().await {
        while allowance == 0 {
            earned.tick().await;
            allowance += 1;
        }
        allowance -= 1;
        while allowance < BURST && futures::FutureExt::now_or_never(earned.tick()).is_some() {
            allowance += 1;
        }
        if let Err(error) = publish(&recorder, notice).await
            && complained.is_none_or(|at| at.elapsed() >= Duration::from_mins(1))
        {
            complained = Some(Instant::now());
            tracing::warn!("cannot write an Event: {}", chain(&error));
        }
        let left_out = left_out.load(Ordering::Relaxed);
        if left_out > told_left_out {
            told_left_out = left_out;
            tracing::warn!(
                left_out,
                "too much happened at once: some of it is in the log and in no Event"
            );
        }
    }
}

async fn publish(recorder: &Recorder, notice: Notice) -> Result<(), Trouble> {
    let Notice {
        segment,
        uid,
        what,
        note,
    } = notice;
    let regarding = ObjectReference {
        api_version: Some("nanoseg.io/v1alpha1".to_owned()),
        kind: Some("Segment".to_owned()),
        namespace: Some(segment.namespace),
        name: Some(segment.name),
        uid,
        ..ObjectReference::default()
    };
    let event = Event {
        type_: if what.is_warning() {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: what.reason().to_owned(),
        note: Some(shortened(note)),
        action: what.action().to_owned(),
        secondary: None,
    };
    recorder.publish(&event, &regarding).await.map_err(Trouble::from)
}

/// No longer than the API server takes.
fn shortened(mut note: String) -> String {
    const REST: &str = "...";
    if note.len() > LONGEST {
        note.truncate(note.floor_char_boundary(LONGEST.saturating_sub(REST.len())));
        note.push_str(REST);
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_no_longer_than_an_api_server_takes() {
        assert_eq!(shortened("short".to_owned()), "short");
        for letter in ["a", "\u{e9}", "\u{1f980}"] {
            let short = shortened(letter.repeat(1000));
            assert!(
                short.len() <= LONGEST && short.len() + 7 > LONGEST.min(letter.len() * 1000),
                "{}",
                short.len()
            );
        }
    }
}
