//! `nanoseg`: the controller and the command line.

mod log;

use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use nanoseg::cli::{self, CommandError, Found, Screen};
use nanoseg::controller;
use nanoseg::settings::terminal::Terminal;
use nanoseg::settings::{self, Arguments, Command, LogFormat};
use nanoseg::telemetry::Telemetry;
use nanoseg_health::heap;
use nanoseg_policy::map::visible;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    if let Some(words) = settings::to_complete() {
        // Whoever asked and is gone needs no answer.
        drop(io::stdout().write_all(cli::complete(&words).as_bytes()));
        return ExitCode::SUCCESS;
    }
    let Arguments { command } = Arguments::typed();
    match run(command) {
        Ok(Found::Nothing) => ExitCode::SUCCESS,
        Ok(Found::Something) => ExitCode::from(1),
        // Whoever reads the output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let mut stderr = io::stderr().lock();
            // Nothing is left to be told it when even stderr is closed.
            let sentence = format!("nanoseg: {error:#}");
            let lines: Vec<String> = sentence.split('\n').map(visible).collect();
            drop(writeln!(stderr, "{}", lines.join("\n")));
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> anyhow::Result<Found> {
    let mut out = BufWriter::new(io::stdout().lock());
    // Not locked: what shows that something is at work writes from a thread of its own.
    let mut err = io::stderr();
    let mut screen = Screen::new(&mut out, &mut err, Terminal::here());
    let found = match command {
        Command::Controller(arguments) => {
            drop(screen);
            drop(out);
            heap::share();
            let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
            let outcome = runtime.block_on(async {
                let telemetry = arguments.telemetry.settings();
                let telemetry = telemetry.as_ref().map(Telemetry::begin).transpose()?;
                log_to_stderr(arguments.log_format, telemetry.as_ref());
                let lost = telemetry.as_ref().map(Telemetry::lost).unwrap_or_default();
                let outcome = controller::run((*arguments).into(), &lost).await;
                if let Some(telemetry) = telemetry {
                    telemetry.end().await;
                }
                outcome.map_err(anyhow::Error::from)
            });
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
        Command::Violations(arguments) => cli::violations(&arguments, &mut screen),
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
        Command::Man(arguments) => cli::man(&arguments, &mut screen),
    };
    drop(screen);
    // Answers come before the error that ended them.
    out.flush().map_err(CommandError::Print)?;
    Ok(found?)
}

fn log_to_stderr(format: LogFormat, telemetry: Option<&Telemetry>) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_unset| EnvFilter::new("info,kube_client=off,kube_runtime=off"));
    // Spans are for a collector: a line of the log stands for itself.
    let filter = filter.and(filter_fn(|metadata| !metadata.is_span()));
    let coloured = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(log::Lines { format, coloured })
        .with_ansi(coloured);
    let lines = match format {
        LogFormat::Text => lines.with_target(false).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines)
        .with(telemetry.map(Telemetry::layer))
        .init();
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
