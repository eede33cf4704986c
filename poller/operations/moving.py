"""Moving the whole content of a spool to another one. `core.moving` says which spool is in force meanwhile."""

import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

import msgspec

from poller.core.errors import StorageError, Unreadable
from poller.core.moving import CanBeMoved, HeldSpool, Move, Numbers, Row, Standing, Table
from poller.runtime.failpoints import reached

NOT_COUNTED = frozenset({Table.SEEN})
"""Tables whose rows an engine may divide otherwise."""


class CannotMove(StorageError):
    """The content of this spool cannot be moved, or not to the other spool."""


class Step(Enum):
    """What is left to do of a move."""

    EVERYTHING = auto()
    THE_END = auto()
    NOTHING = auto()


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What a move has done.

    move:  its record
    rows:  the rows of each table that were copied; empty if they were copied before
    events: the number of events in the log
    """

    move: Move
    rows: Mapping[Table, int]
    events: int


def next_step(old: Standing, new: Standing) -> Step:
    """What is left to do, by the standing of both spools; raises `CannotMove`."""
    if old.moving is not None:
        raise CannotMove(f"the old spool holds only a part: {old.refusal}")
    if old.moved is not None:
        return _step_of(old.moved, new)
    if not old.spool:
        raise CannotMove("the old spool is empty: no daemon has used it yet")
    if new.moving is not None and new.moving.spool != old.spool:
        raise CannotMove(f"the new spool holds a part of another spool: {new.refusal}")
    if not new.empty and new.moving is None and new.moved is None:
        raise CannotMove("the new spool is not empty")
    return Step.EVERYTHING


def _step_of(move: Move, new: Standing) -> Step:
    """What is left to do of a move that the old spool knows of."""
    if new.moving is not None and new.moving.id == move.id:
        return Step.THE_END
    if new.arrived is not None and new.arrived.id == move.id and new.moved is None:
        return Step.NOTHING
    raise CannotMove(f"the old spool is elsewhere: it was moved to {move.to}")


async def move_spool(
    source: CanBeMoved, target: CanBeMoved, kept_as: int, progress: Callable[[int], None]
) -> Moved:
    """Move the whole content of `source` to `target`, or finish a move that was cut off.

    `kept_as` is the highest page number that the journal of the target's daemon calls committed. `progress` is called
    with the number of rows that are copied.

    Raises `StorageError`. The source is then in force as before, or the move was cut off near its end. Repeating the
    call goes on in either case.
    """
    if source.place == target.place:
        raise CannotMove(f"both configurations name the same spool, {source.place}")
    async with AsyncExitStack() as stack:
        old = await _hold(stack, "the old spool", source.hold(create=False))
        new = await _hold(stack, "the new spool", target.hold(create=True))
        standing, other = await old.standing(), await new.standing()
        step = next_step(standing, other)
        move = standing.moved or _new_move(standing, source, target)
        copied = _Copied(progress)
        if step is Step.EVERYTHING:
            await _copy(old, new, move, kept_as, copied)
            await old.give_up(move)
            reached("move.given_up")
        if step is not Step.NOTHING:
            await new.put_in_force(move)
            reached("move.ended")
    return Moved(move=move, rows=copied.rows, events=copied.events)


async def _hold(
    stack: AsyncExitStack, which: str, spool: AbstractAsyncContextManager[HeldSpool]
) -> HeldSpool:
    """Hold a spool. Errors say which one it is."""
    try:
        return await stack.enter_async_context(spool)
    except StorageError as error:
        raise type(error)(f"{which}: {error}") from error


def _new_move(standing: Standing, source: CanBeMoved, target: CanBeMoved) -> Move:
    return Move(
        id=secrets.token_hex(16),
        spool=standing.spool,
        origin=source.place,
        to=target.place,
        at=datetime.now(UTC),
    )


class _Copied:
    """Counts what was copied."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        self.rows: dict[Table, int] = {}
        self.events = 0
        self._progress = progress

    def add(self, table: Table, rows: list[Row]) -> None:
        self.rows[table] = self.rows.get(table, 0) + len(rows)
        if table is Table.PAGE:
            self.events += sum(_events_of(row) for row in rows)
        self._progress(sum(self.rows.values()))


def _events_of(page: Any) -> int:
    first, last, *_ = page
    return int(last - first + 1)


async def _copy(old: HeldSpool, new: HeldSpool, move: Move, kept_as: int, copied: _Copied) -> None:
    """Fill the new spool. On return it has everything, and is not in force."""
    numbers = await old.numbers()
    await new.begin(move)
    reached("move.begun")
    try:
        await old.begin_reading()
        for table in Table:
            await _copy_table(old, new, table, copied)
    except Unreadable as error:
        raise CannotMove(f"the old spool is damaged: {error}") from error
    await new.write_numbers(numbers, kept_as)
    await _check(new, numbers, copied)
    reached("move.complete")


async def _copy_table(old: HeldSpool, new: HeldSpool, table: Table, copied: _Copied) -> None:
    async with aclosing(old.portions(table)) as portions:  # type: ignore[type-var]
        async for rows in portions:
            await new.write(table, rows)
            copied.add(table, rows)
            reached("move.written")


async def _check(new: HeldSpool, numbers: Numbers, copied: _Copied) -> None:
    """Raise `StorageError` unless the new spool has everything that was copied."""
    if await new.numbers() != numbers:
        raise StorageError("the numbers of the new spool differ from those of the old one")
    for table in Table:
        if table not in NOT_COUNTED and await new.count(table) != copied.rows.get(table, 0):
            raise StorageError(f"the new spool lacks rows of the table {table.value}")
