//! Orders to a small lab that another process runs: one line of JSON each way over a socket in the lab's folder.
//!
//! Guarantee: an order is answered when it is done, so that whoever gave it finds it done.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::small::{self, Addressing, Lab, Place};

/// Rolling a large workload takes seconds; a lab that needs longer hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// Why a lab cannot be controlled.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The lab itself refuses.
    #[error(transparent)]
    Lab(#[from] small::Error),
    /// The lab that was asked refuses.
    #[error("{0}")]
    Refused(String),
    /// The socket cannot be used.
    #[error("the lab cannot be reached by {}", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Signals cannot be taken.
    #[error("signals cannot be taken")]
    Signals(#[source] io::Error),
    /// What came back is not an answer.
    #[error("the lab answered something that is not understood")]
    Answer(#[from] serde_json::Error),
}

/// What a lab can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// A workload is to speak one round of what it says only when told.
    Say(String),
    /// A workload's pods are to be replaced.
    Roll {
        /// Which workload.
        who: String,
        /// Whether the new pods get the old ones' addresses.
        reuse_addresses: bool,
    },
    /// A workload is to be removed.
    Delete(String),
    /// The lab is to end.
    Down,
}

type Answer = Result<(), String>;

/// Gives an order to the lab at `place`.
pub fn order(place: &Place, order: &Order) -> Result<(), ControlError> {
    let path = place.socket();
    let failed = |source| ControlError::Socket {
        path: path.clone(),
        source,
    };
    let mut stream = match UnixStream::connect(&path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(small::Error::NotUp(place.id.clone()).into());
        }
        connected => connected.map_err(failed)?,
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut line = serde_json::to_string(order)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(failed)?;
    let mut text = String::new();
    BufReader::new(stream).read_line(&mut text).map_err(failed)?;
    serde_json::from_str::<Answer>(&text)?.map_err(ControlError::Refused)
}

/// What ends a lab.
enum End {
    Signal,
    Order(UnixStream),
}

/// Ctrl-C and its like, taken from now on.
#[derive(Debug)]
pub struct Interrupts(Signals);

impl Interrupts {
    /// Takes them; nothing ends this process by surprise any more.
    pub fn take() -> Result<Self, ControlError> {
        Signals::new([SIGINT, SIGTERM, SIGHUP])
            .map(Self)
            .map_err(ControlError::Signals)
    }

    /// Whether one has come.
    pub fn came(&mut self) -> bool {
        self.0.pending().next().is_some()
    }

    /// Calls `then` at the first one.
    pub fn at_first(mut self, then: impl FnOnce() + Send + 'static) {
        thread::spawn(move || {
            if self.0.forever().next().is_some() {
                then();
            }
        });
    }
}

/// Takes orders until one of them, or a signal, says that the lab is to end; then ends it.
pub fn serve(lab: Lab, interrupts: Interrupts) -> Result<(), ControlError> {
    let path = lab.place().socket();
    let listener = UnixListener::bind(&path).map_err(|source| ControlError::Socket { path, source })?;
    let (ends, end) = mpsc::channel();
    let signalled = ends.clone();
    // A receiver that is gone means that the lab is ending already.
    interrupts.at_first(move || drop(signalled.send(End::Signal)));
    let lab = Arc::new(RwLock::new(Some(lab)));
    let orders = Arc::clone(&lab);
    thread::spawn(move || accept(&listener, &orders, &ends));
    finish(&lab, &end)
}

fn finish(lab: &RwLock<Option<Lab>>, end: &Receiver<End>) -> Result<(), ControlError> {
    let end = end.recv().unwrap_or(End::Signal);
    let ended = match lab.write().unwrap_or_else(PoisonError::into_inner).take() {
        Some(lab) => lab.down(),
        None => Ok(()),
    };
    if let End::Order(stream) = end {
        let answer = match &ended {
            Ok(()) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        // Whoever asked and did not wait is not told.
        drop(reply(&stream, &answer));
    }
    Ok(ended?)
}

fn accept(listener: &UnixListener, lab: &Arc<RwLock<Option<Lab>>>, ends: &Sender<End>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let (lab, ends) = (Arc::clone(lab), ends.clone());
        thread::spawn(move || {
            let Some(order) = read(&stream) else { return };
            let answer = match order {
                Ok(Order::Down) => {
                    drop(ends.send(End::Order(stream)));
                    return;
                }
                Ok(order) => obey(&lab, &order),
                Err(reason) => Err(reason),
            };
            // Whoever asked and did not wait is not told.
            drop(reply(&stream, &answer));
        });
    }
}

fn read(stream: &UnixStream) -> Option<Result<Order, String>> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    Some(serde_json::from_str(&line).map_err(|error| format!("not an order: {error}")))
}

fn obey(lab: &RwLock<Option<Lab>>, order: &Order) -> Answer {
    let lab = lab.read().unwrap_or_else(PoisonError::into_inner);
    let lab = lab.as_ref().ok_or("the lab is ending")?;
    let done = match order {
        Order::Say(who) => lab.say(who),
        Order::Roll {
            who,
            reuse_addresses: false,
        } => lab.roll(who),
        Order::Roll {
            who,
            reuse_addresses: true,
        } => lab.roll_with(who, Addressing::Reused),
        Order::Delete(who) => lab.delete(who),
        Order::Down => return Err("an end is not an order like the others".to_owned()),
    };
    done.map_err(|error| format!("{:#}", anyhow::Error::from(error)))
}

fn reply(mut stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_string(answer)?;
    line.push('\n');
    stream.write_all(line.as_bytes())
}

/// Lets go of the terminal: from now on this process is on its own, and what it says goes to a file.
pub fn detach(place: &Place) -> Result<(), ControlError> {
    let path = place.state.join("lab.log");
    let failed = |source| ControlError::Socket {
        path: path.clone(),
        source,
    };
    let log = fs::File::create(&path).map_err(failed)?;
    rustix::process::setsid().map_err(|error| failed(error.into()))?;
    rustix::stdio::dup2_stdout(&log).map_err(|error| failed(error.into()))?;
    rustix::stdio::dup2_stderr(&log).map_err(|error| failed(error.into()))
}
