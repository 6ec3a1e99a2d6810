//! The way of nearly every packet that counts: its key is in the map already.
//!
//! A key that is built on the program's stack costs as much as the look-up, because a loader without `CAP_PERFMON` has every
//! first write to the stack fenced. Here it is built in memory of this processor. Another run of a program may interrupt
//! this one there and write its own key; so what was found carries its key with it, and counts only if that is the packet's.
//! Anything else is left to the thorough way.

use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_map_lookup_elem};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::SkBuffContext;
use nanoseg_ebpf::exchange::ExchangeKey;
use nanoseg_ebpf::packet::{Bytes as _, Event, Family, Signal, Way, mapped};
use nanoseg_ebpf::{Address, FlowKey, Role, Transport};

use super::read::{Linear, linear};
use super::record::{CROWDED, EXCHANGES, FLOWS, cgroup_of, increment};

#[repr(C)]
struct Scratch {
    flow: FlowKey,
    exchange: ExchangeKey,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// In memory of its own, and not on the stack.
static FIRST: u32 = 0;

/// Counts the packet if its key is in the map. Otherwise does nothing.
#[inline(always)]
pub(super) fn hit(context: &SkBuffContext, way: Way, packet: &Linear, signal: Signal) -> bool {
    // Has no ports to read again, and is rare.
    if signal.transport == Transport::Icmp {
        return false;
    }
    // SAFETY: the map and its key are static; the verifier makes sure that the result is tested.
    let scratch = unsafe {
        bpf_map_lookup_elem((&raw const SCRATCH).cast_mut().cast(), (&raw const FIRST).cast())
            .cast::<Scratch>()
            .as_mut()
    };
    let Some(scratch) = scratch else { return false };
    let Ok(ends) = signal.ends(packet) else { return false };
    if let Some((role, count)) = signal.event.meaning(way) {
        let key = &mut scratch.flow;
        key.peer = ends.peer(way);
        key.port = ends.listener_port(way, role);
        key.transport = signal.transport as u8;
        key.role = role as u8;
        key.pad = 0;
        let cgroup = cgroup_of(context);
        key.cgroup = cgroup;
        let Some(entry) = FLOWS.get_ptr_mut(&*key) else {
            return false;
        };
        // SAFETY: map values stay readable while the program runs.
        let found = unsafe { &(*entry).key };
        let Some(again) = reread(context, way, signal) else {
            return false;
        };
        let port = match role {
            Role::Source => again.peer_port,
            Role::Destination => again.local_port,
        };
        if found.cgroup != cgroup
            || !is_same(&found.peer, &again.peer)
            || found.port != port
            || found.transport != signal.transport as u8
            || found.role != role as u8
        {
            return false;
        }
        // SAFETY: takes nothing and always succeeds.
        let now = unsafe { bpf_ktime_get_ns() };
        // SAFETY: a part of a map value.
        increment(unsafe { &raw mut (*entry).record }, count, now);
        return true;
    }
    if signal.event != Event::Datagram {
        return true;
    }
    let (local_port, peer_port) = ends.ports(way);
    let key = &mut scratch.exchange;
    key.peer = ends.peer(way);
    key.local_port = local_port;
    key.peer_port = peer_port;
    key.pad = 0;
    let cgroup = cgroup_of(context);
    key.cgroup = cgroup;
    let Some(entry) = EXCHANGES.get_ptr_mut(&*key).or_else(|| CROWDED.get_ptr_mut(&*key)) else {
        return false;
    };
    // SAFETY: map values stay readable and writable while the program runs.
    let entry = unsafe { &mut *entry };
    let Some(again) = reread(context, way, signal) else {
        return false;
    };
    if entry.key.cgroup != cgroup
        || !is_same(&entry.key.peer, &again.peer)
        || entry.key.local_port != again.local_port
        || entry.key.peer_port != again.peer_port
    {
        return false;
    }
    // SAFETY: takes nothing and always succeeds.
    let now = unsafe { bpf_ktime_get_ns() };
    // What there is to write is heard again, and written, by the thorough way.
    entry.exchange.hear(way.role_of_opener(), now).is_none()
}

struct Again {
    peer: Address,
    local_port: u16,
    peer_port: u16,
}

/// From the packet itself, because the key may not be this packet's any more, and values that are kept over a call cost more.
#[inline(always)]
fn reread(context: &SkBuffContext, way: Way, signal: Signal) -> Option<Again> {
    let packet = linear(context);
    let at = match (signal.family, way) {
        (Family::V4, Way::Ingress) => 12,
        (Family::V4, Way::Egress) => 16,
        (Family::V6, Way::Ingress) => 8,
        (Family::V6, Way::Egress) => 24,
    };
    let peer = match signal.family {
        Family::V4 => mapped(packet.word(at)?),
        Family::V6 => [
            packet.word(at)?,
            packet.word(at + 4)?,
            packet.word(at + 8)?,
            packet.word(at + 12)?,
        ],
    };
    let transport = match signal.family {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    let (first, second) = (packet.short(transport)?, packet.short(transport + 2)?);
    let (local_port, peer_port) = match way {
        Way::Ingress => (second, first),
        Way::Egress => (first, second),
    };
    Some(Again {
        peer,
        local_port,
        peer_port,
    })
}

/// Word by word: the compiler would call a function for whole arrays.
#[inline(always)]
const fn is_same(left: &Address, right: &Address) -> bool {
    left[0] == right[0] && left[1] == right[1] && left[2] == right[2] && left[3] == right[3]
}
