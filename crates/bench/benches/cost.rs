//! `cost CASE COUNT`: does one piece of a message's way so many times, and nothing else.
//!
//! Made to be run under valgrind, which counts instructions: unlike time they are the same on a busy
//! machine. `tests/suites/hand-bench.sh` runs each case with two counts and divides the difference, so
//! that what starting costs drops out, and compares it with `baseline.txt`.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use commucat_crypto::noise::{StaticKey, XkInitiator, XkResponder};
use commucat_crypto::tunnel::{Opener, Sealer};
use commucat_proto::decoder::{Decoder, Incoming};
use commucat_proto::encoder;
use commucat_proto::frame::msg::Msg;
use commucat_proto::frame::payload::FromClient;
use commucat_proto::frame::{Direction, FrameType};
use commucat_proto::id::{
    AccountKey, DedupeKey, DeviceId, Domain, GroupId, MessageId, NoiseKey, QueueId,
};
use commucat_proto::time::Timestamp;
use commucat_routing::lane::{Attachment, Delivery, Envelope, Lane, Page, Pumped, Settings};
use commucat_routing::pipeline::{Limits, Pipeline};
use commucat_routing::ticket::{Outcome, Ticket, Verdict};
use commucat_routing::unacked::Unacked;
use commucat_storage::{
    Admission, DeviceList, EntryKind, ListedDevice, Location, NewEntry, Options, Store,
};

/// Bytes of a message's ciphertext, as `commucat-bench` sends them.
const CIPHERTEXT: [u8; 256] = [0xa5; 256];
/// Frames that are on their way at once.
const BATCH: u32 = 64;
/// Lanes that a message of `fanout` goes into.
const LANES: u64 = 100;

fn main() -> Result<()> {
    // What `cargo bench` adds is of no interest.
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (Some(case), Some(count)) = (args.next(), args.next()) else {
        bail!("usage: cost CASE COUNT, with CASE codec, tunnel, fanout, custody or spool");
    };
    let count = count.parse()?;
    match case.as_str() {
        "codec" => codec(count),
        "tunnel" => tunnel(count),
        "fanout" => fanout(count),
        "custody" => custody(count),
        "spool" => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(spool(count)),
        other => bail!("no case `{other}`"),
    }
}

fn group() -> GroupId {
    GroupId::new([7; 32])
}

fn message(number: u32) -> MessageId {
    let mut name = [0; 16];
    if let Some(place) = name.first_chunk_mut() {
        *place = number.to_be_bytes();
    }
    MessageId::new(name)
}

fn key(number: u32) -> DedupeKey {
    DedupeKey::of(&group(), &message(number), &CIPHERTEXT)
}

/// MSG frames, written in batches and taken apart again.
fn codec(count: u32) -> Result<()> {
    let (mut decoder, mut written) = (Decoder::tunnel(Direction::Up), BytesMut::new());
    let mut taken = 0;
    for number in 1..=count {
        let msg = Msg::new(1, message(number), &CIPHERTEXT);
        encoder::msg(1, number, &msg, &mut written);
        if number % BATCH == 0 || number == count {
            decoder.push(&written);
            written.clear();
            while let Some(incoming) = decoder.next_frame()? {
                let Incoming::Frame(frame) = incoming else {
                    bail!("a frame is skipped");
                };
                black_box(FromClient::decode(&frame)?);
                taken += 1;
            }
        }
    }
    ensure!(taken == count, "{taken} of {count} frames came");
    Ok(())
}

/// The two directions of one tunnel: a device's sealer, its server's opener.
fn ends() -> Result<(Sealer, Opener)> {
    let domain = Domain::parse("cost.example")?;
    let (device, server) = (StaticKey::generate(), StaticKey::generate());
    let (device, hello) = XkInitiator::start(&domain, &device, server.public())?;
    let (server, answer) = XkResponder::answer(&domain, &server, &hello)?;
    let (device, auth) = device.finish(&answer, &[])?;
    let (server, _) = server.finish(&auth)?;
    Ok((device.into_tunnel().0, server.into_tunnel().1))
}

/// Records of one message each, sealed and opened.
fn tunnel(count: u32) -> Result<()> {
    let (mut sealer, mut opener) = ends()?;
    let (mut sealed, mut opened) = (BytesMut::new(), BytesMut::new());
    for _ in 0..count {
        sealer.seal(&CIPHERTEXT, &mut sealed)?;
        opener.open(&sealed, &mut opened)?;
        ensure!(opened == CIPHERTEXT[..], "a record is not what it was");
        sealed.clear();
        opened.clear();
    }
    Ok(())
}

/// A lane whose device is there and has read the store to its end.
fn live(attachment: Attachment) -> Result<Lane<u32>> {
    let (mut lane, mut sends) = (Lane::new(Settings::mailbox()), Vec::new());
    lane.attach(attachment, &mut Vec::new());
    let pumped = lane.pump(attachment, 1, &mut sends);
    ensure!(matches!(pumped, Pumped::ReadPage { .. }), "{pumped:?}");
    let page = lane.page(attachment, Page::default(), &mut sends);
    ensure!(page == Pumped::Emptied, "{page:?}");
    lane.pump(attachment, 1, &mut sends);
    Ok(lane)
}

/// Messages through lanes of devices that are there: appended, handed out, acknowledged. The count is
/// that of deliveries.
fn fanout(count: u32) -> Result<()> {
    let attachment = Attachment::new(1);
    let mut lanes = (0..LANES)
        .map(|_| live(attachment).map(|lane| (lane, Unacked::default())))
        .collect::<Result<Vec<_>>>()?;
    let now = Instant::now();
    let (mut effects, mut sends) = (Vec::new(), Vec::<Delivery>::new());
    let body = Bytes::from_static(&CIPHERTEXT);
    for number in 0..count / 100 {
        let envelope = Envelope {
            key: key(number),
            group: Some(group()),
            frame: FrameType::Msg.code(),
            body: body.clone(),
        };
        for (lane, unacked) in &mut lanes {
            let appended = lane.append(envelope.clone(), number, now, &mut effects);
            ensure!(appended.is_ok(), "a lane is closed");
            lane.pump(attachment, usize::MAX, &mut sends);
            let mut last = 0;
            for delivery in sends.drain(..) {
                last = unacked.sent(delivery.sent(), delivery.envelope.body.len());
            }
            lane.acked(unacked.acked(last)?, &mut effects);
            // A wake for the session, an end of the leg.
            ensure!(effects.len() == 2, "{effects:?}");
            effects.clear();
        }
    }
    Ok(())
}

/// What an author's session and its tickets do of a message for one recipient.
fn custody(count: u32) -> Result<()> {
    let limits = Limits {
        frames: 1_000,
        bytes: 1 << 20,
    };
    let mut pipeline = Pipeline::default();
    let mut open = Vec::new();
    for number in 1..=count {
        pipeline.begin(number.into(), 1, CIPHERTEXT.len(), limits)?;
        let (mut ticket, guard) = Ticket::new();
        let leg = ticket.add(1);
        ensure!(ticket.settle(guard, Outcome::Delivered).is_none(), "early");
        open.push((number, ticket, leg));
        if number % BATCH == 0 || number == count {
            for (number, mut ticket, leg) in open.drain(..) {
                let Some(Verdict::Done(status)) = ticket.settle(leg, Outcome::Delivered) else {
                    bail!("the ticket is not done");
                };
                pipeline.done(number.into(), status);
            }
            ensure!(pipeline.take_acks().len() == 1, "one answer for a batch");
        }
    }
    Ok(())
}

/// A queue of its own in a new store.
async fn queue(store: &Store) -> Result<QueueId> {
    let noise_key = NoiseKey::new([9; 32]);
    let device = DeviceId::of_key(&noise_key);
    let listed = ListedDevice {
        device: device.clone(),
        noise_key,
        not_before: Timestamp::from_millis(0),
        not_after: Timestamp::from_millis(1_000_000),
    };
    let list = DeviceList {
        account_key: AccountKey::new([1; 32]),
        version: 1,
        signed: Bytes::from_static(b"list"),
        devices: vec![listed],
    };
    let now = Timestamp::from_millis(1);
    store.register(list, &device, Admission::Open, now).await?;
    let device = store.device(&device).await?.context("no device")?;
    Ok(device.queue)
}

/// Entries for a device that is away: stored in batches.
async fn spool(count: u32) -> Result<()> {
    let home = tempfile::TempDir::new()?;
    let directory = home.path().to_owned();
    let store = Store::open(Location::Sqlite { directory }, Options::default()).await?;
    let queue = queue(&store).await?;
    let mut entries = Vec::new();
    for number in 1..=count {
        let mut body = CIPHERTEXT.to_vec();
        body.extend_from_slice(&number.to_be_bytes());
        entries.push(NewEntry {
            key: key(number),
            kind: EntryKind::Message,
            group: group(),
            body: body.into(),
        });
        if number % BATCH == 0 || number == count {
            let entries = std::mem::take(&mut entries);
            let delivery = commucat_storage::Delivery { queue, entries };
            store
                .spool(vec![delivery], Timestamp::from_millis(2))
                .await?;
        }
    }
    store.close().await;
    Ok(())
}
