"""The operator's commands about replays: counting and ordering one, listing them, and changing one."""

from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec
import structlog

from poller.core.history import Replay, ReplayState
from poller.core.model import Event
from poller.core.replays import OPEN, ReplayPlan
from poller.core.selection import Selection
from poller.operations.operator_context import OperatorContext
from poller.operations.requests import CountChanged, Request, Row, Rows, Verb
from poller.qcloud.events.screenshots import KIND as SCREENSHOT

log = structlog.get_logger("control")

STEP: Final = 500
"""The most events that one step of a count reads."""
BUCKET_KEEPS: Final = 15 * 86_400.0
"""Seconds for which the platform's bucket keeps pictures by default."""
WAITS: Final = "waits"
"""Shown as the state of a running replay that waits for an earlier one of its sink."""


class Count:
    """What a plan comes to: the events that are sent, and those that are left out."""

    def __init__(self, planned: ReplayPlan, is_old: Callable[[Event], bool]) -> None:
        self._planned = planned
        self._is_old = is_old
        self.events = self.old_pictures = 0
        self.left_out: set[str] = set()

    def add(self, event: Event) -> None:
        """Count one selected event."""
        if not self._planned.wants(event):
            return
        if self._planned.leaves_out(event):
            self.left_out.add(event.id)
            return
        self.events += 1
        self.old_pictures += self._is_old(event)

    def row(self) -> Row:
        """The count for people, and the end of the range for the order."""
        dead = len(self.left_out & self._planned.dead)
        return {
            "sink": self._planned.sink,
            "events": self.events,
            "pending": len(self.left_out) - dead,
            "dead": dead,
            "old_pictures": self.old_pictures,
            "below": self._planned.until,
        }


async def _replay(context: OperatorContext, request: Request) -> Rows:
    """Count what a replay would send, and order it unless `dry` is set."""
    context.known_sink(request.sink)
    replays = context.spool.replays
    planned = await replays.plan(request.sink, request.selection, request.below)
    with replays.keep(planned):
        count = Count(planned, partial(_is_old_picture, context, request.sink))
        start: int | None = planned.at
        while start is not None and start < planned.until:
            step = await context.spool.scan(planned.chosen, start, STEP)
            for number, event in step.found:
                if number < planned.until:
                    count.add(event)
            start = step.following
            yield None
        if not request.dry and request.expect not in (None, count.events):
            raise CountChanged(
                f"{count.events} events are selected now, and not {request.expect} as before",
                count=count.events,
            )
        if request.dry or not count.events:
            yield count.row()
            return
        replay = await replays.order(planned, count.events, frozenset(count.left_out))
    if context.running:
        log.info("replay_ordered", replay=replay.number, sink=replay.sink, events=replay.total)
    yield {**count.row(), "replay": replay.number}


def _is_old_picture(context: OperatorContext, sink: str, event: Event) -> bool:
    """Whether the sink has to fetch a picture that the bucket may have deleted."""
    return (
        context.settings.sinks[sink].fetches_pictures
        and event.kind == SCREENSHOT
        and context.clock.age(event.occurred_at) > BUCKET_KEEPS
    )


async def _replays(context: OperatorContext, request: Request) -> Rows:
    for row in replay_rows(context):
        yield row


async def _change(context: OperatorContext, request: Request, *, state: ReplayState) -> Rows:
    replay = await context.spool.replays.change(request.number, state)
    if context.running:
        log.info("operator_asked", verb=request.verb.value, replay=replay.number, sink=replay.sink)
    yield _row(context, replay)


def replay_rows(context: OperatorContext, *, only_open: bool = False) -> list[Row]:
    """The replays, in the order of their numbers."""
    return [
        _row(context, replay)
        for replay in context.spool.replays.all()
        if not only_open or replay.state in OPEN
    ]


def _row(context: OperatorContext, replay: Replay) -> Row:
    unsettled = context.spool.replays.unsettled(replay)
    return {
        "replay": replay.number,
        "sink": replay.sink,
        "what": _what(replay.chosen),
        "done": None if unsettled is None else replay.queued - unsettled,
        "total": replay.total,
        "state": _state(context, replay),
        "ordered_at": replay.asked_at,
    }


def _state(context: OperatorContext, replay: Replay) -> str:
    before = (
        one
        for one in context.spool.replays.all()
        if one.state in OPEN and one.sink == replay.sink and one.number < replay.number
    )
    return WAITS if replay.state is ReplayState.RUNNING and any(before) else replay.state.value


def _what(chosen: Selection) -> str:
    """A selection for people."""
    parts = []
    for name, value in msgspec.to_builtins(chosen).items():
        if value:
            text = ",".join(sorted(value)) if isinstance(value, list) else str(value)
            parts.append(f"{name} {text}")
    return " ".join(parts) or "all"


VERBS: Final[dict[Verb, Callable[[OperatorContext, Request], Rows]]] = {
    Verb.REPLAY: _replay,
    Verb.REPLAYS: _replays,
    Verb.REPLAYS_PAUSE: partial(_change, state=ReplayState.PAUSED),
    Verb.REPLAYS_RESUME: partial(_change, state=ReplayState.RUNNING),
    Verb.REPLAYS_CANCEL: partial(_change, state=ReplayState.CANCELLED),
}
