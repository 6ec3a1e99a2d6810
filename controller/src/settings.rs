//! The command line as typed, and the settings that follow from it. Nothing else reads arguments or the environment.
//!
//! * [`access`]: which cluster, and which of its Segments.
//! * `advice`: what to do where something was typed that nobody knows.
//! * [`commands`]: arguments of the commands that look at something once.
//! * [`doctor`]: arguments of `nanoseg doctor`.
//! * [`maps`]: arguments of the commands about the segmentation map.
//! * [`output`]: the forms in which answers are printed.
//! * [`page`]: arguments of the page that the controller serves.
//! * [`review`]: arguments of the commands by which people decide on Segments.
//! * [`terminal`]: what is known of the terminal.
//! * [`telemetry`]: arguments about whom OpenTelemetry is told.
//! * [`ui`]: arguments of the command that brings the page here.

pub mod access;
mod advice;
pub mod commands;
pub mod doctor;
pub mod maps;
pub mod output;
pub mod page;
pub mod review;
pub mod telemetry;
pub mod terminal;
pub mod ui;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use jiff::SignedDuration;
use nanoseg_policy::synthesize;

use crate::lease::Terms;
use crate::lifecycle::{Rules, Scope};
use crate::page::PageSettings;
use crate::segment::Mode;
use access::Access;
use advice::advised;
use commands::{AuditArguments, ChoiceArguments, DiffArguments, ExplainArguments, GraphArguments, SynthesizeArguments};
use doctor::{DoctorArguments, PodArguments};
use maps::{ExportArguments, ReachArguments};
use page::PageArguments;
use review::{DecisionArguments, SegmentArguments, StatusArguments};
use telemetry::TelemetryArguments;
use ui::UiArguments;

const ABOUT: &str = "Learns who talks to whom in a Kubernetes cluster and turns that into NetworkPolicies.";

const EXAMPLES: &str = "\
Examples:
  Watch a cluster, take learners' reports, and only propose:
    nanoseg controller --own-namespace nanoseg
  The same without a cluster, on folders:
    nanoseg controller --cluster manifests/ --flows reports/ --out policies/
  May web talk to db? On the current cluster, and on files:
    nanoseg explain --from shop/web-0 --to shop/db-0 --port 5432
    nanoseg explain --cluster manifests/ --from shop/web-0 --to shop/db-0 --port 5432
  Policies from what Hubble saw:
    hubble observe -o json | nanoseg synthesize --flows - --out policies/
  What would these policies deny of what was seen?
    nanoseg audit --cluster manifests/ --flows flows.jsonl --policies policies/
  How far has each workload come, and what keeps it from being promoted?
    nanoseg status

Input, for every command that takes it:
  --cluster  Kubernetes YAML or JSON, Lists and several documents included;
             without it the current kubeconfig is used.
  --flows    learners' reports, Hubble's JSON, and JSON lines (gzip as well):
               {\"source\": {\"namespace\": \"shop\", \"pod\": \"web-0\"},
                \"destination\": {\"ip\": \"203.0.113.9\"}, \"port\": 443, \"protocol\": \"TCP\"}
             in one line each, and, if you have them, count, first_seen,
             last_seen (RFC 3339), outcome (attempted, unanswered, refused,
             established).
  -          is standard input.
  What cannot be read is told with file, line and field, and the rest is used;
  --strict ends it there.

Exit codes: 0 allowed, nothing denied, no difference; 1 the opposite; 2 the
input cannot be used.";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  source <(nanoseg completions bash)
  nanoseg completions zsh > \"${fpath[1]}/_nanoseg\"
  nanoseg completions fish > ~/.config/fish/completions/nanoseg.fish";

const CONTROLLER_EXAMPLES: &str = "\
Examples:
  Propose only. Nothing is enforced unless --enforce or a Segment's spec.mode
  says so:
    nanoseg controller --own-namespace nanoseg
  Learn each workload of namespace shop for an hour, then enforce; learn every
  other one for a day and only propose:
    nanoseg controller --own-namespace nanoseg --enforce shop=1h
  Enforce everywhere but in the system's namespaces and the controller's own,
  after seven days:
    nanoseg controller --own-namespace nanoseg --enforce '*=7d'
  Look only at namespaces that ask for it by the label nanoseg.io/mode:
    nanoseg controller --own-namespace nanoseg --mode off
  Without a cluster: manifests and reports in, policies out, all of them watched:
    nanoseg controller --cluster manifests/ --flows reports/ --out policies/ --enforce shop=10s
  Follow what it does:
    kubectl get segments -A -w
    kubectl get segment -n shop deployment-web -o jsonpath='{.status.proposal}'

On folders it writes
  OUT/proposed/NAMESPACE/POLICY.yaml   every proposal
  OUT/applied/NAMESPACE/POLICY.yaml    what is enforced: files of nanoseg that
                                       are edited or deleted are repaired,
                                       others never touched
  OUT/segments/NAMESPACE/NAME.yaml     what was learned; set spec.mode there
                                       (Off, Learn, Audit, Enforce)
  OUT/violations.jsonl                 edges outside a frozen baseline";

/// What was typed.
#[derive(Debug, Parser)]
#[command(name = "nanoseg", version, about = ABOUT, after_help = EXAMPLES, propagate_version = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    /// What was typed. Installed as a plugin of kubectl, it is called as one.
    pub fn typed() -> Self {
        let called = std::env::args_os().next().map(PathBuf::from);
        let name = called.as_deref().and_then(Path::file_stem).and_then(OsStr::to_str);
        let command = Self::command();
        let command = match name {
            Some("kubectl-nanoseg") => command.bin_name("kubectl nanoseg"),
            _ => command,
        };
        command
            .try_get_matches()
            .and_then(|matches| Self::from_arg_matches(&matches))
            .unwrap_or_else(|error| advised(error).exit())
    }
}

/// The words to complete, where kubectl calls the program for that: by the name that it looks for beside a plugin's.
pub fn to_complete() -> Option<Vec<String>> {
    let mut words = std::env::args_os();
    let called = PathBuf::from(words.next()?);
    let is_asked = called.file_name()? == "kubectl_complete-nanoseg";
    is_asked.then(|| words.map(|word| word.to_string_lossy().into_owned()).collect())
}

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Turn what learners report into NetworkPolicies and keep them in sync, on a cluster or on folders
    #[command(after_help = CONTROLLER_EXAMPLES)]
    Controller(Box<ControllerArguments>),
    /// Say which recorded flows a set of policies would deny, and why
    #[command(after_help = commands::AUDIT_EXAMPLES)]
    Audit(AuditArguments),
    /// Print the NetworkPolicies that follow from recorded flows
    #[command(after_help = commands::SYNTHESIZE_EXAMPLES)]
    Synthesize(SynthesizeArguments),
    /// Print the connection graph: who connects to whom, on which port
    #[command(after_help = commands::GRAPH_EXAMPLES)]
    Graph(GraphArguments),
    /// Say whether a connection is allowed, and which policy and rule decides or what is missing
    #[command(after_help = commands::EXPLAIN_EXAMPLES)]
    Explain(ExplainArguments),
    /// Say which connections open and which close between two sets of policies, whatever their text
    #[command(after_help = commands::DIFF_EXAMPLES)]
    Diff(DiffArguments),
    /// Write the segmentation map: who talks to whom, what is allowed, enforced and open, by which evidence
    #[command(after_help = maps::EXPORT_EXAMPLES)]
    Export(ExportArguments),
    /// Say what a workload or an image can reach under the policies, what can reach it, and in how many hops
    #[command(after_help = maps::REACH_EXAMPLES)]
    Reach(ReachArguments),
    /// Say how far each workload's Segment on the cluster has come, and what keeps it from being promoted
    #[command(after_help = review::STATUS_EXAMPLES)]
    Status(StatusArguments),
    /// List the connections outside of frozen baselines: since when, how often, and what policies say of them
    #[command(after_help = review::VIOLATIONS_EXAMPLES)]
    Violations(StatusArguments),
    /// Approve a Segment's proposal by its hash, or accept edges
    #[command(after_help = review::APPROVE_EXAMPLES)]
    Approve(DecisionArguments),
    /// Reject a Segment's proposal, or edges
    #[command(after_help = review::REJECT_EXAMPLES)]
    Reject(DecisionArguments),
    /// Take a Segment one mode further: Learn, Audit, Enforce
    #[command(after_help = review::PROMOTE_EXAMPLES)]
    Promote(SegmentArguments),
    /// Take a Segment from Enforce back to Audit
    #[command(after_help = review::ROLLBACK_EXAMPLES)]
    Rollback(SegmentArguments),
    /// Bring the controller's page to a browser on this machine
    #[command(after_help = ui::UI_EXAMPLES)]
    Ui(UiArguments),
    /// Say what is wrong with an installation or a cluster, and by --probe whether it enforces NetworkPolicies at all
    #[command(after_help = doctor::DOCTOR_EXAMPLES)]
    Doctor(DoctorArguments),
    /// What the pods of `nanoseg doctor --probe` run
    #[command(hide = true)]
    ProbePod(PodArguments),
    /// Print the definitions of custom resources (CRDs) that a cluster needs before `nanoseg controller`
    #[command(after_help = "Example:\n  nanoseg crd | kubectl apply -f -")]
    Crd,
    /// Print what a shell needs to complete commands and options
    #[command(after_help = COMPLETION_EXAMPLES)]
    Completions(CompletionArguments),
    /// Print every command and option as Markdown
    #[command(after_help = "Example:\n  nanoseg reference > reference.md")]
    Reference,
    /// Write a manual page for each command
    #[command(after_help = "Example:\n  nanoseg man --out ~/.local/share/man/man1 && man nanoseg-audit")]
    Man(ManArguments),
}

/// Arguments of `nanoseg completions`.
#[derive(Debug, Args)]
pub struct CompletionArguments {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Arguments of `nanoseg man`.
#[derive(Debug, Args)]
pub struct ManArguments {
    /// The folder to write the pages into
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Arguments of `nanoseg controller`.
#[derive(Debug, Args)]
pub struct ControllerArguments {
    /// Read the cluster's objects from this folder or file instead of an API server
    #[arg(long, value_name = "DIR|FILE", requires_all = ["flows", "out"])]
    pub cluster: Option<PathBuf>,
    /// With --cluster: learners' reports, one `*.json` for each learner
    #[arg(long, value_name = "DIR", requires = "cluster")]
    pub flows: Option<PathBuf>,
    /// With --cluster: the folder to write to
    #[arg(long, value_name = "DIR", requires = "cluster")]
    pub out: Option<PathBuf>,
    /// Where learners send their reports to
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "0.0.0.0:7443",
        conflicts_with = "cluster"
    )]
    pub listen: SocketAddr,
    /// Take reports from whoever connects, unencrypted: for a network that nobody else reaches. Without it learners connect by
    /// TLS and are recognised by their service account's token; the certificate is in a Secret of --own-namespace
    #[arg(long, conflicts_with = "cluster")]
    pub insecure_learners: bool,
    /// Answer /healthz, /readyz and /metrics by HTTP at this address, for kubelet and Prometheus. Without it nobody is answered
    #[arg(long, value_name = "ADDRESS")]
    pub health_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub access: Access,
    /// Namespace that may be enforced, and how long each of its workloads is learned first (`shop=1h`, `shop=7d`); `*`: every
    /// namespace but the system's. Can be given several times
    #[arg(long, value_name = "NAMESPACE[=DURATION]")]
    pub enforce: Vec<Enforce>,
    /// What is done with workloads of which neither their Segment, nor the label nanoseg.io/mode of their namespace, nor --enforce
    /// says anything: Off, Learn, Audit or Enforce [default: learn, then propose]
    #[arg(long, value_name = "MODE")]
    pub mode: Option<Mode>,
    /// How long a workload is learned where --enforce does not say (90s, 15m, 24h, 7d)
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub learn_for: SignedDuration,
    /// For how long no edge of a workload may be new before its baseline is frozen [default: a tenth of the learning window]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub quiet_for: Option<SignedDuration>,
    /// Pod or Service range of the cluster beyond those that its nodes declare: an address in it is never taken for an
    /// external one. Can be given several times
    #[arg(long, value_name = "CIDR")]
    pub cluster_cidr: Vec<IpNet>,
    /// How often, at most, the Segment of a workload that is still learning is written
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub report_interval: SignedDuration,
    /// Write no policy: others own them (Argo CD, Flux), made by `nanoseg synthesize` or copied from the proposals. Segments tell how
    /// the cluster differs from what is proposed
    #[arg(long)]
    pub report_only: bool,
    /// How many policies a second, at most, go live that were not live before, or `unlimited`. Repairs and changes of live ones do
    /// not wait
    #[arg(long, value_name = "NUMBER", default_value = "5")]
    pub policies_per_second: Rate,
    /// How long a controller that has gone silent is waited for before another one takes over
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = lease, conflicts_with = "cluster")]
    pub lease: Duration,
    /// Namespace that the controller and the learners run in; it is never enforced unless --enforce names it. In a pod: the pod's
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pub own_namespace: Option<String>,
    /// How logs on stderr look. `RUST_LOG` filters them, such as `debug` or `info,nanoseg=debug` [default filter: info]
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "NANOSEG_LOG_FORMAT", hide_env = true)]
    pub log_format: LogFormat,
    /// How policies are made.
    #[command(flatten)]
    pub choice: ChoiceArguments,
    /// The page.
    #[command(flatten)]
    pub page: PageArguments,
    /// Whom OpenTelemetry is told.
    #[command(flatten)]
    pub telemetry: TelemetryArguments,
}

/// `NAMESPACE[=DURATION]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforce {
    scope: Scope,
    window: Option<SignedDuration>,
}

impl FromStr for Enforce {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, window) = match text.split_once('=') {
            Some((name, window)) => (name, Some(duration(window)?)),
            None => (text, None),
        };
        let is_label = !name.is_empty()
            && name.len() <= 63
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        match name {
            "*" => Ok(Self {
                scope: Scope::EveryOther,
                window,
            }),
            name if is_label => Ok(Self {
                scope: Scope::Namespace(name.to_owned()),
                window,
            }),
            name => Err(format!(
                "`{name}` is not a namespace's name (write for example shop=1h, or '*=7d')"
            )),
        }
    }
}

/// So many a second, or all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(Option<NonZeroU32>);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unlimited" {
            return Ok(Self(None));
        }
        let number = text
            .parse()
            .map_err(|_not| format!("`{text}` is no number from 1 on, and not `unlimited`"))?;
        Ok(Self(Some(number)))
    }
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    let parsed: Duration =
        humantime::parse_duration(text).map_err(|error| format!("{error} (write for example 90s, 15m, 24h, 7d)"))?;
    SignedDuration::try_from(parsed).map_err(|error| error.to_string())
}

/// A Lease has whole seconds.
fn lease(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map_err(|error| format!("{error} (write for example 10s)"))?;
    if parsed < Duration::from_secs(1) {
        return Err("at least 1s".to_owned());
    }
    Ok(parsed)
}

/// The controller's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the cluster is.
    pub place: Place,
    /// What may be done with which workload.
    pub rules: Rules,
    /// Ranges of the cluster.
    pub cluster_cidrs: Vec<IpNet>,
    /// How often, at most, a learning Segment is written.
    pub report_interval: SignedDuration,
    /// How policies are made.
    pub synthesis: synthesize::Settings,
    /// Others own the policies, and none is written.
    pub reports_only: bool,
    /// How many policies a second go live that were not live before.
    pub policies_per_second: Option<NonZeroU32>,
    /// Where kubelet and Prometheus ask.
    pub health_listen: Option<SocketAddr>,
    /// The page.
    pub page: PageSettings,
}

/// Where the cluster is.
#[derive(Clone, Debug)]
pub enum Place {
    /// An API server.
    Cluster {
        /// How to reach it.
        access: Access,
        /// Where learners send their reports to.
        listen: SocketAddr,
        /// Whoever connects may report, unencrypted.
        insecure_learners: bool,
        /// How long what lasts of the Lease by which one of several controllers writes.
        terms: Terms,
    },
    /// Folders.
    Directory {
        /// Manifests.
        cluster: PathBuf,
        /// Reports.
        flows: PathBuf,
        /// Policies and Segments.
        out: PathBuf,
    },
}

impl From<ControllerArguments> for Settings {
    fn from(arguments: ControllerArguments) -> Self {
        let ControllerArguments {
            cluster,
            flows,
            out,
            listen,
            insecure_learners,
            health_listen,
            access,
            enforce,
            mode,
            learn_for,
            quiet_for,
            cluster_cidr,
            report_interval,
            report_only,
            policies_per_second: Rate(policies_per_second),
            lease,
            own_namespace,
            choice,
            page,
            // Begin before anything else does, so that all of it is told.
            telemetry: _,
            log_format: _,
        } = arguments;
        let place = match (cluster, flows, out) {
            (Some(cluster), Some(flows), Some(out)) => Place::Directory { cluster, flows, out },
            // clap demands all three or none.
            (_, _, _) => Place::Cluster {
                access,
                listen,
                insecure_learners,
                terms: Terms { lease },
            },
        };
        let enforce = enforce
            .into_iter()
            .map(|Enforce { scope, window }| (scope, window))
            .collect();
        Self {
            place,
            rules: Rules {
                enforce,
                mode,
                learn_for,
                quiet_for,
                own_namespace,
            },
            cluster_cidrs: cluster_cidr,
            report_interval,
            synthesis: choice.settings(),
            reports_only: report_only,
            policies_per_second,
            health_listen,
            page: page.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(arguments: &[&str]) -> Result<Settings, clap::Error> {
        let typed = Arguments::try_parse_from(["nanoseg", "controller"].iter().chain(arguments))?;
        match typed.command {
            Command::Controller(arguments) => Ok((*arguments).into()),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn namespaces_and_windows() {
        let settings = settings(&["--enforce", "shop=10s", "--enforce", "*"]).unwrap();
        assert_eq!(
            settings.rules.enforce,
            [
                (Scope::Namespace("shop".to_owned()), Some(SignedDuration::from_secs(10))),
                (Scope::EveryOther, None)
            ]
        );
        assert_eq!(settings.rules.learn_for, SignedDuration::from_hours(24));
    }

    #[test]
    fn what_people_choose_about_policies_is_the_controllers_as_well() {
        let settings = settings(&[
            "--external-group",
            "partner=203.0.113.0/24",
            "--external-addresses",
            "7",
        ])
        .unwrap();
        assert_eq!(settings.synthesis.external_groups.len(), 1);
        assert_eq!(settings.synthesis.external_addresses, 7);
    }

    #[test]
    fn bad_values_name_the_option() {
        for (arguments, word) in [
            (&["--enforce", "Shop"][..], "--enforce"),
            (&["--enforce", "shop=soon"], "--enforce"),
            (&["--learn-for", "1"], "--learn-for"),
            (&["--cluster-cidr", "10.0.0.0"], "--cluster-cidr"),
            (&["--cluster", "x"], "--flows"),
            (&["--out", "x"], "--cluster"),
            (&["--lease", "1ms"], "--lease"),
            (&["--mode", "sometimes"], "write Off, Learn, Audit or Enforce"),
            (&["--policies-per-second", "0"], "--policies-per-second"),
        ] {
            let error = settings(arguments).unwrap_err().to_string();
            assert!(error.contains(word), "{arguments:?}: {error}");
        }
    }
}
