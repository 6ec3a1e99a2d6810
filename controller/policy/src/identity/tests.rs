use proptest::prelude::*;

use super::scope::NAMED;
use super::*;
use crate::fixture::{cluster, controller, labels, owned, pod, replica_set, workload};
use nanoseg_graph::cluster::Object;

fn deployment(name: &str, selector: Labels, template: Labels) -> Object {
    controller("Deployment", "shop", name, selector, template)
}

fn running(name: &str, of: (&str, &str), labels: Labels) -> Object {
    Object::Pod(owned(of.0, of.1, pod("shop", name, labels, &["198.18.1.2"])))
}

fn identity(objects: impl IntoIterator<Item = Object>, kind: &str, name: &str) -> Identity {
    let cluster = cluster(objects);
    Identities::new(&cluster)
        .get(&workload(kind, "shop", name))
        .unwrap()
        .clone()
}

#[test]
fn p7_labels_of_a_revision_a_run_or_a_replica_are_never_selected() {
    let revision = |hash: &str| labels([("app", "web"), ("pod-template-hash", hash)]);
    let web = |hash: &str| {
        [
            deployment("web", labels([("app", "web")]), labels([("app", "web")])),
            replica_set("shop", &format!("web-{hash}"), "web", revision(hash)),
            running(
                &format!("web-{hash}-x"),
                ("ReplicaSet", &format!("web-{hash}")),
                revision(hash),
            ),
        ]
    };
    let before = identity(web("5d8"), "Deployment", "web");
    assert_eq!(
        before,
        Identity {
            labels: labels([("app", "web")]).into(),
            proof: Proof::Exact
        }
    );
    assert_eq!(
        before,
        identity(web("77f"), "Deployment", "web"),
        "a rollout changes nothing"
    );
    let during = web("5d8").into_iter().chain(web("77f"));
    assert_eq!(
        before,
        identity(during, "Deployment", "web"),
        "and neither does its middle"
    );

    let generated = labels([
        ("app", "x"),
        ("apps.kubernetes.io/pod-index", "0"),
        ("batch.kubernetes.io/controller-uid", "u"),
        ("batch.kubernetes.io/job-completion-index", "0"),
        ("batch.kubernetes.io/job-name", "x-1"),
        ("controller-revision-hash", "x-5d8"),
        ("controller-uid", "u"),
        ("job-name", "x-1"),
        ("pod-template-generation", "3"),
        ("rollouts-pod-template-hash", "5d8"),
        ("statefulset.kubernetes.io/pod-name", "x-0"),
        ("app.kubernetes.io/version", "1.2.3"),
        ("failure-domain.beta.kubernetes.io/zone", "a"),
        ("helm.sh/chart", "x-1.2.3"),
        ("topology.kubernetes.io/region", "eu"),
        ("topology.kubernetes.io/zone", "eu-a"),
    ]);
    // Others that share all but what may not be used, so that every usable label is wanted.
    let other = running("y", ("Rollout", "y"), labels([("tier", "front")]));
    let x = identity([running("x", ("Rollout", "x"), generated), other], "Rollout", "x");
    assert_eq!(
        x,
        Identity {
            labels: labels([("app", "x")]).into(),
            proof: Proof::Exact
        }
    );
}

#[test]
fn p7_a_run_of_a_cron_job_is_selected_by_its_job_template() {
    let run = |index: u32| {
        let name = format!("report-{index}");
        let job = Object::Controller(Controller {
            namespace: "shop".to_owned(),
            kind: "Job".to_owned(),
            name: name.clone(),
            owner: Some(OwnerRef {
                kind: "CronJob".to_owned(),
                name: "report".to_owned(),
            }),
            selector: labels([("batch.kubernetes.io/controller-uid", &name)]).into(),
            template_labels: labels([("app", "report"), ("batch.kubernetes.io/job-name", &name)]).into(),
        });
        let labels = labels([
            ("app", "report"),
            ("job-name", &name),
            ("batch.kubernetes.io/job-name", &name),
        ]);
        [job, running(&format!("{name}-x"), ("Job", &name), labels)]
    };
    let cron = || controller("CronJob", "shop", "report", Labels::new(), labels([("app", "report")]));
    let expected = Identity {
        labels: labels([("app", "report")]).into(),
        proof: Proof::Exact,
    };
    assert_eq!(
        identity([cron()].into_iter().chain(run(1)).chain(run(2)), "CronJob", "report"),
        expected
    );
    assert_eq!(identity([cron()], "CronJob", "report"), expected, "between its runs");
}

#[test]
fn p8_two_releases_of_one_chart_stay_apart() {
    let release = |release: &str| {
        let template = labels([
            ("app.kubernetes.io/name", "redis"),
            ("app.kubernetes.io/instance", release),
            ("app.kubernetes.io/version", "7"),
            ("helm.sh/chart", "redis-1.0"),
        ]);
        // A selector that forgot the instance, as charts do.
        deployment(
            &format!("{release}-redis"),
            labels([("app.kubernetes.io/name", "redis")]),
            template,
        )
    };
    let expected = labels([
        ("app.kubernetes.io/name", "redis"),
        ("app.kubernetes.io/instance", "one"),
    ]);
    assert_eq!(
        identity([release("one"), release("two")], "Deployment", "one-redis"),
        Identity {
            labels: expected.into(),
            proof: Proof::Exact
        }
    );
    let alone = identity([release("one")], "Deployment", "one-redis");
    assert_eq!(
        alone.labels,
        labels([("app.kubernetes.io/name", "redis")]).into(),
        "nothing is added without need"
    );
}

#[test]
fn p9_a_selector_that_takes_others_in_is_never_exact() {
    let both = || {
        [
            deployment("web", labels([("app", "web")]), labels([("app", "web")])),
            deployment(
                "canary",
                labels([("app", "web"), ("track", "canary")]),
                labels([("app", "web"), ("track", "canary")]),
            ),
        ]
    };
    let hint = Label {
        key: "app.kubernetes.io/component".to_owned(),
        value: "web".to_owned(),
    };
    let web = identity(both(), "Deployment", "web");
    assert_eq!(web.labels, labels([("app", "web")]).into());
    let Proof::Overlaps { with, hint: told } = web.proof else {
        panic!("exact")
    };
    assert_eq!((with.to_string(), told), ("Deployment shop/canary".to_owned(), hint));
    assert_eq!(identity(both(), "Deployment", "canary").proof, Proof::Exact);
    let stray = running("stray", ("ReplicaSet", "gone"), labels([("app", "db")]));
    let db = deployment("db", labels([("app", "db")]), labels([("app", "db")]));
    let Proof::Overlaps { with, .. } = identity([db, stray], "Deployment", "db").proof else {
        panic!("exact")
    };
    let others: Vec<_> = with.named().cloned().collect();
    assert_eq!(
        others,
        [workload("ReplicaSet", "shop", "gone")],
        "a pod of somebody else"
    );
}

#[test]
fn release_labels_serve_where_the_owners_selector_fixes_them() {
    let reviews = |version: &str| {
        let all = labels([("app", "reviews"), ("version", version)]);
        deployment(&format!("reviews-{version}"), all.clone(), all)
    };
    let v1 = identity([reviews("v1"), reviews("v2")], "Deployment", "reviews-v1");
    assert_eq!(
        v1,
        Identity {
            labels: labels([("app", "reviews"), ("version", "v1")]).into(),
            proof: Proof::Exact
        }
    );
    assert_eq!(
        identity([reviews("v1")], "Deployment", "reviews-v1").labels,
        labels([("app", "reviews")]).into()
    );
}

#[test]
fn labels_of_a_node_serve_where_the_owners_selector_fixes_them() {
    let zone = |zone: &str| labels([("app", "cache"), ("topology.kubernetes.io/zone", zone)]);
    let cache = |name: &str| deployment(&format!("cache-{name}"), zone(name), zone(name));
    assert_eq!(
        identity([cache("a"), cache("b")], "Deployment", "cache-a"),
        Identity {
            labels: zone("a").into(),
            proof: Proof::Exact
        }
    );
    // Nobody's template has them, so that they tell nobody apart for long.
    let pods = [
        running("a-0", ("PodSet", "a"), zone("a")),
        running("b-0", ("PodSet", "b"), zone("b")),
    ];
    let a = identity(pods, "PodSet", "a");
    assert_eq!(a.labels, labels([("app", "cache")]).into());
    assert!(matches!(a.proof, Proof::Overlaps { .. }), "{:?}", a.proof);
}

#[test]
fn what_the_hint_says_separates() {
    let web = |template: Labels| deployment("web", labels([("app", "web")]), template);
    let canary = deployment(
        "canary",
        labels([("app", "web")]),
        labels([("app", "web"), ("app.kubernetes.io/component", "web")]),
    );
    let Proof::Overlaps { hint, .. } =
        identity([web(labels([("app", "web")])), canary.clone()], "Deployment", "web").proof
    else {
        panic!("exact")
    };
    let mut template = labels([("app", "web")]);
    template.insert(hint.key, hint.value);
    assert_eq!(
        identity([web(template), canary], "Deployment", "web").proof,
        Proof::Exact
    );
}

#[test]
fn pods_without_stable_labels_have_no_identity() {
    let hint = Label {
        key: "app.kubernetes.io/name".to_owned(),
        value: "once".to_owned(),
    };
    let once = running("once-x", ("Job", "once"), labels([("job-name", "once")]));
    let other = running("web-x", ("Job", "web"), labels([("app", "web")]));
    let found = identity([once, other], "Job", "once");
    assert!(found.labels.is_empty());
    let Proof::NoLabels { with, hint: told } = found.proof else {
        panic!("it has labels")
    };
    assert_eq!((with.to_string(), told), ("Job shop/web".to_owned(), hint));
}

#[test]
fn only_a_finished_bare_pod_is_forgotten_by_the_others() {
    let web = || deployment("web", labels([("app", "web")]), labels([("app", "web")]));
    let mut debug = pod("shop", "debug", labels([("app", "web")]), &[]);
    debug.phase = PodPhase::Finished;
    assert_eq!(
        identity([web(), Object::Pod(debug.clone())], "Deployment", "web").proof,
        Proof::Exact
    );
    debug.phase = PodPhase::Running;
    assert_ne!(
        identity([web(), Object::Pod(debug)], "Deployment", "web").proof,
        Proof::Exact
    );
}

#[test]
fn an_owner_of_owners_that_is_not_known_has_the_selector_of_what_it_owns() {
    let set = Object::Controller(Controller {
        namespace: "shop".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: "roll-1".to_owned(),
        owner: Some(OwnerRef {
            kind: "Rollout".to_owned(),
            name: "roll".to_owned(),
        }),
        selector: labels([("app", "roll"), ("rollouts-pod-template-hash", "1")]).into(),
        template_labels: labels([("app", "roll"), ("tier", "x"), ("rollouts-pod-template-hash", "1")]).into(),
    });
    let expected = Identity {
        labels: labels([("app", "roll")]).into(),
        proof: Proof::Exact,
    };
    assert_eq!(identity([set], "Rollout", "roll"), expected);
}

#[test]
fn many_labels_are_reduced_as_well() {
    let mut one = labels([("app", "x")]);
    let mut two = one.clone();
    for index in 0..20 {
        one.insert(format!("k{index:02}"), "1".to_owned());
        two.insert(format!("k{index:02}"), if index == 17 { "2" } else { "1" }.to_owned());
    }
    let selector = || labels([("app", "x")]);
    let found = identity(
        [deployment("one", selector(), one), deployment("two", selector(), two)],
        "Deployment",
        "one",
    );
    assert_eq!(
        found,
        Identity {
            labels: labels([("app", "x"), ("k17", "1")]).into(),
            proof: Proof::Exact
        }
    );
}

#[test]
fn combinations_come_in_order_and_all() {
    let candidates = [("a", ""), ("b", ""), ("c", "")];
    let seen: Vec<String> = combinations(&candidates)
        .map(|chosen| chosen.into_iter().map(|(key, _)| key).collect())
        .collect();
    assert_eq!(seen, ["a", "b", "c", "ab", "ac", "bc", "abc"]);
    let many: Vec<(&str, &str)> = vec![("k", "v"); COMBINED];
    assert_eq!(combinations(&many).count(), (1 << COMBINED) - 1);
}

/// Bare pods with these labels, and the names of all others whose pods each identity's labels select, by looking at every pair.
fn overlaps(pods: &[Labels]) -> Vec<(Identity, Vec<Workload>)> {
    let name = |index: usize| format!("w{index:05}");
    let objects = (0..)
        .zip(pods)
        .map(|(index, labels)| Object::Pod(pod("shop", &name(index), labels.clone(), &[])));
    let identities = Identities::new(&cluster(objects));
    let found = (0..pods.len()).map(|own| {
        let identity = identities.get(&workload("Pod", "shop", &name(own))).unwrap().clone();
        let labels = &identity.labels;
        let selects = |face: &Labels| labels.iter().all(|(key, value)| face.get(key) == Some(value));
        let others = (0..).zip(pods).filter(|(index, face)| *index != own && selects(face));
        let others = others.map(|(index, _)| workload("Pod", "shop", &name(index)));
        let others = others.collect();
        (identity, others)
    });
    found.collect()
}

/// The names, and how many are not named.
fn told(proof: &Proof) -> (Vec<Workload>, usize) {
    match proof {
        Proof::Exact => (Vec::new(), 0),
        Proof::Overlaps { with, .. } | Proof::NoLabels { with, .. } => {
            assert_eq!(with.is_empty(), with.count() == 0);
            assert_eq!(with.count(), with.named().count() + with.unnamed());
            (with.named().cloned().collect(), with.unnamed())
        }
    }
}

#[test]
fn of_many_others_some_are_named_and_the_rest_is_counted() {
    for (pods, names, more) in [
        (2, 1, ""),
        (NAMED, NAMED - 1, ""),
        (NAMED + 1, NAMED, ""),
        (NAMED + 2, NAMED, " and 1 more"),
        (500, NAMED, " and 479 more"),
    ] {
        for (identity, mut others) in overlaps(&vec![labels([("app", "x")]); pods]) {
            let (named, unnamed) = told(&identity.proof);
            assert_eq!((named.len(), named.len() + unnamed), (names, others.len()), "of {pods}");
            others.truncate(NAMED);
            assert_eq!(named, others, "the first in order");
            let Proof::Overlaps { with, .. } = identity.proof else {
                panic!("exact")
            };
            let listed: Vec<String> = others.iter().map(ToString::to_string).collect();
            assert_eq!(with.to_string(), listed.join(", ") + more);
        }
    }
}

/// A list of all others for each pod would be 400 million names.
#[test]
fn what_is_held_of_thousands_of_pods_with_one_label_is_one_list() {
    const PODS: usize = 20_000;
    for labels in [labels([("app", "x")]), Labels::new()] {
        let pod = |index: usize| Object::Pod(pod("shop", &format!("x{index}"), labels.clone(), &[]));
        let identities = Identities::new(&cluster((0..PODS).map(pod)));
        let mut lists = BTreeSet::new();
        let mut names = BTreeSet::new();
        for (_, identity) in identities.iter() {
            let (Proof::Overlaps { with, .. } | Proof::NoLabels { with, .. }) = &identity.proof else {
                panic!("exact")
            };
            assert_eq!(with.count(), PODS - 1);
            lists.insert(with.named.as_ptr());
            names.extend(with.named.iter().map(Arc::as_ptr));
        }
        // All pods share one list but those that are in it.
        assert_eq!((lists.len(), names.len()), (NAMED + 1, NAMED + 1));
    }
}

fn label_set() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("(app|tier|track|version|pod-template-hash)", "[xy]", 0..5)
}

type Described = (Labels, BTreeSet<String>, Vec<Labels>);

/// A template, which of its keys the selector has, and labels in which single pods differ from it.
fn workloads() -> impl Strategy<Value = Vec<Described>> {
    let keys = prop::collection::btree_set("(app|tier|track|version)", 0..3);
    prop::collection::vec((label_set(), keys, prop::collection::vec(label_set(), 0..3)), 1..6)
}

proptest! {
    #[test]
    fn exact_means_exact_stable_and_minimal(described in workloads()) {
        let mut objects = Vec::new();
        // What each workload's pods may look like: its template, and its pods.
        let mut faces: Vec<Vec<Labels>> = Vec::new();
        for (index, (template, keys, others)) in described.iter().enumerate() {
            let name = format!("w{index}");
            let selector: Labels = template.iter().filter(|(key, _)| keys.contains(*key)).map(|(key, value)| (key.clone(), value.clone())).collect();
            let mut own = vec![template.clone()];
            for (number, other) in others.iter().enumerate() {
                // A pod always satisfies its owner's selector.
                let face: Labels = other.iter().chain(&selector).map(|(key, value)| (key.clone(), value.clone())).collect();
                objects.push(running(&format!("{name}-{number}"), ("StatefulSet", &name), face.clone()));
                own.push(face);
            }
            objects.push(controller("StatefulSet", "shop", &name, selector, template.clone()));
            faces.push(own);
        }
        let selects = |labels: &Labels, face: &Labels| labels.iter().all(|(key, value)| face.get(key) == Some(value));
        let cluster = cluster(objects);
        let identities = Identities::new(&cluster);
        for (index, (template, keys, _)) in described.iter().enumerate() {
            let subject = workload("StatefulSet", "shop", &format!("w{index}"));
            let found = identities.get(&subject).unwrap();
            let others = || faces.iter().enumerate().filter(|(other, _)| *other != index).flat_map(|(_, faces)| faces);
            prop_assert!(faces[index].iter().all(|face| selects(&found.labels, face)), "selects all of its own");
            prop_assert!(!found.labels.contains_key("pod-template-hash"));
            let fixed = |key: &String| keys.contains(key);
            prop_assert!(found.labels.keys().all(|key| !is_passing(key) || fixed(key)));
            match &found.proof {
                Proof::Exact => {
                    prop_assert!(!found.labels.is_empty());
                    prop_assert!(!others().any(|face| selects(&found.labels, face)), "and nobody else");
                    for key in found.labels.keys().filter(|key| !fixed(key) || is_passing(key)) {
                        let mut fewer = (*found.labels).clone();
                        fewer.remove(key);
                        prop_assert!(fewer.is_empty() || others().any(|face| selects(&fewer, face)), "{key} is not needed");
                    }
                }
                Proof::Overlaps { with, .. } => {
                    let expected: BTreeSet<Workload> = faces
                        .iter()
                        .enumerate()
                        .filter(|(other, faces)| *other != index && faces.iter().any(|face| selects(&found.labels, face)))
                        .map(|(other, _)| workload("StatefulSet", "shop", &format!("w{other}")))
                        .collect();
                    prop_assert_eq!(with.named().cloned().collect::<BTreeSet<_>>(), expected);
                    prop_assert_eq!(with.unnamed(), 0);
                    prop_assert!(!with.is_empty());
                    // All usable labels together do not help either.
                    let common = template.iter().filter(|(key, value)| {
                        !is_generated(key) && (!is_passing(key) || fixed(key)) && faces[index].iter().all(|face| face.get(*key) == Some(*value))
                    });
                    let all: Labels = common.map(|(key, value)| (key.clone(), value.clone())).collect();
                    prop_assert!(others().any(|face| selects(&all, face)));
                }
                Proof::NoLabels { .. } => prop_assert!(found.labels.is_empty()),
            }
        }
    }

    #[test]
    fn an_overlap_is_the_first_of_all_others_and_their_count(
        faces in prop::collection::vec(prop::collection::btree_map("(app|tier|track)", "[xy]", 0..3), 1..3 * NAMED),
    ) {
        for (identity, mut others) in overlaps(&faces) {
            let (named, unnamed) = told(&identity.proof);
            prop_assert_eq!(named.len() + unnamed, others.len());
            others.truncate(NAMED);
            prop_assert_eq!(named, others);
        }
    }

    /// A rollout changes what a template says beside the selector, and every revision adds its own hash. The labels that were
    /// proven exact before it select the same workload's pods, all of them and nobody else's, when half and when all of it is done.
    #[test]
    fn p7_p9_an_exact_selector_holds_before_during_and_after_a_rollout(described in workloads(), next in label_set()) {
        let of = |labels: &Labels, keys: &BTreeSet<String>| -> Labels {
            labels.iter().filter(|(key, _)| keys.contains(*key)).map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        // Stage 0: the old revision; 1: both; 2: the new one. Only the first workload is rolled out.
        let stage = |stage: usize| {
            let mut objects = Vec::new();
            for (index, (template, keys, _)) in described.iter().enumerate() {
                let name = format!("w{index}");
                let selector = of(template, keys);
                let renewed: Labels = next.iter().chain(&selector).map(|(key, value)| (key.clone(), value.clone())).collect();
                let rolls = index == 0 && stage > 0;
                objects.push(deployment(&name, selector, if rolls { renewed.clone() } else { template.clone() }));
                let revisions = [(0, template.clone(), !(index == 0 && stage == 2)), (1, renewed, rolls)];
                for (revision, mut labels, lives) in revisions {
                    let set = format!("{name}-{revision}");
                    labels.insert("pod-template-hash".to_owned(), revision.to_string());
                    if lives || index == 0 && revision == 0 {
                        objects.push(replica_set("shop", &set, &name, labels.clone()));
                    }
                    if lives {
                        objects.push(running(&format!("{set}-x"), ("ReplicaSet", &set), labels));
                    }
                }
            }
            cluster(objects)
        };
        let subject = workload("Deployment", "shop", "w0");
        for at in 0..3 {
            let cluster = stage(at);
            let found = Identities::new(&cluster).get(&subject).unwrap().clone();
            if found.proof != Proof::Exact {
                continue;
            }
            let selected: BTreeSet<&str> = cluster
                .pods()
                .filter(|pod| found.labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value)))
                .map(|pod| &*pod.name)
                .collect();
            let own: BTreeSet<&str> = cluster.pods_of(&subject).map(|pod| &*pod.name).collect();
            prop_assert_eq!(&selected, &own, "at stage {}", at);
            // While both revisions run, what is chosen holds for the end of the rollout too.
            if at == 1 {
                let after = stage(2);
                let selected: BTreeSet<&str> = after
                    .pods()
                    .filter(|pod| found.labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value)))
                    .map(|pod| &*pod.name)
                    .collect();
                let own: BTreeSet<&str> = after.pods_of(&subject).map(|pod| &*pod.name).collect();
                prop_assert_eq!(selected, own, "chosen while both ran");
            }
        }
    }
}
