"""How rows of a database hold batches, dead letters and rejects, as every engine with a database keeps them."""

import functools
import hashlib
import sqlite3
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, ParamSpec, TypeVar

import msgspec
import structlog

from poller.core.errors import StorageError, Unreadable
from poller.core.model import (
    LARGEST_NUMBER,
    Attempt,
    DeadLetter,
    Event,
    Quarantined,
    Reject,
    parse_event,
)
from poller.spools.waiting import Waiting

log = structlog.get_logger("spool")


_history = msgspec.json.Decoder(tuple[Attempt, ...])


_numbers = msgspec.json.Decoder(
    tuple[Annotated[int, msgspec.Meta(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)], ...]
)


Row = tuple[object, ...]


Stored = ParamSpec("Stored")


Read = TypeVar("Read")


def reads_back(read: Callable[Stored, Read]) -> Callable[Stored, Read]:
    """Turn every exception of a reader of stored values into `Unreadable`.

    What we wrote can be read, so any exception means that the file was changed: bytes that are not UTF-8, endless
    nesting, a number out of range, a value of another type. SQLite's own errors pass through.
    """

    @functools.wraps(read)
    def reading(*stored: Stored.args, **named: Stored.kwargs) -> Read:
        try:
            return read(*stored, **named)
        except (sqlite3.Error, StorageError):
            raise
        except Exception as error:
            # the texts of other errors may quote the bytes
            said = f": {error}" if isinstance(error, msgspec.MsgspecError) else ""
            raise Unreadable(f"a stored value does not read back: {type(error).__name__}{said}") from error

    return reading


def blob_of(value: object) -> bytes:
    """The value of a BLOB column. SQLite does not enforce the type."""
    if not isinstance(value, bytes):
        raise Unreadable(f"a stored value is {type(value).__name__} where bytes belong")
    return value


def number_of(value: object) -> int:
    """A value of an INTEGER column."""
    if not isinstance(value, int):
        raise Unreadable(f"a stored value is {type(value).__name__} where a number belongs")
    return value


def readable_rows(what: str, read: Callable[[Row], Read], rows: Iterable[Row]) -> list[Read]:
    """The rows that can be read. The others stay in the file and are logged."""
    found: list[Read] = []
    for row in rows:
        try:
            found.append(read(row))
        except Unreadable as error:
            log.warning("stored_row_unreadable", row=what, reason=str(error))
    return found


def typed(row: Row, kind: object) -> Any:
    """A row with its types checked, which SQLite does not enforce; raises `ValidationError`."""
    return msgspec.convert(row, kind, builtin_types=(bytes,))


def epoch(at: datetime) -> float:
    """Seconds since 1970."""
    return at.timestamp()


@reads_back
def moment(seconds: float) -> datetime:
    """The aware UTC time of an epoch."""
    return datetime.fromtimestamp(seconds, UTC)


def lines(events: tuple[Event, ...] | list[Event]) -> bytes:
    """Events as they are stored: one line of public JSON each."""
    return b"\n".join([event.encoded for event in events])


@reads_back
def events_of(blob: object) -> list[Event]:
    """The events of `lines`."""
    return [parse_event(line) for line in blob_of(blob).split(b"\n")]


@reads_back
def event_of(line: bytes) -> Event:
    """One event of `lines`."""
    return parse_event(line)


def history_blob(history: tuple[Attempt, ...]) -> bytes:
    """Failed attempts; nothing where there were none."""
    return msgspec.json.encode(history) if history else b""


@reads_back
def history_of(blob: object) -> tuple[Attempt, ...]:
    """The attempts of `history_blob`."""
    return _history.decode(stored) if (stored := blob_of(blob)) else ()


def waiting_row(sink: str, waiting: Waiting) -> Row:
    """A row of `waiting`."""
    return (
        sink,
        waiting.id,
        waiting.failed,
        epoch(waiting.first_attempt_at),
        epoch(waiting.due),
        msgspec.json.encode(waiting.history),
        msgspec.json.encode([number for number, _ in waiting.members]),
        lines([event for _, event in waiting.members]),
    )


@reads_back
def numbers_of(blob: object) -> tuple[int, ...]:
    """The numbers of the events of a waiting batch."""
    return _numbers.decode(blob_of(blob))


WaitingRow = tuple[str, int, float, float, bytes, bytes, bytes]


@reads_back
def waiting_of(row: Row) -> Waiting:
    """A batch from its row, without the sink."""
    id, failed, first_attempt_at, due, history, numbers, events = typed(row, WaitingRow)
    return Waiting(
        id=id,
        members=tuple(zip(_numbers.decode(numbers), events_of(events), strict=True)),
        failed=failed,
        first_attempt_at=moment(first_attempt_at),
        due=moment(due),
        history=_history.decode(history),
    )


def dead_row(letter: DeadLetter) -> Row:
    """A row of `dead`, without its number."""
    return (
        letter.sink,
        letter.event.id,
        letter.attempts,
        epoch(letter.first_attempt_at),
        epoch(letter.died_at),
        letter.reason,
        msgspec.json.encode(letter.history),
        letter.event.encoded,
        letter.event.stream_id,
    )


DEAD_COLUMNS = "sink, attempts, first_attempt_at, died_at, reason, history, event, n"


DeadRow = tuple[str, int, float, float, str, bytes, bytes, int]


@reads_back
def dead_of(row: Row) -> DeadLetter:
    """A dead letter from its row (`DEAD_COLUMNS`)."""
    sink, attempts, first_attempt_at, died_at, reason, history, event, number = typed(row, DeadRow)
    return DeadLetter(
        event=parse_event(event),
        sink=sink,
        attempts=attempts,
        first_attempt_at=moment(first_attempt_at),
        died_at=moment(died_at),
        reason=reason,
        history=_history.decode(history),
        number=number,
    )


def reject_row(source: str, reject: Reject) -> Row:
    """A row of `quarantine`, without its number. It begins with an id that the same reject gets again."""
    id = hashlib.blake2b(msgspec.msgpack.encode((source, reject)), digest_size=16).digest()
    return (id, source, epoch(reject.received_at), reject.reason, reject.encoding, reject.body)


QUARANTINE_COLUMNS = "n, source, received_at, reason, encoding, body"


QuarantineRow = tuple[int, str, float, str, str, bytes]


@reads_back
def quarantined_of(row: Row) -> Quarantined:
    """A reject from its row."""
    number, source, received_at, reason, encoding, body = typed(row, QuarantineRow)
    reject = Reject(received_at=moment(received_at), reason=reason, encoding=encoding, body=body)
    return Quarantined(number=number, source=source, reject=reject)
