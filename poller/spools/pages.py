"""Pages of the log, as every engine with a database keeps them: where one came from, its bounds, and its checksum."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from fastcrc import crc32

from poller.core.errors import Unreadable
from poller.core.event_lines import EventLines
from poller.core.model import Event, ParsedPage
from poller.core.selection import Numbered
from poller.spools.rows import blob_of, epoch, events_of
from poller.spools.tail import Chunk

LARGEST_SECOND = 2**32 - 1
LOAD_EVENTS = 800
"""The number of events that are read at once, to whole pages. The platform's pages have up to 100."""


class Came(msgspec.Struct, frozen=True):
    """Where a page came from, as far as that is known; see `history.Origin`."""

    source: str = ""
    about: str = ""
    asked_at: datetime | None = None
    outcome: str = ""


UNKNOWN = Came()


class Written(msgspec.Struct):
    """The result of writing pages: the new events, and the events that confirm provisional ones, with their numbers."""

    chunks: list[Chunk] = msgspec.field(default_factory=list)
    confirmed: list[Numbered] = msgspec.field(default_factory=list)


def came(source: str, reading: ParsedPage) -> Came:
    """The origin of a parsed page."""
    return Came(source, reading.about, reading.asked_at, reading.outcome.value)


def checksum(blob: bytes) -> int:
    """The CRC-32C of a page's events."""
    return crc32.iscsi(blob)


def check_page(first: int, blob: object, crc: object) -> bytes:
    """The blob of a page; raises `Unreadable` if its checksum is wrong."""
    if crc is not None and checksum(blob_of(blob)) != crc:
        raise Unreadable(f"page {first}: its checksum is wrong")
    return blob_of(blob)


def page_events(first: int, blob: object, crc: object) -> list[Event]:
    """The events of a page; raises `Unreadable`, also if its checksum is wrong."""
    return events_of(check_page(first, blob, crc))


def page_lines(first: int, blob: object, crc: object) -> Sequence[Event]:
    """The same, not decoded yet where the checksum says that they are what was written."""
    if crc is None:
        return tuple(page_events(first, blob, crc))
    return EventLines(check_page(first, blob, crc).split(b"\n"))


def second_of(at: datetime) -> int:
    """The whole second of a moment, kept within 32 bits."""
    return min(max(0, int(at.timestamp() // 1)), LARGEST_SECOND)


def received(events: Sequence[Event]) -> tuple[float, float]:
    """When the first and the last of a page's events were received."""
    at = events[0].received_at
    if events[-1].received_at is at:  # the events of an answer share the time of its receipt
        return epoch(at), epoch(at)
    times = [event.received_at for event in events]
    return epoch(min(times)), epoch(max(times))
