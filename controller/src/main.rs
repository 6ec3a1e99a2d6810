//! `nanoseg`: the controller and the command line.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use nanoseg::cli::{self, CommandError, Found};
use nanoseg::controller;
use nanoseg::settings::{Arguments, Command, LogFormat};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let Arguments { command, log_format } = Arguments::parse();
    log_to_stderr(log_format);
    match run(command) {
        Ok(Found::Nothing) => ExitCode::SUCCESS,
        Ok(Found::Something) => ExitCode::from(1),
        // Whoever reads the output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let mut stderr = io::stderr().lock();
            // Nothing is left to be told it when even stderr is closed.
            drop(writeln!(stderr, "nanoseg: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> anyhow::Result<Found> {
    let mut out = io::stdout().lock();
    let found = match command {
        Command::Controller(arguments) => {
            let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
            let outcome = runtime.block_on(controller::run(arguments.into()));
            runtime.shutdown_background();
            outcome?;
            Found::Nothing
        }
        Command::Audit(arguments) => cli::audit_flows(&arguments, &mut out)?,
        Command::Synthesize(arguments) => cli::synthesize_policies(&arguments, &mut out)?,
        Command::Graph(arguments) => cli::graph(&arguments, &mut out)?,
        Command::Explain(arguments) => cli::explain(&arguments, &mut out)?,
        Command::Crd => cli::crd(&mut out)?,
    };
    out.flush()?;
    Ok(found)
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_unset| EnvFilter::new("info,kube_client=off,kube_runtime=off"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => subscriber.with_target(false).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let print = error.downcast_ref::<CommandError>().and_then(|error| match error {
        CommandError::Print(error) => Some(error),
        _ => None,
    });
    print
        .or_else(|| error.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
