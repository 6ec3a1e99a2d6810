//! Network namespaces and the veth pairs between them.
//!
//! Each pod and each host outside has one network namespace and one veth pair, whose other end is in the node's namespace with a
//! route to the pod's addresses: there is no bridge, so every packet passes the node's own rules.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::LinkNameSpaceType;

use super::{Error, tool};

/// Where `ip netns` keeps its names.
const FOLDER: &str = "/run/netns";
/// One `ip` at a time for each of these: the kernel's own lock is what takes the time.
const AT_ONCE: usize = 4;

/// Hardware address of every device in the node's namespace.
const NODE_HARDWARE: &str = "02:00:00:00:00:01";

/// Hardware address of what the node's uplink leads to.
const BEYOND_HARDWARE: &str = "02:00:00:00:00:02";

/// The file of a network namespace.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

fn batch(netns: Option<&str>, commands: &str) -> Result<(), Error> {
    let mut arguments = Vec::new();
    if let Some(netns) = netns {
        arguments.extend(["-n", netns]);
    }
    arguments.extend(["-batch", "-"]);
    tool::run("ip", "iproute2", &arguments, commands)
}

fn lines(commands: impl IntoIterator<Item = String>) -> String {
    commands.into_iter().map(|command| command + "\n").collect()
}

/// Makes network namespaces.
pub(super) fn add<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
    batch(None, &lines(names.into_iter().map(|name| format!("netns add {name}"))))
}

/// Removes network namespaces, and with them every device in them.
pub(super) fn delete<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
    batch(
        None,
        &lines(names.into_iter().map(|name| format!("netns delete {name}"))),
    )
}

/// The namespaces whose name begins with `prefix`.
pub(super) fn named(prefix: &str) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(Error::File {
                doing: "read",
                path: FOLDER.into(),
                source,
            });
        }
    };
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect())
}

/// Makes the node's namespace a router of both families, with `addresses` on its loopback.
///
/// Its uplink leads to the namespace `beyond`, where nothing is: what goes to nobody is dropped there. Without a way out, the
/// node's own calls of Services would fail for want of a route before any rule sees them.
pub(super) fn make_node(name: &str, beyond: &str, addresses: &[IpAddr], gateways: &[IpAddr]) -> Result<(), Error> {
    add([name, beyond])?;
    let own = addresses
        .iter()
        .map(|address| format!("addr add {address} dev lo{}", no_check(*address)));
    let up = [
        "link set lo up".to_owned(),
        format!("link add uplink type veth peer name eth0 address {BEYOND_HARDWARE} netns {beyond}"),
        "link set uplink up".to_owned(),
    ];
    let out = gateways.iter().zip(addresses).flat_map(|(gateway, address)| {
        [
            format!("route add {gateway} dev uplink"),
            neighbour(*gateway, BEYOND_HARDWARE, "uplink"),
            format!("route add default via {gateway} src {address}"),
        ]
    });
    batch(Some(name), &lines(up.into_iter().chain(own)))?;
    batch(Some(beyond), "link set eth0 up\n")?;
    // Only now the uplink has a carrier, and routes through it stay.
    batch(Some(name), &lines(out))?;
    // Replies leave where requests came from, but a node port's reply may not: the strict check would drop it.
    let settings = [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
    ];
    within(name, || {
        settings.iter().try_for_each(|(setting, value)| {
            let file = Path::new("/proc/sys/net").join(setting);
            fs::write(&file, value).map_err(Error::file("written", file))
        })
    })
}

/// An IPv6 address is checked for duplicates for a second, in which nobody can bind it; here there are none.
fn no_check(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

/// Runs `work` in a network namespace, in a thread of its own that then ends.
pub(super) fn within(name: &str, work: impl FnOnce() -> Result<(), Error> + Send) -> Result<(), Error> {
    let path = path(name);
    let failed = |source| Error::Network {
        path: path.clone(),
        source,
    };
    let file = File::open(&path).map_err(failed)?;
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| failed(error.into()))?;
            work()
        });
        inside
            .join()
            .unwrap_or_else(|_panic| Err(failed(io::Error::other("the thread in it panicked"))))
    })
}

/// Somebody with a network of their own.
#[derive(Clone, Debug)]
pub(super) struct Attachment {
    /// Name of the network namespace.
    pub(super) netns: String,
    /// Number of the device in the node's namespace.
    pub(super) device: u32,
    /// Addresses.
    pub(super) addresses: Vec<IpAddr>,
}

impl Attachment {
    /// Name of the device in the node's namespace.
    fn device(&self) -> String {
        format!("veth{}", self.device)
    }

    /// Hardware address of the device in its own namespace.
    fn hardware(&self) -> String {
        let [_, high, middle, low] = self.device.to_be_bytes();
        format!("02:00:01:{high:02x}:{middle:02x}:{low:02x}")
    }
}

/// Everybody knows everybody's hardware address from the start: discovery in IPv6 takes a second before the first packet passes.
fn neighbour(address: IpAddr, hardware: &str, device: &str) -> String {
    format!("neigh replace {address} lladdr {hardware} dev {device} nud permanent")
}

/// Makes the namespaces and connects each to the node. `gateways` are the node's addresses, one of each family.
pub(super) fn attach(node: &str, gateways: &[IpAddr], attachments: &[Attachment]) -> Result<(), Error> {
    add(attachments.iter().map(|attachment| attachment.netns.as_str()))?;
    let outer = attachments.iter().flat_map(|attachment| {
        let device = attachment.device();
        let (netns, hardware) = (&attachment.netns, attachment.hardware());
        let link = format!(
            "link add {device} address {NODE_HARDWARE} type veth peer name eth0 address {hardware} netns {netns}"
        );
        let own = gateways
            .iter()
            .map(|gateway| format!("addr add {gateway} dev {device}{}", no_check(*gateway)));
        // `replace`, because the device of an earlier owner of the address may still be going.
        let routes = attachment
            .addresses
            .iter()
            .map(|address| format!("route replace {address} dev {device}"));
        let neighbours = attachment
            .addresses
            .iter()
            .map(|address| neighbour(*address, &hardware, &device));
        std::iter::once(link)
            .chain(own)
            .chain(std::iter::once(format!("link set {device} up")))
            .chain(routes)
            .chain(neighbours)
            .collect::<Vec<_>>()
    });
    batch(Some(node), &lines(outer))?;
    let each = |attachment: &Attachment| {
        let own = attachment
            .addresses
            .iter()
            .map(|address| format!("addr add {address} dev eth0{}", no_check(*address)));
        let routes = gateways.iter().filter(|gateway| {
            attachment
                .addresses
                .iter()
                .any(|own| own.is_ipv4() == gateway.is_ipv4())
        });
        let routes = routes.flat_map(|gateway| {
            let own = neighbour(*gateway, NODE_HARDWARE, "eth0");
            [
                own,
                format!("route add {gateway} dev eth0"),
                format!("route add default via {gateway} dev eth0"),
            ]
        });
        let up = ["link set lo up".to_owned(), "link set eth0 up".to_owned()];
        batch(Some(&attachment.netns), &lines(own.chain(up).chain(routes)))
    };
    let share = attachments.len().div_ceil(AT_ONCE).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> = attachments
            .chunks(share)
            .map(|chunk| scope.spawn(move || chunk.iter().try_for_each(each)))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_panic| {
                Err(Error::Network {
                    path: FOLDER.into(),
                    source: io::Error::other("a worker panicked"),
                })
            })
        })
    })
}

/// Takes somebody off the network and removes the namespace.
pub(super) fn detach(node: &str, attachment: &Attachment) -> Result<(), Error> {
    // The device first: removing a namespace is asynchronous, and its routes would outlive it.
    batch(Some(node), &lines([format!("link delete {}", attachment.device())]))?;
    delete([attachment.netns.as_str()])
}
