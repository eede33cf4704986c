"""Commits that wait for a synchronous standby, and a standby that is not there."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, Protocol

from tests.patience import PATIENCE
from tests.servers.databases import Database, Rows

WAITS: Final = "SELECT pid FROM pg_stat_activity WHERE application_name = 'poller' AND wait_event = 'SyncRep'"

_COMMIT: Final = "SELECT pg_logical_emit_message(true, 'standby', '')"
_END_COMMIT: Final = (
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
    " WHERE query LIKE '%pg_logical_emit_message(%' AND wait_event = 'SyncRep'"
)


class Asked(Protocol):
    """A server, or a pair of them, that answers statements."""

    async def ask(self, statement: str) -> Rows: ...


@contextmanager
def standby_away(server: Database) -> Iterator[None]:
    """Commits wait for a standby that is not there."""
    try:
        _set_standby(server, "nobody")
        with ThreadPoolExecutor(1) as pool:  # whoever asks may be in a loop
            pool.submit(lambda: asyncio.run(_commits_wait(server))).result()
        yield
    finally:
        _set_standby(server, "")


def _set_standby(server: Database, names: str) -> None:
    server.ask_now(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    server.ask_now("SELECT pg_reload_conf()")


async def _commits_wait(server: Asked) -> None:
    """Wait until a commit of our own waits for the standby: until then the server has not heard of it everywhere."""
    async with asyncio.timeout(PATIENCE):
        while True:
            commit = asyncio.ensure_future(server.ask(_COMMIT))
            while not commit.done():
                if await server.ask(_END_COMMIT):
                    await commit
                    return
                await asyncio.sleep(0.02)


async def hung(server: Asked) -> int:
    """The process of the server whose commit waits, once there is one."""
    async with asyncio.timeout(PATIENCE):
        while not (found := await server.ask(WAITS)):
            await asyncio.sleep(0.02)
    (pid,) = found[0]
    return int(pid)
