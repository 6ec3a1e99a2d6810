//! What the kernel counted, as cumulative flows of containers.
//!
//! Laws:
//! * Counts only grow: a record that leaves the kernel's map stays here, and one that comes back is added to it. A flow leaves
//!   only with its whole subject, which never comes back.
//! * A connection that was open before it could be seen to begin is counted as established and not as attempted.
//! * What nobody answers in time is counted as unanswered, and is still attempted.
//! * Several cgroups of one container, and several cgroups that nobody can name, are one flow: the sum.
//! * Produced = delivered + lost: every event that a program saw is in exactly one flow here, or in a loss.

mod older;
mod slots;
mod unanswered;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};

use hashbrown::HashTable;
use jiff::Timestamp;
use nanoseg_ebpf as kernel;
use nanoseg_graph::endpoint::UnknownReason;
use nanoseg_graph::flow::{Flow, FlowKey, Loss, LossReason, Reporter, Subject, Tally, Transport};

use self::slots::Slots;
use self::unanswered::Waiting;
use crate::capture::Counters;
use crate::clock::Clock;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    subject: u32,
    peer: IpAddr,
    port: u16,
    transport: Transport,
    reporter: Reporter,
}

struct Entry {
    key: Key,
    tally: Tally,
    changed: u64,
}

/// A key of the kernel's map: where its counts go, and how much of them went there already.
struct Known {
    entry: u32,
    counted: Counted,
}

/// Of a record what changes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Counted {
    last_ns: u64,
    attempted: u64,
    established: u64,
    refused: u64,
}

impl Counted {
    const NOTHING: Self = Self {
        last_ns: 0,
        attempted: 0,
        established: 0,
        refused: 0,
    };
}

impl From<&kernel::FlowRecord> for Counted {
    fn from(record: &kernel::FlowRecord) -> Self {
        let kernel::FlowRecord {
            first_ns: _,
            last_ns,
            attempted,
            established,
            refused,
        } = *record;
        Self {
            last_ns,
            attempted,
            established,
            refused,
        }
    }
}

/// Cumulative flows since the start.
#[derive(Default)]
pub(crate) struct Table {
    subjects: Slots<Subject>,
    subject_numbers: HashMap<Subject, u32>,
    entries: Slots<Entry>,
    /// The entries by their keys, which each has: a place here takes a tenth of what a map of its own would.
    numbers: HashTable<u32>,
    hasher: RandomState,
    kernel: HashMap<kernel::FlowKey, Known>,
    /// How many of them each cgroup has.
    of_cgroup: BTreeMap<u64, usize>,
    /// Entries with attempts that have no answer yet.
    waiting: BTreeMap<u32, Waiting>,
    /// How many established ones of an entry nobody saw asked for.
    older: BTreeMap<u32, u64>,
    version: u64,
    delivered: u64,
}

/// What a record of the kernel changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// Counts or times.
    Counts,
    /// A flow that was not there before, by its number.
    Novel(u32),
    /// The key is none that the programs write.
    Malformed,
}

impl Table {
    /// Takes in what the kernel counted for one key, as of now. Asks whose it is when the key is new.
    pub(crate) fn observe(
        &mut self,
        key: &kernel::FlowKey,
        record: &kernel::FlowRecord,
        clock: Clock,
        subject: impl FnOnce(u64) -> Subject,
    ) -> Change {
        if let Some(known) = self.kernel.get_mut(key) {
            let before = known.counted;
            let now = Counted::from(record);
            if before == now {
                return Change::None;
            }
            known.counted = now;
            let entry = known.entry;
            self.add(entry, before, record, clock);
            return Change::Counts;
        }
        let (Some(transport), Some(role)) = (
            kernel::Transport::from_number(key.transport),
            kernel::Role::from_number(key.role),
        ) else {
            return Change::Malformed;
        };
        let subject = self.number_of(subject(key.cgroup));
        let flow = Key {
            subject,
            peer: address(key.peer),
            port: key.port,
            transport: match transport {
                kernel::Transport::Tcp => Transport::Tcp,
                kernel::Transport::Udp => Transport::Udp,
                kernel::Transport::Sctp => Transport::Sctp,
                kernel::Transport::Icmp => Transport::Icmp,
            },
            reporter: match role {
                kernel::Role::Source => Reporter::Source,
                kernel::Role::Destination => Reporter::Destination,
            },
        };
        let (entry, is_novel) = self.entry_of(flow, clock.timestamp(record.first_ns));
        *self.of_cgroup.entry(key.cgroup).or_default() += 1;
        self.kernel.insert(
            *key,
            Known {
                entry,
                counted: Counted::from(record),
            },
        );
        self.add(entry, Counted::NOTHING, record, clock);
        if is_novel { Change::Novel(entry) } else { Change::Counts }
    }

    /// Takes in what left the kernel's map, or was never in it and is `older`, while an earlier learner ran. `last` is the
    /// record that left last if it is still there.
    pub(crate) fn restore(
        &mut self,
        key: &kernel::FlowKey,
        total: &kernel::FlowRecord,
        last: Option<&kernel::FlowRecord>,
        is_older: bool,
        clock: Clock,
        subject: impl FnOnce(u64) -> Subject,
    ) {
        self.observe(key, total, clock, subject);
        let Some(known) = self.kernel.get_mut(key) else { return };
        if is_older {
            *self.older.entry(known.entry).or_default() += total.established;
        }
        match last {
            Some(last) => known.counted = Counted::from(last),
            None => self.forget(key),
        }
    }

    /// Takes in what flows came to that an earlier learner delivered and nobody needs any more.
    pub(crate) const fn restore_left(&mut self, total: &kernel::FlowRecord) {
        let kernel::FlowRecord {
            first_ns: _,
            last_ns: _,
            attempted,
            established,
            refused,
        } = total;
        self.delivered += *attempted + *established + *refused;
    }

    /// The entry of a key, and whether it is new.
    fn entry_of(&mut self, key: Key, seen: Timestamp) -> (u32, bool) {
        if let Some(entry) = self.find(&key) {
            return (entry, false);
        }
        let tally = Tally {
            first_seen: seen,
            last_seen: seen,
            attempted: 0,
            established: 0,
            refused: 0,
            unanswered: 0,
        };
        let Self {
            entries,
            numbers,
            hasher,
            ..
        } = self;
        let new = entries.insert(Entry { key, tally, changed: 0 });
        let again = |known: &u32| entries.get(*known).map_or(0, |entry| hasher.hash_one(entry.key));
        numbers.insert_unique(hasher.hash_one(key), new, again);
        (new, true)
    }

    fn find(&self, key: &Key) -> Option<u32> {
        let is_it = |known: &u32| self.entries.get(*known).is_some_and(|entry| entry.key == *key);
        self.numbers.find(self.hasher.hash_one(key), is_it).copied()
    }

    fn add(&mut self, entry: u32, before: Counted, record: &kernel::FlowRecord, clock: Clock) {
        let Some(Entry { key: _, tally, changed }) = self.entries.get_mut(entry) else {
            return;
        };
        let [attempted, established, refused] = [
            record.attempted.saturating_sub(before.attempted),
            record.established.saturating_sub(before.established),
            record.refused.saturating_sub(before.refused),
        ];
        tally.first_seen = tally.first_seen.min(clock.timestamp(record.first_ns));
        tally.last_seen = tally.last_seen.max(clock.timestamp(record.last_ns));
        tally.attempted += attempted;
        tally.established += established;
        tally.refused += refused;
        self.delivered += attempted + established + refused;
        self.version += 1;
        *changed = self.version;
        self.wait_for_answers(entry, record.last_ns);
    }

    /// The kernel forgets this key: if it comes back it counts from zero.
    pub(crate) fn forget(&mut self, key: &kernel::FlowKey) {
        if self.kernel.remove(key).is_none() {
            return;
        }
        if let Some(count) = self.of_cgroup.get_mut(&key.cgroup) {
            *count -= 1;
            if *count == 0 {
                self.of_cgroup.remove(&key.cgroup);
            }
        }
    }

    /// Keys that the kernel holds and that were last seen before `monotonic_ns`, the oldest first.
    pub(crate) fn idle_since(&self, monotonic_ns: u64) -> Vec<kernel::FlowKey> {
        let is_idle = |known: &Known| known.counted.last_ns < monotonic_ns;
        let mut keys: Vec<_> = self
            .kernel
            .iter()
            .filter(|(_, known)| is_idle(known))
            .map(|(key, known)| (known.counted.last_ns, *key))
            .collect();
        keys.sort_unstable_by_key(|(last_ns, _)| *last_ns);
        keys.into_iter().map(|(_, key)| key).collect()
    }

    /// Whether a name server was asked.
    pub(crate) fn has_asked(&self, subject: &Subject, server: IpAddr, transport: Transport) -> bool {
        self.subject_numbers.get(subject).is_some_and(|subject| {
            let key = Key {
                subject: *subject,
                peer: server,
                port: kernel::packet::DOMAIN,
                transport,
                reporter: Reporter::Source,
            };
            self.find(&key).is_some()
        })
    }

    /// Keys of these cgroups that the kernel holds, in order.
    pub(crate) fn of_cgroups(&self, cgroups: &BTreeSet<u64>) -> Vec<kernel::FlowKey> {
        let mut keys: Vec<_> = self
            .kernel
            .keys()
            .filter(|key| cgroups.contains(&key.cgroup))
            .copied()
            .collect();
        keys.sort_unstable_by_key(|key| (key.cgroup, key.peer, key.port, key.transport, key.role));
        keys
    }

    /// Keys that the kernel holds.
    pub(crate) fn held(&self) -> impl ExactSizeIterator<Item = &kernel::FlowKey> {
        self.kernel.keys()
    }

    /// Whether the kernel holds keys of a cgroup.
    pub(crate) fn is_held(&self, cgroup: u64) -> bool {
        self.of_cgroup.contains_key(&cgroup)
    }

    /// The most keys that the kernel holds of one cgroup.
    pub(crate) fn most_of_one_cgroup(&self) -> usize {
        self.of_cgroup.values().copied().max().unwrap_or(0)
    }

    /// Whether there are flows of a subject.
    pub(crate) fn knows(&self, subject: &Subject) -> bool {
        self.subject_numbers.contains_key(subject)
    }

    /// Lets all flows of subjects leave: they are delivered, and none of their cgroups is there any more. One of which the kernel
    /// holds a key all the same stays.
    pub(crate) fn leave(&mut self, subjects: &BTreeSet<Subject>) {
        let mut leaving: BTreeSet<u32> = subjects
            .iter()
            .filter_map(|subject| self.subject_numbers.get(subject))
            .copied()
            .collect();
        if leaving.is_empty() {
            return;
        }
        let held = self.kernel.values().filter_map(|known| self.entries.get(known.entry));
        let held: BTreeSet<u32> = held.map(|entry| entry.key.subject).collect();
        leaving.retain(|subject| !held.contains(subject));
        let Self {
            entries,
            numbers,
            waiting,
            older,
            ..
        } = self;
        numbers.retain(|number| {
            let stays = entries
                .get(*number)
                .is_some_and(|entry| !leaving.contains(&entry.key.subject));
            if !stays {
                entries.remove(*number);
                waiting.remove(number);
                older.remove(number);
            }
            stays
        });
        for number in leaving {
            if let Some(subject) = self.subjects.remove(number) {
                self.subject_numbers.remove(&subject);
            }
        }
    }

    /// Grows with every change.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// How many flows there are.
    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many places flows, their keys of the kernel and subjects take.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        let keys = [self.kernel.len(), self.of_cgroup.len(), self.numbers.len()];
        let waiting = [self.waiting.len(), self.older.len(), self.subject_numbers.len()];
        let most = keys.into_iter().chain(waiting).max().unwrap_or(0);
        most.max(self.entries.room()).max(self.subjects.room())
    }

    /// How many events are in the flows, and were in those that left.
    pub(crate) const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// One flow, by its number.
    pub(crate) fn flow(&self, number: u32) -> Option<Flow> {
        self.entries.get(number).map(|entry| self.export(entry))
    }

    /// Flows that changed after `version`.
    pub(crate) fn changed_since(&self, version: u64) -> impl Iterator<Item = Flow> + Clone + '_ {
        self.entries
            .iter()
            .filter(move |entry| entry.changed > version)
            .map(|entry| self.export(entry))
    }

    /// At most `limit` of the flows that changed after `version`, those that changed longest ago first, and the version up to
    /// which all changes are among them.
    pub(crate) fn oldest_changes(&self, version: u64, limit: usize) -> (Vec<Flow>, u64) {
        let mut changed: Vec<&Entry> = self.entries.iter().filter(|entry| entry.changed > version).collect();
        changed.sort_unstable_by_key(|entry| entry.changed);
        let up_to = if changed.len() > limit {
            changed.truncate(limit);
            changed.last().map_or(self.version, |entry| entry.changed)
        } else {
            self.version
        };
        (changed.into_iter().map(|entry| self.export(entry)).collect(), up_to)
    }

    fn export(&self, Entry { key, tally, changed: _ }: &Entry) -> Flow {
        let Key {
            subject,
            peer,
            port,
            transport,
            reporter,
        } = *key;
        let subject = self.subjects.get(subject).cloned();
        let subject = subject.unwrap_or(Subject::Unknown(UnknownReason::CgroupGone));
        Flow {
            key: FlowKey {
                subject,
                peer,
                port,
                transport,
                reporter,
            },
            tally: *tally,
        }
    }

    fn number_of(&mut self, subject: Subject) -> u32 {
        if let Some(number) = self.subject_numbers.get(&subject) {
            return *number;
        }
        let number = self.subjects.insert(subject.clone());
        self.subject_numbers.insert(subject, number);
        number
    }
}

/// As the kernel has an address.
pub(crate) fn words(address: IpAddr) -> kernel::Address {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(address.octets().as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*chunk);
    }
    words
}

pub(crate) fn address(words: kernel::Address) -> IpAddr {
    let mut bytes = [0; 16];
    for (chunk, word) in bytes.chunks_exact_mut(4).zip(words) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(bytes).to_canonical()
}

/// Losses as reports carry them: by subject where the kernel could tell whose they were, the rest without one.
pub(crate) fn losses(counters: &Counters, mut subject: impl FnMut(u64) -> Subject) -> Vec<Loss> {
    let Counters { totals, by_cgroup } = counters;
    let mut counts: BTreeMap<(Option<Subject>, LossReason), u64> = BTreeMap::new();
    let mut told = [0_u64; kernel::Reason::ALL.len()];
    for ((cgroup, number), count) in by_cgroup {
        let Some((reason, told)) = kernel::Reason::from_number(*number)
            .and_then(|reason| Some((loss_reason(reason)?, told.get_mut(reason as usize)?)))
        else {
            continue;
        };
        *told += count;
        *counts.entry((Some(subject(*cgroup)), reason)).or_default() += count;
    }
    for (reason, (total, told)) in kernel::Reason::ALL.into_iter().zip(totals.iter().zip(told)) {
        if let Some(reason) = loss_reason(reason)
            && *total > told
        {
            counts.insert((None, reason), total - told);
        }
    }
    counts
        .into_iter()
        .map(|((subject, reason), count)| Loss { subject, reason, count })
        .collect()
}

const fn loss_reason(reason: kernel::Reason) -> Option<LossReason> {
    match reason {
        kernel::Reason::MapFull => Some(LossReason::MapFull),
        kernel::Reason::ExchangeTableFull => Some(LossReason::ExchangeTableFull),
        kernel::Reason::Truncated => Some(LossReason::Truncated),
        kernel::Reason::Fragment => Some(LossReason::Fragment),
        kernel::Reason::ExtensionHeaders => Some(LossReason::ExtensionHeaders),
        kernel::Reason::OtherTransport => Some(LossReason::OtherTransport),
        kernel::Reason::UnderWay | kernel::Reason::Undecided => Some(LossReason::UnderWay),
        kernel::Reason::Loopback
        | kernel::Reason::NotRouted
        | kernel::Reason::Icmp
        | kernel::Reason::Unannounced
        | kernel::Reason::Copy
        | kernel::Reason::Unheard
        | kernel::Reason::Returned
        | kernel::Reason::OtherAnswer => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
