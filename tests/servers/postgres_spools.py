"""Spools of type `postgres` for tests: their settings, and what lies in the database."""

import asyncio
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from poller.core.errors import StorageError
from poller.runtime.clock import Clock
from poller.spools.postgres import PostgresSpool
from poller.testing.factories import some_reading
from tests.patience import patiently
from tests.servers.databases import PASSWORD, Database


def schema_of(folder: Path) -> str:
    """The schema for a folder: the same folder is the same spool."""
    return f"spool_{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"


def dsn_of(server: Database, password: str = PASSWORD) -> str:
    return f"postgresql://poller:{password}@127.0.0.1:{server.port}/live"


def settings_of(server: Database, folder: Path, **more: Any) -> dict[str, Any]:
    """The spool of a folder."""
    return {"type": "postgres", "dsn": dsn_of(server), "schema": schema_of(folder), **more}


def spool_of(server: Database, folder: Path, **more: Any) -> PostgresSpool:
    """The spool of a folder, not entered."""
    settings = PostgresSpool.Settings.model_validate(settings_of(server, folder, **more))
    return PostgresSpool("spool", settings, {}, Clock())


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
