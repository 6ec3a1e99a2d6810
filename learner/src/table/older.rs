//! Connections that were open before any could be seen to begin.

use super::{Change, Key, Table};
use crate::clock::Clock;
use crate::sockets::Open;

impl Table {
    /// Takes in connections that were found open at `now_ns`, once for all. What the kernel counts as accepted until then
    /// must be in the table: the same connection may be among what was found, and counts once. One that is accepted between is
    /// taken for one of them, so the count is a lower bound; that there was one is certain.
    pub(crate) fn found_open(&mut self, open: &Open, now_ns: u64, clock: Clock) -> Change {
        let Open { key, owners, count } = open;
        let flow = Key {
            subject: self.number_of(key.subject.clone()),
            peer: key.peer,
            port: key.port,
            transport: key.transport,
            reporter: key.reporter,
        };
        let is_theirs = |number: u32| {
            let subject = self.subjects.get(number);
            subject.is_some_and(|subject| owners.contains(subject))
        };
        let same = |known: &Key| {
            let known = Key {
                subject: flow.subject,
                ..*known
            };
            known == flow
        };
        let seen: u64 = self
            .entries
            .iter()
            .filter(|entry| same(&entry.key) && is_theirs(entry.key.subject))
            .map(|entry| entry.tally.established)
            .sum();
        let before = count.saturating_sub(seen);
        if before == 0 {
            return Change::None;
        }
        let now = clock.timestamp(now_ns);
        let (number, is_novel) = self.entry_of(flow, now);
        let Some(entry) = self.entries.get_mut(number) else {
            return Change::None;
        };
        entry.tally.established += before;
        entry.tally.first_seen = entry.tally.first_seen.min(now);
        entry.tally.last_seen = entry.tally.last_seen.max(now);
        self.delivered += before;
        *self.older.entry(number).or_default() += before;
        self.version += 1;
        entry.changed = self.version;
        if is_novel {
            Change::Novel(number)
        } else {
            Change::Counts
        }
    }
}
