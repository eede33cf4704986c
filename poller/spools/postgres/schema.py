"""The tables of a PostgreSQL spool. They have the shape of the SQLite spool's tables, so both keep the same promises.

Layout
    All tables lie in one schema of the database (`Settings.schema`), which is first on the search path of each
    connection. Text that comes from outside is stored as `bytea` in UTF-8, because `text` cannot hold a NUL.

session
    The daemons that share the spool, each with the end of its lease (`sessions`). A session's number grows and is never
    used again: it is the fencing token. One that is `alone` moves the spool, and keeps the others out.
written
    How many transactions each connection of a session has written.
duty
    What one session alone does, such as polling a queue.
attached
    Which sinks a session knows, in which way it wants to serve them (`modes`), and whether it serves them. A sink that
    no session knows holds nothing back.
log
    One row: the number that the next event gets. An append locks it before it takes numbers, so that the order of the
    numbers is that of the commits.
page
    The events that were appended together, with the origin of the page and its bounds. `crc` is the checksum of
    `events`. `kinds` is a list, separated by blanks. `oldest` and `newest` are seconds at which events happened.
seen
    The keys of ids, and the append that brought them. `seen_at` says when each append was.
provisional
    The number of each event that only provisional pages contained, by key.
sink
    The queues of the sinks: one for each sink, or one for each lane (`parent` is the sink), with its position and since
    which number it is served in order. In the mode of an unordered sink, the position is the cursor: each number below
    it is settled, or in a share, or waits for a retry. In `share`, `waiting`, `dead_ahead` and `duty`, a sink is the
    name of such a queue.
share
    The stretches of the log that a session has taken for a sink, from the first number that is not settled.
waiting
    The batches that wait for a retry, each with the session that holds it. `size` is the number of its events, and
    `oldest` says when the first of them was received.
dead_ahead
    The numbers of events that are settled although the position of their sink, or their share, has not passed them.
paused
    Whether the operator paused a sink, and how often it was resumed.
tally
    The counts of each session; those of ended sessions are added up under the session 0.
correction
    Corrections of stored events, for the daemons that have these events in memory.

All other tables are as in the SQLite spool.
"""

from typing import Final

from poller.core.errors import StorageError
from poller.spools.postgres.links import Link

VERSION: Final = 1

SCHEMA: Final = """
CREATE TABLE meta (name text PRIMARY KEY, value bytea NOT NULL);
CREATE SEQUENCE session_number;
CREATE TABLE session (
    id bigint PRIMARY KEY, name text NOT NULL, visits boolean NOT NULL, alone boolean NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(), due timestamptz NOT NULL
);
CREATE TABLE written (
    session bigint NOT NULL, place text NOT NULL, count bigint NOT NULL, PRIMARY KEY (session, place)
);
CREATE TABLE duty (name text PRIMARY KEY, holder bigint NOT NULL);
CREATE INDEX duty_holder ON duty (holder);
CREATE TABLE attached (
    sink text NOT NULL, session bigint NOT NULL, mode text NOT NULL, serves boolean NOT NULL,
    PRIMARY KEY (sink, session)
);
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
CREATE INDEX seen_age ON seen_at (at);
CREATE TABLE provisional (key bigint PRIMARY KEY, number bigint NOT NULL);
CREATE TABLE sink (
    name text PRIMARY KEY, parent text NOT NULL, position bigint, mode text NOT NULL, since bigint
);
CREATE INDEX sink_parent ON sink (parent);
CREATE TABLE share (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, sink text NOT NULL, first bigint NOT NULL,
    upto bigint NOT NULL, holder bigint NOT NULL
);
CREATE INDEX share_sink ON share (sink, first);
CREATE INDEX share_holder ON share (holder);
CREATE TABLE waiting (
    sink text NOT NULL, id text NOT NULL, failed bigint NOT NULL, first_attempt_at float8 NOT NULL,
    due float8 NOT NULL, history bytea NOT NULL, numbers bytea NOT NULL, events bytea NOT NULL,
    holder bigint NOT NULL, size bigint NOT NULL, oldest float8 NOT NULL, PRIMARY KEY (sink, id)
);
CREATE INDEX waiting_holder ON waiting (holder, sink);
CREATE TABLE paused (sink text PRIMARY KEY, paused boolean NOT NULL, resumed bigint NOT NULL);
CREATE TABLE correction (
    n bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, session bigint NOT NULL, at float8 NOT NULL,
    number bigint NOT NULL, event bytea NOT NULL
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
CREATE SEQUENCE replay_number;
CREATE TABLE replay (
    n bigint PRIMARY KEY, sink text NOT NULL, chosen bytea NOT NULL, at bigint NOT NULL, until bigint NOT NULL,
    asked_at float8 NOT NULL, total bigint NOT NULL, queued bigint NOT NULL, state text NOT NULL
);
CREATE TABLE replay_without (n bigint PRIMARY KEY, ids bytea NOT NULL);
CREATE TABLE tally (
    owner text NOT NULL, book text NOT NULL, session bigint NOT NULL, count bigint NOT NULL, at float8 NOT NULL,
    PRIMARY KEY (owner, book, session)
);
CREATE INDEX tally_session ON tally (session);
"""


def to_bytes(text: str) -> bytes:
    """Text from outside, as it is stored."""
    return text.encode("utf-8", "surrogatepass")


def to_text(stored: bytes) -> str:
    """The text of `to_bytes`."""
    return stored.decode("utf-8", "surrogatepass")


async def read_version(link: Link) -> int:
    """The version of the tables."""
    return int(await link.fetchval("SELECT value FROM meta WHERE name = 'version'"))


async def put_version(link: Link, version: int) -> None:
    """Write the version of the tables."""
    await link.execute(
        "INSERT INTO meta VALUES ('version', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        str(version).encode(),
    )


async def check_version(link: Link) -> None:
    """Raise `StorageError` unless the tables have the version of this program."""
    version = await read_version(link)
    if version > VERSION:
        raise StorageError(f"schema {version}, this program knows {VERSION}: use the version that wrote it")
    if version < VERSION:
        raise StorageError(
            f"schema {version}, this program needs {VERSION}: start a daemon of this version, which migrates the tables"
            " and ends the daemons of the version before"
        )
