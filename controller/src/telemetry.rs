//! What a collector of OpenTelemetry is told, by OTLP over gRPC: each round that writes as a trace, each violation as a log record.
//!
//! Law: nobody waits for a collector. What does not fit into a bounded queue, or is not taken, is dropped and counted.
//!
//! * [`queue`]: what waits to be sent.

mod queue;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{ExporterBuildError, LogExporter, SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, SdkLogRecord, SdkLoggerProvider};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanExporter as _};
use tokio::task::JoinHandle;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::registry::LookupSpan;

pub use queue::{Lost, Signal, Unsent};
use queue::{drain, queue};

/// Target of the events that are log records for a collector.
pub const VIOLATION: &str = "nanoseg::violation";

/// Target of the spans, which are for a collector alone.
pub const ROUND: &str = "nanoseg::round";

/// A collector that takes longer does not get what it was sent.
const TAKING: Duration = Duration::from_secs(5);

/// How long the program waits at its end for what is still to be sent.
const ENDING: Duration = Duration::from_secs(2);

/// Whom to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// URL of the collector.
    pub endpoint: String,
    /// File of the certificates by which it is recognised.
    pub authority: Option<PathBuf>,
}

/// Why nobody can be told.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// What was named is no collector's URL.
    #[error(
        "--otlp-endpoint {endpoint:?} is not what a collector of OpenTelemetry is reached by: write for example http://collector:4317"
    )]
    Endpoint {
        /// What was named.
        endpoint: String,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
    /// The certificates cannot be read.
    #[error("cannot read --otlp-authority {}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A variable of the environment that OpenTelemetry looks at has no meaning.
    #[error("cannot tell a collector of OpenTelemetry")]
    Exporter(#[source] ExporterBuildError),
}

/// The way to a collector.
#[derive(Debug)]
pub struct Telemetry {
    tracers: SdkTracerProvider,
    loggers: SdkLoggerProvider,
    sending: [JoinHandle<()>; 2],
    lost: Lost,
}

impl Telemetry {
    /// Begins to send what will be told, within a runtime. The collector need not be there.
    pub fn begin(settings: &TelemetrySettings) -> Result<Self, TelemetryError> {
        let channel = channel(settings)?;
        let spans = SpanExporter::builder()
            .with_tonic()
            .with_channel(channel.clone())
            .with_timeout(TAKING);
        let mut spans = spans.build().map_err(TelemetryError::Exporter)?;
        let logs = LogExporter::builder()
            .with_tonic()
            .with_channel(channel)
            .with_timeout(TAKING);
        let mut logs = logs.build().map_err(TelemetryError::Exporter)?;
        let resource = resource();
        spans.set_resource(&resource);
        logs.set_resource(&resource);

        let lost = Lost::default();
        let (span_queue, waiting_spans) = queue(Signal::Spans, lost.clone());
        let (log_queue, waiting_logs) = queue(Signal::Logs, lost.clone());
        let (spans, logs) = (Arc::new(spans), Arc::new(logs));
        let send_spans = move |batch| {
            let spans = Arc::clone(&spans);
            async move { spans.export(batch).await }
        };
        let send_logs = move |batch: Vec<(SdkLogRecord, InstrumentationScope)>| {
            let logs = Arc::clone(&logs);
            async move {
                let batch: Vec<_> = batch.iter().map(|(record, scope)| (record, scope)).collect();
                logs.export(LogBatch::new(&batch)).await
            }
        };
        let sending = [
            tokio::spawn(drain(waiting_spans, Signal::Spans, lost.clone(), send_spans)),
            tokio::spawn(drain(waiting_logs, Signal::Logs, lost.clone(), send_logs)),
        ];
        Ok(Self {
            tracers: SdkTracerProvider::builder()
                .with_resource(resource.clone())
                .with_span_processor(span_queue)
                .build(),
            loggers: SdkLoggerProvider::builder()
                .with_resource(resource)
                .with_log_processor(log_queue)
                .build(),
            sending,
            lost,
        })
    }

    /// What was never told, for the metrics.
    pub fn lost(&self) -> Lost {
        self.lost.clone()
    }

    /// What takes spans and violations from the program.
    pub fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let spans = tracing_opentelemetry::layer()
            .with_tracer(self.tracers.tracer("nanoseg"))
            // Where in the source, and on which thread, tells nobody anything.
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(told(|metadata| metadata.is_span() && metadata.target() == ROUND));
        let violations = OpenTelemetryTracingBridge::new(&self.loggers)
            .with_filter(told(|metadata| metadata.is_event() && metadata.target() == VIOLATION));
        spans.and_then(violations).boxed()
    }

    /// Takes nothing more, and sends what waits if the collector takes it soon.
    pub async fn end(self) {
        let Self {
            tracers,
            loggers,
            sending,
            lost: _,
        } = self;
        // Each closes its queue, and cannot fail in it.
        let _closed = (tracers.shutdown(), loggers.shutdown());
        for task in sending {
            // What is not sent by then is not.
            let _sent = tokio::time::timeout(ENDING, task).await;
        }
    }
}

/// What is told is no less than information, so that nothing less is made ready for it.
fn told(what: fn(&Metadata<'_>) -> bool) -> FilterFn<fn(&Metadata<'_>) -> bool> {
    FilterFn::new(what).with_max_level_hint(LevelFilter::INFO)
}

fn channel(TelemetrySettings { endpoint, authority }: &TelemetrySettings) -> Result<Channel, TelemetryError> {
    let wrong = |source| TelemetryError::Endpoint {
        endpoint: endpoint.clone(),
        source,
    };
    let mut way = Endpoint::from_shared(endpoint.clone())
        .map_err(wrong)?
        .timeout(TAKING)
        .connect_timeout(TAKING);
    if let Some(path) = authority {
        let pem = fs::read(path).map_err(|source| TelemetryError::Authority {
            path: path.clone(),
            source,
        })?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        way = way.tls_config(tls).map_err(wrong)?;
    }
    Ok(way.connect_lazy())
}

/// Who tells. `OTEL_RESOURCE_ATTRIBUTES` adds to it.
fn resource() -> Resource {
    let instance = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Resource::builder()
        .with_service_name("nanoseg-controller")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ])
        .build()
}
