//! `nanoseg doctor`: what is wrong with an installation or a cluster, and what to do.
//!
//! Guarantee: what could not be found out is said to be unknown, with the reason; nothing is changed but by the probe, which
//! works in a namespace of its own and keeps what it found in one `ConfigMap`.
//!
//! * [`installation`]: versions, rights, nodes, clocks, what is installed.
//! * [`probe`]: whether the cluster enforces, by pods.
//! * [`caller`]: what runs in these pods.

pub mod caller;
mod installation;
mod probe;

use std::fmt;

use kube::Client;
use serde::Serialize;

use crate::enforcement::{Enforcement, Family, OfFamily, Proof, Translation};
use crate::settings::doctor::DoctorArguments;
use crate::trouble::Trouble;

pub use probe::ProbeError;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it is to be.
    Well,
    /// It works, and something is to be known.
    Notice,
    /// It does not work as it is to.
    Fault,
    /// It could not be found out.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Well => "ok",
            Self::Notice => "notice",
            Self::Fault => "FAULT",
            Self::Unknown => "unknown",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    fn well(check: &str, found: impl Into<String>) -> Self {
        Self::of(check, Verdict::Well, found, None)
    }

    fn fault(check: &str, found: impl Into<String>, advice: &str) -> Self {
        Self::of(check, Verdict::Fault, found, Some(advice))
    }

    fn notice(check: &str, found: impl Into<String>, advice: &str) -> Self {
        Self::of(check, Verdict::Notice, found, Some(advice))
    }

    /// The API server did not let us look.
    fn hidden(check: &str, trouble: &Trouble) -> Self {
        Self::of(check, Verdict::Unknown, trouble.to_string(), None)
    }

    fn of(check: &str, verdict: Verdict, found: impl Into<String>, advice: Option<&str>) -> Self {
        Self {
            check: check.to_owned(),
            verdict,
            found: found.into(),
            advice: advice.map(str::to_owned),
        }
    }
}

/// Looks at everything that was asked for.
pub async fn examine(client: &Client, arguments: &DoctorArguments) -> Result<Vec<Finding>, ProbeError> {
    let mut findings = installation::examine(client, &arguments.own_namespace).await;
    if arguments.probe {
        let enforcement = probe::run(client, arguments).await?;
        findings.extend(of_enforcement(&enforcement));
    } else {
        findings.extend(probe::earlier(client, &arguments.own_namespace).await);
    }
    Ok(findings)
}

/// What a probe found, for people.
fn of_enforcement(enforcement: &Enforcement) -> Vec<Finding> {
    let mut findings = Vec::new();
    for family in Family::ALL {
        let OfFamily {
            ingress,
            egress,
            end_port,
            services,
        } = enforcement.of(family);
        let needs = "NetworkPolicies do nothing here: install a network plugin that enforces them. No Segment is said to be Enforcing";
        for (way, proof) in [("ingress", ingress), ("egress", egress)] {
            let check = format!("{way} by {family}");
            findings.push(match proof {
                Proof::Shown => Finding::well(&check, "what no rule allows is refused"),
                Proof::Refuted => Finding::fault(&check, "what no rule allows is answered", needs),
                Proof::Unknown(why) => Finding::of(&check, Verdict::Unknown, why, None),
            });
        }
        let check = format!("endPort by {family}");
        let avoid = "the controller writes no ranges here, and lists ports one by one; `nanoseg synthesize` does with --list-ports";
        findings.push(match end_port {
            Proof::Shown => Finding::well(&check, "a range lets its ports through, and no other"),
            Proof::Refuted => Finding::fault(&check, "a range does not let through what it names, or more", avoid),
            Proof::Unknown(why) => Finding::of(&check, Verdict::Unknown, why, None),
        });
        let check = format!("Services by {family}");
        let named = "the controller names the addresses of Services beside their pods here; `nanoseg synthesize` does with \
                     --service-addresses";
        let open = "no egress policy can allow a Service here: the controller leaves the egress of workloads open that use one";
        findings.push(match services {
            Translation::After => Finding::well(&check, "egress rules see the target port"),
            Translation::Either => Finding::notice(
                &check,
                "egress rules let the Service's port and the target port through",
                "nothing",
            ),
            Translation::Before => Finding::notice(&check, "egress rules see the Service's port", named),
            Translation::Neither => Finding::fault(&check, "egress rules let no connection to a Service through", open),
            Translation::Unknown(why) => Finding::of(&check, Verdict::Unknown, why, None),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn family(proof: &Proof) -> OfFamily {
        OfFamily {
            ingress: proof.clone(),
            egress: proof.clone(),
            end_port: proof.clone(),
            services: Translation::After,
        }
    }

    #[test]
    fn a_cluster_that_does_not_enforce_is_a_fault_and_one_that_was_not_asked_is_none() {
        let verdicts = |proof: &Proof| -> Vec<Verdict> {
            let enforcement = Enforcement {
                at: Timestamp::UNIX_EPOCH,
                ipv4: family(proof),
                ipv6: family(proof),
            };
            let findings = of_enforcement(&enforcement);
            findings.iter().map(|finding| finding.verdict).collect()
        };
        assert!(verdicts(&Proof::Shown).iter().all(|verdict| *verdict == Verdict::Well));
        let refuted = verdicts(&Proof::Refuted);
        assert_eq!(refuted.iter().filter(|verdict| **verdict == Verdict::Fault).count(), 6);
        let unknown = verdicts(&Proof::Unknown("nobody called".to_owned()));
        assert!(!unknown.contains(&Verdict::Fault));
    }
}
