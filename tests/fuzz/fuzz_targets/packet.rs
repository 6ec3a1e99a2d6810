//! Packets of any bytes, both ways, by the code that runs in the kernel.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanoseg_ebpf::packet::{
    Skipped, Way, classify, classify_plain_v4, classify_plain_v6, is_plain_tcp_data, is_plain_v4, is_plain_v6,
};

fuzz_target!(|packet: &[u8]| {
    let found = classify(packet);
    if is_plain_v4(packet) {
        assert_eq!(classify_plain_v4(packet), found, "the shortcut for IPv4");
    }
    if is_plain_v6(packet) {
        assert_eq!(classify_plain_v6(packet), found, "the shortcut for IPv6");
    }
    if is_plain_tcp_data(packet) {
        assert_eq!(found, Err(Skipped::Data), "the shortcut for TCP data");
    }
    let Ok(signal) = found else { return };
    let Ok(ends) = signal.ends(packet) else { return };
    for way in [Way::Ingress, Way::Egress] {
        let (own, peers) = ends.ports(way);
        let role = signal
            .event
            .meaning(way)
            .map_or_else(|| way.role_of_opener(), |(role, _)| role);
        assert!(
            [own, peers].contains(&ends.listener_port(way, role)),
            "a listener has one of the two ports"
        );
        assert!(
            [ends.source, ends.destination].contains(&ends.peer(way)),
            "a peer is one of the two ends"
        );
    }
});
