//! The far end comes, reads, goes.

use super::*;

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
