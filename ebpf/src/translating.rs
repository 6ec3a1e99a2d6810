//! A load balancer at the socket, as some network plugins have one instead of rules of the node: who connects to a Service's
//! address is connected to a backend, and no packet ever bears that address. For tests to stand beside.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        unsafe_code,
        reason = "symbols that the loader looks for, and the kernel's own record of an address"
    )
)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::macros::{cgroup_sock_addr, map};
    use aya_ebpf::maps::HashMap;
    use aya_ebpf::programs::SockAddrContext;

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 11] = *b"Apache-2.0\0";

    /// An address as the product has it, and a port, all in network byte order.
    type End = [u32; 5];

    /// From a Service to a backend.
    #[map]
    static BACKENDS: HashMap<End, End> = HashMap::with_max_entries(16, 0);

    /// And the other way, for the sender of an answer.
    #[map]
    static SERVICES: HashMap<End, End> = HashMap::with_max_entries(16, 0);

    const MAPPED: u32 = 0xffff_u32.to_be();

    #[inline(always)]
    fn translate_v4(context: SockAddrContext, to: &HashMap<End, End>) -> i32 {
        // SAFETY: the kernel passes a valid context.
        let address = unsafe { &mut *context.sock_addr };
        // SAFETY: nobody takes anything out of the map while this runs.
        if let Some(end) = unsafe { to.get(&[0, 0, MAPPED, address.user_ip4, address.user_port]) } {
            address.user_ip4 = end[3];
            address.user_port = end[4];
        }
        1
    }

    #[inline(always)]
    fn translate_v6(context: SockAddrContext, to: &HashMap<End, End>) -> i32 {
        // SAFETY: as above.
        let address = unsafe { &mut *context.sock_addr };
        let [a, b, c, d] = address.user_ip6;
        // SAFETY: as above.
        if let Some(end) = unsafe { to.get(&[a, b, c, d, address.user_port]) } {
            address.user_ip6 = [end[0], end[1], end[2], end[3]];
            address.user_port = end[4];
        }
        1
    }

    #[cgroup_sock_addr(connect4)]
    fn connect_v4(context: SockAddrContext) -> i32 {
        translate_v4(context, &BACKENDS)
    }

    #[cgroup_sock_addr(connect6)]
    fn connect_v6(context: SockAddrContext) -> i32 {
        translate_v6(context, &BACKENDS)
    }

    #[cgroup_sock_addr(sendmsg4)]
    fn send_v4(context: SockAddrContext) -> i32 {
        translate_v4(context, &BACKENDS)
    }

    #[cgroup_sock_addr(sendmsg6)]
    fn send_v6(context: SockAddrContext) -> i32 {
        translate_v6(context, &BACKENDS)
    }

    #[cgroup_sock_addr(recvmsg4)]
    fn receive_v4(context: SockAddrContext) -> i32 {
        translate_v4(context, &SERVICES)
    }

    #[cgroup_sock_addr(recvmsg6)]
    fn receive_v6(context: SockAddrContext) -> i32 {
        translate_v6(context, &SERVICES)
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
