//! Two programs, for the packets that the sockets of a cgroup receive and send. They always let the packet pass.
//!
//! Guarantees:
//! * A TCP data packet leaves at the flags test, before any map, unless it comes from a name server.
//! * What is not recorded is counted, in all and for its cgroup.
//! * An announcement that does not fit loses nothing: the key is in the map.

mod answers;
mod hit;
mod kept;
mod read;
mod record;
mod socket;

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use nanoseg_ebpf::packet::{
    Bytes as _, Ends, Family, Signal, Skipped, Way, classify, classify_plain_v4, classify_plain_v6, is_plain_tcp_data,
    is_plain_v4, is_plain_v6,
};
use nanoseg_ebpf::{Reason, Transport};

use self::answers::hand_on;
use self::hit::{hit_exchange, hit_flow};
use self::read::{Context, Linear, Scattered, linear};
use self::record::{record, skip};
use self::socket::{of_socket, own_port};

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

const PASS: i32 = 1;

#[cgroup_skb(ingress)]
fn nanoseg_ingress(context: SkBuffContext) -> i32 {
    observe(Context(context.skb.skb), Way::Ingress);
    PASS
}

#[cgroup_skb(egress)]
fn nanoseg_egress(context: SkBuffContext) -> i32 {
    observe(Context(context.skb.skb), Way::Egress);
    PASS
}

#[inline(always)]
fn observe(context: Context, way: Way) {
    let packet = linear(context);
    if is_plain_tcp_data(&packet) {
        if matches!(way, Way::Ingress) && packet.is_from_name_server() {
            hand_on(context);
        }
        return;
    }
    match (packet.byte(0).map(|first| first >> 4), way) {
        (Some(4), Way::Ingress) => received_v4(context),
        (Some(4), Way::Egress) => sent_v4(context),
        (Some(6), Way::Ingress) => received_v6(context),
        (Some(6), Way::Egress) => sent_v6(context),
        (Some(_) | None, Way::Ingress) => received_scattered(context),
        (Some(_) | None, Way::Egress) => sent_scattered(context),
    }
}

/// Functions of their own for each family and way, because the compiler would otherwise merge their reads into reads at an
/// offset that is not a constant. The first deals with data packets and with what is in the maps already, the second with
/// everything else about such packets, the third with packets whose headers have to be looked for.
macro_rules! family_and_way {
    ($quick:ident, $thorough:ident, $scattered:ident, $way:expr, $family:expr, $is_plain:ident, $classify_plain:ident) => {
        #[inline(never)]
        fn $quick(context: Context) {
            let packet = linear(context);
            if !$is_plain(&packet) {
                return $scattered(context);
            }
            let is_done = match $classify_plain(&packet).map(|signal| signal.transport) {
                Ok(Transport::Tcp) => hit_flow(context, $way, $family),
                Ok(Transport::Udp) => {
                    if matches!($way, Way::Ingress) && packet.is_from_name_server() {
                        hand_on(context);
                    }
                    hit_exchange(context, $way, $family)
                }
                Err(Skipped::Data) => true,
                // Few, and not worth a way of their own.
                Ok(Transport::Sctp | Transport::Icmp) | Err(Skipped::Counted(_)) => false,
            };
            // One after the other and not one in the other, because the kernel allows 512 bytes of stack for all.
            if !is_done && !$thorough(context) {
                $scattered(context);
            }
        }

        #[inline(never)]
        fn $thorough(context: Context) -> bool {
            let packet = linear(context);
            conclude(context, $way, &packet, $classify_plain(&packet))
        }
    };
}

family_and_way!(
    received_v4,
    received_v4_thoroughly,
    received_scattered,
    Way::Ingress,
    Family::V4,
    is_plain_v4,
    classify_plain_v4
);
family_and_way!(
    sent_v4,
    sent_v4_thoroughly,
    sent_scattered,
    Way::Egress,
    Family::V4,
    is_plain_v4,
    classify_plain_v4
);
family_and_way!(
    received_v6,
    received_v6_thoroughly,
    received_scattered,
    Way::Ingress,
    Family::V6,
    is_plain_v6,
    classify_plain_v6
);
family_and_way!(
    sent_v6,
    sent_v6_thoroughly,
    sent_scattered,
    Way::Egress,
    Family::V6,
    is_plain_v6,
    classify_plain_v6
);

/// Records or counts. `false` when bytes are missing, perhaps only in the linear part.
#[inline(always)]
fn conclude(context: Context, way: Way, packet: &Linear, signal: Result<Signal, Skipped>) -> bool {
    let reason = match signal {
        Ok(signal) => match signal.ends(packet) {
            Ok(ends) => {
                between(context, way, signal, signal.opener(packet), ends);
                return true;
            }
            Err(Skipped::Data) => return true,
            Err(Skipped::Counted(reason)) => reason,
        },
        Err(Skipped::Data) => return true,
        Err(Skipped::Counted(reason)) => reason,
    };
    if reason == Reason::Truncated {
        return false;
    }
    skip(context, reason);
    true
}

#[inline(never)]
fn received_scattered(context: Context) {
    observe_scattered(context, Way::Ingress);
}

#[inline(never)]
fn sent_scattered(context: Context) {
    observe_scattered(context, Way::Egress);
}

#[inline(always)]
fn observe_scattered(context: Context, way: Way) {
    let packet = Scattered(context);
    match classify(&packet).and_then(|signal| Ok((signal, signal.ends(&packet)?))) {
        Ok((signal, ends)) => between(context, way, signal, signal.opener(&packet), ends),
        Err(Skipped::Data) => {}
        Err(Skipped::Counted(reason)) => skip(context, reason),
    }
}

/// The number of the loopback device, in every network (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// Records or counts what passes between two ends.
#[inline(always)]
fn between(context: Context, way: Way, signal: Signal, opener: Option<u32>, ends: Ends) {
    // Rules of a network can lead back into it what is sent to somebody else: to a proxy beside the sender, or to a node itself.
    // SAFETY: the kernel passes a valid context.
    if unsafe { (*context.0).ifindex } == LOOPBACK && own_port(context).is_some() {
        return skip(context, Reason::Loopback);
    }
    let ends = match (way, signal.transport) {
        (Way::Egress, Transport::Tcp | Transport::Udp) => of_socket(context, ends),
        (Way::Egress, Transport::Sctp | Transport::Icmp) | (Way::Ingress, _) => ends,
    };
    match ends.unrecorded() {
        Some(reason) => skip(context, reason),
        None => record(context, way, signal, opener, &ends),
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
