//! The records are Noise's, whatever pieces they arrive in.

use proptest::prelude::*;

use super::*;
use crate::noise::{StaticKey, XkInitiator, XkResponder};

const KEY: [u8; 32] = [5; 32];

fn pair() -> (Sealer, Opener) {
    (Sealer::new(&KEY), Opener::new(&KEY))
}

/// The two ends of a Noise transport by snow alone, the sender first.
fn oracle() -> (snow::TransportState, snow::TransportState, [u8; 32]) {
    let keys = snow::Builder::new("Noise_NN_25519_ChaChaPoly_BLAKE2s".parse().unwrap());
    let mut sender = keys.build_initiator().unwrap();
    let keys = snow::Builder::new("Noise_NN_25519_ChaChaPoly_BLAKE2s".parse().unwrap());
    let mut receiver = keys.build_responder().unwrap();
    let (mut buffer, mut payload) = ([0; 256], [0; 256]);
    let len = sender.write_message(&[], &mut buffer).unwrap();
    receiver.read_message(&buffer[..len], &mut payload).unwrap();
    let len = receiver.write_message(&[], &mut buffer).unwrap();
    sender.read_message(&buffer[..len], &mut payload).unwrap();
    let (key, _) = sender.dangerously_get_raw_split();
    (
        sender.into_transport_mode().unwrap(),
        receiver.into_transport_mode().unwrap(),
        key,
    )
}

#[test]
fn records_are_those_of_snow_across_two_rekeys() {
    let (mut sender, mut receiver, key) = oracle();
    let (mut sealer, mut opener) = (Sealer::new(&key), Opener::new(&key));
    let (mut sealed, mut opened) = (BytesMut::new(), BytesMut::new());
    let (mut expected, mut read) = ([0; 64], [0; 64]);

    for number in 0..(2 * RECORDS_PER_KEY + 10) {
        if number != 0 && number % RECORDS_PER_KEY == 0 {
            sender.rekey_outgoing();
            receiver.rekey_incoming();
        }
        let plaintext = number.to_be_bytes();
        let len = sender.write_message(&plaintext, &mut expected).unwrap();
        sealed.clear();
        opened.clear();
        sealer.seal(&plaintext, &mut sealed).unwrap();
        assert_eq!(&sealed[2..], &expected[..len], "record {number}");
        assert_eq!(sealed[..2], u16::try_from(len).unwrap().to_be_bytes());
        assert_eq!(receiver.read_message(&sealed[2..], &mut read), Ok(8));
        opener.open(&sealed, &mut opened).unwrap();
        assert_eq!(&opened[..], plaintext);
    }
}

#[test]
fn each_direction_has_its_own_key() {
    let domain = commucat_proto::id::Domain::parse("chat.example").unwrap();
    let (device, server) = (StaticKey::generate(), StaticKey::generate());
    let (initiator, hello) = XkInitiator::start(&domain, &device, server.public()).unwrap();
    let (responder, answer) = XkResponder::answer(&domain, &server, &hello).unwrap();
    let (here, auth) = initiator.finish(&answer, b"").unwrap();
    let (there, _) = responder.finish(&auth).unwrap();
    let ((mut up, mut own), (mut down, mut other)) = (here.into_tunnel(), there.into_tunnel());
    let (mut sealed_up, mut sealed_down) = (BytesMut::new(), BytesMut::new());

    up.seal(b"up", &mut sealed_up).unwrap();
    down.seal(b"down", &mut sealed_down).unwrap();

    let mut out = BytesMut::new();
    assert_eq!(other.open(&sealed_up, &mut out), Ok(1));
    assert_eq!(own.open(&sealed_down, &mut out), Ok(1));
    assert_eq!(&out[..], b"updown");
    assert_eq!(other.open(&sealed_down, &mut out), Err(OpenError));
}

#[test]
fn a_changed_repeated_or_missing_record_is_fatal_and_says_nothing() {
    let (mut sealer, _) = pair();
    let mut records = Vec::new();
    for text in [b"one", b"two", b"six"] {
        let mut sealed = BytesMut::new();
        sealer.seal(text, &mut sealed).unwrap();
        records.push(sealed);
    }
    let open = |bytes: &[u8]| {
        let (mut opener, mut out) = (Opener::new(&KEY), BytesMut::new());
        let result = opener.open(bytes, &mut out);
        (result, opener, out)
    };

    for at in 0..records[0].len() {
        let mut changed = records[0].clone();
        changed[at] ^= 1;
        // A longer length is not yet wrong: the end of the record has not arrived.
        changed.extend_from_slice(&[0; 65_535]);
        let (result, mut opener, out) = open(&changed);
        assert_eq!((result, out.len()), (Err(OpenError), 0), "byte {at}");
        assert_eq!(
            opener.open(&records[0], &mut BytesMut::new()),
            Err(OpenError)
        );
    }
    let (result, _, out) = open(&[records[0].clone(), records[0].clone()].concat());
    assert_eq!(
        (result, &out[..]),
        (Err(OpenError), b"one".as_slice()),
        "repeated"
    );
    let (result, _, out) = open(&[records[0].clone(), records[2].clone()].concat());
    assert_eq!(
        (result, &out[..]),
        (Err(OpenError), b"one".as_slice()),
        "missing"
    );
}

#[test]
fn a_record_length_below_17_is_refused_as_soon_as_it_arrived() {
    for len in 0..=16_u8 {
        let mut opener = Opener::new(&KEY);
        assert_eq!(opener.open(&[0], &mut BytesMut::new()), Ok(0));
        assert_eq!(
            opener.open(&[len], &mut BytesMut::new()),
            Err(OpenError),
            "{len}"
        );
    }
    assert_eq!(
        Opener::new(&KEY).open(&[0, 17], &mut BytesMut::new()),
        Ok(0)
    );
}

#[test]
fn the_longest_plaintext_fits_and_one_byte_more_does_not() {
    let (mut sealer, mut opener) = pair();
    let (mut sealed, mut opened) = (BytesMut::new(), BytesMut::new());
    let longest = vec![1; RECORD_PLAINTEXT_MAX];

    sealer.seal(&longest, &mut sealed).unwrap();

    assert_eq!(sealed.len(), 2 + 65_535);
    let too_long = sealer.seal(&[0; RECORD_PLAINTEXT_MAX + 1], &mut sealed);
    assert_eq!(
        too_long,
        Err(SealError::TooLong {
            len: RECORD_PLAINTEXT_MAX + 1
        })
    );
    assert_eq!(sealed.len(), 2 + 65_535, "what was there stays as it was");
    assert_eq!(opener.open(&sealed, &mut opened), Ok(1));
    assert_eq!(&opened[..], longest);
}

#[test]
fn pieces_of_a_record_are_sealed_together_where_they_lie() {
    let (mut sealer, mut opener) = pair();
    let (mut sealed, mut opened) = (BytesMut::from(&b"before"[..]), BytesMut::new());

    let mut record = sealer.record(&mut sealed);
    assert!(record.append(b"head").is_empty());
    assert!(record.append(b"body").is_empty());
    assert_eq!((record.len(), record.missing_to_class()), (8, 248));
    record.finish().unwrap();
    drop(sealer.record(&mut sealed));
    sealer.record(&mut sealed).finish().unwrap();

    assert_eq!(
        sealed.len(),
        6 + 8 + OVERHEAD,
        "empty records leave nothing behind"
    );
    assert_eq!(opener.open(&sealed[6..], &mut opened), Ok(1));
    assert_eq!(&opened[..], b"headbody");
}

#[test]
fn what_does_not_fit_a_record_is_handed_back_for_the_next() {
    let (mut sealer, mut opener) = pair();
    let (mut sealed, mut opened) = (BytesMut::new(), BytesMut::new());
    let stream: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();

    let mut rest = stream.as_slice();
    while !rest.is_empty() {
        let mut record = sealer.record(&mut sealed);
        rest = record.append(rest);
        record.finish().unwrap();
    }
    sealer.seal_all(&stream, &mut sealed).unwrap();

    assert_eq!(opener.open(&sealed, &mut opened), Ok(8));
    assert!(opened[..] == [stream.clone(), stream].concat());
}

#[test]
fn the_last_nonce_is_reserved() {
    let (mut sealer, mut out) = (Sealer::new(&KEY), BytesMut::new());
    sealer.0.next = u64::MAX;

    assert_eq!(sealer.seal(b"text", &mut out), Err(SealError::Exhausted));
    assert!(out.is_empty());
}

#[test]
fn an_idle_opener_keeps_no_large_buffer() {
    let (mut sealer, mut opener) = pair();
    let (mut sealed, mut opened) = (BytesMut::new(), BytesMut::new());
    sealer.seal(&vec![1; 60_000], &mut sealed).unwrap();

    opener.open(&sealed[..59_000], &mut opened).unwrap();
    assert!(opener.is_inside_record());
    opener.open(&sealed[59_000..], &mut opened).unwrap();

    assert!(!opener.is_inside_record());
    assert_eq!((opened.len(), opener.partial.capacity()), (60_000, 0));
}

proptest! {
    #[test]
    fn any_cut_of_the_stream_yields_the_same_plaintext(
        plaintexts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..8),
        cuts in prop::collection::vec(1..97_usize, 1..40),
    ) {
        let (mut sealer, mut opener) = pair();
        let (mut sealed, mut opened) = (BytesMut::new(), BytesMut::new());
        for plaintext in &plaintexts {
            sealer.seal(plaintext, &mut sealed).unwrap();
        }

        let (mut rest, mut records) = (&sealed[..], 0);
        for cut in cuts.iter().cycle() {
            let (piece, later) = rest.split_at(rest.len().min(*cut));
            records += opener.open(piece, &mut opened).unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }

        prop_assert_eq!(records, plaintexts.len());
        prop_assert_eq!(&opened[..], plaintexts.concat());
        prop_assert!(!opener.is_inside_record());
    }

    #[test]
    fn arbitrary_bytes_never_open(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let (mut opener, mut out) = (Opener::new(&KEY), BytesMut::new());

        let result = opener.open(&bytes, &mut out);

        prop_assert!(matches!(result, Ok(0) | Err(OpenError)));
        prop_assert!(out.is_empty());
    }
}
