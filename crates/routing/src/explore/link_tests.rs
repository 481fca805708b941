//! Runs of the world of two nodes: clean ones, and one per planted bug.

use super::bugs::Bug;
use super::explore;
use super::lane_store::Item;
use super::link_world::{LinkWorld, Plan};

const ONE: &[Item] = &[1];
const TWO: &[Item] = &[1, 2];

const CALM: Plan = Plan {
    items: TWO,
    drops: 0,
    repeats: 0,
    flushes: 0,
    device_moves: 0,
    author_moves: 0,
    crashes: 0,
    partings: 0,
    late: 0,
    bug: None,
};

fn holds(name: &str, plan: Plan) {
    let report = explore(LinkWorld::new(plan), 12_000_000);
    eprintln!("{name}: {} states", report.states);
    if let Some((what, events)) = report.broken {
        panic!("{name}: {what}\n  {}", events.join("\n  "));
    }
}

fn finds(bug: Bug, plan: Plan) {
    let report = explore(
        LinkWorld::new(Plan {
            bug: Some(bug),
            ..plan
        }),
        12_000_000,
    );
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
fn promises_hold_across_nodes_when_everything_works() {
    holds("two nodes", CALM);
}

#[test]
fn promises_hold_when_the_network_forgets() {
    let one = Plan { items: ONE, ..CALM };
    holds("a message twice", Plan { repeats: 1, ..one });
    holds("routes flushed", Plan { flushes: 1, ..one });
    holds("two lost of one", Plan { drops: 2, ..one });
    holds("parted, one", Plan { partings: 1, ..one });
}

#[test]
fn promises_hold_when_patience_ends_too_early() {
    holds(
        "late, one",
        Plan {
            items: ONE,
            late: 2,
            ..CALM
        },
    );
}

#[test]
fn promises_hold_when_somebody_moves() {
    let one = Plan { items: ONE, ..CALM };
    holds(
        "device moves, one",
        Plan {
            device_moves: 1,
            ..one
        },
    );
    holds(
        "author moves, one",
        Plan {
            author_moves: 1,
            ..one
        },
    );
    holds("crash, one", Plan { crashes: 1, ..one });
}

#[test]
#[ignore = "minutes; run after every change of the link with `--ignored`"]
fn promises_hold_in_larger_worlds_of_two_nodes() {
    holds(
        "device moves",
        Plan {
            device_moves: 1,
            ..CALM
        },
    );
    holds(
        "author moves",
        Plan {
            author_moves: 1,
            ..CALM
        },
    );
    holds("crash", Plan { crashes: 1, ..CALM });
    holds(
        "parted",
        Plan {
            partings: 1,
            ..CALM
        },
    );
    holds("a message lost", Plan { drops: 1, ..CALM });
    holds("late", Plan { late: 1, ..CALM });
    holds("a message twice", Plan { repeats: 1, ..CALM });
    holds("routes flushed", Plan { flushes: 1, ..CALM });
}

#[test]
fn each_planted_bug_of_links_is_found() {
    finds(Bug::NoSync, Plan { drops: 1, ..CALM });
    finds(
        Bug::PlaceChangedEarly,
        Plan {
            device_moves: 1,
            ..CALM
        },
    );
    finds(
        Bug::AnswerByNumber,
        Plan {
            late: 1,
            drops: 1,
            ..CALM
        },
    );
    finds(Bug::GapTaken, Plan { drops: 1, ..CALM });
    finds(Bug::FallbackTurnedRound, Plan { late: 1, ..CALM });
}
