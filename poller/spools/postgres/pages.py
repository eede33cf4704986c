"""Writes pages of the log, and reads them in order."""

from collections.abc import Iterable

import asyncpg
import msgspec

from poller.core.errors import Unreadable
from poller.spools.pages import LOAD_EVENTS, UNKNOWN, Came, checksum, page_lines, received, second_of
from poller.spools.postgres import meta
from poller.spools.postgres.links import StorageAway
from poller.spools.postgres.schema import to_bytes
from poller.spools.rows import Row, epoch, lines
from poller.spools.tail import Chunk

_PUT = """
INSERT INTO page (
    first, last, received_at, received_to, source, about, asked_at, outcome, kinds, oldest, newest, crc, events
)
SELECT * FROM unnest(
    $1::bigint[], $2::bigint[], $3::float8[], $4::float8[], $5::text[], $6::bytea[], $7::float8[], $8::text[],
    $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bytea[]
)
"""
_LOAD = """
WITH beginning AS (
    SELECT first FROM page
    WHERE last >= $1 AND first >= coalesce((SELECT max(first) FROM page WHERE first <= $1), 0)
    ORDER BY first LIMIT 1
)
SELECT page.first, events, crc FROM beginning, page
WHERE page.first >= beginning.first AND page.first < greatest(beginning.first, $1) + $2
ORDER BY page.first
"""


class NewPage(msgspec.Struct, frozen=True):
    """Events that are appended together, with their numbers, and where they came from."""

    chunk: Chunk
    came: Came = UNKNOWN


async def write_pages(connection: asyncpg.Connection, pages: Iterable[NewPage]) -> int:
    """Write pages, none of them empty, in one statement; returns the bytes of their events."""
    rows = [_row(page) for page in pages]
    if not rows:
        return 0
    *others, blobs = zip(*rows, strict=True)
    await connection.execute(_PUT, *others, blobs)
    return sum(map(len, blobs))


def _row(page: NewPage) -> Row:
    chunk, origin = page.chunk, page.came
    events = chunk.events
    blob, happened = lines(list(events)), {event.occurred_at for event in events}
    asked_at = None if origin.asked_at is None else epoch(origin.asked_at)
    kinds = " ".join(sorted({event.kind for event in events}))
    return (
        *(chunk.first, chunk.end - 1, *received(events)),
        *(origin.source, to_bytes(origin.about), asked_at, origin.outcome, kinds),
        *(second_of(min(happened)), second_of(max(happened)), checksum(blob), blob),
    )


async def load_pages(start: int, connection: asyncpg.Connection) -> list[Chunk]:
    """Some pages of the log from that of number `start` on, in order; not decoded, their checksums are right.

    They end before a page that cannot be read. Raises `Unreadable` if that is the first one.
    """
    pages = list[Chunk]()
    for first, blob, crc in await connection.fetch(_LOAD, start, LOAD_EVENTS):
        try:
            pages.append(Chunk(first, page_lines(first, blob, crc)))
        except Unreadable:
            if not pages:
                raise
            break  # the pages before it are good and go out first
    return pages


async def load_known(start: int, connection: asyncpg.Connection) -> list[Chunk]:
    """The same, from a number that the log is known to have reached; empty where all from there on was pruned.

    Raises `StorageAway` if the log has not reached it here: a server that was replaced still answers.
    """
    pages = await load_pages(start, connection)
    if not pages and await meta.read_head(connection) <= start:
        raise StorageAway("spool: the server that answers lacks events that were committed: it was replaced")
    return pages
