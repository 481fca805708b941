"""A CommuCat client written from docs/PROTOCOL.md alone.

It does everything that the protocol asks of a client except MLS: commits, Welcomes and messages
carry stand-ins, into which the server does not look.
"""

import json
import os
import threading
import time
from collections import deque

import carriers
import schema
from accounts import Member, now_ms
from tunnel import Initiator
from wire import (
    ACK,
    DIRECTORY,
    ERROR,
    FETCH,
    GROUP_CREATE,
    GROUP_EVENT,
    GROUP_INVITE,
    JOIN,
    KEY_PACKAGE,
    KEY_UPDATE,
    LEAVE,
    MSG,
    NUMBERED_BY_CLIENT,
    NUMBERED_BY_SERVER,
    PADDING,
    PRESENCE,
    TYPING,
    Frame,
    FrameReader,
    ProtocolError,
    cbor,
    hash32,
    message_payload,
    read_varint,
    sign,
    uncbor,
    verify,
)

# What a node holds for another one is given up after eight times `limits.ack_wait`, 16 s where there
# are several: a test outlasts that.
TIMEOUT = float(os.environ.get("STRANGER_TIMEOUT", "25"))


# Titles of every ERROR that a server has sent in this run.
SEEN = set()


class CcpError(Exception):
    """An ERROR frame. `body` has the names of RFC 9457; `sequence` is key 5."""

    def __init__(self, body, sequence=None, extra=None, clear=False):
        super().__init__(f"{body['title']} ({body['status']}): {body['detail']}")
        SEEN.add(body["title"])
        self.title = body["title"]
        self.status = body["status"]
        self.type = body["type"]
        self.detail = body["detail"]
        self.sequence = sequence
        self.extra = extra or {}
        self.clear = clear

    @classmethod
    def of_cbor(cls, payload):
        body = uncbor(payload)
        names = {"type": body[0], "title": body[1], "status": body[2], "detail": body[3]}
        return cls(names, body.get(5), body.get(4))

    @classmethod
    def of_json(cls, payload):
        body = json.loads(payload)
        return cls(body, None, {4: body.get("versions")}, clear=True)


class Disconnected(Exception):
    """The server closed; `error` is the ERROR that it said before, if any."""

    def __init__(self, error=None):
        super().__init__(str(error) if error else "closed without a word")
        self.error = error


class Session:
    """One connection of a device. Reads all the time in a thread of its own."""

    def __init__(self, server, device, pattern="XK", registration=None, carrier="h2", **options):
        self.server, self.device = server, device
        self.carrier = carriers.CARRIERS[carrier](server.host, server.port)
        self.reader = FrameReader()
        self.changed = threading.Condition()
        self.inbox = deque()
        self.typing = deque()
        self.results, self.errors, self.runs = {}, {}, {}
        self.store_read = False
        self.fatal = self.closed = self.first_ack = None
        self.last_received = self.sequence = 0
        self.versions = options.get("versions", [2])
        self.expected = (200, 101)
        if self.carrier.status not in self.expected:
            raise ProtocolError(f"status {self.carrier.status}")
        self._handshake(pattern, registration, options)
        threading.Thread(target=self._run, daemon=True).start()
        if options.get("wait", True):
            self._first_ack()

    # --- Handshake ---

    def _handshake(self, pattern, registration, options):
        identification = {
            0: options.get("device_id", self.device.id),
            2: [],
            3: options.get("sealed_versions", self.versions),
        }
        if registration is not None:
            identification[1] = registration
        identification = options.get("identification", cbor(identification))
        private = options.get("private", self.device.private)
        key = options.get("server_key", self.server.noise_key)
        domain = options.get("prologue_domain", self.server.domain)
        noise = Initiator(pattern, private, key, domain)
        hello = noise.hello(identification, self.versions)
        self.hello = hello.encode()
        self.carrier.write(self.hello)
        try:
            answer = self._clear_frame()
            if answer.kind == ERROR:
                raise CcpError.of_json(answer.payload)
            self.auth = noise.read_auth(answer)
            if pattern == "XK":
                self.carrier.write(noise.auth(identification).encode())
        except BaseException:
            self.carrier.close()
            raise
        self.sealer, self.opener = noise.split()
        if self.reader.buffer:
            self.pending = bytes(self.reader.buffer)
            self.reader.buffer.clear()
        else:
            self.pending = b""
        if pattern == "IK" and options.get("padding", True):
            self.send(PADDING, b"")

    def _clear_frame(self):
        """Reads one frame in clear and leaves what follows to the tunnel."""
        while True:
            head = read_varint(self.reader.buffer, 0)
            if head is not None and len(self.reader.buffer) >= sum(head):
                length = head[0] + head[1]
                raw = bytes(self.reader.buffer[:length])
                del self.reader.buffer[:length]
                return FrameReader().push(raw)[0]
            raw = self.carrier.read(TIMEOUT)
            if not raw:
                raise Disconnected
            self.reader.buffer += raw

    def _first_ack(self):
        self.wait(lambda: self.first_ack)
        ack = self.first_ack
        if ack[4] != "ok" or ack[9] != self.auth["supported_versions"]:
            raise ProtocolError("bad first ACK")
        verify(self.server.domain_key, "server keys", ack[8])
        self.limits = ack[11]

    # --- Reading ---

    def _run(self):
        raw = self.pending
        try:
            while True:
                for frame in self.reader.push(self.opener.push(raw)):
                    with self.changed:
                        self._take(frame)
                        self.changed.notify_all()
                raw = self._more()
                if not raw:
                    break
        except Exception as error:  # noqa: BLE001 - shown to whoever waits
            self.closed = error
        with self.changed:
            self.closed = self.closed or Disconnected(self.fatal)
            self.changed.notify_all()

    def _more(self):
        """The next bytes; b"" at the end."""
        while self.closed is None:
            try:
                return self.carrier.read(1)
            except TimeoutError:
                pass
        return b""

    def _take(self, frame):
        self._check_number(frame)
        schema.check(frame, self.first_ack is None)
        if frame.kind == ACK:
            self._take_ack(uncbor(frame.payload))
        elif frame.kind == ERROR:
            error = CcpError.of_cbor(frame.payload)
            if error.sequence is None:
                self.fatal = error
            else:
                self.errors[error.sequence] = error
        elif frame.kind == TYPING:
            self.typing.append(frame)
        elif frame.kind in NUMBERED_BY_SERVER:
            if frame.kind != MSG:
                uncbor(frame.payload)
            self.inbox.append(frame)
        elif frame.kind != PADDING:
            raise ProtocolError(f"unexpected frame type {frame.kind:#x}")

    def _check_number(self, frame):
        if self.first_ack is None and frame.kind not in (ACK, ERROR):
            raise ProtocolError("the first sealed frame must be the first ACK")
        if frame.kind in NUMBERED_BY_SERVER:
            if frame.sequence != self.last_received + 1:
                raise ProtocolError("sequence out of order")
            self.last_received = frame.sequence
        elif frame.sequence != 0:
            raise ProtocolError("a number where 0 belongs")
        if frame.kind in (KEY_UPDATE, GROUP_INVITE, GROUP_EVENT, ACK, ERROR) and frame.channel:
            raise ProtocolError("a channel where 0 belongs")

    def _take_ack(self, ack):
        if self.first_ack is None:
            self.first_ack = ack
            return
        for first, count, status in ack.get(0, []):
            for sequence in range(first, first + count):
                if sequence in self.runs:
                    raise ProtocolError("acknowledged twice")
                self.runs[sequence] = status
        if (1 in ack) != (2 in ack):
            raise ProtocolError("a result without its request")
        if 1 in ack:
            if ack[1] in self.results:
                raise ProtocolError("answered twice")
            self.results[ack[1]] = ack[2]
        if 3 in ack:
            self.store_read = True

    # --- Waiting ---

    def wait(self, ready, timeout=TIMEOUT):
        """Waits until `ready()` is true; raises what ended the connection."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while not (value := ready()):
                if self.closed is not None:
                    raise self.closed
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self.changed.wait(left)
            return value

    def wait_closed(self, timeout=TIMEOUT):
        """Waits for the end of the connection; returns the fatal ERROR, or None."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while self.closed is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self.changed.wait(left)
        if not isinstance(self.closed, Disconnected):
            raise self.closed
        return self.fatal

    def status_of(self, sequence, timeout=TIMEOUT):
        """The custody status of a MSG, or its ERROR as an exception."""
        self.wait(lambda: sequence in self.runs or sequence in self.errors, timeout)
        if sequence in self.errors:
            raise self.errors[sequence]
        return self.runs[sequence]

    def next(self, timeout=TIMEOUT):
        """The next durable frame."""
        self.wait(lambda: self.inbox, timeout)
        return self.inbox.popleft()

    def quiet(self, seconds=0.5):
        """True if no durable frame comes for a while."""
        try:
            self.wait(lambda: self.inbox, seconds)
        except TimeoutError:
            return True
        return False

    # --- Writing ---

    def send(self, kind, payload, channel=0, sequence=None):
        """Seals one frame; returns its sequence number."""
        if sequence is None:
            sequence = 0
            if kind in NUMBERED_BY_CLIENT or kind >= 0x80:
                self.sequence += 1
                sequence = self.sequence
        self.raw(Frame(kind, channel, sequence, payload).encode())
        return sequence

    def raw(self, plaintext):
        self.carrier.write(self.sealer.seal(plaintext))

    def request(self, kind, body, channel=0, timeout=TIMEOUT):
        payload = body if isinstance(body, bytes) else cbor(body)
        return self.answer(self.send(kind, payload, channel), timeout)

    def answer(self, sequence, timeout=TIMEOUT):
        self.wait(lambda: sequence in self.results or sequence in self.errors, timeout)
        if sequence in self.errors:
            raise self.errors[sequence]
        return self.results[sequence]

    def ack(self, number=None, tags=None):
        body = {}
        if number is not None or tags is None:
            body[0] = self.last_received if number is None else number
        if tags is not None:
            body[1] = tags
        self.send(ACK, cbor(body))

    def close(self):
        self.carrier.close()
        with self.changed:
            self.closed = self.closed or Disconnected()
            self.changed.notify_all()

    # --- Requests of the protocol ---

    def own_reference(self, group_id, hub=None):
        return self.request(KEY_PACKAGE, {0: 5, 5: group_id, 6: hub or self.server.domain})

    def create_group(self, group_id=None, **extra):
        group_id = group_id or os.urandom(32)
        member = Member(group_id, self.server.domain, self.own_reference(group_id))
        body = {0: group_id, 1: [member.entry(self.server.domain, 1)]}
        body.update(extra.get("keys", {}))
        assert self.request(GROUP_CREATE, body) == {}
        return member

    def join(self, member, channel=1):
        body = {0: member.group_id, 1: member.hub, 2: member.handle, 3: member.reference}
        assert self.request(JOIN, body, channel) == {}

    def leave(self, group_id, for_good=False):
        assert self.request(LEAVE, {0: group_id, 1: True} if for_good else {0: group_id}) == {}

    def message(self, position, ciphertext, channel=1, message_id=None):
        """Sends a MSG; returns (sequence, message id)."""
        message_id = message_id or os.urandom(16)
        return self.send(
            MSG, message_payload(position, message_id, ciphertext), channel
        ), message_id

    def update(self, member, expect, seed=None, purpose="commit", **changes):
        """Sends a KEY_UPDATE and returns (sequence, bundle body)."""
        body = {
            0: member.group_id,
            1: expect,
            2: os.urandom(24),
            6: b"sealed group info",
            7: member.handle,
        }
        names = {
            "add": 3,
            "remove": 4,
            "welcomes": 5,
            "group_info": 6,
            "author": 7,
            "first_message": 8,
            "join_key": 9,
            "close": 10,
            "admins": 11,
            "commit": 2,
        }
        for name, value in changes.items():
            body[names[name]] = value
        body = cbor(body)
        return self.resend_update(member, body, seed, purpose), body

    def resend_update(self, member, body, seed=None, purpose="commit", reference=None):
        signed = sign(seed or member.seed, purpose, body)
        return self.send(
            KEY_UPDATE, cbor({0: member.hub, 1: signed, 2: reference or member.reference})
        )

    def fetch(self, member, start=1, want=1):
        return self.request(
            FETCH,
            {
                0: member.group_id,
                1: member.hub,
                2: member.handle,
                3: member.reference,
                4: start,
                5: want,
            },
        )

    def publish(self, packages, last_resort=False, not_after=None):
        rows = [[not_after or now_ms() + 86_400_000, last_resort, package] for package in packages]
        return self.request(KEY_PACKAGE, {0: 1, 1: rows})

    def count(self):
        return self.request(KEY_PACKAGE, {0: 2})

    def claim(self, account, group_id, capability=None, claim_id=None, domain=None):
        body = {
            0: 3,
            2: account,
            3: domain or self.server.domain,
            5: group_id,
            6: self.server.domain,
            7: claim_id or os.urandom(16),
        }
        if capability is not None:
            body[4] = capability
        return self.request(KEY_PACKAGE, body)

    def capabilities(self, add=(), remove=()):
        body = {0: 4}
        if add:
            body[8] = [hash32(one) for one in add]
        if remove:
            body[9] = [hash32(one) for one in remove]
        return self.request(KEY_PACKAGE, body)

    def put_list(self, signed):
        return self.request(DIRECTORY, {0: 1, 1: signed})

    def get_list(self, account, capability=None):
        body = {0: 2, 2: account, 3: self.server.domain}
        if capability is not None:
            body[4] = capability
        return self.request(DIRECTORY, body)

    def presence(self, active):
        self.send(PRESENCE, cbor({0: 1 if active else 0}))


def split_message(frame):
    """(group id or None, position, message id, ciphertext) of a MSG from the server."""
    payload, group_id = frame.payload, None
    if frame.channel == 0:
        group_id, payload = payload[:32], payload[32:]
    position, at = read_varint(payload, 0)
    return group_id, position, payload[at : at + 16], payload[at + 16 :]


def entry_id(bundle_body):
    """The message id of the entry that a bundle makes (section 5.2)."""
    return hash32(bundle_body)[:16]
