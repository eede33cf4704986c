"""Spools of type `postgres` for tests: their settings, and what lies in the database."""

import asyncio
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from poller.core.errors import StorageError
from poller.core.model import Event
from poller.runtime.clock import Clock
from poller.spools.postgres import PostgresSpool
from poller.testing.factories import done, some_reading
from tests.patience import patiently
from tests.servers.databases import PASSWORD, Database


def schema_of(folder: Path) -> str:
    """The schema for a folder: the same folder is the same spool."""
    return f"spool_{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"


def dsn_of(server: Database, password: str = PASSWORD) -> str:
    return f"postgresql://poller:{password}@127.0.0.1:{server.port}/live"


def plain_dsn_of(server: Database) -> str:
    """The same without TLS, for a test in which that is most of what it costs to ask the server."""
    return f"{dsn_of(server)}?sslmode=disable"


def settings_of(server: Database, folder: Path, **more: Any) -> dict[str, Any]:
    """The spool of a folder."""
    return {"type": "postgres", "dsn": dsn_of(server), "schema": schema_of(folder), **more}


_EMPTY = """
DO $$ DECLARE found text; BEGIN
    IF to_regclass('{schema}.log') IS NULL THEN RETURN; END IF;
    FOR found IN SELECT oid::regclass FROM pg_class
        WHERE relnamespace = to_regnamespace('{schema}') AND relkind = 'r' AND pg_relation_size(oid) > 0
    LOOP
        IF found NOT LIKE '%.meta' THEN EXECUTE 'TRUNCATE ' || found; END IF;
    END LOOP;
    FOR found IN SELECT oid::regclass FROM pg_class
        WHERE relnamespace = to_regnamespace('{schema}') AND relkind = 'S'
    LOOP
        PERFORM setval(found::regclass, 1, false);
    END LOOP;
    DELETE FROM {schema}.meta WHERE name <> 'version';
    INSERT INTO {schema}.log (head) VALUES (1);
END $$
"""


class Schemas:
    """Schemas that spools have one after another. To make one takes longer than most of what is tested with it."""

    def __init__(self, server: Database) -> None:
        self._server = server
        self._free: list[str] = []
        self._used: dict[Path, str] = {}

    def of(self, folder: Path) -> str:
        """The schema for a folder: it is not there yet, or as if its tables had just been made."""
        if folder not in self._used:
            self._used[folder] = self._free.pop() if self._free else schema_of(folder)
        return self._used[folder]

    def empty(self) -> None:
        """Empty those that were used, for other folders."""
        for schema in self._used.values():
            self._server.ask_now(_EMPTY.format(schema=schema))
            self._free.append(schema)
        self._used.clear()


def spool_of(server: Database, folder: Path, clock: Clock | None = None, **more: Any) -> PostgresSpool:
    """The spool of a folder, not entered."""
    settings = PostgresSpool.Settings.model_validate(settings_of(server, folder, **more))
    return PostgresSpool("spool", settings, {}, clock or Clock())


def head_of(server: Database, folder: Path) -> int:
    """The number that the next event gets: the first one has the number 1."""
    return int(server.ask_now(f"SELECT head FROM {schema_of(folder)}.log")[0][0])


def owed_by(server: Database, folder: Path) -> int:
    """How many events the sinks have not passed, or wait for another try."""
    schema = schema_of(folder)
    ((behind, waiting, taken),) = server.ask_now(
        f"SELECT (SELECT coalesce(sum(head - position), 0) FROM {schema}.sink, {schema}.log),"
        f" (SELECT count(*) FROM {schema}.waiting), (SELECT coalesce(sum(upto - first), 0) FROM {schema}.share)"
    )
    return int(behind) + int(waiting) + int(taken)


async def appended(spool: PostgresSpool, number: int) -> None:
    """Append an event, again and again until that is confirmed, as the journal does."""
    while True:
        with suppress(StorageError):
            await spool.append("source", [some_reading(number)])
            return
        await asyncio.sleep(0.1)


async def claimed(spool: PostgresSpool, count: int) -> list[str]:
    """The ids of the next `count` events that are handed out."""
    found = list[str]()
    while len(found) < count:
        found += [event.id for event in (await patiently(spool.claim("a", 100))).events]
    return found


async def delivered(spool: PostgresSpool, sink: str, count: int) -> list[str]:
    """The ids of the next events of a sink, in order of the ids. They are delivered; at least `count` of them."""
    got = list[Event]()
    while len(got) < count:
        batch = await patiently(spool.claim(sink, 9))
        got += batch.events
        await spool.settle(batch, done(batch))
    return sorted(event.id for event in got)
