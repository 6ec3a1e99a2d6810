//! Attempts that nobody answered in time.
//!
//! The kernel counts attempts and answers, and not which answer belongs to which attempt. As long as fewer were answered than
//! asked a while ago, some of those were not: a lower bound while others are answered, and exact when it is quiet again.

use nanoseg_graph::flow::Tally;

use super::{Entry, Table};

/// What was asked by a time.
pub(super) struct Waiting {
    attempted: u64,
    since_ns: u64,
}

/// How many attempts have an answer.
const fn answered(tally: &Tally, older: u64) -> u64 {
    tally.established.saturating_sub(older).saturating_add(tally.refused)
}

impl Table {
    /// Notes that an entry has attempts without an answer, if it has.
    pub(super) fn wait_for_answers(&mut self, entry: u32, last_ns: u64) {
        let Some(Entry { tally, .. }) = self.entries.get(entry) else {
            return;
        };
        let answered = answered(tally, self.older.get(&entry).copied().unwrap_or(0));
        if tally.attempted.saturating_sub(answered) > tally.unanswered {
            self.waiting.entry(entry).or_insert(Waiting {
                attempted: tally.attempted,
                since_ns: last_ns,
            });
        }
    }

    /// Counts what was not answered in time, as of `read_ns`, until when every answer was read. What was read is of `now_ns` at
    /// the latest.
    pub(crate) fn settle(&mut self, read_ns: u64, now_ns: u64) {
        let patience = u64::try_from(Tally::PATIENCE.as_nanos()).unwrap_or(u64::MAX);
        let is_over = |_: &u32, waiting: &mut Waiting| read_ns.saturating_sub(waiting.since_ns) >= patience;
        let over: Vec<(u32, Waiting)> = self.waiting.extract_if(.., is_over).collect();
        for (number, Waiting { attempted, since_ns: _ }) in over {
            let Some(Entry { key: _, tally, changed }) = self.entries.get_mut(number) else {
                continue;
            };
            let answered = answered(tally, self.older.get(&number).copied().unwrap_or(0));
            let unanswered = attempted.saturating_sub(answered);
            if unanswered > tally.unanswered {
                tally.unanswered = unanswered;
                self.version += 1;
                *changed = self.version;
            }
            self.wait_for_answers(number, now_ns);
        }
    }
}
