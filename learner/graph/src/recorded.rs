//! Connections as somebody else recorded them: both ends named, by pod or by address.
//!
//! Law: adding connections in any order gives the same recording. A record without a time means "as the cluster is now".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;

use crate::endpoint::Workload;
use crate::flow::{Outcome, Reporter, Tally, Transport};

/// The time of what has none: later than every beginning and never after an end, so that an address is whose it is now.
pub const UNTIMED: Timestamp = Timestamp::MAX;

/// An end of a recorded connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordedEnd {
    /// A pod, by namespace and name.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Whoever had the address then: a pod, a Service, a node, or nobody in the cluster.
    Address(IpAddr),
}

impl fmt::Display for RecordedEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "Pod {namespace}/{name}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What recorded connections are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordedKey {
    /// The initiator.
    pub source: RecordedEnd,
    /// The listener, as the source addressed it or as it was reached.
    pub destination: RecordedEnd,
    /// The port that belongs to `destination`: a Service's, if its address is a Service's.
    pub port: u16,
    /// Transport protocol.
    pub transport: Transport,
    /// At which end it was recorded.
    pub reporter: Reporter,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What it is counted by.
    pub key: RecordedKey,
    /// What became of the connections.
    pub outcome: Outcome,
    /// How many connections. 0: further evidence of one that is counted elsewhere, or that nobody saw begin.
    pub count: u64,
    /// From when until when, if that is known.
    pub seen: Option<(Timestamp, Timestamp)>,
    /// The workloads of source and destination, where the ends are pods and the record names them.
    pub workloads: [Option<Workload>; 2],
}

/// Everything that was recorded, added up. Its size follows the number of different connections, not of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    sums: BTreeMap<RecordedKey, Sum>,
    /// By end, because a name may be one pod's after the other's. Few ends have any, and hardly one has two.
    workloads: BTreeMap<RecordedEnd, BTreeSet<Workload>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sum {
    first_seen: Timestamp,
    last_seen: Timestamp,
    attempted: u64,
    established: u64,
    refused: u64,
    unanswered: u64,
    best: Outcome,
}

impl Recording {
    /// Adds a record.
    pub fn add(&mut self, record: Recorded) {
        let Recorded {
            key,
            outcome,
            count,
            seen,
            workloads,
        } = record;
        for (end, workload) in [&key.source, &key.destination].into_iter().zip(workloads) {
            if let Some(workload) = workload {
                match self.workloads.get_mut(end) {
                    Some(known) => drop(known.insert(workload)),
                    None => drop(self.workloads.insert(end.clone(), [workload].into())),
                }
            }
        }
        let (first_seen, last_seen) = seen.unwrap_or((UNTIMED, UNTIMED));
        let sum = self.sums.entry(key).or_insert(Sum {
            first_seen,
            last_seen,
            attempted: 0,
            established: 0,
            refused: 0,
            unanswered: 0,
            best: outcome,
        });
        sum.first_seen = sum.first_seen.min(first_seen);
        sum.last_seen = sum.last_seen.max(last_seen);
        sum.best = sum.best.max(outcome);
        sum.attempted = sum.attempted.saturating_add(count);
        match outcome {
            Outcome::Attempted => {}
            Outcome::Unanswered => sum.unanswered = sum.unanswered.saturating_add(count),
            Outcome::Refused => sum.refused = sum.refused.saturating_add(count),
            Outcome::Established => sum.established = sum.established.saturating_add(count),
        }
    }

    /// Every connection, in a fixed order.
    pub fn connections(&self) -> impl Iterator<Item = (&RecordedKey, Tally)> {
        self.sums.iter().map(|(key, sum)| (key, sum.tally()))
    }

    /// Ends with the one workload that the records name for them. An end for which they name several is not among them.
    pub fn workloads(&self) -> impl Iterator<Item = (&RecordedEnd, &Workload)> {
        self.workloads.iter().filter_map(|(end, workloads)| {
            let only = workloads.first().filter(|_| workloads.len() == 1)?;
            Some((end, only))
        })
    }

    /// How many different connections there are.
    pub fn len(&self) -> usize {
        self.sums.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }
}

impl Sum {
    fn tally(&self) -> Tally {
        let Self {
            first_seen,
            last_seen,
            attempted,
            established,
            refused,
            unanswered,
            best,
        } = self;
        // What was seen to happen happened at least once, also where every record of it said 0.
        let at_least = |count: u64, happened: bool| count.max(u64::from(happened));
        Tally {
            first_seen: *first_seen,
            last_seen: *last_seen,
            attempted: at_least(*attempted, true),
            established: at_least(*established, *best == Outcome::Established),
            refused: at_least(*refused, *best == Outcome::Refused),
            unanswered: at_least(*unanswered, *best == Outcome::Unanswered),
        }
    }
}
