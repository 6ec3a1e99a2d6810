//! What kubelet and Prometheus ask a program: `/healthz`, `/readyz` and `/metrics`, by HTTP/1, without encryption.
//!
//! Guarantees:
//! * whoever asks, however many and however slowly, costs a fixed amount of memory and holds nothing up but others who ask;
//! * nothing is read from a request but its method and path, and nothing can be changed by one.
//!
//! * [`process`]: what the operating system says of this process.
//! * [`bounded`]: labels that cannot grow.
//! * [`heap`]: memory that this process gives back.

pub mod bounded;
pub mod heap;
pub mod process;

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Connections at a time: kubelet's three probes, two Prometheus servers and a person leave most of it free.
const AT_ONCE: usize = 16;

/// Who has not said by then what is wanted is not waited for.
const ASKING: Duration = Duration::from_secs(5);

/// How long one connection may take in all. Prometheus gives up after ten seconds by default.
const WHOLE: Duration = Duration::from_secs(15);

/// How long to wait when the operating system has no more descriptors.
const NO_MORE: Duration = Duration::from_millis(100);

/// As Prometheus names the format that [`encode`] writes.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for probes at {address}: choose another address with --health-listen")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What the operating system said.
    pub source: std::io::Error,
}

/// What a program knows of itself. `Err` says what is wrong, for a person.
pub trait Vital: Send + Sync + 'static {
    /// Whether it still does its work; if not, only a restart helps.
    fn alive(&self) -> Result<(), String>;
    /// Whether it does what it is there for; if not, it will by itself.
    fn ready(&self) -> Result<(), String>;
}

/// When the main loop last came round.
#[derive(Debug)]
pub struct Pulse {
    started: Instant,
    /// Milliseconds since the start.
    last: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

impl Pulse {
    /// The loop has come round.
    pub fn beat(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// How long ago that was.
    pub fn silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }

    /// An error if that was longer ago than `most`.
    pub fn check(&self, most: Duration) -> Result<(), String> {
        let silent = self.silent_for();
        if silent <= most {
            return Ok(());
        }
        let (silent, most) = (silent.as_secs(), most.as_secs());
        Err(format!(
            "the main loop has not come round for {silent} s, which is more than {most} s"
        ))
    }
}

/// A socket that can be asked at; [`serve`] answers.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError { address, source })
}

/// Answers for as long as it is polled.
pub async fn serve(listener: TcpListener, registry: Arc<Registry>, vital: Arc<dyn Vital>) -> Infallible {
    patiently(listener, registry, vital, ASKING).await
}

async fn patiently(
    listener: TcpListener,
    registry: Arc<Registry>,
    vital: Arc<dyn Vital>,
    asking: Duration,
) -> Infallible {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        // The semaphore is never closed.
        let turn = Arc::clone(&turns).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _from)) => stream,
            Err(error) => {
                tracing::debug!("cannot accept a probe's connection: {error}");
                tokio::time::sleep(NO_MORE).await;
                continue;
            }
        };
        let (registry, vital) = (Arc::clone(&registry), Arc::clone(&vital));
        tokio::spawn(async move {
            // Whoever asks too slowly asks again.
            let _slow = timeout(WHOLE, converse(stream, &registry, vital.as_ref(), asking)).await;
            drop(turn);
        });
    }
}

async fn converse(stream: TcpStream, registry: &Registry, vital: &dyn Vital, asking: Duration) {
    let answer = service_fn(async |request: Request<Incoming>| Ok::<_, Infallible>(answer(&request, registry, vital)));
    let conversation = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .timer(TokioTimer::new())
        .header_read_timeout(asking)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = conversation.await {
        tracing::debug!("a probe's connection ended: {error}");
    }
}

fn answer<B>(request: &Request<B>, registry: &Registry, vital: &dyn Vital) -> Response<String> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = say(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let checked = |outcome: Result<(), String>| match outcome {
        Ok(()) => say(StatusCode::OK, TEXT, "ok\n".to_owned()),
        Err(why) => say(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
    };
    match request.uri().path() {
        "/healthz" => checked(vital.alive()),
        "/readyz" => checked(vital.ready()),
        "/metrics" => {
            let mut text = String::new();
            match encode(&mut text, registry) {
                Ok(()) => say(StatusCode::OK, OPEN_METRICS, text),
                Err(fmt::Error) => say(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    TEXT,
                    "metrics cannot be written\n".to_owned(),
                ),
            }
        }
        _ => say(
            StatusCode::NOT_FOUND,
            TEXT,
            "there are /healthz, /readyz and /metrics\n".to_owned(),
        ),
    }
}

fn say(status: StatusCode, format: HeaderValue, text: String) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
