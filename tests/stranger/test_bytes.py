"""The client against the vectors of PROTOCOL.md section 11 and against the rules of section 2."""

import json
import pathlib

import pytest

from tunnel import Initiator, Opener, Sealer
from wire import (
    FrameReader,
    ProtocolError,
    account_id,
    base32,
    cbor,
    dedupe_key,
    device_id,
    ed25519_public,
    hash32,
    message_payload,
    parse_invite,
    read_varint,
    sign,
    signed_input,
    unbase32,
    uncbor,
    varint,
    verify,
    x25519_public,
)

HERE = pathlib.Path(__file__).parent
VECTORS = json.loads((HERE / "vectors.json").read_text())
DOCUMENT = (HERE.parent.parent / "docs" / "PROTOCOL.md").read_text()


def raw(section, name):
    return bytes.fromhex(VECTORS[section][name])


def test_the_document_shows_the_same_vectors():
    shown = "".join(DOCUMENT.split())

    for section in VECTORS.values():
        for value in section.values():
            assert "".join(str(value).split()) in shown


def test_ids_derive_from_keys():
    assert account_id(raw("ids", "account key")) == VECTORS["ids"]["account id"]
    assert device_id(raw("ids", "device Noise key")) == VECTORS["ids"]["device id"]
    assert ed25519_public(raw("ids", "account seed")) == raw("ids", "account key")
    assert x25519_public(raw("ids", "device private key")) == raw("ids", "device Noise key")


def test_a_certificate_is_signed_over_its_hash_and_purpose():
    body = raw("device certificate", "body")

    signed = sign(raw("ids", "account seed"), "device certificate", body)

    assert signed_input("device certificate", body) == raw("device certificate", "signed input")
    assert cbor(signed) == raw("device certificate", "signed")
    assert verify(raw("ids", "account key"), "device certificate", signed)[2] == raw(
        "ids", "device Noise key"
    )
    with pytest.raises(ProtocolError):
        verify(raw("ids", "account key"), "device list", signed)


def test_an_xk_handshake_gives_the_messages_and_keys_of_the_vector():
    noise = Initiator(
        "XK",
        raw("ids", "device private key"),
        raw("XK", "server Noise key"),
        "chat.example.org",
        raw("XK", "client ephemeral private key"),
    )

    hello = noise.hello(b"").encode()
    answer = FrameReader().push(raw("XK", "AUTH frame s->c"))[0]
    noise.read_auth(answer)
    auth = noise.auth(raw("XK", "identification")).encode()
    sealer, opener = noise.split()

    assert hello == raw("XK", "HELLO frame")
    assert auth == raw("XK", "AUTH frame c->s")
    assert sealer.key == raw("XK", "key c->s")
    assert opener.key == raw("XK", "key s->c")


def test_an_ik_handshake_gives_the_messages_and_keys_of_the_vector():
    noise = Initiator(
        "IK",
        raw("ids", "device private key"),
        raw("XK", "server Noise key"),
        "chat.example.org",
        raw("XK", "client ephemeral private key"),
    )

    hello = json.loads(noise.hello(raw("IK", "identification")).payload)
    assert not bytes(noise.noise.read_message(raw("IK", "message 2")))
    sealer, opener = noise.split()

    assert bytes.fromhex(hello["handshake"]) == raw("IK", "message 1")
    assert sealer.key == raw("IK", "key c->s")
    assert opener.key == raw("IK", "key s->c")


def test_record_65536_is_the_first_under_the_next_key():
    plaintext = raw("record", "plaintext")

    assert Sealer(raw("XK", "key c->s")).seal(plaintext) == raw("record", "record 0 c->s")
    late = Sealer(raw("XK", "key c->s"), 65_536)
    assert late.seal(plaintext) == raw("record", "record 65536 c->s")
    assert late.key == raw("record", "key c->s after one rekey")
    opener = Opener(raw("XK", "key c->s"), 65_536)
    assert opener.push(raw("record", "record 65536 c->s")) == plaintext


def test_records_may_arrive_in_any_pieces():
    sealer, opener = Sealer(bytes(32)), Opener(bytes(32))
    stream = sealer.seal(b"a" * 100_000) + sealer.seal(b"b")

    out = b"".join(opener.push(stream[at : at + 777]) for at in range(0, len(stream), 777))

    assert out == b"a" * 100_000 + b"b"


def test_message_payload_and_dedupe_key():
    group, message = raw("MSG", "group id"), raw("MSG", "message id")

    payload = message_payload(300, message, raw("MSG", "ciphertext"))
    frame = FrameReader().push(raw("MSG", "frame on channel 1, sequence 7"))[0]

    assert payload == raw("MSG", "payload") == frame.payload
    assert (frame.channel, frame.sequence) == (1, 7)
    assert dedupe_key(group, message, raw("MSG", "ciphertext")) == raw("MSG", "dedupe key")


def test_an_entry_is_named_by_its_bundle():
    body = raw("bundle", "body")

    signed = sign(raw("bundle", "handle seed"), "commit", body)

    assert signed[1] == raw("bundle", "signature")
    assert hash32(body)[:16] == raw("bundle", "message id of the entry")


def test_varints_are_bounded():
    for number in (0, 1, 127, 128, 300, 2**32 - 1, 2**64 - 1):
        assert read_varint(varint(number), 0) == (number, len(varint(number)))
    assert read_varint(b"\x80\x00", 0) == (0, 2)
    for bad in (b"\xff" * 10, b"\xff" * 9 + b"\x02", b"\x80" * 11):
        with pytest.raises(ProtocolError):
            read_varint(bad, 0)


def test_only_the_deterministic_encoding_is_taken_from_a_server():
    assert uncbor(cbor({0: b"x", 1: [1, 2]})) == {0: b"x", 1: [1, 2]}
    for bad in (b"\xa2\x01\x00\x00\x00", b"\xa1\x00\x18\x01", b"\xa1\x00\x5f\x41\x01\xff"):
        with pytest.raises(ProtocolError):
            uncbor(bad)


def test_links_parse():
    invite = parse_invite(VECTORS["links"]["invite"])

    assert (invite.host, invite.port, invite.domain) == (
        "chat.example.org",
        8443,
        "chat.example.org",
    )
    assert invite.domain_key == raw("server keys", "domain key")
    assert unbase32(base32(invite.token)) == invite.token
    assert (
        parse_invite("commucat://[::1]:8443/#" + VECTORS["links"]["invite"].split("#")[1]).host
        == "::1"
    )
