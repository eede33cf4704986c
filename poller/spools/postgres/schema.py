"""The tables of a PostgreSQL spool. They have the shape of the SQLite spool's tables, so both keep the same promises.

Layout
    All tables lie in one schema of the database (`Settings.schema`), which is first on the search path of each
    connection. Text that comes from outside is stored as `bytea` in UTF-8, because `text` cannot hold a NUL.

lease
    One row: which session owns the spool. Each transaction that writes locks the row for share and checks that the
    session is its own. A session's number grows and is never used again: it is the fencing token.
heartbeat
    One row: until when the session owns the spool. It is a table of its own, because a heartbeat must not wait for a
    transaction that writes.
log
    One row: the number that the next event gets.
page
    The events that were appended together, with the origin of the page and its bounds. `crc` is the checksum of
    `events`. `kinds` is a list, separated by blanks. `oldest` and `newest` are seconds at which events happened.
seen
    The keys of ids, and the append that brought them. `seen_at` says when each append was.
provisional
    The number of each event that only provisional pages contained, by key.
sink
    The position of each sink, whether the operator paused it, and since which number it is served in order.
dead_ahead
    The numbers of events that became dead letters before the position of their sink passed them.

All other tables are as in the SQLite spool.
"""

from typing import Final

from poller.core.errors import StorageError
from poller.spools.postgres.links import Link

VERSION: Final = 1

SCHEMA: Final = """
CREATE TABLE meta (name text PRIMARY KEY, value bytea NOT NULL);
CREATE SEQUENCE session_number;
CREATE TABLE lease (one boolean PRIMARY KEY DEFAULT true CHECK (one), session bigint NOT NULL, holder text NOT NULL);
CREATE TABLE heartbeat (one boolean PRIMARY KEY DEFAULT true CHECK (one), due timestamptz NOT NULL);
INSERT INTO lease (session, holder) VALUES (0, '');
INSERT INTO heartbeat (due) VALUES ('-infinity');
CREATE TABLE log (one boolean PRIMARY KEY DEFAULT true CHECK (one), head bigint NOT NULL);
INSERT INTO log (head) VALUES (1);
CREATE TABLE page (
    first bigint PRIMARY KEY, last bigint NOT NULL, received_at float8 NOT NULL, received_to float8 NOT NULL,
    source text NOT NULL, about bytea NOT NULL, asked_at float8, outcome text NOT NULL, kinds text NOT NULL,
    oldest bigint NOT NULL, newest bigint NOT NULL, crc bigint NOT NULL, events bytea NOT NULL
);
CREATE TABLE seen (key bigint PRIMARY KEY, token bigint NOT NULL);
CREATE INDEX seen_token ON seen (token);
CREATE TABLE seen_at (token bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, at float8 NOT NULL);
CREATE TABLE provisional (key bigint PRIMARY KEY, number bigint NOT NULL);
CREATE TABLE sink (
    name text PRIMARY KEY, position bigint NOT NULL, paused boolean NOT NULL DEFAULT false, since bigint
);
CREATE TABLE waiting (
    sink text NOT NULL, id text NOT NULL, failed bigint NOT NULL, first_attempt_at float8 NOT NULL,
    due float8 NOT NULL, history bytea NOT NULL, numbers bytea NOT NULL, events bytea NOT NULL,
    PRIMARY KEY (sink, id)
);
CREATE TABLE dead_ahead (sink text NOT NULL, number bigint NOT NULL, PRIMARY KEY (sink, number));
CREATE TABLE dead (
    n bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, sink text NOT NULL, event_id text NOT NULL,
    attempts bigint NOT NULL, first_attempt_at float8 NOT NULL, died_at float8 NOT NULL, reason bytea NOT NULL,
    history bytea NOT NULL, event bytea NOT NULL, stream_id bytea NOT NULL, UNIQUE (sink, event_id)
);
CREATE INDEX dead_age ON dead (died_at);
CREATE TABLE quarantine (
    n bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, id bytea NOT NULL UNIQUE, source text NOT NULL,
    received_at float8 NOT NULL, reason bytea NOT NULL, encoding text NOT NULL, body bytea NOT NULL
);
CREATE INDEX quarantine_age ON quarantine (received_at);
CREATE TABLE source (
    name text NOT NULL, about bytea NOT NULL, memory bytea NOT NULL, changed_at float8 NOT NULL,
    PRIMARY KEY (name, about)
);
CREATE TABLE stream (
    account text NOT NULL, stream_id bytea NOT NULL, known bytea NOT NULL, PRIMARY KEY (account, stream_id)
);
CREATE TABLE delivered (
    n bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, sink text NOT NULL, at float8 NOT NULL, first bigint NOT NULL,
    last bigint NOT NULL, holes bytea NOT NULL, attempt bigint NOT NULL, took_ms bigint NOT NULL,
    history bytea NOT NULL
);
CREATE INDEX delivered_last ON delivered (last);
CREATE TABLE redelivered (
    n bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, event_id text NOT NULL, sink text NOT NULL,
    at float8 NOT NULL, attempt bigint NOT NULL, took_ms bigint NOT NULL, history bytea NOT NULL
);
CREATE INDEX redelivered_id ON redelivered (event_id);
CREATE INDEX redelivered_age ON redelivered (at);
CREATE TABLE gap (
    id text PRIMARY KEY, account text NOT NULL, stream_id bytea NOT NULL, from_at float8 NOT NULL,
    to_at float8 NOT NULL, missing bigint NOT NULL, why bytea NOT NULL, filled bigint NOT NULL,
    cadence float8 NOT NULL, push_started_at float8, task_started_at float8, first_missing_offset bigint NOT NULL
);
CREATE INDEX gap_age ON gap (to_at);
CREATE INDEX gap_stream ON gap (account, stream_id);
CREATE TABLE replay (
    n bigint PRIMARY KEY, sink text NOT NULL, chosen bytea NOT NULL, at bigint NOT NULL, until bigint NOT NULL,
    asked_at float8 NOT NULL, total bigint NOT NULL, queued bigint NOT NULL, state text NOT NULL
);
CREATE TABLE replay_without (n bigint PRIMARY KEY, ids bytea NOT NULL);
CREATE TABLE tally (
    owner text NOT NULL, book text NOT NULL, count bigint NOT NULL, at float8 NOT NULL, PRIMARY KEY (owner, book)
);
"""


def to_bytes(text: str) -> bytes:
    """Text from outside, as it is stored."""
    return text.encode("utf-8", "surrogatepass")


def to_text(stored: bytes) -> str:
    """The text of `to_bytes`."""
    return stored.decode("utf-8", "surrogatepass")


async def prepare(link: Link, schema: str) -> None:
    """Create the schema and its tables if they are missing. Raises `StorageError` for those of a later version."""
    async with link.transaction():
        await link.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"poller {schema}")
        if await link.fetchval("SELECT to_regclass($1)", f"{schema}.meta") is None:
            await link.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            await link.execute(SCHEMA)
            await link.execute("INSERT INTO meta VALUES ('version', $1)", str(VERSION).encode())
        version = int(await link.fetchval("SELECT value FROM meta WHERE name = 'version'"))
    if version > VERSION:
        raise StorageError(f"schema {version}, this program knows {VERSION}: use the version that wrote it")
