//! The window: bounds, spooling, what leaves it.

use super::*;

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
fn forgotten_keys_are_new_again_and_those_in_the_window_stay_known() {
    let now = Instant::now();
    let mut lane = live(Settings::mailbox());
    append(&mut lane, envelope(1), 10, now);
    let sent = pump(&mut lane, FIRST);
    effects(|out| lane.acked(sent, out));
    append(&mut lane, envelope(2), 11, now);

    lane.forget_acked();

    append(&mut lane, envelope(1), 12, now);
    append(&mut lane, envelope(2), 13, now);
    assert_eq!(lane.len(), 2);
}
