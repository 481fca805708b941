"""Bytes of CCP-1: varints, frames, CBOR, signed statements, ids, links (PROTOCOL.md 2, 4, 6)."""

import base64
import re
from dataclasses import dataclass

import blake3
import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

HELLO, AUTH, JOIN, LEAVE, MSG, ACK, TYPING, PRESENCE = range(0x01, 0x09)
KEY_UPDATE, GROUP_CREATE, GROUP_INVITE, GROUP_EVENT, ERROR = range(0x09, 0x0E)
KEY_PACKAGE, DIRECTORY, FETCH, PADDING, GRANT = range(0x40, 0x45)

NUMBERED_BY_CLIENT = {JOIN, LEAVE, MSG, KEY_UPDATE, GROUP_CREATE, KEY_PACKAGE, DIRECTORY, FETCH}
NUMBERED_BY_SERVER = {MSG, KEY_UPDATE, GROUP_INVITE, GROUP_EVENT}

RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw
RAW_PRIVATE = (
    serialization.Encoding.Raw,
    serialization.PrivateFormat.Raw,
    serialization.NoEncryption(),
)


class ProtocolError(Exception):
    """The server broke the protocol."""


# --- Varints and frames (section 2) ---


def varint(number):
    out = bytearray()
    while True:
        low, number = number & 0x7F, number >> 7
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def read_varint(raw, at):
    """Returns (number, next offset), or None if `raw` ends before the varint does."""
    number = 0
    for index in range(10):
        if at + index >= len(raw):
            return None
        byte = raw[at + index]
        if index == 9 and byte > 1:
            raise ProtocolError("varint overflow")
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number, at + index + 1
    raise ProtocolError("varint overflow")


@dataclass(frozen=True)
class Frame:
    kind: int
    channel: int
    sequence: int
    payload: bytes

    def encode(self):
        body = bytes([self.kind]) + varint(self.channel) + varint(self.sequence)
        body += varint(len(self.payload)) + self.payload
        return varint(len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self):
        self.buffer = bytearray()

    def push(self, raw):
        self.buffer += raw
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self):
        head = read_varint(self.buffer, 0)
        if head is None:
            return None
        length, start = head
        if length > 16 * 1024 * 1024:
            raise ProtocolError("frame too large")
        if len(self.buffer) < start + length:
            return None
        body = bytes(self.buffer[start : start + length])
        del self.buffer[: start + length]
        return self._parse(body)

    @staticmethod
    def _parse(body):
        at = 1
        fields = []
        for _ in range(3):
            field = read_varint(body, at)
            if field is None:
                raise ProtocolError("truncated frame")
            fields.append(field[0])
            at = field[1]
        channel, sequence, payload_len = fields
        if len(body) - at != payload_len:
            raise ProtocolError("truncated frame")
        if channel >= 1 << 32 or sequence >= 1 << 32:
            raise ProtocolError("identifier out of range")
        return Frame(body[0], channel, sequence, body[at:])


# --- CBOR (section 2.4) ---


def cbor(value):
    return cbor2.dumps(value, canonical=True)


def uncbor(raw):
    """Decodes what the server sent and checks that it is the deterministic encoding."""
    value = cbor2.loads(raw)
    if cbor(value) != raw:
        raise ProtocolError("not the deterministic encoding")
    return value


def hash32(raw):
    return blake3.blake3(raw).digest()


def base32(raw):
    return base64.b32encode(raw).decode().lower().rstrip("=")


def unbase32(text):
    if text != text.lower():
        raise ValueError("base32 is lower case")
    return base64.b32decode(text.upper() + "=" * (-len(text) % 8))


# --- Signed statements (section 2.6) ---


def ed25519_public(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(*RAW)


def x25519_public(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes(*RAW)


def signed_input(purpose, body):
    return b"commucat/2 " + purpose.encode() + b"\x00" + hash32(body)


def sign(seed, purpose, body):
    """The `signed` array over the encoded map `body`."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return [body, key.sign(signed_input(purpose, body))]


def verify(public, purpose, signed):
    """Returns the decoded body if the signature is good."""
    body, signature = signed
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed_input(purpose, body))
    except InvalidSignature as error:
        raise ProtocolError(f"bad signature on a {purpose}") from error
    return uncbor(body)


# --- Ids and links (section 6) ---


def device_id(noise_public):
    return base32(hash32(noise_public)[:16])


def account_id(account_public):
    return base32(hash32(account_public)[:20])


def message_payload(position, message_id, ciphertext):
    return varint(position) + message_id + ciphertext


def dedupe_key(group_id, message_id, content):
    return hash32(group_id + message_id + content)[:16]


@dataclass(frozen=True)
class Invite:
    host: str
    port: int
    token: bytes
    domain: str
    domain_key: bytes


def parse_invite(link):
    match = re.fullmatch(r"(?:commucat|https)://(\[[0-9a-f:]+\]|[^/:]+)(?::(\d+))?/i?#(.*)", link)
    if match is None:
        raise ValueError("not an invite link")
    host, port, fragment = match.groups()
    parts = dict(part.split("=", 1) for part in fragment.split(","))
    token, key = unbase32(parts["i"]), unbase32(parts["k"])
    if len(token) != 16 or len(key) != 32:
        raise ValueError("wrong length in an invite link")
    return Invite(host.strip("[]"), int(port or 443), token, parts["d"], key)


def read_server_keys(document, domain, domain_key):
    """Follows section 3.6: returns the body of the latest statement, or raises."""
    if document["domain"] != domain:
        raise ProtocolError("the server has another domain")
    current = domain_key
    for link in document.get("chain", []):
        body = statement(link, None)
        if body[1] == current and body.get(0) == domain and 4 in body:
            current = statement(link, current)[4]
    latest = statement(document["server_keys"], current)
    if latest[0] != domain or latest[1] != current:
        raise ProtocolError("the statement is for another domain or key")
    return latest


def statement(text, signer):
    signed = uncbor(bytes.fromhex(text))
    key = signer if signer is not None else uncbor(signed[0])[1]
    return verify(key, "server keys", signed)


def current_noise_key(server_keys, now):
    valid = [row for row in server_keys[3] if row[1] <= now < row[2]]
    return max(valid, key=lambda row: row[1])[0]
