//! The records of the maps, as aya wants to see them. Tests that look into the maps have this file as well.

#![expect(
    unsafe_code,
    reason = "the one place that says that the shared records are plain data"
)]

use aya::Pod;
use nanoseg_ebpf::exchange::{ExchangeEntry, ExchangeSlot};
use nanoseg_ebpf::kept::{Archived, Owner};
use nanoseg_ebpf::{Answer, FlowEntry, FlowKey, FlowSlot, LossKey};

/// A record of the maps.
#[repr(transparent)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Plain<T>(pub(crate) T);

/// What is as many bytes as it has, whatever they are.
///
/// # Safety
///
/// `repr(C)` integers without implicit padding.
pub(crate) unsafe trait Record: Copy + 'static {}

// SAFETY: `repr(transparent)`, and a record is plain data.
unsafe impl<T: Record> Pod for Plain<T> {}

// SAFETY: every bit pattern is a value, and there is no implicit padding; asserted in the crate.
unsafe impl Record for FlowKey {}
// SAFETY: as above.
unsafe impl Record for FlowSlot {}
// SAFETY: as above.
unsafe impl Record for FlowEntry {}
// SAFETY: as above.
unsafe impl Record for ExchangeSlot {}
// SAFETY: as above.
unsafe impl Record for ExchangeEntry {}
// SAFETY: as above.
unsafe impl Record for LossKey {}
// SAFETY: as above.
unsafe impl Record for Archived {}
// SAFETY: as above.
unsafe impl Record for Owner {}
// SAFETY: as above.
unsafe impl Record for Answer {}

/// A record from a ring buffer.
pub(crate) fn read<T: Record>(bytes: &[u8]) -> Option<T> {
    // SAFETY: as many bytes as the record has, of any alignment, and every bit pattern is one.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
