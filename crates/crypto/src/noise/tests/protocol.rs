//! The vectors of `docs/PROTOCOL.md` section 15, made by another implementation.

use serde_json::Value;

use super::*;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../tests/vectors/protocol.json")).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    unhex(value.as_str().unwrap())
}

fn of_text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Both sides with the keys of the text, the device first.
fn sides_of_text(pattern: Pattern) -> (HandshakeState, HandshakeState) {
    let vectors = vectors();
    let (ids, xk) = (&vectors["ids"], &vectors["XK"]);
    let domain = Domain::parse("chat.example.org").unwrap();
    let (device, server) = (
        key(&of_text(&ids["device private key"])),
        key(&of_text(&xk["server private key"])),
    );
    assert_eq!(
        HEXLOWER.encode(server.public().as_bytes()),
        of_text(&xk["server Noise key"])
    );
    assert_eq!(prologue(&domain), bytes(&xk["prologue"]));
    let prologue = prologue(&domain);
    let initiator = builder(pattern, &prologue, &device)
        .unwrap()
        .remote_public_key(server.public().as_bytes())
        .unwrap()
        .fixed_ephemeral_key_for_testing_only(&bytes(&xk["client ephemeral private key"]))
        .build_initiator()
        .unwrap();
    let responder = builder(pattern, &prologue, &server)
        .unwrap()
        .fixed_ephemeral_key_for_testing_only(&bytes(&xk["server ephemeral private key"]))
        .build_responder()
        .unwrap();
    (initiator, responder)
}

fn assert_message(
    from: &mut HandshakeState,
    to: &mut HandshakeState,
    payload: &[u8],
    text: &Value,
) {
    let message = write(from, payload).unwrap();
    assert_eq!(HEXLOWER.encode(&message), of_text(text));
    assert_eq!(read(to, &message).unwrap(), payload);
}

fn assert_split(state: &mut HandshakeState, vector: &Value) {
    let (up, down) = state.dangerously_get_raw_split();
    assert_eq!(
        HEXLOWER.encode(state.get_handshake_hash()),
        of_text(&vector["handshake hash"])
    );
    assert_eq!(HEXLOWER.encode(&up), of_text(&vector["key c->s"]));
    assert_eq!(HEXLOWER.encode(&down), of_text(&vector["key s->c"]));
}

#[test]
fn the_xk_handshake_is_the_one_in_the_protocol_text() {
    let xk = &vectors()["XK"];
    let (mut device, mut server) = sides_of_text(Pattern::Xk);

    assert_message(&mut device, &mut server, b"", &xk["message 1"]);
    assert_message(&mut server, &mut device, b"", &xk["message 2"]);
    let identification = bytes(&xk["identification"]);
    assert_message(&mut device, &mut server, &identification, &xk["message 3"]);

    assert_split(&mut device, xk);
    assert_split(&mut server, xk);
}

#[test]
fn the_ik_handshake_is_the_one_in_the_protocol_text() {
    let ik = &vectors()["IK"];
    let (mut device, mut server) = sides_of_text(Pattern::Ik);

    let identification = bytes(&ik["identification"]);
    assert_message(&mut device, &mut server, &identification, &ik["message 1"]);
    assert_message(&mut server, &mut device, b"", &ik["message 2"]);

    assert_split(&mut device, ik);
    assert_split(&mut server, ik);
}

#[test]
fn the_records_before_and_after_a_rekey_are_those_in_the_protocol_text() {
    let (vectors, mut sealed) = (vectors(), BytesMut::new());
    let record = &vectors["record"];
    let plaintext = bytes(&record["plaintext"]);
    let key: [u8; 32] = bytes(&vectors["XK"]["key c->s"]).try_into().unwrap();
    let mut sealer = Sealer::new(&key);

    sealer.seal(&plaintext, &mut sealed).unwrap();
    assert_eq!(HEXLOWER.encode(&sealed), of_text(&record["record 0 c->s"]));

    for _ in 1..65_536 {
        sealed.clear();
        sealer.seal(&plaintext, &mut sealed).unwrap();
    }
    sealed.clear();
    sealer.seal(&plaintext, &mut sealed).unwrap();
    assert_eq!(
        HEXLOWER.encode(&sealed),
        of_text(&record["record 65536 c->s"])
    );
}
