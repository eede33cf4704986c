"""What media messages hold: aggregates taken apart, script data freed of what was meant for the server."""

from __future__ import annotations

from collections.abc import Iterator

from poller.sandbox.rtmp.amf import encode
from poller.sandbox.rtmp.messages import AMF3_DATA, AUDIO, DATA, VIDEO, Malformed, Message

MAX_PARTS = 1000
"""Messages in one aggregate."""

_HEADER, _TRAILER = 11, 4
_SET, _CLEAR = encode("@setDataFrame"), encode("@clearDataFrame")


def script(message: Message) -> bytes:
    """The body of a script tag; empty if there is none in that data message."""
    body = message.body
    if message.kind == AMF3_DATA:
        if body[:1] != b"\0":  # AMF3 itself, which FLV has no tag for; the rest is AMF0
            return b""
        body = body[1:]
    return b"" if body.startswith(_CLEAR) else body.removeprefix(_SET)


def parts(aggregate: Message) -> Iterator[Message]:
    """The messages of an aggregate, each with an FLV tag's header and trailer; the first is of the aggregate's moment.

    Raises Malformed: one cut short, or more than MAX_PARTS.
    """
    body, at, shift = aggregate.body, 0, 0
    for number in range(MAX_PARTS):
        if at >= len(body):
            return
        header = body[at : at + _HEADER]
        size = int.from_bytes(header[1:4], "big")
        start, at = at + _HEADER, at + _HEADER + size + _TRAILER
        if at > len(body):
            raise Malformed("an aggregate cut short")
        moment = int.from_bytes(header[7:8] + header[4:7], "big")
        if not number:
            shift = aggregate.timestamp - moment
        if header[0] in (AUDIO, VIDEO, DATA):
            content = body[start : start + size]
            yield Message(header[0], (moment + shift) % (1 << 32), aggregate.stream, content)
    raise Malformed(f"an aggregate of more than {MAX_PARTS} messages")
