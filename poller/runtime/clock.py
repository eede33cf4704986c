"""Time, as a thing that can be given: the wall clock for stamps, a monotonic one for durations, and how old a stamp is.

Whoever asks for an age asks here. An age grows with the monotonic clock, however the wall clock is set
(`poller.runtime.ages`).
A spool that keeps a record over restarts (`KeepsTime`) says how a life's ages begin; without one they are the wall's.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from threading import RLock
from typing import Protocol, runtime_checkable

import msgspec

from poller.runtime import ages
from poller.runtime.ages import ClockHistory, Setting, Settings


class Jump(msgspec.Struct, frozen=True, kw_only=True):
    """A jump of the wall clock, in seconds, while this process ran or before its start."""

    seconds: float
    at_start: bool


class _Life(msgspec.Struct):
    """Steady time since a start: `base` at the monotonic time `began`; settings before `own` are of earlier lives."""

    settings: Settings
    own: int
    base: float
    began: float
    passed: float
    seen: float


class Clock:
    """The machine's clocks. Any thread may use it."""

    _life: _Life | None = None
    _lock = RLock()

    def __init__(self) -> None:
        self._look()

    def now(self) -> datetime:
        """The wall clock, aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""
        return time.monotonic()

    # ------------------------------------------------------------ ages

    def age(self, at: datetime) -> float:
        """How many seconds ago a stamp of `now` was taken, never less than 0; stamps of earlier lives included."""
        with self._lock:
            life, now = self._look()
            taken = ages.steady_of(life.settings, at.timestamp(), now)
            passed = self._unconfirmed_time(life) if taken <= life.base - life.passed else 0.0
        return max(0.0, now - taken - passed)

    def young(self, age: float) -> list[tuple[float, float]]:
        """Ranges of epochs. Every stamp outside all of them is older than `age` seconds."""
        with self._lock:
            life, now = self._look()
            return ages.young_stamps(life.settings, now, age + self._unconfirmed_time(life))

    def wait_for(self, due: datetime, longest: float) -> float:
        """Seconds until a moment that a clock of this or an earlier life wrote down; at most `longest`."""
        with self._lock:
            life, now = self._look()
            return ages.wait_for(life.settings, due.timestamp(), now, longest)

    def _unconfirmed_time(self, life: _Life) -> float:
        """What of the time between two lives does not count yet."""
        young = self.monotonic() - life.began < ages.CONFIRMED
        return life.passed if young and life.passed > ages.DAY else 0.0

    # ------------------------------------------------------------ lives

    def begin(self, known: ClockHistory | None) -> None:
        """Continue from the record of the process before."""
        with self._lock:
            wall, before = self.now().timestamp(), known.settings if known else ()
            begun = ages.begin(known, wall)
            base, passed = begun.settings[-1].until, begun.passed
            own, began = max(0, len(begun.settings) - 1), self.monotonic()
            self._life = _Life(begun.settings, own, base, began, passed, base)
            self._jumps: list[Jump] = []
            by = begun.settings[-1].offset - before[-1].offset if before else 0.0
            if abs(by) > ages.JUMP:
                self._jumps.append(Jump(seconds=by, at_start=True))

    def history(self, *, stopped: bool) -> ClockHistory:
        """The record for the next process."""
        with self._lock:
            life, now = self._look()
            *before, last = life.settings
            return ClockHistory(settings=(*before, Setting(last.since, now, last.offset)), stopped=stopped)

    def jumps(self) -> Sequence[Jump]:
        """Look at the clocks; the jumps that were seen since the last call."""
        with self._lock:
            self._look()
            seen, self._jumps = self._jumps, []
            return seen

    def _look(self) -> tuple[_Life, float]:
        """Compare the clocks; this life as it stands, and its steady time."""
        if self._life is None:
            self.begin(None)
        life = self._life
        assert life is not None
        now = life.base + self.monotonic() - life.began
        wall = self.now().timestamp()
        by = wall - now - life.settings[-1].offset
        if abs(by) > ages.JUMP:
            self._jumps.append(Jump(seconds=by, at_start=False))
            now = self._revise(life, now, wall) if by < 0 else now
        life.settings = ages.set_to(life.settings, life.seen, now, wall - now)
        life.seen = now
        return life, now

    def _revise(self, life: _Life, now: float, wall: float) -> float:
        """A clock that is set back after a start may have been ahead at the start: then less time passed before it."""
        earlier = life.settings[: life.own]
        if life.passed <= ages.DAY or not earlier:
            return now
        stop, lived = life.base - life.passed, now - life.base
        passed = ages.least_elapsed(earlier, stop, wall - lived)
        if passed >= life.passed:
            return now
        too_much, life.passed = life.passed - passed, passed
        life.base -= too_much
        life.seen -= too_much
        life.settings = (
            *earlier,
            *(
                Setting(s.since - too_much, s.until - too_much, s.offset + too_much)
                for s in life.settings[life.own :]
            ),
        )
        return now - too_much


@runtime_checkable
class KeepsTime(Protocol):
    """A spool whose clock knows the time of earlier processes. Ages must be asked of this clock."""

    clock: Clock
