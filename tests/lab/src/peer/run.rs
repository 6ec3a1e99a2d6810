//! A peer from start to end.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::caller::{self, Bell, Speaker};
use super::{
    ADDRESSES_VARIABLE, CONFIG_VARIABLE, Ledger, POD_VARIABLE, PeerConfig, PeerListen, Resolver, dns_server, listener,
};
use crate::app::{Protocol, When};

/// Why a peer cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The configuration is missing.
    #[error("{CONFIG_VARIABLE} is not set: it is to hold the configuration, or @ and the path of a file with it")]
    Unconfigured,
    /// The file with the configuration cannot be read.
    #[error("the configuration {} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration is not one.
    #[error("the configuration in {CONFIG_VARIABLE} is not understood")]
    Config(#[from] serde_json::Error),
    /// The variable with the addresses has something else.
    #[error("{ADDRESSES_VARIABLE} has `{0}`, which is not an address")]
    Address(String),
    /// Signals cannot be taken.
    #[error("signals cannot be taken")]
    Signals(#[source] io::Error),
    /// A port cannot be opened.
    #[error("port {}/{} cannot be opened", .listen.port, .listen.protocol.as_str())]
    Listen {
        /// The port.
        listen: PeerListen,
        /// Why.
        source: io::Error,
    },
    /// The name server cannot start.
    #[error("names cannot be served on port 53")]
    Dns(#[source] io::Error),
    /// `resolv.conf` cannot be read.
    #[error("/etc/resolv.conf cannot be read")]
    Resolver(#[source] io::Error),
    /// The ledger cannot be opened.
    #[error("the ledger {} cannot be opened", .path.display())]
    Ledger {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No thread for a call.
    #[error("no thread for the call of {to}")]
    Thread {
        /// The call's target.
        to: String,
        /// Why.
        source: io::Error,
    },
    /// Standard input is not the socket that it should be.
    #[error("whoever started this peer cannot be spoken to over standard input")]
    Supervisor(#[source] io::Error),
}

/// Reads the configuration from the environment and runs until told to end, or until its calls are made.
pub fn run() -> Result<(), PeerError> {
    let text = std::env::var(CONFIG_VARIABLE).map_err(|_not_text| PeerError::Unconfigured)?;
    let text = match text.strip_prefix('@') {
        None => text,
        Some(path) => std::fs::read_to_string(path).map_err(|source| PeerError::Read {
            path: path.into(),
            source,
        })?,
    };
    let PeerConfig {
        name,
        listens,
        calls,
        ends_after,
        resolver,
        zone,
        ledger,
        supervised,
    } = serde_json::from_str(&text)?;
    let addresses = addresses()?;

    // First of all, because process 1 of a container gets no signal that it has no handler for.
    let signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]).map_err(PeerError::Signals)?;
    let speaker = Arc::new(Speaker {
        pod: std::env::var(POD_VARIABLE).unwrap_or_else(|_unset| name.clone()),
        name: name.clone(),
        resolver: match resolver {
            Some(config) => Resolver::new(config),
            None => Resolver::from_file(Path::new("/etc/resolv.conf")).map_err(PeerError::Resolver)?,
        },
        ledger: match ledger {
            None => Ledger::standard(),
            Some(path) => Ledger::file(&path).map_err(|source| PeerError::Ledger { path, source })?,
        },
        bell: Bell::default(),
        until: ends_after,
    });
    let listened = Arc::clone(&speaker);
    thread::spawn(move || heed(signals, &listened.bell));

    let name: Arc<str> = name.into();
    for listen in listens {
        match listen.protocol {
            Protocol::Tcp => listener::tcp(listen.port, &name),
            Protocol::Udp => listener::udp(listen.port, &addresses, &name),
        }
        .map_err(|source| PeerError::Listen { listen, source })?;
    }
    if let Some(zone) = zone {
        dns_server::serve(&zone, &addresses).map_err(PeerError::Dns)?;
    }
    if supervised {
        report_and_wait().map_err(PeerError::Supervisor)?;
    }

    let start = Instant::now();
    let mut ending = Vec::new();
    for call in calls {
        let (to, on_schedule) = (call.to.clone(), call.when == When::Always);
        let thread = caller::start(&speaker, call).map_err(|source| PeerError::Thread { to, source })?;
        if on_schedule {
            ending.push(thread);
        }
    }
    match ends_after {
        None => loop {
            thread::park();
        },
        Some(lasts) => {
            for thread in ending {
                // A call's thread that panicked has said so; its fellows' calls still count.
                drop(thread.join());
            }
            thread::sleep((start + lasts).saturating_duration_since(Instant::now()));
            Ok(())
        }
    }
}

fn addresses() -> Result<Vec<IpAddr>, PeerError> {
    let text = std::env::var(ADDRESSES_VARIABLE).unwrap_or_default();
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().map_err(|_error| PeerError::Address(part.to_owned())))
        .collect()
}

fn heed(mut signals: Signals, bell: &Bell) {
    for signal in signals.forever() {
        match signal {
            SIGUSR1 => bell.ring(),
            _ => std::process::exit(0),
        }
    }
}

/// Says that every port is open, waits for the word to begin, and ends when the supervisor does.
fn report_and_wait() -> io::Result<()> {
    let supervisor = rustix::stdio::stdin();
    rustix::io::write(supervisor, b"r")?;
    let mut word = [0; 1];
    if rustix::io::read(supervisor, &mut word)? == 0 {
        std::process::exit(0);
    }
    thread::spawn(move || {
        let mut word = [0; 1];
        // Nothing more is ever sent: this returns when the other end is closed.
        while matches!(rustix::io::read(supervisor, &mut word), Ok(1..)) {}
        std::process::exit(0);
    });
    Ok(())
}
