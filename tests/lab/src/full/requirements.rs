//! What the full lab needs of the machine, checked before anything is made.

use std::path::Path;

use super::cgroup::Trees;
use super::error::Error;
use super::node::PLUGINS;

/// Programs of the distribution, each with the Debian package that has it.
const PROGRAMS: [(&str, &str); 17] = [
    ("conntrack", "conntrack"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("etcd", "etcd-server"),
    ("ip", "iproute2"),
    ("ip6tables-restore", "iptables"),
    ("ipset", "ipset"),
    ("iptables", "iptables"),
    ("ldd", "libc-bin"),
    ("mount", "mount"),
    ("nft", "nftables"),
    ("nice", "coreutils"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("runc", "runc"),
    ("setsid", "util-linux"),
    ("unshare", "util-linux"),
];

pub(super) fn check() -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for (program, package) in PROGRAMS {
        if !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            return Err(Error::Missing { program, package });
        }
    }
    if !Path::new(PLUGINS).join("bridge").is_file() {
        return Err(Error::Missing {
            program: "/usr/lib/cni/bridge",
            package: "containernetworking-plugins",
        });
    }
    Trees::find()?;
    if !Path::new("/proc/sys/net/bridge").is_dir() {
        return Err(Error::NoBridgeNetfilter);
    }
    Ok(())
}
