"""How a run is judged: what may be lost, what may come twice, and what may step back in its stream.

A kill, a freeze, a cut network or an outage of the database explains some of it. Nothing else does.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Final, NamedTuple

from poller.sandbox import Removed

from .receivers import Arrival, Deliveries

LANES: Final = 4
"""Polls that a daemon has in flight at most."""
LOSING: Final = {"kill", "freeze", "cut"}
"""Ends at which answers of the platform may be under way that nobody has kept."""
GOING_ON: Final = {"freeze", "cut", "promotion", "restart"}
"""Ends after which the same process may still deliver what it had in hand, until it notices."""
UNSETTLED: Final = 5.0
"""Seconds in which a delivery is settled, but where the machine holds up a daemon or the database."""
LATE: Final = 1.0
"""Seconds in which what a process had sent is written down after its end, on a crowded machine."""
SOON: Final = 20.0
"""Seconds after a session's end in which its deliveries are carried by another daemon, on a crowded machine."""


@dataclass(frozen=True, eq=False)
class Ending:
    """The end of a session: of one process's life, or of every life where that is None.

    begin, end: the moments, as epochs
    unsettled:  what each sink had yet to settle just before, as the database said: stretches of numbers, from the first
                one up to the one behind the last one
    """

    kind: str
    life: int | None
    begin: float
    end: float
    unsettled: Mapping[str, Sequence[tuple[int, int]]]

    def explains(self, event: "Owed", first: Arrival, again: Arrival) -> bool:
        """Whether an event may have come twice because of this end. An orderly one leaves nothing unsettled."""
        return (
            self.kind != "stop"
            and any(start <= event.number < upto for start, upto in self.unsettled.get(event.sink, ()))
            and (self._left_unsettled(first, again) or self._had_in_hand(first, again))
        )

    def _left_unsettled(self, first: Arrival, again: Arrival) -> bool:
        """The life that ended had delivered it."""
        return (
            self.life in (None, first.life)
            and first.moment <= self.end + LATE
            and self.begin <= again.moment <= self.end + SOON
        )

    def _had_in_hand(self, first: Arrival, again: Arrival) -> bool:
        """The life that ended delivered it before it noticed, and after another one had."""
        return (
            self.kind in GOING_ON
            and self.life == again.life
            and self.begin <= first.moment <= again.moment <= self.end + LATE
        )


class Owed(NamedTuple):
    """An event that a sink gets, by its number in the log."""

    sink: str
    number: int


class Repeat(NamedTuple):
    """That a delivery came again: the end that explains it, and how many seconds before that it first came."""

    ending: Ending
    age: float


def check_stored_once(twice: Sequence[str], stored: Mapping[str, int], removed: Sequence[Removed]) -> None:
    """Every event is in the log once, and none that was never removed from the queue."""
    assert not twice, f"{len(twice)} events are in the log more than once, such as {twice[0]}"
    invented = stored.keys() - {one.path for one in removed}
    assert not invented, f"{len(invented)} events were never removed, such as {min(invented)}"


def check_lost(
    removed: Sequence[Removed], stored: Mapping[str, int], rejects: bytes, endings: Sequence[Ending]
) -> Counter[str]:
    """How many polls are lost, by the end that explains each: one that was in flight at it, and it lost all of it."""
    taken, lost = defaultdict[int, list[Removed]](list), defaultdict[int, list[Removed]](list)
    for one in removed:
        taken[one.poll].append(one)
        if one.path is not None and one.path not in stored and one.path.encode() not in rejects:
            lost[one.poll].append(one)
    explained = Counter[Ending]()
    for poll, messages in lost.items():
        assert len(messages) == len(taken[poll]), f"poll {poll} is lost in part: {messages[0]}"
        at = messages[0].at
        ends = [
            one
            for one in endings
            if one.kind in LOSING and one.begin - LATE <= at <= one.end + LATE and explained[one] < LANES
        ]
        assert ends, f"poll {poll} at {at} is lost, and no end of a session explains it: {messages[0]}"
        explained[ends[0]] += 1
    found = Counter[str]()
    for ending, count in explained.items():
        found[ending.kind] += count
    return found


def check_whereabouts(
    sink: str, stored: set[int], delivered: set[int], dead: set[int], pending: set[int]
) -> None:
    """What is stored was delivered, or is dead, or is pending. Nothing is invented, and nothing both."""
    missing = stored - delivered - dead - pending
    assert not missing, f"{sink}: {len(missing)} events are stored and were forgotten, such as {min(missing)}"
    invented = delivered - stored
    assert not invented, f"{sink}: {len(invented)} events were delivered and are not stored"
    both = delivered & dead
    assert not both, f"{sink}: {len(both)} events were delivered and are dead"


def check_repeats(
    sink: str, deliveries: Deliveries, endings: Sequence[Ending], numbers: Mapping[int, int]
) -> list[Repeat]:
    """All deliveries that came again, each with an end that explains it. `numbers` are those of the log."""
    last: dict[int, int] = {}
    found = list[Repeat]()
    moments, lives = deliveries.moments, deliveries.lives
    for place, event in enumerate(deliveries.events):
        before = last.get(event)
        last[event] = place
        if before is None:
            continue
        owed = Owed(sink, numbers[event])
        ending = _explaining(endings, owed, deliveries.arrival(before), deliveries.arrival(place))
        assert ending is not None, (
            f"{sink}: number {owed.number} came at {moments[before]:.3f} in life {lives[before]} and again at"
            f" {moments[place]:.3f} in life {lives[place]}, and no end of a session explains it"
        )
        found.append(Repeat(ending, ending.begin - moments[before]))
    return found


def check_settled_soon(repeats: Sequence[Repeat]) -> None:
    """At most ends, nothing was unsettled for long. Who settles too late does so before each of them."""
    oldest = defaultdict[Ending, float](float)
    for one in repeats:
        oldest[one.ending] = max(oldest[one.ending], one.age)
    ages = sorted(oldest.values())
    assert not ages or median_low(ages) <= UNSETTLED, f"deliveries were unsettled for long: {ages}"


def check_order(
    sink: str,
    deliveries: Deliveries,
    endings: Sequence[Ending],
    streams: Mapping[int, str],
    numbers: Mapping[int, int],
) -> int:
    """The events of each stream came first in the order of the log, and in each life too; returns the steps back.

    A step back is a repetition: whether that is explained says `check_repeats`. Within a life only an end after which
    the process goes on explains it.
    """
    newest: dict[str, int] = {}
    in_life: dict[tuple[int, str], int] = {}
    seen, back = set[int](), 0
    going_on = [one for one in endings if one.kind in GOING_ON]
    for place, event in enumerate(deliveries.events):
        stream, number, life = streams[event], numbers[event], deliveries.lives[place]
        moment = deliveries.moments[place]
        where = f"{sink}: number {number} of {stream} at {moment:.3f} in life {life}"
        highest = newest.get(stream, 0)
        if event in seen:
            back += number < highest
        else:
            assert number > highest, f"{where} came first after {highest}"
            newest[stream] = number
        seen.add(event)
        before = in_life.get((life, stream))
        if before is not None and number <= numbers[deliveries.events[before]]:
            first, again = deliveries.arrival(before), deliveries.arrival(place)
            ending = _explaining(going_on, Owed(sink, number), first, again)
            assert ending is not None, (
                f"{where} came after {numbers[deliveries.events[before]]} in the same life"
            )
        in_life[life, stream] = place
    return back


def _explaining(endings: Sequence[Ending], event: Owed, first: Arrival, again: Arrival) -> Ending | None:
    return next((one for one in endings if one.explains(event, first, again)), None)
