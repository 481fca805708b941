//! Mistakes that were made once, and that a run is a function of its seed.
//!
//! What the simulation found is mended, and planted since: a seed means another world whenever worlds
//! change, a plant stays what it is.

use crate::plant::Plant;
use crate::{Trace, run};

/// Seeds within which a mistake has to be found.
const SEEDS: u64 = 50;

/// Mistakes that were made once; the text says which.
const MADE: &[(Plant, &str)] = &[
    (
        Plant::PeerRemembersKeys,
        "a repeat of what a peer had refused was acknowledged while the first was being written",
    ),
    (
        Plant::ReturnedOnce,
        "a frame that was returned, sealed again and returned again was returned once",
    ),
];

#[test]
fn mistakes_that_were_made_once_are_found() {
    for (plant, what) in MADE {
        assert!(is_found(*plant), "{what}");
    }
}

#[test]
fn worlds_without_a_mistake_show_none() {
    let (mut dropped, mut gaps) = (0, 0);
    for seed in 1..=20 {
        let report = run(seed, None, Trace::Silent).unwrap();

        assert_eq!(report.complaint, None, "seed {seed}");
        dropped += report.counts.dropped;
        gaps += report.counts.gaps;
    }
    assert!(dropped > 100 && gaps > 10, "{dropped} dropped, {gaps} gaps");
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in [1, 2, 3] {
        let first = run(seed, None, Trace::Silent).unwrap();
        let again = run(seed, None, Trace::Silent).unwrap();

        assert_eq!(first.digest, again.digest, "seed {seed}");
        assert_eq!(first.counts, again.counts, "seed {seed}");
        assert!(first.counts.texts > 0 && first.counts.faults > 0);
    }
}

#[test]
fn an_answer_before_the_commit_is_found() {
    assert!(is_found(Plant::AckBeforeCommit));
}

fn is_found(plant: Plant) -> bool {
    (1..=SEEDS).any(|seed| {
        let report = run(seed, Some(plant), Trace::Silent).unwrap();
        report.complaint.is_some()
    })
}
