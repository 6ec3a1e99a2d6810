//! Services that are translated in the network of whoever asks, as a node's own processes meet them: where a socket connects,
//! so that packets bear the backend's address from the start, or by rules behind it.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use aya::maps::HashMap;
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use nanoseg_graph::flow::{Reporter, Transport};

use crate::node::learner::Reported as _;
use crate::node::{Container, Node, Step, is_possible};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nanoseg-translating"));

const SERVICE_PORT: u16 = 80;
const BACKEND_PORT: u16 = 8080;

/// Where a Service is asked, in both families.
fn services() -> [SocketAddr; 2] {
    [
        (Ipv4Addr::new(198, 19, 0, 80), SERVICE_PORT).into(),
        (Ipv6Addr::new(0xfd00, 0x19, 0, 0, 0, 0, 0, 0x80), SERVICE_PORT).into(),
    ]
}

/// An end as the programs look it up.
fn end(of: SocketAddr) -> [u32; 5] {
    let address = match of.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let bytes = address.octets();
    let word = |at| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [word(0), word(4), word(8), word(12), of.port().to_be().into()]
}

/// Translates for every process of the node until it is dropped.
fn balance(node: &Node, services: [SocketAddr; 2], backends: [SocketAddr; 2]) -> Ebpf {
    let mut programs = EbpfLoader::new().load(OBJECT).unwrap();
    let mut fill = |name, from: [SocketAddr; 2], to: [SocketAddr; 2]| {
        let mut map: HashMap<_, [u32; 5], [u32; 5]> = programs.map_mut(name).unwrap().try_into().unwrap();
        for (from, to) in from.into_iter().zip(to) {
            map.insert(end(from), end(to), 0).unwrap();
        }
    };
    fill("BACKENDS", services, backends);
    fill("SERVICES", backends, services);
    let cgroup = File::open(&node.cgroup).unwrap();
    for (_, program) in programs.programs_mut() {
        let program: &mut CgroupSockAddr = program.try_into().unwrap();
        program.load().unwrap();
        program.attach(&cgroup, CgroupAttachMode::Single).unwrap();
    }
    programs
}

#[test]
fn what_a_socket_translates_is_one_edge_to_the_backend() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server) = (node.container(), node.container());
    let _balancer = balance(&node, services(), server.at(BACKEND_PORT));
    let learner = node.learner(&[]);
    let both = [
        server.at(BACKEND_PORT).map(Step::Accept),
        server.at(BACKEND_PORT).map(Step::Echo),
    ];
    let _serving = server.run(&both.concat());
    let connect = services().map(|to| Step::Connect { to, accepted: true });
    let ask = client.at(40_000).into_iter().zip(services());
    let ask: Vec<Step> = ask.map(|(from, to)| Step::Ask { from, to, times: 2 }).collect();
    client.run(&[&connect[..], &ask].concat()).end();

    let report = learner.end();
    for transport in [Transport::Tcp, Transport::Udp] {
        for (servers, clients) in [
            (IpAddr::from(server.v4), IpAddr::from(client.v4)),
            (server.v6.into(), client.v6.into()),
        ] {
            let source = report.counts(&client.subject(), Reporter::Source, servers, BACKEND_PORT, transport);
            assert_eq!(source, Some([1, 1, 0]), "{transport:?} to {servers}: {report:#?}");
            let subject = server.subject();
            let destination = report.counts(&subject, Reporter::Destination, clients, BACKEND_PORT, transport);
            assert_eq!(destination, Some([1, 1, 0]), "{transport:?} from {clients}");
        }
    }
    assert_eq!(report.flows.len(), 8, "and nothing to the Service: {report:#?}");
}

/// Runs a command in a network.
fn within(network: &Path, command: &[&str], input: &str) {
    let mut child = Command::new("nsenter")
        .arg(format!("--net={}", network.display()))
        .args(command)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{command:?}: {input}");
}

/// Rules see what is sent only if there is a way to send it.
fn route_to_services(container: &Container) {
    for to in services() {
        let family = if to.is_ipv4() { "-4" } else { "-6" };
        let to = to.ip().to_string();
        within(
            &container.network(),
            &["ip", family, "route", "add", &to, "dev", "eth0"],
            "",
        );
    }
}

#[test]
fn what_rules_of_its_own_network_translate_is_as_a_socket_has_it() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, server, other) = (node.container(), node.container(), node.container());
    let [to_v4, to_v6] = services();
    route_to_services(&client);
    // What is sent is translated before it is seen, and what comes back before it is received.
    let rules = |family, from: IpAddr, to: String| {
        format!(
            "table {family} lab {{\n chain output {{\n  type nat hook output priority -100\n\
             \x20 {family} daddr {from} meta l4proto {{ tcp, udp }} th dport {SERVICE_PORT} dnat to {to}:{BACKEND_PORT}\n }}\n}}\n"
        )
    };
    let (v4, v6) = (server.v4.to_string(), format!("[{}]", server.v6));
    within(
        &client.network(),
        &["nft", "-f", "-"],
        &(rules("ip", to_v4.ip(), v4) + &rules("ip6", to_v6.ip(), v6)),
    );
    // And the other end's the other way: what it receives was translated, and what it sends is translated back.
    let rules = format!(
        "table inet lab {{\n chain prerouting {{\n  type nat hook prerouting priority -100\n\
         \x20 meta l4proto {{ tcp, udp }} th dport {SERVICE_PORT} redirect to :{BACKEND_PORT}\n }}\n}}\n"
    );
    within(&server.network(), &["nft", "-f", "-"], &rules);

    let learner = node.learner(&[]);
    let both = [
        server.at(BACKEND_PORT).map(Step::Accept),
        server.at(BACKEND_PORT).map(Step::Echo),
    ];
    let _serving = server.run(&both.concat());
    for (asking, asked) in [(&client, services()), (&other, server.at(SERVICE_PORT))] {
        let connect = asked.map(|to| Step::Connect { to, accepted: true });
        let connected = asked.map(|to| Step::AskConnected { to, times: 2 });
        let unconnected = asking.at(40_000).into_iter().zip(asked);
        let unconnected: Vec<Step> = unconnected.map(|(from, to)| Step::Ask { from, to, times: 2 }).collect();
        asking.run(&[&connect[..], &connected, &unconnected].concat()).end();
    }

    let report = learner.end();
    let counts = |of: &Container, reporter, peer: IpAddr, port, transport| {
        report.counts(&of.subject(), reporter, peer, port, transport)
    };
    for ((service, backend), at_server) in services()
        .into_iter()
        .zip(server.at(BACKEND_PORT))
        .zip(server.at(SERVICE_PORT))
    {
        let (reporter, port) = (Reporter::Source, SERVICE_PORT);
        let tcp = counts(&client, reporter, service.ip(), port, Transport::Tcp);
        assert_eq!(tcp, Some([1, 1, 0]), "{report:#?}");
        let connected = counts(&client, reporter, service.ip(), port, Transport::Udp);
        assert_eq!(connected, Some([1, 1, 0]), "{report:#?}");
        // Nothing tells whom a socket asked that is connected to nobody but the packet.
        let unconnected = counts(&client, reporter, backend.ip(), BACKEND_PORT, Transport::Udp);
        assert_eq!(unconnected, Some([1, 1, 0]), "{report:#?}");
        let tcp = counts(&other, reporter, at_server.ip(), port, Transport::Tcp);
        assert_eq!(tcp, Some([1, 1, 0]), "{report:#?}");
        let udp = counts(&other, reporter, at_server.ip(), port, Transport::Udp);
        assert_eq!(udp, Some([2, 2, 0]), "{report:#?}");
    }
    for peer in [
        IpAddr::from(client.v4),
        client.v6.into(),
        other.v4.into(),
        other.v6.into(),
    ] {
        for (transport, times) in [(Transport::Tcp, 1), (Transport::Udp, 2)] {
            let seen = counts(&server, Reporter::Destination, peer, BACKEND_PORT, transport);
            assert_eq!(seen, Some([times, times, 0]), "{peer}: {report:#?}");
        }
    }
    assert_eq!(report.flows.len(), 6 + 4 + 8, "{report:#?}");
    assert!(report.losses.is_empty(), "{:?}", report.losses);
}

#[test]
fn what_rules_lead_back_never_leaves() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let container = node.container();
    let beside = container.at_cgroup(&node, "system.slice/beside.service");
    let [to_v4, to_v6] = services();
    route_to_services(&container);
    // One port leads to a proxy on a loopback address, the other to the own address, as a node's does where it is itself behind
    // a Service.
    let rules = |family, from: IpAddr, own: String| {
        let both = format!("  {family} daddr {from} meta l4proto {{ tcp, udp }} th dport");
        format!(
            "table {family} lab {{\n chain output {{\n  type nat hook output priority -100\n\
             {both} {SERVICE_PORT} redirect to :{BACKEND_PORT}\n{both} 81 dnat to {own}:{BACKEND_PORT}\n }}\n}}\n"
        )
    };
    let (v4, v6) = (container.v4.to_string(), format!("[{}]", container.v6));
    within(
        &container.network(),
        &["nft", "-f", "-"],
        &(rules("ip", to_v4.ip(), v4) + &rules("ip6", to_v6.ip(), v6)),
    );
    let learner = node.learner(&[]);
    let proxy =
        [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].map(|own| SocketAddr::new(own, BACKEND_PORT));
    let places = proxy.into_iter().chain(container.at(BACKEND_PORT));
    let serving: Vec<Step> = places.flat_map(|at| [Step::Accept(at), Step::Echo(at)]).collect();
    let _serving = beside.run(&serving);
    for port in [SERVICE_PORT, 81] {
        let asked = services().map(|to| SocketAddr::new(to.ip(), port));
        let connect = asked.map(|to| Step::Connect { to, accepted: true });
        let connected = asked.map(|to| Step::AskConnected { to, times: 2 });
        container.run(&[connect, connected].concat()).end();
    }
    let report = learner.end();
    assert!(report.flows.is_empty(), "{report:#?}");
    assert!(report.losses.is_empty(), "{:?}", report.losses);
}

#[test]
fn what_a_service_leads_back_to_its_sender_is_one_connection_to_the_service() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (own, other) = (node.container(), node.container());
    let network = node.network();
    // As a node does it for Services: the backend's address for the Service's, and for what would go back to its sender the
    // node's own address and any port.
    let [of_v4, of_v6] = [
        IpAddr::from([198, 18, 200, 254]),
        IpAddr::from([0xfd00, 0x200, 0, 0, 0, 0, 0, 0xfe]),
    ];
    for (family, of, bits) in [("-4", of_v4, 24), ("-6", of_v6, 64)] {
        let address = format!("{of}/{bits}");
        within(
            &network,
            &["ip", family, "address", "add", &address, "dev", "bridge", "nodad"],
            "",
        );
    }
    within(&network, &["sysctl", "-qw", "net.ipv4.ip_forward=1"], "");
    // Where rules see what passes the bridge, it has to send back what is for whom it came from.
    let port = format!("port{}", own.v4.octets()[3]);
    within(
        &network,
        &["ip", "link", "set", &port, "type", "bridge_slave", "hairpin", "on"],
        "",
    );
    within(&network, &["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"], "");
    let rules = |family, from: IpAddr, own: IpAddr, to: SocketAddr| {
        format!(
            "table {family} lab {{\n chain prerouting {{\n  type nat hook prerouting priority -100\n\
             \x20 {family} daddr {from} tcp dport {SERVICE_PORT} dnat to {to}\n }}\n\
             \x20chain postrouting {{\n  type nat hook postrouting priority 100\n\
             \x20 {family} saddr {own} {family} daddr {own} masquerade fully-random\n }}\n}}\n"
        )
    };
    let [to_v4, to_v6] = services();
    let [at_v4, at_v6] = own.at(BACKEND_PORT);
    let both = rules("ip", to_v4.ip(), own.v4.into(), at_v4) + &rules("ip6", to_v6.ip(), own.v6.into(), at_v6);
    within(&network, &["nft", "-f", "-"], &both);
    for (of, to) in [&own, &other].into_iter().flat_map(|of| services().map(|to| (of, to))) {
        let (family, via) = if to.is_ipv4() { ("-4", of_v4) } else { ("-6", of_v6) };
        let (to, via) = (to.ip().to_string(), via.to_string());
        within(&of.network(), &["ip", family, "route", "add", &to, "via", &via], "");
    }

    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", network.display()));
    command.args(["setpriv", "--bounding-set", "-all,+bpf,+net_admin", "--"]);
    command.arg(env!("CARGO_BIN_EXE_nanoseg-learner"));
    let learner = node.learner_as(command);
    let _serving = own.run(&own.at(BACKEND_PORT).map(Step::Accept));
    let connect = services().map(|to| Step::Connect { to, accepted: true });
    // The first is new in the kernel's map, and the second is there.
    own.run(&[connect.clone(), connect.clone()].concat()).end();
    other.run(&connect).end();
    let report = learner.end();
    for ((service, at), client) in services().into_iter().zip(own.at(BACKEND_PORT)).zip(other.at(0)) {
        let asked = |of: &Container| {
            report.counts(
                &of.subject(),
                Reporter::Source,
                service.ip(),
                SERVICE_PORT,
                Transport::Tcp,
            )
        };
        assert_eq!(asked(&own), Some([2, 2, 0]), "{report:#?}");
        assert_eq!(asked(&other), Some([1, 1, 0]), "{report:#?}");
        let seen = report.counts(
            &own.subject(),
            Reporter::Destination,
            client.ip(),
            at.port(),
            Transport::Tcp,
        );
        assert_eq!(seen, Some([1, 1, 0]), "{report:#?}");
    }
    assert_eq!(report.flows.len(), 6, "and nothing of the node's: {report:#?}");
    assert!(report.losses.is_empty(), "{:?}", report.losses);
}
