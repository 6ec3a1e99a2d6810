//! `lab demo`: the learner and the controller on a small lab, and what they find out.
//!
//! Guarantees: it shows only what the programs themselves say; it ends by itself, also where something hangs; afterwards the lab
//! and both programs are gone, and what they wrote is left.

mod programs;
mod screen;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nanoseg_lab::app::{App, ObjectName, When};
use nanoseg_lab::control::Interrupts;
use nanoseg_lab::small::{self, Lab, Options};

use programs::{Programs, Violation};
use screen::Screen;

/// Long enough for two runs of a `CronJob` and twenty of everything else.
const LEARN_FOR: Duration = Duration::from_secs(20);
/// When a step is given up: each takes a second on an idle machine, beside the time that passes in any case.
const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks at what the programs wrote; the learner reports once a second.
const LOOK: Duration = Duration::from_secs(1);
/// Violations keep coming in for a while: the last ones are those whose connections run into a timeout.
const QUIET: Duration = Duration::from_secs(3);
/// The longest until all windows end: that of a `CronJob` begins with the first run that is seen.
const LEARNING: Duration = LEARN_FOR.saturating_add(CRON_EVERY);
/// Fewer runs than finished Jobs stay, so that every flow's pod is still among the manifests that are left.
const CRON_EVERY: Duration = Duration::from_secs(25);
/// A policy that is printed in full is to fit on a screen.
const MOST_LINES: usize = 80;

pub(crate) fn run(app: &App, intruder: &str, out: Option<PathBuf>, stay: bool) -> Result<()> {
    let mut interrupts = Interrupts::take()?;
    let speaks = intruder.parse::<ObjectName>().is_ok_and(|id| {
        app.workload(&id)
            .is_some_and(|workload| workload.calls.iter().any(|call| call.when == When::Told))
    });
    if !speaks {
        bail!("no workload {intruder} with calls `when: told` is described: name one by --intruder");
    }
    let out = Out::prepare(out)?;
    let mut screen = Screen::new();
    screen.title("nanoseg demo: real containers and eBPF on this machine, no Kubernetes");

    let begin = Instant::now();
    let mut options = Options::new(format!("demo-{}", std::process::id()));
    options.cron_every = CRON_EVERY;
    let lab = Lab::up(app, &options)?;
    let containers = lab.containers();
    screen.step(
        "the application",
        &format!("{containers} containers run, {:.1} s", begin.elapsed().as_secs_f32()),
    );
    screen.detail("each is a network namespace and a cgroup, named as kubelet names it");
    screen.detail(&format!("cgroups    {}", lab.cgroup_root().display()));
    screen.detail(&format!("manifests  {}", lab.cluster_dir().display()));

    let mut programs = Programs::start(&lab, &out.root, LEARN_FOR)?;
    let found = follow(
        &mut interrupts,
        &mut programs,
        "the learner to find containers",
        Duration::ZERO,
        |programs| Ok(Some(programs.containers()?).filter(|found| *found > 0)),
    )?;
    screen.step(
        "the learner",
        &format!("{found} containers found by their cgroups, two eBPF programs attached"),
    );
    let page = follow(&mut interrupts, &mut programs, "the page", Duration::ZERO, |programs| {
        programs.page()
    })?;
    screen.detail(&format!("to look at it in a browser, for as long as it runs: {page}"));
    screen.step(
        "the graph",
        &format!("who talks to whom, learned for {} s", LEARN_FOR.as_secs()),
    );
    let edges = learn(&mut interrupts, &mut programs, &mut screen, lab.cluster_dir())?;

    let policies = programs.policies()?;
    let place = out.shown(&out.root.join("policies/proposed"));
    screen.step(
        "the policies",
        &format!("{} from {edges} edges, in {place}", policies.len()),
    );
    for path in &policies {
        screen.detail(
            &path
                .strip_prefix(out.root.join("policies/proposed"))
                .unwrap_or(path)
                .display()
                .to_string(),
        );
    }
    if let Some((path, text)) = readable(&policies)? {
        screen.detail("");
        screen.detail(&format!("one of them in full, {}:", out.shown(path)));
        screen.text(&text);
    }

    screen.step("the intruder", &format!("{intruder} is told to speak once"));
    lab.say(intruder)?;
    let violations = violations(&mut interrupts, &mut programs)?;
    for Violation {
        source,
        destination,
        port,
        protocol,
        verdict,
    } in &violations
    {
        screen.alarm(&format!("{source} -> {destination} {protocol} {port}"));
        let reason = verdict.strip_prefix("denied: ").unwrap_or(verdict);
        screen.detail(&format!("  {reason}"));
    }
    let calls = lab.ledger(intruder)?;
    screen.detail(&format!(
        "{} edges would be denied; nothing was, because nobody asked to enforce: {} of its {} calls were answered",
        violations.len(),
        calls.iter().filter(|call| call.ok).count(),
        calls.len()
    ));

    if stay && !violations.is_empty() {
        linger(&mut interrupts, &mut programs, &mut screen, &page)?;
    }
    out.keep_manifests(lab.cluster_dir())?;
    programs.end()?;
    lab.down()?;
    if violations.is_empty() {
        bail!(
            "{intruder} spoke and no violation was reported: see {}",
            out.shown(&out.root)
        );
    }
    next(&mut screen, &out, begin.elapsed());
    Ok(())
}

/// Leaves everything as it is until somebody has seen enough.
fn linger(interrupts: &mut Interrupts, programs: &mut Programs, screen: &mut Screen, page: &str) -> Result<()> {
    screen.step("the page", &format!("{page} stays until you press Ctrl-C"));
    while !interrupts.came() {
        programs.check()?;
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Looks again and again until there is something to see, which takes so long at least.
fn follow<T>(
    interrupts: &mut Interrupts,
    programs: &mut Programs,
    what: &str,
    takes: Duration,
    mut look: impl FnMut(&mut Programs) -> Result<Option<T>>,
) -> Result<T> {
    let patience = takes + PATIENCE;
    let deadline = Instant::now() + patience;
    loop {
        if let Some(seen) = look(programs)? {
            return Ok(seen);
        }
        if interrupts.came() {
            bail!("interrupted; the lab was removed");
        }
        programs.check()?;
        if Instant::now() > deadline {
            bail!("waited {} s for {what}", patience.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

/// Shows each edge when it is learned, until every workload's learning window has ended. Returns how many there are.
fn learn(interrupts: &mut Interrupts, programs: &mut Programs, screen: &mut Screen, cluster: &Path) -> Result<usize> {
    let begin = Instant::now();
    let mut shown = BTreeSet::new();
    follow(
        interrupts,
        programs,
        "the learning windows to end",
        LEARNING,
        |programs| {
            for edge in programs.edges(cluster)? {
                if shown.insert(edge.clone()) {
                    screen.news(&edge.to_string());
                }
            }
            let elapsed = begin.elapsed();
            screen.progress(
                elapsed.as_secs_f32() / LEARN_FOR.as_secs_f32(),
                &format!("{} edges", shown.len()),
            );
            Ok((elapsed >= LEARN_FOR && programs.all_proposed()?).then_some(()))
        },
    )?;
    screen.end_progress();
    Ok(shown.len())
}

/// What the controller reports, once it has reported something and then nothing more for a while.
fn violations(interrupts: &mut Interrupts, programs: &mut Programs) -> Result<Vec<Violation>> {
    let (mut known, mut since) = (0, Instant::now());
    let waited = follow(interrupts, programs, "violations", Duration::ZERO, |programs| {
        let violations = programs.violations()?;
        if violations.len() != known {
            (known, since) = (violations.len(), Instant::now());
        }
        Ok((known > 0 && since.elapsed() >= QUIET).then_some(violations))
    });
    // None at all is for the caller to judge, with everything else at hand.
    if known == 0 && Instant::now() > since + PATIENCE {
        Ok(Vec::new())
    } else {
        waited
    }
}

/// The longest policy that still fits on a screen.
fn readable(policies: &[PathBuf]) -> Result<Option<(&Path, String)>> {
    let mut best: Option<(usize, &Path, String)> = None;
    for path in policies {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let lines = text.lines().count();
        if lines <= MOST_LINES && best.as_ref().is_none_or(|(longest, _, _)| lines > *longest) {
            best = Some((lines, path, text));
        }
    }
    Ok(best.map(|(_, path, text)| (path, text)))
}

fn next(screen: &mut Screen, out: &Out, took: Duration) {
    let shown = |name: &str| out.shown(&out.root.join(name));
    let (cluster, flows, policies) = (shown("cluster"), shown("flows"), shown("policies/proposed"));
    let nanoseg = small::beside("nanoseg").map_or_else(|_unknown| "nanoseg".to_owned(), |path| out.shown(&path));
    let lab = small::beside("lab").map_or_else(|_unknown| "lab".to_owned(), |path| out.shown(&path));
    screen.title(&format!(
        "done in {} s; the lab is gone, what was learned stays. Try next:",
        took.as_secs()
    ));
    for (command, about) in [
        (
            format!("{nanoseg} audit --cluster {cluster} --flows {flows} --policies {policies}"),
            "every flow that they would deny, and why",
        ),
        (
            format!("{nanoseg} graph --cluster {cluster} --flows {flows}"),
            "the connection graph",
        ),
        (
            format!("less {policies}/*/*.yaml"),
            "the policies, with what each rule comes from",
        ),
        (
            format!("{lab} up --full"),
            "the same application on a real cluster of two nodes (some minutes the first time)",
        ),
        (format!("{nanoseg} --help"), "everything else"),
    ] {
        screen.command(&command, about);
    }
}

/// Where everything that stays is written.
struct Out {
    root: PathBuf,
    here: PathBuf,
}

/// Says that a folder is a demo's own, so that the next one may empty it.
const MARK: &str = ".nanoseg-demo";

impl Out {
    fn prepare(root: Option<PathBuf>) -> Result<Self> {
        let root = if let Some(root) = root {
            root
        } else {
            let own = small::beside("lab")?;
            let built = own.parent().and_then(Path::parent);
            built.unwrap_or(Path::new(".")).join("demo")
        };
        let failed = || format!("{} cannot be prepared", root.display());
        if root.exists() {
            let empty = std::fs::read_dir(&root).with_context(failed)?.next().is_none();
            if !empty && !root.join(MARK).exists() {
                bail!(
                    "{} is not empty and not an earlier demo's: choose another folder by --out",
                    root.display()
                );
            }
            std::fs::remove_dir_all(&root).with_context(failed)?;
        }
        std::fs::create_dir_all(&root).with_context(failed)?;
        std::fs::write(root.join(MARK), "").with_context(failed)?;
        let here = std::env::current_dir()
            .and_then(|here| here.canonicalize())
            .with_context(failed)?;
        let root = root.canonicalize().with_context(failed)?;
        Ok(Self { root, here })
    }

    /// A path as somebody would write it who is here.
    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.here).unwrap_or(path).display().to_string()
    }

    /// The lab takes its manifests with it, and the next commands need them.
    fn keep_manifests(&self, from: &Path) -> Result<()> {
        let to = self.root.join("cluster");
        let copy = || -> std::io::Result<()> {
            std::fs::create_dir_all(&to)?;
            for entry in std::fs::read_dir(from)? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "yaml")
                    && let Some(name) = path.file_name()
                {
                    std::fs::copy(&path, to.join(name))?;
                }
            }
            Ok(())
        };
        copy().with_context(|| format!("the manifests cannot be kept in {}", to.display()))
    }
}
