"""Pictures of streams on the platform's grid, as events, for tests of the audit."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from poller.core.history import Gap
from poller.core.model import Event, new_event
from poller.pipeline.gaps import Auditor
from poller.qcloud.events.screenshots import screenshot_event

PUSH = 1_700_000_000
SETTLE = 60.0


def picture(
    offset: int,
    *,
    stream: str = "room",
    push: int = PUSH,
    task: int | None = None,
    delay: float = 1.0,
    account: str = "main",
    base: str | None = "http://shots-1250000000.file.myqcloud.com/",
) -> Event:
    """The picture of a stream `offset` seconds after its push, received `delay` seconds after it was taken."""
    name = f"{stream}_{push}_{push if task is None else task}_{offset}_300_169.jpg"
    message = msgspec.json.encode({"stream_id": stream, "pic_url": name})
    at = datetime.fromtimestamp(push + offset + delay, UTC)
    return screenshot_event(message, account=account, picture_base=base, received_at=at)


def change(
    offset: float,
    state: str = "interrupted",
    *,
    stream: str = "room",
    seen_by: str = "callbacks",
    push: int = PUSH,
) -> Event:
    """A change of the stream's state."""
    at = datetime.fromtimestamp(push + offset, UTC)
    return new_event(
        id=f"{stream}{offset}{state}".encode().hex()[:32],
        kind="channel",
        account="main",
        stream_id=stream,
        occurred_at=at,
        received_at=at,
        url=None,
        fields={"state": state, "seen_by": seen_by},
        message=msgspec.Raw(b"{}"),
    )


def pictures(*offsets: int, **more: int | str) -> list[Event]:
    """Pictures at these offsets."""
    return [picture(offset, **more) for offset in offsets]  # type: ignore[arg-type]


def audited(events: Sequence[Event], *, each: int = 7, auditor: Auditor | None = None) -> list[Gap]:
    """The gaps that are found in events in the order of the log, and an hour after the last of them."""
    auditor = auditor or Auditor(lambda account: SETTLE)
    found: list[Gap] = []
    for start in range(0, len(events), each):
        some = events[start : start + each]
        for event in some:
            auditor.take(event)
        found += auditor.judge(some[-1].received_at.timestamp())
    if events:
        found += auditor.judge(events[-1].received_at.timestamp() + 3_600)
    return found


def by_arrival(events: Iterable[Event]) -> list[Event]:
    """In the order in which they were received."""
    return sorted(events, key=lambda event: event.received_at)


def summed(gaps: Iterable[Gap]) -> list[tuple[int, int]]:
    """First missing offset and number of each gap, in order."""
    return sorted((gap.first_missing_offset, gap.missing) for gap in gaps)
