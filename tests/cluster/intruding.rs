//! Who was not there while it was learned.

use std::collections::BTreeSet;
use std::time::Duration;

use nanoseg_lab::peer::Call;
use nanoseg_tests::until;

use super::shop::Shop;

/// Connections to the database outside of its baseline, as its Segment counts them.
fn reported(shop: &Shop) -> u64 {
    let status = shop.status("data", "statefulset-orders-db");
    let edges = status["novelEdges"].as_array().into_iter().flatten();
    edges.filter_map(|edge| edge["count"].as_u64()).sum()
}

/// The intruder is refused everywhere, and that is reported.
pub(crate) fn refuses_the_intruder(shop: &Shop) {
    let before = reported(shop);
    let calls = shop.intrude();
    let passed: Vec<&Call> = calls.iter().filter(|call| call.ok).collect();
    assert!(passed.is_empty(), "the intruder got through: {passed:#?}");
    let pairs: BTreeSet<_> = calls.iter().map(|call| (&call.to, call.port, call.address)).collect();
    assert!(pairs.len() >= 12, "{} pairs: {pairs:?}", pairs.len());
    println!("the intruder was refused on {} pairs", pairs.len());
    until(
        "the intrusion to be reported on the database's segment",
        Duration::from_secs(15),
        || {
            let now = reported(shop);
            if now > before {
                Ok(())
            } else {
                Err(format!("{now} connections, {before} before"))
            }
        },
    );
}
