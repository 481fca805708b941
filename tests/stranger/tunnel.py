"""The Noise handshake and sealed records (PROTOCOL.md 3)."""

import json

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from noise.connection import Keypair, NoiseConnection

from wire import AUTH, HELLO, Frame, ProtocolError

REKEY_EVERY = 65_536
PLAINTEXT_MAX = 65_519


class Initiator:
    """The client's half of a handshake; works on Noise messages and clear frames."""

    def __init__(self, pattern, private, server_key, domain, ephemeral=None):
        self.pattern = pattern
        self.server_key = server_key
        self.noise = NoiseConnection.from_name(f"Noise_{pattern}_25519_ChaChaPoly_BLAKE2s".encode())
        self.noise.set_prologue(b"commucat/2/" + domain.encode())
        self.noise.set_as_initiator()
        self.noise.set_keypair_from_private_bytes(Keypair.STATIC, private)
        self.noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, server_key)
        if ephemeral is not None:
            self.noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
        self.noise.start_handshake()

    def hello(self, identification, versions=(2,)):
        payload = identification if self.pattern == "IK" else b""
        message = {
            "version": 2 if 2 in versions else max(versions),
            "supported_versions": list(versions),
            "pattern": self.pattern,
            "key": self.server_key.hex()[:16],
            "handshake": bytes(self.noise.write_message(payload)).hex(),
        }
        return json_frame(HELLO, 1, message)

    def read_auth(self, frame):
        message = json.loads(frame.payload)
        if (frame.kind, frame.channel, frame.sequence) != (AUTH, 0, 1):
            raise ProtocolError("expected AUTH on channel 0 with sequence 1")
        if message["protocol_version"] != 2:
            raise ProtocolError("wrong version")
        payload = self.noise.read_message(bytes.fromhex(message["handshake"]))
        if bytes(payload):
            raise ProtocolError("a payload where none belongs")
        return message

    def auth(self, identification):
        message = bytes(self.noise.write_message(identification))
        return json_frame(AUTH, 2, {"handshake": message.hex()})

    def split(self):
        protocol = self.noise.noise_protocol
        return Sealer(protocol.cipher_state_encrypt.k), Opener(protocol.cipher_state_decrypt.k)


def json_frame(kind, sequence, message):
    return Frame(kind, 0, sequence, json.dumps(message, separators=(",", ":")).encode())


class Cipher:
    """One direction: a key, a record number, and the rekey rule of section 3.8."""

    def __init__(self, key, number=0):
        self.key = key
        self.aead = ChaCha20Poly1305(key)
        self.number = number

    def nonce(self):
        """The next nonce. Replaces `aead` at a rekey: take the nonce first, then `aead`."""
        if self.number and self.number % REKEY_EVERY == 0:
            self.rekey()
        nonce = bytes(4) + self.number.to_bytes(8, "little")
        self.number += 1
        return nonce

    def rekey(self):
        nonce = bytes(4) + (2**64 - 1).to_bytes(8, "little")
        self.key = self.aead.encrypt(nonce, bytes(32), b"")[:32]
        self.aead = ChaCha20Poly1305(self.key)


class Sealer(Cipher):
    def seal(self, plaintext):
        out = bytearray()
        for start in range(0, len(plaintext), PLAINTEXT_MAX):
            part = plaintext[start : start + PLAINTEXT_MAX]
            nonce = self.nonce()
            ciphertext = self.aead.encrypt(nonce, part, b"")
            out += len(ciphertext).to_bytes(2, "big") + ciphertext
        return bytes(out)


class Opener(Cipher):
    def __init__(self, key, number=0):
        super().__init__(key, number)
        self.buffer = bytearray()

    def push(self, raw):
        """Returns the plaintext of every record that is complete now."""
        self.buffer += raw
        out = bytearray()
        while len(self.buffer) >= 2:
            length = int.from_bytes(self.buffer[:2], "big")
            if length < 17:
                raise ProtocolError("a record shorter than 17 bytes")
            if len(self.buffer) < 2 + length:
                break
            ciphertext = bytes(self.buffer[2 : 2 + length])
            del self.buffer[: 2 + length]
            nonce = self.nonce()
            try:
                out += self.aead.decrypt(nonce, ciphertext, b"")
            except InvalidTag as error:
                raise ProtocolError("a record does not open") from error
        return bytes(out)
