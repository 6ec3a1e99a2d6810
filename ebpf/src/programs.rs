//! Two programs, for the packets that the sockets of a cgroup receive and send. They always let the packet pass.
//!
//! Guarantees:
//! * A TCP data packet leaves at the flags test, before any map.
//! * What is not recorded is counted, in all and for its cgroup.
//! * An announcement that does not fit loses nothing: the key is in the map.

use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_skb_cgroup_id, bpf_skb_load_bytes};
use aya_ebpf::macros::{cgroup_skb, map};
use aya_ebpf::maps::{HashMap, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::programs::SkBuffContext;
use nanoseg_ebpf::exchange::{Exchange, ExchangeKey};
use nanoseg_ebpf::packet::{
    Bytes, Ends, Event, Signal, Skipped, Way, classify, classify_plain_v4, classify_plain_v6, is_plain_v4, is_plain_v6,
};
use nanoseg_ebpf::{Count, FlowKey, FlowRecord, LossKey, Reason, Role, Transport};

/// The sizes are what the learner sets when it loads, unless it is told otherwise.
#[map]
static FLOWS: HashMap<FlowKey, FlowRecord> = HashMap::with_max_entries(131_072, 0);

#[map]
static EXCHANGES: LruHashMap<ExchangeKey, Exchange> = LruHashMap::with_max_entries(65_536, 0);

#[map]
static LOSSES: HashMap<LossKey, u64> = HashMap::with_max_entries(16_384, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::ALL.len() as u32, 0);

#[map]
static ANNOUNCEMENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

const PASS: i32 = 1;

#[cgroup_skb(ingress)]
fn nanoseg_ingress(context: SkBuffContext) -> i32 {
    observe(&context, Way::Ingress);
    PASS
}

#[cgroup_skb(egress)]
fn nanoseg_egress(context: SkBuffContext) -> i32 {
    observe(&context, Way::Egress);
    PASS
}

/// The part of the packet that the program can read directly: it begins at the IP header, and holds the headers unless a
/// sender or a driver put them into pages of their own.
struct Linear {
    start: usize,
    end: usize,
}

impl Linear {
    #[inline(always)]
    fn read<T: Copy>(&self, at: usize) -> Option<T> {
        let from = self.start + at;
        let mut past = from;
        // Added where the compiler does not see it: it would turn `from + 1 > end` into `from >= end`, from which the verifier
        // does not conclude that the byte is there.
        // SAFETY: only adds.
        unsafe {
            core::arch::asm!(
                "{0} += {1}",
                inout(reg) past,
                const size_of::<T>(),
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        if past > self.end {
            return None;
        }
        // SAFETY: within the packet by the test above, which is the one that the verifier asks for.
        Some(unsafe { *(from as *const T) })
    }
}

impl Bytes for Linear {
    #[inline(always)]
    fn byte(&self, at: usize) -> Option<u8> {
        self.read(at)
    }

    #[inline(always)]
    fn short(&self, at: usize) -> Option<u16> {
        self.read(at).map(u16::from_be)
    }

    #[inline(always)]
    fn word(&self, at: usize) -> Option<u32> {
        self.read(at)
    }
}

/// The whole packet, by a helper call for each read.
struct Scattered<'a>(&'a SkBuffContext);

impl Scattered<'_> {
    #[inline(always)]
    fn read<T: Copy + Default>(&self, at: usize) -> Option<T> {
        let mut value = T::default();
        // SAFETY: the helper writes as many bytes as `value` has.
        let failed = unsafe {
            bpf_skb_load_bytes(
                self.0.as_ptr(),
                at as u32,
                (&raw mut value).cast(),
                size_of::<T>() as u32,
            )
        };
        (failed == 0).then_some(value)
    }
}

impl Bytes for Scattered<'_> {
    #[inline(always)]
    fn byte(&self, at: usize) -> Option<u8> {
        self.read(at)
    }

    #[inline(always)]
    fn short(&self, at: usize) -> Option<u16> {
        self.read(at).map(u16::from_be)
    }

    #[inline(always)]
    fn word(&self, at: usize) -> Option<u32> {
        self.read(at)
    }
}

#[inline(always)]
fn observe(context: &SkBuffContext, way: Way) {
    match (linear(context).byte(0).map(|first| first >> 4), way) {
        (Some(4), Way::Ingress) => received_v4(context),
        (Some(4), Way::Egress) => sent_v4(context),
        (Some(6), Way::Ingress) => received_v6(context),
        (Some(6), Way::Egress) => sent_v6(context),
        _ => scattered(context, way),
    }
}

// A function of its own for each family and way, because the compiler would otherwise merge their reads into reads at an
// offset that is not a constant.

#[inline(never)]
fn received_v4(context: &SkBuffContext) {
    let packet = linear(context);
    if is_plain_v4(&packet) {
        conclude(context, Way::Ingress, &packet, classify_plain_v4(&packet));
    } else {
        received_scattered(context);
    }
}

#[inline(never)]
fn sent_v4(context: &SkBuffContext) {
    let packet = linear(context);
    if is_plain_v4(&packet) {
        conclude(context, Way::Egress, &packet, classify_plain_v4(&packet));
    } else {
        sent_scattered(context);
    }
}

#[inline(never)]
fn received_v6(context: &SkBuffContext) {
    let packet = linear(context);
    if is_plain_v6(&packet) {
        conclude(context, Way::Ingress, &packet, classify_plain_v6(&packet));
    } else {
        received_scattered(context);
    }
}

#[inline(never)]
fn sent_v6(context: &SkBuffContext) {
    let packet = linear(context);
    if is_plain_v6(&packet) {
        conclude(context, Way::Egress, &packet, classify_plain_v6(&packet));
    } else {
        sent_scattered(context);
    }
}

#[inline(always)]
fn linear(context: &SkBuffContext) -> Linear {
    // SAFETY: the kernel passes a valid context.
    let (start, end) = unsafe { ((*context.skb.skb).data as usize, (*context.skb.skb).data_end as usize) };
    Linear { start, end }
}

#[inline(always)]
fn conclude(context: &SkBuffContext, way: Way, packet: &Linear, signal: Result<Signal, Skipped>) {
    let reason = match signal {
        Ok(signal) => match signal.ends(packet) {
            Ok(ends) => return record(context, way, signal, &ends),
            Err(Skipped::Data) => return,
            Err(Skipped::Counted(reason)) => reason,
        },
        Err(Skipped::Data) => return,
        Err(Skipped::Counted(reason)) => reason,
    };
    if reason == Reason::Truncated {
        // Perhaps only the linear part is.
        scattered(context, way);
    } else {
        skip(context, reason);
    }
}

#[inline(always)]
fn scattered(context: &SkBuffContext, way: Way) {
    match way {
        Way::Ingress => received_scattered(context),
        Way::Egress => sent_scattered(context),
    }
}

#[inline(never)]
fn received_scattered(context: &SkBuffContext) {
    observe_scattered(context, Way::Ingress);
}

#[inline(never)]
fn sent_scattered(context: &SkBuffContext) {
    observe_scattered(context, Way::Egress);
}

#[inline(always)]
fn observe_scattered(context: &SkBuffContext, way: Way) {
    let packet = Scattered(context);
    match classify(&packet).and_then(|signal| Ok((signal, signal.ends(&packet)?))) {
        Ok((signal, ends)) => record(context, way, signal, &ends),
        Err(Skipped::Data) => {}
        Err(Skipped::Counted(reason)) => skip(context, reason),
    }
}

#[inline(always)]
fn record(context: &SkBuffContext, way: Way, signal: Signal, ends: &Ends) {
    let cgroup = cgroup_of(context);
    // SAFETY: takes nothing and always succeeds.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some((role, count)) = signal.event.meaning(way) {
        add(&flow_key(cgroup, way, ends, signal.transport, role), count, now);
    } else if signal.event == Event::Datagram {
        exchange(cgroup, way, ends, now);
    }
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
fn exchange(cgroup: u64, way: Way, ends: &Ends, now: u64) {
    let (local_port, peer_port) = ends.ports(way);
    let speaker = way.role_of_opener();
    let key = ExchangeKey {
        cgroup,
        peer: ends.peer(way),
        local_port,
        peer_port,
        pad: 0,
    };
    let known = match EXCHANGES.get_ptr_mut(&key) {
        Some(known) => known,
        None => {
            // Whether this is the first or another processor was: its entry is as good.
            let _ = EXCHANGES.insert(&key, &Exchange::begun(speaker, now), u64::from(BPF_NOEXIST));
            match EXCHANGES.get_ptr_mut(&key) {
                Some(known) => known,
                None => {
                    lose(cgroup, Reason::ExchangeTableFull);
                    return;
                }
            }
        }
    };
    // SAFETY: map values stay readable and writable while the program runs.
    let known = unsafe { &mut *known };
    if let Some(count) = known.hear(speaker, now)
        && add(&flow_key(cgroup, way, ends, Transport::Udp, known.role()), count, now)
    {
        known.wrote(count, now);
    }
}

/// Adds to a record, or makes it. Says whether it is in the map.
#[inline(always)]
fn add(key: &FlowKey, count: Count, now: u64) -> bool {
    if let Some(known) = FLOWS.get_ptr_mut(key) {
        increment(known, count, now);
        return true;
    }
    if insert(key, count, now) {
        if ANNOUNCEMENTS.output::<FlowKey>(key, 0).is_err() {
            tally(Reason::Unannounced);
        }
        return true;
    }
    // Another processor was first, or there is no room.
    if let Some(known) = FLOWS.get_ptr_mut(key) {
        increment(known, count, now);
        return true;
    }
    lose(key.cgroup, Reason::MapFull);
    false
}

#[inline(always)]
fn insert(key: &FlowKey, count: Count, now: u64) -> bool {
    let mut fresh = MaybeUninit::<FlowRecord>::uninit();
    let record = fresh.as_mut_ptr();
    // Volatile, because the compiler would make a loop that clears bytes of them, which the kernel refuses to a loader
    // without CAP_PERFMON.
    // SAFETY: every field is written before it is read.
    let fresh = unsafe {
        (&raw mut (*record).first_ns).write_volatile(now);
        (&raw mut (*record).last_ns).write_volatile(now);
        (&raw mut (*record).attempted).write_volatile(u64::from(count == Count::Attempted));
        (&raw mut (*record).established).write_volatile(u64::from(count == Count::Established));
        (&raw mut (*record).refused).write_volatile(u64::from(count == Count::Refused));
        fresh.assume_init_ref()
    };
    FLOWS.insert(key, fresh, u64::from(BPF_NOEXIST)).is_ok()
}

#[inline(always)]
fn increment(record: *mut FlowRecord, count: Count, now: u64) {
    // SAFETY: map values stay readable and writable while the program runs.
    unsafe {
        (*record).last_ns = now;
        match count {
            Count::Attempted => atomic_add(&raw mut (*record).attempted),
            Count::Established => atomic_add(&raw mut (*record).established),
            Count::Refused => atomic_add(&raw mut (*record).refused),
            Count::Seen => {}
        }
    }
}

#[inline(always)]
fn cgroup_of(context: &SkBuffContext) -> u64 {
    // SAFETY: the kernel passes a valid context.
    unsafe { bpf_skb_cgroup_id(context.skb.skb) }
}

#[inline(always)]
fn skip(context: &SkBuffContext, reason: Reason) {
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
fn tally(reason: Reason) {
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

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
