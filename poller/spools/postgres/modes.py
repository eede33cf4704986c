"""The ways in which a sink can be served, and how its rows are turned from one into another.

shares:  each daemon takes shares of the log
ordered: one daemon serves the sink in order
lanes:N  the sink is divided by stream into N queues; one daemon serves each of them in order

The row of a sink that is divided has no position. Each lane has a row of its own, and what waits is under its name.
A change first makes rows of one queue, and then what the new way needs. It counts on that nobody serves the sink.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from poller.spools.lanes import divided, key_of, lane_of
from poller.spools.postgres import shares
from poller.spools.postgres.links import Link
from poller.spools.postgres.pages import load_pages
from poller.spools.postgres.sessions import NOBODY
from poller.spools.postgres.waiting_rows import WAITING_COLUMNS, drop_waiting, put_waiting
from poller.spools.rows import numbers_of, waiting_of
from poller.spools.tail import members_of
from poller.spools.waiting import Waiting

SHARES: Final = "shares"
ORDERED: Final = "ordered"
_LANES: Final = "lanes:"


class Mode(msgspec.Struct, frozen=True):
    """A way to serve a sink: by shares, or in order, in one queue or in several lanes."""

    ordered: bool
    lanes: int = 1

    def __str__(self) -> str:
        if not self.ordered:
            return SHARES
        return ORDERED if self.lanes == 1 else f"{_LANES}{self.lanes}"

    @property
    def setting(self) -> str:
        """The mode as it stands in a configuration."""
        if not self.ordered:
            return "no order"
        return "order: stream, without lanes" if self.lanes == 1 else f"lanes: {self.lanes}"

    @classmethod
    def of(cls, text: str) -> "Mode":
        """A mode from its text."""
        if text.startswith(_LANES):
            return cls(ordered=True, lanes=int(text.removeprefix(_LANES)))
        return cls(ordered=text == ORDERED)

    def keys(self, sink: str) -> list[str]:
        """The names of the queues of a sink."""
        return [sink] if self.lanes == 1 else [key_of(sink, lane) for lane in range(self.lanes)]

    def divided(self, sink: str, waiting: Waiting) -> list[tuple[str, Waiting]]:
        """A batch of the sink as one for each queue that it has events of."""
        if self.lanes == 1:
            return [(sink, waiting)]
        return [(key_of(sink, lane), part) for lane, part in divided(waiting, self.lanes).items()]


async def mode_of(link: Link, sink: str) -> Mode:
    """How a sink is served now; one that is not known, by shares."""
    return Mode.of(await link.fetchval("SELECT mode FROM sink WHERE name = $1", sink) or SHARES)


async def put_unheld(link: Link, sink: str, batches: Iterable[Waiting]) -> None:
    """Write batches of a sink that nobody holds."""
    mode = await mode_of(link, sink)
    parts = [part for waiting in batches for part in mode.divided(sink, waiting)]
    await put_waiting(link, NOBODY, parts)


async def unite(link: Link) -> None:
    """Give each sink one queue, so that its position and what is marked say all. Nobody serves any sink."""
    for sink, text in await link.fetch("SELECT name, mode FROM sink WHERE name = parent ORDER BY name"):
        mode = Mode.of(text)
        await change(link, sink, mode, Mode(ordered=mode.ordered))


async def mark_what_waits(link: Link) -> None:
    """Mark what waits for the sinks that are served by shares."""
    for (sink,) in await link.fetch("SELECT name FROM sink WHERE mode = $1", SHARES):
        await mark_waiting(link, sink)


async def change(link: Link, sink: str, before: Mode, after: Mode) -> None:
    """Let a sink be served in another way."""
    if not before.ordered:
        await shares.fold(link, sink)
    elif before.lanes > 1:
        await _gather(link, sink, before)
    if not after.ordered:
        await mark_waiting(link, sink)
    since = "coalesce(since, (SELECT head FROM log))" if after.ordered else "NULL"
    await link.execute(
        f"UPDATE sink SET mode = $2, since = {since} WHERE name = $1",  # noqa: S608 - our own words
        sink,
        str(after),
    )
    if after.lanes > 1:
        await divide(link, sink, after)


async def _gather(link: Link, sink: str, mode: Mode) -> None:
    """Make one queue of the lanes of a sink. What a lane has settled ahead of the slowest one is marked."""
    keys = mode.keys(sink)
    rows = await link.fetch(
        "DELETE FROM sink WHERE name = ANY($1::text[]) RETURNING name, position, since", keys
    )
    positions = {name: position for name, position, _ in rows}
    since = max(since for _, _, since in rows)
    start, end = min(positions.values()), max(positions.values())
    settled, at = list[int](), start
    while at < end and (chunks := await load_pages(at, link)):
        settled += [
            number
            for number, event in members_of(chunks)
            if at <= number < positions[key_of(sink, lane_of(event.stream, mode.lanes))]
        ]
        at = chunks[-1].end
    await link.execute("UPDATE sink SET position = $2, since = $3 WHERE name = $1", sink, start, since)
    await link.execute("UPDATE waiting SET sink = $1 WHERE sink = ANY($2::text[])", sink, keys)
    marked = await link.fetch("DELETE FROM dead_ahead WHERE sink = ANY($1::text[]) RETURNING number", keys)
    await shares.mark(link, sink, {*settled, *(number for (number,) in marked if number >= start)})


async def mark_waiting(link: Link, sink: str) -> None:
    """Mark what waits beyond the position: shares from there on must not hand it out again."""
    rows = await link.fetch("SELECT numbers FROM waiting WHERE sink = $1", sink)
    position = await link.fetchval("SELECT position FROM sink WHERE name = $1", sink)
    await shares.mark(
        link, sink, [number for (blob,) in rows for number in numbers_of(blob) if number >= position]
    )


async def divide(link: Link, sink: str, mode: Mode) -> None:
    """Make lanes of a sink with one queue."""
    keys = mode.keys(sink)
    await link.execute(
        "INSERT INTO sink (name, parent, position, mode, since)"
        " SELECT key, $1, position, mode, since FROM sink, unnest($2::text[]) AS key WHERE name = $1",
        sink,
        keys,
    )
    await link.execute("UPDATE sink SET position = NULL WHERE name = $1", sink)
    await link.execute(
        "INSERT INTO dead_ahead SELECT key, number FROM dead_ahead, unnest($2::text[]) AS key WHERE sink = $1",
        sink,
        keys,
    )
    await link.execute("DELETE FROM dead_ahead WHERE sink = $1", sink)
    rows = await link.fetch(f"SELECT {WAITING_COLUMNS} FROM waiting WHERE sink = $1", sink)  # noqa: S608
    batches = [waiting_of(tuple(row)) for row in rows]
    await drop_waiting(link, [(sink, waiting.id) for waiting in batches])
    await put_unheld(link, sink, batches)
