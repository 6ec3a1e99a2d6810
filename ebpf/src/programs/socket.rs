//! What the packet's own socket says.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::{bpf_sk_fullsock, bpf_sk_lookup_udp, bpf_sk_release};
use nanoseg_ebpf::Address;
use nanoseg_ebpf::packet::{Ends, Way, is_mapped, mapped};

use super::read::Context;

const SOCK_DGRAM: u32 = 2;
const SOCK_RAW: u32 = 3;

#[inline(always)]
fn socket(context: Context) -> Option<*const bpf_sock> {
    // SAFETY: the kernel passes a valid context, and the verifier makes sure that both sockets are tested.
    unsafe {
        let socket = (*context.0).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        let whole = bpf_sk_fullsock(socket);
        if whole.is_null() { None } else { Some(whole) }
    }
}

/// Whether the packet goes to a raw socket: such a socket gets every packet of its protocol, and none of them is for it.
#[inline(always)]
pub(super) fn is_copy(context: Context) -> bool {
    // SAFETY: the verifier makes sure that it is a socket.
    socket(context).is_some_and(|socket| unsafe { (*socket).type_ == SOCK_RAW })
}

/// Whether the socket alone says that this end began the exchange of datagrams: it is connected to the peer, and no other
/// socket of its port is open to everybody. Some servers open a connected socket for each client, but then such a socket
/// of the same port is where a client's first datagram came.
#[inline(always)]
pub(super) fn is_initiator(context: Context, way: Way, ends: &Ends) -> bool {
    let Some(socket) = socket(context) else { return false };
    // SAFETY: the verifier makes sure that it is a socket.
    let kind = unsafe { (&raw const (*socket).type_).read_volatile() };
    let peer = ends.peer(way);
    let (_, peer_port) = ends.ports(way);
    let is_v4 = is_mapped(&peer);
    let is_peer = connected(socket, is_v4).is_some_and(|(address, port)| {
        port == peer_port
            && address[0] == peer[0]
            && address[1] == peer[1]
            && address[2] == peer[2]
            && address[3] == peer[3]
    });
    if kind != SOCK_DGRAM {
        return false;
    }
    is_peer && !has_listener(context, way, ends, is_v4)
}

/// The ends of a packet that is sent, as its socket has them.
#[inline(always)]
pub(super) fn of_socket(context: Context, ends: Ends) -> Ends {
    let Some(socket) = socket(context) else { return ends };
    let Some(own_port) = port(socket) else { return ends };
    ends.sent_by(own_port, connected(socket, is_mapped(&ends.destination)))
}

/// The port of the packet's socket. A raw socket has none, and neither has what the kernel runs programs on request with.
#[inline(always)]
pub(super) fn own_port(context: Context) -> Option<u16> {
    port(socket(context)?)
}

#[inline(always)]
fn port(socket: *const bpf_sock) -> Option<u16> {
    // SAFETY: the verifier makes sure that it is a socket.
    let port = unsafe { (&raw const (*socket).src_port).read_volatile() };
    if port == 0 { None } else { Some(port as u16) }
}

/// Whether the packet's socket takes datagrams of one other end alone.
#[inline(always)]
pub(super) fn is_connected(context: Context) -> bool {
    // SAFETY: the verifier makes sure that it is a socket.
    socket(context).is_some_and(|socket| unsafe { (&raw const (*socket).dst_port).read_volatile() } != 0)
}

/// Whom a socket is connected to.
#[inline(always)]
fn connected(socket: *const bpf_sock, is_v4: bool) -> Option<(Address, u16)> {
    // Volatile, because the kernel allows only reads of whole fields at constant offsets, and the compiler would join or
    // move them; and all of them, because it would choose between offsets where they differ by family.
    // SAFETY: the verifier makes sure that it is a socket.
    let (port, v4, v6) = unsafe {
        let read = |field: *const u32| field.read_volatile();
        (
            (&raw const (*socket).dst_port).read_volatile(),
            read(&raw const (*socket).dst_ip4),
            [
                read(&raw const (*socket).dst_ip6[0]),
                read(&raw const (*socket).dst_ip6[1]),
                read(&raw const (*socket).dst_ip6[2]),
                read(&raw const (*socket).dst_ip6[3]),
            ],
        )
    };
    if port == 0 {
        return None;
    }
    // A socket of IPv6 that is connected over IPv4 has the IPv4 address in its own field too.
    Some((if is_v4 { mapped(v4) } else { v6 }, u16::from_be(port)))
}

/// Whether a socket takes datagrams of anybody at this end's address and port. Nobody has the port 0, so no connected
/// socket is found.
#[inline(always)]
fn has_listener(context: Context, way: Way, ends: &Ends, is_v4: bool) -> bool {
    let local = match way {
        Way::Ingress => &ends.destination,
        Way::Egress => &ends.source,
    };
    let (local_port, _) = ends.ports(way);
    let here = BPF_F_CURRENT_NETNS as i64 as u64;
    let mut tuple = MaybeUninit::<bpf_sock_tuple>::uninit();
    let tuple = tuple.as_mut_ptr();
    // Volatile, because the compiler would make a loop that clears bytes of them, which the kernel refuses to a loader
    // without CAP_PERFMON.
    // SAFETY: the helper reads as many bytes as it is told, which are all written; what it finds is given back.
    unsafe {
        let write = |field: *mut u32, value| field.write_volatile(value);
        let found = if is_v4 {
            let ends = &raw mut (*tuple).__bindgen_anon_1.ipv4;
            write(&raw mut (*ends).saddr, 0);
            write(&raw mut (*ends).daddr, local[3]);
            (&raw mut (*ends).sport).write_volatile(0);
            (&raw mut (*ends).dport).write_volatile(local_port.to_be());
            bpf_sk_lookup_udp(context.0.cast(), tuple, 12, here, 0)
        } else {
            let ends = &raw mut (*tuple).__bindgen_anon_1.ipv6;
            write(&raw mut (*ends).saddr[0], 0);
            write(&raw mut (*ends).saddr[1], 0);
            write(&raw mut (*ends).saddr[2], 0);
            write(&raw mut (*ends).saddr[3], 0);
            write(&raw mut (*ends).daddr[0], local[0]);
            write(&raw mut (*ends).daddr[1], local[1]);
            write(&raw mut (*ends).daddr[2], local[2]);
            write(&raw mut (*ends).daddr[3], local[3]);
            (&raw mut (*ends).sport).write_volatile(0);
            (&raw mut (*ends).dport).write_volatile(local_port.to_be());
            bpf_sk_lookup_udp(context.0.cast(), tuple, 36, here, 0)
        };
        if found.is_null() {
            return false;
        }
        bpf_sk_release(found.cast());
    }
    true
}
