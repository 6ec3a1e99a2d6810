//! What name servers answer, and what somebody says that they do: whole packets of any bytes, and messages of any bytes in packets
//! that are well-formed.
#![no_main]

// The learner is a program, not a library.
#[path = "../../../learner/src/names.rs"]
#[allow(dead_code)]
mod names;

use std::net::IpAddr;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use nanoseg_graph::flow::{Flow, FlowKey, Reporter, Subject, Tally, Transport};
use names::Names;

fn datagram(message: &[u8]) -> Vec<u8> {
    let mut packet = vec![
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 0, 53, 198, 18, 0, 2, 0, 53, 0xc0, 0, 0, 0, 0, 0,
    ];
    packet.extend(message);
    packet
}

fn stream(message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
    packet.extend([0xfd; 32]);
    packet.extend([0, 53, 0xc0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0, 0, 0, 0, 0, 0]);
    packet.extend(message);
    packet
}

/// A flow to an address, at the time of the answer.
fn flow(subject: &Subject, peer: IpAddr) -> Flow {
    Flow {
        key: FlowKey {
            subject: subject.clone(),
            peer,
            port: 443,
            transport: Transport::Tcp,
            reporter: Reporter::Source,
        },
        tally: Tally {
            first_seen: Timestamp::UNIX_EPOCH,
            last_seen: Timestamp::UNIX_EPOCH,
            attempted: 1,
            established: 1,
            refused: 0,
            unanswered: 0,
        },
    }
}

fuzz_target!(|bytes: &[u8]| {
    let subject = Subject::Host("/system.slice/a.service".to_owned());
    for packet in [bytes.to_vec(), datagram(bytes), stream(bytes)] {
        let mut unasked = Names::default();
        unasked.hear(&packet, &subject, Timestamp::UNIX_EPOCH, |_, _| false);
        let peers: [IpAddr; 2] = [[198, 18, 0, 9].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 9].into()];
        let flows = || peers.into_iter().map(|peer| flow(&subject, peer));
        assert!(!unasked.tell(flows(), 1) && unasked.told().is_empty(), "nobody asked");

        let mut names = Names::default();
        names.hear(&packet, &subject, Timestamp::UNIX_EPOCH, |_, _| true);
        names.tell(flows(), 1);
        for named in names.told() {
            assert!(peers.contains(&named.address), "what no flow uses is not told");
            assert!(!named.name.as_str().is_empty() && named.first_seen <= named.until);
        }
        // The same again says the same.
        let told = names.told();
        names.hear(&packet, &subject, Timestamp::UNIX_EPOCH, |_, _| true);
        assert!(!names.tell(flows(), 2));
        assert_eq!(names.told(), told);
    }
});
