//! Connections of learners, encrypted before anything is read from them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Who has not finished greeting by then never will.
const GREETING: Duration = Duration::from_secs(10);
/// Greetings under way at once: each costs about a millisecond of a core and some 30 KiB.
const AT_ONCE: usize = 256;
/// How long to wait when the operating system has no more descriptors.
const NO_MORE: Duration = Duration::from_millis(100);

/// A connection to a learner.
#[derive(Debug)]
pub(super) struct Encrypted(TlsStream<TcpStream>);

impl Connected for Encrypted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.0.get_ref().0.connect_info()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Accepts for as long as somebody takes what it accepts. A slow greeting holds up nobody else.
pub(super) async fn accept(
    listener: TcpListener,
    config: ServerConfig,
    accepted: mpsc::Sender<Result<Encrypted, io::Error>>,
) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    while !accepted.is_closed() {
        // The semaphore is never closed.
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
            return;
        };
        let (stream, from) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!("cannot accept a learner's connection: {error}");
                tokio::time::sleep(NO_MORE).await;
                continue;
            }
        };
        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
        tokio::spawn(async move {
            let greeted = greet(&acceptor, stream, from).await;
            drop(turn);
            if let Some(stream) = greeted {
                // The server is ending.
                let _gone = accepted.send(Ok(stream)).await;
            }
        });
    }
}

async fn greet(acceptor: &TlsAcceptor, stream: TcpStream, from: SocketAddr) -> Option<Encrypted> {
    match tokio::time::timeout(GREETING, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(Encrypted(stream)),
        Ok(Err(error)) => {
            tracing::debug!(%from, "a connection was not encrypted as it has to be and was closed: {error}");
            None
        }
        Err(_elapsed) => None,
    }
}
