"""The rows of a move, as `core.moving` describes them: reading them from the tables, and writing them.

Sinks
    What is read has one queue for each sink (`modes.unite`). What is written begins with one queue, by shares or in
    order. The daemons that serve the sink make lanes of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from poller.core.moving import COLUMNS, Table
from poller.spools.moving import MOST_ROWS, pack, unpack
from poller.spools.pages import check_page
from poller.spools.postgres import modes, sessions
from poller.spools.postgres.conditions import arrays, as_text, spread
from poller.spools.postgres.links import Link
from poller.spools.postgres.schema import to_bytes, to_text
from poller.spools.postgres.waiting_rows import put_waiting
from poller.spools.rows import Row, blob_of, number_of, reads_back, waiting_of
from poller.spools.waiting import Waiting

_TEXT: Final = "text from outside"
"""The type of a column that holds text in `bytea` (`schema`)."""
_KINDS: Final[Mapping[Table, tuple[str, ...]]] = {
    Table.PAGE: (
        *("bigint", "bigint", "float8", "float8", "text", _TEXT, "float8", "text", "text"),
        *("bigint", "bigint", "bigint", "bytea"),
    ),
    Table.PROVISIONAL: ("bigint", "bigint"),
    Table.SINK: ("text", "bigint", "bool", "bigint"),
    Table.AHEAD: ("text", "bigint"),
    Table.WAITING: ("text", "text", "bigint", "float8", "float8", "bytea", "bytea", "bytea"),
    Table.DEAD: ("bigint", "text", "text", "bigint", "float8", "float8", _TEXT, "bytea", "bytea", _TEXT),
    Table.QUARANTINE: ("bigint", "bytea", "text", "float8", _TEXT, "text", "bytea"),
    Table.SOURCE: ("text", _TEXT, "bytea", "float8"),
    Table.STREAM: ("text", _TEXT, "bytea"),
    Table.DELIVERED: ("text", "float8", "bigint", "bigint", "bytea", "bigint", "bigint", "bytea"),
    Table.REDELIVERED: ("text", "text", "float8", "bigint", "bigint", "bytea"),
    Table.GAP: (
        *("text", "text", _TEXT, "float8", "float8", "bigint", _TEXT, "bigint"),
        *("float8", "float8", "float8", "bigint"),
    ),
    Table.REPLAY: ("bigint", "text", "bytea", "bigint", "bigint", "float8", "bigint", "bigint", "text"),
    Table.REPLAY_WITHOUT: ("bigint", "bytea"),
    Table.TALLY: ("text", "text", "bigint", "float8"),
}
"""The types of the columns that `COLUMNS` names."""
_NAMES: Final = {Table.AHEAD: "dead_ahead"}
"""The tables that have another name here."""
_MOST_KEYS: Final = 20_000
"""The most keys in one statement."""
_LARGE: Final = {Table.PAGE, Table.QUARANTINE, Table.WAITING, Table.SEEN}
"""The tables with large rows."""

_READ: Final[Mapping[Table, str]] = {
    Table.SEEN: "SELECT at, array_agg(key ORDER BY key) FROM seen JOIN seen_at USING (token) GROUP BY token, at"
    " ORDER BY token",
    Table.SINK: "SELECT name, position, coalesce(paused, false), since FROM sink LEFT JOIN paused ON sink = name"
    " WHERE name = parent ORDER BY name",
    Table.TALLY: "SELECT owner, book, sum(count)::bigint, max(at) FROM tally GROUP BY owner, book",
    Table.DELIVERED: f"SELECT {COLUMNS[Table.DELIVERED]} FROM delivered ORDER BY n",  # noqa: S608 - our own words
    Table.REDELIVERED: f"SELECT {COLUMNS[Table.REDELIVERED]} FROM redelivered ORDER BY n",  # noqa: S608
}
_PUT_SINKS: Final = (
    "INSERT INTO sink (name, parent, position, mode, since)"  # noqa: S608 - our own words
    f" SELECT name, name, position, CASE WHEN since IS NULL THEN '{modes.SHARES}' ELSE '{modes.ORDERED}' END, since"
    f" FROM {spread('text', 'bigint', 'bigint')} AS put (name, position, since)"
)
_PUT_PAUSED: Final = "INSERT INTO paused SELECT unnest($1::text[]), true, 0"
_PUT_TALLIES: Final = (
    f"INSERT INTO tally (owner, book, session, count, at) SELECT owner, book, {sessions.NOBODY}, count, at"  # noqa: S608
    f" FROM {spread('text', 'text', 'bigint', 'float8')} AS put (owner, book, count, at)"
)
_PUT_SEEN_AT: Final = (
    f"INSERT INTO seen_at OVERRIDING SYSTEM VALUE SELECT * FROM {spread('bigint', 'float8')}"  # noqa: S608
)
_PUT_SEEN: Final = f"INSERT INTO seen SELECT * FROM {spread('bigint', 'bigint')} ON CONFLICT DO NOTHING"  # noqa: S608
_TOKENS: Final = (
    "SELECT nextval(pg_get_serial_sequence('seen_at', 'token')) FROM generate_series(1, $1::bigint)"
)


def query(table: Table) -> str:
    """What reads all rows of a table, in the order in which they are written."""
    if table in _READ:
        return _READ[table]
    return f"SELECT {COLUMNS[table]} FROM {_NAMES.get(table, table.value)} ORDER BY 1, 2"  # noqa: S608 - our own words


def fetched_at_once(table: Table) -> int:
    """How many rows of a table are fetched at once, so that a few MiB are in memory."""
    return 10 if table in _LARGE else MOST_ROWS


async def write(link: Link, table: Table, rows: Sequence[Row]) -> None:
    """Add rows to a table, in the caller's transaction."""
    await (_WRITE[table](link, rows) if table in _WRITE else _write_plain(link, table, rows))


def _insertion(table: Table) -> str:
    kinds = ["bytea" if kind == _TEXT else kind for kind in _KINDS[table]]
    return (
        f"INSERT INTO {_NAMES.get(table, table.value)} ({COLUMNS[table]}) OVERRIDING SYSTEM VALUE"  # noqa: S608
        f" SELECT * FROM {spread(*kinds)}"
    )


@reads_back
def row_of(table: Table, row: Row) -> Row:
    """A row as it is moved, from the columns of a table. Raises `Unreadable`."""
    if table is Table.SEEN:
        at, keys = row
        return at, pack(_keys(keys))
    if table is Table.PAGE:
        first, *_, crc, blob = row
        check_page(number_of(first), blob, crc)
    found = zip(row, _KINDS[table], strict=True)
    return tuple([to_text(blob_of(value)) if kind == _TEXT else value for value, kind in found])


def _stored(table: Table, row: Row) -> Row:
    """A row as it is stored."""
    return tuple([_value(value, kind) for value, kind in zip(row, _KINDS[table], strict=True)])


def _value(value: object, kind: str) -> object:
    if not isinstance(value, str):
        return value
    return to_bytes(value) if kind == _TEXT else as_text(value)


def _keys(found: object) -> list[int]:
    return [number_of(key) for key in found] if isinstance(found, Iterable) else []


async def _write_seen(link: Link, rows: Sequence[Any]) -> None:
    tokens = [token for (token,) in await link.fetch(_TOKENS, len(rows))]
    moments = [(token, at) for token, (at, _) in zip(tokens, rows, strict=True)]
    await link.execute(_PUT_SEEN_AT, *arrays(moments))
    keyed = [(key, token) for token, (_, packed) in zip(tokens, rows, strict=True) for key in unpack(packed)]
    keyed.sort()  # neighbours lie on the same pages of the index
    for start in range(0, len(keyed), _MOST_KEYS):
        await link.execute(_PUT_SEEN, *arrays(keyed[start : start + _MOST_KEYS]))


async def _write_plain(link: Link, table: Table, rows: Sequence[Row]) -> None:
    await link.execute(_insertion(table), *arrays(_stored(table, row) for row in rows))


async def _write_sinks(link: Link, rows: Sequence[Any]) -> None:
    names = [(as_text(name), position, paused, since) for name, position, paused, since in rows]
    await link.execute(_PUT_SINKS, *arrays((name, position, since) for name, position, _, since in names))
    await link.execute(_PUT_PAUSED, [name for name, _, paused, _ in names if paused])


@reads_back
def _batches(rows: Sequence[Any]) -> list[tuple[str, Waiting]]:
    return [(as_text(sink), waiting_of(tuple(row))) for sink, *row in rows]


async def _write_waiting(link: Link, rows: Sequence[Any]) -> None:
    await put_waiting(link, sessions.NOBODY, _batches(rows))


async def _write_tallies(link: Link, rows: Sequence[Row]) -> None:
    await link.execute(_PUT_TALLIES, *arrays(_stored(Table.TALLY, row) for row in rows))


_WRITE: Final = {
    Table.SEEN: _write_seen,
    Table.SINK: _write_sinks,
    Table.WAITING: _write_waiting,
    Table.TALLY: _write_tallies,
}
