//! The cluster's control plane: etcd, API server, controller manager, scheduler, and who may talk to them.
//!
//! Guarantee: RBAC decides on everything but the administrator; each program has a token of its own, made at random for this
//! lab.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::binaries::Binaries;
use super::error::{Error, on};
use super::process::succeed;
use super::site::Site;
use super::topology;
use crate::addresses::{SERVICE_RANGE_V4, SERVICE_RANGE_V6};

/// Everybody with a token: a name for its kubeconfig, the user that the API server takes it for, and that user's groups.
const USERS: [(&str, &str, &str); 7] = [
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kube-proxy", "system:kube-proxy", ""),
    ("kube-router", "kube-router", ""),
    ("node1", "system:node:node1", "system:nodes"),
    ("node2", "system:node:node2", "system:nodes"),
];

const ETCD: &str = "http://127.0.0.1:2379";

/// The kubeconfig of one of [`USERS`].
pub(super) fn kubeconfig(site: &Site, user: &str) -> PathBuf {
    site.file(format!("{user}.kubeconfig"))
}

/// Writes keys, tokens and kubeconfigs.
pub(super) fn prepare(site: &Site) -> Result<(), Error> {
    // For the tokens of ServiceAccounts, which the API server signs.
    succeed(
        Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(site.file("service-account.key"))
            .arg("2048"),
    )?;
    let mut tokens = Vec::new();
    for (name, user, groups) in USERS {
        let token = random_token()?;
        tokens.push(format!("{token},{user},{name},\"{groups}\"\n"));
        let config = format!(
            "apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster:
    server: https://{server}:6443
    certificate-authority: {authority}
users:
- name: {name}
  user:
    token: {token}
contexts:
- name: lab
  context:
    cluster: lab
    user: {name}
current-context: lab
",
            server = topology::API_SERVER,
            authority = authority(site).display(),
        );
        site.write(format!("{name}.kubeconfig"), config)?;
    }
    site.write("tokens.csv", tokens.concat())?;
    Ok(())
}

/// The certificate that the API server makes for itself when it starts: its own authority.
fn authority(site: &Site) -> PathBuf {
    site.file("api-server/apiserver.crt")
}

fn random_token() -> Result<String, Error> {
    let mut bytes = [0; 16];
    let path = "/dev/urandom";
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(on("read", path))?;
    Ok(bytes
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
}

pub(super) fn etcd(site: &Site) -> Result<Command, Error> {
    let folder = site.file("etcd");
    fs::create_dir_all(&folder).map_err(on("make", &folder))?;
    let peers = "http://127.0.0.1:2380";
    let mut command = site.namespace("control").command("etcd");
    command.arg("--data-dir").arg(folder).args([
        "--listen-client-urls",
        ETCD,
        "--advertise-client-urls",
        ETCD,
        "--listen-peer-urls",
        peers,
        "--initial-advertise-peer-urls",
        peers,
        "--initial-cluster",
        &format!("default={peers}"),
    ]);
    Ok(command)
}

pub(super) fn api_server(site: &Site, binaries: &Binaries, further: &[String]) -> Command {
    let key = site.file("service-account.key").display().to_string();
    let mut command = site.namespace("control").command(binaries.kubernetes("kube-apiserver"));
    command
        .arg(format!("--etcd-servers={ETCD}"))
        .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
        .arg(format!("--service-account-key-file={key}"))
        .arg(format!("--service-account-signing-key-file={key}"))
        .arg(format!("--token-auth-file={}", site.file("tokens.csv").display()))
        .arg("--authorization-mode=Node,RBAC")
        .arg("--enable-admission-plugins=NodeRestriction")
        .arg(format!("--service-cluster-ip-range={SERVICE_RANGE_V4},{SERVICE_RANGE_V6}"))
        .arg("--allow-privileged")
        .arg(format!("--cert-dir={}", site.file("api-server").display()))
        .arg(format!("--advertise-address={}", topology::API_SERVER))
        .arg(format!("--bind-address={}", topology::API_SERVER))
        // For logs and exec. Nobody can resolve the nodes' names.
        .arg("--kubelet-preferred-address-types=InternalIP")
        .args(further);
    command
}

pub(super) fn controller_manager(site: &Site, binaries: &Binaries) -> Command {
    let mut command = site
        .namespace("control")
        .command(binaries.kubernetes("kube-controller-manager"));
    command
        .arg(format!("--kubeconfig={}", kubeconfig(site, "controller-manager").display()))
        .arg(format!("--root-ca-file={}", authority(site).display()))
        .arg(format!("--service-account-private-key-file={}", site.file("service-account.key").display()))
        .arg("--use-service-account-credentials")
        // There is one of each, and an election would cost seconds.
        .arg("--leader-elect=false");
    command
}

pub(super) fn scheduler(site: &Site, binaries: &Binaries) -> Command {
    let mut command = site.namespace("control").command(binaries.kubernetes("kube-scheduler"));
    command
        .arg(format!("--kubeconfig={}", kubeconfig(site, "scheduler").display()))
        .arg("--leader-elect=false");
    command
}

/// Objects that have to be there before anything else: the nodes with their pod ranges (a kubelet that finds its node takes it
/// over, so each has the range that the lab's routes lead to), and what the NetworkPolicy engine may read.
pub(super) fn objects() -> Vec<String> {
    let mut objects = vec![include_str!("kube-router.yaml").to_owned()];
    for (name, number) in topology::NODES.into_iter().zip(1..) {
        let [v4, v6] = topology::pod_ranges(number);
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name },
            "spec": { "podCIDR": v4, "podCIDRs": [v4, v6] },
        });
        objects.push(node.to_string());
    }
    objects
}
