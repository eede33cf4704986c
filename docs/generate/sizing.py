"""The calculations of the page on sizing: what many streams need of daemons and of PostgreSQL, and what breaks first.

Each part that was measured is taken from docs/figures.json, and each default and constant from the code. The prose of
the page stays as it is written.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from docs.generate.figures import DOCS, put
from docs.generate.markdown import table
from poller.settings import AccountSettings
from poller.sources.screenshot_queue import ScreenshotQueueSettings
from poller.spools.postgres import PostgresSpool
from poller.spools.postgres.queries import BYTES_OF_AN_ID
from poller.spools.retention import IDS_REMEMBERED
from tests.bench.figures import Figure

STREAMS: Final = 100_000
PERIOD: Final = 10.0
"""Seconds between two pictures of a stream."""
A_PAGE: Final = 100
"""Messages of a full answer."""
ANSWER: Final = 0.05
"""Seconds until the platform answers."""
PICTURE: Final = 15_000
"""Bytes of a picture."""
BUSY: Final = 0.7
"""The part of a core that is planned with."""
INDEX_PAGE: Final = 8_192
"""Bytes of a page of PostgreSQL."""
MANY: Final = 20_000_000
"""The ids of a measurement, in an index that does not fit into the server's shared buffers."""
MEMORY: Final = 64e9
"""Bytes of memory of a large server, of the index of ids."""
DAY: Final = 86_400.0

_LOAD: Final = "10,000 messages a second, 2 daemons: "
_PICTURES: Final = "2 daemons, sync: filesystem"
_APPEND: Final = "append, 16 pages a commit, 1 appender, "
_MEASURED: Final[Mapping[str, tuple[str, str]]] = {
    "rate": ("shared_load", f"{_LOAD}messages a second"),
    "daemons": ("shared_load", f"{_LOAD}CPU of the daemons"),
    "server": ("shared_load", f"{_LOAD}CPU of the server"),
    "log": ("shared_load", f"{_LOAD}write-ahead log"),
    "written": ("shared_load", f"{_LOAD}written by the server"),
    "picture": ("shared_pictures", f"CPU of the daemons a picture, {_PICTURES}"),
    "steady": ("shared_pictures", f"highest steady rate of pictures, {_PICTURES}"),
    "append": ("shared", f"{_APPEND}beside bare asyncpg"),
    "append_cpu": ("shared", f"{_APPEND}CPU of the members, beside bare asyncpg"),
    "follow": ("shared", "CPU of a member that follows what another one appends"),
    "compressed": ("shared", "bytes kept of an event, compressed"),
    "counted": ("shared", "bytes kept of an event, as max_bytes counts"),
    "id": ("shared", "bytes kept of an id, with its indexes"),
    "index": ("shared_ids", "bytes of the index of an id"),
    "many": (
        "shared_ids",
        f"bytes of the write-ahead log an event, {MANY:,} ids, beside 1,000,000",
    ),
    "fetch": ("parts", "fetch: signed GET"),
    "read": ("parts", "read, beside bare msgspec.json.decode"),
    "journal": ("parts", "journal: keep, release, beside bare pwrite, fdatasync"),
}
"""The figures that are used, each by its bench and its name."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The measured parts, in the units of their figures; see `_MEASURED`."""

    rate: float
    daemons: float
    server: float
    log: float
    written: float
    picture: float
    steady: float
    append: float
    append_cpu: float
    follow: float
    compressed: float
    counted: float
    id: float
    index: float
    many: float
    fetch: float
    read: float
    journal: float


def measured(figures: Sequence[Figure]) -> Measured:
    """The parts among all figures. Raises LookupError naming what is missing."""
    known = {(one.bench, one.name): one.ours for one in figures}
    if missing := [place for place in _MEASURED.values() if place not in known]:
        raise LookupError(f"docs/figures.json lacks {missing}")
    return Measured(**{part: known[place] for part, place in _MEASURED.items()})


# ---------------------------------------------------------------- what is needed


def messages(streams: float) -> float:
    """The messages a second of this number of streams."""
    return streams / PERIOD


def work(found: Measured, *, pictures: bool) -> float:
    """Seconds of CPU a message, wherever it is carried: with a webhook, and with a download if wanted.

    The two daemons of the measurement also followed: each learns what the other one appends. That is left out.
    """
    carried = found.daemons / found.rate - found.follow / 1e6
    return carried + (found.picture / 1e6 if pictures else 0.0)


def cores(found: Measured, streams: float, count: int, *, pictures: bool) -> float:
    """The cores that this number of daemons use together: all work once, and what each of the others learns."""
    return messages(streams) * (work(found, pictures=pictures) + (count - 1) * found.follow / 1e6)


def daemons(found: Measured, streams: float, *, pictures: bool) -> int:
    """How many daemons there should be: each uses a core in part, and one more may fail.

    Raises ValueError if no number is enough, as each daemon learns of all messages.
    """
    following = messages(streams) * found.follow / 1e6
    if following >= BUSY:
        raise ValueError(f"{streams:,.0f} streams are too many to follow")
    alone = messages(streams) * work(found, pictures=pictures)
    return max(1, math.ceil((alone - following) / (BUSY - following))) + 1


def server_cores(found: Measured, streams: float) -> float:
    """The cores that PostgreSQL uses while the index of ids is in memory."""
    return messages(streams) * found.server / found.rate


def ids(streams: float) -> float:
    """How many ids are remembered."""
    return messages(streams) * IDS_REMEMBERED


def counted(found: Measured, streams: float) -> float:
    """The bytes that `max_bytes` counts when nothing is pending, with the default `retain`."""
    return messages(streams) * (found.counted * _default("retain") + BYTES_OF_AN_ID * IDS_REMEMBERED)


def most_log(found: Measured, streams: float) -> float:
    """The bytes of the write-ahead log a second if each id is the first on its page of the index since a checkpoint."""
    return messages(streams) * (INDEX_PAGE + found.log * 1e6 / found.rate)


def _default(setting: str) -> float:
    return float(PostgresSpool.Settings.model_fields[setting].default)


# ---------------------------------------------------------------- what breaks


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A limit: how many streams it allows, and what moves it."""

    what: str
    streams: float
    cure: str


def settings_too_low(found: Measured) -> list[Limit]:
    """The defaults that allow fewer streams, the lowest first."""
    source, account = ScreenshotQueueSettings.model_fields, AccountSettings.model_fields
    calls, lanes = (
        float(str(account["rate"].default).removesuffix("/s")),
        int(source["max_in_flight"].default),
    )
    most = _default("max_bytes")
    limits = [
        Limit(
            what=f"`max_bytes: {most / 2**30:g}GiB` for ids of {IDS_REMEMBERED / DAY:g} days and events of"
            f" {_default('retain') / DAY:g}",
            streams=most / counted(found, 1),
            cure=f"`max_bytes: {math.ceil(counted(found, STREAMS) / 0.9 / 2**40)}TiB`",
        ),
        Limit(
            what=f"`rate: {calls:g}/s`, full answers",
            streams=calls * A_PAGE * PERIOD,
            cure="`rate: 400/s`, which also empties a tick in time",
        ),
        Limit(
            what=f"`max_in_flight: {lanes}`, answers after {ANSWER * 1000:g} ms",
            streams=lanes / ANSWER * A_PAGE * PERIOD,
            cure="`max_in_flight: 16`",
        ),
    ]
    return _below(limits)


def breaking(found: Measured) -> list[Limit]:
    """What is at its end first once the settings fit, in this order."""
    polling = (found.fetch + found.read + found.journal + found.append_cpu) / 1e6
    limits = [
        Limit(
            what=f"the index of ids in {MEMORY / 1e9:g} GB of memory ({found.index:.0f} bytes an id)",
            streams=MEMORY / (found.index * ids(1)),
            cure="more memory; beyond it each id reads and writes a page of the disk",
        ),
        Limit(
            what="the core of the one daemon that polls (signed GET, reading, journal, append)",
            streams=BUSY / polling * PERIOD,
            cure="`pollers: all`",
        ),
        Limit(
            what="one session's appends, 16 pages a commit: all appends wait for one row",
            streams=found.append * BUSY * PERIOD,
            cure="a faster disk under the write-ahead log; a second spool with its own queue",
        ),
        Limit(
            what="the core of each daemon: it learns of all messages, for the catalogue of streams",
            streams=BUSY / (found.follow / 1e6) * PERIOD,
            cure="two spools, each with its own queue",
        ),
        Limit(
            what="two daemons and PostgreSQL on two cores, with downloads",
            streams=found.steady * PERIOD,
            cure="more daemons on more machines",
        ),
    ]
    return sorted(limits, key=lambda one: one.streams)


def _below(limits: Sequence[Limit]) -> list[Limit]:
    return sorted((one for one in limits if one.streams < STREAMS), key=lambda one: one.streams)


# ---------------------------------------------------------------- the page


def sizing() -> str:
    """The page with its tables made anew. Raises LookupError if a figure is missing, or a place."""
    data = json.loads((DOCS / "figures.json").read_text())
    found = measured([Figure(**one) for one in data["measured"]])
    return put((DOCS / "operations/sizing.md").read_text(), texts(found))


def texts(found: Measured) -> dict[str, str]:
    """The text of each place of the page."""
    limits = ("what", "streams", "what moves it")
    return {
        "daemons": table(("what", "figure", "how"), _daemon_rows(found)),
        "database": table(("what", "figure", "how"), _database_rows(found)),
        "settings": table(limits, _limit_rows(settings_too_low(found))),
        "breaks": table(limits, _limit_rows(breaking(found))),
        "first": _first(found),
    }


def _daemon_rows(found: Measured) -> Iterator[tuple[str, str, str]]:
    rate = messages(STREAMS)
    yield "messages and pictures a second", f"{rate:,.0f}", f"{STREAMS:,} streams, a picture in {PERIOD:g} s"
    for what, seconds in (
        ("the messages, with a webhook", work(found, pictures=False)),
        ("the pictures, with `sync: filesystem`", found.picture / 1e6),
        ("each further daemon, which learns what others append", found.follow / 1e6),
    ):
        yield f"cores for {what}", f"{rate * seconds:.2g}", f"{seconds * 1e6:.0f} µs of CPU each"
    for what, pictures in (("messages alone", False), ("messages and pictures", True)):
        count = daemons(found, STREAMS, pictures=pictures)
        used = cores(found, STREAMS, count, pictures=pictures)
        yield (
            f"daemons for {what}",
            f"**{count}**",
            f"together they use {used:.2g} cores; without one of them, each uses {BUSY:.0%} of a core at most",
        )
    yield (
        "network of the pictures, in, and out to the folder",
        f"{rate * PICTURE / 1e6:,.0f} MB/s each",
        f"{PICTURE / 1000:g} kB a picture",
    )
    yield "pictures a day", _bytes(rate * PICTURE * DAY), "the same"


def _database_rows(found: Measured) -> Iterator[tuple[str, str, str]]:
    rate, each = messages(STREAMS), found.server / found.rate * 1e6
    yield (
        "cores in use",
        f"{server_cores(found, STREAMS):.2g}",
        f"{each:.0f} µs of CPU a message while the index of ids is in memory",
    )
    yield (
        "write-ahead log, at least",
        f"{rate * found.log / found.rate:.3g} MB/s",
        f"{found.log * 1e6 / found.rate:.0f} bytes a message, measured with few ids",
    )
    yield (
        f"write-ahead log, {MANY:,} ids, 64,000 messages after a checkpoint",
        f"{rate * found.many / 1e6:.0f} MB/s",
        f"{found.many:,.0f} bytes a message",
    )
    yield (
        "write-ahead log, at most",
        f"{most_log(found, STREAMS) / 1e6:.0f} MB/s",
        f"each id is the first on its page of the index since a checkpoint: {INDEX_PAGE:,} bytes more",
    )
    yield (
        "written to the disk, at least",
        f"{rate * found.written / found.rate:.3g} MB/s",
        "measured with few ids",
    )
    yield (
        "events a day",
        _bytes(rate * DAY * found.compressed),
        f"{found.compressed:.0f} bytes an event, compressed; made-up messages are much alike",
    )
    yield (
        "the same, not compressed",
        _bytes(rate * DAY * found.counted),
        f"{found.counted:.0f} bytes an event",
    )
    yield f"ids of {IDS_REMEMBERED / DAY:g} days", f"{ids(STREAMS) / 1e9:.1f} billion", "one a message"
    yield "their bytes, with their indexes", _bytes(ids(STREAMS) * found.id), f"{found.id:.0f} bytes an id"
    yield (
        "the index that each append looks into",
        _bytes(ids(STREAMS) * found.index),
        f"{found.index:.0f} bytes an id",
    )


def _limit_rows(limits: Sequence[Limit]) -> list[tuple[str, str, str]]:
    return [(one.what, f"{one.streams:,.0f}", one.cure) for one in limits]


def _first(found: Measured) -> str:
    first = breaking(found)[0]
    return f"First breaks **{first.what}**, at {first.streams:,.0f} streams."


def _bytes(count: float) -> str:
    return f"{count / 1e12:.2g} TB" if count >= 1e12 else f"{count / 1e9:,.0f} GB"
