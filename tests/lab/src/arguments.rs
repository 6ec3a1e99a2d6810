//! The command line of `lab`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Real containers on this machine, with or without Kubernetes, that run one described application.
///
/// The small lab makes containers of network namespaces and cgroups and is up in about a second. The full lab is a
/// Kubernetes cluster of two nodes and is up in about a minute. Both run the same application, described by a file; its format
/// is in tests/lab/README.md.
#[derive(Debug, Parser)]
#[command(
    name = "lab",
    version,
    after_help = "Examples:
  lab up                            the shop, small, in the background
  lab say shop/intruder             have its intruder speak once
  lab status                        who called whom, and what became of it
  lab down                          end it; nothing is left
  lab up --app my.yaml --id mine    another application beside it
  lab up --full                     the shop on a real cluster
  lab demo                          learn the shop's traffic and write its policies, in under a minute"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which lab.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Which {
    /// Id of a small lab
    #[arg(long, default_value = "default", env = "LAB_ID")]
    pub(crate) id: String,
    /// The full lab
    #[arg(long, conflicts_with = "id")]
    pub(crate) full: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start an application
    ///
    /// Leaves it running in the background and prints where everything is. Labs that nobody runs any more are removed first.
    #[command(after_help = "Examples:
  lab up
  lab up --app my.yaml --id mine
  lab up --foreground
  lab up --full")]
    Up {
        #[command(flatten)]
        which: Which,
        /// Description of the application [default: the shop]
        #[arg(long, value_name = "FILE")]
        app: Option<PathBuf>,
        /// Stay until Ctrl-C, then remove the lab
        #[arg(long)]
        foreground: bool,
        /// Name cgroups as kubelet's systemd driver does
        #[arg(long, conflicts_with = "full")]
        systemd_cgroups: bool,
        /// Started by `lab up` itself: detach once the lab is up
        #[arg(long, hide = true)]
        detach: bool,
    },
    /// Have a workload speak one round of what it says only when told
    #[command(after_help = "Example:\n  lab say shop/intruder")]
    Say {
        #[command(flatten)]
        which: Which,
        /// NAMESPACE/NAME of a workload, or external/NAME
        who: String,
    },
    /// Show who called whom, and what became of it
    #[command(after_help = "Examples:\n  lab status\n  lab status -o json | jq '.[] | select(.failed > 0)'")]
    Status {
        #[command(flatten)]
        which: Which,
        /// Form of the output
        #[arg(short, long, value_enum, default_value_t = Form::Table)]
        output: Form,
    },
    /// Print the path of the administrator's kubeconfig of the full lab
    Kubeconfig,
    /// Run kubectl as the administrator of the full lab, where its API server answers
    #[command(after_help = "Examples:\n  lab kubectl get pods -A\n  lab kubectl get networkpolicies -A -o yaml")]
    Kubectl {
        /// Arguments of kubectl
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Replace a workload's pods by new ones, with new addresses
    #[command(after_help = "Examples:\n  lab roll shop/web\n  lab roll data/orders-db --reuse-addresses")]
    Roll {
        #[command(flatten)]
        which: Which,
        /// NAMESPACE/NAME of a workload
        who: String,
        /// Remove the old pods first and take the lowest free addresses
        #[arg(long, conflicts_with = "full")]
        reuse_addresses: bool,
    },
    /// Remove a workload and its pods
    Delete {
        #[command(flatten)]
        which: Which,
        /// NAMESPACE/NAME of a workload
        who: String,
    },
    /// End a lab and remove everything of it
    Down {
        #[command(flatten)]
        which: Which,
        /// Every lab of this machine, small and full
        #[arg(long, conflicts_with_all = ["id", "full"])]
        all: bool,
    },
    /// Build what a lab needs
    Build {
        /// Also what the full lab needs: about ten minutes the first time
        #[arg(long)]
        full: bool,
    },
    /// Install nanoseg on the running full lab, from its manifests
    #[command(
        after_help = "Examples:\n  lab install                                    propose only\n  lab install --enforce shop=80s --enforce data=80s\n  lab kubectl get segments -A -w"
    )]
    Install {
        /// What the controller may enforce, and how long it learns first: its own option of this name
        #[arg(long, value_name = "NAMESPACE[=DURATION]")]
        enforce: Vec<String>,
        /// Folder of the manifests
        #[arg(long, value_name = "DIR", default_value = "manifests")]
        manifests: PathBuf,
    },
    /// Write nanoseg's container image as an OCI archive, with the programs beside this one
    Image {
        /// The archive, which `ctr images import` and `skopeo copy oci-archive:` take
        #[arg(long, value_name = "FILE", default_value = "target/nanoseg-image.tar")]
        out: PathBuf,
    },
    /// Learn the shop's traffic, write its policies, and show what they would deny
    ///
    /// Runs the learner and the controller of this project on a small lab: real containers, real eBPF, no Kubernetes. Takes
    /// under a minute and removes the lab in the end; what was learned stays.
    Demo {
        /// Description of the application [default: the shop]
        #[arg(long, value_name = "FILE")]
        app: Option<PathBuf>,
        /// Who is to be told to speak when the policies are there
        #[arg(long, value_name = "WHO", default_value = "shop/intruder")]
        intruder: String,
        /// Where to keep the manifests, flows and policies [default: a folder `demo` beside the folder of this program]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Leave everything running in the end until it is interrupted, so that its page can be looked at
        #[arg(long)]
        stay: bool,
    },
}

/// Form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people
    Table,
    /// For programs
    Json,
}
