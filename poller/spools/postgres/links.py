"""Connections to the database of a spool, and its errors as errors of the spool."""

import asyncio
import logging
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import asyncpg
import structlog

from poller.core.errors import StorageError, StorageFull
from poller.core.spool import Away
from poller.runtime.clock import Clock
from poller.spools.postgres.settings import FORM

CONNECT_WITHIN: Final = 5.0
"""Seconds for one server."""
NEXT_AFTER: Final = 0.25
"""Seconds after which the next server of an address is tried too. A sign of life has half a lease for all of them."""
ANSWER_WITHIN: Final = 30.0
"""Seconds for one statement of a question. A statement that writes may wait for a standby, and has no limit."""
SILENCE: Final = {
    socket.TCP_KEEPIDLE: 5,
    socket.TCP_KEEPINTVL: 3,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 15_000,
}
"""After how long a connection is lost whose packets vanish: some 15 seconds, idle or not."""
_AWAY: Final = ("08", "57P", "57014", "53", "55P03", "25006", "25P03", "25P04", "40")
"""Codes of errors that pass: a lost connection, a shutdown, no room, a server that is a standby, a transaction that
was ended because it stood still or took too long, a deadlock, a statement that was cancelled or waited for too long."""
_ENCODINGS: Final = ("UTF8", "SQL_ASCII")
"""Encodings that take all text in UTF-8; the second one stores it as it comes."""
_WAIT_ENDED: Final = "SyncRepWaitForLSN"
"""The function of the server that says so. Its words are in the server's language."""

logging.getLogger("asyncpg").setLevel(logging.ERROR)

FAILURES: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""What a call of the library raises because of the database or the network.

An `InternalClientError` means that the server's last answer and the connection's end were read at once, as they are by
a daemon that stood still. The library takes such a connection for a living one.
"""

UNUSABLE: Final = asyncpg.exceptions.ClientConfigurationError
"""A `ValueError` of the library: no connection can be made with such a dsn."""

log = structlog.get_logger("spool")

Link = Any
"""An `asyncpg.Connection`; the library has no types."""


class Address(NamedTuple):
    """Where a spool is: the database and the schema. `name` is the spool's name, for messages."""

    name: str
    dsn: str
    schema: str


class StorageAway(StorageFull):
    """The database does not answer, or takes nothing now. The same call may succeed later."""


def storage_error(name: str, error: BaseException, text: str = "") -> StorageError:
    """The error of the spool for an error of the database. `text` replaces the words of the error."""
    if isinstance(error, StorageError):
        return error
    code = str(getattr(error, "sqlstate", None) or "")
    text = f"{name}: {text or _words(error)}"
    if not code or code.startswith(_AWAY):
        return StorageAway(text)
    return StorageError(text)


def _words(error: BaseException) -> str:
    """The words of an error. Its detail may quote stored values, so it is left out."""
    if isinstance(error, asyncpg.exceptions.ConnectionDoesNotExistError):
        return "the connection to the database broke"
    if isinstance(error, asyncpg.PostgresError):
        words = str(error.args[0]).splitlines() if error.args else []
        return words[0] if words else f"the database answers with the error {error.sqlstate}"
    if isinstance(error, TimeoutError):
        return "the database does not answer"
    return "the connection to the database is lost"


def _why_not(error: BaseException) -> str:
    """Why a server could not be connected to."""
    if isinstance(error, asyncpg.exceptions.TargetServerAttributeNotMatched):
        return "takes no writes: it is a standby, or read-only by a setting"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_WITHIN:g} s"
    return _why_unreached(error) if isinstance(error, OSError) else _words(error)


def _why_unreached(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "TLS fails"
    if "SSL" in str(error):  # the library's own words, without a number
        return "has no TLS, which sslmode asks for"
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    return os.strerror(error.errno) if error.errno else "the connection broke"


@asynccontextmanager
async def translated(name: str) -> AsyncIterator[None]:
    """Raise the database's errors as errors of the spool."""
    try:
        yield
    except FAILURES as error:
        raise storage_error(name, error) from None


async def connect(address: Address, *, idle_in_transaction: float = 0.0) -> Link:
    """Open a connection whose search path is the spool's schema. Raises `StorageError`.

    The server ends it once it has been idle within a transaction for `idle_in_transaction` seconds; 0: never.
    """
    settings = {
        "search_path": f'"{address.schema}"',
        "application_name": "poller",
        "statement_timeout": "0",
        "lock_timeout": "0",
        "default_transaction_isolation": "read committed",  # a lock is taken before what it guards is read
        "client_min_messages": "warning",  # see `EndedWaits`
        "idle_in_transaction_session_timeout": str(int(idle_in_transaction * 1000)),
    }
    try:
        servers = _servers(address.dsn)
        return await _first_of([partial(_connect_to, dsn, settings) for dsn in servers.values()])
    except (ValueError, OverflowError):  # a text that may quote the password; a port beyond all ports
        text = f"the dsn cannot be read, or a certificate that it names is missing; it is written {FORM}"
        raise StorageError(f"{address.name}: {text}") from None
    except NoServerError as failure:
        reasons = [f"{server}: {_why_not(one)}" for server, one in zip(servers, failure.errors, strict=True)]
        text = f"cannot connect to the database: {'; '.join(reasons)}"
        raise storage_error(address.name, failure.worst, text) from None


async def _connect_to(dsn: str, settings: dict[str, str]) -> Link:
    link = await asyncpg.connect(
        dsn, timeout=CONNECT_WITHIN, target_session_attrs="read-write", server_settings=settings
    )
    try:
        _watch(link)
    except OSError:
        link.terminate()
        raise
    return link


def _servers(dsn: str) -> dict[str, str]:
    """The servers that an address names, each with an address of its own. Raises `ValueError`."""
    parts = urlsplit(dsn)
    login, at, hosts = parts.netloc.rpartition("@")
    each = hosts.split(",")
    if len(each) > 1 and "" in each:
        raise ValueError("a server is missing")
    if len(each) == 1:
        return {_with_port(hosts) or "its server": dsn}
    return {_with_port(host): parts._replace(netloc=f"{login}{at}{host}").geturl() for host in each}


def _with_port(host: str) -> str:
    return host if not host or re.search(r":\d+$", host) else f"{host}:5432"


class NoServerError(Exception):
    """No attempt succeeded. `errors` has the error of each. `worst` says more than that a server was not reached, or
    is the last."""

    def __init__(self, errors: Sequence[BaseException]) -> None:
        super().__init__()
        self.errors = errors
        self.worst = next((error for error in errors if not isinstance(error, OSError)), errors[-1])


async def _first_of(attempts: Sequence[Callable[[], Awaitable[Link]]]) -> Link:
    """The connection of the first attempt that succeeds. The next one begins when one has failed, or takes long.

    So a server that has vanished does not keep a daemon from the one that took its place. Raises `NoServerError` if
    all fail, and at once the error of a dsn that cannot be used.
    """
    left, running, all_begun = list(attempts), list[asyncio.Future[Link]](), list[asyncio.Future[Link]]()
    try:
        while left or running:
            if left:
                running.append(asyncio.ensure_future(left.pop(0)()))
                all_begun.append(running[-1])
            patience = NEXT_AFTER if left else None
            await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for attempt in [one for one in running if one.done()]:
                running.remove(attempt)
                if (error := attempt.exception()) is None:
                    return attempt.result()
                if not isinstance(error, FAILURES) or isinstance(error, UNUSABLE):
                    raise error
    finally:
        for attempt in running:
            attempt.cancel()
            attempt.add_done_callback(_drop)
    raise NoServerError([error for one in all_begun if (error := one.exception()) is not None])


def _drop(attempt: "asyncio.Future[Link]") -> None:
    """End a connection that is not needed."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().terminate()


def _watch(link: Link) -> None:
    """Let the kernel end a connection whose server has vanished without a word, as when its machine loses power.

    What waits for an answer would wait for ever. A server that is busy answers the kernel's questions. Raises
    `OSError` for a connection that has ended meanwhile.
    """
    wire = link._transport.get_extra_info("socket")  # the library has no way of its own
    if wire is None or wire.fileno() < 0:
        raise ConnectionResetError
    if wire.family in (socket.AF_INET, socket.AF_INET6):
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in SILENCE.items():
            wire.setsockopt(socket.IPPROTO_TCP, option, value)


class Outage:
    """Says in the log when the database goes away, and when it is back: once, whichever connection sees it.

    `away` is the outage that goes on. `name` is the spool's name.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self.away: Away | None = None

    def begin(self, failure: StorageError) -> None:
        """The database does not answer, or takes nothing."""
        if self.away is None:
            log.warning("database_away", reason=str(failure))
            why = str(failure).removeprefix(f"spool {self._name}: ")
            self.away = Away(since=self._clock.now(), why=why)

    def end(self) -> None:
        """The database answers."""
        if self.away is not None:
            log.info("database_back")
        self.away = None


class EndedWaits:
    """Hears when the server stopped waiting for its synchronous standby: such a commit may be lost with the server."""

    def __init__(self, link: Link) -> None:
        self._heard = False
        link.add_log_listener(self._hear)

    def _hear(self, link: Link, message: Any) -> None:
        if getattr(message, "server_source_function", None) == _WAIT_ENDED:
            self._heard = True

    def take(self) -> bool:
        """Whether one was heard since the last call."""
        heard, self._heard = self._heard, False
        return heard


async def refuse_unsafe(name: str, link: Link) -> None:
    """Raise `StorageError` if a spool in this database would not be safe."""
    if found := await _refusals(link):
        raise StorageError(f"{name}: {'; '.join(found)}")


async def _refusals(link: Link) -> list[str]:
    found = []
    if await link.fetchval("SELECT current_setting('fsync')") != "on":
        found.append("fsync is off: a power cut loses what was committed; set it to on and reload the server")
    level = await link.fetchval("SELECT current_setting('synchronous_commit')")
    if level in ("off", "local"):
        role = await link.fetchval("SELECT quote_ident(current_user)")
        found.append(
            f"synchronous_commit is {level}: a commit is confirmed before it is safe;"
            f" ALTER ROLE {role} SET synchronous_commit = on"
        )
    encoding = await link.fetchval("SELECT current_setting('server_encoding')")
    if encoding not in _ENCODINGS:
        found.append(
            f"the database has the encoding {encoding}, which lacks most characters: make one in UTF8"
        )
    pid = await link.fetchval("SELECT pg_backend_pid()")
    if pid != link.get_server_pid():
        found.append("a pooler stands before the database (such as PgBouncer): name the server itself")
    return found


async def lacks_standby(link: Link) -> bool:
    """Whether no synchronous standby confirms commits: then a lost server loses what it has confirmed."""
    return not await link.fetchval("SELECT current_setting('synchronous_standby_names')")
