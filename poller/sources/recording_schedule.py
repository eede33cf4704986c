"""When a channel's list of recordings is asked for. Told the time, so that it can be tried without waiting."""

import heapq
from collections.abc import Mapping
from typing import Final

import msgspec

from poller.core.catalogue import Stream
from poller.qcloud.events.files import FileList

PAGE_SIZE: Final = 100
MOST_PAGES: Final = 1000
"""Of one list: 100,000 segments of half an hour are five years."""
REACHES: Final = 120.0
"""A segment that ends so many seconds before a channel's end may reach it: states are seen late by a poll or two."""
OVERLAP: Final = 3600.0
"""A list that is newest first is read until so many seconds before the newest segment of the last time."""
AGAIN: Final = 60.0
"""Seconds after a call that failed, doubling up to `otherwise`; the intake's own pause comes before."""
FIRST_IN_A_ROW: Final = 4
"""Calls for channels that have ended, which go first, before another channel that is due gets its turn."""


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds: the pauses after a channel's end, and between calls while it is live and otherwise."""

    after_end: tuple[float, ...]
    while_live: float
    otherwise: float


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask for: a page (from 1) of a channel's list, the newest segment first or as the platform likes."""

    channel: str
    page: int
    newest_first: bool = False


class _Visit:
    """One channel: when it is due and for which page, and whether its end is being waited for.

    `long`: its list has more than a page. `doubted`: it was not answered when asked with the newest first.
    """

    __slots__ = (
        "asking",
        "doubted",
        "due",
        "ended",
        "failures",
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
        self.asking = False
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
    """Whom to ask next, and for which page. `now` is monotonic, `wall` is epoch seconds."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self._visits: dict[str, _Visit] = {}
        self._ended: list[_Due] = []
        self._others: list[_Due] = []
        self._in_a_row = 0
        self._order = 0

    def follow(self, known: Mapping[str, Stream | None], now: float, wall: float) -> None:
        """These channels, and no others; one that has just ended is asked soon."""
        for gone in self._visits.keys() - known.keys():
            del self._visits[gone]
        for channel, stream in known.items():
            visit = self._visits.get(channel)
            if visit is None:
                visit = self._visits[channel] = _Visit(now)
                self._push(channel, visit)
            if stream is not None:
                self._heard(channel, visit, stream, now, wall)

    def _heard(self, channel: str, visit: _Visit, stream: Stream, now: float, wall: float) -> None:
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
        """Seconds until somebody is due; None while nobody is."""
        dues = [heap[0][0] for heap in (self._ended, self._others) if self._prune(heap)]
        return max(0.0, min(dues) - now) if dues else None

    def take(self, now: float) -> Call | None:
        """What is due, if anything is: channels that have ended go before the others."""
        ended, others = (
            bool(self._prune(heap)) and heap[0][0] <= now for heap in (self._ended, self._others)
        )
        if not ended and not others:
            return None
        first = ended and not (others and self._in_a_row >= FIRST_IN_A_ROW)
        self._in_a_row = self._in_a_row + 1 if first else 0
        channel = heapq.heappop(self._ended if first else self._others)[2]
        visit = self._visits[channel]
        visit.asking = True
        return Call(channel=channel, page=visit.page, newest_first=visit.long and not visit.doubted)

    def answered(self, call: Call, listed: FileList | None, now: float) -> None:
        """What became of a call; None if there was no good answer."""
        visit = self._visits.get(call.channel)
        if visit is None:
            return
        visit.asking = False
        if listed is None:
            visit.due = now + min(AGAIN * 2.0 ** min(visit.failures, 32), max(AGAIN, self._times.otherwise))
            visit.failures += 1
            # a platform of 2016 may refuse `sort_type`: the next call goes without; if that fails too, it was not that
            visit.page, visit.doubted = 1, call.newest_first
        elif call.page == visit.page:  # else the channel ended meanwhile, and is due from the first page on
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
        """Seconds after a list was read to its end."""
        times = self._times
        rarely = times.while_live if visit.live else times.otherwise
        if visit.ended is None:
            return rarely
        if visit.sure or visit.step + 1 >= len(times.after_end):
            visit.ended = None
            return rarely
        if visit.newest >= visit.ended - REACHES:
            visit.sure = True  # once more, as a short last segment may follow one that ends near it
            return times.after_end[-1]
        visit.step += 1
        return times.after_end[visit.step]

    def _push(self, channel: str, visit: _Visit) -> None:
        if visit.asking:
            return
        self._order += 1
        heapq.heappush(
            self._others if visit.ended is None else self._ended, (visit.due, self._order, channel)
        )

    def _prune(self, heap: list[_Due]) -> list[_Due]:
        """The heap without what is not true any more at its top."""
        while heap and not self._is_true(heap[0], ended=heap is self._ended):
            heapq.heappop(heap)
        return heap

    def _is_true(self, entry: _Due, *, ended: bool) -> bool:
        visit = self._visits.get(entry[2])
        if visit is None or visit.asking:
            return False
        return visit.due == entry[0] and (visit.ended is not None) == ended


def _goes_on(visit: _Visit, listed: FileList, ends: list[float]) -> bool:
    """Whether the list has another page that may hold news."""
    if not listed.rows:
        return False
    newest_first = len(ends) > 1 and ends == sorted(ends, reverse=True) and ends[0] > ends[-1]
    if newest_first and ends[-1] < visit.read_to - OVERLAP:  # behind what was read last time is nothing new
        return False
    if listed.total is not None:
        return visit.page * PAGE_SIZE < listed.total
    return listed.rows >= PAGE_SIZE
