//! A process in a container that does what it is told, a line at a time.

use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::node::Container;

/// Set for a worker: the cgroup that it enters.
pub(crate) const CGROUP: &str = "NANOSEG_BENCH_CGROUP";

/// Where the server accepts and answers one byte; takes bytes; takes datagrams. At each place these are ten further.
const ANSWERS: u16 = 8080;
const TAKES: u16 = 8081;
const TAKES_DATAGRAMS: u16 = 8082;

/// At which place this worker is.
static PLACE: AtomicU16 = AtomicU16::new(0);

fn at_this_place(port: u16) -> u16 {
    port + 10 * PLACE.load(Ordering::Relaxed)
}

/// What a worker does. All but `Enter`, `Serve`, `Stay` and `GoFirst` answer with a number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Is in a cgroup from then on, and at ports of its own: a socket stays in the cgroup in which it was made.
    Enter { cgroup: PathBuf, place: u16 },
    /// Serves from then on, in this cgroup and at its ports.
    Serve,
    /// Stays on one processor from then on.
    Stay { on: usize },
    /// Goes before whatever else this machine does, from then on.
    GoFirst,
    /// How many nanoseconds it had a core so far.
    Spent,
    /// How many connections, one after the other, each with a question and its answer.
    Connect { to: Ipv4Addr, most: u64, within: Duration },
    /// How many bytes go through so many connections.
    Send {
        to: Ipv4Addr,
        streams: u16,
        within: Duration,
    },
    /// How many datagrams of 64 bytes are sent.
    SendDatagrams { to: Ipv4Addr, within: Duration },
    /// The nanoseconds below which 99 of 100 connections with question and answer are, at a rate.
    Latency { to: Ipv4Addr, rate: u32, within: Duration },
    /// How many connections are refused, over so many ports, at a rate.
    Knock {
        to: Ipv4Addr,
        ports: u16,
        rate: u32,
        within: Duration,
    },
}

/// A worker that is running.
pub(crate) struct Worker {
    child: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub(crate) fn start(place: &Container) -> Self {
        let mut child = Command::new("nsenter")
            .arg(format!("--net={}", place.network().display()))
            .arg(std::env::current_exe().unwrap())
            .env(CGROUP, place.cgroup())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            stdin,
            answers: BufReader::new(stdout).lines(),
        }
    }

    /// Starts a task without waiting for its answer.
    pub(crate) fn begin(&mut self, task: &Task) {
        writeln!(self.stdin, "{}", serde_json::to_string(task).unwrap()).unwrap();
    }

    /// Waits for the answer.
    pub(crate) fn answer(&mut self) -> f64 {
        self.answers.next().unwrap().unwrap().parse().unwrap()
    }

    pub(crate) fn ask(&mut self, task: &Task) -> f64 {
        self.begin(task);
        self.answer()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

/// What a worker is.
pub(crate) fn run(cgroup: &Path) {
    enter(cgroup);
    for line in std::io::stdin().lines() {
        let task: Task = serde_json::from_str(&line.unwrap()).unwrap();
        println!("{}", task.done());
    }
}

fn enter(cgroup: &Path) {
    std::fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
}

impl Task {
    fn done(self) -> u64 {
        match self {
            Self::Enter { cgroup, place } => {
                enter(&cgroup);
                PLACE.store(place, Ordering::Relaxed);
                0
            }
            Self::Serve => {
                serve();
                0
            }
            Self::Stay { on } => {
                let mut processors = CpuSet::new();
                processors.set(on);
                sched_setaffinity(None, &processors).unwrap();
                0
            }
            Self::GoFirst => {
                let own = std::process::id().to_string();
                let status = Command::new("chrt")
                    .args(["--all-tasks", "--fifo", "--pid", "50", &own])
                    .status();
                assert!(status.unwrap().success(), "the kernel lets it go first");
                0
            }
            Self::Spent => {
                let spent = clock_gettime(ClockId::ProcessCPUTime);
                u64::try_from(i128::from(spent.tv_sec) * 1_000_000_000 + i128::from(spent.tv_nsec)).unwrap()
            }
            Self::Connect { to, most, within } => {
                let end = Instant::now() + within;
                let mut count = 0;
                while count < most && Instant::now() < end {
                    call(to);
                    count += 1;
                }
                count
            }
            Self::Send { to, streams, within } => {
                let begun = Instant::now();
                let senders: Vec<_> = (0..streams)
                    .map(|_| {
                        std::thread::spawn(move || {
                            let mut stream = TcpStream::connect((to, at_this_place(TAKES))).unwrap();
                            let (block, mut sent) = (vec![7; 64 * 1024], 0);
                            while begun.elapsed() < within {
                                stream.write_all(&block).unwrap();
                                sent += block.len() as u64;
                            }
                            sent
                        })
                    })
                    .collect();
                senders.into_iter().map(|sender| sender.join().unwrap()).sum()
            }
            Self::SendDatagrams { to, within } => {
                let socket = UdpSocket::bind((IpAddr::from([0; 4]), 0)).unwrap();
                socket.connect((to, at_this_place(TAKES_DATAGRAMS))).unwrap();
                let (begun, mut count) = (Instant::now(), 0);
                while begun.elapsed() < within {
                    for _ in 0..64 {
                        count += u64::from(socket.send(&[7; 64]).is_ok());
                    }
                }
                count
            }
            Self::Latency { to, rate, within } => {
                let mut times: Vec<u128> = Vec::new();
                paced(rate, within, |due| {
                    call(to);
                    // From when it was due: a slow one makes those behind it late, and that counts.
                    times.push(due.elapsed().as_nanos());
                });
                times.sort_unstable();
                let at = times.len() * 99 / 100;
                times.get(at).and_then(|time| u64::try_from(*time).ok()).unwrap_or(0)
            }
            Self::Knock {
                to,
                ports,
                rate,
                within,
            } => {
                let mut count = 0;
                paced(rate, within, |_| {
                    let port = 1000 + u16::try_from(count % u64::from(ports)).unwrap_or(0);
                    TcpStream::connect((to, port)).unwrap_err();
                    count += 1;
                });
                count
            }
        }
    }
}

/// Calls at a rate, with the time at which each call is due.
fn paced(rate: u32, within: Duration, mut call: impl FnMut(Instant)) {
    let begun = Instant::now();
    let between = Duration::from_secs(1) / rate;
    let mut due = begun;
    while due < begun + within {
        let early = due.saturating_duration_since(Instant::now());
        // A shorter sleep takes longer than it should.
        if early > Duration::from_micros(200) {
            std::thread::sleep(early);
        }
        call(due);
        due += between;
    }
}

/// A connection that is answered, and leaves nothing behind: the server closes it, and it is reset, so that no port waits.
fn call(to: Ipv4Addr) {
    let mut stream = TcpStream::connect(SocketAddr::from((to, at_this_place(ANSWERS)))).unwrap();
    stream.write_all(b"?").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

fn serve() {
    let any = IpAddr::from([0; 4]);
    let (answers, takes) = (
        TcpListener::bind((any, at_this_place(ANSWERS))).unwrap(),
        TcpListener::bind((any, at_this_place(TAKES))).unwrap(),
    );
    let datagrams = UdpSocket::bind((any, at_this_place(TAKES_DATAGRAMS))).unwrap();
    std::thread::spawn(move || {
        for stream in answers.incoming() {
            let mut stream = stream.unwrap();
            // The other end may have ended.
            stream.read(&mut [0]).and_then(|_| stream.write_all(b"!")).ok();
        }
    });
    std::thread::spawn(move || {
        for stream in takes.incoming() {
            std::thread::spawn(move || {
                let (mut stream, mut block) = (stream.unwrap(), vec![0; 64 * 1024]);
                while stream.read(&mut block).is_ok_and(|length| length > 0) {}
            });
        }
    });
    std::thread::spawn(move || {
        let mut datagram = [0; 64];
        while datagrams.recv(&mut datagram).is_ok() {}
    });
}
