"""The ports' contracts as tests: subclass one in your own pytest file, say how to build the adapter, and run it.

```python
class TestMySink(SinkContract):
    @asynccontextmanager
    async def world(self, folder):
        ...
        yield SinkWorld(sink=sink, arrived=..., breaks=..., mends=...)
```
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from poller.catalogue import Stream
from poller.clock import Clock
from poller.errors import StorageLocked
from poller.model import (
    Batch,
    Choice,
    Dead,
    Delivery,
    Done,
    Event,
    PollOutcome,
    Reading,
    Reject,
    Retry,
    batch_id,
    identity,
    new_event,
)
from poller.ports import Sink, Spool

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class ToldClock(Clock):
    """A clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self._passed = 0.0

    def now(self) -> datetime:
        """The start, and what has passed since."""
        return START + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        """Seconds passed."""
        return self._passed

    def pass_time(self, seconds: float) -> None:
        """Move on."""
        self._passed += seconds


def some_event(number: int, *, stream: str = "room", url: str | None = None, account: str = "main") -> Event:
    """An event like the platform's; the same number is the same event."""
    name = f"{stream}_1700000000_1700000000_{number * 10}_300_169.jpg"
    return new_event(
        id=identity("screenshot", account, name),
        kind="screenshot",
        account=account,
        stream_id=stream,
        occurred_at=START + timedelta(seconds=10 * number),
        received_at=START + timedelta(seconds=10 * number + 1),
        url=url or f"http://shots-1250000000.file.myqcloud.com/{name}",
        fields={"file_name": name, "width": 300, "height": 169},
        message=msgspec.Raw(b'{"stream_id":"%s","pic_url":"%s"}' % (stream.encode(), name.encode())),
    )


def some_change(number: int, state: str, *, stream: str = "room", seen_by: str = "channel_status") -> Event:
    """A change of a channel's state, at the moment of `some_event` of that number."""
    at = START + timedelta(seconds=10 * number)
    return new_event(
        id=identity("channel", "main", f"{stream}{number}{state}{seen_by}"),
        kind="channel",
        account="main",
        stream_id=stream,
        occurred_at=at,
        received_at=at,
        url=None,
        fields={"state": state, "seen_by": seen_by},
        message=msgspec.Raw(b"{}"),
    )


def some_recording(file_id: str | None, vid: str | None) -> Event:
    """A recorded segment that was told with these; its id is that of the first of them."""
    return new_event(
        id=identity("recording", "main", file_id or vid or ""),
        kind="recording",
        account="main",
        stream_id="room",
        occurred_at=START,
        received_at=START,
        url=None,
        fields={"vid": vid, "file_id": file_id},
        message=msgspec.Raw(b"{}"),
    )


def some_reading(
    *numbers: int, rejects: Sequence[Reject] = (), memory: bytes = b"", stream: str = "room", about: str = ""
) -> Reading:
    """A reading with these events."""
    return Reading(
        events=tuple(some_event(number, stream=stream) for number in numbers),
        rejects=tuple(rejects),
        outcome=PollOutcome.PARTIAL,
        memory=memory,
        about=about,
    )


def some_batch(*events: Event, sink: str = "sink", attempt: int = 1) -> Batch:
    """A batch as a courier would hand it to a sink."""
    return Batch(
        id=batch_id([event.id for event in events]),
        sink=sink,
        deliveries=tuple(Delivery(event=event, sink=sink, attempt=attempt) for event in events),
        attempt=attempt,
    )


def anything(event: Event) -> bool:
    """A sink that wants every event."""
    return True


def _done(batch: Batch) -> list[Done]:
    return [Done()] * len(batch.deliveries)


async def _claims_nothing(spool: Spool, sink: str) -> bool:
    claim = asyncio.ensure_future(spool.claim(sink, 10))
    for _ in range(5):
        await asyncio.sleep(0)
    if claim.done():
        return False
    claim.cancel()
    return True


_FOUR = (*(some_event(n) for n in range(3)), some_event(3, stream="hall"))


async def _two_sinks_with_dead_letters(spool: Spool, clock: ToldClock) -> None:
    """`_FOUR` dead for `a`: two for one reason, ten seconds later two for another; then the first dead for `b`."""
    await spool.attach("a", anything)
    await spool.attach("b", anything)
    await spool.append("source", [Reading(events=_FOUR, rejects=(), outcome=PollOutcome.PARTIAL)])
    for reason in ("HTTP 422", "too old"):
        batch = await spool.claim("a", 2)
        await spool.settle(batch, [Dead(reason=reason)] * 2)
        clock.pass_time(10)
    batch = await spool.claim("b", 4)
    await spool.settle(batch, [Dead(reason="gone"), Done(), Done(), Done()])


def _reject(number: int) -> Reject:
    """One that came so many seconds after the start."""
    at = START + timedelta(seconds=number)
    return Reject(received_at=at, reason=f"reason {number}", encoding="", body=b"%d\xff" % number)


class SpoolContract:
    """What every spool promises. `open` builds one over `folder`; the same folder is the same spool."""

    def open(self, folder: Path, clock: Clock) -> Spool:
        """Build a spool, not entered."""
        raise NotImplementedError

    def _run(self, folder: Path, story: Callable[[Spool, ToldClock], Awaitable[None]]) -> None:
        clock = ToldClock()

        async def told() -> None:
            async with self.open(folder, clock) as spool:
                await story(spool, clock)

        asyncio.run(asyncio.wait_for(told(), 30))

    def test_what_is_appended_is_claimed_in_order(self, tmp_path: Path) -> None:
        """Events come out in the order in which they went in, in batches of up to the limit."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            assert (await spool.append("source", [some_reading(1, 2), some_reading(3, 4, 5)])).total() == 5
            first, second = await spool.claim("a", 3), await spool.claim("a", 3)
            assert first.events == tuple(some_event(n) for n in (1, 2, 3))
            assert second.events == tuple(some_event(n) for n in (4, 5))
            assert {d.attempt for d in first.deliveries} == {1}
            assert first.id != second.id
            assert first.first_attempt_at is None

        self._run(tmp_path, story)

    def test_an_id_seen_before_changes_nothing(self, tmp_path: Path) -> None:
        """Twins in one reading, in one append and in a later one are stored once."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            assert (await spool.append("source", [some_reading(1, 1, 2), some_reading(2, 3)])).total() == 3
            assert (await spool.append("source", [some_reading(3, 2, 1)])).total() == 0
            assert [e.id for e in (await spool.claim("a", 10)).events] == [
                some_event(n).id for n in (1, 2, 3)
            ]
            assert await _claims_nothing(spool, "a")

        self._run(tmp_path, story)

    def test_a_new_sink_starts_at_now(self, tmp_path: Path) -> None:
        """What was appended before a sink was known is not owed to it."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("old", anything)
            await spool.append("source", [some_reading(1)])
            await spool.attach("new", anything)
            await spool.append("source", [some_reading(2)])
            assert (await spool.claim("new", 10)).events == (some_event(2),)
            assert (await spool.claim("old", 10)).events == (some_event(1), some_event(2))

        self._run(tmp_path, story)

    def test_a_claim_wakes_when_something_is_appended(self, tmp_path: Path) -> None:
        """A waiting claim gets the next event, without polling."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            claim = asyncio.ensure_future(spool.claim("a", 10))
            await asyncio.sleep(0)
            await spool.append("source", [some_reading(7)])
            assert (await claim).events == (some_event(7),)

        self._run(tmp_path, story)

    def test_a_cancelled_claim_has_taken_nothing(self, tmp_path: Path) -> None:
        """After a cancelled wait, the event goes to the next claim."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            assert await _claims_nothing(spool, "a")
            await spool.append("source", [some_reading(1)])
            assert (await spool.claim("a", 10)).events == (some_event(1),)

        self._run(tmp_path, story)

    def test_a_claim_that_lingers_fills_its_batch(self, tmp_path: Path) -> None:
        """With `linger`, a batch that is not full waits for more, and goes when it is full."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1)])
            claim = asyncio.ensure_future(spool.claim("a", 2, 20.0))
            await asyncio.sleep(0.01)
            assert not claim.done()
            await spool.append("source", [some_reading(2)])
            assert (await claim).events == (some_event(1), some_event(2))
            await spool.append("source", [some_reading(3)])
            assert (await spool.claim("a", 2, 0.01)).events == (some_event(3),)

        self._run(tmp_path, story)

    def test_what_is_done_is_not_owed_any_more(self, tmp_path: Path) -> None:
        """Settled deliveries leave the backlog, whatever order batches are settled in."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(*range(10))])
            batches = [await spool.claim("a", 3) for _ in range(4)]
            assert (await spool.backlog("a")).events == 10
            for batch in reversed(batches):
                await spool.settle(batch, _done(batch))
            backlog = await spool.backlog("a")
            assert (backlog.events, backlog.retrying, backlog.oldest) == (0, 0, None)
            assert await _claims_nothing(spool, "a")

        self._run(tmp_path, story)

    def test_a_retry_comes_back_when_it_is_due_with_the_same_members(self, tmp_path: Path) -> None:
        """The batch keeps its id and members; its attempt counts on."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2)])
            batch = await spool.claim("a", 2)
            await spool.settle(batch, [Retry(after=60, reason="no")] * 2)
            assert await _claims_nothing(spool, "a")
            assert (await spool.backlog("a")).retrying == 2
            clock.pass_time(60)
            await spool.append("source", [some_reading(3)])
            again = await spool.claim("a", 1)
            assert (again.id, again.events, again.attempt) == (batch.id, batch.events, 2)
            assert again.first_attempt_at == START
            assert {d.attempt for d in again.deliveries} == {2}

        self._run(tmp_path, story)

    def test_a_partial_failure_keeps_only_what_failed(self, tmp_path: Path) -> None:
        """Of a batch, the done are done, the dead are dead letters, the rest comes again together."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2, 3, 4)])
            batch = await spool.claim("a", 4)
            retry = Retry(after=5, reason="again")
            await spool.settle(batch, [Done(), retry, Dead(reason="never"), retry])
            (letter,) = await spool.dead(10)
            assert (letter.event, letter.sink, letter.reason) == (some_event(3), "a", "never")
            clock.pass_time(5)
            again = await spool.claim("a", 10)
            assert again.events == (some_event(2), some_event(4))
            assert (await spool.backlog("a")).dead == 1

        self._run(tmp_path, story)

    def test_a_dead_letter_tells_its_history(self, tmp_path: Path) -> None:
        """Every failed attempt is there with its reason, oldest first."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1)])
            await spool.settle(await spool.claim("a", 1), [Retry(after=3, reason="first")])
            clock.pass_time(3)
            await spool.settle(await spool.claim("a", 1), [Dead(reason="second")])
            (letter,) = await spool.dead(10, Choice(of="a"))
            assert [(a.at, a.reason) for a in letter.history] == [
                (START, "first"),
                (START + timedelta(seconds=3), "second"),
            ]
            assert (letter.attempts, letter.first_attempt_at) == (2, START)
            assert letter.died_at == START + timedelta(seconds=3)
            assert await spool.dead(10, Choice(of="b")) == []

        self._run(tmp_path, story)

    def test_a_split_batch_is_settled_half_by_half(self, tmp_path: Path) -> None:
        """Halves are batches of their own, fresh or from a retry."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2, 3)])
            for halves in (1, 2):
                batch = await spool.claim("a", 10)
                parts = await spool.split(batch)
                assert sum((part.events for part in parts), ()) == batch.events
                assert len(parts) == 2
                await spool.settle(parts[0], _done(parts[0]))
                await spool.settle(parts[1], [Retry(after=0, reason="no")] * len(parts[1].deliveries))
                assert (await spool.backlog("a")).events == 3 - halves
            last = await spool.claim("a", 10)
            assert (last.events, last.attempt, last.id) == ((some_event(3),), 3, some_event(3).id)

        self._run(tmp_path, story)

    def test_an_ordered_sink_gets_each_stream_in_order_and_streams_in_parallel(self, tmp_path: Path) -> None:
        """What is in hand or waits for its retry holds its own stream, and no other; a dead letter lets it go."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything, ordered=True)
            for readings in (some_reading(1, 2, 3), some_reading(4, 5, stream="hall"), some_reading(6)):
                await spool.append("source", [readings])
            room, hall = await spool.claim("a", 1), await spool.claim("a", 1)
            assert (room.events, hall.events) == ((some_event(1),), (some_event(4, stream="hall"),))
            assert await _claims_nothing(spool, "a")
            await spool.settle(room, [Retry(after=5, reason="no")])
            await spool.settle(hall, [Done()])
            hall = await spool.claim("a", 1)
            assert hall.events == (some_event(5, stream="hall"),)
            assert await _claims_nothing(spool, "a")
            assert (await spool.backlog("a")).events == 5
            clock.pass_time(5)
            room = await spool.claim("a", 9)
            assert (room.events, room.attempt) == ((some_event(1),), 2)
            await spool.settle(room, [Dead(reason="bad")])
            room = await spool.claim("a", 2)
            assert (room.events, room.attempt) == ((some_event(2), some_event(3)), 1)
            assert room.first_attempt_at is None
            claim = asyncio.ensure_future(spool.claim("a", 9))
            await asyncio.sleep(0.01)
            await spool.settle(room, _done(room))
            assert (await claim).events == (some_event(6),)

        self._run(tmp_path, story)

    def test_an_ordered_sink_gets_again_what_was_done_behind_a_retry(self, tmp_path: Path) -> None:
        """Of the same stream and batch; another stream's event stays done, a dead one dead."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append(
                "source", [some_reading(1, 2), some_reading(3, stream="hall"), some_reading(4, 5)]
            )
            batch = await spool.claim("a", 9)
            retry = Retry(after=0, reason="no")
            await spool.settle(batch, [Done(), retry, Done(), Dead(reason="bad"), Done()])
            assert (await spool.claim("a", 9)).events == (some_event(2), some_event(5))
            assert (await spool.backlog("a")).events == 2
            assert [letter.event for letter in await spool.dead(9)] == [some_event(4)]

        self._run(tmp_path, story)

    def test_halves_of_an_ordered_sinks_batch_go_out_one_after_the_other(self, tmp_path: Path) -> None:
        """Where they share a stream, whichever is settled first, and the stream's next event after both."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(*range(1, 5))])
            halves = await spool.split(await spool.claim("a", 4))
            await spool.append("source", [some_reading(5)])
            for half in reversed(halves):
                await spool.settle(half, [Retry(after=0, reason="no")] * 2)
            for expected in (halves[0].events, halves[1].events, (some_event(5),)):
                batch = await spool.claim("a", 9)
                assert batch.events == expected
                assert await _claims_nothing(spool, "a")
                await spool.settle(batch, _done(batch))
            assert (await spool.backlog("a")).events == 0

        self._run(tmp_path, story)

    def test_events_of_no_stream_have_no_order(self, tmp_path: Path) -> None:
        """They hold each other back as little as two streams do."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2, stream="")])
            await spool.settle(await spool.claim("a", 1), [Retry(after=5, reason="no")])
            assert (await spool.claim("a", 9)).events == (some_event(2, stream=""),)

        self._run(tmp_path, story)

    def test_what_waits_for_its_stream_is_bounded(self, tmp_path: Path) -> None:
        """Behind 10,000 events nothing fresh is taken until the stream is let go; then all come, in order."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(0)])
            first = await spool.claim("a", 100)
            for start in range(1, 12_001, 1000):
                await spool.append("source", [some_reading(*range(start, start + 1000))])
            assert await _claims_nothing(spool, "a")
            await spool.append("source", [some_reading(1, stream="hall")])
            assert await _claims_nothing(spool, "a")
            assert (await spool.backlog("a")).events == 12_002
            await spool.settle(first, [Done()])
            got: list[Event] = []
            while (await spool.backlog("a")).events:
                batch = await spool.claim("a", 100)
                got += batch.events
                await spool.settle(batch, _done(batch))
            assert [e.id for e in got if e.stream_id == "room"] == [
                some_event(n).id for n in range(1, 12_001)
            ]
            assert len(got) == 12_001

        self._run(tmp_path, story)

    def test_sinks_do_not_hold_each_other_back(self, tmp_path: Path) -> None:
        """One sink's claims and failures change nothing for another."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("stuck", anything)
            await spool.attach("quick", anything)
            for number in range(20):
                await spool.append("source", [some_reading(number)])
                batch = await spool.claim("quick", 10)
                await spool.settle(batch, _done(batch))
            assert (await spool.backlog("quick")).events == 0
            assert (await spool.backlog("stuck")).events == 20
            assert (await spool.backlog("stuck")).oldest == some_event(0).received_at

        self._run(tmp_path, story)

    def test_a_sink_gets_only_what_it_wants(self, tmp_path: Path) -> None:
        """Unwanted events are passed, and are not owed."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("odd", lambda event: event.occurred_at.second % 20 == 15)
            await spool.append("source", [some_reading(*range(6))])
            batch = await spool.claim("odd", 10)
            assert batch.events == tuple(some_event(n) for n in (1, 3, 5))
            await spool.settle(batch, _done(batch))
            assert (await spool.backlog("odd")).events == 0

        self._run(tmp_path, story)

    def test_rejects_are_kept_once_and_newest_first(self, tmp_path: Path) -> None:
        """Quarantine holds the bytes and the reason; reading a page in twice adds nothing."""
        rejects = [
            Reject(
                received_at=START + timedelta(seconds=n), reason=f"r{n}", encoding="", body=bytes([n, 255])
            )
            for n in range(3)
        ]

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.append("source", [some_reading(1, rejects=rejects)])
            await spool.append("source", [some_reading(1, rejects=rejects)])
            kept = await spool.quarantined(10)
            assert [one.reject for one in kept] == rejects[::-1]
            assert {one.source for one in kept} == {"source"}
            assert await spool.quarantine_size() == 3

        self._run(tmp_path, story)

    def test_dead_letters_are_chosen_by_what_is_known_of_them(self, tmp_path: Path) -> None:
        """By sink, part of the reason, stream, event, age and place; all that is asked for must hold."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await _two_sinks_with_dead_letters(spool, clock)
            ids = [event.id for event in _FOUR]
            for chosen, meant in (
                (Choice(of="a"), [3, 2, 1, 0]),
                (Choice(of="nobody"), []),
                (Choice(of="a", reason="o o"), [3, 2]),
                (Choice(of="a", stream="hall"), [3]),
                (Choice(of="a", ids=frozenset((ids[0], "0" * 32))), [0]),
                (Choice(of="a", before=START + timedelta(seconds=10)), [1, 0]),
                (Choice(of="a", since=START + timedelta(seconds=10)), [3, 2]),
                (Choice(of="a", reason="o o", stream="room"), [2]),
            ):
                found = await spool.dead(100, chosen)
                assert [ids.index(letter.event.id) for letter in found] == meant, chosen
            newest, *rest = await spool.dead(100)
            assert await spool.dead(100, Choice(below=newest.number)) == rest
            assert len(rest) == 4
            assert await spool.dead(2) == [newest, rest[0]]

        self._run(tmp_path, story)

    def test_a_dead_letter_that_is_retried_is_owed_again(self, tmp_path: Path) -> None:
        """At once, to its sink only, in batches of the size asked for, its attempts counted anew, its history kept."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await _two_sinks_with_dead_letters(spool, clock)
            numbers = [letter.number for letter in await spool.dead(100, Choice(of="a"))]
            others = [letter.number for letter in await spool.dead(100, Choice(of="b"))]
            assert await spool.retry_dead("a", [*numbers[1:], *others, 10**9], 2) == 3
            assert [letter.number for letter in await spool.dead(100)] == [*others, numbers[0]]
            assert (await spool.backlog("a")).events == (await spool.backlog("a")).retrying == 3
            assert ((await spool.backlog("a")).dead, (await spool.backlog("b")).dead) == (1, 1)
            assert await spool.retry_dead("a", numbers[1:], 2) == 0
            first, second = await spool.claim("a", 10), await spool.claim("a", 10)
            assert (first.events, second.events) == ((some_event(0), some_event(1)), (some_event(2),))
            assert (first.attempt, first.first_attempt_at) == (1, clock.now())
            await spool.settle(first, _done(first))
            await spool.settle(second, [Dead(reason="still")])
            letter = (await spool.dead(1))[0]
            assert [attempt.reason for attempt in letter.history] == ["too old", "still"]
            assert letter.number > max(numbers)
            assert (await spool.backlog("a")).events == 0

        self._run(tmp_path, story)

    def test_a_purged_dead_letter_is_gone(self, tmp_path: Path) -> None:
        """That one and no other; twice does nothing."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await _two_sinks_with_dead_letters(spool, clock)
            first, *rest = await spool.dead(100)
            assert await spool.purge_dead([first.number, rest[0].number]) == 2
            assert await spool.purge_dead([first.number]) == 0
            assert await spool.dead(100) == rest[1:]
            assert ((await spool.backlog("a")).dead, (await spool.backlog("b")).dead) == (3, 0)

        self._run(tmp_path, story)

    def test_rejects_are_chosen_by_what_is_known_of_them(self, tmp_path: Path) -> None:
        """By source, part of the reason, number, age and place; and purged by their numbers."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.append("one", [some_reading(rejects=[_reject(n) for n in range(3)])])
            await spool.append("two", [some_reading(rejects=[_reject(0)])])
            newest, third, second, first = await spool.quarantined(100)
            assert (newest.source, third.source, third.reject) == ("two", "one", _reject(2))
            for chosen, meant in (
                (Choice(of="one"), [third, second, first]),
                (Choice(reason="n 1"), [second]),
                (Choice(ids=frozenset((str(first.number), "x"))), [first]),
                (Choice(of="one", before=START + timedelta(seconds=1)), [first]),
                (Choice(since=START + timedelta(seconds=1)), [third, second]),
                (Choice(below=second.number), [first]),
            ):
                assert await spool.quarantined(100, chosen) == meant, chosen
            assert await spool.purge_quarantine([first.number, second.number, 10**9]) == 2
            assert await spool.quarantined(100) == [newest, third]

        self._run(tmp_path, story)

    def test_what_is_read_again_takes_the_rejects_place(self, tmp_path: Path) -> None:
        """Its events are owed, its own rejects kept, the source's memory untouched; once, whoever asks twice."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            await spool.append("one", [some_reading(1, memory=b"m", rejects=[_reject(n) for n in range(2)])])
            second, first = await spool.quarantined(100)
            readings = {first.number: some_reading(1, 2, rejects=[_reject(7)])}
            assert (await spool.read_again("two", readings)).total() == 0
            assert (await spool.read_again("one", readings)).total() == 1
            assert (await spool.read_again("one", {first.number: some_reading(3)})).total() == 0
            assert [one.reject for one in await spool.quarantined(100)] == [_reject(7), second.reject]
            assert (await spool.claim("a", 10)).events == (some_event(1), some_event(2))
            assert await spool.memory("one") == {"": b"m"}

        self._run(tmp_path, story)

    def test_dead_letters_and_quarantine_are_kept_for_30_days(self, tmp_path: Path) -> None:
        """By default, each from its own moment."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await _two_sinks_with_dead_letters(spool, clock)
            await spool.append("one", [some_reading(rejects=[_reject(n) for n in range(0, 100, 10)])])
            clock.pass_time(30 * 86400 - 15)
            while await spool.prune():
                pass
            assert [letter.event for letter in await spool.dead(100, Choice(of="a"))] == [_FOUR[3], _FOUR[2]]
            assert (await spool.backlog("a")).dead == 2
            assert {one.reject for one in await spool.quarantined(100)} == {
                _reject(n) for n in range(10, 100, 10)
            }

        self._run(tmp_path, story)

    def test_a_pause_by_the_operator_is_remembered(self, tmp_path: Path) -> None:
        """Until it is taken back."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            await spool.attach("b", anything)
            await spool.pause("a", True)
            await spool.pause("a", True)
            assert await spool.paused() == {"a"}
            await spool.pause("a", False)
            assert await spool.paused() == frozenset()

        self._run(tmp_path, story)

    def test_a_sources_memory_is_the_last_one_committed(self, tmp_path: Path) -> None:
        """Each source has its own, and one for each thing it asks about; an empty one is none."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            assert await spool.memory("one") == {}
            await spool.append("one", [some_reading(1, memory=b"x"), some_reading(2, memory=b"y")])
            await spool.append("two", [some_reading(3, memory=b"z")])
            assert (await spool.memory("one"), await spool.memory("two")) == ({"": b"y"}, {"": b"z"})
            more = [some_reading(memory=about.encode(), about=about) for about in ("a", "b", "a b")]
            await spool.append("one", more)
            assert await spool.memory("one") == {"": b"y", "a": b"a", "b": b"b", "a b": b"a b"}
            await spool.append("one", [some_reading(about="b"), some_reading(memory=b"A", about="a")])
            assert await spool.memory("one") == {"": b"y", "a": b"A", "a b": b"a b"}

        self._run(tmp_path, story)

    @pytest.mark.parametrize("ordered", [False, True])
    def test_a_sink_that_is_attached_anew_stays_where_it_was(self, tmp_path: Path, ordered: bool) -> None:
        """What was done is done, what waits for a retry waits, what was in hand is owed; other events are wanted."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything, ordered=ordered)
            for number in range(4):
                await spool.append("source", [some_reading(number, stream=f"room-{number}")])
            first, second, third = [await spool.claim("a", 1) for _ in range(3)]
            await spool.settle(first, _done(first))
            await spool.settle(second, [Retry(after=10, reason="no")])
            await spool.attach("a", lambda event: event.stream_id != "room-3", ordered=ordered)
            assert (await spool.claim("a", 9)).events == third.events
            assert await _claims_nothing(spool, "a")
            clock.pass_time(10)
            again = await spool.claim("a", 9)
            assert (again.events, again.attempt) == (second.events, 2)
            await spool.settle(again, _done(again))
            await spool.append("source", [some_reading(9)])
            assert (await spool.claim("a", 9)).events == (some_event(9),)

        self._run(tmp_path, story)

    def test_a_sink_that_is_detached_is_where_it_was_when_it_comes_back(self, tmp_path: Path) -> None:
        """It got nothing meanwhile, and misses nothing that is still there."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2)])
            batch = await spool.claim("a", 1)
            await spool.settle(batch, _done(batch))
            await spool.detach("a")
            await spool.append("source", [some_reading(3)])
            await spool.attach("a", anything)
            assert (await spool.claim("a", 9)).events == (some_event(2), some_event(3))

        self._run(tmp_path, story)

    def test_a_recording_is_stored_once_whether_it_was_told_by_its_file_or_by_its_vid(
        self, tmp_path: Path
    ) -> None:
        """A list of 2016 names only the vid, the notification of the same segment both."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            async def new(*told: Event) -> int:
                reading = Reading(events=told, rejects=(), outcome=PollOutcome.PARTIAL)
                return (await spool.append("tapes", [reading])).total()

            assert await new(some_recording("f1", "v1")) == 1
            assert await new(some_recording(None, "v1"), some_recording(None, "v2")) == 1
            assert await new(some_recording("f2", "v2"), some_recording("f1", "v1")) == 0
            assert await new(some_recording("f3", None), some_recording("f4", None)) == 2

        self._run(tmp_path, story)

    def test_the_catalogue_tells_what_is_known_of_each_stream(self, tmp_path: Path) -> None:
        """Derived from events, once each; a change of state that another source has told is not stored again."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            await spool.append(
                "source", [some_reading(1, 2), some_reading(2, 3), some_reading(9, stream="hall")]
            )
            told = {stream.stream_id: stream for stream in spool.streams()}
            room = told["room"]
            assert room.first_seen == some_event(1).received_at
            assert room.last_seen == some_event(3).received_at
            assert (room.last_screenshot, room.cadence) == (some_event(3).occurred_at, 10.0)
            assert (told["hall"].last_screenshot, told["hall"].cadence) == (some_event(9).occurred_at, None)
            changes = [some_change(4, "live"), some_change(5, "live"), some_change(6, "interrupted")]
            readings = [
                Reading(events=(change,), rejects=(), outcome=PollOutcome.PARTIAL) for change in changes
            ]
            assert (await spool.append("status", readings)).total() == 2
            (room,) = (stream for stream in spool.streams() if stream.stream_id == "room")
            assert (room.state, room.state_since) == ("interrupted", changes[2].occurred_at)
            assert await spool.recent(2) == [changes[2], changes[0]]

        self._run(tmp_path, story)

    def test_recent_events_come_newest_first(self, tmp_path: Path) -> None:
        """Also those that are settled already."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2), some_reading(3)])
            batch = await spool.claim("a", 10)
            await spool.settle(batch, _done(batch))
            assert await spool.recent(2) == [some_event(3), some_event(2)]

        self._run(tmp_path, story)

    def test_pruning_never_touches_what_is_owed(self, tmp_path: Path) -> None:
        """However old it is."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1)])
            batch = await spool.claim("a", 1)
            await spool.append("source", [some_reading(2)])
            clock.pass_time(20 * 86400)
            while await spool.prune():
                pass
            await spool.settle(batch, [Retry(after=1, reason="no")])
            clock.pass_time(20 * 86400)
            while await spool.prune():
                pass
            assert (await spool.claim("a", 5)).events == (some_event(1),)
            assert (await spool.claim("a", 5)).events == (some_event(2),)

        self._run(tmp_path, story)


class DurableSpoolContract(SpoolContract):
    """What a spool promises besides if it outlives its process."""

    def test_a_reopened_spool_owes_what_was_not_settled(self, tmp_path: Path) -> None:
        """Positions, retries, dead letters and ids survive; what was only claimed is owed again."""
        clock = ToldClock()

        async def before() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything)
                await spool.append("source", [some_reading(*range(8), memory=b"m")])
                for outcome in (Done(), Retry(after=10, reason="no"), Dead(reason="bad")):
                    batch = await spool.claim("a", 2)
                    await spool.settle(batch, [outcome] * 2)
                await spool.claim("a", 1)

        async def after() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything)
                assert await spool.memory("source") == {"": b"m"}
                assert (await spool.backlog("a")).events == 4
                assert (await spool.claim("a", 10)).events == (some_event(6), some_event(7))
                clock.pass_time(10)
                assert (await spool.claim("a", 10)).events == (some_event(2), some_event(3))
                assert [letter.event for letter in await spool.dead(9)] == [some_event(5), some_event(4)]
                assert (await spool.append("source", [some_reading(*range(8))])).total() == 0

        asyncio.run(before())
        asyncio.run(asyncio.wait_for(after(), 30))

    def test_a_reopened_spool_knows_its_streams(self, tmp_path: Path) -> None:
        """The catalogue survives."""
        clock = ToldClock()
        known: list[Stream] = []

        async def before() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.append("source", [some_reading(1, 2), some_reading(5, stream="hall")])
                clock.pass_time(60)
                await spool.append("source", [some_reading(3)])
                known.extend(spool.streams())

        async def after() -> None:
            async with self.open(tmp_path, clock) as spool:
                assert sorted(spool.streams(), key=str) == sorted(known, key=str)
                assert len(known) == 2

        asyncio.run(before())
        asyncio.run(after())

    def test_a_retry_behind_a_batch_in_hand_is_owed_once_after_a_restart(self, tmp_path: Path) -> None:
        """The place in the log and the waiting batch are one debt."""
        clock = ToldClock()

        async def before() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything)
                await spool.append("source", [some_reading(1, 2)])
                await spool.claim("a", 1)
                await spool.settle(await spool.claim("a", 1), [Retry(after=5, reason="no")])

        async def after() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything)
                assert (await spool.backlog("a")).events == 2
                assert (await spool.claim("a", 10)).events == (some_event(1),)
                clock.pass_time(5)
                assert (await spool.claim("a", 10)).events == (some_event(2),)
                assert (await spool.backlog("a")).events == 2

        asyncio.run(before())
        asyncio.run(asyncio.wait_for(after(), 30))

    def test_half_of_a_split_retry_is_owed_after_a_restart(self, tmp_path: Path) -> None:
        """Settling one half must not take the other one off the disk."""
        clock = ToldClock()

        async def before() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything)
                await spool.append("source", [some_reading(1, 2)])
                await spool.settle(await spool.claim("a", 2), [Retry(after=0, reason="no")] * 2)
                first, _ = await spool.split(await spool.claim("a", 2))
                await spool.settle(first, _done(first))

        async def after() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything)
                again = await spool.claim("a", 10)
                assert (again.events, again.attempt) == ((some_event(2),), 2)

        asyncio.run(before())
        asyncio.run(asyncio.wait_for(after(), 30))

    def test_half_of_a_split_batch_is_owed_after_a_restart(self, tmp_path: Path) -> None:
        """Settling one half must not take the place in the log past the other one; settling both must."""
        clock = ToldClock()

        async def before() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything)
                await spool.attach("b", anything)
                await spool.append("source", [some_reading(1, 2)])
                first, _ = await spool.split(await spool.claim("a", 2))
                await spool.settle(first, _done(first))
                for half in await spool.split(await spool.claim("b", 2)):
                    await spool.settle(half, _done(half))

        async def after() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything)
                await spool.attach("b", anything)
                assert some_event(2) in (await spool.claim("a", 10)).events
                assert (await spool.backlog("b")).events == 0

        asyncio.run(before())
        asyncio.run(asyncio.wait_for(after(), 30))

    def test_a_retried_dead_letter_takes_no_other_events_place(self, tmp_path: Path) -> None:
        """Also where the first event of all is still in hand at the stop."""
        clock = ToldClock()

        async def before() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything)
                await spool.append("source", [some_reading(1, 2)])
                await spool.claim("a", 1)
                await spool.settle(await spool.claim("a", 1), [Dead(reason="bad")])
                (letter,) = await spool.dead(9)
                assert await spool.retry_dead("a", [letter.number], 10) == 1

        async def after() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything)
                got: set[str] = set()
                while (await spool.backlog("a")).events:
                    batch = await spool.claim("a", 9)
                    got |= {event.id for event in batch.events}
                    await spool.settle(batch, _done(batch))
                assert got == {some_event(1).id, some_event(2).id}

        asyncio.run(before())
        asyncio.run(asyncio.wait_for(after(), 30))

    def test_a_retried_dead_letter_is_owed_and_not_dead_after_a_restart(self, tmp_path: Path) -> None:
        """So are purged ones gone, a pause in force, and what was read again not in quarantine."""
        clock = ToldClock()

        async def before() -> None:
            async with self.open(tmp_path, clock) as spool:
                await _two_sinks_with_dead_letters(spool, clock)
                letters = await spool.dead(100, Choice(of="a"))
                assert await spool.retry_dead("a", [letter.number for letter in letters[1:]], 2) == 3
                assert await spool.purge_dead([letters[0].number]) == 1
                await spool.pause("b", True)
                await spool.append("one", [some_reading(rejects=[_reject(0)])])
                (kept,) = await spool.quarantined(100)
                await spool.read_again("one", {kept.number: some_reading(9)})

        async def after() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything)
                await spool.attach("b", anything)
                assert [letter.sink for letter in await spool.dead(100)] == ["b"]
                assert (await spool.backlog("a")).events == 4
                first = await spool.claim("a", 10)
                assert first.events in ((some_event(0), some_event(1)), (some_event(2),))
                assert await spool.paused() == {"b"}
                assert await spool.quarantine_size() == 0
                assert (await spool.claim("b", 10)).events == (some_event(9),)

        asyncio.run(before())
        asyncio.run(asyncio.wait_for(after(), 30))

    def test_a_reopened_spool_keeps_an_ordered_sinks_order(self, tmp_path: Path) -> None:
        """What waits behind a retry waits on disk; an orderly stop gives nobody anything twice."""
        clock = ToldClock()

        async def before() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything, ordered=True)
                await spool.append("source", [some_reading(1, 2, 3), some_reading(4, stream="hall")])
                await spool.settle(await spool.claim("a", 1), [Retry(after=10, reason="no")])
                hall = await spool.claim("a", 9)
                assert hall.events == (some_event(4, stream="hall"),)
                await spool.settle(hall, _done(hall))

        async def after() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything, ordered=True)
                assert (await spool.backlog("a")).events == 3
                await spool.append("source", [some_reading(5), some_reading(6, stream="hall")])
                assert (await spool.claim("a", 9)).events == (some_event(6, stream="hall"),)
                clock.pass_time(10)
                for expected in ((some_event(1),), tuple(some_event(n) for n in (2, 3, 5))):
                    batch = await spool.claim("a", 9)
                    assert batch.events == expected
                    await spool.settle(batch, _done(batch))

        async def at_last() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything, ordered=True)
                assert (await spool.claim("a", 9)).events == (some_event(6, stream="hall"),)
                assert (await spool.backlog("a")).events == 1

        asyncio.run(before())
        asyncio.run(asyncio.wait_for(after(), 30))
        asyncio.run(asyncio.wait_for(at_last(), 30))

    def test_an_orderly_stop_writes_what_waited_for_its_turn(self, tmp_path: Path) -> None:
        """So that what other streams got behind it does not come again."""
        clock = ToldClock()

        async def before() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything, ordered=True)
                await spool.append("source", [some_reading(1, 2), some_reading(3, stream="hall")])
                first = await spool.claim("a", 1)
                hall = await spool.claim("a", 9)
                assert hall.events == (some_event(3, stream="hall"),)
                await spool.settle(hall, _done(hall))
                await spool.settle(first, _done(first))

        async def after() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything, ordered=True)
                assert (await spool.backlog("a")).events == 1
                assert (await spool.claim("a", 9)).events == (some_event(2),)

        asyncio.run(before())
        asyncio.run(asyncio.wait_for(after(), 30))

    def test_halves_of_an_ordered_sinks_batch_stay_in_order_over_a_restart(self, tmp_path: Path) -> None:
        """Also when neither was settled."""
        clock = ToldClock()

        async def before() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything, ordered=True)
                await spool.append("source", [some_reading(1, 2, 3, 4)])
                await spool.split(await spool.claim("a", 3))

        async def after() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything, ordered=True)
                for expected in ((some_event(1),), (some_event(2), some_event(3)), (some_event(4),)):
                    batch = await spool.claim("a", 9)
                    assert batch.events == expected
                    await spool.settle(batch, _done(batch))

        asyncio.run(before())
        asyncio.run(asyncio.wait_for(after(), 30))

    def test_what_a_stop_found_in_hand_of_an_ordered_sink_comes_again(self, tmp_path: Path) -> None:
        """Before the later events of its stream, which waited for it."""
        clock = ToldClock()

        async def before() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything, ordered=True)
                await spool.append("source", [some_reading(1, 2)])
                await spool.claim("a", 1)
                assert await _claims_nothing(spool, "a")

        async def after() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything, ordered=True)
                assert (await spool.claim("a", 9)).events == (some_event(1), some_event(2))

        asyncio.run(before())
        asyncio.run(asyncio.wait_for(after(), 30))

    def test_what_an_ordered_sink_got_never_comes_again_behind_a_later_event(self, tmp_path: Path) -> None:
        """Although a batch in hand at the stop keeps the place in the log back."""
        clock = ToldClock()

        async def before() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything, ordered=True)
                await spool.append("source", [some_reading(1, stream="hall"), some_reading(2, 3, 4)])
                await spool.claim("a", 1)
                await spool.settle(await spool.claim("a", 1), [Done()])
                await spool.settle(await spool.claim("a", 1), [Retry(after=0, reason="no")])

        async def after() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything, ordered=True)
                got: list[Event] = []
                while (await spool.backlog("a")).events:
                    batch = await spool.claim("a", 1)
                    got += batch.events
                    await spool.settle(batch, _done(batch))
                assert [event for event in got if event.stream_id == "room"] == [some_event(3), some_event(4)]
                assert some_event(1, stream="hall") in got

        asyncio.run(before())
        asyncio.run(asyncio.wait_for(after(), 30))

    def test_a_sink_that_becomes_ordered_loses_nothing(self, tmp_path: Path) -> None:
        """What was in hand comes again, also where a later event of its stream waits for a retry."""
        clock = ToldClock()

        async def before() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything)
                await spool.append("source", [some_reading(1, 2, 3)])
                await spool.claim("a", 1)
                await spool.settle(await spool.claim("a", 1), [Retry(after=0, reason="no")])

        async def after() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything, ordered=True)
                got: list[Event] = []
                while (await spool.backlog("a")).events:
                    batch = await spool.claim("a", 1)
                    got += batch.events
                    await spool.settle(batch, _done(batch))
                assert sorted(event.id for event in got) == sorted(some_event(n).id for n in (1, 2, 3))

        asyncio.run(before())
        asyncio.run(asyncio.wait_for(after(), 30))

    def test_what_is_owed_is_there_after_pruning_and_a_restart(self, tmp_path: Path) -> None:
        """Pruning takes only what every sink has settled from the log itself, not merely from memory."""
        clock = ToldClock()

        async def before() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything)
                await spool.attach("b", anything)
                await spool.append("source", [some_reading(1), some_reading(2), some_reading(3)])
                await spool.settle(await spool.claim("a", 3), [Done()] * 3)
                await spool.settle(await spool.claim("b", 1), [Done()])

        async def pruned() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("a", anything)
                await spool.attach("b", anything)
                clock.pass_time(20 * 86400)
                while await spool.prune():
                    pass

        async def after() -> None:
            async with self.open(tmp_path, clock) as spool:
                await spool.attach("b", anything)
                assert (await spool.claim("b", 9)).events == (some_event(2), some_event(3))

        asyncio.run(before())
        asyncio.run(pruned())
        asyncio.run(asyncio.wait_for(after(), 30))

    def test_a_second_owner_is_refused(self, tmp_path: Path) -> None:
        """One process owns a spool."""

        async def story(spool: Spool, clock: ToldClock) -> None:
            with pytest.raises(StorageLocked):
                async with self.open(tmp_path, clock):
                    pass

        self._run(tmp_path, story)


@dataclass(frozen=True, kw_only=True)
class SinkWorld:
    """A sink, entered, and the world on its other side."""

    sink: Sink
    arrived: Callable[[], Sequence[str]]
    """The ids of the events that have safely arrived, in order, twins included."""
    breaks: Callable[[], Any]
    """Makes the other side fail (may be a coroutine function)."""
    mends: Callable[[], Any]
    """Makes it work again (may be a coroutine function)."""
    event: Callable[[int], Event] = some_event
    """Makes the events that this world can take."""


async def _called(action: Callable[[], Any]) -> None:
    result = action()
    if asyncio.iscoroutine(result):
        await result


class SinkContract:
    """What every sink promises. `world` builds one, enters it, and leaves it again."""

    batch_of = 5
    """How many events to try at once; 1 for a sink that takes them one by one."""

    def world(self, folder: Path) -> AbstractAsyncContextManager[SinkWorld] | AsyncIterator[SinkWorld]:
        """Decorate yours with `contextlib.asynccontextmanager`."""
        raise NotImplementedError

    def _run(self, folder: Path, story: Callable[[SinkWorld], Awaitable[None]]) -> None:
        async def told() -> None:
            world: Any = self.world(folder)
            async with world as entered:
                await story(entered)

        asyncio.run(asyncio.wait_for(told(), 60))

    def _batch(self, world: SinkWorld, start: int = 0) -> Batch:
        return some_batch(*(world.event(start + n) for n in range(self.batch_of)), sink=world.sink.name)

    def test_a_delivered_batch_has_arrived(self, tmp_path: Path) -> None:
        """When `deliver` returns, all of it is safe on the other side."""

        async def story(world: SinkWorld) -> None:
            batch = self._batch(world)
            await world.sink.deliver(batch)
            assert sorted(world.arrived()) == sorted(event.id for event in batch.events)

        self._run(tmp_path, story)

    def test_the_same_event_twice_does_no_harm(self, tmp_path: Path) -> None:
        """At least once means that twins come."""

        async def story(world: SinkWorld) -> None:
            batch = self._batch(world)
            await world.sink.deliver(batch)
            await world.sink.deliver(batch)
            assert {event.id for event in batch.events} == set(world.arrived())

        self._run(tmp_path, story)

    def test_a_broken_world_makes_it_raise_and_it_works_when_mended(self, tmp_path: Path) -> None:
        """It never returns for what did not arrive, and does not need a restart."""

        async def story(world: SinkWorld) -> None:
            await _called(world.breaks)
            batch = self._batch(world)
            with pytest.raises(Exception) as raised:  # noqa: PT011 - any exception means "again"
                async with asyncio.timeout(20):
                    await world.sink.deliver(batch)
            assert not isinstance(raised.value, TimeoutError)
            await _called(world.mends)
            await world.sink.deliver(batch)
            assert {event.id for event in batch.events} <= set(world.arrived())

        self._run(tmp_path, story)

    def test_a_cancelled_delivery_leaves_the_sink_usable(self, tmp_path: Path) -> None:
        """The courier cancels what takes too long."""

        async def story(world: SinkWorld) -> None:
            cancelled = asyncio.ensure_future(world.sink.deliver(self._batch(world)))
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            batch = self._batch(world, start=100)
            await world.sink.deliver(batch)
            assert {event.id for event in batch.events} <= set(world.arrived())

        self._run(tmp_path, story)

    def test_batches_may_be_carried_at_once(self, tmp_path: Path) -> None:
        """`concurrency` batches, and none is lost."""

        async def story(world: SinkWorld) -> None:
            batches = [self._batch(world, start=10 * n) for n in range(4)]
            await asyncio.gather(*(world.sink.deliver(batch) for batch in batches))
            assert {e.id for batch in batches for e in batch.events} <= set(world.arrived())

        self._run(tmp_path, story)
