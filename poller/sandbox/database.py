"""What the platform must remember through a restart and a `kill -9`: one SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from poller.sandbox.options import BadOption

FILE = "platform.db"
VERSION = 2
LOG_PAGES = 4000
"""Pages of 4 KiB that the write-ahead log grows to, before a fsync or two make it part of the file."""

SCHEMA = """
CREATE TABLE customer (
    app_id INTEGER PRIMARY KEY,
    last_n INTEGER NOT NULL DEFAULT 0,      -- the number of the newest message
    polls  INTEGER NOT NULL DEFAULT 0,      -- calls that took numbers; after a kill perhaps more than there were
    taken  INTEGER NOT NULL DEFAULT 0       -- how many of the first page's first messages are gone
);
CREATE TABLE message_page (                 -- messages that were enqueued together
    app_id INTEGER NOT NULL,
    place  INTEGER NOT NULL,                -- order in the queue; what jumps it has smaller numbers
    count  INTEGER NOT NULL,
    body   BLOB NOT NULL,
    PRIMARY KEY (app_id, place)
);
CREATE TABLE object (                       -- what lies, or will lie, in the object store
    bucket    TEXT NOT NULL,
    key       TEXT NOT NULL,
    size      INTEGER NOT NULL,
    etag      TEXT NOT NULL,                -- hex MD5
    crc64     TEXT NOT NULL,                -- decimal CRC-64/XZ
    type      TEXT NOT NULL,
    ready_at  REAL NOT NULL,                -- epoch; the end of its upload
    metadata  TEXT NOT NULL DEFAULT '{}',   -- JSON: headers that come back with it
    PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE recording (
    vid        TEXT PRIMARY KEY,
    file_id    TEXT NOT NULL UNIQUE,
    app_id     INTEGER NOT NULL,
    stream_id  TEXT NOT NULL,
    start_time REAL NOT NULL,               -- epoch
    end_time   REAL,                        -- NULL while it is being written
    size       INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX recording_by_stream ON recording (app_id, stream_id, start_time);
CREATE TABLE channel (
    app_id    INTEGER NOT NULL,
    stream_id TEXT NOT NULL,
    pushed_at REAL,                         -- epoch; the last push; NULL: none yet
    ended_at  REAL,                         -- its end; NULL while it lasts
    disabled  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (app_id, stream_id)
) WITHOUT ROWID;
"""


FROM_1 = "ALTER TABLE object ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';"


class Database:
    """One connection, used by the event loop's thread alone.

    Every statement is durable against the death of the process when it returns (WAL, `synchronous=NORMAL`); a
    power cut may take the last of them. Constructors only store; entering opens the file, or makes it.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._connection: sqlite3.Connection

    def __enter__(self) -> Self:
        """Raises BadOption if another sandbox holds the file, or another version made it."""
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        try:
            # Held from here to the end, so that no second sandbox shares the directory.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")
            # Debian's SQLite overwrites by default what is deleted, and every message is.
            connection.execute("PRAGMA secure_delete=OFF")
            self._prepare(connection)
        except sqlite3.OperationalError as error:
            connection.close()
            if "locked" in str(error):
                raise BadOption(f"{self._path.parent}: another sandbox is running there") from None
            raise OSError(f"{self._path}: {error}") from None
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """The statement for each row, all of them or none."""
        with self.together():
            self._connection.executemany(statement, rows)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is executed inside is committed as one; not to be nested."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")
        elif version == 1:
            connection.executescript(f"BEGIN IMMEDIATE; {FROM_1} PRAGMA user_version={VERSION}; COMMIT;")
        elif version != VERSION:
            raise BadOption(
                f"{self._path}: made by another version of the sandbox; move it away to begin anew"
            )
