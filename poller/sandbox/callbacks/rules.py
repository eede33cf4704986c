"""How a notification is signed, and how often it is repeated: docs/wire.md, section 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import md5

from poller.sandbox.options import Year

VALID = 600
"""Seconds for which a signature is good."""
PICTURE = 200
"""The event type of a screenshot."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The repeats of a notification without an answer: their number, and the seconds before each."""

    repeats: int
    pause: float


_ALWAYS: Mapping[Year, Rule] = {
    "2016": Rule(repeats=100, pause=3.0),  # the pause is a guess
    "2017": Rule(repeats=3, pause=3.0),
    "2018": Rule(repeats=3, pause=60.0),
    "today": Rule(repeats=12, pause=60.0),
}
_PICTURES_TODAY = Rule(repeats=5, pause=120.0)


def rule(year: Year, event_type: object) -> Rule:
    """The rule of that year for that type of event, which may be none that is known."""
    return _PICTURES_TODAY if year == "today" and event_type == PICTURE else _ALWAYS[year]


def signature(key: str, t: int) -> str:
    """`sign` for a notification that expires at that epoch second."""
    return md5(f"{key}{t}".encode(), usedforsecurity=False).hexdigest()
