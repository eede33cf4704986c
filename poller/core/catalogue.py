"""The catalogue of streams: the state of each stream, derived from events alone."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec

from poller.core.model import Event

MOST: Final = 100_000
"""The most streams that are kept. Others are ignored until old ones are forgotten."""
_LEAST, _MOST_STEP = 0.5, 2.0
POLLS: Final = "channel_status"
"""The source that polls for changes of state. Other sources receive them."""
WHOLE_SECOND: Final = timedelta(seconds=1)
"""A reported time has whole seconds only: the change may have happened up to this much later."""
AHEAD: Final = timedelta(minutes=5)
BEHIND: Final = timedelta(days=1)
"""How far the time of a change of state may lie from its receipt. Beyond it, a clock was wrong."""
Key = tuple[str, str]


class Stream(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The state of one stream of an account. Times are aware UTC; None if unknown.

    first_seen, last_seen:       when the first and the last of its events were received
    state, state_since, seen_by: its last known state, when that began, and which source said so
    last_screenshot:             when the newest picture was taken
    last_number:                 the number of that picture in the log, where it may be pruned meanwhile
    cadence:                     the usual seconds between two pictures
    last_segment:                when the newest recorded segment ended
    """

    account: str
    stream_id: str
    first_seen: datetime
    last_seen: datetime
    state: str | None = None
    state_since: datetime | None = None
    seen_by: str = ""
    last_screenshot: datetime | None = None
    cadence: float | None = None
    last_segment: datetime | None = None
    last_number: int | None = None


def with_event(stream: Stream | None, event: Event, number: int) -> Stream:
    """The state of a stream after one of its events, which has this number in the log."""
    if stream is None:
        at = event.received_at
        stream = Stream(account=event.account, stream_id=event.stream_id, first_seen=at, last_seen=at)
    if event.kind == "screenshot":
        return _with_screenshot(stream, event, number)
    seen = max(_still_believed(stream.last_seen, event) or event.received_at, event.received_at)
    changes: dict[str, object] = {"last_seen": seen}
    if event.kind == "recording":
        ended = believable(event.occurred_at, event.received_at)
        changes["last_segment"] = max(_still_believed(stream.last_segment, event) or ended, ended)
    elif event.kind == "channel" and _is_newest(stream, event):
        fields = event.fields
        changes |= {"state": fields.get("state"), "state_since": _changed_at(event)}
        changes["seen_by"] = str(fields.get("seen_by", ""))
    return msgspec.structs.replace(stream, **changes)


def is_news(stream: Stream | None, event: Event) -> bool:
    """Whether an event is new. A change of state that another source has reported already is not.

    A notification is always new, because the platform reports the start and the end of each push, unless a poll saw the
    same change earlier. A poll brings news if the state is a different one.
    """
    if event.kind != "channel" or stream is None or stream.state is None:
        return True
    fields = event.fields
    if fields.get("state") != stream.state:
        return True
    if fields.get("seen_by") == POLLS:
        return False
    told = stream.seen_by == POLLS and _before(_changed_at(event), _still_believed(stream.state_since, event))
    return not told


def believable(at: datetime, received_at: datetime) -> datetime:
    """A moment that somebody else named, or when it was received where that lies far ahead."""
    return at if at <= received_at + AHEAD else received_at


def _changed_at(event: Event) -> datetime:
    at = believable(event.occurred_at, event.received_at)
    return at if at >= event.received_at - BEHIND else event.received_at


def _still_believed(known: datetime | None, event: Event) -> datetime | None:
    """What is known, unless it lies far ahead of a later event: a wrong clock wrote it, and must not silence others."""
    return known if known is None or known <= event.received_at + AHEAD else None


def _with_screenshot(stream: Stream, event: Event, number: int | None) -> Stream:
    """The same for a screenshot; written for speed, because nearly every event is one."""
    seen, taken_at = event.received_at, event.occurred_at
    last, last_seen = stream.last_screenshot, stream.last_seen
    if taken_at > seen and taken_at > seen + AHEAD:
        taken_at = seen
    if last is not None and last > seen and last > seen + AHEAD:
        last = None
    if last_seen < seen or last_seen > seen + AHEAD:
        last_seen = seen
    cadence = stream.cadence
    if last is None:
        last = taken_at
    elif taken_at > last:
        cadence, last = _tempo(cadence, (taken_at - last).total_seconds()), taken_at
    else:
        number = stream.last_number
    return Stream(
        account=stream.account,
        stream_id=stream.stream_id,
        first_seen=stream.first_seen,
        last_seen=last_seen,
        state=stream.state,
        state_since=stream.state_since,
        seen_by=stream.seen_by,
        last_screenshot=last,
        cadence=cadence,
        last_segment=stream.last_segment,
        last_number=number,
    )


def _tempo(cadence: float | None, gap: float) -> float:
    """The usual gap after one more. A missing picture or an interruption is one long gap: it moves it by a fifth."""
    if cadence is None or gap == cadence:
        return gap
    step: float = min(max(gap / cadence, _LEAST), _MOST_STEP) ** 0.25
    return round(cadence * step, 3)


def _is_newest(stream: Stream, event: Event) -> bool:
    at, since = _changed_at(event), _still_believed(stream.state_since, event)
    if stream.seen_by == POLLS and event.fields.get("seen_by") != POLLS:
        at += WHOLE_SECOND
    return since is None or at >= since


def _before(moment: datetime, other: datetime | None) -> bool:
    return other is not None and moment <= other


class Catalogue:
    """All streams, in memory. Changes are a draft until `keep`; the engine says when they are durable.

    Used by one thread; `streams` may be called from any.
    """

    def __init__(self, streams: Iterable[Stream] = ()) -> None:
        self._streams: dict[Key, Stream] = {(one.account, one.stream_id): one for one in streams}
        self._draft: dict[Key, Stream] = {}
        self.unsaved: set[Key] = set()
        """What was kept since the engine last saved."""

    def note(self, event: Event, number: int) -> bool:
        """Takes an event into account that gets this number; False if it tells nothing and should be left out."""
        key = (event.account, event.stream_id)
        known = self._draft.get(key) or self._streams.get(key)
        if event.kind == "channel" and not is_news(known, event):
            return False
        if known is not None and event.kind == "screenshot":
            self._draft[key] = _with_screenshot(known, event, number)
        elif known is not None or len(self._streams) + len(self._draft) < MOST:
            self._draft[key] = with_event(known, event, number)
        return True

    def keep(self) -> None:
        """The events noted since are committed."""
        self._streams.update(self._draft)
        self.unsaved.update(self._draft)
        self._draft.clear()

    def discard(self) -> None:
        """They are not."""
        self._draft.clear()

    def find(self, key: Key) -> Stream | None:
        return self._streams.get(key)

    def forget(self, is_old: Callable[[Stream], bool]) -> list[Key]:
        """Drops the streams that are old; returns which."""
        gone = [key for key, stream in self._streams.items() if is_old(stream)]
        for key in gone:
            del self._streams[key]
            self.unsaved.discard(key)
        return gone

    def __len__(self) -> int:
        """How many streams are kept."""
        return len(self._streams)

    def streams(self) -> list[Stream]:
        """All of them."""
        return list(self._streams.values())
