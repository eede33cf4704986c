"""The session of one daemon: its signs of life, its duties, and what it hears from the others.

Invariants
    Signs of life go over a connection of their own, four within a lease, and wait for no standby: one that is lost with
    a server only ends the session earlier. Overdue sessions are ended only by a daemon whose signs of life were all
    answered for half a lease: after an outage of the database, each daemon gets the time to go on.
    A duty counts as held only after a later commit that waited for the standby: else a server that is lost would give
    it back, and two daemons would have it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import structlog

from poller.core.errors import Fenced, StorageError
from poller.spools.postgres import duties, sessions
from poller.spools.postgres.links import Address, Link, Outage, connect, storage_error, translated

BEATS: Final = 4
SHORTEST: Final = 0.05
"""The least seconds between two signs of life."""

log = structlog.get_logger("spool")


class Proof(asyncio.Event):
    """Set while the lease is proven: it ends at a moment (`until`, by the loop's clock), not with a call of `clear`.

    After a process was frozen, what was ready to run before runs first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.until = 0.0

    def is_set(self) -> bool:
        """Whether the lease is proven now."""
        return super().is_set() and asyncio.get_running_loop().time() < self.until

    async def wait(self) -> Literal[True]:
        """Wait until the lease is proven."""
        while not self.is_set():
            self.clear()
            await super().wait()
        return True


class Membership:
    """Owns the connection of the session. `hear` gets what other daemons say, `fail` why the session has ended.

    `until_durable` returns once all that was committed before can be lost no more, or raises `StorageError`. `returned`
    is called when the database answers again that had gone silent.
    """

    def __init__(
        self,
        address: Address,
        lease: float,
        *,
        outage: Outage,
        until_durable: Callable[[], Awaitable[None]],
        returned: Callable[[], None],
        hear: Callable[[str], None],
        fail: Callable[[StorageError], None],
    ) -> None:
        self._address = address
        self._name = address.name
        self._lease = lease
        self._outage = outage
        self._until_durable = until_durable
        self._returned = returned
        self._hear = hear
        self._fail = fail
        self._link: Link | None = None
        self._wanted: dict[str, asyncio.Event] = {}
        self._held: set[str] = set()
        self._given_up: set[str] = set()
        """Duties to end in the database. A server that is lost may give them back."""
        self._taking: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        """Held while the connection is used."""
        self._wakeup = asyncio.Event()
        self._stopping = False
        self._since: float | None = None
        """Since when each sign of life was answered."""
        self._is_away = False
        """Whether the last sign of life failed."""
        self._was_silent = False
        """Whether a sign of life got no answer at all since the last one that was answered."""
        self._expiry: asyncio.TimerHandle | None = None
        self.session = sessions.NOBODY
        self.live = 1
        """How many sessions there are."""
        self.proven = Proof()

    async def begin(self, holder: str, *, visits: bool) -> None:
        """Begin the session. Raises `StorageError`, and `StorageLocked` while the spool is moved."""
        link = await self._connect()
        async with translated(self._name):
            asked = asyncio.get_running_loop().time()
            self.session = await sessions.begin(link, self._name, holder, self._lease, visits=visits)
            await sessions.mark(link, self.session)
            self._prove(asked)
            self._hold(await self._take_duties(link))

    async def _connect(self) -> Link:
        if self._link is None or self._link.is_closed():
            link = await connect(self._address, idle_in_transaction=self._lease / 2)
            try:
                async with translated(self._name):
                    await link.execute("SET synchronous_commit = off")
                    await link.add_listener(await sessions.channel(link), self._heard)
                    if self.session != sessions.NOBODY:
                        await sessions.mark(link, self.session)
            except BaseException:
                link.terminate()
                raise
            self._link = link
            for word in (
                *sessions.WORDS,
                f"{sessions.HEAD} 0",
            ):  # they may have been said while nobody listened
                self._hear(word)
        return self._link

    def _heard(self, link: Any, pid: int, channel: str, word: object) -> None:
        if word == sessions.CHANGED:
            self._wakeup.set()
        self._hear(str(word))

    # ------------------------------------------------------------ signs of life

    async def run(self) -> None:
        """Give signs of life until `stop`, or until the session has ended."""
        every = wait = self._lease / BEATS
        while not self._stopping:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wakeup.wait()
            self._wakeup.clear()
            try:
                async with asyncio.timeout(self._lease / 2), self._turn:
                    wait = min(every, await self._beat())
                self._outage.end()
                self._is_away = False
                if self._was_silent:
                    self._was_silent = False
                    self._returned()
            except Fenced as error:
                self._fail(error)
                return
            except (StorageError, TimeoutError) as error:
                self._outage.begin(storage_error(self._name, error))
                self._since, wait = None, min(every, max(SHORTEST, wait * 2 if self._is_away else 0.0))
                self._is_away = True
                self._was_silent |= isinstance(error, TimeoutError)
                if self._link is not None:
                    self._link.terminate()

    async def _beat(self) -> float:
        """Give one sign of life. Returns the seconds until another session is overdue."""
        asked = asyncio.get_running_loop().time()
        link = await self._connect()
        async with translated(self._name):
            live, due_in = await sessions.renew(link, self._name, self.session, self._lease)
            self._prove(asked)
            self._note_live(live)
            if self._may_end_others(asked) and due_in < 0:
                await sessions.end_hanging(link, self._lease / 2)
                for number, daemon in (await sessions.end_overdue(link)).items():
                    means = "other daemons take over what it held"
                    log.warning("session_ended", session=number, daemon=daemon, means=means)
                due_in = self._lease
            taken = await self._take_duties(link)
            if taken and (self._taking is None or self._taking.done()):
                self._taking = asyncio.create_task(self._hold_soon(taken))
        return max(SHORTEST, due_in)

    def _prove(self, asked: float) -> None:
        """The lease holds from the moment at which it was asked for, unless the session is to end."""
        if self._stopping:
            return
        if self._since is None:
            self._since = asked
        if self._expiry is not None:
            self._expiry.cancel()
        self.proven.until = asked + self._lease
        self._expiry = asyncio.get_running_loop().call_at(self.proven.until, self.proven.clear)
        self.proven.set()

    def last_sign(self, now: datetime) -> str:
        """When the last sign of life was answered, in words. `now` is the wall clock."""
        silent = asyncio.get_running_loop().time() - (self.proven.until - self._lease)
        answered = now - timedelta(seconds=silent)
        return (
            f"Its last sign of life was answered at {answered:%Y-%m-%dT%H:%M:%SZ}, {silent:.0f} s before;"
            f" the lease is {self._lease:g} s"
        )

    def _note_live(self, live: int) -> None:
        if live != self.live:
            self.live = live
            self._hear(sessions.CHANGED)

    def _may_end_others(self, now: float) -> bool:
        return self._since is not None and now - self._since >= self._lease / 2

    # ------------------------------------------------------------ duties

    def want(self, name: str) -> asyncio.Event:
        """Take a duty as soon as nobody has it. The event is set while this session has it."""
        self._wakeup.set()
        return self._wanted.setdefault(name, asyncio.Event())

    def holds(self, name: str) -> bool:
        """Whether this session has a duty."""
        return name in self._held

    async def give_up(self, name: str) -> None:
        """Want a duty no more. It is free soon, or when the database answers again."""
        if self._wanted.pop(name, None) is None:
            return
        self._held.discard(name)  # a sign of life may be taking it just now, so it is deleted in any case
        self._given_up.add(name)
        with suppress(StorageError, TimeoutError):
            async with asyncio.timeout(self._lease / BEATS), self._turn, translated(self._name):
                await self._end_duties(await self._connect())

    async def _end_duties(self, link: Link) -> None:
        self._given_up -= self._wanted.keys()
        for name in list(self._given_up):
            if await duties.give_up(link, self.session, name):
                await sessions.notify(link, sessions.CHANGED)

    async def keep(self, name: str) -> None:
        """Do not end a duty that was given up: the session takes it in another way."""
        async with self._turn:
            self._given_up.discard(name)

    @asynccontextmanager
    async def duty(self, name: str) -> AsyncIterator[None]:
        """See `Shared.duty`."""
        held = self.want(name)
        try:
            await held.wait()
            yield
        finally:
            await self.give_up(name)

    async def _take_duties(self, link: Link) -> dict[str, asyncio.Event]:
        """Take what is wanted and free. Returns the new duties, with their events."""
        await self._end_duties(link)
        wanted = dict(self._wanted)
        if not wanted:
            return {}
        got = await duties.take(link, self.session, list(wanted))
        if lost := self._held.difference(got):
            raise Fenced(f"{self._name}: another daemon has the duties {', '.join(sorted(lost))}")
        return {name: wanted[name] for name in got if name not in self._held}

    async def _hold_soon(self, taken: Mapping[str, asyncio.Event]) -> None:
        with suppress(StorageError):  # the next sign of life finds out whether they are still there
            await self._until_durable()
            self._hold(taken)

    def _hold(self, taken: Mapping[str, asyncio.Event]) -> None:
        for name, held in taken.items():
            if self._wanted.get(name) is held:  # else it was given up meanwhile
                self._held.add(name)
                held.set()
                self._hear(sessions.CHANGED)  # a replay may wait for whoever leads its sink

    # ------------------------------------------------------------ the end

    def stop(self) -> None:
        """End `run`."""
        self._stopping = True
        self._wakeup.set()

    async def end(self) -> None:
        """End the session, so that others need not wait for the end of its lease."""
        with suppress(StorageError):
            async with self._turn, translated(self._name):
                await sessions.end(await self._connect(), self.session)

    def close(self) -> None:
        """Close the connection."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._taking is not None:
            self._taking.cancel()
        if self._link is not None:
            self._link.terminate()
