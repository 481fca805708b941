"""What ends a connection, and control payloads that are refused (PROTOCOL.md 2 and 7)."""

import os

import pytest

import harness
from accounts import Member
from harness import fatal, make_group, refused
from wire import (
    ACK,
    AUTH,
    DIRECTORY,
    ERROR,
    FETCH,
    GRANT,
    GROUP_CREATE,
    GROUP_EVENT,
    GROUP_INVITE,
    HELLO,
    JOIN,
    KEY_PACKAGE,
    KEY_UPDATE,
    LEAVE,
    MSG,
    PADDING,
    PRESENCE,
    TYPING,
    Frame,
    cbor,
    varint,
)

REQUESTS = [JOIN, LEAVE, GROUP_CREATE, KEY_UPDATE, KEY_PACKAGE, DIRECTORY, FETCH]


@pytest.fixture
def session(server):
    return server.register()


@pytest.mark.parametrize(
    "kind",
    [0x00, 0x0E, 0x20, 0x3F, 0x45, 0x7F, HELLO, AUTH, GROUP_INVITE, GROUP_EVENT, ERROR, GRANT],
)
def test_types_that_do_not_belong_here_end_the_connection(session, kind):
    session.send(kind, b"", sequence=1)

    fatal(session, "Invalid Frame Type")


@pytest.mark.parametrize("kind", [0x80, 0x99, 0xFF])
def test_unknown_types_of_the_extension_range_go_on(session, kind):
    sequence = session.send(kind, b"anything")

    refused("Invalid Frame Type", session.answer, sequence)

    assert session.count() == {0: 0, 1: 0}


@pytest.mark.parametrize("sequence", [0, 2, 7])
def test_a_request_must_have_the_next_number(session, sequence):
    session.send(KEY_PACKAGE, cbor({0: 2}), sequence=sequence)

    fatal(session, "Sequence Out Of Order")


def test_a_repeated_number_is_fatal(session):
    session.count()

    session.send(KEY_PACKAGE, cbor({0: 2}), sequence=1)

    fatal(session, "Sequence Out Of Order")


@pytest.mark.parametrize(
    "kind,payload",
    [(ACK, cbor({0: 0})), (TYPING, b"x"), (PRESENCE, cbor({0: 1})), (PADDING, b"")],
    ids=["ACK", "TYPING", "PRESENCE", "PADDING"],
)
def test_frames_without_a_number_must_carry_0(session, kind, payload):
    session.send(kind, payload, sequence=1)

    fatal(session, "Sequence Out Of Order")


def test_identifiers_are_32_bits(server):
    for channel, sequence in ((1 << 32, 1), (0, 1 << 32), (1 << 63, 1)):
        session = server.register()
        session.raw(Frame(KEY_PACKAGE, channel, sequence, cbor({0: 2})).encode())
        fatal(session, "Identifier Out Of Range")


def test_varints_that_overflow_are_fatal(server):
    for raw in (b"\xff" * 11, b"\xff" * 9 + b"\x02", b"\x05\x43" + b"\x80" * 4):
        session = server.register()
        session.raw(raw)
        error = session.wait_closed()
        assert error.title in ("Varint Overflow", "Truncated Frame")
        harness.check_error(error)


def test_frames_that_do_not_end_with_their_payload_are_fatal(server):
    for body in (b"\x43\x00\x00\x05abc", b"\x43\x00\x00\x01abc", b"\x43\x00", b"\x43"):
        session = server.register()
        session.raw(varint(len(body)) + body)
        fatal(session, "Truncated Frame")


def test_a_frame_without_a_type_is_fatal(session):
    session.raw(b"\x00")

    fatal(session, "Truncated Frame")


def test_frames_above_16_mib_are_refused_before_they_arrive(session):
    session.raw(varint((16 << 20) + 1))

    fatal(session, "Frame Too Large")


def limit_of(kind):
    return 768 << 10 if kind in (KEY_UPDATE, GROUP_CREATE) else 256 << 10


@pytest.mark.parametrize("kind", [*REQUESTS, ACK, PRESENCE, PADDING])
def test_control_frames_above_their_limit_are_refused_before_they_arrive(session, kind):
    length = limit_of(kind) + 1
    channel, sequence = int(kind == JOIN), int(kind in REQUESTS)
    body = bytes([kind]) + varint(channel) + varint(sequence) + varint(length)

    session.raw(varint(len(body) + length) + body)

    fatal(session, "Control Payload Too Large")


def test_non_minimal_varints_are_accepted(session):
    payload = cbor({0: 2})
    body = bytes([KEY_PACKAGE]) + b"\x80\x00" + b"\x81\x80\x00" + b"\x83\x00" + payload
    assert len(payload) == 3

    session.sequence += 1
    session.raw(bytes([0x80 | len(body), 0x00]) + body)

    assert session.answer(1) == {0: 0, 1: 0}


BAD_CBOR = {
    "empty": b"",
    "cut": b"\xa1\x00",
    "trailing": b"\xa1\x00\x02\x00",
    "array": b"\x81\x00",
    "text key": b"\xa1\x61a\x02",
    "duplicate key": b"\xa2\x00\x02\x00\x02",
    "indefinite map": b"\xbf\x00\x02\xff",
    "tag": b"\xa1\x00\xc1\x02",
    "float": b"\xa1\x00\xf9\x3c\x00",
    "null": b"\xa1\x00\xf6",
    "negative": b"\xa1\x00\x20",
    "above 63 bits": b"\xa1\x00\x1b" + b"\xff" * 8,
    "huge length": b"\xa1\x00\x5b\x00\x00\x00\xff\xff\xff\xff\xff",
    "deep": b"\xa2\x00\x02\x18\x63" + b"\x81" * 9 + b"\x00",
    "huge array": b"\xa1\x00\x9b\x00\x00\x00\x00\xff\xff\xff\xff",
    "bad text": b"\xa1\x00\x62\xff\xff",
    "reserved": b"\xa1\x00\x1c",
}


@pytest.mark.parametrize("name", BAD_CBOR)
@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_with_bad_cbor_is_refused_and_the_connection_goes_on(session, kind, name):
    sequence = session.send(kind, BAD_CBOR[name], channel=1 if kind == JOIN else 0)

    refused("Invalid Control Payload", session.answer, sequence)

    assert session.count() == {0: 0, 1: 0}


@pytest.mark.parametrize("kind", [ACK, PRESENCE], ids=["ACK", "PRESENCE"])
def test_bad_cbor_without_a_number_is_fatal(session, kind):
    session.send(kind, b"\xbf\xff")

    fatal(session, "Invalid Control Payload")


def test_order_and_length_of_integers_are_not_checked_and_unknown_keys_ignored(session):
    group_id = os.urandom(32)
    domain = session.server.domain.encode()
    loose = b"\xa4" + b"\x06" + bytes([0x60 + len(domain)]) + domain
    loose += b"\x18\x05\x59\x00\x20" + group_id + b"\x00\x18\x05" + b"\x19\x03\xe7\x83\x01\x02\x03"

    assert len(session.request(KEY_PACKAGE, loose)) == 65


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_without_its_keys_is_refused(session, kind):
    sequence = session.send(kind, b"\xa0", channel=1 if kind == JOIN else 0)

    refused("Invalid Control Payload", session.answer, sequence)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_request_cut_anywhere_is_refused(session, cut):
    group_id = os.urandom(32)
    good = cbor({0: 5, 5: group_id, 6: session.server.domain})

    sequence = session.send(KEY_PACKAGE, good[: len(good) * cut // 12])

    refused("Invalid Control Payload", session.answer, sequence)


@pytest.mark.parametrize("channel", [0, 4_097, 70_000])
def test_join_outside_the_channels_is_fatal(session, channel):
    member = session.create_group()
    body = {0: member.group_id, 1: member.hub, 2: member.handle, 3: member.reference}

    session.send(JOIN, cbor(body), channel)

    fatal(session, "Identifier Out Of Range")


@pytest.mark.parametrize(
    "kind,payload", [(KEY_PACKAGE, cbor({0: 2})), (PADDING, b""), (ACK, cbor({0: 0}))]
)
def test_other_frames_use_channel_0(session, kind, payload):
    session.send(kind, payload, 3)

    fatal(session, "Identifier Out Of Range")


def test_an_error_concerns_one_request_and_answers_keep_their_numbers(session):
    good = session.send(KEY_PACKAGE, cbor({0: 2}))
    bad = session.send(KEY_PACKAGE, cbor({0: 99}))
    after = session.send(KEY_PACKAGE, cbor({0: 2}))

    assert session.answer(good) == session.answer(after) == {0: 0, 1: 0}
    refused("Invalid Control Payload", session.answer, bad)


def test_requests_are_limited_in_rate(make_server):
    server = make_server(
        server_registration="open", limits_request_rate="1", limits_request_burst="5"
    )
    session = server.register()

    sequences = [session.send(KEY_PACKAGE, cbor({0: 2})) for _ in range(30)]
    refusals = []
    for sequence in sequences:
        try:
            session.answer(sequence)
        except harness.CcpError as error:
            refusals.append(error)

    assert refusals and {error.title for error in refusals} == {"Rate Limited"}
    assert all(error.extra[0] >= 1 for error in refusals)
    for error in refusals:
        harness.check_error(error)


def test_a_stranger_disturbs_nobody(server):
    alice, bob = server.register(), server.register()
    members = make_group(alice, bob)
    alice.join(members[0])
    mallory = server.register()
    forged = Member(members[0].group_id, server.info.domain, members[1].reference, os.urandom(32))

    mallory.leave(members[0].group_id, for_good=True)
    refused("Not Found", mallory.join, forged)
    mallory.send(MSG, os.urandom(100), 1)
    mallory.send(TYPING, b"x", 1)
    mallory.ack(0, tags=[[members[0].group_id, 1, bytes(16)]])
    alice.message(1, b"undisturbed")

    assert bob.next().kind == MSG
    assert mallory.quiet()
