//! Sockets of browsers.
//!
//! Guarantee: there are [`AT_ONCE`] connections at most, and one whose other end does not speak, does not read or is not there
//! any more ends within [`PATIENCE`].

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at once: a browser opens six, and a team has a few of them.
const AT_ONCE: usize = 128;

/// How long the other end may stay silent where it should speak, or not take what was sent.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait when the operating system has no more descriptors.
const NO_MORE: Duration = Duration::from_millis(100);

/// Bytes of a request's head at most.
const HEAD: usize = 16 * 1024;

/// Serves for as long as it is polled.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    // The semaphore is never closed.
    while let Ok(turn) = Arc::clone(&turns).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _from)) => stream,
            Err(error) => {
                tracing::warn!("cannot accept a browser's connection: {error}");
                tokio::time::sleep(NO_MORE).await;
                continue;
            }
        };
        // Who does not take what was sent is taken for gone by the kernel. A kernel that cannot do that still serves.
        let patience = u32::try_from(PATIENCE.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = set_tcp_user_timeout(&stream, patience) {
            tracing::debug!("a browser that takes nothing is not noticed: {error}");
        }
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .max_buf_size(HEAD)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!("a browser's connection ended: {error}");
            }
            drop(turn);
        });
    }
}
