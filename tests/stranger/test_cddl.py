"""Our encoders' output against docs/ccp1.cddl.

The hex vectors of the crates commucat-proto and commucat-federation are what their encoders write
(their own tests compare both ways), so what is valid here is valid there.
"""

import pathlib

import cbor2
import pycddl
import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
CDDL = (ROOT / "docs" / "ccp1.cddl").read_text()
VECTORS = ROOT / "crates" / "proto" / "tests" / "vectors"
EVENTS = ROOT / "crates" / "federation" / "tests" / "vectors"

# Rule by file and beginning of a vector's name; the first that fits.
FRAME_RULES = [
    ("join", "", "join"),
    ("leave", "", "leave"),
    ("ack", "up", "ack-up"),
    ("ack", "first", "first-ack"),
    ("ack", "down", "ack-down"),
    ("presence", "", "presence"),
    ("key_update", "up", "key-update-up"),
    ("key_update", "down", "entry"),
    ("group_create", "", "group-create"),
    ("group_invite", "", "group-invite"),
    ("group_event", "", "group-event"),
    ("error", "down", "problem"),
    ("key_package", "up_publish", "publish"),
    ("key_package", "up_count", "count"),
    ("key_package", "up_claim", "claim"),
    ("key_package", "up_capabilities", "capabilities"),
    ("key_package", "up_own_reference", "own-reference"),
    ("directory", "up_put", "put"),
    ("directory", "up_get", "get"),
    ("fetch", "", "fetch"),
]
BARE_RULES = [
    ("statements", "identification", "identification"),
    ("statements", "device_certificate", "device-certificate"),
    ("statements", "device_list", "device-list"),
    ("statements", "server_keys", "server-keys"),
    ("statements", "bundle", "bundle"),
    ("statements", "join_read", "join-read"),
    ("results", "done", "done"),
    ("results", "key_update", "key-update-result"),
    ("results", "fetch", "fetch-result"),
    ("results", "count", "package-count"),
    ("results", "claim", "claim-result"),
    ("results", "own_reference", "sealed-ref"),
    ("results", "directory", "directory-result"),
]
EVENT_RULES = [("events", "", "event")]


def varint(raw, at):
    value = shift = 0
    while True:
        value |= (raw[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if raw[at - 1] < 0x80:
            return value, at


def payload(frame):
    _, at = varint(frame, 0)
    at += 1
    for _ in range(3):
        _, at = varint(frame, at)
    return frame[at:]


def rows(rules, cut, vectors=VECTORS):
    for file, begin, rule in rules:
        for line in (vectors / f"{file}.hex").read_text().splitlines():
            name, raw = line.split()
            if name.startswith(begin):
                yield pytest.param(rule, cut(bytes.fromhex(raw)), id=f"{file}-{name}-{rule}")


CASES = [
    *rows(FRAME_RULES, payload),
    *rows(BARE_RULES, lambda raw: raw),
    *rows(EVENT_RULES, lambda raw: raw, EVENTS),
]


def schema(rule):
    return pycddl.Schema(f"checked = {rule}\n{CDDL}")


@pytest.mark.parametrize("rule, raw", CASES)
def test_what_the_encoder_writes_conforms(rule, raw):
    schema(rule).validate_cbor(raw)


@pytest.mark.parametrize("rule, raw", CASES)
def test_what_the_encoder_writes_is_deterministic(rule, raw):
    assert cbor2.dumps(cbor2.loads(raw), canonical=True) == raw


def test_the_schema_is_not_satisfied_by_anything():
    join = cbor2.loads(payload(bytes.fromhex((VECTORS / "join.hex").read_text().split()[1])))

    for damaged in ({**join, 0: b"short"}, {**join, 2: "text"}, {0: join[0]}):
        with pytest.raises(pycddl.ValidationError):
            schema("join").validate_cbor(cbor2.dumps(damaged))
