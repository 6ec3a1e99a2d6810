//! What a learner sends, of any bytes: as the message of the protocol, and as the report that is in one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanoseg::receive::Increment;
use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::flow::FlowTable;
use nanoseg_graph::resolve::resolve;
use prost::Message as _;

fuzz_target!(|bytes: &[u8]| {
    let whole = Increment {
        sequence: 1,
        report: bytes.to_vec(),
    };
    for increment in Increment::decode(bytes).into_iter().chain([whole]) {
        let Ok(report) = increment.read() else { continue };
        let again = Increment {
            sequence: 2,
            report: serde_json::to_vec(&report).expect("a report can be written"),
        };
        assert_eq!(
            again.read().ok().as_ref(),
            Some(&report),
            "it reads back as it was written"
        );
        let mut once = FlowTable::default();
        once.merge(&report);
        let mut twice = once.clone();
        assert!(!twice.merge(&report), "nothing in it is new");
        assert_eq!(once, twice, "twice is once");
        let _graph = resolve(&once, &Cluster::new([]));
    }
});
