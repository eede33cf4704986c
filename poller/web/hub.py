"""The present state of all streams, and each change of it, for every page that is open.

The hub rests while no page is open. Otherwise it compares the catalogue with its last look at most
every 250 ms, and only after events were stored; at drain speed, less often. It encodes one message for all viewers. A
viewer holds no queue: it has a place in the ring of messages, and a write that waits. A viewer that the ring has
overtaken begins anew.

Life cycle
    Entering starts the task that looks. Leaving ends that task, and with it `messages` of every viewer.
"""

import asyncio
import gzip
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from types import TracebackType
from typing import Final, Self

import msgspec

from poller.core.spool import Shared
from poller.operations.health import away_of
from poller.operations.operator_context import OperatorContext
from poller.runtime.ages import JUMP
from poller.runtime.clock import Clock
from poller.web.ring import Place, Ring
from poller.web.streams import Changes, Roster, change_row, full_row, named, seconds

PACE: Final = 0.25
"""The least seconds between two looks at the catalogue, and between two encodings of the whole state."""
BUSY: Final = 1_000
"""Changes of one look above which the next look is later. At drain speed most streams change in each look."""
LONGEST_PACE: Final = 1.0
FORGOTTEN: Final = 15.0
"""Seconds without an event after which the hub looks all the same: a stream may have been forgotten."""
OUTAGE_SEEN: Final = 2.0
"""The same for a spool whose database may go away, which is no event."""
KEPT: Final = 60.0
KEPT_BYTES: Final = 8 * 1024 * 1024
QUIET: Final = 15.0
"""Seconds without a message after which viewers get a sign of life."""
ROWS: Final = 500
"""Rows that are encoded at once, in about a millisecond."""


class Snapshot(msgspec.Struct, kw_only=True):
    """The whole state as JSON, and compressed once somebody has asked for that."""

    plain: bytes
    gzipped: bytes = b""


class Hub:
    """Finds what changed, and keeps it for all viewers."""

    def __init__(self, context: Callable[[], OperatorContext]) -> None:
        self.ring = Ring(secrets.token_hex(4), seconds=KEPT, most_bytes=KEPT_BYTES)
        self.looks = 0
        """How often the catalogue was compared."""
        self.viewers = 0
        self._context = context
        self._roster = Roster()
        self._ahead: float | None = None
        self._last_look: float | None = None
        self._away: float | None = None
        self._watched = asyncio.Event()
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._encoding = asyncio.Lock()
        self._snapshot: tuple[float, Snapshot] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        self._looking = asyncio.create_task(self._look_while_watched())
        self._looking.add_done_callback(lambda looking: self._tell())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._closed = True  # viewers end when the looks have
        assert self._looking is not None
        self._looking.cancel()
        await asyncio.wait({self._looking})

    # ------------------------------------------------------------ viewers

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count a viewer."""
        self.viewers += 1
        self._watched.set()
        try:
            yield
        finally:
            self.viewers -= 1
            if not self.viewers:
                self._watched.clear()

    async def messages(self, place: Place | None) -> AsyncGenerator[bytes, None]:
        """The messages behind a place, in turn; without a place, those from now on. Ends when the hub is left.

        After `QUIET` seconds without one comes the time.
        """
        place = place or self.ring.place
        while not self._closed:
            self._check_looking()
            news, message = self._news, self.ring.next(place)
            if message is None:
                place = self.ring.place
                yield self.ring.reset()
            elif message:
                place = Place(place.epoch, place.seq + 1)
                yield message
            elif not await _came(news, QUIET):
                yield b'event: time\ndata: {"now":%s}\n\n' % msgspec.json.encode(self._now())

    def _check_looking(self) -> None:
        """Raise the error that ended the looks: a viewer must not believe that nothing changes."""
        if self._looking is not None and self._looking.done():
            self._looking.result()

    def publish(self, name: str, content: object) -> None:
        """Send an event to all viewers, such as a job's progress. A viewer who returns within a minute gets it, too."""
        self._push(name, msgspec.json.encode(content))

    # ------------------------------------------------------------ the state

    async def snapshot(self) -> Snapshot:
        """The state of all streams. Requests within 250 ms share one encoding."""
        async with self._encoding:
            now = self._clock.monotonic()
            if self._snapshot is None or now - self._snapshot[0] >= PACE:
                self._snapshot = now, await self._encode()
            return self._snapshot[1]

    async def _encode(self) -> Snapshot:
        """By the clock as it is set now, so that the ages of streams agree with those that commands show."""
        async with self._turn:
            await self._look()
            head = {"epoch": self.ring.epoch, "seq": self.ring.last, "now": self._now(), "away": self._away}
            streams = named(self._roster.streams())
        age, now = self._clock.age, self._now()
        rows = await _encoded(full_row(n, one, round(now - age(one.last_seen), 3)) for n, one in streams)
        plain = b'%s,"streams":%s}' % (msgspec.json.encode(head)[:-1], rows)
        return Snapshot(plain=plain)

    async def compressed(self) -> bytes:
        """The same, compressed."""
        snapshot = await self.snapshot()
        async with self._encoding:
            if not snapshot.gzipped:
                snapshot.gzipped = await asyncio.to_thread(gzip.compress, snapshot.plain, 6, mtime=0)
        return snapshot.gzipped

    # ------------------------------------------------------------ what changed

    async def _look_while_watched(self) -> None:
        while True:
            await self._watched.wait()
            spool = self._context().spool
            head = spool.head
            found = await self.look()
            await asyncio.sleep(pause_after(found))
            try:
                async with asyncio.timeout(OUTAGE_SEEN if isinstance(spool, Shared) else FORGOTTEN):
                    await spool.wait_beyond(head)
            except TimeoutError:
                continue

    async def look(self) -> int:
        """Publish what has changed since the last look, if anything has; returns the number of changes."""
        async with self._turn:
            return await self._look()

    async def _look(self) -> int:
        """Compare once, and push a message if anything changed. The caller has the turn."""
        self.looks += 1
        self._notice_jump()
        spool = self._context().spool
        changes = self._roster.compare(spool.streams())
        outage = away_of(spool)
        was_away, self._away = self._away, None if outage is None else seconds(outage.since)
        now = self._clock.monotonic()
        last, self._last_look = self._last_look, now
        if last is None or now - last > KEPT:
            self._begin_anew()  # no place is that old, and the changes would be nearly all streams
        elif changes or was_away != self._away:
            try:
                self._push("", await self._message(changes))
            except BaseException:
                self._begin_anew()  # the roster has the changes already, so no later message would have them
                raise
        return len(changes.changed) + len(changes.new)

    async def _message(self, changes: Changes) -> bytes:
        changed = await _encoded(change_row(n, one) for n, one in named(changes.changed))
        new = await _encoded(full_row(n, one) for n, one in named(changes.new))
        times = msgspec.json.encode(self._now()), msgspec.json.encode(self._away)
        parts = [b'{"now":%s,"away":%s,"s":%s' % (*times, changed)]
        parts += [b',"new":%s' % new] if changes.new else []
        parts += [b',"gone":%s' % msgspec.json.encode(changes.gone)] if changes.gone else []
        return b"%s}" % b"".join(parts)

    def _notice_jump(self) -> None:
        """After the wall clock was set, the times that viewers hold are of another clock: they begin anew."""
        ahead = self._clock.now().timestamp() - self._clock.monotonic()
        if self._ahead is not None and abs(ahead - self._ahead) > JUMP:
            self._begin_anew()
        self._ahead = ahead

    def _begin_anew(self) -> None:
        self.ring.break_off()
        self._tell()

    def _push(self, name: str, data: bytes) -> None:
        self.ring.push(name, data, self._clock.monotonic())
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _now(self) -> float:
        return round(self._clock.now().timestamp(), 3)

    @property
    def _clock(self) -> Clock:
        return self._context().clock


def pause_after(changes: int) -> float:
    """The seconds between a look that found this number of changes and the next one."""
    return min(max(PACE * changes / BUSY, PACE), LONGEST_PACE)


async def _came(news: asyncio.Event, seconds: float) -> bool:
    """Wait for news; returns false if none came in time."""
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return False
    return True


async def _encoded(rows: Iterable[object]) -> bytes:
    """A JSON array. There may be 100,000 rows: the loop is free between some and the next."""
    parts, left = list[bytes](), iter(rows)
    while some := list(islice(left, ROWS)):
        parts.append(msgspec.json.encode(some)[1:-1])
        await asyncio.sleep(0)
    return b"[%s]" % b",".join(parts)
