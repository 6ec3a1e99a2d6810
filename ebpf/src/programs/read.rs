//! Two ways to read a packet: fast, and whole.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_skb_load_bytes;
use aya_ebpf::programs::SkBuffContext;
use nanoseg_ebpf::packet::{Bytes, DOMAIN, is_plain_v4};

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

impl Linear {
    /// Whether the packet comes from the port of name servers, if its ports are where they nearly always are. Of any other it
    /// says nothing.
    #[inline(always)]
    pub(super) fn is_from_name_server(&self) -> bool {
        let port = if is_plain_v4(self) {
            self.short_at::<20>()
        } else {
            self.short_at::<40>()
        };
        port == Some(DOMAIN)
    }

    /// As [`Bytes::short`], at an offset that the compiler cannot make a variable of, which the kernel refuses to a loader
    /// without `CAP_PERFMON`.
    #[inline(always)]
    fn short_at<const AT: usize>(&self) -> Option<u16> {
        let mut start = self.start;
        // SAFETY: only adds.
        unsafe {
            core::arch::asm!(
                "{0} += {1}",
                inout(reg) start,
                const AT,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        Self { start, end: self.end }.short(0)
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
