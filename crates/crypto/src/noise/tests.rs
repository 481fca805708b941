//! Published vectors, and what a handshake must refuse.

use data_encoding::HEXLOWER;
use serde::Deserialize;

use bytes::BytesMut;

use super::*;

mod protocol;

#[derive(Deserialize)]
struct File {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    protocol_name: String,
    init_prologue: String,
    init_static: String,
    init_ephemeral: String,
    init_remote_static: String,
    resp_prologue: String,
    resp_static: String,
    resp_ephemeral: String,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    payload: String,
    ciphertext: String,
}

fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn key(text: &str) -> StaticKey {
    StaticKey::from_private(Secret::from_slice(&unhex(text)).unwrap())
}

fn pattern(vector: &Vector) -> Pattern {
    [Pattern::Xk, Pattern::Ik]
        .into_iter()
        .find(|pattern| pattern.noise_name() == vector.protocol_name)
        .unwrap()
}

fn sides(vector: &Vector) -> (HandshakeState, HandshakeState) {
    let server = unhex(&vector.init_remote_static);
    let initiator = builder(
        pattern(vector),
        &unhex(&vector.init_prologue),
        &key(&vector.init_static),
    )
    .unwrap()
    .remote_public_key(&server)
    .unwrap()
    .fixed_ephemeral_key_for_testing_only(&unhex(&vector.init_ephemeral))
    .build_initiator()
    .unwrap();
    let responder = builder(
        pattern(vector),
        &unhex(&vector.resp_prologue),
        &key(&vector.resp_static),
    )
    .unwrap()
    .fixed_ephemeral_key_for_testing_only(&unhex(&vector.resp_ephemeral))
    .build_responder()
    .unwrap();
    (initiator, responder)
}

fn reproduce(vector: &Vector) {
    let (mut from, mut to) = sides(vector);
    let handshake = match pattern(vector) {
        Pattern::Xk => 3,
        Pattern::Ik => 2,
    };
    for message in vector.messages.iter().take(handshake) {
        let sent = write(&mut from, &unhex(&message.payload)).unwrap();

        assert_eq!(HEXLOWER.encode(&sent), message.ciphertext);
        assert_eq!(
            HEXLOWER.encode(&read(&mut to, &sent).unwrap()),
            message.payload
        );
        std::mem::swap(&mut from, &mut to);
    }

    let (mut sealer, mut opener) = Established::of(from).unwrap().into_tunnel();
    let (mut other_sealer, mut other_opener) = Established::of(to).unwrap().into_tunnel();
    for message in vector.messages.iter().skip(handshake) {
        let (mut sealed, mut opened) = (BytesMut::new(), BytesMut::new());
        sealer.seal(&unhex(&message.payload), &mut sealed).unwrap();
        other_opener.open(&sealed, &mut opened).unwrap();

        assert_eq!(HEXLOWER.encode(&sealed[2..]), message.ciphertext);
        assert_eq!(HEXLOWER.encode(&opened), message.payload);
        std::mem::swap(&mut sealer, &mut other_sealer);
        std::mem::swap(&mut opener, &mut other_opener);
    }
}

#[test]
fn published_vectors_are_reproduced_from_the_first_message_to_the_records() {
    let files = [
        include_str!("../../tests/vectors/cacophony.json"),
        include_str!("../../tests/vectors/snow.json"),
    ];
    let mut count = 0;
    for file in files {
        for vector in serde_json::from_str::<File>(file).unwrap().vectors {
            reproduce(&vector);
            count += 1;
        }
    }
    assert_eq!(count, 4);
}

fn domain() -> Domain {
    Domain::parse("chat.example").unwrap()
}

fn pass(established: Established, other: Established) {
    let (mut sealer, _) = established.into_tunnel();
    let (_, mut opener) = other.into_tunnel();
    let (mut sealed, mut opened) = (BytesMut::new(), BytesMut::new());
    sealer.seal(b"first record", &mut sealed).unwrap();
    assert_eq!(opener.open(&sealed, &mut opened), Ok(1));
    assert_eq!(&opened[..], b"first record");
}

#[test]
fn xk_proves_both_keys_and_carries_the_identification() {
    let (device, server) = (StaticKey::generate(), StaticKey::generate());

    let (initiator, hello) = XkInitiator::start(&domain(), &device, server.public()).unwrap();
    let (responder, answer) = XkResponder::answer(&domain(), &server, &hello).unwrap();
    let (here, auth) = initiator.finish(&answer, b"identification").unwrap();
    let (there, identification) = responder.finish(&auth).unwrap();

    assert_eq!(identification, b"identification");
    assert_eq!(here.remote_key(), server.public());
    assert_eq!(there.remote_key(), device.public());
    pass(there, here);
}

#[test]
fn ik_proves_both_keys_and_carries_the_identification() {
    let (device, server) = (StaticKey::generate(), StaticKey::generate());

    let (initiator, hello) =
        IkInitiator::start(&domain(), &device, server.public(), b"identification").unwrap();
    let responder = IkResponder::read(&domain(), &server, &hello).unwrap();
    assert_eq!(responder.identification(), b"identification");
    assert_eq!(responder.remote_key(), device.public());
    let (there, answer) = responder.accept().unwrap();
    let here = initiator.finish(&answer).unwrap();

    assert_eq!(here.remote_key(), server.public());
    pass(here, there);
}

#[test]
fn a_message_for_another_domain_key_or_pattern_is_refused() {
    let (device, server) = (StaticKey::generate(), StaticKey::generate());
    let (_, hello) = XkInitiator::start(&domain(), &device, server.public()).unwrap();
    let other = Domain::parse("other.example").unwrap();

    let refused = |result: Result<(XkResponder, Vec<u8>), _>| result.err();
    let reason = Some(HandshakeError::Refused);
    assert_eq!(
        refused(XkResponder::answer(&other, &server, &hello)),
        reason
    );
    assert_eq!(
        refused(XkResponder::answer(&domain(), &device, &hello)),
        reason
    );
    assert_eq!(IkResponder::read(&domain(), &server, &hello).err(), reason);
}

#[test]
fn a_message_that_is_cut_or_changed_anywhere_is_refused() {
    let (device, server) = (StaticKey::generate(), StaticKey::generate());
    let (_, hello) = XkInitiator::start(&domain(), &device, server.public()).unwrap();

    for at in 0..hello.len() {
        let mut changed = hello.clone();
        changed[at] ^= 1;
        assert!(
            XkResponder::answer(&domain(), &server, &changed).is_err(),
            "byte {at}"
        );
        assert!(
            XkResponder::answer(&domain(), &server, &hello[..at]).is_err(),
            "cut at {at}"
        );
    }
    assert!(XkResponder::answer(&domain(), &server, &vec![0; MESSAGE_BYTES_MAX + 1]).is_err());
}

#[test]
fn a_payload_that_does_not_fit_is_refused_before_it_is_sent() {
    let (device, server) = (StaticKey::generate(), StaticKey::generate());
    let payload = vec![0; MESSAGE_BYTES_MAX];

    let started = IkInitiator::start(&domain(), &device, server.public(), &payload);

    let len = payload.len();
    assert_eq!(started.err(), Some(HandshakeError::PayloadTooLong { len }));
}

/// The points of order 1, 2, 4 and 8 on the curve and on its twist, and their other encodings
/// (RFC 7748 section 6.1 and the list of libsodium).
const LOW_ORDER: [&str; 12] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

#[test]
fn public_keys_of_low_order_are_recognised() {
    for text in LOW_ORDER {
        assert!(
            is_low_order(&NoiseKey::parse(&unhex(text)).unwrap()),
            "{text}"
        );
    }
    assert!(!is_low_order(StaticKey::generate().public()));
}

/// Which public key of an impostor is a point of low order.
#[derive(Clone, Copy, PartialEq)]
enum Claim {
    Static,
    Ephemeral,
}

/// Snow's own X25519, which does not look at the result, with a point in place of one public key.
struct Careless {
    inner: Box<dyn snow::types::Dh>,
    point: Vec<u8>,
    claim: Claim,
    claimed: bool,
}

impl snow::types::Dh for Careless {
    fn name(&self) -> &'static str {
        "25519"
    }
    fn pub_len(&self) -> usize {
        32
    }
    fn priv_len(&self) -> usize {
        32
    }
    fn set(&mut self, privkey: &[u8]) {
        self.claimed = self.claim == Claim::Static;
        self.inner.set(privkey);
    }
    fn generate(&mut self, rng: &mut dyn snow::types::Random) -> Result<(), snow::Error> {
        self.claimed = self.claim == Claim::Ephemeral;
        self.inner.generate(rng)
    }
    fn pubkey(&self) -> &[u8] {
        if self.claimed {
            &self.point
        } else {
            self.inner.pubkey()
        }
    }
    fn privkey(&self) -> &[u8] {
        self.inner.privkey()
    }
    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        if self.claimed {
            // Whoever claims a point of low order knows the result of every DH with it.
            out.fill(0);
            return Ok(());
        }
        self.inner.dh(pubkey, out)
    }
}

struct CarelessResolver(Vec<u8>, Claim);

impl snow::resolvers::CryptoResolver for CarelessResolver {
    fn resolve_rng(&self) -> Option<Box<dyn snow::types::Random>> {
        DefaultResolver.resolve_rng()
    }
    fn resolve_dh(&self, choice: &snow::params::DHChoice) -> Option<Box<dyn snow::types::Dh>> {
        let inner = DefaultResolver.resolve_dh(choice)?;
        let (point, claim) = (self.0.clone(), self.1);
        Some(Box::new(Careless {
            inner,
            point,
            claim,
            claimed: false,
        }))
    }
    fn resolve_hash(
        &self,
        choice: &snow::params::HashChoice,
    ) -> Option<Box<dyn snow::types::Hash>> {
        DefaultResolver.resolve_hash(choice)
    }
    fn resolve_cipher(
        &self,
        choice: &snow::params::CipherChoice,
    ) -> Option<Box<dyn snow::types::Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// A device that claims a point of low order as a public key. Its handshake is consistent, so that
/// only the look at the DH result can refuse it.
fn impostor(pattern: Pattern, point: &str, claim: Claim, server: &NoiseKey) -> HandshakeState {
    let resolver = CarelessResolver(unhex(point), claim);
    Builder::with_resolver(pattern.noise_name().parse().unwrap(), Box::new(resolver))
        .local_private_key(&[7; 32])
        .unwrap()
        .remote_public_key(server.as_bytes())
        .unwrap()
        .prologue(&prologue(&domain()))
        .unwrap()
        .build_initiator()
        .unwrap()
}

/// A server that uses snow as it comes.
fn careless_server(pattern: Pattern, server: &StaticKey) -> HandshakeState {
    Builder::new(pattern.noise_name().parse().unwrap())
        .local_private_key(server.private().expose())
        .unwrap()
        .prologue(&prologue(&domain()))
        .unwrap()
        .build_responder()
        .unwrap()
}

#[test]
fn an_ephemeral_key_of_low_order_is_refused() {
    let server = StaticKey::generate();
    for point in LOW_ORDER {
        for pattern in [Pattern::Xk, Pattern::Ik] {
            let mut device = impostor(pattern, point, Claim::Ephemeral, server.public());
            let hello = write(&mut device, b"").unwrap();

            assert!(
                read(&mut careless_server(pattern, &server), &hello).is_ok(),
                "{point}"
            );
            let mut state = responder(pattern, &prologue(&domain()), &server).unwrap();
            assert_eq!(
                read(&mut state, &hello),
                Err(HandshakeError::Refused),
                "{point}"
            );
        }
    }
}

#[test]
fn a_static_key_of_low_order_is_refused_in_ik() {
    let server = StaticKey::generate();
    for point in LOW_ORDER {
        let mut device = impostor(Pattern::Ik, point, Claim::Static, server.public());
        let hello = write(&mut device, b"identification").unwrap();

        assert!(
            read(&mut careless_server(Pattern::Ik, &server), &hello).is_ok(),
            "{point}"
        );
        let refused = IkResponder::read(&domain(), &server, &hello).err();
        assert_eq!(refused, Some(HandshakeError::Refused), "{point}");
    }
}

#[test]
fn a_static_key_of_low_order_is_refused_in_xk() {
    let server = StaticKey::generate();
    for point in LOW_ORDER {
        let mut device = impostor(Pattern::Xk, point, Claim::Static, server.public());
        let hello = write(&mut device, b"").unwrap();
        let (responder, answer) = XkResponder::answer(&domain(), &server, &hello).unwrap();
        read(&mut device, &answer).unwrap();
        let auth = write(&mut device, b"identification").unwrap();
        assert_eq!(
            responder.finish(&auth).err(),
            Some(HandshakeError::Refused),
            "{point}"
        );

        let mut device = impostor(Pattern::Xk, point, Claim::Static, server.public());
        let mut careless = careless_server(Pattern::Xk, &server);
        let hello = write(&mut device, b"").unwrap();
        read(&mut careless, &hello).unwrap();
        let answer = write(&mut careless, b"").unwrap();
        read(&mut device, &answer).unwrap();
        let auth = write(&mut device, b"identification").unwrap();
        assert!(read(&mut careless, &auth).is_ok(), "{point}");
    }
}

#[test]
fn debug_of_a_key_pair_does_not_show_the_private_half() {
    let key = StaticKey::from_private(Secret::new([0xab; 32]));

    let shown = format!("{key:?}");

    assert!(
        shown.starts_with("StaticKey { public: NoiseKey("),
        "{shown}"
    );
    assert!(!shown.contains("abab") && !shown.contains("171"), "{shown}");
}
