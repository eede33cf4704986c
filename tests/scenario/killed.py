"""What a kill leaves in the spool's file, and whether it explains what comes after it."""

import sqlite3
from collections import defaultdict
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import msgspec

from poller.runtime.failpoints import VARIABLE

from .environment import Environment
from .recorded import check_recorded
from .rig import Process, Scenario, by_poll


class _Data(msgspec.Struct):
    file_name: str


class _Line(msgspec.Struct):
    data: _Data


_line = msgspec.json.Decoder(_Line).decode


def owed(spool: Path, sink: str) -> set[str]:
    """The pictures' names that the file says a sink is still owed."""
    if not spool.exists() or spool.stat().st_size == 0:
        return set()
    with closing(sqlite3.connect(f"{spool.as_uri()}?mode=ro", uri=True)) as file:
        if not file.execute("SELECT 1 FROM sqlite_master WHERE name = 'sink'").fetchall():
            return set()
        row = file.execute("SELECT position FROM sink WHERE name = ?", (sink,)).fetchone()
        position = row[0] if row else 0
        found: set[str] = set()
        for first, events in file.execute("SELECT first, events FROM page WHERE last >= ?", (position,)):
            found.update(
                _line(line).data.file_name for line in events.split(b"\n")[max(0, position - first) :]
            )
        for (events,) in file.execute("SELECT events FROM waiting WHERE sink = ?", (sink,)):
            found.update(_line(line).data.file_name for line in events.split(b"\n"))
    return found


def life(daemon: Scenario, point: str, times: int = 1) -> Process:
    """A daemon that is to die at the n-th passing of a point."""
    return daemon.start("run", **{VARIABLE: f"{point}:{times}"})


def died_at(process: Process, point: str) -> None:
    """The process is dead, and by that fail point."""
    code = process.wait()
    assert f"killed at the fail point {point}\n" in process.stderr, (point, code, process.stderr[-2000:])
    assert code == -9


class Ledger:
    """Lives and how they ended: what each may have lost (with one lane, its last poll), and what its end left owed."""

    def __init__(self, daemon: Scenario, place: Environment) -> None:
        self._daemon = daemon
        self._place = place
        self._polls = [0]
        self._most: list[tuple[str, int, int]] = []
        self._owed: list[set[str]] = [set()]

    def ended(self, how: str, least: int = 0, most: int = 0) -> None:
        """One more life is over; so many polls may be lost by it."""
        self._place.settled()
        self._polls.append(self._place.counts.polls)
        self._most.append((how, least, most))
        self._owed.append(owed(self._daemon.spool_file, "hook"))
        check_recorded(self._daemon.spool_file)

    def balance(self) -> int:
        """After the drain: every message is accounted for; returns how many messages were lost."""
        books = self._daemon.books()
        books.check_once()
        assert not books.waiting
        taken, lost = by_poll(books.removed), books.lost_polls()
        for poll, messages in lost.items():
            assert len(messages) == len(taken[poll]), "a poll is lost whole or not at all"
        for (how, least, most), (before, after) in zip(self._most, pairwise(self._polls), strict=True):
            gone = [poll for poll in lost if before < poll <= after]
            assert least <= len(gone) <= most, f"{how} lost {len(gone)} polls"
            assert set(gone) <= {max((poll for poll in taken if poll <= after), default=0)}, (
                f"{how} lost a poll that was kept"
            )
        assert all(poll <= self._polls[-1] for poll in lost), "lost without a kill"
        return sum(map(len, lost.values()))

    def explain_repeats(self) -> int:
        """What came to the webhook again was owed at every end between; returns how many deliveries came again."""
        assert self._place.hook.twice_in_a_life() == []
        lives: defaultdict[str, list[int]] = defaultdict(list)
        for receipt in self._place.hook.receipts:
            for name in receipt.files:
                lives[name].append(receipt.life)
        again = 0
        for name, seen in lives.items():
            for earlier, later in pairwise(seen):
                again += 1
                for end in range(earlier, later):
                    assert name in self._owed[end], (
                        f"{name} came again in life {later}, and was not owed after {end}"
                    )
        return again
