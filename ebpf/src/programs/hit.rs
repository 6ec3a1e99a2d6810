//! The way of nearly every packet that counts: its key is in the map already.
//!
//! What costs here is calls: a look-up in a hash map, which is three of the kernel's functions, takes as long as all else together.
//! So of datagrams that have nothing to say, one in a second is looked up.
//!
//! Nothing of that way is on the program's stack: a loader without `CAP_PERFMON` has writes to it fenced, and a fence costs as much as
//! half a look-up. So what is looked up is built in memory of this processor, where the time is too, and nothing that was read from
//! the packet is kept over a call: it is read again. Another run of a program may interrupt this one and write its own; so what was
//! found carries its key with it, and counts only if that is the packet's. Anything else is left to the thorough way.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns, bpf_map_lookup_elem};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use nanoseg_ebpf::exchange::ExchangeSlot;
use nanoseg_ebpf::packet::{Bytes as _, Family, Way, mapped, tcp_event, unrecorded_v4, unrecorded_v6};
use nanoseg_ebpf::returning::Sent;
use nanoseg_ebpf::{Address, Count, FlowSlot, Role, Transport};

use super::read::{Context, Headers, linear};
use super::record::{CROWDED, EXCHANGES, FLOWS, SENT, cgroup_of, increment};

/// A flow's key or an exchange's, which both begin with the cgroup and the other end's address.
type Words = [u64; 4];

/// A [`FlowSlot`] or an [`ExchangeSlot`], which both begin with the other end's address and end with half of the cgroup.
type Slot = [u64; 3];

#[repr(C)]
struct Scratch {
    /// Of either map.
    slot: Slot,
    moment: Moment,
    /// Of what was heard.
    number: u32,
    pad: u32,
}

/// The time, at most a tick of the kernel ago: to read the clock costs as much as all else here. Ticks are no time by
/// themselves, because how long one takes and when they began to be counted is not told to programs.
#[repr(C)]
struct Moment {
    /// Nanoseconds.
    now: u64,
    /// The same, combined with the kernel's count of ticks at that time.
    check: u64,
}

/// How many exchanges are remembered, so that all of them stay in a processor's cache: as many as the first byte of a hash
/// tells apart.
const PLACES: u32 = 256;

/// An exchange of which datagrams that pass one way need not be heard for a while, because there would be nothing to write: to
/// look it up in its table costs more than all else.
#[repr(C)]
struct Heard {
    key: Words,
    /// Until when, in nanoseconds: then the exchange's own time is a second old.
    until: u64,
    /// The same, combined with a hash of the key: who interrupts while this is read or written makes that differ.
    check: u64,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

#[map]
static HEARD: PerCpuArray<Heard> = PerCpuArray::with_max_entries(PLACES, 0);

/// In memory of its own, and not on the stack.
static FIRST: u32 = 0;

#[inline(always)]
fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: the map and its key are static; the verifier makes sure that the result is tested.
    unsafe {
        bpf_map_lookup_elem((&raw const SCRATCH).cast_mut().cast(), (&raw const FIRST).cast())
            .cast::<Scratch>()
            .as_mut()
    }
}

/// Counts a TCP packet that opens, accepts or refuses, if its key is in the map. Otherwise does nothing.
#[inline(always)]
pub(super) fn hit_flow(context: Context, way: Way, family: Family) -> bool {
    let Some(Sought { scratch, cgroup }) = sought::<Flow>(context, way, family) else {
        return false;
    };
    scratch.moment.bring_up();
    // SAFETY: as large, better aligned, and every bit pattern is a slot.
    let Some(entry) = FLOWS.get_ptr_mut(unsafe { &*(&raw const scratch.slot).cast::<FlowSlot>() }) else {
        return false;
    };
    // SAFETY: map values stay readable while the program runs, and the key in them is four words.
    let found = unsafe { &*(&raw const (*entry).key).cast::<Words>() };
    let Some(count) = counted(found, context, way, family, cgroup) else {
        return false;
    };
    // SAFETY: a part of a map value.
    increment(unsafe { &raw mut (*entry).record }, count, scratch.moment.now());
    if matches!(way, Way::Egress) && matches!(count, Count::Attempted) {
        _ = sends(scratch, context, family);
    }
    true
}

/// Remembers that a connection was asked for. Who interrupts may change the number, and then it is remembered nowhere.
#[inline(always)]
fn sends(scratch: &mut Scratch, context: Context, family: Family) -> Option<()> {
    scratch.number = sent(context, family)?.place();
    // SAFETY: the map is static and the key in a map; the verifier makes sure that the result is tested.
    let place = unsafe {
        bpf_map_lookup_elem((&raw const SENT).cast_mut().cast(), (&raw const scratch.number).cast()).cast::<u64>()
    };
    if place.is_null() {
        return None;
    }
    // SAFETY: map values stay writable while the program runs.
    unsafe { place.write_volatile(sent(context, family)?.mark()) };
    Some(())
}

/// What a packet asks for, read again.
#[inline(always)]
fn sent(context: Context, family: Family) -> Option<Sent> {
    let packet = Flow::headers(context, family)?;
    let own = match family {
        Family::V4 => mapped(packet.word(12)?),
        Family::V6 => halves(address(&packet, 8)?),
    };
    Some(Sent::new(packet.word(transport_at(family) + 4)?, &own))
}

/// Hears a datagram whose exchange is known and has nothing to write. Otherwise does nothing that hearing it again would not.
#[inline(always)]
pub(super) fn hit_exchange(context: Context, way: Way, family: Family) -> bool {
    let Some(Sought { scratch, cgroup }) = sought::<Exchange>(context, way, family) else {
        return false;
    };
    scratch.moment.bring_up();
    if is_heard(scratch, context, way, family, cgroup) == Some(true) {
        return true;
    }
    // SAFETY: as large, better aligned, and every bit pattern is a slot.
    let slot = unsafe { &*(&raw const scratch.slot).cast::<ExchangeSlot>() };
    let Some(entry) = EXCHANGES.get_ptr_mut(slot).or_else(|| CROWDED.get_ptr_mut(slot)) else {
        return false;
    };
    // SAFETY: map values stay readable and writable while the program runs, and the key in them is four words.
    let (known, found) = unsafe { (&mut (*entry).exchange, &*(&raw const (*entry).key).cast::<Words>()) };
    let Some([left, right, rest]) = again::<Exchange>(context, way, family) else {
        return false;
    };
    if !is_same(found, &[cgroup, left, right, rest]) {
        return false;
    }
    // What there is to write is heard again, and written, by the thorough way.
    let now = scratch.moment.now();
    if known.hear(way.role_of_opener(), now).is_some() {
        return false;
    }
    let until = known.nothing_to_write_until(now);
    let key = [cgroup, left, right, rest | half(way as u64)];
    let hash = hash(&key);
    let Some(place) = place(scratch, hash) else {
        return false;
    };
    *place = Heard {
        key,
        until,
        check: until ^ hash,
    };
    true
}

/// Whether a datagram was heard, and another one that passes the same way has nothing to say yet.
#[inline(always)]
fn is_heard(scratch: &mut Scratch, context: Context, way: Way, family: Family, cgroup: u64) -> Option<bool> {
    let key = |[left, right, rest]: [u64; 3]| [cgroup, left, right, rest | half(way as u64)];
    let place = place(scratch, hash(&key(again::<Exchange>(context, way, family)?)))?;
    // Made of the packet anew: there are no registers for it over the look-up.
    let key = key(again::<Exchange>(context, way, family)?);
    // One test instead of five, because the verifier follows what comes after each.
    let known = &place.key;
    let differs = (known[0] ^ key[0]) | (known[1] ^ key[1]) | (known[2] ^ key[2]) | (known[3] ^ key[3]);
    Some(differs | (place.until ^ place.check ^ hash(&key)) == 0 && scratch.moment.now() <= place.until)
}

/// A hash of a key, all bits of which depend on all of the key's.
#[inline(always)]
const fn hash([cgroup, left, right, rest]: &Words) -> u64 {
    // Odd, and with about as many ones as zeros.
    const FACTORS: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9];
    let mixed = left.wrapping_mul(FACTORS[0]) ^ *right ^ rest.wrapping_mul(FACTORS[1]) ^ *cgroup;
    mixed.wrapping_mul(FACTORS[2])
}

/// Where what was heard of the key with this hash is. Looked up and not an array in the scratch, because of a sum of an address and
/// a number the verifier follows too much. Who interrupts may change the number: then the key there is another.
#[inline(always)]
fn place(scratch: &mut Scratch, hash: u64) -> Option<&'static mut Heard> {
    scratch.number = (hash >> 56) as u32;
    // SAFETY: the map is static and the key in a map; the verifier makes sure that the result is tested.
    unsafe {
        bpf_map_lookup_elem((&raw const HEARD).cast_mut().cast(), (&raw const scratch.number).cast())
            .cast::<Heard>()
            .as_mut()
    }
}

/// What one map is looked up by.
trait Kind {
    /// As much of a packet as is read for it.
    fn headers(context: Context, family: Family) -> Option<Headers>;
    /// What of the key comes after the other end's address.
    fn rest(packet: &Headers, way: Way, family: Family) -> Option<u64>;
}

/// By a [`FlowSlot`].
struct Flow;

impl Kind for Flow {
    #[inline(always)]
    fn headers(context: Context, family: Family) -> Option<Headers> {
        match family {
            Family::V4 => linear(context).headers::<34>(),
            Family::V6 => linear(context).headers::<54>(),
        }
    }

    #[inline(always)]
    fn rest(packet: &Headers, way: Way, family: Family) -> Option<u64> {
        let (role, _) = said(packet, way, family)?;
        Self::rest_of(packet, way, family, role)
    }
}

impl Flow {
    #[inline(always)]
    fn rest_of(packet: &Headers, way: Way, family: Family, role: Role) -> Option<u64> {
        let (sender, receiver) = ports(packet, transport_at(family))?;
        let port = match (way, role) {
            (Way::Ingress, Role::Source) | (Way::Egress, Role::Destination) => sender,
            (Way::Ingress, Role::Destination) | (Way::Egress, Role::Source) => receiver,
        };
        let kind = u16::from_ne_bytes([Transport::Tcp as u8, role as u8]);
        Some(together(u16::from_be(port), kind))
    }
}

/// By an [`ExchangeSlot`].
struct Exchange;

impl Kind for Exchange {
    #[inline(always)]
    fn headers(context: Context, family: Family) -> Option<Headers> {
        match family {
            Family::V4 => linear(context).headers::<24>(),
            Family::V6 => linear(context).headers::<44>(),
        }
    }

    #[inline(always)]
    fn rest(packet: &Headers, way: Way, family: Family) -> Option<u64> {
        let (sender, receiver) = ports(packet, transport_at(family))?;
        let (local, other) = match way {
            Way::Ingress => (receiver, sender),
            Way::Egress => (sender, receiver),
        };
        Some(together(u16::from_be(local), u16::from_be(other)))
    }
}

/// What is looked for, as it stays in registers over the look-up: there are four, the context has one, and a function of the kernel
/// that is called with one more takes the last.
struct Sought {
    scratch: &'static mut Scratch,
    cgroup: u64,
}

/// Builds a slot in this processor's memory, if what passes between the ends of the packet is recorded.
#[inline(always)]
fn sought<K: Kind>(context: Context, way: Way, family: Family) -> Option<Sought> {
    // Before the calls, and what is read for it is read again: there are no registers for all of it beside the key.
    if !is_recorded(&Exchange::headers(context, family)?, family)? {
        return None;
    }
    let cgroup = cgroup_of(context);
    let scratch = scratch()?;
    let packet = K::headers(context, family)?;
    let [left, right, rest] = ends::<K>(&packet, way, family)?;
    scratch.slot = [left, right, rest | half(cgroup)];
    Some(Sought { scratch, cgroup })
}

/// Half of a cgroup's id, in the last half of a word.
#[inline(always)]
const fn half(cgroup: u64) -> u64 {
    if cfg!(target_endian = "little") {
        cgroup << 32
    } else {
        cgroup & 0xffff_ffff
    }
}

/// What of a key comes after the cgroup.
#[inline(always)]
fn ends<K: Kind>(packet: &Headers, way: Way, family: Family) -> Option<[u64; 3]> {
    let [left, right] = other_end(packet, way, family)?;
    Some([left, right, K::rest(packet, way, family)?])
}

#[inline(always)]
fn other_end(packet: &Headers, way: Way, family: Family) -> Option<[u64; 2]> {
    match (family, way) {
        (Family::V4, Way::Ingress) => Some(joined(packet.word(12)?)),
        (Family::V4, Way::Egress) => Some(joined(packet.word(16)?)),
        (Family::V6, Way::Ingress) => address(packet, 8),
        (Family::V6, Way::Egress) => address(packet, 24),
    }
}

/// What of a key comes after the cgroup, read again.
#[inline(always)]
fn again<K: Kind>(context: Context, way: Way, family: Family) -> Option<[u64; 3]> {
    ends::<K>(&K::headers(context, family)?, way, family)
}

/// Word by word: the compiler would call a function for whole arrays.
#[inline(always)]
const fn is_same(left: &Words, right: &Words) -> bool {
    left[0] == right[0] && left[1] == right[1] && left[2] == right[2] && left[3] == right[3]
}

impl Moment {
    /// Reads the clock if it was read before this tick. All of it goes through memory: there is no register for anything over these
    /// calls.
    #[inline(always)]
    fn bring_up(&mut self) {
        // SAFETY: takes nothing and always succeeds.
        let tick = unsafe { bpf_jiffies64() };
        if self.now() ^ self.check == tick {
            return;
        }
        // Who interrupts this anywhere leaves a pair of one time and its tick, or one that is of no tick and is read again.
        // SAFETY: as above.
        self.now = unsafe { bpf_ktime_get_ns() };
        // SAFETY: as above.
        self.check = unsafe { bpf_jiffies64() } ^ self.now();
    }

    /// In nanoseconds, as it is now: who interrupted may have read a later one.
    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: a part of a map value.
        unsafe { (&raw const self.now).read_volatile() }
    }
}

/// Whether what passes between the ends of a packet is recorded.
#[inline(always)]
fn is_recorded(packet: &Headers, family: Family) -> Option<bool> {
    Some(match family {
        Family::V4 => unrecorded_v4(packet.word(12)?, packet.word(16)?).is_none(),
        Family::V6 => {
            let (source, destination) = (address(packet, 8)?, address(packet, 24)?);
            unrecorded_v6(&halves(source), &halves(destination)).is_none()
        }
    })
}

/// What a packet counts, if the key that was found is its own. One part after the other is read again and compared: all of them at
/// once would be more than there are registers for.
#[inline(always)]
fn counted(found: &Words, context: Context, way: Way, family: Family, cgroup: u64) -> Option<Count> {
    if found[0] != cgroup {
        return None;
    }
    let packet = Flow::headers(context, family)?;
    let [left, right] = other_end(&packet, way, family)?;
    if found[1] != left || found[2] != right {
        return None;
    }
    let (role, count) = said(&packet, way, family)?;
    if found[3] != Flow::rest_of(&packet, way, family, role)? {
        return None;
    }
    Some(count)
}

/// Who this end is and what is counted.
#[inline(always)]
fn said(packet: &Headers, way: Way, family: Family) -> Option<(Role, Count)> {
    let at = transport_at(family);
    tcp_event(packet.byte(at + 13)?, packet.word(at + 4)? == 0)?.meaning(way)
}

/// Two halves of a word and a word of zeros, as they are one behind the other in memory.
#[inline(always)]
const fn together(first: u16, second: u16) -> u64 {
    if cfg!(target_endian = "little") {
        first as u64 | (second as u64) << 16
    } else {
        (first as u64) << 48 | (second as u64) << 32
    }
}

/// Both ports, of the sender first, in network byte order. Read as one, because the compiler would make one read at an offset
/// that is not a constant of two of which one counts, which the kernel refuses to a loader without `CAP_PERFMON`.
#[inline(always)]
fn ports(packet: &Headers, at: usize) -> Option<(u16, u16)> {
    let [a, b, c, d] = packet.word(at)?.to_ne_bytes();
    Some((u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])))
}

#[inline(always)]
const fn transport_at(family: Family) -> usize {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

#[inline(always)]
fn address(packet: &Headers, at: usize) -> Option<[u64; 2]> {
    Some([packet.double(at)?, packet.double(at + 8)?])
}

#[inline(always)]
const fn joined(v4: u32) -> [u64; 2] {
    let [.., prefix, address] = mapped(v4);
    let (prefix, address) = (prefix.to_ne_bytes(), address.to_ne_bytes());
    let bytes = [
        prefix[0], prefix[1], prefix[2], prefix[3], address[0], address[1], address[2], address[3],
    ];
    [0, u64::from_ne_bytes(bytes)]
}

#[inline(always)]
const fn halves(address: [u64; 2]) -> Address {
    let (left, right) = (address[0].to_ne_bytes(), address[1].to_ne_bytes());
    [
        u32::from_ne_bytes([left[0], left[1], left[2], left[3]]),
        u32::from_ne_bytes([left[4], left[5], left[6], left[7]]),
        u32::from_ne_bytes([right[0], right[1], right[2], right[3]]),
        u32::from_ne_bytes([right[4], right[5], right[6], right[7]]),
    ]
}
