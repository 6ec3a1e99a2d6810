//! Where things are drawn, on maps of any size.

use std::time::Duration;

use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::connection::Evidence;

use super::*;

fn overlap(one: &Place, other: &Place) -> bool {
    one.x < other.x + other.width
        && other.x < one.x + one.width
        && one.y < other.y + other.height
        && other.y < one.y + one.height
}

fn inside(one: &Place, other: &Place) -> bool {
    other.x <= one.x
        && other.y <= one.y
        && one.x + one.width <= other.x + other.width
        && one.y + one.height <= other.y + other.height
}

/// Boxes lie where they should.
fn assert_tidy(map: &Map) {
    for (index, group) in map.groups.iter().enumerate() {
        let whole = Place {
            x: 0,
            y: 0,
            width: map.size.width,
            height: map.size.height,
        };
        assert!(inside(&group.place, &whole), "{group:?}");
        for other in &map.groups[..index] {
            assert!(!overlap(&group.place, &other.place), "{group:?} {other:?}");
        }
        let members: Vec<_> = map.parties.iter().filter(|party| party.group == group.id).collect();
        assert_eq!(members.len(), group.parties);
        for (index, party) in members.iter().enumerate() {
            assert!(inside(&party.place, &group.place), "{party:?} {group:?}");
            for other in &members[..index] {
                assert!(!overlap(&party.place, &other.place), "{party:?} {other:?}");
            }
        }
    }
}

/// A cluster of workloads in namespaces and edges between them, as a seed says.
fn large(workloads: usize, namespaces: usize, edges: usize) -> (Cluster, Vec<(EdgeKey, Evidence)>) {
    let name = |index: usize| (format!("ns-{}", index % namespaces), format!("w-{index}"));
    let objects = (0..workloads).map(|index| {
        let (namespace, name) = name(index);
        let address = format!("198.18.{}.{}", index / 200, index % 200 + 1);
        nanoseg_graph::cluster::Object::Pod(crate::fixture::pod(
            &namespace,
            &name,
            crate::fixture::labels([("app", name.as_str())]),
            &[&address],
        ))
    });
    let end = |index: usize| {
        let (namespace, name) = name(index % workloads);
        Endpoint::Workload(workload("Pod", &namespace, &name))
    };
    let seen = evidence(Outcome::Established, &[Reporter::Source, Reporter::Destination], &[]);
    // Half of them stay in their namespace; steps that share no factor with the numbers above, so that few edges repeat.
    let edges = (0..edges).map(|index| {
        let from = index * 7919;
        let to = if index % 2 == 0 {
            from + namespaces * (index % 61 + 1)
        } else {
            from + index * 104_729 + 1
        };
        let port = u16::try_from(1000 + index % 101).unwrap();
        (edge(end(from), end(to), port, Transport::Tcp), seen.clone())
    });
    let edges = edges.collect();
    (crate::fixture::cluster(objects), edges)
}

fn drawn(cluster: &Cluster, edges: &[(EdgeKey, Evidence)]) -> Map {
    drawn_beside(None, cluster, edges)
}

fn drawn_beside(places: Option<&Places>, cluster: &Cluster, edges: &[(EdgeKey, Evidence)]) -> Map {
    Map::draw(&Input {
        cluster,
        graph: &graph_of(edges),
        live: &PolicySet::default(),
        proposed: None,
        segments: &[],
        stale_before: None,
        places,
    })
}

/// How long this thread had a core: others on the machine are not counted.
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is asked")]
fn on_core() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = text.split(' ').next().unwrap();
    Duration::from_nanos(nanoseconds.parse().unwrap())
}

#[test]
fn a_thousand_workloads_are_drawn_while_somebody_waits() {
    for namespaces in [1, 40, 1000] {
        let (cluster, edges) = large(1000, namespaces, 10_000);
        let begun = on_core();
        let map = drawn(&cluster, &edges);
        let took = on_core().saturating_sub(begun);
        assert!(
            map.edges.len() > 9_000 && map.totals.workloads == 1000,
            "{}",
            map.edges.len()
        );
        assert_tidy(&map);
        println!(
            "{namespaces} namespaces, {} edges: {took:?}, {:?}",
            map.edges.len(),
            map.size
        );
        // A build without optimisation takes several times what people are promised.
        assert!(took < Duration::from_secs(8), "{namespaces} namespaces: {took:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn boxes_never_overlap(workloads in 1_usize..60, namespaces in 1_usize..12, edges in 0_usize..200) {
        let (cluster, edges) = large(workloads, namespaces, edges);
        let map = drawn(&cluster, &edges);
        assert_tidy(&map);
        prop_assert_eq!(map, drawn(&cluster, &edges));
    }

    #[test]
    fn what_somebody_looks_at_stays_where_it_is(
        before in 1_usize..60, more in 0_usize..30, namespaces in 1_usize..12, edges in 0_usize..200, further in 0_usize..60,
    ) {
        let (cluster, known) = large(before, namespaces, edges);
        let earlier = drawn(&cluster, &known);
        let places = earlier.places();
        prop_assert_eq!(&drawn_beside(Some(&places), &cluster, &known), &earlier, "nothing is new");

        let (cluster, known) = large(before + more, namespaces, edges + further);
        assert_tidy(&drawn_beside(Some(&places.clone().unwatched()), &cluster, &known));
        let map = drawn_beside(Some(&places), &cluster, &known);
        assert_tidy(&map);
        let group = |map: &Map, id: &str| map.groups.iter().find(|group| group.id == id).cloned();
        for party in &earlier.parties {
            let now = map.parties.iter().find(|now| now.id == party.id).unwrap();
            let (was, is) = (group(&earlier, &party.group).unwrap(), group(&map, &party.group).unwrap());
            let from = |place: &Place, group: &Group| (place.x - group.place.x, place.y - group.place.y);
            prop_assert_eq!(from(&party.place, &was), from(&now.place, &is), "{} within {}", party.id, was.id);
        }
        for one in &earlier.groups {
            for other in &earlier.groups {
                let (one_now, other_now) = (group(&map, &one.id).unwrap(), group(&map, &other.id).unwrap());
                if one.place.x + one.place.width <= other.place.x {
                    prop_assert!(one_now.place.x + one_now.place.width <= other_now.place.x, "{} was left of {}", one.id, other.id);
                }
                if one.place.y + one.place.height <= other.place.y {
                    prop_assert!(one_now.place.y + one_now.place.height <= other_now.place.y, "{} was above {}", one.id, other.id);
                }
            }
        }
    }
}

#[test]
fn what_has_grown_while_nobody_looked_is_laid_out_anew() {
    let (cluster, edges) = large(4, 2, 6);
    let places = drawn(&cluster, &edges).places();
    let (cluster, edges) = large(40, 6, 80);
    let anew = drawn(&cluster, &edges);
    assert_eq!(drawn_beside(Some(&places.clone().unwatched()), &cluster, &edges), anew);
    assert_ne!(drawn_beside(Some(&places), &cluster, &edges), anew);
}

#[test]
fn places_of_another_map_do_no_harm() {
    let (cluster, edges) = large(20, 4, 40);
    let mut other = drawn(&cluster, &edges);
    for group in &mut other.groups {
        group.place = Place::default();
    }
    for party in &mut other.parties {
        party.place.x = u32::MAX;
    }
    assert_tidy(&drawn_beside(Some(&other.places()), &cluster, &edges));
    for group in &mut other.groups {
        group.place = Place {
            x: 40,
            y: 40,
            width: 300,
            height: 200,
        };
    }
    assert_tidy(&drawn_beside(Some(&other.places()), &cluster, &edges));
}
