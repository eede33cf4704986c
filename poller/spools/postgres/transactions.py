"""A connection that writes, and the jobs that wait for it.

Invariants
    Jobs that wait at the same time may share one transaction (`most_jobs`). Each transaction begins with the check of
    the session and writes how many there were, so that after a lost connection it is known whether the last one took
    effect.
    No two transactions wait for each other. One of `claims` has one job, which locks the row of one sink first. Those
    of writers change rows of their own session, or wait for the log last. A job that changes rows of other sessions
    runs `alone`: no other writer has a transaction meanwhile.

Failures
    While the database is away, jobs fail with `StorageAway`. A job whose commit was not answered waits until the
    database says whether it took effect. `Fenced` ends the connection for good.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Self, TypeVar

import asyncpg

from poller.core.errors import StorageError, StorageFull
from poller.runtime.failpoints import reached
from poller.spools.postgres import sessions
from poller.spools.postgres.links import (
    FAILURES,
    Address,
    EndedWaits,
    Link,
    Outage,
    StorageAway,
    connect,
    refuse_unsafe,
    storage_error,
    translated,
)

CONNECT_AGAIN: Final = 0.5

Result = TypeVar("Result")


class Job(NamedTuple):
    """Something to do in a transaction, with the future of its result. If `alone`, no other writer runs beside it."""

    work: Callable[[Any], Awaitable[object]]
    alone: bool
    result: "asyncio.Future[object]"


class Transactions:
    """Owns one connection. `run` serves until `stop`.

    A job gets this object, and works with its `connection`. `place` tells the connections of a session apart, and they
    share `outage`. `failed` gets the reason when nothing can be written any more, and calls `fail`.
    """

    place = "claims"
    most_jobs = 1
    """The most jobs that share a transaction."""

    def __init__(
        self, address: Address, lease: float, *, outage: Outage, failed: Callable[[StorageError], None]
    ) -> None:
        self._address = address
        self._name = address.name
        self._lease = lease
        self._outage = outage
        self._failed = failed
        self._jobs: deque[Job] = deque()
        self._wakeup = asyncio.Event()
        self._stopping = False
        self._count = 0
        self._ended_waits: EndedWaits
        self.session = 0
        self.broken: StorageError | None = None
        """The reason why nothing is written any more; None while all is well."""
        self.connection: Link = None

    async def open(self, connection: Link, session: int) -> None:
        """Take over a connection of a session that has begun."""
        self.session = session
        await self._use(connection)
        await sessions.begin_counting(connection, session, self.place)

    async def _use(self, connection: Link) -> None:
        self.connection = connection
        self._ended_waits = EndedWaits(connection)
        await sessions.mark(connection, self.session)

    async def link(self) -> Link:
        """Open a connection that writes. The server ends it if it stays within a transaction for half a lease.

        Raises `StorageError` too if the server would not keep what it confirms: it may be another one than before.
        """
        link = await connect(self._address, idle_in_transaction=self._lease / 2)
        try:
            async with translated(self._name):
                await refuse_unsafe(self._name, link)
        except BaseException:
            link.terminate()
            raise
        return link

    # ------------------------------------------------------------ running

    def submit(
        self, work: Callable[[Self], Awaitable[Result]], *, alone: bool = False
    ) -> "asyncio.Future[Result]":
        """Queue a job; the future gets its result. Cancelling the future does not stop the job."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        if self.broken is not None:
            future.set_exception(self.broken)
            return future
        self._jobs.append(Job(work, alone, future))  # type: ignore[arg-type]
        self._wakeup.set()
        return future

    def stop(self) -> None:
        """End after all that was submitted is done, or has failed."""
        self._stopping = True
        self._wakeup.set()

    def fail(self, error: StorageError) -> None:
        """Write nothing any more. All jobs fail, also one whose answer never comes, as after a cut of the network."""
        if self.broken is None:
            self.broken = error
            self.close()
            while self._jobs:
                if not (result := self._jobs.popleft().result).done():
                    result.set_exception(error)

    async def run(self) -> None:
        """Run jobs until `stop`."""
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            while self._jobs:
                await self._serve([self._jobs.popleft() for _ in range(min(self.most_jobs, len(self._jobs)))])
            if self._stopping:
                return

    async def _serve(self, jobs: list[Job]) -> None:
        for job, result in zip(jobs, await self._run(jobs), strict=True):
            if job.result.done():
                continue
            if isinstance(result, Exception):
                job.result.set_exception(result)
            else:
                job.result.set_result(result)

    async def _run(self, jobs: list[Job]) -> list[object | Exception]:
        """Run jobs in one transaction, or each in a transaction of its own if one fails. Returns results or errors."""
        if self.broken is not None:
            return [self.broken for _ in jobs]
        try:
            await self._connect()
            return await self._together(jobs)
        except Exception as error:  # rolled back: the other jobs are tried without the one that failed
            self._give_up_if_confused(error)
            if len(jobs) > 1 and not self.connection.is_closed():
                return [result for job in jobs for result in await self._run([job])]
            return [self._failure(error) for _ in jobs]

    def _failure(self, error: Exception) -> Exception:
        if not isinstance(error, (*FAILURES, StorageError)):
            return error
        if self.broken is not None:  # its connection was closed, and the database is not away
            return self.broken
        failure = storage_error(self._name, error)
        if isinstance(failure, StorageAway):
            self._outage.begin(failure)
        elif not isinstance(failure, StorageFull):
            self._failed(failure)
        return self.broken or failure

    async def _connect(self) -> None:
        if not self.connection.is_closed():
            return
        await self._use(await self.link())
        if await sessions.count(self.connection, self.session, self.place) != self._count:
            raise sessions.fenced(self._name)

    async def _together(self, jobs: list[Job]) -> list[object | Exception]:
        before = self._count
        transaction = self.connection.transaction()
        try:
            await transaction.start()
            await sessions.check(self.connection, self._name, self.session)
            await self._begin(alone=any(job.alone for job in jobs))
            results: list[object | Exception] = [await job.work(self) for job in jobs]
            await self._end()
            await sessions.put_count(self.connection, self.session, self.place, before + 1)
            reached("transaction.written")
        except BaseException:
            self._undo()
            await self._roll_back(transaction)
            raise
        try:
            await self._commit(transaction, before)
        except BaseException:
            self._undo()
            raise
        self._count += 1
        self._outage.end()
        self._keep()
        return results

    async def _roll_back(self, transaction: asyncpg.transaction.Transaction) -> None:
        """Roll back. A connection that cannot is closed, and the server does it."""
        try:
            if not self.connection.is_closed():
                await transaction.rollback()
        except FAILURES:
            self.connection.terminate()

    async def _begin(self, *, alone: bool) -> None:
        """What a transaction writes before its jobs."""

    async def _end(self) -> None:
        """What a transaction writes after its jobs."""

    def _undo(self) -> None:
        """The transaction had no effect."""

    def _keep(self) -> None:
        """The transaction is durable."""

    async def _commit(self, transaction: asyncpg.transaction.Transaction, before: int) -> None:
        """Commit. Returns when the transaction is as durable as the database makes it; raises if it had no effect."""
        try:
            await transaction.commit()
            await self._wait_for_standby()
        except FAILURES as error:
            if not await self._took_effect(before, error):
                raise
        reached("transaction.committed")

    async def _took_effect(self, before: int, error: Exception) -> bool:
        """Whether a transaction took effect whose commit was not answered. Waits until the database says it."""
        self._outage.begin(storage_error(self._name, error))
        if not isinstance(error, asyncpg.PostgresError):
            self.connection.terminate()
        while not self._stopping:
            try:
                if self.connection.is_closed():
                    await self._use(await self.link())
                if await sessions.count(self.connection, self.session, self.place) != before + 1:
                    return False
                await self._commit_again()
                await self._wait_for_standby()
            except (StorageAway, *FAILURES) as again:
                self._give_up_if_confused(again)
                await asyncio.sleep(CONNECT_AGAIN)
            else:
                return True
        raise storage_error(self._name, error)

    def _give_up_if_confused(self, error: Exception) -> None:
        """Close a connection that the server has ended, and that does not know it."""
        if isinstance(error, asyncpg.InternalClientError):
            self.connection.terminate()

    async def _wait_for_standby(self) -> None:
        """Where the server stopped waiting for its standby, wait until the standby has a later commit."""
        while self._ended_waits.take():
            await self._commit_again()

    async def _commit_again(self) -> None:
        await sessions.touch_count(self.connection, self.session, self.place)

    def close(self) -> None:
        """Close the connection, if there is one. Jobs that still wait fail."""
        if self.connection is not None:
            self.connection.terminate()


async def nothing(transactions: Transactions) -> None:
    """A job without work: once it is done, all that was committed before it is as durable as its own commit."""
