"""Sealed records across the change of keys at record 65,536 (PROTOCOL.md 3.8)."""

import pytest

from harness import make_group
from wire import PADDING, TYPING, Frame


@pytest.mark.slow
def test_the_client_rekeys_at_record_65536(server):
    session = server.register()
    padding = Frame(PADDING, 0, 0, b"").encode()

    while session.sealer.number < 65_536 - 64:
        session.carrier.write(b"".join(session.sealer.seal(padding) for _ in range(64)))
    before = session.sealer.key
    while session.sealer.number < 65_536 + 64:
        session.raw(padding)

    assert session.sealer.key != before
    assert session.count() == {0: 0, 1: 0}


@pytest.mark.slow
def test_the_server_rekeys_at_record_65536(server):
    alice, bob = server.register(), server.register()
    members = make_group(alice, bob)
    alice.join(members[0])
    bob.join(members[1])
    before = bob.opener.key
    rounds = 0

    # Each round trip is at least one record of the server; TYPING and answers ride along.
    while bob.opener.number <= 65_536 + 16:
        sequences = [bob.send(0x40, b"\xa1\x00\x02") for _ in range(100)]
        alice.send(TYPING, b"x", 1)
        bob.answer(sequences[-1])
        rounds += 1
        assert rounds < 70_000

    assert bob.opener.key != before
    assert bob.count() == {0: 0, 1: 0}
