"""Groups: creating, committing, races, FETCH, join links, leaving (PROTOCOL.md 9)."""

import os
import time

import pytest

from ccp1 import Member, entry_id, now_ms, split_message
from harness import commit, make_group, refused
from wire import (
    FETCH,
    GROUP_CREATE,
    GROUP_EVENT,
    GROUP_INVITE,
    JOIN,
    KEY_UPDATE,
    MSG,
    cbor,
    ed25519_public,
    hash32,
    message_payload,
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
        with pytest.raises(Exception, match="Not Found|Forbidden|Invalid Control Payload"):
            session.request(GROUP_CREATE, {0: group_id, 1: fanout})

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
    settle()

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
    settle()
    commit(alice, alice.member, 1)

    error = refused("Conflict", commit, bob, bob.member, 1)
    result, _ = commit(bob, bob.member, error.extra[1])

    assert result == {0: 3}


def test_a_lost_answer_is_asked_for_again_with_the_same_bundle(server, group):
    alice, bob = group
    settle()
    result, body = commit(alice, alice.member, 1)
    assert result == {0: 2}
    settle()
    commit(bob, bob.member, 2)
    settle()

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
    settle()

    error = refused("Conflict", commit, alice, alice.member, 7)

    assert error.extra[1] == 1 and not error.extra.get(2)


def test_a_signature_of_somebody_else_is_forbidden(group):
    alice, bob = group
    settle()

    refused("Forbidden", commit, bob, bob.member, 1, seed=alice.member.seed)
    for purpose in ("join commit", "device list"):
        settle()
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
        settle()
        refused("Forbidden", commit, bob, bob.member, 1, **change)
    settle()
    result, _ = commit(bob, bob.member, 1, add=[carol.member.entry(server.info.domain, 0)])

    assert result == {0: 2}


def test_an_admin_can_be_made_and_unmade(group):
    alice, bob = group
    settle()
    commit(alice, alice.member, 1, admins=[[bob.member.handle, 1], [alice.member.handle, 0]])
    assert entry_of(bob.next())[11] == [[bob.member.handle, 1], [alice.member.handle, 0]]
    settle()

    refused("Forbidden", commit, alice, alice.member, 2, remove=[bob.member.handle])
    assert commit(bob, bob.member, 2, remove=[alice.member.handle])[0] == {0: 3}


def test_a_list_without_admins_makes_everybody_an_admin(server, group):
    alice, bob = group
    settle()

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
        settle()
        refused("Invalid Control Payload", commit, alice, alice.member, 1, **change)

    assert bob.quiet() and alice.fetch(alice.member)[0] == 1


def test_a_removed_device_sees_its_removal_and_nothing_after_it(group):
    alice, bob = group
    alice.join(alice.member)
    bob.join(bob.member)
    settle()

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
    settle()

    commit(alice, alice.member, 1, close=True)

    frames = [bob.next(), bob.next()]
    kinds = {frame.kind for frame in frames}
    assert kinds == {KEY_UPDATE, GROUP_EVENT}
    event = event_of(next(frame for frame in frames if frame.kind == GROUP_EVENT))
    assert (event[0], event[1]) == (alice.member.group_id, 4)
    refused("Not Found", bob.fetch, bob.member)


def test_another_domain_cannot_be_reached_in_this_release(group):
    alice, _ = group
    elsewhere = Member(
        alice.member.group_id, "elsewhere.example", alice.member.reference, alice.member.seed
    )
    settle()

    refused("Federation Failure", commit, alice, elsewhere, 1)
    refused("Federation Failure", alice.fetch, elsewhere)
    refused("Federation Failure", alice.claim, "a" * 32, os.urandom(32), domain="elsewhere.example")


# --- FETCH ---


def test_fetch_gives_entries_from_a_position_on(group):
    alice, bob = group
    for position in (1, 2):
        settle()
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
        "Not Found",
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
    settle()

    assert commit(alice, alice.member, 1, remove=[bob.member.handle])[0] == {0: 2}


def test_whoever_left_can_be_added_again_with_a_new_reference(server, group):
    alice, bob = group
    alice.join(alice.member)
    bob.leave(bob.member.group_id, for_good=True)
    alice.message(1, b"are you there?")
    alice.next(), alice.next()
    settle()
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
        with pytest.raises(Exception, match="Not Found|Forbidden"):
            action()

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
        settle()
        with pytest.raises(Exception, match="Forbidden|Invalid Control Payload|Not Found"):
            commit(bob, bob.member, 1, seed=seed, purpose="join commit", **change)

    assert alice.quiet() and alice.fetch(alice.member)[0] == 1


def test_a_join_key_that_was_taken_away_joins_nobody(server, open_group):
    alice, seed = open_group
    bob = newcomer(server, alice)
    settle()
    commit(alice, alice.member, 1, join_key=b"")

    with pytest.raises(Exception, match="Not Found|Forbidden"):
        join_read(bob, alice.member.group_id, server.info.domain, seed)


# --- Returned messages ---


def test_an_event_is_named_by_its_keys(server, group):
    alice, bob = group
    alice.join(alice.member)
    bob.leave(bob.member.group_id, for_good=True)
    alice.message(1, b"are you there?")

    for _ in range(2):
        event = event_of(alice.next())
        named = cbor({key: value for key, value in event.items() if key <= 5})
        assert event[11] == hash32(named)[:16]
