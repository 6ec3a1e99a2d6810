//! What comes back to its sender, and what only looks like it.

use aya::maps::{HashMap, MapData, PerCpuArray};
use aya::{EbpfLoader, include_bytes_aligned};
use nanoseg_ebpf::packet::mapped;
use nanoseg_ebpf::{Address, FlowEntry, FlowSlot, Reason, Role, name};

use crate::halves::on_request;
use crate::node::is_possible;
use crate::records::Plain;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nanoseg-capture"));

const OWN: [u8; 4] = [198, 18, 0, 1];
const SERVICE: [u8; 4] = [198, 19, 0, 1];
const NODE: [u8; 4] = [198, 18, 0, 254];
const OTHER: [u8; 4] = [198, 18, 0, 3];

/// A request for a connection with this number.
fn syn(from: [u8; 4], to: [u8; 4], number: u32) -> Vec<u8> {
    let mut packet = vec![0; 12];
    packet.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
    packet.extend([from, to].concat());
    packet.extend([0xc0, 0, 0x1f, 0x90]);
    packet.extend(number.to_be_bytes());
    packet.extend([0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
    packet
}

#[test]
fn only_the_node_leads_back_what_was_sent() {
    if !is_possible() {
        return;
    }
    let mut programs = EbpfLoader::new().load(OBJECT).unwrap();
    let addresses = programs.take_map(name::NODE).unwrap();
    let mut addresses: HashMap<MapData, Address, u8> = addresses.try_into().unwrap();
    addresses.insert(mapped(u32::from_ne_bytes(NODE)), 0, 0).unwrap();
    let flows = programs.take_map(name::FLOWS).unwrap();
    let flows: HashMap<MapData, Plain<FlowSlot>, Plain<FlowEntry>> = flows.try_into().unwrap();
    let counters = programs.take_map(name::COUNTERS).unwrap();
    let counters: PerCpuArray<MapData, u64> = counters.try_into().unwrap();
    let askers = || -> Vec<Address> {
        let entries = flows.iter().map(|entry| entry.unwrap().1.0.key);
        let answered = entries.filter(|key| key.role == Role::Destination as u8);
        answered.map(|key| key.peer).collect()
    };
    let returned = || -> u64 { counters.get(&(Reason::Returned as u32), 0).unwrap().iter().sum() };

    // The first of a key goes another way than the second.
    for number in [7, 8] {
        on_request(&mut programs, name::EGRESS, &syn(OWN, SERVICE, number));
        on_request(&mut programs, name::INGRESS, &syn(NODE, OWN, number));
    }
    assert_eq!((askers(), returned()), (vec![], 2));
    // Who was asked knows the number, and so may whoever it tells.
    for from in [SERVICE, OTHER] {
        on_request(&mut programs, name::INGRESS, &syn(from, OWN, 8));
    }
    assert_eq!((askers().len(), returned()), (2, 2));
    // What the node asks by itself has a number of its own.
    on_request(&mut programs, name::INGRESS, &syn(NODE, OWN, 9));
    assert_eq!((askers().len(), returned()), (3, 2));
}
