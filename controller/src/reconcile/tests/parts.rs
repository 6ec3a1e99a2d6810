//! A core that thinks only about what has changed decides what one decides that thinks about everything each time.

use super::*;

/// Something that happens to both.
#[derive(Clone, Debug)]
enum Step {
    Flow(usize, usize, u64, u64),
    Mode(usize, Option<Mode>),
    Window(usize, Option<&'static str>),
    Reject(usize),
    Delete(usize),
    Edit(usize),
    Refuse(usize),
    Pod(usize, bool),
    PodGone(usize),
    Namespace(Option<Mode>),
    Time(i64),
}

const NAMES: [&str; 3] = ["web", "db", "intruder"];
const ADDRESSES: [&str; 4] = [WEB, DB, INTRUDER, "203.0.113.9"];

fn steps() -> impl Strategy<Value = Step> {
    let who = 0_usize..3;
    let mode = prop::option::of(prop::sample::select(Mode::ALL.to_vec()));
    let window = prop::option::of(prop::sample::select(vec!["1s", "20s", "7d"]));
    prop_oneof![
        6 => (who.clone(), 0_usize..4, 1_u64..4, 0_u64..4).prop_map(|(to, from, tried, more)| Step::Flow(to, from, tried, more)),
        1 => (who.clone(), mode.clone()).prop_map(|(of, mode)| Step::Mode(of, mode)),
        1 => (who.clone(), window).prop_map(|(of, window)| Step::Window(of, window)),
        1 => who.clone().prop_map(Step::Reject),
        1 => who.clone().prop_map(Step::Delete),
        1 => who.clone().prop_map(Step::Edit),
        1 => who.clone().prop_map(Step::Refuse),
        3 => (who.clone(), any::<bool>()).prop_map(|(of, ready)| Step::Pod(of, ready)),
        1 => who.prop_map(Step::PodGone),
        1 => mode.prop_map(Step::Namespace),
        5 => (1_i64..15).prop_map(Step::Time),
    ]
}

fn segment_name(of: usize) -> SegmentName {
    SegmentName {
        namespace: "shop".to_owned(),
        name: format!("deployment-{}", NAMES[of]),
    }
}

/// What the step is to a core in this world.
fn events(world: &mut World, step: &Step) -> Vec<Event> {
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
        Step::Flow(to, from, tried, answered) => {
            vec![counted(&[(NAMES[*to], ADDRESSES[*from], 5432)], *tried, *answered)]
        }
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
        Step::PodGone(of) => {
            let name = format!("{}-0", NAMES[*of]);
            vec![Event::ObjectGone(ObjectKey::Pod("shop".to_owned(), name))]
        }
        Step::Time(_) => Vec::new(),
    }
}

proptest! {
    #[test]
    fn thinking_about_what_has_changed_is_thinking_about_everything(steps in prop::collection::vec(steps(), 1..25)) {
        let (mut part, mut whole) = (World::default(), World::default());
        let mut partly = part.core(&shop(), at(0));
        let mut wholly = whole.core(&shop(), at(0));
        let mut now = 0;
        for step in steps {
            if let Step::Time(seconds) = step {
                now += seconds;
            }
            for event in events(&mut part, &step) {
                partly.take(event, at(now));
            }
            for event in events(&mut whole, &step) {
                wholly.take(event, at(now));
            }
            for _ in 0..10 {
                wholly.stale = Stale::All;
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
                }
                for event in whole.apply(other.writes, usize::MAX) {
                    wholly.take(event, at(now));
                }
            }
        }
    }
}
