"""Looks in an account's bucket after a poll that may have lost its messages.

Invariants
    A pending look survives the end of the process: it is noted in the spool, as the memory of a source of its own,
    before anything else is done about it. It is forgotten only after a look that came to its end. One look of an
    account runs at a time. It is repeated while the bucket cannot be listed. A process that ended without `stop` may
    have lost the answers of its last polls: the next process looks for them.
    Daemons that share a spool have a note each. When a session has ended, one of the others takes over its note.

Life cycle
    `run` reads the note of the last process, and works until `stop`. A loss may be reported at any time before.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from poller.core.errors import PollerError, StorageError, StorageFull
from poller.core.model import ParsedPage, PollOutcome
from poller.core.selection import ALL_EVENTS
from poller.core.spool import Shared, SpoolAdmin
from poller.operations.backfill import SETTLED, Backfill, period_around, source_name, to_the_end
from poller.operations.duties import backfill_duty, on_duty
from poller.operations.log_steps import steps
from poller.runtime.clock import Clock

log = structlog.get_logger("backfill")

PENDING: Final = "pending"
"""The subject of the note in the spool (`ParsedPage.about`). With a shared spool, the number of the session follows."""
MOST_PENDING: Final = 100
FIRST_RETRY: Final = 5.0
LAST_RETRY: Final = 600.0
SAVE_AGAIN: Final = 5.0
ALIVE_EVERY: Final = 60.0
"""Seconds between two notes of a daemon that shares its spool: after a crash they say since when it may have lost."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored: when polls may have lost messages (epochs), and whether a process is at work.

    `alive_at` is when the note was written (an epoch), with a shared spool; else 0.
    """

    pending: tuple[float, ...] = ()
    running: bool = True
    alive_at: float = 0.0


_note = msgspec.json.Decoder(Note)


def with_loss(pending: Sequence[float], at: float) -> tuple[float, ...]:
    """The moments with one more. A look covers all from the first to the last, so some between may be left out."""
    found = (*pending, at)
    return found if len(found) <= MOST_PENDING else (found[0], *found[1:-1:2], found[-1])


def retry_in(failures: int, jitter: float) -> float:
    """Seconds until a look that failed is repeated; `jitter` is from 0 to 1."""
    return min(FIRST_RETRY * 2.0 ** min(failures - 1, 16), LAST_RETRY) * (0.75 + jitter / 2)


class AutomaticBackfill:
    """The looks of one account. After `stop`, `run` ends once the pending ones are noted."""

    def __init__(
        self, backfill: Backfill, spool: SpoolAdmin, clock: Clock, *, settled: float = SETTLED
    ) -> None:
        self._backfill = backfill
        self._spool = spool
        self._clock = clock
        self._settled = settled
        self._source = source_name(backfill.account)
        self._shared = spool if isinstance(spool, Shared) else None
        self._subject = PENDING if self._shared is None else _subject_of(self._shared.member)
        self._pending: tuple[float, ...] = ()
        self._noted: Note | None = Note(running=False)
        self._taken_over: set[str] = set()
        """The subjects of notes whose losses are in our own note, or will be with the next commit."""
        self._others_changed = self._shared is not None
        self._changed = asyncio.Event()
        self._reported = asyncio.Event()
        self._stopping = False

    def report_loss(self) -> None:
        """Look for the messages that a poll may have lost just now."""
        self._pending = with_loss(self._pending, self._clock.now().timestamp())
        self._changed.set()
        self._reported.set()

    def members_changed(self) -> None:
        """Take over what daemons noted whose sessions have ended."""
        self._others_changed = True
        self._reported.set()

    def stop(self) -> None:
        """Note what is pending, and end."""
        self._stopping = True
        self._changed.set()

    async def run(self) -> None:
        """Note losses and look for them, until `stop`."""
        if self._shared is None and not await self._recall_until_told():
            return
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look_forever())
            await self._note_forever()
            looking.cancel()
        await self._note()  # a look may have ended in the meantime

    async def _recall_until_told(self) -> bool:
        """Recall what an earlier process noted, once the spool answers. False if `stop` comes first."""
        while not self._stopping:
            try:
                await self._recall()
            except StorageFull:  # it does not answer now, which others report
                await asyncio.sleep(SAVE_AGAIN)
            else:
                return True
        return False

    async def _recall(self) -> None:
        """Take over the notes of processes that have ended."""
        notes = await self._spool.memory(self._source)
        for subject in sorted(notes.keys() - await self._subjects_of_others()):
            await self._take_over(subject, notes[subject])
        self._changed.set()

    async def _subjects_of_others(self) -> set[str]:
        """The subjects of the notes of live daemons; of this one too, if it has written one."""
        return (
            set()
            if self._shared is None
            else {_subject_of(one.number) for one in await self._shared.members()}
        )

    async def _take_over(self, subject: str, stored: bytes) -> None:
        with suppress(
            msgspec.DecodeError
        ):  # of another version: what it stood for can be looked for by command
            note = _note.decode(stored)
            crashed = await self._around_the_crash(note) if note.running else ()
            self._pending = tuple(sorted((*note.pending, *crashed, *self._pending)))
        self._noted = None
        self._taken_over |= {subject} - {self._subject}

    async def _around_the_crash(self, note: Note) -> tuple[float, ...]:
        """The time from the last sign of life of an ended process until now: its note, or the last event in the log."""
        now = self._clock.now().timestamp()
        if note.alive_at:
            return (min(note.alive_at, now), now)
        async for newest in steps(self._spool, ALL_EVENTS, newest_first=True):
            if newest:
                return (min(newest[0][1].received_at.timestamp(), now), now)
        return (now, now)

    # ------------------------------------------------------------ the note

    async def _note_forever(self) -> None:
        while not self._stopping:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if self._shared is None else ALIVE_EVERY):
                    await self._changed.wait()
            self._changed.clear()
            if not await self._note():
                asyncio.get_running_loop().call_later(SAVE_AGAIN, self._changed.set)

    async def _note(self) -> bool:
        """Note what is pending as durably as the spool makes it; false if the spool takes nothing."""
        note = self._new_note()
        if note == self._noted:
            return True
        taken_over = frozenset(self._taken_over)
        memory = msgspec.json.encode(note) if note.pending or note.running else b""
        pages = [_page(self._subject, memory), *(_page(subject, b"") for subject in sorted(taken_over))]
        try:
            await to_the_end(self._spool.append(self._source, pages))
        except StorageError:
            return False  # the intakes report it; a pause of polling is a pause of losses
        self._noted = note
        self._taken_over -= taken_over
        return True

    def _new_note(self) -> Note:
        alive = self._shared is not None and not self._stopping
        return Note(
            pending=self._pending,
            running=not self._stopping,
            alive_at=self._clock.now().timestamp() if alive else 0.0,
        )

    # ------------------------------------------------------------ looking

    async def _look_forever(self) -> None:
        failures = 0
        while True:
            await self._until_due()
            try:
                async with on_duty(self._spool, backfill_duty(self._backfill.account)):
                    await self._recall_others()
                    await self.step()
                failures = 0
            except Exception as error:  # a bug must not stop the daemon
                failures += 1
                seconds = retry_in(failures, random.random())
                self._report_failure(error, seconds)
                await asyncio.sleep(seconds)

    def _report_failure(self, error: Exception, seconds: float) -> None:
        known = isinstance(error, PollerError | OSError)
        log.warning(
            "backfill_failed",
            account=self._backfill.account,
            reason=str(error) if known else type(error).__name__,
            retry_in=round(seconds, 1),
            exc_info=None if known else error,
        )

    async def _recall_others(self) -> None:
        """Take over the notes of ended sessions, which is durable on return, unless the spool takes nothing."""
        if self._others_changed:
            self._others_changed = False
            try:
                await self._recall()
            except StorageError:
                self._others_changed = True
                raise
            await self._note()

    async def _until_due(self) -> None:
        """Wait until a look is due, or a note is to be taken over."""
        while not self._others_changed:
            left = self._settled - self._clock.age(_moment(self._pending[0])) if self._pending else None
            if left is not None and left <= 0:
                return
            self._reported.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if left is None else min(left, self._settled)):
                    await self._reported.wait()

    async def step(self) -> None:
        """Look for all losses that are old enough, and forget them; raises `PollerError`."""
        due = [at for at in self._pending if self._clock.age(_moment(at)) >= self._settled]
        if not due:
            return
        period = await period_around(
            self._spool, self._backfill.account, _moment(min(due)), _moment(max(due))
        )
        async for _ in self._backfill.look(period):
            pass
        self._pending = tuple(at for at in self._pending if at not in set(due))
        self._changed.set()


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _subject_of(member: int) -> str:
    """The subject of the note of a session."""
    return f"{PENDING} {member}"


def _page(about: str, memory: bytes) -> ParsedPage:
    return ParsedPage(events=(), rejects=(), outcome=PollOutcome.EMPTY, memory=memory, about=about)
