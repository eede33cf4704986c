"""A PostgreSQL with a synchronous standby: the one can be killed, and the other promoted, again and again.

Each confirms a commit only once the other has it, whichever is the primary. So a primary without its standby confirms
nothing, and the standby has all that was ever confirmed.
"""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.patience import PATIENCE
from tests.servers.databases import (
    PASSWORD,
    Postgres,
    Rows,
    folder_of,
    postgres_command,
    postgres_files,
    postgres_program,
)
from tests.servers.processes import free_port, run

NAMES: Final = ("one", "two")
LAG: Final = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"


class Replica(Postgres):
    """One of the two servers. Its files say whether it is the primary."""

    def __init__(self, name: str, folder: Path, begin: list[str], host: str) -> None:
        self.name = name
        self.host = host
        self.begin = begin
        self.data = folder / "data"
        super().__init__(folder, free_port(), [], says=b"ready to accept")

    def pair_with(self, other: "Replica") -> None:
        """From the next start on it confirms what the other one has, or follows the other one."""
        settings = {
            "listen_addresses": self.host,
            "synchronous_standby_names": other.name,
            "primary_conninfo": f"{other.conninfo} application_name={self.name}",
            "wal_keep_size": "256MB",
            "wal_retrieve_retry_interval": "100ms",
        }
        self._argv = postgres_command(self.folder, self.begin, self.port, **settings)

    @property
    def conninfo(self) -> str:
        """Where its administrator reaches it, which needs no network."""
        return f"host={self.folder} port={self.port} user=admin"

    def admit(self, addresses: str) -> None:
        """Let users in from a network besides the machine itself, from the next start on."""
        with (self.data / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {addresses} scram-sha-256\n")

    def become_standby_of(self, primary: "Replica") -> None:
        """Take over the files of a primary in place of its own, and follow it from the next start on."""
        shutil.rmtree(self.data, ignore_errors=True)
        copy = ["-D", str(self.data), "-d", primary.conninfo, "--checkpoint=fast", "--no-sync"]
        run([*self.begin, postgres_program("pg_basebackup"), *copy], cwd=self.folder)
        (self.data / "standby.signal").touch()


class Replicas:
    """Two servers, of which one is the primary."""

    engine: Final = "postgresql"

    def __init__(self, primary: Replica, standby: Replica) -> None:
        self.primary = primary
        self.standby = standby
        self.promotions = 0
        self._both = (primary, standby)

    @property
    def dsn(self) -> str:
        """Both servers' addresses, of which a client takes the one that can be written to."""
        hosts = ",".join(f"{one.host}:{one.port}" for one in self._both)
        return f"postgresql://poller:{PASSWORD}@{hosts}/live?target_session_attrs=read-write"

    async def ask(self, statement: str) -> Rows:
        """Run a statement at the primary, as its administrator."""
        return await self.primary.ask(statement)

    def ask_now(self, statement: str) -> Rows:
        """The same, from code that runs in no loop."""
        return self.primary.ask_now(statement)

    async def until_synchronous(self) -> None:
        """Wait until the standby follows, so that commits are confirmed."""
        async with asyncio.timeout(PATIENCE):
            while (await self.ask(LAG))[0][0] != 1:
                await asyncio.sleep(0.05)

    def fail_over(self) -> None:
        """Kill the primary, and promote the standby."""
        self.primary.kill()
        self.promote()

    def promote(self) -> None:
        """Make the standby of a dead primary the primary. It confirms nothing until `rebuild`."""
        self.primary, self.standby = self.standby, self.primary
        assert self.ask_now("SELECT pg_promote()") == [(True,)]
        self.promotions += 1

    def rebuild(self) -> None:
        """Make the killed server the standby of the other one, from a copy of its files."""
        self.standby.become_standby_of(self.primary)
        self.standby.start()
        asyncio.run(self.until_synchronous())

    @contextmanager
    def stand_in(self) -> Iterator[None]:
        """A third server in the place of the standby, which hangs: so long, the primary confirms what this one has."""
        with folder_of("postgres") as (folder, begin, _):
            third = Replica(self.standby.name, folder, begin, self.primary.host)
            third.pair_with(self.primary)
            third.become_standby_of(self.primary)
            try:
                third.start()
                asyncio.run(self.until_synchronous())
                yield
            finally:
                third.stop()

    def restart(self) -> None:
        """Kill the primary, and start it again."""
        self.primary.kill()
        self.primary.start()
        asyncio.run(self.until_synchronous())

    def mend(self) -> None:
        """Let both run, whatever a test has left behind."""
        self.primary.mend()
        self.standby.mend()
        asyncio.run(self.until_synchronous())


@contextmanager
def replicas(
    shared: Path | None = None, *, host: str = "127.0.0.1", admits: str = "127.0.0.0/8"
) -> Iterator[Replicas]:
    """Both run, at one address. Users come from the network `admits`."""
    with ExitStack() as stack:
        places = [stack.enter_context(folder_of("postgres")) for _ in NAMES]
        one, two = (
            Replica(name, folder, begin, host) for name, (folder, begin, _) in zip(NAMES, places, strict=True)
        )
        one.pair_with(two)
        two.pair_with(one)
        postgres_files(one.folder, one.begin, shared)
        one.admit(admits)
        for server in (one, two):
            stack.callback(server.stop)
        one.start()
        both = Replicas(one, two)
        both.rebuild()
        yield both
