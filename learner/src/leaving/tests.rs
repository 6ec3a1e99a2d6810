//! A node, its learners one after the other, and a controller that keeps of each count the largest it was told.

use std::collections::{HashMap, VecDeque};

use nanoseg_graph::container::ContainerRef;
use nanoseg_graph::endpoint::UnknownReason;
use nanoseg_graph::flow::Flow;
use proptest::prelude::*;

use super::*;
use crate::table::Table;
use crate::table::tests::{self, CLOCK};

/// The cgroups of a table's tests, and two of a unit that was started twice.
const CGROUPS: std::ops::RangeInclusive<u64> = 1..=5;

fn subject(cgroup: u64) -> Subject {
    match cgroup {
        4 | 5 => Subject::Host("/system.slice/web.service".to_owned()),
        1..=3 => tests::subject(cgroup),
        _ => Subject::Unknown(UnknownReason::CgroupGone),
    }
}

/// What stays when a learner is killed.
#[derive(Default)]
struct Node {
    flows: HashMap<FlowKey, FlowRecord>,
    archive: HashMap<FlowKey, Archived>,
    owners: BTreeSet<u64>,
    there: BTreeSet<u64>,
    produced: BTreeMap<(Subject, u16), u64>,
    left: BTreeSet<(Subject, u16)>,
    now: u64,
}

#[derive(Default)]
struct Learner {
    table: Table,
    leaving: Leaving,
    known: BTreeSet<u64>,
    sent: u64,
    under_way: VecDeque<(Vec<Flow>, u64)>,
    acknowledged: Option<u64>,
}

/// How many steps are taken before the learner is killed.
const ALL_STEPS: usize = usize::MAX;

impl Node {
    fn write(&mut self, step: Step) {
        match step {
            Step::Write(kept, archived) => drop(self.archive.insert(kept.to_key(), archived)),
            Step::Remove(key) | Step::Join(key) => assert!(self.archive.remove(&key).is_some()),
            // As long as something is kept, somebody may ask whose it is.
            Step::Forget(cgroup) if self.is_archived(cgroup) => {}
            Step::Forget(cgroup) => drop(self.owners.remove(&cgroup)),
        }
    }

    fn kept(&self) -> Vec<(Kept, Archived)> {
        let all = self.archive.iter();
        all.map(|(key, archived)| (Kept::from_key(*key), *archived)).collect()
    }

    fn is_archived(&self, cgroup: u64) -> bool {
        self.archive.keys().any(|key| key.cgroup == cgroup)
    }

    fn learner(&mut self) -> Learner {
        for step in unfinished(&self.kept()) {
            self.write(step);
        }
        let owners: BTreeMap<u64, Subject> = self.owners.iter().map(|cgroup| (*cgroup, subject(*cgroup))).collect();
        for step in unjoined(&owners, &self.kept()) {
            self.write(step);
        }
        let mut learner = Learner {
            known: self.owners.clone(),
            ..Learner::default()
        };
        for (kept, archived) in self.kept() {
            match kept {
                Kept::Flow(key) => {
                    learner
                        .table
                        .restore(&key, &archived.total(), None, false, CLOCK, |id| {
                            learner
                                .known
                                .get(&id)
                                .map_or(Subject::Unknown(UnknownReason::CgroupGone), |id| subject(*id))
                        });
                }
                Kept::Left => learner.table.restore_left(&archived.total()),
                Kept::Older(_) | Kept::Loss(_) | Kept::Discarded => unreachable!(),
            }
        }
        learner
    }
}

impl Learner {
    fn read(&mut self, node: &Node) {
        let flows = node.flows.iter();
        flows.for_each(|(key, record)| {
            self.table.observe(key, record, CLOCK, subject);
        });
    }

    fn evict(&mut self, node: &mut Node, cgroup: u64) {
        self.read(node);
        for key in self.table.of_cgroups(&[cgroup].into()) {
            let record = node.flows.remove(&key).unwrap();
            let known = node.archive.entry(key).or_default();
            *known = known.with(&record);
            self.table.forget(&key);
            self.leaving.is_kept(cgroup, self.table.version());
        }
    }

    fn tidy(&mut self, node: &mut Node, most: usize) {
        for cgroup in CGROUPS {
            if node.there.contains(&cgroup) || !self.known.remove(&cgroup) {
                continue;
            }
            self.evict(node, cgroup);
            if node.is_archived(cgroup) || self.table.knows(&subject(cgroup)) {
                self.leaving.is_gone(cgroup, subject(cgroup), self.table.version());
            } else {
                node.owners.remove(&cgroup);
            }
        }
        let returning = self
            .leaving
            .returning(|cgroup| node.is_archived(cgroup), |cgroup| self.table.is_held(cgroup));
        for step in joining(&returning, &node.kept()).into_iter().take(most) {
            node.write(step);
        }
    }

    fn leave(&mut self, node: &mut Node, most: usize) {
        let Some(acknowledged) = self.acknowledged else { return };
        let known: BTreeSet<Subject> = self.known.iter().map(|cgroup| subject(*cgroup)).collect();
        let Ready { subjects, cgroups } = self.leaving.ready(
            acknowledged,
            |subject| known.contains(subject),
            |cgroup| self.table.is_held(cgroup),
        );
        let (mut taken, mut left_now) = (0, BTreeSet::new());
        for cgroup in cgroups {
            let of_cgroup = node
                .kept()
                .into_iter()
                .filter(|(kept, _)| leaves(*kept) && kept.to_key().cgroup == cgroup);
            let of_cgroup: Vec<_> = of_cgroup.collect();
            let total = of_cgroup.iter().fold(FlowRecord::default(), |before, (_, archived)| {
                Archived {
                    before,
                    last: archived.total(),
                }
                .total()
            });
            let keys: Vec<FlowKey> = of_cgroup.iter().map(|(kept, _)| kept.to_key()).collect();
            let left = node.archive.get(&Kept::Left.to_key()).copied().unwrap_or_default();
            for step in steps(cgroup, &keys, &total, left) {
                if taken == most {
                    return;
                }
                taken += 1;
                node.write(step);
            }
            left_now.extend(keys.iter().map(|key| (subject(cgroup), key.port)));
        }
        node.left.extend(left_now);
        self.table.leave(&subjects);
    }

    fn send(&mut self) {
        let (flows, up_to) = self.table.oldest_changes(self.sent, 2);
        self.sent = up_to;
        self.under_way.push_back((flows, up_to));
    }

    fn acknowledge(&mut self, controller: &mut BTreeMap<(Subject, u16), u64>) {
        if let Some((flows, up_to)) = self.under_way.pop_front() {
            for Flow { key, tally } in flows {
                let known = controller.entry((key.subject, key.port)).or_default();
                *known = tally.attempted.max(*known);
            }
            self.acknowledged = Some(up_to);
        }
    }
}

#[derive(Clone, Debug)]
enum Happens {
    Connections { cgroup: u64, port: u16, count: u64 },
    Read,
    Evict(u64),
    Removed(u64),
    Tidy,
    Send,
    Acknowledged,
    Leave,
    KilledLeaving(usize),
    KilledTidying(usize),
    Killed,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (CGROUPS, 0_u16..3, 1_u64..9).prop_map(|(cgroup, port, count)| Happens::Connections { cgroup, port, count }),
        2 => Just(Happens::Read),
        2 => CGROUPS.prop_map(Happens::Evict),
        2 => CGROUPS.prop_map(Happens::Removed),
        3 => Just(Happens::Tidy),
        3 => Just(Happens::Send),
        3 => Just(Happens::Acknowledged),
        3 => Just(Happens::Leave),
        1 => (0_usize..6).prop_map(Happens::KilledLeaving),
        1 => (0_usize..6).prop_map(Happens::KilledTidying),
        1 => Just(Happens::Killed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_left_was_delivered_and_everything_is_counted_once(all in prop::collection::vec(happens(), 0..80)) {
        let mut node = Node { there: CGROUPS.collect(), owners: CGROUPS.collect(), ..Node::default() };
        let mut learner = node.learner();
        let mut controller = BTreeMap::new();
        for happens in all {
            match happens {
                Happens::Connections { cgroup, port, count } => if learner.known.contains(&cgroup) {
                    node.now += 1;
                    let key = FlowKey { cgroup, port, transport: 6, ..FlowKey::default() };
                    let new = FlowRecord { first_ns: node.now, ..FlowRecord::default() };
                    let record = node.flows.entry(key).or_insert(new);
                    record.attempted += count;
                    record.last_ns = node.now;
                    *node.produced.entry((subject(cgroup), port)).or_default() += count;
                },
                Happens::Read => learner.read(&node),
                Happens::Evict(cgroup) => learner.evict(&mut node, cgroup),
                Happens::Removed(cgroup) => drop(node.there.remove(&cgroup)),
                Happens::Tidy => learner.tidy(&mut node, ALL_STEPS),
                Happens::Send => learner.send(),
                Happens::Acknowledged => learner.acknowledge(&mut controller),
                Happens::Leave => learner.leave(&mut node, ALL_STEPS),
                Happens::KilledLeaving(steps) => {
                    learner.leave(&mut node, steps);
                    learner = node.learner();
                }
                Happens::KilledTidying(steps) => {
                    learner.tidy(&mut node, steps);
                    learner = node.learner();
                }
                Happens::Killed => learner = node.learner(),
            }
        }
        // Whatever left, the ledger is what was produced.
        let mut next = node.learner();
        for learner in [&mut learner, &mut next] {
            learner.read(&node);
            prop_assert_eq!(learner.table.delivered(), node.produced.values().sum::<u64>());
        }
        // What left is not told again, and what the next one tells is all that the controller lacks.
        for flow in learner.table.changed_since(0).chain(next.table.changed_since(0)) {
            prop_assert!(!node.left.contains(&(flow.key.subject, flow.key.port)));
        }
        while next.sent < next.table.version() {
            next.send();
            next.acknowledge(&mut controller);
        }
        prop_assert_eq!(&controller, &node.produced);
        // In the end each flow of a unit is kept once, as often as the unit came back, and with all that it came to.
        node.there.clear();
        next.tidy(&mut node, ALL_STEPS);
        let of_unit = node.kept().into_iter().map(|(kept, _)| kept.to_key()).filter(|key| matches!(subject(key.cgroup), Subject::Host(_)));
        let mut ports: Vec<u16> = of_unit.map(|key| key.port).collect();
        ports.sort_unstable();
        prop_assert!(ports.is_sorted_by(|left, right| left < right), "{:?}", ports);
        let mut last = node.learner();
        last.read(&node);
        prop_assert_eq!(last.table.delivered(), node.produced.values().sum::<u64>());
    }
}

#[test]
fn a_container_that_comes_again_and_again_is_gone_from_the_archive_once_it_was_delivered() {
    let mut leaving = Leaving::default();
    leaving.is_gone(3, subject(3), 7);
    let nobody = |_: &Subject| false;
    let nothing = Ready::default();
    assert_eq!(leaving.ready(6, nobody, |_| false), nothing, "not acknowledged");
    leaving.is_kept(3, 9);
    assert_eq!(leaving.ready(8, nobody, |_| false), nothing, "of a late packet");
    assert_eq!(leaving.ready(9, nobody, |_| true), nothing, "still in the flow map");
    assert_eq!(
        leaving.ready(9, |_| true, |_| false),
        nothing,
        "another cgroup of it is there"
    );
    let ready = Ready {
        subjects: [subject(3)].into(),
        cgroups: [3].into(),
    };
    assert_eq!(leaving.ready(9, nobody, |_| false), ready);
    assert_eq!(leaving.ready(9, nobody, |_| false), nothing);
    assert!(leaving.gone.is_empty() && leaving.whose.is_empty(), "nothing grows");
    leaving.is_gone(4, subject(4), 1);
    assert_eq!(leaving.ready(9, nobody, |_| false), nothing, "a unit may come back");
}

/// What a learner holds is by what there is on its node, and not by what there was.
#[test]
fn p32_ten_thousand_containers_one_after_the_other_take_the_memory_of_a_few() {
    const CONTAINERS: u64 = 10_000;
    const PORTS: u16 = 10;
    // So many are gone by the time the controller acknowledges them.
    const LATE: usize = 100;
    let mut learner = Learner::default();
    let of = |cgroup: u64| {
        Subject::Container(ContainerRef {
            pod_uid: "loops".to_owned(),
            container_id: cgroup.to_string(),
        })
    };
    let mut delivered = 0;
    for (turn, cgroup) in (1..=CONTAINERS).enumerate() {
        for port in 0..PORTS {
            let key = FlowKey {
                cgroup,
                port,
                transport: 6,
                ..FlowKey::default()
            };
            let record = FlowRecord {
                first_ns: cgroup,
                last_ns: cgroup,
                attempted: 1,
                ..FlowRecord::default()
            };
            learner.table.observe(&key, &record, CLOCK, of);
            learner.table.forget(&key);
            delivered += 1;
        }
        let version = learner.table.version();
        learner.leaving.is_gone(cgroup, of(cgroup), version);
        if turn % LATE == 0 {
            let ready = learner.leaving.ready(version, |_| false, |_| false);
            learner.table.leave(&ready.subjects);
        }
        assert!(
            learner.table.room() <= LATE * usize::from(PORTS) + LATE,
            "after {cgroup} containers"
        );
        assert!(learner.leaving.gone.len() <= LATE && learner.leaving.whose.len() <= LATE);
    }
    assert_eq!(learner.table.delivered(), delivered, "and everything is counted");
}
