//! Any bytes as what another domain may send: a batch, its events, an event alone.
#![no_main]

use bytes::Bytes;
use commucat_federation::batch::Batch;
use commucat_federation::{Event, Received};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    let raw = Bytes::copy_from_slice(raw);
    if let Ok(event) = Event::decode(&raw) {
        let again = Event::new(event.id, event.body.clone());
        assert_eq!(Event::decode(again.encoded()).map(|one| one.body), Ok(event.body));
    }
    if let Ok(batch) = Batch::decode(&raw) {
        for event in &batch.events {
            drop(event.decode());
        }
    }
    drop(Received::read(&raw));
});
