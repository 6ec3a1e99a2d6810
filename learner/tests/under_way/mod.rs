//! UDP exchanges that are under way when the learner starts: nobody guesses who began them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nanoseg_graph::flow::{LossReason, Reporter, Transport};

use crate::node::learner::{Learner, Reported as _};
use crate::node::{Container, Node, PATIENCE, Step, is_possible};

const ANSWERS: u16 = 40_000;
const ANSWERS_CONNECTED: u16 = 40_001;
const ANSWERS_LATE: u16 = 40_002;

/// Conversations over both families.
fn converse(from: [SocketAddr; 2], to: [SocketAddr; 2], connected: bool) -> Vec<Step> {
    let step = |(from, to)| Step::Converse { from, to, connected };
    from.into_iter().zip(to).map(step).collect()
}

/// Asks from a new port each time, over both families, until one exchange is in the report of the end that answers. Says
/// how often: what begins in the grace is not known to begin, so only the last ones are in the report.
fn ask_until_the_grace_is_over(learner: &Learner, asking: &Container, answering: &Container) -> u16 {
    let is_over = || {
        learner.report().is_some_and(|report| {
            let (subject, reporter) = (answering.subject(), Reporter::Destination);
            let counts = report.counts(&subject, reporter, asking.v6, ANSWERS, Transport::Udp);
            counts.is_some()
        })
    };
    let end = Instant::now() + PATIENCE;
    let mut asked = 0;
    while !is_over() {
        assert!(Instant::now() < end, "{:#?}", learner.report());
        let ends = asking.at(50_000 + asked).into_iter().zip(answering.at(ANSWERS));
        let steps: Vec<Step> = ends.map(|(from, to)| Step::Ask { from, to, times: 2 }).collect();
        asking.run(&steps).end();
        asked += 1;
    }
    asked
}

#[test]
fn an_exchange_that_is_under_way_at_the_start_has_no_guessed_direction() {
    if !is_possible() {
        return;
    }
    let mut node = Node::new();
    let (client, forgetful, newcomer) = (node.container(), node.container(), node.container());
    let (server, per_client, late) = (node.container(), node.container(), node.container());
    let [own, also_own] = [47_001, 47_002].map(|port| client.at(port));
    let [theirs, patient] = [47_003, 47_004].map(|port| forgetful.at(port));
    let _answering = server.run(&server.at(ANSWERS).map(Step::Echo));
    let ends = per_client.at(ANSWERS_CONNECTED).into_iter().zip(own);
    let per_client_steps: Vec<Step> = ends.map(|(at, to)| Step::EchoConnected { at, to }).collect();
    let _answering_connected = per_client.run(&per_client_steps);
    // So late that a learner that starts meets the answer first.
    let after = Duration::from_millis(700);
    let _answering_late = late.run(&late.at(ANSWERS_LATE).map(|at| Step::EchoLate { at, after }));
    let connected = [
        converse(own, per_client.at(ANSWERS_CONNECTED), true),
        converse(also_own, server.at(ANSWERS), true),
    ];
    let _client = client.run(&connected.concat());
    let unconnected = [
        converse(theirs, server.at(ANSWERS), false),
        converse(patient, late.at(ANSWERS_LATE), false),
    ];
    let _forgetful = forgetful.run(&unconnected.concat());

    let learner = node.learner(&["--udp-grace", "2s"]);
    let asked = ask_until_the_grace_is_over(&learner, &newcomer, &server);
    let report = learner.end();

    let counts = |of: &Container, reporter, peer: IpAddr, port| {
        report.counts(&of.subject(), reporter, peer, port, Transport::Udp)
    };
    let under_way = |of: &Container| report.lost(&of.subject(), LossReason::UnderWay);
    for (to, port) in [(&server, ANSWERS), (&per_client, ANSWERS_CONNECTED)] {
        for peer in [IpAddr::from(to.v4), to.v6.into()] {
            let source = counts(&client, Reporter::Source, peer, port);
            assert_eq!(source, Some([1, 1, 0]), "a connected socket says who began: {peer}");
        }
    }
    assert_eq!(report.of(&client.subject()).count(), 4, "{report:#?}");
    assert_eq!(under_way(&client), 0);
    for (undecided, exchanges) in [(&forgetful, 4), (&per_client, 2), (&late, 2)] {
        assert_eq!(report.of(&undecided.subject()).count(), 0, "{report:#?}");
        assert_eq!(under_way(undecided), exchanges);
    }
    let mut recorded = 0;
    for peer in [IpAddr::from(newcomer.v4), newcomer.v6.into()] {
        let [begun, answered, _] = counts(&server, Reporter::Destination, peer, ANSWERS).unwrap();
        assert_eq!(begun, answered);
        recorded += begun;
    }
    for peer in [IpAddr::from(server.v4), server.v6.into()] {
        let [begun, answered, _] = counts(&newcomer, Reporter::Source, peer, ANSWERS).unwrap();
        assert_eq!(begun, answered);
    }
    assert_eq!(report.of(&server.subject()).count(), 2, "{report:#?}");
    let exchanges = 4 + 2 * u64::from(asked);
    assert_eq!(
        under_way(&server) + recorded,
        exchanges,
        "each is recorded or counted as lost"
    );
    let is_listened_on = |port| [ANSWERS, ANSWERS_CONNECTED, ANSWERS_LATE].contains(&port);
    assert!(
        report.flows.iter().all(|flow| is_listened_on(flow.key.port)),
        "{report:#?}"
    );
}
