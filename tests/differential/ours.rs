//! The evaluator under test. Everything that these tests need of it is here.

use jiff::Timestamp;
use nanoseg_graph::cluster::Cluster;
use nanoseg_policy::evaluate::{Connection, End, Evaluator, PolicySet, Undecidable, Verdict};
use nanoseg_policy::objects;

use crate::world::{Question, Who, World};

/// A world as the evaluator takes it.
pub(crate) struct Ours {
    cluster: Cluster,
    policies: PolicySet,
}

/// The combined verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Allowed,
    Denied,
    /// Why, and the sentence that says so.
    Unknown(Unknown, String),
}

/// Why there may be no verdict, of what these tests ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// A pod on its node's network: each network plugin chooses between two readings.
    HostNetwork,
    /// A dual-stack pod that was asked about by name.
    FamiliesDiffer,
    /// Nothing of this is generated.
    Other,
}

impl Said {
    pub(crate) fn is(&self, allowed: bool) -> bool {
        *self == if allowed { Self::Allowed } else { Self::Denied }
    }
}

impl Ours {
    /// Or what is wrong with the world: every one that is generated can be read, but not every one that is shrunk.
    pub(crate) fn read(world: &World) -> Result<Self, String> {
        let mut cluster = Cluster::new([]);
        let objects = world
            .nodes
            .iter()
            .map(objects::node)
            .chain(world.namespaces.iter().map(objects::namespace))
            .chain(world.pods.iter().map(objects::pod));
        for object in objects {
            cluster.observe(object.map_err(|error| error.to_string())?, Timestamp::UNIX_EPOCH);
        }
        let (policies, rejected) = PolicySet::parse_all(&world.policies, &world.cluster_policies);
        match rejected.first() {
            Some(rejected) => Err(rejected.to_string()),
            None => Ok(Self { cluster, policies }),
        }
    }

    pub(crate) fn ask(&self, world: &World, questions: &[Question]) -> Vec<Said> {
        let evaluator = Evaluator::new(&self.policies, &self.cluster);
        questions
            .iter()
            .map(|question| {
                let said = say(&evaluator, world, question);
                if !matches!(said, Said::Unknown(Unknown::FamiliesDiffer, _)) {
                    return said;
                }
                // Then the family matters: ask about the one that the engines are asked about.
                let mut of_family = question.clone();
                for who in [&mut of_family.source, &mut of_family.destination] {
                    who.by_name = false;
                }
                say(&evaluator, world, &of_family)
            })
            .collect()
    }
}

fn say(evaluator: &Evaluator<'_>, world: &World, question: &Question) -> Said {
    let answer = evaluator.evaluate(&Connection {
        source: end(world, &question.source),
        destination: end(world, &question.destination),
        port: question.port,
        transport: question.transport,
    });
    match answer.combined() {
        Verdict::Allowed(_) | Verdict::NotIsolated => Said::Allowed,
        Verdict::Denied(_) => Said::Denied,
        Verdict::Unknown(why) => {
            let kind = match &why {
                Undecidable::HostNetworkSubject(_) | Undecidable::HostNetworkPeer(_) => Unknown::HostNetwork,
                Undecidable::FamiliesDiffer => Unknown::FamiliesDiffer,
                _ => Unknown::Other,
            };
            Said::Unknown(kind, why.to_string())
        }
    }
}

fn end(world: &World, who: &Who) -> End {
    let pod = who.pod.as_ref().and_then(|name| world.pod(name));
    // The address of a host-network pod is its node's, so it can be meant by name only.
    let named = pod.filter(|pod| who.by_name || pod.spec.as_ref().unwrap().host_network == Some(true));
    match named {
        Some(pod) => End::Pod {
            namespace: pod.metadata.namespace.clone().unwrap(),
            name: pod.metadata.name.clone().unwrap(),
        },
        None => End::Address(who.address),
    }
}
