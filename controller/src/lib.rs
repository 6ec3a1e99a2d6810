//! The control plane: watch, plan, apply; and the command line.
//!
//! ```text
//!   API server ── watch ──┐                                ┌── apply::OnCluster ──► API server
//!   learners ─── receive ─┼─ Event ─► reconcile::Core ─────┤
//!   folders ── directory ─┘        (pure, synchronous)     └── apply::OnDirectory ► folder
//! ```
//!
//! * [`settings`]: the command line as typed, and what follows from it.
//! * [`read`]: manifests and flows from files, standard input and an API server.
//! * [`segment`]: the `Segment` resource, the durable state.
//! * [`lifecycle`]: windows, baselines, what is novel. Pure.
//! * [`reconcile`]: from what was observed to what must be written. Pure.
//! * [`apply`]: the only module that writes.
//! * [`lease`]: which of several controllers may.
//! * [`watch`], [`receive`], [`directory`]: where events come from.
//! * [`page`]: what people see in a browser; it reads a copy and writes nothing.
//! * [`controller`]: `nanoseg controller`, the loop that joins them.
//! * [`doctor`], [`enforcement`]: what is wrong with a cluster, and whether it enforces policies at all.
//! * [`health`], [`metrics`]: what kubelet and Prometheus are told.
//! * [`telemetry`]: what a collector of OpenTelemetry is told.
//! * [`cli`]: every other command.

pub mod apply;
pub mod cli;
pub mod controller;
pub mod directory;
pub mod doctor;
pub mod enforcement;
pub mod health;
pub mod lease;
pub mod lifecycle;
pub mod metrics;
pub mod page;
pub mod read;
pub mod receive;
pub mod reconcile;
pub mod segment;
pub mod settings;
pub mod telemetry;
pub mod trouble;
pub mod watch;
