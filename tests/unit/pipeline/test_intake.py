"""The intake: from a polled source to the spool."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from poller.core.errors import StorageError, StorageFull
from poller.core.model import ParsedPage, PollOutcome, RawPage
from poller.core.spool import SpoolAdmin
from poller.pipeline.intake import Intake
from poller.pipeline.journal import Journal
from poller.pipeline.pace import Pace, next_pace
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.testing import START, anything, some_event, some_reading
from tests.fakes import Answer, ScriptedSource, memory_spool, opened, sqlite_spool
from tests.patience import PATIENCE, patiently

SHOTS = Pace(min_delay=0.25, max_delay=5.0, max_in_flight=4)


def reading(outcome: str, expired: bool = False) -> ParsedPage:
    return ParsedPage(events=(), rejects=(), outcome=PollOutcome(outcome), expired=expired)


def walked(*outcomes: str, jitter: float = 1.0) -> list[tuple[float, int]]:
    pace, steps = SHOTS, []
    for outcome in outcomes:
        pace = next_pace(
            pace,
            reading(outcome.removesuffix("!"), outcome.endswith("!")),
            lambda: jitter,
            asked=0.0,
            now=0.0,
        )
        steps.append((pace.delay, pace.lanes))
    return steps


@pytest.mark.parametrize(
    ("outcomes", "steps"),
    [
        (["full"] * 5, [(0, 2), (0, 3), (0, 4), (0, 4), (0, 4)]),
        (["full", "full", "partial", "full"], [(0, 2), (0, 3), (0.25, 1), (0, 2)]),
        (["empty"] * 6, [(0.25, 1), (0.5, 1), (1, 1), (2, 1), (4, 1), (5, 1)]),
        (["empty", "empty", "partial", "empty"], [(0.25, 1), (0.5, 1), (0.25, 1), (0.5, 1)]),
        (["failed"] * 6, [(5, 1), (10, 1), (20, 1), (40, 1), (60, 1), (60, 1)]),
        (["throttled", "uncertain", "empty", "failed"], [(5, 1), (10, 1), (0.25, 1), (5, 1)]),
        (["full", "full", "failed"], [(0, 2), (0, 3), (5, 1)]),
        (["refused!", "refused!", "empty"], [(0, 1), (5, 1), (0.25, 1)]),
        (["refused", "refused"], [(5, 1), (10, 1)]),
    ],
)
def test_the_pace_follows_what_the_platform_says(outcomes: list[str], steps: list[tuple[float, int]]) -> None:
    assert walked(*outcomes) == steps


def test_a_failing_poll_waits_with_full_jitter_and_never_under_the_least_delay() -> None:
    assert walked("failed", "failed", jitter=0.0) == [(0.25, 1), (0.25, 1)]
    assert walked("failed", jitter=0.5) == [(0.25 + 0.5 * 4.75, 1)]


def test_not_allowed_waits_five_seconds_also_where_the_source_is_quick() -> None:
    quick = Pace(min_delay=0.01, max_delay=0.1, max_in_flight=1)
    assert next_pace(quick, reading("refused"), lambda: 1.0, asked=0.0, now=0.0).delay == 5.0
    assert next_pace(quick, reading("failed"), lambda: 1.0, asked=0.0, now=0.0).delay == pytest.approx(0.1)


Scenario = Callable[[Intake, SpoolAdmin, Journal], Awaitable[None]]


def tell(
    folder: Path, source: ScriptedSource, scenario: Scenario, spool: SpoolAdmin | None = None
) -> Metrics:
    metrics = Metrics()

    async def run_scenario() -> None:
        async with AsyncExitStack() as stack:
            own, journal = await opened(stack, folder, spool or sqlite_spool(folder))
            await own.attach("sink", anything)
            intake = Intake(source, own, journal, metrics=metrics, clock=Clock())
            await scenario(intake, own, journal)

    asyncio.run(patiently(run_scenario()))
    return metrics


def polls(metrics: Metrics, outcome: str) -> float:
    return (
        metrics.registry.get_sample_value(
            "poller_polls_total", {"account": "main", "source": "shots", "outcome": outcome}
        )
        or 0.0
    )


async def until_exhausted(intake: Intake, source: ScriptedSource) -> None:
    running = asyncio.ensure_future(intake.run())
    await source.exhausted.wait()
    intake.stop()
    await running


def test_every_message_of_every_answer_reaches_the_spool(tmp_path: Path) -> None:
    source = ScriptedSource([{"events": [1, 2, 3], "outcome": "full"}, {"events": [4]}, {"events": [5, 6]}])

    async def scenario(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        await until_exhausted(intake, source)
        assert (await spool.claim("sink", 10)).events == tuple(some_event(n) for n in range(1, 7))
        assert journal.bytes_held == 0
        origins = [await spool.origin(number) for number in (1, 4, 5)]
        asked = [origin.asked_at for origin in origins if origin is not None and origin.asked_at is not None]
        assert began <= asked[0] < asked[1] < asked[2] <= datetime.now(UTC)

    began = datetime.now(UTC)
    metrics = tell(tmp_path, source, scenario)
    assert polls(metrics, "full") == 1
    assert metrics.registry.get_sample_value("poller_events_total", {"kind": "screenshot"}) == 6


def test_a_bug_in_the_reader_ends_in_quarantine_and_polling_goes_on(tmp_path: Path) -> None:
    source = ScriptedSource([{"raises": True, "events": [1]}, {"events": [2]}])

    async def scenario(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        await until_exhausted(intake, source)
        reject = (await spool.quarantined(10))[0].reject
        assert b'"events": [1]' in reject.body
        assert "KeyError" in reject.reason
        assert (await spool.claim("sink", 10)).events == (some_event(2),)
        assert journal.bytes_held == 0

    metrics = tell(tmp_path, source, scenario)
    assert polls(metrics, "failed") == 1
    assert metrics.registry.get_sample_value("poller_quarantined_total") == 1


def test_stopping_waits_for_the_poll_in_flight_and_commits_its_answer(tmp_path: Path) -> None:
    source = ScriptedSource([{"events": [1, 2]}])

    async def scenario(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        source.hold = asyncio.Event()
        running = asyncio.ensure_future(intake.run())
        await source.begun.wait()
        intake.stop()
        await asyncio.sleep(0.05)
        assert not running.done()
        source.hold.set()
        await running
        assert source.cancelled == 0
        assert (await spool.claim("sink", 10)).events == (some_event(1), some_event(2))

    tell(tmp_path, source, scenario)


def test_a_cancelled_intake_still_keeps_the_answer_of_the_poll_in_flight(tmp_path: Path) -> None:
    """What a crash of another part does: everything is cancelled, and the answer is in the journal at least."""
    source = ScriptedSource([{"events": [1, 2]}])

    async def scenario(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        source.hold = asyncio.Event()
        running = asyncio.ensure_future(intake.run())
        await source.begun.wait()
        for _ in range(3):
            running.cancel()
            await asyncio.sleep(0.01)
        source.hold.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert source.cancelled == 0
        assert source.answered == 1

    tell(tmp_path, source, scenario)

    async def again(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        if left_over := journal.take_leftovers():
            await intake._recover(left_over)
        assert (await spool.claim("sink", 10)).events == (some_event(1), some_event(2))

    tell(tmp_path, ScriptedSource(), again)


def test_full_answers_open_lanes_up_to_the_limit(tmp_path: Path) -> None:
    source = ScriptedSource(
        [{"events": [n], "outcome": "full"} for n in range(60)],
        lanes=3,
        min_delay=0.01,
        max_delay=0.01,
        latency=0.01,
    )

    async def scenario(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        await until_exhausted(intake, source)
        assert {e.id for e in (await spool.claim("sink", 100)).events} == {
            some_event(n).id for n in range(60)
        }

    tell(tmp_path, source, scenario)
    assert source.most_in_flight == 3


def test_pages_left_in_the_journal_are_read_in_before_the_first_poll(tmp_path: Path) -> None:
    body = b'{"events": [8, 9], "remember": true}'
    left = [
        (n, RawPage(source="shots", received_at=START, status=200, encoding="", whole=True, body=body))
        for n in (1, 2)
    ]
    source = ScriptedSource([{"events": [1], "remember": True}])

    async def scenario(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        numbers = []
        for _, page in left:
            await journal.room()
            numbers.append(await journal.keep(page))
        left_over = [(number, page) for number, (_, page) in zip(numbers, left, strict=True)]
        running = asyncio.ensure_future(intake.run(left_over))
        await source.exhausted.wait()
        intake.stop()
        await running
        batch = await spool.claim("sink", 10)
        assert batch.events == (some_event(8), some_event(9), some_event(1))
        assert await spool.memory("shots") == {"": b"..."}
        assert journal.bytes_held == 0
        left_over_event, polled = await spool.origin(1), await spool.origin(3)
        assert left_over_event is not None
        assert left_over_event.asked_at is None, "nobody knows when a page of the journal was asked for"
        assert polled is not None
        assert polled.asked_at is not None

    tell(tmp_path, source, scenario)


class FullSpool:
    """A real spool whose disk is full while `full` is set."""

    def __init__(self, spool: SpoolAdmin, error: type[StorageError] = StorageFull) -> None:
        self._spool = spool
        self._error = error
        self.full = False
        self.refused = asyncio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._spool, name)

    async def __aenter__(self) -> "FullSpool":
        await self._spool.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._spool.__aexit__(None, None, None)

    def _check(self) -> None:
        if self.full:
            self.refused.set()
            raise self._error("spool: disk full")

    async def check_writable(self) -> None:
        self._check()
        await self._spool.check_writable()

    async def append(self, source: str, readings: Sequence[ParsedPage]) -> Counter[str]:
        self._check()
        return await self._spool.append(source, readings)


async def full_between_get_and_commit(
    intake: Intake, source: ScriptedSource, spool: FullSpool
) -> asyncio.Task[None]:
    """Begin to poll; the spool takes nothing any more by the time the first answer is there."""
    source.hold = asyncio.Event()
    running = asyncio.create_task(intake.run())
    await source.begun.wait()
    spool.full = True
    source.hold.set()
    return running


def test_nothing_is_polled_before_the_spool_is_proven_and_polling_begins_by_itself(tmp_path: Path) -> None:
    source = ScriptedSource([{"events": [1]}])
    spool = FullSpool(sqlite_spool(tmp_path))

    async def scenario(intake: Intake, own: SpoolAdmin, journal: Journal) -> None:
        spool.full = True
        running = asyncio.ensure_future(intake.run())
        await spool.refused.wait()
        await asyncio.sleep(0.05)
        assert source.fetches == 0
        assert intake.trouble == "spool: disk full"
        spool.full = False
        await source.exhausted.wait()
        assert intake.trouble is None
        intake.stop()
        await running

    tell(tmp_path, source, scenario, spool)  # type: ignore[arg-type]


def test_a_disk_that_fills_between_get_and_commit_loses_nothing_and_pauses_polling(tmp_path: Path) -> None:
    source = ScriptedSource([{"events": [1, 2]}, {"events": [3]}])
    spool = FullSpool(sqlite_spool(tmp_path))

    async def scenario(intake: Intake, own: SpoolAdmin, journal: Journal) -> None:
        running = await full_between_get_and_commit(intake, source, spool)
        await spool.refused.wait()
        fetches = source.fetches
        await asyncio.sleep(0.1)
        assert source.fetches <= fetches + 1  # one lane may have begun before the commit failed
        assert journal.bytes_held > 0
        spool.full = False
        await source.exhausted.wait()
        intake.stop()
        await running
        assert {e.id for e in (await own.claim("sink", 10)).events} == {some_event(n).id for n in (1, 2, 3)}

    tell(tmp_path, source, scenario, spool)  # type: ignore[arg-type]


def test_stopping_on_a_full_disk_leaves_the_page_to_the_journal(tmp_path: Path) -> None:
    source = ScriptedSource([{"events": [1, 2]}])
    spool = FullSpool(sqlite_spool(tmp_path))

    async def scenario(intake: Intake, own: SpoolAdmin, journal: Journal) -> None:
        running = await full_between_get_and_commit(intake, source, spool)
        await spool.refused.wait()
        intake.stop()
        await running
        assert journal.bytes_held > 0

    tell(tmp_path, source, scenario, spool)  # type: ignore[arg-type]

    async def again(intake: Intake, own: SpoolAdmin, journal: Journal) -> None:
        assert await intake._recover(journal.take_leftovers())
        assert (await own.claim("sink", 10)).events == (some_event(1), some_event(2))

    tell(tmp_path, ScriptedSource(), again)


def test_what_a_stopped_intake_could_not_commit_its_successor_takes(tmp_path: Path) -> None:
    """In the same process: a reload must not wait for a restart."""
    source = ScriptedSource([{"events": [1, 2]}])
    spool = FullSpool(sqlite_spool(tmp_path))

    async def scenario(intake: Intake, own: SpoolAdmin, journal: Journal) -> None:
        running = await full_between_get_and_commit(intake, source, spool)
        await spool.refused.wait()
        intake.stop()
        await running
        ((number, page),) = journal.take_leftovers("shots")
        assert b"[1, 2]" in page.body
        journal.hand_back({number: page})
        assert journal.take_leftovers("others") == []

    tell(tmp_path, source, scenario, spool)  # type: ignore[arg-type]


def test_a_broken_spool_ends_the_process_and_the_page_waits_in_the_journal(tmp_path: Path) -> None:
    source = ScriptedSource([{"events": [1, 2]}])
    spool = FullSpool(sqlite_spool(tmp_path), StorageError)

    async def scenario(intake: Intake, own: SpoolAdmin, journal: Journal) -> None:
        running = await full_between_get_and_commit(intake, source, spool)
        with pytest.raises(ExceptionGroup) as raised:
            await running
        assert raised.group_contains(StorageError)

    tell(tmp_path, source, scenario, spool)  # type: ignore[arg-type]

    async def again(intake: Intake, own: SpoolAdmin, journal: Journal) -> None:
        assert await intake._recover(journal.take_leftovers())
        assert (await own.claim("sink", 10)).events == (some_event(1), some_event(2))

    tell(tmp_path, ScriptedSource(), again)


@pytest.mark.parametrize("steps", range(12))
def test_a_broken_spool_ends_polling_in_whatever_moment_the_next_poll_is(tmp_path: Path, steps: int) -> None:
    """Also where that poll ends in the very step of the loop in which polling is broken off."""

    class SlowSource(ScriptedSource):
        destructive = False

        async def fetch(self) -> RawPage:
            for _ in range(steps):
                await asyncio.sleep(0)
            return await super().fetch()

    source = SlowSource([{"events": [1, 2]}])
    spool = FullSpool(sqlite_spool(tmp_path), StorageError)
    found: list[tuple[int, bool]] = []

    async def scenario(intake: Intake, own: SpoolAdmin, journal: Journal) -> None:
        running = await full_between_get_and_commit(intake, source, spool)
        ended, _ = await asyncio.wait({running}, timeout=PATIENCE / 2)
        intake.stop()  # the one that polls on
        found.append((len(ended), source.fetches < 10))
        with pytest.raises(ExceptionGroup) as raised:
            await running
        assert raised.group_contains(StorageError)

    tell(tmp_path, source, scenario, spool)  # type: ignore[arg-type]
    assert found == [(1, True)]


def test_a_journal_that_fails_hands_its_page_to_the_spool_and_ends_the_process(tmp_path: Path) -> None:
    source = ScriptedSource([{"events": [1, 2]}])

    async def scenario(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        async def fails(page: RawPage) -> int:
            journal.cancel_room()
            raise StorageError("journal: fsync failed")

        journal.keep = fails  # type: ignore[method-assign]
        with pytest.raises(StorageError):
            await intake.run()
        assert (await spool.claim("sink", 10)).events == (some_event(1), some_event(2))

    tell(tmp_path, source, scenario)
    assert source.fetches == 1


def test_what_never_left_this_machine_is_a_failure_and_takes_no_room(tmp_path: Path) -> None:
    source = ScriptedSource([{"not_sent": True}, {"silent": True}, {"events": [1]}])

    async def scenario(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        for _ in range(3):
            await intake.step()
        assert journal._reserved == 0

    metrics = tell(tmp_path, source, scenario)
    assert (polls(metrics, "failed"), polls(metrics, "uncertain"), polls(metrics, "partial")) == (1, 1, 1)


def test_a_slow_consumer_pauses_polling_on_a_spool_in_memory(tmp_path: Path) -> None:
    source = ScriptedSource([{"events": [n], "outcome": "full"} for n in range(50)])

    async def scenario(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        running = asyncio.ensure_future(intake.run())
        while intake.trouble is None:
            await asyncio.sleep(0.01)
        assert source.fetches < 50
        intake.stop()
        await running

    tell(tmp_path, source, scenario, memory_spool(max_events=5))


def test_the_readings_of_one_page_are_some_reading() -> None:
    assert some_reading(1).events == (some_event(1),)


def test_a_reading_that_changes_only_a_memory_is_committed(tmp_path: Path) -> None:
    source = ScriptedSource([{"remember": True, "outcome": "empty"}, {"about": "hall", "remember": True}])

    async def scenario(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        await until_exhausted(intake, source)
        assert await spool.memory("shots") == {"": b".", "hall": b"."}
        assert journal.bytes_held == 0

    tell(tmp_path, source, scenario)

    more = ScriptedSource([{"remember": True}, {"about": "hall", "remember": True}, {"remember": True}])

    async def again(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        await until_exhausted(intake, more)
        assert await spool.memory("shots") == {"": b"...", "hall": b".."}

    tell(tmp_path, more, again)


def test_pages_that_can_be_asked_for_again_do_not_go_through_the_journal(tmp_path: Path) -> None:
    script: list[Answer] = [{"events": [n]} for n in range(40)]
    source = ScriptedSource([*script, {"not_sent": True}, {"silent": True}])
    source.destructive = False

    async def scenario(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        for _ in range(7):  # no room is left: 32 MiB hold seven of the largest pages
            if not journal._fits(journal._reserved + 1):
                break
            await journal.room()
        before = journal._next_number
        async with asyncio.timeout(PATIENCE):
            await until_exhausted(intake, source)
        assert journal._next_number == before
        assert (await spool.claim("sink", 100)).events == tuple(some_event(n) for n in range(40))

    tell(tmp_path, source, scenario)


# ---------------------------------------------------------------- the beat


class SetClock(Clock):
    """A clock that a test sets; the rest is the machine's."""

    at = 1_000.0

    def monotonic(self) -> float:
        return self.at


def test_the_beat_is_learned_by_the_times_of_the_polls_not_of_their_answers(tmp_path: Path) -> None:
    clock = SetClock()

    class SlowSource(ScriptedSource):
        beat: float | None = 10.0

        async def fetch(self) -> RawPage:
            page = await super().fetch()
            clock.at += 0.2
            return page

    source = SlowSource([{"outcome": "empty"}, {"events": [1, 2, 3, 4]}, {"outcome": "empty"}])
    source.min_delay, source.max_delay = 0.25, 5.0

    async def run_scenario() -> None:
        async with AsyncExitStack() as stack:
            spool, journal = await opened(stack, tmp_path, sqlite_spool(tmp_path))
            intake = Intake(source, spool, journal, metrics=Metrics(), clock=clock)
            assert (intake.beat_known, intake.next_poll) == (False, 0.0)
            for at in (1_002.0, 1_002.24, 1_011.0):
                clock.at = at
                await intake.step()
            beat = intake._pace.beat
            assert beat is not None
            assert [number for number, count in enumerate(beat.bins) if count] == [8]
            assert intake.beat_known
            assert clock.at + intake.next_poll == pytest.approx(1_012.3, abs=0.3)

    asyncio.run(patiently(run_scenario()))


def test_a_source_without_a_beat_learns_nothing(tmp_path: Path) -> None:
    source = ScriptedSource([{"events": [1]}])

    async def scenario(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        await until_exhausted(intake, source)
        assert intake._pace.beat is None
        assert intake.beat_known is None

    tell(tmp_path, source, scenario)


# ---------------------------------------------------------------- answers that come to nothing


SPOILED = ParsedPage(events=(), rejects=(), outcome=PollOutcome.UNCERTAIN)
BLANK = ParsedPage(events=(), rejects=(), outcome=PollOutcome.FAILED, blank=True)
SALVAGED = ParsedPage(events=(some_event(1),), rejects=(), outcome=PollOutcome.UNCERTAIN)
QUEUE = Pace(min_delay=0.25, max_delay=5.0, max_in_flight=4, destructive=True)


def polled_at(
    readings: Sequence[ParsedPage], jitter: float, pace: Pace = QUEUE, in_flight: int = 1
) -> list[float]:
    """When polls are made whose answers come at once, the first `in_flight` of them together."""
    times, now = [0.0] * in_flight, 0.0
    for number, reading in enumerate(readings):
        pace = next_pace(pace, reading, lambda: jitter, asked=0.0, now=0.0)
        if number >= in_flight - 1:
            now += pace.delay
            times.append(now)
    return times


@pytest.mark.parametrize("jitter", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("in_flight", [1, 2, 4])
def test_where_every_answer_is_spoiled_four_pages_are_lost_in_a_minute_and_one_in_each_later_one(
    jitter: float, in_flight: int
) -> None:
    times = polled_at([SPOILED, BLANK] * 15, jitter, in_flight=in_flight)
    for minute in range(25):
        within = [time for time in times if minute * 60 <= time < (minute + 1) * 60]
        assert len(within) <= (1 if minute else 4), (minute, times)
    assert len(times) >= 20


def test_only_a_good_answer_ends_the_polls_once_a_minute() -> None:
    pace = QUEUE
    for outcome in [SPOILED, reading("failed"), SPOILED, reading("refused"), SPOILED]:
        assert not pace.careful
        pace = next_pace(pace, outcome, lambda: 0.0, asked=0.0, now=0.0)
    for outcome in [reading("failed"), reading("throttled"), SALVAGED, SPOILED]:
        pace = next_pace(pace, outcome, lambda: 0.0, asked=0.0, now=0.0)
        assert (pace.careful, pace.delay, pace.lanes) == (True, 60.0, 1)
    pace = next_pace(pace, reading("empty"), lambda: 0.0, asked=0.0, now=0.0)
    assert (pace.careful, pace.delay) == (False, 0.25)


@pytest.mark.parametrize("outcome", [SALVAGED, reading("failed"), reading("throttled"), reading("refused")])
def test_what_brought_messages_or_the_platform_s_word_is_no_poll_that_came_to_nothing(
    outcome: ParsedPage,
) -> None:
    assert not any(time >= 60 for time in polled_at([outcome] * 8, 0.0))


def test_a_source_that_removes_nothing_is_asked_as_often_as_before() -> None:
    assert not any(time >= 60 for time in polled_at([SPOILED] * 8, 0.0, SHOTS))


@pytest.mark.parametrize("latency", [0.0, 0.02])
def test_a_source_that_fails_has_one_lane_and_those_in_flight_count(tmp_path: Path, latency: float) -> None:
    good: list[Answer] = [{"events": [n], "outcome": "full"} for n in range(40)]
    source = ScriptedSource(
        good + [{"silent": True}] * 20, lanes=4, min_delay=0.001, max_delay=0.001, latency=latency
    )

    async def scenario(intake: Intake, spool: SpoolAdmin, journal: Journal) -> None:
        running = asyncio.ensure_future(intake.run())
        while not intake.brought_nothing:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        assert len(good) + 3 <= source.fetches <= len(good) + 4
        assert source.in_flight == 0
        assert intake.brought_nothing == source.fetches - len(good)
        intake.stop()
        await running

    tell(tmp_path, source, scenario)
