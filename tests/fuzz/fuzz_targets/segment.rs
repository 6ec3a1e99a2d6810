//! A Segment of any bytes, as an API server answers with it: who it is about, and the life that its status tells of.
#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use nanoseg::lifecycle::Life;
use nanoseg::segment::{LearnedEdge, Segment, from_learned, hash_of, to_learned};

fuzz_target!(|bytes: &[u8]| {
    let Ok(segment) = serde_json::from_slice::<Segment>(bytes) else {
        return;
    };
    // Words as well: they are what a person sees.
    let _words = segment.subject().map_err(|error| error.to_string());
    let _words = Life::read(&segment, Timestamp::UNIX_EPOCH).map_err(|error| error.to_string());
    let Some(baseline) = segment.status.and_then(|status| from_learned(&status.baseline).ok()) else {
        return;
    };
    let written = to_learned(&baseline);
    let text = serde_json::to_vec(&written).expect("edges can be written");
    let read: Vec<LearnedEdge> = serde_json::from_slice(&text).expect("what was written can be read");
    assert_eq!(read, written);
    let read = from_learned(&read).expect("what was written can be read");
    assert!(read.keys().eq(baseline.keys()), "it reads back edge for edge");
    assert_eq!(hash_of(&read), hash_of(&baseline), "and is the same baseline");
    assert_eq!(to_learned(&read), written, "times are written to the second, and are read as written");
});
