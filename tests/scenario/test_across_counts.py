"""What judges the daemons that share a spool sees each wrong history, and lets right ones pass."""

from collections.abc import Callable
from typing import Final

import pytest

from poller.sandbox import Removed

from .across.counts import (
    LANES,
    LATE,
    SOON,
    UNSETTLED,
    Ending,
    Repeat,
    check_lost,
    check_order,
    check_repeats,
    check_settled_soon,
    check_stored_once,
    check_whereabouts,
)
from .across.receivers import Deliveries

LEFT: Final = {"sink": [(1, 2), (2, 100)]}
"""What was unsettled at these ends: each number from 1 to 99."""
KILL: Final = Ending("kill", 1, 100.0, 101.0, LEFT)
CUT: Final = Ending("cut", 1, 100.0, 104.0, LEFT)
RESTART: Final = Ending("restart", None, 100.0, 101.0, LEFT)
STOP: Final = Ending("stop", 1, 100.0, 101.0, LEFT)
PROMOTION: Final = Ending("promotion", None, 100.0, 103.0, LEFT)


def deliveries(*rows: tuple[int, float, int]) -> Deliveries:
    """Each row is an event, a moment and a life."""
    found = Deliveries()
    for row in rows:
        found.note(*row)
    return found


def removed(poll: int, at: float, *paths: str) -> list[Removed]:
    common = {"customer": 1, "fault": None, "stream_id": "s", "pic_url": None}
    return [Removed(n=0, poll=poll, at=at, path=path, **common) for path in paths]  # type: ignore[arg-type]


def repeats(rows: Deliveries, *endings: Ending) -> list[Repeat]:
    """The number of each event is its own."""
    return check_repeats("sink", rows, endings, {event: event for event in rows.events})


def unsettled_for(*ages: float) -> list[Repeat]:
    """At each end two deliveries came again: one of this age in seconds, and a newer one."""
    ends = [Ending("kill", life, 100.0 * life, 100.0 * life + 1, LEFT) for life in range(len(ages))]
    return [Repeat(end, age) for end, oldest in zip(ends, ages, strict=True) for age in (oldest, 0.0)]


def order(rows: Deliveries, *endings: Ending) -> int:
    """All events are of one stream, and the number of each is its own."""
    events = set(rows.events)
    return check_order("sink", rows, endings, dict.fromkeys(events, "s"), {event: event for event in events})


RIGHT: Final[dict[str, Callable[[], object]]] = {
    "a killed life's delivery comes again": lambda: repeats(deliveries((1, 99.5, 1), (1, 103.0, 2)), KILL),
    "a killed life's delivery comes again that was not settled for long": lambda: repeats(
        deliveries((99, 9.5, 1), (99, 103.0, 2)), KILL
    ),
    "deliveries are settled soon, but the machine held one up": lambda: check_settled_soon(
        unsettled_for(0.1, UNSETTLED - 0.1, 40.0)
    ),
    "no delivery comes again": lambda: check_settled_soon([]),
    "any life's delivery comes again at a promotion": lambda: repeats(
        deliveries((1, 99.5, 7), (1, 103.0, 7)), PROMOTION
    ),
    "a life that was cut off delivers what it had in hand, after another one did": lambda: repeats(
        deliveries((1, 103.0, 2), (1, 104.5, 1)), CUT
    ),
    "the polls in flight at a kill are lost": lambda: check_lost(
        [one for poll in range(LANES) for one in removed(poll, 100.0, f"a{poll}", f"b{poll}")],
        {},
        b"",
        [KILL],
    ),
    "a reject is not lost": lambda: check_lost(removed(1, 1.0, "a"), {}, b"...a...", []),
    "an event of each kind is somewhere": lambda: check_whereabouts("sink", {1, 2, 3}, {1}, {2}, {3}),
    "an event is pending and was delivered": lambda: check_whereabouts("sink", {1}, {1}, set(), {1}),
    "the next life repeats in order": lambda: order(
        deliveries((1, 98.0, 1), (2, 99.0, 1), (1, 103.0, 2), (2, 103.1, 2), (3, 104.0, 2)), KILL
    ),
    "a daemon that was cut off repeats what it had in hand": lambda: order(
        deliveries((1, 98.0, 1), (2, 99.0, 1), (1, 103.0, 1), (2, 103.1, 1), (3, 104.0, 1)), CUT
    ),
}

WRONG: Final[dict[str, tuple[Callable[[], object], str]]] = {
    "twice in a life without reason": (
        lambda: repeats(deliveries((1, 99.5, 1), (1, 103.0, 1))),
        "no end of a session explains it",
    ),
    "the delivery of a life that did not end comes again": (
        lambda: repeats(deliveries((1, 99.5, 2), (1, 103.0, 3)), KILL),
        "no end of a session explains it",
    ),
    "the delivery of a life that stopped in order comes again": (
        lambda: repeats(deliveries((1, 99.5, 1), (1, 103.0, 2)), STOP),
        "no end of a session explains it",
    ),
    "a delivery that was settled comes again": (
        lambda: repeats(deliveries((100, 99.9, 1), (100, 103.0, 2)), KILL),
        "no end of a session explains it",
    ),
    "a delivery that another sink had not settled comes again": (
        lambda: check_repeats("other", deliveries((1, 99.9, 1), (1, 103.0, 2)), [KILL], {1: 1}),
        "no end of a session explains it",
    ),
    "a daemon that was cut off repeats what it had settled": (
        lambda: order(deliveries((100, 98.0, 1), (101, 99.0, 1), (100, 103.0, 1)), CUT),
        "in the same life",
    ),
    "deliveries are unsettled for long before most ends": (
        lambda: check_settled_soon(unsettled_for(0.1, UNSETTLED + 0.1, UNSETTLED + 0.1)),
        "unsettled for long",
    ),
    "a dead life delivers": (
        lambda: repeats(deliveries((1, 101.1 + LATE, 1), (1, 103.0, 2)), KILL),
        "no end of a session explains it",
    ),
    "a dead life delivers after another one did": (
        lambda: repeats(deliveries((1, 100.5, 2), (1, 100.9, 1)), KILL),
        "no end of a session explains it",
    ),
    "a life that was cut off delivers long after it ended": (
        lambda: repeats(deliveries((1, 103.0, 2), (1, 104.1 + LATE, 1)), CUT),
        "no end of a session explains it",
    ),
    "a delivery comes again before the kill": (
        lambda: repeats(deliveries((1, 99.0, 1), (1, 99.9, 2)), KILL),
        "no end of a session explains it",
    ),
    "a delivery comes again long after the kill": (
        lambda: repeats(deliveries((1, 99.0, 1), (1, 101.1 + SOON, 2)), KILL),
        "no end of a session explains it",
    ),
    "a poll is lost without an end": (lambda: check_lost(removed(1, 90.0, "a"), {}, b"", [KILL]), "is lost"),
    "a poll is lost at an end that loses none": (
        lambda: check_lost(removed(1, 100.0, "a"), {}, b"", [PROMOTION, RESTART]),
        "is lost",
    ),
    "a poll is lost in part": (
        lambda: check_lost(removed(1, 100.0, "a", "b"), {"b": 1}, b"", [KILL]),
        "is lost in part",
    ),
    "more polls are lost than were in flight": (
        lambda: check_lost(
            [one for poll in range(LANES + 1) for one in removed(poll, 100.0, f"a{poll}")], {}, b"", [KILL]
        ),
        "is lost",
    ),
    "an event is nowhere": (lambda: check_whereabouts("sink", {1, 2}, {1}, set(), set()), "forgotten"),
    "an event is delivered and not stored": (
        lambda: check_whereabouts("sink", {1}, {1, 2}, set(), set()),
        "not stored",
    ),
    "a dead event was delivered": (lambda: check_whereabouts("sink", {1}, {1}, {1}, set()), "are dead"),
    "an event is stored twice": (
        lambda: check_stored_once(["a"], {"a": 1}, removed(1, 1.0, "a")),
        "more than once",
    ),
    "an event is invented": (lambda: check_stored_once([], {"b": 1}, removed(1, 1.0, "a")), "never removed"),
    "an event is overtaken": (lambda: order(deliveries((2, 1.0, 1), (1, 2.0, 1))), "came first after"),
    "an event is overtaken at a kill": (
        lambda: order(deliveries((2, 99.0, 1), (1, 103.0, 2)), KILL),
        "came first after",
    ),
    "the next life repeats out of order": (
        lambda: order(
            deliveries((1, 98.0, 1), (2, 98.5, 1), (3, 99.0, 1), (2, 103.0, 2), (1, 103.1, 2)), KILL
        ),
        "in the same life",
    ),
    "a life goes back although only another one was cut off": (
        lambda: order(deliveries((1, 98.0, 2), (2, 99.0, 2), (1, 103.0, 2)), CUT),
        "in the same life",
    ),
}


@pytest.mark.parametrize("history", RIGHT)
def test_a_right_history_passes(history: str) -> None:
    RIGHT[history]()


@pytest.mark.parametrize("history", WRONG)
def test_a_wrong_history_is_seen(history: str) -> None:
    judge, words = WRONG[history]
    with pytest.raises(AssertionError, match=words):
        judge()
