//! Seeds that found something once, and that a run is a function of its seed.

use crate::plant::Plant;
use crate::{Trace, run};

/// Seeds that show a mistake when its correction is taken back; the text says which mistake.
const FOUND: &[(u64, &str)] = &[
    (
        20,
        "a failed leg waited for the others, and its frame came behind later ones",
    ),
    (
        933,
        "the simulation's own mistake: two nodes took turns within one batch, and one of them knew less",
    ),
    (
        549,
        "a repeat of what a peer had refused was acknowledged while the first was being written",
    ),
    (
        267,
        "an older answer about a log ended the search for an entry that had been seen meanwhile",
    ),
    (
        8,
        "a frame that was returned, sealed again and returned again was returned once",
    ),
];

#[test]
fn seeds_that_found_something_find_nothing_any_more() {
    for (seed, what) in FOUND {
        let report = run(*seed, None, Trace::Silent).unwrap();

        assert_eq!(report.complaint, None, "seed {seed}: {what}");
    }
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
    let found = (1..=50).find(|seed| {
        let report = run(*seed, Some(Plant::AckBeforeCommit), Trace::Silent).unwrap();
        report.complaint.is_some()
    });

    assert!(found.is_some());
}
