//! Datagrams that have nothing to say for a while.

use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap, MapData};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use nanoseg_ebpf::exchange::{ExchangeEntry, ExchangeSlot};
use nanoseg_ebpf::{FlowEntry, FlowSlot, name};

use crate::halves::on_request;
use crate::node::{PATIENCE, is_possible};
use crate::records::Plain;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nanoseg-capture"));

const HERE: [u8; 4] = [198, 18, 0, 1];
const THERE: [u8; 4] = [198, 18, 0, 2];

/// Sends a datagram, or receives one from the other end.
fn pass(programs: &mut Ebpf, program: &'static str) {
    let (from, to) = if program == name::EGRESS {
        ((HERE, 1000_u16), (THERE, 2000_u16))
    } else {
        ((THERE, 2000), (HERE, 1000))
    };
    let mut packet = vec![0; 12];
    packet.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend([from.0, to.0].concat());
    packet.extend([from.1.to_be_bytes(), to.1.to_be_bytes()].concat());
    packet.extend([0, 8, 0, 0]);
    on_request(programs, program, &packet);
}

#[test]
fn what_was_heard_a_moment_ago_is_not_looked_up_and_an_answer_is_heard_all_the_same() {
    if !is_possible() {
        return;
    }
    // What was heard is known to each processor by itself.
    let mut here = rustix::thread::CpuSet::new();
    here.set(0);
    rustix::thread::sched_setaffinity(None, &here).unwrap();
    let mut programs = EbpfLoader::new().load(OBJECT).unwrap();
    let map = programs.map_mut(name::GRACE_END).unwrap();
    Array::<_, u64>::try_from(map).unwrap().set(0, 1, 0).unwrap();
    let flows = programs.take_map(name::FLOWS).unwrap();
    let flows: HashMap<MapData, Plain<FlowSlot>, Plain<FlowEntry>> = flows.try_into().unwrap();
    let exchanges = programs.take_map(name::EXCHANGES).unwrap();
    let mut exchanges: HashMap<MapData, Plain<ExchangeSlot>, Plain<ExchangeEntry>> = exchanges.try_into().unwrap();
    let counts = || {
        let Plain(FlowEntry { record, key: _ }) = flows.iter().next().unwrap().unwrap().1;
        (record.attempted, record.established)
    };

    let begun = Instant::now();
    // The first begins it, and the second has nothing to say.
    pass(&mut programs, name::EGRESS);
    pass(&mut programs, name::EGRESS);
    assert_eq!(counts(), (1, 0));
    let (slot, entry) = exchanges.iter().next().unwrap().unwrap();
    exchanges.remove(&slot).unwrap();
    pass(&mut programs, name::EGRESS);
    let is_there = exchanges.iter().next().is_some();
    assert!(
        !is_there || begun.elapsed() > Duration::from_secs(1),
        "it was looked up"
    );
    exchanges.insert(slot, entry, 0).unwrap();
    pass(&mut programs, name::INGRESS);
    assert_eq!(counts(), (1, 1), "what passes the other way says something");

    // A while later it is looked up again.
    exchanges.remove(&slot).unwrap();
    while exchanges.iter().next().is_none() {
        assert!(begun.elapsed() < PATIENCE);
        pass(&mut programs, name::EGRESS);
    }
    assert_eq!(counts(), (2, 1));
}
