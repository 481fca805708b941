//! What the exploration does not reach: bounds of a request, and the shape of the effects.

use std::time::Instant;

use bytes::Bytes;
use commucat_proto::id::DedupeKey;

use super::*;
use crate::lane::Envelope;

fn event(number: u16, bytes: usize) -> Envelope {
    let mut key = [0; 16];
    key[..2].copy_from_slice(&number.to_be_bytes());
    Envelope {
        key: DedupeKey::new(key),
        group: None,
        frame: 1,
        body: Bytes::from(vec![0; bytes]),
    }
}

/// A connected lane whose outbox is empty, with these events in memory.
fn holding(events: impl IntoIterator<Item = Envelope>) -> PeerLane<u16> {
    let settings = Settings {
        window_bytes: usize::MAX,
        ..Settings::peer()
    };
    let (mut lane, mut out) = (PeerLane::new(settings), Vec::new());
    lane.connect(&mut out);
    let after = Position::new(0);
    assert_eq!(lane.pump(), Next::ReadPage { after });
    assert_eq!(lane.page(Page::default()), Next::Wait);
    for (leg, event) in (0..).zip(events) {
        lane.lane()
            .append(event, leg, Instant::now(), &mut out)
            .unwrap();
    }
    lane
}

fn sent(next: Next) -> Vec<Delivery> {
    match next {
        Next::Send(events) => events,
        other @ (Next::ReadPage { .. } | Next::Wait) => panic!("{other:?}"),
    }
}

#[test]
fn a_request_holds_a_thousand_small_events_at_most() {
    let mut lane = holding((0..1_500).map(|number| event(number, 200)));

    assert_eq!(sent(lane.pump()).len(), EVENTS_MAX);
    assert_eq!(lane.pump(), Next::Wait, "one request at a time");
}

#[test]
fn a_request_of_large_events_stays_below_four_mebibytes() {
    let mut lane = holding((0..8).map(|number| event(number, 1 << 20)));

    let bytes: usize = sent(lane.pump())
        .iter()
        .map(|event| event.envelope.body.len())
        .sum();

    assert_eq!(bytes, 3 << 20);
}

#[test]
fn what_an_answer_leaves_open_is_sent_again_from_the_outbox() {
    let mut lane = holding((0..3).map(|number| event(number, 1)));
    assert_eq!(sent(lane.pump()).len(), 3);
    let mut out = Vec::new();

    assert!(lane.settle(&mut out).is_some());
    assert_eq!(out, [Effect::Resolve(0, Outcome::Relayed)]);
    out.clear();
    assert!(!lane.landed(&mut out), "two events are not settled");

    let [Effect::Spool(batch)] = out.as_slice() else {
        panic!("{out:?}");
    };
    assert_eq!(*batch, [event(1, 1), event(2, 1)]);
    assert!(!lane.is_connected());
}

#[test]
fn a_repeat_of_a_settled_event_is_sent_again() {
    let mut lane = holding([event(1, 1)]);
    let mut out = Vec::new();
    assert_eq!(sent(lane.pump()).len(), 1);
    assert!(lane.settle(&mut out).is_some() && lane.landed(&mut out));
    out.clear();

    let repeat = lane.lane().append(event(1, 1), 7, Instant::now(), &mut out);

    assert_eq!((repeat, out), (Ok(()), vec![Effect::Wake(CONNECTION)]));
    assert_eq!(sent(lane.pump()).len(), 1);
}

#[test]
fn a_lane_that_is_not_connected_holds_nothing_in_memory() {
    let mut lane = PeerLane::new(Settings::peer());
    let mut out = Vec::new();

    lane.lane()
        .append(event(1, 1), 7_u16, Instant::now(), &mut out)
        .unwrap();

    assert_eq!(out, [Effect::Spool(vec![event(1, 1)])]);
    assert_eq!(lane.pump(), Next::Wait);
}

#[test]
fn a_repeat_during_the_transaction_of_a_settled_event_is_not_answered_for_it() {
    let mut lane = holding([event(1, 1)]);
    let mut out = Vec::new();
    assert_eq!(sent(lane.pump()).len(), 1);
    lane.lane().spool_now(&mut out);
    assert!(lane.settle(&mut out).is_some() && lane.landed(&mut out));
    out.clear();

    let repeat = lane.lane().append(event(1, 1), 7, Instant::now(), &mut out);

    assert_eq!(repeat, Ok(()));
    assert_eq!(out, [Effect::Resolve(7, Outcome::Failed)]);
}
