//! What the user asked for, checked once. Nobody else reads arguments or the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Learns which containers of this node talk to whom, and reports it.
///
/// Attaches two eBPF programs to the node's cgroup tree, which count connections and never touch a packet. Nothing stays attached when it ends, unless it is told where by --pin.
#[derive(Debug, Parser)]
#[command(
    name = "nanoseg-learner",
    version,
    after_help = "Examples:\n  nanoseg-learner --print                      show new connections as they appear\n  \
                  nanoseg-learner --out /var/lib/nanoseg       keep a report that `nanoseg controller --flows` reads\n  \
                  nanoseg-learner --controller https://nanoseg-controller.nanoseg.svc:7443 \\\n    \
                  --controller-ca ca.crt --controller-token token\n\n\
                  Needs Linux 5.8 or newer, cgroup v2, CAP_BPF and CAP_NET_ADMIN (or root)."
)]
pub(crate) struct Arguments {
    /// Folder of the cgroup2 tree to watch, with everything below it [default: the root of the node's tree]
    #[arg(long, env = "NANOSEG_CGROUP_ROOT", value_name = "PATH")]
    cgroup_root: Option<PathBuf>,

    /// Name of this node in reports [default: the host's name]
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node: Option<String>,

    /// Keep a report in this folder, as <node>.<start>.json
    #[arg(long, env = "NANOSEG_OUT", value_name = "DIR", conflicts_with = "controller")]
    out: Option<PathBuf>,

    /// Send reports to this controller
    #[arg(long, env = "NANOSEG_CONTROLLER", value_name = "URL")]
    controller: Option<String>,

    /// Certificate (PEM) of the authority that the controller's is signed by. Read again for each stream
    #[arg(long, env = "NANOSEG_CONTROLLER_CA", value_name = "FILE", requires_all = ["controller", "controller_token"])]
    controller_ca: Option<PathBuf>,

    /// Token that the controller recognises this learner by: a projected one, for audience nanoseg-controller. Read again for each stream
    #[arg(
        long,
        env = "NANOSEG_CONTROLLER_TOKEN",
        value_name = "FILE",
        requires = "controller_ca"
    )]
    controller_token: Option<PathBuf>,

    /// Name in the controller's certificate [default: the host in --controller]
    #[arg(
        long,
        env = "NANOSEG_CONTROLLER_NAME",
        value_name = "NAME",
        requires = "controller_ca"
    )]
    controller_name: Option<String>,

    /// Report to an http:// controller, unencrypted and to whoever answers there
    #[arg(long, requires = "controller", conflicts_with = "controller_ca")]
    insecure_controller: bool,

    /// Print each new connection on standard output, as one line of JSON
    #[arg(long)]
    print: bool,

    /// At most one report in this time
    #[arg(long, env = "NANOSEG_INTERVAL", default_value = "1s", value_name = "TIME", value_parser = interval)]
    interval: Duration,

    /// How many flows the kernel holds. One container never gets more than is left for the others, so at most half
    #[arg(long, env = "NANOSEG_MAP_ENTRIES", default_value_t = 131_072, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    map_entries: u32,

    /// How many UDP exchanges are followed at a time
    #[arg(long, env = "NANOSEG_EXCHANGE_ENTRIES", default_value_t = 65_536, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    exchange_entries: u32,

    /// How long after the start a UDP exchange may have begun before it. One whose socket does not say who began it is then counted, not recorded
    //
    // Resolvers wait 5 seconds for an answer; twice that, so that an answer at the last moment to a question that was asked
    // again is not met first. An exchange with longer pauses needs a longer grace, at most the silence that ends it.
    #[arg(long, env = "NANOSEG_UDP_GRACE", default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    udp_grace: Duration,

    /// Pin programs and maps in this folder of a bpf file system, such as /sys/fs/bpf/nanoseg: they go on to count when this process ends, however it ends, and the next one goes on where it was
    #[arg(long, env = "NANOSEG_PIN", value_name = "DIR")]
    pin: Option<PathBuf>,

    /// Remove what is pinned in --pin, and with it the programs. If there is somewhere to report to, observe then, and pin nothing
    #[arg(long, env = "NANOSEG_UNINSTALL", requires = "pin")]
    uninstall: bool,

    /// Answer /healthz, /readyz and /metrics by HTTP at this address, for kubelet and Prometheus. Without it nobody is answered
    #[arg(long, env = "NANOSEG_HEALTH_LISTEN", value_name = "ADDRESS")]
    health_listen: Option<SocketAddr>,

    /// What to log: error, warn, info, debug, or a filter such as `warn,nanoseg_learner::cgroups=debug`
    #[arg(long, env = "NANOSEG_LOG", default_value = "info", value_name = "FILTER", value_parser = filter)]
    pub(crate) log: String,

    /// How to log
    #[arg(long, env = "NANOSEG_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
}

impl Arguments {
    /// The folder whose pins are to be removed, and whether that is all there is to do.
    pub(crate) fn to_uninstall(&self) -> Option<(PathBuf, bool)> {
        let reports = self.out.is_some() || self.controller.is_some() || self.print;
        self.pin
            .clone()
            .filter(|_| self.uninstall)
            .map(|folder| (folder, !reports))
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Where reports go.
#[derive(Clone, Debug)]
pub(crate) enum Sink {
    /// A file in this folder.
    Directory(PathBuf),
    /// A controller.
    Controller(Box<Way>),
    /// Nowhere: standard output is enough.
    None,
}

/// The way to a controller.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// Its address.
    pub(crate) endpoint: tonic::transport::Endpoint,
    /// What the two know each other by; without it the way is unencrypted, because that was asked for.
    pub(crate) credentials: Option<Credentials>,
}

/// What a learner and its controller know each other by. Both files change in time.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) ca: PathBuf,
    pub(crate) token: PathBuf,
    /// Name in the controller's certificate.
    pub(crate) name: String,
}

/// Checked settings.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) cgroup_root: Option<PathBuf>,
    pub(crate) node: String,
    pub(crate) sink: Sink,
    pub(crate) print: bool,
    pub(crate) interval: Duration,
    pub(crate) map_entries: u32,
    pub(crate) exchange_entries: u32,
    pub(crate) udp_grace: Duration,
    pub(crate) pin: Option<PathBuf>,
    pub(crate) health_listen: Option<SocketAddr>,
}

/// What cannot be done with the arguments.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("nowhere to report to: give --out DIR, --controller URL or --print")]
    NoSink,
    #[error("--controller {url} is not an address such as https://nanoseg-controller.nanoseg.svc:7443")]
    Controller {
        url: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("--controller {url} is encrypted: give --controller-ca FILE and --controller-token FILE")]
    Credentials { url: String },
    #[error("--controller {url} is not encrypted: give an https:// address, or --insecure-controller")]
    Insecure { url: String },
    #[error("--node {name:?} cannot be the name of a node: use letters, digits, `-` and `.`")]
    Node { name: String },
}

impl TryFrom<Arguments> for Settings {
    type Error = SettingsError;

    fn try_from(arguments: Arguments) -> Result<Self, SettingsError> {
        let Arguments {
            cgroup_root,
            node,
            out,
            controller,
            controller_ca,
            controller_token,
            controller_name,
            insecure_controller,
            print,
            interval,
            map_entries,
            exchange_entries,
            udp_grace,
            pin,
            uninstall,
            health_listen,
            log: _,
            log_format: _,
        } = arguments;
        let sink = match (out, controller) {
            (Some(folder), _) => Sink::Directory(folder),
            (None, Some(url)) => {
                let files = controller_ca.zip(controller_token);
                Sink::Controller(Box::new(way(url, files, controller_name, insecure_controller)?))
            }
            (None, None) if print => Sink::None,
            (None, None) => return Err(SettingsError::NoSink),
        };
        let node = node
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
        // The name becomes part of a file name.
        let is_part_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
        if node.is_empty() || node.starts_with('.') || !node.chars().all(is_part_of_a_name) {
            return Err(SettingsError::Node { name: node });
        }
        Ok(Self {
            cgroup_root,
            node,
            sink,
            print,
            interval,
            map_entries,
            exchange_entries,
            udp_grace,
            pin: pin.filter(|_| !uninstall),
            health_listen,
        })
    }
}

fn way(
    url: String,
    files: Option<(PathBuf, PathBuf)>,
    name: Option<String>,
    insecure: bool,
) -> Result<Way, SettingsError> {
    let endpoint = match tonic::transport::Endpoint::from_shared(url.clone()) {
        Ok(endpoint) => endpoint,
        Err(source) => return Err(SettingsError::Controller { url, source }),
    };
    let encrypted = endpoint.uri().scheme_str() == Some("https");
    let credentials = match files {
        Some((ca, token)) if encrypted => {
            // A certificate has an address of IPv6 without the brackets that an URL has around it.
            let host = || {
                endpoint
                    .uri()
                    .host()
                    .unwrap_or_default()
                    .trim_matches(['[', ']'])
                    .to_owned()
            };
            let name = name.unwrap_or_else(host);
            Some(Credentials { ca, token, name })
        }
        None if insecure && !encrypted => None,
        None if encrypted => return Err(SettingsError::Credentials { url }),
        Some(_) | None => return Err(SettingsError::Insecure { url }),
    };
    Ok(Way { endpoint, credentials })
}

/// A plain level is about this program: what its libraries say at that level is of no use to a user.
fn filter(text: &str) -> Result<String, String> {
    let filter = if text.contains(['=', ',']) {
        text.to_owned()
    } else {
        format!("warn,nanoseg_learner={text}")
    };
    match EnvFilter::try_new(&filter) {
        Ok(_) => Ok(filter),
        Err(error) => Err(error.to_string()),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_millis(10) {
        return Err("at least 10ms".to_owned());
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn settings(arguments: &[&str]) -> Result<Settings, SettingsError> {
        Settings::try_from(Arguments::try_parse_from([&["nanoseg-learner"], arguments].concat()).unwrap())
    }

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_sink_is_needed() {
        assert!(matches!(settings(&["--node", "a"]), Err(SettingsError::NoSink)));
        assert!(matches!(
            settings(&["--node", "a", "--print"]).unwrap().sink,
            Sink::None
        ));
        assert!(matches!(
            settings(&["--node", "a", "--out", "/tmp"]).unwrap().sink,
            Sink::Directory(_)
        ));
        assert!(matches!(
            settings(&["--node", "a", "--controller", "http://b:1", "--insecure-controller"])
                .unwrap()
                .sink,
            Sink::Controller(_)
        ));
        assert!(matches!(
            settings(&["--node", "a", "--controller", "no address"]),
            Err(SettingsError::Controller { .. })
        ));
        assert!(Arguments::try_parse_from(["nanoseg-learner", "--out", "/tmp", "--controller", "http://b:1"]).is_err());
    }

    #[test]
    fn nothing_is_sent_unencrypted_unless_it_is_asked_for() {
        let controller = |url: &str, more: &[&str]| settings(&[&["--node", "a", "--controller", url], more].concat());
        let files = ["--controller-ca", "ca", "--controller-token", "token"];
        assert!(matches!(
            controller("http://b:1", &[]),
            Err(SettingsError::Insecure { .. })
        ));
        assert!(matches!(
            controller("http://b:1", &files),
            Err(SettingsError::Insecure { .. })
        ));
        assert!(matches!(
            controller("https://b:1", &[]),
            Err(SettingsError::Credentials { .. })
        ));
        for (url, name) in [("https://b:1", "b"), ("https://[fd00::1]:1", "fd00::1")] {
            let Sink::Controller(way) = controller(url, &files).unwrap().sink else {
                panic!("not to a controller")
            };
            assert_eq!(way.credentials.unwrap().name, name);
        }
        let alone = [
            "nanoseg-learner",
            "--controller",
            "https://b:1",
            "--controller-token",
            "t",
        ];
        assert!(Arguments::try_parse_from(alone).is_err());
    }

    #[test]
    fn what_is_no_filter_is_refused_and_a_level_is_of_this_program() {
        let log = |text: &str| {
            let arguments = Arguments::try_parse_from(["nanoseg-learner", "--print", "--log", text]);
            arguments.map(|arguments| arguments.log)
        };
        assert_eq!(log("debug").unwrap(), "warn,nanoseg_learner=debug");
        assert_eq!(log("warn,aya=debug").unwrap(), "warn,aya=debug");
        for wrong in ["loud", "nanoseg_learner=loud", "a=b=c"] {
            assert!(log(wrong).unwrap_err().to_string().contains("--log"), "{wrong}");
        }
    }

    #[test]
    fn a_node_name_cannot_leave_the_folder() {
        for name in ["../a", "a/b", ".", "a b", "ä"] {
            assert!(
                matches!(settings(&["--print", "--node", name]), Err(SettingsError::Node { .. })),
                "{name}"
            );
        }
        assert_eq!(
            settings(&["--print", "--node", "ip-10-0-0-1.eu_west"]).unwrap().node,
            "ip-10-0-0-1.eu_west"
        );
    }
}
