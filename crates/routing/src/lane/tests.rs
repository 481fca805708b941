//! What the exploration does not reach: bounds, refusals, draining, and the shape of the effects.

use std::time::{Duration, Instant};

use bytes::Bytes;
use commucat_proto::id::DedupeKey;

use super::*;
use crate::ticket::Reason;

type Effects = Vec<Effect<u32>>;

const FIRST: Attachment = Attachment::new(1);
const SECOND: Attachment = Attachment::new(2);

fn envelope(number: u8) -> Envelope {
    sized(number, 1)
}

fn sized(number: u8, bytes: usize) -> Envelope {
    Envelope {
        key: DedupeKey::new([number; 16]),
        group: None,
        frame: 5,
        body: Bytes::from(vec![number; bytes]),
    }
}

fn small() -> Settings {
    Settings {
        window_bytes: 1_000,
        ..Settings::mailbox()
    }
}

fn append(lane: &mut Lane<u32>, envelope: Envelope, leg: u32, now: Instant) -> Effects {
    let mut out = Vec::new();
    assert_eq!(lane.append(envelope, leg, now, &mut out), Ok(()));
    out
}

fn effects(run: impl FnOnce(&mut Effects)) -> Effects {
    let mut out = Vec::new();
    run(&mut out);
    out
}

/// A lane whose far end has read the empty store.
fn live(settings: Settings) -> Lane<u32> {
    let mut lane = Lane::new(settings);
    attach(&mut lane, FIRST, Page::default());
    lane
}

fn attach(lane: &mut Lane<u32>, id: Attachment, page: Page) -> Effects {
    let mut sends = Vec::new();
    let out = effects(|out| lane.attach(id, out));
    let after = Position::new(0);
    assert_eq!(lane.pump(id, 1_000, &mut sends), Pumped::ReadPage { after });
    assert_eq!(lane.page(id, page, &mut sends), Pumped::Emptied);
    assert_eq!(lane.pump(id, 1_000, &mut sends), Pumped::Idle);
    out
}

fn pump(lane: &mut Lane<u32>, id: Attachment) -> Vec<SentEntry> {
    let mut sends = Vec::new();
    assert_eq!(lane.pump(id, usize::MAX, &mut sends), Pumped::Idle);
    sends.iter().map(Delivery::sent).collect()
}

fn stored(from: u64, count: u64) -> impl Iterator<Item = Spooled> {
    (from..from + count).map(|position| Spooled::Stored(Position::new(position)))
}

#[test]
fn a_frame_for_a_live_device_goes_through_memory_only() {
    let now = Instant::now();
    let mut lane = live(Settings::mailbox());

    assert_eq!(
        append(&mut lane, envelope(1), 10, now),
        [Effect::Wake(FIRST)]
    );
    let sent = pump(&mut lane, FIRST);
    let out = effects(|out| lane.acked(sent, out));

    assert_eq!(out, [Effect::Resolve(10, Outcome::Delivered)]);
    assert_eq!((lane.bytes(), lane.deadline()), (0, None));
}

#[test]
fn wakes_coalesce() {
    let now = Instant::now();
    let mut lane = live(Settings::mailbox());

    assert_eq!(append(&mut lane, envelope(1), 10, now).len(), 1);
    assert_eq!(append(&mut lane, envelope(2), 11, now), []);
    assert_eq!(pump(&mut lane, FIRST).len(), 2);
    assert_eq!(append(&mut lane, envelope(3), 12, now).len(), 1);
}

#[test]
fn the_front_is_spooled_with_everything_behind_it_after_t() {
    let now = Instant::now();
    let later = now + Duration::from_millis(200);
    let mut lane = live(Settings::mailbox());
    append(&mut lane, envelope(1), 10, now);
    append(&mut lane, envelope(2), 11, later);

    let due = now + Duration::from_millis(250);
    assert_eq!(lane.deadline(), Some(due));
    assert_eq!(effects(|out| lane.tick(later, out)), []);
    let out = effects(|out| lane.tick(due, out));

    assert_eq!(out, [Effect::Spool(vec![envelope(1), envelope(2)])]);
    assert_eq!(lane.deadline(), None);
    append(&mut lane, envelope(3), 12, due);
    assert_eq!(
        effects(|out| lane.spool_now(out)),
        [],
        "one transaction at a time"
    );
}

#[test]
fn an_offline_queue_is_spooled_at_once_and_then_forgotten() {
    let mut lane = Lane::new(Settings::mailbox());

    let out = append(&mut lane, envelope(1), 10, Instant::now());
    assert_eq!(out, [Effect::Spool(vec![envelope(1)])]);
    assert!(!lane.close_if_idle());
    let out = effects(|out| lane.spooled(stored(1, 1), out));

    assert_eq!(out, [Effect::Resolve(10, Outcome::Stored)]);
    assert!(lane.close_if_idle());
    let mut out = Vec::new();
    let closed = lane.append(envelope(2), 11, Instant::now(), &mut out);
    assert_eq!(
        closed,
        Err(Closed {
            envelope: envelope(2),
            leg: 11
        })
    );
}

#[test]
fn sent_entries_that_were_spooled_keep_no_body_and_are_deleted_by_their_acknowledgement() {
    let now = Instant::now();
    let mut lane = live(Settings::mailbox());
    append(&mut lane, sized(1, 500), 10, now);
    let sent = pump(&mut lane, FIRST);
    effects(|out| lane.spool_now(out));

    effects(|out| lane.spooled(stored(1, 1), out));
    assert!(lane.bytes() < 500);
    assert_eq!(
        append(&mut lane, envelope(2), 11, now),
        [Effect::Wake(FIRST)],
        "still live"
    );
    let out = effects(|out| lane.acked(sent, out));

    let row = Row {
        position: Position::new(1),
        key: envelope(1).key,
    };
    assert_eq!(out, [Effect::Delete(row)]);
}

#[test]
fn rows_that_came_past_a_live_lane_are_read_though_all_of_its_own_were_sent() {
    let now = Instant::now();
    let mut lane = live(Settings::mailbox());
    append(&mut lane, envelope(2), 10, now);
    pump(&mut lane, FIRST);
    effects(|out| lane.spool_now(out));

    let out = effects(|out| lane.spooled(stored(2, 1), out));

    assert_eq!(
        out,
        [Effect::Resolve(10, Outcome::Stored), Effect::Wake(FIRST)]
    );
    let asked = lane.pump(FIRST, 1_000, &mut Vec::new());
    assert_eq!(
        asked,
        Pumped::ReadPage {
            after: Position::new(0)
        }
    );
    let rows = vec![
        (Position::new(1), envelope(1)),
        (Position::new(2), envelope(2)),
    ];
    let mut sends = Vec::new();
    let page = Page {
        rows,
        more: false,
        head: Position::new(2),
    };
    assert_eq!(lane.page(FIRST, page, &mut sends), Pumped::Emptied);
    assert_eq!(sends.len(), 1, "the device has the second from memory");
}

#[test]
fn a_fifth_leg_fails_the_oldest() {
    let now = Instant::now();
    let mut lane = live(Settings::mailbox());
    for leg in 10..14 {
        append(&mut lane, envelope(1), leg, now);
    }

    assert_eq!(
        append(&mut lane, envelope(1), 14, now),
        [Effect::Resolve(10, Outcome::Failed)]
    );
    let sent = pump(&mut lane, FIRST);
    let out = effects(|out| lane.acked(sent, out));

    let delivered = |leg| Effect::Resolve(leg, Outcome::Delivered);
    assert_eq!(
        out,
        [delivered(11), delivered(12), delivered(13), delivered(14)]
    );
}

#[test]
fn a_window_at_its_bound_is_spooled_and_far_beyond_it_fails_what_comes() {
    let now = Instant::now();
    let mut lane = live(small());
    let out = append(&mut lane, sized(1, 1_000), 10, now);
    assert!(out.contains(&Effect::Spool(vec![sized(1, 1_000)])));
    for number in 2..5 {
        append(&mut lane, sized(number, 1_000), number.into(), now);
    }

    let out = append(&mut lane, sized(5, 1_000), 5, now);

    assert_eq!(out, [Effect::Resolve(5, Outcome::Failed)]);
    assert!(lane.bytes() < 5_000);
}

#[test]
fn what_a_queue_refuses_leaves_the_window_and_the_gap_is_read() {
    let now = Instant::now();
    let mut lane = live(Settings::mailbox());
    append(&mut lane, envelope(1), 10, now);
    pump(&mut lane, FIRST);
    effects(|out| lane.spool_now(out));

    let out = effects(|out| lane.spooled([Spooled::Refused(Reason::Full)], out));

    let refused = Effect::Resolve(10, Outcome::Refused(Reason::Full));
    assert_eq!(out, [refused, Effect::Wake(FIRST)]);
    let asked = lane.pump(FIRST, 1_000, &mut Vec::new());
    assert_eq!(
        asked,
        Pumped::ReadPage {
            after: Position::new(0)
        }
    );
}

#[test]
fn a_failed_batch_fails_everything_unresolved_behind_it_too() {
    let now = Instant::now();
    let mut lane = Lane::new(Settings::mailbox());
    append(&mut lane, envelope(1), 10, now);
    append(&mut lane, envelope(2), 11, now);

    let out = effects(|out| lane.spool_failed(out));

    let failed = |leg| Effect::Resolve(leg, Outcome::Failed);
    assert_eq!(out, [failed(10), failed(11)]);
    assert!(lane.close_if_idle());
}

#[test]
fn a_second_connection_replaces_the_first_whose_end_changes_nothing() {
    let mut lane = live(Settings::mailbox());

    let out = attach(&mut lane, SECOND, Page::default());

    assert_eq!(out, [Effect::Replaced(FIRST)]);
    assert_eq!(lane.pump(FIRST, 1, &mut Vec::new()), Pumped::Detached);
    effects(|out| lane.detach(FIRST, out));
    assert_eq!(lane.attachment(), Some(SECOND));
}

#[test]
fn an_acknowledgement_of_another_lanes_slot_touches_nothing() {
    let now = Instant::now();
    let mut old = live(Settings::mailbox());
    append(&mut old, envelope(1), 10, now);
    let late = pump(&mut old, FIRST);
    let mut lane = live(Settings::mailbox());
    append(&mut lane, envelope(2), 11, now);

    assert_eq!(effects(|out| lane.acked(late, out)), []);
    assert_eq!(lane.len(), 1);
}

#[test]
fn a_repeat_of_what_the_device_acknowledged_is_delivered_while_the_key_is_remembered() {
    let now = Instant::now();
    let mut lane = live(Settings {
        acked_keys: 1,
        ..Settings::mailbox()
    });
    append(&mut lane, envelope(1), 10, now);
    append(&mut lane, envelope(2), 11, now);
    let sent = pump(&mut lane, FIRST);
    effects(|out| lane.acked(sent, out));

    let out = append(&mut lane, envelope(2), 12, now);
    assert_eq!(out, [Effect::Resolve(12, Outcome::Delivered)]);
    assert_eq!(
        append(&mut lane, envelope(1), 13, now),
        [Effect::Wake(FIRST)],
        "it is new again"
    );
}

#[test]
fn a_draining_lane_stores_at_once_and_closes_when_it_is_empty() {
    let now = Instant::now();
    let mut lane = live(Settings::mailbox());
    append(&mut lane, envelope(1), 10, now);

    let out = effects(|out| lane.drain(out));
    assert_eq!(out, [Effect::Spool(vec![envelope(1)])]);
    effects(|out| lane.spooled(stored(1, 1), out));

    assert!(lane.is_closed());
}

#[test]
fn a_draining_lane_does_not_go_live() {
    let now = Instant::now();
    let mut lane = live(Settings::mailbox());
    append(&mut lane, envelope(1), 10, now);
    effects(|out| lane.drain(out));

    let asked = lane.pump(FIRST, 1_000, &mut Vec::new());
    assert_eq!(
        asked,
        Pumped::ReadPage {
            after: Position::new(0)
        }
    );
    assert_eq!(
        lane.page(FIRST, Page::default(), &mut Vec::new()),
        Pumped::More
    );
    assert_eq!(lane.pump(FIRST, 1_000, &mut Vec::new()), Pumped::Idle);
}

#[test]
fn a_revoked_queue_is_gone_with_everything_in_it() {
    let now = Instant::now();
    let mut lane = live(Settings::mailbox());
    append(&mut lane, envelope(1), 10, now);
    effects(|out| lane.spool_now(out));
    append(&mut lane, envelope(2), 11, now);

    let out = effects(|out| lane.revoke(out));

    let gone = |leg| Effect::Resolve(leg, Outcome::Gone);
    assert_eq!(out, [gone(10), gone(11)]);
    assert_eq!(effects(|out| lane.spooled(stored(1, 1), out)), []);
    assert!(lane.is_closed() && lane.bytes() == 0);
}

#[test]
fn a_lost_poke_is_made_good_by_a_look_at_the_stores_head() {
    let mut lane = live(Settings::mailbox());

    assert_eq!(effects(|out| lane.poll(Position::new(0), out)), []);
    assert_eq!(
        effects(|out| lane.poll(Position::new(3), out)),
        [Effect::Wake(FIRST)]
    );
    let asked = lane.pump(FIRST, 1_000, &mut Vec::new());
    assert_eq!(
        asked,
        Pumped::ReadPage {
            after: Position::new(0)
        }
    );
}

#[test]
fn a_session_without_room_gets_nothing_until_it_has_some() {
    let now = Instant::now();
    let mut lane = live(Settings::mailbox());
    append(&mut lane, envelope(1), 10, now);
    append(&mut lane, envelope(2), 11, now);
    let mut sends = Vec::new();

    assert_eq!(lane.pump(FIRST, 0, &mut sends), Pumped::Full);
    assert_eq!(lane.pump(FIRST, 1, &mut sends), Pumped::Full);
    assert_eq!(sends.len(), 1);
    assert_eq!(lane.pump(FIRST, 1, &mut sends), Pumped::Idle);
    assert_eq!(sends.len(), 2);
}

#[test]
fn a_page_that_could_not_be_read_is_asked_for_again() {
    let mut lane: Lane<u32> = Lane::new(Settings::mailbox());
    effects(|out| lane.attach(FIRST, out));
    let ask = Pumped::ReadPage {
        after: Position::new(0),
    };

    assert_eq!(lane.pump(FIRST, 1, &mut Vec::new()), ask);
    assert_eq!(lane.pump(FIRST, 1, &mut Vec::new()), Pumped::Reading);
    lane.page_failed(FIRST);
    assert_eq!(lane.pump(FIRST, 1, &mut Vec::new()), ask);
}

#[test]
fn a_device_that_reconnects_gets_frames_from_memory_once_it_has_read_the_store() {
    let now = Instant::now();
    let mut lane: Lane<u32> = Lane::new(Settings::mailbox());
    effects(|out| lane.attach(FIRST, out));
    assert_eq!(
        append(&mut lane, envelope(2), 10, now),
        [],
        "no disk while it catches up"
    );
    lane.pump(FIRST, 1_000, &mut Vec::new());

    let rows = vec![(Position::new(4), envelope(1))];
    let page = Page {
        rows,
        more: false,
        head: Position::new(4),
    };
    let mut sends = Vec::new();
    assert_eq!(lane.page(FIRST, page, &mut sends), Pumped::Emptied);
    assert_eq!(lane.pump(FIRST, 1_000, &mut sends), Pumped::Idle);

    let keys: Vec<DedupeKey> = sends.iter().map(|delivery| delivery.envelope.key).collect();
    assert_eq!(keys, [envelope(1).key, envelope(2).key]);
}
