//! What a recognised learner says is about its own node, or is refused.
//!
//! Laws:
//! * a flow, a loss or a name of a pod is merged only if the pod is known and bound to the learner's node; of a pod that is not known
//!   yet it waits until the pod is; of another node's pod it is refused and counted. The rest of the report is used;
//! * a report of which a part waits is owed: its learner is not told that it may forget it before the part was merged and that is
//!   durable, or before nobody is to be expected any more who knows the pod. Then the part is counted, and is still merged should the
//!   pod come, as long as there is room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use nanoseg_graph::cluster::{AddressOwner, Cluster};
use nanoseg_graph::flow::{Flow, FlowTable, Loss, Named, Origin, Report, Subject};

/// Flows that may wait for their pods: some 50 MB. Pods are watched, so usually none waits for longer than a second.
const MAY_WAIT: usize = 100_000;

/// How long a learner waits for a pod that is not known. Watches tell within a second of a pod that is bound, and within some on a busy
/// API server; meanwhile a learner sends a few increments more and then none.
const EXPECTED: SignedDuration = SignedDuration::from_secs(10);

/// How much the clock of a node may differ. What was last seen so long before all pods were listed is of a pod that was gone by then.
const SKEW: SignedDuration = SignedDuration::from_secs(10);

/// Why a part of a report was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusedPart {
    /// Its pod is on another node.
    OtherNode,
    /// Too many wait for pods that are not known.
    TooManyWait,
    /// Nobody knows the pod, and nobody is expected to.
    NoSuchPod,
    /// An address that is not the node's.
    Address,
}

impl RefusedPart {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::OtherNode, Self::TooManyWait, Self::NoSuchPod, Self::Address];

    /// In a word, for counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OtherNode => "other_node",
            Self::TooManyWait => "too_many_wait",
            Self::NoSuchPod => "no_such_pod",
            Self::Address => "address_of_another",
        }
    }
}

impl fmt::Display for RefusedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherNode => "the pod is on another node",
            Self::TooManyWait => "too many wait for pods that are not known",
            Self::NoSuchPod => "the pod is not known; it may have been gone before this controller was started",
            Self::Address => "the address is another's",
        })
    }
}

enum Whose {
    Own,
    Others,
    /// Of a pod that is not known, or not bound to a node, by its UID.
    Unknown(String),
}

/// What is of one pod that is not known.
#[derive(Debug)]
struct Waiting {
    table: FlowTable,
    since: Timestamp,
    /// Reports that are owed because of it, by number.
    owed: BTreeSet<u64>,
    /// Nobody is expected to know the pod, and no report is owed.
    is_given_up: bool,
}

/// A report of which parts wait, or waited.
#[derive(Clone, Copy, Debug, Default)]
struct Owed {
    /// Pods that it waits for.
    pods: usize,
    /// The number of the last report that a part of it was merged by.
    merged_by: u64,
}

/// When a report came, by its number, and when all pods had been listed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Its number.
    pub(super) number: u64,
    /// When pods had all been listed.
    pub(super) listed: Option<Timestamp>,
    /// Now.
    pub(super) now: Timestamp,
}

/// What waited for a pod, to be admitted again, and the reports that are owed until then.
#[derive(Debug, Default)]
pub(super) struct Released {
    /// Its parts, as reports.
    pub(super) reports: Vec<Report>,
    /// Numbers of reports.
    pub(super) owed: BTreeSet<u64>,
}

/// What waits, and what was refused.
#[derive(Debug, Default)]
pub(super) struct Attested {
    waiting: BTreeMap<String, Waiting>,
    waiting_flows: usize,
    owed: BTreeMap<u64, Owed>,
    /// Pods that are waited for, in the order in which their first parts came.
    expected: VecDeque<(Timestamp, String)>,
    /// Pods that are given up, in order.
    given_up: VecDeque<String>,
    refused: BTreeMap<RefusedPart, u64>,
}

impl Attested {
    /// Parts of reports that were not used, by reason.
    pub(super) const fn refused(&self) -> &BTreeMap<RefusedPart, u64> {
        &self.refused
    }

    /// How many reports must be durable for this one to be, itself among them; `None`: a part of it waits.
    pub(super) fn settled_by(&self, number: u64) -> Option<u64> {
        match self.owed.get(&number) {
            None => Some(number),
            Some(Owed { pods: 0, merged_by }) => Some(number.max(*merged_by)),
            Some(_) => None,
        }
    }

    /// Takes in how many reports are durable.
    pub(super) fn forget(&mut self, durable: u64) {
        self.owed
            .retain(|number, owed| owed.pods > 0 || (*number).max(owed.merged_by) > durable);
    }

    /// What was owed until then was merged by this report.
    pub(super) fn settle(&mut self, owed: BTreeSet<u64>, merged_by: u64) {
        for number in owed {
            if let Some(owed) = self.owed.get_mut(&number) {
                owed.pods = owed.pods.saturating_sub(1);
                owed.merged_by = owed.merged_by.max(merged_by);
            }
        }
    }

    /// Gives up pods that were waited for long enough. Returns when the next one is.
    pub(super) fn give_up(&mut self, now: Timestamp) -> Option<Timestamp> {
        while let Some((since, uid)) = self.expected.front() {
            let until = since.checked_add(EXPECTED).unwrap_or(Timestamp::MAX);
            let waits = self
                .waiting
                .get(uid)
                .is_some_and(|waiting| waiting.since == *since && !waiting.is_given_up);
            if waits && until > now {
                return Some(until);
            }
            let Some((_, uid)) = self.expected.pop_front().filter(|_| waits) else {
                continue;
            };
            self.expect_no_more(uid);
        }
        None
    }

    fn expect_no_more(&mut self, uid: String) {
        let Some(waiting) = self.waiting.get_mut(&uid).filter(|waiting| !waiting.is_given_up) else {
            return;
        };
        waiting.is_given_up = true;
        let (owed, parts) = (std::mem::take(&mut waiting.owed), size(&waiting.table));
        self.settle(owed, 0);
        self.refuse(RefusedPart::NoSuchPod, parts);
        self.given_up.push_back(uid);
    }

    /// What of a report may be merged now. Its origin's node is the one that the learner's token is bound to.
    pub(super) fn admit(&mut self, report: Report, arrival: Arrival, cluster: &Cluster) -> Report {
        let Report {
            origin,
            flows,
            losses,
            node_addresses,
            names,
            // Where there is a cluster, no container is known but those of its pods.
            held: _,
            capture,
        } = report;
        let part = |flows, losses, names| Report {
            origin: origin.clone(),
            flows,
            losses,
            node_addresses: [].into(),
            names,
            held: Vec::new(),
            capture: None,
        };
        let node = origin.node.as_str();
        let mut admitted = Report {
            capture,
            ..part(Vec::new(), Vec::new(), Vec::new())
        };
        for flow in flows {
            match whose(Some(&flow.key.subject), node, cluster) {
                Whose::Own => admitted.flows.push(flow),
                Whose::Others => self.refuse(RefusedPart::OtherNode, 1),
                Whose::Unknown(uid) => {
                    let was_gone = arrival.listed.is_some_and(|listed| {
                        let late = flow.tally.last_seen.checked_add(SKEW);
                        late.is_ok_and(|late| late < listed)
                    });
                    self.wait(uid, &part(vec![flow], Vec::new(), Vec::new()), arrival, was_gone);
                }
            }
        }
        for loss in losses {
            match whose(loss.subject.as_ref(), node, cluster) {
                Whose::Own => admitted.losses.push(loss),
                Whose::Others => self.refuse(RefusedPart::OtherNode, 1),
                Whose::Unknown(uid) => self.wait(uid, &part(Vec::new(), vec![loss], Vec::new()), arrival, false),
            }
        }
        for named in names {
            match whose(Some(&named.subject), node, cluster) {
                Whose::Own => admitted.names.push(named),
                Whose::Others => self.refuse(RefusedPart::OtherNode, 1),
                Whose::Unknown(uid) => self.wait(uid, &part(Vec::new(), Vec::new(), vec![named]), arrival, false),
            }
        }
        for address in node_addresses {
            let of_another = |owner: &AddressOwner| !matches!(owner, AddressOwner::Node(name) if name == node);
            if cluster
                .owners_of(address, arrival.now, arrival.now)
                .iter()
                .any(of_another)
            {
                self.refuse(RefusedPart::Address, 1);
            } else {
                admitted.node_addresses.insert(address);
            }
        }
        admitted
    }

    /// What waited for this pod.
    pub(super) fn release(&mut self, uids: [Option<&str>; 2]) -> Released {
        let mut released = Released::default();
        for Waiting { table, owed, .. } in uids.into_iter().flatten().filter_map(|uid| self.waiting.remove(uid)) {
            self.waiting_flows = self.waiting_flows.saturating_sub(size(&table));
            released.owed.extend(owed);
            parts(&table, &mut released.reports);
        }
        released
    }

    fn refuse(&mut self, why: RefusedPart, parts: usize) {
        let refused = self.refused.entry(why).or_default();
        *refused = refused.saturating_add(parts as u64);
    }

    fn wait(&mut self, uid: String, part: &Report, arrival: Arrival, was_gone: bool) {
        if self.waiting_flows >= MAY_WAIT && !self.make_room() {
            self.refuse(RefusedPart::TooManyWait, 1);
            return;
        }
        let waiting = self.waiting.entry(uid.clone()).or_insert_with(|| {
            self.expected.push_back((arrival.now, uid.clone()));
            Waiting {
                table: FlowTable::default(),
                since: arrival.now,
                owed: BTreeSet::new(),
                is_given_up: false,
            }
        });
        let before = size(&waiting.table);
        waiting.table.merge(part);
        let more = size(&waiting.table) - before;
        self.waiting_flows += more;
        if waiting.is_given_up {
            self.refuse(RefusedPart::NoSuchPod, more);
        } else if was_gone {
            self.expect_no_more(uid);
        } else if waiting.owed.insert(arrival.number) {
            self.owed.entry(arrival.number).or_default().pods += 1;
        }
    }

    /// Forgets what is of the pod that was given up first. It was counted then.
    fn make_room(&mut self) -> bool {
        while let Some(uid) = self.given_up.pop_front() {
            // It may have come in the meantime, and something else may wait for it since.
            if self.waiting.get(&uid).is_some_and(|waiting| waiting.is_given_up)
                && let Some(waiting) = self.waiting.remove(&uid)
            {
                self.waiting_flows = self.waiting_flows.saturating_sub(size(&waiting.table));
                return true;
            }
        }
        false
    }
}

/// Everything in a table, as reports.
fn parts(table: &FlowTable, reports: &mut Vec<Report>) {
    let part = |origin: &Origin| Report {
        origin: origin.clone(),
        flows: Vec::new(),
        losses: Vec::new(),
        node_addresses: [].into(),
        names: Vec::new(),
        held: Vec::new(),
        capture: None,
    };
    for (origin, key, tally) in table.flows() {
        let flow = Flow {
            key: key.key(),
            tally: *tally,
        };
        reports.push(Report {
            flows: vec![flow],
            ..part(origin)
        });
    }
    for (origin, subject, reason, count) in table.losses() {
        let subject = subject.cloned();
        reports.push(Report {
            losses: vec![Loss { subject, reason, count }],
            ..part(origin)
        });
    }
    for (node, subject, address, name, (first_seen, until)) in table.names() {
        // Names are kept by node, whichever run of its learner told them.
        let origin = Origin {
            node: node.to_owned(),
            epoch: 0,
        };
        let named = Named {
            subject: subject.clone(),
            address,
            name: name.clone(),
            first_seen,
            until,
        };
        reports.push(Report {
            names: vec![named],
            ..part(&origin)
        });
    }
}

fn size(table: &FlowTable) -> usize {
    table.len() + table.losses().count() + table.names().count()
}

fn whose(subject: Option<&Subject>, node: &str, cluster: &Cluster) -> Whose {
    // What is of no pod is the node's own, and says so by the origin that it is counted under.
    let Some(Subject::Container(container)) = subject else {
        return Whose::Own;
    };
    let pod = cluster.pod_by_uid(&container.pod_uid);
    match pod.and_then(|pod| pod.node.as_deref()) {
        Some(bound) if bound == node => Whose::Own,
        Some(_) => Whose::Others,
        None => Whose::Unknown(container.pod_uid.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nanoseg_graph::cluster::{Object, Pod, PodPhase};
    use nanoseg_graph::flow::LossReason;
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, node: Option<&str>) -> Pod {
        Pod {
            uid: uid.into(),
            mirror_uid: None,
            images: Arc::default(),
            namespace: "shop".into(),
            name: uid.into(),
            labels: Arc::default(),
            owner: None,
            addresses: ["198.18.1.7".parse().unwrap()].into(),
            host_network: false,
            node: node.map(Into::into),
            ports: Arc::default(),
            phase: PodPhase::Running,
            ready: true,
            started: Some(now()),
        }
    }

    fn now() -> Timestamp {
        "2026-03-01T00:00:00Z".parse().unwrap()
    }

    fn arrival(number: u64, now: Timestamp) -> Arrival {
        Arrival {
            number,
            listed: None,
            now,
        }
    }

    fn report(node: &str, uids: &[&str]) -> Report {
        let flow = |uid: &&str| {
            let flow = json!({
                "subject": { "container": { "pod_uid": uid, "container_id": "c" } }, "peer": "198.18.1.9", "port": 80,
                "transport": "TCP", "reporter": "destination", "first_seen": now(), "last_seen": now(),
                "attempted": 1, "established": 1, "refused": 0,
            });
            serde_json::from_value::<Flow>(flow).unwrap()
        };
        let flows: Vec<Flow> = uids.iter().map(flow).collect();
        Report {
            origin: Origin {
                node: node.to_owned(),
                epoch: 1,
            },
            losses: flows
                .iter()
                .map(|flow| Loss {
                    subject: Some(flow.key.subject.clone()),
                    reason: LossReason::MapFull,
                    count: 1,
                })
                .collect(),
            flows,
            node_addresses: ["198.18.1.7", "198.18.1.1"].map(|text| text.parse().unwrap()).into(),
            names: Vec::new(),
            held: Vec::new(),
            capture: None,
        }
    }

    #[test]
    fn a_node_speaks_for_its_own_pods_alone() {
        let mut cluster = Cluster::new([]);
        for pod in [
            pod("mine", Some("node1")),
            pod("theirs", Some("node2")),
            pod("unbound", None),
        ] {
            cluster.observe(Object::Pod(pod), now());
        }
        let mut attested = Attested::default();
        let admitted = attested.admit(
            report("node1", &["mine", "theirs", "unbound", "new", "stolen"]),
            arrival(1, now()),
            &cluster,
        );
        assert_eq!(admitted.flows, report("node1", &["mine"]).flows);
        assert_eq!(admitted.losses, report("node1", &["mine"]).losses);
        // An address of a pod is no node's.
        assert_eq!(admitted.node_addresses, ["198.18.1.1".parse().unwrap()].into());
        let refused = [(RefusedPart::OtherNode, 2), (RefusedPart::Address, 1)];
        assert_eq!(*attested.refused(), refused.into());

        // What waits is judged when the pod is known: never before, never for another node, and once.
        for (uid, node, flows) in [("new", "node1", 1), ("unbound", "node1", 1), ("stolen", "node2", 0)] {
            cluster.observe(Object::Pod(pod(uid, Some(node))), now());
            let released = attested.release([Some(uid), None]).reports;
            assert_eq!(released.len(), 2, "a flow and a loss of {uid}");
            let admitted = released
                .into_iter()
                .map(|report| attested.admit(report, arrival(2, now()), &cluster).flows.len());
            assert_eq!(admitted.sum::<usize>(), flows, "{uid}");
            assert!(attested.release([Some(uid), None]).reports.is_empty());
        }
        assert_eq!(attested.refused().get(&RefusedPart::OtherNode), Some(&4));
        assert_eq!(attested.waiting_flows, 0);
    }

    fn later(seconds: i64) -> Timestamp {
        now() + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn what_waits_is_bounded_and_twice_is_once() {
        let cluster = Cluster::new([]);
        let mut attested = Attested::default();
        for number in 1..3 {
            attested.admit(report("node1", &["a", "b"]), arrival(number, now()), &cluster);
        }
        assert_eq!(attested.waiting_flows, 4);
        attested.waiting_flows = MAY_WAIT;
        attested.admit(report("node1", &["c"]), arrival(3, now()), &cluster);
        assert_eq!(attested.refused().get(&RefusedPart::TooManyWait), Some(&2));
        assert_eq!(
            attested.settled_by(3),
            Some(3),
            "refused and counted, so nobody waits for it"
        );

        // Who is given up makes room for others.
        attested.waiting_flows = 4;
        attested.give_up(later(10));
        attested.waiting_flows = MAY_WAIT;
        attested.admit(report("node1", &["c"]), arrival(4, later(11)), &cluster);
        assert_eq!(attested.refused().get(&RefusedPart::TooManyWait), Some(&2));
        assert_eq!(attested.waiting.len(), 2);
        assert_eq!(attested.waiting_flows, MAY_WAIT, "two went and two came");
    }

    #[test]
    fn a_report_is_owed_until_what_waits_of_it_was_merged_or_given_up() {
        let mut cluster = Cluster::new([]);
        let mut attested = Attested::default();
        attested.admit(report("node1", &["a", "b"]), arrival(1, now()), &cluster);
        attested.admit(report("node1", &["b"]), arrival(2, later(1)), &cluster);
        attested.admit(report("node1", &[]), arrival(3, later(1)), &cluster);
        let settled = |attested: &Attested| [1, 2, 3].map(|number| attested.settled_by(number));
        assert_eq!(settled(&attested), [None, None, Some(3)]);

        cluster.observe(Object::Pod(pod("b", Some("node1"))), later(2));
        let Released { reports, owed } = attested.release([Some("b"), None]);
        assert_eq!((reports.len(), &owed), (2, &[1, 2].into()));
        attested.settle(owed, 5);
        assert_eq!(
            settled(&attested),
            [None, Some(5), Some(3)],
            "the first one waits for another pod"
        );
        attested.forget(4);
        assert_eq!(attested.settled_by(2), Some(5), "not durable yet");
        attested.forget(5);
        assert_eq!((attested.settled_by(2), attested.owed.len()), (Some(2), 1));

        // Nobody comes: it is counted, nobody waits for it any more, and it is used should the pod come after all.
        assert_eq!(attested.give_up(later(9)), Some(later(10)));
        assert_eq!(attested.settled_by(1), None);
        assert_eq!(attested.give_up(later(10)), None);
        assert_eq!(attested.settled_by(1), Some(5));
        assert_eq!(attested.refused().get(&RefusedPart::NoSuchPod), Some(&2));
        attested.admit(report("node1", &["a"]), arrival(6, later(11)), &cluster);
        assert_eq!(attested.settled_by(6), Some(6));
        assert_eq!(attested.release([Some("a"), None]).reports.len(), 2);
    }

    #[test]
    fn nobody_waits_for_a_pod_that_was_gone_when_pods_were_listed() {
        let cluster = Cluster::new([]);
        for (listed, waits) in [(None, true), (Some(later(5)), true), (Some(later(11)), false)] {
            let mut attested = Attested::default();
            let arrival = Arrival {
                listed,
                ..arrival(1, later(20))
            };
            let mut report = report("node1", &["a"]);
            report.losses.clear();
            attested.admit(report, arrival, &cluster);
            assert_eq!(attested.settled_by(1).is_none(), waits, "{listed:?}");
        }
    }
}
