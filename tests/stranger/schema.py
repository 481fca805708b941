"""Checks what the server sends against docs/ccp1.cddl, without the room for extensions."""

import functools
import pathlib

import pycddl

from wire import ACK, ERROR, GROUP_EVENT, GROUP_INVITE, KEY_UPDATE, ProtocolError

CDDL = pathlib.Path(__file__).resolve().parent.parent.parent / "docs" / "ccp1.cddl"

RULES = {
    ACK: "ack-down",
    ERROR: "problem",
    GROUP_EVENT: "group-event",
    GROUP_INVITE: "group-invite",
    KEY_UPDATE: "entry",
}


@functools.cache
def rule(name):
    """The schema whose root is `name`."""
    text = CDDL.read_text().replace("{extension}", "{}")
    closed = "\n".join(line for line in text.splitlines() if line.strip() != "extension")
    closed = closed.replace("extension = (* uint => any)\n", "")
    # The library takes an optional group for permission to put anything.
    closed = closed.replace("? (1 => sequence, 2 => result)", "? 1 => sequence, ? 2 => result")
    return pycddl.Schema(f"stranger-root = {name}\n{closed}")


def check(frame, is_first):
    """Raises if the payload of `frame` is not what the schema says."""
    if frame.kind not in RULES:
        return
    name = "first-ack" if is_first and frame.kind == ACK else RULES[frame.kind]
    try:
        rule(name).validate_cbor(frame.payload)
    except pycddl.ValidationError as error:
        raise ProtocolError(f"{name}: {frame.payload.hex()}: {error}") from error
