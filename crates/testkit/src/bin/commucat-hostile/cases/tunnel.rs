//! Sealed records that are not what they must be.

use anyhow::Result;

use crate::client::{Event, Got, Session};
use crate::suite::Suite;
use crate::wire;

/// Records under one key.
const RECORDS_PER_KEY: u32 = 65_536;

/// What the server makes of bytes written behind a tunnel's handshake.
async fn raw(session: &mut Session, bytes: &[u8], half_closed: bool) -> Got {
    session.carrier.write(bytes).await;
    if half_closed {
        session.carrier.end();
    }
    end_of(session).await
}

/// How the session ends; what was stored for the device may come before.
async fn end_of(session: &mut Session) -> Got {
    loop {
        match session.event().await {
            Event::Closed => return Got::Closed,
            Event::Quiet => return Got::Quiet,
            Event::Broken(what) => return Got::Strange(what),
            Event::Frame(frame) if frame.header.kind.name() == "ERROR" => {
                return Got::Strange("an ERROR".to_owned());
            }
            Event::Frame(_) => {}
        }
    }
}

fn padding() -> Vec<u8> {
    wire::frame(0x43, 0, 0, &[])
}

pub(super) async fn run(suite: &mut Suite) -> Result<()> {
    let closed = [Got::Closed];
    for length in [0_u16, 1, 15, 16] {
        let session = suite.world.stranger.fresh().await?;
        let record = [&length.to_be_bytes()[..], &vec![7; length.into()]].concat();
        let got = raw(session, &record, false).await;
        suite
            .judge(&format!("a record of {length} bytes"), &closed, Ok(got))
            .await?;
    }
    for length in [17_u16, 21, 1_000, 65_535] {
        let session = suite.world.stranger.fresh().await?;
        let record = [&length.to_be_bytes()[..], &vec![7; length.into()]].concat();
        let got = raw(session, &record, false).await;
        suite
            .judge(
                &format!("{length} bytes that do not open"),
                &closed,
                Ok(got),
            )
            .await?;
    }
    let len = {
        let session = suite.world.stranger.fresh().await?;
        session.seal(&padding()).len()
    };
    for at in 2..len {
        let session = suite.world.stranger.fresh().await?;
        let mut record = session.seal(&padding());
        if let Some(byte) = record.get_mut(at) {
            *byte ^= 1;
        }
        let got = raw(session, &record, false).await;
        suite
            .judge(&format!("a record with byte {at} wrong"), &closed, Ok(got))
            .await?;
    }
    for cut in 0..=len {
        let session = suite.world.stranger.fresh().await?;
        let record = session.seal(&padding());
        let got = raw(session, record.get(..cut).unwrap_or_default(), true).await;
        suite
            .judge(
                &format!("the stream ends after {cut} bytes of a record"),
                &closed,
                Ok(got),
            )
            .await?;
    }
    order(suite).await?;
    pieces(suite).await?;
    rekey(suite).await?;
    resets(suite).await
}

/// Records said twice, left out, swapped, and those of another session.
async fn order(suite: &mut Suite) -> Result<()> {
    let closed = [Got::Closed];
    let session = suite.world.stranger.fresh().await?;
    let record = session.seal(&padding());
    let got = raw(session, &[&record[..], &record].concat(), false).await;
    suite.judge("a record twice", &closed, Ok(got)).await?;
    let session = suite.world.stranger.fresh().await?;
    drop(session.seal(&padding()));
    let record = session.seal(&padding());
    let got = raw(session, &record, false).await;
    suite.judge("a record left out", &closed, Ok(got)).await?;
    let session = suite.world.stranger.fresh().await?;
    let (first, second) = (session.seal(&padding()), session.seal(&padding()));
    let got = raw(session, &[&second[..], &first].concat(), false).await;
    suite.judge("two records swapped", &closed, Ok(got)).await?;
    let record = suite.world.stranger.fresh().await?.seal(&padding());
    let session = suite.world.stranger.fresh().await?;
    let got = raw(session, &record, false).await;
    suite
        .judge("a record of another session", &closed, Ok(got))
        .await
}

/// Records may be cut anywhere by the carrier, and frames by records.
async fn pieces(suite: &mut Suite) -> Result<()> {
    let session = suite.world.stranger.fresh().await?;
    for byte in padding() {
        let record = session.seal(&[byte]);
        for piece in record.chunks(3) {
            session.carrier.write(piece).await;
        }
    }
    let got = session.provoke(&[], false).await;
    suite
        .judge(
            "a frame in records of one byte, in pieces",
            &[Got::Quiet],
            Ok(got),
        )
        .await
}

/// The boundary at which the key changes, in order and with a record left out there.
async fn rekey(suite: &mut Suite) -> Result<()> {
    for (left_out, wanted) in [
        (None, Got::Quiet),
        (Some(RECORDS_PER_KEY - 1), Got::Closed),
        (Some(RECORDS_PER_KEY), Got::Closed),
    ] {
        let session = suite.world.stranger.fresh().await?;
        let mut batch = Vec::new();
        for at in 0..RECORDS_PER_KEY + 3 {
            let record = session.seal(&padding());
            if Some(at) != left_out {
                batch.extend_from_slice(&record);
            }
            if batch.len() > 60_000 {
                session.carrier.write(&batch).await;
                batch.clear();
            }
        }
        session.carrier.write(&batch).await;
        let got = session.provoke(&[], false).await;
        let name = format!("65,539 records, {left_out:?} left out");
        suite.judge(&name, &[wanted], Ok(got)).await?;
    }
    Ok(())
}

/// Streams that are broken off, or ended, at a bad moment.
async fn resets(suite: &mut Suite) -> Result<()> {
    for round in 0..30 {
        let session = suite.world.stranger.fresh().await?;
        let record = session.seal(&[&padding()[..], &[0x80]].concat());
        session.carrier.write(&record).await;
        session.carrier.reset();
        suite
            .record(
                &format!("a stream reset in the middle of a frame, {round}"),
                Ok(()),
            )
            .await?;
    }
    let session = suite.world.stranger.fresh().await?;
    let got = raw(session, &[], true).await;
    suite
        .judge("a stream that is half closed", &[Got::Closed], Ok(got))
        .await
}
