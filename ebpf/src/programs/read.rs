//! Two ways to read a packet: fast, and whole.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_skb_load_bytes;
use aya_ebpf::programs::SkBuffContext;
use nanoseg_ebpf::packet::Bytes;

/// The part of the packet that the program can read directly: it begins at the IP header, and holds the headers unless a
/// sender or a driver put them into pages of their own.
pub(super) struct Linear {
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
pub(super) struct Scattered<'a>(pub(super) &'a SkBuffContext);

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

/// The linear part of the packet.
#[inline(always)]
pub(super) fn linear(context: &SkBuffContext) -> Linear {
    // SAFETY: the kernel passes a valid context.
    let (start, end) = unsafe { ((*context.skb.skb).data as usize, (*context.skb.skb).data_end as usize) };
    Linear { start, end }
}
