"""A PostgreSQL and a MariaDB for tests, each with a database `live` and a user `poller`. Neither runs as root."""

import asyncio
import getpass
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import asyncmy
import asyncpg
import pytest
import trustme

from tests.patience import PATIENCE
from tests.servers.guard import folder_kept
from tests.servers.processes import ServerProcess, free_port, needs, run
from tests.shared import turn

PASSWORD: Final = "right-password"
ENGINES: Final = ("postgresql", "mariadb")
POSTGRES_PROGRAMS: Final = "/usr/lib/postgresql"

Rows = Sequence[Sequence[Any]]


class Database(ServerProcess):
    """A database server."""

    engine: str
    scheme: str
    owner: str
    ca: Path

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/live"

    async def ask(self, statement: str) -> Rows:
        """Run a statement as the server's own administrator, in the database `live`."""
        raise NotImplementedError

    def ask_now(self, statement: str) -> Rows:
        """The same, from code that runs in no loop, or in a loop that must not go on meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: asyncio.run(self._answer(statement))).result()

    async def _answer(self, statement: str) -> Rows:
        return await self.ask(statement)

    def describe(self) -> str:
        return self.engine


class Postgres(Database):
    engine, scheme, owner = "postgresql", "postgresql", "postgres"

    async def ask(self, statement: str, database: str = "live") -> Rows:
        connection = await asyncpg.connect(
            host=str(self.folder), port=self.port, user="admin", database=database, timeout=PATIENCE
        )
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            connection.terminate()


class MariaDb(Database):
    engine, scheme, owner = "mariadb", "mysql", "mysql"

    async def ask(self, statement: str, database: str | None = "live") -> Rows:
        connection = await asyncmy.connect(
            unix_socket=str(self.folder / "socket"), user="root", database=database, autocommit=True
        )
        try:
            cursor = connection.cursor()
            await cursor.execute(statement)
            return list(await cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()


@contextmanager
def folder_of(owner: str) -> Iterator[tuple[Path, list[str], str]]:
    """A folder for a server, what begins its command line, and its user: these servers refuse to be root's."""
    with folder_kept(Path(tempfile.mkdtemp(prefix="database-"))) as folder:
        if os.geteuid() != 0:
            yield folder, [], getpass.getuser()
            return
        user = owner if any(one.pw_name == owner for one in pwd.getpwall()) else "nobody"
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        groups = [f"--reuid={user}", f"--regid={entry.pw_gid}", "--clear-groups"]
        yield folder, ["setpriv", *groups], user


def certificate(folder: Path, user: str) -> list[Path]:
    """Files for a server's certificate and key, and for its authority."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    files = [folder / name for name in ("cert.pem", "key.pem", "ca.pem")]
    issued.cert_chain_pems[0].write_to_path(files[0])
    issued.private_key_pem.write_to_path(files[1])
    authority.cert_pem.write_to_path(files[2])
    for file in files:
        file.chmod(0o600)
        shutil.chown(file, user)
    files[2].chmod(0o644)
    return files


def postgres_program(name: str) -> str:
    found = sorted(Path(POSTGRES_PROGRAMS).glob(f"*/bin/{name}"))
    return str(found[-1]) if found else needs(name, "apt-get install postgresql")


@contextmanager
def postgres(shared: Path | None = None, **settings: object) -> Iterator[Postgres]:
    """A server with the settings that it has by default, as far as they keep what is committed.

    Its first files are made once below `shared`, and copied from there: that is most of what a start takes. `settings`
    are put in the place of those that tests have.
    """
    with folder_of("postgres") as (folder, begin, user):
        postgres_files(folder, begin, shared)
        cert, key, ca = certificate(folder, user)
        tls = {"ssl": "on", "ssl_cert_file": cert, "ssl_key_file": key}
        port = free_port()
        argv = postgres_command(folder, begin, port, **{**tls, "log_statement": "all", **settings})
        server = Postgres(folder, port, argv, says=b"ready to accept connections")
        server.ca = ca
        try:
            server.start()
            yield server
        finally:
            server.stop()


def postgres_command(folder: Path, begin: Sequence[str], port: int, **more: object) -> list[str]:
    """The command line of a server whose files lie below a folder, with more settings."""
    options = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": folder,
        "shared_buffers": "16MB",
        "dynamic_shared_memory_type": "mmap",
        **more,
    }
    argv = [*begin, postgres_program("postgres"), "-D", str(folder / "data"), "-p", str(port)]
    for name, value in options.items():
        argv += ["-c", f"{name}={value}"]
    return argv


def postgres_files(folder: Path, begin: Sequence[str], shared: Path | None) -> None:
    """The first files of a server, in the folder `data` below its own. They are copied from below `shared`."""
    if shared is None:
        _make_files(folder / "data", begin)
    else:
        with turn(shared):
            _copy_files(shared / "postgres", folder / "data", begin)


def _copy_files(ready: Path, data: Path, begin: Sequence[str]) -> None:
    """Copy the first files of a server, which are made if they are not there."""
    if ready.exists():
        run(["cp", "-a", str(ready), str(data)], cwd=data.parent)
        return
    _make_files(data, begin)
    part = ready.with_suffix(".part")
    run(["cp", "-a", str(data), str(part)], cwd=data.parent)
    part.rename(ready)


def _make_files(data: Path, begin: Sequence[str]) -> None:
    """The first files of a server, with the database and the user."""
    make = ["-D", str(data), "-U", "admin", "-E", "UTF8", "--no-locale", "--no-sync", "--auth-local=trust"]
    run([*begin, postgres_program("initdb"), *make, "--auth-host=scram-sha-256"], cwd=data.parent)
    alone = f"{postgres_program('postgres')} --single -D {data} -c exit_on_error=on"
    for database, statement in (
        ("postgres", "CREATE DATABASE live"),
        ("postgres", f"CREATE ROLE poller LOGIN PASSWORD '{PASSWORD}'"),
        ("live", "GRANT ALL ON DATABASE live TO poller"),
        ("live", "GRANT ALL ON SCHEMA public TO poller"),
    ):
        run([*begin, "sh", "-c", f'echo "$0" | {alone} {database}', statement], cwd=data.parent)


@contextmanager
def mariadb() -> Iterator[MariaDb]:
    """A server with the settings that it has by default, as far as they keep what is committed."""
    install = needs("mariadb-install-db", "apt-get install mariadb-server")
    program = shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin") or needs(
        "mariadbd", "apt-get install mariadb-server"
    )
    with folder_of("mysql") as (folder, begin, user):
        data, port = folder / "data", free_port()
        make = [
            "--no-defaults",
            f"--datadir={data}",
            f"--tmpdir={folder}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]
        run([*begin, install, *make], cwd=folder)
        cert, key, ca = certificate(folder, user)
        options = {
            "datadir": data,
            "tmpdir": folder,
            "port": port,
            "bind-address": "127.0.0.1",
            "socket": folder / "socket",
            "pid-file": folder / "pid",
            "skip-name-resolve": "ON",
            "innodb-buffer-pool-size": "16M",
            "ssl-cert": cert,
            "ssl-key": key,
        }
        argv = [program, "--no-defaults", *(f"--{name}={value}" for name, value in options.items())]
        server = MariaDb(folder, port, [*begin, *argv], says=b"ready for connections")
        server.ca = ca
        try:
            server.start()
            asyncio.run(server.ask("CREATE DATABASE live CHARACTER SET utf8mb4", None))
            asyncio.run(server.ask(f"CREATE USER poller@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'", None))
            asyncio.run(server.ask("GRANT ALL ON live.* TO poller@'127.0.0.1'", None))
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="module", params=ENGINES)
def started(request: pytest.FixtureRequest, shared: Path) -> Iterator[Database]:
    """Each server in turn: a start takes seconds."""
    with postgres(shared) if request.param == "postgresql" else mariadb() as server:
        yield server


@pytest.fixture
def database(started: Database) -> Iterator[Database]:
    """The same, running for the next test too."""
    yield started
    started.mend()
