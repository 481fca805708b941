//! Any bytes in any pieces: the decoder neither panics nor keeps more than it was given, and a
//! stream means the same however it is cut.
#![no_main]

use commucat_proto::decoder::{DecodeError, Decoder, Incoming};
use commucat_proto::frame::Direction;
use commucat_proto::frame::payload::{FromClient, FromServer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (kind, cut, raw) = input;
    let whole = run(kind, raw.len().max(1), raw);
    let pieces = run(kind, usize::from(cut).max(1), raw);
    assert_eq!(whole, pieces);
});

fn run(kind: u8, piece: usize, raw: &[u8]) -> (Vec<Incoming>, Option<DecodeError>) {
    let mut decoder = match kind % 4 {
        0 => Decoder::clear(Direction::Up),
        1 => Decoder::clear(Direction::Down),
        2 => Decoder::tunnel(Direction::Up),
        _ => Decoder::tunnel(Direction::Down),
    };
    let mut seen = Vec::new();
    for piece in raw.chunks(piece) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(incoming)) => {
                    if let Incoming::Frame(frame) = &incoming {
                        drop(FromClient::decode(frame));
                        drop(FromServer::decode(frame));
                    }
                    seen.push(incoming);
                }
                Ok(None) => break,
                Err(error) => return (seen, Some(error)),
            }
        }
    }
    (seen, None)
}
