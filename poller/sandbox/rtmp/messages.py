"""RTMP messages, and the one error for bytes that are none."""

from __future__ import annotations

from typing import NamedTuple

# Message types (Adobe's RTMP specification 1.0, sections 5.4 and 7.1).
CHUNK_SIZE, ABORT, ACKNOWLEDGEMENT, USER_CONTROL, WINDOW, BANDWIDTH = 1, 2, 3, 4, 5, 6
AUDIO, VIDEO, AMF3_DATA, AMF3_COMMAND, DATA, COMMAND, AGGREGATE = 8, 9, 15, 17, 18, 20, 22


class Malformed(ValueError):
    """The peer's bytes break the protocol or one of our limits; the text says which, and quotes none of them."""


class Message(NamedTuple):
    """One whole message. `timestamp` is absolute, in milliseconds, 0 to 2^32 - 1; `stream` is its message stream."""

    kind: int
    timestamp: int
    stream: int
    body: bytes
