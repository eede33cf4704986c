"""The tables of the spool file, and reading their rows.

page
    The log: the events of one parsed page, numbered `first` to `last`, one line of CloudEvents JSON each.
seen_page, seen
    The ids of events, as 64-bit hashes with a secret factor of the file, so that nobody outside can make two ids
    collide. `seen_page` has them in order of arrival. `seen` has them by value, up to the row that `meta` names as
    `merged`.
sink
    The position of each sink, and whether the operator paused it.
waiting
    The batches that wait for a retry.
dead
    The dead letters.
quarantine
    Messages and pages that could not be read.
source
    The memories of each source, by subject, and when each last changed.
stream
    The catalogue of streams at the event whose number `meta` names as `catalogue`. Later events are read from `page`.
meta
    Single values, and a row `dead <sink> <number>` for each event that became a dead letter before the position of its
    sink passed it.

Schema 2 adds what is needed to look back. Rows may be missing for events of schema 1.

page_index
    One row for each row of `page`: where the page came from, its bounds, a checksum of its blob `events`, and arrays
    with one entry for each event (`poller.spools.sqlite.page_index`). `received_at` and `received_to` bound the times
    of receipt, `oldest` and `newest` the seconds at which the events happened; `kinds` is a list, separated by blanks.
delivered
    Events that one commit recorded as delivered to a sink: those numbered `first` to `last` without `holes`, which
    `spools.delivered` describes. `history` is empty if no attempt failed before.
redelivered
    Retried dead letters that were delivered, one row for each. They have no number any more.
gap
    Pictures that are missing between two pictures of the same task (`history.Gap`). What the audit knows of each stream
    is the memory of the source `(audit)`, with its position in the log under the empty subject.
replay
    Events that a sink gets again (`history.Replay`).
replay_without
    The ids of events that a replay leaves out, because they waited for the sink or were dead letters.
tally
    The durable counts of each source and sink.
"""

import sqlite3
from collections.abc import Iterable, Mapping

import msgspec

from poller.core.errors import StorageError
from poller.core.model import (
    Filter,
)
from poller.spools.rows import epoch
from poller.spools.sqlite.migrations import Step, migrate

APPLICATION_ID = 0x504F4C4C  # "POLL"
VERSION = 2

SCHEMA_2 = """
CREATE TABLE page_index (
    first INTEGER PRIMARY KEY, source TEXT NOT NULL, about TEXT NOT NULL, asked_at REAL, received_at REAL NOT NULL,
    received_to REAL NOT NULL, outcome TEXT NOT NULL, kinds TEXT NOT NULL, oldest INTEGER NOT NULL,
    newest INTEGER NOT NULL, crc INTEGER NOT NULL,
    streams BLOB NOT NULL, taken BLOB NOT NULL, ids BLOB NOT NULL
);
CREATE TABLE delivered (
    n INTEGER PRIMARY KEY, sink TEXT NOT NULL, at REAL NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    holes BLOB NOT NULL, attempt INTEGER NOT NULL, took_ms INTEGER NOT NULL, history BLOB NOT NULL
);
CREATE INDEX delivered_last ON delivered (last);
CREATE TABLE redelivered (
    n INTEGER PRIMARY KEY, event_id TEXT NOT NULL, sink TEXT NOT NULL, at REAL NOT NULL, attempt INTEGER NOT NULL,
    took_ms INTEGER NOT NULL, history BLOB NOT NULL
);
CREATE INDEX redelivered_id ON redelivered (event_id);
CREATE INDEX redelivered_age ON redelivered (at);
CREATE TABLE gap (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, stream_id TEXT NOT NULL, from_at REAL NOT NULL, to_at REAL NOT NULL,
    missing INTEGER NOT NULL, why TEXT NOT NULL, filled INTEGER NOT NULL, cadence REAL NOT NULL,
    push_started_at REAL, task_started_at REAL, first_missing_offset INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX gap_age ON gap (to_at);
CREATE INDEX gap_stream ON gap (account, stream_id);
CREATE TABLE replay (
    n INTEGER PRIMARY KEY, sink TEXT NOT NULL, chosen BLOB NOT NULL, at INTEGER NOT NULL,
    until INTEGER NOT NULL, asked_at REAL NOT NULL, total INTEGER NOT NULL, queued INTEGER NOT NULL,
    state TEXT NOT NULL
);
CREATE TABLE replay_without (n INTEGER PRIMARY KEY, ids BLOB NOT NULL);
CREATE TABLE tally (
    owner TEXT NOT NULL, book TEXT NOT NULL, count INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (owner, book)
) WITHOUT ROWID;
"""
"""What schema 2 adds. A file of schema 1 gets the same by a migration (`migrations`)."""

SCHEMA_1 = """
CREATE TABLE page (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, received_at REAL NOT NULL, events BLOB NOT NULL
);
CREATE TABLE seen (key INTEGER PRIMARY KEY);
CREATE TABLE seen_page (n INTEGER PRIMARY KEY, at REAL NOT NULL, keys BLOB NOT NULL);
CREATE TABLE sink (
    name TEXT PRIMARY KEY, position INTEGER NOT NULL, paused INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE waiting (
    sink TEXT NOT NULL, id TEXT NOT NULL, failed INTEGER NOT NULL, first_attempt_at REAL NOT NULL,
    due REAL NOT NULL, history BLOB NOT NULL, numbers BLOB NOT NULL, events BLOB NOT NULL,
    PRIMARY KEY (sink, id)
) WITHOUT ROWID;
CREATE TABLE dead (
    n INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT NOT NULL, event_id TEXT NOT NULL, attempts INTEGER NOT NULL,
    first_attempt_at REAL NOT NULL, died_at REAL NOT NULL, reason TEXT NOT NULL, history BLOB NOT NULL,
    event BLOB NOT NULL, stream_id TEXT NOT NULL, UNIQUE (sink, event_id)
);
CREATE INDEX dead_age ON dead (died_at);
CREATE TABLE quarantine (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, source TEXT NOT NULL,
    received_at REAL NOT NULL, reason TEXT NOT NULL, encoding TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX quarantine_age ON quarantine (received_at);
CREATE TABLE source (
    name TEXT NOT NULL, about TEXT NOT NULL, memory BLOB NOT NULL, changed_at REAL NOT NULL,
    PRIMARY KEY (name, about)
) WITHOUT ROWID;
CREATE TABLE stream (
    account TEXT NOT NULL, stream_id TEXT NOT NULL, known BLOB NOT NULL, PRIMARY KEY (account, stream_id)
) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""

SCHEMA = SCHEMA_1 + SCHEMA_2

PUT_WAITING = "INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def lossy(text: bytes) -> str:
    """The text of a column, for lists of rows: one value that is not UTF-8 must not hide the other rows."""
    return text.decode("utf-8", "replace")


def recognised(connection: sqlite3.Connection) -> int:
    """The schema version of a spool file, 0 for an empty file.

    Raises `StorageError` for the file of another program or of a later version.
    """
    application, version = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("application_id", "user_version")
    )
    if (application, version) == (0, 0) and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        return 0
    if application != APPLICATION_ID:
        raise StorageError("not a spool file: the database belongs to another program")
    if version > VERSION:
        raise StorageError(f"schema {version}, this program knows {VERSION}: use the version that wrote it")
    return version


def _create_history(connection: sqlite3.Connection) -> None:
    for statement in filter(str.strip, SCHEMA_2.split(";")):
        connection.execute(statement)


STEPS: Mapping[int, Step] = {1: _create_history}
"""The migrations, by the schema that they start from. Each released schema has one, and a spool file in the tests."""


def prepare(connection: sqlite3.Connection, version: int, secret: bytes) -> None:
    """Create the tables in an empty file, or bring those of an earlier schema up to date."""
    if version == 0:
        factor = f"INSERT INTO meta VALUES ('factor', x'{secret.hex()}'), ('unindexed', '0');"  # noqa: S608 - hex of our own
        pragmas = f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION};"
        connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} {pragmas} {factor} COMMIT;")
    else:
        migrate(connection, version, STEPS)


def json_list(values: Iterable[object]) -> str:
    """Values as one argument for `json_each`."""
    return msgspec.json.encode(list(values)).decode()


def ahead(sink: str, number: int) -> str:
    """The name of a row in `meta`: the event is a dead letter of the sink, and the position has not passed it."""
    return f"dead {sink} {number:020}"


def where(
    chosen: Filter, *, of: str, id: str, at: str, stream: str | None = None
) -> tuple[str, list[object]]:
    """A choice as a condition on these columns, with its arguments."""
    ids = None if chosen.ids is None else msgspec.json.encode(sorted(chosen.ids)).decode()
    parts: list[tuple[str, object]] = [
        (f"{of} = ?", chosen.of),
        (f"{id} IN (SELECT value FROM json_each(?))", ids),  # noqa: S608 - our own words
        ("instr(reason, ?) > 0", chosen.reason),
        (f"{at} < ?", None if chosen.before is None else epoch(chosen.before)),
        (f"{at} >= ?", None if chosen.since is None else epoch(chosen.since)),
        ("n < ?", chosen.below),
    ]
    if stream is not None:
        parts.append((f"{stream} = ?", chosen.stream))
    given = [(condition, argument) for condition, argument in parts if argument is not None]
    return " AND ".join(["1", *(condition for condition, _ in given)]), [argument for _, argument in given]
