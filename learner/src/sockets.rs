//! What is older than the learner: TCP connections that were open when it started, from the socket table of each network
//! namespace.
//!
//! The tables are read after the programs are attached, so that a connection is in one of them or seen to begin, or both.
//!
//! Laws:
//! * Direction is who listens. A connection from a port that is listened on in the same namespace was accepted there; one
//!   from another port was opened there, if the kernel may have chosen that port or the other end is on this node and listens.
//!   What neither says (the listener was closed since, a socket that connects from the port it listens on) is counted, never
//!   guessed.
//! * Only what both ends can still use is open: established, or closed by one end. A handshake that is not over will be
//!   seen, and a connection in `TIME_WAIT` is over.
//! * A connection inside one namespace is not traffic.
//! * A namespace is its pod's. Which of the pod's containers has a socket could only be read by who may trace them, so where
//!   several run the own end is the pod. In the node's namespace it is the node.
//!
//! Datagrams are not here: a connected socket may never have sent any, and when it does the programs see it and who began.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nanoseg_ebpf::Address;
use nanoseg_ebpf::packet::{Ends, mapped};
use nanoseg_graph::container::ContainerRef;
use nanoseg_graph::flow::{FlowKey, Reporter, Subject, Transport};

use crate::table::address;

/// Ports that the kernel gives to who does not ask for one, unless a namespace is told otherwise.
const CHOSEN_BY_THE_KERNEL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// The process whose network is the node's.
const FIRST: &str = "/proc/1/net/tcp";

/// TCP sockets of one network namespace.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    listening: BTreeSet<(u16, Address)>,
    /// As this end sends: it is the source.
    open: Vec<Ends>,
}

/// One network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    is_the_nodes: bool,
    /// The cgroups of its processes.
    cgroups: BTreeSet<u64>,
    sockets: Sockets,
}

/// Every network namespace in which a process of the tree runs.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    all: Vec<Namespace>,
    /// Processes that are in the tree and cannot be seen from here.
    pub(crate) hidden: usize,
}

/// Connections to or from one peer that were open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) key: FlowKey,
    /// Whose sockets may be among them.
    pub(crate) owners: BTreeSet<Subject>,
    pub(crate) count: u64,
}

/// What the socket tables say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Older {
    pub(crate) open: Vec<Open>,
    /// How many connections have no known direction.
    pub(crate) undecided: BTreeMap<Subject, u64>,
}

/// Reads the tables of all processes in the tree.
pub(crate) fn read(tree: &Path) -> Namespaces {
    let mut hidden = 0;
    let mut found: BTreeMap<u64, (BTreeSet<u64>, Vec<u32>)> = BTreeMap::new();
    let mut folders = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        let inside = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(
            inside
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        let Ok(cgroup) = fs::metadata(&folder) else { continue };
        let before = processes(&folder);
        hidden += before.iter().filter(|process| **process == 0).count();
        let namespaces: Vec<(u32, u64)> = before
            .into_iter()
            .filter_map(|process| Some((process, fs::metadata(table_of(process, "tcp")).ok()?.ino())))
            .collect();
        // Who is there before and after was there in between: a number that went to another process is not.
        let after = processes(&folder);
        for (process, namespace) in namespaces.into_iter().filter(|(process, _)| after.contains(process)) {
            let (cgroups, processes) = found.entry(namespace).or_default();
            cgroups.insert(cgroup.ino());
            processes.push(process);
        }
    }
    let node = fs::metadata(FIRST).map(|first| first.ino()).ok();
    let read = |(namespace, (cgroups, processes)): (u64, (BTreeSet<u64>, Vec<u32>))| {
        Some(Namespace {
            is_the_nodes: Some(namespace) == node,
            cgroups,
            // Where all have ended nothing is open any more.
            sockets: processes
                .into_iter()
                .find_map(|process| sockets_of(process, namespace))?,
        })
    };
    Namespaces {
        all: found.into_iter().filter_map(read).collect(),
        hidden,
    }
}

fn processes(cgroup: &Path) -> BTreeSet<u32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Each namespace has files of its own, so their inode number is its name. The link `ns/net` can only be read by who may
/// trace the process.
fn table_of(process: u32, table: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/net/{table}"))
}

fn sockets_of(process: u32, namespace: u64) -> Option<Sockets> {
    let mut sockets = Sockets::default();
    let mut file = fs::File::open(table_of(process, "tcp")).ok()?;
    if file.metadata().ok()?.ino() != namespace {
        return None;
    }
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    sockets.take(&text);
    // Not there where IPv6 is off. Of another namespace only if the process moved, which container runtimes do once, before
    // anything listens.
    let text = fs::read_to_string(table_of(process, "tcp6")).unwrap_or_default();
    sockets.take(&text);
    Some(sockets)
}

impl Sockets {
    /// Takes in a table as `/proc/net/tcp` and `/proc/net/tcp6` have it.
    fn take(&mut self, table: &str) {
        for line in table.lines().skip(1) {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (Some(local), Some(remote), Some(state)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let (Some((source, source_port)), Some((destination, destination_port))) = (end(local), end(remote)) else {
                continue;
            };
            match state {
                LISTEN => {
                    self.listening.insert((source_port, source));
                }
                ESTABLISHED | FIN_WAIT1 | FIN_WAIT2 | CLOSE_WAIT | LAST_ACK | CLOSING => self.open.push(Ends {
                    source,
                    destination,
                    source_port,
                    destination_port,
                }),
                // SYN_SENT, SYN_RECV, TIME_WAIT, CLOSE.
                _ => {}
            }
        }
    }

    /// Whether somebody listens at this end's address and port.
    fn listens(&self, ends: &Ends) -> bool {
        let Ends {
            source, source_port, ..
        } = ends;
        let at = |address: Address| self.listening.contains(&(*source_port, address));
        // A socket of IPv6 that listens at any address takes connections over IPv4, too.
        at(*source) || at([0; 4]) || (is_v4(source) && at(mapped(0)))
    }
}

// As `include/net/tcp_states.h` numbers them and the tables write them.
const ESTABLISHED: &str = "01";
const FIN_WAIT1: &str = "04";
const FIN_WAIT2: &str = "05";
const CLOSE_WAIT: &str = "08";
const LAST_ACK: &str = "09";
const LISTEN: &str = "0A";
const CLOSING: &str = "0B";

fn is_v4(address: &Address) -> bool {
    address[..3] == mapped(0)[..3]
}

/// `0100007F:1F90`, or 32 digits for IPv6: words as they are in memory, and the port.
fn end(text: &str) -> Option<(Address, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok();
    match address.len() {
        8 => Some((mapped(word(0)?), port)),
        32 => Some(([word(0)?, word(1)?, word(2)?, word(3)?], port)),
        _ => None,
    }
}

/// The two ends of a connection, from one of them.
type Pair = ((Address, u16), (Address, u16));

const fn pair(ends: &Ends) -> Pair {
    (
        (ends.source, ends.source_port),
        (ends.destination, ends.destination_port),
    )
}

/// Says of every open connection who opened it. `node` is the subject of what is nobody else's.
pub(crate) fn judge(namespaces: &Namespaces, node: &Subject, mut subject: impl FnMut(u64) -> Subject) -> Older {
    let mut ends_here: BTreeMap<Pair, (usize, bool)> = BTreeMap::new();
    for (number, Namespace { sockets, .. }) in namespaces.all.iter().enumerate() {
        for ends in &sockets.open {
            ends_here.insert(pair(ends), (number, sockets.listens(ends)));
        }
    }
    let mut older = Older::default();
    for (number, namespace) in namespaces.all.iter().enumerate() {
        let Namespace {
            is_the_nodes,
            cgroups,
            sockets,
        } = namespace;
        let owners: BTreeSet<Subject> = cgroups.iter().map(|cgroup| subject(*cgroup)).collect();
        let own = own_end(*is_the_nodes, &owners, node);
        let mut open: BTreeMap<FlowKey, u64> = BTreeMap::new();
        for ends in &sockets.open {
            let (from, to) = pair(ends);
            let other_end = ends_here.get(&(to, from)).copied();
            if ends.unrecorded().is_some() || other_end.is_some_and(|(place, _)| place == number) {
                continue;
            }
            let other_listens = other_end.map(|(_, listens)| listens);
            let Some(reporter) = role(ends, sockets.listens(ends), other_listens) else {
                *older.undecided.entry(own.clone()).or_default() += 1;
                continue;
            };
            let key = FlowKey {
                subject: own.clone(),
                peer: address(ends.destination),
                port: match reporter {
                    Reporter::Source => ends.destination_port,
                    Reporter::Destination => ends.source_port,
                },
                transport: Transport::Tcp,
                reporter,
            };
            *open.entry(key).or_default() += 1;
        }
        older.open.extend(open.into_iter().map(|(key, count)| Open {
            key,
            owners: owners.clone(),
            count,
        }));
    }
    older
}

/// Who this end is, if that is known. `other_listens` is known only where the other end is on this node, too.
fn role(ends: &Ends, listens: bool, other_listens: Option<bool>) -> Option<Reporter> {
    match (listens, other_listens) {
        // The kernel chooses no port that is listened on, so equal ports were asked for by who listens there, too.
        (true, Some(true)) | (false, Some(false)) => None,
        (true, _) if ends.source_port == ends.destination_port => None,
        (true, _) => Some(Reporter::Destination),
        (false, Some(true)) => Some(Reporter::Source),
        (false, None) => CHOSEN_BY_THE_KERNEL
            .contains(&ends.source_port)
            .then_some(Reporter::Source),
    }
}

/// Whose the sockets of a namespace are.
fn own_end(is_the_nodes: bool, owners: &BTreeSet<Subject>, node: &Subject) -> Subject {
    if is_the_nodes {
        return node.clone();
    }
    let mut containers = BTreeSet::new();
    for owner in owners {
        match owner {
            Subject::Container(container) => containers.insert(container),
            // Whoever looks in from outside does not make the namespace the node's.
            Subject::Host(_) | Subject::Unknown(_) => false,
        };
    }
    let pods: BTreeSet<&str> = containers.iter().map(|container| container.pod_uid.as_str()).collect();
    match (pods.first(), pods.len(), containers.first()) {
        (Some(_), 1, Some(only)) if containers.len() == 1 => Subject::Container((*only).clone()),
        (Some(pod), 1, _) => Subject::Container(ContainerRef {
            pod_uid: (*pod).to_owned(),
            container_id: String::new(),
        }),
        (None, _, _) if owners.len() == 1 => owners.first().unwrap_or(node).clone(),
        // Several pods share nothing but a node's network.
        _ => node.clone(),
    }
}

#[cfg(test)]
mod tests;
