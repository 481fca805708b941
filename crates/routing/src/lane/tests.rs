//! What the exploration does not reach: bounds, refusals, draining, and the shape of the effects.
//! Here is what the tests share.

mod attach;
mod window;

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
