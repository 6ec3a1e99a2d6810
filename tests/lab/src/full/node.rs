//! A node: containerd, kubelet, kube-proxy and the NetworkPolicy engine, in a network namespace, a mount namespace and a
//! cgroup folder of its own.
//!
//! Guarantee: what a node mounts is seen by the node alone and ends with its processes, so removing a lab's folder can never
//! reach through a volume into the machine's files.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::binaries::Binaries;
use super::control_plane::kubeconfig;
use super::error::Error;
use super::image::Image;
use super::namespace::Namespace;
use super::process::{Process, succeed};
use super::site::Site;
use super::topology;
use crate::addresses::{DNS_SERVICE_V4, SERVICE_RANGE_V4, SERVICE_RANGE_V6};

/// The image of what holds a pod's namespaces open.
pub(super) const PAUSE_IMAGE: &str = "nanoseg.lab/pause:1";

/// Where Debian's containernetworking-plugins puts them.
pub(super) const PLUGINS: &str = "/usr/lib/cni";

/// Folders whose path is fixed in the kubelet or containerd. Each node has an empty file system of its own there.
pub(super) const FIXED_FOLDERS: [&str; 3] = ["/run/containerd", "/var/lib/kubelet", "/var/log/containers"];

/// The health ports of the programs on a node; each listens there by default.
const KUBE_PROXY_HEALTH: u16 = 10256;
const KUBE_ROUTER_HEALTH: u16 = 20244;

/// A node of a full lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// Its network namespace.
    pub namespace: Namespace,
    /// Its own addresses, IPv4 first.
    pub addresses: [IpAddr; 2],
    /// The ranges of its pods' addresses, IPv4 first.
    pub pod_ranges: [IpNet; 2],
    /// Its folder in the cgroup2 tree: a learner of this node attaches here. In it are `kubepods` and `system`.
    pub cgroup: PathBuf,
    /// The socket of its containerd; Kubernetes' containers are in the namespace `k8s.io`.
    pub containerd: PathBuf,
    /// Its own files.
    folder: PathBuf,
    services: Services,
}

/// How a node translates Services: each node another way, so that all of them are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Services {
    /// By kube-proxy's rules for iptables.
    Iptables,
    /// By its rules for nftables.
    Nftables,
}

impl Services {
    /// As kube-proxy names it.
    const fn mode(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

impl Node {
    pub(super) fn new(site: &Site, number: u8, name: &str, cgroup: PathBuf) -> Self {
        let folder = site.file(name);
        Self {
            name: name.to_owned(),
            namespace: site.namespace(name),
            addresses: topology::node_addresses(number),
            pod_ranges: topology::pod_ranges(number),
            cgroup,
            containerd: folder.join("containerd.sock"),
            folder,
            services: if number.is_multiple_of(2) {
                Services::Nftables
            } else {
                Services::Iptables
            },
        }
    }

    /// A command that will run in this node's network, as a program on the node's host would.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.namespace.command(program)
    }

    /// A command for this node's containerd.
    pub fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(&self.containerd)
            .args(["--namespace", "k8s.io"]);
        command
    }

    /// A command in the node's network that also sees the node's own mounts, which containerd's process holds.
    fn within(&self, containerd: &Process, program: PathBuf) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", containerd.pid))
            .arg(format!("--net={}", self.namespace.path().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// The folder that its kubelet takes for the root of the cgroup trees.
    fn cgroup_root(&self) -> String {
        format!("/{}", self.cgroup.file_name().unwrap_or_default().to_string_lossy())
    }

    /// The node's containerd. It comes first of the node's programs, because the others join its mount namespace.
    pub(super) fn containerd(&self, site: &Site) -> Result<Command, Error> {
        let folder = self.folder.display();
        let socket = self.containerd.display();
        let [v4, v6] = self.pod_ranges;
        let plugins = PLUGINS;
        site.write(
            self.folder.join("cni/10-lab.conflist"),
            serde_json::json!({
                "cniVersion": "0.4.0",
                "name": "lab",
                "plugins": [{
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": true,
                    // A pod may be the one behind the Service that it calls.
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.folder.join("addresses"),
                        "ranges": [[{ "subnet": v4 }], [{ "subnet": v6 }]],
                        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                    },
                }],
            })
            .to_string(),
        )?;
        // Lowering a process' OOM score needs CAP_SYS_RESOURCE, which not every machine's root has.
        let config = format!(
            "version = 2
root = \"{folder}/containerd\"
state = \"{folder}/run\"
[grpc]
address = \"{socket}\"
[plugins.\"io.containerd.grpc.v1.cri\"]
sandbox_image = \"{PAUSE_IMAGE}\"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins.\"io.containerd.grpc.v1.cri\".cni]
bin_dir = \"{plugins}\"
conf_dir = \"{folder}/cni\"
"
        );
        let config = site.write(self.folder.join("containerd.toml"), config)?;
        // Shared within the node, as systemd has it on a real one, and with nobody else.
        let script = "set -e
mount --make-rshared /
for folder in \"$@\"; do mkdir -p \"$folder\"; mount -t tmpfs lab \"$folder\"; done
exec containerd --config \"$0\"";
        let mut command = self.command("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(config)
            .args(FIXED_FOLDERS);
        Ok(command)
    }

    pub(super) fn kubelet(&self, site: &Site, binaries: &Binaries, containerd: &Process) -> Result<Command, Error> {
        let folder = self.folder.display();
        let resolver = site.write(
            self.folder.join("resolv.conf"),
            format!("nameserver {}\n", topology::NAME_SERVER),
        )?;
        // The images are local and cannot be fetched again, so nothing may be evicted or collected for lack of space.
        let config = format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: {cgroup_root}
makeIPTablesUtilChains: false
enforceNodeAllocatable: []
failSwapOn: false
evictionHard:
  memory.available: 0%
  nodefs.available: 0%
  nodefs.inodesFree: 0%
  imagefs.available: 0%
imageGCHighThresholdPercent: 100
imageMaximumGCAge: 0s
clusterDNS: [{dns}]
clusterDomain: cluster.local
resolvConf: {resolver}
podLogsDir: {folder}/logs
volumePluginDir: {folder}/volume-plugins
staticPodPath: {folder}/static-pods
containerRuntimeEndpoint: unix://{socket}
authentication:
  anonymous: {{enabled: true}}
  webhook: {{enabled: false}}
authorization: {{mode: AlwaysAllow}}
",
            cgroup_root = self.cgroup_root(),
            dns = DNS_SERVICE_V4,
            resolver = resolver.display(),
            socket = self.containerd.display(),
        );
        let config = site.write(self.folder.join("kubelet.yaml"), config)?;
        let [v4, v6] = self.addresses;
        let mut command = self.within(containerd, binaries.kubernetes("kubelet"));
        command
            .arg(format!("--config={}", config.display()))
            .arg(format!("--kubeconfig={}", kubeconfig(site, &self.name).display()))
            .arg(format!("--root-dir={folder}/kubelet"))
            .arg(format!("--cert-dir={folder}/kubelet-certificates"))
            .arg(format!("--hostname-override={}", self.name))
            .arg(format!("--node-ip={v4},{v6}"));
        Ok(command)
    }

    pub(super) fn kube_proxy(&self, site: &Site, binaries: &Binaries, containerd: &Process) -> Result<Command, Error> {
        // The connection table's size belongs to the machine, so the node leaves it alone.
        let config = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: {mode}
clientConnection:
  kubeconfig: {kubeconfig}
hostnameOverride: {name}
detectLocalMode: BridgeInterface
detectLocal:
  bridgeInterface: cni0
conntrack:
  maxPerCore: 0
nodePortAddresses: [primary]
",
            mode = self.services.mode(),
            kubeconfig = kubeconfig(site, "kube-proxy").display(),
            name = self.name,
        );
        let config = site.write(self.folder.join("kube-proxy.yaml"), config)?;
        let mut command = self.within(containerd, binaries.kubernetes("kube-proxy"));
        command.arg(format!("--config={}", config.display()));
        Ok(command)
    }

    /// The NetworkPolicy engine. Its node has to be Ready: it reads the node's addresses once, when it starts.
    pub(super) fn kube_router(&self, site: &Site, binaries: &Binaries, containerd: &Process) -> Result<Command, Error> {
        let tools = self.folder.join("tools");
        let mended = [
            ("ip6tables-restore", include_str!("engine/ip6tables-restore")),
            ("ipset", include_str!("engine/ipset")),
        ];
        for (name, script) in mended {
            executable(&site.write(tools.join(name), script)?)?;
        }
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        let mut command = self.within(containerd, binaries.kube_router.clone());
        command
            .args([
                "--run-firewall=true",
                "--run-router=false",
                "--run-service-proxy=false",
                "--enable-cni=false",
            ])
            .args(["--enable-ipv4=true", "--enable-ipv6=true"])
            .arg(format!("--kubeconfig={}", kubeconfig(site, "kube-router").display()))
            .arg(format!("--hostname-override={}", self.name))
            .arg(format!("--service-cluster-ip-range={SERVICE_RANGE_V4}"))
            .arg(format!("--service-cluster-ip-range={SERVICE_RANGE_V6}"))
            .env("PATH", format!("{}:{path}", tools.display()))
            .env("LAB_PATH", path)
            .env("LAB_TOOLS", tools);
        Ok(command)
    }

    /// Whether its kube-proxy and its NetworkPolicy engine have done their first round; otherwise what is missing.
    pub(super) fn enforces(&self) -> Result<Result<(), String>, Error> {
        for port in [KUBE_PROXY_HEALTH, KUBE_ROUTER_HEALTH] {
            let address = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port);
            if let Err(seen) = self.namespace.healthy(address, "/healthz")? {
                return Ok(Err(format!("on {}, {seen}", self.name)));
            }
        }
        Ok(Ok(()))
    }

    /// Loads an image archive.
    pub(super) fn import(&self, archive: &Path) -> Result<(), Error> {
        succeed(self.ctr().args(["images", "import"]).arg(archive))
    }
}

fn executable(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .map_err(super::error::on("make executable", path))
}

/// Writes an image and loads it on every node.
pub(super) fn load(site: &Site, nodes: &[Node], image: &Image<'_>) -> Result<(), Error> {
    let file: String = image
        .name
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
        .collect();
    let archive = site.file(format!("{file}.tar"));
    image.write(&archive)?;
    std::thread::scope(|scope| {
        let imports: Vec<_> = nodes.iter().map(|node| scope.spawn(|| node.import(&archive))).collect();
        imports.into_iter().try_for_each(|import| match import.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    std::fs::remove_file(&archive).map_err(super::error::on("remove", archive))
}
