use super::*;

const LATER: Duration = Duration::from_secs(10);

fn lease(holder: Option<&str>, number: i32, version: &str) -> Lease {
    Lease {
        metadata: ObjectMeta {
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(10),
            lease_transitions: Some(number),
            ..LeaseSpec::default()
        }),
    }
}

#[test]
fn another_ones_lease_is_taken_only_when_it_was_seen_unchanged_for_its_whole_time() {
    let began = Boot::now();
    let seen = |version: &str| {
        Some(Observed {
            version: Some(version.to_owned()),
            since: began,
        })
    };
    let early = began.after(Duration::from_nanos(9_999_999_999));
    let late = began.after(LATER);
    let other = lease(Some("other"), 3, "7");
    for (what, lease, term, observed, now, expected) in [
        ("there is none", None, None, None, late, Step::Take),
        ("given back", Some(lease(None, 3, "7")), None, None, early, Step::Take),
        (
            "given back, as an empty name",
            Some(lease(Some(""), 3, "7")),
            None,
            None,
            early,
            Step::Take,
        ),
        (
            "seen for the first time",
            Some(other.clone()),
            None,
            None,
            late,
            Step::Wait,
        ),
        ("not over yet", Some(other.clone()), None, seen("7"), early, Step::Wait),
        ("over", Some(other.clone()), None, seen("7"), late, Step::Take),
        (
            "renewed while this one was frozen",
            Some(other.clone()),
            None,
            seen("6"),
            late,
            Step::Wait,
        ),
        (
            "lost while this one was frozen",
            Some(other),
            Some(2),
            seen("6"),
            late,
            Step::Wait,
        ),
        (
            "its own",
            Some(lease(Some("me"), 3, "7")),
            Some(3),
            seen("7"),
            early,
            Step::Renew,
        ),
        (
            "of the process before",
            Some(lease(Some("me"), 3, "7")),
            None,
            None,
            early,
            Step::Take,
        ),
        (
            "its name, another term",
            Some(lease(Some("me"), 4, "9")),
            Some(3),
            seen("7"),
            early,
            Step::Take,
        ),
    ] {
        assert_eq!(
            step(lease.as_ref(), "me", term, observed.as_ref(), now),
            expected,
            "{what}"
        );
    }
}

#[test]
fn writing_ends_well_before_anybody_else_may_begin() {
    for millis in [1_000, 2_500, 10_000] {
        let terms = Terms {
            lease: Duration::from_millis(millis),
        };
        let taken_after = Duration::from_secs(u64::try_from(terms.seconds()).unwrap());
        assert!(terms.write() + terms.lease / 5 < taken_after, "{terms:?}");
        assert!(terms.renew() * 3 < terms.write(), "{terms:?}");
    }
}
