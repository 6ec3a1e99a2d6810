//! Other ways to observe connections, for benches to compare with: an event for each packet, an event for each connection, and
//! a table of 5-tuples where packets pass an interface. IPv4 alone, and without what a product needs beside it: no losses by
//! cgroup, no datagrams, no headers behind options.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(unsafe_code, reason = "symbols that the loader looks for, and helpers of the kernel")
)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::EbpfContext as _;
    use aya_ebpf::bindings::BPF_NOEXIST;
    use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_skb_cgroup_id, bpf_skb_load_bytes};
    use aya_ebpf::macros::{cgroup_skb, classifier, map};
    use aya_ebpf::maps::{HashMap, PerCpuArray, RingBuf};
    use aya_ebpf::programs::{SkBuffContext, TcContext};

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 11] = *b"Apache-2.0\0";

    /// As large as that of the product.
    #[map]
    static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

    /// Events that did not fit, and tuples that did not.
    #[map]
    static MISSED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

    /// As large as that of the product.
    #[map]
    static TUPLES: HashMap<Tuple, u64> = HashMap::with_max_entries(131_072, 0);

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Tuple {
        source: [u8; 4],
        destination: [u8; 4],
        ports: [u8; 4],
        transport: u32,
    }

    #[repr(C)]
    struct Event {
        cgroup: u64,
        at_ns: u64,
        tuple: Tuple,
    }

    #[inline(always)]
    fn load<T: Copy + Default>(context: *mut core::ffi::c_void, at: u32) -> T {
        let mut value = T::default();
        // SAFETY: the helper writes as many bytes as `value` has, or nothing.
        unsafe { bpf_skb_load_bytes(context, at, (&raw mut value).cast(), size_of::<T>() as u32) };
        value
    }

    #[inline(always)]
    fn tuple(context: *mut core::ffi::c_void, at: u32) -> Tuple {
        Tuple {
            source: load(context, at + 12),
            destination: load(context, at + 16),
            ports: load(context, at + 20),
            transport: load::<u8>(context, at + 9).into(),
        }
    }

    #[inline(always)]
    fn missed() {
        if let Some(count) = MISSED.get_ptr_mut(0) {
            // SAFETY: this processor's own.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn tell(context: &SkBuffContext) {
        let Some(mut room) = EVENTS.reserve::<Event>(0) else {
            return missed();
        };
        // SAFETY: the kernel passes a valid context, and the clock takes nothing.
        let (cgroup, at_ns) = unsafe { (bpf_skb_cgroup_id(context.skb.skb), bpf_ktime_get_ns()) };
        room.write(Event {
            cgroup,
            at_ns,
            tuple: tuple(context.as_ptr(), 0),
        });
        room.submit(0);
    }

    #[cgroup_skb]
    fn packet_event(context: SkBuffContext) -> i32 {
        tell(&context);
        1
    }

    #[cgroup_skb]
    fn connection_event(context: SkBuffContext) -> i32 {
        const SYN: u8 = 2;
        if load::<u8>(context.as_ptr(), 9) == 6 && load::<u8>(context.as_ptr(), 33) & SYN != 0 {
            tell(&context);
        }
        1
    }

    #[classifier]
    fn tuple_hash(context: TcContext) -> i32 {
        let key = tuple(context.as_ptr(), 14);
        if let Some(count) = TUPLES.get_ptr_mut(&key) {
            // SAFETY: a value of the map.
            unsafe { *count += 1 };
        } else if TUPLES.insert(&key, &1, u64::from(BPF_NOEXIST)).is_err() {
            missed();
        }
        0
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
