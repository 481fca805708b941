"""Writes the hex vectors beside it, with cbor2 and by hand: nothing of our own encoder is used.

Each line of a vector file is `<name> <hex>`. Files hold whole frames; `statements.hex` holds bodies of
signed things and Noise payloads, `results.hex` the results of requests. The values are also in
`tests/it/samples.rs`; the tests there compare both ways.
"""

import json
import pathlib

import cbor2
from blake3 import blake3

HERE = pathlib.Path(__file__).parent
GROUP = bytes(range(32))
ALICE, BOB, CAROL = b"\xa1" * 32, b"\xb2" * 32, b"\xc3" * 32
REF, REF2 = b"\xd4" * 65, b"\xe5" * 65
MID = bytes(range(0xA0, 0xB0))
HUB, HOME = "chat.example.org", "other.example:8443"
TOKEN, CLAIM = bytes(range(0x10, 0x20)), bytes(range(0x20, 0x30))
ACCOUNT, DEVICE = "sc6655e5lutgjzxpgf6d7rg6yslv6ezi", "7ixucyscc33q4jpe6adtmcpsv4"
MS, MS2 = 1767225600000, 1798761600000
UP, DOWN, CLEAR = "up", "down", "clear"

TYPES = {
    "HELLO": 1, "AUTH": 2, "JOIN": 3, "LEAVE": 4, "MSG": 5, "ACK": 6, "TYPING": 7, "PRESENCE": 8,
    "KEY_UPDATE": 9, "GROUP_CREATE": 10, "GROUP_INVITE": 11, "GROUP_EVENT": 12, "ERROR": 13,
    "KEY_PACKAGE": 0x40, "DIRECTORY": 0x41, "FETCH": 0x42, "PADDING": 0x43,
}  # fmt: skip


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def frame(kind, channel, sequence, payload):
    if not isinstance(payload, bytes):
        payload = cbor2.dumps(payload, canonical=True)
    head = bytes([TYPES[kind]]) + varint(channel) + varint(sequence) + varint(len(payload))
    return varint(len(head) + len(payload)) + head + payload


def signed(body):
    return [body, b"\xf6" * 64]


def document(value):
    return json.dumps(value, separators=(",", ":")).encode()


ENTRY_ALICE, ENTRY_BOB = [ALICE, HUB, REF, 1], [BOB, HOME, REF2, 0]
ENTRY = {0: GROUP, 1: 300, 2: b"commit", 3: [ENTRY_BOB], 4: [CAROL], 7: ALICE, 9: b"", 11: [[BOB, 1]], 12: MID}
SMALL = {0: GROUP, 1: 301, 2: b"", 7: BOB, 12: MID}
URN = "urn:commucat:error:"


def event(keys):
    message = blake3(cbor2.dumps(keys, canonical=True)).digest()[:16]
    return {**keys, 11: message}


FRAMES = {
    "hello": [
        ("xk", frame("HELLO", 0, 1, document({
            "version": 2, "supported_versions": [2], "pattern": "XK", "key": "a4e09292b651c278",
            "handshake": "00ff10",
        }))),
        ("ik", frame("HELLO", 0, 1, document({
            "version": 2, "supported_versions": [2, 3], "pattern": "IK", "key": "a4e09292b651c278",
            "handshake": "",
        }))),
    ],
    "auth": [
        ("down", frame("AUTH", 0, 1, document({
            "protocol_version": 2, "supported_versions": [2], "handshake": "00ff10",
        }))),
        ("up", frame("AUTH", 0, 2, document({"handshake": "00ff10"}))),
    ],
    "join": [("up", frame("JOIN", 4096, 1, {0: GROUP, 1: HUB, 2: ALICE, 3: REF}))],
    "leave": [
        ("up_unbind", frame("LEAVE", 0, 1, {0: GROUP})),
        ("up_for_good", frame("LEAVE", 0, 1, {0: GROUP, 1: True})),
    ],
    "msg": [
        ("up", frame("MSG", 1, 1, varint(300) + MID + b"opaque")),
        ("up_empty", frame("MSG", 1, 1, varint(0) + MID)),
        ("down_bound", frame("MSG", 7, 1, varint(300) + MID + b"opaque")),
        ("down_unbound", frame("MSG", 0, 1, GROUP + varint(300) + MID + b"opaque")),
    ],
    "ack": [
        ("up_through", frame("ACK", 0, 0, {0: 70000})),
        ("up_tags", frame("ACK", 0, 0, {0: 1, 1: [[GROUP, 300, MID], [GROUP, 301, b""]]})),
        ("up_empty", frame("ACK", 0, 0, {})),
        ("down_custody", frame("ACK", 0, 0, {0: [[1, 23, 3], [24, 1, 1], [300, 2, 4], [400, 1, 2]]})),
        ("down_done", frame("ACK", 0, 0, {1: 7, 2: {}})),
        ("down_all", frame("ACK", 0, 0, {0: [[1, 1, 1]], 1: 300, 2: REF, 3: True})),
        ("down_queue_empty", frame("ACK", 0, 0, {3: True})),
        ("first", frame("ACK", 0, 0, {
            4: "ok", 5: 12, 6: [], 8: signed(b"keys"), 9: [2], 10: MS,
            11: {0: 262144, 1: 20000, 2: 67108864, 3: 30, 4: 2592000, 5: 256, 6: 1024, 7: 4194304},
        })),
    ],
    "typing": [
        ("up", frame("TYPING", 3, 0, b"opaque")),
        ("down", frame("TYPING", 3, 0, b"")),
    ],
    "presence": [
        ("up_idle", frame("PRESENCE", 0, 0, {0: 0})),
        ("up_active", frame("PRESENCE", 0, 0, {0: 1})),
    ],
    "key_update": [
        ("up", frame("KEY_UPDATE", 0, 1, {0: HUB, 1: signed(b"bundle"), 2: REF})),
        ("down", frame("KEY_UPDATE", 0, 1, ENTRY)),
        ("down_small", frame("KEY_UPDATE", 0, 1, SMALL)),
        ("down_close", frame("KEY_UPDATE", 0, 1, {**SMALL, 9: CAROL, 10: True})),
    ],
    "group_create": [
        ("up", frame("GROUP_CREATE", 0, 1, {0: GROUP, 1: [ENTRY_ALICE]})),
        ("up_full", frame("GROUP_CREATE", 0, 1, {0: GROUP, 1: [ENTRY_ALICE], 2: b"info", 3: CAROL})),
    ],
    "group_invite": [
        ("down", frame("GROUP_INVITE", 0, 1, {
            0: GROUP, 1: HUB, 2: 300, 3: BOB, 4: REF2, 5: b"welcome", 11: MID,
        })),
    ],
    "group_event": [
        ("down_undelivered", frame("GROUP_EVENT", 0, 1, event({0: GROUP, 1: 1, 3: [BOB], 4: MID, 5: 1, 6: b"\xd1" * 16}))),
        ("down_nobody", frame("GROUP_EVENT", 0, 1, event({0: GROUP, 1: 1, 4: MID, 5: 5, 6: b"\xd2" * 16}))),
        ("down_gone", frame("GROUP_EVENT", 0, 1, event({0: GROUP, 1: 2, 3: [BOB, CAROL]}))),
        ("down_fork", frame("GROUP_EVENT", 0, 1, event({0: GROUP, 1: 3, 2: 300}))),
        ("down_closed", frame("GROUP_EVENT", 0, 1, event({0: GROUP, 1: 4}))),
        ("down_gap", frame("GROUP_EVENT", 0, 1, {1: 5, 11: MID})),
        ("down_later_kind", frame("GROUP_EVENT", 0, 1, {1: 77, 5: 99, 11: MID})),
    ],
    "error": [
        ("clear", frame("ERROR", 0, 0, document({
            "type": URN + "protocol-version-mismatch", "title": "Protocol Version Mismatch",
            "status": 426, "detail": "version 2 only", "versions": [2],
        }))),
        ("clear_plain", frame("ERROR", 0, 0, document({
            "type": URN + "handshake-rejected", "title": "Handshake Rejected", "status": 401,
            "detail": "",
        }))),
        ("down_fatal", frame("ERROR", 0, 0, {
            0: URN + "replaced", 1: "Replaced", 2: 409, 3: "the device connected again",
        })),
        ("down_wait", frame("ERROR", 0, 0, {
            0: URN + "rate-limited", 1: "Rate Limited", 2: 429, 3: "too fast", 4: {0: 30}, 5: 9,
        })),
        ("down_conflict", frame("ERROR", 0, 0, {
            0: URN + "conflict", 1: "Conflict", 2: 409, 3: "position taken",
            4: {1: 302, 2: [[300, ENTRY], [301, SMALL]], 3: True}, 5: 70000,
        })),
    ],
    "key_package": [
        ("up_publish", frame("KEY_PACKAGE", 0, 1, {0: 1, 1: [[MS, False, b"one"], [MS2, True, b"two"]]})),
        ("up_count", frame("KEY_PACKAGE", 0, 1, {0: 2})),
        ("up_claim", frame("KEY_PACKAGE", 0, 1, {
            0: 3, 2: ACCOUNT, 3: HOME, 4: TOKEN, 5: GROUP, 6: HUB, 7: CLAIM,
        })),
        ("up_claim_own", frame("KEY_PACKAGE", 0, 1, {0: 3, 2: ACCOUNT, 3: HUB, 5: GROUP, 6: HUB, 7: CLAIM})),
        ("up_capabilities", frame("KEY_PACKAGE", 0, 1, {0: 4, 8: [ALICE, BOB], 9: [CAROL]})),
        ("up_own_reference", frame("KEY_PACKAGE", 0, 1, {0: 5, 5: GROUP, 6: HUB})),
    ],
    "directory": [
        ("up_put", frame("DIRECTORY", 0, 1, {0: 1, 1: signed(b"list")})),
        ("up_get", frame("DIRECTORY", 0, 1, {0: 2, 2: ACCOUNT, 3: HOME, 4: TOKEN})),
    ],
    "fetch": [
        ("up_member", frame("FETCH", 0, 1, {0: GROUP, 1: HUB, 2: ALICE, 3: REF, 4: 300, 5: 5})),
        ("up_joiner", frame("FETCH", 0, 1, {0: GROUP, 1: HUB, 4: 0, 5: 2, 6: signed(b"read")})),
    ],
    "padding": [
        ("both_empty", frame("PADDING", 0, 0, b"")),
        ("both_filled", frame("PADDING", 0, 0, b"\0" * 5)),
    ],
}

STATEMENTS = [
    ("identification", {0: DEVICE, 2: [], 3: [2]}),
    ("identification_new_account", {0: DEVICE, 1: {0: TOKEN, 1: signed(b"list")}, 2: [], 3: [2]}),
    ("identification_new_device", {0: DEVICE, 1: {1: signed(b"list")}, 2: [1], 3: [2, 3]}),
    ("device_certificate", {0: ALICE, 1: DEVICE, 2: BOB, 3: CAROL, 4: MS, 5: MS2}),
    ("device_list", {0: ALICE, 1: HUB, 2: 7, 3: MS, 4: [signed(b"one"), signed(b"two")]}),
    ("device_list_empty", {0: ALICE, 1: HUB, 2: 8, 3: MS, 4: []}),
    ("server_keys", {0: HUB, 1: ALICE, 2: 3, 3: [[BOB, MS, MS2]], 5: MS}),
    ("server_keys_next", {0: HUB, 1: ALICE, 2: 4, 3: [], 4: CAROL, 5: MS}),
    ("bundle", {0: GROUP, 1: 299, 2: b"commit", 6: b"info", 7: ALICE}),
    ("bundle_full", {
        0: GROUP, 1: 299, 2: b"commit", 3: [ENTRY_BOB], 4: [CAROL], 5: [[[BOB], b"welcome"]],
        6: b"info", 7: ALICE, 8: varint(300) + MID + b"hi", 9: CAROL, 10: True, 11: [[BOB, 1], [ALICE, 0]],
    }),
    ("join_read", {0: GROUP, 1: HUB, 2: MS}),
]

RESULTS = [
    ("done", {}),
    ("key_update", {0: 300}),
    ("key_update_refused", {0: 300, 1: [BOB]}),
    ("fetch", {0: 301, 2: 300, 3: [ENTRY, SMALL]}),
    ("fetch_all", {0: 301, 2: 302, 3: [], 4: [[301, b"info"], [300, b"older"]], 5: [ENTRY_ALICE, ENTRY_BOB]}),
    ("count", {0: 99, 1: 1}),
    ("claim", [[DEVICE, b"one", REF, False], ["alice-phone", b"two", REF2, True]]),
    ("own_reference", REF),
    ("directory", {0: signed(b"list")}),
    ("directory_proof", {0: signed(b"list"), 1: b"proof"}),
]


def write(name, rows):
    (HERE / f"{name}.hex").write_text("".join(f"{row} {raw.hex()}\n" for row, raw in rows))


for name, rows in FRAMES.items():
    write(name, rows)
write("statements", [(name, cbor2.dumps(value, canonical=True)) for name, value in STATEMENTS])
write("results", [(name, cbor2.dumps(value, canonical=True)) for name, value in RESULTS])
