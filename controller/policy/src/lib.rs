//! Selectors, evaluation, synthesis and plans of NetworkPolicies.
//!
//! ```text
//!  Kubernetes objects ──objects──► Cluster ─┐
//!                                           ├─ identity ─► synthesize ─► Proposal ──┬─► plan ─► Plan
//!                   ConnectionGraph ────────┤                                       │
//!                                           └───────────── verify, audit ◄──────────┘
//!                                                               │
//!  NetworkPolicies ─────────────── selector ──────────────► evaluate ─► Verdict
//! ```
//!
//! * [`objects`]: Kubernetes objects and manifests to what identity and policies need of them.
//! * [`cluster_policy`]: the API's `ClusterNetworkPolicy`.
//! * [`selector`]: label selectors, parsed once.
//! * [`evaluate`]: policies, cluster and connection to a verdict for each direction, with the policy that decided.
//! * [`identity`]: the stable labels that select exactly a workload's pods, or the proof that none do.
//! * [`synthesize`]: the baseline graph to one policy for each workload, with Notes on every widening.
//! * [`verify`]: the evaluator's check of proposals together with everybody else's policies.
//! * [`plan`]: desired against live policies, as steps that never isolate before they allow.
//! * [`diff`]: what two sets of policies allow differently.
//! * [`audit`]: which observed edges a set of policies would deny, and why.
//! * [`map`]: all of it as one document to look at and to take away.
//! * [`ownership`]: which policies are ours.
//!
//! `evaluate` and `synthesize` share no code but the words in [`direction`], so that the one can check the other. Everything
//! here is pure: no I/O, no clock, no async.
#![deny(clippy::disallowed_methods)]
#![deny(missing_docs)]

pub mod audit;
pub mod cluster_policy;
pub mod diff;
pub mod direction;
mod ends;
pub mod evaluate;
#[cfg(test)]
mod fixture;
pub mod identity;
pub mod map;
pub mod objects;
pub mod ownership;
pub mod plan;
pub mod selector;
pub mod synthesize;
pub mod verify;
