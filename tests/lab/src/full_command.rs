//! What `lab` does with the full lab.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use nanoseg_lab::app::{App, ObjectName};
use nanoseg_lab::control::Interrupts;
use nanoseg_lab::full::{Cluster, Options, with_image};
use nanoseg_lab::peer::{Call, Ledger};
use nanoseg_lab::small;

use crate::arguments::Form;
use crate::building;
use crate::small_command::print_calls;
use crate::stdout::{answer, remark};

pub(crate) fn up(app: &App, foreground: bool) -> Result<()> {
    // Two take the memory of two, and every other command would mean the younger one.
    if let Ok(running) = find()
        && running.was_left_running()
    {
        bail!(
            "a full lab is up already, its files are in {}: lab down --full ends it",
            running.folder().display()
        );
    }
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let waiter = std::thread::current();
    Interrupts::take()?.at_first(move || {
        flag.store(true, Ordering::Release);
        waiter.unpark();
    });
    let options = Options {
        keep: !foreground,
        say: Box::new(|text| eprintln!("lab: {text}")),
        stop: Arc::clone(&stop),
        ..Options::new(building::static_peer()?)
    };
    let mut cluster = Cluster::up(options)?;
    if let Err(error) = cluster.apply(app) {
        // It may have been asked to stay, but half an application is of no use.
        cluster.down().context("the lab could not be removed after a failure")?;
        return Err(error.into());
    }
    remark("the full lab is up");
    remark(format_args!("  {:<13} {}", "files", cluster.folder().display()));
    remark(format_args!(
        "  {:<13} {}",
        "kubeconfig",
        cluster.kubeconfig().display()
    ));
    remark(format_args!("  {:<13} {}", "kubectl", command_line(&cluster.kubectl())));
    for node in cluster.nodes() {
        remark(format_args!("  {:<13} cgroup {}", node.name, node.cgroup.display()));
    }
    if !foreground {
        remark("\nnext: lab kubectl get pods -A   lab status --full   lab say --full shop/intruder   lab down --full");
        return Ok(());
    }
    remark("\nCtrl-C ends it.");
    while !stop.load(Ordering::Acquire) {
        std::thread::park();
    }
    Ok(cluster.down()?)
}

fn command_line(command: &std::process::Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

fn find() -> Result<Cluster> {
    // Only a lab that is coming up makes an image of it.
    Ok(Cluster::find(small::beside("lab-peer")?)?)
}

fn parse(who: &str) -> Result<ObjectName> {
    who.parse().map_err(|reason: String| anyhow!(reason))
}

pub(crate) fn say(who: &str) -> Result<()> {
    let told = find()?.say_to(&parse(who)?)?;
    if told == 0 {
        bail!("no pod of {who} runs in the full lab");
    }
    remark(format_args!("{told} told"));
    Ok(())
}

pub(crate) fn status(form: Form) -> Result<()> {
    print_calls(&calls(&find()?)?, form)
}

/// The calls in the logs of every pod that still exists, oldest first.
fn calls(cluster: &Cluster) -> Result<Vec<Call>> {
    let pods = cluster.get(&["get", "pods", "--all-namespaces"])?;
    let mut calls = Vec::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let output = cluster
            .kubectl()
            .args(["logs", "--namespace", &namespace, &name])
            .stdin(Stdio::null())
            .output()
            .context("kubectl cannot be run")?;
        // A pod that has not started has no log, and is none the worse for it.
        if output.status.success() {
            calls.extend(Ledger::parse(&String::from_utf8_lossy(&output.stdout)));
        }
    }
    calls.sort_by_key(|call| call.at);
    Ok(calls)
}

/// The folder of the programs that were built with this one.
fn programs() -> Result<PathBuf> {
    let learner = small::beside("nanoseg-learner")?;
    Ok(learner.parent().unwrap_or(Path::new("/")).to_owned())
}

pub(crate) fn install(manifests: &Path, enforce: &[String]) -> Result<()> {
    find()?.install(&programs()?, manifests, enforce)?;
    eprintln!("lab: nanoseg runs\n\nnext: lab kubectl get segments -A -w");
    Ok(())
}

pub(crate) fn image(out: &Path) -> Result<()> {
    with_image(&programs()?, |image| image.write(out))?;
    answer(&format!("{}\n", out.display()))
}

pub(crate) fn kubeconfig() -> Result<()> {
    answer(&format!("{}\n", find()?.kubeconfig().display()))?;
    eprintln!("lab: the API server answers only in the lab's own network; `lab kubectl get pods -A` goes there");
    Ok(())
}

/// Becomes kubectl where the API server answers.
pub(crate) fn become_kubectl(arguments: &[OsString]) -> Result<()> {
    Err(find()?.kubectl().args(arguments).exec()).context("kubectl cannot be run")
}

/// The object of a workload, as `kubectl` names it.
fn object(cluster: &Cluster, id: &ObjectName) -> Result<String> {
    let kinds = "deployments,statefulsets,daemonsets,cronjobs,jobs,pods";
    let found = cluster.get(&["get", kinds, "--namespace", id.namespace.as_str()])?;
    found["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|object| {
            object["metadata"]["name"] == id.name.as_str() && object["metadata"]["ownerReferences"].is_null()
        })
        .and_then(|object| Some(format!("{}/{}", object["kind"].as_str()?.to_lowercase(), id.name)))
        .ok_or_else(|| anyhow!("no workload {id} is in the full lab"))
}

fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    let status = cluster
        .kubectl()
        .args(arguments)
        .status()
        .context("kubectl cannot be run")?;
    if status.success() {
        Ok(())
    } else {
        Err(anyhow!("kubectl {} failed", arguments.join(" ")))
    }
}

pub(crate) fn roll(who: &str) -> Result<()> {
    let (cluster, id) = (find()?, parse(who)?);
    let (object, namespace) = (object(&cluster, &id)?, id.namespace.as_str());
    kubectl(&cluster, &["rollout", "restart", &object, "--namespace", namespace])?;
    kubectl(
        &cluster,
        &["rollout", "status", &object, "--namespace", namespace, "--timeout=120s"],
    )
}

pub(crate) fn delete(who: &str) -> Result<()> {
    let (cluster, id) = (find()?, parse(who)?);
    let object = object(&cluster, &id)?;
    kubectl(&cluster, &["delete", &object, "--namespace", id.namespace.as_str()])
}

pub(crate) fn down() -> Result<()> {
    Cluster::down_all()?;
    remark("no full lab is up");
    Ok(())
}
