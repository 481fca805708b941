"""What an operator does, as clients see it: invites, new keys, revocation (PROTOCOL.md 3.6, 6)."""

import json
import os

import pytest

from accounts import Account, Device, ServerInfo, now_ms
from ccp1 import Session
from harness import fatal, refused_registration
from wire import parse_invite, uncbor, verify


@pytest.fixture
def server(make_server):
    return make_server()


def test_an_invite_for_one_opens_one_account(server):
    invite = parse_invite(json.loads(server.cli("invite", "create"))["link"])

    session = server.register(token=invite.token)

    assert session.first_ack[4] == "ok"
    assert invite.domain_key == server.info.domain_key
    refused_registration(server, invite.token)


def test_a_revoked_invite_opens_nothing(server):
    made = json.loads(server.cli("invite", "create", "--uses", "3"))
    token = parse_invite(made["link"]).token
    assert server.register(token=token).first_ack[4] == "ok"

    server.cli("invite", "revoke", made["id"])

    refused_registration(server, token)


def test_a_new_noise_key_is_announced_and_the_old_one_goes_on(server):
    session = server.register(token=server.invite.token)
    before = server.info

    server.cli("rotate-keys")

    after = ServerInfo("127.0.0.1", server.port, before.domain, before.domain_key)
    assert after.server_keys[2] > before.server_keys[2]
    assert after.noise_key != before.noise_key
    assert session.count() == {0: 0, 1: 0}
    with_old = Session(before, session.device, "IK")
    assert with_old.count() == {0: 0, 1: 0}
    announced = verify(before.domain_key, "server keys", with_old.first_ack[8])
    assert announced[2] == after.server_keys[2]
    for pattern in ("XK", "IK"):
        assert Session(after, session.device, pattern).count() == {0: 0, 1: 0}


def test_the_old_noise_key_ends_after_thirty_days(server):
    server.cli("rotate-keys")

    keys = ServerInfo("127.0.0.1", server.port, server.info.domain, server.info.domain_key)
    rows = {row[0]: row for row in keys.server_keys[3]}

    old = rows[server.info.noise_key]
    assert abs(old[2] - now_ms() - 30 * 86_400_000) < 600_000
    assert rows[keys.noise_key][2] > old[2]


def test_a_new_domain_key_is_reached_by_the_chain(server):
    session = server.register(token=server.invite.token)
    pinned = server.info.domain_key

    server.cli("rotate-keys", "--domain-key", "--yes")

    info = ServerInfo("127.0.0.1", server.port, server.info.domain, pinned)
    assert info.server_keys[1] != pinned
    assert len(info.document["chain"]) == 1
    link = uncbor(uncbor(bytes.fromhex(info.document["chain"][0]))[0])
    assert (link[1], link[4]) == (pinned, info.server_keys[1])
    info.domain_key = info.server_keys[1]
    assert Session(info, session.device, "IK").count() == {0: 0, 1: 0}


def test_a_device_that_the_operator_revokes_is_shut_out(server):
    session = server.register(token=server.invite.token)

    server.cli("device", "revoke", session.device.id, "--yes")

    fatal(session, "Revoked")
    again = Session(server.info, session.device, "XK", wait=False)
    fatal(again, "Handshake Rejected")


def test_tokens_are_kept_as_hashes_only(server):
    invite = parse_invite(json.loads(server.cli("invite", "create"))["link"])
    server.kill()

    kept = server.kept()

    assert invite.token not in kept


def test_an_account_is_not_known_by_another_key(server):
    account = Account(server.info.domain)
    device = Device(account)
    account.certify(device)
    server.register(account, device, token=server.invite.token)
    account.seed = os.urandom(32)

    again = Session(server.info, Device(account), "XK", {1: account.list()}, wait=False)

    fatal(again, "Handshake Rejected")
