"""The intake of a pushed source: no sender gets its answer before its page is in the spool."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from poller.core.errors import StorageError, StorageFull
from poller.core.model import ParsedPage, PollOutcome, PushOutcome, RawPage
from poller.core.ports import PushedSource, PushHandler
from poller.core.spool import SpoolAdmin
from poller.pipeline.push_intake import COMMIT_TOGETHER, PushIntake
from poller.runtime.metrics import Metrics
from poller.spools.sqlite import SqliteSpool
from poller.testing import START, anything, some_change, some_event
from poller.testing.history import newest_events
from tests.fakes import sqlite_spool
from tests.patience import patiently


class Pushed:
    """A source that is pushed by the test: a page's body says what is in it."""

    name = "pushed"
    account = "main"
    address = "nowhere"

    def __init__(self) -> None:
        self.closed = 0
        self.on_close: Callable[[], Awaitable[None]] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        return None

    def attach(self, handler: PushHandler) -> None:
        self.handler = handler

    async def close(self) -> None:
        if self.on_close is not None:
            await self.on_close()
        self.closed += 1

    def read(self, page: RawPage, memory: bytes) -> ParsedPage:
        said = json.loads(page.body)
        if said.get("raises"):
            raise KeyError("a bug in the reader")
        events = [some_event(n) for n in said.get("events", ())]
        events += [some_change(n, "live") for n in said.get("changes", ())]
        return ParsedPage(events=tuple(events), rejects=(), outcome=PollOutcome.PARTIAL)


class WatchedSpool:
    """A real spool that counts appends, can be held, and refuses while `error` is set."""

    def __init__(self, spool: SpoolAdmin) -> None:
        self.inner = spool
        self.error: StorageError | None = None
        self.appends: list[int] = []
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    async def check_writable(self) -> None:
        if self.error is not None:
            raise self.error
        await self.inner.check_writable()

    async def append(self, source: str, readings: Sequence[ParsedPage]) -> Counter[str]:
        self.begun.set()
        await self.go_on.wait()
        await self.check_writable()
        self.appends.append(len(readings))
        return await self.inner.append(source, readings)


def page(*events: int, **more: object) -> RawPage:
    body = json.dumps({"events": events, **more}).encode()
    return RawPage(source="pushed", received_at=START, status=200, encoding="", whole=True, body=body)


Scenario = Callable[[PushIntake, WatchedSpool, Pushed], Awaitable[None]]


def tell(folder: Path, scenario: Scenario, *, within: float = 20.0, fails: bool = False) -> Metrics:
    """Run a push intake through a scenario, then stop it."""
    metrics = Metrics()

    async def run_scenario() -> None:
        async with AsyncExitStack() as stack:
            inner = await stack.enter_async_context(sqlite_spool(folder))
            await inner.attach("sink", anything)
            watched, source = WatchedSpool(inner), Pushed()
            intake = PushIntake(source, watched, metrics=metrics, commit_within=within)  # type: ignore[arg-type]
            source.attach(intake)
            running = asyncio.ensure_future(intake.run())
            try:
                await scenario(intake, watched, source)
            finally:
                watched.go_on.set()
                intake.stop()
                if fails:
                    await asyncio.gather(running, return_exceptions=True)
                else:
                    await running
                    assert source.closed == 1

    asyncio.run(patiently(run_scenario()))
    return metrics


async def ready(intake: PushIntake) -> None:
    while intake.trouble is not None:
        await asyncio.sleep(0.001)


def counted(metrics: Metrics, outcome: str) -> float:
    labels = {"source": "pushed", "outcome": outcome}
    return metrics.registry.get_sample_value("poller_callbacks_total", labels) or 0.0


def test_a_source_with_a_fetch_of_its_own_is_not_a_pushed_one() -> None:
    assert isinstance(Pushed(), PushedSource)


def test_a_page_is_in_the_spool_when_its_sender_is_answered(tmp_path: Path) -> None:
    async def scenario(intake: PushIntake, spool: WatchedSpool, source: Pushed) -> None:
        await ready(intake)
        spool.go_on.clear()
        accepting = asyncio.ensure_future(intake.accept(page(1, 2)))
        await spool.begun.wait()
        assert not accepting.done()
        assert await newest_events(spool.inner, 10) == []
        spool.go_on.set()
        await accepting
        assert await newest_events(spool.inner, 10) == [some_event(2), some_event(1)]

    metrics = tell(tmp_path, scenario)
    assert counted(metrics, "accepted") == 1
    assert metrics.registry.get_sample_value("poller_events_total", {"kind": "screenshot"}) == 2


def test_pages_that_come_while_a_commit_is_under_way_share_the_next_one(tmp_path: Path) -> None:
    async def scenario(intake: PushIntake, spool: WatchedSpool, source: Pushed) -> None:
        await ready(intake)
        spool.go_on.clear()
        pushes = [asyncio.ensure_future(intake.accept(page(0)))]
        await spool.begun.wait()
        pushes += [asyncio.ensure_future(intake.accept(page(n))) for n in range(1, COMMIT_TOGETHER + 4)]
        await asyncio.sleep(0)
        spool.go_on.set()
        await asyncio.gather(*pushes)
        assert spool.appends == [1, COMMIT_TOGETHER, 3]

    assert counted(tell(tmp_path, scenario), "accepted") == COMMIT_TOGETHER + 4


def test_nothing_is_taken_before_the_spool_is_proven_and_then_it_begins_by_itself(tmp_path: Path) -> None:
    async def scenario(intake: PushIntake, spool: WatchedSpool, source: Pushed) -> None:
        spool.error = StorageFull("spool: disk full")
        with pytest.raises(StorageFull, match="not begun"):
            await intake.accept(page(1))
        while intake.trouble != "spool: disk full":
            await asyncio.sleep(0.01)
        with pytest.raises(StorageFull, match="disk full"):
            await intake.accept(page(1))
        spool.error = None
        await ready(intake)
        await intake.accept(page(1))

    metrics = tell(tmp_path, scenario)
    assert (counted(metrics, "unavailable"), counted(metrics, "accepted")) == (2, 1)


def test_while_the_spool_is_full_senders_are_refused_at_once_until_there_is_room(tmp_path: Path) -> None:
    async def scenario(intake: PushIntake, spool: WatchedSpool, source: Pushed) -> None:
        await ready(intake)
        spool.go_on.clear()
        pushes = [asyncio.ensure_future(intake.accept(page(n))) for n in range(5)]
        await spool.begun.wait()
        pushes += [asyncio.ensure_future(intake.accept(page(n))) for n in range(5, 9)]
        await asyncio.sleep(0)
        spool.error = StorageFull("spool: disk full")
        spool.go_on.set()
        results = await asyncio.gather(*pushes, return_exceptions=True)
        assert all(isinstance(result, StorageFull) for result in results), results
        before = len(spool.appends)
        for _ in range(100):
            with pytest.raises(StorageFull, match="disk full"):
                await intake.accept(page(1))
        assert len(spool.appends) == before
        spool.error = None
        await ready(intake)
        await asyncio.gather(*(intake.accept(page(n)) for n in range(9)))
        found = await newest_events(spool.inner, 100)
        assert {event.id for event in found} == {some_event(n).id for n in range(9)}

    metrics = tell(tmp_path, scenario)
    assert (counted(metrics, "unavailable"), counted(metrics, "accepted")) == (109, 9)


def test_a_full_database_refuses_pages_until_it_may_grow(tmp_path: Path) -> None:
    """Small writes still succeed on a disk that has no room for a page: only a page shows that it has."""

    async def scenario(intake: PushIntake, spool: WatchedSpool, source: Pushed) -> None:
        await ready(intake)
        assert isinstance(spool.inner, SqliteSpool)
        connection = spool.inner._writer.connection
        size = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={size}")  # SQLite's own way to be full
        pages = [page(*range(100 * n, 100 * n + 100)) for n in range(50)]
        taken = 0
        with pytest.raises(StorageFull, match="full"):  # noqa: PT012 - some are taken before
            for one in pages:
                await intake.accept(one)
                taken += 1
        connection.execute("PRAGMA max_page_count=1073741823")
        await ready(intake)
        await intake.accept(pages[taken])
        assert len(await newest_events(spool.inner, 10_000)) == 100 * taken + 100

    tell(tmp_path, scenario)


def test_a_commit_that_takes_too_long_is_no_commit_and_others_do_not_wait_for_it(tmp_path: Path) -> None:
    async def scenario(intake: PushIntake, spool: WatchedSpool, source: Pushed) -> None:
        await ready(intake)
        spool.go_on.clear()
        with pytest.raises(StorageError, match="no commit within"):
            await intake.accept(page(1))
        with pytest.raises(StorageFull, match="no commit within"):
            await intake.accept(page(2))
        intake._commit_within = 20.0
        spool.go_on.set()
        await ready(intake)
        await intake.accept(page(1))
        await intake.accept(page(2))
        found = await newest_events(spool.inner, 10)
        assert sorted(event.id for event in found) == sorted(some_event(n).id for n in (1, 2))

    tell(tmp_path, scenario, within=0.05)


def test_a_spool_that_fails_for_good_refuses_who_waits_and_ends_the_process(tmp_path: Path) -> None:
    async def scenario(intake: PushIntake, spool: WatchedSpool, source: Pushed) -> None:
        await ready(intake)
        spool.go_on.clear()
        pushes = [asyncio.ensure_future(intake.accept(page(0)))]
        await spool.begun.wait()
        pushes.append(asyncio.ensure_future(intake.accept(page(1))))
        await asyncio.sleep(0)
        spool.error = StorageError("spool: I/O error")
        spool.go_on.set()
        results = await asyncio.gather(*pushes, return_exceptions=True)
        assert [str(result) for result in results] == ["spool: I/O error"] * 2
        with pytest.raises(StorageError):
            await intake.accept(page(2))

    async def ends(intake: PushIntake, spool: WatchedSpool, source: Pushed) -> None:
        await scenario(intake, spool, source)
        raise StorageError("the disk failed")

    with pytest.raises(StorageError, match="the disk failed"):
        tell(tmp_path, ends, fails=True)


def test_an_intake_that_fails_says_so_to_the_daemon(tmp_path: Path) -> None:
    async def run_scenario() -> None:
        async with sqlite_spool(tmp_path) as inner:
            spool, source = WatchedSpool(inner), Pushed()
            spool.error = StorageError("spool: I/O error")
            intake = PushIntake(source, spool, metrics=Metrics())  # type: ignore[arg-type]
            with pytest.raises(ExceptionGroup) as raised:
                await intake.run()
            assert raised.group_contains(StorageError)

    asyncio.run(patiently(run_scenario()))


def test_a_bug_in_the_reader_ends_in_quarantine_and_its_sender_does_not_repeat_it_for_ever(
    tmp_path: Path,
) -> None:
    async def scenario(intake: PushIntake, spool: WatchedSpool, source: Pushed) -> None:
        await ready(intake)
        await asyncio.gather(intake.accept(page(1)), intake.accept(page(2, raises=True)))
        reject = (await spool.inner.quarantined(10))[0].reject
        assert reject.body == page(2, raises=True).body
        assert "KeyError" in reject.reason
        assert await newest_events(spool.inner, 10) == [some_event(1)]

    metrics = tell(tmp_path, scenario)
    assert counted(metrics, "accepted") == 2
    assert metrics.registry.get_sample_value("poller_quarantined_total") == 1


def test_what_shares_a_commit_is_counted_kind_by_kind(tmp_path: Path) -> None:
    async def scenario(intake: PushIntake, spool: WatchedSpool, source: Pushed) -> None:
        await ready(intake)
        spool.go_on.clear()
        first = asyncio.ensure_future(intake.accept(page(1)))
        await spool.begun.wait()
        more = [page(1), page(2), page(3, changes=[10])]
        pushes = [asyncio.ensure_future(intake.accept(one)) for one in more]
        await asyncio.sleep(0)
        spool.go_on.set()
        await asyncio.gather(first, *pushes)
        assert spool.appends == [1, 3]

    value = tell(tmp_path, scenario).registry.get_sample_value
    assert value("poller_events_total", {"kind": "screenshot"}) == 3
    assert value("poller_known_events_total", {"kind": "screenshot"}) == 1
    assert value("poller_events_total", {"kind": "channel"}) == 1


def test_at_a_stop_what_the_port_still_takes_is_committed(tmp_path: Path) -> None:
    async def scenario(intake: PushIntake, spool: WatchedSpool, source: Pushed) -> None:
        await ready(intake)

        async def one_more() -> None:
            await intake.accept(page(7))

        source.on_close = one_more
        intake.stop()
        while not source.closed:
            await asyncio.sleep(0.001)
        assert await newest_events(spool.inner, 10) == [some_event(7)]

    tell(tmp_path, scenario)


def test_a_stop_while_the_spool_is_full_does_not_wait_for_room(tmp_path: Path) -> None:
    async def scenario(intake: PushIntake, spool: WatchedSpool, source: Pushed) -> None:
        spool.error = StorageFull("full")
        if intake.trouble is None:
            await intake.accept(page(1))

    tell(tmp_path, scenario)


def test_the_loop_tells_that_it_lives_also_while_nothing_comes(tmp_path: Path) -> None:
    async def run_scenario() -> None:
        beats = 0

        def beat() -> None:
            nonlocal beats
            beats += 1

        async with sqlite_spool(tmp_path) as spool:
            intake = PushIntake(Pushed(), spool, metrics=Metrics(), heartbeat=beat)
            running = asyncio.ensure_future(intake.run())
            await ready(intake)
            intake.stop()
            await running
        assert beats >= 1

    asyncio.run(patiently(run_scenario()))


def test_who_is_turned_away_is_counted(tmp_path: Path) -> None:
    async def scenario(intake: PushIntake, spool: WatchedSpool, source: Pushed) -> None:
        intake.turn_away(PushOutcome.KNOWN)
        intake.turn_away(PushOutcome.REFUSED_SIGNATURE, "wrong signature, from 192.0.2.1")

    metrics = tell(tmp_path, scenario)
    assert (counted(metrics, "known"), counted(metrics, "refused_signature")) == (1, 1)
