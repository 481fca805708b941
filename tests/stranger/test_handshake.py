"""Registration and handshakes: XK, IK, refusals (PROTOCOL.md 3)."""

import json
import os
import time

import pytest

import carriers
from accounts import Device, now_ms
from ccp1 import CcpError, Session
from harness import check_error, fatal
from tunnel import Initiator
from wire import (
    AUTH,
    ERROR,
    HELLO,
    MSG,
    PADDING,
    Frame,
    FrameReader,
    cbor,
    varint,
    verify,
    x25519_public,
)

ALL = ["h2", "chunked", "websocket"]


def clear_answer(server, raw, carrier="h2", timeout=15):
    """Sends bytes before any tunnel; returns the frames that come back until the close."""
    stream = carriers.CARRIERS[carrier](server.info.host, server.info.port)
    if raw:
        stream.write(raw)
    reader, frames = FrameReader(), []
    try:
        while data := stream.read(timeout):
            frames += reader.push(data)
    finally:
        stream.close()
    return frames


def clear_error(server, raw, title, **options):
    frames = clear_answer(server, raw, **options)
    assert [frame.kind for frame in frames] == [ERROR], frames
    assert (frames[0].channel, frames[0].sequence) == (0, 0)
    error = CcpError.of_json(frames[0].payload)
    assert error.title == title
    check_error(error)
    return error


def rejected(server, device, registration, **options):
    """An XK handshake that the server refuses, inside the tunnel."""
    session = Session(server.info, device, "XK", registration, wait=False, **options)
    return fatal(session, "Handshake Rejected")


@pytest.mark.parametrize("carrier", ALL)
@pytest.mark.parametrize("pattern", ["XK", "IK"])
def test_a_known_device_connects_over_every_carrier_with_both_patterns(server, carrier, pattern):
    first = server.register(carrier=carrier)

    again = server.reconnect(first, pattern, carrier=carrier)

    assert again.first_ack[4] == "ok"


def test_the_first_ack_carries_what_the_document_lists(server):
    before = now_ms()

    ack = server.register().first_ack

    assert set(ack) == {4, 5, 6, 8, 9, 10, 11}
    assert (ack[4], ack[5], ack[6], ack[9]) == ("ok", 0, [], [2])
    assert abs(ack[10] - before) < 60_000
    keys = verify(server.info.domain_key, "server keys", ack[8])
    assert keys[0] == server.info.domain and keys[2] >= server.info.server_keys[2]
    assert set(ack[11]) == set(range(8))
    assert ack[11][0] == 262_144 and ack[11][1] == 20_000 and ack[11][2] == 64 << 20
    assert ack[11][3] == 30 and ack[11][4] == 30 * 86_400
    assert ack[11][5] == 256 and ack[11][6] == 1_024 and ack[11][7] == 4 << 20


def test_a_key_that_the_server_does_not_have_is_refused_in_clear(server):
    wrong = x25519_public(os.urandom(32))

    with pytest.raises(CcpError) as caught:
        server.connect(Device(), "XK", server_key=wrong)

    assert caught.value.title == "Handshake Rejected" and caught.value.clear


def test_another_domain_in_the_prologue_is_refused(server):
    with pytest.raises(CcpError) as caught:
        server.connect(Device(), "XK", prologue_domain="elsewhere.example")

    assert caught.value.title == "Handshake Rejected"


def test_a_third_message_that_does_not_open_ends_the_stream_without_a_word(server):
    noise = Initiator("XK", os.urandom(32), server.info.noise_key, server.info.domain)
    stream = carriers.Http2(server.info.host, server.info.port)
    stream.write(noise.hello(b"").encode())
    frame = FrameReader().push(stream.read(15))[0]
    noise.read_auth(frame)
    good = json.loads(noise.auth(cbor({0: "x", 2: [], 3: [2]})).payload)["handshake"]
    bad = json.dumps({"handshake": good[:-2] + ("00" if good[-2:] != "00" else "01")})

    stream.write(Frame(AUTH, 0, 2, bad.encode()).encode())

    assert stream.read(15) == b""


def test_a_version_that_the_server_lacks_is_answered_with_its_versions(server):
    noise = Initiator("XK", os.urandom(32), server.info.noise_key, server.info.domain)

    error = clear_error(server, noise.hello(b"", [77]).encode(), "Protocol Version Mismatch")

    assert error.extra[4] == [2]


def test_a_newer_client_is_served_in_version_2(server):
    first = server.register()

    again = server.reconnect(first, "XK", versions=[2, 3])

    assert again.auth["protocol_version"] == 2


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff" * 40,
        b'{"version":"2","supported_versions":[2],"pattern":"XK","key":"00","handshake":"00"}',
    ],
)
def test_a_hello_that_is_not_what_it_should_be_is_refused(server, payload):
    clear_error(server, Frame(HELLO, 0, 1, payload).encode(), "Invalid Control Payload")


def test_a_hello_without_a_list_of_versions_is_refused(server):
    frames = clear_answer(server, Frame(HELLO, 0, 1, b'{"version":2}').encode())

    assert CcpError.of_json(frames[0].payload).title in (
        "Invalid Control Payload",
        "Protocol Version Mismatch",
    )


def test_an_unknown_pattern_is_refused(server):
    noise = Initiator("XK", os.urandom(32), server.info.noise_key, server.info.domain)
    hello = json.loads(noise.hello(b"").payload)
    hello["pattern"] = "NN"

    frames = clear_answer(server, Frame(HELLO, 0, 1, json.dumps(hello).encode()).encode())

    assert CcpError.of_json(frames[0].payload).title in (
        "Invalid Control Payload",
        "Handshake Rejected",
    )


def test_frames_before_the_tunnel_must_be_hello_and_numbered(server):
    noise = Initiator("XK", os.urandom(32), server.info.noise_key, server.info.domain)
    hello = noise.hello(b"").payload

    clear_error(server, Frame(MSG, 0, 1, b"x").encode(), "Invalid Frame Type")
    clear_error(server, Frame(PADDING, 0, 0, b"").encode(), "Invalid Frame Type")
    clear_error(server, Frame(AUTH, 0, 1, hello).encode(), "Invalid Frame Type")
    clear_error(server, Frame(HELLO, 0, 2, hello).encode(), "Sequence Out Of Order")


def test_clear_frames_are_bounded(server):
    clear_error(server, Frame(HELLO, 0, 1, b" " * 40_000).encode(), "Frame Too Large")
    clear_error(server, varint(17 << 20), "Frame Too Large")
    clear_error(server, b"\xff" * 11, "Varint Overflow")


def test_a_payload_that_does_not_fill_its_frame_is_truncated(server):
    body = bytes([HELLO, 0, 1, 1]) + b"{}"
    clear_error(server, varint(len(body)) + body, "Truncated Frame")
    body = bytes([HELLO, 0, 1, 9]) + b"{}"
    clear_error(server, varint(len(body)) + body, "Truncated Frame")


def test_an_unfinished_handshake_times_out(make_server):
    server = make_server(limits_handshake_timeout="300ms")

    clear_error(server, b"", "Handshake Timeout")
    noise = Initiator("XK", os.urandom(32), server.info.noise_key, server.info.domain)
    frames = clear_answer(server, noise.hello(b"").encode())
    assert [frame.kind for frame in frames] == [AUTH, ERROR]
    assert CcpError.of_json(frames[1].payload).title == "Handshake Timeout"


def test_a_second_connection_replaces_the_first(server):
    first = server.register()

    second = server.connect(first.device)

    fatal(first, "Replaced")
    assert second.count() == {0: 0, 1: 0}


def test_a_replayed_ik_hello_disturbs_nobody(server):
    session = server.reconnect(server.register(), "IK")
    stream = carriers.Http2(server.info.host, server.info.port)

    stream.write(session.hello)
    answer = stream.read(15)
    time.sleep(0.5)

    assert FrameReader().push(answer)[0].kind == AUTH
    assert session.closed is None and session.count() == {0: 0, 1: 0}
    stream.close()


def test_ik_takes_effect_with_the_first_sealed_record(server):
    first = server.register()

    second = server.connect(first.device, padding=False, wait=False)
    time.sleep(0.5)
    assert first.closed is None and first.count() == {0: 0, 1: 0}
    second.send(PADDING, b"")

    fatal(first, "Replaced")
    assert second.count() == {0: 0, 1: 0}


def test_requests_may_follow_the_handshake_without_waiting(server):
    known = server.register()
    known.close()

    for pattern in ("XK", "IK"):
        session = server.connect(known.device, pattern, wait=False)
        sequence = session.send(0x40, cbor({0: 2}))
        assert session.answer(sequence) == {0: 0, 1: 0}
        session.close()


def test_a_record_that_does_not_open_ends_the_connection_without_a_word(server):
    session = server.register()

    session.carrier.write(b"\x00\x20" + os.urandom(32))

    assert session.wait_closed() is None


def test_a_record_that_is_too_short_ends_the_connection_without_a_word(server):
    session = server.register()

    session.carrier.write(b"\x00\x10" + os.urandom(16))

    assert session.wait_closed() is None
