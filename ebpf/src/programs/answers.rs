//! What name servers answer, handed on as it is: only who reads it as a whole can tell what it says.

use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_skb_load_bytes};
use aya_ebpf::macros::map;
use aya_ebpf::maps::RingBuf;
use nanoseg_ebpf::{Answer, Reason};

use super::read::Context;
use super::record::{cgroup_of, tally};

#[map]
static ANSWERS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// No message that holds an address is in a packet as short as this, and no acknowledgement without data is longer: headers
/// of IPv4 and TCP with the longest options that come with it.
const SHORTEST: u32 = 20 + 32;

/// Hands a packet on, if there is room.
#[inline(never)]
pub(super) fn hand_on(context: Context) {
    // SAFETY: the kernel passes a valid context.
    let mut length = unsafe { (&raw const (*context.0).len).read_volatile() };
    if length <= SHORTEST {
        return;
    }
    let Some(mut room) = ANSWERS.reserve::<Answer>(0) else {
        return tally(Reason::Unheard);
    };
    if length > Answer::LONGEST as u32 {
        length = Answer::LONGEST as u32;
    }
    let answer = room.as_mut_ptr();
    // SAFETY: the room is as large as an answer, and the helper writes at most as many bytes as there are for the packet.
    let failed = unsafe {
        (&raw mut (*answer).cgroup).write_volatile(cgroup_of(context));
        (&raw mut (*answer).at_ns).write_volatile(bpf_ktime_get_ns());
        (&raw mut (*answer).length).write_volatile(length);
        (&raw mut (*answer).pad).write_volatile(0);
        bpf_skb_load_bytes(context.0.cast(), 0, (&raw mut (*answer).packet).cast(), length)
    };
    if failed == 0 {
        room.submit(0);
    } else {
        room.discard(0);
        tally(Reason::Unheard);
    }
}
