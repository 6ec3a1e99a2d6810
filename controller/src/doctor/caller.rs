//! What runs in the pods of a probe: one that answers, and some that call it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::enforcement::Calls;
use crate::settings::doctor::{Call, PodArguments};

/// From one call to the next.
const BETWEEN: Duration = Duration::from_millis(500);

/// How long an answer is waited for. A packet that is dropped is sent again after a second, and once is enough.
const ANSWER: Duration = Duration::from_millis(1500);

/// How many of the last calls have to agree: two seconds of them.
const LAST: usize = 4;

/// Where kubelet reads what a container says when it ends.
const LAST_WORDS: &str = "/dev/termination-log";

/// Why a pod of a probe cannot do its part.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// A port cannot be listened at.
    #[error("cannot listen at port {port}")]
    Listen {
        /// The port.
        port: u16,
        /// What the operating system said.
        source: io::Error,
    },
    /// Signals cannot be listened to.
    #[error("cannot listen to signals")]
    Signal(#[source] io::Error),
    /// What was found cannot be told.
    #[error("cannot write {LAST_WORDS}")]
    Tell(#[source] io::Error),
    /// There is nothing to run in.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

/// Does what a pod is told.
pub fn run(arguments: &PodArguments) -> Result<(), PodError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(PodError::Runtime)?;
    runtime.block_on(async {
        // The first process of a container gets no signal that it did not ask for.
        let mut term = signal(SignalKind::terminate()).map_err(PodError::Signal)?;
        let PodArguments { answer, call, patience } = arguments;
        let work = async {
            let mut listeners = JoinSet::new();
            for port in answer {
                let listener = listen(*port)
                    .await
                    .map_err(|source| PodError::Listen { port: *port, source })?;
                listeners.spawn(accept(listener));
            }
            if call.is_empty() {
                std::future::pending().await
            } else {
                tell(&call_all(call, *patience).await)
            }
        };
        tokio::select! {
            outcome = work => outcome,
            _ = term.recv() => Ok(()),
        }
    })
}

async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        // A node without IPv6.
        Err(_no_ipv6) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

async fn accept(listener: TcpListener) {
    loop {
        // To be accepted is the answer.
        drop(listener.accept().await);
    }
}

async fn call_all(calls: &[Call], patience: Duration) -> BTreeMap<String, Calls> {
    let mut callers = JoinSet::new();
    for Call { name, address } in calls.iter().cloned() {
        callers.spawn(async move { (name, call(address, patience).await) });
    }
    callers.join_all().await.into_iter().collect()
}

async fn call(address: SocketAddr, patience: Duration) -> Calls {
    let began = Instant::now();
    let mut answers = Vec::new();
    while began.elapsed() < patience || answers.len() < LAST {
        answers.push(matches!(timeout(ANSWER, TcpStream::connect(address)).await, Ok(Ok(_))));
        tokio::time::sleep(BETWEEN).await;
    }
    judge(&answers)
}

fn judge(answers: &[bool]) -> Calls {
    let last = &answers[answers.len().saturating_sub(LAST)..];
    match (last.contains(&true), last.contains(&false)) {
        (true, false) => Calls::Answered,
        (false, _) => Calls::Refused,
        (true, true) => Calls::Unsettled,
    }
}

fn tell(found: &BTreeMap<String, Calls>) -> Result<(), PodError> {
    let text = serde_json::to_string(found).map_err(|error| PodError::Tell(error.into()))?;
    fs::write(LAST_WORDS, text).map_err(PodError::Tell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_how_it_ended() {
        assert_eq!(judge(&[false, false, true, true, true, true]), Calls::Answered);
        assert_eq!(judge(&[true, true, false, false, false, false]), Calls::Refused);
        assert_eq!(judge(&[true, false, false, true, false]), Calls::Unsettled);
        assert_eq!(judge(&[]), Calls::Refused);
    }

    #[tokio::test]
    async fn who_accepts_has_answered_and_who_does_not_listen_has_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        tokio::spawn(accept(listener));
        let calls = [("there", there), ("nobody", nobody)].map(|(name, address)| Call {
            name: name.to_owned(),
            address,
        });
        let found = call_all(&calls, Duration::ZERO).await;
        assert_eq!(found["there"], Calls::Answered);
        assert_eq!(found["nobody"], Calls::Refused);
    }
}
