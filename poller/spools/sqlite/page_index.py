"""The index of a page of the log.

Layout
    A row of `page_index` has the page's origin, its bounds, the CRC-32C of its blob `events`, and three arrays of
    unsigned 32-bit numbers, big-endian, with one entry for each event in order: `streams`, a hash of the stream id;
    `taken`, the second at which the event happened; `ids`, the first four bytes of its id. Behind these, `ids` has the
    same of the further ids of recordings (`Event.ids`). The arrays are searched as bytes, and hits are checked on the
    page.

Reading
    Whoever reads events from `page` also reads the checksum (`CRC`), and calls `pages.page_events`. A page without an
    index row comes from a file of schema 1 and cannot be checked, until `fill` indexes it.
"""

import hashlib
import re
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import msgspec

from poller.core.errors import Unreadable
from poller.core.model import LARGEST_NUMBER, Event
from poller.spools.pages import (
    UNKNOWN,
    Came,
    checksum,
    received,
    second_of,
)
from poller.spools.rows import blob_of, epoch, events_of, log, number_of, reads_back
from poller.spools.sqlite.page_times import SLACK, note_late

CRC = "(SELECT crc FROM page_index WHERE page_index.first = page.first)"
"""The checksum of a row of `page`, NULL for a page without an index row."""
ENTRY = 4
"""Bytes of an entry in the arrays."""
ID_DIGITS = 32
_ID = re.compile("[0-9a-fA-F]{32}")
FILL_STEP = 16
"""Pages indexed in one transaction, which takes some five milliseconds."""
UNINDEXED = "unindexed"
"""The row of `meta` with the number from which on every page has an index row; while it is missing, none may have."""
MOST_CACHED = 200_000

_PUT = f"INSERT OR REPLACE INTO page_index VALUES ({', '.join('?' * 14)})"  # noqa: S608 - our own words


def is_indexed(db: sqlite3.Connection) -> bool:
    """Whether the file has a table `page_index`. A file of schema 1 that is only read has none."""
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'page_index'").fetchone() is not None


# ---------------------------------------------------------------- building a row


def stream_hash(stream: str) -> bytes:
    """The entry of a stream id in `streams`."""
    return hashlib.blake2b(stream.encode("utf-8", "surrogatepass"), digest_size=ENTRY).digest()


class _Streams(dict[str, bytes]):
    def __missing__(self, stream: str) -> bytes:
        if len(self) >= MOST_CACHED:
            self.clear()
        self[stream] = entry = stream_hash(stream)
        return entry


class _Seconds(dict[datetime, bytes]):
    def __missing__(self, at: datetime) -> bytes:
        if len(self) >= MOST_CACHED:
            self.clear()
        self[at] = entry = second_of(at).to_bytes(ENTRY, "big")
        return entry


_stream_entry = _Streams().__getitem__
_second_entry = _Seconds().__getitem__
"""Entries that were computed before: events have few streams and few seconds."""


class Arrays(msgspec.Struct, frozen=True):
    """The arrays and bounds of a page's events."""

    kinds: str
    oldest: int
    newest: int
    streams: bytes
    taken: bytes
    ids: bytes


def arrays(events: Sequence[Event]) -> Arrays:
    """What the index says of these events."""
    kinds = {event.kind for event in events}
    taken = list(map(_second_entry, [event.occurred_at for event in events]))
    seconds = set(taken)
    ids = [event.id for event in events]
    if "recording" in kinds:
        ids += [id for event in events for id in event.ids[1:]]
    return Arrays(
        " ".join(sorted(kinds)),
        int.from_bytes(min(seconds), "big"),
        int.from_bytes(max(seconds), "big"),
        b"".join(map(_stream_entry, [event.stream_id for event in events])),
        b"".join(taken),
        _heads(ids),
    )


def _heads(ids: list[str]) -> bytes:
    joined = "".join(ids)
    if len(joined) == len(ids) * ID_DIGITS:
        with suppress(ValueError):
            return memoryview(bytes.fromhex(joined)).cast("I")[:: ID_DIGITS // 2 // ENTRY].tobytes()
    return b"".join([head_of(id) for id in ids])


def head_of(id: str) -> bytes:
    """The entry of an event's id in `ids`; a hash for an id that is not made of hexadecimal digits."""
    return bytes.fromhex(id[: ENTRY * 2]) if _ID.fullmatch(id) else stream_hash(id)


def put_index(
    connection: sqlite3.Connection, first: int, events: Sequence[Event], blob: bytes, origin: Came
) -> None:
    """Write the index row of a page."""
    asked_at = None if origin.asked_at is None else epoch(origin.asked_at)
    found = arrays(events)
    row = (
        *(first, origin.source, origin.about, asked_at, *received(events), origin.outcome),
        *(found.kinds, found.oldest, found.newest, checksum(blob), found.streams, found.taken, found.ids),
    )
    connection.execute(_PUT, row)


# ---------------------------------------------------------------- pages of schema 1


def unindexed(connection: sqlite3.Connection) -> int:
    """The page number from which on every page has an index row."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (UNINDEXED,)).fetchone()
    return LARGEST_NUMBER if row is None else int(row[0])


def fill(connection: sqlite3.Connection) -> bool:
    """Index some pages that have no index row, newest first; true if there are more.

    A page that cannot be read is skipped: it is met when it is to be delivered.
    """
    below = unindexed(connection)
    if below == 0:
        return False
    rows = connection.execute(
        "SELECT page.first, page.received_at, events, crc FROM page LEFT JOIN page_index USING (first)"
        " WHERE page.first < ? ORDER BY page.first DESC LIMIT ?",
        (below, FILL_STEP + 1),
    ).fetchall()
    more = len(rows) > FILL_STEP
    for (first, at, blob, crc), before in zip(rows[:FILL_STEP], [*rows[1:], None], strict=False):
        if crc is None:
            _fill_one(connection, first, blob)
            if before is not None and at < before[1] - SLACK:
                note_late(connection, first, at)
    below = number_of(rows[FILL_STEP - 1][0]) if more else 0
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (UNINDEXED, str(below)))
    return more


def _fill_one(connection: sqlite3.Connection, first: int, blob: object) -> None:
    try:
        events = events_of(blob)
    except Unreadable as error:
        log.warning("stored_row_unreadable", row="page", reason=str(error))
        return
    put_index(connection, first, events, blob_of(blob), UNKNOWN)


@reads_back
def entries(array: object) -> list[bytes]:
    """An array's entries."""
    packed = blob_of(array)
    return [packed[at : at + ENTRY] for at in range(0, len(packed), ENTRY)]
