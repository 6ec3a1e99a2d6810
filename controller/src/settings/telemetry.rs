//! Arguments about whom OpenTelemetry is told.

use std::path::PathBuf;

use clap::Args;

use crate::telemetry::TelemetrySettings;

/// Where rounds and violations are told.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "OpenTelemetry")]
pub struct TelemetryArguments {
    /// Collector to which rounds are told as traces and violations as log records, by OTLP over gRPC: `http://collector:4317`, or https
    /// with --otlp-authority. `OTEL_EXPORTER_OTLP_HEADERS` names what each request carries. Without it nobody is told
    #[arg(
        long,
        value_name = "URL",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        hide_env_values = true
    )]
    pub otlp_endpoint: Option<String>,
    /// File of the certificates (PEM) by which the collector is recognised
    #[arg(long, value_name = "FILE", env = "OTEL_EXPORTER_OTLP_CERTIFICATE")]
    pub otlp_authority: Option<PathBuf>,
}

impl TelemetryArguments {
    /// `None` where nobody is told.
    pub fn settings(&self) -> Option<TelemetrySettings> {
        let Self {
            otlp_endpoint,
            otlp_authority,
        } = self;
        // A variable that is set to nothing is a variable that is not set.
        let endpoint = otlp_endpoint.clone().filter(|endpoint| !endpoint.is_empty())?;
        Some(TelemetrySettings {
            endpoint,
            authority: otlp_authority.clone(),
        })
    }
}
