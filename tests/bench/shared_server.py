"""A PostgreSQL for the figures of the shared spool, and what it uses.

The server has no TLS and writes no statement to its log. It has 256 MB of shared buffers, compresses all large values
with lz4 as the spool does, and has otherwise the settings that it has by default: each commit waits for the disk.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from tests.servers import trees
from tests.servers.databases import PASSWORD, Postgres, postgres

BUFFERS: Final = "256MB"
LEASE: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Used:
    """What the processes of a server have used since its start.

    cpu:     seconds, user and system
    written: bytes given to the disk
    log:     bytes of the write-ahead log, which are a part of `written`
    """

    cpu: float
    written: int
    log: int

    def since(self, before: "Used") -> "Used":
        """What was used in between."""
        return Used(
            cpu=self.cpu - before.cpu, written=self.written - before.written, log=self.log - before.log
        )


class Server:
    """A PostgreSQL that runs."""

    def __init__(self, running: Postgres) -> None:
        self._running = running

    @property
    def dsn(self) -> str:
        """Where its database `live` is, for the user of the spool."""
        return f"postgresql://poller:{PASSWORD}@127.0.0.1:{self._running.port}/live"

    def spool(self, schema: str, lease: float = LEASE) -> dict[str, Any]:
        """The settings of a spool in a schema of its own."""
        return {
            "type": "postgres",
            "dsn": self.dsn,
            "schema": schema,
            "lease": f"{lease:g}s",
            "max_bytes": "1TiB",
        }

    def ask(self, statement: str) -> Any:
        """The first value that a statement gives, as the server's administrator."""
        return asyncio.run(self._running.ask(statement))[0][0]

    def run(self, statement: str) -> None:
        """Run statements as the spool's user."""
        asyncio.run(self._run(statement))

    async def _run(self, statement: str) -> None:
        connection = await asyncpg.connect(self.dsn)
        await connection.execute(statement)
        await connection.close()

    def settle(self) -> None:
        """Write what is in memory to the disk, and count the rows: what comes next begins from there."""
        asyncio.run(self._running.ask("CHECKPOINT"))
        self.run("ANALYZE")

    def used(self) -> Used:
        """What all its processes have used."""
        pid = self._running.pid
        log = self.ask("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
        return Used(cpu=trees.cpu(pid), written=trees.written(pid), log=int(log))


@contextmanager
def server() -> Iterator[Server]:
    """A server, in a new folder on a disk."""
    with postgres(
        shared_buffers=BUFFERS, log_statement="none", ssl="off", default_toast_compression="lz4"
    ) as running:
        yield Server(running)
