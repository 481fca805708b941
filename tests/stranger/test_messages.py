"""Messages and custody: ACK, redelivery, order, TYPING (PROTOCOL.md 7 and 8)."""

import os
import time

import pytest

from ccp1 import Member, split_message
from harness import commit, fatal, make_group, refused
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


@pytest.mark.parametrize("carrier", ["h2", "chunked", "websocket"])
def test_a_message_arrives_unchanged_and_its_ack_says_delivered(server, carrier):
    alice, bob = server.register(carrier=carrier), server.register(carrier=carrier)
    alice.member, bob.member = make_group(alice, bob)
    alice.join(alice.member)
    bob.join(bob.member, channel=9)

    sequence, message_id = alice.message(1, b"sealed")
    frame = bob.next()
    bob.ack()

    assert frame.channel == 9
    assert frame.payload == message_payload(1, message_id, b"sealed")
    assert alice.status_of(sequence) == DELIVERED


def test_a_message_of_a_group_that_is_not_bound_names_its_group(server):
    alice, bob = server.register(), server.register()
    alice.member, bob.member = make_group(alice, bob)
    alice.join(alice.member)

    _, message_id = alice.message(1, b"sealed")
    frame = bob.next()

    assert frame.channel == 0
    assert frame.payload == alice.member.group_id + message_payload(1, message_id, b"sealed")


def test_a_message_to_nobody_else_is_delivered(server):
    alice = server.register()
    alice.join(alice.create_group())

    sequence, _ = alice.message(0, b"to myself")

    assert alice.status_of(sequence) == DELIVERED
    assert alice.quiet()


def test_a_message_that_nobody_acknowledges_is_stored_after_a_short_wait(pair):
    alice, bob = pair

    sequence, _ = alice.message(1, b"sealed")
    receive(bob)

    assert alice.status_of(sequence) == STORED


def test_what_was_not_acknowledged_comes_again(server, pair):
    alice, bob = pair
    sequence, message_id = alice.message(1, b"sealed")
    assert receive(bob) == (message_id, b"sealed")

    again = server.reconnect(bob)
    frame = again.next()

    assert split_message(frame)[1:] == (1, message_id, b"sealed")
    assert alice.status_of(sequence) == STORED


def test_what_was_acknowledged_does_not_come_again(server, pair):
    alice, bob = pair
    sequence, _ = alice.message(1, b"sealed")
    receive(bob)
    bob.ack()
    assert alice.status_of(sequence) == DELIVERED

    again = server.reconnect(bob)
    again.wait(lambda: again.store_read)

    assert again.quiet()


def test_an_offline_device_gets_everything_in_order_then_the_end_of_the_store(server, pair):
    alice, bob = pair
    bob.close()
    time.sleep(0.3)

    sent = [b"%d" % number for number in range(50)]
    sequences = [alice.message(1, text)[0] for text in sent]
    assert {alice.status_of(sequence) for sequence in sequences} == {STORED}
    again = server.connect(bob.device)

    assert again.first_ack[5] == 50
    assert drain(again, 50) == sent
    again.wait(lambda: again.store_read)


def test_the_end_of_the_store_is_told_even_if_nothing_waited(server):
    session = server.register()

    session.wait(lambda: session.store_read)


def test_stored_messages_survive_a_kill(make_server):
    server = make_server(server_registration="open")
    alice, bob = server.register(), server.register()
    alice.member, bob.member = make_group(alice, bob)
    alice.join(alice.member)
    bob.close()
    time.sleep(0.3)
    sequence, message_id = alice.message(1, b"sealed")
    assert alice.status_of(sequence) == STORED

    server.kill()
    server.start()
    again = server.connect(bob.device)

    assert split_message(again.next())[2:] == (message_id, b"sealed")


def test_a_part_that_was_acknowledged_is_not_repeated(server, pair):
    alice, bob = pair
    for number in range(5):
        alice.message(1, b"%d" % number)
    frames = [bob.next() for _ in range(5)]

    bob.ack(frames[1].sequence)
    time.sleep(0.7)
    again = server.reconnect(bob)

    assert drain(again, 3) == [b"2", b"3", b"4"]
    assert again.quiet()


def test_a_lower_acknowledgement_is_ignored(pair):
    alice, bob = pair
    first, _ = alice.message(1, b"one")
    second, _ = alice.message(1, b"two")
    receive(bob), receive(bob)

    bob.ack()
    bob.ack(0)
    bob.ack(1)

    assert alice.status_of(first) == alice.status_of(second) == DELIVERED
    assert bob.count() == {0: 0, 1: 0}


def test_an_acknowledgement_above_the_last_number_is_fatal(pair):
    _, bob = pair

    bob.ack(bob.last_received + 1)

    fatal(bob, "Sequence Out Of Order")


def test_a_repeat_is_acknowledged_and_shown_once(server, pair):
    alice, bob = pair
    first, message_id = alice.message(1, b"sealed")
    receive(bob)
    bob.ack()
    assert alice.status_of(first) == DELIVERED

    again, _ = alice.message(1, b"sealed", message_id=message_id)

    assert alice.status_of(again) == DELIVERED
    assert bob.quiet()


def test_a_repeat_of_what_is_stored_joins_it(server, pair):
    alice, bob = pair
    bob.close()
    time.sleep(0.3)
    first, message_id = alice.message(1, b"sealed")
    assert alice.status_of(first) == STORED

    alice = reconnected(server, alice)
    second, _ = alice.message(1, b"sealed", message_id=message_id)

    assert alice.status_of(second) == STORED
    again = server.connect(bob.device)
    assert drain(again, 1) == [b"sealed"]
    assert again.quiet()


def reconnected(server, session):
    member = session.member
    again = server.reconnect(session)
    again.member = member
    again.join(member)
    return again


def test_another_message_with_the_same_id_is_no_repeat(pair):
    alice, bob = pair
    _, message_id = alice.message(1, b"one")

    alice.message(1, b"two", message_id=message_id)

    assert drain(bob, 2) == [b"one", b"two"]


def test_messages_arrive_in_the_order_sent(pair):
    alice, bob = pair
    sent = [b"%d" % number for number in range(400)]

    sequences = [alice.message(1, text)[0] for text in sent]

    assert drain(bob, 400) == sent
    assert {alice.status_of(sequence) for sequence in sequences} <= {STORED, DELIVERED}


def test_everybody_but_the_author_gets_a_message(server):
    sessions = [server.register() for _ in range(4)]
    members = make_group(*sessions)
    for session, member in zip(sessions, members):
        session.join(member)

    sequence, message_id = sessions[1].message(1, b"sealed")
    for other in (sessions[0], sessions[2], sessions[3]):
        assert receive(other) == (message_id, b"sealed")
        other.ack()

    assert sessions[1].status_of(sequence) == DELIVERED
    assert sessions[1].quiet()


def test_messages_of_several_groups_keep_their_channels(server):
    alice, bob = server.register(), server.register()
    one, two = make_group(alice, bob), make_group(alice, bob)
    for channel, members in ((1, one), (2, two)):
        alice.join(members[0], channel)
        bob.join(members[1], channel + 4)

    alice.message(1, b"in two", channel=2)
    alice.message(1, b"in one", channel=1)

    assert receive(bob, 6)[1] == b"in two"
    assert receive(bob, 5)[1] == b"in one"


def test_the_largest_message_passes_and_a_larger_one_does_not(pair):
    alice, bob = pair
    largest = alice.limits[0]

    sequence, _ = alice.message(1, bytes(largest))
    assert receive(bob)[1] == bytes(largest)
    bob.ack()
    assert alice.status_of(sequence) == DELIVERED

    sequence, _ = alice.message(1, bytes(largest + 1))
    behind, _ = alice.message(1, b"behind")
    refused("Payload Too Large", alice.status_of, sequence)
    refused("Not Joined", alice.status_of, behind)
    assert bob.quiet()


def test_an_empty_ciphertext_is_nobodys_business(pair):
    alice, bob = pair

    alice.message(1, b"")

    assert receive(bob)[1] == b""


def test_a_message_without_its_parts_is_refused_and_unbinds(pair):
    alice, bob = pair

    for payload in (b"", b"\x01", b"\x01" + bytes(15), b"\x80", b"\xff" * 30):
        refused("Invalid Control Payload", alice.status_of, alice.send(MSG, payload, 1))
        refused("Not Joined", alice.status_of, alice.message(1, b"behind")[0])
        alice.join(alice.member)

    assert bob.quiet()


def test_a_message_on_a_channel_that_is_not_bound_is_refused(pair):
    alice, bob = pair

    for channel in (0, 2, 4_096, 70_000):
        refused("Not Joined", alice.status_of, alice.message(1, b"x", channel=channel)[0])

    sequence, _ = alice.message(1, b"still bound")
    assert receive(bob)[1] == b"still bound"
    bob.ack()
    assert alice.status_of(sequence) == DELIVERED


def test_a_position_that_is_too_high_conflicts_with_the_head(pair):
    alice, bob = pair

    error = refused("Conflict", alice.status_of, alice.message(2, b"x")[0])

    assert error.extra[1] == 1
    refused("Not Joined", alice.status_of, alice.message(1, b"x")[0])
    assert bob.quiet()


def test_a_position_that_is_too_low_is_an_old_epoch(pair):
    alice, bob = pair
    for head in (1, 2, 3):
        commit(alice, alice.member, head)
    for _ in range(3):
        bob.next()

    sequence, _ = alice.message(2, b"recent enough")
    assert receive(bob)[1] == b"recent enough"
    bob.ack()
    assert alice.status_of(sequence) == DELIVERED

    refused("Epoch Old", alice.status_of, alice.message(1, b"too old")[0])
    assert bob.quiet()


def test_after_an_error_the_client_joins_and_resends(pair):
    alice, bob = pair
    first, one = alice.message(9, b"one")
    second, two = alice.message(1, b"two")
    refused("Conflict", alice.status_of, first)
    refused("Not Joined", alice.status_of, second)

    alice.join(alice.member)
    alice.message(1, b"one", message_id=one)
    alice.message(1, b"two", message_id=two)

    assert drain(bob, 2) == [b"one", b"two"]


def test_more_unanswered_messages_than_allowed_are_fatal(make_server):
    server = make_server(server_registration="open", limits_unacked="16", limits_ack_wait="5s")
    alice, bob = server.register(), server.register()
    alice.member, bob.member = make_group(alice, bob)
    alice.join(alice.member)
    assert alice.limits[6] == 16

    for _ in range(17):
        alice.message(1, b"x")

    fatal(alice, "Rate Limited")


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
    alice.send(PADDING, b"", channel=3)
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

    server.process.terminate()

    fatal(alice, "Draining")
    assert server.process.wait(30) == 0
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


def test_expired_entries_leave_a_gap(make_server):
    server = make_server(server_registration="open", limits_relay_ttl="1m")
    assert server.register().limits[4] == 60


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


def test_somebody_outside_can_neither_write_nor_read(server, pair):
    alice, bob = pair
    mallory = server.register()
    group = alice.member.group_id
    own = Member(group, server.info.domain, mallory.own_reference(group))

    refused("Not Found", mallory.join, bob.member)
    mallory.join(own)
    refused("Not Found", mallory.status_of, mallory.message(1, b"let me in")[0])
    stolen = Member(group, server.info.domain, own.reference, bob.member.seed)
    mallory.join(stolen)
    refused("Not Found", mallory.status_of, mallory.message(1, b"let me in")[0])

    assert alice.quiet() and bob.quiet(0.1)
    alice.message(1, b"among us")
    assert receive(bob)[1] == b"among us"
    assert mallory.quiet()
