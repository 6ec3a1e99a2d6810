//! Which labels a Segment says that its workload is known by.

use super::*;

/// Somebody else's pod with the labels of a workload.
fn twin(of: &str) -> Object {
    let Object::Pod(mut twin) = pod(of, INTRUDER) else {
        unreachable!()
    };
    (twin.uid, twin.name) = ("uid-twin".into(), "twin".into());
    twin.owner = None;
    Object::Pod(twin)
}

#[test]
fn a_workload_is_known_by_labels_that_nobody_else_had_until_it_is_gone() {
    let mut world = World::default();
    let mut objects = shop();
    objects.push(twin("web"));
    let mut core = world.core(&objects, at(0));
    core.take(report(&[("db", WEB, 5432)]), at(0));
    world.settle(&mut core, at(0));
    world.settle(&mut core, at(10));
    assert_eq!(world.status("db").selector, labels("db"));
    assert_eq!(
        world.status("web").selector,
        [].into(),
        "another had them from the first"
    );

    // Who takes them later does not make them free: not for this controller, and not for one that starts then.
    core.take(Event::Object(twin("db")), at(11));
    world.settle(&mut core, at(11));
    assert_eq!(world.status("db").selector, labels("db"));
    objects.push(twin("db"));
    let mut core = world.core(&objects, at(12));
    world.settle(&mut core, at(12));
    assert_eq!(world.status("db").selector, labels("db"));

    for gone in [deployment("db"), pod("db", DB)] {
        core.take(Event::ObjectGone(gone.key()), at(13));
    }
    world.settle(&mut core, at(13));
    let status = world.status("db");
    assert_eq!((status.phase, &status.selector), (Phase::Gone, &[].into()));
}
