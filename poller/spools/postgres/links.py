"""Connections to the database of a spool, and its errors as errors of the spool."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import asyncpg
import structlog

from poller.core.errors import StorageError, StorageFull

CONNECT_WITHIN: Final = 5.0
ANSWER_WITHIN: Final = 30.0
"""Seconds for one statement of a question. A statement that writes may wait for a standby, and has no limit."""
FORM: Final = (
    "postgresql://user:password@host:5432/name, with signs such as @ : / in the password as %40 %3A %2F"
)
_AWAY: Final = ("08", "57P", "57014", "53", "55P03", "25006", "25P03", "40")
"""Codes of errors that pass: a lost connection, a shutdown, no room, a server that is a standby, a transaction that
was ended because it stood still, a deadlock, a statement that was cancelled or waited for too long."""
_WAIT_ENDED: Final = "canceling wait for synchronous replication"

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


def storage_error(name: str, error: BaseException) -> StorageError:
    """The error of the spool for an error of the database."""
    if isinstance(error, StorageError):
        return error
    code = str(getattr(error, "sqlstate", None) or "")
    text = f"spool {name}: {_words(error)}"
    if not code or code.startswith(_AWAY):
        return StorageAway(text)
    return StorageError(text)


def _words(error: BaseException) -> str:
    """The words of an error. Its detail may quote stored values, so it is left out."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.args[0]).splitlines()[0] if error.args else type(error).__name__
    if isinstance(error, TimeoutError):
        return "the database does not answer"
    if isinstance(error, OSError):
        return f"cannot connect to the database: {error.strerror or type(error).__name__}"
    return f"the connection to the database is lost ({type(error).__name__})"


@asynccontextmanager
async def translated(name: str) -> AsyncIterator[None]:
    """Raise the database's errors as errors of the spool."""
    try:
        yield
    except asyncpg.exceptions.ClientConfigurationError:
        raise ValueError from None
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
        "idle_in_transaction_session_timeout": str(int(idle_in_transaction * 1000)),
    }
    try:
        async with translated(address.name):
            return await asyncpg.connect(
                address.dsn,
                timeout=CONNECT_WITHIN,
                target_session_attrs="read-write",
                server_settings=settings,
            )
    except ValueError:  # its text may quote the password
        raise StorageError(f"spool {address.name}: the dsn cannot be read; it is written {FORM}") from None


class Outage:
    """Says in the log when the database goes away, and when it is back: once, whichever connection sees it."""

    def __init__(self) -> None:
        self._begun = False

    def begin(self, failure: StorageError) -> None:
        """The database does not answer, or takes nothing."""
        if not self._begun:
            log.warning("database_away", reason=str(failure))
        self._begun = True

    def end(self) -> None:
        """The database answers."""
        if self._begun:
            log.info("database_back")
        self._begun = False


class EndedWaits:
    """Hears when the server stopped waiting for its synchronous standby: such a commit may be lost with the server."""

    def __init__(self, link: Link) -> None:
        self._heard = False
        link.add_log_listener(self._hear)

    def _hear(self, link: Link, message: Any) -> None:
        if _WAIT_ENDED in str(message):
            self._heard = True

    def take(self) -> bool:
        """Whether one was heard since the last call."""
        heard, self._heard = self._heard, False
        return heard


async def refusals(link: Link) -> list[str]:
    """Why a spool in this database would not be safe; empty if nothing speaks against it."""
    found = []
    if await link.fetchval("SELECT current_setting('fsync')") != "on":
        found.append("fsync is off: a power cut loses what was committed")
    level = await link.fetchval("SELECT current_setting('synchronous_commit')")
    if level in ("off", "local"):
        found.append(f"synchronous_commit is {level}: a commit is confirmed before it is safe")
    pid = await link.fetchval("SELECT pg_backend_pid()")
    if pid != link.get_server_pid():
        found.append("a pooler stands before the database (such as PgBouncer): name the server itself")
    return found


async def lacks_standby(link: Link) -> bool:
    """Whether no synchronous standby confirms commits: then a lost server loses what it has confirmed."""
    return not await link.fetchval("SELECT current_setting('synchronous_standby_names')")
