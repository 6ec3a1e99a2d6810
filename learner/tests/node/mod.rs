//! A node for these tests: a cgroup folder, containers as network namespaces on one bridge, and a learner that watches them.
//!
//! A container runs scripts: this test program starts itself again, in the container's namespace, enters its cgroup, and does
//! what [`Step`] says. Everything is removed on drop.

pub(crate) mod learner;
pub(crate) mod names;

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nanoseg_graph::container::ContainerRef;
use nanoseg_graph::flow::Subject;
use serde::{Deserialize, Serialize};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const SCRIPT: &str = "NANOSEG_TEST_SCRIPT";

/// Whether this machine lets us make namespaces and attach programs. Where nothing may be skipped, it fails instead.
pub(crate) fn is_possible() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let must = std::env::var("CI").is_ok_and(|value| value == "true")
        || std::env::var("NANOSEG_REQUIRE_ROOT").is_ok_and(|value| value == "1");
    assert!(
        !must,
        "these tests need root: they make namespaces and cgroups and attach eBPF programs"
    );
    eprintln!("skipped: needs root, to make namespaces and cgroups and to attach eBPF programs");
    false
}

/// What a container does, in this order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Accepts connections from then on, and closes each when its other end does.
    Accept(SocketAddr),
    /// Connects, and expects to be accepted or not.
    Connect { to: SocketAddr, accepted: bool },
    /// Accepts one connection, stops listening, and holds it open until the end.
    AcceptOne(SocketAddr),
    /// Connects, from a port of its own choice or the kernel's, and holds the connection open until the end.
    Hold { from: Option<SocketAddr>, to: SocketAddr },
    /// Accepts associations of SCTP from then on, and holds them open.
    AcceptSctp(SocketAddr),
    /// Opens an association of SCTP, and holds it open until the end.
    HoldSctp { from: SocketAddr, to: SocketAddr },
    /// Answers questions for names from then on.
    AnswerNames(SocketAddr),
    /// Asks a server for a name, and waits for its answer.
    AskName {
        server: SocketAddr,
        name: String,
        over_tcp: bool,
    },
    /// Connects without waiting for an answer.
    Try(SocketAddr),
    /// Answers datagrams from then on.
    Echo(SocketAddr),
    /// Sends datagrams from one port and waits for the answer to each.
    Ask {
        from: SocketAddr,
        to: SocketAddr,
        times: u32,
    },
    /// Sends datagrams by a socket that is connected, and waits for the answer to each.
    AskConnected { to: SocketAddr, times: u32 },
    /// Answers datagrams after a time, one by one, from then on.
    EchoLate { at: SocketAddr, after: Duration },
    /// Sends datagrams from one port and gets answers from then on, without a pause, by a connected socket or another.
    Converse {
        from: SocketAddr,
        to: SocketAddr,
        connected: bool,
    },
    /// Answers the datagrams of one client from then on by a socket that is connected to it, beside one for everybody else.
    EchoConnected { at: SocketAddr, to: SocketAddr },
    /// Sends one datagram to each of many ports and waits for nothing.
    Spray { to: IpAddr, first_port: u16, ports: u16 },
    /// Connects to each of many ports, all of them that many times, and expects each time to be refused.
    Knock {
        to: IpAddr,
        first_port: u16,
        ports: u16,
        times: u16,
    },
    /// Gets a copy of every IPv4 packet of a protocol from then on.
    Sniff { protocol: u8 },
    /// Asks by ICMP echo whether somebody is there, and waits for the answer.
    Ping { to: IpAddr },
    /// Sends bytes as the payload of an IP packet of a protocol, or as a whole IPv4 packet when that is 255.
    Raw { to: IpAddr, protocol: u8, bytes: Vec<u8> },
}

#[derive(Serialize, Deserialize)]
struct Script {
    cgroup: PathBuf,
    steps: Vec<Step>,
}

/// What this program does when it was started as a container: called by the one test that is not a test.
pub(crate) fn run_script_if_told() {
    let Ok(script) = std::env::var(SCRIPT) else { return };
    let Script { cgroup, steps } = serde_json::from_str(&script).unwrap();
    fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
    for step in steps {
        step.take();
    }
    println!("\nready");
    // Until the test lets go of the other end of this pipe.
    let _ = std::io::stdin().read(&mut [0]).unwrap();
}

impl Step {
    fn take(self) {
        match self {
            Self::Accept(at) => {
                let listener = TcpListener::bind(at).unwrap();
                std::thread::spawn(move || {
                    for stream in listener.incoming() {
                        std::thread::spawn(move || stream.unwrap().read(&mut [0]));
                    }
                });
            }
            Self::Connect { to, accepted } => {
                let result = TcpStream::connect_timeout(&to, PATIENCE);
                assert_eq!(result.is_ok(), accepted, "{to}: {result:?}");
            }
            Self::AcceptOne(at) => {
                let listener = TcpListener::bind(at).unwrap();
                std::thread::spawn(move || std::mem::forget(listener.accept().unwrap()));
            }
            Self::Hold { from, to } => hold(from, to),
            Self::AcceptSctp(at) => {
                let listener = stream(at, Some(rustix::net::ipproto::SCTP));
                rustix::net::bind(&listener, &at).unwrap();
                rustix::net::listen(&listener, 8).unwrap();
                std::thread::spawn(move || {
                    loop {
                        std::mem::forget(rustix::net::accept(&listener).unwrap());
                    }
                });
            }
            Self::HoldSctp { from, to } => {
                let socket = stream(to, Some(rustix::net::ipproto::SCTP));
                rustix::net::bind(&socket, &from).unwrap();
                rustix::net::connect(&socket, &to).unwrap();
                std::mem::forget(socket);
            }
            Self::AnswerNames(at) => names::serve(at),
            Self::AskName { server, name, over_tcp } => names::ask(server, &name, over_tcp),
            Self::Try(to) => {
                let timeout = Duration::from_millis(50);
                TcpStream::connect_timeout(&to, timeout).unwrap_err();
            }
            Self::Echo(at) => echo(at, Duration::ZERO),
            Self::EchoLate { at, after } => echo(at, after),
            Self::Ask { from, to, times } => {
                let socket = UdpSocket::bind(from).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                for _ in 0..times {
                    socket.send_to(b"?", to).unwrap();
                    socket.recv_from(&mut [0; 64]).unwrap();
                }
            }
            Self::AskConnected { to, times } => ask_connected(to, times),
            Self::Converse { from, to, connected } => converse(from, to, connected),
            Self::EchoConnected { at, to } => echo_connected(at, to),
            Self::Spray { to, first_port, ports } => {
                let socket = UdpSocket::bind((any(to), 0)).unwrap();
                for port in first_port..first_port + ports {
                    // A refusal of an earlier one may be reported here; this one is then not sent yet.
                    while socket.send_to(b"!", (to, port)).is_err() {}
                }
            }
            Self::Knock {
                to,
                first_port,
                ports,
                times,
            } => {
                for port in (0..times).flat_map(|_| first_port..first_port + ports) {
                    let refused = TcpStream::connect((to, port)).unwrap_err().kind();
                    assert_eq!(refused, std::io::ErrorKind::ConnectionRefused, "{to} {port}");
                }
            }
            Self::Sniff { protocol } => {
                use rustix::net::{AddressFamily, Protocol, SocketType, socket};
                let protocol = std::num::NonZeroU32::new(protocol.into()).map(Protocol::from_raw);
                // Open until the process ends.
                std::mem::forget(socket(AddressFamily::INET, SocketType::RAW, protocol).unwrap());
            }
            Self::Ping { to } => ping(to),
            Self::Raw { to, protocol, bytes } => {
                use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType, sendto, socket};
                let family = if to.is_ipv4() {
                    AddressFamily::INET
                } else {
                    AddressFamily::INET6
                };
                let protocol = std::num::NonZeroU32::new(protocol.into()).map(Protocol::from_raw);
                let socket = socket(family, SocketType::RAW, protocol).unwrap();
                sendto(socket, &bytes, SendFlags::empty(), &SocketAddr::new(to, 0)).unwrap();
            }
        }
    }
}

fn ping(to: IpAddr) {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket};
    // The checksum of IPv6 is the kernel's to make. Of IPv4 the header comes with the answer.
    let (family, protocol, request, at, answer) = if to.is_ipv4() {
        (
            AddressFamily::INET,
            ipproto::ICMP,
            [8, 0, 0xf7, 0xfd, 0, 1, 0, 1],
            20,
            0,
        )
    } else {
        (
            AddressFamily::INET6,
            ipproto::ICMPV6,
            [128, 0, 0, 0, 0, 1, 0, 1],
            0,
            129,
        )
    };
    let socket = socket(family, SocketType::RAW, Some(protocol)).unwrap();
    sendto(&socket, &request, SendFlags::empty(), &SocketAddr::new(to, 0)).unwrap();
    let mut packet = [0; 128];
    // Others' packets come here, too.
    while packet[at] != answer || packet[at + 7] != 1 {
        recv(&socket, &mut packet, RecvFlags::empty()).unwrap();
    }
}

fn stream(of: SocketAddr, protocol: Option<rustix::net::Protocol>) -> std::os::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketType, socket};
    let family = if of.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    socket(family, SocketType::STREAM, protocol).unwrap()
}

fn hold(from: Option<SocketAddr>, to: SocketAddr) {
    let socket = stream(to, None);
    if let Some(from) = from {
        rustix::net::bind(&socket, &from).unwrap();
    }
    rustix::net::connect(&socket, &to).unwrap();
    std::mem::forget(socket);
}

fn echo(at: SocketAddr, after: Duration) {
    let socket = UdpSocket::bind(at).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            std::thread::sleep(after);
            socket.send_to(&buffer[..length], from).unwrap();
        }
    });
}

fn ask_connected(to: SocketAddr, times: u32) {
    let socket = UdpSocket::bind((any(to.ip()), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(to).unwrap();
    for _ in 0..times {
        socket.send(b"?").unwrap();
        socket.recv(&mut [0; 64]).unwrap();
    }
}

/// Any address of the same family.
fn any(of: IpAddr) -> IpAddr {
    if of.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

fn echo_connected(at: SocketAddr, to: SocketAddr) {
    let everybodys = shared(at);
    let socket = shared(at);
    socket.connect(to).unwrap();
    std::thread::spawn(move || {
        let _open = everybodys;
        let mut buffer = [0; 64];
        loop {
            // The client may not be there yet, or not any more.
            let received = socket.recv(&mut buffer);
            received.and_then(|length| socket.send(&buffer[..length])).ok();
        }
    });
}

fn converse(from: SocketAddr, to: SocketAddr, connected: bool) {
    let socket = UdpSocket::bind(from).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    if connected {
        socket.connect(to).unwrap();
    }
    let ask = move || {
        let sent = if connected {
            socket.send(b"?")
        } else {
            socket.send_to(b"?", to)
        };
        sent.and_then(|_| socket.recv(&mut [0; 64]))
    };
    let end = Instant::now() + PATIENCE;
    while let Err(error) = ask() {
        assert!(Instant::now() < end, "{to} does not answer: {error}");
    }
    // As fast as a test can be sure to meet at any moment, and no faster.
    std::thread::spawn(move || {
        loop {
            ask().ok();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// A socket on a port that has others too.
fn shared(at: SocketAddr) -> UdpSocket {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
    let family = if at.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket(family, SocketType::DGRAM, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &at).unwrap();
    socket.into()
}

/// A script that is running. Ends when it is dropped.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Kept, so that the script can write to it until its end.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Lets it end, and waits for that.
    pub(crate) fn end(mut self) {
        drop(self.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It may have ended already.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

/// Starts a script in a cgroup by a command that runs this program, and waits until its steps are taken.
pub(crate) fn start(mut command: Command, cgroup: &Path, steps: &[Step]) -> Running {
    let script = Script {
        cgroup: cgroup.to_owned(),
        steps: steps.to_vec(),
    };
    // The whole process, as a container's are: a test is a thread, and could only move itself.
    let mut child = command
        .args(["--exact", "in_a_container", "--nocapture", "--test-threads=1"])
        .env(SCRIPT, serde_json::to_string(&script).unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.any(|line| line.unwrap() == "ready");
    let running = Running {
        child,
        stdin,
        _stdout: lines,
    };
    assert!(ready, "the script failed: {steps:?}");
    running
}

/// A container: a cgroup named as kubelet names it, and a network namespace.
pub(crate) struct Container {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
    pub(crate) reference: ContainerRef,
    cgroup: PathBuf,
    netns: String,
}

impl Container {
    pub(crate) fn subject(&self) -> Subject {
        Subject::Container(self.reference.clone())
    }

    /// Addresses of a port of this container, of both families.
    pub(crate) fn at(&self, port: u16) -> [SocketAddr; 2] {
        [(self.v4, port).into(), (self.v6, port).into()]
    }

    /// Where its processes are.
    pub(crate) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Where its network is.
    pub(crate) fn network(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.netns)
    }

    /// Starts a script and waits until its steps are taken.
    pub(crate) fn run(&self, steps: &[Step]) -> Running {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.network().display()))
            .arg(std::env::current_exe().unwrap());
        start(command, self.cgroup(), steps)
    }

    /// The same network, in another cgroup of its node: one that no kubelet made.
    pub(crate) fn at_cgroup(&self, node: &Node, path: &str) -> Self {
        let cgroup = node.cgroup.join(path);
        fs::create_dir_all(&cgroup).unwrap();
        Self {
            cgroup,
            reference: self.reference.clone(),
            netns: self.netns.clone(),
            ..*self
        }
    }

    /// Removes the cgroup, as a runtime does as soon as the last process is gone.
    pub(crate) fn remove_cgroup(&self) {
        fs::remove_dir(&self.cgroup).unwrap();
    }

    /// Removes the cgroup and its pod's.
    pub(crate) fn remove_pod(&self) {
        self.remove_cgroup();
        fs::remove_dir(self.cgroup.parent().unwrap()).unwrap();
    }
}

/// The node. Unique, so that tests can run at the same time.
pub(crate) struct Node {
    name: String,
    pub(crate) cgroup: PathBuf,
    bridge: String,
    namespaces: Vec<String>,
    folder: tempfile::TempDir,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Node {
    pub(crate) fn new() -> Self {
        let name = format!("nsg{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mount = mounts
            .lines()
            .find_map(|line| line.split(' ').nth(1).filter(|_| line.contains(" cgroup2 ")))
            .unwrap();
        let cgroup = Path::new(mount).join(&name);
        fs::create_dir(&cgroup).unwrap();
        let bridge = format!("{name}b");
        let node = Self {
            name,
            cgroup,
            namespaces: vec![bridge.clone()],
            bridge,
            folder: tempfile::tempdir().unwrap(),
        };
        ip(&format!("netns add {}", node.bridge));
        ip(&format!("-n {} link add bridge type bridge", node.bridge));
        ip(&format!("-n {} link set bridge up", node.bridge));
        node
    }

    /// Where its own network is, to which those of its containers are connected.
    pub(crate) fn network(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.bridge)
    }

    /// Makes a container with the addresses 198.18.200.N and `fd00:200::N`, N counted from 1.
    pub(crate) fn container(&mut self) -> Container {
        let number = u8::try_from(self.namespaces.len()).unwrap();
        let netns = format!("{}c{number}", self.name);
        let (v4, v6) = (
            Ipv4Addr::new(198, 18, 200, number),
            Ipv6Addr::new(0xfd00, 0x200, 0, 0, 0, 0, 0, number.into()),
        );
        ip(&format!("netns add {netns}"));
        self.namespaces.push(netns.clone());
        ip(&format!(
            "-n {netns} link add eth0 type veth peer name port{number} netns {}",
            self.bridge
        ));
        ip(&format!("-n {} link set port{number} master bridge up", self.bridge));
        ip(&format!("-n {netns} link set lo up"));
        ip(&format!("-n {netns} address add {v4}/24 dev eth0"));
        ip(&format!("-n {netns} address add {v6}/64 dev eth0 nodad"));
        ip(&format!("-n {netns} link set eth0 up"));
        let reference = ContainerRef {
            pod_uid: format!("{:08x}-0000-4000-8000-{number:012x}", std::process::id()),
            container_id: format!("{number:064x}"),
        };
        let cgroup = self.cgroup.join(format!(
            "kubepods/burstable/pod{}/{}",
            reference.pod_uid, reference.container_id
        ));
        fs::create_dir_all(&cgroup).unwrap();
        Container {
            v4,
            v6,
            reference,
            cgroup,
            netns,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let pins = self.folder.path().join("bpf");
        if pins.exists() {
            Command::new("umount").arg(pins).status().ok();
        }
        for namespace in &self.namespaces {
            Command::new("ip").args(["netns", "del", namespace]).status().ok();
        }
        let end = Instant::now() + PATIENCE;
        while remove_tree(&self.cgroup).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Cgroup folders hold files that cannot be removed, so only the folders are, from below.
fn remove_tree(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
