//! Who says nothing, does not read or is gone is cut off, and the controller does not grow. With sockets of the kernel, and a link
//! that is pulled.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::folder::{Folder, node, pod, until};
use crate::http::{ask, send};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Clients of each kind.
const EACH: usize = 8;

/// How long a client is put up with: half a minute, and what it takes to notice that it is gone. The rest is for a busy machine.
const CUT: Duration = Duration::from_secs(75);
/// Rounds at most in which what is held is compared.
const ROUNDS: usize = 6;

/// Two network namespaces with a cable between them, and nothing else.
struct Cable {
    controller: String,
    client: String,
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Cable {
    fn lay() -> Self {
        let [controller, client] = ["a", "b"].map(|end| format!("nanoseg-slow-{}-{end}", std::process::id()));
        let cable = Self { controller, client };
        let Self { controller, client } = &cable;
        ip(&["netns", "add", controller]);
        ip(&["netns", "add", client]);
        ip(&[
            "-n", controller, "link", "add", "slow", "type", "veth", "peer", "name", "slow", "netns", client,
        ]);
        ip(&["-n", controller, "address", "add", "198.18.254.1/30", "dev", "slow"]);
        ip(&["-n", client, "address", "add", "198.18.254.2/30", "dev", "slow"]);
        for end in [controller, client] {
            ip(&["-n", end, "link", "set", "lo", "up"]);
            ip(&["-n", end, "link", "set", "slow", "up"]);
        }
        cable
    }

    fn plug(&self, how: &str) {
        ip(&["-n", &self.client, "link", "set", "slow", how]);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for end in [&self.controller, &self.client] {
            let _gone = Command::new("ip").args(["netns", "delete", end]).status();
        }
    }
}

/// Does something in a network namespace. What is opened there stays there.
fn within<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let file = File::open(format!("/run/netns/{namespace}")).unwrap();
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        });
        inside.join().unwrap()
    })
}

/// Sockets of a process.
pub(crate) fn sockets(process: u32) -> usize {
    let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let targets = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

/// Kilobytes of memory that a process has.
fn memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Connections of every kind that gives nothing back.
fn bad_clients(page: SocketAddr) -> Vec<TcpStream> {
    let authorised = [("Authorization", &*format!("Bearer {TOKEN}"))];
    let mut clients = Vec::new();
    for _ in 0..EACH {
        clients.push(TcpStream::connect(page).unwrap());
        let mut half = TcpStream::connect(page).unwrap();
        half.write_all(b"GET / HTTP/1.1\r\nHost: 198.1").unwrap();
        clients.push(half);
        let deaf = TcpStream::connect(page).unwrap();
        set_socket_recv_buffer_size(&deaf, 4096).unwrap();
        let question = format!("GET /api/map HTTP/1.1\r\nHost: {page}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
        (&deaf).write_all(question.as_bytes()).unwrap();
        clients.push(deaf);
        let follower = send(page, "GET", "/api/events", &authorised, "");
        let mut line = String::new();
        BufReader::new(&follower).read_line(&mut line).unwrap();
        assert!(line.contains(" 200 "), "{line}");
        clients.push(follower);
    }
    clients
}

#[test]
fn who_is_slow_or_gone_is_cut_off_and_nothing_grows() {
    if !rustix::process::geteuid().is_root() {
        assert!(
            std::env::var_os("NANOSEG_REQUIRE_ROOT").is_none(),
            "this test needs root"
        );
        println!("skipped: not root");
        return;
    }
    let cable = Cable::lay();
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), TOKEN).unwrap();
    let arguments = [
        "--page-exposed",
        "--page-token-file",
        secret.path().to_str().unwrap(),
        "--page-listen",
        "0.0.0.0:0",
    ];
    // So many long names do not fit into what a kernel holds for a connection.
    let mut objects = vec![node()];
    for number in 0..3000 {
        let name = format!(
            "{}-{number:04}",
            "a-name-as-long-as-those-that-charts-make-of-their-releases"
        );
        let address = format!("198.18.{}.{}", number / 250, number % 250 + 1);
        objects.push(pod(&format!("team-{}", number % 40), "Deployment", &name, &address));
    }
    let folder = within(&cable.controller, || Folder::at(&objects, &arguments));
    let page = SocketAddr::from(([198, 18, 254, 1], folder.page.port()));
    let process = folder.process();
    let authorised = [("Authorization", &*format!("Bearer {TOKEN}"))];
    let asked = || {
        within(&cable.client, || {
            ask(page, "GET", "/api/map", &authorised, "").body.len()
        })
    };
    until("the map", || (asked() > 1_000_000).then_some(()));
    let before = until("sockets to be closed", || {
        let now = sockets(process);
        std::thread::sleep(Duration::from_millis(200));
        (now == sockets(process)).then_some(now)
    });

    // Who is there and says nothing, or does not read, is cut off as well; who follows is not.
    let clients = within(&cable.client, || bad_clients(page));
    until("all of them to be connected", || {
        (sockets(process) >= before + 4 * EACH).then_some(())
    });
    let began = Instant::now();
    while sockets(process) > before + EACH {
        assert!(
            began.elapsed() < CUT,
            "who is there and gives nothing back is not cut off"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    println!("all but those who follow cut off after {:.0?}", began.elapsed());
    for mut follower in clients.into_iter().skip(3).step_by(4) {
        let mut some = [0; 64];
        let read = follower.read(&mut some);
        assert!(matches!(read, Ok(1..)), "who follows is cut off: {read:?}");
    }
    until("those to be gone", || (sockets(process) <= before).then_some(()));

    // An allocator that has seen large pieces come and go keeps some of them, more on a busy machine: what is kept of connections grows
    // with each round, what an allocator keeps does not.
    let mut held = Vec::new();
    while held.len() < ROUNDS && !is_steady(&held) {
        let round = held.len();
        cable.plug("up");
        let clients = within(&cable.client, || bad_clients(page));
        until("all of them to be connected", || {
            (sockets(process) >= before + 4 * EACH).then_some(())
        });
        cable.plug("down");
        let began = Instant::now();
        while sockets(process) > before {
            assert!(
                began.elapsed() < CUT,
                "round {round}: {} connections of clients that give nothing back are still there",
                sockets(process) - before
            );
            std::thread::sleep(Duration::from_millis(500));
        }
        println!(
            "round {round}: all {} cut off after {:.0?}, {} kB",
            clients.len(),
            began.elapsed(),
            memory(process)
        );
        held.push(memory(process));
    }
    cable.plug("up");
    assert!(asked() > 1_000_000, "others are answered as before");
    assert!(is_steady(&held), "{held:?} kB: more with each round");
}

/// Whether the last round added nothing that could be told from noise. The first one shows what there is at all.
fn is_steady(held: &[u64]) -> bool {
    match held {
        [before @ .., last] if before.len() > 1 => before.iter().max().is_some_and(|most| *last < most + 2048),
        _ => false,
    }
}
