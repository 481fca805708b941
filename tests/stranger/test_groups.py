"""Groups: creating, committing, races, FETCH, join links, leaving (PROTOCOL.md 5)."""

import os
import time

import pytest

from accounts import Member
from ccp1 import entry_id, split_message
from harness import commit, fatal, make_group, refused
from wire import (
    GROUP_CREATE,
    GROUP_EVENT,
    GROUP_INVITE,
    KEY_UPDATE,
    MSG,
    cbor,
    ed25519_public,
    message_payload,
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


def settle(seconds=1.1):
    """Lets the second pass within which a handle may commit once."""
    time.sleep(seconds)


# --- Creating ---


def test_creating_again_with_the_same_bytes_gives_the_same_result(server):
    session = server.register()
    group_id = os.urandom(32)
    member = Member(group_id, server.info.domain, session.own_reference(group_id))
    body = cbor({0: group_id, 1: [member.entry(server.info.domain, 1)]})

    assert session.request(GROUP_CREATE, body) == {}
    assert session.request(GROUP_CREATE, body) == {}
    other = cbor({0: group_id, 1: [member.entry(server.info.domain, 1)], 2: b"x"})
    refused("Conflict", session.request, GROUP_CREATE, other)


def test_a_group_begins_with_exactly_its_creator(server):
    session, other = server.register(), server.register()
    group_id, domain = os.urandom(32), server.info.domain
    mine = Member(group_id, domain, session.own_reference(group_id)).entry(domain, 1)
    theirs = Member(group_id, domain, other.own_reference(group_id)).entry(domain, 1)
    elsewhere = [mine[0], "elsewhere.example", mine[2], 1]

    for fanout in ([], [mine, theirs], [mine, mine], [[*mine[:3], 0]], [elsewhere], [mine[:3]]):
        refused("Invalid Control Payload", session.request, GROUP_CREATE, {0: group_id, 1: fanout})
    for fanout in ([theirs], [[*mine[:2], os.urandom(65), 1]]):
        refused("Not Found", session.request, GROUP_CREATE, {0: group_id, 1: fanout})

    assert session.request(GROUP_CREATE, {0: group_id, 1: [mine]}) == {}


# --- Committing ---


def test_adding_a_device_sends_welcome_then_entry_then_first_message(server):
    alice = server.register()
    alice.member = alice.create_group()
    bob = newcomer(server, alice)
    first = message_payload(1, os.urandom(16), b"welcome to the group")

    result, body = commit(
        alice,
        alice.member,
        0,
        commit=b"the commit",
        add=[bob.member.entry(server.info.domain, 0)],
        welcomes=[[[bob.member.handle], b"the welcome"]],
        first_message=first,
    )

    assert result == {0: 1}
    invite = bob.next()
    assert (invite.kind, invite.channel) == (GROUP_INVITE, 0)
    assert uncbor(invite.payload) == {
        0: alice.member.group_id,
        1: server.info.domain,
        2: 1,
        3: bob.member.handle,
        4: bob.member.reference,
        5: b"the welcome",
        11: entry_id(body),
    }
    assert entry_of(bob.next()) == {
        0: alice.member.group_id,
        1: 1,
        2: b"the commit",
        3: [bob.member.entry(server.info.domain, 0)],
        7: alice.member.handle,
        12: entry_id(body),
    }
    message = bob.next()
    assert message.kind == MSG and message.payload == alice.member.group_id + first
    assert alice.quiet()


def test_a_second_device_of_the_same_account_joins_like_any_other(server):
    first = server.register()
    second = server.register(first.device.account)
    members = make_group(first, second)
    first.join(members[0])
    second.join(members[1])

    first.message(1, b"note to self")

    assert split_message(second.next())[3] == b"note to self"


def test_a_commit_reaches_all_but_its_author(group):
    alice, bob = group

    result, body = commit(bob, bob.member, 1, commit=b"self-update")

    assert result == {0: 2}
    entry = entry_of(alice.next())
    assert (entry[1], entry[2], entry[7]) == (2, b"self-update", bob.member.handle)
    assert entry[12] == entry_id(body)
    assert bob.quiet()


def test_the_loser_of_a_race_gets_what_it_missed(group):
    alice, bob = group
    settle()

    first, body = alice.update(alice.member, 1)
    second, _ = bob.update(bob.member, 1)
    outcomes = []
    for session, sequence in ((alice, first), (bob, second)):
        try:
            outcomes.append(session.answer(sequence))
        except Exception as error:  # noqa: BLE001 - looked at below
            outcomes.append(error)

    winner = 0 if isinstance(outcomes[0], dict) else 1
    assert outcomes[winner] == {0: 2}
    error = outcomes[1 - winner]
    assert error.title == "Conflict" and error.extra[1] == 2
    ((position, entry),) = error.extra[2]
    assert position == entry[1] == 2
    assert entry[7] == group[winner].member.handle
    assert not error.extra.get(3, False)


def test_after_a_lost_race_the_commit_is_built_again(group):
    alice, bob = group
    commit(alice, alice.member, 1)

    error = refused("Conflict", commit, bob, bob.member, 1)
    result, _ = commit(bob, bob.member, error.extra[1])

    assert result == {0: 3}


def test_a_lost_answer_is_asked_for_again_with_the_same_bundle(server, group):
    alice, bob = group
    result, body = commit(alice, alice.member, 1)
    assert result == {0: 2}
    commit(bob, bob.member, 2)

    again = server.reconnect(alice)

    assert again.answer(again.resend_update(alice.member, body)) == {0: 2}
    assert bob.next().kind == KEY_UPDATE
    assert bob.quiet()


def test_a_conflict_far_behind_gives_a_page_and_says_that_there_is_more(server):
    session = server.register()
    member = session.create_group()
    for position in range(3):
        commit(session, member, position, commit=os.urandom(120_000))

    error = refused("Conflict", commit, session, member, 0)

    assert error.extra[1] == 3 and error.extra[3] is True
    assert [position for position, _ in error.extra[2]] == [1, 2]
    fetched = session.fetch(member, 3)
    assert [entry[1] for entry in fetched[3]] == [3]


def test_a_position_above_the_head_conflicts_without_entries(group):
    alice, _ = group

    error = refused("Conflict", commit, alice, alice.member, 7)

    assert error.extra[1] == 1 and not error.extra.get(2)


def test_a_signature_of_somebody_else_is_forbidden(group):
    alice, bob = group

    refused("Forbidden", commit, bob, bob.member, 1, seed=alice.member.seed)
    for purpose in ("join commit", "device list"):
        refused("Forbidden", commit, bob, bob.member, 1, purpose=purpose)

    assert alice.quiet() and alice.fetch(alice.member)[0] == 1


def test_whoever_is_not_listed_commits_nothing(server, group):
    alice, _ = group
    mallory = newcomer(server, alice)

    refused("Not Found", commit, mallory, mallory.member, 1)
    refused("Not Found", commit, mallory, alice.member, 1)
    foreign = Member(
        alice.member.group_id, server.info.domain, mallory.member.reference, alice.member.seed
    )
    refused("Not Found", commit, mallory, foreign, 1)
    absent = os.urandom(32)
    nowhere = Member(absent, server.info.domain, mallory.own_reference(absent))
    refused("Not Found", commit, mallory, nowhere, 0)

    assert alice.quiet() and alice.fetch(alice.member)[0] == 1


def test_only_admins_remove_promote_close_and_change_the_join_key(server, group):
    alice, bob = group
    carol = newcomer(server, alice)

    for change in (
        {"remove": [alice.member.handle]},
        {"admins": [[bob.member.handle, 1]]},
        {"close": True},
        {"join_key": os.urandom(32)},
        {"add": [carol.member.entry(server.info.domain, 1)]},
    ):
        refused("Forbidden", commit, bob, bob.member, 1, **change)
    result, _ = commit(bob, bob.member, 1, add=[carol.member.entry(server.info.domain, 0)])

    assert result == {0: 2}


def test_an_admin_can_be_made_and_unmade(group):
    alice, bob = group
    commit(alice, alice.member, 1, admins=[[bob.member.handle, 1], [alice.member.handle, 0]])
    assert entry_of(bob.next())[11] == [[bob.member.handle, 1], [alice.member.handle, 0]]

    refused("Forbidden", commit, alice, alice.member, 2, remove=[bob.member.handle])
    assert commit(bob, bob.member, 2, remove=[alice.member.handle])[0] == {0: 3}


def test_a_list_without_admins_makes_everybody_an_admin(server, group):
    alice, bob = group

    commit(alice, alice.member, 1, admins=[[alice.member.handle, 0]])

    fanout = alice.fetch(alice.member, want=4)[5]
    assert [row[3] for row in fanout] == [1, 1]


def test_impossible_lists_are_refused(server, group):
    alice, bob = group
    carol = newcomer(server, alice)
    entry = carol.member.entry(server.info.domain, 0)
    stranger = ed25519_public(os.urandom(32))

    for change in (
        {"add": [entry, entry]},
        {"add": [bob.member.entry(server.info.domain, 0)]},
        {"remove": [stranger]},
        {"remove": [bob.member.handle, bob.member.handle]},
        {"welcomes": [[[stranger], b"welcome"]]},
        {"add": [entry], "welcomes": [[[bob.member.handle], b"welcome"]]},
        {"admins": [[stranger, 1]]},
        {"join_key": os.urandom(5)},
        {"add": [entry[:3]]},
        {"group_info": 7},
        {"commit": "text"},
        {"first_message": b""},
        {"first_message": message_payload(7, bytes(16), b"another position")},
    ):
        refused("Invalid Control Payload", commit, alice, alice.member, 1, **change)

    assert bob.quiet() and alice.fetch(alice.member)[0] == 1


def test_a_group_info_above_its_limit_ends_the_connection(group):
    alice, bob = group

    largest, _ = alice.update(alice.member, 0, group_info=bytes(512 << 10))
    refused("Conflict", alice.answer, largest)
    alice.update(alice.member, 1, group_info=bytes((512 << 10) + 1))

    fatal(alice, "Control Payload Too Large")
    assert bob.fetch(bob.member)[0] == 1


def test_a_removed_device_sees_its_removal_and_nothing_after_it(group):
    alice, bob = group
    alice.join(alice.member)
    bob.join(bob.member)

    commit(alice, alice.member, 1, remove=[bob.member.handle])
    alice.message(2, b"without bob")

    assert entry_of(bob.next())[4] == [bob.member.handle]
    assert bob.quiet()
    refused("Not Found", bob.status_of, bob.message(1, b"still here?")[0])
    refused("Not Found", bob.fetch, bob.member)
    refused("Not Found", commit, bob, bob.member, 2)
    assert alice.quiet()


def test_commits_are_limited_to_one_a_second(group):
    alice, _ = group
    settle()

    first, _ = alice.update(alice.member, 1)
    second, _ = alice.update(alice.member, 2)

    assert alice.answer(first) == {0: 2}
    error = refused("Rate Limited", alice.answer, second)
    assert 1 <= error.extra[0] <= 2


def test_a_closed_group_is_gone(group):
    alice, bob = group

    commit(alice, alice.member, 1, close=True)

    frames = [bob.next(), bob.next()]
    kinds = {frame.kind for frame in frames}
    assert kinds == {KEY_UPDATE, GROUP_EVENT}
    event = event_of(next(frame for frame in frames if frame.kind == GROUP_EVENT))
    assert (event[0], event[1]) == (alice.member.group_id, 4)
    refused("Not Found", bob.fetch, bob.member)


def test_a_reference_made_for_another_hub_is_none(group):
    alice, _ = group
    own = alice.member
    stray = Member(own.group_id, "elsewhere.example", own.reference, own.seed)

    refused("Not Found", commit, alice, stray, 1)
    refused("Not Found", alice.fetch, stray)


def test_another_domain_that_does_not_answer_is_told(group):
    alice, _ = group
    own = alice.member
    reference = alice.own_reference(own.group_id, hub="elsewhere.example")
    elsewhere = Member(own.group_id, "elsewhere.example", reference, own.seed)

    refused("Federation Failure", commit, alice, elsewhere, 1)
    refused("Federation Failure", alice.fetch, elsewhere)
    refused("Federation Failure", alice.claim, "a" * 32, os.urandom(32), domain="elsewhere.example")


# --- FETCH ---
