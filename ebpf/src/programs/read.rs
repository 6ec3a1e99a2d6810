//! Two ways to read a packet: fast, and whole.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_skb_load_bytes;
use nanoseg_ebpf::packet::{Bytes, DOMAIN, is_plain_v4};

/// What a program is given. By value, because a pointer to it would be one to the stack, and what is written there costs: see
/// [`super::hit`].
#[derive(Clone, Copy)]
pub(super) struct Context(pub(super) *mut __sk_buff);

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

/// The first bytes of a packet, which are there: one test for all of them, where one for each read would be too many values at
/// once for the registers.
pub(super) struct Headers {
    start: usize,
    length: usize,
}

impl Linear {
    /// The first bytes, if they are there.
    #[inline(always)]
    pub(super) fn headers<const LENGTH: usize>(&self) -> Option<Headers> {
        let mut past = self.start;
        // SAFETY: only adds.
        unsafe {
            core::arch::asm!(
                "{0} += {1}",
                inout(reg) past,
                const LENGTH,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        (past <= self.end).then_some(Headers {
            start: self.start,
            length: LENGTH,
        })
    }
}

impl Headers {
    #[inline(always)]
    fn read<T: Copy>(&self, at: usize) -> Option<T> {
        if at + size_of::<T>() > self.length {
            return None;
        }
        // SAFETY: within what is there. As in [`Linear::read`], where the verifier says what may be read at once.
        Some(unsafe { *((self.start + at) as *const T) })
    }

    /// Eight bytes, as they are in memory.
    #[inline(always)]
    pub(super) fn double(&self, at: usize) -> Option<u64> {
        self.read(at)
    }
}

impl Bytes for Headers {
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
pub(super) struct Scattered(pub(super) Context);

impl Scattered {
    #[inline(always)]
    fn read<T: Copy + Default>(&self, at: usize) -> Option<T> {
        let mut value = T::default();
        // SAFETY: the helper writes as many bytes as `value` has.
        let failed = unsafe {
            bpf_skb_load_bytes(
                self.0.0.cast(),
                at as u32,
                (&raw mut value).cast(),
                size_of::<T>() as u32,
            )
        };
        (failed == 0).then_some(value)
    }
}

impl Bytes for Scattered {
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
pub(super) fn linear(context: Context) -> Linear {
    // SAFETY: the kernel passes a valid context.
    let (start, end) = unsafe { ((*context.0).data as usize, (*context.0).data_end as usize) };
    Linear { start, end }
}
