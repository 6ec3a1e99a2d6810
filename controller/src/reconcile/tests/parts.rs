//! A core that thinks only about what has changed decides what one decides that thinks about everything each time.

use nanoseg_graph::cluster::{EndpointSlice, Labels, Service, ServicePort, TargetPort};
use nanoseg_graph::endpoint::ServiceName;
use nanoseg_graph::flow::{Loss, LossReason, Named};

use super::*;

mod objects;
mod runs;

use objects::{node, ours, theirs};
use runs::{Run, nightly, run, run_of};

/// Something that happens to both.
#[derive(Clone, Debug)]
enum Step {
    Said(Said),
    Stream(usize, bool),
    Mode(usize, Option<Mode>),
    Window(usize, Option<&'static str>),
    Reject(usize),
    Delete(usize),
    Edit(usize),
    Refuse(usize),
    Pod(usize, bool),
    PodGone(usize),
    Replica(Replica),
    ReplicaGone(usize, usize),
    Revision(usize, bool),
    Owner(usize, Option<bool>),
    Run(Run),
    Service(usize, Option<usize>, bool),
    Slice(usize, usize, bool),
    Theirs(usize, Option<usize>),
    Ours(usize, usize),
    Namespace(Option<Mode>),
    /// The namespace where pods are now and then: whether it has a label, and which mode; without any it is gone.
    Ops(Option<(bool, Option<Mode>)>),
    /// Which, its addresses, its ranges and its labels; without any it is gone.
    Node(usize, Option<(usize, usize, bool)>),
    /// Another controller led in between.
    Followed,
    Time(i64),
}

/// What a learner says.
#[derive(Clone, Debug)]
struct Said {
    node: usize,
    epoch: u64,
    flows: Vec<Told>,
    capture: Option<usize>,
    loss: Option<(Option<usize>, u64)>,
    address: Option<usize>,
    name: Option<(usize, usize, usize)>,
}

/// Whose flow, in which role, with which address, at which port, how often it was tried and answered, since when and until when.
#[derive(Clone, Debug)]
struct Told {
    pod: usize,
    is_source: bool,
    address: usize,
    port: usize,
    tried: u64,
    answered: u64,
    since: i64,
    until: i64,
}

/// A pod beside the first one of a workload.
#[derive(Clone, Debug)]
struct Replica {
    of: usize,
    number: usize,
    address: Option<usize>,
    labels: usize,
    phase: PodPhase,
    by_revision: bool,
    started: i64,
}

const NAMES: [&str; 3] = ["web", "db", "intruder"];
const ADDRESSES: [&str; 13] = [
    WEB,
    DB,
    INTRUDER,
    "203.0.113.9",
    "198.18.1.20",
    "198.18.1.21",
    "198.18.9.1",
    "198.18.9.2",
    "203.0.113.20",
    "198.18.9.4",
    "198.18.9.5",
    "198.18.2.1",
    "198.18.2.2",
];
/// Flows may be of as many pods.
const PODS: usize = 3 * NAMES.len() + 2;
const NODES: [&str; 2] = ["node1", "node2"];
const SERVICES: [&str; 3] = ["db", "manual", "nobody"];

/// UIDs of the first pods, of those beside them, and of those of two runs.
fn uid(pod: usize) -> String {
    if let Some(run) = pod.checked_sub(3 * NAMES.len()) {
        return format!("uid-nightly-{run}");
    }
    let name = NAMES[pod % NAMES.len()];
    match pod / NAMES.len() {
        0 => format!("uid-{name}"),
        number => format!("uid-{name}-{number}"),
    }
}

fn told() -> impl Strategy<Value = Told> {
    let whose = (0..PODS, any::<bool>(), 0..ADDRESSES.len(), 0_usize..2);
    (whose, 1_u64..4, 0_u64..4, 0_i64..20, -1_i64..3).prop_map(
        |((pod, is_source, address, port), tried, answered, since, until)| Told {
            pod,
            is_source,
            address,
            port,
            tried,
            answered,
            since,
            until,
        },
    )
}

fn said() -> impl Strategy<Value = Said> {
    let capture = prop::option::weighted(0.2, 0_usize..2);
    let loss = prop::option::weighted(0.2, (prop::option::of(0..PODS), 1_u64..9));
    let address = prop::option::weighted(0.2, 3..ADDRESSES.len());
    let name = prop::option::weighted(0.3, (0..PODS, 3..ADDRESSES.len(), 0_usize..6));
    (
        0..NODES.len(),
        1_u64..3,
        prop::collection::vec(told(), 0..4),
        capture,
        loss,
        address,
        name,
    )
        .prop_map(|(node, epoch, flows, capture, loss, address, name)| Said {
            node,
            epoch,
            flows,
            capture,
            loss,
            address,
            name,
        })
}

fn replica() -> impl Strategy<Value = Replica> {
    let phase = prop_oneof![
        1 => Just(PodPhase::Pending),
        4 => Just(PodPhase::Running),
        1 => Just(PodPhase::Finished),
    ];
    let address = prop::option::weighted(0.8, 4..ADDRESSES.len());
    // Like the others, of another revision, and other than any.
    let labels = prop_oneof![6 => Just(0_usize), 2 => Just(1), 1 => Just(2)];
    (
        0..NAMES.len(),
        1_usize..3,
        address,
        labels,
        phase,
        any::<bool>(),
        -200_i64..3,
    )
        .prop_map(|(of, number, address, labels, phase, by_revision, started)| Replica {
            of,
            number,
            address,
            labels,
            phase,
            by_revision,
            started,
        })
}

fn steps() -> impl Strategy<Value = Step> {
    let who = 0_usize..3;
    let mode = prop::option::of(prop::sample::select(Mode::ALL.to_vec()));
    let window = prop::option::of(prop::sample::select(vec!["1s", "20s", "7d"]));
    prop_oneof![
        8 => said().prop_map(Step::Said),
        1 => (0..NODES.len(), any::<bool>()).prop_map(|(node, open)| Step::Stream(node, open)),
        1 => (who.clone(), mode.clone()).prop_map(|(of, mode)| Step::Mode(of, mode)),
        1 => (who.clone(), window).prop_map(|(of, window)| Step::Window(of, window)),
        1 => who.clone().prop_map(Step::Reject),
        1 => who.clone().prop_map(Step::Delete),
        1 => who.clone().prop_map(Step::Edit),
        1 => who.clone().prop_map(Step::Refuse),
        3 => (who.clone(), any::<bool>()).prop_map(|(of, ready)| Step::Pod(of, ready)),
        1 => who.clone().prop_map(Step::PodGone),
        4 => replica().prop_map(Step::Replica),
        2 => (who.clone(), 1_usize..3).prop_map(|(of, number)| Step::ReplicaGone(of, number)),
        1 => (who.clone(), any::<bool>()).prop_map(|(of, there)| Step::Revision(of, there)),
        1 => (who, prop::option::weighted(0.7, any::<bool>())).prop_map(|(of, other)| Step::Owner(of, other)),
        3 => run().prop_map(Step::Run),
        2 => (0_usize..2, prop::option::of(0..NAMES.len()), prop::bool::weighted(0.8))
            .prop_map(|(number, of, there)| Step::Service(number, of, there)),
        1 => (0..SERVICES.len(), 0..ADDRESSES.len(), any::<bool>())
            .prop_map(|(service, address, there)| Step::Slice(service, address, there)),
        1 => (0_usize..2, prop::option::of(0_usize..7)).prop_map(|(name, what)| Step::Theirs(name, what)),
        1 => (0..=NAMES.len(), 0..=NAMES.len()).prop_map(|(name, whose)| Step::Ours(name, whose)),
        2 => mode.clone().prop_map(Step::Namespace),
        2 => prop::option::weighted(0.8, (any::<bool>(), mode)).prop_map(Step::Ops),
        2 => (0_usize..3, prop::option::weighted(0.8, (0_usize..5, 0_usize..4, any::<bool>())))
            .prop_map(|(node, state)| Step::Node(node, state)),
        1 => Just(Step::Followed),
        6 => (1_i64..15).prop_map(Step::Time),
    ]
}

/// The shop and its Services: one that selects, one that is known by its slices, one that selects nobody.
fn shop_with_services() -> Vec<Object> {
    let selectors = [Some(labels("db")), None, Some(labels("nobody"))];
    let services = SERVICES.iter().zip(selectors).zip(1..);
    let services = services.map(|((name, selector), number)| service(name, number, selector));
    shop().into_iter().chain(services).chain([nightly()]).collect()
}

/// A Service at this address.
fn service(name: &str, number: usize, selector: Option<Labels>) -> Object {
    let port = ServicePort {
        name: None,
        port: 80,
        target: TargetPort::Number(5432),
        transport: Transport::Tcp,
        node_port: None,
    };
    Object::Service(Service {
        name: ServiceName {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        },
        cluster_ips: [format!("198.18.9.{number}").parse().unwrap()].into(),
        external_ips: [].into(),
        selector,
        ports: [port].into(),
        external_name: None,
        created: None,
    })
}

fn report_of(said: &Said, now: i64) -> Event {
    let subject = |pod: usize| {
        FlowSubject::Container(ContainerRef {
            pod_uid: uid(pod),
            container_id: "c".to_owned(),
        })
    };
    let flow = |told: &Told| Flow {
        key: FlowKey {
            subject: subject(told.pod),
            peer: ADDRESSES[told.address].parse().unwrap(),
            port: [80, 5432][told.port],
            transport: Transport::Tcp,
            reporter: if told.is_source {
                Reporter::Source
            } else {
                Reporter::Destination
            },
        },
        tally: Tally {
            first_seen: at(now - told.since).min(at(now + told.until)),
            last_seen: at(now + told.until),
            attempted: told.tried,
            established: told.answered,
            refused: 0,
            unanswered: 0,
        },
    };
    let named = |(pod, address, name): (usize, usize, usize)| Named {
        subject: subject(pod),
        address: ADDRESSES[address].parse().unwrap(),
        name: format!("{name}.example").try_into().unwrap(),
        first_seen: at(now - 10),
        until: at(now + 10),
    };
    let lost = |(whose, count): (Option<usize>, u64)| Loss {
        subject: whose.map(subject),
        reason: LossReason::MapFull,
        count,
    };
    Event::Report(Report {
        origin: Origin {
            node: NODES[said.node].to_owned(),
            epoch: said.epoch,
        },
        flows: said.flows.iter().map(flow).collect(),
        losses: said.loss.map(lost).into_iter().collect(),
        node_addresses: said
            .address
            .map(|address| ADDRESSES[address].parse().unwrap())
            .into_iter()
            .collect(),
        names: said.name.map(named).into_iter().collect(),
        held: Vec::new(),
        capture: said.capture.map(|capture| format!("0.{capture}").try_into().unwrap()),
    })
}

fn pod_beside(replica: &Replica, now: i64) -> Object {
    let Replica {
        of,
        number,
        address,
        labels: others,
        phase,
        by_revision,
        started,
    } = replica;
    let name = NAMES[*of];
    let Object::Pod(first) = pod(name, ADDRESSES[*of]) else {
        unreachable!("a pod is a pod")
    };
    let mut with = labels(name);
    let other = [None, Some(("pod-template-hash", "2")), Some(("track", "canary"))][*others];
    with.extend(other.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let revision = OwnerRef {
        kind: "ReplicaSet".to_owned(),
        name: format!("{name}-1"),
    };
    Object::Pod(Pod {
        uid: uid(number * NAMES.len() + of).into(),
        name: format!("{name}-{number}").into(),
        labels: with.into(),
        owner: if *by_revision {
            Some(Arc::new(revision))
        } else {
            first.owner.clone()
        },
        addresses: address
            .iter()
            .map(|address| ADDRESSES[*address].parse().unwrap())
            .collect(),
        node: Some(NODES[number % 2].into()),
        phase: *phase,
        started: Some(at(now + started)),
        ..first
    })
}

fn segment_name(of: usize) -> SegmentName {
    SegmentName {
        namespace: "shop".to_owned(),
        name: format!("deployment-{}", NAMES[of]),
    }
}

/// What the step is to a core in this world.
#[expect(clippy::too_many_lines, reason = "one arm for each step")]
fn events(world: &mut World, step: &Step, now: i64) -> Vec<Event> {
    let policy_name = |of: usize| PolicyName {
        namespace: "shop".to_owned(),
        name: format!("nanoseg-deployment-{}", NAMES[of]),
    };
    let mut change = |of: usize, change: &dyn Fn(&mut Segment)| {
        let segment = world.segments.get_mut(&segment_name(of));
        let changed = segment.map(|segment| {
            change(segment);
            Event::Segment(Box::new(segment.clone()))
        });
        changed.into_iter().collect()
    };
    match step {
        Step::Said(said) => vec![report_of(said, now)],
        Step::Stream(node, open) => vec![Event::Stream {
            node: NODES[*node].to_owned(),
            stream: 1,
            open: *open,
        }],
        Step::Mode(of, mode) => change(*of, &|segment| segment.spec.mode = *mode),
        Step::Window(of, window) => change(*of, &|segment| {
            segment.spec.learning_window = window.map(|window| window.parse().unwrap());
        }),
        Step::Reject(of) => change(*of, &|segment| {
            let status = segment.status.as_ref();
            let learned = status.into_iter().flat_map(|status| &status.baseline);
            segment.spec.rejected_edges = learned.map(|learned| learned.edge.clone()).collect();
        }),
        Step::Delete(of) => {
            let name = policy_name(*of);
            let gone = world.policies.remove(&name);
            gone.map(|_| Event::PolicyGone(name)).into_iter().collect()
        }
        Step::Edit(of) => {
            let policy = world.policies.get_mut(&policy_name(*of));
            let edited = policy.map(|policy| {
                policy.spec = Some(NetworkPolicySpec::default());
                Event::Policy(Box::new(policy.clone()))
            });
            edited.into_iter().collect()
        }
        Step::Refuse(of) => vec![Event::Failed {
            id: ObjectId::Segment(segment_name(*of)),
            reason: "busy".to_owned(),
            refused: false,
        }],
        Step::Pod(of, ready) => {
            let Object::Pod(pod) = pod(NAMES[*of], ADDRESSES[*of]) else {
                unreachable!("a pod is a pod")
            };
            vec![Event::Object(Object::Pod(Pod { ready: *ready, ..pod }))]
        }
        Step::Namespace(mode) => {
            let mode = mode.map(|mode| (MODE_LABEL.to_owned(), mode.as_str().to_owned()));
            vec![Event::Object(Object::Namespace(Namespace {
                name: "shop".to_owned(),
                labels: mode.into_iter().collect(),
            }))]
        }
        Step::Ops(None) => vec![Event::ObjectGone(ObjectKey::Namespace("ops".to_owned()))],
        Step::Ops(Some((is_labelled, mode))) => {
            let mode = mode.map(|mode| (MODE_LABEL.to_owned(), mode.as_str().to_owned()));
            let team = is_labelled.then(|| ("team".to_owned(), "ops".to_owned()));
            vec![Event::Object(Object::Namespace(Namespace {
                name: "ops".to_owned(),
                labels: mode.into_iter().chain(team).collect(),
            }))]
        }
        Step::PodGone(of) => {
            let name = format!("{}-0", NAMES[*of]);
            vec![Event::ObjectGone(ObjectKey::Pod("shop".to_owned(), name))]
        }
        Step::Replica(replica) => vec![Event::Object(pod_beside(replica, now))],
        Step::ReplicaGone(of, number) => {
            let name = format!("{}-{number}", NAMES[*of]);
            vec![Event::ObjectGone(ObjectKey::Pod("shop".to_owned(), name))]
        }
        Step::Revision(of, there) => {
            let (kind, name) = ("ReplicaSet".to_owned(), format!("{}-1", NAMES[*of]));
            vec![if *there {
                Event::Object(Object::Controller(Controller {
                    namespace: "shop".to_owned(),
                    kind,
                    name,
                    owner: Some(OwnerRef {
                        kind: "Deployment".to_owned(),
                        name: NAMES[*of].to_owned(),
                    }),
                    selector: labels(NAMES[*of]).into(),
                    template_labels: labels(NAMES[*of]).into(),
                }))
            } else {
                Event::ObjectGone(ObjectKey::Controller("shop".to_owned(), kind, name))
            }]
        }
        Step::Owner(of, None) => {
            let kind = "Deployment".to_owned();
            let key = ObjectKey::Controller("shop".to_owned(), kind, NAMES[*of].to_owned());
            vec![Event::ObjectGone(key)]
        }
        Step::Owner(of, Some(is_other)) => {
            let Object::Controller(owner) = deployment(NAMES[*of]) else {
                unreachable!("an owner is an owner")
            };
            let mut with = labels(NAMES[*of]);
            with.extend(is_other.then(|| ("track".to_owned(), "canary".to_owned())));
            let template_labels = with.into();
            vec![Event::Object(Object::Controller(Controller {
                template_labels,
                ..owner
            }))]
        }
        Step::Run(run) => run_of(run, now),
        Step::Service(number, of, there) => {
            let object = service(&format!("new-{number}"), 4 + number, of.map(|of| labels(NAMES[of])));
            vec![if *there {
                Event::Object(object)
            } else {
                Event::ObjectGone(object.key())
            }]
        }
        Step::Slice(service, address, there) => {
            let name = format!("{}-slice", SERVICES[*service]);
            vec![if *there {
                Event::Object(Object::EndpointSlice(EndpointSlice {
                    name,
                    service: ServiceName {
                        namespace: "shop".to_owned(),
                        name: SERVICES[*service].to_owned(),
                    },
                    addresses: [ADDRESSES[*address].parse().unwrap()].into(),
                    ports: [(None, 5432, Transport::Tcp)].into(),
                }))
            } else {
                Event::ObjectGone(ObjectKey::EndpointSlice("shop".to_owned(), name))
            }]
        }
        Step::Theirs(name, Some(what)) => vec![Event::Policy(Box::new(theirs(*name, *what)))],
        Step::Theirs(name, None) => vec![Event::PolicyGone(PolicyName {
            namespace: "shop".to_owned(),
            name: format!("theirs-{name}"),
        })],
        Step::Ours(name, whose) => {
            let mut policy = ours(*whose);
            policy.metadata.name = ours(*name).metadata.name;
            world.policies.insert(PolicyName::of(&policy), policy.clone());
            vec![Event::Policy(Box::new(policy))]
        }
        Step::Node(of, state) => {
            let name = ["node1", "node2", "node3"][*of].to_owned();
            vec![match *state {
                None => Event::ObjectGone(ObjectKey::Node(name)),
                Some((addresses, ranges, is_labelled)) => {
                    Event::Object(Object::Node(node(name, addresses, ranges, is_labelled)))
                }
            }]
        }
        Step::Followed | Step::Time(_) => Vec::new(),
    }
}

/// Whether what it remembers of Segments that are not written is what it finds when it looks again.
fn remembers_what_is_unwritten(core: &mut Core) -> bool {
    let remembered = core.durable();
    core.unwritten.take();
    core.durable() == remembered
}

proptest! {
    #[test]
    fn thinking_about_what_has_changed_is_thinking_about_everything(steps in prop::collection::vec(steps(), 1..25)) {
        let (mut part, mut whole) = (World::default(), World::default());
        let mut partly = part.core(&shop_with_services(), at(0));
        let mut wholly = whole.core(&shop_with_services(), at(0));
        let mut now = 0;
        for step in steps {
            match step {
                Step::Time(seconds) => now += seconds,
                Step::Followed => {
                    for core in [&mut partly, &mut wholly] {
                        core.follow(at(now));
                        core.lead(at(now));
                    }
                }
                _ => {}
            }
            for event in events(&mut part, &step, now) {
                partly.take(event, at(now));
                prop_assert!(remembers_what_is_unwritten(&mut partly));
            }
            for event in events(&mut whole, &step, now) {
                wholly.take(event, at(now));
            }
            for _ in 0..10 {
                wholly.stale = Stale::All;
                wholly.strays.extend(wholly.policies.keys().cloned());
                for subject in wholly.subjects.values_mut() {
                    subject.is_planned = false;
                }
                let (one, other) = (partly.round(at(now)), wholly.round(at(now)));
                prop_assert_eq!(format!("{:#?}", one.writes), format!("{:#?}", other.writes));
                // To look once in vain does no harm.
                let in_time = |at| one.next.is_some_and(|next| next <= at);
                prop_assert!(other.next.is_none_or(in_time), "{:?} and {:?}", one.next, other.next);
                if one.writes.is_empty() {
                    break;
                }
                for event in part.apply(one.writes, usize::MAX) {
                    partly.take(event, at(now));
                    prop_assert!(remembers_what_is_unwritten(&mut partly));
                }
                for event in whole.apply(other.writes, usize::MAX) {
                    wholly.take(event, at(now));
                }
            }
        }
    }
}
