"""Reports events as they are stored, to whoever asks, without holding anything back.

A tap is a cursor over the log. It reads the newest events from memory and older ones from the file. The spool does not
know of it: a tap that is slow falls behind, and misses what is deleted before it gets there. A tap says how many events
it missed.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

import msgspec

from poller.core.model import Event
from poller.core.selection import ALL_EVENTS, Numbered
from poller.core.spool import SpoolAdmin
from poller.operations.operator_context import OperatorContext
from poller.operations.requests import Request

STEP: Final = 500
"""The most events of one step. They are all that a tap holds in memory."""
STILL_THERE: Final = 15.0
"""Seconds without an event after which an empty line tells that the tap is alive."""
STILL_AT_IT: Final = b"\n"
PACE: Final = 0.05
"""Seconds of rest after a step that reached the head. So one step reports many commits, which costs less."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive events of the log, how many are missing before or after them, and the number to go on with."""

    found: Sequence[Numbered]
    missed: int
    following: int


def tap(context: OperatorContext, request: Request) -> AsyncGenerator[bytes, None]:
    """The lines of the answer, some at a time, without end; see `EventRow`. The first one says where the tap begins.

    Raises `ControlError` for a sink that is not configured. The filters of sinks are those of this moment.
    """
    chosen = chooser(context, request)
    start = context.spool.head if request.start is None else request.start
    return _lines(context.spool, chosen, start)


async def _lines(
    spool: SpoolAdmin, chosen: Callable[[Event], bool] | None, at: int
) -> AsyncGenerator[bytes, None]:
    yield b'{"row":{"head":%d}}\n' % at
    while True:
        try:
            async with asyncio.timeout(STILL_THERE):
                await spool.wait_beyond(at)
        except TimeoutError:
            yield STILL_AT_IT
            continue
        step = await next_step(spool, at)
        at = step.following
        if lines := encode_step(step, chosen):
            yield lines
        if at >= spool.head:
            await asyncio.sleep(PACE)


async def next_step(spool: SpoolAdmin, at: int) -> Step:
    """The events from a number on. The numbers of events have no holes, so a hole is what has been deleted."""
    head = spool.head
    scan = await spool.scan(ALL_EVENTS, at, STEP)
    if scan.found:
        following = scan.found[-1][0] + 1
    elif scan.following is not None and scan.following > at:
        following = scan.following
    else:  # nothing is left of what there was
        following = max(at, head)
    return Step(found=scan.found, missed=following - at - len(scan.found), following=following)


def encode_step(step: Step, chosen: Callable[[Event], bool] | None) -> bytes:
    """The lines of a step. Events that are not chosen are left out; what was missed might have been."""
    lines = [
        b'{"row":{"number":%d,"event":%b}}\n' % (number, event.encoded)
        for number, event in step.found
        if chosen is None or chosen(event)
    ]
    missed = [b'{"row":{"missed":%d}}\n' % step.missed] if step.missed else []
    return b"".join(missed + lines)


def chooser(context: OperatorContext, request: Request) -> Callable[[Event], bool] | None:
    """Whether an event is to be reported; None for every event."""
    for sink in request.sinks:
        context.known_sink(sink)
    wanted = [context.wants(sink) for sink in sorted(request.sinks)]
    streams, selection = request.streams, request.selection
    if not wanted and not streams and selection == ALL_EVENTS:
        return None

    def chosen(event: Event) -> bool:
        return (
            (not streams or event.stream_id in streams)
            and selection.selects(event)
            and (not wanted or any(wants(event) for wants in wanted))
        )

    return chosen
