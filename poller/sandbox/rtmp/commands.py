"""Commands: what a pusher calls, what it is answered, and what it wishes. Pure functions."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from poller.sandbox.rtmp.amf import Value, decode, encode
from poller.sandbox.rtmp.chunks import REPLY_SIZE, split_into_chunks
from poller.sandbox.rtmp.messages import (
    ACKNOWLEDGEMENT,
    BANDWIDTH,
    CHUNK_SIZE,
    COMMAND,
    USER_CONTROL,
    WINDOW,
    Malformed,
)
from poller.sandbox.rtmp.publish_handler import PublishRequest

WINDOW_SIZE = 2_000_000_000
"""Bytes between two acknowledgements, until the pusher asks for another number. So large that few are sent: TCP paces a
push, and an acknowledgement that meets a closed socket costs what its kernel has not sent yet."""

_CONTROL_CHANNEL, _CALL_CHANNEL, _STREAM_CHANNEL = 2, 3, 5
_DYNAMIC = 2


@dataclass(frozen=True, kw_only=True)
class Command:
    """A call: `transaction` is the caller's number for the answer, `subject` the object before the arguments."""

    name: str
    transaction: float
    subject: Mapping[str, Value]
    arguments: tuple[Value, ...]

    def text(self, place: int) -> str:
        """The argument at an index as text; empty if it is no text."""
        value = self.arguments[place] if place < len(self.arguments) else None
        return value if isinstance(value, str) else ""

    def number(self, place: int) -> int:
        """The argument at an index as a whole number; 0 if it is no number."""
        value = self.arguments[place] if place < len(self.arguments) else None
        return int(value) if isinstance(value, float) and abs(value) < 1 << 32 else 0


def parse_command(body: bytes) -> Command:
    """Parses a command. Raises Malformed."""
    match decode(body):
        case [str(name), float(transaction), *rest]:
            subject = rest[0] if rest and isinstance(rest[0], dict) else {}
            return Command(name=name, transaction=transaction, subject=subject, arguments=tuple(rest[1:]))
    raise Malformed("a command without a name or a transaction")


def connect_result(transaction: float) -> bytes:
    """The answer to `connect`; only what is shorter than FIRST_SIZE may be sent before it."""
    properties = {"fmsVer": "FMS/3,0,1,123", "capabilities": 31}
    about = _about("status", "NetConnection.Connect.Success", "Connection succeeded.")
    return (
        split_into_chunks(_CONTROL_CHANNEL, CHUNK_SIZE, 0, struct.pack(">I", REPLY_SIZE))
        + split_into_chunks(_CONTROL_CHANNEL, WINDOW, 0, struct.pack(">I", WINDOW_SIZE))
        + split_into_chunks(_CONTROL_CHANNEL, BANDWIDTH, 0, struct.pack(">IB", WINDOW_SIZE, _DYNAMIC))
        + _call("_result", transaction, properties, {**about, "objectEncoding": 0})
    )


def result(transaction: float, value: int | None = None) -> bytes:
    """The answer to a call that succeeded. Transaction 0 gets none."""
    return _call("_result", transaction, None, value) if transaction else b""


def error_result(transaction: float, description: str) -> bytes:
    """The answer to a call that failed."""
    about = _about("error", "NetConnection.Call.Failed", description)
    return _call("_error", transaction, None, about) if transaction else b""


def publish_start(stream: int) -> bytes:
    """The message that publishing on a message stream begins."""
    begin = split_into_chunks(_CONTROL_CHANNEL, USER_CONTROL, 0, struct.pack(">HI", 0, stream))
    return begin + status(stream, "status", "NetStream.Publish.Start", "Publishing.")


def status(stream: int, level: str, code: str, description: str) -> bytes:
    """News of a message stream; rtmp2sink takes it only with a full header on that stream, as all of ours have."""
    body = encode("onStatus", 0, None, _about(level, code, description))
    return split_into_chunks(_STREAM_CHANNEL, COMMAND, stream, body)


def acknowledgement(count: int) -> bytes:
    """The acknowledgement of received bytes. Their number counts modulo 2^32."""
    return split_into_chunks(_CONTROL_CHANNEL, ACKNOWLEDGEMENT, 0, struct.pack(">I", count & 0xFFFFFFFF))


def pong(body: bytes) -> bytes:
    """The answer to a user control message, if it is a ping request."""
    if body[:2] != b"\0\6":
        return b""
    return split_into_chunks(_CONTROL_CHANNEL, USER_CONTROL, 0, b"\0\7" + body[2:6])


def publish_request(
    subject: Mapping[str, Value], name: str, peer: str, quiet: Callable[[], float]
) -> PublishRequest:
    """The request of a pusher: the object of its `connect`, and the name in its `publish`.

    If the name has no query, a query after the application counts.
    """
    app, _, app_query = _text(subject, "app").partition("?")
    stream, _, query = name.partition("?")
    address = _text(subject, "tcUrl")
    return PublishRequest(
        host=_host(address),
        app=app.strip("/"),
        stream=unquote(stream),
        query=parameters(query or app_query or address.partition("?")[2]),
        peer=peer,
        quiet=quiet,
    )


def parameters(query: str) -> dict[str, str]:
    """A query's parameters, percent-decoded. The first of each name counts. A plus sign stays a plus sign."""
    found: dict[str, str] = {}
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name:
            found.setdefault(unquote(name), unquote(value))
    return found


def _call(name: str, transaction: float, *values: object) -> bytes:
    return split_into_chunks(_CALL_CHANNEL, COMMAND, 0, encode(name, transaction, *values))


def _about(level: str, code: str, description: str) -> dict[str, object]:
    return {"level": level, "code": code, "description": description}


def _text(subject: Mapping[str, Value], name: str) -> str:
    value = subject.get(name)
    return value if isinstance(value, str) else ""


def _host(address: str) -> str:
    """The host of a URL, in lower case and without brackets; empty if there is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
