//! The page: what people see in a browser. It computes from a copy of what the controller knows, and writes nothing.
//!
//! ```text
//!   controller ── publish ──► Board ──► views (pure) ──► JSON ──┐
//!              ── violations ──► Ring ──► server-sent events ───┴─► browser, which draws
//! ```
//!
//! Guarantees:
//! * nothing is copied or computed while nobody looks, and copying takes a tenth of the controller's time at most;
//! * a client that is slow or gone holds one connection and a place in a number, for half a minute at most; what it
//!   missed is told by one word, and it asks again;
//! * another site's page reaches nothing here, whatever its names resolve to; away from loopback nothing is told without the
//!   token;
//! * the browser runs and loads nothing but the page's own files.
//!
//! * [`board`]: the newest copy, and the last violations.
//! * [`door`]: who is let in, and what a browser is told to refuse.
//! * [`events`]: what is told without being asked.
//! * [`files`]: the page itself, part of the program.
//! * [`listen`]: the sockets that browsers connect to.
//! * [`routes`]: what can be asked.
//! * [`views`]: from a copy to what is shown. Pure.

pub mod board;
mod door;
mod events;
mod files;
mod listen;
mod routes;
pub mod views;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::net::TcpListener;

use crate::reconcile::{Core, Violation};
use board::Board;
use door::{Door, Token, TokenError};

/// Where the page is served, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSettings {
    /// Where to listen.
    pub listen: Listen,
    /// It may be reached from elsewhere than this machine, or pod.
    pub exposed: bool,
    /// The file of the token that a browser has to show.
    pub token: Option<PathBuf>,
    /// Names under which browsers know it, beside addresses and localhost.
    pub hosts: Vec<String>,
}

/// Where to listen for browsers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    /// At [`USUAL`], if nobody else does.
    #[default]
    Usual,
    /// At this address.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

/// Where the page is if nobody says otherwise.
pub const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// Why the page cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// It would be reachable from elsewhere, and nobody asked for that.
    #[error(
        "--page-listen {address} can be reached from elsewhere: give --page-exposed and --page-token-file too, and put \
         something before it that speaks TLS; or listen at 127.0.0.1 and use kubectl port-forward"
    )]
    Exposed {
        /// The address.
        address: SocketAddr,
    },
    /// It would be reachable from elsewhere by anybody.
    #[error("--page-listen {address} can be reached from elsewhere: --page-token-file has to name a file with a token")]
    NoToken {
        /// The address.
        address: SocketAddr,
    },
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The address cannot be listened at.
    #[error("cannot serve the page at {address}: choose another address with --page-listen, or --page-listen off")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// The controller's end of the page.
#[derive(Debug)]
pub struct Page {
    board: Option<Arc<Board>>,
    /// When copying may cost time again.
    next: Instant,
}

/// Copies are at least so far apart: nobody reads faster.
const APART: Duration = Duration::from_millis(500);

/// Copying may take at most one part in this many of the time, however large the cluster is.
const SHARE: u32 = 10;

impl Page {
    /// Begins to serve.
    pub async fn open(settings: &PageSettings) -> Result<Self, PageError> {
        let PageSettings {
            listen,
            exposed,
            token,
            hosts,
        } = settings;
        let address = match listen {
            Listen::Off => return Ok(Self::shut()),
            Listen::Usual => USUAL,
            Listen::At(address) => *address,
        };
        let token = token.as_deref().map(Token::read).transpose()?;
        if !address.ip().is_loopback() {
            if !exposed {
                return Err(PageError::Exposed { address });
            }
            if token.is_none() {
                return Err(PageError::NoToken { address });
            }
        }
        let listener = match (TcpListener::bind(address).await, listen) {
            (Ok(listener), _) => listener,
            (Err(error), Listen::Usual) => {
                tracing::warn!(
                    "the page is not served: {address} cannot be used ({error}); --page-listen names another"
                );
                return Ok(Self::shut());
            }
            (Err(source), _) => return Err(PageError::Listen { address, source }),
        };
        let address = listener.local_addr().unwrap_or(address);
        tracing::info!("the page is at http://{address}/");
        let board = Arc::new(Board::new(Timestamp::now()));
        let router = routes::router(Arc::clone(&board), Door::new(token, hosts));
        tokio::spawn(listen::serve(listener, router));
        Ok(Self {
            board: Some(board),
            next: Instant::now(),
        })
    }

    /// One that is not served.
    fn shut() -> Self {
        Self {
            board: None,
            next: Instant::now(),
        }
    }

    /// Takes note that a round was held, and of what it found.
    pub fn note(&self, violations: &[Violation]) {
        if let Some(board) = &self.board {
            board.age();
            board.tell(violations);
        }
    }

    /// Whether somebody waits for a copy.
    pub fn is_due(&self) -> bool {
        let waits = |board: &Arc<Board>| board.is_stale() && board.is_watched();
        self.board.as_ref().is_some_and(waits) && Instant::now() >= self.next
    }

    /// Returns when somebody waits for a copy.
    pub async fn due(&self) {
        let Some(board) = &self.board else {
            return std::future::pending().await;
        };
        // Somebody who begins to look is waited for, and somebody who looks waits until the next copy may be made.
        while !(board.is_stale() && board.is_watched()) {
            board.watched().await;
        }
        tokio::time::sleep_until(self.next.into()).await;
    }

    /// Makes a copy.
    pub fn publish(&mut self, core: &Core) {
        let Some(board) = &self.board else {
            return;
        };
        let began = Instant::now();
        board.publish(core.snapshot(Timestamp::now()));
        self.next = Instant::now() + APART.max(began.elapsed() * SHARE);
    }
}
