//! The lab: real containers on one machine, with or without Kubernetes, that run one described application.
//!
//! ```text
//!              app (description file)
//!               │              │
//!     manifest (objects)   peer (what each process does)
//!               │              │
//!        ┌──────┴──────┬───────┘
//!      small          full
//!  namespaces,     etcd, API server, two kubelets,
//!  cgroups, nft    containerd, CNI, kube-router
//! ```
//!
//! * [`app`]: the description of an application, read and checked.
//! * [`addresses`]: who gets which address.
//! * [`peer`]: the program that is every container: it listens, calls, and writes what became of each call.
//! * [`manifest`]: the application as Kubernetes objects.
//! * [`full`]: a Kubernetes cluster of two nodes, from the real programs.
//! * [`go`]: programs from Go modules, built once.
//! * [`control`]: orders to a small lab in the background.
//! * [`status`]: who called whom, and what became of it.
//! * [`small`]: containers as network namespaces, veth pairs and cgroups; up in about a second.

pub mod addresses;
pub mod app;
pub mod control;
pub mod full;
pub mod go;
pub mod manifest;
pub mod peer;
pub mod small;
pub mod status;
pub mod wiring;
