//! What the controller has, and what it gets next.
//!
//! Laws:
//! * On one stream every change is sent once; on a new stream everything is sent again.
//! * No more than a few increments are unacknowledged at a time; what changes meanwhile is in a later one.

use std::collections::VecDeque;

use nanoseg_graph::flow::{Flow, Report};
use tokio::sync::mpsc;

use crate::report::{FLOWS_IN_AN_INCREMENT, IN_FLIGHT, StreamEvent, encode};
use crate::table::Table;

/// Versions up to which flows, and losses and addresses, are in something.
type Versions = (u64, u64);

/// State of the stream to the controller.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    stream: Option<mpsc::Sender<Vec<u8>>>,
    sequence: u64,
    sent: Option<Versions>,
    unacknowledged: VecDeque<(u64, Versions)>,
    acknowledged: Option<Versions>,
}

/// What to send next.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) flows: Vec<Flow>,
    pub(crate) version: u64,
    pub(crate) with_others: bool,
}

impl Delivery {
    /// The next increment, if there is something to say and room to say it. The first of a stream may be empty: it says
    /// that the node is there.
    pub(crate) fn next(&self, table: &Table, other_version: u64) -> Option<Part> {
        if self.stream.is_none() || self.unacknowledged.len() >= IN_FLIGHT {
            return None;
        }
        let (flows_sent, others_sent) = self.sent.unwrap_or((0, 0));
        let with_others = self.sent.is_none() || other_version > others_sent;
        if self.sent.is_some() && table.version() == flows_sent && !with_others {
            return None;
        }
        let (flows, version) = table.oldest_changes(flows_sent, FLOWS_IN_AN_INCREMENT);
        Some(Part {
            flows,
            version,
            with_others,
        })
    }

    /// Puts an increment on the stream.
    pub(crate) fn send(&mut self, report: &Report, version: u64, other_version: u64) {
        let Some(stream) = &self.stream else { return };
        // Never full: at most as many are unacknowledged as it holds.
        if stream.try_send(encode(report)).is_err() {
            self.on(StreamEvent::Closed);
            return;
        }
        self.sequence += 1;
        self.sent = Some((version, other_version));
        self.unacknowledged.push_back((self.sequence, (version, other_version)));
    }

    /// Takes in what happened on the stream.
    pub(crate) fn on(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Open(stream) => {
                *self = Self {
                    stream: Some(stream),
                    ..Self::default()
                }
            }
            StreamEvent::Acknowledged(sequence) => {
                while let Some((number, versions)) = self.unacknowledged.front().copied()
                    && number <= sequence
                {
                    self.unacknowledged.pop_front();
                    self.acknowledged = Some(versions);
                }
            }
            StreamEvent::Closed => *self = Self::default(),
        }
    }

    /// The version up to which the controller has acknowledged every flow on this stream.
    pub(crate) fn acknowledged(&self) -> Option<u64> {
        self.acknowledged.map(|(flows, _)| flows)
    }

    /// Whether the controller has acknowledged everything up to these versions.
    pub(crate) fn is_complete(&self, version: u64, other_version: u64) -> bool {
        self.acknowledged == Some((version, other_version))
    }
}

#[cfg(test)]
mod tests {
    use nanoseg_graph::flow::Origin;

    use super::*;

    fn empty_report() -> Report {
        Report {
            origin: Origin {
                node: "a".to_owned(),
                epoch: 1,
            },
            flows: vec![],
            losses: vec![],
            node_addresses: [].into(),
            names: vec![],
            held: Vec::new(),
            capture: None,
        }
    }

    fn open() -> (Delivery, mpsc::Receiver<Vec<u8>>) {
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let mut delivery = Delivery::default();
        delivery.on(StreamEvent::Open(sender));
        (delivery, receiver)
    }

    #[test]
    fn nothing_is_sent_without_a_stream() {
        assert!(Delivery::default().next(&Table::default(), 7).is_none());
    }

    #[test]
    fn the_first_increment_says_that_the_node_is_there_and_the_next_waits_for_news() {
        let (mut delivery, mut stream) = open();
        let table = Table::default();
        let part = delivery.next(&table, 0).unwrap();
        delivery.send(&empty_report(), part.version, 0);
        assert!(stream.try_recv().is_ok());
        assert!(delivery.next(&table, 0).is_none());
        assert!(!delivery.is_complete(0, 0));
        delivery.on(StreamEvent::Acknowledged(1));
        assert!(delivery.is_complete(0, 0));
        assert!(delivery.next(&table, 1).is_some_and(|part| part.with_others));
    }

    #[test]
    fn a_new_stream_gets_everything_again() {
        let (mut delivery, _stream) = open();
        delivery.send(&empty_report(), 5, 3);
        delivery.on(StreamEvent::Acknowledged(1));
        delivery.on(StreamEvent::Closed);
        assert!(delivery.next(&Table::default(), 3).is_none());
        let (sender, _again) = mpsc::channel(IN_FLIGHT);
        delivery.on(StreamEvent::Open(sender));
        assert!(delivery.next(&Table::default(), 3).is_some_and(|part| part.with_others));
    }

    #[test]
    fn unacknowledged_increments_are_bounded() {
        let (mut delivery, _stream) = open();
        for version in 1..=10 {
            if delivery.next(&Table::default(), version).is_some() {
                delivery.send(&empty_report(), 0, version);
            }
        }
        assert_eq!(delivery.unacknowledged.len(), IN_FLIGHT);
    }
}
