//! A `CronJob` of another namespace: its runs' pods come and go, and none is like another one that lives.

use super::*;

/// A run, and the phase of its pod, if it has one.
#[derive(Clone, Debug)]
pub(super) struct Run {
    number: usize,
    is_there: bool,
    phase: Option<PodPhase>,
    has_address: bool,
}

pub(super) fn run() -> impl Strategy<Value = Run> {
    let phase = prop_oneof![
        Just(PodPhase::Pending),
        Just(PodPhase::Running),
        Just(PodPhase::Finished)
    ];
    let phase = prop::option::weighted(0.8, phase);
    (0_usize..2, prop::bool::weighted(0.8), phase, any::<bool>()).prop_map(|(number, is_there, phase, has_address)| {
        Run {
            number,
            is_there,
            phase,
            has_address,
        }
    })
}

/// An owner of pods in another namespace, of which none lives all the time.
pub(super) fn nightly() -> Object {
    Object::Controller(Controller {
        namespace: "ops".to_owned(),
        kind: "CronJob".to_owned(),
        name: "nightly".to_owned(),
        owner: None,
        selector: Arc::default(),
        template_labels: labels("nightly").into(),
    })
}

/// What becomes of a run.
pub(super) fn run_of(run: &Run, now: i64) -> Vec<Event> {
    let Run {
        number,
        is_there,
        phase,
        has_address,
    } = run;
    let name = format!("nightly-{number}");
    let mut with = labels("nightly");
    with.insert("batch.kubernetes.io/job-name".to_owned(), name.clone());
    let job = Controller {
        namespace: "ops".to_owned(),
        kind: "Job".to_owned(),
        name: name.clone(),
        owner: Some(OwnerRef {
            kind: "CronJob".to_owned(),
            name: "nightly".to_owned(),
        }),
        selector: with.clone().into(),
        template_labels: with.clone().into(),
    };
    let Object::Pod(like) = pod("nightly", ADDRESSES[11 + number]) else {
        unreachable!("a pod is a pod")
    };
    let pod = |phase| Pod {
        uid: uid(3 * NAMES.len() + number).into(),
        namespace: "ops".into(),
        name: name.as_str().into(),
        labels: with.clone().into(),
        owner: Some(Arc::new(OwnerRef {
            kind: "Job".to_owned(),
            name: name.clone(),
        })),
        addresses: if *has_address {
            like.addresses.clone()
        } else {
            [].into()
        },
        phase,
        started: Some(at(now)),
        ..like.clone()
    };
    let pod = match phase {
        Some(phase) => Event::Object(Object::Pod(pod(*phase))),
        None => Event::ObjectGone(ObjectKey::Pod("ops".to_owned(), name.clone())),
    };
    let job = if *is_there {
        Event::Object(Object::Controller(job))
    } else {
        Event::ObjectGone(Object::Controller(job).key())
    };
    vec![job, pod]
}
