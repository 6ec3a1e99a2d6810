//! What was before: an earlier learner, and connections that nobody saw begin.

use std::collections::BTreeSet;

use nanoseg_ebpf::kept::Kept;
use nanoseg_ebpf::{FlowRecord, LossKey, Reason, Role};
use nanoseg_graph::flow::{Reporter, Transport};

use super::{Agent, AgentError};
use crate::capture::Beginning;
use crate::clock::{monotonic_ns, realtime_ns};
use crate::pins::{Found, Pins, PinsError};
use crate::preflight::CgroupTree;
use crate::settings::Settings;
use crate::sockets::{self, Open};
use crate::table::words;

/// Looks where an earlier learner may have left something.
pub(super) fn find(settings: &Settings, tree: &CgroupTree) -> Result<Beginning, PinsError> {
    let nothing = || Beginning {
        pins: None,
        found: Found::Nothing,
        epoch: realtime_ns(),
    };
    let Some(folder) = &settings.pin else {
        return Ok(nothing());
    };
    let pins = match Pins::open(folder, &settings.node, tree) {
        Ok(pins) => pins,
        // A node without such a file system is learned all the same.
        Err(error @ PinsError::NotBpf { .. }) => {
            tracing::warn!("nothing is pinned, and what is not reported when this process ends is lost: {error}");
            return Ok(nothing());
        }
        Err(error) => return Err(error),
    };
    let found = pins.found();
    let epoch = match found {
        Found::Whole { epoch, flows } => {
            if flows != settings.map_entries {
                tracing::warn!(
                    entries = flows,
                    "the pinned map keeps its size; to have --map-entries, remove the pins with --uninstall"
                );
            }
            epoch
        }
        Found::Other(why) => {
            tracing::warn!(
                pins = %folder.display(),
                "the pins are replaced, because {why}: what was counted there and not reported is lost, and counted as discarded"
            );
            realtime_ns()
        }
        Found::Nothing => realtime_ns(),
    };
    Ok(Beginning {
        pins: Some(pins),
        found,
        epoch,
    })
}

impl Agent {
    /// Takes in what was before. After the programs were attached: what begins meanwhile is seen, and what began before is in
    /// the tables of sockets.
    pub(super) fn begin(&mut self, tree: &CgroupTree, beginning: &Beginning) -> Result<(), AgentError> {
        self.restore()?;
        if matches!(beginning.found, Found::Whole { .. }) {
            self.go_on()?;
        } else {
            self.read_sockets(tree)?;
        }
        self.keep_owners()?;
        tracing::info!(
            node = self.origin.node,
            epoch = self.origin.epoch,
            cgroups = %tree.root.display(),
            containers = self.cgroups.containers(),
            "observing"
        );
        Ok(())
    }

    /// Takes in what is kept.
    fn restore(&mut self) -> Result<(), AgentError> {
        for (cgroup, path) in self.capture.owners()? {
            self.cgroups.remember(cgroup, &path);
        }
        for (kept, archived) in self.capture.archived()? {
            let cgroups = &mut self.cgroups;
            let total = archived.total();
            match kept {
                Kept::Flow(key) => {
                    let held = self.capture.record(&key)?;
                    let last = held
                        .is_some_and(|held| held.first_ns == archived.last.first_ns)
                        .then_some(&archived.last);
                    self.table
                        .restore(&key, &total, last, false, self.clock, |id| cgroups.subject(id));
                }
                Kept::Older(key) => {
                    self.table
                        .restore(&key, &total, None, true, self.clock, |id| cgroups.subject(id));
                }
                Kept::Loss(key) => {
                    let told = self.capture.kept_loss(key, &archived)?;
                    self.tell_lost(key, told)?;
                }
                Kept::Left => self.table.restore_left(&total),
                Kept::Discarded => self.lost.discarded = total.attempted,
            }
        }
        Ok(())
    }

    /// Goes on where an earlier learner was, which saw every connection begin since the programs are attached.
    fn go_on(&mut self) -> Result<(), AgentError> {
        self.capture.release_what_is_not_held()?;
        self.read()?;
        tracing::info!(
            epoch = self.origin.epoch,
            flows = self.table.len(),
            "going on where an earlier learner was"
        );
        Ok(())
    }

    /// Takes in connections that are older than the programs.
    fn read_sockets(&mut self, tree: &CgroupTree) -> Result<(), AgentError> {
        let namespaces = sockets::read(&tree.root);
        let now = monotonic_ns();
        // What began after the programs were attached may be among it: it is counted before.
        self.read()?;
        if namespaces.hidden > 0 {
            tracing::warn!(
                processes = namespaces.hidden,
                "cannot see processes of this node: connections that were open before are learned when they are opened again; \
                 run in the node's PID namespace (hostPID)"
            );
        }
        let cgroups = &mut self.cgroups;
        let node = cgroups.subject_of_root();
        let sockets::Older { open, undecided } = sockets::judge(&namespaces, &node, |id| cgroups.subject(id));
        for open in open {
            let before = self.table.delivered();
            let change = self.table.found_open(&open, now, self.clock);
            self.changed(change)?;
            self.keep_open(&open, now, self.table.delivered() - before)?;
        }
        for (number, (whose, count)) in (0..).zip(undecided) {
            // One that is gone by now has none, and none has these.
            let cgroup = self.cgroups.id_of(&whose).unwrap_or(u64::MAX - number);
            let key = LossKey {
                cgroup,
                reason: Reason::Undecided as u32,
                pad: 0,
            };
            self.lost.owned_by(cgroup, whose);
            self.tell_lost(key, count)?;
            self.capture.lose(key, count)?;
        }
        // Now they are among the losses.
        self.read()
    }

    fn keep_open(&mut self, open: &Open, now_ns: u64, count: u64) -> Result<(), AgentError> {
        let Open {
            key,
            owners: _,
            count: _,
        } = open;
        let Some(cgroup) = self.cgroups.id_of(&key.subject).filter(|_| count > 0) else {
            return Ok(());
        };
        let kept = nanoseg_ebpf::FlowKey {
            cgroup,
            peer: words(key.peer),
            port: key.port,
            transport: match key.transport {
                Transport::Tcp => nanoseg_ebpf::Transport::Tcp as u8,
                Transport::Udp => nanoseg_ebpf::Transport::Udp as u8,
                Transport::Sctp => nanoseg_ebpf::Transport::Sctp as u8,
                Transport::Icmp => nanoseg_ebpf::Transport::Icmp as u8,
            },
            role: match key.reporter {
                Reporter::Source => Role::Source as u8,
                Reporter::Destination => Role::Destination as u8,
            },
            pad: 0,
        };
        let record = FlowRecord {
            first_ns: now_ns,
            last_ns: now_ns,
            established: count,
            ..FlowRecord::default()
        };
        Ok(self.capture.archive(Kept::Older(kept), &record)?)
    }

    /// Lets the next learner know whose cgroups are, and notes containers that no kubelet started.
    pub(super) fn keep_owners(&mut self) -> Result<(), AgentError> {
        let found: BTreeSet<(u64, String)> = self.cgroups.found().into_iter().collect();
        for (cgroup, path) in found {
            self.capture.keep_owner(cgroup, &path)?;
            let subject = self.cgroups.subject(cgroup);
            self.plain.found(&path, self.cgroups.folder(&path), &subject);
        }
        Ok(())
    }
}
