//! Two cgroups whose ids have the same lower half, which is all that the flow map and the table of exchanges are searched by.

use aya::maps::{Array, HashMap, MapData};
use aya::programs::{CgroupSkb, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader, Pod, include_bytes_aligned};
use nanoseg_ebpf::exchange::{ExchangeEntry, ExchangeSlot};
use nanoseg_ebpf::{FlowEntry, FlowSlot, LossKey, Reason, name};

use crate::node::is_possible;
use crate::records::Plain;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nanoseg-capture"));

type Table<K, V> = HashMap<MapData, Plain<K>, V>;

fn table<K, V: Pod>(programs: &mut Ebpf, name: &str) -> Table<K, V>
where
    Plain<K>: Pod,
{
    programs.take_map(name).unwrap().try_into().unwrap()
}

/// Sends a packet of IPv4 to port 8080.
fn send(programs: &mut Ebpf, protocol: u8, transport: &[u8]) {
    let mut packet = vec![0; 12];
    packet.extend([
        8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2,
    ]);
    packet.extend([0xc0, 0, 0x1f, 0x90]);
    packet.extend(transport);
    on_request(programs, name::EGRESS, &packet);
}

/// Runs a program on a packet, as the kernel does on request.
pub(crate) fn on_request(programs: &mut Ebpf, program: &str, packet: &[u8]) {
    let program: &mut CgroupSkb = programs.program_mut(program).unwrap().try_into().unwrap();
    if program.fd().is_err() {
        program.load().unwrap();
    }
    let options = TestRunOptions {
        data_in: Some(packet),
        ..TestRunOptions::new()
    };
    assert_eq!(program.test_run(options).unwrap().return_value, 1);
}

const OTHER_HALF: u64 = 1 << 32;

#[test]
fn what_would_be_counted_for_another_cgroup_is_a_loss() {
    if !is_possible() {
        return;
    }
    let mut programs = EbpfLoader::new().load(OBJECT).unwrap();
    let map = programs.map_mut(name::GRACE_END).unwrap();
    Array::<_, u64>::try_from(map).unwrap().set(0, 1, 0).unwrap();
    let mut flows: Table<FlowSlot, Plain<FlowEntry>> = table(&mut programs, name::FLOWS);
    let mut exchanges: Table<ExchangeSlot, Plain<ExchangeEntry>> = table(&mut programs, name::EXCHANGES);
    let losses: Table<LossKey, u64> = table(&mut programs, name::LOSSES);
    let syn: &[u8] = &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0];
    let datagram: &[u8] = &[0, 8, 0, 0];
    // The first makes the entries, another finds them. Of datagrams another one is not looked up for a while.
    send(&mut programs, 6, syn);
    send(&mut programs, 6, syn);
    send(&mut programs, 17, datagram);
    assert_eq!(losses.iter().count(), 0);
    let mut cgroup = 0;
    let all: Vec<_> = flows.iter().map(Result::unwrap).collect();
    assert_eq!(all.len(), 2, "one of each transport");
    for (slot, Plain(mut entry)) in all {
        assert_eq!(entry.key.slot(), slot.0);
        cgroup = entry.key.cgroup;
        entry.key.cgroup += OTHER_HALF;
        flows.insert(slot, Plain(entry), 0).unwrap();
    }
    let all: Vec<_> = exchanges.iter().map(Result::unwrap).collect();
    assert_eq!(all.len(), 1);
    for (slot, Plain(mut entry)) in all {
        assert_eq!(entry.key.slot(), slot.0);
        entry.key.cgroup += OTHER_HALF;
        exchanges.insert(slot, Plain(entry), 0).unwrap();
    }
    let before: Vec<_> = flows.iter().map(|entry| entry.unwrap().1.0).collect();
    for _ in 0..3 {
        send(&mut programs, 6, syn);
        send(&mut programs, 17, datagram);
    }
    let after: Vec<_> = flows.iter().map(|entry| entry.unwrap().1.0).collect();
    assert_eq!(before, after);
    for reason in [Reason::MapFull, Reason::ExchangeTableFull] {
        let key = LossKey {
            cgroup,
            reason: reason as u32,
            pad: 0,
        };
        assert_eq!(losses.get(&Plain(key), 0).unwrap(), 3, "{reason:?}");
    }
}
