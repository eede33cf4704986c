"""What a spool file records about deliveries, and whether it agrees with the rest of the file.

Reads the tables by itself, so that a fault in the spool's own reading does not hide a fault in its writing.
"""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path


def covered(spool: sqlite3.Connection, sink: str) -> Counter[int]:
    """How often each event number is recorded as delivered to a sink."""
    found: Counter[int] = Counter()
    rows = spool.execute("SELECT first, last, holes FROM delivered WHERE sink = ?", (sink,))
    for first, last, holes in rows:
        for number in range(first, last + 1):
            place = number - first
            if not holes or not holes[place // 8] >> (place % 8) & 1:
                found[number] += 1
    return found


def check_recorded(file: Path) -> None:
    """The counts are exact, and every settled event has its delivery; for sinks that want every event."""
    if not file.exists() or file.stat().st_size == 0:
        return
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as spool:
        if not spool.execute("SELECT 1 FROM sqlite_master WHERE name = 'tally'").fetchall():
            return
        tallies = {
            (owner, book): n for owner, book, n in spool.execute("SELECT owner, book, count FROM tally")
        }
        first, last = spool.execute("SELECT min(first), max(last) FROM page").fetchone()
        positions = dict(spool.execute("SELECT name, position FROM sink"))
        head = max([(last or 0) + 1, *positions.values()])
        assert sum(n for (_, book), n in tallies.items() if book == "taken") == head - 1
        for sink, position in positions.items():
            _check_sink(spool, sink, position, first or head, tallies)


def _check_sink(
    spool: sqlite3.Connection, sink: str, position: int, first: int, tallies: dict[tuple[str, str], int]
) -> None:
    (again,) = spool.execute("SELECT count(*) FROM redelivered WHERE sink = ?", (sink,)).fetchone()
    recorded = covered(spool, sink)
    counted, rows = tallies.get((sink, "delivered"), 0), recorded.total() + again
    assert rows == counted if first == 1 else rows <= counted, f"{sink}: {rows} recorded, {counted} counted"
    waiting = {
        number
        for (numbers,) in spool.execute("SELECT numbers FROM waiting WHERE sink = ?", (sink,))
        for number in json.loads(numbers)
    }
    (dead,) = spool.execute("SELECT count(*) FROM dead WHERE sink = ?", (sink,)).fetchone()
    assert dead <= tallies.get((sink, "dead"), 0)
    unrecorded = [n for n in range(first, position) if n not in recorded and n not in waiting]
    died = tallies.get((sink, "dead"), 0)
    assert len(unrecorded) <= died, f"{sink}: settled, not recorded and not dead: {unrecorded[:10]}"
