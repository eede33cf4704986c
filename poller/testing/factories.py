"""What the contracts are told with: a clock that stands still, events, readings, batches."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from poller.core.model import (
    Batch,
    Dead,
    Done,
    Event,
    ParsedPage,
    PollOutcome,
    Reject,
    batch_id,
    identity,
    new_event,
    with_url,
)
from poller.core.spool import Shared, SpoolAdmin, anything
from poller.runtime.clock import Clock

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class ManualClock(Clock):
    """A clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self._passed = self._ahead = 0.0

    def now(self) -> datetime:
        """The start, and what has passed since."""
        return START + timedelta(seconds=self._passed + self._ahead)

    def monotonic(self) -> float:
        """Seconds passed."""
        return self._passed

    def pass_time(self, seconds: float) -> None:
        """Move on."""
        self._passed += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock ahead, or back."""
        self._ahead += seconds


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


def elsewhere(event: Event) -> Event:
    """The event with the URL that it has in another bucket."""
    return with_url(event, f"http://other.example/{event.id}.jpg")


def some_change(
    number: int, state: str, *, stream: str = "room", seen_by: str = "channel_status", delay: float = 0.0
) -> Event:
    """A change of a channel's state, `delay` seconds after the time of `some_event` with this number."""
    at = START + timedelta(seconds=10 * number + delay)
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
) -> ParsedPage:
    """A reading with these events."""
    return ParsedPage(
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
        events=events,
        attempt=attempt,
    )


def done(batch: Batch) -> list[Done]:
    return [Done()] * len(batch.events)


ANSWER_WITHIN = 0.25
"""Seconds that a claim of a shared spool gets, where one process would answer at once."""


async def claims_nothing(spool: SpoolAdmin, sink: str) -> bool:
    return await claim_now(spool, sink, 10) is None


async def claim_now(
    spool: SpoolAdmin, sink: str, limit: int, answer_within: float = ANSWER_WITHIN
) -> Batch | None:
    """What a sink gets without waiting, None for nothing."""
    claim = asyncio.ensure_future(spool.claim(sink, limit))
    for _ in range(5):
        await asyncio.sleep(0)
    if isinstance(spool, Shared):  # it asks a server
        await asyncio.wait({claim}, timeout=answer_within)
    if claim.done():
        return claim.result()
    claim.cancel()
    return None


FOUR = (*(some_event(n) for n in range(3)), some_event(3, stream="hall"))


async def all_owed(spool: SpoolAdmin, sink: str, each: int) -> list[Event]:
    """What a sink gets until it is owed nothing, `each` at most at once, all of it taken."""
    got: list[Event] = []
    while (await spool.backlog(sink)).events:
        batch = await spool.claim(sink, each)
        got += batch.events
        await spool.settle(batch, done(batch))
    return got


async def two_sinks_with_dead_letters(spool: SpoolAdmin, clock: ManualClock) -> None:
    """`FOUR` dead for `a`: two for one reason, ten seconds later two for another; then the first dead for `b`."""
    await spool.attach("a", anything)
    await spool.attach("b", anything)
    await spool.append("source", [ParsedPage(events=FOUR, rejects=(), outcome=PollOutcome.PARTIAL)])
    for reason in ("HTTP 422", "too old"):
        batch = await spool.claim("a", 2)
        await spool.settle(batch, [Dead(reason=reason)] * 2)
        clock.pass_time(10)
    batch = await spool.claim("b", 4)
    await spool.settle(batch, [Dead(reason="gone"), Done(), Done(), Done()])


def some_reject(number: int) -> Reject:
    """One that came so many seconds after the start."""
    at = START + timedelta(seconds=number)
    return Reject(received_at=at, reason=f"reason {number}", encoding="", body=b"%d\xff" % number)
