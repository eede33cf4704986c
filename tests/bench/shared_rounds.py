"""Rounds of appending, and of claiming and settling, by members of a shared spool. A part of `tests.bench.shared`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tests.bench.shared_bare import SCHEMA
from tests.bench.shared_member import Result, Task, together
from tests.bench.shared_server import Server

Way = Literal["postgres", "bare", "sqlite"]


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round gave: events a second, and microseconds of CPU an event, of the members and of the server.

    log: bytes of the write-ahead log an event
    """

    speed: float
    cpu: float
    server: float
    log: float


Found = dict[tuple[Way, str], list[Round]]
"""Rounds by way and by what was done."""


class Places:
    """A spool in PostgreSQL, one in SQLite and the bare tables, which all hold the same events."""

    def __init__(self, server: Server, folder: Path, schema: str = "spool") -> None:
        self.schema = schema
        self._server = server
        self._settings: Mapping[Way, dict[str, Any]] = {
            "postgres": server.spool(schema),
            "bare": {"dsn": server.dsn},
            "sqlite": {"type": "sqlite", "path": str(folder / "spool.db"), "min_free": 0},
        }
        self._next: dict[Way, int] = dict.fromkeys(self._settings, 0)
        self._sinks = 0

    def fill(self, events: int) -> None:
        """Let all of them hold so many events, in pages of 100."""
        for way in ("postgres", "sqlite"):
            together([self._append(way, events, 16)])
        self._next["bare"] = events
        self._server.run(SCHEMA)
        self._server.run(
            f"INSERT INTO bare.page SELECT first, last, events FROM {self.schema}.page;"
            f" INSERT INTO bare.seen SELECT key FROM {self.schema}.seen;"
            f" UPDATE bare.log SET head = (SELECT head FROM {self.schema}.log)"
        )
        self._server.settle()

    def _append(self, way: Way, events: int, pages: int) -> Task:
        first = self._next[way]
        self._next[way] += events
        return Task(
            way=way, settings=self._settings[way], work="append", events=events, first=first, together=pages
        )

    def append(self, way: Way, members: int, events: int, pages: int) -> Round:
        """Append so many events, each member its part of them, `pages` pages a commit."""
        return self._round([self._append(way, events // members, pages) for _ in range(members)])

    def carry(self, way: Way, members: int) -> Round:
        """Claim and settle all events for a new sink. Fails if an event is missing or comes twice."""
        self._sinks += 1
        sink = f"sink{self._sinks}"
        if way == "bare":
            self._server.run(f"INSERT INTO bare.sink VALUES ('{sink}', 1)")
        task = Task(way=way, settings=self._settings[way], work="carry", sink=sink, events=self._next[way])
        return self._round([task] * members)

    def follow(self, events: int) -> float:
        """Microseconds of CPU an event of a member that does nothing but follow what another one appends."""
        appends = self._append("postgres", events, 16)
        _, follows = together([appends, replace(appends, work="follow")])
        return follows.cpu / events * 1e6

    def _round(self, tasks: Sequence[Task]) -> Round:
        before = self._server.used()
        results = together(tasks)
        used = self._server.used().since(before)
        events = sum(one.events for one in results)
        expected = tasks[0].events if tasks[0].work == "carry" else sum(one.events for one in tasks)
        assert events == expected, f"{events} events of {expected}"
        return Round(
            speed=events / _seconds(results),
            cpu=sum(one.cpu for one in results) / events * 1e6,
            server=used.cpu / events * 1e6,
            log=used.log / events,
        )

    def kept(self) -> dict[str, float]:
        """The bytes that the server keeps for an event, by what they are."""
        queries = {
            "of an event, compressed": f"pg_total_relation_size('{self.schema}.page')",
            "of an event, as max_bytes counts": f"sum(octet_length(events)) FROM {self.schema}.page",
            "of an id, with its indexes": f"pg_total_relation_size('{self.schema}.seen')",
        }
        events = self._next["postgres"]
        return {what: self._server.ask(f"SELECT {query}") / events for what, query in queries.items()}


def _seconds(results: Sequence[Result]) -> float:
    return max(one.ended for one in results) - min(one.began for one in results)


def measure(places: Places, found: Found, *, members: Sequence[int], events: int, turn: int) -> None:
    """One round of everything, in an order that changes from turn to turn. SQLite has one member."""
    ways: list[Way] = ["sqlite", "bare", "postgres"]
    for way in ways[:: 1 if turn % 2 else -1]:
        for count in members if way != "sqlite" else [1]:
            found.setdefault((way, carrying(count)), []).append(places.carry(way, count))
    for way in ways[:: 1 if turn % 2 else -1]:
        for pages in (1, 16):
            for count in (1, 2) if way != "sqlite" else [1]:
                name = appending(pages, count)
                found.setdefault((way, name), []).append(places.append(way, count, events, pages))


def carrying(members: int) -> str:
    """The name of claiming and settling by so many members."""
    return f"claim, settle, {_many(members, 'member')}"


def appending(pages: int, members: int) -> str:
    """The name of appending so many pages a commit by so many members."""
    return f"append, {_many(pages, 'page')} a commit, {_many(members, 'appender')}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"
