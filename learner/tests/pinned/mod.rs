//! One learner after the other, where something is pinned.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData, RingBuf};
use aya::{EbpfLoader, include_bytes_aligned};
use nanoseg_ebpf::kept::{Header, LAYOUT, LAYOUTS};
use nanoseg_ebpf::name;
use nanoseg_graph::flow::{Loss, LossReason, Report, Reporter, Transport};
use rustix::process::Signal;

use crate::node::learner::{Learner, Reported as _};
use crate::node::{Container, Node, PATIENCE, Step, is_possible};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nanoseg-capture"));

/// A node where one learner pins for the next.
struct Pinned {
    node: Node,
    client: Container,
    server: Container,
    pins: String,
}

impl Pinned {
    /// Of 16 flows a map has no room for all at once.
    const FEW: &[&str] = &["--map-entries", "16", "--health-listen=127.0.0.1:0"];

    fn new() -> Option<Self> {
        is_possible().then(|| {
            let mut node = Node::new();
            let (client, server, pins) = (node.container(), node.container(), node.pins());
            Self {
                node,
                client,
                server,
                pins,
            }
        })
    }

    fn learner(&self, more: &[&str]) -> Learner {
        self.node.learner(&[&["--pin", &self.pins], more].concat())
    }

    fn spray(&self, first_port: u16, ports: u16) {
        spray(&self.client, &self.server, first_port, ports);
    }

    /// Sends to 16 ports, so that some leave a map that has room for no more. `older` flows of the client are there before.
    fn fill(&self, learner: &Learner, older: usize) -> Report {
        let mut sent = 0;
        let mut all = None;
        for ports in [8, 4, 4] {
            self.spray(1000 + sent, ports);
            sent += ports;
            all = Some(learner.wait_for("every flow", |report| {
                report.of(&self.client.subject()).count() == usize::from(sent) + older
            }));
            // A map that is nearly full is relieved of what is idle, until a quarter is left.
            learner.wait_for_room(4);
        }
        all.unwrap()
    }

    /// Waits until the first of them was seen twice.
    fn wait_for_again(&self, learner: &Learner) -> Report {
        learner.wait_for("what was sent meanwhile", |report| {
            let (subject, peer) = (self.client.subject(), self.server.v4);
            let again = report.counts(&subject, Reporter::Source, peer, 1000, Transport::Udp);
            again.is_some_and(|[attempted, ..]| attempted == 2)
        })
    }
}

fn spray(from: &Container, to: &Container, first_port: u16, ports: u16) {
    from.run(&[Step::Spray {
        to: to.v4.into(),
        first_port,
        ports,
    }])
    .end();
}

/// Waits until the kernel has none of these programs any more.
pub(crate) fn wait_until_gone(programs: &[u32]) {
    let end = Instant::now() + PATIENCE;
    // The kernel takes programs away after the last processor that could run them has passed by.
    while aya::programs::loaded_programs()
        .flatten()
        .any(|program| programs.contains(&program.id()))
    {
        assert!(Instant::now() < end, "the programs {programs:?} are still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_next_learner_goes_on_with_what_left_the_kernel_and_with_containers_that_are_gone() {
    let Some(mut pinned) = Pinned::new() else { return };
    let brief = pinned.node.container();
    let Pinned {
        node,
        client,
        server,
        pins,
    } = &pinned;
    let _listening = server.run(&server.at(8080).map(Step::Accept));
    // Older than the programs, and told by nobody but the first learner.
    let held = server.at(8080).map(|to| Step::Hold { from: None, to });
    let _open = client.run(&held);
    let arguments = [&["--pin", pins][..], Pinned::FEW].concat();
    let first = node.learner_with_two_capabilities(&arguments);
    pinned.fill(&first, held.len());
    let [to, _] = server.at(8080);
    brief.run(&[Step::Connect { to, accepted: true }]).end();
    let before = first.wait_for("the brief one", |report| report.of(&brief.subject()).count() == 1);
    let programs = first.program_ids();
    first.kill();
    brief.remove_cgroup();
    // Nobody runs but the programs.
    pinned.spray(1000, 1);

    let second = node.learner_with_two_capabilities(&arguments);
    let after = pinned.wait_for_again(&second);
    assert_eq!(after.origin, before.origin, "the same run");
    let edges = |report: &Report| {
        let mut edges: Vec<_> = report
            .flows
            .iter()
            .filter(|flow| flow.key.port != 1000)
            .map(|flow| (flow.key.clone(), flow.tally.attempted, flow.tally.established))
            .collect();
        edges.sort();
        edges
    };
    assert_eq!(edges(&after), edges(&before));
    assert_eq!(after.of(&brief.subject()).count(), 1);
    assert!(after.losses.is_empty(), "{:?}", after.losses);
    wait_until_gone(&programs);

    second.kill();
    // Not whole any more: nothing of it is taken for true.
    fs::remove_file(format!("{pins}/OWNERS")).unwrap();
    let third = pinned.learner(&[]);
    let programs = third.program_ids();
    let report = third.end();
    assert!(report.origin.epoch > after.origin.epoch);
    assert!(
        report.flows.iter().all(|flow| flow.key.transport == Transport::Tcp),
        "only what is open is known: {report:#?}"
    );
    let uninstall = Command::new(env!("CARGO_BIN_EXE_nanoseg-learner"))
        .args(["--uninstall", "--pin", pins])
        .status();
    assert!(uninstall.unwrap().success());
    assert!(!fs::exists(pins).unwrap());
    wait_until_gone(&programs);
}

/// As the rollout of a `DaemonSet` does it that was told `NANOSEG_UNINSTALL`.
#[test]
fn told_so_by_its_environment_the_next_learner_removes_the_pins_and_observes_without() {
    let Some(pinned) = Pinned::new() else { return };
    let Pinned {
        node,
        client,
        server,
        pins,
    } = &pinned;
    let _listening = server.run(&server.at(8080).map(Step::Accept));
    let first = pinned.learner(&[]);
    let programs = first.program_ids();
    first.end();
    assert!(fs::exists(pins).unwrap());

    let mut command = Command::new(env!("CARGO_BIN_EXE_nanoseg-learner"));
    command
        .env("NANOSEG_UNINSTALL", "true")
        .args(["--pin", pins, "--cgroup-root"])
        .arg(&node.cgroup);
    let folder = tempfile::tempdir().unwrap();
    let second = Learner::start(command, folder.path());
    assert!(!fs::exists(pins).unwrap());
    wait_until_gone(&programs);
    let own = second.program_ids();
    client
        .run(&server.at(8080).map(|to| Step::Hold { from: None, to }))
        .end();
    let report = second.end();
    let counts = report.counts(&client.subject(), Reporter::Source, server.v4, 8080, Transport::Tcp);
    assert_eq!(counts, Some([1, 1, 0]), "{report:#?}");
    assert!(!fs::exists(pins).unwrap());
    wait_until_gone(&own);
}

#[test]
fn a_folder_has_one_learner_and_is_of_a_bpf_file_system() {
    let Some(pinned) = Pinned::new() else { return };
    let first = pinned.learner(&[]);
    let output = Command::new(env!("CARGO_BIN_EXE_nanoseg-learner"))
        .args(["--print", "--pin", &pinned.pins, "--cgroup-root"])
        .arg(&pinned.node.cgroup)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("another learner has the folder"), "{error}");
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    first.end();
    // Told to pin where that is impossible, it observes all the same.
    pinned
        .node
        .learner(&["--pin", "/tmp/nanoseg-is-no-bpf-file-system"])
        .end();
}

#[test]
fn pins_that_may_not_be_seen_are_not_taken_for_removed() {
    let Some(pinned) = Pinned::new() else { return };
    pinned.learner(&[]).end();
    let mount = Path::new(&pinned.pins).parent().unwrap();
    let allow = |mode| fs::set_permissions(mount, fs::Permissions::from_mode(mode)).unwrap();
    allow(0);
    let output = Command::new("setpriv")
        .args(["--bounding-set", "-dac_override,-dac_read_search", "--"])
        .args([
            env!("CARGO_BIN_EXE_nanoseg-learner"),
            "--uninstall",
            "--pin",
            &pinned.pins,
        ])
        .output()
        .unwrap();
    allow(0o700);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    assert!(
        error.contains(&pinned.pins) && error.contains("Permission denied"),
        "{error}"
    );
    assert!(fs::exists(&pinned.pins).unwrap());
}

/// A key of the flow map and its value, as far as a test is concerned with them.
type Flows = aya::maps::HashMap<MapData, [u8; 24], [u8; 72]>;

#[test]
fn room_that_a_learner_did_not_live_to_give_back_is_given_by_the_next() {
    // With these it has as much as is free, and may have no more.
    const MOST: u16 = 32;
    let Some(pinned) = Pinned::new() else { return };
    let arguments = ["--map-entries", "64"];
    let first = pinned.learner(&arguments);
    // Stopped, so that it makes no room of its own.
    first.signal(Signal::STOP);
    pinned.spray(1000, MOST);
    first.kill();
    // As it is between taking keys out and counting them.
    let flows = MapData::from_pin(format!("{}/FLOWS", pinned.pins)).unwrap();
    let mut flows = Flows::try_from(Map::HashMap(flows)).unwrap();
    let keys: Vec<_> = flows.keys().map(Result::unwrap).collect();
    assert_eq!(keys.len(), usize::from(MOST));
    for key in keys {
        flows.remove(&key).unwrap();
    }

    let second = pinned.learner(&arguments);
    second.signal(Signal::STOP);
    pinned.spray(2000, MOST);
    second.signal(Signal::CONT);
    let report = second.end();
    assert_eq!(report.of(&pinned.client.subject()).count(), usize::from(MOST));
    assert!(report.losses.is_empty(), "{:?}", report.losses);
}

fn layout(pins: &str) -> Array<MapData, u64> {
    let header = MapData::from_pin(format!("{pins}/HEADER")).unwrap();
    Map::Array(header).try_into().unwrap()
}

/// Of the version before everything means the same: an upgrade loses nothing.
#[test]
fn what_the_version_before_left_is_gone_on_with() {
    let Some(pinned) = Pinned::new() else { return };
    let first = pinned.learner(Pinned::FEW);
    let before = pinned.fill(&first, 0);
    first.kill();
    let pins = &pinned.pins;
    // As the version before leaves it: without a place for what left.
    layout(pins).set(Header::Layout as u32, LAYOUTS[0], 0).unwrap();
    let archive = MapData::from_pin(format!("{pins}/ARCHIVE")).unwrap();
    let mut archive: aya::maps::HashMap<MapData, [u8; 32], [u8; 80]> = Map::HashMap(archive).try_into().unwrap();
    let left = archive.keys().map(Result::unwrap).find(|key| key[..8] == [0; 8]);
    archive.remove(&left.unwrap()).unwrap();
    assert!(archive.keys().count() > 0, "something left the flow map");
    // And without places for what it did not count by itself.
    let older = EbpfLoader::new()
        .map_max_entries(name::COUNTERS, 14)
        .load(OBJECT)
        .unwrap();
    let counters = Path::new(pins).join(name::COUNTERS);
    fs::remove_file(&counters).unwrap();
    older.map(name::COUNTERS).unwrap().pin(&counters).unwrap();
    pinned.spray(1000, 1);

    let second = pinned.learner(&["--map-entries", "32", "--health-listen=127.0.0.1:0"]);
    let after = pinned.wait_for_again(&second);
    let capacity = second.metric("nanoseg_learner_map_capacity");
    assert_eq!(capacity, 16, "what is there, and not what was asked for");
    assert_eq!(after.origin, before.origin, "the same run");
    assert_eq!(after.of(&pinned.client.subject()).count(), 16);
    assert!(after.losses.is_empty(), "{:?}", after.losses);
    second.kill();
    // The version before would not understand what is there now.
    assert_eq!(layout(pins).get(&(Header::Layout as u32), 0).unwrap(), LAYOUT);
}

/// Counts of programs of another version may mean something else.
#[test]
fn p28_what_another_version_left_is_never_read_and_another_run_begins() {
    let Some(pinned) = Pinned::new() else { return };
    let of_client = |report: &Report| report.of(&pinned.client.subject()).count();
    let first = pinned.learner(&[]);
    pinned.spray(1000, 4);
    let before = first.wait_for("every flow", |report| of_client(report) == 4);
    let programs = first.program_ids();
    first.kill();
    layout(&pinned.pins).set(Header::Layout as u32, LAYOUT + 1, 0).unwrap();

    let second = pinned.learner(&[]);
    pinned.spray(2000, 2);
    let after = second.wait_for("what came since", |report| {
        report.origin != before.origin && of_client(report) > 1
    });
    assert!(after.origin.epoch > before.origin.epoch);
    let ports: Vec<u16> = after.flows.iter().map(|flow| flow.key.port).collect();
    assert_eq!(ports, [2000, 2001]);
    // Of each flow that was there something may not have been told.
    let discarded = [Loss {
        subject: None,
        reason: LossReason::Discarded,
        count: 4,
    }];
    assert_eq!(after.losses, discarded);
    wait_until_gone(&programs);
    // Its own are as they should be, and nothing that was lost is forgotten.
    second.kill();
    let last = pinned.learner(&[]).end();
    assert_eq!((last.origin, &last.losses[..]), (after.origin, &discarded[..]));
}

/// What a sensor takes of a node is what its kernel hands to it.
#[test]
fn p29_a_thousand_connections_of_an_edge_are_one_announcement() {
    const PORTS: u16 = 5;
    const TIMES: u16 = 1000;
    let Some(pinned) = Pinned::new() else { return };
    let Pinned {
        node: _,
        client,
        server,
        pins,
    } = &pinned;
    let first = pinned.learner(&[]);
    // Stopped, so that this test alone reads what is announced.
    first.signal(Signal::STOP);
    client
        .run(&[Step::Knock {
            to: server.v4.into(),
            first_port: 1000,
            ports: PORTS,
            times: TIMES,
        }])
        .end();
    let announcements = MapData::from_pin(format!("{pins}/ANNOUNCEMENTS")).unwrap();
    let mut announcements = RingBuf::try_from(Map::RingBuf(announcements)).unwrap();
    let mut count = 0;
    while announcements.next().is_some() {
        count += 1;
    }
    assert_eq!(count, PORTS);
    first.kill();

    let report = pinned.learner(&[]).end();
    let times = u64::from(TIMES);
    for port in 1000..1000 + PORTS {
        let counts = report.counts(&client.subject(), Reporter::Source, server.v4, port, Transport::Tcp);
        assert_eq!(counts, Some([times, 0, times]), "{port}");
    }
}
