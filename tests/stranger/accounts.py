"""What a client keeps: server, account, device, membership (PROTOCOL.md 3.6, 5.0, 6)."""

import os
import time

import carriers
from wire import (
    account_id,
    cbor,
    current_noise_key,
    device_id,
    ed25519_public,
    read_server_keys,
    sign,
    uncbor,
    x25519_public,
)


def now_ms():
    return int(time.time() * 1000)


class ServerInfo:
    """What a client pins: address, domain, domain key, Noise key."""

    def __init__(self, host, port, domain, domain_key):
        self.host, self.port, self.domain, self.domain_key = host, port, domain, domain_key
        self.document = carriers.get_json(host, port, "/.well-known/commucat")
        self.server_keys = read_server_keys(self.document, domain, domain_key)
        self.noise_key = current_noise_key(self.server_keys, now_ms())

    @classmethod
    def at(cls, host, port):
        """Trusts what the server says of itself: for a server that the caller has just started."""
        document = carriers.get_json(host, port, "/.well-known/commucat")
        body = uncbor(uncbor(bytes.fromhex(document["server_keys"]))[0])
        return cls(host, port, document["domain"], body[1])


class Account:
    """An account key and the device list that it signs."""

    def __init__(self, domain):
        self.seed = os.urandom(32)
        self.public = ed25519_public(self.seed)
        self.id = account_id(self.public)
        self.domain = domain
        self.version = 0
        self.certificates = {}

    def certify(self, device, **changes):
        body = {
            0: self.public,
            1: device.id,
            2: x25519_public(device.private),
            3: ed25519_public(device.mls_seed),
            4: now_ms() - 60_000,
            5: now_ms() + 365 * 86_400_000,
        }
        body.update(changes.pop("keys", {}))
        self.certificates[device.id] = sign(self.seed, "device certificate", cbor(body))

    def list(self, version=None, certificates=None, domain=None, seed=None):
        if version is None:
            self.version += 1
            version = self.version
        rows = list(self.certificates.values()) if certificates is None else certificates
        body = cbor({0: self.public, 1: domain or self.domain, 2: version, 3: now_ms(), 4: rows})
        return sign(seed or self.seed, "device list", body)


class Device:
    def __init__(self, account=None):
        self.private = os.urandom(32)
        self.mls_seed = os.urandom(32)
        self.id = device_id(x25519_public(self.private))
        self.account = account


class Member:
    """One device in one group: handle, reference."""

    def __init__(self, group_id, hub, reference=None, seed=None):
        self.group_id, self.hub = group_id, hub
        self.seed = seed or os.urandom(32)
        self.handle = ed25519_public(self.seed)
        self.reference = reference

    def entry(self, domain, admin):
        return [self.handle, domain, self.reference, admin]
