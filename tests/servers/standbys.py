"""Commits that wait for a synchronous standby, and a standby that is not there."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from tests.patience import PATIENCE
from tests.servers.databases import Database, Rows

WAITS: Final = "SELECT pid FROM pg_stat_activity WHERE application_name = 'poller' AND wait_event = 'SyncRep'"


class Asked(Protocol):
    """A server, or a pair of them, that answers statements."""

    async def ask(self, statement: str) -> Rows: ...


@contextmanager
def standby_away(server: Database) -> Iterator[None]:
    """Commits wait for a standby that is not there."""
    try:
        _set_standby(server, "nobody")
        yield
    finally:
        _set_standby(server, "")


def _set_standby(server: Database, names: str) -> None:
    server.ask_now(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    server.ask_now("SELECT pg_reload_conf()")


async def hung(server: Asked) -> int:
    """The process of the server whose commit waits, once there is one."""
    async with asyncio.timeout(PATIENCE):
        while not (found := await server.ask(WAITS)):
            await asyncio.sleep(0.02)
    (pid,) = found[0]
    return int(pid)
