"""An hour of 50 streams whose answers are cut now and then, by its own clock: the gaps are those of what was cut."""

import random
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from poller.core.history import Gap
from poller.core.model import Event
from poller.pipeline.gaps import Auditor

from .on_grid import PUSH, SETTLE, change, picture

STREAMS = 50
CUT = 0.01
MOST = 100
"""Messages in an answer."""
LASTS = 120
"""The least seconds between two changes of an interval."""
INTERVALS = (1, 1, 1, 2, 5, 10)


class Run(NamedTuple):
    """Pictures of one push of a stream."""

    stream: str
    push: int


class Hour:
    """Streams that are photographed each second or so, and a queue that is polled twice a second."""

    def __init__(self, dice: random.Random) -> None:
        self.dropped: dict[Run, set[int]] = defaultdict(set)
        self.came: dict[Run, set[int]] = defaultdict(set)
        self._dice = dice
        self._queue: list[tuple[Run, int]] = []
        self._interval = {f"live_{n}": 1 for n in range(STREAMS)}
        self._push: dict[str, int | None] = dict.fromkeys(self._interval)
        self._back = dict.fromkeys(self._interval, 0)
        self._settled = dict.fromkeys(self._interval, 0)
        self._quiet = dict.fromkeys(self._interval, 0)

    def seconds(self, count: int) -> Iterator[list[Event]]:
        """The events that are stored in each second."""
        for second in range(count):
            events = list(self._turn(second))
            self._photograph(second)
            while self._queue:
                answer, self._queue = self._queue[:MOST], self._queue[MOST:]
                events += self._answer(answer, second)
            yield events

    def _turn(self, second: int) -> Iterator[Event]:
        """Every twenty minutes or so an interval changes, and a push ends; every half hour a push is interrupted."""
        for stream, push in self._push.items():
            if push is None and second >= self._back[stream]:
                self._push[stream] = PUSH + second
                yield change(second, "live", stream=stream)
            elif push is not None and self._dice.random() < 1 / 1_200:
                self._push[stream], self._back[stream] = None, second + self._dice.randint(1, 90)
                yield change(second, stream=stream)
            elif push is not None and self._dice.random() < 1 / 1_800:
                self._quiet[stream] = second + self._dice.randint(20, 60)
                yield change(second, stream=stream)
            elif second >= self._settled[stream] and self._dice.random() < 1 / 1_200:
                self._interval[stream] = self._dice.choice(INTERVALS)
                self._settled[stream] = second + LASTS

    def _photograph(self, second: int) -> None:
        for stream, push in self._push.items():
            quiet = second < self._quiet[stream]
            if push is not None and not quiet and (PUSH + second) % self._interval[stream] == 0:
                self._queue.append((Run(stream, push), PUSH + second - push))

    def _answer(self, answer: list[tuple[Run, int]], second: int) -> list[Event]:
        cut = self._dice.random() < CUT
        for run, offset in answer:
            (self.dropped if cut else self.came)[run].add(offset)
        if cut:
            return []
        return [
            picture(offset, stream=run.stream, push=run.push, delay=PUSH + second + 0.5 - run.push - offset)
            for run, offset in answer
        ]

    def findable(self) -> set[tuple[Run, int]]:
        """What was dropped between two pictures that came."""
        return {
            (run, offset)
            for run, offsets in self.dropped.items()
            for offset in offsets
            if self.came[run] and min(self.came[run]) < offset < max(self.came[run])
        }

    def within(self, gap: Gap) -> set[tuple[Run, int]]:
        """What was dropped within a gap."""
        assert gap.push_started_at is not None
        run = Run(gap.stream_id, int(gap.push_started_at.timestamp()))
        first, last = (int(at.timestamp()) - run.push for at in (gap.from_at, gap.to_at))
        return {(run, offset) for offset in self.dropped[run] if first < offset < last}


def found_in(hour: Hour, seconds: int) -> list[Gap]:
    auditor = Auditor(lambda account: SETTLE)
    gaps: list[Gap] = []
    for second, events in enumerate(hour.seconds(seconds)):
        for event in events:
            auditor.take(event)
        gaps += auditor.judge(PUSH + second + 1.0)
    return gaps + auditor.judge(PUSH + seconds + 7_200.0)


@pytest.mark.parametrize(
    ("seconds", "seeds"), [(600, 3), pytest.param(3_600, 10, marks=pytest.mark.soak)], ids=["short", "hours"]
)
def test_what_was_cut_is_found_and_nothing_else_is(seconds: int, seeds: int) -> None:
    """What cannot be found was cut at the very change of an interval or a push, or beside an interruption."""
    findable = found = 0
    for seed in range(seeds):
        hour = Hour(random.Random(seed))
        gaps = found_in(hour, seconds)
        assert [gap for gap in gaps if len(hour.within(gap)) != gap.missing] == []
        assert len({gap.id for gap in gaps}) == len(gaps)
        cut = hour.findable()
        findable += len(cut)
        found += len(cut & {one for gap in gaps for one in hour.within(gap)})
    print(f"{findable} pictures dropped between two, {found} of them found, no false gap")
    assert findable > 500
    assert found >= 0.99 * findable
