//! What `lab` does with a small lab.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use nanoseg_lab::app::App;
use nanoseg_lab::control::{self, Interrupts, Order};
use nanoseg_lab::small::{self, Driver, Lab, Options, Place};
use nanoseg_lab::status;

use crate::arguments::Form;
use crate::stdout::{answer, remark};

/// What the process in the background prints once the lab is up.
const UP: &str = "up";

/// Runs a lab in this process until it is told to end.
pub(crate) fn up(app: &App, id: &str, systemd_cgroups: bool, detach: bool) -> Result<()> {
    // Before anything is made: from here on an interruption takes the way that removes it again.
    let mut interrupts = Interrupts::take()?;
    let mut options = Options::new(id);
    if systemd_cgroups {
        options.driver = Driver::Systemd;
    }
    let lab = Lab::up(app, &options)?;
    if interrupts.came() {
        lab.down()?;
        bail!("interrupted; everything was removed again");
    }
    let mut out = std::io::stdout();
    if detach {
        writeln!(out, "{UP}")
            .and_then(|()| out.flush())
            .context("whoever started this lab is gone")?;
        control::detach(lab.place())?;
    } else {
        describe(lab.place());
        remark("\nCtrl-C ends it.");
    }
    Ok(control::serve(lab, interrupts)?)
}

/// Starts a process that runs a lab, and returns when the lab is up.
pub(crate) fn up_in_background(id: &str, app: Option<&Path>, systemd_cgroups: bool) -> Result<()> {
    let own = std::env::current_exe().context("this program's own file cannot be found")?;
    let mut command = Command::new(own);
    command
        .args(["up", "--detach", "--id", id])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if let Some(app) = app {
        command.arg("--app").arg(app);
    }
    if systemd_cgroups {
        command.arg("--systemd-cgroups");
    }
    let mut child = command.spawn().context("the lab's own process cannot be started")?;
    let out = child
        .stdout
        .take()
        .ok_or_else(|| anyhow!("the lab's own process has no output"))?;
    let mut line = String::new();
    BufReader::new(out)
        .read_line(&mut line)
        .context("the lab's own process cannot be heard")?;
    if line.trim_end() != UP {
        child.wait().context("the lab's own process cannot be waited for")?;
        // It has said why by itself.
        bail!("the lab did not come up");
    }
    describe(&Place::of(id)?);
    let own_id = if id == "default" {
        String::new()
    } else {
        format!(" --id {id}")
    };
    remark(format_args!(
        "\nnext: lab status{own_id}   lab say shop/intruder{own_id}   lab down{own_id}"
    ));
    Ok(())
}

fn describe(place: &Place) {
    let Place {
        id,
        state,
        cgroup_root,
        cgroup_outside,
        cluster,
        node_netns,
        node,
    } = place;
    remark(format_args!("lab {id} is up"));
    for (what, path) in [
        ("files", state),
        ("manifests", cluster),
        ("ledgers", &place.ledgers()),
        ("cgroup root", cgroup_root),
        ("outside", cgroup_outside),
        ("node network", node_netns),
    ] {
        remark(format_args!("  {what:<13} {}", path.display()));
    }
    remark(format_args!("  {:<13} {node}", "node name"));
}

pub(crate) fn say(id: &str, who: String) -> Result<()> {
    Ok(control::order(&Place::of(id)?, &Order::Say(who))?)
}

pub(crate) fn roll(id: &str, who: String, reuse_addresses: bool) -> Result<()> {
    Ok(control::order(&Place::of(id)?, &Order::Roll { who, reuse_addresses })?)
}

pub(crate) fn delete(id: &str, who: String) -> Result<()> {
    Ok(control::order(&Place::of(id)?, &Order::Delete(who))?)
}

pub(crate) fn status(id: &str, form: Form) -> Result<()> {
    let place = Place::of(id)?;
    if small::owner(id)?.is_none() {
        let others: Vec<String> = small::ids()?
            .into_iter()
            .filter(|id| small::owner(id).is_ok_and(|owner| owner.is_some()))
            .collect();
        if others.is_empty() {
            bail!(small::Error::NotUp(id.to_owned()));
        }
        bail!(
            "no lab `{id}` is up; there are {}: choose one with --id",
            others.join(", ")
        );
    }
    print_calls(&small::ledgers(&place)?, form)
}

/// Prints what became of calls.
pub(crate) fn print_calls(calls: &[nanoseg_lab::peer::Call], form: Form) -> Result<()> {
    let sums = status::sum(calls);
    let text = match form {
        Form::Table => status::table(&sums),
        Form::Json => {
            let lines: Vec<_> = sums.iter().map(|(pair, count)| status::Line { pair, count }).collect();
            serde_json::to_string_pretty(&lines).context("the status cannot be written as JSON")? + "\n"
        }
    };
    answer(&text)
}

pub(crate) fn down(id: &str) -> Result<()> {
    match control::order(&Place::of(id)?, &Order::Down) {
        Ok(()) => remark(format_args!("lab {id} is down")),
        Err(control::ControlError::Lab(small::Error::NotUp(_))) => {
            if let Some(owner) = small::owner(id)? {
                bail!("lab {id} belongs to process {owner}, which takes no orders (a test?): end that process");
            }
            // Nobody runs it, but something of it may be left.
            remark(if small::clear(id)? {
                "what was left of it is removed"
            } else {
                "there is none"
            });
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

pub(crate) fn down_all() -> Result<()> {
    // One that cannot be ended is no reason to leave the others.
    let failed: Vec<String> = small::ids()?
        .iter()
        .filter_map(|id| down(id).err().map(|error| format!("{error:#}")))
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        bail!(failed.join("; "))
    }
}
