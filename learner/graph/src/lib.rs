//! What was observed, who it was, and the connection graph that follows.
//!
//! ```text
//!  Report (one learner)          Cluster (what the API server said, with times)
//!        │ merge                        │
//!        ▼                              ▼
//!    FlowTable  ───────────────►  resolve  ──►  ConnectionGraph
//! ```
//!
//! * [`flow`]: aggregated traffic of one container with one peer *address*, as a learner reports it.
//! * [`container`]: the container and the pod that a cgroup path belongs to.
//! * [`hosted`]: the container or the systemd unit that it is on a host without Kubernetes.
//! * [`cluster`]: pods, owners, Services, nodes, namespaces, and who had which address when.
//! * [`name`]: names that a workload asked for, and the addresses it was told.
//! * [`process`]: who of a node it is that speaks.
//! * [`recorded`]: connections that somebody else recorded, both ends named by pod or by address.
//! * [`resolve`]: a flow and a cluster to two attributed endpoints.
//! * [`connection`]: the graph of workloads, Services, nodes and external addresses.
//!
//! Everything here is pure: no I/O, no clock, no async. Whoever calls passes the time in.
#![deny(clippy::disallowed_methods)]
#![deny(missing_docs)]

pub mod cluster;
pub mod connection;
pub mod container;
pub mod endpoint;
pub mod flow;
pub mod hosted;
pub mod name;
pub mod process;
pub mod recorded;
pub mod resolve;
