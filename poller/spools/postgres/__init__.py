"""A spool in a PostgreSQL database that several daemons share.

Invariants
    Each daemon has a session (`membership`). It writes over two connections (`writer`, `claims`), and each transaction
    proves that the session goes on. So a daemon that was stopped, frozen or cut off writes nothing once others have
    taken over what it held.

Life cycle
    Entering checks that the database keeps what it confirms, makes the tables, and begins a session. Leaving writes the
    rest and ends the session.
"""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

import structlog

from poller.core.errors import Fenced, StorageError, StorageFull
from poller.core.history import Gap, LatePicture
from poller.core.model import Batch, Event, ParsedPage, unchanged
from poller.core.moving import SpoolMoved
from poller.core.selection import Numbered
from poller.core.spool import Away, HasLimits, Member, Pruned, Shared, Wants
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.spools.postgres import duties, quarantine, queries, replays, sessions
from poller.spools.postgres.capacity import Capacity
from poller.spools.postgres.history import PostgresHistory
from poller.spools.postgres.links import (
    Address,
    Link,
    Outage,
    StorageAway,
    connect,
    lacks_standby,
    refuse_unsafe,
    translated,
)
from poller.spools.postgres.membership import Membership
from poller.spools.postgres.migration import prepare
from poller.spools.postgres.modes import Mode
from poller.spools.postgres.moving import MovableSchema, refuse_moved
from poller.spools.postgres.notices import Follower, Notices
from poller.spools.postgres.pruning import MOST_AHEAD, database_time
from poller.spools.postgres.reader import Reader
from poller.spools.postgres.served_sinks import ServedSinks
from poller.spools.postgres.settings import PostgresSettings
from poller.spools.postgres.shared_replays import SharedReplays
from poller.spools.postgres.transactions import Transactions, nothing
from poller.spools.postgres.writer import Writer, flush
from poller.spools.replays import ReplayChange
from poller.spools.retention import STREAMS_KEPT
from poller.spools.sink_queue import SinkQueue

log = structlog.get_logger("spool")

ENDS = "This daemon writes nothing more and ends; its manager, or `poller run`, starts it again"
FLUSH_AGAIN = 0.5
ENDED_WITHIN = 5.0
"""Seconds that leaving waits for the database."""


class PostgresSpool(PostgresHistory, MovableSchema, HasLimits, Shared):
    """A spool in a PostgreSQL database."""

    Settings = PostgresSettings
    _replays: SharedReplays

    def __init__(
        self,
        name: str,
        settings: PostgresSettings,
        accounts: Mapping[str, object],
        clock: Clock | None = None,
    ) -> None:
        clock = clock or Clock()
        clock.begin(None)
        address, lease = Address(name, settings.database, settings.schema_name), settings.lease
        outage = self._outage = Outage(name, clock)
        self._address, self._lease = address, lease
        self._settings = settings
        self._notices = Notices(lambda: self.head)
        self._claims = Transactions(address, lease, outage=outage, failed=self._fail)
        self._membership = Membership(
            address,
            lease,
            outage=outage,
            until_durable=self._until_durable,
            returned=self._connect_anew,
            hear=self._notices.hear,
            fail=self._fail,
        )
        self._reader = Reader(address)
        writer = Writer(
            address,
            lease,
            clock,
            outage=outage,
            publish=self._hand_out,
            keeps_up=partial(self._membership.holds, duties.UPKEEP),
            failed=self._fail,
        )
        super().__init__(name, writer, clock)
        self._sinks = ServedSinks(
            self._dispatcher,
            self._claims,
            self._membership,
            clock,
            keep=self._keep,
            flush=self._flushing,
            joined=self._replays.join,
        )
        self._replays.sinks = self._sinks
        self.proven = self._dispatcher.proven = self._membership.proven
        self._follower = Follower(
            notices=self._notices,
            reader=self._reader,
            writer=writer,
            dispatcher=self._dispatcher,
            sinks=self._sinks,
            replays=self._replays,
            keep=self._keep,
        )
        self._capacity = Capacity(self._reader, writer, settings.max_bytes, prune=self._prune_early)
        self._lanes: dict[str, int] = {}
        self._knows_sinks = False
        """Whether all sinks are attached that will be: somebody is about to append, or to prune."""
        self._failure: asyncio.Future[StorageError]
        self._tasks: list[asyncio.Task[None]] = []
        self._keepers: list[asyncio.Task[None]] = []
        """Those tasks that submit jobs."""

    def _make_replays(self, **terms: Any) -> SharedReplays:
        return SharedReplays(
            read=lambda: self._reader.read(replays.stored),
            next_number=lambda: self._reader.read(replays.next_number),
            served=self._served,
            **terms,
        )

    # ------------------------------------------------------------ opening and closing

    async def __aenter__(self) -> Self:
        self._failure = asyncio.get_running_loop().create_future()
        try:
            async with translated(self.name):
                await self._open(await connect(self._address, idle_in_transaction=self._lease / 2))
        except BaseException:
            await self._end_tasks()
            self._close()
            raise
        self._tasks += [asyncio.create_task(part.run()) for part in (self._writer, self._claims)]
        keep = (self._capacity.run, self._follower.follow_log, self._follower.follow_words)
        self._keepers = [asyncio.create_task(work()) for work in keep]
        for task in (*self._tasks, *self._keepers):
            task.add_done_callback(self._ended)
        return self

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A task that fails takes the daemon with it: nobody would do its work any more."""
        if not task.cancelled() and (error := task.exception()) is not None:
            failure = StorageError(f"{self.name}: {type(error).__name__} in one of its tasks")
            failure.__cause__ = error
            self._fail(failure)

    async def _open(self, link: Link) -> None:
        try:
            await refuse_unsafe(self.name, link)
            await prepare(link, self._address, self._lease, migrates=not self.visits)
            self.lacks_standby = await lacks_standby(link)
        finally:
            link.terminate()
        if not self.visits:
            self._membership.want(duties.UPKEEP)
        await self._membership.begin(f"{socket.gethostname()}, process {os.getpid()}", visits=self.visits)
        await self._refuse_moved()
        # from here on: reading the state may take longer than the lease
        self._tasks = [asyncio.create_task(self._membership.run())]
        await self._claims.open(await self._claims.link(), self._membership.session)
        await self._writer.open(await self._writer.link(), self._membership.session)
        self._dispatcher.head = self._writer.next
        await self._follower.begin()
        self._replays.load(await self._reader.read(replays.stored))

    async def _refuse_moved(self) -> None:
        """End the session and raise `SpoolMoved` if the spool is not in force."""
        try:
            await self._reader.read(partial(refuse_moved, self.name))
        except SpoolMoved:
            await self._membership.end()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._end_keepers()  # a job that they submit after `stop` is never done
        await self._sinks.end()
        self._keep(*self._dispatcher.close())
        if self._flush is not None:
            self._flush.cancel()
        with suppress(StorageError, TimeoutError):
            async with asyncio.timeout(ENDED_WITHIN):
                await self._flush_last()
        for part in (self._writer, self._claims, self._membership):
            part.stop()
        await self._end_tasks()
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDED_WITHIN):
                await self._membership.end()
        self._close()

    async def _flush_last(self) -> None:
        """Write the rest, and again where the connection is lost meanwhile: else what was settled comes again."""
        while True:
            self._writer.whole_catalogue = True
            try:
                return await self._flushing()
            except StorageAway:
                await asyncio.sleep(FLUSH_AGAIN)

    async def _end_keepers(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=ENDED_WITHIN)

    async def _end_tasks(self) -> None:
        self._membership.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ENDED_WITHIN)
        for task in self._tasks:
            task.cancel()

    def _close(self) -> None:
        for part in (self._writer, self._claims, self._reader, self._membership):
            part.close()

    def _fail(self, error: StorageError) -> None:
        """Write nothing any more: this daemon's session has ended, or the database cannot be used."""
        if isinstance(error, Fenced):
            error = Fenced(f"{error}. {self._membership.last_sign(self._clock.now())}. {ENDS}")
        self._membership.stop()
        self.proven.clear()
        self._writer.fail(error)
        self._claims.fail(error)
        if not self._failure.done():
            self._failure.set_result(error)

    async def failed(self) -> StorageError:
        """See `Shared.failed`."""
        return await asyncio.shield(self._failure)

    # ------------------------------------------------------------ the other daemons

    async def _until_durable(self) -> None:
        """Return once all that was committed before can be lost no more, on whichever connection."""
        await self._claims.submit(nothing)

    def _connect_anew(self) -> None:
        """Let go of connections on which the database went silent too: what waits there may wait for ever."""
        for part in (self._writer, self._claims, self._reader):
            part.close()

    def divide(self, sink: str, lanes: int) -> None:
        """See `Shared.divide`."""
        self._lanes[sink] = lanes

    @property
    def member(self) -> int:
        """See `Shared.member`."""
        return self._membership.session

    @property
    def away(self) -> Away | None:
        """See `Shared.away`."""
        return self._outage.away

    def waits_for(self, sink: str) -> str:
        """See `Shared.waits_for`."""
        return self._sinks.waits_for(sink)

    @property
    def identity(self) -> str:
        """See `Shared.identity`."""
        return self._writer.seen.identity

    @property
    def live_members(self) -> int:
        """See `Shared.live_members`."""
        return self._membership.live

    async def check_answers(self) -> None:
        """See `Shared.check_answers`."""
        await self._flushing()

    async def release(self, sink: str) -> None:
        """See `Shared.release`."""
        async with self._replays.attaching(sink):  # a piece of a replay may just be queued here
            await self._sinks.release(sink)

    def duty(self, name: str) -> AbstractAsyncContextManager[None]:
        """See `Shared.duty`."""
        return self._membership.duty(name)

    async def members(self) -> Sequence[Member]:
        """See `Shared.members`."""
        return await self._reader.read(sessions.members)

    async def wait_for_change(self) -> None:
        """See `Shared.wait_for_change`."""
        await self._notices.changed.wait()
        self._notices.changed.clear()

    # ------------------------------------------------------------ in

    async def check_writable(self) -> None:
        """See `Spool.check_writable`."""
        self._knows_sinks = True
        await self._capacity.measure()
        await self._writer.submit(Writer.check_writable)

    async def _attach(
        self, sink: str, wants: Wants, ordered: bool, start: datetime | None, replays: int
    ) -> None:
        mode = Mode(ordered=ordered, lanes=self._lanes.get(sink, 1) if ordered else 1)
        await self._sinks.attach(sink, wants, mode, start=start, replays=replays)
        await self._replays.count()

    async def detach(self, sink: str) -> None:
        """See `Spool.detach`."""
        async with self._replays.attaching(sink):
            await self._sinks.detach(sink)

    async def append(self, source: str, readings: Sequence[ParsedPage]) -> Counter[str]:
        """See `Spool.append`."""
        return await self._publish(
            await self._writer.submit(partial(Writer.append, source=source, readings=list(readings)))
        )

    async def read_again(self, source: str, readings: Mapping[int, ParsedPage]) -> Counter[str]:
        """See `Spool.read_again`."""
        return await self._publish(
            await self._writer.submit(
                partial(Writer.read_again, source=source, readings=dict(readings)), alone=True
            )
        )

    async def note_gaps(
        self,
        source: str,
        readings: Sequence[ParsedPage],
        gaps: Sequence[Gap],
        late: Sequence[LatePicture] = (),
    ) -> Counter[str]:
        """See `SpoolHistory.note_gaps`."""
        note = partial(Writer.note_gaps, source=source, readings=list(readings), gaps=gaps, late=late)
        return await self._publish(await self._writer.submit(note))

    async def _correct(self, known: list[Numbered]) -> None:
        """Correct provisional events in the queues and in the tables.

        The events stay provisional until the tables are corrected, so that the same page corrects them after a crash.
        """
        self._dispatcher.correct(known)
        await self._writer.submit(partial(Writer.correct, known=known), alone=True)
        self._dispatcher.correct(known)  # for a sink that was attached again in the meantime
        await self._adopt()

    # ------------------------------------------------------------ out

    def _flushing(self) -> "asyncio.Future[None]":
        return self._writer.submit(flush)

    async def _extend(self, queue: SinkQueue, limit: int) -> None:
        await self._sinks.extend(queue, limit)

    async def claim(self, sink: str, limit: int, linger: float = 0.0) -> Batch:
        """See `Spool.claim` and `Shared`."""
        return await self._sinks.claim(sink, limit, linger)

    def _key_of(self, batch: Batch) -> str:
        return self._sinks.key_of(batch)

    async def retry_now(self, sink: str) -> None:
        """See `Spool.retry_now`. Works on what this daemon holds, or takes next."""
        self._sinks.retry_now(sink)

    async def retry_dead(
        self, sink: str, numbers: Sequence[int], together: int, rebuild: Callable[[Event], Event] = unchanged
    ) -> int:
        """See `SpoolAdmin.retry_dead`."""
        terms: Any = {"sink": sink, "numbers": list(numbers), "together": together, "rebuild": rebuild}
        count = await self._writer.submit(partial(Writer.retry_dead, **terms), alone=True)
        reached("dead.owed")
        await self._adopt()
        return count

    async def _adopt(self) -> None:
        """Take waiting batches that nobody holds; what cannot be taken now is taken soon."""
        with suppress(StorageFull):
            await self._sinks.adopt((await self._reader.read(queries.freed))[1])

    async def pause(self, sink: str, paused: bool) -> None:
        """See `Spool.pause`."""
        await self._writer.submit(partial(Writer.pause, sink=sink, paused=paused), alone=True)

    async def _write_replay(self, change: ReplayChange) -> None:
        before = self._replays.known(change.replay.number)
        await self._writer.submit(
            lambda writer: replays.write(change, writer.session, before, writer.connection), alone=True
        )

    # ------------------------------------------------------------ deleting

    async def purge_dead(self, numbers: Sequence[int]) -> int:
        """See `SpoolAdmin.purge_dead`."""
        gone = await self._writer.submit(partial(Writer.purge_dead, numbers=list(numbers)), alone=True)
        return gone.total()

    async def purge_quarantine(self, numbers: Sequence[int]) -> int:
        """See `Spool.purge_quarantine`."""
        return await self._writer.submit(
            lambda writer: quarantine.purge(writer.connection, list(numbers)), alone=True
        )

    async def prune(self) -> Pruned:
        """See `Spool.prune` and `Shared`."""
        self._knows_sinks = True
        self._keep(*self._sinks.advances())
        if not self._membership.holds(duties.UPKEEP):
            self._writer.catalogue.forget(lambda stream: self._clock.age(stream.last_seen) > STREAMS_KEPT)
            return Pruned(dead={}, rejects=0, more=False)
        await self._refuse_wrong_clock()
        step = partial(
            Writer.prune,
            floor=self._replays.floor(),
            retain=self._settings.retain,
            dead=self._settings.retain_dead,
            quarantine=self._settings.retain_quarantine,
        )
        return await self._writer.submit(step, alone=True)

    async def _refuse_wrong_clock(self) -> None:
        """Raise `StorageFull` if all that others keep would look old to this machine."""
        ahead = self._clock.now().timestamp() - await self._reader.read(database_time)
        if ahead > MOST_AHEAD:
            raise StorageFull(
                f"spool {self.name}: this machine's clock is {ahead / 3600:.1f} h ahead of the database's:"
                " nothing old is deleted until it is set right"
            )

    async def _prune_early(self) -> bool:
        """Delete some events that all sinks have settled, of any age; true if there may be more.

        Not while sinks are missing that will be attached.
        """
        if not (self._knows_sinks and self._membership.holds(duties.UPKEEP)):
            return False
        self._keep(*self._sinks.advances())
        self._writer.whole_catalogue = True  # only events that the written catalogue covers can be pruned
        await self._flushing()
        return await self._writer.submit(partial(Writer.prune_early, floor=self._replays.floor()), alone=True)

    async def size(self) -> int:
        """See `Spool.size`."""
        return self._capacity.size

    @property
    def fullness(self) -> dict[str, float]:
        """See `HasLimits.fullness`."""
        return {"max_bytes": self._capacity.fullness}
