"""The port for moving the whole content of a spool to another spool (`poller spool move`).

A move copies all rows while it holds both spools. Only one of them is in force, which means that a daemon may enter it:

- While the new spool is filled, it has the record of the move, and is not in force. The old spool is.
- Once the new spool has everything, the old spool gets the record of the move. Neither is in force for this moment.
- Then the record in the new spool is replaced, and the new spool is in force.

Each step is one transaction, so a move that is cut off anywhere is continued by the same command.
"""

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol, runtime_checkable

import msgspec

from poller.core.errors import StorageError

Row = tuple[object, ...]


class Table(StrEnum):
    """The parts of a spool's content. `COLUMNS` has the columns of a row, in this order of the tables."""

    PAGE = "page"
    SEEN = "seen"
    PROVISIONAL = "provisional"
    SINK = "sink"
    AHEAD = "ahead"
    WAITING = "waiting"
    DEAD = "dead"
    QUARANTINE = "quarantine"
    SOURCE = "source"
    STREAM = "stream"
    DELIVERED = "delivered"
    REDELIVERED = "redelivered"
    GAP = "gap"
    REPLAY = "replay"
    REPLAY_WITHOUT = "replay_without"
    TALLY = "tally"


COLUMNS: Final = {
    Table.PAGE: "first, last, received_at, received_to, source, about, asked_at, outcome, kinds, oldest, newest, crc,"
    " events",
    Table.SEEN: "at, keys",
    Table.PROVISIONAL: "key, number",
    Table.SINK: "name, position, paused, since",
    Table.AHEAD: "sink, number",
    Table.WAITING: "sink, id, failed, first_attempt_at, due, history, numbers, events",
    Table.DEAD: "n, sink, event_id, attempts, first_attempt_at, died_at, reason, history, event, stream_id",
    Table.QUARANTINE: "n, id, source, received_at, reason, encoding, body",
    Table.SOURCE: "name, about, memory, changed_at",
    Table.STREAM: "account, stream_id, known",
    Table.DELIVERED: "sink, at, first, last, holes, attempt, took_ms, history",
    Table.REDELIVERED: "event_id, sink, at, attempt, took_ms, history",
    Table.GAP: "id, account, stream_id, from_at, to_at, missing, why, filled, cadence, push_started_at,"
    " task_started_at, first_missing_offset",
    Table.REPLAY: "n, sink, chosen, at, until, asked_at, total, queued, state",
    Table.REPLAY_WITHOUT: "n, ids",
    Table.TALLY: "owner, book, count, at",
}
"""Times are seconds since 1970 as float, text is `str`, and blobs are as the tables of the engines hold them.

seen:  the keys of ids that were remembered at the same time, as big-endian signed 64-bit numbers in one blob. The rows
       are in order of arrival
sink:  `position` is the first number that the sink has not settled; `since` is the number from which on it is served
       in order, None for a sink without ordering; `paused` is a bool
ahead: a number at or above the position of the sink that the sink has settled, or has as a dead letter. A number that
       waits for a retry may be there too
"""


class Numbers(msgspec.Struct, frozen=True, kw_only=True):
    """What a spool counts.

    factor:     the secret that makes the keys of ids
    head:       the number that the next event gets
    catalogue:  the first event number that the table `stream` does not cover
    dead:       the highest number that a dead letter ever had, 0 if there was none
    quarantine: the same for a reject
    """

    factor: bytes
    head: int
    catalogue: int
    dead: int
    quarantine: int


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a move.

    id:     random
    spool:  the identity of the content that is moved (`Standing.spool`)
    origin: where it comes from, for people, without a password
    to:     where it goes
    at:     when the move began
    """

    id: str
    spool: str
    origin: str
    to: str
    at: datetime


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a spool is in force, and why not.

    spool:   the identity of its content; empty for a spool that was never used
    empty:   whether it has no content but the names of sinks
    moved:   the move by which the content went away
    moving:  the move that fills the spool, and has not ended
    arrived: the move that has filled the spool
    """

    spool: str
    empty: bool
    moved: Move | None = None
    moving: Move | None = None
    arrived: Move | None = None

    @property
    def refusal(self) -> str | None:
        """Why no daemon may enter the spool; None if it is in force."""
        if self.moved is not None:
            return f"this spool was moved to {self.moved.to} on {_day(self.moved.at)}: use that one"
        if self.moving is not None:
            return (
                f"the move from {self.moving.origin}, begun on {_day(self.moving.at)}, has not ended: repeat"
                " `poller spool move`"
            )
        return None


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d at %H:%M} UTC"


class SpoolMoved(StorageError):
    """The spool is not in force: it was moved, or a move that fills it has not ended."""


class HeldSpool(Protocol):
    """A spool that this process holds for a move. All methods raise `StorageError`.

    Each method that writes is one transaction. What it wrote is as durable on return as the engine makes it.
    """

    @abstractmethod
    async def standing(self) -> Standing:
        """Whether the spool is in force."""
        ...

    @abstractmethod
    async def numbers(self) -> Numbers:
        """What the spool counts."""
        ...

    @abstractmethod
    async def begin_reading(self) -> None:
        """Bring the content into the form that `portions` returns. What daemons get of it stays the same.

        Called before `portions`. Raises `Unreadable` for a page with a wrong checksum.
        """
        ...

    @abstractmethod
    def portions(self, table: Table) -> AsyncIterator[list[Row]]:
        """All rows of a table, in the order in which they are written, in portions of a few MiB at most.

        Raises `StorageError` for a page with a wrong checksum.
        """
        ...

    @abstractmethod
    async def begin(self, move: Move) -> None:
        """Delete the whole content, and note that this move fills the spool."""
        ...

    @abstractmethod
    async def write(self, table: Table, rows: Sequence[Row]) -> None:
        """Add rows to a table."""
        ...

    @abstractmethod
    async def write_numbers(self, numbers: Numbers, kept_as: int) -> None:
        """Count on from these numbers. Called when all rows are written.

        `kept_as` is the highest page number that the journal of the new spool calls committed.
        """
        ...

    @abstractmethod
    async def count(self, table: Table) -> int:
        """The number of rows of a table, as `portions` has them."""
        ...

    @abstractmethod
    async def give_up(self, move: Move) -> None:
        """Note that the content has moved: the spool is not in force any more."""
        ...

    @abstractmethod
    async def put_in_force(self, move: Move) -> None:
        """Note that the move that fills the spool has ended."""
        ...


@runtime_checkable
class CanBeMoved(Protocol):
    """A spool whose whole content can be moved to another one, and that can be filled by a move."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the content lies, for people, without a password. The same content has the same place."""
        ...

    @abstractmethod
    def why_not_in_force(self) -> str | None:
        """Why no daemon may enter the spool, as far as files of this machine say; None if they say nothing.

        Raises `StorageError` if there is no file yet, or if it cannot be read.
        """
        ...

    @abstractmethod
    def hold(self, *, create: bool) -> AbstractAsyncContextManager[HeldSpool]:
        """Hold the spool, without entering it, so that no daemon enters it.

        With `create`, a missing spool is made; otherwise a missing spool raises `StorageError`. Raises `StorageLocked`
        while a daemon has it.
        """
        ...
