//! Learners' reports by gRPC.
//!
//! Guarantees: an increment is acknowledged after it was merged, in the order in which it came; one that is no report ends its
//! stream with a reason and is counted, and every other stream goes on.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::Stream;
use nanoseg_graph::flow::Report;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

pub mod protocol {
    #![expect(
        clippy::pedantic,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated"
    )]
    tonic::include_proto!("nanoseg.report.v1");
}

pub use protocol::reports_client::ReportsClient;
use protocol::reports_server::{Reports, ReportsServer};
pub use protocol::{Acknowledgement, Increment};

/// Bytes of one increment at most. The first of a stream carries everything that a node has seen: about 250 bytes a flow, so
/// this is room for a quarter of a million.
const LARGEST: usize = 64 * 1024 * 1024;

/// Acknowledgements that wait for a slow learner before its stream is read no further.
const UNREAD: usize = 16;

impl Increment {
    /// The report in it.
    pub fn read(&self) -> Result<Report, serde_json::Error> {
        serde_json::from_slice(&self.report)
    }
}

/// A report and whom to tell that it was merged.
#[derive(Debug)]
pub struct Delivery {
    /// The report.
    pub report: Report,
    /// Told after merging.
    pub merged: oneshot::Sender<()>,
}

/// Why reports cannot be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The address cannot be listened at.
    #[error("cannot listen for learners at {address}: choose another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The server ended.
    #[error("the server for learners' reports ended")]
    Serve(#[source] tonic::transport::Error),
}

/// A socket that learners can connect to; reports are taken from it by [`serve`].
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ReceiveError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ReceiveError::Listen { address, source })
}

/// Receives reports for as long as it is polled.
pub async fn serve(listener: TcpListener, deliveries: mpsc::Sender<Delivery>) -> Result<(), ReceiveError> {
    let receiver = Receiver {
        deliveries,
        refused: Arc::default(),
    };
    let service = ReportsServer::new(receiver).max_decoding_message_size(LARGEST);
    Server::builder()
        // A learner that vanished without a word is noticed.
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(30)))
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await
        .map_err(ReceiveError::Serve)
}

struct Receiver {
    deliveries: mpsc::Sender<Delivery>,
    /// Increments that were no reports.
    refused: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl Reports for Receiver {
    type SendStream = Pin<Box<dyn Stream<Item = Result<Acknowledgement, Status>> + Send>>;

    async fn send(&self, request: Request<Streaming<Increment>>) -> Result<Response<Self::SendStream>, Status> {
        let from = request.remote_addr();
        let mut increments = request.into_inner();
        let deliveries = self.deliveries.clone();
        let refused = Arc::clone(&self.refused);
        let (answers, stream) = mpsc::channel(UNREAD);
        tokio::spawn(async move {
            let mut greeted = false;
            loop {
                let increment = match increments.message().await {
                    Ok(Some(increment)) => increment,
                    Ok(None) => break,
                    Err(status) => {
                        tracing::info!(?from, "a learner's stream ended: {}", status.message());
                        break;
                    }
                };
                let sequence = increment.sequence;
                let answer = match increment.read() {
                    Ok(report) => {
                        if !std::mem::replace(&mut greeted, true) {
                            let node = &report.origin.node;
                            tracing::info!(node, ?from, flows = report.flows.len(), "learner connected");
                        }
                        deliver(&deliveries, report)
                            .await
                            .map(|()| Acknowledgement { sequence })
                    }
                    Err(error) => {
                        let refused = refused.fetch_add(1, Ordering::Relaxed) + 1;
                        tracing::warn!(
                            ?from,
                            sequence,
                            refused,
                            "an increment is no report and was refused: {error}"
                        );
                        Err(Status::invalid_argument(format!(
                            "increment {sequence} is no report: {error}"
                        )))
                    }
                };
                let ended = answer.is_err();
                if answers.send(answer).await.is_err() || ended {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

async fn deliver(deliveries: &mpsc::Sender<Delivery>, report: Report) -> Result<(), Status> {
    let (merged, done) = oneshot::channel();
    let ending = || Status::unavailable("the controller is ending");
    deliveries
        .send(Delivery { report, merged })
        .await
        .map_err(|_gone| ending())?;
    done.await.map_err(|_gone| ending())
}
