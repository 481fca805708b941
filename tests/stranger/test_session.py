"""Sessions: TYPING, PRESENCE, keep-alive, limits of queues, fork tags (PROTOCOL.md 3 to 5)."""

import os
import time

import pytest

from ccp1 import split_message
from harness import fatal, make_group, refused
from wire import (
    GROUP_EVENT,
    MSG,
    PADDING,
    TYPING,
    Frame,
    cbor,
    message_payload,
    uncbor,
)

STORED, RELAYED, DELIVERED, REFUSED = 1, 2, 3, 4


@pytest.fixture
def pair(server):
    """Two devices of two accounts in one group, both with the group on channel 1."""
    alice, bob = server.register(), server.register()
    alice.member, bob.member = make_group(alice, bob)
    alice.join(alice.member)
    bob.join(bob.member)
    return alice, bob


def receive(session, channel=1):
    """The next frame, which must be a MSG on `channel`: (message id, ciphertext)."""
    frame = session.next()
    assert (frame.kind, frame.channel) == (MSG, channel)
    return split_message(frame)[2:]


def drain(session, count):
    got = [split_message(session.next())[3] for _ in range(count)]
    session.ack()
    return got


def test_typing_reaches_bound_active_devices_and_is_never_kept(server, pair):
    alice, bob = pair
    carol = server.register()

    alice.send(TYPING, b"...", 1)
    bob.wait(lambda: bob.typing)
    frame = bob.typing.popleft()

    assert (frame.kind, frame.channel, frame.sequence, frame.payload) == (TYPING, 1, 0, b"...")
    assert not carol.typing and not alice.typing


def test_an_idle_device_gets_no_typing_but_all_messages(pair):
    alice, bob = pair
    bob.presence(False)
    assert bob.count() == {0: 0, 1: 0}

    alice.send(TYPING, b"...", 1)
    alice.message(1, b"sealed")
    assert receive(bob)[1] == b"sealed"
    assert not bob.typing

    bob.presence(True)
    assert bob.count() == {0: 0, 1: 0}
    alice.send(TYPING, b"again", 1)
    bob.wait(lambda: any(frame.payload == b"again" for frame in bob.typing))


def test_typing_on_an_unbound_channel_is_dropped(pair):
    alice, bob = pair

    alice.send(TYPING, b"...", 7)
    alice.send(TYPING, b"...", 0)

    assert alice.count() == {0: 0, 1: 0}
    assert not bob.typing


def test_typing_to_a_device_without_binding_is_dropped(server):
    alice, bob = server.register(), server.register()
    alice.member, bob.member = make_group(alice, bob)
    alice.join(alice.member)

    alice.send(TYPING, b"...", 1)
    sequence, _ = alice.message(1, b"sealed")
    bob.next()

    assert not bob.typing


def test_too_much_typing_content_is_fatal(pair):
    alice, bob = pair
    alice.send(TYPING, bytes(1024), 1)
    bob.wait(lambda: bob.typing)

    alice.send(TYPING, bytes(1025), 1)

    fatal(alice, "Payload Too Large")


def test_padding_is_ignored(pair):
    alice, bob = pair

    alice.send(PADDING, os.urandom(5_000))
    sequence, _ = alice.message(1, b"sealed")

    assert receive(bob)[1] == b"sealed"


def test_a_silent_client_hears_padding_and_is_closed(make_server):
    server = make_server(
        server_registration="open", limits_keepalive="1s", limits_keepalive_idle="1s"
    )
    session = server.register()
    assert session.limits[3] == 1

    started = time.monotonic()
    fatal(session, "Idle Timeout")

    assert 2 <= time.monotonic() - started <= 6


def test_padding_keeps_a_connection(make_server):
    server = make_server(
        server_registration="open", limits_keepalive="1s", limits_keepalive_idle="1s"
    )
    session = server.register()

    for _ in range(8):
        time.sleep(0.5)
        session.send(PADDING, b"")

    assert session.count() == {0: 0, 1: 0}


def test_a_draining_server_says_so_and_keeps_what_it_took(make_server):
    server = make_server(server_registration="open")
    alice, bob = server.register(), server.register()
    alice.member, bob.member = make_group(alice, bob)
    alice.join(alice.member)
    sequence, message_id = alice.message(1, b"sealed")
    bob.next()

    server.terminate()

    fatal(alice, "Draining")
    assert server.wait() == 0
    if sequence in alice.runs:
        server.start()
        assert split_message(server.connect(bob.device).next())[2] == message_id


def test_a_full_queue_refuses_and_tells_author_and_device(make_server):
    server = make_server(server_registration="open", limits_queue_entries="128")
    alice, bob = server.register(), server.register()
    alice.member, bob.member = make_group(alice, bob)
    alice.join(alice.member)
    bob.close()
    time.sleep(0.3)

    sent = [alice.message(1, b"%d" % number) for number in range(40)]
    statuses = [alice.status_of(sequence) for sequence, _ in sent]

    assert statuses[:32] == [STORED] * 32 and set(statuses[32:]) == {REFUSED}
    event = uncbor(alice.next().payload)
    assert event[0] == alice.member.group_id and event[1] == 1 and event[5] == 1
    assert event[3] == [bob.member.handle] and event[4] == sent[32][1]
    again = server.connect(bob.device)
    frames = [again.next() for _ in range(33)]
    assert [frame.kind for frame in frames] == [MSG] * 32 + [GROUP_EVENT]
    gap = uncbor(frames[32].payload)
    assert gap[1] == 5 and 0 not in gap and len(gap[11]) == 16


@pytest.mark.slow
def test_a_store_that_fails_refuses_and_loses_nothing(make_server):
    server = make_server(server_registration="open")
    alice, bob = server.register(), server.register()
    alice.member, bob.member = make_group(alice, bob)
    alice.join(alice.member)
    bob.close()

    with server.failing_store():
        sequence, message_id = alice.message(1, b"sealed")
        refused("Storage Failure", alice.publish, [b"package"])
        refused("Storage Failure", alice.status_of, sequence, 40)
    alice.join(alice.member)
    again, _ = alice.message(1, b"sealed", message_id=message_id)

    assert alice.status_of(again) == STORED
    reading = server.connect(bob.device)
    assert split_message(reading.next())[2:] == (message_id, b"sealed")
    reading.ack()
    assert reading.quiet()


def test_sequence_numbers_run_over_all_channels_and_requests(server, pair):
    alice, bob = pair

    first, _ = alice.message(1, b"one")
    request = alice.send(0x40, cbor({0: 2}))
    second, _ = alice.message(1, b"two")
    drain(bob, 2)

    assert (request, second) == (first + 1, first + 2)
    assert alice.answer(request) == {0: 0, 1: 0}
    assert alice.status_of(first) == alice.status_of(second) == DELIVERED
    assert request not in alice.runs


def test_frames_may_span_records_and_share_them(pair):
    alice, bob = pair
    frames = b""
    for number in range(20):
        alice.sequence += 1
        payload = message_payload(1, os.urandom(16), b"%d" % number)
        frames += Frame(MSG, 1, alice.sequence, payload).encode()

    for at in range(0, len(frames), 100):
        alice.carrier.write(alice.sealer.seal(frames[at : at + 100]))

    assert drain(bob, 20) == [b"%d" % number for number in range(20)]


def test_bytes_may_arrive_one_by_one(pair):
    alice, bob = pair
    alice.sequence += 1
    frame = Frame(MSG, 1, alice.sequence, message_payload(1, os.urandom(16), b"slow")).encode()
    record = alice.sealer.seal(frame)

    for byte in record:
        alice.carrier.write(bytes([byte]))

    assert receive(bob)[1] == b"slow"


def test_fork_tags_that_differ_are_told_to_all_that_reported(pair):
    alice, bob = pair
    group = alice.member.group_id

    alice.ack(tags=[[group, 1, bytes(16)]])
    bob.ack(tags=[[group, 1, b"\x01" * 16]])

    for session in pair:
        event = uncbor(session.next().payload)
        assert (event[0], event[1], event[2]) == (group, 3, 1)


def test_equal_fork_tags_are_nobodys_business(pair):
    alice, bob = pair
    for session in pair:
        session.ack(tags=[[alice.member.group_id, 1, b"\x07" * 16]])

    assert alice.quiet() and bob.quiet(0.1)
    assert alice.count() == bob.count() == {0: 0, 1: 0}


def test_a_group_that_is_not_bound_takes_no_part_in_the_alarm(server):
    alice, bob = server.register(), server.register()
    alice.member, bob.member = make_group(alice, bob)
    alice.join(alice.member)

    alice.ack(tags=[[alice.member.group_id, 1, bytes(16)]])
    bob.ack(tags=[[alice.member.group_id, 1, b"\x01" * 16]])

    assert alice.quiet() and bob.quiet(0.1)
