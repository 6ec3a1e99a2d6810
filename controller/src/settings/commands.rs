//! Arguments of the commands that look at files or a cluster once.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use ipnet::IpNet;
use nanoseg_graph::endpoint::ServiceName;
use nanoseg_graph::flow::Transport;
use nanoseg_policy::synthesize::{self, ExternalGroup, Plugin, PortRange, Ranges, ServiceView, Unanswered};

use super::access::{Access, Which};
use super::output::{OBJECTS, Output, SENTENCES, TABLES};

pub(super) const AUDIT_EXAMPLES: &str = "\
Examples:
  nanoseg audit --cluster manifests/ --flows reports/ --policies policies/proposed/
  hubble observe -o json | nanoseg audit --flows -
  nanoseg audit --cluster manifests/ --flows flows.jsonl.gz -o json | jq .reasons
  What would be denied if everything that is proposed were applied:
    nanoseg audit --flows reports/ --proposed

Policies are those of the cluster and those of --policies.

Exit code 0; 1 if any flow would be denied; 2 if the input cannot be used.";

pub(super) const SYNTHESIZE_EXAMPLES: &str = "\
Examples:
  nanoseg synthesize --cluster manifests/ --flows reports/
  Into policies/NAMESPACE/POLICY.yaml:
    nanoseg synthesize --cluster manifests/ --flows flows.jsonl --out policies/
  What they allow beyond what was seen, and what was left out:
    nanoseg synthesize --cluster manifests/ --flows flows.jsonl -o json | jq .notes
  Of a cluster that is not this one:
    kubectl get po,rs,deploy,svc,ns -A -o yaml | nanoseg synthesize --cluster - --flows flows.jsonl

Notes (what a policy allows beyond what was seen, and what was left out) and
refusals go to stderr; -o json has them, too.

Exit code 0; 1 if a policy of the cluster still denies what was seen; 2 if the
input cannot be used.";

pub(super) const GRAPH_EXAMPLES: &str = "\
Examples:
  nanoseg graph --cluster manifests/ --flows reports/
  With when each edge was seen first and last:
    nanoseg graph --cluster manifests/ --flows reports/ -o wide
  nanoseg graph --flows flows.jsonl -o json | jq .port";

pub(super) const EXPLAIN_EXAMPLES: &str = "\
Examples:
  nanoseg explain --from shop/web-0 --to shop/db-0 --port 5432
  An address, by UDP, on files:
    nanoseg explain --cluster manifests/ --from shop/web-0 --to 203.0.113.9 --port 53 --protocol UDP
  One answer a line, in the order of the questions:
    nanoseg explain --cluster manifests/ --flows questions.jsonl
  As if everything that is proposed were applied:
    nanoseg explain --proposed --from shop/web-0 --to shop/db-0 --port 5432

An answer as JSON:
  {\"verdict\": \"Allowed|Denied|Unknown\", \"egress\": W, \"ingress\": W, \"by\": [..], ..}
  W: Allowed|Denied|NotIsolated|Unknown
  by: the rules that allow it, or the policies that isolate and do not allow it
  evidence: what was seen that these rules come from, where nanoseg made them
A line of --flows that cannot be read is answered with Unknown and its error;
empty lines are passed over.

Exit code 0 if every connection asked about is allowed; 1 if one is denied or
nobody can say; 2 if the input cannot be used.";

pub(super) const DIFF_EXAMPLES: &str = "\
Examples:
  What would open and close if a Segment's proposal were applied, and if all were:
    nanoseg diff shop/deployment-web
    nanoseg diff
  Policies of one folder and of another:
    nanoseg diff --cluster manifests/ --old policies/ --new branch/
    nanoseg diff --old policies/ --new branch/ -o json | jq 'select(.change == \"opened\")'

With --old and --new only their policies are compared; without them those of the
cluster, before and after.

Exit code 0; 1 if there is a difference; 2 if the input cannot be used.";

/// What a command looks at.
#[derive(Debug, Args)]
pub struct InputArguments {
    /// Kubernetes objects, YAML or JSON, as `kubectl get ... -A -o yaml` prints them; `-`: standard input. Can be given
    /// several times. Without it: the cluster of the current kubeconfig
    #[arg(long, value_name = "DIR|FILE|-", conflicts_with_all = ["kubeconfig", "context"])]
    pub cluster: Vec<PathBuf>,
    #[command(flatten)]
    pub access: Access,
    /// Pod or Service range of the cluster beyond those that its nodes declare. Can be given several times
    #[arg(long, value_name = "CIDR")]
    pub cluster_cidr: Vec<IpNet>,
    /// End with exit code 2 if anything in the input cannot be used, instead of using the rest
    #[arg(long)]
    pub strict: bool,
}

/// Flows that a command looks at.
#[derive(Debug, Args)]
pub struct FlowArguments {
    /// Learners' reports, JSON lines or Hubble's JSON, plain or gzip; `-`: standard input. Can be given several times
    #[arg(long, value_name = "DIR|FILE|-", required = true)]
    pub flows: Vec<PathBuf>,
}

/// Policies beside those of the cluster.
#[derive(Debug, Args)]
pub struct PolicyArguments {
    /// Policies to judge by, beside those of the cluster. Can be given several times
    #[arg(long, value_name = "DIR|FILE|-")]
    pub policies: Vec<PathBuf>,
}

/// Segments of files.
#[derive(Debug, Args)]
pub struct SegmentFiles {
    /// With --cluster, instead of the cluster's Segments: those of files, as `kubectl get segments -A -o yaml` or
    /// `nanoseg controller --out` write them. Can be given several times
    #[arg(id = "segments", long = "segments", value_name = "DIR|FILE|-", requires = "cluster")]
    pub files: Vec<PathBuf>,
}

/// Policies that are only proposed, taken in.
#[derive(Debug, Args)]
pub struct ProposalArguments {
    /// Judge as if what the cluster's Segments propose were applied
    #[arg(long, conflicts_with = "cluster")]
    pub proposed: bool,
    #[command(flatten)]
    pub segments: SegmentFiles,
}

/// Arguments of `nanoseg audit`.
#[derive(Debug, Args)]
pub struct AuditArguments {
    #[command(flatten)]
    pub input: InputArguments,
    #[command(flatten)]
    pub flows: FlowArguments,
    #[command(flatten)]
    pub policies: PolicyArguments,
    #[command(flatten)]
    pub proposals: ProposalArguments,
    /// How to print
    #[arg(short, long, value_parser = SENTENCES, default_value = "table")]
    pub output: Output,
}

/// Arguments of `nanoseg synthesize`.
#[derive(Debug, Args)]
pub struct SynthesizeArguments {
    #[command(flatten)]
    pub input: InputArguments,
    #[command(flatten)]
    pub flows: FlowArguments,
    /// Write NAMESPACE/POLICY.yaml into this folder instead of printing
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_parser = OBJECTS, default_value = "yaml")]
    pub output: Output,
    #[command(flatten)]
    pub choices: ChoiceArguments,
}

/// What people can choose about policies.
#[derive(Debug, Args)]
pub struct ChoiceArguments {
    /// Make rules also of TCP and SCTP connections that nobody ever accepted
    #[arg(long)]
    pub learn_unanswered: bool,
    /// Service that is cluster DNS [default: kube-system/kube-dns]. Can be given several times
    #[arg(long, value_name = "NAMESPACE/SERVICE", value_parser = service)]
    pub dns_service: Vec<ServiceName>,
    /// Address at which a DNS cache listens on each node [default: 169.254.20.10]. Can be given several times
    #[arg(long, value_name = "IP")]
    pub node_local_dns: Vec<IpAddr>,
    /// External addresses that belong together, such as `partner=203.0.113.0/24,2001:db8::/32`: one that was seen means them all.
    /// Can be given several times
    #[arg(long, value_name = "NAME=CIDR[,CIDR...]")]
    pub external_group: Vec<ExternalGroup>,
    /// External addresses outside every group that a policy names at most in one direction, which stays open where there are
    /// more [default: 100]
    #[arg(long, value_name = "COUNT")]
    pub external_addresses: Option<usize>,
    /// Ports that belong together, such as `rtp=UDP:16384-32767`: one that was seen means them all. Can be given several times
    #[arg(long, value_name = "[NAME=]PROTOCOL:FIRST-LAST")]
    pub port_range: Vec<PortRange>,
    /// Write ranges port by port, 64 ports at most: for network plugins that do not understand endPort, as `nanoseg doctor --probe` finds
    /// out
    #[arg(long)]
    pub list_ports: bool,
    /// Name the own addresses of Services in egress rules beside the pods behind them: for network plugins that compare before a
    /// Service is translated, as `nanoseg doctor --probe` finds out
    #[arg(long)]
    pub service_addresses: bool,
}

impl ChoiceArguments {
    /// What follows for synthesis.
    pub fn settings(&self) -> synthesize::Settings {
        let Self {
            learn_unanswered,
            dns_service,
            node_local_dns,
            external_group,
            external_addresses,
            port_range,
            list_ports,
            service_addresses,
        } = self;
        let defaults = synthesize::Settings::default();
        let mut settings = synthesize::Settings {
            external_groups: external_group.iter().cloned().collect(),
            external_addresses: external_addresses.unwrap_or(defaults.external_addresses),
            port_ranges: port_range.iter().cloned().collect(),
            plugin: Plugin {
                ranges: if *list_ports { Ranges::Listed } else { Ranges::Grouped },
                services: if *service_addresses {
                    ServiceView::Untranslated
                } else {
                    ServiceView::Translated
                },
            },
            ..defaults
        };
        if *learn_unanswered {
            settings.unanswered = Unanswered::Learn;
        }
        if !dns_service.is_empty() {
            settings.dns_services = dns_service.iter().cloned().collect();
        }
        if !node_local_dns.is_empty() {
            settings.node_local_dns = node_local_dns.iter().copied().collect();
        }
        settings
    }
}

/// Arguments of `nanoseg graph`.
#[derive(Debug, Args)]
pub struct GraphArguments {
    #[command(flatten)]
    pub input: InputArguments,
    #[command(flatten)]
    pub flows: FlowArguments,
    /// How to print
    #[arg(short, long, value_parser = TABLES, default_value = "table")]
    pub output: Output,
}

/// Arguments of `nanoseg explain`.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    #[command(flatten)]
    pub input: InputArguments,
    #[command(flatten)]
    pub policies: PolicyArguments,
    #[command(flatten)]
    pub proposals: ProposalArguments,
    /// Who connects
    #[arg(long, value_name = "NAMESPACE/POD|IP", required_unless_present = "flows", requires_all = ["to", "port"])]
    pub from: Option<Party>,
    /// Who listens
    #[arg(long, value_name = "NAMESPACE/POD|IP", requires = "from")]
    pub to: Option<Party>,
    /// Port that the listener itself listens on, not a Service's
    #[arg(long, requires = "from", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// TCP, UDP or SCTP
    #[arg(long, default_value = "TCP", value_parser = transport)]
    pub protocol: Transport,
    /// Connections to ask about instead, one JSON object a line; `-`: standard input
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["from", "to", "port", "protocol"])]
    pub flows: Option<PathBuf>,
    /// How to print [default: table, with --flows json]
    #[arg(short, long, value_parser = SENTENCES)]
    pub output: Option<Output>,
}

/// Arguments of `nanoseg diff`.
#[derive(Debug, Args)]
pub struct DiffArguments {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub input: InputArguments,
    /// Policies as they were
    #[arg(
        long,
        value_name = "DIR|FILE|-",
        requires = "new",
        conflicts_with_all = ["only", "namespace", "all_namespaces", "segments"]
    )]
    pub old: Option<PathBuf>,
    /// Policies as they will be
    #[arg(long, value_name = "DIR|FILE|-", requires = "old")]
    pub new: Option<PathBuf>,
    #[command(flatten)]
    pub segments: SegmentFiles,
    /// How to print; wide: each change by itself, and what decides before and after it
    #[arg(short, long, value_parser = TABLES, default_value = "table")]
    pub output: Output,
}

/// An end of a connection that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// A pod.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// An address.
    Address(IpAddr),
}

impl FromStr for Party {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let (namespace, name) = pair(text).ok_or("write NAMESPACE/POD or an IP address")?;
        Ok(Self::Pod { namespace, name })
    }
}

pub(super) fn pair(text: &str) -> Option<(String, String)> {
    let (namespace, name) = text.split_once('/')?;
    let whole = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
    whole.then(|| (namespace.to_owned(), name.to_owned()))
}

fn service(text: &str) -> Result<ServiceName, &'static str> {
    let (namespace, name) = pair(text).ok_or("write NAMESPACE/SERVICE")?;
    Ok(ServiceName { namespace, name })
}

pub(super) fn transport(text: &str) -> Result<Transport, &'static str> {
    Transport::OF_POLICIES
        .into_iter()
        .find(|transport| transport.as_str().eq_ignore_ascii_case(text))
        .ok_or("write TCP, UDP or SCTP")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::Arguments;

    fn error(arguments: &[&str]) -> Option<String> {
        let typed = Arguments::try_parse_from(["nanoseg"].iter().chain(arguments));
        typed.err().map(|error| error.to_string())
    }

    #[test]
    fn parties() {
        for (text, expected) in [
            ("shop/web-0", Some(("shop", "web-0"))),
            ("web-0", None),
            ("/web", None),
            ("shop/", None),
            ("a/b/c", None),
        ] {
            let parsed = text.parse::<Party>().ok();
            let expected = expected.map(|(namespace, name)| Party::Pod {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            });
            assert_eq!(parsed, expected, "{text}");
        }
        assert!(matches!("fd00::1".parse(), Ok(Party::Address(IpAddr::V6(_)))));
    }

    #[test]
    fn what_belongs_together_is_demanded_together() {
        let to = ["explain", "--to", "a/b", "--port", "1"];
        let from = ["explain", "--from", "a/b", "--to", "a/c"];
        let both = ["explain", "--from", "a/b", "--to", "a/c", "--port", "1", "--flows", "x"];
        let bad_port = ["explain", "--from", "a/b", "--to", "a/c", "--port", "0"];
        for (arguments, word) in [
            (&to[..], "--from"),
            (&from, "--port"),
            (&both, "--flows"),
            (&bad_port, "--port"),
            (&["explain"], "--from"),
            (&["audit"], "--flows"),
            (
                &["graph", "--flows", "x", "--cluster", "y", "--kubeconfig", "z"],
                "--kubeconfig",
            ),
        ] {
            let error = error(arguments).unwrap_or_default();
            assert!(error.contains(word), "{arguments:?}: {error}");
        }
        assert_eq!(error(&["explain", "--flows", "-", "-o", "jsonl"]), None);
        assert_eq!(error(&["explain", "--from", "a/b", "--to", "::1", "--port", "1"]), None);
    }

    #[test]
    fn choices_replace_the_defaults() {
        let choices = ChoiceArguments {
            learn_unanswered: true,
            dns_service: vec![service("dns/main").unwrap()],
            node_local_dns: Vec::new(),
            external_group: vec!["partner=203.0.113.0/24".parse().unwrap()],
            external_addresses: Some(7),
            port_range: vec!["rtp=UDP:16384-32767".parse().unwrap()],
            list_ports: true,
            service_addresses: false,
        };
        let settings = choices.settings();
        assert_eq!((settings.external_groups.len(), settings.port_ranges.len()), (1, 1));
        assert_eq!(settings.external_addresses, 7);
        let listed = Plugin {
            ranges: Ranges::Listed,
            services: ServiceView::Translated,
        };
        assert_eq!(settings.plugin, listed);
        assert_eq!(settings.unanswered, Unanswered::Learn);
        assert_eq!(settings.dns_services.len(), 1);
        assert_eq!(settings.node_local_dns, synthesize::Settings::default().node_local_dns);
    }
}
