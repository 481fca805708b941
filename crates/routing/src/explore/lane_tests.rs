//! Runs of the lane's world: clean ones, and one per planted bug.

use super::bugs::Bug;
use super::lane_store::Item;
use super::lane_world::{COMMITS, LaneWorld, Plan};
use super::{Report, explore};

const CALM: Plan = Plan {
    authors: &[&[1, 2]],
    crashes: 0,
    device_breaks: 0,
    author_breaks: 0,
    store_faults: 0,
    expiries: 0,
    acked_keys: 8,
    unacked_max: 8,
    bug: None,
};

const COMMIT: Item = COMMITS;

const ONE: &[&[Item]] = &[&[1]];

fn run(plan: Plan) -> Report {
    explore(LaneWorld::new(plan), 8_000_000)
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
fn promises_hold_when_everything_works() {
    holds("calm", CALM);
    holds(
        "calm, three items",
        Plan {
            authors: &[&[1, 2, 3]],
            ..CALM
        },
    );
    holds(
        "calm, one frame at a time",
        Plan {
            authors: &[&[1, 2, 3]],
            unacked_max: 1,
            ..CALM
        },
    );
}

#[test]
fn promises_hold_when_the_author_repeats_and_the_server_crashes() {
    holds(
        "repeat, crash",
        Plan {
            crashes: 1,
            author_breaks: 1,
            ..CALM
        },
    );
    holds(
        "two authors",
        Plan {
            authors: &[&[1], &[2]],
            crashes: 1,
            author_breaks: 1,
            ..CALM
        },
    );
}

#[test]
fn promises_hold_when_the_device_comes_and_goes() {
    holds(
        "device breaks",
        Plan {
            device_breaks: 1,
            ..CALM
        },
    );
    holds(
        "device breaks twice, one item",
        Plan {
            authors: ONE,
            device_breaks: 2,
            ..CALM
        },
    );
    let one = Plan {
        authors: ONE,
        device_breaks: 1,
        ..CALM
    };
    holds("device breaks, crash, one item", Plan { crashes: 1, ..one });
    holds(
        "device and author break, one item",
        Plan {
            author_breaks: 1,
            ..one
        },
    );
}

#[test]
fn promises_hold_when_the_store_fails() {
    holds(
        "store",
        Plan {
            store_faults: 1,
            ..CALM
        },
    );
    let one = Plan {
        authors: ONE,
        store_faults: 1,
        ..CALM
    };
    holds(
        "store twice, one item",
        Plan {
            store_faults: 2,
            ..one
        },
    );
    holds(
        "store, device, one item",
        Plan {
            device_breaks: 1,
            ..one
        },
    );
    holds(
        "store, author, one item",
        Plan {
            author_breaks: 1,
            ..one
        },
    );
    holds("store, deadline, one item", Plan { expiries: 1, ..one });
    holds("store, crash, one item", Plan { crashes: 1, ..one });
}

#[test]
fn promises_hold_when_commits_come_past_the_mailbox() {
    holds(
        "commit",
        Plan {
            authors: &[&[1, COMMIT, 2]],
            ..CALM
        },
    );
    holds(
        "commit, crash",
        Plan {
            authors: &[&[COMMIT, 2]],
            crashes: 1,
            ..CALM
        },
    );
    holds(
        "commit, device",
        Plan {
            authors: &[&[COMMIT, 2]],
            device_breaks: 1,
            ..CALM
        },
    );
    holds(
        "commit of another",
        Plan {
            authors: &[&[1], &[COMMIT]],
            ..CALM
        },
    );
    holds(
        "commit, store",
        Plan {
            authors: &[&[COMMIT, 2]],
            store_faults: 1,
            ..CALM
        },
    );
}

#[test]
fn promises_hold_when_acknowledged_keys_are_forgotten() {
    holds(
        "forgotten keys",
        Plan {
            acked_keys: 1,
            author_breaks: 1,
            ..CALM
        },
    );
}

#[test]
#[ignore = "minutes; run after every change of the lane with `--ignored`"]
fn promises_hold_in_larger_worlds() {
    holds(
        "device breaks twice",
        Plan {
            device_breaks: 2,
            ..CALM
        },
    );
    holds(
        "device breaks, crash",
        Plan {
            device_breaks: 1,
            crashes: 1,
            ..CALM
        },
    );
    holds(
        "device and author break",
        Plan {
            device_breaks: 1,
            author_breaks: 1,
            ..CALM
        },
    );
    holds(
        "store twice",
        Plan {
            store_faults: 2,
            ..CALM
        },
    );
    holds(
        "store, deadline",
        Plan {
            store_faults: 1,
            expiries: 1,
            ..CALM
        },
    );
    holds(
        "store, crash",
        Plan {
            store_faults: 1,
            crashes: 1,
            ..CALM
        },
    );
    let forgotten = Plan {
        acked_keys: 1,
        author_breaks: 1,
        device_breaks: 1,
        ..CALM
    };
    holds("forgotten keys, device", forgotten);
    let other = Plan {
        authors: &[&[1], &[COMMIT]],
        device_breaks: 1,
        ..CALM
    };
    holds("commit of another, device", other);
}

#[test]
fn each_planted_bug_is_found() {
    finds(
        Bug::EarlyAckOfRepeat,
        Plan {
            crashes: 1,
            author_breaks: 1,
            ..CALM
        },
    );
    finds(Bug::SpoolOfTail, Plan { crashes: 1, ..CALM });
    finds(
        Bug::BareSequence,
        Plan {
            authors: &[&[1, 2, 3]],
            device_breaks: 1,
            ..CALM
        },
    );
    finds(
        Bug::RangeDelete,
        Plan {
            authors: &[&[1], &[COMMIT]],
            ..CALM
        },
    );
    finds(
        Bug::SequenceAllocatedPositions,
        Plan {
            authors: &[&[1], &[COMMIT]],
            ..CALM
        },
    );
    finds(Bug::SpoolOutside, CALM);
    finds(Bug::AckDuringSpooling, CALM);
    finds(
        Bug::CommitWithoutPoke,
        Plan {
            authors: &[&[COMMIT]],
            ..CALM
        },
    );
}
