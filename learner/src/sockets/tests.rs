use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

const NODE: u64 = 1;

/// A cgroup is the pod of its tens and the container of its ones; the node's own is [`NODE`], and 0 is one that is gone.
fn subject(cgroup: u64) -> Subject {
    match cgroup {
        0 => Subject::Unknown(nanoseg_graph::endpoint::UnknownReason::CgroupGone),
        NODE => Subject::Host("/".to_owned()),
        2..10 => Subject::Host(format!("/{cgroup}")),
        _ => container(cgroup / 10, &cgroup.to_string()),
    }
}

fn container(pod: u64, id: &str) -> Subject {
    Subject::Container(ContainerRef {
        pod_uid: pod.to_string(),
        container_id: id.to_owned(),
    })
}

/// A line of a table, as the kernel writes it on this machine.
fn line(local: (IpAddr, u16), remote: (IpAddr, u16), state: &str) -> String {
    let hex = |(address, port): (IpAddr, u16)| {
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let words = bytes.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
        format!(
            "{}:{port:04X}",
            words.map(|word| format!("{word:08X}")).collect::<Vec<_>>().concat()
        )
    };
    format!(
        "   0: {} {} {state} 00000000:00000000 00:00000000 00000000     0        0 634 1 0000 100 0 0 10 0\n",
        hex(local),
        hex(remote)
    )
}

const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(198, 18, 0, last).into()
}

fn v6(last: u16) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into()
}

fn mapped_v4(last: u8) -> IpAddr {
    Ipv4Addr::new(198, 18, 0, last).to_ipv6_mapped().into()
}

fn namespace(cgroups: &[u64], lines: &[String]) -> Namespace {
    let mut sockets = Sockets::default();
    sockets.take(&format!("  sl  local_address rem_address   st ...\n{}", lines.concat()));
    Namespace {
        is_the_nodes: cgroups.contains(&NODE),
        cgroups: cgroups.iter().copied().collect(),
        sockets,
    }
}

fn judged(all: Vec<Namespace>) -> Older {
    judge(&Namespaces { all, hidden: 0 }, &subject(NODE), subject)
}

/// What one namespace's one line says beside what listens there: who this end is, the peer and the port.
fn alone(listening: &[(IpAddr, u16)], local: (IpAddr, u16), remote: (IpAddr, u16)) -> Option<(Reporter, IpAddr, u16)> {
    let mut lines: Vec<String> = listening.iter().map(|at| line(*at, (ANY_V4, 0), LISTEN)).collect();
    lines.push(line(local, remote, ESTABLISHED));
    let Older { open, undecided } = judged(vec![namespace(&[10], &lines)]);
    let counted: u64 = undecided.values().sum();
    assert_eq!(open.len() as u64 + counted, 1, "recorded or counted");
    open.first()
        .map(|open| (open.key.reporter, open.key.peer, open.key.port))
}

#[test]
fn p1_who_listens_is_the_destination_whatever_the_ports_are() {
    use Reporter::{Destination, Source};
    let (here, there) = ((v4(1), 50_051), (v4(9), 80));
    let rows: [(&str, &[(IpAddr, u16)], _, _, _); 13] = [
        (
            "nobody listens here",
            &[],
            (v4(1), 40_000),
            there,
            Some((Source, v4(9), 80)),
        ),
        (
            "at any address",
            &[(ANY_V4, 50_051)],
            here,
            there,
            Some((Destination, v4(9), 50_051)),
        ),
        (
            "at this address",
            &[(v4(1), 50_051)],
            here,
            there,
            Some((Destination, v4(9), 50_051)),
        ),
        (
            "at another address",
            &[(v4(2), 50_051)],
            here,
            there,
            Some((Source, v4(9), 80)),
        ),
        (
            "at another port",
            &[(ANY_V4, 50_052)],
            here,
            there,
            Some((Source, v4(9), 80)),
        ),
        (
            "at any address of both families",
            &[(ANY_V6, 50_051)],
            here,
            there,
            Some((Destination, v4(9), 50_051)),
        ),
        (
            "v4-mapped",
            &[(ANY_V6, 50_051)],
            (mapped_v4(1), 50_051),
            (mapped_v4(9), 40_000),
            Some((Destination, v4(9), 50_051)),
        ),
        (
            "v4-mapped, from here",
            &[],
            (mapped_v4(1), 40_000),
            (mapped_v4(9), 443),
            Some((Source, v4(9), 443)),
        ),
        (
            "IPv6",
            &[(ANY_V6, 50_051)],
            (v6(1), 50_051),
            (v6(9), 40_000),
            Some((Destination, v6(9), 50_051)),
        ),
        (
            "IPv6, at any of IPv4",
            &[(ANY_V4, 50_051)],
            (v6(1), 50_051),
            (v6(9), 53),
            Some((Source, v6(9), 53)),
        ),
        (
            "a listener that is closed, or a chosen port",
            &[],
            (v4(1), 8080),
            (v4(9), 40_000),
            None,
        ),
        ("below what the kernel chooses", &[], (v4(1), 32_767), there, None),
        (
            "who connects from where it listens",
            &[(ANY_V4, 4001)],
            (v4(1), 4001),
            (v4(9), 4001),
            None,
        ),
    ];
    for (message, listening, local, remote, expected) in rows {
        assert_eq!(alone(listening, local, remote), expected, "{message}");
    }
}

#[test]
fn the_other_end_on_this_node_has_a_say() {
    let (client, server) = ((v4(1), 8080), (v4(2), 9090));
    let one = |listens: bool, from, to| {
        let listening = listens.then(|| line((ANY_V4, 9090), (ANY_V4, 0), LISTEN));
        let mut lines: Vec<String> = listening.into_iter().collect();
        lines.push(line(from, to, ESTABLISHED));
        lines
    };
    let both = |server_listens| {
        judged(vec![
            namespace(&[10], &one(false, client, server)),
            namespace(&[20], &one(server_listens, server, client)),
        ])
    };
    let Older { open, undecided } = both(true);
    let roles: Vec<_> = open.iter().map(|open| (open.key.reporter, open.key.port)).collect();
    assert_eq!(roles, [(Reporter::Source, 9090), (Reporter::Destination, 9090)]);
    assert!(undecided.is_empty());
    // Its listener is closed: neither end is guessed at.
    let Older { open, undecided } = both(false);
    assert!(open.is_empty());
    assert_eq!(undecided, [(container(1, "10"), 1), (container(2, "20"), 1)].into());
}

#[test]
fn only_what_both_ends_can_use_is_open() {
    let listening = line((ANY_V4, 80), (ANY_V4, 0), LISTEN);
    for state in 1..=0x0c {
        let state = format!("{state:02X}");
        let of = |state: &str| {
            let lines = [listening.clone(), line((v4(1), 80), (v4(9), 40_000), state)];
            judged(vec![namespace(&[10], &lines)])
        };
        let is_open = ["01", "04", "05", "08", "09", "0B"].contains(&state.as_str());
        assert_eq!(of(&state).open.len(), usize::from(is_open), "{state}");
        assert!(of(&state).undecided.is_empty());
    }
}

#[test]
fn what_does_not_leave_its_namespace_is_no_traffic() {
    let lines = [
        line((ANY_V4, 80), (ANY_V4, 0), LISTEN),
        line((v4(1), 80), (v4(1), 40_000), ESTABLISHED),
        line((v4(1), 40_000), (v4(1), 80), ESTABLISHED),
        line((v4(1), 40_001), (v4(2), 80), ESTABLISHED),
        line((v4(2), 80), (v4(1), 40_001), ESTABLISHED),
        line(
            (Ipv4Addr::LOCALHOST.into(), 40_002),
            (Ipv4Addr::LOCALHOST.into(), 80),
            ESTABLISHED,
        ),
        line(
            (Ipv6Addr::LOCALHOST.into(), 80),
            (Ipv6Addr::LOCALHOST.into(), 40_003),
            ESTABLISHED,
        ),
        line(
            ("fe80::1".parse().unwrap(), 80),
            ("fe80::2".parse().unwrap(), 40_003),
            ESTABLISHED,
        ),
    ];
    assert_eq!(judged(vec![namespace(&[10], &lines)]), Older::default());
}

#[test]
fn a_namespace_is_its_pods() {
    let to = |last| line((v4(last), 40_000), (v4(9), 80), ESTABLISHED);
    let rows: [(&str, &[u64], Subject); 7] = [
        ("one container", &[10], container(1, "10")),
        ("several of one pod", &[10, 11], container(1, "")),
        ("somebody looks in", &[10, 5], container(1, "10")),
        ("one of a cgroup that is gone", &[0, 10, 11], container(1, "")),
        ("the node's, with a pod in it", &[NODE, 10], subject(NODE)),
        ("a unit with a network of its own", &[5], subject(5)),
        ("several pods", &[10, 20], subject(NODE)),
    ];
    for (message, cgroups, own) in rows {
        let Older { open, .. } = judged(vec![namespace(cgroups, &[to(1), to(1)])]);
        assert_eq!(open.len(), 1, "{message}");
        assert_eq!((&open[0].key.subject, open[0].count), (&own, 2), "{message}");
        assert_eq!(
            open[0].owners,
            cgroups.iter().map(|cgroup| subject(*cgroup)).collect(),
            "{message}"
        );
    }
}

proptest! {
    /// Connections between listeners and clients of some namespaces, in any order: every end says the same of who listens, and
    /// nothing is lost or invented.
    #[test]
    fn both_ends_agree(
        connections in prop::collection::btree_set((1..5_u8, 1..5_u8, 0..3_u16, CHOSEN_BY_THE_KERNEL), 0..40),
        closed in prop::collection::btree_set((1..5_u8, 0..3_u16), 0..3),
    ) {
        let mut lines: BTreeMap<u8, Vec<String>> = BTreeMap::new();
        let (mut expected, mut undecided) = (BTreeMap::<_, u64>::new(), BTreeMap::<Subject, u64>::new());
        let pod = |place: u8| subject(u64::from(place) * 10);
        for (client, server, service, port) in connections {
            let listener = 8000 + service;
            let is_closed = closed.contains(&(server, service));
            let own = lines.entry(server).or_default();
            if !is_closed {
                own.push(line((ANY_V4, listener), (ANY_V4, 0), LISTEN));
            }
            own.push(line((v4(server), listener), (v4(client), port), ESTABLISHED));
            lines.entry(client).or_default().push(line((v4(client), port), (v4(server), listener), ESTABLISHED));
            if client == server {
                continue;
            }
            if is_closed {
                *undecided.entry(pod(client)).or_default() += 1;
                *undecided.entry(pod(server)).or_default() += 1;
            } else {
                *expected.entry((pod(client), v4(server), listener, Reporter::Source)).or_default() += 1;
                *expected.entry((pod(server), v4(client), listener, Reporter::Destination)).or_default() += 1;
            }
        }
        let all = lines.iter().map(|(place, lines)| namespace(&[u64::from(*place) * 10], lines)).collect();
        let older = judged(all);
        let found: BTreeMap<_, u64> = older
            .open
            .into_iter()
            .map(|Open { key, count, .. }| ((key.subject, key.peer, key.port, key.reporter), count))
            .collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(older.undecided, undecided);
    }

    #[test]
    fn any_table_is_read_without_panic(table in "[ 0-9A-F:\n]{0,200}") {
        Sockets::default().take(&table);
    }
}
