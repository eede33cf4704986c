"""What the tables of a shared spool say: all the SQL of these tests."""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import msgspec

from tests.servers.databases import Rows

SCHEMA: Final = "poller"
PIECE: Final = 50_000
"""How many events are read at once."""


_OWED: Final = f"""
SELECT (
    SELECT coalesce(sum(behind), 0)::bigint FROM (
        SELECT max(head - position) AS behind FROM {SCHEMA}.sink, {SCHEMA}.log GROUP BY parent
    ) AS sinks
), (SELECT coalesce(sum(upto - first), 0)::bigint FROM {SCHEMA}.share),
(SELECT coalesce(sum(size), 0)::bigint FROM {SCHEMA}.waiting)
"""
_STRETCHES: Final = f"""
SELECT name, position, head FROM {SCHEMA}.sink, {SCHEMA}.log WHERE position IS NOT NULL
UNION ALL SELECT sink, first, upto FROM {SCHEMA}.share
"""
_UNSETTLED: Final = f"""
SELECT parent, position, {sys.maxsize} FROM {SCHEMA}.sink WHERE position IS NOT NULL
UNION ALL SELECT parent, first, upto FROM {SCHEMA}.share JOIN {SCHEMA}.sink ON sink.name = share.sink
"""
_WAITING: Final = (
    f"SELECT parent, events FROM {SCHEMA}.waiting JOIN {SCHEMA}.sink ON sink.name = waiting.sink"
)


class Server(Protocol):
    """A database that answers its administrator."""

    def ask_now(self, statement: str) -> Rows: ...


class _Data(msgspec.Struct):
    file_name: str


class _Line(msgspec.Struct):
    data: _Data


_line = msgspec.json.Decoder(_Line).decode


@dataclass(kw_only=True)
class Stored:
    """What is stored. Events go by their pictures' names."""

    numbers: dict[str, int] = field(default_factory=dict)
    """The number of each event of the log."""
    twice: list[str] = field(default_factory=list)
    """Events that the log has more than once."""
    rejects: bytes = b""
    """What lies in quarantine."""
    pending: dict[str, set[str]] = field(default_factory=dict)
    """The events that each sink has yet to settle. Of a sink with lanes: that any lane has yet to pass."""
    dead: dict[str, set[str]] = field(default_factory=dict)
    """The dead letters of each sink."""


class Unsettled(NamedTuple):
    """What each sink had yet to settle at a moment, and a few events more: of lanes, what any lane had yet to settle.

    stretches: numbers of the log, from the first one up to the one behind the last one
    waiting:   events that waited for a retry, by their pictures' names
    """

    stretches: Mapping[str, Sequence[tuple[int, int]]]
    waiting: Mapping[str, set[str]]

    def numbered(self, numbers: Mapping[str, int]) -> dict[str, list[tuple[int, int]]]:
        """All of it as stretches, by the number of each event of the log."""
        return {
            sink: [*stretches, *((numbers[name], numbers[name] + 1) for name in self.waiting.get(sink, ()))]
            for sink, stretches in self.stretches.items()
        }


def unsettled(server: Server) -> Unsettled:
    """What is not settled now. What is stored later is not settled either."""
    stretches, waiting = defaultdict[str, list[tuple[int, int]]](list), defaultdict[str, set[str]](set)
    for sink, first, upto in server.ask_now(_UNSETTLED):
        stretches[sink].append((first, upto))
    for sink, events in server.ask_now(_WAITING):
        waiting[sink].update(_names(events))
    return Unsettled(stretches, waiting)


def sessions(server: Server) -> dict[int, int]:
    """The sessions that nobody has ended yet, by their processes."""
    rows = server.ask_now(f"SELECT id, name FROM {SCHEMA}.session")
    return {int(name.rpartition(" ")[2]): id for id, name in rows}


def owed(server: Server) -> int:
    """How many deliveries are not settled, or a few more: an event that waits in a share counts twice.

    The lanes of a sink have the same log before them.
    """
    ((ahead, shared, waiting),) = server.ask_now(_OWED)
    return int(ahead) + int(shared) + int(waiting)


def read(server: Server) -> Stored:
    """All that is stored. Nobody writes meanwhile."""
    stored = Stored()
    _read_log(server, stored)
    stored.rejects = b"\0".join(body for (body,) in server.ask_now(f"SELECT body FROM {SCHEMA}.quarantine"))
    _read_pending(server, stored)
    dead = defaultdict[str, set[str]](set)
    for sink, event in server.ask_now(f"SELECT sink, event FROM {SCHEMA}.dead"):
        dead[sink].update(_names(event))
    stored.dead = dict(dead)
    return stored


def _read_pending(server: Server, stored: Stored) -> None:
    """Of each queue, what is at or beyond its position, in a share, or waits. A queue is a sink, or a lane of it."""
    by_number = {number: name for name, number in stored.numbers.items()}
    marked = defaultdict[str, set[int]](set)
    for queue, number in server.ask_now(f"SELECT sink, number FROM {SCHEMA}.dead_ahead"):
        marked[queue].add(number)
    stored.pending = defaultdict(set)
    rows = server.ask_now(f"SELECT name, parent FROM {SCHEMA}.sink")
    parents = {str(queue): str(sink) for queue, sink in rows}
    for queue, first, upto in server.ask_now(_STRETCHES):
        open = set(range(first, upto)) - marked[queue]
        stored.pending[parents[queue]].update(by_number[number] for number in open if number in by_number)
    for queue, events in server.ask_now(f"SELECT sink, events FROM {SCHEMA}.waiting"):
        stored.pending[parents[queue]].update(_names(events))


def _read_log(server: Server, stored: Stored) -> None:
    ((head,),) = server.ask_now(f"SELECT head FROM {SCHEMA}.log")
    for start in range(0, head, PIECE):
        pages = server.ask_now(
            f"SELECT first, events FROM {SCHEMA}.page WHERE first >= {start} AND first < {start + PIECE} ORDER BY first"
        )
        for first, events in pages:
            for number, name in enumerate(_names(events), first):
                if stored.numbers.setdefault(name, number) != number:
                    stored.twice.append(name)


def _names(events: bytes) -> list[str]:
    return [_line(line).data.file_name for line in events.split(b"\n")]
