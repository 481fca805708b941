"""FETCH, JOIN, LEAVE and join links (PROTOCOL.md 5.3 to 5.7)."""

import os
import time

import pytest

from accounts import Member, now_ms
from ccp1 import split_message
from harness import commit, make_group, refused
from wire import (
    FETCH,
    GROUP_EVENT,
    GROUP_INVITE,
    JOIN,
    KEY_UPDATE,
    MSG,
    cbor,
    ed25519_public,
    hash32,
    sign,
    uncbor,
)


@pytest.fixture
def group(server):
    """Alice (admin) and Bob in one group."""
    alice, bob = server.register(), server.register()
    alice.member, bob.member = make_group(alice, bob)
    return alice, bob


def newcomer(server, session_or_group):
    session = server.register()
    group_id = session_or_group.member.group_id
    session.member = Member(group_id, server.info.domain, session.own_reference(group_id))
    return session


def entry_of(frame):
    assert (frame.kind, frame.channel) == (KEY_UPDATE, 0)
    return uncbor(frame.payload)


def event_of(frame):
    assert (frame.kind, frame.channel) == (GROUP_EVENT, 0)
    return uncbor(frame.payload)


# --- Creating ---


def test_fetch_gives_entries_from_a_position_on(group):
    alice, bob = group
    for position in (1, 2):
        commit(alice, alice.member, position, commit=b"%d" % position)

    answer = bob.fetch(bob.member, 2)

    assert (answer[0], answer[2]) == (3, 1)
    assert [(entry[1], entry[2]) for entry in answer[3]] == [(2, b"1"), (3, b"2")]
    assert answer[3][0] == entry_of(bob.next())
    assert bob.fetch(bob.member, 4)[3] == []


def test_fetch_pages_by_size(server):
    session = server.register()
    member = session.create_group()
    for position in range(3):
        commit(session, member, position, commit=os.urandom(120_000))

    first = session.fetch(member, 1)
    second = session.fetch(member, 3)

    assert [entry[1] for entry in first[3]] == [1, 2] and first[0] == 3
    assert [entry[1] for entry in second[3]] == [3]


def test_fetch_gives_group_infos_newest_first(server):
    session = server.register()
    member = session.create_group()
    for position in range(3):
        commit(session, member, position, group_info=b"info %d" % (position + 1))

    answer = session.fetch(member, 1, want=2)

    assert answer[4] == [[3, b"info 3"], [2, b"info 2"], [1, b"info 1"]]
    assert answer[3] == []


def test_fetch_gives_the_list(server, group):
    alice, bob = group

    answer = bob.fetch(bob.member, 1, want=4)

    domain = server.info.domain
    assert sorted(answer[5]) == sorted([alice.member.entry(domain, 1), bob.member.entry(domain, 0)])


def test_a_group_that_is_not_yours_looks_like_one_that_does_not_exist(server, group):
    alice, _ = group
    mallory = newcomer(server, alice)
    absent = os.urandom(32)

    real = refused("Not Found", mallory.fetch, mallory.member)
    none = refused(
        "Not Found",
        mallory.fetch,
        Member(absent, server.info.domain, mallory.own_reference(absent)),
    )
    borrowed = Member(
        alice.member.group_id, server.info.domain, alice.member.reference, alice.member.seed
    )
    refused("Not Found", mallory.fetch, borrowed)
    refused(
        "Invalid Control Payload",
        mallory.request,
        FETCH,
        {0: alice.member.group_id, 1: server.info.domain, 4: 1, 5: 1},
    )

    assert real.detail == none.detail


# --- JOIN and LEAVE ---


def test_join_again_changes_nothing_and_elsewhere_conflicts(server, group):
    alice, _ = group
    other = alice.create_group()
    alice.join(alice.member, 3)

    alice.join(alice.member, 3)
    refused("Conflict", alice.join, alice.member, 4)
    refused("Conflict", alice.join, other, 3)
    alice.join(other, 4_096)


def test_join_wants_the_own_reference_for_this_group_and_hub(server, group):
    alice, bob = group
    other = alice.create_group()
    body = {0: alice.member.group_id, 1: server.info.domain, 2: alice.member.handle}

    for reference in (bob.member.reference, other.reference, os.urandom(65)):
        refused("Not Found", alice.request, JOIN, {**body, 3: reference}, 1)
    refused(
        "Not Found",
        alice.request,
        JOIN,
        {**body, 1: "elsewhere.example", 3: alice.member.reference},
        1,
    )


def test_leave_unbinds_and_join_binds_again(group):
    alice, bob = group
    alice.join(alice.member)

    alice.leave(alice.member.group_id)
    refused("Not Joined", alice.status_of, alice.message(1, b"x")[0])
    alice.leave(alice.member.group_id)
    alice.leave(os.urandom(32))
    alice.join(alice.member, 5)
    alice.message(1, b"x", channel=5)

    assert bob.next().kind == MSG


def test_leaving_for_good_ends_delivery_and_tells_the_others(server, group):
    alice, bob = group
    alice.join(alice.member)

    bob.leave(bob.member.group_id, for_good=True)
    refused("Not Joined", bob.status_of, bob.message(1, b"x")[0])
    sequence, message_id = alice.message(1, b"are you there?")

    assert alice.status_of(sequence) in (1, 3)
    events = [event_of(alice.next()) for _ in range(2)]
    by_kind = {event[1]: event for event in events}
    assert by_kind[1][4] == message_id and by_kind[1][5] == 2
    assert by_kind[1][3] == by_kind[2][3] == [bob.member.handle]
    assert bob.quiet()
    fanout = alice.fetch(alice.member, want=4)[5]
    assert [row[0] for row in fanout] == [alice.member.handle]


def test_removing_a_device_that_is_already_gone_has_no_effect(server, group):
    alice, bob = group
    alice.join(alice.member)
    bob.leave(bob.member.group_id, for_good=True)
    alice.message(1, b"are you there?")
    for _ in range(2):
        alice.next()

    assert commit(alice, alice.member, 1, remove=[bob.member.handle])[0] == {0: 2}


def test_whoever_left_can_be_added_again_with_a_new_reference(server, group):
    alice, bob = group
    alice.join(alice.member)
    bob.leave(bob.member.group_id, for_good=True)
    alice.message(1, b"are you there?")
    alice.next(), alice.next()
    group_id = alice.member.group_id
    anew = Member(group_id, server.info.domain, bob.own_reference(group_id))

    commit(
        alice,
        alice.member,
        1,
        add=[anew.entry(server.info.domain, 0)],
        welcomes=[[[anew.handle], b"again"]],
    )

    assert bob.next().kind == GROUP_INVITE


def test_leaving_for_good_drops_what_waited(server, group):
    alice, bob = group
    alice.join(alice.member)
    bob.close()
    time.sleep(0.3)
    assert alice.status_of(alice.message(1, b"waiting")[0]) == 1
    again = server.connect(bob.device, "XK", wait=True)
    again.leave(bob.member.group_id, for_good=True)

    later = server.reconnect(again)
    later.wait(lambda: later.store_read)

    assert later.quiet()


# --- Join links ---


@pytest.fixture
def open_group(server):
    """Alice's group with a join key in force."""
    alice = server.register()
    join_seed = os.urandom(32)
    alice.member = alice.create_group(keys={3: ed25519_public(join_seed)})
    commit(alice, alice.member, 0, group_info=b"sealed info")
    return alice, join_seed


def join_read(session, group_id, hub, seed, created=None, want=2, purpose="join read"):
    body = cbor({0: group_id, 1: hub, 2: created or now_ms()})
    return session.request(
        FETCH, {0: group_id, 1: hub, 4: 1, 5: want, 6: sign(seed, purpose, body)}
    )


def test_a_join_link_lets_a_stranger_read_the_group_info_and_join(server, open_group):
    alice, seed = open_group
    bob = newcomer(server, alice)
    group_id, domain = alice.member.group_id, server.info.domain

    answer = join_read(bob, group_id, domain, seed)
    result, body = commit(
        bob,
        bob.member,
        answer[0],
        seed=seed,
        purpose="join commit",
        add=[bob.member.entry(domain, 0)],
    )

    assert answer[4] == [[1, b"sealed info"]] and 5 not in answer
    assert result == {0: 2}
    assert entry_of(alice.next())[3] == [bob.member.entry(domain, 0)]
    bob.join(bob.member)
    bob.message(2, b"hello all")
    assert split_message(alice.next())[3] == b"hello all"


def test_join_read_grants_head_and_group_info_only(server, open_group):
    alice, seed = open_group
    bob = newcomer(server, alice)
    group_id, domain = alice.member.group_id, server.info.domain

    for want in (1, 4, 3, 6, 7):
        refused("Forbidden", join_read, bob, group_id, domain, seed, want=want)
    refused("Forbidden", join_read, bob, group_id, domain, seed, created=now_ms() - 20 * 60_000)
    refused("Forbidden", join_read, bob, group_id, domain, seed, created=now_ms() + 20 * 60_000)


def test_another_key_joins_nothing(server, open_group):
    alice, seed = open_group
    bob = newcomer(server, alice)
    group_id, domain = alice.member.group_id, server.info.domain
    wrong = os.urandom(32)

    for action in (
        lambda: join_read(bob, group_id, domain, wrong),
        lambda: join_read(bob, group_id, domain, seed, purpose="join commit"),
        lambda: join_read(bob, os.urandom(32), domain, seed),
        lambda: commit(
            bob, bob.member, 1, seed=wrong, purpose="join commit", add=[bob.member.entry(domain, 0)]
        ),
        lambda: commit(
            bob, bob.member, 1, seed=seed, purpose="commit", add=[bob.member.entry(domain, 0)]
        ),
    ):
        refused("Not Found", action)

    assert alice.quiet()


def test_joining_by_link_adds_exactly_oneself(server, open_group):
    alice, seed = open_group
    bob, carol = newcomer(server, alice), newcomer(server, alice)
    domain = server.info.domain
    mine, other = bob.member.entry(domain, 0), carol.member.entry(domain, 0)

    for change in (
        {},
        {"add": [other]},
        {"add": [mine, other]},
        {"add": [[*mine[:3], 1]]},
        {"add": [[mine[0], domain, other[2], 0]]},
        {"add": [mine], "remove": [alice.member.handle]},
        {"add": [mine], "close": True},
        {"add": [mine], "join_key": b""},
        {"add": [mine], "admins": [[mine[0], 1]]},
    ):
        refused("Forbidden", commit, bob, bob.member, 1, seed=seed, purpose="join commit", **change)

    assert alice.quiet() and alice.fetch(alice.member)[0] == 1


def test_a_join_key_that_was_taken_away_joins_nobody(server, open_group):
    alice, seed = open_group
    bob = newcomer(server, alice)
    commit(alice, alice.member, 1, join_key=b"")

    refused("Not Found", join_read, bob, alice.member.group_id, server.info.domain, seed)


# --- Returned messages ---


def test_an_event_is_named_by_its_keys(server, group):
    alice, bob = group
    alice.join(alice.member)
    bob.leave(bob.member.group_id, for_good=True)
    alice.message(1, b"are you there?")

    for _ in range(2):
        event = event_of(alice.next())
        named = cbor({key: value for key, value in event.items() if key <= 6})
        assert event[11] == hash32(named)[:16]
