//! The learner and the controller as they are: started as anybody would start them, and read by what they write.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nanoseg_lab::small::{self, Lab};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

/// A program that was asked to end does so in milliseconds.
const FAREWELL: Duration = Duration::from_secs(5);

/// An edge, as `nanoseg graph -o json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Edge {
    source: String,
    destination: String,
    port: u16,
    protocol: String,
    #[serde(default)]
    via: Vec<String>,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            destination,
            port,
            protocol,
            via,
        } = self;
        write!(f, "{source} -> {destination} {protocol} {port}")?;
        if via.is_empty() {
            Ok(())
        } else {
            write!(f, "  through Service {}", via.join(", "))
        }
    }
}

/// A violation, as the controller writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Violation {
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) port: u16,
    pub(crate) protocol: String,
    pub(crate) verdict: String,
}

/// Both programs.
pub(crate) struct Programs {
    learner: Program,
    controller: Program,
    nanoseg: PathBuf,
    out: PathBuf,
}

struct Program {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Program {
    fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("{} cannot be read", self.log.display()))
    }

    fn check(&mut self) -> Result<()> {
        match self
            .child
            .try_wait()
            .with_context(|| format!("{} cannot be watched", self.name))?
        {
            None => Ok(()),
            Some(status) => {
                let log = self.log()?;
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                bail!("{} ended ({status}):\n{}", self.name, last.join("\n"))
            }
        }
    }

    fn end(&mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // One that has ended already is as good.
            let _ended = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + FAREWELL;
        while self
            .child
            .try_wait()
            .with_context(|| format!("{} cannot be watched", self.name))?
            .is_none()
        {
            if Instant::now() > deadline {
                bail!("{} does not end", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Programs {
    /// Starts both. They end with this process, and with the lab at the latest.
    pub(crate) fn start(lab: &Lab, out: &Path, learn_for: Duration) -> Result<Self> {
        let place = lab.place();
        let nanoseg = small::beside("nanoseg")?;
        let flows = out.join("flows");
        fs::create_dir_all(&flows).with_context(|| format!("{} cannot be created", flows.display()))?;
        let start = |name: &'static str, netns: Option<&Path>, arguments: &dyn Fn(&mut Command)| -> Result<Program> {
            let program = small::beside(name)?;
            if !program.is_file() {
                bail!(
                    "{} is not there: build it with `cargo build --workspace`",
                    program.display()
                );
            }
            // Outside the node's own cgroup, as a program of the node that is no container, and among what the lab removes.
            let cgroup = place.cgroup_outside.join(name);
            fs::create_dir_all(&cgroup).with_context(|| format!("{} cannot be created", cgroup.display()))?;
            let log = out.join(format!("{name}.log"));
            let file = File::create(&log).with_context(|| format!("{} cannot be created", log.display()))?;
            let mut command = Command::new(small::beside("lab-peer")?);
            command.arg("enter").arg("--cgroup").arg(&cgroup);
            if let Some(netns) = netns {
                command.arg("--netns").arg(netns);
            }
            command.args(["--dies-with-parent", "--"]).arg(&program);
            arguments(&mut command);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
            let child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
            Ok(Program { name, child, log })
        };
        let learner = start("nanoseg-learner", Some(&place.node_netns), &|command| {
            command
                .arg("--cgroup-root")
                .arg(&place.cgroup_root)
                .args(["--node", &place.node])
                .arg("--out")
                .arg(&flows);
        })?;
        // On folders it talks to nobody; its page is for the browser of whoever watches, at the machine's own loopback.
        let controller = start("nanoseg", None, &|command| {
            command
                .args(["controller", "--cluster"])
                .arg(&place.cluster)
                .arg("--flows")
                .arg(&flows);
            command
                .arg("--out")
                .arg(out.join("policies"))
                .args(["--learn-for", &format!("{}s", learn_for.as_secs())])
                .args(["--page-listen", "127.0.0.1:0"]);
        })?;
        Ok(Self {
            learner,
            controller,
            nanoseg,
            out: out.to_owned(),
        })
    }

    /// Fails if one of them has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.learner.check()?;
        self.controller.check()
    }

    pub(crate) fn end(&mut self) -> Result<()> {
        self.learner.end()?;
        self.controller.end()
    }

    /// How many containers the learner has found so far; 0 before it observes.
    pub(crate) fn containers(&self) -> Result<usize> {
        let log = self.learner.log()?;
        let observes = log.contains("observing");
        Ok(if observes {
            log.matches("container found").count()
        } else {
            0
        })
    }

    /// Where the controller's page is, once it is served.
    pub(crate) fn page(&self) -> Result<Option<String>> {
        let log = self.controller.log()?;
        let line = log.lines().find_map(|line| line.split_once("the page is at "));
        Ok(line.map(|(_, url)| url.trim().to_owned()))
    }

    /// The edges that the recorded flows make up.
    pub(crate) fn edges(&self, cluster: &Path) -> Result<Vec<Edge>> {
        let flows = self.out.join("flows");
        if fs::read_dir(&flows)
            .with_context(|| format!("{} cannot be read", flows.display()))?
            .next()
            .is_none()
        {
            return Ok(Vec::new());
        }
        let output = Command::new(&self.nanoseg)
            .args(["graph", "--output", "json", "--cluster"])
            .arg(cluster)
            .arg("--flows")
            .arg(&flows)
            .stdin(Stdio::null())
            .output()
            .context("nanoseg cannot be run")?;
        if !output.status.success() {
            bail!("nanoseg graph: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str(line).context("nanoseg graph printed an edge that is not understood"))
            .collect()
    }

    /// Whether every workload that was seen has been learned and has its proposal.
    pub(crate) fn all_proposed(&self) -> Result<bool> {
        let segments = files(&self.out.join("policies/segments"), "yaml")?;
        for segment in &segments {
            let text = fs::read_to_string(segment).with_context(|| format!("{} cannot be read", segment.display()))?;
            if !text.lines().any(|line| line.trim() == "phase: Proposed") {
                return Ok(false);
            }
        }
        Ok(!segments.is_empty())
    }

    /// The proposed policies, in order.
    pub(crate) fn policies(&self) -> Result<Vec<PathBuf>> {
        files(&self.out.join("policies/proposed"), "yaml")
    }

    /// The violations that the controller has reported so far.
    pub(crate) fn violations(&self) -> Result<Vec<Violation>> {
        let path = self.out.join("policies/violations.jsonl");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        // The last line may still be being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| {
                serde_json::from_str(line).map_err(|error| anyhow!("a violation that is not understood: {error}"))
            })
            .collect()
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        for program in [&mut self.learner, &mut self.controller] {
            // After an end that went wrong: the lab's own end takes what this leaves.
            drop(program.child.kill());
            drop(program.child.wait());
        }
        drop(std::io::stdout().flush());
    }
}

/// The files with an extension in the folders of a folder, in order. A folder that is not there has none.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", folder.display())),
    };
    for entry in entries {
        let path = entry
            .with_context(|| format!("{} cannot be read", folder.display()))?
            .path();
        if path.is_dir() {
            found.extend(files(&path, extension)?);
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
