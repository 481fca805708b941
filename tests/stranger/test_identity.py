"""Key packages, capabilities, device lists, revocation (PROTOCOL.md 6)."""

import os

import pytest

from accounts import Account, Device, now_ms
from harness import commit, fatal, make_group, refused
from wire import (
    DIRECTORY,
    GROUP_EVENT,
    KEY_PACKAGE,
    KEY_UPDATE,
    MSG,
    cbor,
    hash32,
    message_payload,
    sign,
    uncbor,
    verify,
)


@pytest.fixture
def two(server):
    alice, bob = server.register(), server.register()
    bob.secret = os.urandom(16)
    bob.capabilities(add=[bob.secret])
    return alice, bob


def test_published_packages_are_counted_and_claimed_once(two):
    alice, bob = two
    packages = [b"package %d" % number for number in range(3)]

    assert bob.publish(packages) == {}
    assert bob.publish([b"last resort"], last_resort=True) == {}
    assert bob.count() == {0: 3, 1: 1}
    claimed = [alice.claim(bob.device.account.id, os.urandom(32), bob.secret)[0] for _ in range(4)]

    assert sorted(row[1] for row in claimed[:3]) == packages
    assert [row[3] for row in claimed] == [False, False, False, True]
    assert claimed[3][1] == b"last resort"
    assert {row[0] for row in claimed} == {bob.device.id}
    assert len({row[2] for row in claimed}) == 4 and {len(row[2]) for row in claimed} == {65}
    assert bob.count() == {0: 0, 1: 1}


def test_a_claimed_reference_delivers(server, two):
    alice, bob = two
    bob.publish([b"package"])
    member = alice.create_group()
    ((_, package, reference, _),) = alice.claim(bob.device.account.id, member.group_id, bob.secret)
    handle = os.urandom(32)

    commit(
        alice,
        member,
        0,
        add=[[handle, server.info.domain, reference, 0]],
        welcomes=[[[handle], b"welcome"]],
    )

    invite = uncbor(bob.next().payload)
    assert (invite[3], invite[4]) == (handle, reference)


def test_a_claim_takes_one_package_of_each_device(server):
    alice, bob = server.register(), server.register()
    other = server.register(bob.device.account)
    third = server.register(bob.device.account)
    secret = os.urandom(16)
    bob.capabilities(add=[secret])
    bob.publish([b"of bob"])
    other.publish([b"of other", b"more"])

    rows = alice.claim(bob.device.account.id, os.urandom(32), secret)

    assert sorted((row[0], row[1]) for row in rows) == sorted(
        [(bob.device.id, b"of bob"), (other.device.id, b"of other")]
    )
    assert third.device.id not in {row[0] for row in rows}


def test_a_repeated_claim_gives_the_same_packages(server, two):
    alice, bob = two
    bob.publish([b"one", b"two"])
    claim_id, group_id = os.urandom(16), os.urandom(32)

    first = alice.claim(bob.device.account.id, group_id, bob.secret, claim_id)
    again = alice.claim(bob.device.account.id, group_id, bob.secret, claim_id)
    later = server.reconnect(alice).claim(bob.device.account.id, group_id, bob.secret, claim_id)

    assert [row[:2] for row in first] == [row[:2] for row in again] == [row[:2] for row in later]
    assert bob.count() == {0: 1, 1: 0}


def test_a_repeated_publish_adds_nothing(two):
    _, bob = two
    rows = [[now_ms() + 86_400_000, False, b"package"]]

    bob.request(KEY_PACKAGE, {0: 1, 1: rows})
    bob.request(KEY_PACKAGE, {0: 1, 1: rows})

    assert bob.count() == {0: 1, 1: 0}


def test_a_wrong_capability_looks_like_an_unknown_account(two):
    alice, bob = two
    bob.publish([b"package"])
    group_id, account = os.urandom(32), bob.device.account.id
    unknown = Account(bob.server.domain).id

    errors = [
        refused("Not Found", alice.claim, account, group_id),
        refused("Not Found", alice.claim, account, group_id, os.urandom(16)),
        refused("Not Found", alice.claim, unknown, group_id, bob.secret),
        refused("Not Found", alice.get_list, account),
        refused("Not Found", alice.get_list, account, os.urandom(16)),
        refused("Not Found", alice.get_list, unknown, bob.secret),
    ]

    assert len({error.detail for error in errors}) == 1
    assert bob.count() == {0: 1, 1: 0}


def test_a_removed_capability_is_dead(two):
    alice, bob = two
    assert alice.get_list(bob.device.account.id, bob.secret)

    bob.capabilities(remove=[bob.secret])

    refused("Not Found", alice.get_list, bob.device.account.id, bob.secret)


def test_a_capability_is_good_for_its_account_only(server, two):
    alice, bob = two
    carol = server.register()

    refused("Not Found", alice.get_list, carol.device.account.id, bob.secret)


def test_an_account_has_at_most_256_capabilities(server):
    session = server.register()
    session.capabilities(add=[os.urandom(16) for _ in range(256)])

    refused("Rate Limited", session.capabilities, add=[os.urandom(16)])


def test_claims_beyond_the_budget_get_the_last_resort(make_server):
    server = make_server(server_registration="open", limits_claims_per_capability="2")
    alice, bob = server.register(), server.register()
    secret = os.urandom(16)
    bob.capabilities(add=[secret])
    bob.publish([b"%d" % number for number in range(5)])
    bob.publish([b"last resort"], last_resort=True)

    rows = [alice.claim(bob.device.account.id, os.urandom(32), secret)[0] for _ in range(3)]

    assert [row[3] for row in rows] == [False, False, True]
    assert bob.count() == {0: 3, 1: 1}


def test_expired_packages_are_not_given_out(two):
    alice, bob = two

    bob.publish([b"old"], not_after=now_ms() - 1_000)

    assert bob.count() == {0: 0, 1: 0}
    assert alice.claim(bob.device.account.id, os.urandom(32), bob.secret) == []


def test_a_device_keeps_at_most_100_packages(two):
    _, bob = two
    bob.publish([b"%d" % number for number in range(100)])

    refused("Rate Limited", bob.publish, [b"one more"])

    assert bob.count()[0] == 100


def test_a_newer_last_resort_replaces_the_older(two):
    alice, bob = two
    bob.publish([b"first"], last_resort=True)
    bob.publish([b"second"], last_resort=True)

    assert bob.count() == {0: 0, 1: 1}
    (row,) = alice.claim(bob.device.account.id, os.urandom(32), bob.secret)
    assert (row[1], row[3]) == (b"second", True)


def test_the_own_account_needs_no_capability_and_leaves_oneself_out(server):
    first = server.register()
    second = server.register(first.device.account)
    first.publish([b"of first"])
    second.publish([b"of second"])

    rows = first.claim(first.device.account.id, os.urandom(32))

    assert [(row[0], row[1]) for row in rows] == [(second.device.id, b"of second")]
    assert first.count() == {0: 1, 1: 0}


def test_own_references_are_fresh_each_time(server):
    session = server.register()
    group_id = os.urandom(32)

    references = {session.own_reference(group_id) for _ in range(5)}

    assert len(references) == 5 and {len(one) for one in references} == {65}


def test_impossible_key_package_requests_are_refused(server):
    session = server.register()

    for body in (
        {},
        {0: 9},
        {0: 0},
        {0: "1"},
        {0: 1},
        {0: 1, 1: [[1, 2, 3]]},
        {0: 1, 1: b""},
        {0: 3},
        {0: 3, 2: "UPPER", 3: "localhost", 5: bytes(32), 6: "localhost", 7: bytes(16)},
        {0: 4, 8: [b"short"]},
        {0: 5},
        {0: 5, 5: bytes(31), 6: "localhost"},
        {0: 5, 5: bytes(32), 6: "Upper.Example"},
    ):
        refused("Invalid Control Payload", session.request, KEY_PACKAGE, cbor(body))

    assert session.count() == {0: 0, 1: 0}


# --- DIRECTORY ---


def test_a_list_is_returned_as_it_was_signed(two):
    alice, bob = two
    account = bob.device.account
    account.certify(Device(account))
    signed = account.list()
    assert bob.put_list(signed) == {}

    assert bob.get_list(account.id)[0] == signed
    answer = alice.get_list(account.id, bob.secret)
    assert answer[0] == signed
    assert verify(account.public, "device list", answer[0])[2] == account.version


def test_lists_only_grow_newer(server):
    session = server.register()
    account = session.device.account
    second = account.list()
    session.put_list(second)

    session.put_list(second)
    refused("Conflict", session.put_list, account.list(version=1))
    body = cbor({**uncbor(second[0]), 3: now_ms() + 5})
    refused("Conflict", session.put_list, sign(account.seed, "device list", body))

    assert session.get_list(account.id)[0] == second


def test_forged_and_foreign_lists_are_refused(server, two):
    alice, bob = two
    account = bob.device.account
    before = bob.get_list(account.id)[0]

    for forged in (
        account.list(version=90, seed=os.urandom(32)),
        [account.list(version=92)[0], bytes(64)],
        sign(account.seed, "commit", account.list(version=93)[0]),
    ):
        refused("Forbidden", bob.put_list, forged)
    refused("Forbidden", bob.put_list, account.list(version=91, domain="elsewhere.example"))
    refused("Forbidden", alice.put_list, account.list(version=94))
    own = account.certificates[bob.device.id]
    refused("Invalid Control Payload", bob.put_list, account.list(95, certificates=[own, own]))

    assert bob.get_list(account.id)[0] == before


def test_a_device_that_leaves_the_list_is_revoked(server, two):
    alice, bob = two
    account = bob.device.account
    phone = server.register(account)
    phone.publish([b"package"])
    del account.certificates[phone.device.id]

    bob.put_list(account.list())

    fatal(phone, "Revoked")
    for pattern in ("XK", "IK"):
        with pytest.raises(Exception) as caught:
            server.connect(phone.device, pattern)
        assert "Handshake Rejected" in str(caught.value)
    assert alice.claim(account.id, os.urandom(32), bob.secret) == []


def test_a_revoked_device_is_gone_from_its_groups(server):
    alice, bob = server.register(), server.register()
    phone = server.register(bob.device.account)
    members = make_group(alice, bob, phone)
    alice.join(members[0])
    account = bob.device.account
    del account.certificates[phone.device.id]
    bob.put_list(account.list())
    fatal(phone, "Revoked")

    sequence, message_id = alice.message(1, b"hello")

    assert bob.next().kind == 5
    bob.ack()
    assert alice.status_of(sequence) in (1, 3)
    events = [uncbor(alice.next().payload) for _ in range(2)]
    assert {event[1] for event in events} == {1, 2}
    assert all(event[3] == [members[2].handle] for event in events)


def test_a_message_on_its_way_to_a_revoked_device_finds_that_it_is_gone(make_server):
    # Until it is revoked the phone may take its time.
    server = make_server(server_registration="open", limits_ack_wait="10s")
    alice, bob = server.register(), server.register()
    phone = server.register(bob.device.account)
    members = make_group(alice, bob, phone)
    alice.join(members[0])
    sequence, message_id = alice.message(1, b"hello")
    phone.next()
    assert bob.next().kind == MSG
    bob.ack()
    account = bob.device.account
    del account.certificates[phone.device.id]

    bob.put_list(account.list())

    fatal(phone, "Revoked")
    events = [uncbor(alice.next().payload) for _ in range(2)]
    by_kind = {event[1]: event for event in events}
    assert set(by_kind) == {1, 2}
    assert all(event[3] == [members[2].handle] for event in events)
    assert by_kind[1][4] == message_id and alice.status_of(sequence) in (1, 3)
    assert uncbor(bob.next().payload)[1] == 2


def test_the_first_message_of_a_commit_finds_that_a_device_is_gone(server):
    alice, bob = server.register(), server.register()
    phone = server.register(bob.device.account)
    members = make_group(alice, bob, phone)
    account = bob.device.account
    del account.certificates[phone.device.id]
    bob.put_list(account.list())
    fatal(phone, "Revoked")

    commit(alice, members[0], 1, first_message=message_payload(2, os.urandom(16), b"hello"))

    events = [uncbor(alice.next().payload) for _ in range(2)]
    assert {event[1] for event in events} == {1, 2}
    assert all(event[3] == [members[2].handle] for event in events)
    assert [bob.next().kind for _ in range(3)] == [KEY_UPDATE, MSG, GROUP_EVENT]


def test_a_device_can_revoke_itself(server):
    first = server.register()
    account = first.device.account
    second = server.register(account)
    del account.certificates[second.device.id]

    second.send(DIRECTORY, cbor({0: 1, 1: account.list()}))

    fatal(second, "Revoked")
    assert first.count() == {0: 0, 1: 0}


def test_an_empty_list_deletes_the_account(server, two):
    alice, bob = two
    account = bob.device.account

    bob.send(DIRECTORY, cbor({0: 1, 1: account.list(certificates=[])}))

    fatal(bob, "Revoked")
    refused("Not Found", alice.get_list, account.id, bob.secret)
    refused("Not Found", alice.claim, account.id, os.urandom(32), bob.secret)


def test_impossible_directory_requests_are_refused(server):
    session = server.register()

    for body in ({}, {0: 3}, {0: 1}, {0: 1, 1: b""}, {0: 1, 1: [b"", b""]}, {0: 2}, {0: 2, 2: "x"}):
        refused("Invalid Control Payload", session.request, DIRECTORY, cbor(body))


def test_capabilities_are_kept_as_hashes_only(make_server):
    server = make_server(server_registration="open")
    session = server.register()
    secret = os.urandom(16)
    session.capabilities(add=[secret])
    server.kill()

    kept = server.kept()

    assert secret not in kept and hash32(secret) in kept
