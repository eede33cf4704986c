"""Whether the settings can carry the streams that a spool has seen: messages come, and answers take them away. Pure.

Each stream gives a message every interval: its usual one, or the source's beat while it is not known. The queue must
give them up faster than they come, so that a tick is read before the next one.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from math import ceil, fsum
from typing import Final

from poller.core.catalogue import Stream
from poller.settings import Settings
from poller.sources.screenshot_queue import MOST_IN_ANSWER, MOST_LANES, ScreenshotQueueSettings

LATENCY: Final = 0.05
"""Seconds until an answer. A guess: it is not known before the daemon runs."""
USUAL_INTERVAL: Final = 10.0
"""Seconds between two pictures of a stream, where neither the stream nor a beat tells it."""
SHORTEST_INTERVAL: Final = 1.0
LONGEST_INTERVAL: Final = 86400.0
MISSED: Final = 3
"""Intervals without a picture after which a stream has ended."""
WRITTEN_LATE: Final = timedelta(minutes=2)
"""How much older the stored state of a stream may be than that of another one, of the same moment."""
ROOM_IN_LANES: Final = 3
"""Lanes open one by one, and an answer may take longer."""
ROOM_IN_RATE: Final = 4
"""A rate is a limit and costs nothing: the lanes shall be used to the full."""


def capacity_hints(settings: Settings, streams: Iterable[Stream]) -> Iterator[str]:
    """For each setting that is too low for the queue of its account: its value, and one that would do."""
    known: dict[str, list[Stream]] = {}
    for stream in streams:
        known.setdefault(stream.account, []).append(stream)
    for account, some in known.items():
        queues = {
            name: source
            for name, source in settings.sources.items()
            if isinstance(source, ScreenshotQueueSettings) and source.account == account
        }
        if queues and account in settings.accounts:
            rate = settings.accounts[account].rate
            shortest = min(source.beat.seconds or USUAL_INTERVAL for source in queues.values())
            live = _live_streams(some, shortest)
            come = round(fsum(1 / _interval(stream, shortest) for stream in live), 3)
            give = f"{len(live):,} streams give {come:,.0f}"
            yield from _count_hints(queues, rate.limit / rate.period, come, give)
            yield from _rate_hints(account, str(rate), rate.limit / rate.period, come, give)
            yield from _lanes_hints(queues, come, give)


def _live_streams(streams: Iterable[Stream], usual: float) -> list[Stream]:
    """The streams that still gave pictures when the newest of all pictures was taken."""
    shot = [(stream.last_screenshot, stream) for stream in streams if stream.last_screenshot is not None]
    newest = max((at for at, _ in shot), default=None)
    return [stream for at, stream in shot if newest is not None and _is_live(stream, at, newest, usual)]


def _is_live(stream: Stream, last: datetime, newest: datetime, usual: float) -> bool:
    patience = timedelta(seconds=MISSED * _interval(stream, usual))
    return newest - last <= max(patience, WRITTEN_LATE)


def _interval(stream: Stream, usual: float) -> float:
    # in this order, because the number was read from a file: a NaN becomes the shortest
    return min(max(SHORTEST_INTERVAL, stream.cadence or usual), LONGEST_INTERVAL)


# ---------------------------------------------------------------- the settings


def _count_hints(
    queues: dict[str, ScreenshotQueueSettings], rate: float, come: float, give: str
) -> Iterator[str]:
    """Where a source is too slow and its answers are small: the other hints suppose that they are large."""
    for name, source in queues.items():
        taken = source.count * min(rate, source.max_in_flight / LATENCY)
        if source.count < MOST_IN_ANSWER and taken <= come / len(queues):
            yield f"sources.{name}.count is {source.count}, {_at_most(taken)}: {give}. Set {MOST_IN_ANSWER}"


def _rate_hints(account: str, written: str, rate: float, come: float, give: str) -> Iterator[str]:
    taken = rate * MOST_IN_ANSWER
    if taken <= come:
        enough = ceil(ROOM_IN_RATE * come / MOST_IN_ANSWER / 10) * 10
        yield f"accounts.{account}.rate is {written}, {_at_most(taken)}: {give}. Set {enough}/s"


def _lanes_hints(queues: dict[str, ScreenshotQueueSettings], come: float, give: str) -> Iterator[str]:
    for name, source in queues.items():
        lanes, each = source.max_in_flight, come / len(queues)
        taken = lanes / LATENCY * MOST_IN_ANSWER
        if taken <= each and lanes < MOST_LANES:
            enough = _lanes_for(each)
            yield (
                f"sources.{name}.max_in_flight is {lanes}, {_at_most(taken)} if an answer takes "
                f"{LATENCY * 1000:.0f} ms, which is assumed: {give}. Set {enough}. A crash can then cost "
                f"{enough * MOST_IN_ANSWER:,} messages instead of {lanes * source.count:,}"
            )


def _lanes_for(come: float) -> int:
    """A power of two."""
    needed = ceil(ROOM_IN_LANES * come / MOST_IN_ANSWER * LATENCY)
    return min(1 << (needed - 1).bit_length(), MOST_LANES)


def _at_most(taken: float) -> str:
    return f"and takes at most {taken:,.0f} messages a second out of the queue"
