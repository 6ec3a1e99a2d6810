//! `nanoseg ui`: the way from a browser on this machine to the page of the controller that leads.

use std::io::IsTerminal as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::Api;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::output::Screen;
use super::{CommandError, Found};
use crate::lease::LEASE;
use crate::read::live::with_cluster;
use crate::settings::ui::UiArguments;
use crate::trouble::{Trouble, chain};

/// Connections that are forwarded at once. A browser has six to one address.
const AT_ONCE: usize = 32;

/// How long the API server may take to open a way into the pod.
const PATIENCE: Duration = Duration::from_secs(15);

/// What opens an address in the browser of whoever is logged in here.
const OPENERS: [&str; 2] = ["xdg-open", "open"];

/// Why the page cannot be brought here.
#[derive(Debug, thiserror::Error)]
pub enum UiError {
    /// Nobody may look at who leads, or there is no Lease.
    #[error(
        "cannot get Lease {namespace}/{LEASE}: is nanoseg installed there (--own-namespace), and may you get leases?"
    )]
    Lease {
        /// Where it was looked for.
        namespace: String,
        /// What the API server said.
        source: Trouble,
    },
    /// No controller leads.
    #[error(
        "no controller leads in namespace {namespace}: look at its pods, `kubectl --namespace {namespace} get pods`"
    )]
    NobodyLeads {
        /// Where.
        namespace: String,
    },
    /// The port of this machine cannot be had.
    #[error("cannot listen at {address}: choose another port by --port, or a free one by --port 0")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// There is no way into the pod.
    #[error(
        "cannot forward to port {port} of Pod {pod}: does its controller serve the page there (--page-listen), and may you create \
         pods/portforward?"
    )]
    Forward {
        /// The pod, with its namespace.
        pod: String,
        /// The port in it.
        port: u16,
        /// What was said.
        source: Trouble,
    },
    /// The pod did not open the port.
    #[error("nothing answers at port {port} of Pod {pod} (--page-port)")]
    Closed {
        /// The pod, with its namespace.
        pod: String,
        /// The port in it.
        port: u16,
    },
}

/// Forwards until it is asked to end.
pub fn ui(arguments: &UiArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    with_cluster(&arguments.access, async |client, _url| {
        let UiArguments {
            port,
            page_port,
            no_open,
            own_namespace,
            access: _,
        } = arguments;
        let way = Arc::new(Way {
            client,
            namespace: own_namespace.clone(),
            port: *page_port,
        });
        // Whoever cannot get there is told before a browser is.
        drop(way.open().await?);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        let listen = async {
            let listener = TcpListener::bind(address).await?;
            let at = listener.local_addr()?;
            Ok((listener, at))
        };
        let (listener, at) = listen.await.map_err(|source| UiError::Listen { address, source })?;
        let url = format!("http://{at}/");
        screen.at_once(format_args!("{url}  until Ctrl-C"))?;
        if !no_open && std::io::stdout().is_terminal() {
            show(&url);
        }
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = tokio::signal::ctrl_c() => return Ok(Found::Nothing),
            };
            // A browser that went away before it was let in is no trouble of anybody else's.
            let (Ok((browser, _)), Ok(turn)) = (accepted, Arc::clone(&turns).acquire_owned().await) else {
                continue;
            };
            let way = Arc::clone(&way);
            tokio::spawn(async move {
                if let Err(error) = way.carry(browser).await {
                    eprintln!("nanoseg: {}", chain(&error));
                }
                drop(turn);
            });
        }
    })
}

/// Opens a browser, if there is one. Where it is was said already.
fn show(url: &str) {
    for opener in OPENERS {
        let mut command = std::process::Command::new(opener);
        command
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if command.spawn().is_ok() {
            return;
        }
    }
}

/// How to get to the page.
struct Way {
    client: Client,
    namespace: String,
    port: u16,
}

impl Way {
    /// A connection to the page of whoever leads now: another may lead than a moment ago.
    async fn open(&self) -> Result<kube::api::Portforwarder, UiError> {
        let Self {
            client,
            namespace,
            port,
        } = self;
        let leases = Api::<Lease>::namespaced(client.clone(), namespace);
        let lease = leases.get(LEASE).await.map_err(|source| UiError::Lease {
            namespace: namespace.clone(),
            source: source.into(),
        })?;
        let leader = lease
            .spec
            .and_then(|spec| spec.holder_identity)
            .filter(|name| !name.is_empty());
        let Some(leader) = leader else {
            return Err(UiError::NobodyLeads {
                namespace: namespace.clone(),
            });
        };
        let pod = format!("{namespace}/{leader}");
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        match timeout(PATIENCE, pods.portforward(&leader, &[*port])).await {
            Ok(Ok(forwarder)) => Ok(forwarder),
            Ok(Err(source)) => Err(UiError::Forward {
                pod,
                port: *port,
                source: source.into(),
            }),
            Err(_elapsed) => Err(UiError::Closed { pod, port: *port }),
        }
    }

    async fn carry(&self, mut browser: TcpStream) -> Result<(), UiError> {
        let mut forwarder = self.open().await?;
        if let Some(mut page) = forwarder.take_stream(self.port) {
            // Either end may hang up whenever it likes.
            drop(copy_bidirectional(&mut browser, &mut page).await);
        }
        forwarder.abort();
        Ok(())
    }
}
