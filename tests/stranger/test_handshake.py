"""Registration and handshakes: XK, IK, refusals (PROTOCOL.md 5 and 10.5)."""

import json
import os
import time

import pytest

import carriers
from ccp1 import Account, CcpError, Device, Disconnected, Session, now_ms
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
    device_id,
    sign,
    uncbor,
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


def test_an_invite_registers_one_account_once(make_server):
    server = make_server()
    assert server.info.document["registration"] == "invite"
    first = server.register(token=server.invite.token)
    assert first.first_ack[4] == "ok"

    account = Account(server.info.domain)
    device = Device(account)
    account.certify(device)

    rejected(server, device, {0: server.invite.token, 1: account.list()})
    rejected(server, device, {0: os.urandom(16), 1: account.list()})
    rejected(server, device, {1: account.list()})


def test_the_same_registration_again_is_ignored_for_a_known_device(make_server):
    server = make_server()
    session = server.register(token=server.invite.token)
    account = session.device.account

    again = Session(
        server.info, session.device, "XK", {0: server.invite.token, 1: account.list(version=1)}
    )

    assert again.first_ack[4] == "ok"


def test_nobody_new_registers_at_a_closed_server(make_server):
    server = make_server(server_registration="closed")
    account = Account(server.info.domain)
    device = Device(account)
    account.certify(device)

    rejected(server, device, {0: server.invite.token, 1: account.list()})


def test_a_second_device_needs_a_newer_list_and_no_token(make_server):
    server = make_server()
    first = server.register(token=server.invite.token)
    account = first.device.account

    second = server.register(account)

    assert second.first_ack[4] == "ok"
    assert len(uncbor(first.get_list(account.id)[0][0])[4]) == 2
    assert first.closed is None


def test_a_second_device_may_register_with_the_list_that_was_put_before(server):
    first = server.register()
    account = first.device.account
    device = Device(account)
    account.certify(device)
    signed = account.list()
    first.put_list(signed)

    second = Session(server.info, device, "XK", {1: signed})

    assert second.first_ack[4] == "ok"


def test_an_older_list_registers_nobody(server):
    first = server.register()
    account = first.device.account
    device = Device(account)
    account.certify(device)

    rejected(server, device, {1: account.list(version=1)})


def test_unknown_devices_are_refused_inside_the_tunnel_by_xk(server):
    rejected(server, Device(), None)


def test_unknown_devices_are_refused_in_clear_by_ik(server):
    with pytest.raises(CcpError) as caught:
        server.connect(Device(), "IK")

    assert caught.value.title == "Handshake Rejected" and caught.value.clear
    check_error(caught.value)


def test_the_right_device_id_with_another_key_is_refused(server):
    known = server.register()
    stranger = Device()

    rejected(server, stranger, None, device_id=known.device.id)
    with pytest.raises(CcpError):
        server.connect(stranger, "IK", device_id=known.device.id)

    assert known.closed is None and known.count() == {0: 0, 1: 0}


def test_somebody_elses_device_id_cannot_be_registered(server):
    known = server.register()
    account = Account(server.info.domain)
    thief = Device(account)
    thief.id = known.device.id
    account.certify(thief)

    rejected(server, thief, {1: account.list()})

    assert known.closed is None and known.count() == {0: 0, 1: 0}


def bad_registrations():
    def other_domain(account, device):
        return account.list(domain="elsewhere.example")

    def wrong_signature(account, device):
        return account.list(seed=os.urandom(32))

    def flipped_bit(account, device):
        body, signature = account.list()
        return [body, signature[:-1] + bytes([signature[-1] ^ 1])]

    def other_key(account, device):
        account.certify(device, keys={2: x25519_public(os.urandom(32))})
        return account.list()

    def expired(account, device):
        account.certify(device, keys={4: now_ms() - 2_000_000, 5: now_ms() - 1_000_000})
        return account.list()

    def not_yet(account, device):
        account.certify(device, keys={4: now_ms() + 86_400_000})
        return account.list()

    def other_account(account, device):
        account.certify(device, keys={0: os.urandom(32)})
        return account.list()

    def certificate_by_another(account, device):
        body = account.certificates[device.id][0]
        return account.list(certificates=[sign(os.urandom(32), "device certificate", body)])

    def wrong_purpose(account, device):
        body = account.list()[0]
        return sign(account.seed, "device certificate", body)

    def without_the_device(account, device):
        return account.list(certificates=[])

    def made_up_id(account, device):
        device.id = "a" * 26
        account.certificates.clear()
        account.certify(device)
        return account.list()

    def seventeen(account, device):
        for _ in range(16):
            account.certify(Device(account))
        return account.list()

    def low_order_key(account, device):
        account.certify(device, keys={2: bytes(32)})
        return account.list()

    return [value for name, value in sorted(locals().items()) if callable(value)]


@pytest.mark.parametrize("change", bad_registrations(), ids=lambda change: change.__name__)
def test_a_bad_list_registers_nobody(server, change):
    account = Account(server.info.domain)
    device = Device(account)
    account.certify(device)

    session = Session(server.info, device, "XK", {1: change(account, device)}, wait=False)

    assert session.wait_closed().title in ("Handshake Rejected", "Invalid Control Payload")


def test_sixteen_devices_are_allowed(server):
    account = Account(server.info.domain)
    for _ in range(15):
        account.certify(Device(account))

    assert server.register(account).first_ack[4] == "ok"


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
        b'{"version":2}',
        b"\xff" * 40,
        b'{"version":"2","supported_versions":[2],"pattern":"XK","key":"00","handshake":"00"}',
    ],
)
def test_a_hello_that_is_not_what_it_should_be_is_refused(server, payload):
    clear_error(server, Frame(HELLO, 0, 1, payload).encode(), "Invalid Control Payload")


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


def test_a_rotated_key_keeps_the_device(server):
    session = server.register()
    device, account = session.device, session.device.account
    old = device.private
    device.private = os.urandom(32)
    account.certify(device)
    session.put_list(account.list())
    session.close()

    again = server.connect(device)

    assert again.first_ack[4] == "ok"
    assert device.id != device_id(x25519_public(device.private))
    with pytest.raises((CcpError, Disconnected)):
        server.connect(device, "IK", private=old)
