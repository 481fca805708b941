"""Registration of accounts and devices (PROTOCOL.md 3.3 and 6.5)."""

import os

import pytest

from accounts import Account, Device, now_ms
from ccp1 import CcpError, Disconnected, Session
from harness import check_error, fatal
from wire import (
    device_id,
    sign,
    uncbor,
    x25519_public,
)

# What the server prints at its first start is good for so many accounts (SERVER_GUIDE.md 3).
FIRST_INVITE_USES = 5


def rejected(server, device, registration, **options):
    """An XK handshake that the server refuses, inside the tunnel."""
    session = Session(server.info, device, "XK", registration, wait=False, **options)
    return fatal(session, "Handshake Rejected")


def test_an_invite_opens_as_many_accounts_as_it_was_made_for(make_server):
    server = make_server()
    assert server.info.document["registration"] == "invite"

    for _ in range(FIRST_INVITE_USES):
        assert server.register(token=server.invite.token).first_ack[4] == "ok"

    account = Account(server.info.domain)
    device = Device(account)
    account.certify(device)
    rejected(server, device, {0: server.invite.token, 1: account.list()})
    rejected(server, device, {0: os.urandom(16), 1: account.list()})
    rejected(server, device, {1: account.list()})


def test_the_same_registration_again_is_ignored_for_a_known_device(make_server):
    server = make_server()
    session = server.register(token=server.invite.token)
    account = session.device.account

    again = Session(
        server.info, session.device, "XK", {0: server.invite.token, 1: account.list(version=1)}
    )

    assert again.first_ack[4] == "ok"


def test_nobody_new_registers_at_a_closed_server(make_server):
    server = make_server(server_registration="closed")
    account = Account(server.info.domain)
    device = Device(account)
    account.certify(device)

    rejected(server, device, {0: os.urandom(16), 1: account.list()})
    rejected(server, device, {1: account.list()})


def test_a_second_device_needs_a_newer_list_and_no_token(make_server):
    server = make_server()
    first = server.register(token=server.invite.token)
    account = first.device.account

    second = server.register(account)

    assert second.first_ack[4] == "ok"
    assert len(uncbor(first.get_list(account.id)[0][0])[4]) == 2
    assert first.closed is None


def test_a_second_device_may_register_with_the_list_that_was_put_before(server):
    first = server.register()
    account = first.device.account
    device = Device(account)
    account.certify(device)
    signed = account.list()
    first.put_list(signed)

    second = Session(server.info, device, "XK", {1: signed})

    assert second.first_ack[4] == "ok"


def test_an_older_list_registers_nobody(server):
    first = server.register()
    account = first.device.account
    device = Device(account)
    account.certify(device)

    rejected(server, device, {1: account.list(version=1)})


def test_unknown_devices_are_refused_inside_the_tunnel_by_xk(server):
    rejected(server, Device(), None)


def test_unknown_devices_are_refused_in_clear_by_ik(server):
    with pytest.raises(CcpError) as caught:
        server.connect(Device(), "IK")

    assert caught.value.title == "Handshake Rejected" and caught.value.clear
    check_error(caught.value)


def test_the_right_device_id_with_another_key_is_refused(server):
    known = server.register()
    stranger = Device()

    rejected(server, stranger, None, device_id=known.device.id)
    with pytest.raises(CcpError):
        server.connect(stranger, "IK", device_id=known.device.id)

    assert known.closed is None and known.count() == {0: 0, 1: 0}


def test_somebody_elses_device_id_cannot_be_registered(server):
    known = server.register()
    account = Account(server.info.domain)
    thief = Device(account)
    thief.id = known.device.id
    account.certify(thief)

    rejected(server, thief, {1: account.list()})

    assert known.closed is None and known.count() == {0: 0, 1: 0}


def bad_registrations():
    def other_domain(account, device):
        return account.list(domain="elsewhere.example")

    def wrong_signature(account, device):
        return account.list(seed=os.urandom(32))

    def flipped_bit(account, device):
        body, signature = account.list()
        return [body, signature[:-1] + bytes([signature[-1] ^ 1])]

    def other_key(account, device):
        account.certify(device, keys={2: x25519_public(os.urandom(32))})
        return account.list()

    def expired(account, device):
        account.certify(device, keys={4: now_ms() - 2_000_000, 5: now_ms() - 1_000_000})
        return account.list()

    def not_yet(account, device):
        account.certify(device, keys={4: now_ms() + 86_400_000})
        return account.list()

    def other_account(account, device):
        account.certify(device, keys={0: os.urandom(32)})
        return account.list()

    def certificate_by_another(account, device):
        body = account.certificates[device.id][0]
        return account.list(certificates=[sign(os.urandom(32), "device certificate", body)])

    def wrong_purpose(account, device):
        body = account.list()[0]
        return sign(account.seed, "device certificate", body)

    def without_the_device(account, device):
        return account.list(certificates=[])

    def made_up_id(account, device):
        device.id = "a" * 26
        account.certificates.clear()
        account.certify(device)
        return account.list()

    def seventeen(account, device):
        for _ in range(16):
            account.certify(Device(account))
        return account.list()

    def low_order_key(account, device):
        account.certify(device, keys={2: bytes(32)})
        return account.list()

    return [value for name, value in sorted(locals().items()) if callable(value)]


@pytest.mark.parametrize("change", bad_registrations(), ids=lambda change: change.__name__)
def test_a_bad_list_registers_nobody(server, change):
    account = Account(server.info.domain)
    device = Device(account)
    account.certify(device)

    session = Session(server.info, device, "XK", {1: change(account, device)}, wait=False)

    assert session.wait_closed().title in ("Handshake Rejected", "Invalid Control Payload")


def test_sixteen_devices_are_allowed(server):
    account = Account(server.info.domain)
    for _ in range(15):
        account.certify(Device(account))

    assert server.register(account).first_ack[4] == "ok"


def test_a_rotated_key_keeps_the_device(server):
    session = server.register()
    device, account = session.device, session.device.account
    old = device.private
    device.private = os.urandom(32)
    account.certify(device)
    session.put_list(account.list())
    session.close()

    again = server.connect(device)

    assert again.first_ack[4] == "ok"
    assert device.id != device_id(x25519_public(device.private))
    with pytest.raises((CcpError, Disconnected)):
        server.connect(device, "IK", private=old)
