//! Whether a cluster does what NetworkPolicies say, as `nanoseg doctor --probe` found out. Pure.
//!
//! Law: something counts as enforced, or as not enforced, only if a connection that nothing forbids was answered at the same time;
//! everything else is unknown, with the reason.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use nanoseg_policy::synthesize::{Plugin, Ranges, ServiceView};
use serde::{Deserialize, Serialize};

/// Name of the `ConfigMap` that the finding is kept in, in nanoseg's namespace.
pub const CONFIG_MAP: &str = "nanoseg-enforcement";
/// Key in it.
pub const KEY: &str = "finding.json";

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// What was shown of something that a cluster may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Proof {
    /// It was shown to.
    Shown,
    /// It was shown not to.
    Refuted,
    /// It was not found out, and why.
    Unknown(String),
}

/// Which port of a connection to a Service an egress rule is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Translation {
    /// The target port: rules see the connection after the Service was translated.
    After,
    /// The Service's port: rules see it before.
    Before,
    /// Both let it through.
    Either,
    /// Neither does.
    Neither,
    /// It was not found out, and why.
    Unknown(String),
}

/// What was shown of one IP family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfFamily {
    /// What no ingress rule allows is refused.
    pub ingress: Proof,
    /// What no egress rule allows is refused.
    pub egress: Proof,
    /// A range of ports lets its ports through, and no other.
    pub end_port: Proof,
    /// When rules are applied to connections to Services.
    pub services: Translation,
}

/// What was found out about a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enforcement {
    /// When.
    pub at: Timestamp,
    /// About IPv4.
    pub ipv4: OfFamily,
    /// About IPv6.
    pub ipv6: OfFamily,
}

impl Enforcement {
    /// What is kept in the `ConfigMap`, if that can be read.
    pub fn kept(kept: &ConfigMap) -> Option<Self> {
        serde_json::from_str(kept.data.as_ref()?.get(KEY)?).ok()
    }

    /// About one family.
    pub const fn of(&self, family: Family) -> &OfFamily {
        match family {
            Family::V4 => &self.ipv4,
            Family::V6 => &self.ipv6,
        }
    }

    /// What proposals have to heed: what was shown, in either family, to be otherwise than the specification says.
    pub fn plugin(&self) -> Plugin {
        let both = [&self.ipv4, &self.ipv6];
        let ranges = if both.iter().any(|family| family.end_port == Proof::Refuted) {
            Ranges::Listed
        } else {
            Ranges::Grouped
        };
        let seen = |what: &Translation| both.iter().any(|family| family.services == *what);
        let services = match (seen(&Translation::Neither), seen(&Translation::Before)) {
            (true, _) => ServiceView::Nothing,
            (false, true) => ServiceView::Untranslated,
            (false, false) => ServiceView::Translated,
        };
        Plugin { ranges, services }
    }

    /// What policies were shown not to do here, as a sentence: no policy of such a cluster is said to enforce.
    pub fn refuted(&self) -> Option<String> {
        let mut ways = Vec::new();
        for family in Family::ALL {
            let OfFamily { ingress, egress, .. } = self.of(family);
            for (way, proof) in [("ingress", ingress), ("egress", egress)] {
                if *proof == Proof::Refuted {
                    ways.push(format!("{way} by {family}"));
                }
            }
        }
        let at = self.at.strftime("%Y-%m-%d %H:%M UTC");
        (!ways.is_empty()).then(|| {
            format!(
                "this cluster was shown not to enforce NetworkPolicies ({}), by `nanoseg doctor --probe` at {at}: it needs a network \
                 plugin that does",
                ways.join(", ")
            )
        })
    }
}

/// Who calls in a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// No policy is about it, and it calls before there is any.
    Control,
    /// No ingress rule lets it in.
    Stranger,
    /// The ingress rules let it in.
    Friend,
    /// Let in, and it may call nobody.
    Silent,
    /// Let in, and it may call the target port.
    ByTargetPort,
    /// Let in, and it may call the Service's port.
    ByServicePort,
}

impl Caller {
    /// Everybody who calls while there are policies.
    pub const UNDER_POLICIES: [Self; 5] = [
        Self::Stranger,
        Self::Friend,
        Self::Silent,
        Self::ByTargetPort,
        Self::ByServicePort,
    ];

    /// As a part of a pod's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Stranger => "stranger",
            Self::Friend => "friend",
            Self::Silent => "silent",
            Self::ByTargetPort => "by-target-port",
            Self::ByServicePort => "by-service-port",
        }
    }
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A port that the ingress rules allow.
    Allowed,
    /// A port within the range that they allow.
    InRange,
    /// The port after that range.
    BeyondRange,
    /// A Service whose port is another than its target port, which is the allowed one.
    Service,
}

impl Target {
    /// As the caller is told it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::InRange => "in-range",
            Self::BeyondRange => "beyond-range",
            Self::Service => "service",
        }
    }
}

/// What became of a caller's last calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Calls {
    /// All were answered.
    Answered,
    /// None was.
    Refused,
    /// Some were: the cluster had not settled.
    Unsettled,
}

/// What was observed: nothing of whom there was no address to call.
pub type Observations = BTreeMap<(Caller, Target, Family), Calls>;

/// What follows.
pub fn judge(observed: &Observations, at: Timestamp) -> Enforcement {
    Enforcement {
        at,
        ipv4: of_family(observed, Family::V4),
        ipv6: of_family(observed, Family::V6),
    }
}

fn of_family(observed: &Observations, family: Family) -> OfFamily {
    let calls = |caller, target| observed.get(&(caller, target, family)).copied();
    let nothing = |why: &str| OfFamily {
        ingress: Proof::Unknown(why.to_owned()),
        egress: Proof::Unknown(why.to_owned()),
        end_port: Proof::Unknown(why.to_owned()),
        services: Translation::Unknown(why.to_owned()),
    };
    match calls(Caller::Control, Target::Allowed) {
        None => return nothing(&format!("pods have no {family} address")),
        Some(Calls::Refused | Calls::Unsettled) => {
            return nothing(&format!(
                "pods do not reach each other by {family} even without a policy"
            ));
        }
        Some(Calls::Answered) => {}
    }
    // Who is let in shows that what is refused to others is refused by the policy.
    if calls(Caller::Friend, Target::Allowed) != Some(Calls::Answered) {
        return nothing(&format!(
            "with policies, connections by {family} that they allow are not answered either"
        ));
    }
    let refused = |calls: Option<Calls>| match calls {
        Some(Calls::Refused) => Proof::Shown,
        Some(Calls::Answered) => Proof::Refuted,
        Some(Calls::Unsettled) => Proof::Unknown("some calls were answered, and others not".to_owned()),
        None => Proof::Unknown("nobody called".to_owned()),
    };
    let ingress = refused(calls(Caller::Stranger, Target::Allowed));
    let egress = refused(calls(Caller::Silent, Target::Allowed));
    let end_port = match (
        &ingress,
        calls(Caller::Friend, Target::InRange),
        calls(Caller::Friend, Target::BeyondRange),
    ) {
        (Proof::Refuted | Proof::Unknown(_), _, _) => Proof::Unknown("ingress is not shown to be enforced".to_owned()),
        (Proof::Shown, Some(Calls::Answered), Some(Calls::Refused)) => Proof::Shown,
        (Proof::Shown, Some(Calls::Refused), _) | (Proof::Shown, _, Some(Calls::Answered)) => Proof::Refuted,
        (Proof::Shown, _, _) => Proof::Unknown("some calls were answered, and others not".to_owned()),
    };
    let services = match (
        &egress,
        calls(Caller::Control, Target::Service),
        calls(Caller::ByTargetPort, Target::Service),
        calls(Caller::ByServicePort, Target::Service),
    ) {
        (Proof::Refuted | Proof::Unknown(_), ..) => {
            Translation::Unknown("egress is not shown to be enforced".to_owned())
        }
        (Proof::Shown, None | Some(Calls::Refused | Calls::Unsettled), ..) => {
            Translation::Unknown(format!("a Service is not reached by {family} even without a policy"))
        }
        (Proof::Shown, _, Some(Calls::Answered), Some(Calls::Refused)) => Translation::After,
        (Proof::Shown, _, Some(Calls::Refused), Some(Calls::Answered)) => Translation::Before,
        (Proof::Shown, _, Some(Calls::Answered), Some(Calls::Answered)) => Translation::Either,
        (Proof::Shown, _, Some(Calls::Refused), Some(Calls::Refused)) => Translation::Neither,
        (Proof::Shown, ..) => Translation::Unknown("some calls were answered, and others not".to_owned()),
    };
    OfFamily {
        ingress,
        egress,
        end_port,
        services,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_CALLS: [Calls; 3] = [Calls::Answered, Calls::Refused, Calls::Unsettled];

    /// A cluster whose plugin enforces, with what is changed.
    fn observed(changes: &[(Caller, Target, Calls)]) -> Observations {
        use Calls::{Answered, Refused};
        let mut observed: Observations = [
            (Caller::Control, Target::Allowed, Answered),
            (Caller::Control, Target::Service, Answered),
            (Caller::Stranger, Target::Allowed, Refused),
            (Caller::Friend, Target::Allowed, Answered),
            (Caller::Friend, Target::InRange, Answered),
            (Caller::Friend, Target::BeyondRange, Refused),
            (Caller::Silent, Target::Allowed, Refused),
            (Caller::ByTargetPort, Target::Service, Answered),
            (Caller::ByServicePort, Target::Service, Refused),
        ]
        .into_iter()
        .map(|(caller, target, calls)| ((caller, target, Family::V4), calls))
        .collect();
        for (caller, target, calls) in changes {
            observed.insert((*caller, *target, Family::V4), *calls);
        }
        observed
    }

    fn found(changes: &[(Caller, Target, Calls)]) -> Enforcement {
        judge(&observed(changes), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_cluster_that_enforces_is_said_to_by_the_families_that_it_has() {
        let found = found(&[]);
        let OfFamily {
            ingress,
            egress,
            end_port,
            services,
        } = &found.ipv4;
        assert_eq!(
            (ingress, egress, end_port),
            (&Proof::Shown, &Proof::Shown, &Proof::Shown)
        );
        assert_eq!(*services, Translation::After);
        assert_eq!(
            found.ipv6.ingress,
            Proof::Unknown("pods have no IPv6 address".to_owned())
        );
        assert_eq!(found.refuted(), None);
    }

    #[test]
    fn a_cluster_that_lets_everything_through_is_refuted_and_nothing_else_is_claimed() {
        use Calls::Answered;
        let found = found(&[
            (Caller::Stranger, Target::Allowed, Answered),
            (Caller::Silent, Target::Allowed, Answered),
            (Caller::Friend, Target::BeyondRange, Answered),
            (Caller::ByServicePort, Target::Service, Answered),
        ]);
        assert_eq!(
            (&found.ipv4.ingress, &found.ipv4.egress),
            (&Proof::Refuted, &Proof::Refuted)
        );
        assert!(matches!(found.ipv4.end_port, Proof::Unknown(_)));
        assert!(matches!(found.ipv4.services, Translation::Unknown(_)));
        let why = found.refuted().unwrap();
        assert!(
            why.contains("ingress by IPv4, egress by IPv4") && why.contains("1970-01-01 00:00 UTC"),
            "{why}"
        );
    }

    #[test]
    fn what_fails_without_a_policy_too_shows_nothing() {
        for calls in [Calls::Refused, Calls::Unsettled] {
            for (caller, target) in [(Caller::Control, Target::Allowed), (Caller::Friend, Target::Allowed)] {
                let found = found(&[(caller, target, calls)]);
                assert!(matches!(found.ipv4.ingress, Proof::Unknown(_)), "{caller:?} {calls:?}");
                assert!(matches!(found.ipv4.egress, Proof::Unknown(_)), "{caller:?} {calls:?}");
                assert_eq!(found.refuted(), None);
            }
        }
    }

    #[test]
    fn a_range_of_which_one_port_alone_is_let_through_is_refuted() {
        assert_eq!(
            found(&[(Caller::Friend, Target::InRange, Calls::Refused)])
                .ipv4
                .end_port,
            Proof::Refuted
        );
        assert_eq!(
            found(&[(Caller::Friend, Target::BeyondRange, Calls::Answered)])
                .ipv4
                .end_port,
            Proof::Refuted
        );
    }

    #[test]
    fn where_services_are_translated_is_told_by_who_gets_through() {
        for by_target in ALL_CALLS {
            for by_service in ALL_CALLS {
                let services = found(&[
                    (Caller::ByTargetPort, Target::Service, by_target),
                    (Caller::ByServicePort, Target::Service, by_service),
                ]);
                let services = services.ipv4.services;
                match (by_target, by_service) {
                    (Calls::Answered, Calls::Refused) => assert_eq!(services, Translation::After),
                    (Calls::Refused, Calls::Answered) => assert_eq!(services, Translation::Before),
                    (Calls::Answered, Calls::Answered) => assert_eq!(services, Translation::Either),
                    (Calls::Refused, Calls::Refused) => assert_eq!(services, Translation::Neither),
                    (Calls::Unsettled, _) | (_, Calls::Unsettled) => {
                        assert!(matches!(services, Translation::Unknown(_)));
                    }
                }
            }
        }
    }

    #[test]
    fn proposals_heed_what_was_shown_of_either_family_and_nothing_else() {
        use Translation::{After, Before, Either, Neither};
        let unknown = || Proof::Unknown("nobody called".to_owned());
        let family = |end_port: Proof, services: Translation| OfFamily {
            ingress: Proof::Shown,
            egress: Proof::Shown,
            end_port,
            services,
        };
        let nobody = || Translation::Unknown("nobody called".to_owned());
        for (end_ports, services, ranges, view) in [
            (
                [Proof::Shown, Proof::Shown],
                [After, After],
                Ranges::Grouped,
                ServiceView::Translated,
            ),
            (
                [unknown(), unknown()],
                [nobody(), nobody()],
                Ranges::Grouped,
                ServiceView::Translated,
            ),
            (
                [Proof::Shown, Proof::Refuted],
                [After, Either],
                Ranges::Listed,
                ServiceView::Translated,
            ),
            (
                [Proof::Refuted, unknown()],
                [Before, nobody()],
                Ranges::Listed,
                ServiceView::Untranslated,
            ),
            (
                [Proof::Shown, Proof::Shown],
                [After, Before],
                Ranges::Grouped,
                ServiceView::Untranslated,
            ),
            (
                [Proof::Shown, unknown()],
                [Before, Neither],
                Ranges::Grouped,
                ServiceView::Nothing,
            ),
        ] {
            let ([v4, v6], [of_v4, of_v6]) = (end_ports.clone(), services.clone());
            let found = Enforcement {
                at: Timestamp::UNIX_EPOCH,
                ipv4: family(v4, of_v4),
                ipv6: family(v6, of_v6),
            };
            assert_eq!(
                found.plugin(),
                Plugin { ranges, services: view },
                "{end_ports:?} {services:?}"
            );
        }
    }

    /// Whatever was observed: nothing is claimed that one control call does not back, and it is read back as it was kept.
    #[test]
    fn no_claim_without_its_control_and_every_finding_is_kept_whole() {
        for control in ALL_CALLS {
            for friend in ALL_CALLS {
                for stranger in ALL_CALLS {
                    let found = found(&[
                        (Caller::Control, Target::Allowed, control),
                        (Caller::Friend, Target::Allowed, friend),
                        (Caller::Stranger, Target::Allowed, stranger),
                    ]);
                    let backed = (control, friend) == (Calls::Answered, Calls::Answered);
                    let claims = !matches!(found.ipv4.ingress, Proof::Unknown(_));
                    assert_eq!(claims, backed && stranger != Calls::Unsettled);
                    let kept = serde_json::to_string(&found).unwrap();
                    assert_eq!(serde_json::from_str::<Enforcement>(&kept).unwrap(), found);
                }
            }
        }
    }
}
