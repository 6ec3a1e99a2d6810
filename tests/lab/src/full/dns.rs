//! Cluster DNS: CoreDNS as pods behind the Service `kube-system/kube-dns`, as installers deploy it.
//!
//! Names outside the cluster come from a name server in `outside`, which reads them from a file again when it changes.

use crate::addresses::{DNS_SERVICE_V4, DNS_SERVICE_V6};

/// The image of CoreDNS.
pub(super) const IMAGE: &str = "nanoseg.lab/coredns:1";

/// All objects of cluster DNS.
pub(super) fn objects() -> String {
    include_str!("coredns.yaml")
        .replace("COREDNS_IMAGE", IMAGE)
        .replace("DNS_SERVICE_V4", &DNS_SERVICE_V4.to_string())
        .replace("DNS_SERVICE_V6", &DNS_SERVICE_V6.to_string())
}
