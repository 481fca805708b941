"""Carriers, TLS and the other HTTP resources (PROTOCOL.md 1 and 3.6)."""

import os
import ssl
import time

import pytest
import wsproto.events

import carriers
from accounts import ServerInfo
from ccp1 import Session
from harness import fatal, make_group
from tunnel import Initiator
from wire import ACK, AUTH, FrameReader, ProtocolError, cbor


@pytest.mark.parametrize("alpn", ["h2", "http/1.1"])
def test_tls_is_1_3_with_both_protocols(server, alpn):
    sock = carriers.TlsSocket("127.0.0.1", server.port, alpn)

    assert sock.alpn == alpn and sock.tls.version() == "TLSv1.3"
    sock.close()


def test_tls_1_2_is_refused(server):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        carriers.TlsSocket("127.0.0.1", server.port, "h2", ssl.TLSVersion.TLSv1_2)


def test_the_server_describes_itself(server):
    status, headers, body = carriers.get("127.0.0.1", server.port, "/.well-known/commucat")
    document = server.info.document

    assert status == 200 and headers["content-type"].startswith("application/json")
    assert len(body) <= 65_536
    assert document["domain"] == "localhost" and document["versions"] == [2]
    assert document["registration"] == "open" and document["chain"] == []
    assert document["endpoint"].startswith("https://")
    assert document["endpoint"].endswith(f":{server.port}/connect")
    assert "ledger" not in document


def test_an_invite_leads_to_the_server_keys(make_server):
    server = make_server()

    info = ServerInfo("127.0.0.1", server.port, server.invite.domain, server.invite.domain_key)

    assert info.noise_key == server.info.noise_key
    with pytest.raises(ProtocolError):
        ServerInfo("127.0.0.1", server.port, server.invite.domain, os.urandom(32))
    with pytest.raises(ProtocolError):
        ServerInfo("127.0.0.1", server.port, "elsewhere.example", server.invite.domain_key)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_told(server, path):
    assert carriers.get("127.0.0.1", server.port, path)[0] == 200


def test_what_does_not_exist_is_404(server):
    assert carriers.get("127.0.0.1", server.port, "/nothing-here")[0] == 404


def test_connect_without_an_upgrade_is_no_carrier(server):
    assert carriers.get("127.0.0.1", server.port, "/connect")[0] >= 400


@pytest.mark.parametrize("carrier", ["h2", "chunked"])
def test_status_200_comes_before_the_client_has_said_anything(server, carrier):
    stream = carriers.CARRIERS[carrier](server.info.host, server.info.port)

    assert stream.status == 200
    stream.close()


def test_a_websocket_answers_pings(server):
    session = server.register(carrier="websocket")

    session.carrier.send_event(wsproto.events.Ping(payload=b"hello"))
    assert session.count() == {0: 0, 1: 0}

    deadline = time.monotonic() + 5
    while not session.carrier.pings and time.monotonic() < deadline:
        time.sleep(0.05)
    assert session.carrier.pings == 1


def test_text_messages_end_a_websocket(server):
    stream = carriers.WebSocket(server.info.host, server.info.port)

    stream.send_event(wsproto.events.TextMessage(data="hello"))

    while stream.read(15):
        pass
    assert stream.ended


@pytest.mark.parametrize("carrier", ["h2", "chunked", "websocket"])
def test_the_boundaries_of_a_carrier_mean_nothing(server, carrier):
    device = server.register(carrier=carrier).device
    noise = Initiator("XK", device.private, server.info.noise_key, server.info.domain)
    stream = carriers.CARRIERS[carrier](server.info.host, server.info.port)

    for byte in noise.hello(b"").encode():
        stream.write(bytes([byte]))
    frame = FrameReader().push(stream.read(15))[0]
    assert frame.kind == AUTH
    noise.read_auth(frame)
    for byte in noise.auth(cbor({0: device.id, 2: [], 3: [2]})).encode():
        stream.write(bytes([byte]))
    _, opener = noise.split()
    opened = b""
    while not opened:
        opened = opener.push(stream.read(15))

    assert FrameReader().push(opened)[0].kind == ACK
    stream.close()


@pytest.mark.parametrize("carrier", ["h2", "chunked", "websocket"])
def test_both_directions_flow_at_once(server, carrier):
    """A megabyte each way, while neither side waits for the other."""
    alice, bob = server.register(carrier=carrier), server.register(carrier=carrier)
    members = make_group(alice, bob)
    alice.join(members[0])
    bob.join(members[1])
    content = os.urandom(60_000)

    for _ in range(20):
        alice.message(1, content)
        bob.message(1, content)

    for session in (alice, bob):
        for _ in range(20):
            assert session.next().payload.endswith(content)
            session.ack()


def test_many_small_frames_while_nobody_reads_keep_the_connection(server):
    alice, bob = server.register(), server.register()
    members = make_group(alice, bob)
    alice.join(members[0])
    bob.join(members[1])

    sequences = [alice.message(1, b"x")[0] for _ in range(900)]
    for _ in range(900):
        bob.next()
    bob.ack()

    assert {alice.status_of(sequence) for sequence in sequences} <= {1, 3}


def test_a_stream_that_the_client_ends_is_ended_by_the_server(server):
    session = server.register()

    with session.carrier.lock:
        session.carrier.h2.end_stream(session.carrier.stream)
        session.carrier._flush()

    assert session.wait_closed() is None


def test_one_device_replaces_itself_over_another_carrier(server):
    first = server.register(carrier="h2")

    second = Session(server.info, first.device, "IK", carrier="websocket")

    fatal(first, "Replaced")
    assert second.count() == {0: 0, 1: 0}
