//! The maps, and every way into them.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_skb_cgroup_id};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use nanoseg_ebpf::exchange::{Asked, Asking, Begun, Exchange, ExchangeEntry, ExchangeKey, ExchangeSlot};
use nanoseg_ebpf::packet::{Ends, Event, Signal, Way};
use nanoseg_ebpf::returning::{NODE_ADDRESSES, PLACES, Sent};
use nanoseg_ebpf::{
    Address, CGROUPS, Count, EVERY_CGROUP, FlowEntry, FlowKey, FlowRecord, FlowSlot, LossKey, Reason, Role, Transport,
    is_admitted,
};

use super::read::Context;
use super::socket::{is_connected, is_copy, is_initiator};

// The sizes are what the learner sets when it loads, unless it is told otherwise.

#[map]
pub(super) static FLOWS: HashMap<FlowSlot, FlowEntry> = HashMap::with_max_entries(131_072, 0);

#[map]
pub(super) static EXCHANGES: LruHashMap<ExchangeSlot, ExchangeEntry> = LruHashMap::with_max_entries(65_536, 0);

#[map]
pub(super) static CROWDED: LruHashMap<ExchangeSlot, ExchangeEntry> = LruHashMap::with_max_entries(65_536, 0);

#[map]
static CROWDS: LruHashMap<u64, Begun> = LruHashMap::with_max_entries(CGROUPS, 0);

#[map]
static ASKED: LruHashMap<Asking, Asked> = LruHashMap::with_max_entries(CGROUPS, 0);

#[map]
static GRACE_END: Array<u64> = Array::with_max_entries(1, 0);

#[map]
static ADMITTED: HashMap<u64, u64> = HashMap::with_max_entries(CGROUPS, 0);

#[map]
static RELEASED: HashMap<u64, u64> = HashMap::with_max_entries(CGROUPS, 0);

#[map]
static LOSSES: HashMap<LossKey, u64> = HashMap::with_max_entries(CGROUPS, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::PLACES, 0);

#[map]
pub(super) static SENT: Array<u64> = Array::with_max_entries(PLACES, 0);

#[map]
static NODE: HashMap<Address, u8> = HashMap::with_max_entries(NODE_ADDRESSES, 0);

#[map]
static ANNOUNCEMENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// As many as [`FLOWS`] has; the learner sets both.
#[unsafe(no_mangle)]
static FLOWS_CAPACITY: u32 = 131_072;

/// Of [`EXCHANGES`]; the learner sets both.
#[unsafe(no_mangle)]
static EXCHANGES_SHARE: u32 = Begun::share(65_536);

/// `opener` is the packet's [`Signal::opener`].
#[inline(always)]
pub(super) fn record(context: Context, way: Way, signal: Signal, opener: Option<u32>, ends: &Ends) {
    let is_copy = matches!(way, Way::Ingress) && is_copy(context);
    if is_copy && signal.event != Event::EchoReply {
        return tally(Reason::Copy);
    }
    if let Some(number) = opener {
        let sent = Sent::new(number, &ends.own(way));
        match (signal.event, way) {
            (Event::Open, Way::Egress) => sends(sent),
            // Who accepts what came back names it in its answer.
            (Event::Open, Way::Ingress) | (Event::Accept, Way::Egress)
                if has_sent(sent) && is_node(&ends.peer(way)) =>
            {
                return tally(Reason::Returned);
            }
            _ => {}
        }
    }
    let cgroup = cgroup_of(context);
    // SAFETY: takes nothing and always succeeds.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some((role, count)) = signal.event.meaning(way) {
        let key = flow_key(cgroup, way, ends, signal.transport, role);
        // Who asks by a raw socket gets the answers to all: its own are those of whom it asked.
        if is_copy && FLOWS.get_ptr(&key.slot()).is_none() {
            return tally(Reason::Copy);
        }
        count_in(&key, count, now);
    } else if signal.transport == Transport::Icmp {
        tally(Reason::Icmp);
    } else if signal.event == Event::Datagram {
        exchange(context, cgroup, way, ends, now);
    }
}

/// Remembers what is sent.
#[inline(always)]
fn sends(sent: Sent) {
    if let Some(place) = SENT.get_ptr_mut(sent.place()) {
        // SAFETY: map values stay writable while the program runs.
        unsafe { place.write_volatile(sent.mark()) };
    }
}

/// Whether it was sent just now, and from here.
#[inline(always)]
fn has_sent(sent: Sent) -> bool {
    SENT.get(sent.place()) == Some(&sent.mark())
}

#[inline(always)]
fn is_node(address: &Address) -> bool {
    NODE.get_ptr(address).is_some()
}

#[inline(always)]
fn flow_key(cgroup: u64, way: Way, ends: &Ends, transport: Transport, role: Role) -> FlowKey {
    FlowKey {
        cgroup,
        peer: ends.peer(way),
        port: ends.listener_port(way, role),
        transport: transport as u8,
        role: role as u8,
        pad: 0,
    }
}

/// Tells who spoke first between two ports, and records what that says.
#[inline(always)]
fn exchange(context: Context, cgroup: u64, way: Way, ends: &Ends, now: u64) {
    let (local_port, peer_port) = ends.ports(way);
    let speaker = way.role_of_opener();
    let key = ExchangeKey {
        cgroup,
        peer: ends.peer(way),
        local_port,
        peer_port,
        pad: 0,
    };
    let slot = key.slot();
    let known = match find(&slot) {
        Some(known) => known,
        None if matches!(way, Way::Ingress)
            && let Some(asked) = question(cgroup, local_port, now) =>
        {
            let entry = ExchangeEntry {
                exchange: Exchange::answering(now),
                key,
            };
            tally(Reason::OtherAnswer);
            if EXCHANGES.insert(&slot, &entry, u64::from(BPF_NOEXIST)).is_err() {
                // Its next datagram will look like a question.
                lose(cgroup, Reason::ExchangeTableFull);
            }
            asked
        }
        None => {
            if matches!(way, Way::Egress) && !is_connected(context) {
                asks(cgroup, local_port, &slot, now);
            }
            let table = if is_one_of_many(cgroup, now) {
                &CROWDED
            } else {
                &EXCHANGES
            };
            // Whether this is the first or another processor was: its entry is as good.
            let grace_end = GRACE_END.get(0).copied().unwrap_or(0);
            let entry = ExchangeEntry {
                exchange: Exchange::first_seen(speaker, now, grace_end, || is_initiator(context, way, ends)),
                key,
            };
            let is_ours = table.insert(&slot, &entry, u64::from(BPF_NOEXIST)).is_ok();
            if is_ours && entry.exchange.role().is_none() {
                lose(cgroup, Reason::UnderWay);
                return;
            }
            match table.get_ptr_mut(&slot) {
                Some(known) => known,
                None => {
                    lose(cgroup, Reason::ExchangeTableFull);
                    return;
                }
            }
        }
    };
    // SAFETY: map values stay readable and writable while the program runs.
    let (known, key) = unsafe { (&mut (*known).exchange, whole(&(*known).key)) };
    if key.cgroup != cgroup {
        lose(cgroup, Reason::ExchangeTableFull);
        return;
    }
    if let Some(count) = known.hear(speaker, now)
        && let Some(role) = known.role()
        && count_in(&key.flow(role), count, now)
    {
        known.wrote(count, now);
    }
}

/// A key in a map, read so that the compiler cannot choose between places in it: the kernel refuses reads at an offset that is
/// not a constant to a loader without `CAP_PERFMON`.
#[inline(always)]
fn whole(key: &ExchangeKey) -> ExchangeKey {
    // SAFETY: both ports, which are one behind the other and begin at a multiple of four.
    let ports = unsafe {
        (&raw const key.local_port)
            .cast::<[u16; 2]>()
            .cast::<u32>()
            .read_volatile()
    };
    let [a, b, c, d] = ports.to_ne_bytes();
    ExchangeKey {
        local_port: u16::from_ne_bytes([a, b]),
        peer_port: u16::from_ne_bytes([c, d]),
        ..*key
    }
}

#[inline(always)]
fn find(slot: &ExchangeSlot) -> Option<*mut ExchangeEntry> {
    EXCHANGES.get_ptr_mut(slot).or_else(|| CROWDED.get_ptr_mut(slot))
}

/// Notes that a port asks, by a socket that anybody may answer.
#[inline(always)]
fn asks(cgroup: u64, port: u16, slot: &ExchangeSlot, now: u64) {
    if let Some(asking) = Asking::of(cgroup, port) {
        let asked = Asked {
            slot: *slot,
            at_ns: now,
        };
        // Without it the answer is what it looks like.
        _ = ASKED.insert(&asking, &asked, 0);
    }
}

/// The exchange of which the question may be answered by what comes to a port now.
#[inline(always)]
fn question(cgroup: u64, port: u16, now: u64) -> Option<*mut ExchangeEntry> {
    // SAFETY: map values stay readable while the program runs.
    let asked = unsafe { ASKED.get(&Asking::of(cgroup, port)?) }?;
    let known = find(&asked.slot)?;
    // SAFETY: as above.
    let entry = unsafe { &*known };
    (entry.key.cgroup == cgroup && asked.may_be_answered(&entry.exchange, now)).then_some(known)
}

/// Whether the cgroup begins so many exchanges that they are kept apart. Without room to count it does not.
#[inline(never)]
fn is_one_of_many(cgroup: u64, now: u64) -> bool {
    // SAFETY: a constant of the program, which the learner sets before it loads.
    let share = unsafe { (&raw const EXCHANGES_SHARE).read_volatile() };
    let begun = match CROWDS.get_ptr_mut(&cgroup) {
        Some(begun) => begun,
        None => {
            let none = Begun {
                since_ns: now,
                count: 0,
            };
            // Another processor may have been first; its entry is as good.
            _ = CROWDS.insert(&cgroup, &none, u64::from(BPF_NOEXIST));
            match CROWDS.get_ptr_mut(&cgroup) {
                Some(begun) => begun,
                None => return false,
            }
        }
    };
    // SAFETY: map values stay readable and writable while the program runs. Two processors at once may count one for two.
    unsafe { (*begun).another(share, now) }
}

/// Counts in a record, or makes it. Says whether it is in the map.
#[inline(always)]
fn count_in(key: &FlowKey, count: Count, now: u64) -> bool {
    let slot = key.slot();
    if let Some(known) = FLOWS.get_ptr_mut(&slot) {
        return count_in_entry(known, key, count, now);
    }
    if !has_room(key.cgroup) {
        lose(key.cgroup, Reason::MapFull);
        return false;
    }
    if insert(&slot, key, count, now) {
        admit(key.cgroup);
        if ANNOUNCEMENTS.output::<FlowKey>(key, 0).is_err() {
            tally(Reason::Unannounced);
        }
        return true;
    }
    // Another processor was first, or there is no room.
    if let Some(known) = FLOWS.get_ptr_mut(&slot) {
        return count_in_entry(known, key, count, now);
    }
    lose(key.cgroup, Reason::MapFull);
    false
}

/// Counts in a record that was found, if it is the cgroup's.
#[inline(always)]
fn count_in_entry(known: *mut FlowEntry, key: &FlowKey, count: Count, now: u64) -> bool {
    // SAFETY: map values stay readable while the program runs.
    if unsafe { (*known).key.cgroup } != key.cgroup {
        lose(key.cgroup, Reason::MapFull);
        return false;
    }
    // SAFETY: a part of a map value.
    increment(unsafe { &raw mut (*known).record }, count, now);
    true
}

/// Whether the cgroup may have another key. It may not when there is no room to count its keys.
#[inline(never)]
fn has_room(cgroup: u64) -> bool {
    // SAFETY: a constant of the program, which the learner sets before it loads.
    let capacity = u64::from(unsafe { (&raw const FLOWS_CAPACITY).read_volatile() });
    let Some(own) = held(cgroup) else {
        return false;
    };
    held(EVERY_CGROUP).is_some_and(|all| is_admitted(own, all, capacity))
}

#[inline(always)]
fn held(cgroup: u64) -> Option<u64> {
    // SAFETY: values of both maps are whole words.
    let (admitted, released) = unsafe {
        if ADMITTED.get(&cgroup).is_none() {
            // Another processor may have been first; its entry is as good.
            _ = ADMITTED.insert(&cgroup, &0, u64::from(BPF_NOEXIST));
        }
        (*ADMITTED.get(&cgroup)?, RELEASED.get(&cgroup).copied().unwrap_or(0))
    };
    // The learner may have taken a key out that is not counted yet.
    Some(admitted.saturating_sub(released))
}

#[inline(never)]
fn admit(cgroup: u64) {
    for counted in [cgroup, EVERY_CGROUP] {
        if let Some(count) = ADMITTED.get_ptr_mut(&counted) {
            atomic_add(count);
        }
    }
}

#[inline(always)]
fn insert(slot: &FlowSlot, key: &FlowKey, count: Count, now: u64) -> bool {
    let mut fresh = MaybeUninit::<FlowEntry>::uninit();
    let entry = fresh.as_mut_ptr();
    // Volatile, because the compiler would make a loop that clears bytes of them, which the kernel refuses to a loader
    // without CAP_PERFMON.
    // SAFETY: every field is written before it is read.
    let fresh = unsafe {
        let record = &raw mut (*entry).record;
        (&raw mut (*entry).key).write(*key);
        (&raw mut (*record).first_ns).write_volatile(now);
        (&raw mut (*record).last_ns).write_volatile(now);
        (&raw mut (*record).attempted).write_volatile(u64::from(count == Count::Attempted));
        (&raw mut (*record).established).write_volatile(u64::from(count == Count::Established));
        (&raw mut (*record).refused).write_volatile(u64::from(count == Count::Refused));
        fresh.assume_init_ref()
    };
    FLOWS.insert(slot, fresh, u64::from(BPF_NOEXIST)).is_ok()
}

#[inline(always)]
pub(super) fn increment(record: *mut FlowRecord, count: Count, now: u64) {
    see(record, now);
    add(record, count);
}

#[inline(always)]
fn add(record: *mut FlowRecord, count: Count) {
    // SAFETY: map values stay readable and writable while the program runs.
    unsafe {
        match count {
            Count::Attempted => atomic_add(&raw mut (*record).attempted),
            Count::Established => atomic_add(&raw mut (*record).established),
            Count::Refused => atomic_add(&raw mut (*record).refused),
            Count::Seen => {}
        }
    }
}

#[inline(always)]
fn see(record: *mut FlowRecord, now: u64) {
    // SAFETY: as above.
    unsafe {
        // A time that was taken earlier may be written later.
        if now > (*record).last_ns {
            (*record).last_ns = now;
        }
    }
}

#[inline(always)]
pub(super) fn cgroup_of(context: Context) -> u64 {
    // SAFETY: the kernel passes a valid context.
    unsafe { bpf_skb_cgroup_id(context.0) }
}

#[inline(always)]
pub(super) fn skip(context: Context, reason: Reason) {
    if reason.is_loss() {
        lose(cgroup_of(context), reason);
    } else {
        tally(reason);
    }
}

#[inline(never)]
fn lose(cgroup: u64, reason: Reason) {
    tally(reason);
    let key = LossKey {
        cgroup,
        reason: reason as u32,
        pad: 0,
    };
    if let Some(known) = LOSSES.get_ptr_mut(&key) {
        atomic_add(known);
    } else if LOSSES.insert(&key, &1, u64::from(BPF_NOEXIST)).is_err()
        && let Some(known) = LOSSES.get_ptr_mut(&key)
    {
        atomic_add(known);
    }
}

#[inline(always)]
pub(super) fn tally(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason as u32) {
        atomic_add(counter);
    }
}

/// Atomic even on a value of this processor's own: a program that sends can be interrupted by one that receives.
#[inline(always)]
fn atomic_add(counter: *mut u64) {
    // The compiler offers no atomic addition for this target; this is the instruction that every kernel since 3.18 has.
    // SAFETY: map values are aligned to 8 bytes and stay writable while the program runs.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1_u64, options(nostack)) };
}
