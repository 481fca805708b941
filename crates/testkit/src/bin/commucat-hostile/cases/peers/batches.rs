//! Requests that are refused as a whole.

use std::time::Instant;

use anyhow::{Context as _, Result};
use commucat_crypto::secret::random_bytes;
use commucat_crypto::server_keys::DomainSecret;
use commucat_crypto::signing::Purpose;
use commucat_federation::event::{Body, Request, Requested};
use commucat_proto::id::Domain;
use commucat_proto::time::Timestamp;
use commucat_testkit::server::Server;

use super::{liar, record, refused};
use crate::cbor::Value;
use crate::clock;
use crate::peer::{self, Peer, put, resign};
use crate::suite::Suite;

const MINUTES: u64 = 60_000;
/// Events of the flood: more than `federation.peer_events` allows in a burst.
const FLOOD_BATCHES: usize = 24;
const FLOOD_EVENTS: usize = 1_000;
/// Requests in another domain's name: if they counted as its own, its budget would be used up.
const FORGERIES: usize = 24;

pub(super) async fn run(suite: &mut Suite) -> Result<()> {
    let liar = liar(suite).await?;
    let own = Domain::parse(&suite.world.server.domain())?;
    shapes(suite, &liar, &own).await?;
    places_and_times(suite, &liar, &own).await?;
    signatures(suite, &liar, &own).await?;
    origins(suite, &liar, &own).await?;
    addresses(suite, &liar).await?;
    replay(suite, &liar, &own).await?;
    floods(suite, &liar, &own).await
}

fn nothing(payload: usize) -> Body {
    Body::Request(Request {
        frame: Requested::Fetch,
        payload: vec![7; payload].into(),
    })
}

async fn shapes(suite: &mut Suite, liar: &Peer, own: &Domain) -> Result<()> {
    let malformed = (400, "malformed");
    let good = liar.batch(own, vec![nothing(10)]);
    let cut = good.get(..good.len() - 1).unwrap_or_default();
    let longer = [&good[..], &[0]].concat();
    for (name, body) in [
        ("a request without a body", &[][..]),
        ("a request of rubbish", &b"rubbish"[..]),
        ("a request cut off", cut),
        ("a request with a byte behind it", &longer[..]),
    ] {
        refused(suite, name, body, malformed).await?;
    }
    let event = Value::parse(&event(liar, own)?).context("an event")?;
    let twice = Value::List(vec![event.clone(), event]);
    let body = liar.changed(own, |map| put(map, 4, twice))?;
    refused(suite, "an event twice", &body, malformed).await?;
    let many: Vec<Value> = (0..1_001_u64)
        .map(|number| {
            let id = [number.to_be_bytes(), [7; 8]].concat();
            Value::List(vec![
                Value::Bytes(id),
                Value::Uint(9),
                Value::Map(Vec::new()),
            ])
        })
        .collect();
    let body = liar.changed(own, |map| put(map, 4, Value::List(many)))?;
    refused(suite, "1,001 events", &body, malformed).await?;
    // Turned away where it is read, before anything of it is looked at.
    let body = vec![0; (4 << 20) + 1];
    refused(suite, "more than 4 MiB", &body, (413, "too-large")).await?;
    let good = liar.changed(own, |_| ())?;
    let signed = Value::parse(&good).context("a signed thing")?;
    for (what, body) in signed.bent(&[]) {
        refused(suite, &format!("a request: {what}"), &body, malformed).await?;
    }
    Ok(())
}

/// An event as it stands in a batch.
fn event(liar: &Peer, own: &Domain) -> Result<Vec<u8>> {
    let raw = liar.batch(own, vec![nothing(10)]);
    let mut found = None;
    resign(&raw, Purpose::FederationRequest, &liar.secret, |map| {
        let events = map.iter().find(|(key, _)| *key == 4);
        if let Some((_, Value::List(events))) = events {
            found = events.first().map(Value::encode);
        }
    })?;
    found.context("no event")
}

async fn places_and_times(suite: &mut Suite, liar: &Peer, own: &Domain) -> Result<()> {
    let elsewhere = Domain::parse("elsewhere.example")?;
    let body = liar.batch(&elsewhere, Vec::new());
    let misdirected = (421, "misdirected");
    refused(suite, "for another domain", &body, misdirected).await?;
    let name = own.as_str().as_bytes().to_vec();
    let body = liar.changed(own, |map| put(map, 1, Value::Text(name)))?;
    refused(suite, "in the server's own name", &body, misdirected).await?;
    let now = clock::now().as_millis();
    for (name, at) in [
        ("signed 16 minutes ago", now - 16 * MINUTES),
        ("signed 16 minutes ahead", now + 16 * MINUTES),
        ("signed at the beginning of time", 0),
        ("signed at the end of time", u64::MAX >> 1),
    ] {
        let body = liar.dated(own, Vec::new(), Timestamp::from_millis(at));
        refused(suite, name, &body, (400, "outside-window")).await?;
    }
    Ok(())
}

async fn signatures(suite: &mut Suite, liar: &Peer, own: &Domain) -> Result<()> {
    let wrong = (401, "signature");
    let good = liar.batch(own, Vec::new());
    let mut flipped = good.clone();
    if let Some(last) = flipped.last_mut() {
        *last ^= 1;
    }
    refused(suite, "one bit of the signature", &flipped, wrong).await?;
    let other = resign(
        &good,
        Purpose::FederationRequest,
        &DomainSecret::generate(),
        |_| (),
    )?;
    refused(suite, "signed by another key in its name", &other, wrong).await?;
    let answer = resign(&good, Purpose::FederationAnswer, &liar.secret, |_| ())?;
    refused(suite, "signed for another purpose", &answer, wrong).await?;
    let mut altered = good.clone();
    // The batch's id is the first thing in it.
    if let Some(byte) = altered.get_mut(12) {
        *byte ^= 1;
    }
    refused(suite, "altered after it was signed", &altered, wrong).await?;
    let body = liar.changed(own, |map| put(map, 5, Value::Bytes(vec![7; 8])))?;
    refused(
        suite,
        "under a key that nobody knows",
        &body,
        (401, "unknown-key"),
    )
    .await
}

async fn origins(suite: &mut Suite, liar: &Peer, own: &Domain) -> Result<()> {
    let friend = suite.world.friend.domain();
    let body = liar.changed(own, |map| put(map, 1, Value::Text(friend.into_bytes())))?;
    refused(
        suite,
        "in another domain's name",
        &body,
        (401, "unknown-key"),
    )
    .await?;
    for name in ["localhost:1", "nowhere.invalid"] {
        let body = liar.changed(own, |map| put(map, 1, Value::Text(name.into())))?;
        let case = format!("in the name of {name}");
        refused(suite, &case, &body, (503, "unknown-origin")).await?;
    }
    let blocked = super::liar(suite).await?;
    let domain = blocked.domain.as_str().to_owned();
    let standing = commucat_admin::PeerStanding::Blocked;
    let request = commucat_admin::Request::SetPeer { domain, standing };
    suite.world.server.ask(&request).await?;
    let body = blocked.batch(own, Vec::new());
    refused(
        suite,
        "of a domain that is blocked",
        &body,
        (403, "peer-refused"),
    )
    .await
}

/// Addresses that a server does not connect to unless it is told to, in every way to write them.
async fn addresses(suite: &mut Suite, liar: &Peer) -> Result<()> {
    let server = Server::start(commucat_testkit::server::Options {
        own_domain: true,
        ..Default::default()
    })
    .await?;
    let own = Domain::parse(&server.domain())?;
    let port = liar
        .domain
        .as_str()
        .rsplit(':')
        .next()
        .unwrap_or("1")
        .to_owned();
    for host in [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "[fe80::1]",
        "[fd00::1]",
        "[64:ff9b::a9fe:a9fe]",
        "0.0.0.0",
        "224.0.0.1",
    ] {
        let name = format!("{host}:{port}");
        let body = liar.changed(&own, |map| put(map, 1, Value::Text(name.into_bytes())))?;
        let begun = Instant::now();
        let outcome = match peer::post(&server, &body).await {
            Ok((503, _)) => Ok(()),
            Ok((status, _)) => Err(format!("status {status}")),
            Err(error) => Err(format!("{error:#}")),
        };
        let case = format!("an origin at {host}, refused after {:?}", begun.elapsed());
        record(suite, &case, outcome).await?;
    }
    Ok(())
}

/// The same request again: its answer is signed anew, and nothing happens twice.
async fn replay(suite: &mut Suite, liar: &Peer, own: &Domain) -> Result<()> {
    let body = liar.batch(own, vec![nothing(10)]);
    for time in ["at first", "again", "a third time"] {
        let outcome = match peer::post(&suite.world.server, &body).await {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        };
        record(suite, &format!("a request {time}"), outcome).await?;
    }
    Ok(())
}

async fn floods(suite: &mut Suite, liar: &Peer, own: &Domain) -> Result<()> {
    let friend = suite.world.friend.domain();
    for _ in 0..FORGERIES {
        let many = (0..FLOOD_EVENTS).map(|_| {
            let id = Value::Bytes(random_bytes::<16>().to_vec());
            Value::List(vec![id, Value::Uint(9), Value::Map(Vec::new())])
        });
        let many = Value::List(many.collect());
        let body = liar.changed(own, |map| {
            put(map, 1, Value::Text(friend.clone().into_bytes()));
            put(map, 4, many);
        })?;
        peer::post(&suite.world.server, &body).await?;
    }
    record(suite, "a flood in another domain's name", Ok(())).await?;
    let mut last = 0;
    for _ in 0..FLOOD_BATCHES {
        let events = (0..FLOOD_EVENTS).map(|_| nothing(1)).collect();
        (last, _) = peer::post(&suite.world.server, &liar.batch(own, events)).await?;
    }
    let outcome = if last == 429 {
        Ok(())
    } else {
        Err(format!("status {last}"))
    };
    record(suite, "a flood of events", outcome).await
}
