"""The states of streams: the words for them, and the rules that the commands, the pages and the metrics share."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from poller.core.catalogue import Stream
from poller.qcloud.events.channels import DISABLED, INTERRUPTED, LIVE

USUAL_CADENCE: Final = 10.0
"""The seconds between two pictures of a stream, unless the platform was asked for others."""
ENDED_AFTER: Final = 3600.0
"""Seconds without an event after which a stream that is not live counts as ended."""
STREAMS_STEP: Final = 500
"""Streams that are looked at before the loop is free."""
LATE: Final = "late"
NO_PICTURES: Final = "no pictures"
SILENT: Final = "silent"
UNKNOWN: Final = "unknown"
ENDED: Final = "ended"
CHOICES: Final = (LIVE, INTERRUPTED, DISABLED, LATE, NO_PICTURES)
"""The states by which streams are listed: those of the catalogue, and the reasons of `attention`."""
STATES: Final = (LIVE, LATE, NO_PICTURES, SILENT, INTERRUPTED, DISABLED, UNKNOWN, ENDED)
"""The states in which streams are counted: each stream is in exactly one of these."""


def attention(stream: Stream, silent: float) -> str:
    """Why a stream needs attention; empty if it does not. `silent` is how many seconds ago its last event arrived."""
    if stream.state != LIVE and silent > ENDED_AFTER:
        return ""
    if stream.state is not None and stream.state != LIVE:
        return stream.state
    if stream.cadence is None or stream.last_screenshot is None:
        return ""
    if silent > 4 * stream.cadence:
        return NO_PICTURES
    return LATE if silent > 2 * stream.cadence + 5.0 else ""


def state_of(stream: Stream, silent: float) -> str:
    """The one state that a stream counts in. `silent` is how many seconds ago its last event arrived.

    A stream whose state no source reports may have ended, so that its silence has a word of its own.
    """
    if stream.state != LIVE and silent > ENDED_AFTER:
        return ENDED
    word = attention(stream, silent)
    if word == NO_PICTURES and stream.state is None:
        return SILENT
    known = word or stream.state or UNKNOWN
    return known if known in STATES else UNKNOWN


async def count_streams(
    streams: Sequence[Stream], accounts: Iterable[str], age: Callable[[datetime], float]
) -> Mapping[tuple[str, str], int]:
    """The number of streams by account and state, for the gauge `poller_streams`. There may be 100,000 streams.

    Every state of these accounts has a number. Streams of other accounts are left out.
    """
    counts = Counter({(account, state): 0 for account in accounts for state in STATES})
    for start in range(0, len(streams), STREAMS_STEP):
        for stream in streams[start : start + STREAMS_STEP]:
            key = (stream.account, state_of(stream, age(stream.last_seen)))
            if key in counts and stream.stream_id:
                counts[key] += 1
        await asyncio.sleep(0)
    return counts
