//! Runs of the world of a peer: clean ones, and one per planted bug.

use super::bugs::Bug;
use super::lane_world::COMMITS;
use super::peer_world::{PeerWorld, Plan};
use super::{Report, explore};

const CALM: Plan = Plan {
    items: &[1, 2],
    crashes: 0,
    peer_crashes: 0,
    losses: 0,
    laters: 0,
    author_breaks: 0,
    store_faults: 0,
    bug: None,
};

fn run(plan: Plan) -> Report {
    explore(PeerWorld::new(plan), 8_000_000)
}

fn holds(name: &str, plan: Plan) {
    let report = run(plan);
    eprintln!("{name}: {} states", report.states);
    if let Some((what, events)) = report.broken {
        panic!("{name}: {what}\n  {}", events.join("\n  "));
    }
}

/// The bug is found, and it is the bug that is found.
fn finds(bug: Bug, plan: Plan) {
    holds("without the bug", plan);
    let report = run(Plan {
        bug: Some(bug),
        ..plan
    });
    let Some((what, events)) = report.broken else {
        panic!("{bug:?} is not found in {} states", report.states);
    };
    eprintln!(
        "{bug:?}: {what} after {} events, {} states",
        events.len(),
        report.states
    );
}

#[test]
fn promises_to_a_peer_hold_when_everything_works() {
    holds("calm", CALM);
    holds(
        "calm, three events",
        Plan {
            items: &[1, 2, 3],
            ..CALM
        },
    );
}

#[test]
fn promises_to_a_peer_hold_when_either_side_crashes() {
    holds("crash", Plan { crashes: 1, ..CALM });
    holds(
        "peer crashes",
        Plan {
            peer_crashes: 1,
            ..CALM
        },
    );
    holds(
        "both crash, one event",
        Plan {
            items: &[1],
            crashes: 1,
            peer_crashes: 1,
            ..CALM
        },
    );
}

#[test]
fn promises_to_a_peer_hold_when_the_network_loses_requests_and_answers() {
    holds("loss", Plan { losses: 1, ..CALM });
    holds(
        "losses, one event",
        Plan {
            items: &[1],
            losses: 2,
            ..CALM
        },
    );
    holds(
        "loss and crash, one event",
        Plan {
            items: &[1],
            losses: 1,
            crashes: 1,
            ..CALM
        },
    );
    holds(
        "loss and the author repeats, one event",
        Plan {
            items: &[1],
            losses: 1,
            author_breaks: 1,
            ..CALM
        },
    );
}

#[test]
fn promises_to_a_peer_hold_when_it_wants_events_later() {
    holds("later", Plan { laters: 1, ..CALM });
    holds(
        "later, twice, one event",
        Plan {
            items: &[1],
            laters: 2,
            ..CALM
        },
    );
}

#[test]
fn promises_to_a_peer_hold_when_the_store_fails() {
    holds(
        "store",
        Plan {
            store_faults: 1,
            ..CALM
        },
    );
    holds(
        "store, loss, one event",
        Plan {
            items: &[1],
            store_faults: 1,
            losses: 1,
            ..CALM
        },
    );
}

#[test]
fn promises_to_a_peer_hold_when_commits_come_past_the_lane() {
    holds(
        "commit",
        Plan {
            items: &[1, COMMITS, 2],
            ..CALM
        },
    );
    holds(
        "commit, loss",
        Plan {
            items: &[COMMITS, 2],
            losses: 1,
            ..CALM
        },
    );
    holds(
        "commit, crash",
        Plan {
            items: &[COMMITS, 2],
            crashes: 1,
            ..CALM
        },
    );
}

#[test]
fn each_bug_planted_between_peers_is_found() {
    let crash = Plan {
        peer_crashes: 1,
        ..CALM
    };
    finds(Bug::AnswerAtReceipt, crash);
    let loss = Plan { losses: 1, ..CALM };
    finds(Bug::OldCreated, loss);
    finds(Bug::OutboxOvertaken, loss);
    finds(Bug::SkipUnanswered, loss);
    let commit = Plan {
        items: &[1, COMMITS, 2],
        ..CALM
    };
    finds(Bug::CommitWithoutPoke, commit);
}
