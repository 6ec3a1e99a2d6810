//! The guard against poisoned learning: edges that a person should look at before they are learned. Pure.
//!
//! * **Unanswered**: nobody ever answered. It may be an attempt at something that is not there.
//! * **Ports**: its source tried at least [`PORTS`] ports of its destination for the first time within a [`BURST`], answered or
//!   not. Applications know their peers' ports; who tries ten of them is looking for one.
//! * **`FanOut`**: its source tried at least [`PEERS`] destinations for the first time within a [`BURST`], and at least half of
//!   what it tried never answered. Who scrapes or balances reaches many, but is answered. A node is excepted: kubelet probes
//!   pods that are not ready yet.
//! * **Once**: the connection was opened one time only since it is watched. What recurs is opened again sooner or later, with two
//!   exceptions that are learned from one time: a run of a Job or `CronJob`, which is all that there may be within the window, and a
//!   connection that a pod opens soon after its start ([`START_UP`]), because the next start opens it again, and a pool of
//!   connections is opened then and never again.
//!
//! Laws:
//! * the order of sightings does not matter;
//! * a source that is answered, more than once, at fewer than [`PORTS`] ports of each destination is never suspected, however many
//!   destinations it has;
//! * no edge of a scan of ports is spared.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use nanoseg_graph::connection::EdgeKey;
use nanoseg_graph::endpoint::Endpoint;

use crate::segment::Suspicion;

/// Ports of one destination that nobody tries in a [`BURST`] who knows where to go.
pub const PORTS: usize = 10;

/// Destinations that nobody tries in a [`BURST`], with every other attempt in vain, who knows where to go.
pub const PEERS: usize = 15;

/// A short time: scans that take longer are slow enough for people to be told of each edge.
pub const BURST: SignedDuration = SignedDuration::from_mins(1);

/// How long after its start a pod opens the connections that it opens once: images are there by then, but peers may not be.
pub const START_UP: SignedDuration = SignedDuration::from_mins(2);

/// What was seen of an edge since it is watched.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// The edge.
    pub key: &'a EdgeKey,
    /// When it was first tried.
    pub first_seen: Timestamp,
    /// How often it was tried.
    pub attempts: u64,
    /// Whether it was answered, or needs no answer.
    pub answered: bool,
    /// Whether one time is all that can be expected: a Job's, or a pod's that had just started.
    pub once_is_enough: bool,
}

/// The edges that a person should look at, and why. Where several reasons hold the graver one is told: a scan.
pub fn suspicions<'a>(sightings: impl IntoIterator<Item = Sighting<'a>>) -> BTreeMap<&'a EdgeKey, Suspicion> {
    let mut by_source: BTreeMap<&Endpoint, Vec<Sighting<'a>>> = BTreeMap::new();
    let mut suspicions = BTreeMap::new();
    for sighting in sightings {
        if !sighting.answered {
            suspicions.insert(sighting.key, Suspicion::Unanswered);
        } else if sighting.attempts == 1 && !sighting.once_is_enough {
            suspicions.insert(sighting.key, Suspicion::Once);
        }
        by_source.entry(&sighting.key.source).or_default().push(sighting);
    }
    for (source, mut sightings) in by_source {
        sightings.sort_by_key(|sighting| (sighting.first_seen, sighting.key));
        if !matches!(source, Endpoint::Node(_)) {
            for burst in bursts(&sightings) {
                let in_vain = burst.iter().filter(|sighting| !sighting.answered).count();
                let peers = distinct(burst.iter().map(|sighting| &sighting.key.destination));
                if peers >= PEERS && in_vain * 2 >= burst.len() {
                    suspicions.extend(burst.iter().map(|sighting| (sighting.key, Suspicion::FanOut)));
                }
            }
        }
        let mut by_destination: BTreeMap<&Endpoint, Vec<Sighting<'a>>> = BTreeMap::new();
        for sighting in sightings {
            by_destination
                .entry(&sighting.key.destination)
                .or_default()
                .push(sighting);
        }
        for sightings in by_destination.values() {
            for burst in bursts(sightings) {
                if distinct(burst.iter().map(|sighting| sighting.key.port)) >= PORTS {
                    suspicions.extend(burst.iter().map(|sighting| (sighting.key, Suspicion::Ports)));
                }
            }
        }
    }
    suspicions
}

/// The longest runs of sightings, in order of time, that begin within a [`BURST`].
fn bursts<'s, 'a>(sightings: &'s [Sighting<'a>]) -> impl Iterator<Item = &'s [Sighting<'a>]> {
    let mut last = 0;
    (0..sightings.len()).filter_map(move |first| {
        let begins = sightings.get(first)?.first_seen;
        let before = last;
        while sightings
            .get(last)
            .is_some_and(|sighting| sighting.first_seen.duration_since(begins) <= BURST)
        {
            last += 1;
        }
        // A run that ends where the one before ended is a part of that.
        (last > before).then(|| sightings.get(first..last)).flatten()
    })
}

fn distinct<T: Ord>(items: impl Iterator<Item = T>) -> usize {
    items.collect::<std::collections::BTreeSet<T>>().len()
}

#[cfg(test)]
mod tests {
    use nanoseg_graph::endpoint::Workload;
    use nanoseg_graph::flow::Transport;
    use proptest::prelude::*;

    use super::*;

    fn workload(name: &str) -> Endpoint {
        Endpoint::Workload(Workload {
            namespace: "shop".to_owned(),
            kind: "Deployment".to_owned(),
            name: name.to_owned(),
        })
    }

    fn edge(source: &str, destination: &str, port: u16) -> EdgeKey {
        EdgeKey {
            source: workload(source),
            destination: workload(destination),
            port,
            transport: Transport::Tcp,
        }
    }

    fn sighting(key: &EdgeKey, second: i64) -> Sighting<'_> {
        Sighting {
            key,
            first_seen: Timestamp::from_second(second).unwrap(),
            attempts: 2,
            answered: true,
            once_is_enough: false,
        }
    }

    #[test]
    fn p35_what_was_seen_once_waits_for_a_person_unless_once_is_enough() {
        let key = edge("web", "db", 5432);
        for (attempts, answered, once_is_enough, expected) in [
            (1, true, false, Some(Suspicion::Once)),
            (1, true, true, None),
            (2, true, false, None),
            (1, false, true, Some(Suspicion::Unanswered)),
            (9, false, false, Some(Suspicion::Unanswered)),
        ] {
            let seen = Sighting {
                attempts,
                answered,
                once_is_enough,
                ..sighting(&key, 0)
            };
            assert_eq!(
                suspicions([seen]).get(&key).copied(),
                expected,
                "{attempts} {answered} {once_is_enough}"
            );
        }
    }

    #[test]
    fn p34_a_scan_of_ports_is_not_learned_and_a_slow_client_of_many_ports_is() {
        let keys: Vec<EdgeKey> = (1..=10).map(|port| edge("intruder", "db", port)).collect();
        let tried = |every: i64| keys.iter().zip(0..).map(move |(key, n)| sighting(key, n * every));
        assert_eq!(suspicions(tried(6)).len(), 10);
        assert_eq!(suspicions(tried(7)).len(), 0, "ten ports in 63 seconds");
        assert_eq!(suspicions(tried(1).take(9)).len(), 0, "nine ports");
    }

    #[test]
    fn p34_a_sweep_over_peers_is_not_learned_and_a_scraper_is() {
        let names: Vec<String> = (0..15).map(|n| format!("peer{n}")).collect();
        let keys: Vec<EdgeKey> = names.iter().map(|name| edge("intruder", name, 80)).collect();
        for (answered, expected) in [(7, 15), (8, 7), (15, 0)] {
            let seen = keys.iter().zip(0..).map(|(key, n)| Sighting {
                answered: n < answered,
                ..sighting(key, n)
            });
            let found = suspicions(seen);
            assert_eq!(found.len(), expected, "{answered} of 15 answered");
            let sweep = found.values().filter(|why| **why == Suspicion::FanOut).count();
            assert_eq!(sweep, if answered == 7 { 15 } else { 0 });
        }
    }

    #[test]
    fn p34_kubelet_probes_what_is_not_ready_yet() {
        let names: Vec<String> = (0..40).map(|n| format!("peer{n}")).collect();
        let keys: Vec<EdgeKey> = names
            .iter()
            .map(|name| EdgeKey {
                source: Endpoint::Node("node1".to_owned()),
                ..edge("", name, 80)
            })
            .collect();
        let found = suspicions(keys.iter().map(|key| Sighting {
            answered: false,
            ..sighting(key, 0)
        }));
        assert!(found.values().all(|why| *why == Suspicion::Unanswered));
    }

    proptest! {
        #[test]
        fn p34_no_edge_of_a_scan_is_spared_and_honest_sources_are_never_suspected(
            honest in proptest::collection::vec((0_u8..40, 1_u16..10, 0_i64..10_000), 0..120),
            scan in proptest::collection::btree_set(1_u16..2000, PORTS..60),
            begins in 0_i64..10_000,
            seed in any::<u64>(),
        ) {
            let names: Vec<String> = (0..40).map(|n| format!("peer{n}")).collect();
            let honest: Vec<(EdgeKey, i64)> = honest
                .into_iter()
                .map(|(peer, port, at)| (edge("web", &names[usize::from(peer)], port), at))
                .collect();
            let scan: Vec<(EdgeKey, i64)> = scan.into_iter().map(|port| (edge("intruder", "db", port), begins)).collect();
            let mut seen: Vec<Sighting<'_>> = honest.iter().chain(&scan).map(|(key, at)| sighting(key, *at)).collect();
            let found = suspicions(seen.clone());
            for (key, _) in &honest {
                prop_assert!(!found.contains_key(key));
            }
            for (key, _) in &scan {
                prop_assert_eq!(found.get(key), Some(&Suspicion::Ports));
            }
            let length = seen.len();
            seen.rotate_left(usize::try_from(seed % length as u64).unwrap());
            seen.reverse();
            prop_assert_eq!(suspicions(seen), found);
        }
    }
}
