//! The laws of admission to the flow map, in any order in which cgroups ask.

use nanoseg_ebpf::is_admitted;
use proptest::prelude::*;

const CGROUPS: usize = 5;

fn ask(held: &mut [u64; CGROUPS], who: usize, capacity: u64) -> bool {
    let all = held.iter().sum();
    let admitted = is_admitted(held[who], all, capacity);
    held[who] += u64::from(admitted);
    admitted
}

proptest! {
    #[test]
    fn whatever_others_do_there_is_room(
        capacity in 1_u64..3000,
        asking in prop::collection::vec(0..CGROUPS - 1, 0..9000),
    ) {
        let mut held = [0; CGROUPS];
        for who in &asking {
            ask(&mut held, *who, capacity);
        }
        let greedy = held.iter().filter(|own| **own > 0).count();
        let free = capacity - held.iter().sum::<u64>();
        // Each can take at most half of what is free when it comes.
        prop_assert!(free >= capacity >> greedy, "{held:?} of {capacity}");
        let newcomer = CGROUPS - 1;
        for _ in 0..free.div_ceil(2) {
            prop_assert!(ask(&mut held, newcomer, capacity), "{held:?} of {capacity}");
        }
    }
}

#[test]
fn one_alone_has_half_and_never_more_than_is_free() {
    for (capacity, expected) in [(1024, 512), (16, 8), (3, 2), (1, 1)] {
        let mut held = [0; CGROUPS];
        while ask(&mut held, 0, capacity) {}
        assert_eq!(held[0], expected, "of {capacity}");
    }
    assert!(
        !is_admitted(0, 5, 4),
        "more than there is room for is counted for a moment"
    );
}
