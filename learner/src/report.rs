//! Where reports go.
//!
//! Guarantees:
//! * A file is there whole or not at all: it is written beside itself and renamed.
//! * A controller gets what changed since what it acknowledged on this stream; on a new stream it gets everything. Merging
//!   is idempotent, so nothing is counted twice and nothing is missed.
//! * The controller's authority and the token are read from their files for each stream: both change without a restart. Where
//!   they are asked for, nothing is sent without them.
//! * Memory is bounded by the number of distinct flows: nothing queues up for a controller that is away.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nanoseg_ebpf::kept::LAYOUT;
use nanoseg_graph::flow::{CaptureVersion, Flow, Held, Loss, Named, Origin, Report};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::report::protocol::reports_client::ReportsClient;
use crate::report::protocol::{Acknowledgement, Increment};
use crate::settings::{Credentials, Way};

/// Generated from `report.proto`.
#[expect(
    clippy::pedantic,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
mod protocol {
    tonic::include_proto!("nanoseg.report.v1");
}

/// A message stays well below gRPC's default limit of 4 MiB: a flow is at most about 400 bytes of JSON.
pub(crate) const FLOWS_IN_AN_INCREMENT: usize = 4096;

/// How many increments may be on their way. More would only be memory.
pub(crate) const IN_FLIGHT: usize = 4;

/// A controller that is away for a moment is found again soon, and one that is away for long is not hammered.
const BACKOFF: std::ops::RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(10);

/// What prevents a report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("cannot make the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot write the report {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// A report as JSON that is made flow by flow, so that a large table is not in memory twice.
#[derive(Serialize)]
struct Document<'a, I: Iterator<Item = Flow> + Clone> {
    origin: &'a Origin,
    #[serde(serialize_with = "sequence")]
    flows: I,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    losses: &'a [Loss],
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    node_addresses: &'a BTreeSet<IpAddr>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    names: &'a [Named],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    held: &'a [Held],
    #[serde(skip_serializing_if = "Option::is_none")]
    capture: Option<CaptureVersion>,
}

/// What sees for this learner.
pub(crate) fn capture_version() -> Option<CaptureVersion> {
    CaptureVersion::try_from(format!("{} (maps {LAYOUT})", env!("CARGO_PKG_VERSION"))).ok()
}

fn sequence<I: Iterator<Item = Flow> + Clone, S: serde::Serializer>(
    flows: &I,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(flows.clone())
}

/// A report in a folder: one file for this run, with everything since its start.
#[derive(Debug)]
pub(crate) struct ReportFile {
    path: PathBuf,
    beside: PathBuf,
}

impl ReportFile {
    /// Makes the folder.
    pub(crate) fn open(folder: &Path, origin: &Origin) -> Result<Self, ReportError> {
        fs::create_dir_all(folder).map_err(|source| ReportError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let name = format!("{}.{}.json", origin.node, origin.epoch);
        Ok(Self {
            path: folder.join(&name),
            beside: folder.join(format!(".{name}.new")),
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file.
    pub(crate) fn write(
        &self,
        origin: &Origin,
        flows: impl Iterator<Item = Flow> + Clone,
        losses: &[Loss],
        node_addresses: &BTreeSet<IpAddr>,
        names: &[Named],
        held: &[Held],
    ) -> Result<(), ReportError> {
        let written = fs::File::create(&self.beside).and_then(|file| {
            let mut file = BufWriter::new(file);
            serde_json::to_writer(
                &mut file,
                &Document {
                    origin,
                    flows,
                    losses,
                    node_addresses,
                    names,
                    held,
                    capture: capture_version(),
                },
            )?;
            file.write_all(b"\n")?;
            file.flush()?;
            fs::rename(&self.beside, &self.path)
        });
        written.map_err(|source| ReportError::Write {
            path: self.path.clone(),
            source,
        })
    }
}

/// What happens on the way to the controller.
#[derive(Debug)]
pub(crate) enum StreamEvent {
    /// A stream is open: what is sent here goes there, counted from 1.
    Open(mpsc::Sender<Vec<u8>>),
    /// Everything up to this increment is with the controller.
    Acknowledged(u64),
    /// The stream broke; another is tried.
    Closed,
}

/// JSON of a part of a report.
pub(crate) fn encode(report: &Report) -> Vec<u8> {
    // Serializing plain data into memory has no way to fail; an empty report would be refused and sent again.
    serde_json::to_vec(report).unwrap_or_default()
}

/// Keeps a stream to the controller, for as long as somebody listens.
pub(crate) async fn stream(way: Way, events: mpsc::Sender<StreamEvent>) {
    let Way { endpoint, credentials } = way;
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    let mut wait = *BACKOFF.start();
    let mut complained = false;
    loop {
        match attempt(&endpoint, credentials.as_ref(), &events).await {
            Ok(()) => {
                tracing::warn!(controller = %endpoint.uri(), "the controller closed the stream; connecting again");
                wait = *BACKOFF.start();
                complained = false;
            }
            Err(failure) => {
                if failure.was_open {
                    wait = *BACKOFF.start();
                    complained = false;
                }
                if !complained {
                    complained = true;
                    tracing::warn!(
                        controller = %endpoint.uri(),
                        error = failure.reason,
                        "no stream to the controller; flows are kept and sent when it is back"
                    );
                }
            }
        }
        if events.send(StreamEvent::Closed).await.is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(*BACKOFF.end());
    }
}

struct Failure {
    was_open: bool,
    reason: String,
}

/// What the files of the credentials hold now.
fn read(credentials: &Credentials) -> Result<(ClientTlsConfig, MetadataValue<Ascii>), String> {
    let Credentials { ca, token, name } = credentials;
    let text = |path: &Path| {
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {}", path.display(), chain(&error)))
    };
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(text(ca)?))
        .domain_name(name);
    let mut header = MetadataValue::try_from(format!("Bearer {}", text(token)?.trim()))
        .map_err(|_invalid| format!("{} does not hold a token", token.display()))?;
    header.set_sensitive(true);
    Ok((tls, header))
}

/// One stream, until it ends.
async fn attempt(
    endpoint: &Endpoint,
    credentials: Option<&Credentials>,
    events: &mpsc::Sender<StreamEvent>,
) -> Result<(), Failure> {
    let closed = |error: &dyn std::error::Error| Failure {
        was_open: false,
        reason: chain(error),
    };
    let (endpoint, header) = match credentials.map(read).transpose() {
        Ok(None) => (endpoint.clone(), None),
        Ok(Some((tls, header))) => {
            let endpoint = endpoint.clone().tls_config(tls).map_err(|error| closed(&error))?;
            (endpoint, Some(header))
        }
        Err(reason) => {
            return Err(Failure {
                was_open: false,
                reason,
            });
        }
    };
    let channel = endpoint.connect().await.map_err(|error| closed(&error))?;
    let (sender, mut reports) = mpsc::channel::<Vec<u8>>(IN_FLIGHT);
    let (increments, outgoing) = mpsc::channel(1);
    let number = async move {
        let mut sequence = 0;
        while let Some(report) = reports.recv().await {
            sequence += 1;
            if increments.send(Increment { sequence, report }).await.is_err() {
                break;
            }
        }
    };
    let receive = async {
        if events.send(StreamEvent::Open(sender)).await.is_err() {
            return Ok(());
        }
        let mut request = Request::new(ReceiverStream::new(outgoing));
        if let Some(header) = header {
            request.metadata_mut().insert("authorization", header);
        }
        let mut answers = ReportsClient::new(channel)
            .send(request)
            .await
            .map_err(|status| closed(&status))?
            .into_inner();
        tracing::info!(controller = %endpoint.uri(), "reporting to the controller");
        loop {
            match answers.message().await {
                Ok(Some(Acknowledgement { sequence })) => {
                    if events.send(StreamEvent::Acknowledged(sequence)).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(None) => return Ok(()),
                Err(status) => {
                    return Err(Failure {
                        was_open: true,
                        reason: chain(&status),
                    });
                }
            }
        }
    };
    tokio::pin!(number, receive);
    tokio::select! {
        result = &mut receive => result,
        // Nobody has anything more to send: what is on its way is still acknowledged.
        () = &mut number => receive.await,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
