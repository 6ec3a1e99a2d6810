//! What can be asked. Every answer is computed from one copy.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::board::{Board, Copy};
use super::door::{self, Door, LOGIN};
use super::events::{self, FOLLOWERS, Following};
use super::files;
use super::views::{self, Question};
use crate::segment::SegmentName;

/// Answers that are computed at once: the controller's own work comes first.
const AT_ONCE: usize = 2;

/// Bytes of what a browser may send: a token.
const LARGEST: usize = 4096;

#[derive(Clone, Debug)]
struct Desk {
    board: Arc<Board>,
    turns: Arc<Semaphore>,
}

pub(super) fn router(board: Arc<Board>, door: Door) -> Router {
    let following = Following {
        board: Arc::clone(&board),
        turns: Arc::new(Semaphore::new(FOLLOWERS)),
    };
    let desk = Desk {
        board,
        turns: Arc::new(Semaphore::new(AT_ONCE)),
    };
    Router::new()
        .route("/", get(files::document))
        .route("/api/events", get(events::follow).with_state(following))
        .route("/api/map", get(map))
        .route("/api/map/edges", get(edges))
        .route("/api/map/edge", get(edge))
        .route("/api/map/party", get(party))
        .route("/api/segments", get(segments))
        .route("/api/segments/{namespace}/{name}", get(review))
        .route("/api/violations", get(violations))
        .route("/api/what-if", get(what_if))
        .route(LOGIN, post(door::login).with_state(door.clone()))
        .fallback(files::file)
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(from_fn_with_state(door, door::guard))
        .with_state(desk)
}

fn sorry(status: StatusCode, sentence: impl Into<String>) -> Response {
    (status, Json(json!({ "error": sentence.into() }))).into_response()
}

impl Desk {
    /// Computes on a thread where it holds up nobody.
    async fn compute<T: Send + 'static>(&self, view: impl FnOnce(&Copy) -> T + Send + 'static) -> Result<T, Response> {
        let Some(copy) = self.board.copy().await else {
            return Err(sorry(
                StatusCode::SERVICE_UNAVAILABLE,
                "The controller is busy or has not begun yet. Ask again in some seconds.",
            ));
        };
        // The semaphore is never closed.
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let computed = tokio::task::spawn_blocking(move || {
            let computed = view(&copy);
            drop(turn);
            computed
        });
        computed.await.map_err(|_panicked| {
            sorry(
                StatusCode::INTERNAL_SERVER_ERROR,
                "This could not be computed. The controller's log says more.",
            )
        })
    }

    async fn answer(&self, view: impl FnOnce(&Copy) -> Value + Send + 'static) -> Response {
        match self.compute(view).await {
            Ok(value) => Json(value).into_response(),
            Err(sorry) => sorry,
        }
    }
}

async fn map(State(desk): State<Desk>) -> Response {
    desk.answer(views::map).await
}

async fn edges(State(desk): State<Desk>) -> Response {
    desk.answer(views::edges).await
}

/// What one part of the map is asked for by.
#[derive(Deserialize)]
struct Which {
    id: String,
}

async fn edge(State(desk): State<Desk>, Query(Which { id }): Query<Which>) -> Response {
    found(desk.compute(move |copy| views::edge(copy, &id)).await)
}

async fn party(State(desk): State<Desk>, Query(Which { id }): Query<Which>) -> Response {
    found(desk.compute(move |copy| views::one_party(copy, &id)).await)
}

fn found(computed: Result<Option<Value>, Response>) -> Response {
    match computed {
        Ok(Some(value)) => Json(value).into_response(),
        Ok(None) => sorry(StatusCode::NOT_FOUND, "This is not on the map any more."),
        Err(sorry) => sorry,
    }
}

async fn segments(State(desk): State<Desk>) -> Response {
    desk.answer(views::segments).await
}

async fn review(State(desk): State<Desk>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let name = SegmentName { namespace, name };
    match desk.compute(move |copy| views::review(copy, &name).ok_or(name)).await {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(name)) => sorry(StatusCode::NOT_FOUND, format!("There is no {name}.")),
        Err(sorry) => sorry,
    }
}

/// Those that are kept are told even while there is no copy.
async fn violations(State(desk): State<Desk>) -> Json<Value> {
    let board = Arc::clone(&desk.board);
    let computed = desk.compute(move |copy| views::violations(&board, Some(copy))).await;
    Json(computed.unwrap_or_else(|_sorry| views::violations(&desk.board, None)))
}

async fn what_if(State(desk): State<Desk>, Query(question): Query<Question>) -> Response {
    match desk.compute(move |copy| views::what_if(copy, &question)).await {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(unclear)) => sorry(StatusCode::UNPROCESSABLE_ENTITY, unclear.to_string()),
        Err(sorry) => sorry,
    }
}
