//! `nanoseg`: the controller and the command line.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use nanoseg::cli::{self, CommandError, Found, Screen};
use nanoseg::controller;
use nanoseg::settings::{Arguments, Command, LogFormat};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let Arguments { command, log_format } = Arguments::typed();
    match run(command, log_format) {
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

fn run(command: Command, log_format: LogFormat) -> anyhow::Result<Found> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut err = io::stderr().lock();
    let mut screen = Screen::new(&mut out, &mut err);
    let found = match command {
        Command::Controller(arguments) => {
            drop((out, err));
            log_to_stderr(log_format);
            let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
            let outcome = runtime.block_on(controller::run((*arguments).into()));
            runtime.shutdown_background();
            outcome?;
            return Ok(Found::Nothing);
        }
        Command::Audit(arguments) => cli::audit_flows(&arguments, &mut screen),
        Command::Synthesize(arguments) => cli::synthesize_policies(&arguments, &mut screen),
        Command::Graph(arguments) => cli::graph(&arguments, &mut screen),
        Command::Explain(arguments) => cli::explain(&arguments, &mut screen),
        Command::Diff(arguments) => cli::diff_policies(&arguments, &mut screen),
        Command::Export(arguments) => cli::export(&arguments, &mut screen),
        Command::Reach(arguments) => cli::reach_of(&arguments, &mut screen),
        Command::Status(arguments) => cli::status(&arguments, &mut screen),
        Command::Approve(arguments) => cli::approve(&arguments, &mut screen),
        Command::Reject(arguments) => cli::reject(&arguments, &mut screen),
        Command::Promote(arguments) => cli::promote(&arguments, &mut screen),
        Command::Rollback(arguments) => cli::rollback(&arguments, &mut screen),
        Command::Ui(arguments) => cli::ui(&arguments, &mut screen),
        Command::Doctor(arguments) => cli::doctor(&arguments, &mut screen),
        Command::ProbePod(arguments) => {
            nanoseg::doctor::caller::run(&arguments)?;
            return Ok(Found::Nothing);
        }
        Command::Crd => cli::crd(&mut screen),
        Command::Completions(arguments) => cli::completions(&arguments, &mut screen),
        Command::Reference => cli::reference(&mut screen),
    };
    // Answers come before the error that ended them.
    out.flush().map_err(CommandError::Print)?;
    Ok(found?)
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
