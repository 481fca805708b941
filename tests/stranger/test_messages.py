"""Messages and custody: ACK, redelivery, order, TYPING (PROTOCOL.md 4)."""

import time

import pytest

from accounts import Member
from ccp1 import split_message
from harness import commit, fatal, make_group, refused
from wire import (
    MSG,
    message_payload,
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
    for session, member in zip(sessions, members, strict=True):
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
