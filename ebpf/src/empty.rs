//! A program that does nothing: what the kernel itself costs, for benches to subtract.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(unsafe_code, reason = "symbols that the loader looks for")
)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::macros::cgroup_skb;
    use aya_ebpf::programs::SkBuffContext;

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 11] = *b"Apache-2.0\0";

    #[cgroup_skb]
    fn empty(_: SkBuffContext) -> i32 {
        1
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
