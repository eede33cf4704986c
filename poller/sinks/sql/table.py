"""The table of events: its columns in each database, the statement that makes it, and the row of an event."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from poller.core.errors import TryLater
from poller.core.model import Event

_TYPES: Final[Mapping[str, Mapping[str, str]]] = {
    "postgresql": {
        "id": "text PRIMARY KEY",
        "account": "text NOT NULL",
        "kind": "text NOT NULL",
        "stream": "text NOT NULL",
        "occurred_at": "timestamptz NOT NULL",
        "received_at": "timestamptz NOT NULL",
        "url": "text",
        "event": "jsonb NOT NULL",
    },
    "mysql": {
        "id": "varchar(64) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY",
        "account": "varchar(255) NOT NULL",
        "kind": "varchar(255) NOT NULL",
        "stream": "varchar(1024) NOT NULL",
        "occurred_at": "datetime(6) NOT NULL",
        "received_at": "datetime(6) NOT NULL",
        "url": "text",
        "event": "json NOT NULL",
    },
}
_QUOTE: Final = {"postgresql": '"', "mysql": "`"}
_ENDING: Final = {
    "postgresql": ")",
    "mysql": ") ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
}
COLUMNS: Final = tuple(_TYPES["postgresql"])


class Row(NamedTuple):
    """The values of an event, in the order of the columns."""

    id: str
    account: str
    kind: str
    stream: str
    occurred_at: datetime
    received_at: datetime
    url: str | None
    event: str


_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
PROBE: Final = Row("check", "check", "other", "", _LONG_AGO, _LONG_AGO, None, "{}")
"""A row that no event has. It is stored and rolled back to see whether that is possible."""


def rows(events: Sequence[Event]) -> list[Row]:
    """A row for each id; the last of several events with the same id counts, as no statement may touch a row twice."""
    return list({event.id: _row(event) for event in events}.values())


def _row(event: Event) -> Row:
    return Row(
        event.id,
        event.account,
        event.kind,
        event.stream_id,
        event.occurred_at,
        event.received_at,
        event.url,
        event.encoded.decode(),
    )


def quote_name(engine: str, table: str) -> str:
    """The table's name as statements need it."""
    mark = _QUOTE[engine]
    return ".".join(f"{mark}{part}{mark}" for part in table.split("."))


def creation(engine: str, table: str) -> str:
    """The statement that makes the table."""
    columns = ",\n".join(f"    {name} {type}" for name, type in _TYPES[engine].items())
    return f"CREATE TABLE {quote_name(engine, table)} (\n{columns}\n{_ENDING[engine]};"


def missing(engine: str, table: str) -> str:
    """What `check` says if there is no such table."""
    return f"there is no table {table}; this statement makes it:\n{creation(engine, table)}"


def no_table() -> TryLater:
    """The error of a delivery if there is no such table."""
    return TryLater("the table is missing: poller check --connect prints the statement that makes it")
