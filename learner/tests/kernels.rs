//! The learner on other kernels than this machine's: Debian's, each started by emulation with nothing but this program.
//!
//! Real associations of SCTP, too, for which they have a module.
//!
//! `.ci/setup test` puts the kernels into `target/kernels`.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its machine has failed")]

mod archive;
#[expect(dead_code, reason = "the other tests of the programs use the rest of it")]
mod node;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nanoseg_graph::container::ContainerRef;
use nanoseg_graph::flow::{Report, Reporter, Subject, Transport};
use rustix::mount::{MountFlags, mount};
use rustix::thread::LinkNameSpaceType;

use crate::archive::Archive;
use crate::node::learner::{Learner, Reported as _};
use crate::node::{Step, is_possible, run_script_if_told, start};

/// Set on the kernel's command line, and so in the environment of the first process.
const GUEST: &str = "NANOSEG_GUEST";

/// What the guest says last when all went well.
const PASSED: &str = "the guest has passed";

/// Emulated, a machine starts in five seconds, and on a busy one in ten times that.
const MOST: Duration = Duration::from_mins(4);

/// Not a test: what this program does when a test has started it in a container.
#[test]
fn in_a_container() {
    run_script_if_told();
}

#[test]
fn programs_load_attach_and_see_traffic_on_other_kernels() {
    if std::env::var_os(GUEST).is_some() || !is_possible() {
        return;
    }
    let kernels = kernels();
    let has_emulator = Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
    if kernels.is_empty() || !has_emulator {
        assert!(
            std::env::var_os("NANOSEG_REQUIRE_ROOT").is_none(),
            "there is no other kernel to try, or nothing to run it with: run `.ci/setup test`"
        );
        eprintln!("skipped: no other kernel to try: run `.ci/setup test`");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let programs = programs(folder.path());
    // All at once: each is one thread that waits for the same things.
    std::thread::scope(|scope| {
        for (number, kernel) in kernels.iter().enumerate() {
            let machine = folder.path().join(format!("machine{number}"));
            fs::write(&machine, contents(&programs, kernel)).unwrap();
            scope.spawn(move || boot(kernel, &machine));
        }
    });
}

fn kernels() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kernels");
    let boots = fs::read_dir(all).into_iter().flatten().flatten();
    let mut kernels: Vec<PathBuf> = boots
        .filter_map(|package| fs::read_dir(package.path().join("boot")).ok())
        .flat_map(|files| files.flatten().map(|file| file.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz"))
        })
        .collect();
    kernels.sort();
    kernels
}

/// What SCTP needs and the network between both ends, in this order. Kernels may have some of it without a module.
const MODULES: [&str; 5] = [
    "drivers/net/veth",
    "lib/libcrc32c",
    "net/ipv4/udp_tunnel",
    "net/ipv6/ip6_udp_tunnel",
    "net/sctp/sctp",
];

/// The modules of a kernel, as it loads them.
fn modules(kernel: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let package = kernel.ancestors().nth(2).unwrap();
    let releases = fs::read_dir(package.join("lib/modules")).into_iter().flatten();
    let folders: Vec<PathBuf> = releases
        .flatten()
        .map(|release| release.path().join("kernel"))
        .collect();
    let module = |name: &str| {
        let plain = |folder: &PathBuf| fs::read(folder.join(format!("{name}.ko"))).ok();
        let packed = |folder: &PathBuf| {
            let file = folder.join(format!("{name}.ko.xz"));
            let unpacked = file
                .exists()
                .then(|| Command::new("xz").arg("-dc").arg(file).output().unwrap());
            unpacked.map(|output| output.stdout)
        };
        folders
            .iter()
            .find_map(|folder| plain(folder).or_else(|| packed(folder)))
    };
    let modules: Vec<_> = MODULES
        .into_iter()
        .filter_map(|name| Some((name, module(name)?)))
        .collect();
    assert!(
        modules.iter().any(|(name, _)| name.ends_with("/sctp")),
        "{} has no module for SCTP beside it: run `.ci/setup test`",
        kernel.display()
    );
    modules
}

/// The first file system of a guest.
fn contents(programs: &[(String, Vec<u8>)], kernel: &Path) -> Vec<u8> {
    let mut archive = Archive::default();
    for empty in ["/proc", "/sys", "/tmp", "/dev", "/run"] {
        archive.folder(empty);
    }
    for (path, contents) in programs {
        archive.file(path, contents);
    }
    for (name, contents) in modules(kernel) {
        archive.file(&module_path(name), &contents);
    }
    archive.end()
}

fn module_path(name: &str) -> String {
    format!("/modules/{name}.ko")
}

/// This program, the learner, and what they need.
fn programs(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut programs = Vec::new();
    let ip = ["/sbin/ip", "/bin/ip"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.exists());
    for (from, to) in [
        (std::env::current_exe().unwrap().as_path(), "/init"),
        (Path::new(env!("CARGO_BIN_EXE_nanoseg-learner")), "/nanoseg-learner"),
        (ip.unwrap(), "/ip"),
    ] {
        // Symbols are most of it, and the guest reads all of it into memory.
        let stripped = folder.join("stripped");
        assert!(
            Command::new("strip")
                .arg("-o")
                .arg(&stripped)
                .arg(from)
                .status()
                .unwrap()
                .success()
        );
        programs.push((to.to_owned(), fs::read(stripped).unwrap()));
        let libraries = Command::new("ldd").arg(from).output().unwrap().stdout;
        for library in String::from_utf8(libraries)
            .unwrap()
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            programs.push((library.to_owned(), fs::read(library).unwrap()));
        }
    }
    programs
}

fn boot(kernel: &Path, machine: &Path) {
    let child = Command::new("qemu-system-x86_64")
        .args([
            "-nodefaults",
            "-nographic",
            "-no-reboot",
            "-m",
            "768",
            "-cpu",
            "max",
            "-serial",
            "stdio",
            "-kernel",
        ])
        .arg(kernel)
        .arg("-initrd")
        .arg(machine)
        .arg("-append")
        .arg(format!(
            "console=ttyS0 quiet panic=-1 rdinit=/init {GUEST}=1 -- in_the_guest --exact --nocapture --test-threads=1"
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let process = rustix::process::Pid::from_child(&child);
    // A guest that hangs is ended, and what it said until then is shown.
    let (ended, is_over) = std::sync::mpsc::channel::<()>();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            if is_over.recv_timeout(MOST).is_err() {
                rustix::process::kill_process(process, rustix::process::Signal::KILL).ok();
            }
        });
        let output = child.wait_with_output().unwrap();
        ended.send(()).ok();
        output
    });
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(PASSED), "on {}:\n{said}", kernel.display());
    println!("{}: all programs load, attach and see traffic", kernel.display());
}

/// Not a test: what this program does as the first process of the guest.
#[test]
fn in_the_guest() {
    if std::env::var_os(GUEST).is_none() || std::process::id() != 1 {
        return;
    }
    let result = std::panic::catch_unwind(observe_in_the_guest);
    println!("{}", if result.is_ok() { PASSED } else { "the guest has failed" });
    // The last line goes out before the machine does.
    std::thread::sleep(Duration::from_millis(200));
    rustix::system::reboot(rustix::system::RebootCommand::Restart).unwrap();
}

const SERVERS: [&str; 2] = ["198.18.0.2", "fd00:18::2"];
const CLIENTS: [&str; 2] = ["198.18.0.1", "fd00:18::1"];

fn observe_in_the_guest() {
    for (what, at) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/tmp"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("bpf", "/sys/fs/bpf"),
    ] {
        mount(what, at, what, MountFlags::empty(), None).unwrap();
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    println!("guest: Linux {release}");
    for name in MODULES {
        if let Ok(module) = fs::read(module_path(name)) {
            rustix::system::init_module(&module, c"").expect(name);
        }
    }
    let [server, client] = [1, 2].map(|number: u8| ContainerRef {
        pod_uid: format!("00000000-0000-4000-8000-{number:012x}"),
        container_id: format!("{number:064x}"),
    });
    let cgroup = |of: &ContainerRef| {
        let cgroup =
            Path::new("/sys/fs/cgroup/kubepods/burstable").join(format!("pod{}/{}", of.pod_uid, of.container_id));
        fs::create_dir_all(&cgroup).unwrap();
        cgroup
    };
    let run = |of: &ContainerRef, steps: &[Step]| start(Command::new("/init"), &cgroup(of), steps);
    let at = |address: &str, port: u16| SocketAddr::new(address.parse().unwrap(), port);
    let serving = SERVERS.map(|address| {
        [
            Step::Accept(at(address, 8080)),
            Step::Echo(at(address, 5000)),
            Step::AcceptSctp(at(address, 3868)),
        ]
    });
    ip("link add client type veth peer name server");
    ip("netns add server");
    ip("link set server netns server");
    has_addresses("client", CLIENTS);
    // Whatever a thread starts is in the network of the thread.
    let _serving = std::thread::scope(|scope| {
        let start = || {
            let network = fs::File::open("/run/netns/server").unwrap();
            rustix::thread::move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            has_addresses("server", SERVERS);
            run(&server, &serving.concat())
        };
        scope.spawn(start).join().unwrap()
    });
    let arguments = ["--pin", "/sys/fs/bpf/nanoseg"];
    let first = learner(&arguments);
    let calls = [0, 1].map(|family| {
        [
            Step::Hold {
                from: Some(at(CLIENTS[family], 0)),
                to: at(SERVERS[family], 8080),
            },
            Step::Ask {
                from: at(CLIENTS[family], 53),
                to: at(SERVERS[family], 5000),
                times: 2,
            },
            Step::HoldSctp {
                from: at(CLIENTS[family], 0),
                to: at(SERVERS[family], 3868),
            },
        ]
    });
    let _calling = run(&client, &calls.concat());
    let subject = |of: &ContainerRef| Subject::Container(of.clone());
    let counts = |report: &Report| {
        [0, 1].map(|family| {
            let (servers, clients): (IpAddr, IpAddr) =
                (SERVERS[family].parse().unwrap(), CLIENTS[family].parse().unwrap());
            [(8080, Transport::Tcp), (5000, Transport::Udp), (3868, Transport::Sctp)].map(|(port, transport)| {
                [
                    report.counts(&subject(&client), Reporter::Source, servers, port, transport),
                    report.counts(&subject(&server), Reporter::Destination, clients, port, transport),
                ]
            })
        })
    };
    let once = [[[Some([1, 1, 0]); 2]; 3]; 2];
    let before = first.wait_for("both ends of six connections", |report| counts(report) == once);
    first.kill();
    let second = learner(&arguments);
    let after = second.end();
    assert_eq!(
        (counts(&after), after.origin),
        (once, before.origin),
        "another took over"
    );
    assert!(after.losses.is_empty(), "{:?}", after.losses);
}

/// Gives a device addresses in networks of both families, and begins to use it.
fn has_addresses(device: &str, [v4, v6]: [&str; 2]) {
    ip(&format!("address add {v4}/24 dev {device}"));
    ip(&format!("address add {v6}/64 dev {device} nodad"));
    ip(&format!("link set {device} up"));
}

fn learner(arguments: &[&str]) -> Learner {
    let begun = Instant::now();
    let mut command = Command::new("/nanoseg-learner");
    command.args(arguments).args(["--cgroup-root", "/sys/fs/cgroup"]);
    let learner = Learner::start(command, Path::new("/tmp/reports"));
    println!("guest: observing after {:?}", begun.elapsed());
    learner
}

fn ip(arguments: &str) {
    assert!(
        Command::new("/ip")
            .args(arguments.split(' '))
            .status()
            .unwrap()
            .success(),
        "ip {arguments}"
    );
}
