//! Bounds and deadlines; orders of events are the exploration's business.

use bytes::Bytes;
use commucat_proto::id::DedupeKey;

use super::*;
use crate::ticket::Reason;

const HOLD: Duration = Duration::from_millis(250);
const THERE: Incarnation = Incarnation::new([7; 16]);
const ELSEWHERE: Incarnation = Incarnation::new([8; 16]);

fn away(now: std::time::Instant) -> Moment<'static> {
    Moment {
        now,
        look: &|_| Local {
            attached: false,
            settled: true,
        },
    }
}

type Acts = Vec<Act<u32>>;

fn queue() -> QueueId {
    QueueId::new([3; QueueId::LEN])
}

fn entry(number: u8, leg: u32) -> (QueueId, Envelope, u32) {
    let envelope = Envelope {
        key: DedupeKey::new([number; 16]),
        group: None,
        frame: 5,
        body: Bytes::from_static(b"x"),
    };
    (queue(), envelope, leg)
}

/// A dispatch that has sent entry 1 to `THERE`.
fn sent(now: std::time::Instant) -> (Dispatch<u32>, Parcel) {
    let mut dispatch = Dispatch::new(Settings::with_hold(HOLD));
    let mut out = Vec::new();
    dispatch.append(entry(1, 1), Reading::GoOn, away(now), &mut out);
    assert_eq!(out, [Act::Ask(queue())]);
    out.clear();
    dispatch.routed(queue(), Some(THERE), away(now), &mut out);
    match out.as_slice() {
        [Act::Send { to: THERE, parcel }] => (dispatch, parcel.clone()),
        other => panic!("{other:?}"),
    }
}

fn here(acts: &[Act<u32>]) -> Vec<(u32, Reading)> {
    let here = |act: &Act<u32>| match act {
        Act::Here { leg, reading, .. } => Some((*leg, *reading)),
        Act::Send { .. } | Act::Ask(_) | Act::Resolve(..) => None,
    };
    acts.iter().filter_map(here).collect()
}

fn answer(parcel: &Parcel, outcome: Outcome) -> Answer {
    Answer {
        attempt: parcel.attempt,
        number: parcel.number,
        outcome,
        away: false,
    }
}

#[test]
fn the_first_entry_after_a_change_of_place_lets_the_owner_read_the_store() {
    let now = std::time::Instant::now();
    let (mut dispatch, first) = sent(now);
    let mut out: Acts = Vec::new();

    dispatch.append(entry(2, 2), Reading::GoOn, away(now), &mut out);

    let Some(Act::Send { parcel: second, .. }) = out.first() else {
        panic!("{out:?}");
    };
    assert_eq!(first.reading, Reading::StoreFirst);
    assert_eq!(
        (second.reading, second.attempt, second.number),
        (Reading::GoOn, first.attempt, 2)
    );
}

#[test]
fn an_entry_that_nobody_holds_in_time_is_put_into_the_store_with_all_behind_it() {
    let now = std::time::Instant::now();
    let (mut dispatch, first) = sent(now);
    let mut out: Acts = Vec::new();
    dispatch.append(entry(2, 2), Reading::GoOn, away(now), &mut out);
    assert_eq!(dispatch.deadline(), Some(now + HOLD));
    out.clear();

    dispatch.tick(away(now + HOLD), &mut out);
    assert_eq!(here(&out), [(1, Reading::StoreFirst), (2, Reading::GoOn)]);

    // Its late answer belongs to an attempt that is over.
    out.clear();
    dispatch.answered(
        THERE,
        answer(&first, Outcome::Delivered),
        away(now),
        &mut out,
    );
    assert_eq!(out, []);
    assert!(dispatch.is_idle());
}

#[test]
fn a_held_entry_has_eight_times_as_long() {
    let now = std::time::Instant::now();
    let (mut dispatch, first) = sent(now);

    dispatch.held(THERE, first.attempt, 1);

    assert_eq!(dispatch.deadline(), Some(now + 8 * HOLD));
}

#[test]
fn an_owner_without_custody_breaks_the_attempt() {
    let now = std::time::Instant::now();
    let (mut dispatch, first) = sent(now);
    let mut out: Acts = Vec::new();

    dispatch.answered(THERE, answer(&first, Outcome::Failed), away(now), &mut out);

    assert_eq!(here(&out), [(1, Reading::StoreFirst)]);
}

#[test]
fn a_refusal_of_the_owner_is_its_answer() {
    let now = std::time::Instant::now();
    let (mut dispatch, first) = sent(now);
    let mut out: Acts = Vec::new();
    let full = Outcome::Refused(Reason::Full);

    dispatch.answered(THERE, answer(&first, full), away(now), &mut out);
    dispatch.answered(THERE, answer(&first, full), away(now), &mut out);

    assert_eq!(out, [Act::Resolve(1, full)]);
}

#[test]
fn a_queue_moves_when_the_old_place_has_answered() {
    let now = std::time::Instant::now();
    let (mut dispatch, first) = sent(now);
    let mut out: Acts = Vec::new();

    dispatch.routed(queue(), Some(ELSEWHERE), away(now), &mut out);
    dispatch.append(entry(2, 2), Reading::GoOn, away(now), &mut out);
    assert_eq!(out, []);
    dispatch.answered(THERE, answer(&first, Outcome::Stored), away(now), &mut out);

    match out.as_slice() {
        [
            Act::Resolve(1, Outcome::Stored),
            Act::Send {
                to: ELSEWHERE,
                parcel,
            },
        ] => assert_eq!((parcel.number, parcel.reading), (1, Reading::StoreFirst)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_waits_for_its_place_longer_than_t() {
    let now = std::time::Instant::now();
    let mut dispatch: Dispatch<u32> = Dispatch::new(Settings::with_hold(HOLD));
    let mut out: Acts = Vec::new();
    dispatch.append(entry(1, 1), Reading::GoOn, away(now), &mut out);
    dispatch.append(entry(2, 2), Reading::GoOn, away(now), &mut out);
    out.clear();

    dispatch.tick(away(now + HOLD), &mut out);

    assert_eq!(here(&out), [(1, Reading::StoreFirst), (2, Reading::GoOn)]);
}

#[test]
fn waiting_entries_are_bounded() {
    let now = std::time::Instant::now();
    let mut dispatch: Dispatch<u32> = Dispatch::new(Settings::with_hold(HOLD));
    let mut out: Acts = Vec::new();

    for leg in 0..256 {
        dispatch.append(entry(1, leg), Reading::GoOn, away(now), &mut out);
    }

    assert_eq!(here(&out).len(), 256);
}

#[test]
fn a_node_that_parts_from_the_others_puts_everything_here() {
    let now = std::time::Instant::now();
    let (mut dispatch, _) = sent(now);
    let mut out: Acts = Vec::new();

    dispatch.part(away(now), &mut out);
    dispatch.append(entry(2, 2), Reading::GoOn, away(now), &mut out);

    assert_eq!(
        here(&out),
        [(1, Reading::StoreFirst), (2, Reading::StoreFirst)]
    );
    assert!(dispatch.is_idle() && dispatch.is_alone());
}

#[test]
fn a_gap_ends_the_attempt_for_the_receiver_too() {
    let mut incoming = Incoming::default();

    let arrivals = [(3, 1), (3, 1), (3, 3), (3, 2), (2, 2), (4, 1), (3, 2)]
        .map(|(attempt, number)| incoming.arrives(attempt, number));

    use Arrival::{Broken, Old, Take};
    assert_eq!(arrivals, [Take, Old, Broken, Broken, Old, Take, Old]);
    assert!(incoming.fail(4) && !incoming.fail(3));
    assert_eq!(incoming.arrives(4, 2), Broken);
}
