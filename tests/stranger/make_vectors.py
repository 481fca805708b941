"""Prints the test vectors of docs/PROTOCOL.md, made with other libraries than the server's.

Run: python make_vectors.py > vectors.json
"""

import base64
import json

import blake3
import cbor2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as xchacha_seal
from noise.connection import Keypair, NoiseConnection

RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw

DOMAIN = "chat.example.org"
SERVER = bytes([0x01]) * 32
DEVICE = bytes([0x02]) * 32
EPHEMERAL_I = bytes([0x03]) * 32
EPHEMERAL_R = bytes([0x04]) * 32
ACCOUNT = bytes([0x05]) * 32
HANDLE = bytes([0x06]) * 32
DOMAIN_KEY = bytes([0x07]) * 32
MLS_KEY = bytes([0x08]) * 32
TOKEN = bytes(range(0x10, 0x20))
GROUP = bytes(range(32))
MESSAGE = bytes(range(0xA0, 0xB0))
NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def x25519_public(seed):
    return X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(*RAW)


def ed25519_public(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(*RAW)


def base32(raw):
    return base64.b32encode(raw).decode().lower().rstrip("=")


def hash32(raw):
    return blake3.blake3(raw).digest()


def cbor(value):
    return cbor2.dumps(value, canonical=True)


def signed_input(purpose, body):
    return b"commucat/2 " + purpose.encode() + b"\x00" + hash32(body)


def sign(seed, purpose, body):
    return Ed25519PrivateKey.from_private_bytes(seed).sign(signed_input(purpose, body))


def varint(number):
    out = bytearray()
    while True:
        low, number = number & 0x7F, number >> 7
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def frame(kind, channel, sequence, payload):
    body = bytes([kind]) + varint(channel) + varint(sequence) + varint(len(payload)) + payload
    return varint(len(body)) + body


def noise(pattern, initiator):
    conn = NoiseConnection.from_name(f"Noise_{pattern}_25519_ChaChaPoly_BLAKE2s".encode())
    conn.set_prologue(b"commucat/2/" + DOMAIN.encode())
    if initiator:
        conn.set_as_initiator()
        conn.set_keypair_from_private_bytes(Keypair.STATIC, DEVICE)
        conn.set_keypair_from_private_bytes(Keypair.EPHEMERAL, EPHEMERAL_I)
        conn.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, x25519_public(SERVER))
    else:
        conn.set_as_responder()
        conn.set_keypair_from_private_bytes(Keypair.STATIC, SERVER)
        conn.set_keypair_from_private_bytes(Keypair.EPHEMERAL, EPHEMERAL_R)
    conn.start_handshake()
    return conn


def transport_keys(conn):
    protocol = conn.noise_protocol
    return protocol.cipher_state_encrypt.k, protocol.cipher_state_decrypt.k


def main():
    out = {}
    account_public = ed25519_public(ACCOUNT)
    device_public = x25519_public(DEVICE)
    device_id = base32(hash32(device_public)[:16])
    account_id = base32(hash32(account_public)[:20])
    out["ids"] = {
        "account seed": ACCOUNT,
        "account key": account_public,
        "account id": account_id,
        "device private key": DEVICE,
        "device Noise key": device_public,
        "device id": device_id,
    }

    certificate = cbor(
        {
            0: account_public,
            1: device_id,
            2: device_public,
            3: ed25519_public(MLS_KEY),
            4: NOW,
            5: NOW + 31_536_000_000,
        }
    )
    certificate_signed = [certificate, sign(ACCOUNT, "device certificate", certificate)]
    out["device certificate"] = {
        "body": certificate,
        "BLAKE3(body)": hash32(certificate),
        "signed input": signed_input("device certificate", certificate),
        "signature": certificate_signed[1],
        "signed": cbor(certificate_signed),
    }
    device_list = cbor({0: account_public, 1: DOMAIN, 2: 1, 3: NOW, 4: [certificate_signed]})
    list_signed = [device_list, sign(ACCOUNT, "device list", device_list)]
    out["device list"] = {"body": device_list, "signature": list_signed[1]}

    keys = cbor(
        {
            0: DOMAIN,
            1: ed25519_public(DOMAIN_KEY),
            2: 1,
            3: [[x25519_public(SERVER), NOW, NOW + 31_536_000_000]],
            5: NOW,
        }
    )
    keys_signed = [keys, sign(DOMAIN_KEY, "server keys", keys)]
    out["server keys"] = {
        "domain key": ed25519_public(DOMAIN_KEY),
        "body": keys,
        "signature": keys_signed[1],
        "signed": cbor(keys_signed),
    }

    identification = cbor({0: device_id, 1: {0: TOKEN, 1: list_signed}, 2: [], 3: [2]})
    i, r = noise("XK", True), noise("XK", False)
    message1 = i.write_message(b"")
    r.read_message(message1)
    hello = json.dumps(
        {
            "version": 2,
            "supported_versions": [2],
            "pattern": "XK",
            "key": x25519_public(SERVER).hex()[:16],
            "handshake": message1.hex(),
        },
        separators=(",", ":"),
    ).encode()
    message2 = r.write_message(b"")
    i.read_message(message2)
    auth_s = json.dumps(
        {"protocol_version": 2, "supported_versions": [2], "handshake": message2.hex()},
        separators=(",", ":"),
    ).encode()
    message3 = i.write_message(identification)
    assert bytes(r.read_message(message3)) == identification
    auth_c = json.dumps({"handshake": message3.hex()}, separators=(",", ":")).encode()
    key_c, key_s = transport_keys(i)
    out["XK"] = {
        "server private key": SERVER,
        "server Noise key": x25519_public(SERVER),
        "client ephemeral private key": EPHEMERAL_I,
        "server ephemeral private key": EPHEMERAL_R,
        "prologue": b"commucat/2/" + DOMAIN.encode(),
        "message 1": message1,
        "message 2": message2,
        "identification": identification,
        "message 3": message3,
        "HELLO frame": frame(0x01, 0, 1, hello),
        "AUTH frame s->c": frame(0x02, 0, 1, auth_s),
        "AUTH frame c->s": frame(0x02, 0, 2, auth_c),
        "handshake hash": i.get_handshake_hash(),
        "key c->s": key_c,
        "key s->c": key_s,
    }
    padding = frame(0x43, 0, 0, b"")
    record = i.encrypt(padding)
    out["record"] = {"plaintext": padding, "record 0 c->s": len(record).to_bytes(2, "big") + record}
    cipher = i.noise_protocol.cipher_state_encrypt
    cipher.rekey()
    out["record"]["key c->s after one rekey"] = cipher.k
    cipher.n = 65536
    record = i.encrypt(padding)
    out["record"]["record 65536 c->s"] = len(record).to_bytes(2, "big") + record

    identification = cbor({0: device_id, 2: [], 3: [2]})
    i, r = noise("IK", True), noise("IK", False)
    message1 = i.write_message(identification)
    r.read_message(message1)
    message2 = r.write_message(b"")
    i.read_message(message2)
    key_c, key_s = transport_keys(i)
    out["IK"] = {
        "identification": identification,
        "message 1": message1,
        "message 2": message2,
        "handshake hash": i.get_handshake_hash(),
        "key c->s": key_c,
        "key s->c": key_s,
    }

    ciphertext = b"opaque"
    out["MSG"] = {
        "group id": GROUP,
        "message id": MESSAGE,
        "ciphertext": ciphertext,
        "position": 300,
        "payload": varint(300) + MESSAGE + ciphertext,
        "frame on channel 1, sequence 7": frame(0x05, 1, 7, varint(300) + MESSAGE + ciphertext),
        "frame s->c on channel 0, sequence 9": frame(
            0x05, 0, 9, GROUP + varint(300) + MESSAGE + ciphertext
        ),
        "dedupe key": hash32(GROUP + MESSAGE + ciphertext)[:16],
    }
    nonce, key = bytes([0x0B]) * 24, bytes([0x0A]) * 32
    queue, issued = bytes([0x0C]) * 16, NOW.to_bytes(8, "big")
    aad = b"commucat/2 ref\x00" + GROUP + DOMAIN.encode()
    reference = bytes([1]) + nonce + xchacha_seal(queue + issued, aad, nonce, key)
    out["sealed reference"] = {
        "server's key": key,
        "key id": 1,
        "nonce": nonce,
        "queue id": queue,
        "issued": NOW,
        "associated data": aad,
        "sealed_ref": reference,
    }
    bundle = cbor(
        {0: GROUP, 1: 0, 2: b"\x00commit", 6: b"sealed group info", 7: ed25519_public(HANDLE)}
    )
    hashed = cbor({0: GROUP, 1: 0, 7: ed25519_public(HANDLE)})
    out["bundle"] = {
        "handle seed": HANDLE,
        "handle": ed25519_public(HANDLE),
        "body": bundle,
        "signature": sign(HANDLE, "commit", bundle),
        "message id of the entry": hash32(bundle)[:16],
        "CBOR of keys 0, 1, 7": hashed,
        "authenticated data": hash32(hashed),
    }
    sealed = hash32(GROUP + MESSAGE + b"opaque")[:16]
    about = {0: GROUP, 1: 1, 3: [ed25519_public(HANDLE)], 4: MESSAGE, 5: 1, 6: sealed}
    event = cbor(about)
    out["event"] = {"keys 0-6": event, "message id": hash32(event)[:16]}
    domain_key = base32(ed25519_public(DOMAIN_KEY))
    seed, group_key = base32(bytes([0x0D]) * 32), base32(bytes([0x0E]) * 32)
    out["links"] = {
        "invite": f"commucat://{DOMAIN}:8443/#i={base32(TOKEN)},d={DOMAIN},k={domain_key}",
        "contact": f"commucat:{account_id}@{DOMAIN}#c={base32(TOKEN)}",
        "join": f"commucat:g/{base32(GROUP)}@{DOMAIN}#j={seed},g={group_key}",
    }
    print(json.dumps(out, indent=1, default=lambda raw: bytes(raw).hex()))


if __name__ == "__main__":
    main()
