//! What is told without being asked, as server-sent events.
//!
//! * `state` with a number: there is a newer copy; whoever shows one asks again.
//! * `violation` with a violation, as it is found.
//! * `resync`: violations were missed; whoever shows them asks again.
//!
//! Guarantee: nothing is kept for a client but the numbers of what it was told last. It is told when it takes what came before,
//! and then of what is newest.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use super::board::{Board, Stamp};
use super::views::violation;

/// Clients that are told at once, which leaves connections for those who ask.
pub(super) const FOLLOWERS: usize = 64;

/// How often a client hears something although there is nothing: it notices within twice that time that nobody is there.
const SIGN: Duration = Duration::from_secs(10);

/// What following takes.
#[derive(Clone, Debug)]
pub(super) struct Following {
    pub(super) board: Arc<Board>,
    pub(super) turns: Arc<Semaphore>,
}

/// Tells for as long as the client takes it.
pub(super) async fn follow(State(Following { board, turns }): State<Following>) -> Response {
    let Ok(turn) = turns.try_acquire_owned() else {
        let wait = [(RETRY_AFTER, "10")];
        return (StatusCode::SERVICE_UNAVAILABLE, wait, "Too many follow already.\n").into_response();
    };
    let receiver = board.follow();
    let told = Stamp {
        version: 0,
        // What was found before is asked for.
        violations: receiver.borrow().violations,
    };
    let batches = futures::stream::unfold((receiver, told, turn), move |(mut receiver, told, turn)| {
        let board = Arc::clone(&board);
        async move {
            let (events, told) = next(&board, &mut receiver, told).await?;
            Some((
                futures::stream::iter(events.into_iter().map(Ok::<_, Infallible>)),
                (receiver, told, turn),
            ))
        }
    });
    Sse::new(batches.flatten())
        .keep_alive(KeepAlive::new().interval(SIGN))
        .into_response()
}

/// Waits until there is something that was not told, and says it. `None` when the controller ends.
async fn next(board: &Board, receiver: &mut watch::Receiver<Stamp>, told: Stamp) -> Option<(Vec<Event>, Stamp)> {
    let now = *receiver.wait_for(|stamp| *stamp != told).await.ok()?;
    let mut events = Vec::new();
    let mut violations = told.violations;
    if now.violations != told.violations {
        if let Some(new) = board.since(told.violations) {
            for (number, found) in new {
                violations = number;
                events.push(event("violation", &violation(number, &found)));
            }
        } else {
            violations = now.violations;
            events.push(event("resync", &json!({ "violations": now.violations })));
        }
    }
    if now.version != told.version {
        events.push(event("state", &json!({ "version": now.version })));
    }
    let version = now.version;
    Some((events, Stamp { version, violations }))
}

fn event(kind: &str, value: &serde_json::Value) -> Event {
    // JSON holds no line's end: one event is one line.
    Event::default().event(kind).data(value.to_string())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::board::KEPT;
    use super::*;
    use crate::page::views::tests::violation_of;

    fn kinds(events: &[Event]) -> Vec<String> {
        events
            .iter()
            .map(|event| {
                let text = format!("{event:?}");
                ["resync", "violation", "state"]
                    .into_iter()
                    .find(|kind| text.contains(&format!("event: {kind}")))
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }

    #[tokio::test]
    async fn who_was_away_for_long_is_told_once_to_ask_again() {
        let board = Board::new(Timestamp::UNIX_EPOCH);
        let mut receiver = board.follow();
        board.tell(&[violation_of(1)]);
        let (events, told) = next(&board, &mut receiver, Stamp::default()).await.unwrap();
        assert_eq!(kinds(&events), ["violation"]);
        // While it takes nothing, more is found than is kept.
        for _ in 0..3 {
            let many: Vec<_> = (0..KEPT).map(|_| violation_of(2)).collect();
            board.tell(&many);
        }
        let (events, told) = next(&board, &mut receiver, told).await.unwrap();
        assert_eq!(kinds(&events), ["resync"], "one word instead of everything");
        board.tell(&[violation_of(3)]);
        let (events, _) = next(&board, &mut receiver, told).await.unwrap();
        assert_eq!(kinds(&events), ["violation"]);
    }
}
