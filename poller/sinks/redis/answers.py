"""What the answers of a server mean: proofs that it keeps what it confirms, and refusals."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ExecAbortError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from poller.core.errors import SinkError, TryLater
from poller.core.model import Event
from poller.sinks.servers import LOGIN_REFUSED, LOST

IMPOSSIBLE: Final = "0-0"
"""An id that no entry can have. Adding an entry with it asks for every permission, and never writes."""
_CODE: Final = re.compile(r"[A-Z]{2,}\b")

Command = tuple[str | bytes | int, ...]
Answer = Any
"""What the server answers to a command; a `ResponseError` if it refuses."""


# ---------------------------------------------------------------- proofs


def not_waited(answer: Answer, replicas: int) -> str:
    """Why an answer to `WAITAOF` proves nothing; empty if it does. It also answers when it gives up: numbers count."""
    if isinstance(answer, ResponseError):
        if "appendonly" in str(answer):
            return "the server keeps no append-only file: set appendonly yes"
        if "replica instances" in str(answer):
            return _REFUSALS[ReadOnlyError]
        return f"no proof by WAITAOF: {refusal(answer).reason}"
    local, others = answer
    if local < 1:
        return "the server did not sync its append-only file in time"
    return "" if others >= replicas else f"{others} of {replicas} replicas have synced the events"


def not_always(answer: Answer) -> str:
    """Why the server's policy does not prove that it syncs before it answers; empty if it does."""
    advice = "use Valkey, or Redis 7.2 or later, or set appendonly yes and appendfsync always"
    if isinstance(answer, ResponseError):
        return f"the server has no WAITAOF, and this user may not ask by CONFIG GET for appendfsync: {advice}"
    policy = _pairs(answer)
    if policy.get("appendonly") != "yes" or policy.get("appendfsync") != "always":
        return f"the server confirms events before they are on its disk: {advice}"
    return ""


def never_synced(answer: Answer) -> str:
    """What is wrong with a policy never to sync; empty for every other policy."""
    if not isinstance(answer, ResponseError) and _pairs(answer).get("appendfsync") == "no":
        return "the server never syncs its append-only file: set appendfsync everysec, or always"
    return ""


def evicts(answer: Answer) -> str:
    """A server may drop whole streams when its memory is full, unless its policy keeps keys without an expiry."""
    if isinstance(answer, ResponseError):
        return ""
    memory = dict(line.split(":", 1) for line in answer.decode().split() if ":" in line)
    policy = memory.get("maxmemory_policy", "")
    if memory.get("maxmemory", "0") != "0" and policy.startswith("allkeys"):
        return f"the server drops streams when its memory is full: set maxmemory-policy noeviction instead of {policy}"
    return ""


def _pairs(answer: Sequence[bytes]) -> dict[str, str]:
    texts = [one.decode(errors="replace") for one in answer]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def unwritable(key: str, kind: Answer, added: Answer) -> str:
    """What hinders adding to a key, by its type and by the answer to an entry with an impossible id."""
    if kind not in (b"none", b"stream") and not isinstance(kind, ResponseError):
        return f"the key {key} holds no stream"
    if isinstance(added, ResponseError) and IMPOSSIBLE in str(added):
        return ""
    return f"cannot add to {key}: {refusal(added).reason}"


# ---------------------------------------------------------------- errors


def failures_of(events: Sequence[Event], answers: Sequence[Answer]) -> dict[str, SinkError]:
    """The errors of the events whose command is refused, by the event's id."""
    found = zip(events, answers, strict=True)
    return {event.id: refusal(answer) for event, answer in found if isinstance(answer, ResponseError)}


def refusal(answer: object) -> SinkError:
    """The error for a command that the server refuses. Its text may show arguments, and is not passed on."""
    if isinstance(answer, ExecAbortError):
        return TryLater(
            "the server's memory is full" if "OOM" in str(answer) else "the server discards the batch"
        )
    for kind, text in _REFUSALS.items():
        if isinstance(answer, kind):
            return TryLater(text)
    code = _CODE.match(str(answer))
    return TryLater(_CODES.get(code.group(), f"refused ({code.group()})") if code else "refused")


def translate(error: Exception) -> SinkError:
    """The error for one of the library. Its text may show arguments, and is not passed on."""
    if isinstance(error, ResponseError):
        return refusal(error)
    text = next((text for kind, text in _FAILURES.items() if isinstance(error, kind)), LOST)
    return TryLater(text)


_REFUSALS: Final[Mapping[type[Exception], str]] = {
    OutOfMemoryError: "the server's memory is full",
    ReadOnlyError: "the server is a read-only replica",
    NoPermissionError: "the user lacks a permission",
}
_CODES: Final = {
    "WRONGTYPE": "the key holds no stream",
    "MISCONF": "the server cannot write to its disk",
    "NOREPLICAS": "the server has too few replicas to take writes",
    "MOVED": "the key is on another node: Redis Cluster is not supported",
    "NOAUTH": "the server wants a password: set password_file",
}
_FAILURES: Final[Mapping[type[Exception], str]] = {
    BusyLoadingError: "the server is still loading its data",
    AuthenticationError: LOGIN_REFUSED,
    RedisTimeoutError: "no answer in time",
}
