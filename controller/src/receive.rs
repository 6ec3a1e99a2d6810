//! Learners' reports by gRPC.
//!
//! Guarantees:
//! * an increment is acknowledged when what it says is durable, in the order in which it came; one that is no report ends its stream with a
//!   reason and is counted, and every other stream goes on;
//! * a controller that does not lead takes nothing: it ends learners' streams, and they come again until they find the one that does;
//! * without [`Door::Open`], which has to be asked for, nothing is read that is not encrypted, and nothing is merged but by a
//!   learner that the API server recognises, about its own node.
//!
//! * [`certificates`]: what learners know the controller by.
//! * [`identity`]: what the controller knows learners by.
//! * [`messages`]: what is kept of a stream.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::{Stream, StreamExt as _};
use nanoseg_graph::flow::Report;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::health::Health;
use crate::lease::Standing;
use crate::metrics::RefusedLearner;
use crate::trouble::chain;
use certificates::Certificates;
use identity::{IdentityError, Recogniser, Refusal};
use messages::{Apart, Messages};

pub mod certificates;
pub mod identity;
mod incoming;
pub mod messages;

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

/// Increments of a stream that are not acknowledged, or whose acknowledgement waits for a slow learner, before it is read no further.
const UNREAD: usize = 16;

impl Increment {
    /// The report in it.
    pub fn read(&self) -> Result<Report, serde_json::Error> {
        serde_json::from_slice(&self.report)
    }
}

/// Who may report.
#[derive(Debug)]
pub enum Door {
    /// Whoever connects, unencrypted.
    Open,
    /// Learners that the API server recognises.
    Guarded {
        /// What they know the controller by.
        certificates: Box<Certificates>,
        /// What the controller knows them by.
        recogniser: Box<Recogniser>,
    },
}

/// How much a report is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whatever it says.
    Blind,
    /// It is from the node that it names, and speaks for that node's pods alone.
    OwnNode,
}

/// What comes of a learner.
#[derive(Debug)]
pub enum Delivery {
    /// A report and whom to tell that it is durable.
    Report {
        /// The report.
        report: Report,
        /// How much it is believed.
        trust: Trust,
        /// The stream that brought it, among all of them.
        stream: u64,
        /// Told when whoever sent it may forget it.
        durable: oneshot::Sender<()>,
    },
    /// A stream that had brought something has ended.
    Ended {
        /// The node of its learner.
        node: String,
        /// The stream.
        stream: u64,
    },
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
    /// Connections cannot be encrypted.
    #[error("cannot encrypt learners' connections")]
    Encrypt(#[source] tokio_rustls::rustls::Error),
}

/// A socket that learners can connect to; reports are taken from it by [`serve`].
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ReceiveError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ReceiveError::Listen { address, source })
}

/// Receives reports for as long as it is polled.
pub async fn serve(
    listener: TcpListener,
    door: Door,
    deliveries: mpsc::Sender<Delivery>,
    standing: watch::Receiver<Standing>,
    health: Arc<Health>,
) -> Result<(), ReceiveError> {
    let (certificates, recogniser) = match door {
        Door::Open => (None, None),
        Door::Guarded {
            certificates,
            recogniser,
        } => (Some(certificates), Some(Arc::from(recogniser))),
    };
    let receiver = Receiver {
        deliveries,
        recogniser,
        standing,
        health,
        streams: AtomicU64::new(0),
    };
    let service = Apart(ReportsServer::new(receiver));
    let router = Server::builder()
        // A learner that vanished without a word is noticed.
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(30)))
        .add_service(service);
    let Some(certificates) = certificates else {
        let incoming = TcpListenerStream::new(listener);
        return router.serve_with_incoming(incoming).await.map_err(ReceiveError::Serve);
    };
    let config = certificates.server_config().map_err(ReceiveError::Encrypt)?;
    let (accepted, connections) = mpsc::channel(UNREAD);
    tokio::select! {
        served = router.serve_with_incoming(ReceiverStream::new(connections)) => served.map_err(ReceiveError::Serve),
        // These two never end.
        () = incoming::accept(listener, config, accepted) => Ok(()),
        () = certificates.keep() => Ok(()),
    }
}

struct Receiver {
    deliveries: mpsc::Sender<Delivery>,
    /// Without one, everybody is believed.
    recogniser: Option<Arc<Recogniser>>,
    /// Whether this controller leads.
    standing: watch::Receiver<Standing>,
    health: Arc<Health>,
    /// Streams so far.
    streams: AtomicU64,
}

/// Why a stream or an increment is refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("a report about node {about} came with a token of node {own}")]
    OtherNode { about: String, own: String },
    #[error("an increment is no report: {0}")]
    NoReport(serde_json::Error),
}

impl Refused {
    fn reason(&self) -> RefusedLearner {
        match self {
            Self::Identity(IdentityError::Refused(Refusal::NoToken)) => RefusedLearner::NoToken,
            Self::Identity(IdentityError::Refused(Refusal::NotValid)) => RefusedLearner::NotValid,
            Self::Identity(IdentityError::Refused(Refusal::Account(_))) => RefusedLearner::Account,
            Self::Identity(IdentityError::Refused(Refusal::NoNode)) => RefusedLearner::NoNode,
            Self::Identity(IdentityError::Ask(_)) => RefusedLearner::NotAsked,
            Self::OtherNode { .. } => RefusedLearner::OtherNode,
            Self::NoReport(_) => RefusedLearner::NoReport,
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Identity(error) => error.into(),
            Refused::OtherNode { .. } => Self::permission_denied(refused.to_string()),
            Refused::NoReport(_) => Self::invalid_argument(refused.to_string()),
        }
    }
}

/// A learner that was recognised, and asked about again: its token may have ended, and its pod may be gone.
struct Learner {
    recogniser: Arc<Recogniser>,
    token: String,
    node: String,
    since: Instant,
}

impl Learner {
    async fn recognise(
        recogniser: &Arc<Recogniser>,
        request: &Request<Streaming<Increment>>,
    ) -> Result<Self, IdentityError> {
        let header = request.metadata().get("authorization");
        let token = header
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let token = token.ok_or(Refusal::NoToken)?.to_owned();
        let node = recogniser.node(&token).await?;
        Ok(Self {
            recogniser: Arc::clone(recogniser),
            token,
            node,
            since: Instant::now(),
        })
    }

    /// Whether this report may be taken from it.
    async fn vouch(&mut self, report: &Report) -> Result<(), Refused> {
        if self.since.elapsed() >= identity::ASKED_AGAIN {
            self.node = self.recogniser.node(&self.token).await?;
            self.since = Instant::now();
        }
        let node = &report.origin.node;
        if *node == self.node {
            return Ok(());
        }
        Err(Refused::OtherNode {
            about: node.clone(),
            own: self.node.clone(),
        })
    }
}

#[tonic::async_trait]
impl Reports for Receiver {
    type SendStream = Pin<Box<dyn Stream<Item = Result<Acknowledgement, Status>> + Send>>;

    async fn send(&self, request: Request<Streaming<Increment>>) -> Result<Response<Self::SendStream>, Status> {
        let from = request.remote_addr();
        let mut standing = self.standing.clone();
        if let Some(status) = elsewhere(&standing.borrow_and_update()) {
            return Err(status);
        }
        let mut learner = match &self.recogniser {
            None => None,
            Some(recogniser) => match Learner::recognise(recogniser, &request).await {
                Ok(learner) => Some(learner),
                Err(error) => {
                    let refused = Refused::from(error);
                    self.health.metrics.refused(refused.reason());
                    tracing::warn!(?from, "a learner's stream was refused: {}", chain(&refused));
                    return Err(refused.into());
                }
            },
        };
        let mut increments = Messages::<Increment>::of(request);
        let deliveries = self.deliveries.clone();
        let health = Arc::clone(&self.health);
        let (answers, answered) = mpsc::channel(UNREAD);
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let mut connected = None;
            let mut reporter = None;
            loop {
                let message = tokio::select! {
                    message = increments.next() => message,
                    status = led_elsewhere(&mut standing) => {
                        // A learner that is gone meanwhile comes again anyway.
                        let _gone = answers.send(Answer::Refused(status)).await;
                        break;
                    }
                };
                let increment = match message {
                    Ok(Some(increment)) => increment,
                    Ok(None) => break,
                    Err(status) => {
                        tracing::info!(?from, "a learner's stream ended: {}", status.message());
                        break;
                    }
                };
                let sequence = increment.sequence;
                let answer = match take(&increment, learner.as_mut()).await {
                    Ok((report, trust)) => {
                        if connected.is_none() {
                            connected = Some(health.metrics.connected());
                            let node = &report.origin.node;
                            tracing::info!(node, ?from, flows = report.flows.len(), "learner connected");
                            reporter = Some(node.clone());
                        }
                        deliver(&deliveries, (stream, sequence), report, trust).await
                    }
                    Err(refused) => {
                        health.metrics.refused(refused.reason());
                        tracing::warn!(?from, sequence, "an increment was refused: {}", chain(&refused));
                        Answer::Refused(refused.into())
                    }
                };
                let ended = matches!(answer, Answer::Refused(_));
                if answers.send(answer).await.is_err() || ended {
                    break;
                }
            }
            if let Some(node) = reporter {
                // The controller is ending.
                let _gone = deliveries.send(Delivery::Ended { node, stream }).await;
            }
        });
        Ok(Response::new(Box::pin(
            ReceiverStream::new(answered).then(Answer::wait),
        )))
    }
}

/// What a learner is told by a controller that does not lead.
fn elsewhere(standing: &Standing) -> Option<Status> {
    let leader = match standing {
        Standing::Leads { .. } => return None,
        Standing::Follows { holder: Some(holder) } => holder,
        Standing::Follows { holder: None } => "no controller yet, or another one",
    };
    Some(Status::unavailable(format!(
        "{leader} leads, and this controller takes no reports: connect again"
    )))
}

/// Waits until this controller does not lead any more.
async fn led_elsewhere(standing: &mut watch::Receiver<Standing>) -> Status {
    loop {
        if standing.changed().await.is_err() {
            return ending();
        }
        if let Some(status) = elsewhere(&standing.borrow_and_update()) {
            return status;
        }
    }
}

async fn take(increment: &Increment, learner: Option<&mut Learner>) -> Result<(Report, Trust), Refused> {
    let report = increment.read().map_err(Refused::NoReport)?;
    let Some(learner) = learner else {
        return Ok((report, Trust::Blind));
    };
    learner.vouch(&report).await?;
    Ok((report, Trust::OwnNode))
}

/// What becomes of an increment.
enum Answer {
    /// It was merged; the second is told when it is durable.
    Merged(u64, oneshot::Receiver<()>),
    /// It was not, and its stream ends.
    Refused(Status),
}

impl Answer {
    async fn wait(self) -> Result<Acknowledgement, Status> {
        match self {
            Self::Merged(sequence, durable) => match durable.await {
                Ok(()) => Ok(Acknowledgement { sequence }),
                Err(_gone) => Err(ending()),
            },
            Self::Refused(status) => Err(status),
        }
    }
}

fn ending() -> Status {
    Status::unavailable("the controller is ending, or leads no more: connect again")
}

async fn deliver(
    deliveries: &mpsc::Sender<Delivery>,
    (stream, sequence): (u64, u64),
    report: Report,
    trust: Trust,
) -> Answer {
    let (durable, told) = oneshot::channel();
    let delivery = Delivery::Report {
        report,
        trust,
        stream,
        durable,
    };
    match deliveries.send(delivery).await {
        Ok(()) => Answer::Merged(sequence, told),
        Err(_gone) => Answer::Refused(ending()),
    }
}
