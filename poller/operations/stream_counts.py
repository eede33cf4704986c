"""How many streams are in which state, for the gauge `poller_streams`."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from poller.core.catalogue import Stream
from poller.operations.look import ENDED_AFTER, LATE, NO_PICTURES, STREAMS_STEP, attention
from poller.qcloud.events.channels import DISABLED, INTERRUPTED, LIVE

SILENT: Final = "silent"
UNKNOWN: Final = "unknown"
ENDED: Final = "ended"
STATES: Final = (LIVE, LATE, NO_PICTURES, SILENT, INTERRUPTED, DISABLED, UNKNOWN, ENDED)
"""Each stream counts in exactly one of these."""


async def count_streams(
    streams: Sequence[Stream], accounts: Iterable[str], age: Callable[[datetime], float]
) -> Mapping[tuple[str, str], int]:
    """The number of streams by account and state, in steps: there may be 100,000 streams.

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
