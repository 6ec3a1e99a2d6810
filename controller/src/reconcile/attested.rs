//! What a recognised learner says is about its own node, or is refused.
//!
//! Law: a flow, a loss or a name of a pod is merged only if the pod is known and bound to the learner's node; of a pod that is not known
//! yet it waits until the pod is; of another node's pod it is refused and counted. The rest of the report is used.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use nanoseg_graph::cluster::{AddressOwner, Cluster};
use nanoseg_graph::flow::{Flow, FlowTable, Loss, Named, Origin, Report, Subject};

/// Flows that may wait for their pods: some 50 MB. Pods are watched, so usually none waits for longer than a second.
const MAY_WAIT: usize = 100_000;

/// Why a part of a report was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusedPart {
    /// Its pod is on another node.
    OtherNode,
    /// Too many wait for pods that are not known.
    TooManyWait,
    /// An address that is not the node's.
    Address,
}

impl RefusedPart {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::OtherNode, Self::TooManyWait, Self::Address];

    /// In a word, for counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OtherNode => "other_node",
            Self::TooManyWait => "too_many_wait",
            Self::Address => "address_of_another",
        }
    }
}

impl fmt::Display for RefusedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherNode => "the pod is on another node",
            Self::TooManyWait => "too many wait for pods that are not known",
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

/// What waits, and what was refused.
#[derive(Debug, Default)]
pub(super) struct Attested {
    waiting: BTreeMap<String, FlowTable>,
    waiting_flows: usize,
    refused: BTreeMap<RefusedPart, u64>,
}

impl Attested {
    /// Parts of reports that were not used, by reason.
    pub(super) const fn refused(&self) -> &BTreeMap<RefusedPart, u64> {
        &self.refused
    }

    /// What of a report may be merged now. Its origin's node is the one that the learner's token is bound to.
    pub(super) fn admit(&mut self, report: Report, cluster: &Cluster, now: Timestamp) -> Report {
        let Report {
            origin,
            flows,
            losses,
            node_addresses,
            names,
            // Where there is a cluster, no container is known but those of its pods.
            held: _,
        } = report;
        let part = |flows, losses, names| Report {
            origin: origin.clone(),
            flows,
            losses,
            node_addresses: [].into(),
            names,
            held: Vec::new(),
        };
        let node = origin.node.as_str();
        let mut admitted = part(Vec::new(), Vec::new(), Vec::new());
        for flow in flows {
            match whose(Some(&flow.key.subject), node, cluster) {
                Whose::Own => admitted.flows.push(flow),
                Whose::Others => self.refuse(RefusedPart::OtherNode),
                Whose::Unknown(uid) => self.wait(uid, &part(vec![flow], Vec::new(), Vec::new())),
            }
        }
        for loss in losses {
            match whose(loss.subject.as_ref(), node, cluster) {
                Whose::Own => admitted.losses.push(loss),
                Whose::Others => self.refuse(RefusedPart::OtherNode),
                Whose::Unknown(uid) => self.wait(uid, &part(Vec::new(), vec![loss], Vec::new())),
            }
        }
        for named in names {
            match whose(Some(&named.subject), node, cluster) {
                Whose::Own => admitted.names.push(named),
                Whose::Others => self.refuse(RefusedPart::OtherNode),
                Whose::Unknown(uid) => self.wait(uid, &part(Vec::new(), Vec::new(), vec![named])),
            }
        }
        for address in node_addresses {
            let of_another = |owner: &AddressOwner| !matches!(owner, AddressOwner::Node(name) if name == node);
            if cluster.owners_of(address, now, now).iter().any(of_another) {
                self.refuse(RefusedPart::Address);
            } else {
                admitted.node_addresses.insert(address);
            }
        }
        admitted
    }

    /// What waited for this pod. It is to be admitted again.
    pub(super) fn release(&mut self, uids: [Option<&str>; 2]) -> Vec<Report> {
        let mut released = Vec::new();
        for table in uids.into_iter().flatten().filter_map(|uid| self.waiting.remove(uid)) {
            self.waiting_flows = self.waiting_flows.saturating_sub(size(&table));
            for (origin, key, tally) in table.flows() {
                released.push(Report {
                    origin: origin.clone(),
                    flows: vec![Flow {
                        key: key.clone(),
                        tally: *tally,
                    }],
                    losses: Vec::new(),
                    node_addresses: [].into(),
                    names: Vec::new(),
                    held: Vec::new(),
                });
            }
            for (origin, subject, reason, count) in table.losses() {
                let subject = subject.cloned();
                released.push(Report {
                    origin: origin.clone(),
                    flows: Vec::new(),
                    losses: vec![Loss { subject, reason, count }],
                    node_addresses: [].into(),
                    names: Vec::new(),
                    held: Vec::new(),
                });
            }
            for (node, subject, address, name, (first_seen, until)) in table.names() {
                released.push(Report {
                    // Names are kept by node, whichever run of its learner told them.
                    origin: Origin {
                        node: node.to_owned(),
                        epoch: 0,
                    },
                    flows: Vec::new(),
                    losses: Vec::new(),
                    node_addresses: [].into(),
                    held: Vec::new(),
                    names: vec![Named {
                        subject: subject.clone(),
                        address,
                        name: name.clone(),
                        first_seen,
                        until,
                    }],
                });
            }
        }
        released
    }

    fn refuse(&mut self, why: RefusedPart) {
        *self.refused.entry(why).or_default() += 1;
    }

    fn wait(&mut self, uid: String, part: &Report) {
        if self.waiting_flows >= MAY_WAIT {
            self.refuse(RefusedPart::TooManyWait);
            return;
        }
        let table = self.waiting.entry(uid).or_default();
        let before = size(table);
        table.merge(part);
        self.waiting_flows += size(table) - before;
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
            &cluster,
            now(),
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
            let released = attested.release([Some(uid), None]);
            assert_eq!(released.len(), 2, "a flow and a loss of {uid}");
            let admitted = released
                .into_iter()
                .map(|report| attested.admit(report, &cluster, now()).flows.len());
            assert_eq!(admitted.sum::<usize>(), flows, "{uid}");
            assert!(attested.release([Some(uid), None]).is_empty());
        }
        assert_eq!(attested.refused().get(&RefusedPart::OtherNode), Some(&4));
        assert_eq!(attested.waiting_flows, 0);
    }

    #[test]
    fn what_waits_is_bounded_and_twice_is_once() {
        let cluster = Cluster::new([]);
        let mut attested = Attested::default();
        for _ in 0..2 {
            attested.admit(report("node1", &["a", "b"]), &cluster, now());
        }
        assert_eq!(attested.waiting_flows, 4);
        attested.waiting_flows = MAY_WAIT;
        attested.admit(report("node1", &["c"]), &cluster, now());
        assert_eq!(attested.refused().get(&RefusedPart::TooManyWait), Some(&2));
    }
}
