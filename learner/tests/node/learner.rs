//! The learner that a test runs, and what it reports.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nanoseg_graph::flow::{Flow, LossReason, Report, Reporter, Subject, Tally, Transport};

use super::{Node, PATIENCE};

impl Node {
    /// Starts a learner and waits until it observes.
    pub(crate) fn learner(&self, arguments: &[&str]) -> Learner {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nanoseg-learner"));
        command.args(arguments);
        self.learner_as(command)
    }

    /// Starts a learner that has `CAP_BPF` and `CAP_NET_ADMIN` and nothing else.
    pub(crate) fn learner_with_two_capabilities(&self, arguments: &[&str]) -> Learner {
        let mut command = Command::new("setpriv");
        command
            .args(["--bounding-set", "-all,+bpf,+net_admin", "--"])
            .arg(env!("CARGO_BIN_EXE_nanoseg-learner"))
            .args(arguments);
        self.learner_as(command)
    }

    /// A folder to pin in, of a bpf file system of this node's own.
    pub(crate) fn pins(&self) -> String {
        let mount = self.folder.path().join("bpf");
        if !mount.exists() {
            fs::create_dir(&mount).unwrap();
            let status = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&mount).status();
            assert!(status.unwrap().success());
        }
        mount.join("nanoseg").to_str().unwrap().to_owned()
    }

    /// Starts a learner by another command in front of it.
    pub(crate) fn learner_as(&self, mut command: Command) -> Learner {
        command.arg("--cgroup-root").arg(&self.cgroup);
        Learner::start(command, self.folder.path())
    }
}

/// A learner that is running. Killed when it is dropped.
pub(crate) struct Learner {
    pub(crate) child: Child,
    /// Where it answers probes, if it was told to.
    address: Option<String>,
    folder: PathBuf,
}

impl Learner {
    /// Starts it with reports in a folder, and waits until it observes.
    pub(crate) fn start(command: Command, folder: &Path) -> Self {
        Self::start_with(command, folder, "100ms")
    }

    /// The same, with reports at another interval.
    pub(crate) fn start_with(mut command: Command, folder: &Path, interval: &str) -> Self {
        let mut child = command
            .arg("--out")
            .arg(folder)
            .args(["--node", "here", "--interval", interval])
            // No test has datagrams under way at the start, unless it says so by the argument.
            .env("NANOSEG_UDP_GRACE", "0s")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = Vec::new();
        let observing = lines.by_ref().map_while(Result::ok).any(|line| {
            log.push(line);
            log.last().is_some_and(|line| line.contains("observing"))
        });
        assert!(observing, "the learner did not start: {log:#?}");
        // Its log goes on to where test output goes.
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| eprintln!("learner: {line}"));
        });
        let address = log
            .iter()
            .filter(|line| line.contains("answering /healthz"))
            .find_map(|line| line.split("address=").nth(1)?.split(' ').next().map(str::to_owned));
        Self {
            child,
            address,
            folder: folder.to_owned(),
        }
    }

    /// Its report, if it wrote one: the newest in its folder.
    pub(crate) fn report(&self) -> Option<Report> {
        let files = fs::read_dir(&self.folder).ok()?.map(|entry| entry.unwrap().path());
        let path = files
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .max()?;
        let text = fs::read(path).unwrap();
        Some(serde_json::from_slice(&text).expect("a report is whole whenever it is there"))
    }

    /// Waits until the report is as described.
    pub(crate) fn wait_for(&self, what: &str, mut is_there: impl FnMut(&Report) -> bool) -> Report {
        let end = Instant::now() + PATIENCE;
        loop {
            let report = self.report();
            if let Some(report) = report.as_ref().filter(|report| is_there(report)) {
                return report.clone();
            }
            assert!(Instant::now() < end, "{what} is not in the report: {report:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// Ends it as the kernel does, which asks nobody.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end and returns its last report.
    pub(crate) fn end(mut self) -> Report {
        self.signal(rustix::process::Signal::TERM);
        assert!(
            self.child.wait().unwrap().success(),
            "asked to end, it ends with success"
        );
        self.report().unwrap()
    }

    /// How many events are in its flows.
    pub(crate) fn recorded(&self) -> u64 {
        self.metric("nanoseg_learner_recorded_total")
    }

    /// Waits until the kernel's map holds no more than so many flows, whose room is given to others by then.
    pub(crate) fn wait_for_room(&self, most: u64) {
        let end = Instant::now() + PATIENCE;
        loop {
            let held = self.metric("nanoseg_learner_map_entries");
            if held <= most {
                return;
            }
            assert!(Instant::now() < end, "{held} flows stay in the map");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What it answers who asks for metrics.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.address.as_deref().unwrap()).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.expect("it is among the metrics")
    }

    /// How many folders it watches.
    pub(crate) fn watches(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fdinfo", self.child.id())).unwrap();
        let texts = files.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
        texts.map(|text| text.matches("inotify wd:").count()).max().unwrap()
    }

    /// Ids of the eBPF programs that it has attached.
    pub(crate) fn program_ids(&self) -> Vec<u32> {
        let folder = format!("/proc/{}/fdinfo", self.child.id());
        let texts = fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
        texts
            .filter(|text| text.contains("link_type:"))
            .filter_map(|text| {
                text.lines()
                    .find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
            })
            .collect()
    }
}

impl Drop for Learner {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

/// What tests ask of reports.
pub(crate) trait Reported {
    /// The counts of one flow: attempted, established, refused.
    fn counts(
        &self,
        subject: &Subject,
        reporter: Reporter,
        peer: impl Into<IpAddr>,
        port: u16,
        transport: Transport,
    ) -> Option<[u64; 3]>;
    fn of<'a>(&'a self, subject: &'a Subject) -> impl Iterator<Item = &'a Flow>;
    fn lost(&self, subject: &Subject, reason: LossReason) -> u64;
}

impl Reported for Report {
    fn counts(
        &self,
        subject: &Subject,
        reporter: Reporter,
        peer: impl Into<IpAddr>,
        port: u16,
        transport: Transport,
    ) -> Option<[u64; 3]> {
        let peer = peer.into();
        let mut found = self.of(subject).filter(|Flow { key, .. }| {
            key.reporter == reporter && key.peer == peer && key.port == port && key.transport == transport
        });
        let Tally {
            attempted,
            established,
            refused,
            ..
        } = found.next()?.tally;
        assert!(found.next().is_none(), "a flow is in a report once");
        Some([attempted, established, refused])
    }

    fn of<'a>(&'a self, subject: &'a Subject) -> impl Iterator<Item = &'a Flow> {
        self.flows.iter().filter(move |flow| flow.key.subject == *subject)
    }

    fn lost(&self, subject: &Subject, reason: LossReason) -> u64 {
        let of_it = self
            .losses
            .iter()
            .filter(|loss| loss.subject.as_ref() == Some(subject) && loss.reason == reason);
        of_it.map(|loss| loss.count).sum()
    }
}
