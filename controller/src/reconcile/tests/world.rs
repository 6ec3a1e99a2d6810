//! A cluster as a core is told of it, and that does what a core writes.

use super::*;

pub(super) const WEB: &str = "198.18.1.10";
pub(super) const DB: &str = "198.18.1.11";
pub(super) const INTRUDER: &str = "198.18.1.66";

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(super) fn labels(name: &str) -> std::collections::BTreeMap<String, String> {
    [("app".to_owned(), name.to_owned())].into()
}

pub(super) fn deployment(name: &str) -> Object {
    Object::Controller(Controller {
        namespace: "shop".to_owned(),
        kind: "Deployment".to_owned(),
        name: name.to_owned(),
        owner: None,
        selector: labels(name).into(),
        template_labels: labels(name).into(),
    })
}

pub(super) fn pod(name: &str, address: &str) -> Object {
    Object::Pod(Pod {
        uid: format!("uid-{name}").into(),
        mirror_uid: None,
        images: Arc::default(),
        namespace: "shop".into(),
        name: format!("{name}-0").into(),
        labels: labels(name).into(),
        owner: Some(Arc::new(OwnerRef {
            kind: "Deployment".to_owned(),
            name: name.to_owned(),
        })),
        addresses: [address.parse().unwrap()].into(),
        host_network: false,
        node: Some("node1".into()),
        ports: Arc::default(),
        phase: PodPhase::Running,
        ready: true,
        started: Some(at(-100)),
    })
}

pub(super) fn report(flows: &[(&str, &str, u16)]) -> Event {
    counted(flows, 1, 1)
}

/// A report in which each connection was tried and answered so often.
pub(super) fn counted(flows: &[(&str, &str, u16)], attempted: u64, established: u64) -> Event {
    let flow = |(destination, peer, port): &(&str, &str, u16)| Flow {
        key: FlowKey {
            subject: FlowSubject::Container(ContainerRef {
                pod_uid: format!("uid-{destination}"),
                container_id: "c".to_owned(),
            }),
            peer: peer.parse().unwrap(),
            port: *port,
            transport: Transport::Tcp,
            reporter: Reporter::Destination,
        },
        tally: Tally {
            first_seen: at(-10),
            last_seen: at(-1),
            attempted,
            established,
            refused: 0,
            unanswered: 0,
        },
    };
    Event::Report(Report {
        origin: Origin {
            node: "node1".to_owned(),
            epoch: 1,
        },
        flows: flows.iter().map(flow).collect(),
        losses: Vec::new(),
        node_addresses: [].into(),
        names: Vec::new(),
        held: Vec::new(),
        capture: None,
    })
}

/// The world outside of the core: what was written is there, and is told back.
#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) policies: BTreeMap<PolicyName, NetworkPolicy>,
    pub(super) segments: BTreeMap<SegmentName, Segment>,
    pub(super) violations: Vec<Violation>,
    /// Others own the policies.
    pub(super) reports_only: bool,
    pub(super) policies_per_second: Option<NonZeroU32>,
}

impl World {
    /// Does at most `steps` of what a round wants, in the order in which it must be done, as if the controller died then.
    pub(super) fn apply(&mut self, writes: Writes, steps: usize) -> Vec<Event> {
        let Writes {
            segments,
            proposals: _,
            put,
            remove,
            forget,
            violations,
            notices: _,
        } = writes;
        self.violations.extend(violations);
        let mut events = Vec::new();
        for step in put.into_iter().take(steps) {
            self.policies
                .insert(PolicyName::of(&step.desired), step.desired.clone());
            events.push(Event::Policy(Box::new(step.desired)));
        }
        for SegmentWrite { segment, exists: _ } in segments.into_iter().take(steps - events.len()) {
            self.segments.insert(segment.segment_name(), segment.clone());
            events.push(Event::Segment(Box::new(segment)));
        }
        for (policy, _) in remove.into_iter().take(steps - events.len()) {
            self.policies.remove(&PolicyName::of(&policy));
            events.push(Event::PolicyGone(PolicyName::of(&policy)));
        }
        for segment in forget.into_iter().take(steps - events.len()) {
            self.segments.remove(&segment.segment_name());
            events.push(Event::SegmentGone(segment.segment_name()));
        }
        events
    }

    /// A core that just started and has read everything.
    pub(super) fn core(&self, objects: &[Object], now: Timestamp) -> Core {
        let guide = Guide {
            rules: Rules {
                enforce: vec![(Scope::Namespace("shop".to_owned()), Some(SignedDuration::from_secs(10)))],
                mode: None,
                learn_for: SignedDuration::from_hours(24),
                quiet_for: None,
                own_namespace: None,
            },
            report_interval: SignedDuration::from_secs(5),
            synthesis: synthesize::Settings::default(),
            reports_only: self.reports_only,
            policies_per_second: self.policies_per_second,
        };
        let mut core = Core::new(guide, ["198.18.0.0/16".parse().unwrap()], [Source::Manifests], now);
        for object in objects {
            core.take(Event::Object(object.clone()), now);
        }
        for policy in self.policies.values() {
            core.take(Event::Policy(Box::new(policy.clone())), now);
        }
        for segment in self.segments.values() {
            core.take(Event::Segment(Box::new(segment.clone())), now);
        }
        core.take(Event::Synced(Source::Manifests), now);
        core
    }

    /// Rounds until one writes nothing.
    pub(super) fn settle(&mut self, core: &mut Core, now: Timestamp) {
        for _ in 0..10 {
            let writes = core.round(now).writes;
            if writes.is_empty() {
                return;
            }
            for event in self.apply(writes, usize::MAX) {
                core.take(event, now);
            }
        }
        unreachable!("rounds do not come to an end");
    }

    pub(super) fn policy(&self, workload: &str) -> Option<&NetworkPolicy> {
        let name = format!("nanoseg-deployment-{workload}");
        self.policies.get(&PolicyName {
            namespace: "shop".to_owned(),
            name,
        })
    }

    pub(super) fn segment(&self, workload: &str) -> &Segment {
        &self.segments[&SegmentName {
            namespace: "shop".to_owned(),
            name: format!("deployment-{workload}"),
        }]
    }

    pub(super) fn status(&self, workload: &str) -> &SegmentStatus {
        self.segment(workload).status.as_ref().unwrap()
    }

    /// The status of the Segment of this name, of whichever kind its workload is.
    pub(super) fn status_of(&self, segment: &str) -> &SegmentStatus {
        let mut segments = self.segments.values();
        let found = segments.find(|known| known.segment_name().name == segment);
        found.unwrap().status.as_ref().unwrap()
    }

    /// Fails with what the status says instead.
    #[track_caller]
    pub(super) fn assert_enforcing(&self, workload: &str) {
        let SegmentStatus { phase, reason, .. } = self.status(workload);
        assert_eq!(*phase, Phase::Enforcing, "{reason}");
    }
}

/// A word of what keeps a workload from being promoted, and the sentence.
pub(super) fn promotable(status: &SegmentStatus) -> (String, String) {
    let mut conditions = status.conditions.iter();
    let promotable = conditions.find(|condition| condition.type_ == "Promotable").unwrap();
    (promotable.reason.clone(), promotable.message.clone())
}

pub(super) fn shop() -> Vec<Object> {
    vec![
        deployment("web"),
        pod("web", WEB),
        deployment("db"),
        pod("db", DB),
        deployment("intruder"),
        pod("intruder", INTRUDER),
    ]
}

/// The shop, where web was seen to ask db.
pub(super) fn learning() -> (World, Core) {
    let mut world = World::default();
    let mut core = world.core(&shop(), at(0));
    core.take(report(&[("db", WEB, 5432)]), at(0));
    world.settle(&mut core, at(0));
    (world, core)
}

/// The shop, enforced.
pub(super) fn enforced() -> (World, Core) {
    let (mut world, mut core) = learning();
    assert_eq!(world.status("db").phase, Phase::Learning);
    assert_eq!(world.policies.len(), 0);
    world.settle(&mut core, at(10));
    world.assert_enforcing("db");
    assert!(world.policy("db").is_some());
    (world, core)
}
