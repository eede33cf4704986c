"""Decides when to get a channel's list of recordings. It never reads a clock: callers pass the time."""

import heapq
from collections.abc import Mapping
from typing import Final

import msgspec

from poller.core.catalogue import Stream
from poller.qcloud.events.files import FileList

PAGE_SIZE: Final = 100
MOST_PAGES: Final = 1000
"""The most pages of one list: 100,000 segments of half an hour are five years."""
REACHES: Final = 120.0
"""A segment that ends up to so many seconds before a channel's end counts as its last one: changes of state are seen
one or two polls late."""
OVERLAP: Final = 3600.0
"""A list with the newest first is read to so many seconds before the newest segment of the previous time."""
AGAIN: Final = 60.0
"""Seconds until the next call after a failed one, doubling up to `otherwise`. The intake's own pause comes first."""
FIRST_IN_A_ROW: Final = 4
"""Channels that have ended go first. After this number of them in a row, another channel that is due gets its turn."""


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Pauses in seconds: after a channel's end, between calls while it is live, and otherwise."""

    after_end: tuple[float, ...]
    while_live: float
    otherwise: float


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call: a page (from 1) of a channel's list, with the newest segment first or in the platform's order."""

    channel: str
    page: int
    newest_first: bool = False


class _Visit:
    """The state of one channel: when and for which page it is due, and whether its last segment is awaited.

    `long`: the list has more than one page. `doubted`: the last call with the newest first failed.
    """

    __slots__ = (
        "doubted",
        "due",
        "ended",
        "failures",
        "in_flight",
        "last_end",
        "live",
        "long",
        "newest",
        "page",
        "read_to",
        "step",
        "sure",
    )

    def __init__(self, due: float) -> None:
        self.due = due
        self.page = 1
        self.in_flight = False
        self.long = False
        self.doubted = False
        self.failures = 0
        self.live = False
        self.newest = 0.0
        self.read_to = 0.0
        self.last_end = 0.0
        self.ended: float | None = None
        self.step = 0
        self.sure = False


_Due = tuple[float, int, str]


class RecordingSchedule:
    """Decides the next channel and page. `now` is monotonic time, `wall` is epoch seconds."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self._visits: dict[str, _Visit] = {}
        self._ended: list[_Due] = []
        self._others: list[_Due] = []
        self._in_a_row = 0
        self._order = 0

    def follow(self, known: Mapping[str, Stream | None], now: float, wall: float) -> None:
        """Replace the channels. A channel that has just ended is due soon."""
        for gone in self._visits.keys() - known.keys():
            del self._visits[gone]
        for channel, stream in known.items():
            visit = self._visits.get(channel)
            if visit is None:
                visit = self._visits[channel] = _Visit(now)
                self._push(channel, visit)
            if stream is not None:
                self._note_state(channel, visit, stream, now, wall)

    def _note_state(self, channel: str, visit: _Visit, stream: Stream, now: float, wall: float) -> None:
        was, visit.live = visit.live, stream.state == "live"
        if visit.live and not was and visit.due > now + self._times.while_live:
            visit.due = now + self._times.while_live
            self._push(channel, visit)
        since = stream.state_since.timestamp() if stream.state_since is not None else 0.0
        if visit.live or stream.state is None or since <= visit.last_end:
            return
        visit.last_end = since
        if wall - since > sum(self._times.after_end) + REACHES:
            return
        visit.ended, visit.step, visit.sure, visit.page = since, 0, False, 1
        visit.due = now + max(0.0, self._times.after_end[0] - max(0.0, wall - since))
        self._push(channel, visit)

    def wait(self, now: float) -> float | None:
        """Seconds until a channel is due; None while there is nothing to wait for."""
        dues = [heap[0][0] for heap in (self._ended, self._others) if self._prune(heap)]
        return max(0.0, min(dues) - now) if dues else None

    def take(self, now: float) -> Call | None:
        """The call that is due, if any. Channels that have ended go before the others."""
        ended, others = (
            bool(self._prune(heap)) and heap[0][0] <= now for heap in (self._ended, self._others)
        )
        if not ended and not others:
            return None
        first = ended and not (others and self._in_a_row >= FIRST_IN_A_ROW)
        self._in_a_row = self._in_a_row + 1 if first else 0
        channel = heapq.heappop(self._ended if first else self._others)[2]
        visit = self._visits[channel]
        visit.in_flight = True
        return Call(channel=channel, page=visit.page, newest_first=visit.long and not visit.doubted)

    def note_result(self, call: Call, listed: FileList | None, now: float) -> None:
        """Take the result of a call; `listed` is None after a failure."""
        visit = self._visits.get(call.channel)
        if visit is None:
            return
        visit.in_flight = False
        if listed is None:
            visit.due = now + min(AGAIN * 2.0 ** min(visit.failures, 32), max(AGAIN, self._times.otherwise))
            visit.failures += 1
            # a platform of 2016 may refuse `sort_type`: call without it, and with it again if that fails too
            visit.page, visit.doubted = 1, call.newest_first
        elif call.page == visit.page:  # otherwise the channel ended meanwhile, and begins again at page 1
            self._read(visit, listed, now)
        self._push(call.channel, visit)

    def _read(self, visit: _Visit, listed: FileList, now: float) -> None:
        visit.failures = 0
        ends = [segment.end.timestamp() for segment in listed.segments if segment.end is not None]
        visit.newest = max([visit.newest, *ends])
        if visit.page < MOST_PAGES and _goes_on(visit, listed, ends):
            visit.page += 1
            visit.due = now
            return
        visit.long = visit.long or visit.page > 1 if listed.total is None else listed.total > PAGE_SIZE
        visit.page, visit.read_to = 1, visit.newest
        visit.due = now + self._pause(visit)

    def _pause(self, visit: _Visit) -> float:
        """Seconds until the next call, after a list was read to its end."""
        times = self._times
        rarely = times.while_live if visit.live else times.otherwise
        if visit.ended is None:
            return rarely
        if visit.sure or visit.step + 1 >= len(times.after_end):
            visit.ended = None
            return rarely
        if visit.newest >= visit.ended - REACHES:
            visit.sure = True  # one more call: a short last segment may follow this one
            return times.after_end[-1]
        visit.step += 1
        return times.after_end[visit.step]

    def _push(self, channel: str, visit: _Visit) -> None:
        if visit.in_flight:
            return
        self._order += 1
        heapq.heappush(
            self._others if visit.ended is None else self._ended, (visit.due, self._order, channel)
        )

    def _prune(self, heap: list[_Due]) -> list[_Due]:
        """The heap, after outdated entries at its top are removed."""
        while heap and not self._is_true(heap[0], ended=heap is self._ended):
            heapq.heappop(heap)
        return heap

    def _is_true(self, entry: _Due, *, ended: bool) -> bool:
        visit = self._visits.get(entry[2])
        if visit is None or visit.in_flight:
            return False
        return visit.due == entry[0] and (visit.ended is not None) == ended


def _goes_on(visit: _Visit, listed: FileList, ends: list[float]) -> bool:
    """Whether the list has another page that may hold news."""
    if not listed.rows:
        return False
    newest_first = len(ends) > 1 and ends == sorted(ends, reverse=True) and ends[0] > ends[-1]
    if newest_first and ends[-1] < visit.read_to - OVERLAP:  # the rest was read last time
        return False
    if listed.total is not None:
        return visit.page * PAGE_SIZE < listed.total
    return listed.rows >= PAGE_SIZE
